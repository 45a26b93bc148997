"""The pieces of a training run that its script and the Trainer share: sampling, parameter groups, precision,
entity centres.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from ..model.batching_mmner import CORES
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.objectives_mmner import EntityClustering
from ..model.prediction_mmner import computes_in_bfloat16


def resolve_precision(mixed_precision: str) -> str:
    """What ``auto`` means here: bf16 where the device computes in it natively, else fp16 on CUDA and no mixed
    precision.
    """
    if mixed_precision != "auto":
        return mixed_precision
    if torch.cuda.is_available():
        return "bf16" if computes_in_bfloat16("cuda") else "fp16"
    if torch.backends.mps.is_available():
        return "no"
    return "bf16" if computes_in_bfloat16("cpu") else "no"


def loader_workers(setting: int | None, *, opens_pictures: bool) -> int:
    """How many processes prepare a training process's batches: as many as the setting says, else as cores are
    free.
    """
    if setting is not None:
        return setting
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # of this training on this machine
    return min(4, max(0, CORES // processes - 1)) if opens_pictures else 0


class PostSampler(Sampler[int]):
    """The posts of an epoch, those of like length together.

    With temperature 1 each post comes once. With another one there are as many draws, and a language of n
    posts has a share in proportion to n^(1 / temperature), as in multilingual BERT's pretraining; its posts
    take turns, so that all of them come equally often, give or take one. The order follows from seed and
    epoch, however often and by whom it is asked for.

    Args:
        lengths: of each post, see `LaidOutRows`.
        languages: of each post.
        temperature: > 0; the larger, the more alike the shares.
        batch_size: posts a step, of all processes.
        seed: of the order, with the epoch that `set_epoch` sets.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        languages: Sequence[str],
        *,
        temperature: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0
        self.posts: dict[str, list[int]] = {}
        for index, language in enumerate(languages):
            self.posts.setdefault(language, []).append(index)
        sizes = Counter({language: len(posts) for language, posts in self.posts.items()})
        self.draws = dict(sizes) if temperature == 1 else draws_by_language(sizes, temperature=temperature)

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of another epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(
            self.seed * 1_000_003 + self.epoch
        )  # a seed's epochs are no other seed's
        drawn = list(range(len(self.lengths)))
        if any(self.draws[language] != len(posts) for language, posts in self.posts.items()):
            drawn = [
                index
                for language, posts in self.posts.items()
                for index in _turns(posts, self.draws[language], generator)
            ]
        lengths = [self.lengths[index] for index in drawn]
        yield from (
            drawn[place]
            for place in get_length_grouped_indices(lengths, self.batch_size, generator=generator)
        )


