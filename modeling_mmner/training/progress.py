"""How far a training run has come."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tqdm.auto import tqdm


@dataclass
class Progress:
    """Where a training run is, and what it has found so far. It goes into each checkpoint, as JSON.

    Attributes:
        epoch: the one that is trained, from 1.
        batches: of this epoch that are done.
        steps: of the optimizer, in the whole run.
        sums: of each loss by its name, over this epoch's batches.
        counts: in how many of them each was computed.
        history: of the epochs that are done, see `RunMetrics`.
        seconds: that earlier processes have spent on the run.
        epoch_began: seconds of the run before this epoch.
    """

    epoch: int = 1
    batches: int = 0
    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    epoch_began: float = 0.0

    def __post_init__(self) -> None:
        self._since = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds of the run, those of earlier processes included."""
        return self.seconds + time.perf_counter() - self._since

    @property
    def best(self) -> dict[str, Any]:
        """The epoch of the history with the best validation F1, the first of equal ones."""
        return max(self.history, key=lambda epoch: epoch["validation_f1"])

    def is_over(self, *, epochs: int, patience: int) -> bool:
        """Whether all epochs are done, or the last `patience` (0: any number) no better than one before."""
        stale = bool(self.history) and self.epoch - 1 - self.best["epoch"] >= patience > 0
        return self.epoch > epochs or stale

    def shown(
        self, steps: Iterable[dict[str, float]], batches: int, *, epochs: int, visible: bool
    ) -> Iterator[dict[str, float]]:
        """Count batches whose losses come by name, and show each task's in a bar.

        Args:
            steps: those batches of this epoch that are not done.
            batches: of an epoch.
        """
        name = f"epoch {self.epoch}/{epochs}"
        with tqdm(steps, name, batches, initial=self.batches, disable=not visible) as bar:
            for losses in bar:
                self.add(losses)
                shown = {name.removeprefix("loss_"): f"{loss:.2f}" for name, loss in losses.items()}
                bar.set_postfix(shown, refresh=False)
                yield losses

    def add(self, losses: dict[str, float]) -> None:
        """Count a batch and its losses."""
        self.batches += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def mean_losses(self) -> dict[str, float]:
        """The mean of each loss over this epoch's batches in which it was computed."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}

    def end_epoch(self, results: dict[str, float]) -> None:
        """Put an epoch's results into the history and go to the next one."""
        self.history.append({"epoch": self.epoch} | results | {"seconds": self.elapsed - self.epoch_began})
        self.epoch, self.batches, self.sums, self.counts = self.epoch + 1, 0, {}, {}
        self.epoch_began = self.elapsed

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return asdict(self) | {"seconds": self.elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave. Raises KeyError where something is missing."""
        for item in fields(self):
            setattr(self, item.name, state[item.name])
