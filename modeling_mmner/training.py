"""The pieces of a training run that its script and the Trainer share: parameter groups, precision, entity centres."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .modeling_mmner import MMNERForTokenClassification
from .objectives_mmner import EntityClustering


def resolve_precision(mixed_precision: str) -> str:
    """What ``auto`` means here: bf16 where the device computes in it natively, else no mixed precision.

    A CPU without bf16 instructions emulates them, some twenty times slower than float32.
    """
    if mixed_precision != "auto":
        return mixed_precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if torch.backends.mps.is_available():
        return "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "no"


def parameter_groups(
    model: nn.Module,
    pretrained: Iterable[nn.Module],
    *,
    learning_rate: float,
    head_learning_rate: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups for AdamW: pretrained towers at `learning_rate`, all else at `head_learning_rate`; no decay on vectors.

    Frozen parameters are in no group.
    """
    slow = {id(parameter) for part in pretrained for parameter in part.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rate = learning_rate if id(parameter) in slow else head_learning_rate
            decay = weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def centres_due(epoch: int, *, warmup_epochs: int, refresh_epochs: int) -> bool:
    """Whether the entity centres are computed before `epoch` (counted from 1): once the warm-up is over, then regularly."""
    after = epoch - 1 - warmup_epochs
    return after >= 0 and after % refresh_epochs == 0


@torch.no_grad()
def refresh_centres(model: MMNERForTokenClassification, batches: Iterable[dict[str, Any]], *, accelerator: Accelerator) -> None:
    """Compute the entity centres by a pass over the training data, without dropout (Li et al. 2022, eq. 6-8).

    Does nothing for a model without the clustering objective or with its weight at 0.
    """
    if not model.config.objectives.get("clustering"):
        return
    clustering = cast(EntityClustering, model.objectives["clustering"])
    was_training = model.training
    model.eval()
    sums, counts = torch.zeros_like(clustering.centres), torch.zeros(len(clustering.centres), device=accelerator.device)
    for batch in batches:
        with accelerator.autocast():
            batch_sums, batch_counts = clustering.entity_sums(model.encode(**batch))
        sums += batch_sums
        counts += batch_counts
    clustering.set_centres(accelerator.reduce(sums, "sum"), accelerator.reduce(counts, "sum"))
    model.train(was_training)


def train_epoch(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    *,
    accelerator: Accelerator,
    optimizer: Any,
    scheduler: Any,
    max_grad_norm: float,
    report: Callable[[dict[str, float]], None],
) -> dict[str, float]:
    """One pass over the training data.

    Args:
        report: called after each batch with its losses by name.

    Returns:
        The mean of each loss over the batches in which it was computed.
    """
    model.train()
    totals: dict[str, list[float]] = {}
    for batch in batches:
        with accelerator.accumulate(model):
            output = model(**batch)
            accelerator.backward(output.loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        losses = {name: float(value.detach()) for name, value in output.items() if name.startswith("loss")}
        for name, value in losses.items():
            totals.setdefault(name, []).append(value)
        report(losses)
    return {name: sum(values) / len(values) for name, values in totals.items()}
