"""Tests of building: what the built folder holds, whose counts its record has, and what is there when a build
fails.
"""

import json
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import datasets
import pytest

from dataset_scripts.builders.built_corpus import build_dataset, read_record
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.sample.texts import ROUNDS, TAGS, generate_posts
from tests.built_corpora import POSTS, all_rows, build_small, built_sample, files_of, record_of, rows_of
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
    orphans = sum(
        line.split("\t")[1][:2] == "I-" and before.split("\t")[-1][1:] != line.split("\t")[1][1:]
        for before, line in zip(["", *lines], lines, strict=False)
        if "\t" in line
    )
    return {
        "posts": sum(line.startswith("IMGID:") for line in lines),
        "tokens": len(tags),
        "entities": dict(Counter(tag[2:] for tag in tags if tag.startswith("B-"))),
        "orphans": orphans,
    }


def counts_in(details: dict) -> dict:
    """The same of a split's part of the record, types of which there are none left out."""
    entities = {name: count for name, count in details["entities"].items() if count}
    return {
        "posts": details["posts"],
        "tokens": details["tokens"],
        "entities": entities,
        "orphans": details["orphans"],
    }


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


def test_record_counts_the_pictures(tmp_path):
    """If it failed, a user would not know how many posts come without their picture."""
    splits = record_of(build_small(tmp_path))["configs"]["default"]["splits"]
    assert {split: details["pictures"] for split, details in splits.items()} == {
        "train": {"present": 2, "missing": 1, "broken": 0, "broken_ids": []},
        "validation": {"present": 1, "missing": 1, "broken": 0, "broken_ids": []},
        "test": {"present": 1, "missing": 2, "broken": 0, "broken_ids": []},
    }


def test_record_of_the_sample_has_its_counts():
    """If it failed, the sample's card would state other figures than its posts have, such as no picture at
    all.
    """
    for split, details in record_of(built_sample())["configs"]["en"]["splits"].items():
        posts = list(generate_posts("en", split, 1))
        begun = Counter(tag[2:] for post in posts for tag in post.tags if tag.startswith("B-"))
        assert counts_in(details) == {
            "posts": len(posts),
            "tokens": sum(len(post.tokens) for post in posts),
            "entities": dict(begun),
            "orphans": 0,
        }
        with_picture = sum(post.picture is not None for post in posts)
        assert (details["pictures"]["present"], details["pictures"]["missing"]) == (
            with_picture,
            len(posts) - with_picture,
        )
        assert details["sources"] == dict(Counter(post.source for post in posts))
    assert set(record_of(built_sample())["configs"]["en"]["splits"]) == set(ROUNDS)


def test_rows_of_the_sample_are_its_posts():
    """If it failed, the published sample would differ from the one that is trained on."""
    found = [
        (row["id"], row["tokens"], [TAGS[tag] for tag in row["ner_tags"]])
        for row in rows_of(built_sample(), "test", "en")
    ]
    assert found == [
        (post.id, list(post.tokens), list(post.tags)) for post in generate_posts("en", "test", 1)
    ]


@pytest.fixture(scope="module")
def mmner(tmp_path_factory):
    """Every config of a download with two languages, a pair and all; its released folders are beside it."""
    folder = tmp_path_factory.mktemp("mmner")
    write_mmner(folder / "released", **MMNER)
    build_dataset("mmner", folder / "built", data_dir=folder / "released", no_verify=True)
    return folder / "built"


def test_every_config_holds_its_own_rows(mmner):
    """If it failed, configs after the first would be empty, or hold the posts of another one."""
    record = record_of(mmner)
    assert list(record["configs"]) == list(MMNER_CONFIGS)
    folders = {"en": "en", "fr": "fr", "all": "all_lang", "en_plus_fr": "fr_plus_en"}
    for config, folder in folders.items():
        assert [row["id"] for row in rows_of(mmner, "train", config)] == [
            post_id for post_id, _ in MMNER[folder]
        ]
        assert len(rows_of(mmner, "test", config)) == 2
        counted = counts_in(record["configs"][config]["splits"]["train"])
        assert counted == naive_counts(imgid_text(MMNER[folder]))


def test_record_counts_languages_and_sources(mmner):
    """If it failed, the card would not say how a mixture is mixed."""
    configs = record_of(mmner)["configs"]
    assert configs["all"]["splits"]["train"]["languages"] == {"fr": 1, "en": 1, "unknown": 1}
    assert configs["en_plus_fr"]["splits"]["train"]["languages"] == {"fr": 1, "en": 1}
    assert configs["fr"]["splits"]["train"]["sources"] == {"tweet": 2, "caption": 1}


