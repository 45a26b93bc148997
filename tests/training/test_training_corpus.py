"""Tests of loading corpora for training: tag sets, pictures that are there or not, and versions."""

import hashlib
import io
from collections import Counter, defaultdict

import pytest
from datasets import Dataset
from PIL import Image

from dataset_scripts.builders.builder import SPLITS
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.opening import row_hash
from modeling_mmner.model.images_mmner import load_picture
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.recipes import CorpusSettings

FILES = {
    "train.txt": (
        "IMGID:a\nJordan\tB-PER\nsings\tO\n\n"
        "IMGID:b.jpg\nParis\tB-geo-loc\nTexas\tI-geo-loc\n\nIMGID:c\nSantos\tI-PER\n\n"
    ),
    "valid.txt": "IMGID:d\nParis\tB-geo-loc\n\n",
    "test.txt": "IMGID:e\nlovely\tO\n\nIMGID:f\nJordan\tB-PER\n\n",
}
ABSENT = {"present": 0, "missing": 1, "broken": 0}


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A corpus in files whose first post has a picture, whose second has a broken one, and whose others have
    none.
    """
    (tmp_path / "corpus" / "images").mkdir(parents=True)
    for name, text in FILES.items():
        (tmp_path / "corpus" / name).write_text(text, encoding="utf-8")
    (tmp_path / "corpus" / "images" / "a.jpg").write_bytes(png())
    (tmp_path / "corpus" / "images" / "b.jpg.jpg").write_bytes(png()[:-30])
    return tmp_path / "corpus"


def recipe(folder, **settings):
    return CorpusSettings(
        **{"dataset": "conll", "data_dir": str(folder), "image_dir": str(folder / "images")} | settings
    )


def test_rows_hold_the_posts_of_the_files(folder):
    """If it failed, tokens, tags or ids would be lost or moved between file and training."""
    corpus = load_corpus(recipe(folder, languages=["en"]))
    rows = corpus.splits["train"].to_list()
    assert [row["tokens"] for row in rows] == [["Jordan", "sings"], ["Paris", "Texas"], ["Santos"]]
    names = [[corpus.labels[tag] for tag in row["ner_tags"]] for row in rows]
    assert names == [["B-PER", "O"], ["B-geo-loc", "I-geo-loc"], ["I-PER"]]
    assert [row["id"] for row in rows] == ["a", "b.jpg", "c"]
    assert {(row["language"], row["source"]) for row in rows} == {("en", "conll")}
    assert {split: len(posts) for split, posts in corpus.splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }


def test_labels_are_the_training_types_the_most_frequent_first(folder):
    """If it failed, corpora with other types than the four could not be used."""
    tags = ["B-c", "B-x", "I-x", "B-geo-loc", "I-x", "B-x"]
    (folder / "train.txt").write_text("IMGID:a\n" + "".join(f"x\t{tag}\n" for tag in tags), encoding="utf-8")
    for name in ("valid.txt", "test.txt"):
        (folder / name).write_text("IMGID:a\nx\tI-c\n", encoding="utf-8")
    assert load_corpus(recipe(folder)).labels == ["O", "B-x", "I-x", "B-c", "I-c", "B-geo-loc", "I-geo-loc"]


@pytest.mark.parametrize("languages", [[], ["en", "fr"]], ids=["none", "two"])
def test_language_is_unknown_unless_there_is_one(folder, languages):
    """If it failed, posts would be reported under a language that nobody said they are in."""
    assert set(load_corpus(recipe(folder, languages=languages)).splits["train"]["language"]) == {"unknown"}


def test_missing_and_broken_pictures_are_counted_and_their_posts_kept(folder, capsys):
    """If it failed, posts would vanish, or a broken picture stop the training hours later."""
    corpus = load_corpus(recipe(folder))
    some = {"present": 1, "missing": 1, "broken": 1}
    assert corpus.pictures == {"train": some, "validation": ABSENT, "test": ABSENT | {"missing": 2}}
    images = corpus.splits["train"]["image"]
    assert [image and image["path"] for image in images] == [str(folder / "images" / "a.jpg"), None, None]
    assert load_picture(images[0]).size == (8, 6)
    assert "kept without its broken picture: post 'b.jpg': " in capsys.readouterr().out


def test_required_pictures_are_there_or_named(folder):
    """If it failed, --require_images would require nothing or let a file pass that nobody can read."""
    (folder / "images" / "c.jpg").write_bytes(png())
    found, broken = "train: expected a readable picture for each post, found", folder / "images" / "b.jpg.jpg"
    with pytest.raises(CorpusError, match=rf"{found} 0 missing and 1 broken; .* 'b\.jpg': picture .*decoded"):
        load_corpus(recipe(folder, require_images=True))
    broken.unlink()
    with pytest.raises(CorpusError, match=rf"{found} 1 missing and 0 broken; .* 'b\.jpg': no picture"):
        load_corpus(recipe(folder, require_images=True))
    for post_id in ("b.jpg", "d", "e", "f"):
        (folder / "images" / f"{post_id}.jpg").write_bytes(png())
    pictures = load_corpus(recipe(folder, require_images=True)).pictures
    assert sum(counts["present"] for counts in pictures.values()) == 6


@pytest.mark.parametrize(
    "settings", [{"image_dir": None}, {"use_images": False}], ids=["no folder", "not wanted"]
)
def test_without_pictures_all_posts_are_there(folder, settings):
    """If it failed, text alone would need pictures, or pictures be shown that were to be withheld."""
    corpus = load_corpus(recipe(folder, **settings))
    assert corpus.pictures["train"] == {"present": 0, "missing": 3, "broken": 0}
    assert corpus.splits["train"]["image"] == [None] * 3


def test_version_says_which_copy_of_the_corpus_it_is(folder):
    """If it failed, figures on two different copies would look comparable."""
    before, files = load_corpus(recipe(folder)).version, dict(zip(SPLITS, FILES.values(), strict=True))
    assert before == {split: hashlib.sha256(text.encode()).hexdigest()[:12] for split, text in files.items()}
    (folder / "test.txt").write_text(FILES["test.txt"].replace("lovely", "lively"), encoding="utf-8")
    after = load_corpus(recipe(folder)).version
    assert {split for split in before if before[split] != after[split]} == {"test"}


def test_a_type_that_training_lacks_is_kept(folder):
    """If it failed, a small training split would refuse the corpus."""
    (folder / "test.txt").write_text("IMGID:e\na\tB-ORG\n", encoding="utf-8")
    corpus = load_corpus(recipe(folder))
    assert {"B-ORG", "I-ORG"} <= set(corpus.labels)
    assert [[corpus.labels[tag] for tag in tags] for tags in corpus.splits["test"]["ner_tags"]] == [["B-ORG"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data_dir": None}, "conll: expected data_dir, the folder with its train, .* files, found none"),
        ({"image_dir": "/not/there"}, "conll image_dir /not/there: expected a folder with the pictures"),
        ({"data_dir": "/not/there"}, "/not/there: expected a folder with train, .* files, found no folder"),
    ],
    ids=["no data_dir", "no image folder", "no data folder"],
)
def test_missing_folders_are_refused(folder, settings, message):
    """If it failed, a mistyped folder would mean training without pictures, or an obscure error."""
    with pytest.raises(CorpusError, match=message):
        load_corpus(recipe(folder, **settings))


@pytest.fixture
def sample_cache(tmp_path_factory, monkeypatch):
    """The generated corpus in a folder that one test run keeps."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "sample_cache")


