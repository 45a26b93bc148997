"""Tests of long texts: how the processor lays them out, against a loop over windows, and what the model makes
of them.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_mmner import MMNERProcessor
from modeling_mmner.model.windows_mmner import best_windows, special_tokens, window_starts
from tests.shared_data import TOKENIZERS, bpe_tokenizer, each_tokenizer, property_test
from tests.tiny import LABELS, tiny_model

WORDS = ["Jordan", "posts", "from", "Paris", "Straße", "9.30", "à", "niño", "\u200b", "#"]


def processor_of(window: int, kind: str = "bpe") -> MMNERProcessor:
    tokenizer = TOKENIZERS[kind]()
    tokenizer.model_max_length = window
    return MMNERProcessor(tokenizer, labels=LABELS, image_size=None)


def some_words(count: int, *, seed: int = 0) -> list[str]:
    return [WORDS[number] for number in np.random.default_rng(seed).integers(0, len(WORDS), count)]


def naive_windows(length: int, capacity: int) -> list[tuple[int, int]]:
    """Half a window further each time, the last one flush with the text's end."""
    firsts = [0]
    while firsts[-1] + capacity < length:
        firsts.append(min(firsts[-1] + max(1, capacity // 2), length - capacity))
    return [(first, min(first + capacity, length)) for first in firsts]


def naive_best(place: int, windows: list[tuple[int, int]], length: int) -> int:
    """The first of the windows in which the smaller side of the context is largest; a text's own end is no
    border.
    """
    context = [
        (
            min(place - first if first else length, last - 1 - place if last < length else length)
            if first <= place < last
            else -1
        )
        for first, last in windows
    ]
    return context.index(max(context))


@given(length=st.integers(0, 400), capacity=st.integers(2, 60))
@property_test
def test_each_place_is_read_where_it_has_most_context(length, capacity):
    """If it failed, words would be read at a window's edge though another window has their context."""
    windows = naive_windows(length, capacity)
    firsts = window_starts(length, capacity)
    assert firsts.tolist() == [first for first, _ in windows]
    best = best_windows(np.arange(length), firsts, length=length, capacity=capacity)
    assert best.tolist() == [naive_best(place, windows, length) for place in range(length)]


@each_tokenizer
@pytest.mark.parametrize("window", [12, 15])
def test_layout_equals_a_loop_over_windows(kind, window):
    """If it failed, a window would lack its special tokens, a word its place, or a text its end."""
    processor = processor_of(window, kind)
    opening, closing = special_tokens(processor.tokenizer)
    for count in (0, 1, 3, 9, 40):
        words, read = some_words(count, seed=count), []
        for size in (window, 10**6):
            processor.tokenizer.model_max_length = size
            read.append(processor([words], return_tensors="np"))
        found, uncut = read
        ids, prefix = uncut["input_ids"][0, 0].tolist(), len(opening)
        suffix = len(ids) - len(closing)
        content, capacity = ids[prefix:suffix], window - prefix - len(closing)
        windows = naive_windows(len(content), capacity)
        rows = [ids[:prefix] + content[first:last] + ids[suffix:] for first, last in windows]
        assert [
            row[mask > 0].tolist()
            for row, mask in zip(found["input_ids"][0], found["attention_mask"][0], strict=True)
        ] == rows
        longest = max(map(len, rows))
        starts = (uncut["word_starts"][0][:count] - prefix).tolist()
        best = [naive_best(place, windows, len(content)) for place in starts]
        expected = [
            number * longest + place - windows[number][0] + prefix
            for place, number in zip(starts, best, strict=True)
        ]
        assert found["word_starts"][0][:count].tolist() == expected


@pytest.mark.parametrize("fusion", ["text-only", "cross-modal"])
@torch.no_grad()
def test_batch_equals_its_texts_one_by_one(fusion):
    """If it failed, a tweet's tags would change with a long caption in its batch."""
    processor = processor_of(32)
    model = tiny_model(fusion=fusion, text={"vocab_size": len(processor.tokenizer)})
    texts = [some_words(count, seed=count) for count in (200, 3, 0, 40)]
    together = model(**processor(texts))
    for row, words in enumerate(texts):
        alone = model(**processor([words]))
        torch.testing.assert_close(
            together.logits[row, : len(words)], alone.logits[0, : len(words)], atol=1e-5, rtol=1e-5
        )
        assert together.tags[row, : len(words)].tolist() == alone.tags[0, : len(words)].tolist()


def test_window_is_saved_with_the_processor(tmp_path):
    """If it failed, a saved model would be given longer windows than its encoder reads."""
    processor_of(12).save_pretrained(tmp_path)
    assert MMNERProcessor.from_pretrained(tmp_path).window == 12
    assert MMNERProcessor(bpe_tokenizer()).window is None


@pytest.mark.parametrize("window", [3, 0])
def test_window_without_room_is_refused(window):
    """If it failed, laying out a text would step by no sub-token and never end."""
    message = (
        f"tokenizer model_max_length: expected room for 2 special tokens and at least 2 more, found {window}"
    )
    with pytest.raises(ValueError, match=message):
        processor_of(window)
