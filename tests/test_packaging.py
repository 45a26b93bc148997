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

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modeling_mmner.cli import EXTRAS

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_mmner", "dataset_scripts")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {
    extra: {canonicalize_name((one := Requirement(line)).name): one for line in lines if "mmner[" not in line}
    for extra, lines in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items()
}
"""What each extra requires, and without a name the core."""
FOR_ALL = {extra: set(wanted) for extra, wanted in REQUIRED.items() if extra not in ("test", "dev")}

ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
import dataset_scripts, modeling_mmner, train_accelerate
for module in (dataset_scripts, modeling_mmner, train_accelerate):
    assert module.__file__.startswith(sys.argv[1])
from importlib.metadata import distribution
[command] = distribution("mmner").entry_points.select(group="console_scripts", name="mmner")
assert command.load()(["--help"]) == 0
[component] = distribution("mmner").entry_points.select(group="spacy_factories", name="mmner")
print("component:", component.value)
from modeling_mmner.training.recipes import load_recipe, recipe_names
print("recipes:", ",".join(sorted(load_recipe(name).name for name in recipe_names())))
from dataset_scripts.sample.sample import generate_posts
print("post:", next(generate_posts("fr", "test", 1)).language)
"""


@pytest.mark.slow
def test_wheel_is_whole_and_runs_from_another_folder(tmp_path: Path) -> None:
    """If it failed, an installed package would lack its command, recipes, templates or corpora, which an
    editable install still finds.
    """
    # From a copy: setuptools keeps a build folder beside the sources, whose stale files would slip into the
    # next wheel.
    unrelated = shutil.ignore_patterns(
        ".*", "build", "outputs", "*.egg-info", "*.ipynb", "__pycache__", "tests"
    )
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
    assert done.stdout.splitlines()[-3:] == [
        "component: modeling_mmner.inference.spacy_component:MMNERComponent",
        f"recipes: {','.join(recipes)}",
        "post: fr",
    ]


def test_every_import_is_declared() -> None:
    """If it failed, a fresh environment would lack a package that the code imports; what an extra brings may
    be imported in the room that does without it.
    """
    core, of_extras = FOR_ALL[""], set().union(*FOR_ALL.values())
    known = {"PIL": "pillow", "torchcrf": "pytorch-crf", "yaml": "pyyaml"}
    own = {*PACKAGES, "train_accelerate", *sys.stdlib_module_names}
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    for path in [*files, ROOT / "train_accelerate.py"]:
        may = of_extras if path.parent.name == "inference" else core
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for name in {name.partition(".")[0] for name in names} - own:
                package = known.get(name, name).replace("_", "-").lower()
                assert package in may, f"{path}: {name} is not declared"


def test_extras_that_are_named_exist_and_bring_what_is_missing() -> None:
    """If it failed, a message or a page would say to install an extra that there is not, or the wrong one."""
    for package, extra in EXTRAS.items():
        assert package.partition(".")[0] in FOR_ALL[extra], f"{package} is not brought by {extra}"
    for path in [*ROOT.glob("*.md"), *(one for name in PACKAGES for one in (ROOT / name).rglob("*.*"))]:
        if path.suffix in (".py", ".md", ".jinja", ".ipynb"):
            for named in re.findall(r"""(?:mmner|['"]\.)\[([\w,]+)\]""", path.read_text(encoding="utf-8")):
                assert set(named.split(",")) <= set(REQUIRED), f"{path}: there is no extra {named}"


def test_lock_of_ci_fits_what_is_declared() -> None:
    """If it failed, the locked run of CI could not install, or would leave versions open."""
    lines = (ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    for wanted in (one for wants in REQUIRED.values() for one in wants.values()):
        found = locked.get(canonicalize_name(wanted.name))
        fits = found is not None and wanted.specifier.contains(found)
        assert fits, f"expected {wanted}, found {found} in the lock; `bash .ci/lock` writes it anew"
