"""Tests of what imports what: one way between the packages, no circle, nothing heavy before it is needed."""

import ast
import json
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.elsewhere import run_elsewhere
from tests.saved import save_small

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_mmner", "dataset_scripts")
HEAVY = {"torch", "transformers", "timm", "accelerate", "torchcrf", "gradio"}
ORDER = (
    "model", "files", "escaping", "dataset_scripts", "evaluation", "training", "hub", "inference",
    "train_accelerate", "cli",
)  # fmt: skip
"""Each room imports only itself and those before it; `files` shares its place with `RANK`'s others."""
RANK = {room: ORDER.index(room) for room in ORDER} | dict.fromkeys(("claims", "escaping", "names"), 1)
ABOVE_ALL = {"modeling_mmner", "modeling_mmner.__main__"}
"""The public names, and the command line as a module."""


def room_of(name: str) -> str:
    """The room of a module, as modeling_mmner.hub.push -> hub."""
    first, *rest = name.split(".")
    return rest[0] if first == "modeling_mmner" else first


def imports_in(node: ast.AST, *, within_functions: bool) -> list[ast.Import | ast.ImportFrom]:
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) and not within_functions:
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING" and not within_functions:
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            found.append(child)
        found += imports_in(child, within_functions=within_functions)
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
MODULES["train_accelerate"] = ROOT / "train_accelerate.py"


