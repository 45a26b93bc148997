"""How far scores can be trusted: intervals of F1, the test of a difference."""

from collections.abc import Callable

import numpy as np

from .spans import ratios

_RESAMPLES_AT_ONCE = 10
_SWAPS_AT_ONCE = 1_000_000
_ROUNDING = 1e-12  # two ways to the same difference of F1 may differ by that


def bootstrap_interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, resamples: int, seed: int
) -> list[float]:
    """The ends of a 95% percentile bootstrap interval over posts (Efron and Tibshirani 1993, ch. 13).

    Args:
        values: (posts, V) what each post adds.
        statistic: of the sums (n, V) of n resamples, (n,).
        resamples: 1 or more; ten at a time are drawn, since the draws of all would not fit into memory.
    """
    random, posts, found = np.random.default_rng(seed), len(values), []
    if not posts:
        return [0.0, 0.0]
    for first in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - first)
        draws = random.multinomial(posts, np.full(posts, 1 / posts), size=size)
        found.append(statistic(draws @ values))
    return np.quantile(np.concatenate(found), (0.025, 0.975)).tolist()


def paired_randomisation(
    counts_a: np.ndarray, counts_b: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value in 0..1 of the difference of two systems' micro F1 (Noreen 1989; Yeh 2000).

    If the systems are equally good, it is chance which of them gave which output of a post. So the outputs of
    each post are swapped with probability 1/2, and p = (1 + resamples with at least the observed difference)
    / (1 + resamples); the 1 is the observed outcome, without which p could be 0 (Phipson and Smyth 2010).

    Args:
        counts_a, counts_b: (posts, 3) the `span_counts` of each system.
        resamples: how many times all posts are swapped at random, 1 or more.

    Raises:
        ValueError: the counts are not of the same posts.
    """
    if counts_a.shape != counts_b.shape or (counts_a[:, 2] != counts_b[:, 2]).any():
        raise ValueError(
            f"counts_b: expected {counts_a.shape} with the gold entities of counts_a, found {counts_b.shape}"
            " or other gold entities; count both systems on the same posts in the same order"
        )
    more = (counts_b - counts_a)[:, :2]
    more = more[more.any(axis=1)]  # a swap of equal counts changes nothing
    correct_a, predicted_a, gold = counts_a.sum(0)
    correct_b, predicted_b, _ = counts_b.sum(0)

    def distance(moved: np.ndarray) -> np.ndarray:
        """|F1 of A - F1 of B|, (n,), where `moved` (n, 2) correct and predicted entities go from B to A."""
        correct, predicted = moved.T
        f1_a = ratios((correct_a + correct, predicted_a + predicted, gold))[2]
        f1_b = ratios((correct_b - correct, predicted_b - predicted, gold))[2]
        return np.abs(f1_a - f1_b)

    random, observed, reached = np.random.default_rng(seed), distance(np.zeros((1, 2)))[0], 0
    at_once = max(1, _SWAPS_AT_ONCE // max(1, len(more)))
    for first in range(0, resamples, at_once):
        swaps = random.integers(0, 2, size=(min(at_once, resamples - first), len(more)), dtype=np.int8)
        reached += int((distance(swaps @ more) >= observed - _ROUNDING).sum())
    return (1 + reached) / (1 + resamples)
