"""Tests of building: what the built folder holds, whose counts its record has, and what is there when a build
fails.
"""

import random
import shutil
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset_scripts.builders import built_corpus
from dataset_scripts.builders.built_corpus import build_dataset, publish
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.sample.texts import ROUNDS, TAGS, generate_posts
from tests.built_corpora import POSTS, build_small, built_sample, files_of, record_of, rows_of
from tests.small_corpora import encoded, imgid_text, write_mmner, write_pictures, write_posts

SPLIT_OF_FILE = {"train": "train", "valid": "validation", "test": "test"}
MMNER = {
    "en": [("1", "Paris/B-LOC"), ("2---x", "so/O it/O")],
    "fr": [("1", "Nice/B-LOC est/O"), ("3---y", "Léa/B-PER"), ("9", "oui/O")],
    "fr_plus_en": [("3---y", "Léa/B-PER"), ("1", "Paris/B-LOC")],
    "all_lang": [("1", "Nice/B-LOC est/O"), ("2---x", "so/O it/O"), ("77", "?/O")],
}
MMNER_CONFIGS = ("en", "fr", "all", "en_plus_fr")

pytestmark = pytest.mark.filterwarnings("ignore:.*expected the official file")


def naive_counts(text: str) -> dict:
    """The counts of an IMGID file that has nothing odd about it."""
    lines = text.splitlines()
    tags = [line.split("\t")[1] for line in lines if "\t" in line]
    before = [line.split("\t")[-1] for line, after in zip(["", *lines], lines, strict=False) if "\t" in after]
    return {
        "posts": sum(line.startswith("IMGID:") for line in lines),
        "tokens": len(tags),
        "entities": dict(Counter(tag[2:] for tag in tags if tag.startswith("B-"))),
        "orphans": sum(t[:2] == "I-" and b[1:] != t[1:] for b, t in zip(before, tags, strict=True)),
    }


def counts_in(details: dict) -> dict:
    """The same of a split's part of the record, types of which there are none left out."""
    entities = {name: count for name, count in details["entities"].items() if count}
    return {key: details[key] for key in ("posts", "tokens", "orphans")} | {"entities": entities}


# What is built.


@pytest.mark.parametrize(("name", "options"), [("conll", {}), ("twitter2017", {"no_verify": True})])
def test_record_has_the_counts_of_the_files(tmp_path, name, options):
    """If it failed, the card would state figures that are not those of the data."""
    folder = write_posts(tmp_path / "corpus", POSTS)
    record = build_dataset(name, tmp_path / "built", data_dir=folder, **options)
    for file, split in SPLIT_OF_FILE.items():
        details = record["configs"]["default"]["splits"][split]
        assert counts_in(details) == naive_counts((folder / f"{file}.txt").read_text(encoding="utf-8"))
        assert details["posts"] == len(rows_of(tmp_path / "built", split))


def test_record_is_what_is_returned_and_counts_the_pictures(tmp_path):
    """If it failed, a user would not know how many posts come without their picture."""
    built = build_small(tmp_path)
    splits = record_of(built)["configs"]["default"]["splits"]
    numbers = {split: list(details["pictures"].values()) for split, details in splits.items()}
    assert numbers == {"train": [2, 1, 0, []], "validation": [1, 1, 0, []], "test": [1, 2, 0, []]}
    sources = {"data_dir": tmp_path / "corpus", "image_dir": tmp_path / "images"}
    assert build_dataset("conll", built, **sources, overwrite=True) == record_of(built)
    with pytest.raises(
        CorpusError, match=r"expected a data set made by `build`, found no corpus\.json in it"
    ):
        publish(tmp_path, "org/posts")


