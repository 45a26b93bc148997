"""Tests of the corpora's builders: columns and labels, languages and sources of MMNERD, and the check of
every picture.
"""

import re
from functools import partial
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from dataset_scripts.builders.builder import PostsBuilder
from dataset_scripts.builders.conll import Conll
from dataset_scripts.builders.mmner import MMNER, PAIRS
from dataset_scripts.builders.twitter2015 import Twitter2015
from dataset_scripts.builders.twitter2017 import Twitter2017
from dataset_scripts.formats.reader import CorpusError
from tests.small_corpora import (
    POSTS,
    encoded,
    make_builder,
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


@pytest.fixture
def make(tmp_path):
    """A function that makes a builder which keeps what it builds in the test's folder."""
    return partial(make_builder, tmp_path / "cache")


# Rows.


def test_rows_have_every_column(make, corpus, images):
    """If it failed, a row would lack a column, or hold another post's tags, language, source or picture."""
    builder = make(Twitter2017, data_dir=corpus, image_dir=str(images))
    rows = list(builder.rows("train"))
    rest = {"language": "en", "source": "tweet"}
    assert rows == [
        {
            "id": "1",
            "tokens": ["Paris", "is", "Paris"],
            "ner_tags": [3, 0, 3],
            "image": picture(images / "1.jpg"),
            **rest,
        },
        {
            "id": "2",
            "tokens": ["Jordan", "Henderson"],
            "ner_tags": [1, 2],
            "image": picture(images / "2.jpg"),
            **rest,
        },
        {"id": "3", "tokens": ["so"], "ner_tags": [0], "image": None, **rest},
    ]
    assert set(rows[0]) == set(builder.info.features)


def picture(path: Path) -> dict[str, object]:
    return {"bytes": None, "path": str(path)}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_each_split_has_its_own_posts(make, corpus, split):
    """If it failed, a model would be tested on the posts it was trained on."""
    expected = {"train": ["1", "2", "3"], "validation": ["4", "5"], "test": ["6", "7"]}
    assert [row["id"] for row in make(Conll, data_dir=corpus).rows(split)] == expected[split]


@pytest.mark.parametrize("kind", [Twitter2015, Twitter2017])
def test_labels_of_known_corpora_are_in_a_fixed_order(make, corpus, kind):
    """If it failed, label ids would depend on the files, and a model of one copy would misread another."""
    expected = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC"]
    assert make(kind, data_dir=corpus).labels() == expected


def test_labels_of_other_corpora_are_the_files_types_by_frequency(make, corpus):
    """If it failed, a type that only the test split has would be unknown, or label ids change from run to
    run.
    """
    expected = ["O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG"]
    assert make(Conll, data_dir=corpus).labels() == expected


def test_twitter2015_calls_its_other_names_misc(make, tmp_path):
    """If it failed, Twitter-2015 and Twitter-2017 would have different labels for the same thing."""
    corpus = write_posts(tmp_path / "corpus", POSTS | {"train": [("1", "a/B-OTHER b/I-OTHER")]})
    builder = make(Twitter2015, data_dir=corpus)
    [row] = builder.rows("train")
    assert [builder.labels()[tag] for tag in row["ner_tags"]] == ["B-MISC", "I-MISC"]
    assert (row["language"], row["source"]) == ("en", "tweet")
    assert builder.reports["train"].notes == {"tags renamed from OTHER to MISC": 2}


def test_unknown_type_is_refused_with_a_hint(make, tmp_path):
    """If it failed, a type that the corpus should not have would end in a KeyError, or nobody would know how
    to rename it.
    """
    corpus = write_posts(tmp_path / "corpus", POSTS | {"train": [("1", "a/O"), ("2", "a/B-OTHER b/I-OTHER")]})
    message = (
        r"train\.txt:4: expected tags among \['O', 'B-PER', .*\], found \['B-OTHER', 'I-OTHER'\]; .*"
        r" --rename_types OLD=NEW"
    )
    with pytest.raises(CorpusError, match=message):
        list(make(Twitter2017, data_dir=corpus).rows("train"))


def test_config_says_how_tags_are_read(make, tmp_path):
    """If it failed, a corpus in another scheme could be read by the reader but not be built."""
    corpus = write_posts(tmp_path / "corpus", POSTS | {"train": [("1", "a/S-X b/E-X c/O d/E-Y")]})
    builder = make(
        Conll, data_dir=corpus, tag_scheme="bioes", rename_types={"X": "LOC", "Y": "LOC"}, language="fr"
    )
    [row] = builder.rows("train")
    assert [builder.labels()[tag] for tag in row["ner_tags"]][::3] == ["B-LOC", "I-LOC"]
    assert (row["language"], row["source"]) == ("fr", "conll")


def test_orphans_are_repaired_when_asked(make, tmp_path):
    """If it failed, --repair_orphans would change nothing, or the card would not say how much it changed."""
    corpus = write_posts(tmp_path / "corpus", POSTS | {"train": [("1", "a/I-LOC b/I-LOC c/I-PER")]})
    builder = make(Conll, data_dir=corpus, repair_orphans=True)
    [row] = builder.rows("train")
    assert [builder.labels()[tag] for tag in row["ner_tags"]] == ["B-LOC", "I-LOC", "B-PER"]
    assert builder.reports["train"].notes == {"orphan I- tags made B-": 2}


def test_missing_data_dir_is_named(make):
    """If it failed, a user who forgot --data_dir would get a TypeError of pathlib's."""
    with pytest.raises(
        CorpusError, match="twitter2015: expected data_dir, the folder with its train, valid and test files"
    ):
        make(Twitter2015)


# Languages and sources of MMNERD.


def languages(builder: PostsBuilder) -> list[str]:
    return [row["language"] for row in builder.rows("train")]


@pytest.mark.parametrize(
    ("post_id", "source"),
    [("17---x", "caption"), ("---", "caption"), ("17_06_1", "tweet"), ("17--06", "tweet"), ("1-", "tweet")],
)
def test_posts_with_three_hyphens_in_their_id_are_captions(make, tmp_path, post_id, source):
    """If it failed, scores by source would mix tweets with web captions, which carry no persons in
    English.
    """
    root = write_mmner(tmp_path / "mmner", fr=[(post_id, "a/O")])
    [row] = make(MMNER, config_name="fr", data_dir=root).rows("train")
    assert (row["source"], row["language"]) == (source, "fr")


def test_language_of_a_post_in_all_is_that_of_its_folder(make, tmp_path):
    """If it failed, results by language on the mixture of all would be wrong, above all where languages share
    an id.
    """
    posts = {
        "en": [("1", "a/O"), ("2", "b/O")],
        "fr": [("1", "c/O")],
        "de": [("3", "d/B-PER")],
        "es": [("4", "e/O")],
    }
    mixture = [("1", "c/O"), ("4", "e/O"), ("3", "d/O"), ("2", "b/O"), ("5", "a/O")]
    root = write_mmner(tmp_path / "mmner", all_lang=mixture, **posts)
    assert languages(make(MMNER, config_name="all", data_dir=root)) == ["fr", "es", "de", "en", "unknown"]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("is_reversed", [False, True], ids=["in order", "reversed"])
def test_language_of_a_post_in_a_pair_is_that_of_its_folder(make, tmp_path, pair, is_reversed):
    """If it failed, a pair whose folder is named the other way round would not be found, or its languages be
    mixed up.
    """
    first, second = PAIRS[pair]
    third = next(language for language in ("en", "fr", "de", "es") if language not in PAIRS[pair])
    folders = {first: [("1", "a/O")], second: [("2", "b/O")], third: [("3", "c/O")]}
    name = f"{second}_plus_{first}" if is_reversed else pair
    root = write_mmner(tmp_path / "mmner", **folders, **{name: [("3", "c/O"), ("2", "b/O"), ("1", "a/O")]})
    assert languages(make(MMNER, config_name=pair, data_dir=root)) == ["unknown", second, first]


@pytest.mark.parametrize(("config", "folder"), [("all", "all_lang"), ("en_plus_de", "en_plus_de")])
def test_language_is_unknown_without_language_folders(make, tmp_path, config, folder):
    """If it failed, a mixture could not be read alone, or its posts would be given a language by guess."""
    root = write_mmner(tmp_path / "mmner", **{folder: [("1", "a/O"), ("2", "b/O")]})
    assert languages(make(MMNER, config_name=config, data_dir=root)) == ["unknown", "unknown"]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("es", "train_valid_test_es"),
        ("all", "train_valid_test_all_lang"),
        ("en_plus_de", "train_valid_test_en_plus_de or train_valid_test_de_plus_en"),
    ],
)
def test_missing_mmner_folder_is_named(make, tmp_path, config, names):
    """If it failed, a user would not know what the folder of a config must be called, or which ones were
    found.
    """
    root = write_mmner(tmp_path / "mmner", fr=[("1", "a/O")])
    message = rf"mmner {config}: expected the folder {names} in .*mmner, found \['train_valid_test_fr'\]"
    with pytest.raises(CorpusError, match=message):
        make(MMNER, config_name=config, data_dir=root)


