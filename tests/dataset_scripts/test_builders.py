"""Tests of the corpora's builders: columns and labels, languages and sources of MMNERD, and the check of
every picture.
"""

import json
import re
import zlib

import pytest

from dataset_scripts.builders.builder import PostsBuilder, corpus_features
from dataset_scripts.builders.built_corpus import build_dataset
from dataset_scripts.builders.folders import MMNER, PAIRS, Conll, Twitter2015, Twitter2017
from dataset_scripts.formats.reader import CorpusError
from modeling_mmner.model.labels_mmner import bio_labels
from tests.built_corpora import rows_of
from tests.small_corpora import (
    POSTS,
    encoded,
    make,
    png_that_claims,
    write_mmner,
    write_pictures,
    write_posts,
)


@pytest.fixture
def corpus(tmp_path):
    """A folder of three split files."""
    return write_posts(tmp_path / "corpus")


@pytest.fixture
def images(tmp_path):
    """A folder of pictures of some of its posts."""
    return write_pictures(tmp_path / "images")


# Rows.


def test_rows_have_every_column_and_each_split_its_own_posts(corpus, images):
    """If it failed, a row would lack a column, or hold another post's tags, language, source or picture."""
    builder = make(Twitter2017, data_dir=corpus, image_dir=str(images))
    rows = {split: list(builder.rows(split)) for split in ("train", "validation", "test")}
    assert [[row["id"] for row in found] for found in rows.values()] == [
        ["1", "2", "3"],
        ["4", "5"],
        ["6", "7"],
    ]
    expected = [
        ("1", ["Paris", "is", "Paris"], [3, 0, 3], str(images / "1.jpg")),
        ("2", ["Jordan", "Henderson"], [1, 2], str(images / "2.jpg")),
        ("3", ["so"], [0], None),
    ]
    assert rows["train"] == [
        {"id": name, "tokens": tokens, "ner_tags": tags, "language": "en", "source": "tweet"}
        | {"image": path and {"bytes": None, "path": path}}
        for name, tokens, tags, path in expected
    ]
    assert set(rows["train"][0]) == set(corpus_features(builder.labels))


@pytest.mark.parametrize(
    ("kind", "types"),
    [(Twitter2015, "PER LOC ORG MISC"), (Twitter2017, "PER LOC ORG MISC"), (Conll, "LOC MISC PER ORG")],
)
def test_labels_are_in_a_fixed_order(corpus, kind, types):
    """If it failed, label ids of a known corpus would depend on the files; or in another, a type that only
    the test split has would be unknown, or ids change from run to run.
    """
    assert make(kind, data_dir=corpus).labels == bio_labels(types.split())


@pytest.mark.parametrize(
    ("kind", "options", "text", "tags", "notes"),
    [
        (Twitter2015, {}, "a/B-OTHER b/I-OTHER", "B-MISC I-MISC", {"tags renamed from OTHER to MISC": 2}),
        (
            Conll,
            {"tag_scheme": "bioes", "rename_types": {"X": "LOC"}},
            "a/S-X b/E-X",
            "B-LOC B-LOC",
            {"tags in BIOES rewritten as B- and I-": 2, "tags renamed from X to LOC": 2},
        ),
    ],
)
def test_config_says_how_tags_are_read(tmp_path, kind, options, text, tags, notes):
    """If it failed, Twitter-2015 and Twitter-2017 would have different labels for the same thing, an option
    change nothing, or the card not say how much it changed.
    """
    builder = make(
        kind, data_dir=write_posts(tmp_path / "corpus", POSTS | {"train": [("1", text)]}), **options
    )
    [row] = builder.rows("train")
    assert [builder.labels[tag] for tag in row["ner_tags"]] == tags.split()
    assert builder.notes["train"] == notes


def test_unknown_type_is_refused_with_a_hint(tmp_path):
    """If it failed, a type that the corpus should not have would end in a KeyError, or nobody would know how
    to rename it.
    """
    corpus = write_posts(tmp_path / "corpus", POSTS | {"train": [("1", "a/O"), ("2", "a/B-OTHER b/I-OTHER")]})
    message = (
        r"train\.txt:4: expected tags among .*, found \['B-OTHER', 'I-OTHER'\]; .* --rename_types OLD=NEW"
    )
    with pytest.raises(CorpusError, match=message):
        list(make(Twitter2017, data_dir=corpus).rows("train"))


# Languages and sources of MMNERD.


def languages(builder: PostsBuilder) -> list[str]:
    return [row["language"] for row in builder.rows("train")]


def test_posts_with_three_hyphens_in_their_id_are_captions(tmp_path):
    """If it failed, scores by source would mix tweets with web captions, which carry no persons in
    English.
    """
    sources = {"17---x": "caption", "---": "caption", "17_06_1": "tweet", "17--06": "tweet", "1-": "tweet"}
    root = write_mmner(tmp_path / "mmner", fr=[(post_id, "a/O") for post_id in sources])
    rows = list(make(MMNER, config="fr", data_dir=root).rows("train"))
    assert {row["id"]: row["source"] for row in rows} == sources and {row["language"] for row in rows} == {
        "fr"
    }


