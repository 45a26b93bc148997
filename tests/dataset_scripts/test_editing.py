"""Tests of what is done with a built data set: posts taken out of it, and the way back to files."""

import hashlib
import io
import json
import unicodedata

import datasets
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from dataset_scripts.builders.built_corpus import build_dataset, shards
from dataset_scripts.builders.data_card import render_data_card
from dataset_scripts.builders.editing import export_imgid, read_ids, remove_posts
from dataset_scripts.formats.reader import CorpusError, find_picture, read_posts
from dataset_scripts.opening import Corpus, open_corpus
from tests.built_corpora import POSTS, all_rows, build_small, files_of, record_of
from tests.shared_data import DATA, needs_data, property_test
from tests.small_corpora import encoded, write_mmner, write_pictures, write_posts

pytestmark = pytest.mark.filterwarnings("ignore:.*expected the official file")

LABELS = ["O", "B-PER", "I-PER"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """`datasets` keeps what it loads in a folder of the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


# Posts taken out.


def without(rows: dict[str, list[dict]], ids: set[str]) -> dict[str, list[dict]]:
    return {split: [row for row in found if row["id"] not in ids] for split, found in rows.items()}


def test_posts_are_taken_out_and_the_others_stay_as_they_are(tmp_path):
    """If it failed, a post would still be there after its author has it removed, or others be lost with
    it.
    """
    built = build_small(tmp_path)
    before = all_rows(built)
    assert remove_posts(built, ["2", "5", "6"]) == {"2": 1, "5": 1, "6": 1}
    assert all_rows(built) == without(before, {"2", "5", "6"})


def test_posts_are_taken_out_of_every_config(tmp_path):
    """If it failed, a post would stay in a mixture after it was taken out of its language."""
    posts = {
        "en": [("1", "so/O"), ("2", "it/O")],
        "fr": [("1", "oui/O"), ("3", "non/O")],
        "all_lang": [("1", "so/O"), ("3", "?/O")],
    }
    build_dataset(
        "mmner", tmp_path / "built", data_dir=write_mmner(tmp_path / "released", **posts), no_verify=True
    )
    before = all_rows(tmp_path / "built")
    assert remove_posts(tmp_path / "built", ["1", "7"]) == {"1": 3, "7": 3}
    assert all_rows(tmp_path / "built") == without(before, {"1", "7"})


def test_columns_keep_their_types(tmp_path):
    """If it failed, the Hub would show ids instead of labels, and bytes instead of pictures, after a post was
    taken out.
    """
    built = build_small(tmp_path)
    before = {path.name: pq.read_schema(path) for path in (built / "default").iterdir()}
    remove_posts(built, ["1"])
    for name, schema in before.items():
        after = pq.read_schema(built / "default" / name)
        assert after.equals(schema, check_metadata=True)
        assert (
            b'"ClassLabel"' in after.metadata[b"huggingface"] and b'"Image"' in after.metadata[b"huggingface"]
        )


def test_counts_follow_the_posts(tmp_path):
    """If it failed, record and card would go on counting posts that are gone."""
    built = build_small(tmp_path)
    before = record_of(built)["configs"]["default"]["splits"]["train"]
    remove_posts(built, ["1", "5"])
    splits = record_of(built)["configs"]["default"]["splits"]
    train = splits["train"]
    assert (train["posts"], train["tokens"], train["orphans"]) == (2, 3, 0)
    assert train["entities"] == {"LOC": 0, "MISC": 0, "PER": 1, "ORG": 0}
    assert train["pictures"] == {"present": 1, "missing": 1, "broken": 0, "broken_ids": []}
    assert 0 < before["num_bytes"] - train["num_bytes"] - (tmp_path / "images" / "1.jpg").stat().st_size < 200
    assert train["download_bytes"] == sum(path.stat().st_size for path in shards(built / "default", "train"))
    assert (splits["validation"]["languages"], splits["validation"]["sources"]) == (
        {"unknown": 1},
        {"conll": 1},
    )
    assert {split: details["notes"] for split, details in splits.items()} == {
        "train": {"posts taken out": 1},
        "validation": {"posts taken out": 1},
        "test": {},
    }


def test_card_follows_the_record(tmp_path):
    """If it failed, the Hub would refuse to load the data set, or show the counts of before."""
    built = build_small(tmp_path)
    remove_posts(built, ["1", "5"])
    card = (built / "README.md").read_text(encoding="utf-8")
    assert card == render_data_card(record_of(built))
    assert "| default | train | posts taken out | 1 |" in card
    info = DatasetCard(card).data.dataset_info
    assert {split["name"]: split["num_examples"] for split in info["splits"]} == {
        "train": 2,
        "validation": 1,
        "test": 3,
    }


def test_data_set_still_loads(tmp_path):
    """If it failed, taking out a post would make the data set useless."""
    built = build_small(tmp_path)
    remove_posts(built, ["1"])
    corpus = datasets.load_dataset(str(built))
    assert corpus["train"]["id"][:] == ["2", "3"]
    assert corpus["train"][0]["image"].tobytes() == Image.open(io.BytesIO(encoded(2, "PNG"))).tobytes()


def test_data_set_still_loads_without_its_first_rows_or_files(tmp_path, monkeypatch):
    """`datasets` cannot load a Parquet file whose first row group is empty. If it failed, such a data set
    would be lost.
    """
    posts = [(f"n{number}", f"word{number}/O") for number in range(500)]
    folder, images = write_posts(tmp_path / "corpus", POSTS | {"train": posts}), tmp_path / "images"
    images.mkdir()
    for number in range(500):
        (images / f"n{number}.jpg").write_bytes(encoded(number, "JPEG"))
    monkeypatch.setattr(datasets.config, "MAX_SHARD_SIZE", 200_000)
    build_dataset("conll", tmp_path / "built", data_dir=folder, image_dir=images)
    sizes = [pq.read_metadata(path).num_rows for path in shards(tmp_path / "built" / "default", "train")]
    assert len(sizes) > 1 and sizes[1] > 100
    gone = {post_id for post_id, _ in posts[: sizes[0] + 110]}
    remove_posts(tmp_path / "built", gone)
    expected = [post_id for post_id, _ in posts if post_id not in gone]
    assert datasets.load_dataset(str(tmp_path / "built"))["train"]["id"][:] == expected
    streamed = datasets.load_dataset(str(tmp_path / "built"), streaming=True)["train"]
    assert [row["id"] for row in streamed] == expected


def test_version_gets_another_name_for_other_posts(tmp_path):
    """If it failed, figures on the data set with and without some posts would be taken for figures on one."""
    names = {"none": record_of(build_small(tmp_path / "0"))["configs"]["default"]["version"]}
    for number, ids in enumerate([["1"], ["2"], ["1", "2"], ["2", "1"]], start=1):
        built = build_small(tmp_path / str(number))
        remove_posts(built, ids)
        names["+".join(ids)] = record_of(built)["configs"]["default"]["version"]
    assert names["1+2"] == names["2+1"]
    assert len(set(names.values())) == 4
    assert all(name.startswith(names["none"]) for name in names.values())


def test_config_without_the_posts_keeps_its_version(tmp_path):
    """If it failed, figures on a config that did not change could no longer be compared."""
    released = write_mmner(
        tmp_path / "released", en=[("1", "so/O"), ("2", "it/O")], fr=[("3", "non/O"), ("4", "oui/O")]
    )
    build_dataset("mmner", tmp_path / "built", data_dir=released, no_verify=True)
    before = record_of(tmp_path / "built")["configs"]
    remove_posts(tmp_path / "built", ["3"])
    after = record_of(tmp_path / "built")["configs"]
    assert after["en"] == before["en"] | {"splits": after["en"]["splits"]}
    assert after["fr"]["version"].startswith(f"{before['fr']['version']}+without-")


def test_ids_that_are_not_there_are_counted_as_such(tmp_path):
    """If it failed, a user would believe that a post is gone whose id they mistyped."""
    built = build_small(tmp_path)
    assert remove_posts(built, ["1", "nobody"]) == {"1": 1, "nobody": 0}


def test_data_set_without_any_of_the_ids_is_left_alone(tmp_path):
    """If it failed, a list for another data set would be taken as done, or this one get a new version."""
    built = build_small(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(
        CorpusError, match=r"built: expected posts with the ids \['01', 'nobody'\], found none of them"
    ):
        remove_posts(built, ["nobody", "01"])
    assert files_of(tmp_path) == before


def test_split_is_not_emptied(tmp_path):
    """`datasets` cannot load an empty split. If it failed, a data set would be useless without a word."""
    built = build_small(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(
        CorpusError, match="built: expected posts to be left in default validation, found none"
    ):
        remove_posts(built, ["4", "5"])
    assert files_of(tmp_path) == before


def test_broken_pictures_of_posts_that_are_gone_are_no_longer_listed(tmp_path):
    """If it failed, ids of posts that were taken out would stay in the record, or pictures be counted
    twice.
    """
    folder, images = write_posts(tmp_path / "corpus", POSTS), write_pictures(tmp_path / "images")
    odd = "a\u2028b\x85c"  # what str.splitlines takes for line ends
    write_posts(folder, {"test": [(odd, "a/O"), ("7", "me/O"), ("8", "it/O")]})
    for name in ("1", "2", odd):
        (images / f"{name}.jpg").write_bytes(b"broken")
    build_dataset("conll", tmp_path / "built", data_dir=folder, image_dir=images)
    remove_posts(tmp_path / "built", ["1", "3", "8"])
    splits = record_of(tmp_path / "built")["configs"]["default"]["splits"]
    assert splits["train"]["pictures"] == {"present": 0, "missing": 0, "broken": 1, "broken_ids": ["2"]}
    assert splits["test"]["pictures"] == {"present": 0, "missing": 1, "broken": 1, "broken_ids": [odd]}
    report = (tmp_path / "built" / "broken_pictures.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["id"] for line in report if line] == ["2", odd]


def test_other_files_in_the_folder_are_kept(tmp_path):
    """If it failed, a clone of a repository would lose its history, and a folder its licence, with a post."""
    built = build_small(tmp_path)
    (built / ".git").mkdir()
    (built / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (built / "LICENSE").write_text("mine")
    remove_posts(built, ["1"])
    files = files_of(built)
    assert (files[".git/HEAD"], files["LICENSE"]) == (b"ref: refs/heads/main", b"mine")


def test_posts_can_be_taken_out_again(tmp_path):
    """If it failed, only the first request of an author could be met."""
    built = build_small(tmp_path)
    before = all_rows(built)
    remove_posts(built, ["1"])
    remove_posts(built, ["2", "8"])
    assert all_rows(built) == without(before, {"1", "2", "8"})
    splits = record_of(built)["configs"]["default"]["splits"]
    assert [splits[split]["notes"] for split in ("train", "test")] == [
        {"posts taken out": 2},
        {"posts taken out": 1},
    ]


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"1\n2\n", ["1", "2"]),
        (b"\xef\xbb\xbf1\r\n\r\n2 3", ["1", "2 3"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
    ],
)
def test_ids_are_read_a_line_each(tmp_path, content, ids):
    """If it failed, posts would stay because of the editor with which their ids were written."""
    (tmp_path / "ids.txt").write_bytes(content)
    assert read_ids(tmp_path / "ids.txt") == ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", "expected an id a line, found none"),
        (b"\xff", "expected a UTF-8 file with an id a line"),
        (None, "No such file"),
    ],
)
def test_file_without_ids_is_named(tmp_path, content, message):
    """If it failed, a wrong file would be taken as a list of no posts."""
    if content is not None:
        (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=rf"ids\.txt: .*{message}"):
        read_ids(tmp_path / "ids.txt")


# The way back to files.


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
    """If it failed, the way to files and back would change posts, pictures or counts."""
    built = build_small(tmp_path)
    export_imgid(open_corpus(str(built)), tmp_path / "exported")
    folders = {"data_dir": tmp_path / "exported", "image_dir": tmp_path / "exported" / "images"}
    record = build_dataset("conll", tmp_path / "again", **folders)
    assert all_rows(tmp_path / "again") == all_rows(built)
    assert record == record_of(built)


def test_exported_files_are_the_ones_that_were_built(tmp_path):
    """If it failed, hashes of exported files would not be those of the files a data set was built from."""
    built = build_small(tmp_path)
    export_imgid(open_corpus(str(built)), tmp_path / "exported")
    pictures = {f"images/{name}": content for name, content in files_of(tmp_path / "images").items()}
    assert files_of(tmp_path / "exported") == files_of(tmp_path / "corpus") | pictures


def test_raw_files_are_exported_as_they_are(tmp_path):
    """If it failed, exporting would rewrite files that are already as they should be."""
    folder, images = write_posts(tmp_path / "corpus", POSTS), write_pictures(tmp_path / "images")
    export_imgid(open_corpus("conll", data_dir=folder, image_dir=images), tmp_path / "exported")
    for name, content in files_of(folder).items():
        assert (tmp_path / "exported" / name).read_bytes() == content


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


@property_test
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


def test_pictures_are_found_by_the_ids_they_were_written_under(tmp_path):
    """If it failed, a post with an odd id would lose its picture on the way."""
    ids = ["1", "17_06_1.jpg", "a b?x=1&y", "Ñandú", "..."]
    export_imgid(corpus_of(train=[post(name, ("a",), name.encode()) for name in ids]), tmp_path / "exported")
    found = {name: find_picture(tmp_path / "exported" / "images", name) for name in ids}
    assert {name: path and path.read_bytes() for name, path in found.items()} == {
        name: name.encode() for name in ids
    }


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": [post(tokens=("a\tb",))]},
            r"post '1': expected tokens without tab and line feed, found 'a\\tb'",
        ),
        (
            {"train": [post(tokens=("a\nb",))]},
            r"post '1': expected tokens without tab and line feed, found 'a\\nb'",
        ),
        (
            {"train": [post(tokens=("a", ""))]},
            "post '1': expected tokens without tab and line feed, found ''",
        ),
        ({"train": [post(tokens=())]}, "post '1': expected tokens, found none"),
        *(
            ({"train": [post(name)]}, "expected an id that is a plain file name, found another")
            for name in ("", ".", "..", "../x", "a/b", "a\\b", "a\0", "a\tb", "a\nIMGID:2", "a\r")
        ),
        ({"train": [post("1", ("a",), b"x", b"y")]}, "post '1': expected one picture, found 2"),
        (
            {"train": [post("1", ("a",), b"x")], "test": [post("1", ("a",), b"y")]},
            "post '1': expected the same picture in every",
        ),
        (
            {"train": [post("1", ("a",), b"x")], "test": [post("1")]},
            "post '1': expected the same picture in every split, found",
        ),
        (
            {"train": [post("1")], "test": [post("1", ("a",), b"x")]},
            "post '1': expected the same picture in every split, found",
        ),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, splits, message):
    """If it failed, files would be written that are read as other posts, or a picture lost, or written
    elsewhere.
    """
    with pytest.raises(CorpusError, match=message):
        export_imgid(corpus_of(**splits), tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_post_of_two_splits_with_the_same_picture_is_exported(tmp_path):
    """If it failed, corpora whose splits share posts could not be written."""
    export_imgid(
        corpus_of(train=[post("1", ("a",), b"x")], test=[post("1", ("b",), b"x")]), tmp_path / "exported"
    )
    assert (tmp_path / "exported" / "images" / "1.jpg").read_bytes() == b"x"


def test_export_replaces_nothing(tmp_path):
    """If it failed, exporting into the folder of a corpus would overwrite it."""
    folder = write_posts(tmp_path / "corpus", POSTS)
    before = files_of(folder)
    with pytest.raises(
        FileExistsError, match="corpus: expected a new or an empty folder, found something else there"
    ):
        export_imgid(corpus_of(train=[post()]), folder)
    assert files_of(folder) == before
