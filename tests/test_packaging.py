"""What an installed wheel holds, away from the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
import dataset_scripts, modeling_mmner, train_accelerate
assert all(module.__file__.startswith(sys.argv[1]) for module in (dataset_scripts, modeling_mmner, train_accelerate))
from modeling_mmner.training.recipes import load_recipe, recipe_names
print(",".join(sorted(load_recipe(name).name for name in recipe_names())))
from importlib.resources import files
print(len(files("modeling_mmner.hub").joinpath("card.md.jinja").read_text()) > 0)
from dataset_scripts.sample.sample import generate_posts
print(next(generate_posts("fr", "test", 1)).language)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built with the build backend that is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools keeps a build folder beside the sources, whose stale files would slip into the
    # next wheel.
    unrelated = shutil.ignore_patterns(".*", "build", "outputs", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=unrelated)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(folder.glob("*.whl"))


def test_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """If it failed, an installed package would miss recipes, card template or corpora that an editable
    install still finds.
    """
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    recipes = ",".join(
        sorted(path.stem for path in (ROOT / "modeling_mmner" / "training" / "recipes").glob("*.yaml"))
    )
    assert done.stdout.split() == [recipes, "True", "fr"]


def test_wheel_holds_every_tracked_file_of_its_packages(wheel: Path) -> None:
    """If it failed, a file of a package would be in the repository and not in the wheel."""
    held = set(zipfile.ZipFile(wheel).namelist())
    for package in ("modeling_mmner", "dataset_scripts"):
        files = [
            path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ]
        missing = [str(path.relative_to(ROOT)) for path in files if str(path.relative_to(ROOT)) not in held]
        assert not missing


def test_every_import_is_declared() -> None:
    """If it failed, a fresh environment would lack a package that the code imports."""
    import ast
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def packages(requirements: list[str]) -> set[str]:
        return {re.match(r"[\w-]+", requirement).group().lower() for requirement in requirements}  # type: ignore[union-attr]

    declared = packages(project["dependencies"])
    # Files named after an extra may import what it installs.
    extras = {
        extra: packages(requirements) for extra, requirements in project["optional-dependencies"].items()
    }
    modules = {
        "PIL": "pillow",
        "torchcrf": "pytorch-crf",
        "yaml": "pyyaml",
        "huggingface_hub": "huggingface-hub",
    }
    own = {"modeling_mmner", "dataset_scripts", "train_accelerate"}
    files = [
        *ROOT.glob("modeling_mmner/*.py"),
        *ROOT.glob("dataset_scripts/**/*.py"),
        ROOT / "train_accelerate.py",
    ]
    for path in files:
        known = declared | extras.get(path.stem.partition("_")[0], set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - own:
                assert modules.get(name, name).lower() in known, (
                    f"{path.name} imports {name}, which is not declared"
                )
