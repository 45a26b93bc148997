"""Vocabularies from the training posts: of sub-tokens, or of whole words with their vectors from a file."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PADDING, UNKNOWN = "[PAD]", "[UNK]"
_MOST_CHARACTERS = 1_000_000  # of a line


def train_tokenizer(posts: Iterable[list[str]], vocabulary_size: int) -> PreTrainedTokenizerBase:
    """A cased BPE tokenizer with [CLS] and [SEP], trained on words.

    Not WordPiece: its training breaks ties at random, so that equal posts would give other vocabularies.
    """
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    specials = list(names.values())
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator((word for post in posts for word in post), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def make_word_tokenizer(
    posts: Iterable[list[str]], *, size: int, vectors: str | None = None
) -> PreTrainedTokenizerBase:
    """A tokenizer of whole words: the most frequent of the training posts, then those of a file of vectors.

    The words that training sees once have the last ids, from `rare_words_from` on, which the tokenizer keeps
    among its settings. Words are cased, unless the file's vectors are of words in lower case alone: then all
    words are read in lower case.

    Args:
        posts: tokens of the training posts.
        size: how many ids at most, those of padding and of the unknown word included.
        vectors: file of word vectors, see `read_vectors`.
    """
    in_file = [] if vectors is None else [word for word, _ in islice(read_vectors(vectors), size)]
    lower = bool(in_file) and all(word == word.lower() for word in in_file)
    # Not Python's, which writes the last letter of Greek words in another way.
    spelling = normalizers.Lowercase()
    counts = Counter(spelling.normalize_str(word) if lower else word for post in posts for word in post)
    by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
    words = [word for word in dict.fromkeys([*by_frequency, *in_file]) if word not in (PADDING, UNKNOWN)]
    words = sorted(words[: max(size - 2, 0)], key=lambda word: counts[word] == 1)
    ids = {word: number for number, word in enumerate([PADDING, UNKNOWN, *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    if lower:
        tokenizer.normalizer = spelling
    rare = len(ids) - sum(counts[word] == 1 for word in words)
    # No word is cut where it holds a special token.
    names = {"pad_token": PADDING, "unk_token": UNKNOWN, "split_special_tokens": True}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, rare_words_from=rare)


def word_vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """What `MMNERConfig.word_vocabulary` says of a tokenizer of `make_word_tokenizer`."""
    # Another's tokenizer of words has no rare ones.
    rare = tokenizer.init_kwargs.get("rare_words_from", len(tokenizer))
    return {"size": len(tokenizer), "unknown": tokenizer.unk_token_id, "rare": rare}


@torch.no_grad()
def load_vectors(embeddings: nn.Embedding, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Put a file's vectors into the embeddings of the tokenizer's words, of a word's several the first.

    Raises:
        ValueError: the vectors are of another width; see `read_vectors`.
    """
    check_vectors(path, width=embeddings.embedding_dim)
    waiting = tokenizer.get_vocab()
    for word, vector in read_vectors(path):
        if (number := waiting.pop(word, None)) is not None:
            embeddings.weight[number] = torch.from_numpy(vector)


def check_vectors(path: str, *, width: int) -> None:
    """Check by its first line that a file has vectors of a width.

    Raises:
        ValueError: they are of another one; see `read_vectors`.
    """
    _, vector = next(read_vectors(path))
    if len(vector) != width:
        found = f"found {len(vector)}; set word_width to it"
        raise ValueError(f"word_vectors {path}: expected vectors of word_width {width}, {found}")


def read_vectors(path: str) -> Iterator[tuple[str, np.ndarray]]:
    """The words and vectors of a file in GloVe's text format: a word and its numbers a line, with spaces.

    A first line with two numbers alone, as word2vec writes it, is passed over.

    Raises:
        ValueError: there is no such file, or a line has other than the first one's number of numbers.
    """
    if not Path(path).is_file():
        raise ValueError(f"word_vectors: expected a file of word vectors, found none at {path}")
    width = None
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(iter(partial(file.readline, _MOST_CHARACTERS), ""), 1):
            place = f"word_vectors {path}, line {number}"
            if len(line) == _MOST_CHARACTERS:
                raise ValueError(f"{place}: expected fewer than {_MOST_CHARACTERS:,} characters, found more")
            fields = line.rstrip("\r\n").rstrip(" ").split(" ")
            if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                continue
            width = len(fields) - 1 if width is None else width
            # Words with spaces in them are there, too: the numbers are the last fields.
            word = " ".join(fields[:-width])
            try:
                vector = np.array(fields[-width:], dtype=np.float32)
            except ValueError:
                vector = np.empty(0, dtype=np.float32)
            if not width or not word or len(vector) != width or not np.isfinite(vector).all():
                raise ValueError(f"{place}: expected a word and {width or 'its'} numbers, found {line!r:.80}")
            yield word, vector
    if width is None:
        raise ValueError(f"word_vectors {path}: expected a word and its numbers a line, found no line")
