"""Training on long posts: groups that are computed again in the backward pass, so that memory has a bound."""

import copy
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch.utils.checkpoint import checkpoint

from modeling_mmner.model import context_mmner, fusion_mmner, objectives_mmner, text_mmner, vision_mmner
from modeling_mmner.model.fusion_mmner import TransformerLayer
from modeling_mmner.model.windows_mmner import MOST_SCORES, step_bytes
from modeling_mmner.training import sampling
from modeling_mmner.training.collator import LaidOutRows
from modeling_mmner.training.sampling import make_room
from tests.small_posts import WORDS, small_parts
from tests.tiny import SYSTEMS, close, ready_model, stir, tiny_batch
from tests.together import together
from tests.tuning import differing, step

LENGTHS, PICTURES = (20, 3, 24, 1, 18, 20, 9), (1, 0, 2, 1, 0, 3, 1)
BATCH = tiny_batch(LENGTHS, PICTURES)
NO_DROPOUT = {"text": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, "dropout": 0.0}
FROZEN = {"tower": {"frozen": True}}  # a batch-norm that is trained cannot read its pictures in groups
GROUPED = ["mlmner", "2m-ner", "umt"]


@pytest.fixture
def tight(monkeypatch) -> None:
    """Memory has room for little: two windows, a text or two, a picture or few, some words of entities."""
    tighten(monkeypatch)


def tighten(patch: pytest.MonkeyPatch) -> None:
    for module in (text_mmner, fusion_mmner):
        patch.setattr(module, "MOST_SCORES", 4 * BATCH["input_ids"].shape[1] ** 2)
    patch.setattr(fusion_mmner, "MOST_SCORES", 24**2)
    patch.setattr(vision_mmner, "LEAST_PICTURES", 1)
    patch.setattr(objectives_mmner, "MOST_OFFSETS", 600)


@pytest.fixture
def recomputed(monkeypatch) -> list[Any]:
    """What is computed again."""
    calls: list[Any] = []

    def counted(read: Any, *inputs: Any, **options: Any) -> Any:
        calls.append(getattr(read, "__self__", read))
        return checkpoint(read, *inputs, **options)

    monkeypatch.setattr(context_mmner, "checkpoint", counted)
    return calls


def keep_all(patch: pytest.MonkeyPatch) -> None:
    """Read the same groups, and keep all that the backward pass needs, as is done without this."""
    patch.setattr(context_mmner, "checkpoint", lambda read, *inputs, use_reentrant: read(*inputs))


@pytest.mark.parametrize("name", GROUPED)
def test_losses_and_gradients_are_those_of_the_whole_batch(name, recomputed, monkeypatch):
    """If it failed, a model would learn something else from long posts than from short ones."""
    model = ready_model(**SYSTEMS[name], **NO_DROPOUT, **FROZEN).train()
    expected, others, most = step(model, BATCH)
    assert not recomputed
    tighten(monkeypatch)
    loss, gradients, kept = step(model, BATCH)
    assert len(recomputed) > 4 and kept < 0.8 * most
    close((loss, gradients), (expected, others))


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("name", GROUPED)
def test_dropout_is_the_same_when_computed_again(name, bf16, tight, recomputed):
    """If it failed, gradients would be those of other units than the loss's."""
    model = ready_model(**SYSTEMS[name], dropout=0.3).train()
    model.config.text_config.attention_probs_dropout_prob = 0.3
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss, gradients, _ = step(model, BATCH)
        assert recomputed
        with pytest.MonkeyPatch.context() as patch:
            keep_all(patch)
            expected, others, _ = step(model, BATCH)
    assert torch.equal(loss, expected) and differing(gradients, others) == set()


@pytest.mark.parametrize("name", GROUPED)
def test_ordinary_batches_learn_the_same_bit_for_bit(name, monkeypatch):
    """If it failed, results of ordinary posts would not be those of before."""
    model = ready_model(**SYSTEMS[name], dropout=0.3).train()
    loss, gradients, _ = step(model, BATCH)
    for module in (text_mmner, fusion_mmner, vision_mmner, objectives_mmner):
        monkeypatch.setattr(module, "in_groups", lambda read, *inputs, most, of: [read(*inputs)])
    expected, others, _ = step(model, BATCH)
    assert torch.equal(loss, expected) and differing(gradients, others) == set()


def test_ordinary_batches_are_read_at_once(recomputed):
    """If it failed, training would be slower."""
    model = ready_model(**SYSTEMS["mlmner"]).train()
    calls: list[int] = []
    model.text_tower.encoder.register_forward_hook(lambda *_: calls.append(1))
    step(model, BATCH)
    assert len(calls) == 1 and not recomputed
    windows = 16 * (222**2)  # of 16 posts of 100 words with many sub-tokens, and of 32 posts of 128
    assert windows < MOST_SCORES and 32 * 128**2 < MOST_SCORES < 16 * 512**2


def test_nothing_is_computed_again_where_layers_are_or_without_gradients(tight, recomputed):
    """If it failed, long posts would cost a third pass, or prediction a second one."""
    model = ready_model(**SYSTEMS["umt"]).train()
    with torch.no_grad():
        model(**BATCH)
    assert not recomputed
    model.activation_checkpointing_enable()
    step(model, BATCH)
    assert {type(one).__name__ for one in recomputed} == {"VisionTower"}  # whose batch-norm is left out