@cache
def imported(name: str, *, within_functions: bool = True) -> frozenset[str]:
    """What a module imports: files of ours by their full name, other packages by their first."""
    path, found = MODULES[name], set()
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in imports_in(ast.parse(path.read_text(encoding="utf-8")), within_functions=within_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = (
            ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            if node.level
            else node.module
        )
        found |= {
            f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names
        }
    return frozenset(one if one in MODULES else one.partition(".")[0] for one in found) - {name}


@cache
def loaded(name: str) -> frozenset[str]:
    """All that importing a module loads, of ours and others."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for one in imported(waiting.pop(), within_functions=False) - found:
            found.add(one)
            waiting += [one] if one in MODULES else []
    return frozenset(found)


def test_no_circle():
    """If it failed, two files could not be read, moved or tested one without the other."""
    graph = {
        name: {one for one in imported(name) if one in MODULES and one not in PACKAGES} for name in MODULES
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"files import each other: {' -> '.join(error.args[1])}")


def test_corpora_import_nothing_heavy():
    """If it failed, reading a tag scheme would load torch."""
    for name in MODULES:
        if name.startswith("dataset_scripts"):
            ours = {one for one in imported(name) if one.startswith("modeling_mmner")}
            assert not [one for one in ours if loaded(one) & HEAVY], (
                f"{name} imports a file that loads something heavy"
            )
            assert not loaded(name) & HEAVY, f"{name} loads {loaded(name) & HEAVY}"


def test_rooms_import_only_rooms_before_them():
    """If it failed, a room could not be read, tested or replaced without one that stands on it."""
    arrows: dict[str, set[str]] = {}
    for name in MODULES.keys() - ABOVE_ALL:
        for one in imported(name) & MODULES.keys() - ABOVE_ALL:
            if room_of(one) in RANK:  # not the folder of a room
                arrows.setdefault(room_of(name), set()).add(room_of(one))
    for room in ORDER:
        below = sorted(arrows.get(room, set()) - {room}, key=lambda one: (RANK[one], one))
        print(f"{room} -> {', '.join(below) or 'nothing'}")
    upward = {(room, one) for room, ones in arrows.items() for one in ones if RANK[one] > RANK[room]}
    assert not upward


def test_travelling_files_import_what_travels():
    """If it failed, a saved model would import a file that it does not bring."""
    allowed = {"torch", "transformers", "tokenizers", "timm", "torchcrf", "PIL", "numpy"}
    for name in (name for name in MODULES if name.endswith("_mmner") and name not in PACKAGES):
        ours = {one for one in imported(name) if one in MODULES}
        assert all(one.endswith("_mmner") and one not in PACKAGES for one in ours), f"{name} imports {ours}"
        assert not (imported(name) - ours) & (HEAVY | {"datasets", "rich", "yaml", "jinja2"}) - allowed


def test_travelling_files_leave_timm_until_a_picture_encoder_is_built():
    """Regression: a model of text alone loaded timm, since a file imported its wrapper at the top."""
    for name in (name for name in MODULES if name.endswith("_mmner") and name not in PACKAGES):
        nodes = imports_in(ast.parse(MODULES[name].read_text(encoding="utf-8")), within_functions=False)
        assert not [node for node in nodes if "timm" in ast.unparse(node).lower()], name


LIGHT = """
import json, runpy, sys, time
found = {}
HEAVY = {"torch", "transformers", "timm", "datasets", "pandas", "pyarrow", "rich", "matplotlib", "gradio"}
def heavy():
    return sorted(HEAVY & sys.modules.keys())
for name, arguments in json.loads(sys.argv[1]):
    started, sys.argv = time.process_time(), [name, *arguments]
    try:
        (runpy.run_path if name.endswith(".py") else runpy.run_module)(name, run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, name
    found[" ".join([name, *arguments])] = [heavy(), time.process_time() - started]
import modeling_mmner, modeling_mmner.cli, dataset_scripts.formats.schemes
found["packages"] = [heavy(), 0]
print(json.dumps(found), file=sys.stderr)
"""


def test_help_and_imports_load_nothing_heavy(tmp_path):
    """Regression: `--help` took ten seconds, since the packages loaded torch, transformers and datasets
    before they answered.
    """
    commands = ([], ["predict"], ["train"], ["build"])
    asked = [["modeling_mmner", [*command, "--help"]] for command in commands]
    asked.append([str(ROOT / "train_accelerate.py"), ["--help"]])
    done = run_elsewhere(LIGHT, json.dumps(asked), folder=tmp_path, blocked=("torch",), PYTHONPATH=ROOT)
    found = json.loads(done.stderr.splitlines()[-1])
    assert {name: modules for name, (modules, _) in found.items()} == {name: [] for name in found}
    assert all(seconds < 1 for _, seconds in found.values()), found


REGISTERED = """
import sys
import modeling_mmner
assert "transformers" not in sys.modules
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
model = sys.argv[1]
try:
    AutoModel.from_pretrained(model, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
else:
    raise AssertionError("something has registered the classes already")
ner = modeling_mmner.load(model)
loaded, processor = ner.model, ner.processor
assert type(AutoConfig.from_pretrained(model)) is modeling_mmner.MMNERConfig
assert type(AutoProcessor.from_pretrained(model)) is type(processor) is modeling_mmner.MMNERProcessor
assert type(AutoModel.from_pretrained(model)) is type(loaded) is modeling_mmner.MMNERForTokenClassification
pipe = pipeline("multimodal-ner", model=loaded, processor=processor)
assert type(pipe) is type(ner) is modeling_mmner.MultimodalNERPipeline
"""


@pytest.mark.slow
def test_the_first_public_name_registers_all(tmp_path):
    """If it failed, `modeling_mmner.load` or a class would not make transformers know our models, or whoever
    uses transformers alone would not be told what to say.
    """
    saved = save_small(tmp_path / "model")
    run_elsewhere(REGISTERED, saved, folder=tmp_path, blocked=(), PYTHONPATH=ROOT)


WAITING = """
import importlib, os, sys
from importlib.abc import MetaPathFinder

class Seen(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, Seen())
importlib.import_module(sys.argv[1])
from modeling_mmner.training import processes
"""


@pytest.mark.parametrize(
    "door", ["train_accelerate", "modeling_mmner.__main__", "modeling_mmner", "tests.conftest"]
)
@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "active"}], ids=["default", "set"])
def test_how_threads_wait_is_settled_before_torch_is_loaded(tmp_path, monkeypatch, door, given):
    """Regression: beside busy processes a step took ten times as long: waiting threads held their cores."""
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    done = run_elsewhere(WAITING, door, folder=tmp_path, blocked=(), PYTHONPATH=ROOT, **given)
    assert done.stdout.split() == (["active", "None"] if given else ["passive", "5000"])
