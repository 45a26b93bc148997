"""The entity centres of the clustering objective: when they are computed, and from what."""

from collections.abc import Callable
from itertools import islice
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device

from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.objectives_mmner import EntityClustering


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

    Every post counts once, whatever the order and the languages' shares of the epochs, and however many
    processes read them. No random number is drawn. Does nothing for a model without the clustering objective
    or with its weight at 0.

    Args:
        posts: all training posts, as a data set or an iterable one.
        collate: makes a batch of posts.
        batch_size: posts a batch.
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
