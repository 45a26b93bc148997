"""Very long texts: they cost no more than in proportion to their words, and others are what they were."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from modeling_mmner import MMNERProcessor
from modeling_mmner.model import fusion_mmner, text_mmner
from modeling_mmner.model.fusion_mmner import CoAttention, TransformerLayer
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from tests.small_posts import WORDS, small_parts
from tests.tiny import naive_layer, stir

MOST = 64
SYSTEMS: dict[str, dict[str, Any]] = {
    "mlmner": {},
    "umt": {"objectives": {"crf": 1.0, "boundary": 0.5}, "boundary_share": 0.5},
    "2m-ner": {"fusion": "collaboration", "sentence_vector": "pooler"},
    "adacan": {"fusion": "adacan"},
    "gvatt": {"fusion": "gvatt"},
}


@pytest.fixture
def short(monkeypatch) -> Iterator[None]:
    """Texts are very long as soon as they have more than 64 words or 256 sub-tokens."""
    monkeypatch.setattr(fusion_mmner, "MOST_WORDS", MOST)
    monkeypatch.setattr(text_mmner, "MOST_TOKENS", 256)
    yield


def words_of(count: int) -> list[str]:
    return [WORDS[number * number % len(WORDS)] for number in range(count)]


def parts(**settings: Any) -> tuple[Any, MMNERProcessor]:
    model, processor = small_parts(**settings)
    processor.tokenizer.model_max_length = 64
    return model, processor


def entities(
    both: tuple[Any, MMNERProcessor], *posts: list[str], batch_size: int = 1
) -> list[list[dict[str, Any]]]:
    model, processor = both
    predictor = BatchPredictor(model, PostReader(processor), batch_size=batch_size)
    return [found.entities for found in predictor.predict([{"tokens": post} for post in posts])]


def layer() -> TransformerLayer:
    torch.manual_seed(0)
    made = TransformerLayer(16, 2, dropout=0.0)
    stir(made)
    return made.eval()


@pytest.mark.parametrize("length", [65, 96, 97, 128, 200])
def test_words_of_a_long_text_attend_within_their_window(short, length):
    """If it failed, a word of a long text would be read in a window in which it has less context."""
    words, attending = torch.randn(1, length, 16), layer()
    found = attending.over_words(words, mask=torch.ones(1, length, dtype=torch.bool))[0]
    firsts = [*range(0, length - MOST, MOST // 2), length - MOST]
    for place in range(length):
        sides = []
        for first in firsts:
            left = place - first if first else length
            right = first + MOST - 1 - place if first + MOST < length else length
            sides.append(min(left, right) if first <= place < first + MOST else -1)
        first = firsts[sides.index(max(sides))]
        window = words[0, first : first + MOST]
        expected = naive_layer(attending, window, window)
        torch.testing.assert_close(found[place], expected[place - first], atol=1e-5, rtol=1e-5)


def test_texts_of_a_batch_with_a_long_one_are_as_if_alone(short):
    """If it failed, a long text would change its neighbours, or an empty one beside it stop the batch."""
    lengths, attending = [200, 30, 0, 64, 65], layer()
    words = torch.randn(len(lengths), 200, 16)
    mask = torch.arange(200) < torch.tensor(lengths)[:, None]
    found = attending.over_words(words, mask=mask)
    assert found.shape == words.shape and bool(found.isfinite().all())
    for row, length in enumerate(lengths):
        if length:
            alone = attending.over_words(words[row : row + 1, :length], mask=mask[row : row + 1, :length])
            torch.testing.assert_close(found[row, :length], alone[0])


def test_ordinary_texts_are_the_same_bit_for_bit(monkeypatch):
    """If it failed, what models say of ordinary posts would depend on what is done for very long ones."""
    attending = layer()
    words = torch.randn(3, 256, 16)
    mask = torch.arange(256) < torch.tensor([256, 100, 1])[:, None]
    assert torch.equal(attending.over_words(words, mask=mask), attending(words, words, mask=mask))
    both, posts = parts(), [words_of(count) for count in (0, 1, 7, 500)]
    model, processor = both
    outputs = model(**processor(posts))
    for module, name in ((fusion_mmner, "MOST_WORDS"), (text_mmner, "MOST_TOKENS")):
        monkeypatch.setattr(module, name, 10**9)
    assert torch.equal(model(**processor(posts)).logits, outputs.logits)


def test_windows_that_are_read_in_groups_are_as_if_read_at_once(monkeypatch):
    """If it failed, a long text's states would depend on how many windows fit into memory."""
    for settings in ({}, {"sentence_vector": "pooler", "fusion": "gvatt"}):
        both = parts(**settings)
        inputs = both[1]([words_of(500), words_of(3), words_of(90)])
        at_once = both[0](**inputs).logits
        with monkeypatch.context() as patch:
            patch.setattr(text_mmner, "MOST_TOKENS", 256)
            torch.testing.assert_close(both[0](**inputs).logits, at_once, atol=1e-5, rtol=1e-5)


def test_attention_that_is_the_same_for_each_query_is_computed_once(short):
    """If it failed, AdaCAN would read long texts otherwise than short ones; the formula is the same."""
    torch.manual_seed(0)
    attending = CoAttention(16)
    stir(attending)
    query, context = torch.randn(1, 100, 16), torch.randn(1, 100, 16)
    mask = (torch.arange(100) < 90)[None]
    once = attending(query, context, mask=mask)
    fusion_mmner.MOST_WORDS = 1000
    each = attending(query, context, mask=mask)
    torch.testing.assert_close(once, each)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SYSTEMS.values(), ids=SYSTEMS)
def test_work_grows_as_the_text_does(short, settings):
    """If it failed, one long text would keep a server busy for minutes, or take all its memory.

    Counted are the scores of all attention, and the elements of the largest tensor that a layer gives.
    """
    both = parts(**settings)
    work = {count: work_for(both, words_of(count)) for count in (1_000, 4_000)}
    for one, four in zip(work[1_000], work[4_000], strict=True):
        assert four <= 4.4 * one


def work_for(both: tuple[Any, MMNERProcessor], words: list[str]) -> tuple[int, int]:
    scores, largest = 0, 0
    attend = nn.functional.scaled_dot_product_attention

    def counted(query: torch.Tensor, key: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal scores
        scores += query[..., 0].numel() * key.shape[-2]
        return attend(query, key, *arguments, **options)

    def measure(_: Any, __: Any, output: Any) -> None:
        nonlocal largest
        for tensor in output if isinstance(output, tuple) else (output,):
            if isinstance(tensor, torch.Tensor):
                largest = max(largest, tensor.untyped_storage().nbytes())

    hooks = [module.register_forward_hook(measure) for module in both[0].modules()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "scaled_dot_product_attention", counted)
        entities(both, words)
    for hook in hooks:
        hook.remove()
    return scores, largest
