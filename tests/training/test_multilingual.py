"""Training in several languages: parts of splits, the order of posts, transfer between them."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.trainer_pt_utils import LengthGroupedSampler

from dataset_scripts.builders.built_corpus import build_dataset
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.opening import open_corpus
from dataset_scripts.slices import parse_slice
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.recipes import CorpusSettings
from modeling_mmner.training.sampling import PostSampler
from tests.shared_data import property_test
from tests.small_corpora import write_posts

ENTITIES = {"en": "Paris", "fr": "Lyon", "de": "Bonn"}


@pytest.fixture
def languages(tmp_path) -> Path:
    """A folder for each language in the indexed format: five validation and three test sentences."""
    for language, name in ENTITIES.items():
        (tmp_path / "wiki" / language).mkdir(parents=True)
        for split, count in (("val", 5), ("test", 3)):
            blocks = [f"0\t{name}\tB-LOC\n1\t{language}{split}{number}\tO\n\n" for number in range(count)]
            (tmp_path / "wiki" / language / f"{split}.conllu").write_text("".join(blocks), encoding="utf-8")
    return tmp_path / "wiki"


SLICES = {"train": "val[:3]", "validation": "val[3:]", "test": "test[::2]"}


@property_test
@given(st.integers(0, 12), *([st.none() | st.integers(0, 15)] * 2), st.none() | st.integers(1, 5))
def test_slices_take_what_python_takes(count, start, stop, step):
    """If it failed, another part of a split would be trained on than the one written down."""
    first, last, *by = ("" if number is None else str(number) for number in (start, stop, step))
    text = f"val[{':'.join([first, last, *filter(None, by)])}]"
    assert list(range(count))[parse_slice(text)[1]] == list(range(count))[start:stop:step]
    assert parse_slice(text)[0] == "val"


@pytest.mark.parametrize(
    "text", ["", "val[", "val[1]", "val[:1:0]", "val[-5:]", "val[a:]", "[:1]", "val[:1]x"]
)
def test_malformed_slices_are_refused(text):
    """If it failed, a mistyped part would be taken for a file's name, or for the whole split."""
    with pytest.raises(CorpusError, match=r"expected NAME or NAME\[START:STOP\]"):
        parse_slice(text)


def test_folders_of_languages_are_one_corpus(languages):
    """If it failed, posts would lose their language, ids of two languages be taken for one another's, or a
    mistyped split be left out.
    """
    corpus = open_corpus("conll", data_dir=languages, split_slices=SLICES)
    train = corpus.splits["train"]
    assert Counter(train["language"]) == {"de": 3, "en": 3, "fr": 3}
    assert train["tokens"][:3] == [["Bonn", "deval0"], ["Bonn", "deval1"], ["Bonn", "deval2"]]
    assert train["id"] == [
        f"{language}-val-{number}" for language in ("de", "en", "fr") for number in (1, 2, 3)
    ]
    assert [tokens[1] for tokens in corpus.splits["test"]["tokens"]][:2] == ["detest0", "detest2"]
    assert corpus.version_name.endswith("+train=val[:3]+validation=val[3:]+test=test[::2]")


def test_slices_that_do_not_fit_are_refused(languages):
    """If it failed, a corpus with a mistyped split would be trained on something else."""
    with pytest.raises(CorpusError, match=r"expected one train file out of train\.txt"):
        open_corpus("conll", data_dir=languages)
    with pytest.raises(CorpusError, match="expected some of train, validation, test, found dev"):
        open_corpus("conll", data_dir=languages, split_slices=SLICES | {"dev": "val"})


def test_built_data_sets_are_sliced_as_files_are(tmp_path, monkeypatch):
    """If it failed, the same part would be other posts once the corpus is built."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    raw = write_posts(tmp_path / "raw")
    build_dataset("conll", tmp_path / "built", data_dir=raw)
    slices = {"train": "train[1:]", "test": "validation[:1]"}
    from_files = open_corpus("conll", data_dir=raw, split_slices=slices)
    built = open_corpus(str(tmp_path / "built"), split_slices=slices)
    ids = [{split: rows["id"] for split, rows in one.splits.items()} for one in (built, from_files)]
    assert ids[0] == ids[1]
    assert built.version == from_files.version
    assert built.version_name.endswith("+train=train[1:]+test=validation[:1]")


def sampler(seed: int = 1) -> PostSampler:
    """Over 55 posts of different lengths."""
    return PostSampler([1 + index % 7 for index in range(55)], batch_size=4, processes=1, seed=seed)


def test_order_is_that_of_transformers():
    """If it failed, posts would be left out, come twice, or stand beside others of another length."""
    ours = sampler(seed=0)
    for epoch in range(3):
        ours.set_epoch(epoch)
        plain = LengthGroupedSampler(4, lengths=ours.lengths, generator=torch.Generator().manual_seed(epoch))
        assert [*chain(*ours)] == list(plain)


def test_order_follows_from_seed_and_epoch():
    """If it failed, another pass over the posts would change the order, which a resumed run must know."""
    first, again = sampler(), sampler()
    orders = []
    for epoch in range(3):
        first.set_epoch(epoch)
        orders.append([*chain(*first)])
    again.set_epoch(2)
    assert [*chain(*again)] == [*chain(*again)] == orders[2]
    assert len({tuple(order) for order in (*orders, chain(*sampler(seed=2)))}) == 4


def test_training_and_test_may_have_other_languages(languages):
    """If it failed, zero-shot transfer would be tested on the language that was trained on."""
    settings = {"dataset": "conll", "data_dir": str(languages), "split_slices": SLICES}
    corpus = load_corpus(CorpusSettings(**settings, languages=["fr"], test_languages=["en", "de"]))
    found = {split: set(rows["language"]) for split, rows in corpus.splits.items()}
    assert found == {"train": {"fr"}, "validation": {"fr"}, "test": {"en", "de"}}
    with pytest.raises(CorpusError, match="--languages: expected some of de, en, fr, found it too"):
        load_corpus(CorpusSettings(**settings, languages=["fr", "it"]))
