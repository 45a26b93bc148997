"""Contenders timed in interleaved rounds, and how many times as long one takes as another."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

LEAST_SECONDS = 0.1
"""A contender that is faster repeats its work until it takes so long, or the clock would tell little of it."""


@dataclass
class Spread:
    """One value of each round."""

    values: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Median, least and greatest value, and all of them."""
        middle, least, greatest = statistics.median(self.values), min(self.values), max(self.values)
        return {"median": middle, "least": least, "greatest": greatest, "rounds": self.values}

    def __str__(self) -> str:
        return "{median:9.3g} ({least:.3g} to {greatest:.3g})".format(**self.to_dict())


def table(title: str, rows: list[tuple[str, str]]) -> str:
    """A title and below it names with their values."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:{width}} {value}" for name, value in rows)])


@dataclass
class Comparison:
    """Contenders that are timed beside each other.

    Attributes:
        title: the work that each does.
        contenders: by name, a function that does the work once.
        ratios: pairs of names: how many times as long the first takes as the second.
    """

    title: str
    contenders: dict[str, Callable[[], Any]]
    ratios: list[tuple[str, str]]

    def measure(self, rounds: int) -> "Times":
        """Time the contenders one after the other, `rounds` times, each round beginning with the next of them."""
        names = list(self.contenders)
        repeats = {name: _repeats(run) for name, run in self.contenders.items()}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                seconds[name].append(timed(self.contenders[name], repeats=repeats[name]))
        return Times(self.title, {name: Spread(values) for name, values in seconds.items()}, self.ratios)


@dataclass
class Times:
    """What a comparison found.

    Attributes:
        title, ratios: see `Comparison`.
        seconds: for each contender, those that its work took.
    """

    title: str
    seconds: dict[str, Spread]
    ratios: list[tuple[str, str]]

    def each_ratio(self) -> Iterator[tuple[str, str, Spread]]:
        """Each ratio, of times of the same round: what slows the machine down slows both."""
        for one, other in self.ratios:
            pairs = zip(self.seconds[one].values, self.seconds[other].values, strict=True)
            yield one, other, Spread([first / second for first, second in pairs])

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        return {
            "title": self.title,
            "seconds": {name: spread.to_dict() for name, spread in self.seconds.items()},
            "ratios": [{"of": one, "to": other} | spread.to_dict() for one, other, spread in self.each_ratio()],
        }

    def __str__(self) -> str:
        rows = [(name, f"{spread} s") for name, spread in self.seconds.items()]
        return table(self.title, rows + [(f"{one} / {other}", str(spread)) for one, other, spread in self.each_ratio()])


def timed(run: Callable[[], Any], *, repeats: int = 1) -> float:
    """Seconds that `run` takes, the mean of so many calls."""
    gc.collect()
    gc.freeze()  # so that one which collects garbage, as the Trainer does, does not pay for all that the others hold
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    seconds = (time.perf_counter() - started) / repeats
    gc.unfreeze()
    return seconds


def _repeats(run: Callable[[], Any]) -> int:
    """How often a contender does its work in a round. What only a first call has to make is made here."""
    return 1 if timed(run) >= LEAST_SECONDS else math.ceil(LEAST_SECONDS / timed(run))
