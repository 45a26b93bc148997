"""Texts as sub-tokens, with their contexts behind them, laid out in the windows of a text encoder.

Notation: K windows of a text, S sub-tokens of a window, W words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_SCORES = 2**20
"""Scores of a head of attention that a layer may keep in training: 4 windows of 512, or 64 of 128."""
LAID_OUT = "laid_out"
"""The key of a row for its `TextWindows`, where they were made before."""
_NO_LIMIT = 10**9  # transformers says "no limit" by a huge `model_max_length`


@dataclass(frozen=True)
class TextWindows:
    """A text laid out.

    Attributes:
        rows: the K windows' sub-tokens with their special tokens, (S,) int32 each.
        context_starts: for each window the place from which on it is the context's.
        word_windows: (W,) the window in which each word is read.
        word_places: (W,) the place of its first sub-token in that window.
        context_cut: sub-tokens at the context's end that are in no window.
    """

    rows: list[np.ndarray]
    context_starts: list[int]
    word_windows: np.ndarray
    word_places: np.ndarray
    context_cut: int

    @property
    def size(self) -> int:
        """The sub-tokens that it takes in a batch, K * S."""
        return len(self.rows) * max(map(len, self.rows))


class WindowLayout:
    """Lays out texts for a tokenizer's encoder.

    A text is never cut: a longer one has windows that overlap by half, and each word is read in the one in
    which it has most text around it. The context gets what the text leaves of a window, up to a limit.

    Args:
        tokenizer: its `model_max_length` is the window, special tokens included.

    Raises:
        ValueError: the window has no room for two sub-tokens.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.before, self.after = special_tokens(tokenizer)
        special = len(self.before) + len(self.after)
        if self.window is not None and self.window < special + 2:
            expected = f"room for {special} special tokens and at least 2 more"
            raise ValueError(f"tokenizer model_max_length: expected {expected}, found {self.window}")

    @property
    def window(self) -> int | None:
        """Longest input of the text encoder in sub-tokens, special tokens included; None: no limit."""
        return self.tokenizer.model_max_length if self.tokenizer.model_max_length < _NO_LIMIT else None

    @cached_property
    def separators(self) -> tuple[list[int], list[int]]:
        """The special tokens between a text and its context, and those after the context: as the tokenizer
        joins a pair of texts, or, where it just puts them side by side, those after a text, both times.

        Raises:
            ValueError: the tokenizer has nothing to separate a context by.
        """
        encoded = self.tokenizer("a", "a")
        ids, texts = list(encoded["input_ids"]), encoded.sequence_ids()
        first, second = ([place for place, text in enumerate(texts) if text == wanted] for wanted in (0, 1))
        if ids[: first[0]] == self.before and (between := ids[first[-1] + 1 : second[0]]):
            return between, ids[second[-1] + 1 :]
        tokens = (self.tokenizer.sep_token_id, self.tokenizer.eos_token_id)
        separators = [self.after, *([token] for token in tokens if token is not None)]
        between = next((separator for separator in separators if separator), [])
        if not between:
            expected = "a separator to put before a context, found no special token for it"
            raise ValueError(f"tokenizer {self.tokenizer.name_or_path!r}: expected {expected}")
        return between, self.after

    def lay_out(
        self, ids: list[int], starts: np.ndarray, *, context: Sequence[int], context_window: int | None
    ) -> TextWindows:
        """The windows of a text.

        Args:
            ids: its sub-tokens.
            starts: (W,) index in `ids` of each word's first sub-token.
            context: the sub-tokens of its context.
            context_window: how many of them are read at most; None: as many as there is room for.
        """
        capacity = len(ids) if self.window is None else self.window - len(self.before) - len(self.after)
        firsts = window_starts(len(ids), capacity)
        rows, context_starts, most = [], [], 0
        between, after = self.separators if context else ([], self.after)
        for first in firsts.tolist():
            text = [*self.before, *ids[first : first + capacity]]
            room = None if self.window is None else max(0, self.window - len(text) - len(between + after))
            seen = context[:context_window][:room]
            row = [*text, *between, *seen, *after] if seen else [*text, *self.after]
            rows.append(np.array(row, np.int32))
            context_starts.append(len(text) + len(between) if seen else len(row))
            most = max(most, len(seen))
        windows = best_windows(starts, firsts, length=len(ids), capacity=capacity)
        places = starts - firsts[windows] + len(self.before)
        return TextWindows(rows, context_starts, windows, places, len(context) - most)


def step_bytes(windows: int, length: int, *, layers: int, heads: int, width: int) -> int:
    """What a text encoder keeps of so many windows of `length` sub-tokens in a training step, besides its
    weights: a plain estimate, of float32, a feed-forward four times the width, and attention with dropout
    as the CPU computes it.

    Three tensors of scores and 24 of the width were what a layer was measured to keep; and the states that
    go in and out of all groups.
    """
    most = MOST_SCORES // length**2
    at_once = windows if windows <= most else max(1, most // 2)
    layer = 3 * heads * length**2 + 24 * width * length
    return 4 * (layers * at_once * layer + 2 * windows * length * width)


def window_starts(length: int, capacity: int) -> np.ndarray:
    """Where the windows over `length` sub-tokens begin, at most `capacity` > 1 each: half a window apart, the
    last one flush with the text's end."""
    if length <= capacity:
        return np.zeros(1, dtype=np.int64)
    return np.array([*range(0, length - capacity, max(1, capacity // 2)), length - capacity])


def best_windows(places: np.ndarray, firsts: np.ndarray, *, length: int, capacity: int) -> np.ndarray:
    """For each place (W,) in 0..length-1 the number of the window in which the nearer border is farthest.

    The text's own borders cost no context, so they count as far away. Of equals it is the first.
    """
    last = np.searchsorted(firsts, places, side="right") - 1
    # No place is in more than four windows; shape: (W, 4)
    candidates = np.maximum(last[:, None] + np.arange(-3, 1), 0)
    first = firsts[candidates]
    left = np.where(first == 0, length, places[:, None] - first)
    right = np.where(first + capacity >= length, length, first + capacity - 1 - places[:, None])
    is_inside = places[:, None] < first + capacity
    chosen = np.where(is_inside, np.minimum(left, right), -1).argmax(1)
    return candidates[np.arange(len(places)), chosen]


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    encoded = tokenizer(["a"], is_split_into_words=True)
    ids, words = encoded["input_ids"], encoded.word_ids()
    content = [place for place, word in enumerate(words) if word is not None]
    if not content:
        expected = f"it to give 'a' a token, found {ids}"
        raise ValueError(f"tokenizer {tokenizer.name_or_path!r}: expected {expected}")
    return list(ids[: content[0]]), list(ids[content[-1] + 1 :])
