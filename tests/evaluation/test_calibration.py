"""Tests of calibrated thresholds: the exact test, its candidates, the promise where the truth is known."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from modeling_mmner.evaluation.calibration import calibrate, lowest_threshold
from modeling_mmner.model.labels_mmner import Span


@pytest.mark.parametrize("number", [22, 45, 300])
@pytest.mark.parametrize("precision", [Fraction(9, 10), Fraction(19, 20), Fraction(1, 2)])
def test_as_many_may_be_wrong_as_the_exact_binomial_test_lets(number, precision):
    """If it failed, the test would not be exact, or be of another tail or share."""

    def chance(wrong):
        terms = (comb(number, k) * (1 - precision) ** k * precision ** (number - k) for k in range(wrong + 1))
        return sum(terms)

    most = next(wrong for wrong in range(number) if chance(wrong) > Fraction(1, 10)) - 1
    for wrong in (most, most + 1):  # all with one score, and so kept or left out together
        right = [False] * wrong + [True] * (number - wrong)
        found = lowest_threshold([0.5] * number, right, precision=float(precision))
        assert found == (0.5 if 0 <= wrong <= most else None)


@pytest.mark.parametrize(("precision", "fewest"), [(0.9, 22), (0.95, 45)])
def test_fewest_entities_that_show_a_precision(precision, fewest):
    """If it failed, the first candidate would be one that nothing can pass, or a later one than need be."""
    assert fewest == next(n for n in range(1, 100) if precision**n <= 0.1)
    scores = np.linspace(0.99, 0.5, fewest)
    assert lowest_threshold(scores[1:], [True] * (fewest - 1), precision=precision) is None
    assert lowest_threshold(scores, [True] * fewest, precision=precision) == scores[-1]
    assert lowest_threshold(scores, [False] + [True] * (fewest - 1), precision=precision) is None


def test_equal_scores_are_kept_together():
    """Regression: of many entities with a score of 1 the order of the posts would choose those that count."""
    right = [True] * 22 + [False] * 18
    assert lowest_threshold([1.0] * 40, right, precision=0.9) is None
    assert lowest_threshold([1.0] * 22 + [0.5] * 18, right, precision=0.9) == 1.0
    order = np.random.default_rng(0).permutation(40)
    shuffled = np.array([1.0] * 22 + [0.5] * 18)[order], np.array(right)[order]
    assert lowest_threshold(*shuffled, precision=0.9) == 1.0


@pytest.mark.parametrize("error", [1.5, 3.0])
@pytest.mark.parametrize("precision", [0.9, 0.95])
def test_true_precision_reaches_the_target_in_nine_of_ten_draws(precision, error):
    """If it failed, the confidence would not be what is said: where scores have the density 12 s ** 11, and
    an entity is right with s ** error. The largest set that has the share by itself holds less often.
    """
    random, held, naive = np.random.default_rng(1), [], []
    for _ in range(1000):
        scores = random.beta(12, 1, 300)
        right = random.random(300) < scores**error
        falling = np.argsort(-scores)
        enough = np.flatnonzero(np.cumsum(right[falling]) >= precision * np.arange(1, 301))
        largest = scores[falling][enough[-1]] if len(enough) else None
        chosen = lowest_threshold(scores, right, precision=precision)
        for least, outcomes in ((chosen, held), (largest, naive)):
            if least is not None:  # the mean of s ** error from the threshold on
                mean = 12 / (12 + error) * (1 - least ** (12 + error)) / (1 - least**12)
                outcomes.append(mean >= precision)
    assert len(held) > 50 and len(held) - sum(held) <= 100, (len(held), sum(held))
    assert np.mean(naive) < 0.9


def test_numbers_are_those_of_a_count_by_hand():
    """If it failed, the card would tell of another recall, or one type's entities count for another."""
    gold = [[Span("LOC", n, n + 1), Span("PER", 60 + n, 61 + n)] for n in range(30)]
    found = [{Span("LOC", n, n + 1): 0.99 - n / 100, Span("PER", 0, 1): 0.9} for n in range(30)]
    result = calibrate(gold, found, types=["PER", "LOC", "ORG"], precision=0.9)
    assert result["thresholds"] == {"PER": None, "LOC": pytest.approx(0.70), "ORG": None}
    assert result["numbers"]["LOC"] == {"gold": 30, "found": 30, "right": 30, "kept": 30, "kept_right": 30}
    assert result["numbers"]["PER"] == {"gold": 30, "found": 30, "right": 0, "kept": 0, "kept_right": 0}
    with pytest.raises(ValueError, match="expected a share between 0 and 1, found 1"):
        calibrate(gold, found, types=["PER"], precision=1)
