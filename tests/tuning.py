"""Shared by the tests of fine-tuning: models for other labels, a few steps of training, what changed."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from modeling_mmner import MMNERForTokenClassification


def with_labels(folder: Path, labels: list[str], **options: Any) -> MMNERForTokenClassification:
    """A saved model for other labels, as the documentation says."""
    id2label, label2id = dict(enumerate(labels)), {label: index for index, label in enumerate(labels)}
    return AutoModelForTokenClassification.from_pretrained(
        folder, id2label=id2label, label2id=label2id, ignore_mismatched_sizes=True, **options
    )


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    """The names of tensors that are not the same bit by bit."""
    assert one.keys() == other.keys()
    return {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}


def train(model: nn.Module, batch: dict[str, Tensor], *, steps: int, rate: float = 3e-3) -> list[float]:
    """Train on one batch; the loss of each step."""
    model.train()
    optimizer = torch.optim.AdamW(filter(lambda one: one.requires_grad, model.parameters()), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], int]:
    """The loss, the gradient of each trained parameter, and the bytes of activations kept for it."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    model.zero_grad()
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**batch).loss
    loss.backward()
    gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return loss, gradients, kept