def test_configs_that_are_named_are_built_alone(tmp_path):
    """If it failed, a user could not leave out a config of a large download."""
    root = write_mmner(tmp_path / "released", **MMNER)
    record = build_dataset("mmner", tmp_path / "built", configs=["fr", "all"], data_dir=root, no_verify=True)
    assert list(record["configs"]) == ["fr", "all"]
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
    assert set(files_of(mmner)) == {"README.md", "corpus.json", "broken_pictures.jsonl", *parts}
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


def test_record_is_what_is_returned_and_read(tmp_path):
    """If it failed, later commands would go by another record than the build's."""
    folder = write_posts(tmp_path / "corpus", POSTS)
    assert build_dataset("conll", tmp_path / "built", data_dir=folder) == read_record(tmp_path / "built")


def test_notes_of_reading_are_in_the_record(tmp_path):
    """If it failed, nobody would learn that a file was not read as it stands."""
    folder = write_posts(tmp_path / "corpus", POSTS)
    (folder / "train.txt").write_bytes((folder / "train.txt").read_bytes().replace(b"\n", b"\r\n"))
    record = build_dataset("conll", tmp_path / "built", data_dir=folder, repair_orphans=True)
    splits = record["configs"]["default"]["splits"]
    assert splits["train"]["notes"] == {"line ends of CR LF read as LF": 12, "orphan I- tags made B-": 1}
    assert splits["test"]["notes"] == {}


def test_built_twice_is_the_same(tmp_path):
    """If it failed, two builds of the same files would be two data sets, and figures on them could not be
    compared.
    """
    first, second = build_small(tmp_path / "first"), build_small(tmp_path / "second")
    assert all_rows(first) == all_rows(second)
    assert record_of(first) == record_of(second)


def test_several_shards_keep_the_order(tmp_path, monkeypatch):
    """If it failed, large corpora, whose splits are cut into files, would come back shuffled or lose
    posts.
    """
    posts = [(str(number), f"word{number}/O") for number in range(400)]
    folder, images = write_posts(tmp_path / "corpus", POSTS | {"train": posts}), tmp_path / "images"
    images.mkdir()
    for number in range(400):
        (images / f"{number}.jpg").write_bytes(encoded(number, "JPEG"))
    monkeypatch.setattr(datasets.config, "MAX_SHARD_SIZE", 40_000)
    build_dataset("conll", tmp_path / "built", data_dir=folder, image_dir=images)
    names = sorted(path.name for path in (tmp_path / "built" / "default").glob("train*"))
    assert len(names) > 2 and names == [
        f"train-{number:05d}-of-{len(names):05d}.parquet" for number in range(len(names))
    ]
    rows = rows_of(tmp_path / "built", "train")
    assert [(row["id"], row["tokens"]) for row in rows] == [(post_id, [text[:-2]]) for post_id, text in posts]
    assert [row["image"]["bytes"] for row in rows] == [
        (images / f"{number}.jpg").read_bytes() for number in range(400)
    ]


