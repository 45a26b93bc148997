"""Tests of the corpora by name, and of the options of reading them."""

from dataclasses import fields

import pytest

from dataset_scripts.builders.builder import CorpusBuilder, PostsBuilder
from dataset_scripts.corpora import BUILDERS, FOLDER_CORPUS
from dataset_scripts.reading_options import ReadingOptions


def test_each_name_has_its_builder():
    """If it failed, a corpus that --help names could not be opened."""
    assert list(BUILDERS) == ["sample", "twitter2015", "twitter2017", "mmner", "conll"] and len(BUILDERS) == 5
    assert FOLDER_CORPUS in BUILDERS and "imdb" not in BUILDERS and BUILDERS.get("imdb") is None
    for name, builder in BUILDERS.items():
        assert issubclass(builder, CorpusBuilder) and builder.__name__.lower() == name
        assert builder.IS_GENERATED is not issubclass(builder, PostsBuilder)


@pytest.mark.parametrize("item", fields(ReadingOptions), ids=lambda item: item.name)
def test_each_option_of_reading_is_a_builders_too(item):
    """If it failed, an option of the command line would mean something else to builders, or lack help."""
    [default] = [
        getattr(ReadingOptions(), item.name) for other in fields(ReadingOptions) if other.name == item.name
    ]
    assert default == item.metadata["default"] and item.metadata["help"]


def test_options_at_their_default_are_left_to_the_builder():
    """If it failed, Twitter-2015's OTHER would no longer become MISC when a recipe says nothing of types."""
    assert ReadingOptions().given() == {}
    given = {"data_dir": "a", "tag_scheme": "iob1", "rename_types": {"A": "B"}, "repair_orphans": True}
    assert ReadingOptions(**given).given() == given
