"""Tests of the whole model: batches, padding, missing pictures, checkpoints, precision, gradients."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modeling_mmner import MMNERForTokenClassification, MMNEROutput
from modeling_mmner.model.crf_mmner import CRF
from tests.tiny import (
    LABELS,
    SYSTEMS,
    VOCABULARY,
    close,
    one_post,
    ready_model,
    tiny_batch,
    tiny_config,
    tiny_model,
    without,
)


def pad(batch: dict[str, Tensor], name: str, amount: int, value: int) -> dict[str, Tensor]:
    """A batch with `amount` more columns of `value` in one of its tensors."""
    tensor = batch[name]
    columns = torch.full((tensor.shape[0], amount, *tensor.shape[2:]), value, dtype=tensor.dtype)
    return batch | {name: torch.cat([tensor, columns], dim=1)}


def more_sub_tokens(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return pad(pad(batch, "input_ids", 6, 0), "attention_mask", 6, 0)


def assert_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Check that two outputs are the same bit by bit."""
    assert one.keys() == other.keys()
    for name, value in other.items():
        if isinstance(value, dict):
            assert_equal(one[name], value)
        else:
            assert torch.equal(one[name], value), name


def more_words(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    batch = pad(pad(pad(batch, "word_starts", 4, 0), "word_mask", 4, False), "labels", 4, -100)
    return pad(batch, "character_ids", 4, 0)


def more_pictures(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return pad(pad(batch, "pixel_values", 2, 99), "image_mask", 2, False)


PICTURED = {name: settings for name, settings in SYSTEMS.items() if settings.get("fusion") != "text-only"}
each_system = pytest.mark.parametrize("settings", SYSTEMS.values(), ids=SYSTEMS)
each_pictured_system = pytest.mark.parametrize("settings", PICTURED.values(), ids=PICTURED)


@each_system
def test_batch_equals_its_posts_one_by_one(settings):
    """If it failed, a post's entities would depend on the posts beside it."""
    model, batch = ready_model(**settings), tiny_batch((5, 3, 7, 1), (1, 0, 2, 1))
    together = model(**batch)
    losses = []
    for row, length in enumerate(batch["word_mask"].sum(1)):
        alone = model(**one_post(batch, row))
        assert torch.equal(together.tags[row, :length], alone.tags[0])
        close(together.logits[row, :length], alone.logits[0])
        close(together.span_scores[row, :length], alone.span_scores[0])
        losses.append(alone)
    for name in {"crf", "boundary"} & model.config.objectives.keys():
        mean = torch.stack([alone.losses[name] for alone in losses]).mean()
        close(together.losses[name], mean)
    assert together.tags[~batch["word_mask"]].eq(-100).all()
    assert together.span_scores[~batch["word_mask"]].eq(0).all()


@each_system
@pytest.mark.parametrize("more", [more_sub_tokens, more_words, more_pictures])
def test_more_padding_changes_nothing(settings, more: Callable[[dict[str, Tensor]], dict[str, Tensor]]):
    """If it failed, tags or losses would depend on the longest text."""
    model, batch = ready_model(**settings), tiny_batch((5, 3, 7), (1, 0, 2))
    trimmed, padded = model(**batch), model(**more(batch))
    words = batch["word_mask"].shape[1]
    assert torch.equal(padded.tags[:, :words], trimmed.tags) and padded.tags[:, words:].eq(-100).all()
    logits = padded.logits[:, :words][batch["word_mask"]]
    close(logits, trimmed.logits[batch["word_mask"]], tolerance=1e-6)
    close(padded.span_scores[:, :words], trimmed.span_scores, tolerance=1e-6)
    assert trimmed.losses.keys() == model.config.objectives.keys() and all(trimmed.losses.values())
    close({**padded.losses, "all": padded.loss}, {**trimmed.losses, "all": trimmed.loss}, tolerance=1e-6)


@each_system
@pytest.mark.parametrize("training", [False, True])
def test_pixels_of_a_missing_picture_change_no_bit(settings, training):
    """If it failed, whatever stands in place of a missing picture would reach tags or loss."""
    model, batch = ready_model(**settings), tiny_batch(pictures=(1, 0, 2))
    model.train(training)
    other = batch | {"pixel_values": batch["pixel_values"].clone()}
    missing = ~batch["image_mask"]
    other["pixel_values"][missing] = 255 - other["pixel_values"][missing]
    outputs = []
    for inputs in (batch, other):
        torch.manual_seed(0)
        outputs.append(model(**inputs))
    assert torch.equal(outputs[0].logits, outputs[1].logits) and torch.equal(outputs[0].loss, outputs[1].loss)


@each_system
def test_ways_to_say_no_picture_agree(settings):
    """If it failed, no picture would be one thing as (B, 0, ...) pixels and another as None."""
    model, batch = ready_model(**settings), tiny_batch()
    texts = without(batch, "pixel_values", "image_mask")
    none = model(**texts)
    empty = model(**texts, pixel_values=batch["pixel_values"][:, :0], image_mask=batch["image_mask"][:, :0])
    unmasked = model(**texts, pixel_values=batch["pixel_values"][:, :0])
    masked = model(
        **texts, pixel_values=batch["pixel_values"], image_mask=torch.zeros_like(batch["image_mask"])
    )
    for output in (empty, unmasked, masked):
        assert torch.equal(output.logits, none.logits) and torch.equal(output.loss, none.loss)
    assert not any(
        none.losses[name] for name in {"contrastive", "alignment"} & model.config.objectives.keys()
    )
    beside = model(**batch)  # the second post has no picture, the others have
    close(beside.logits[1], none.logits[1])


def test_pixels_without_a_mask_are_all_there():
    """If it failed, a user who leaves out `image_mask` would get tags without pictures."""
    model, batch = tiny_model(), tiny_batch(pictures=(2, 2, 2))
    assert torch.equal(model(**without(batch, "image_mask")).logits, model(**batch).logits)


@each_pictured_system
def test_two_pictures_both_matter_in_either_order(settings):
    """If it failed, a post's second picture would be ignored, or their order would decide on entities."""
    model, batch = tiny_model(**settings), tiny_batch((6,), (2,))
    both = model(**batch).logits
    swapped = model(**batch | {"pixel_values": batch["pixel_values"].flip(1)}).logits
    close(swapped, both)
    for kept in ([True, False], [False, True]):
        one = model(**batch | {"image_mask": torch.tensor([kept])}).logits
        assert (one - both).abs().max() > 1e-3


def test_attention_mask_may_be_left_out_where_nothing_is_padded():
    """If it failed, the default mask would hide sub-tokens."""
    model, post = tiny_model(), one_post(tiny_batch(), 2)
    assert torch.equal(model(**without(post, "attention_mask")).logits, model(**post).logits)


@each_system
def test_empty_text_gets_no_tags_and_spoils_none(settings):
    """If it failed, one empty text would stop a batch, or turn it or its gradients into NaN."""
    model, batch = ready_model(**settings), tiny_batch((5, 0, 7), (1, 1, 2))
    output = model(**batch)
    assert output.tags[1].eq(-100).all() and output.span_scores[1].eq(0).all()
    close(output.logits[0, :5], model(**one_post(batch, 0)).logits[0])
    output.loss.backward()
    assert all(
        parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None
    )
    everywhere = model(**tiny_batch((0, 0), (1, 0)))
    assert everywhere.loss == 0 and everywhere.tags.eq(-100).all()


@each_system
def test_tags_and_scores_are_those_of_the_crf_over_the_logits(settings):
    """If it failed, `logits`, `tags` and `span_scores` of one output would not belong together."""
    model, batch = tiny_model(**settings), tiny_batch()
    output = model(**batch)
    tags = model.crf.decode_batch(output.logits, mask=batch["word_mask"])
    assert torch.equal(output.tags, tags)
    assert torch.equal(
        output.span_scores, model.crf.span_scores(output.logits, tags, mask=batch["word_mask"])
    )
    context = model.encode(**batch)
    model.run_head("crf", context)
    assert torch.equal(output.logits, context.emissions["crf"])


def test_without_labels_there_is_no_loss():
    """If it failed, prediction would ask for labels or compute a loss of nothing."""
    model, batch = tiny_model(), tiny_batch()
    with_labels = model(**batch)
    output = model(**without(batch, "labels"))
    assert not [name for name in output if name.startswith("loss")]
    assert torch.equal(output.logits, with_labels.logits) and torch.equal(output.tags, with_labels.tags)


def test_tuple_holds_what_the_output_holds():
    """If it failed, `return_dict=False` or the config's `return_dict` would do nothing, or lose a value."""
    model, batch = tiny_model(), tiny_batch()
    output = model(**batch)
    assert isinstance(output, MMNEROutput)
    for values in (model(**batch, return_dict=False), tiny_model(return_dict=False)(**batch)):
        assert isinstance(values, tuple)
        assert_equal(dict(zip(output, values, strict=True)), output)
    assert torch.equal(values[0], output.loss)


@each_system
def test_model_is_the_same_after_saving(settings, tmp_path):
    """If it failed, a saved model would have lost its centres, CRFs or normalisation."""
    model, batch = ready_model(**settings), tiny_batch()
    if "clustering" in model.objectives:
        model.objectives["clustering"].has_centre[1] = False
    model.save_pretrained(tmp_path)
    loaded = MMNERForTokenClassification.from_pretrained(tmp_path)
    state, expected = loaded.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert [name for name in state if not torch.equal(state[name], expected[name])] == []
    assert load_file(tmp_path / "model.safetensors").keys() == expected.keys()
    before, after = model(**batch), loaded(**batch)
    assert all(before.losses[name] != 0 for name in model.config.objectives)
    # Not to the last bit: a product of few rows is summed in another order where the weights lie elsewhere in
    # memory.
    close({**after, "losses": None}, {**before, "losses": None}, tolerance=1e-6)
    close(after.losses, before.losses, tolerance=1e-6)


MEAN, STD = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
REPLACED = {
    "mlmner": {
        "heads.crf.crf.": lambda tensor: 0 < tensor.abs().max() <= 0.1,
        "heads.boundary.crf.": lambda tensor: 0 < tensor.abs().max() <= 0.1,
        "fusion.no_picture": lambda tensor: 0 < tensor.abs().max() < 0.2,
        "objectives.clustering.": lambda tensor: not tensor.any(),
        "vision_towers.0.mean": lambda tensor: torch.allclose(tensor.flatten(), MEAN),
        "vision_towers.0.std": lambda tensor: torch.allclose(tensor.flatten(), STD),
        "heads.crf.classifier.": lambda tensor: tensor.abs().max() < 0.5,
        "fusion.text_layer.attention_norm.weight": lambda tensor: tensor.eq(1).all(),
        "text_tower.encoder.embeddings.word_embeddings.weight": lambda tensor: 0 < tensor.abs().max() < 0.2,
    },
    "2m-ner": {
        "vision_towers.1.mean": lambda tensor: torch.allclose(tensor.flatten(), MEAN),
        "vision_towers.1.std": lambda tensor: torch.allclose(tensor.flatten(), STD),
        "fusion.norms.1.weight": lambda tensor: tensor.eq(1).all(),
        "fusion.readers.": lambda tensor: tensor.abs().max() < 0.6,
        "objectives.alignment.": lambda tensor: tensor.abs().max() < 0.6,
        "text_tower.encoder.pooler.dense.weight": lambda tensor: 0 < tensor.abs().max() < 0.2,
    },
}


@pytest.mark.parametrize(
    ("system", "prefix"), [(system, prefix) for system, parts in REPLACED.items() for prefix in parts]
)
def test_checkpoint_without_a_part_loads_with_fresh_values(system, prefix, tmp_path):
    """If it failed, a part that a checkpoint lacks would be whatever was in memory."""
    model = ready_model(**SYSTEMS[system], tower={"mean": MEAN.tolist(), "std": STD.tolist()})
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, info = MMNERForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    missing = state.keys() - kept.keys()
    assert info["missing_keys"] == missing
    found = loaded.state_dict()
    assert [name for name in missing if not REPLACED[system][prefix](found[name])] == []
    assert [name for name in kept if not torch.equal(found[name], kept[name])] == []
    output = loaded(**tiny_batch())
    assert output.logits.isfinite().all() and output.loss.isfinite()


@each_system
def test_bfloat16_model_keeps_its_crfs_in_float32(settings, tmp_path):
    """If it failed, transitions would lose their digits, or a half-precision model would not run."""
    model, batch = ready_model(**settings), tiny_batch()
    model.save_pretrained(tmp_path)
    half = MMNERForTokenClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    precise = {name for name, parameter in half.named_parameters() if parameter.dtype == torch.float32}
    crfs = {name for name, module in half.named_modules() if isinstance(module, CRF)}
    assert crfs == {f"heads.{name}.crf" for name in model.heads}
    assert precise == {f"{crf}.{name}" for crf in crfs for name, _ in model.crf.named_parameters()}
    assert all(torch.equal(half.get_parameter(name), model.get_parameter(name)) for name in precise)
    for name, buffer in model.named_buffers():
        assert half.get_buffer(name).dtype == (
            torch.bfloat16 if buffer.is_floating_point() else buffer.dtype
        ), name
    output, expected = half(**batch), model(**batch)
    assert output.logits.dtype == output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, expected.loss, atol=0.05, rtol=0.02)
    output.loss.backward()


@each_system
def test_autocast_runs_and_is_close(settings):
    """If it failed, mixed-precision training would stop on a dtype, or lose the CRF's precision."""
    model, batch = ready_model(**settings, tower={"frozen": False}), tiny_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    assert output.logits.dtype == output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, model(**batch).loss, atol=0.05, rtol=0.02)
    output.loss.backward()


