"""Tests of `build` with people's own files: a data set for the Hub with the same posts in the same splits."""

import json

import datasets
import pytest
from PIL import Image

from dataset_scripts.builders.built_corpus import build_dataset
from dataset_scripts.opening import open_corpus
from modeling_mmner.cli import main
from tests.tool_exports import json_lines


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """`datasets` keeps what it loads in a folder of the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def posts(tmp_path):
    """40 posts; every fourth has a picture, post 8 two, post 12 a broken one; post 5 a span cut."""
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    records = []
    for number in range(40):
        names = [f"{number}.png"] * (number % 4 == 0) + ["more.png"] * (number == 8)
        for name in names:
            Image.new("RGB", (8, 8), (5 * number, 9, 9 * len(name))).save(folder / "images" / name)
        name = ("Lima", "Anna", "Oslo")[number % 3]
        span = {"start": 0, "end": len(name) - 2 * (number == 5), "label": ("LOC", "PER", "LOC")[number % 3]}
        record = {"id": f"p{number}", "text": f"{name} in post {number}", "spans": [span], "images": names}
        records.append(record | {"topic": "sport", "annotator": "ada@example.org"})
    (folder / "images" / "12.png").write_text("no picture")
    return json_lines(folder / "posts.jsonl", records)


def test_own_file_is_built_as_it_is_trained_on(posts, tmp_path):
    """If it failed, what is published would not be what was trained on: other splits, labels or pictures."""
    built = tmp_path / "built"
    arguments = ["--output_dir", built, "--license", "cc-by-4.0", "--split_ratio", "60,20,20"]
    arguments += ["--columns", "context=topic"]
    assert main(["build", str(posts), *map(str, arguments)]) == 0
    columns = {"context": "topic"}
    own, again = open_corpus(str(posts), split_ratio="60,20,20", columns=columns), open_corpus(str(built))
    assert (again.labels, again.version_name) == (own.labels, own.version_name)
    for split, rows in own.splits.items():
        for column in ("id", "tokens", "ner_tags", "context"):
            assert again.splits[split][column] == rows[column], (split, column)
    sizes = {row["id"]: len(row["images"]) for rows in again.splits.values() for row in rows}
    assert {post: size for post, size in sizes.items() if size != int(int(post[1:]) % 4 == 0)} == {
        "p8": 2,
        "p12": 0,
    }
    loaded = datasets.load_dataset(str(built), split="train")
    assert loaded.features["images"] == datasets.List(datasets.Image())


def test_card_of_own_posts_says_what_is_in_it_and_nothing_of_a_post(posts, tmp_path):
    """If it failed, a card would show private posts, or no licence, or not what was lost."""
    record = build_dataset(str(posts), tmp_path / "built", license="cc-by-4.0")
    card = (tmp_path / "built" / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "Posts with named entities of the types LOC, PER." in card
    assert "- `images`: its pictures, of any number" in card
    assert record["columns"] == ["id", "tokens", "ner_tags", "language", "source", "images"]
    assert "spans left out" in card
    assert not [word for word in ("in post", "Lima", str(tmp_path)) if word in card]
    splits = record["configs"]["default"]["splits"].values()
    counted = [counts["pictures"] for counts in splits]
    assert [sum(one[kind] for one in counted) for kind in ("present", "missing", "broken")] == [9, 30, 1]
    (broken,) = map(json.loads, (tmp_path / "built" / "broken_pictures.jsonl").read_text().splitlines())
    assert (broken["id"], broken["file"]) == ("p12", "12.png")


def test_own_posts_are_pushed_by_whoever_has_the_rights(posts, tmp_path, capsys):
    """If it failed, private posts would go to the Hub by a slip."""
    assert main(["build", str(posts), "--output_dir", str(tmp_path / "built"), "--push", "a/b"]) == 2
    assert "if you may publish them, say --i_have_the_rights" in capsys.readouterr().err
    assert not (tmp_path / "built").exists()


def test_posts_are_not_replaced_by_what_is_built_of_them(posts, capsys):
    """If it failed, --overwrite would delete the only copy of somebody's work."""
    assert main(["build", str(posts), "--output_dir", str(posts.parent), "--overwrite"]) == 2
    assert "expected a folder beside what is read" in capsys.readouterr().err
    assert posts.is_file()


def test_mistyped_corpus_is_answered_by_the_nearest(tmp_path, capsys):
    """If it failed, a slip would be looked for on the Hub."""
    assert main(["build", "sampel", "--output_dir", str(tmp_path / "built")]) == 2
    assert "did you mean sample?" in capsys.readouterr().err
