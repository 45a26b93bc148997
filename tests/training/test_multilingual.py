"""Training in several languages: parts of splits, shares of the languages, transfer between them."""

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
from modeling_mmner.training.sampling import PostSampler, draws_by_language
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
    with pytest.raises(CorpusError, match="expected some of train, validation, test; found dev"):
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


@property_test
@given(
    st.dictionaries(st.sampled_from(["en", "fr", "de", "es"]), st.integers(1, 500), min_size=1),
    st.sampled_from([1, 1.5, 2, 5, 1e6]),
)
def test_draws_are_in_proportion(sizes, temperature):
    """If it failed, languages would get other shares than the temperature says."""
    draws = draws_by_language(Counter(sizes), temperature=temperature)
    assert sum(draws.values()) == sum(sizes.values()) and (temperature != 1 or draws == sizes)
    weights = {language: size ** (1 / temperature) for language, size in sizes.items()}
    for language, drawn in draws.items():
        assert abs(drawn - sum(sizes.values()) * weights[language] / sum(weights.values())) <= 1
    # Near 0 the largest language alone is drawn, without an overflow.
    assert draws_by_language(Counter(en=400, fr=300), temperature=1e-3) == {"en": 700, "fr": 0}


def sampler(temperature: float, seed: int = 1) -> PostSampler:
    """Over 40 English, 10 French and 5 German posts of different lengths."""
    languages = ["en"] * 40 + ["fr"] * 10 + ["de"] * 5
    lengths = [1 + index % 7 for index in range(len(languages))]
    return PostSampler(lengths, languages, temperature=temperature, batch_size=4, processes=1, seed=seed)


def test_temperature_one_is_the_plain_order():
    """If it failed, results of one language would change although nothing about it did."""
    ours = sampler(1, seed=0)
    for epoch in range(3):
        ours.set_epoch(epoch)
        plain = LengthGroupedSampler(4, lengths=ours.lengths, generator=torch.Generator().manual_seed(epoch))
        assert [*chain(*ours)] == list(plain)


def test_order_follows_from_seed_and_epoch():
    """If it failed, another pass over the posts would change the order, which a resumed run must know."""
    for temperature in (1.0, 5.0):
        first, again = sampler(temperature), sampler(temperature)
        orders = []
        for epoch in range(3):
            first.set_epoch(epoch)
            orders.append([*chain(*first)])
        again.set_epoch(2)
        assert [*chain(*again)] == [*chain(*again)] == orders[2]
        other = sampler(temperature, seed=2)
        assert len({tuple(order) for order in (*orders, chain(*other))}) == 4


def test_high_temperature_draws_languages_alike_and_posts_in_turn():
    """If it failed, some posts of a small language would be seen often and others never."""
    ours = sampler(1e9)
    drawn = [*chain(*ours)]
    assert len(drawn) == 55
    by_language = Counter("en" if index < 40 else "fr" if index < 50 else "de" for index in drawn)
    assert sorted(by_language.values()) == [18, 18, 19]
    times = Counter(drawn)
    for posts in (range(40), range(40, 50), range(50, 55)):
        assert max(times[index] for index in posts) - min(times[index] for index in posts) <= 1
    ours.set_epoch(1)
    assert [*chain(*ours)] != drawn


def test_training_and_test_may_have_other_languages(languages):
    """If it failed, zero-shot transfer would be tested on the language that was trained on."""
    settings = {"dataset": "conll", "data_dir": str(languages), "split_slices": SLICES}
    corpus = load_corpus(CorpusSettings(**settings, languages=["fr"], test_languages=["en", "de"]))
    found = {split: set(rows["language"]) for split, rows in corpus.splits.items()}
    assert found == {"train": {"fr"}, "validation": {"fr"}, "test": {"en", "de"}}
    with pytest.raises(CorpusError, match="--languages: expected some of de, en, fr, found it too"):
        load_corpus(CorpusSettings(**settings, languages=["fr", "it"]))


def test_test_posts_of_other_corpora_are_left_out(tmp_path, capsys):
    """If it failed, a model would have seen the test posts of the corpus that it is compared on."""
    raw = write_posts(tmp_path / "raw")
    posts = {"train": [("x", "a/O")], "valid": [("y", "a/O")], "test": [("2", "Jordan/O Henderson/O")]}
    other = write_posts(tmp_path / "other", posts)
    corpus = load_corpus(CorpusSettings(dataset="conll", data_dir=str(raw), exclude_test_of=[str(other)]))
    assert corpus.splits["train"]["id"] == ["1", "3"]
    assert corpus.overlap["left out, test of other"] == 1
    assert "of 3 training posts, 1 are test posts of" in capsys.readouterr().out
