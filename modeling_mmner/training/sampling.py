"""Which posts a training run reads, and when: those of like length together."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from ..escaping import one_line
from ..model.batching_mmner import CORES, begin_worker
from ..model.windows_mmner import MOST_SCORES, step_bytes
from .collator import LaidOutRows, MMNERCollator
from .processes import give_memory_back
from .recipes import Recipe


def training_loader(
    recipe: Recipe, posts: LaidOutRows, collate: MMNERCollator, *, processes: int
) -> DataLoader[Any]:
    """Batches of the training split; its `PostSampler`, the `batch_sampler`, wants to know the epoch."""
    settings = recipe.training
    sampler = PostSampler(posts.lengths, settings.batch_size, processes, settings.seed)
    workers = loader_workers(settings.num_workers, opens_pictures=collate.opens_pictures(posts.rows))
    return DataLoader(
        cast(Any, posts),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=begin_worker,
        persistent_workers=workers > 0,
        # Its own, since how many numbers it draws depends on workers and restarts, and dropout must not.
        generator=torch.Generator(),
    )


def make_room(posts: LaidOutRows, model: Any, *, batch_size: int) -> str:
    """Prepare for a batch of the longest posts; says how long they are, and what a step takes: a plain
    estimate.
    """
    longest = sorted(posts.windows, key=lambda one: one.size)[-batch_size:]
    rows = [len(row) for one in longest for row in one.rows]
    told = f"longest posts: up to {max(len(one.word_windows) for one in posts.windows):,} words"
    if (text := model.config.text_config) is None:
        return told
    sizes = {"heads": text.num_attention_heads, "width": text.hidden_size}
    if len(rows) > MOST_SCORES // max(rows) ** 2:
        give_memory_back()
    held = step_bytes(len(rows), max(rows), layers=text.num_hidden_layers, **sizes)
    # Weights; and a gradient and AdamW's two moments of those that are trained.
    held += 4 * model.num_parameters() + 12 * model.num_parameters(only_trainable=True)
    batch = f"{len(rows)} windows of {max(rows)} sub-tokens in a batch"
    return f"{told}, {batch}; a step takes about {held / 1e9:.1f} GB of memory (a plain estimate, in float32)"


def ids_of_batch(loader: Any, number: int) -> str:
    """The ids of the posts in a loader's batch, counted from 0, for an error text."""
    posts = next(islice(loader.batch_sampler, number, None))
    return one_line(", ".join(loader.dataset["id"][post] for post in posts))[:2000]


def loader_workers(setting: int | None, *, opens_pictures: bool) -> int:
    """How many processes prepare a training process's batches: the setting, else as cores are free."""
    if setting is not None:
        return setting
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # of this training on this machine
    return min(4, max(0, CORES // processes - 1)) if opens_pictures else 0


@dataclass(eq=False)
class PostSampler(Sampler[list[int]]):
    """The posts of an epoch, those of like length together, in batches.

    Each post comes once. The order follows from seed and epoch, however often and by whom it is asked for.

    Each step has as many batches as there are processes, which Accelerate deals out in turn; together they
    have the posts of the step of a single process that takes as many. Those of an epoch's last step are
    shared out evenly; fewer posts than processes are left out, since each process needs one.

    Attributes:
        lengths: of each post, see `LaidOutRows`.
        batch_size: posts a step and process.
        processes: that train together.
        seed: of the order, with the epoch that `set_epoch` sets.
    """

    lengths: Sequence[int]
    batch_size: int
    processes: int
    seed: int
    epoch: int = 0

    def __post_init__(self) -> None:
        self.step_size = self.batch_size * self.processes

    def __len__(self) -> int:
        steps, rest = divmod(len(self.lengths), self.step_size)
        return self.processes * (steps + (rest >= self.processes))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        # So spread that no epoch of a seed is one of another seed.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        posts = iter(get_length_grouped_indices(self.lengths, self.step_size, generator=generator))
        while len(step := [*islice(posts, self.step_size)]) >= self.processes:
            yield from (step[own :: self.processes] for own in range(self.processes))