def test_sample_is_built_of_its_posts_and_counted():
    """If it failed, the published sample would differ from the one that is trained on, or its card state
    other figures than its posts have.
    """
    splits = record_of(built_sample())["configs"]["en"]["splits"]
    assert set(splits) == set(ROUNDS)
    for split, details in splits.items():
        posts = list(generate_posts("en", split, 1))
        rows = rows_of(built_sample(), split, "en")
        found = [(row["id"], row["tokens"], [TAGS[tag] for tag in row["ner_tags"]]) for row in rows]
        assert found == [(post.id, list(post.tokens), list(post.tags)) for post in posts]
        begun = Counter(tag[2:] for post in posts for tag in post.tags if tag.startswith("B-"))
        tokens = sum(len(post.tokens) for post in posts)
        expected = {"posts": len(posts), "tokens": tokens, "entities": dict(begun), "orphans": 0}
        assert counts_in(details) == expected
        pictured = sum(post.picture is not None for post in posts)
        pictures = details["pictures"]
        assert (pictures["present"], pictures["missing"]) == (pictured, len(posts) - pictured)
        assert details["sources"] == dict(Counter(post.source for post in posts))


@pytest.fixture(scope="module")
def mmner(tmp_path_factory):
    """Every config of a download with two languages, a pair and all; its released folders are beside it."""
    folder = tmp_path_factory.mktemp("mmner")
    write_mmner(folder / "released", **MMNER)
    build_dataset("mmner", folder / "built", data_dir=folder / "released", no_verify=True)
    return folder / "built"


def test_every_config_holds_its_own_rows(mmner, tmp_path):
    """If it failed, configs after the first would be empty, or hold the posts of another one, or none could
    be left out.
    """
    configs = record_of(mmner)["configs"]
    assert list(configs) == list(MMNER_CONFIGS)
    folders = {"en": "en", "fr": "fr", "all": "all_lang", "en_plus_fr": "fr_plus_en"}
    for config, folder in folders.items():
        ids = [row["id"] for row in rows_of(mmner, "train", config)]
        assert ids == [post_id for post_id, _ in MMNER[folder]]
        assert counts_in(configs[config]["splits"]["train"]) == naive_counts(imgid_text(MMNER[folder]))
    raw = {"data_dir": mmner.parent / "released", "no_verify": True}
    build_dataset("mmner", tmp_path / "built", configs=["fr", "all"], **raw)
    assert {path.name for path in (tmp_path / "built").iterdir() if path.is_dir()} == {"fr", "all"}


def test_folder_holds_the_data_set_and_nothing_else(mmner):
    """If it failed, caches, locks or half-built files would be left in the folder, beside it, or go to the
    Hub.
    """
    parts = [
        f"{config}/{split}-00000-of-00001.parquet"
        for config in MMNER_CONFIGS
        for split in SPLIT_OF_FILE.values()
    ]
    assert set(files_of(mmner)) == {"README.md", "corpus.json", "eval.yaml", "broken_pictures.jsonl", *parts}
    assert {path.name for path in mmner.parent.iterdir()} == {"released", "built"}


def test_rows_are_those_of_the_files_with_their_pictures(tmp_path):
    """If it failed, building would change or reorder posts, or give them other pictures."""
    built = build_small(tmp_path, language="de")
    names = record_of(built)["labels"]
    for file, split in SPLIT_OF_FILE.items():
        expected = []
        for post_id, text in POSTS[file]:
            pairs = [token.split("/") for token in text.split(" ")]
            picture = tmp_path / "images" / f"{post_id}.jpg"
            image = {"bytes": picture.read_bytes(), "path": picture.name} if picture.exists() else None
            row = {
                "id": post_id,
                "tokens": [token for token, _ in pairs],
                "ner_tags": [names.index(tag) for _, tag in pairs],
            }
            expected.append(row | {"image": image, "language": "de", "source": "conll"})
        assert rows_of(built, split) == expected


def test_several_shards_keep_the_order(tmp_path, monkeypatch):
    """If it failed, large corpora, whose splits are cut into files, would come back shuffled or lose
    posts.
    """
    posts = [(str(number), f"word{number}/O") for number in range(400)]
    folder, images = write_posts(tmp_path / "corpus", POSTS | {"train": posts}), tmp_path / "images"
    images.mkdir()
    for number in range(400):
        (images / f"{number}.jpg").write_bytes(encoded(number, "JPEG"))
    monkeypatch.setattr(built_corpus, "_SHARD_BYTES", 40_000)
    build_dataset("conll", tmp_path / "built", data_dir=folder, image_dir=images)
    names = sorted(path.name for path in (tmp_path / "built" / "default").glob("train*"))
    count = len(names)
    assert count > 2 and names == [f"train-{n:05d}-of-{count:05d}.parquet" for n in range(count)]
    found = [
        (row["id"], row["tokens"], row["image"]["bytes"]) for row in rows_of(tmp_path / "built", "train")
    ]
    content = {name: (images / f"{name}.jpg").read_bytes() for name, _ in posts}
    assert found == [(name, [text[:-2]], content[name]) for name, text in posts]


