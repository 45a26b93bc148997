"""Where the time of a training step goes.

A part's share is the time of the calls that compute it and of the backward pass through them. Backward passes
run on the CPU in one thread, what was computed last first; so from the moment at which the pass reaches what
a part has returned, its time is that part's, until it reaches what another part has returned.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .mmner_runs import MMNERTraining
from .rounds import Spread, table

REST = "rest"


class Stopwatch:
    """Counts the seconds of parts of which one has its turn at a time."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._part, self._since = REST, time.perf_counter()

    def turn(self, part: str) -> str:
        """From now on it is this part's turn; returns whose it was."""
        now, before = time.perf_counter(), self._part
        self.seconds[before] += now - self._since
        self._part, self._since = part, now
        return before

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Count an object's method, and the backward pass through what it returns, as a part's."""
        call = getattr(owner, method)

        def reached(gradients: tuple[Tensor, ...]) -> None:
            self.turn(part)

        def watched(*arguments: Any, **options: Any) -> Any:
            before = self.turn(part)
            returned = call(*arguments, **options)
            for tensor in _tensors(returned):
                if tensor.grad_fn is not None:
                    tensor.grad_fn.register_prehook(reached)
            self.turn(before)
            return returned

        setattr(owner, method, watched)

    def watched(self, batches: Iterable[Any], part: str) -> Iterator[Any]:
        """The batches, the making of each counted as a part's."""
        stream = iter(batches)
        while True:
            before = self.turn(part)
            batch = next(stream, None)
            self.turn(before)
            if batch is None:
                return
            yield batch


def _tensors(returned: Any) -> list[Tensor]:
    """The tensors that a part has returned, alone or as the fields of a dataclass."""
    fields = [returned] if isinstance(returned, Tensor) else getattr(returned, "__dict__", {}).values()
    return [value for value in fields if isinstance(value, Tensor)]


def watch_training(stopwatch: Stopwatch, training: MMNERTraining) -> None:
    """Count the parts of a model and of its training."""
    model = training.accelerator.unwrap_model(training.model)
    stopwatch.watch(model.text_tower, "forward", "text encoder")
    for tower in model.vision_towers:
        stopwatch.watch(tower, "forward", "picture encoder")
    stopwatch.watch(model.fusion, "forward", "fusion")
    for head in model.heads.values():
        stopwatch.watch(head, "forward", "heads")
        stopwatch.watch(head, "loss", "CRF")
    for objective in model.objectives.values():
        stopwatch.watch(objective, "forward", "objectives")
    for owner, method in (
        (training.optimizer, "step"),
        (training.optimizer, "zero_grad"),
        (training.accelerator, "clip_grad_norm_"),
    ):
        stopwatch.watch(owner, method, "optimizer")
    stopwatch.watch(training.accelerator, "backward", REST)


@dataclass
class Profile:
    """The parts of a training step, by their shares of it.

    Attributes:
        title: what is trained.
        training: the training that is watched.
        batches: those of an epoch.
        stopwatch: that watches it.
    """

    title: str
    training: MMNERTraining
    batches: Iterable[dict[str, Tensor]]
    stopwatch: Stopwatch

    def measure(self, rounds: int) -> "Shares":
        """Train for so many epochs, after one that is not counted."""
        self.training.epoch(self.batches)
        found = []
        for _ in range(rounds):
            self.stopwatch.turn(REST)
            self.stopwatch.seconds.clear()
            self.training.epoch(self.stopwatch.watched(self.batches, "data"))
            self.stopwatch.turn(REST)
            found.append(dict(self.stopwatch.seconds))
        return Shares(self.title, found)


@dataclass
class Shares:
    """What a profile found.

    Attributes:
        title: what was trained.
        seconds: of each part, by its name, in each epoch.
    """

    title: str
    seconds: list[dict[str, float]]

    def by_part(self) -> dict[str, Spread]:
        """The share of each part of each epoch, in 0..1; the greatest first."""
        shares = {
            part: Spread([epoch[part] / sum(epoch.values()) for epoch in self.seconds])
            for part in self.seconds[0]
        }
        return dict(sorted(shares.items(), key=lambda pair: -pair[1].to_dict()["median"]))

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        return {
            "title": self.title,
            "shares": {part: share.to_dict() for part, share in self.by_part().items()},
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        return table(self.title, [(part, str(share)) for part, share in self.by_part().items()])
