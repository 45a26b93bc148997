"""Tests of the text tower: one state per word from any encoder, whatever the text's length."""

import itertools

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.text_mmner import TextTower, encoder_window, window_bounds
from tests.tiny import TEXT, one_post, stir, tiny_batch, tiny_model

SIZES = {name: value for name, value in TEXT.items() if name not in ("model_type", "max_position_embeddings")}
DISTILBERT = {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}
RELATIVE = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
XLNET = {"vocab_size": 100, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}

# Each encoder's config and the longest input that it must report.
ENCODERS = {
    "bert": ({**SIZES, "max_position_embeddings": 64}, 64),
    "roberta": ({**SIZES, "max_position_embeddings": 66}, 64),
    "xlm-roberta": ({**SIZES, "max_position_embeddings": 66}, 64),
    "camembert": ({**SIZES, "max_position_embeddings": 66}, 64),
    "mpnet": ({**SIZES, "max_position_embeddings": 66}, 64),
    "longformer": ({**SIZES, "max_position_embeddings": 66, "attention_window": [8, 8]}, 64),
    "deberta": ({**SIZES, "max_position_embeddings": 64}, 64),
    "deberta-v2": ({**SIZES, **RELATIVE, "max_position_embeddings": 64}, 64),
    "electra": ({**SIZES, "embedding_size": 16, "max_position_embeddings": 64}, 64),
    "albert": ({**SIZES, "embedding_size": 16, "max_position_embeddings": 64}, 64),
    "distilbert": (DISTILBERT, 64),
    "modernbert": ({**SIZES, **SPECIAL, "max_position_embeddings": 64, "local_attention": 16}, 64),
    "xlnet": (XLNET, None),
}
each_encoder = pytest.mark.parametrize("kind", ENCODERS)


def make_tower(*, window: int | None = None, prefix: int = 1, suffix: int = 1, **settings) -> TextTower:
    torch.manual_seed(1)
    config = AutoConfig.for_model(**(TEXT | settings))
    tower = TextTower(config, window=window, prefix_tokens=prefix, suffix_tokens=suffix).eval()
    stir(tower)
    return tower


def make_texts(lengths: list[int], *, prefix: int = 1, suffix: int = 1) -> tuple[list[list[int]], dict[str, Tensor]]:
    """Texts of that many sub-tokens beside the special ones, each sub-token a word; and their batch."""
    generator = torch.Generator().manual_seed(2)
    texts = []
    for length in lengths:
        content = torch.randint(10, 100, (length,), generator=generator).tolist()
        texts.append([2, 4, 5][:prefix] + content + [3, 6, 7][:suffix])
    longest = max(map(len, texts))
    word_mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    batch = {
        "input_ids": torch.tensor([text + [0] * (longest - len(text)) for text in texts]),
        "attention_mask": torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts]),
        "word_starts": (prefix + torch.arange(max(lengths))).expand(len(texts), -1).masked_fill(~word_mask, 0),
        "word_mask": word_mask,
    }
    return texts, batch