# Broken pictures.


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda corpus, _: (corpus / "test.txt").write_text("IMGID:6\nEuro\tO\n\nIMGID:7\nme\n"),
            r"test\.txt:5: expected token<TAB>tag, found 1 columns",
        ),
        (lambda corpus, _: (corpus / "test.txt").unlink(), r"expected one test file out of"),
        (
            lambda _, images: shutil.rmtree(images),
            r"--image_dir .*images: expected a folder with the posts' pictures, found none; unpack",
        ),
    ],
)
def test_build_that_fails_leaves_nothing(tmp_path, spoil, message):
    """If it failed, half a data set would be there, which looks like a whole one."""
    folder, images = write_posts(tmp_path / "corpus", POSTS), write_pictures(tmp_path / "images")
    spoil(folder, images)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(CorpusError, match=message):
        build_dataset("conll", tmp_path / "built", data_dir=folder, image_dir=images)
    assert {path.name for path in tmp_path.iterdir()} == before


# Folders that are there already.


def test_built_data_set_is_replaced_only_when_asked(tmp_path):
    """If it failed, a data set would be lost by running a command twice, or could never be renewed."""
    (tmp_path / "built").mkdir()  # an empty folder is taken
    built = build_small(tmp_path)
    before, corpus = files_of(built), write_posts(tmp_path / "corpus", POSTS | {"train": [("9", "new/O")]})
    with pytest.raises(FileExistsError, match="found a built data set; --overwrite replaces it"):
        build_dataset("conll", built, data_dir=corpus)
    assert files_of(built) == before
    build_dataset("conll", built, data_dir=corpus, overwrite=True)
    assert [row["id"] for row in rows_of(built, "train")] == ["9"]


def test_build_that_fails_leaves_the_old_data_set(tmp_path):
    """If it failed, an attempt to renew a data set could cost the one that was there."""
    built = build_small(tmp_path)
    before = files_of(built)
    with pytest.raises(CorpusError, match="expected the official file, sha256 801e149e8635"):
        build_dataset("twitter2017", built, data_dir=tmp_path / "corpus", overwrite=True)
    assert files_of(built) == before
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "images", "built"}


def chunks(content: bytes) -> list[bytes]:
    """A file in pieces of some 4 KB that end where its content says so, as the Hub's storage keeps them."""
    values = np.random.default_rng(0).integers(0, 2**63, 256, dtype=np.uint64)
    sums = values[np.frombuffer(content, np.uint8)].cumsum()
    hashes = (sums[48:] - sums[:-48]) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(52)
    ends = [0, *(np.flatnonzero(hashes == 0) + 48), len(content)]
    return [content[start:end] for start, end in pairwise(ends)]


def test_edit_of_one_post_changes_a_small_part_of_the_file(tmp_path):
    """If it failed, taking one post out of a data set would upload all its pictures again."""
    (tmp_path / "images").mkdir()
    posts = [(str(number), "Paris/B-LOC is/O here/O") for number in range(300)]
    for name, _ in posts:
        pixels = random.Random(name).randbytes(64 * 64 * 3)
        Image.frombytes("RGB", (64, 64), pixels).save(tmp_path / "images" / f"{name}.jpg")
    built = []
    for number, train in enumerate((posts, posts[:150] + posts[151:])):
        corpus = write_posts(tmp_path / f"corpus{number}", POSTS | {"train": train})
        target = tmp_path / f"built{number}"
        build_dataset("conll", target, data_dir=corpus, image_dir=tmp_path / "images")
        [path] = (target / "default").glob("train-*")
        assert b"content_defined_chunking" in pq.read_metadata(path).metadata
        built.append(chunks(path.read_bytes()))
    there, size = set(built[0]), sum(map(len, built[1]))
    assert len(there) > 100 and size > 600_000
    assert sum(len(chunk) for chunk in built[1] if chunk not in there) < 0.1 * size
