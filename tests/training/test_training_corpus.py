"""Tests of loading corpora for training: tag sets, pictures that are there or not, and versions."""

from dataclasses import astuple

import pytest
from datasets import Dataset

from dataset_scripts.corpora import BUILDERS
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.opening import row_hash
from modeling_mmner.model.images_mmner import load_picture
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.recipes import CorpusSettings
from tests.small_posts import RED, encoded

FILES = {
    "train.txt": (
        "IMGID:a\nJordan\tB-PER\nsings\tO\n\n"
        "IMGID:b.jpg\nParis\tB-geo-loc\nTexas\tI-geo-loc\n\nIMGID:c\nSantos\tI-PER\n\n"
    ),
    "valid.txt": "IMGID:d\nParis\tB-geo-loc\n\n",
    "test.txt": "IMGID:e\nlovely\tO\n\nIMGID:f\nJordan\tB-PER\n\n",
}
PNG = encoded(RED)


@pytest.fixture
def folder(tmp_path):
    """A corpus in files: the first post has a picture, the second a broken one, the others none."""
    (tmp_path / "corpus" / "images").mkdir(parents=True)
    for name, text in FILES.items():
        (tmp_path / "corpus" / name).write_text(text, encoding="utf-8")
    (tmp_path / "corpus" / "images" / "a.jpg").write_bytes(PNG)
    (tmp_path / "corpus" / "images" / "b.jpg.jpg").write_bytes(PNG[:-30])
    return tmp_path / "corpus"


def recipe(folder, **settings):
    return CorpusSettings(
        **{"dataset": "conll", "data_dir": str(folder), "image_dir": str(folder / "images")} | settings
    )


def test_labels_are_the_training_types_the_most_frequent_first(folder):
    """If it failed, corpora with other types than the four, or one that training lacks, could not be used."""
    tags = ["B-c", "B-x", "I-x", "B-geo-loc", "I-x", "B-x"]
    (folder / "train.txt").write_text("IMGID:a\n" + "".join(f"x\t{tag}\n" for tag in tags), encoding="utf-8")
    for name, tag in (("valid.txt", "I-c"), ("test.txt", "B-ORG")):
        (folder / name).write_text(f"IMGID:a\nx\t{tag}\n", encoding="utf-8")
    corpus, types = load_corpus(recipe(folder)), ("x", "c", "ORG", "geo-loc")
    assert corpus.labels == ["O", *(f"{prefix}-{name}" for name in types for prefix in "BI")]
    assert [[corpus.labels[tag] for tag in tags] for tags in corpus.splits["test"]["ner_tags"]] == [["B-ORG"]]


@pytest.mark.parametrize("languages", [[], ["en", "fr"]], ids=["none", "two"])
def test_language_is_unknown_unless_there_is_one(folder, languages):
    """If it failed, posts would be reported under a language that nobody said they are in."""
    assert set(load_corpus(recipe(folder, languages=languages)).splits["train"]["language"]) == {"unknown"}


def test_missing_and_broken_pictures_are_counted_and_their_posts_kept(folder, capsys):
    """If it failed, posts would vanish, or a broken picture stop the training hours later."""
    corpus = load_corpus(recipe(folder))
    counts = {"train": (1, 1, 1), "validation": (0, 1, 0), "test": (0, 2, 0)}
    assert {split: astuple(found) for split, found in corpus.pictures.items()} == counts
    images = corpus.splits["train"]["image"]
    assert [image and image["path"] for image in images] == [str(folder / "images" / "a.jpg"), None, None]
    assert load_picture(images[0]).size == RED.size
    assert "kept without its broken picture: post 'b.jpg': " in capsys.readouterr().out


def test_required_pictures_are_there_or_named(folder):
    """If it failed, --require_images would require nothing or let a file pass that nobody can read."""
    (folder / "images" / "c.jpg").write_bytes(PNG)
    found, broken = "train: expected a readable picture for each post, found", folder / "images" / "b.jpg.jpg"
    with pytest.raises(CorpusError, match=rf"{found} 0 missing and 1 broken; .* 'b\.jpg': picture .*decoded"):
        load_corpus(recipe(folder, require_images=True))
    broken.unlink()
    with pytest.raises(CorpusError, match=rf"{found} 1 missing and 0 broken; .* 'b\.jpg': no picture"):
        load_corpus(recipe(folder, require_images=True))
    for post_id in ("b.jpg", "d", "e", "f"):
        (folder / "images" / f"{post_id}.jpg").write_bytes(PNG)
    pictures = load_corpus(recipe(folder, require_images=True)).pictures
    assert sum(counts.present for counts in pictures.values()) == 6


@pytest.mark.parametrize(
    "settings", [{"image_dir": None}, {"use_images": False}], ids=["no folder", "not wanted"]
)
def test_without_pictures_all_posts_are_there(folder, settings):
    """If it failed, text alone would need pictures, or pictures be shown that were to be withheld."""
    corpus = load_corpus(recipe(folder, **settings))
    assert astuple(corpus.pictures["train"]) == (0, 3, 0)
    assert corpus.splits["train"]["image"] == [None] * 3


def test_version_of_rows_depends_on_all_that_is_in_them():
    """If it failed, two versions of the sample with other pictures would carry the same hash."""
    row = {"id": "a", "tokens": ["x"], "ner_tags": [0], "image": {"bytes": b"1", "path": None}}
    pictures = [{"image": {"bytes": b"2", "path": None}}, {"image": None}]
    others = [{"id": "b"}, {"tokens": ["y"]}, {"ner_tags": [1]}, *pictures]
    versions = {row_hash(Dataset.from_list([row | change])) for change in [{}, *others]}
    assert len(versions) == 1 + len(others)
    assert row_hash(Dataset.from_list([row])) in versions


@pytest.mark.slow
def test_sample_knows_its_chance_and_its_pictures_are_decoded_once(monkeypatch):
    """If it failed, each run would decode all pictures again, or not know what text alone can do."""
    settings = CorpusSettings(dataset="sample", languages=["en", "fr", "de", "es"])
    corpus = load_corpus(settings)
    first = corpus.pictures
    assert corpus.chance == BUILDERS["sample"].chance(settings.languages)
    monkeypatch.setattr("PIL.Image.open", lambda *given, **options: pytest.fail("a picture was opened again"))
    assert load_corpus(settings).pictures == first and first["train"].present > 0