def test_folder_with_the_files_of_one_language_is_taken(make, tmp_path):
    """If it failed, files that are not in a folder of the released name could not be read."""
    root = write_posts(tmp_path / "mmner", ending="_conll_format.txt")
    assert languages(make(MMNER, config_name="de", data_dir=root)) == ["de"] * 3


def test_configs_are_those_whose_folders_are_there(tmp_path):
    """If it failed, building all configs of a download would stop at one that it does not hold, or leave one
    out.
    """
    assert MMNER.configs_in(write_mmner(tmp_path / "some", fr=[], all_lang=[], de_plus_en=[])) == [
        "fr",
        "all",
        "en_plus_de",
    ]
    assert MMNER.configs_in(tmp_path / "some" / "train_valid_test_fr") == ["fr"]
    assert MMNER.configs_in(write_posts(tmp_path / "files", ending="_conll_format.txt")) == []


# Pictures.


@pytest.mark.parametrize(
    ("has_folder", "missing"), [(True, {"train": 1, "validation": 1}), (False, {"train": 3, "validation": 2})]
)
def test_missing_pictures_are_counted(make, corpus, images, has_folder, missing):
    """If it failed, a text corpus would pass for a multimodal one."""
    builder = make(Conll, data_dir=corpus, **{"image_dir": str(images)} if has_folder else {})
    for split in missing:
        list(builder._generate_examples(split))
    assert {split: found.pictures()["missing"] for split, found in builder.reports.items()} == missing


