"""What an installed wheel holds, away from the checkout."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_mmner", "dataset_scripts")

ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
import dataset_scripts, modeling_mmner, train_accelerate
for module in (dataset_scripts, modeling_mmner, train_accelerate):
    assert module.__file__.startswith(sys.argv[1])
from importlib.metadata import distribution
[command] = distribution("mmner").entry_points.select(group="console_scripts", name="mmner")
assert command.load()(["--help"]) == 0
from modeling_mmner.training.recipes import load_recipe, recipe_names
print("recipes:", ",".join(sorted(load_recipe(name).name for name in recipe_names())))
from dataset_scripts.sample.sample import generate_posts
print("post:", next(generate_posts("fr", "test", 1)).language)
"""


def test_wheel_is_whole_and_runs_from_another_folder(tmp_path: Path) -> None:
    """If it failed, an installed package would lack its command, recipes, templates or corpora, which an
    editable install still finds.
    """
    # From a copy: setuptools keeps a build folder beside the sources, whose stale files would slip into the
    # next wheel.
    unrelated = shutil.ignore_patterns(".*", "build", "outputs", "*.egg-info", "__pycache__", "tests")
    source, site = shutil.copytree(ROOT, tmp_path / "source", ignore=unrelated), tmp_path / "site"
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source]
    done = subprocess.run([sys.executable, *build], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {path.relative_to(source) for package in PACKAGES for path in (source / package).rglob("*.*")}
    assert {str(path) for path in files if (source / path).is_file()} <= held
    assert {name.split("/")[0] for name in held if "dist-info" not in name} == {
        *PACKAGES,
        "train_accelerate.py",
    }

    zipfile.ZipFile(wheel).extractall(site)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", ELSEWHERE, site]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    recipes = sorted(path.stem for path in (ROOT / "modeling_mmner" / "training" / "recipes").glob("*.yaml"))
    assert done.stdout.splitlines()[-2:] == [f"recipes: {','.join(recipes)}", "post: fr"]


def test_every_import_is_declared() -> None:
    """If it failed, a fresh environment would lack a package that the code imports; what an extra brings may
    be imported in the room that does without it.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared, of_extras = (
        {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}  # type: ignore[index]
        for wanted in (project["dependencies"], [*extras["datatrove"], *extras["demo"], *extras["onnx"]])
    )
    known = {"PIL": "pillow", "torchcrf": "pytorch-crf", "yaml": "pyyaml"}
    own = {*PACKAGES, "train_accelerate", *sys.stdlib_module_names}
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    for path in [*files, ROOT / "train_accelerate.py"]:
        may = declared | of_extras if path.parent.name == "inference" else declared
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for name in {name.partition(".")[0] for name in names} - own:
                package = known.get(name, name).replace("_", "-").lower()
                assert package in may, f"{path}: {name} is not declared"
