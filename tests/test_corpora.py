"""Tests of the corpora by name, of the options of reading them, and of what importing either loads."""

import argparse
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import dataset_scripts
from dataset_scripts.builder import CorpusBuilder, PostsBuilder, PostsConfig
from dataset_scripts.commands import add_corpus_commands
from dataset_scripts.corpora import BUILDERS, FOLDER_CORPUS
from dataset_scripts.reading_options import ReadingOptions, default_of

ROOT = Path(dataset_scripts.__file__).parent
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "matplotlib", "rich", "numpy", "PIL")


def loaded_by(*modules: str) -> set[str]:
    """What a new Python has of the heavy packages once it has imported some modules."""
    code = f"import sys, {', '.join(modules)}; print(*[name for name in {HEAVY} if name in sys.modules])"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_names_options_and_commands_load_nothing_heavy():
    """If it failed, --help and reading a tag scheme would take seconds; they did, for `datasets` and torch."""
    light = ("schemes", "reader", "reading_options", "corpora", "commands", "slices", "sample.texts")
    assert loaded_by(*(f"dataset_scripts.{name}" for name in light)) <= {"PIL", "numpy"}
    assert loaded_by("dataset_scripts.schemes", "dataset_scripts.commands") == set()


def test_no_file_about_corpora_loads_torch():
    """If it failed, building and looking at corpora would wait for a deep-learning framework that they have no use for."""
    files = [path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py") if path.stem != "__init__"]
    assert not {"torch", "transformers"} & loaded_by(*(".".join(["dataset_scripts", *path.parts]) for path in files))


def test_each_name_has_its_builder():
    """If it failed, a corpus that --help names could not be opened."""
    assert list(BUILDERS) == ["sample", "twitter2015", "twitter2017", "mmner", "conll"] and len(BUILDERS) == 5
    assert FOLDER_CORPUS in BUILDERS and "imdb" not in BUILDERS and BUILDERS.get("imdb") is None
    for name, builder in BUILDERS.items():
        assert issubclass(builder, CorpusBuilder) and builder.__name__.lower() == name
        assert builder.IS_GENERATED is not issubclass(builder, PostsBuilder)


def test_only_the_generated_corpus_knows_its_chance_level():
    """If it failed, a report would compare real posts with a figure of the generated ones, or these with none."""
    assert {name for name, builder in BUILDERS.items() if builder.chance(["en"]) is not None} == {"sample"}


@pytest.mark.parametrize("item", fields(ReadingOptions), ids=lambda item: item.name)
def test_each_option_is_listed_once(item):
    """If it failed, an option of the builders would be missing from the command line, or mean something else there."""
    parser = argparse.ArgumentParser()
    add_corpus_commands(parser.add_subparsers())
    [default] = [default_of(other) for other in fields(PostsConfig) if other.name == item.name]
    assert default == default_of(item) and item.metadata["help"]
    for command in ("build-dataset conll --output_dir x", "inspect x", "export-imgid x --output_dir x"):
        assert getattr(parser.parse_args(command.split()), item.name) is None


def test_options_at_their_default_are_left_to_the_builder():
    """If it failed, Twitter-2015's OTHER would no longer become MISC when a recipe says nothing of types."""
    assert ReadingOptions().given() == {}
    given = {"data_dir": "a", "tag_scheme": "iob1", "rename_types": {"A": "B"}, "repair_orphans": True, "no_verify": True}
    assert ReadingOptions(**given).given() == given