@each_system
def test_gradient_reaches_every_trained_parameter(settings):
    """If it failed, a part would stay at its initial values, and DDP would wait for its gradients in vain."""
    model = ready_model(**settings, tower={"frozen": False}, dropout=0.0)
    batch = tiny_batch(pictures=(1, 0, 2))
    model.train()
    model(**batch).loss.backward()
    named = dict(model.named_parameters())
    assert [name for name, parameter in named.items() if parameter.grad is None] == []
    assert [name for name, parameter in named.items() if not parameter.grad.isfinite().all()] == []
    # Softmax does not see what is added to all scores of a query: the bias of a key has no gradient but
    # rounding, nor has what GVATT and AdaCAN make of the query.
    silent = {name for name, parameter in named.items() if parameter.grad.abs().max() < 1e-7}
    cancelled = (
        r"\.key\.bias|\.query_(map|score)\.|fusion\.(text_query\.|region_score\.bias)|text_tower\.sentence\."
    )
    assert [name for name in silent if not re.search(cancelled, name)] == []


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SYSTEMS["mlmner"], SYSTEMS["2m-ner"], SYSTEMS["adacan"]])
def test_model_learns_a_batch_by_heart(settings):
    """If it failed, the loss would not lead to the gold tags: a sign, a mask or a gradient would be wrong."""
    torch.manual_seed(0)
    model = MMNERForTokenClassification(tiny_config(**settings, dropout=0.0)).train()
    batch = tiny_batch()
    batch["labels"] = torch.tensor([[1, 2, 0, 0, 3, 0, 0], [0, 1, 0, 0, 0, 0, 0], [3, 4, 4, 0, 1, 0, 0]])
    batch["labels"] = batch["labels"].masked_fill(~batch["word_mask"], -100)
    has_encoder = model.config.text_config is not None
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3 if has_encoder else 3e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    output = model.eval()(**batch)
    assert torch.equal(output.tags, batch["labels"])
    assert output.span_scores[torch.isin(batch["labels"], torch.tensor([1, 3]))].gt(0.9).all()


