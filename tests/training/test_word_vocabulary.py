"""Tests of what a text tower of words reads: its vocabulary, files of word vectors, and the bytes of
words.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from transformers import PreTrainedTokenizerBase

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.training.assembly import build_model, build_processor, check_model
from modeling_mmner.training.recipe_options import parse_arguments
from modeling_mmner.training.recipes import load_recipe
from modeling_mmner.training.vocabulary import (
    PADDING,
    UNKNOWN,
    load_vectors,
    make_word_tokenizer,
    read_vectors,
    word_vocabulary,
)
from tests.shared_data import property_test
from tests.tiny import LABELS, parts_of

POSTS = [
    ["Jordan", "posts", "from", "Paris"],
    ["Jordan", "in", "New York", "!"],
    ["from", "Paris", "!", "Zürich"],
]
VECTORS = "paris 1 2 3\njordan -4 5.5 6e-1\nnew york 7 8 9\nnothing 0 0 0\n"
SMALL = {"word_width": 3, "word_lstm_width": 8, "character_filters": 4, "character_cnn_width": 4}


@pytest.fixture
def written(tmp_path):
    """A function that writes a file of vectors and returns its path."""

    def write(content: str) -> str:
        path = tmp_path / "vectors.txt"
        path.write_bytes(content.encode())
        return str(path)

    return write


def naive_vocabulary(posts: list[list[str]], *, size: int, in_file: list[str]) -> tuple[list[str], int]:
    """All words in the order of their ids, and from which id on they are rare, by counting."""
    read = [word for post in posts for word in post]
    words = []
    for word in (*sorted(read, key=lambda word: (-read.count(word), word)), *in_file):
        if word not in (*words, PADDING, UNKNOWN) and len(words) < size - 2:
            words.append(word)
    rare = [word for word in words if read.count(word) == 1]
    ordered = [PADDING, UNKNOWN, *(word for word in words if word not in rare), *rare]
    return ordered, len(ordered) - len(rare)


def in_order(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    ids = tokenizer.get_vocab()
    assert sorted(ids.values()) == list(range(len(ids)))
    return sorted(ids, key=ids.__getitem__)


def ids_of(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> list[int]:
    return MMNERProcessor(tokenizer, labels=LABELS, image_size=None)([words])["input_ids"].flatten().tolist()


# The vocabulary

some_words = st.sampled_from(
    ["a", "b", "B", "c d", "ü", "Σ", PADDING, UNKNOWN, "x[PAD]", "0", "\u200b", "😀"]
)


@property_test
@given(
    posts=st.lists(st.lists(some_words, max_size=6), max_size=5),
    size=st.integers(1, 9),
    in_file=st.none() | st.lists(some_words, max_size=5),
)
def test_vocabulary_is_that_of_naive_counting(tmp_path_factory, posts, size, in_file):
    """If it failed, frequent words would be cut before rare ones."""
    vectors, words = None, []
    if in_file is not None:
        words = ["B", *in_file]  # a capital letter, so that the vocabulary is a cased one
        vectors = tmp_path_factory.getbasetemp() / "vectors.txt"
        vectors.write_text("".join(f"{word} 0.5\n" for word in words), encoding="utf-8", newline="")
    tokenizer = make_word_tokenizer(posts, size=size, vectors=vectors and str(vectors))
    ordered, rare = naive_vocabulary(posts, size=size, in_file=words[:size])  # no more of a long file is read
    assert in_order(tokenizer) == ordered
    assert word_vocabulary(tokenizer) == {"size": len(ordered), "unknown": 1, "rare": rare}
    if len(ordered) == 2:  # a processor refuses a vocabulary without a word
        return
    asked = ["a", "B", "c d", "x[PAD]", "nowhere", UNKNOWN, "😀"]
    assert ids_of(tokenizer, asked) == [ordered.index(word) if word in ordered else 1 for word in asked]


@pytest.mark.parametrize(
    ("content", "lower"), [(VECTORS, True), (VECTORS + "Paris 1 1 1\n", False), (None, False)]
)
def test_words_are_read_in_lower_case_where_the_vectors_are(written, content, lower):
    """If it failed, capitalised words would have no vector, or lose their capitals for no reason."""
    tokenizer = make_word_tokenizer(POSTS, size=100, vectors=content and written(content))
    ids = tokenizer.get_vocab()
    found = ids_of(tokenizer, ["Paris", "paris", "PARIS", "ZÜRICH", "New York"])
    if lower:
        assert found == [ids["paris"]] * 3 + [ids["zürich"], ids["new york"]]
        assert not any(word.isupper() or word.istitle() for word in ids.keys() - {PADDING, UNKNOWN})
    else:
        assert found == [ids["Paris"], ids["paris"] if content else 1, 1, 1, ids["New York"]]


def test_every_word_of_training_is_read_as_itself(written):
    """Regression: in lower case, words that Python and the tokenizer spell differently were unknown."""
    posts = [["ΟΔΟΣ", "İstanbul", "STRASSE", "ǅ", "ὈΔΥΣΣΕΎΣ", "ﬀ"]] * 2
    for vectors in (None, written(VECTORS)):
        found = ids_of(make_word_tokenizer(posts, size=100, vectors=vectors), posts[0])
        assert 1 not in found and len(set(found)) == 6


# Files of vectors


def vectors_of(path: str) -> dict[str, list[float]]:
    return {word: vector.tolist() for word, vector in read_vectors(path)}


@pytest.mark.parametrize(
    "content",
    [
        "a 1 -2.5\nb c 3 4e-1\n\u00a0 5 6\n",
        "3 2\na 1 -2.5\nb c 3 4e-1\n\u00a0 5 6\n",  # word2vec's first line
        "3 2 \na 1 -2.5 \nb c 3 4e-1 \n\u00a0 5 6 \n",  # and its spaces
        "a 1 -2.5\r\nb c 3 4e-1\r\n\u00a0 5 6\r\n",
        "a 1 -2.5\nb c 3 4e-1\n\u00a0 5 6",
    ],
    ids=["glove", "word2vec", "word2vec with spaces", "CRLF", "no last line break"],
)
def test_formats_of_vectors(written, content):
    """If it failed, a word would be lost or the first line be taken for a word."""
    assert vectors_of(written(content)) == {"a": [1, -2.5], "b c": [3, pytest.approx(0.4)], "\u00a0": [5, 6]}
    assert all(vector.dtype == np.float32 for _, vector in read_vectors(written(content)))


@pytest.mark.parametrize(
    ("content", "line", "numbers"),
    [
        ("a 1 2 3\nb 1 2\n", 2, "3"),
        ("a 1 2\nb 1\n", 2, "2"),
        ("a 1 2\nb one 2\n", 2, "2"),
        ("a 1 2\nb 1 nan\n", 2, "2"),
        ("a 1 2\n\nb 1 2\n", 2, "2"),
        ("a 1 2\n 1 2\n", 2, "2"),
        ("2 2\na 1 2\nb 1\n", 3, "2"),
        ("a\nb 1\n", 1, "its"),
        ("a b 1\n", 1, "2"),
    ],
)
def test_broken_lines_are_named(written, content, line, numbers):
    """If it failed, a file of another kind would give vectors of nonsense, or an error without its place."""
    path, found = written(content), content.split("\n")[line - 1]
    with pytest.raises(ValueError) as error:
        vectors_of(path)
    wanted = f"expected a word and {numbers} numbers, found {found + chr(10)!r}"
    expected = f"word_vectors {path}, line {line}: {wanted}"
    assert str(error.value) == expected


def test_file_that_is_missing_or_no_text_of_vectors_is_named(tmp_path):
    """If it failed, a misspelt path or word2vec's binary file would end in an error without its path."""
    for path in (tmp_path / "nothere.txt", tmp_path):
        with pytest.raises(ValueError, match=f"^word_vectors: expected a file of .*, found none at {path}$"):
            make_word_tokenizer(POSTS, size=9, vectors=str(path))
    path = tmp_path / "vectors.bin"
    for content in (b"", b"\x80\x00\xff\x12 \x93\xfe \x00"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^word_vectors {path}.*: expected a word and .* numbers"):
            vectors_of(str(path))


# Recipes


def build(*arguments: str) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """The model and the processor of a command line, for `POSTS`."""
    settings = [f"--{name}={value}" for name, value in SMALL.items()]
    recipe = parse_arguments([*arguments, *settings])
    processor = build_processor(recipe, labels=LABELS, posts=POSTS)
    return build_model(recipe, processor), processor


def test_vectors_of_another_width_are_refused(written):
    """If it failed, an error of shapes would come after the corpus was read."""
    tokenizer, path = make_word_tokenizer(POSTS, size=9), written(VECTORS)
    message = f"^word_vectors {path}: expected vectors of word_width 4, found 3; set word_width to it$"
    with pytest.raises(ValueError, match=message):
        load_vectors(nn.Embedding(len(tokenizer), 4), tokenizer, path)
    recipe = load_recipe("bilstm-crf", {"word_vectors": path, "word_width": 4})
    with pytest.raises(ValueError, match=message):
        check_model(recipe)
    check_model(recipe.with_settings(word_width=3))


def test_recipe_starts_from_the_vectors(written):
    """If it failed, `--word_vectors` would make a vocabulary and leave the embeddings at random."""
    path = written(f"{VECTORS}paris 0 0 0\n")  # of a word's several vectors the first counts
    model, processor = build("--recipe", "bilstm-crf", "--word_vectors", path)
    ids, weight = processor.tokenizer.get_vocab(), model.get_input_embeddings().weight
    assert {"jordan", "zürich", "nothing"} < ids.keys()
    assert model.config.word_vocabulary == word_vocabulary(processor.tokenizer)
    rows = {"paris": [1, 2, 3], "jordan": [-4, 5.5, 0.6], "new york": [7, 8, 9], "nothing": [0, 0, 0]}
    for word, row in rows.items():
        assert torch.equal(weight[ids[word]], torch.tensor(row, dtype=torch.float32)), word
    others = weight[[number for word, number in ids.items() if word not in rows]]
    assert others.abs().max() <= 1 and others.abs().min() > 0, "drawn, from -1..1 at this width"
    assert weight.requires_grad


@pytest.mark.parametrize(
    ("recipe", "word_bytes"), [("bilstm-crf", None), ("cnn-bilstm-crf", 5), ("hbilstm-crf", 5)]
)
def test_processor_makes_bytes_for_towers_that_read_them(recipe, word_bytes):
    """If it failed, a tower of characters would be without them, or `--word_bytes` do nothing."""
    model, processor = build("--recipe", recipe, "--word_bytes", "5")
    assert processor.word_bytes == word_bytes
    batch = processor(POSTS, labels=[["O"] * 4] * 3)
    reads_bytes = word_bytes is not None
    assert ("character_ids" in batch) == ("character_ids" in processor.model_input_names) == reads_bytes
    assert word_bytes is None or batch["character_ids"].shape == (3, 4, 5)
    assert model(**batch).loss.isfinite()
    assert load_recipe(recipe).model.word_bytes == 64


# Words and their bytes

LETTERS = ["a", "é", "€", "😀", "\ud83d", "\ude00", " ", "\u200b", "\ufeff", "\ufffd", "\x00", "Z"]
a_word = st.text(st.sampled_from(LETTERS), max_size=9)


def naive_bytes(word: str) -> list[int]:
    """Two surrogates that belong together are one character, a lone one is U+FFFD."""
    whole = word.replace("\ud83d\ude00", "😀")
    return list(re.sub("[\ud800-\udfff]", "\ufffd", whole).encode())


@property_test
@given(posts=st.lists(st.lists(a_word, max_size=4), min_size=1, max_size=3), most=st.integers(1, 12))
@example(posts=[["a\ud83d\ude00"]], most=2)  # cut inside of a character that is two surrogates
def test_characters_are_the_bytes_of_each_word(posts, most):
    """If it failed, a word would be spelt with another's bytes or be cut at another place."""
    tokenizer = make_word_tokenizer(POSTS, size=9)
    processor = MMNERProcessor(tokenizer, labels=LABELS, image_size=None, word_bytes=most)
    batch = processor(posts)
    spelt = [[naive_bytes(word)[:most] for word in words] for words in posts]
    longest = max((len(word) for words in spelt for word in words), default=0)
    assert batch["character_ids"].shape == (len(posts), max(1, *map(len, posts)), max(1, longest))
    for row, words in enumerate(spelt):
        for place in range(batch["character_ids"].shape[1]):
            word = words[place] if place < len(words) else []
            expected = [byte + 1 for byte in word] + [0] * (max(1, longest) - len(word))
            assert batch["character_ids"][row, place].tolist() == expected


@pytest.mark.parametrize("content", [None, VECTORS], ids=["cased", "lower case"])
def test_saved_processor_spells_words_alike(tmp_path: Path, written, content):
    """If it failed, a loaded model would read other words, forget which are rare, or lose characters."""
    tokenizer = make_word_tokenizer(POSTS, size=9, vectors=content and written(content))
    processor = MMNERProcessor(tokenizer, labels=LABELS, image_size=None, word_bytes=4)
    processor.save_pretrained(tmp_path)
    loaded = MMNERProcessor.from_pretrained(tmp_path)
    vocabulary = word_vocabulary(loaded.tokenizer)
    assert in_order(loaded.tokenizer) == in_order(tokenizer) and vocabulary == word_vocabulary(tokenizer)
    assert loaded.word_bytes == 4 and vocabulary["rare"] < vocabulary["size"]
    words = [["Zürich", "PARIS", "New York", "x[PAD]y"], []]
    for name, tensor in processor(words).items():
        assert torch.equal(loaded(words)[name], tensor), name
    longer = MMNERProcessor.from_pretrained(tmp_path, word_bytes=6)
    assert longer(words)["character_ids"].shape == (2, 4, 6)
    without = MMNERProcessor.from_pretrained(tmp_path, word_bytes=None)
    assert "character_ids" not in without(words)


@pytest.mark.parametrize("tower", ["cnn-bilstm", "hbilstm"])
def test_towers_of_characters_do_not_go_without(tower):
    """If it failed, inputs of another model's processor would end in a shape error."""
    model, processor = parts_of({"fusion": "text-only", "text_tower": tower}, posts=POSTS)
    other = MMNERProcessor(processor.tokenizer, labels=LABELS, image_size=None)
    with pytest.raises(
        ValueError, match=rf"expected character_ids .* text tower '{tower}' reads, found none"
    ):
        model(**other(POSTS))
    assert model(**processor(POSTS)).logits.isfinite().all()
