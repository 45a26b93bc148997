"""Losses over the batch of all processes that train together, as if one process had it whole.

Data-parallel training averages the processes' gradients. Each process here returns the loss of the whole
batch, and a gradient such that this average is that of the whole batch, whatever share of it a process has.
The processes meet in the forward pass alone: what they exchange has no gradient, each adds that of its own
part, and so their backward passes may differ.

Where no gradient is asked for, or there is one process, the batch is the process's own. Where there are
several, each must compute the same losses in the same order, even of a batch that has nothing to compute them
from.
"""

import torch
from torch import Tensor, distributed


def processes() -> int:
    """How many processes share a batch: 1 outside training."""
    together = torch.is_grad_enabled() and distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean over the values (N,) of all processes; of none exactly 0, with gradients of 0."""
    values = gathered(values)
    return whole_batch(values.mean() if len(values) else values.sum())


def gathered(vectors: Tensor) -> Tensor:
    """The vectors (N, ...) of all processes, one process after the other; N may differ, or be 0.

    Only the own ones have gradients: give the loss of them all to `whole_batch`.
    """
    number = processes()
    if number == 1:
        return vectors
    own = distributed.get_rank()
    sizes = [torch.zeros(1, dtype=torch.long, device=vectors.device) for _ in range(number)]
    distributed.all_gather(sizes, torch.tensor([len(vectors)], device=vectors.device))
    lengths = torch.cat(sizes).tolist()
    padded = vectors.new_zeros(max(lengths), *vectors.shape[1:])
    padded[: len(vectors)] = vectors.detach()
    parts = [torch.empty_like(padded) for _ in range(number)]
    distributed.all_gather(parts, padded)
    shares = [part[:length] for part, length in zip(parts, lengths, strict=True)]
    return torch.cat([*shares[:own], vectors, *shares[own + 1 :]])


def whole_batch(loss: Tensor) -> Tensor:
    """A loss of all `gathered` vectors, that each process has; its gradient averages to the loss's."""
    if (number := processes()) == 1:
        return loss
    weighted = number * loss
    return weighted + (loss - weighted).detach()