def test_words_without_places_are_refused():
    """If it failed, the stock pipeline's inputs would be tagged sub-token by sub-token."""
    model, batch = tiny_model(), tiny_batch()
    message = r"expected word_starts and word_mask \(B, W\), found none.* MMNERProcessor"
    message += r".*what a model object gets by its name; use pipeline\('multimodal-ner'"
    for missing in ("word_starts", "word_mask"):
        with pytest.raises(ValueError, match=message):
            model(**without(batch, missing))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pixels: pixels / 255, r"pixel_values: expected .* uint8 in 0..255, found \(3, 2, 3, 64"),
        (lambda pixels: pixels.long(), r"found \(3, 2, 3, 64, 64\) torch.int64; the towers normalise pixels"),
        (lambda pixels: pixels[:, 0], r"pixel_values: expected \(B, N, 3, H, W\) .* found \(3, 3, 64, 64\)"),
    ],
    ids=["float", "int64", "no pictures' dimension"],
)
def test_pixels_of_another_kind_are_refused(change, message):
    """If it failed, pixels that are already normalised would be normalised twice."""
    batch = tiny_batch()
    with pytest.raises(ValueError, match=message):
        tiny_model()(**batch | {"pixel_values": change(batch["pixel_values"])})


@pytest.mark.parametrize("label", [-100, len(LABELS)])
def test_label_of_a_word_out_of_range_is_refused(label):
    """If it failed, a word without a label, or one of another label set, would be learned as some tag."""
    batch = tiny_batch()
    batch["labels"][0, 1] = label
    with pytest.raises(ValueError, match=rf"expected 0\.\.4 for every word of the mask, got {label}"):
        tiny_model()(**batch)


def test_embeddings_can_be_replaced_and_resized():
    """If it failed, adding tokens to the vocabulary would leave the encoder with the old table."""
    model, batch = tiny_model(), tiny_batch()
    before = model(**batch).logits
    model.resize_token_embeddings(VOCABULARY + 20)
    assert model.get_input_embeddings() is model.text_tower.encoder.embeddings.word_embeddings
    assert model.get_input_embeddings().num_embeddings == VOCABULARY + 20
    assert torch.equal(model(**batch).logits, before)
    model.set_input_embeddings(nn.Embedding(VOCABULARY, 32))
    assert not torch.equal(model(**batch).logits, before)


def test_training_decodes_nothing():
    """If it failed, every training step would pay for a decoding that nobody reads."""
    output = tiny_model().train()(**tiny_batch())
    assert output.tags is None and output.span_scores is None and output.loss is not None
