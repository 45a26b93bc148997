"""Tests of lists in the cells of tables, in every notation, against the lists that were written."""

import json

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.formats.tables import cell_list
from dataset_scripts.opening import open_corpus
from tests.shared_data import property_test


def test_cells_of_a_table_are_lists(tmp_path):
    """If it failed, words in a table's cell would be one long word."""
    path = tmp_path / "posts.tsv"
    rows = ["tokens\tner_tags", *(f"Jordan {number}\tB-PER O" for number in range(10))]
    rows += [f'"[""San Marino"", ""{number}""]"\t"[\'B-LOC\', \'O\']"' for number in range(10)]
    path.write_text("\n".join(rows), encoding="utf-8")
    corpus = open_corpus(str(path))
    tokens = {row["tokens"][0] for rows in corpus.splits.values() for row in rows}
    assert tokens == {"Jordan", "San Marino"}


ODD_WORDS = (
    "Lima",
    "it's",
    '"so"',
    'it\'s "so"',
    "7",
    "-1",
    ".",
    "...",
    "[",
    "]",
    "array",
    "a\\b",
    "",
    " ",
    "😍",
)


@property_test
@given(st.lists(st.sampled_from(ODD_WORDS), min_size=1, max_size=40))
def test_cells_in_numpy_s_notation_are_lists(words):
    """Regression: of a list as `datasets.to_csv` writes it, without commas, all words were read as one."""
    for cell in (str(np.array(words, dtype=object)), str(words), json.dumps(words)):
        assert cell_list(cell if cell[0] == "[" else f"[{cell}]", "tokens", "a:1") in (words, [words])


def test_csv_of_datasets_is_read_as_it_was(tmp_path):
    """Regression: from `datasets.to_csv` came posts of one word, ``Limarain0``, with the tag ``B-LOCO``."""
    rows = [
        {"tokens": ["Lima", f"rain{n}", *["it's"] * 40], "ner_tags": ["B-LOC", *["O"] * 41]}
        for n in range(10)
    ]
    spans = [
        {"text": f"Lima {n}", "spans": [{"start": 0, "end": 4, "label": "LOC"}] * (1 + n % 2)}
        for n in range(10)
    ]
    for name, posts in {"words.csv": rows, "spans.csv": spans}.items():
        datasets.Dataset.from_list(posts).to_csv(tmp_path / name)
    splits = open_corpus(str(tmp_path / "words.csv")).splits.values()
    assert sorted(row["tokens"] for part in splits for row in part) == [row["tokens"] for row in rows]
    corpus = open_corpus(str(tmp_path / "spans.csv"))
    assert corpus.labels == ["O", "B-LOC", "I-LOC"] and len(corpus.left_out) == 5
    assert all(row["ner_tags"] == [1, 0] for part in corpus.splits.values() for row in part)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("[0 1\n -1]", [0, 1, -1]),
        ("[[0 4 'LOC']\n [5 9 'PER']]", [[0, 4, "LOC"], [5, 9, "PER"]]),
        ("[Photo] Lima", ["[Photo]", "Lima"]),
        ("[1] [2]", ["[1]", "[2]"]),
        ("[]", []),
    ],
)
def test_cell_is_the_list_that_was_written(cell, expected):
    """If it failed, a table's lists would be read as others, or words in brackets as lists."""
    assert cell_list(cell, "tokens", "a:1") == expected


@pytest.mark.parametrize(
    "cell",
    [str(np.array([f"w{n}" for n in range(2000)], dtype=object)), str(np.arange(2000)), "['Lima', 'ra"],
)
def test_list_that_is_not_whole_is_refused(cell):
    """Regression: NumPy leaves out the middle of a list of more than 1000, which became words in quotes."""
    with pytest.raises(
        CorpusError, match=r"a:1: expected a whole list in the column tokens, best as JSON, found"
    ):
        cell_list(cell, "tokens", "a:1")
