"""Tests of what imports what: one way between the packages, no circle, nothing heavy before it is needed."""

import ast
import json
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.elsewhere import run_elsewhere

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_mmner", "dataset_scripts")
HEAVY = {"torch", "transformers", "timm", "accelerate", "torchcrf", "gradio"}
# Of modeling_mmner, what may know of corpora: the command line and the training files.
MAY_IMPORT_CORPORA = {"annotate_command", "cli", "model_commands", "recipes", "training", "training_corpus", "evaluation"}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_in(node: ast.AST, *, within_functions: bool) -> list[ast.Import | ast.ImportFrom]:
    found = []
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child) or (isinstance(child, ast.FunctionDef) and not within_functions):
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
        base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])]) if node.level else node.module
        found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
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
    graph = {name: {one for one in imported(name) if one in MODULES and one not in PACKAGES} for name in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"files import each other: {' -> '.join(error.args[1])}")


def test_corpora_import_nothing_heavy():
    """If it failed, reading a tag scheme would load torch."""
    for name in MODULES:
        if name.startswith("dataset_scripts"):
            ours = {one for one in imported(name) if one.startswith("modeling_mmner")}
            assert not [one for one in ours if loaded(one) & HEAVY], f"{name} imports a file that loads something heavy"
            assert not loaded(name) & HEAVY, f"{name} loads {loaded(name) & HEAVY}"


def test_the_arrow_points_one_way():
    """If it failed, the models' side would need the corpora's to be loaded, and a model's code be about corpora."""
    found = {
        name.removeprefix("modeling_mmner.")
        for name in MODULES
        if name.startswith("modeling_mmner") and any(one.startswith("dataset_scripts") for one in imported(name))
    }
    assert found <= MAY_IMPORT_CORPORA


def test_travelling_files_import_what_travels():
    """If it failed, a saved model would import a file that it does not bring."""
    allowed = {"torch", "transformers", "tokenizers", "timm", "torchcrf", "PIL", "numpy"}
    for name in (name for name in MODULES if name.endswith("_mmner") and name not in PACKAGES):
        ours = {one for one in imported(name) if one in MODULES}
        assert all(one.endswith("_mmner") and one not in PACKAGES for one in ours), f"{name} imports {ours}"
        assert not (imported(name) - ours) & (HEAVY | {"datasets", "rich", "yaml", "jinja2"}) - allowed


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
    found[name] = [heavy(), time.process_time() - started]
import modeling_mmner, dataset_scripts.schemes, dataset_scripts.commands
found["packages"] = [heavy(), 0]
print(json.dumps(found), file=sys.stderr)
"""


def test_help_and_imports_load_nothing_heavy(tmp_path):
    """Regression: `--help` took ten seconds, since the packages loaded torch, transformers and datasets before they answered."""
    asked = [["modeling_mmner", ["--help"]], [str(ROOT / "train_accelerate.py"), ["--help"]]]
    done = run_elsewhere(LIGHT, json.dumps(asked), folder=tmp_path, blocked=("torch",), PYTHONPATH=ROOT)
    found = json.loads(done.stderr.splitlines()[-1])
    assert {name: modules for name, (modules, _) in found.items()} == {name: [] for name in found}
    assert all(seconds < 1 for _, seconds in found.values()), found


REGISTERED = """
import sys
order = sys.argv[1]
if order == "before":
    import transformers.models.auto.modeling_auto, transformers.pipelines
import modeling_mmner
assert order == "before" or "transformers" not in sys.modules
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
config = AutoConfig.from_pretrained(sys.argv[2])
model, processor = AutoModel.from_pretrained(sys.argv[2]), AutoProcessor.from_pretrained(sys.argv[2])
assert (type(config), type(processor)) == (modeling_mmner.MMNERConfig, modeling_mmner.MMNERProcessor)
assert type(model) is modeling_mmner.MMNERForTokenClassification
assert type(pipeline("multimodal-ner", model=model, processor=processor)) is modeling_mmner.MultimodalNERPipeline
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_bare_import_registers_the_classes(order, tmp_path):
    """If it failed, `import modeling_mmner` would not make transformers know our models, in one of the two orders of import."""
    saved = Path(__file__).parent / "version_0_1"
    run_elsewhere(REGISTERED, order, saved, folder=tmp_path, blocked=(), PYTHONPATH=ROOT)
