"""Contenders timed in interleaved rounds, and how many times as long one takes as another."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LEAST_SECONDS = 0.1
"""A contender that is faster repeats its work until it takes so long: the clock would tell little of it."""


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


@dataclass
class Contender:
    """One that does some work.

    Attributes:
        run: does it.
        units: of the work that `run` does; seconds are those of one.
    """

    run: Callable[[], Any]
    units: int = 1


@dataclass
class Comparison:
    """Contenders that are timed beside each other.

    Attributes:
        title: a unit of the work that each does.
        contenders: by name.
        ratios: pairs of names: how many times as long the first takes as the second.
    """

    title: str
    contenders: dict[str, Contender]
    ratios: list[tuple[str, str]]

    def measure(self, rounds: int) -> "Times":
        """Time the contenders one after the other, `rounds` times, each round beginning with the next one."""
        names = list(self.contenders)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        with _old_objects_set_aside():
            repeats = {name: _repeats(contender.run) for name, contender in self.contenders.items()}
            for number in range(rounds):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    contender = self.contenders[name]
                    seconds[name].append(_timed(contender.run, repeats[name]) / contender.units)
        return Times(self.title, {name: Spread(values) for name, values in seconds.items()}, self.ratios)


@dataclass
class Times:
    """What a comparison found: the seconds of a unit for each contender, and the ratios asked for."""

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
        ratios = [{"of": one, "to": other} | spread.to_dict() for one, other, spread in self.each_ratio()]
        seconds = {name: spread.to_dict() for name, spread in self.seconds.items()}
        return {"title": self.title, "seconds": seconds, "ratios": ratios}

    def __str__(self) -> str:
        rows = [(name, f"{spread} s") for name, spread in self.seconds.items()]
        rows += [(f"{one} / {other}", str(spread)) for one, other, spread in self.each_ratio()]
        width = max(len(name) for name, _ in rows)
        return "\n".join([self.title, *(f"  {name:{width}} {value}" for name, value in rows)])


@contextmanager
def _old_objects_set_aside() -> Iterator[None]:
    """Garbage is collected among new objects alone: one that collects it, as the Trainer does, does not pay
    for all others.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def _repeats(run: Callable[[], Any]) -> int:
    """How often a contender does its work in a round. What only a first call has to make is made here."""
    return 1 if _timed(run, 1) >= LEAST_SECONDS else math.ceil(LEAST_SECONDS / _timed(run, 1))


def _timed(run: Callable[[], Any], repeats: int) -> float:
    """Seconds that `run` takes, the mean of so many calls."""
    gc.collect()
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - started) / repeats
