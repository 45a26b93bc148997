"""Scores above which a wanted share of entities is right, with 90% confidence.

The entities that were found of a type stand in the order of their scores. A candidate is the score that the n
best of them reach; which n are tried is fixed before anybody looks at which entities are right: the fewest
that can show the precision at all, every tenth more, and all. An exact binomial test (Clopper and Pearson
1934) asks of one after the other whether its precision may be below the wanted one, and the first that may
ends it. So the chance that any test errs is that of one: fixed sequence testing (Maurer et al. 1995; for
thresholds Angelopoulos et al. 2021, "Learn then Test"). That entities of different scores are not right with
the same probability makes the test safer (Hoeffding 1956). That those of one post depend on each other it
does not know.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, log
from typing import Any

import numpy as np
from scipy.special import bdtr

from .span_f1.spans import Entities

CONFIDENCE = 0.9
_RISK = 0.1
_STEP = 10


def lowest_threshold(scores: Sequence[float], right: Sequence[bool], *, precision: float) -> float | None:
    """The lowest score from which on a share of `precision` is right, with a confidence of `CONFIDENCE`.

    Args:
        scores: in 0..1, of N predicted entities.
        right: of each, whether it is a gold entity.
        precision: 0 < precision < 1.

    Returns:
        One of the scores, with which entities are kept that reach it; None where no candidate passes, as with
        fewer entities than show the precision: 22 for 0.9, 45 for 0.95.

    Raises:
        ValueError: `precision` is out of its range.
    """
    if not 0 < precision < 1:
        raise ValueError(f"precision: expected a share between 0 and 1, found {precision}")
    order = np.argsort([-score for score in scores], kind="stable")
    falling, wrong = np.asarray(scores, float)[order], np.cumsum(~np.asarray(right, bool)[order])
    fewest = ceil(log(_RISK) / log(precision))
    ranks = [*range(fewest, len(falling), _STEP), len(falling)] if len(falling) >= fewest else []
    candidates = falling[np.array(ranks, int) - 1]
    # Equal scores are kept together, whichever of them comes first here.
    kept = np.searchsorted(-falling, -candidates, side="right")
    # At most so many of the kept are wrong, if each is right with the wanted precision.
    chances = bdtr(wrong[kept - 1], kept, 1 - precision)
    passed = int(np.logical_and.accumulate(chances <= _RISK).sum())
    return float(candidates[passed - 1]) if passed else None


def calibrate(
    gold: Entities, found: Sequence[Mapping[Any, float]], *, types: Iterable[str], precision: float
) -> dict[str, Any]:
    """The thresholds of entity types, and what is left by them.

    Args:
        gold: for each post its entities, whose first item is their type.
        found: for each post the predicted entities with their scores in 0..1.
        types: all that the model knows.
        precision: see `lowest_threshold`.

    Returns:
        precision; confidence; thresholds, for each type a score or None; numbers, for each type how many
        entities are ``gold``, ``found``, ``right``, and of the latter two how many are ``kept`` and
        ``kept_right``.
    """
    thresholds: dict[str, float | None] = {}
    numbers: dict[str, dict[str, int]] = {}
    posts = [(set(right), spans) for right, spans in zip(gold, found, strict=True)]
    spans = [(span, score, span in right) for right, own in posts for span, score in own.items()]
    for kind in types:
        wanted = sum(span[0] == kind for right, _ in posts for span in right)
        scored = [(score, is_right) for span, score, is_right in spans if span[0] == kind]
        scores, hits = [score for score, _ in scored], [hit for _, hit in scored]
        least = thresholds[kind] = lowest_threshold(scores, hits, precision=precision)
        kept = [hit for score, hit in scored if least is not None and score >= least]
        numbers[kind] = {"gold": wanted, "found": len(hits), "right": sum(hits)}
        numbers[kind] |= {"kept": len(kept), "kept_right": sum(kept)}
    return {"precision": precision, "confidence": CONFIDENCE, "thresholds": thresholds, "numbers": numbers}
