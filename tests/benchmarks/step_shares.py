"""Where the time of a training step goes.

A part's share is the time of the calls that compute it and of the backward pass through them. Backward passes run on the CPU in
one thread, what was computed last first; so from the moment at which the pass reaches what a part has returned, its time is that
part's, until it reaches what another part has returned.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
    for owner, method in ((training.optimizer, "step"), (training.optimizer, "zero_grad"), (training.accelerator, "clip_grad_norm_")):
        stopwatch.watch(owner, method, "optimizer")
    stopwatch.watch(training.accelerator, "backward", REST)


@dataclass
class Profile:
    """The shares of a training step's parts.

    Attributes:
        title: what is trained.
        training: whose parts are watched.
        batches: those of an epoch.
    """

    title: str
    training: MMNERTraining
    batches: Callable[[], Iterable[dict[str, Tensor]]]