@pytest.mark.slow
@pytest.mark.usefixtures("sample_cache")
def test_sample_corpus_in_some_languages_is_a_part_of_the_whole():
    """If it failed, a language's posts would depend on which others are asked for."""
    whole, part = (
        load_corpus(CorpusSettings(languages=languages, use_images=False)) for languages in ([], ["fr", "es"])
    )
    assert part.labels == whole.labels
    for split, rows in part.splits.items():
        expected = [row for row in whole.splits[split].to_list() if row["language"] in ("fr", "es")]
        assert {row["language"] for row in expected} == {"fr", "es"}
        assert rows.to_list() == expected


def test_version_of_rows_depends_on_all_that_is_in_them():
    """If it failed, two versions of the sample with other pictures would carry the same hash."""
    row = {"id": "a", "tokens": ["x"], "ner_tags": [0], "image": {"bytes": b"1", "path": None}}
    pictures = [{"image": {"bytes": b"2", "path": None}}, {"image": None}]
    others = [{"id": "b"}, {"tokens": ["y"]}, {"ner_tags": [1]}, *pictures]
    versions = {row_hash(Dataset.from_list([row | change])) for change in [{}, *others]}
    assert len(versions) == 1 + len(others)
    assert row_hash(Dataset.from_list([row])) in versions


@pytest.mark.slow
@pytest.mark.usefixtures("sample_cache")
def test_sample_corpus_with_pictures_withheld_is_the_same_text():
    """If it failed, the model without pictures would be trained on other posts."""
    whole, text = (load_corpus(CorpusSettings(languages=["en"], use_images=use)) for use in (True, False))
    for split, rows in text.splits.items():
        posts = whole.splits[split].to_list()
        assert [row | {"image": None} for row in posts] == rows.to_list()
        assert text.pictures[split] == {"present": 0, "missing": len(rows), "broken": 0}
        present = sum(row["image"] is not None for row in posts)
        assert whole.pictures[split] == {"present": present, "missing": len(rows) - present, "broken": 0}
        assert 0 < present < len(rows)


@pytest.mark.slow
@pytest.mark.usefixtures("sample_cache")
def test_sample_corpus_knows_the_best_that_text_alone_can_do():
    """If it failed, the report on ambiguous names would compare with the wrong chance level."""
    corpus = load_corpus(CorpusSettings(languages=["en"]))
    tags = defaultdict(list)
    for row in corpus.splits["test"].to_list():
        if row["source"] == "ambiguous":
            tags[tuple(row["tokens"])].append(tuple(row["ner_tags"]))
    best = sum(Counter(group).most_common(1)[0][1] for group in tags.values()) / sum(map(len, tags.values()))
    assert corpus.chance == pytest.approx({"en": best, "all": best})


def test_unknown_language_of_the_sample_is_refused():
    """If it failed, a mistyped language beside a right one would silently be left out; it once was."""
    with pytest.raises(CorpusError, match="--languages: expected some of de, en, es, fr, found it, pt too"):
        load_corpus(CorpusSettings(languages=["en", "pt", "it"]))


def test_pictures_of_a_built_corpus_are_decoded_once(monkeypatch):
    """If it failed, each run would decode all pictures again before its first step."""
    settings = CorpusSettings(dataset="sample", languages=["en", "fr", "de", "es"])
    first = load_corpus(settings).pictures
    monkeypatch.setattr("PIL.Image.open", lambda *given, **options: pytest.fail("a picture was opened again"))
    assert load_corpus(settings).pictures == first and first["train"]["present"] > 0
