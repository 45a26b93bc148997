"""Gradient checkpointing: the same training in less memory."""

import copy
from typing import Any

import pytest
import torch
from transformers.utils import logging

from tests.tiny import SYSTEMS, ready_model, tiny_batch, tiny_model
from tests.tuning import differing, step

# Settings of a model, and options of activation_checkpointing_enable.
CHECKPOINTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mlmner": (SYSTEMS["mlmner"], {}),
    "2m-ner": (SYSTEMS["2m-ner"], {}),
    "text-only": ({"fusion": "text-only", "objectives": {"crf": 1.0, "boundary": 0.4}}, {}),
    "batch-norm trained": ({"tower": {"frozen": False}}, {}),
    "text frozen": ({}, {}),
    "every second layer": ({}, {"every_n_layers": 2}),
    "reentrant": ({}, {"activation_checkpointing_kwargs": {"use_reentrant": True}}),
}


@pytest.mark.parametrize("case", CHECKPOINTED)
def test_checkpointed_step_is_the_plain_one_in_less_memory(case):
    """If it failed, saving memory would change dropout, gradients or running statistics."""
    settings, options = CHECKPOINTED[case]
    plain, batch = ready_model(**settings, dropout=0.3).train(), tiny_batch()
    plain.text_tower.requires_grad_(case != "text frozen")
    model = copy.deepcopy(plain)
    model.activation_checkpointing_enable(**options)
    assert model.is_activation_checkpointing
    (loss, gradients, kept), (expected, others, most) = step(model, batch), step(plain, batch)
    assert torch.equal(loss, expected) and gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], atol=1e-5, rtol=1e-4)
    # Reentrant checkpointing adds up the gradients of a layer's input in another order.
    assert case == "reentrant" or differing(gradients, others) == set()
    assert differing(dict(model.named_buffers()), dict(plain.named_buffers())) == set()
    model.activation_checkpointing_disable()
    assert kept < most <= step(model, batch)[2] and not model.is_activation_checkpointing


REPEATED = {
    "mlmner": [
        "fusion.text_layer.attention",
        "fusion.text_guided_image.attention",
        "heads.boundary.text_layer.attention",
    ],
    "2m-ner": ["vision_towers.0.backbone.timm_model.blocks.0.attn"],
}


@pytest.mark.parametrize("name", REPEATED)
def test_layers_are_computed_twice_only_where_that_saves_memory(name):
    """If it failed, checkpointing would reach no layer of ours or stay on for good."""
    model, batch = ready_model(**SYSTEMS[name]), tiny_batch()
    calls: list[str] = []
    paths = [*REPEATED[name], "text_tower.encoder.encoder.layer.1.attention"]
    for path in paths:
        model.get_submodule(path).register_forward_hook(lambda *_, path=path: calls.append(path))

    def counts(*, training: bool) -> list[int]:
        calls.clear()
        model.train(training)
        loss = model(**batch).loss
        if training:
            loss.backward()
        return [calls.count(path) for path in paths]

    model.activation_checkpointing_enable()
    assert counts(training=True) == [2] * len(paths) and counts(training=False) == [1] * len(paths)
    model.activation_checkpointing_disable()
    assert counts(training=True) == [1] * len(paths)


def test_batch_norm_is_left_out_with_a_word(caplog):
    """If it failed, users would wonder where their memory goes."""
    for frozen, enable, told in ((True, True, False), (False, False, False), (False, True, True)):
        caplog.clear()
        logging.warning_once.cache_clear()
        tiny_model(tower={"frozen": frozen})._set_gradient_checkpointing(enable)
        assert ("left out of a picture encoder with batch-norm" in caplog.text) is told
