"""Tests of the leakage guard: by id and by text, against a loop over all pairs of posts, and the figures of
the real corpora.
"""

import json
import unicodedata
from collections import namedtuple

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.builders.builder import corpus_features
from dataset_scripts.opening import Corpus, open_corpus
from dataset_scripts.overlap import overlap_matrix, overlapping
from modeling_mmner.model.labels_mmner import bio_labels
from tests.shared_data import DATA, needs_data, property_test

Overlap = namedtuple("Overlap", "posts by_id by_text either same_id_other_post")
LABELS = bio_labels(["PER", "LOC", "MISC"])
MMNERD_TWITTER = {
    ("train", "train"): 1682,
    ("train", "validation"): 358,
    ("train", "test"): 350,
    ("validation", "train"): 213,
    ("validation", "validation"): 34,
    ("validation", "test"): 46,
    ("test", "train"): 211,
    ("test", "validation"): 45,
    ("test", "test"): 43,
}
"""For a split of MMNERD-en and one of Twitter-2017: shared ids."""


def split(*posts):
    """A split of (id, text) posts; words stand between spaces."""
    rows = []
    for name, text in posts:
        tokens = text.split(" ") if text else []
        row = {"id": name, "tokens": tokens, "ner_tags": [0] * len(tokens), "image": None}
        rows.append(row | {"language": "en", "source": "test"})
    return dataset(rows, corpus_features(LABELS))


def dataset(rows, features):
    """Rows as a data set, which may be empty."""
    columns = {column: [row[column] for row in rows] for column in features}
    return datasets.Dataset.from_dict(columns, features=features)


def overlap(of, found_in):
    """The counts of one pair of splits."""
    [pair] = overlap_matrix(*(Corpus("", {"train": rows}, LABELS, "", {}) for rows in (of, found_in)))[
        "pairs"
    ]
    return Overlap(**{name: pair[name] for name in Overlap._fields})


def normalised(tokens):
    return unicodedata.normalize("NFKC", " ".join(tokens)).casefold()


def alike(one, other):
    """Whether two token lists share half of their letter triples; with the same text they do in any case."""
    sets = []
    for text in ("".join(normalised(tokens).split()) for tokens in (one, other)):
        sets.append({"".join(triple) for triple in zip(text, text[1:], text[2:], strict=False)} or {text})
    return sum(triple in sets[1] for triple in sets[0]) / (len(sets[0]) + len(sets[1])) >= 0.25


def by_hand(of, found_in):
    """The overlap by comparing each post with each; and the positions of the posts found."""
    counts, positions = [0] * 4, []
    for position, row in enumerate(of):
        mates = [other for other in found_in if other["id"] == row["id"] and row["id"]]
        same_id = any(alike(other["tokens"], row["tokens"]) for other in mates)
        same_text = any(normalised(o["tokens"]) == normalised(row["tokens"]) for o in found_in)
        facts = [same_id, same_text, same_id or same_text, bool(mates) and not same_id]
        counts = [count + fact for count, fact in zip(counts, facts, strict=True)]
        positions += [position] if facts[2] else []
    return Overlap(len(of), *counts), positions


@st.composite
def splits(draw):
    """A few posts with ids and words that are likely to meet others."""
    names = st.sampled_from(["0", "1", "O_12", "17_06_3", "", None])
    words = [
        *("Paris", "PARIS", "Ｐａｒｉｓ", "Straße", "strasse", "caf\u00e9", "cafe\u0301"),
        *(":", ")", ":)", "a\u00a0b"),
    ]
    rows = []
    tokens_of = st.lists(st.sampled_from(words), max_size=4)
    for name, tokens in draw(st.lists(st.tuples(names, tokens_of), max_size=6)):
        rows.append({"id": name, "tokens": tokens})
    features = datasets.Features({key: corpus_features(LABELS)[key] for key in ("id", "tokens")})
    return dataset(rows, features)


@settings(property_test, max_examples=40)
@given(splits(), splits())
def test_counts_are_those_of_a_loop_over_all_pairs(one, other):
    """If it failed, the indexes would miss posts, or count some twice, where ids or texts repeat within a
    split, or where it is read in parts.
    """
    found, positions = by_hand(one, other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dataset_scripts.overlap._ROWS_AT_ONCE", 2)
        assert overlap(one, other) == found
        assert overlapping(one, other) == positions


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("Ｐａｒｉｓ ！", "Paris !", True),
        ("PARIS", "paris", True),
        ("Die Straße", "die STRASSE", True),
        ("caf\u00e9 ni\u00f1o", "cafe\u0301 nin\u0303o", True),
        ("ﬁn ½", "fin 1⁄2", True),
        ("new\u00a0york", "New York", True),
        *(("café", "cafe", False), ("a b", "ab", False), ("Paris !", "Paris", False)),
    ],
)
def test_normalised_texts_are_the_same(one, other, is_same):
    """If it failed, a repeat written with other characters for the same letters would go unseen, or posts be
    thrown out of training that no held-out split has.
    """
    found = overlap(split(("a", one)), split(("b", other)))
    assert found == (1, 0, is_same, is_same, 0)
    assert overlapping(split(("a", one)), split(("b", other))) == ([0] if is_same else [])


