"""Training on built and foreign data sets, on posts with several pictures, and the guard against leakage."""

import warnings
from pathlib import Path

import datasets
import pytest

from dataset_scripts.builders.builder import SPLITS
from dataset_scripts.builders.built_corpus import build_dataset
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.opening import open_corpus
from modeling_mmner.evaluation.metrics import PictureCounts
from modeling_mmner.evaluation.scores import ShownRows, rows_with
from modeling_mmner.model.processing_mmner import MMNERProcessor
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.recipes import CorpusSettings
from tests.shared_data import bpe_tokenizer
from tests.small_corpora import POSTS, encoded, write_pictures, write_posts

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """A cache of data sets that one test run keeps."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "sources_cache")


@pytest.fixture
def raw(tmp_path) -> dict[str, str]:
    """The options that name a raw corpus with pictures."""
    folder, pictures = write_posts(tmp_path / "raw"), write_pictures(tmp_path / "pictures")
    return {"data_dir": str(folder), "image_dir": str(pictures)}


def saved(folder: Path, columns: dict, features: datasets.Features, splits: tuple[str, ...] = SPLITS) -> str:
    """A data set of Parquet files, the same rows in each split."""
    (folder / "data").mkdir(parents=True)
    for split in splits:
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def text_features(**more) -> datasets.Features:
    tags = datasets.List(datasets.ClassLabel(names=LABELS))
    return datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags, **more})


def test_built_corpus_trains_as_its_raw_files_do(tmp_path, raw):
    """If it failed, a figure would depend on whether a corpus was built first."""
    build_dataset("conll", tmp_path / "built", **raw)
    plain = load_corpus(CorpusSettings(dataset="conll", **raw))
    built = load_corpus(CorpusSettings(dataset=str(tmp_path / "built")))
    assert (built.labels, built.version, built.pictures) == (plain.labels, plain.version, plain.pictures)
    assert built.version_name == plain.version_name
    for split, rows in plain.splits.items():
        for row, other in zip(rows, built.splits[split], strict=True):
            assert row | {"image": None} == other | {"image": None}
            picture = row["image"] and Path(row["image"]["path"]).read_bytes()
            assert picture == (other["image"] and other["image"]["bytes"])


def test_foreign_data_set_needs_tokens_and_tags_alone(tmp_path):
    """If it failed, a data set of the Hub could only be used if it had been built by this package."""
    columns = {"tokens": [["Nice"], ["so"]], "ner_tags": [[3], [0]]}
    with pytest.warns(UserWarning, match="of 2 training posts, .*, 2 in the validation split, 2 in the test"):
        corpus = load_corpus(CorpusSettings(dataset=saved(tmp_path / "mine", columns, text_features())))
    assert (corpus.labels, corpus.version_name) == (LABELS, "unverified")
    added = {"id": "0", "language": "unknown", "source": "mine", "image": None}
    assert corpus.splits["test"][0] == {"tokens": ["Nice"], "ner_tags": [3]} | added


def with_several_pictures(folder: Path) -> str:
    """Posts with two pictures, of which one is broken in the second post; with none; with null."""
    good, other = ({"bytes": encoded(seed, "PNG"), "path": None} for seed in (1, 2))
    broken = {"bytes": b"no picture", "path": None}
    columns = {
        "tokens": [["Nice"], ["so"], ["me"], ["Jordan"]],
        "ner_tags": [[3], [0], [0], [1]],
        "images": [[good, other], [broken, other], [], None],
    }
    return saved(folder, columns, text_features(images=datasets.List(datasets.Image())))


@pytest.mark.filterwarnings("ignore:mine")
def test_posts_may_have_several_pictures(tmp_path, capsys):
    """If it failed, only the first picture would be seen, or some where they are withheld."""
    settings = CorpusSettings(dataset=with_several_pictures(tmp_path / "mine"))
    corpus = load_corpus(settings)
    assert corpus.pictures["train"] == PictureCounts(present=1, missing=2, broken=1)
    assert "kept without its broken picture: post '1': " in capsys.readouterr().out
    rows = corpus.splits["train"]
    assert [len(row["images"] or []) for row in rows] == [2, 1, 0, 0]
    assert rows[1]["images"][0]["bytes"] == encoded(2, "PNG")
    processor = MMNERProcessor(bpe_tokenizer(), labels=corpus.labels, image_size=4)
    batch = MMNERCollator(processor)(rows.to_list())
    assert batch["image_mask"].tolist() == [[True, True], [True, False], [False, False], [False, False]]
    settings.use_images = False
    corpus = load_corpus(settings)
    assert "images" not in corpus.splits["train"].features
    assert corpus.pictures["train"] == PictureCounts(present=0, missing=4, broken=0)


@pytest.mark.filterwarnings("ignore:mine")
def test_views_move_all_pictures_of_a_post(tmp_path):
    """If it failed, the shuffled score would be that of posts which still see a picture of their own."""
    rows = load_corpus(CorpusSettings(dataset=with_several_pictures(tmp_path / "mine"))).splits["train"]
    assert rows_with("picture", rows) == [0, 1]
    pictures = {
        mode: [len(view[index].get("images") or []) for index in range(len(view))]
        for mode in ("true", "shuffled", "none")
        for view in [ShownRows(rows, mode)]
    }
    assert pictures == {"true": [2, 1, 0, 0], "shuffled": [1, 2, 0, 0], "none": [0, 0, 0, 0]}


TAGS, WORDS = datasets.List(datasets.Value("int64")), datasets.List(datasets.Value("string"))
NO_BIO = datasets.List(datasets.ClassLabel(names=["O", "I-PER"]))
REFUSED = {
    "ids without names": ({"ner_tags": TAGS}, SPLITS, "expected tags by their names, found 0; --tag_names"),
    "no BIO": ({"ner_tags": NO_BIO}, SPLITS, "column ner_tags: labels: 'I-PER' has no 'B-PER'"),
    "no split": ({}, ("train", "test"), "expected the splits train, validation, test; validation not found"),
    "no tokens": ({"tokens": None, "words": WORDS}, SPLITS, "found ner_tags, words; --columns OURS=THEIRS"),
}


@pytest.mark.parametrize(("change", "splits", "message"), REFUSED.values(), ids=REFUSED)
def test_unusable_data_sets_are_refused(tmp_path, change, splits, message):
    """If it failed, ids would be read as other tags, or the error come in the middle of training."""
    features = {name: kind for name, kind in (text_features() | change).items() if kind is not None}
    columns = {"tokens": [["so"]], "words": [["so"]], "ner_tags": [[0]]}
    columns = {name: columns[name] for name in features}
    path = saved(tmp_path / "mine", columns, datasets.Features(features), splits=splits)
    with pytest.raises(CorpusError, match=message):
        load_corpus(CorpusSettings(dataset=path))


def test_ids_without_names_are_named_by_an_option(tmp_path):
    """If it failed, the many data sets of the Hub with bare numbers for tags could not be read."""
    columns = {"tokens": [["Nice", "is", "San", "Remo"]], "ner_tags": [[1, 0, 1, 2]]}
    features = text_features() | {"ner_tags": TAGS}
    path = saved(tmp_path / "mine", columns, datasets.Features(features))
    corpus = open_corpus(path, tag_names=["O", "B-LOC", "I-LOC"])
    [row] = corpus.splits["test"]
    assert [corpus.labels[tag] for tag in row["ner_tags"]] == ["B-LOC", "O", "B-LOC", "I-LOC"]


@pytest.fixture
def leaking(tmp_path, raw) -> CorpusSettings:
    """A corpus tested on another one, which holds two of its training posts: one by id, one by text."""
    shared = [("1", "Paris/B-LOC is/O Paris/O"), ("9", "JORDAN/B-PER Henderson/I-PER"), ("8", "new/O")]
    other = write_posts(tmp_path / "other", POSTS | {"test": shared})
    return CorpusSettings(dataset="conll", **raw, test_dataset=str(other))


def test_training_on_posts_of_another_corpus_test_split_is_stopped(leaking, capsys):
    """If it failed, a model would be tested on what it was trained on, or on other types."""
    with pytest.raises(CorpusError, match=r"of 3 training posts, .*, 2 in the test split; --exclude_overlap"):
        load_corpus(leaking)
    leaking.exclude_overlap = True
    corpus = load_corpus(leaking)
    assert corpus.splits["train"]["id"] == ["3"] and corpus.splits["test"]["id"] == ["1", "9", "8"]
    assert corpus.overlap == {"validation": 0, "test": 2, "excluded": True}
    assert "left out of training: 2" in capsys.readouterr().out
    named = [[corpus.labels[tag] for tag in tags] for tags in corpus.splits["test"]["ner_tags"]]
    assert named == [["B-LOC", "O", "O"], ["B-PER", "I-PER"], ["O"]]


@pytest.mark.parametrize(
    ("posts", "message"),
    [
        (POSTS | {"test": POSTS["train"]}, "all of its 3 posts are held-out posts; none is left"),
        (
            {"train": [("x", "a/O")], "valid": [("y", "a/O")], "test": [("z", "a/B-geo")]},
            r"test_dataset other: expected tags among .*, found \['B-geo'\]; rename",
        ),
    ],
    ids=["nothing left", "unknown type"],
)
def test_other_corpus_that_cannot_be_tested_on_is_refused(tmp_path, raw, posts, message):
    """If it failed, nothing would be left to train on, or gold entities vanish from the score."""
    other = str(write_posts(tmp_path / "other", posts))
    with pytest.raises(CorpusError, match=message):
        load_corpus(CorpusSettings(dataset="conll", **raw, test_dataset=other, exclude_overlap=True))


def test_overlap_inside_one_corpus_is_a_warning(tmp_path):
    """If it failed, official corpora, which have a few repeats, could not be used."""
    posts = POSTS | {"test": [("6", "Paris/B-LOC is/O paris/O")]}
    recipe = CorpusSettings(dataset="conll", data_dir=str(write_posts(tmp_path / "raw", posts)))
    with pytest.warns(UserWarning, match="0 in the validation split, 1 in the test split; --exclude_overlap"):
        corpus = load_corpus(recipe)
    assert corpus.overlap == {"validation": 0, "test": 1, "excluded": False}
    assert len(corpus.splits["train"]) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_corpus(CorpusSettings(dataset="conll", data_dir=str(write_posts(tmp_path / "apart"))))