def _turns(posts: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    """`count` of the posts, each of them as often as any other, give or take one."""
    rounds, rest = divmod(count, len(posts))
    extra = torch.randperm(len(posts), generator=generator)[:rest].tolist()
    return [*posts] * rounds + [posts[place] for place in extra]


class StepBatches(Sampler[list[int]]):
    """The posts of each step in as many batches as there are processes, which Accelerate deals out in turn.

    A step has the posts that it would have in one process that takes as many a step. Those of an epoch's last
    step are shared out as evenly as can be; fewer posts than processes are left out of the epoch, since each
    process needs one.

    Args:
        sampler: of the posts, in the order of the epoch.
        batch_size: posts a step and process.
        processes: that train together.
    """

    def __init__(self, sampler: Sampler[int], *, batch_size: int, processes: int) -> None:
        self.sampler, self.processes = sampler, processes
        self.step_size = batch_size * processes

    def __len__(self) -> int:
        steps, rest = divmod(len(cast(Sized, self.sampler)), self.step_size)
        return self.processes * (steps + (rest >= self.processes))

    def __iter__(self) -> Iterator[list[int]]:
        posts = iter(self.sampler)
        while len(step := list(islice(posts, self.step_size))) >= self.processes:
            yield from (step[own :: self.processes] for own in range(self.processes))


def draws_by_language(sizes: Counter[str], *, temperature: float) -> dict[str, int]:
    """How many draws of an epoch each language gets, in proportion to n^(1 / temperature); as many as there
    are posts.
    """
    largest = max(sizes.values())  # in whose share the others are told, lest a power overflow
    weights = {language: (size / largest) ** (1 / temperature) for language, size in sizes.items()}
    shares = {
        language: sizes.total() * weight / sum(weights.values()) for language, weight in weights.items()
    }
    draws = {language: int(share) for language, share in shares.items()}
    by_remainder = sorted(shares, key=lambda language: draws[language] - shares[language])
    for language in by_remainder[: sizes.total() - sum(draws.values())]:
        draws[language] += 1
    return draws


def compile_layers(model: MMNERForTokenClassification) -> None:
    """Let `torch.compile` make encoders and fusion at their first run, for batches of any size; the CRF stays
    as it is.
    """
    for layers in (model.text_tower, *model.vision_towers, model.fusion):
        layers.compile(dynamic=True)


def parameter_groups(
    model: nn.Module,
    pretrained: Iterable[nn.Module],
    *,
    learning_rate: float,
    head_learning_rate: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups for AdamW: pretrained towers at `learning_rate`, all else at `head_learning_rate`; no decay on
    vectors.

    Frozen parameters are in no group.
    """
    slow = {id(parameter) for part in pretrained for parameter in part.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rate = learning_rate if id(parameter) in slow else head_learning_rate
            decay = weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()
    ]


def trained_names(model: MMNERForTokenClassification) -> set[str]:
    """The names of the weights and buffers, without those of frozen picture encoders, which stay as they
    are.
    """
    frozen = tuple(
        f"vision_towers.{number}.backbone."
        for number, tower in enumerate(model.vision_towers)
        if tower.frozen
    )
    return {name for name in model.state_dict() if not name.startswith(frozen)}


def trained_state(model: MMNERForTokenClassification) -> dict[str, Tensor]:
    """A copy of the weights and buffers of `trained_names`."""
    names, state = trained_names(model), model.state_dict()
    return {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items() if name in names
    }


def trained_bytes(model: MMNERForTokenClassification) -> int:
    """Of the weights and buffers of `trained_names`."""
    state = model.state_dict()
    return sum(state[name].nbytes for name in trained_names(model))


def centres_due(epoch: int, *, warmup_epochs: int, refresh_epochs: int) -> bool:
    """Whether the entity centres are computed before `epoch` (counted from 1): once the warm-up is over, then
    regularly.
    """
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
    """Compute the entity centres by a pass over the training posts, without dropout (Li et al. 2022, eq.
    6-8).

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
    sums = torch.zeros_like(
        clustering.centres, dtype=torch.float32
    )  # a bfloat16 model's centres are bfloat16
    counts = torch.zeros(len(clustering.centres), device=accelerator.device)
    own, step = accelerator.process_index, accelerator.num_processes
    share = (
        (posts[i] for i in range(own, len(posts), step))
        if hasattr(posts, "__len__")
        else islice(posts, own, None, step)
    )
    while chosen := list(islice(share, batch_size)):
        batch = collate(chosen)
        with accelerator.autocast():
            context = model.encode(**send_to_device(batch, accelerator.device))
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

    All processes have the same buffers then: the statistics of a batch-norm that is trained are those of the
    main process.

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
        losses = {"loss": output.loss.item()} | {
            f"loss_{name}": value.item() for name, value in output.losses.items()
        }
        found = (
            losses
            if norm is None or accelerator.scaler is not None
            else losses | {"gradient's norm": float(norm)}
        )
        if wrong := [f"{name} {value}" for name, value in found.items() if not math.isfinite(value)]:
            raise FloatingPointError(f"expected finite numbers, found {', '.join(wrong)}")
        yield losses
    for buffer in model.buffers():
        buffer.copy_(broadcast(buffer))