def test_an_id_counts_where_words_are_split_elsewhere():
    """If it failed, tweets that another corpus cut into other tokens would leak: neither their text nor their
    tokens match.
    """
    twitter = split(("17_06_6555", "Good Morning :) Wake up"), ("O_7", "24.06 | Justin via Instagram"))
    cut = [
        ("17_06_6555", "Good Morning : ) Wake up"),
        ("O_7", "24 . 06 | Justin via Instagram"),
        ("c---d", "x"),
    ]
    assert overlap(twitter, split(*cut)) == (2, 2, 0, 2, 0)
    assert overlapping(split(*cut), twitter) == [0, 1]


def test_texts_of_one_id_are_alike_from_half_of_their_triples_on():
    """If it failed, the line between a post cut otherwise and another post of the same number would lie
    elsewhere than stated.
    """
    alike, unlike = ("abcd", "ab cd", "ABCE", "abc"), ("abxy", "abcxyz", "")
    for text in (*alike, *unlike):
        found = overlap(split(("7", "abcd")), split(("7", text)))
        assert (found.by_id, found.same_id_other_post) == (int(text in alike), int(text in unlike)), text


def test_pictures_are_never_read():
    """If it failed, comparing two corpora would decode gigabytes of pictures, or stop at the first broken
    one.
    """
    rows = split(("a", "Paris !"), ("b", "rain")).remove_columns("image")
    missing = [{"bytes": None, "path": "/nowhere/picture.jpg"}] * 2
    rows = rows.add_column("image", missing).cast_column("image", datasets.Image())
    with pytest.raises(FileNotFoundError):
        rows[0]
    assert overlap(rows, rows).either == 2 and overlapping(rows.with_format("arrow"), rows) == [0, 1]


def test_matrix_of_two_corpora_and_of_one():
    """If it failed, the card would show a figure beside the wrong pair of splits, or could not be written as
    JSON.
    """
    ours = {"train": split(("a", "one"), ("b", "two")), "test": split(("c", "three"))}
    theirs = {"validation": split(("c", "Three"), ("x", "three"), ("y", "TWO"))}
    first = Corpus("first", ours, LABELS, "official", {"train": "1", "test": "2"})
    second = Corpus("second", theirs, LABELS, "unverified", {"validation": "3"})
    zeros = {"same_id_other_post": 0}
    validation = {"of": "validation", "posts": 3} | zeros
    expected = {
        "of": {"name": "second", "version_name": "unverified", "version": {"validation": "3"}},
        "found_in": {"name": "first", "version_name": "official", "version": {"train": "1", "test": "2"}},
        "pairs": [
            validation | {"found_in": "train", "by_id": 0, "by_text": 1, "either": 1},
            validation | {"found_in": "test", "by_id": 1, "by_text": 2, "either": 2},
        ],
    }
    assert json.loads(json.dumps(overlap_matrix(second, first))) == expected
    back = [(pair["found_in"], pair["of"]) for pair in overlap_matrix(first, second)["pairs"]]
    assert back == [("validation", "train"), ("validation", "test")]
    inside = overlap_matrix(first)
    assert inside["of"] == inside["found_in"] == expected["found_in"]
    [pair] = inside["pairs"]
    assert (
        pair == {"found_in": "train", "of": "test", "posts": 1, "by_id": 0, "by_text": 0, "either": 0} | zeros
    )
    assert overlap_matrix(second)["pairs"] == []


@pytest.fixture(scope="module")
def corpora():
    """Two real corpora of posts, each opened once."""
    return {
        "twitter2017": open_corpus("twitter2017", data_dir=DATA / "twitter2017"),
        "mmner": open_corpus("mmner", config="en", data_dir=DATA / "mmnerd_en"),
    }


@pytest.mark.slow
@needs_data
def test_posts_of_twitter2017_in_mmnerd(corpora):
    """If it failed, the published leakage between the two corpora would not be found."""
    pairs = overlap_matrix(corpora["twitter2017"], corpora["mmner"])["pairs"]
    found = {(pair["found_in"], pair["of"]): pair["by_id"] for pair in pairs}
    assert found == MMNERD_TWITTER
    assert all(pair["same_id_other_post"] == 0 for pair in pairs)
