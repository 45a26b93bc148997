"""Tests of intervals, of the paired test, each against another way to the same figure."""

import tracemalloc
from fractions import Fraction
from itertools import product
from math import sqrt

import numpy as np
import pytest

from modeling_mmner.evaluation.span_f1.confidence import paired_randomisation
from modeling_mmner.evaluation.span_f1.span_f1 import count_score
from modeling_mmner.evaluation.span_f1.spans import tag_counts
from modeling_mmner.model.labels_mmner import tags_to_spans
from tests.evaluation.test_span_f1 import METRIC, random_posts


def random_counts(random, posts, *, right=0.7):
    """Counts of two systems over posts of up to three gold entities; each finds some and mistakes others."""
    gold = random.integers(0, 4, posts)
    correct = [random.binomial(gold, share) for share in (0.7, right)]
    return [
        np.stack([one, one + random.binomial(gold - one, 0.8), gold], axis=1).astype(float) for one in correct
    ]


# The interval


def test_intervals_are_those_of_a_loop_over_resamples():
    """If it failed, the blocks of resamples would draw or sum otherwise than one resample after another."""
    _, gold, (predicted, _) = random_posts(30, 2)
    found = METRIC.compute(predictions=predicted, references=gold, intervals=True, resamples=105, seed=3)
    spans = [[set(tags_to_spans(tags)) for tags in side] for side in (gold, predicted)]
    types = sorted({span.type for side in spans for post in side for span in post})
    random, micro, macro = np.random.default_rng(3), [], []
    for _ in range(105):
        times, by_type = random.multinomial(30, [1 / 30] * 30), []
        for kind in types:
            sums = [0, 0]
            for post, (right, hits) in enumerate(zip(*spans, strict=True)):
                for span in right & hits:
                    sums[0] += 2 * times[post] * (span.type == kind)
                sums[1] += times[post] * sum(span.type == kind for span in [*right, *hits])
            by_type.append(sums)
        micro.append(sum(sums[0] for sums in by_type) / sum(sums[1] for sums in by_type))
        macro.append(sum(sums[0] / max(sums[1], 1) for sums in by_type) / len(types))
    for name, values in (("confidence_interval", micro), ("macro_confidence_interval", macro)):
        assert found[name] == pytest.approx(np.quantile(values, [0.025, 0.975]))


@pytest.mark.parametrize("measure", [lambda one, _: count_score(one), paired_randomisation])
def test_confidence_of_a_large_split_fits_into_memory(measure):
    """Regression: the draws of all resamples at once took gigabytes for a split of 500,000 posts."""
    counts = random_counts(np.random.default_rng(2), 10_000)
    tracemalloc.start()
    measure(*counts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000 * 2_000  # bytes; a byte for each post's draw of all resamples is 10 million or more


# The paired test


def exact_p_value(counts_a, counts_b):
    """The p-value over all 2^n swaps, in fractions, which have no rounding."""

    def f1(rows):
        correct, predicted, gold = (int(one) for one in np.sum(rows, axis=0))
        return Fraction(2 * correct, predicted + gold) if predicted + gold else Fraction(0)

    observed, reached = abs(f1(counts_a) - f1(counts_b)), 0
    for swaps in product((False, True), repeat=len(counts_a)):
        sides = [np.where(np.array(swaps)[:, None] ^ turned, counts_b, counts_a) for turned in (False, True)]
        reached += abs(f1(sides[0]) - f1(sides[1])) >= observed
    return reached / 2 ** len(counts_a)


@pytest.mark.parametrize("seed", range(8))
def test_paired_test_is_the_exact_one_up_to_chance(seed):
    """If it failed, p would not be the share of swaps with at least the observed difference."""
    counts = random_counts(np.random.default_rng(seed), 9, right=0.3 if seed % 2 else 0.7)
    exact, resamples = exact_p_value(*counts), 20_000
    bound = 4 * sqrt(exact * (1 - exact) / resamples) + 1 / resamples
    assert paired_randomisation(*counts, resamples=resamples, seed=seed) == pytest.approx(exact, abs=bound)


def test_swaps_that_change_nothing_count_as_reaching_the_difference():
    """If it failed, rounding or `>` would leave out swaps with just the observed difference."""
    first, second = np.array([[1.0, 1, 1], [1, 2, 3]]), np.array([[0.0, 1, 1], [1, 2, 3]])
    assert exact_p_value(first, second) == 1
    assert paired_randomisation(first, second, resamples=50, seed=0) == 1
    assert paired_randomisation(first, first, resamples=50, seed=0) == 1


def test_module_gives_the_paired_test_of_its_mode():
    """If it failed, the p-value would be that of other counts than the F1 beside it."""
    _, gold, systems = random_posts(60, 4)
    for mode in ("lenient", "strict"):
        counts = [tag_counts(gold, system, strict=mode == "strict") for system in systems]
        options = {"other_predictions": systems[1], "mode": mode, "swaps": 300, "seed": 2}
        found = METRIC.compute(predictions=systems[0], references=gold, **options)
        first, second = (count_score(one)["f1"] for one in counts)
        p_value = paired_randomisation(*counts, resamples=300, seed=2)
        assert found["paired"] == {"other_f1": second, "difference": first - second, "p_value": p_value}
