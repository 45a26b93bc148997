"""Tests of the way back from a corpus to files, and of posts taken out on request."""

import hashlib
import unicodedata

import datasets
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_scripts.builders.built_corpus import build_dataset
from dataset_scripts.formats.imgid import export_imgid
from dataset_scripts.formats.reader import CorpusError, read_posts
from dataset_scripts.opening import Corpus, open_corpus
from tests.built_corpora import all_rows, build_small, files_of, record_of
from tests.shared_data import DATA, needs_data, property_test

LABELS = ["O", "B-PER", "I-PER"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """`datasets` keeps what it loads in a folder of the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def corpus_of(**splits: list[dict]) -> Corpus:
    """An open corpus of rows, whose missing columns are filled in."""
    features = {
        "id": datasets.Value("string"),
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=LABELS)),
        "images": datasets.List(datasets.Image(decode=False)),
    }
    rows = {
        split: datasets.Dataset.from_list(
            [{"images": []} | row for row in found], features=datasets.Features(features)
        )
        for split, found in splits.items()
    }
    return Corpus("small", rows, LABELS, "unverified", {})


def post(post_id: str = "1", tokens: tuple[str, ...] = ("a",), *pictures: bytes) -> dict:
    images = [{"bytes": content, "path": None} for content in pictures]
    return {"id": post_id, "tokens": list(tokens), "ner_tags": [0] * len(tokens), "images": images}


def test_built_exported_and_built_again_is_the_same(tmp_path):
    """If it failed, the way to files and back would change posts, pictures or counts, or files that are
    already as they should be.
    """
    built, files = build_small(tmp_path), tmp_path / "exported"
    export_imgid(open_corpus(str(built)), files)
    pictures = {f"images/{name}": content for name, content in files_of(tmp_path / "images").items()}
    assert files_of(files) == files_of(tmp_path / "corpus") | pictures
    record = build_dataset("conll", tmp_path / "again", data_dir=files, image_dir=files / "images")
    assert all_rows(tmp_path / "again") == all_rows(built) and record == record_of(built)


@needs_data
def test_twitter_2017_is_exported_as_it_was_released(tmp_path):
    """If it failed, a published copy of the corpus could not be checked against the official one."""
    export_imgid(open_corpus("twitter2017", data_dir=DATA / "twitter2017"), tmp_path / "exported")
    hashes = {
        name: hashlib.sha256(content).hexdigest()[:12]
        for name, content in files_of(tmp_path / "exported").items()
        if content
    }
    assert hashes == {"train.txt": "801e149e8635", "valid.txt": "41b5db90cb32", "test.txt": "a7d9e172ae85"}


ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from("\u00a0\u2028\u0085\x0b\x0c\x1c\r\ufeff :IMGD\u200d")
)
TOKENS = ANY_TEXT.filter(lambda token: token and not set(token) & set("\t\n"))
IDS = ANY_TEXT.filter(
    lambda text: (
        text.strip(".") and not any(unicodedata.category(mark) == "Cc" or mark in "/\\" for mark in text)
    )
)
TAGGED = st.lists(st.tuples(TOKENS, st.sampled_from(range(len(LABELS)))), min_size=1, max_size=5)


@settings(property_test, max_examples=30)
@given(st.lists(st.tuples(IDS, TAGGED), min_size=1, max_size=5, unique_by=lambda post: post[0]))
@example([("IMGID:1", [("IMGID:2", 1), ("\r", 0)]), (" ", [("\ufeff", 2), (" ", 0)])])
def test_any_post_comes_back_from_its_file(tmp_path_factory, posts):
    """If it failed, some token or id would come back changed, split or as another post."""
    folder = tmp_path_factory.mktemp("exported")
    rows = [
        {"id": post_id, "tokens": [t for t, _ in words], "ner_tags": [tag for _, tag in words]}
        for post_id, words in posts
    ]
    export_imgid(corpus_of(train=rows), folder / "files")
    found = [(found.id, found.tokens, found.tags) for found in read_posts(folder / "files" / "train.txt")]
    assert found == [(row["id"], row["tokens"], [LABELS[tag] for tag in row["ner_tags"]]) for row in rows]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        *(
            ([[post(tokens=("a", token))]], f"tokens without tab and line feed, found {token!r}")
            for token in ("a\tb", "a\nb", "")
        ),
        ([[post(tokens=())]], "tokens, found none"),
        *(
            ([[post(name)]], "an id that is a plain file name, found another")
            for name in ("", ".", "..", "../x", "a/b", "a\\b", "a\0", "a\tb", "a\nIMGID:2", "a\r")
        ),
        ([[post("1", ("a",), b"x", b"y")]], "one picture, found 2"),
        *(
            ([[post("1", ("a",), *first)], [post("1", ("a",), *second)]], "the same picture in every split")
            for first, second in (([b"x"], [b"y"]), ([b"x"], []), ([], [b"x"]))
        ),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, splits, message):
    """If it failed, files would be written that are read as other posts, or a picture lost, or written
    elsewhere.
    """
    corpus = corpus_of(**dict(zip(("train", "test"), splits, strict=False)))
    with pytest.raises(CorpusError) as caught:
        export_imgid(corpus, tmp_path / "exported")
    assert f": expected {message}" in str(caught.value) and not list(tmp_path.iterdir())


def test_post_of_two_splits_with_the_same_picture_is_exported(tmp_path):
    """If it failed, corpora whose splits share posts could not be written."""
    export_imgid(
        corpus_of(train=[post("1", ("a",), b"x")], test=[post("1", ("b",), b"x")]), tmp_path / "exported"
    )
    assert (tmp_path / "exported" / "images" / "1.jpg").read_bytes() == b"x"