def naive_states(tower: TextTower, text: list[int], *, window: int, prefix: int, suffix: int) -> Tensor:
    """(n, D): each content sub-token's state, read window by window, taken where its smaller side of context is largest."""
    content, capacity = text[prefix : len(text) - suffix], window - prefix - suffix
    firsts = [0]
    while firsts[-1] + capacity < len(content):  # half a window further, the last one flush with the text's end
        firsts.append(min(firsts[-1] + capacity // 2, len(content) - capacity))
    best: dict[int, tuple[float, Tensor]] = {}
    for first in firsts:
        part = content[first : first + capacity]
        read = text[:prefix] + part + text[len(text) - suffix :]
        states = tower.encoder(torch.tensor([read])).last_hidden_state[0, prefix:]
        for offset in range(len(part)):
            left = offset if first else float("inf")
            right = len(part) - 1 - offset if first + len(part) < len(content) else float("inf")
            if first + offset not in best or min(left, right) > best[first + offset][0]:
                best[first + offset] = (min(left, right), states[offset])
    return torch.stack([best[place][1] for place in range(len(content))])


@pytest.mark.parametrize(("prefix", "suffix"), [(1, 1), (0, 0), (2, 1), (0, 2)])
@pytest.mark.parametrize("window", [12, 15])
def test_windowed_reading_equals_a_loop_over_windows(window, prefix, suffix):
    """If it failed, words of long texts would get the states of other words, or of windows that cut off their context."""
    tower = make_tower(window=window, prefix=prefix, suffix=suffix)
    lengths = [40, 3, 13, 14, 9, 23, 1]
    texts, batch = make_texts(lengths, prefix=prefix, suffix=suffix)
    states = tower(**batch).words
    for row, text in enumerate(texts):
        expected = naive_states(tower, text, window=window, prefix=prefix, suffix=suffix)
        torch.testing.assert_close(states[row, : lengths[row]], expected, atol=1e-5, rtol=1e-5, msg=f"text {row}")
    assert states[~batch["word_mask"]].eq(0).all()


def test_short_text_beside_a_long_one_equals_itself_alone():
    """If it failed, a tweet's tags would change with a long caption in its batch."""
    tower = make_tower(window=12)
    _, batch = make_texts([5, 40, 10])
    beside = tower(**batch).words
    for row, length in ((0, 5), (2, 10)):
        alone = {name: tensor[row : row + 1, : length + 2] for name, tensor in batch.items()}
        alone |= {name: batch[name][row : row + 1, :length] for name in ("word_starts", "word_mask")}
        torch.testing.assert_close(beside[row, :length], tower(**alone).words[0], atol=1e-6, rtol=1e-5)


def test_empty_text_beside_a_long_one_is_read():
    """Regression: the plan of windows asked an empty text for its first sub-token and died with an IndexError."""
    tower = make_tower(window=12)
    _, batch = make_texts([0, 40])
    _, alone = make_texts([40])
    states = tower(**batch).words
    assert states[0].eq(0).all()
    torch.testing.assert_close(states[1], tower(**alone).words[0], atol=1e-6, rtol=1e-5)


def test_text_that_fits_is_read_in_one_window():
    """If it failed, texts at the limit would be cut in two without need, or texts beyond it reach the encoder whole."""
    seen = []
    tower = make_tower(window=12)
    tower.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    for length in (9, 10, 11):
        tower(**make_texts([length])[1])
    assert seen == [(1, 11), (1, 12), (2, 12)]


@pytest.mark.parametrize("capacity", [2, 3, 8, 9])
def test_windows_cover_the_text_and_leave_context(capacity):
    """If it failed, a word would be in no window, or be read at a window's very edge though another has its context."""
    for length in range(1, 60):
        windows = window_bounds(length, capacity)
        assert all(0 <= first < last <= length and last - first <= capacity for first, last in windows)
        for place in range(length):
            contexts = [
                min(place - first if first else length, last - 1 - place if last < length else length)
                for first, last in windows
                if first <= place < last
            ]
            assert max(contexts) >= (capacity // 2 - 1) // 2


@each_encoder
def test_window_is_what_the_encoder_can_read(kind):
    """If it failed, long texts would index past the position table: RoBERTa's 514 positions serve 512 sub-tokens."""
    settings, expected = ENCODERS[kind]
    tower = TextTower(AutoConfig.for_model(kind, **settings)).eval()
    assert encoder_window(tower.encoder) == tower.window == expected
    longest = expected or 200
    states = tower(**make_texts([longest - 2])[1]).words
    assert states.shape == (1, longest - 2, 32) and states.isfinite().all()


def test_roberta_of_514_positions_reads_512():
    """If it failed, the published RoBERTa and XLM-R models would crash at 513 sub-tokens."""
    tower = TextTower(AutoConfig.for_model("roberta", **SIZES, max_position_embeddings=514)).eval()
    assert tower.window == 512
    longest = torch.full((1, 512), 9)
    assert tower.encoder(longest).last_hidden_state.isfinite().all()
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        tower.encoder(torch.full((1, 513), 9))
    assert tower(**make_texts([511])[1]).words.isfinite().all()


@each_encoder
def test_every_encoder_runs_in_the_model_post_by_post_and_batched(kind):
    """If it failed, "any transformers encoder" would be wrong: padding, windows or special ids would be another's."""
    model = tiny_model(text_config={"model_type": kind, **ENCODERS[kind][0]})
    batch = tiny_batch((45, 4), (1, 0))
    assert batch["input_ids"].shape[1] > 64
    padding = batch["attention_mask"] == 0
    batch["input_ids"] = batch["input_ids"].masked_fill(padding, model.config.text_config.pad_token_id or 0)
    together = model(**batch)
    for row in range(2):
        alone = model(**one_post(batch, row))
        words = alone.logits.shape[1]
        torch.testing.assert_close(together.logits[row, :words], alone.logits[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(together.tags[row, :words], alone.tags[0])


@pytest.mark.parametrize("kind", ["roberta", "deberta-v2", "modernbert", "xlnet"])
def test_every_encoder_is_the_same_after_saving(kind, tmp_path):
    """If it failed, buffers that an encoder does not save (positions, rotary frequencies) would be garbage after loading."""
    model = tiny_model(text_config={"model_type": kind, **ENCODERS[kind][0]})
    model.save_pretrained(tmp_path)
    loaded = MMNERForTokenClassification.from_pretrained(tmp_path)
    batch = tiny_batch((45, 4), (1, 0))
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_two_thousand_words_get_two_thousand_tags():
    """If it failed, long posts would lose the tags of their last words."""
    model = tiny_model(fusion="text-only")
    batch = tiny_batch((2000, 3), (0, 0))
    with torch.no_grad():
        output = model(**batch)
    assert output.tags.shape == (2, 2000)
    assert output.tags[0].ge(0).all() and output.tags[1].ge(0).sum() == 3
    # The last words' states come from the last words: a change there changes them, and does not reach the first ones.
    last = batch["input_ids"].clone()
    last[0, int(batch["word_starts"][0, -1])] = 4
    with torch.no_grad():
        changed = model(**batch | {"input_ids": last}).logits
    assert not torch.equal(changed[0, -1], output.logits[0, -1])
    torch.testing.assert_close(changed[0, :1900], output.logits[0, :1900], atol=1e-6, rtol=1e-5)


def test_state_of_a_word_is_that_of_its_first_sub_token():
    """If it failed, words would read the sub-token before or after their own."""
    tower, batch = make_tower(), tiny_batch()
    states = tower(**{name: batch[name] for name in ("input_ids", "attention_mask", "word_starts", "word_mask")}).words
    encoded = tower.encoder(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    for row, word in itertools.product(*map(range, batch["word_mask"].shape)):
        there = batch["word_mask"][row, word]
        expected = encoded[row, batch["word_starts"][row, word]] if there else torch.zeros(32)
        assert torch.equal(states[row, word], expected)


def test_window_setting_shortens_but_never_lengthens():
    """If it failed, a large `text_window` would index past the encoder's positions, or a small one do nothing."""
    assert [tiny_model(text_window=window).text_tower.window for window in (None, 16, 1000)] == [64, 16, 64]


@pytest.mark.parametrize("window", [3, 0])
def test_window_without_room_is_refused(window):
    """If it failed, reading would step by no sub-token and never end, or fail inside the encoder."""
    message = f"text window: expected room for 2 special tokens and at least 2 more, found {window}"
    with pytest.raises(ValueError, match=message):
        make_tower(window=window)