def test_language_of_a_post_in_all_is_that_of_its_folder(tmp_path):
    """If it failed, results by language on the mixture of all would be wrong, above all where languages share
    an id.
    """
    posts = {"en": [("1", "a/O"), ("2", "b/O")], "fr": [("1", "c/O")], "de": [("3", "d/B-PER")]}
    mixture = [("1", "c/O"), ("4", "e/O"), ("3", "d/O"), ("2", "b/O"), ("5", "a/O")]
    root = write_mmner(tmp_path / "mmner", all_lang=mixture)
    assert languages(make(MMNER, config="all", data_dir=root)) == ["unknown"] * 5
    write_mmner(root, es=[("4", "e/O")], **posts)
    assert languages(make(MMNER, config="all", data_dir=root)) == ["fr", "es", "de", "en", "unknown"]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("is_reversed", [False, True], ids=["in order", "reversed"])
def test_language_of_a_post_in_a_pair_is_that_of_its_folder(tmp_path, pair, is_reversed):
    """If it failed, a pair whose folder is named the other way round would not be found, or its languages be
    mixed up.
    """
    first, second = PAIRS[pair]
    third = next(language for language in ("en", "fr", "de", "es") if language not in PAIRS[pair])
    folders = {first: [("1", "a/O")], second: [("2", "b/O")], third: [("3", "c/O")]}
    name = f"{second}_plus_{first}" if is_reversed else pair
    root = write_mmner(tmp_path / "mmner", **folders, **{name: [("3", "c/O"), ("2", "b/O"), ("1", "a/O")]})
    assert languages(make(MMNER, config=pair, data_dir=root)) == ["unknown", second, first]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("es", "train_valid_test_es"),
        ("all", "train_valid_test_all_lang"),
        ("en_plus_de", "train_valid_test_en_plus_de or train_valid_test_de_plus_en"),
    ],
)
def test_missing_mmner_folder_is_named(tmp_path, config, names):
    """If it failed, a user would not know what the folder of a config must be called, or which ones were
    found.
    """
    root = write_mmner(tmp_path / "mmner", fr=[("1", "a/O")])
    message = rf"mmner {config}: expected the folder {names} in .*mmner, found \['train_valid_test_fr'\]"
    with pytest.raises(CorpusError, match=message):
        make(MMNER, config=config, data_dir=root)


def test_folder_with_the_files_of_one_language_is_taken(tmp_path):
    """If it failed, files that are not in a folder of the released name could not be read."""
    root = write_posts(tmp_path / "mmner", ending="_conll_format.txt")
    assert languages(make(MMNER, config="de", data_dir=root)) == ["de"] * 3


def test_configs_are_those_whose_folders_are_there(tmp_path):
    """If it failed, building all configs of a download would stop at one that it does not hold, or leave one
    out.
    """
    some = write_mmner(tmp_path / "some", fr=[], all_lang=[], de_plus_en=[])
    assert MMNER.configs_in(some) == ["fr", "all", "en_plus_de"]
    assert MMNER.configs_in(some / "train_valid_test_fr") == ["fr"]
    assert MMNER.configs_in(write_posts(tmp_path / "files", ending="_conll_format.txt")) == []


# Pictures.


BROKEN = {
    "cut off": (encoded(1, "JPEG")[:-100], "could not be decoded, the file is broken"),
    "text": (b"<html>404</html>", "expected one of the formats"),
    "empty": (b"", "expected one of the formats"),
    "200 megapixels": (png_that_claims(20_000, 10_000), "expected a picture of ordinary size; .*200000000"),
}
each_broken = pytest.mark.parametrize(("content", "problem"), BROKEN.values(), ids=BROKEN)


@each_broken
def test_post_of_a_broken_picture_is_kept_and_listed(corpus, images, tmp_path, content, problem):
    """If it failed, one broken picture would end the build of a corpus, lose the post, or go unnoticed."""
    (images / "2.jpg").write_bytes(content)
    build_dataset("conll", tmp_path / "built", data_dir=corpus, image_dir=images)
    rows = rows_of(tmp_path / "built", "train")
    assert [row["image"] for row in rows] == [{"bytes": encoded(1, "JPEG"), "path": "1.jpg"}, None, None]
    [broken] = map(json.loads, (tmp_path / "built" / "broken_pictures.jsonl").read_text().splitlines())
    assert (broken["split"], broken["id"], broken["file"]) == ("train", "2", "2.jpg")
    assert re.search(problem, broken["problem"])


def test_a_picture_with_broken_metadata_is_no_broken_picture(corpus, images, tmp_path):
    """Regression: pictures that every viewer shows were left out of corpora, for a profile of colours."""
    plain = encoded(1, "PNG")
    profile = b"iCCPx\0\7"  # packed as nobody packs it
    broken = len(profile[4:]).to_bytes(4, "big") + profile + zlib.crc32(profile).to_bytes(4, "big")
    (images / "2.jpg").write_bytes(content := plain[:33] + broken + plain[33:])
    build_dataset("conll", tmp_path / "built", data_dir=corpus, image_dir=images)
    assert rows_of(tmp_path / "built", "train")[1]["image"] == {"bytes": content, "path": "2.jpg"}
    assert (tmp_path / "built" / "broken_pictures.jsonl").read_text() == ""
