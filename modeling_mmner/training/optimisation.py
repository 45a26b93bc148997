"""Steps of training: precision, groups of parameters, entity centres, what a batch changes."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_linear_schedule_with_warmup

from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.objectives_mmner import EntityClustering
from ..model.prediction_mmner import computes_in_bfloat16
from .assembly import pretrained_parts
from .recipes import Recipe


def resolve_precision(mixed_precision: str) -> str:
    """What ``auto`` means here: bf16 where the device computes in it natively, else fp16 on CUDA, else no."""
    if mixed_precision != "auto":
        return mixed_precision
    if torch.backends.mps.is_available():
        return "no"
    device, other = ("cuda", "fp16") if torch.cuda.is_available() else ("cpu", "no")
    return "bf16" if computes_in_bfloat16(device) else other


def parameter_groups(
    model: nn.Module,
    pretrained: Iterable[nn.Module],
    *,
    learning_rate: float,
    head_learning_rate: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups of AdamW: pretrained towers at `learning_rate`, all else at `head_learning_rate`.

    Vectors (biases, norms) do not decay, and frozen parameters are in no group.
    """
    slow = {id(parameter) for part in pretrained for parameter in part.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rate = learning_rate if id(parameter) in slow else head_learning_rate
            decay = weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": own, "lr": rate, "weight_decay": decay} for (rate, decay), own in groups.items()]


def optimizer_and_scheduler(
    recipe: Recipe, model: MMNERForTokenClassification, *, batches: int, processes: int
) -> tuple[AdamW, LRScheduler]:
    """AdamW, and a learning rate that rises in the first share of the steps, then falls to 0, both linearly.

    Args:
        batches: of an epoch, of all processes.
    """
    settings = recipe.training
    groups = parameter_groups(
        model,
        pretrained_parts(model, recipe),
        learning_rate=settings.learning_rate,
        head_learning_rate=settings.head_learning_rate,
        weight_decay=settings.weight_decay,
    )
    optimizer = AdamW(groups, fused=True)
    steps = settings.epochs * math.ceil(batches / (processes * settings.accumulation))
    warmup_steps = int(settings.warmup_share * steps)
    # Accelerate moves the schedule on once a step and process.
    return optimizer, get_linear_schedule_with_warmup(optimizer, warmup_steps * processes, steps * processes)


def centres_due(epoch: int, warmup_epochs: int, refresh_epochs: int) -> bool:
    """Whether entity centres are computed before `epoch`, from 1: after the warm-up, and then regularly."""
    after = epoch - 1 - warmup_epochs
    return after >= 0 and after % refresh_epochs == 0


@torch.no_grad()
def refresh_centres(
    model: MMNERForTokenClassification,
    posts: Any,
    *,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    batch_size: int,
    accelerator: Accelerator,
) -> None:
    """Compute the entity centres over the training posts, without dropout (Li et al. 2022, eq. 6-8).

    Every post counts once, however many processes read them. No random number is drawn. Does nothing where
    the weight of the clustering objective is 0.

    Args:
        posts: all training posts, as a data set or an iterable one.
        collate: makes a batch of `batch_size` posts.
    """
    if not model.config.objectives.get("clustering"):
        return
    clustering = cast(EntityClustering, model.objectives["clustering"])
    was_training = model.training
    model.eval()
    sums = torch.zeros_like(clustering.centres, dtype=torch.float32)  # those of a bfloat16 model are bfloat16
    counts = torch.zeros(len(clustering.centres), device=accelerator.device)
    own, step = accelerator.process_index, accelerator.num_processes
    is_stream = not hasattr(posts, "__len__")
    share = islice(posts, own, None, step) if is_stream else (posts[i] for i in range(own, len(posts), step))
    while chosen := list(islice(share, batch_size)):
        with accelerator.autocast():
            context = model.encode(**send_to_device(collate(chosen), accelerator.device))
            batch_sums, batch_counts = clustering.entity_sums(context)
        sums += batch_sums
        counts += batch_counts
    clustering.set_centres(accelerator.reduce(sums, "sum"), accelerator.reduce(counts, "sum"))
    model.train(was_training)


def train_batches(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    *,
    accelerator: Accelerator,
    optimizer: Any,
    scheduler: Any,
    max_grad_norm: float,
) -> Iterator[dict[str, float]]:
    """Train on batches; after each, gives its losses by name.

    All processes have the same buffers in the end: the statistics of a batch-norm that is trained are those
    of the main process.

    Raises:
        FloatingPointError: a loss or a gradient is not a finite number; the text says which.
    """
    model.train()
    for batch in batches:
        norm = None
        with accelerator.accumulate(model):
            with accelerator.autocast():
                output = model(**batch)
            accelerator.backward(output.loss)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        parts = {f"loss_{name}": value.item() for name, value in output.losses.items()}
        losses = {"loss": output.loss.item()} | parts
        # fp16's scaler meets infinite gradients itself.
        norms = {} if norm is None or accelerator.scaler else {"gradient's norm": float(norm)}
        figures = (losses | norms).items()
        if wrong := [f"{name} {value}" for name, value in figures if not math.isfinite(value)]:
            raise FloatingPointError(f"expected finite numbers, found {', '.join(wrong)}")
        yield losses
    for buffer in model.buffers():
        buffer.copy_(broadcast(buffer))