def test_pictures_beside_a_batch_norm_that_is_trained_are_read_at_once(tight, recomputed):
    """If it failed, its statistics would be those of a few pictures, and each counted twice."""
    for frozen, most in ((True, 3), (False, 8)):
        model = ready_model(**SYSTEMS["mlmner"], tower={"frozen": frozen}).train()
        sizes: list[int] = []
        model.vision_towers[0].backbone.register_forward_hook(
            lambda _, given, __, sizes=sizes: sizes.append(len(given[0]))
        )
        model(**BATCH)
        assert max(sizes) == most and sum(sizes) == sum(PICTURES)


def test_very_long_texts_are_computed_again_window_by_window(recomputed, monkeypatch):
    """If it failed, one text of thousands of words would take all memory in training."""
    monkeypatch.setattr(fusion_mmner, "MOST_WORDS", 16)
    torch.manual_seed(0)
    layer = TransformerLayer(16, 2, dropout=0.2).train()
    stir(layer)
    words = torch.randn(3, 70, 16, requires_grad=True)
    mask = torch.arange(70) < torch.tensor([70, 12, 0])[:, None]

    def gradient() -> torch.Tensor:
        words.grad = None
        torch.manual_seed(1)
        layer.over_words(words, mask=mask).square().sum().backward()
        assert words.grad is not None
        return words.grad

    found = gradient()
    assert len(recomputed) > 3
    keep_all(monkeypatch)
    assert torch.equal(found, gradient()) and not found[~mask].any()


def gradients_of_both_ways() -> list[dict[str, torch.Tensor]]:
    """In one of two processes: the gradients of its posts and the other's, in groups and at once."""
    model = ready_model(**SYSTEMS["mlmner"], **NO_DROPOUT, tower={"frozen": False}).train()
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[kwargs])
    rows = slice(accelerator.process_index, None, 2)
    batch = {name: tensor[rows] for name, tensor in BATCH.items()}
    if accelerator.process_index == 0:  # whose picture encoder has no gradients then
        batch["image_mask"] = torch.zeros_like(batch["image_mask"])
    found = []
    for is_tight in (False, True):
        own = accelerator.prepare(copy.deepcopy(model))
        with pytest.MonkeyPatch.context() as patch:
            if is_tight:
                tighten(patch)
            for _ in range(2):  # gradients add up, as in accumulation
                own(**batch).loss.backward()
        named = accelerator.unwrap_model(own).named_parameters()
        found.append({name: one.grad for name, one in named if one.grad is not None})
    return found


@pytest.mark.slow
def test_two_processes_learn_the_same_from_long_posts(tmp_path: Path):
    """If it failed, training in several processes would stop at long posts, or take their gradients twice."""
    first, second = together(gradients_of_both_ways, folder=tmp_path)
    assert any(name.startswith("vision_towers") for name in first[1])
    for at_once, in_groups in (first, second):
        close(in_groups, at_once)
    assert differing(first[1], second[1]) == set()


@pytest.mark.parametrize("tower", ["transformer", "bilstm"])
def test_start_of_training_tells_of_the_longest_posts(tower):
    """If it failed, nobody would know before the first step why memory runs out."""
    model, processor = small_parts(**SYSTEMS["mlmner"] | {"text_tower": tower})
    processor.tokenizer.model_max_length = 64
    rows = datasets.Dataset.from_dict({"tokens": [WORDS[:3], WORDS * 20, WORDS * 19, WORDS]})
    told = make_room(LaidOutRows.of(processor, rows), model, batch_size=2)
    assert told.startswith("longest posts: up to 140 words")
    if tower == "transformer":
        windows = sum(map(len, (one.rows for one in processor.lay_out(processor.read(rows["tokens"][1:3])))))
        assert f", {windows} windows of 64 sub-tokens in a batch; a step takes about 0.0 GB of" in told
        assert told.endswith("(a plain estimate, in float32)")
    else:
        assert told == "longest posts: up to 140 words"


def test_memory_is_given_back_only_where_posts_are_long(monkeypatch):
    """If it failed, freed tensors would stay in memory until it is full, or short posts would take longer."""
    calls: list[int] = []
    monkeypatch.setattr(sampling, "give_memory_back", lambda: calls.append(1))
    model, processor = small_parts(fusion="text-only")
    rows = LaidOutRows.of(processor, datasets.Dataset.from_dict({"tokens": [WORDS] * 4}))
    make_room(rows, model, batch_size=4)
    assert not calls
    monkeypatch.setattr(sampling, "MOST_SCORES", 3 * len(rows.windows[0].rows[0]) ** 2)
    make_room(rows, model, batch_size=4)
    assert calls == [1]


def test_the_estimate_is_near_what_was_measured():
    """If it failed, the start of training would say something else than memory tells later.

    One step of 12 layers of width 384 with 12 heads, on a CPU: 16 windows of 512 at once kept 10.2 GiB.
    """
    sizes = {"layers": 12, "heads": 12, "width": 384}
    four = step_bytes(4, 512, **sizes)
    assert four == pytest.approx(10.2 * 2**30 / 4, rel=0.1)
    assert step_bytes(64, 512, **sizes) < four / 2 + 0.2e9  # what goes on from group to group
    assert step_bytes(16, 2000, **sizes) == pytest.approx(step_bytes(1, 2000, **sizes), rel=0.2)