def test_required_picture_that_is_missing_stops(make, corpus, images):
    """If it failed, --require_images would build a corpus with posts without pictures."""
    message = r"train\.txt:10: expected the picture 3\.jpg in .*images, found none; without --require_images"
    with pytest.raises(CorpusError, match=message):
        list(make(Conll, data_dir=corpus, image_dir=str(images), require_images=True).rows("train"))


BROKEN = {
    "cut off": (encoded(1, "JPEG")[:-100], "could not be decoded, the file is broken"),
    "text": (b"<html>404</html>", "expected one of the formats"),
    "empty": (b"", "expected one of the formats"),
    "200 megapixels": (
        png_that_claims(20_000, 10_000),
        "expected a picture of ordinary size; .*200000000 pixels",
    ),
}
each_broken = pytest.mark.parametrize(("content", "problem"), BROKEN.values(), ids=BROKEN)


@each_broken
def test_post_of_a_broken_picture_is_kept_and_listed(make, corpus, images, content, problem):
    """If it failed, one broken picture would end the build of a corpus, lose the post, or go unnoticed."""
    (images / "2.jpg").write_bytes(content)
    builder = make(Conll, data_dir=corpus, image_dir=str(images))
    rows = [row for _, row in builder._generate_examples("train")]
    assert [row["image"] for row in rows] == [{"bytes": encoded(1, "JPEG"), "path": "1.jpg"}, None, None]
    [broken] = builder.reports["train"].broken
    assert {name: broken[name] for name in ("split", "id", "file")} == {
        "split": "train",
        "id": "2",
        "file": "2.jpg",
    }
    assert re.search(problem, broken["problem"])
    assert builder.reports["train"].pictures()["missing"] == 1


@each_broken
def test_broken_picture_stops_when_asked(make, corpus, images, content, problem):
    """If it failed, --broken_pictures stop would build a corpus with a broken picture."""
    (images / "2.jpg").write_bytes(content)
    builder = make(Conll, data_dir=corpus, image_dir=str(images), broken_pictures="stop")
    with pytest.raises(
        CorpusError,
        match=rf"post '2': picture .*2\.jpg.*: {problem}.*; with --broken_pictures keep such posts are",
    ):
        list(builder.checked_rows("train"))


def test_picture_of_200_megapixels_is_not_decoded(make, corpus, images, monkeypatch):
    """If it failed, one small file could fill the memory of whoever builds the corpus."""
    Image.new("1", (20_000, 10_000)).save(images / "2.jpg", "PNG")
    sizes, load = [], ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: sizes.append(self.size) or load(self))
    builder = make(Conll, data_dir=corpus, image_dir=str(images))
    assert [row["image"] is not None for row in builder.checked_rows("train")] == [True, False, False]
    assert set(sizes) == {(24, 16)}


def test_missing_image_dir_is_named(make, corpus):
    """If it failed, a wrong --image_dir would build a corpus in which every picture is missing."""
    with pytest.raises(
        CorpusError,
        match=r"conll image_dir .*nothere: expected a folder with the pictures <id>\.jpg, found none",
    ):
        make(Conll, data_dir=corpus, image_dir=str(corpus / "nothere"))