def zipped(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(folder.rglob("*")):
            target.write(path, path.relative_to(folder.parent))
    return archive


def tarred(folder: Path) -> Path:
    archive = folder.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as target:
        target.add(folder, folder.name)
    return archive


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archives_give_the_same_data_set_as_folders(tmp_path, pack):
    """If it failed, a corpus built as it was downloaded would be another one than when it was unpacked by
    hand.
    """
    built = build_small(tmp_path / "folders")
    sources = {
        "data_dir": pack(tmp_path / "folders" / "corpus"),
        "image_dir": pack(tmp_path / "folders" / "images"),
    }
    record = build_dataset("conll", tmp_path / "archives", **sources)
    assert record == record_of(built)
    assert all_rows(tmp_path / "archives") == all_rows(built)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archives", "folders"]


# Broken pictures.


def test_broken_pictures_are_listed_and_counted(tmp_path):
    """If it failed, broken pictures would go unnoticed, or be taken for missing ones."""
    images = write_pictures(tmp_path / "images")
    (images / "2.jpg").write_bytes(b"<html>404</html>")
    (images / "4.jpg").write_bytes(b"")
    folder = write_posts(tmp_path / "corpus", POSTS)
    record = build_dataset("conll", tmp_path / "built", data_dir=folder, image_dir=images)
    listed = [
        json.loads(line) for line in (tmp_path / "built" / "broken_pictures.jsonl").read_text().splitlines()
    ]
    assert [{key: line[key] for key in ("config", "split", "id", "file")} for line in listed] == [
        {"config": "default", "split": "train", "id": "2", "file": "2.jpg"},
        {"config": "default", "split": "validation", "id": "4", "file": "4.jpg"},
    ]
    assert "expected one of the formats" in listed[0]["problem"]
    splits = record["configs"]["default"]["splits"]
    assert splits["train"]["pictures"] == {"present": 1, "missing": 1, "broken": 1, "broken_ids": ["2"]}
    assert [row["id"] for row in rows_of(tmp_path / "built", "train")] == ["1", "2", "3"]


def break_picture(corpus: Path, images: Path) -> dict:
    (images / "6.jpg").write_bytes(b"<html>404</html>")
    return {"broken_pictures": "stop"}


def spoil_last_file(corpus: Path, images: Path) -> dict:
    (corpus / "test.txt").write_text("IMGID:6\nEuro\tO\n\nIMGID:7\nme\n")
    return {}


def leave_out_file(corpus: Path, images: Path) -> dict:
    (corpus / "test.txt").unlink()
    return {}


def leave_out_images(corpus: Path, images: Path) -> dict:
    shutil.rmtree(images)
    return {}


def require_images(corpus: Path, images: Path) -> dict:
    return {"require_images": True}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_picture, r"post '6': picture .*6\.jpg.*; with --broken_pictures keep such posts are kept"),
        (spoil_last_file, r"test\.txt:5: expected token<TAB>tag, found 1 columns"),
        (leave_out_file, r"expected one test file out of"),
        (leave_out_images, r"images: expected a folder or an archive \(zip, tar\), found nothing"),
        (require_images, r"train\.txt:10: expected the picture 3\.jpg"),
    ],
)
def test_build_that_fails_leaves_nothing(tmp_path, spoil, message):
    """If it failed, half a data set would be there, which looks like a whole one."""
    folder, images = write_posts(tmp_path / "corpus", POSTS), write_pictures(tmp_path / "images")
    options = spoil(folder, images)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(CorpusError, match=message):
        build_dataset("conll", tmp_path / "built", data_dir=folder, image_dir=images, **options)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_files_that_are_not_the_official_ones_leave_nothing(tmp_path):
    """If it failed, another copy of a corpus would be built although the check refused it."""
    folder = write_posts(tmp_path / "corpus", POSTS)
    with pytest.raises(CorpusError, match="expected the official file, sha256 801e149e8635"):
        build_dataset("twitter2017", tmp_path / "built", data_dir=folder)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


# Folders that are there already.


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folder_is_never_replaced(tmp_path, overwrite):
    """If it failed, a slip in --output_dir would delete a user's files."""
    folder = write_posts(tmp_path / "corpus", POSTS)
    before = files_of(folder)
    with pytest.raises(
        FileExistsError, match="corpus: expected a new or an empty folder, found something else there"
    ):
        build_dataset("conll", folder, data_dir=folder, overwrite=overwrite)
    assert files_of(folder) == before


def test_built_data_set_is_replaced_only_when_asked(tmp_path):
    """If it failed, a data set would be lost by running a command twice, or could never be renewed."""
    built = build_small(tmp_path)
    before, corpus = files_of(built), write_posts(tmp_path / "corpus", POSTS | {"train": [("9", "new/O")]})
    with pytest.raises(
        FileExistsError, match="built: expected a new folder, found a built data set; --overwrite replaces it"
    ):
        build_dataset("conll", built, data_dir=corpus)
    assert files_of(built) == before
    build_dataset("conll", built, data_dir=corpus, overwrite=True)
    assert [row["id"] for row in rows_of(built, "train")] == ["9"]


def test_build_that_fails_leaves_the_old_data_set(tmp_path):
    """If it failed, an attempt to renew a data set could cost the one that was there."""
    built = build_small(tmp_path)
    before = files_of(built)
    with pytest.raises(CorpusError, match="expected the picture"):
        build_dataset("conll", built, data_dir=tmp_path / "corpus", require_images=True, overwrite=True)
    assert files_of(built) == before
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "images", "built"}


def test_empty_folder_is_taken(tmp_path):
    """If it failed, a user who made the output folder first would be refused."""
    (tmp_path / "built").mkdir()
    assert build_small(tmp_path) / "corpus.json" in list((tmp_path / "built").iterdir())


def test_folder_without_record_is_named(tmp_path):
    """If it failed, a command on the wrong folder would end in an unclear error."""
    with pytest.raises(
        CorpusError, match=r"expected a data set made by build-dataset, found no corpus\.json in it"
    ):
        read_record(tmp_path)
