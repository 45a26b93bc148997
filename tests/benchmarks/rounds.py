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
class Contender:
    """`run` does some units of work; seconds are those of one."""

    run: Callable[[], Any]
    units: int = 1


@dataclass
class Comparison:
    """Contenders by name, and pairs of names: how many times as long the first takes as the second."""

    title: str
    contenders: dict[str, Contender]
    ratios: list[tuple[str, str]]

    def measure(self, rounds: int) -> dict[str, Any]:
        """Time the contenders one after the other, `rounds` times, each round beginning with the next one.

        A ratio is of times of the same round: what slows the machine down slows both.
        """
        names = list(self.contenders)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        with _old_objects_set_aside():
            repeats = {name: _repeats(contender.run) for name, contender in self.contenders.items()}
            for number in range(rounds):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    contender = self.contenders[name]
                    seconds[name].append(_timed(contender.run, repeats[name]) / contender.units)
        pairs = {(one, other): zip(seconds[one], seconds[other], strict=True) for one, other in self.ratios}
        return {
            "title": self.title,
            "seconds": {name: _spread(values) for name, values in seconds.items()},
            "ratios": [
                {"of": one, "to": other} | _spread([first / second for first, second in values])
                for (one, other), values in pairs.items()
            ],
        }


def table(times: dict[str, Any]) -> str:
    """What a comparison found, for the screen."""
    rows = [(name, spread, " s") for name, spread in times["seconds"].items()]
    rows += [(f"{ratio['of']} / {ratio['to']}", ratio, "") for ratio in times["ratios"]]
    form, width = "{median:9.3g} ({least:.3g} to {greatest:.3g})", max(len(name) for name, *_ in rows)
    told = (f"  {name:{width}} {form.format(**spread)}{unit}" for name, spread, unit in rows)
    return "\n".join([times["title"], *told])


def _spread(values: list[float]) -> dict[str, Any]:
    middle, least, greatest = statistics.median(values), min(values), max(values)
    return {"median": middle, "least": least, "greatest": greatest, "rounds": values}


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
