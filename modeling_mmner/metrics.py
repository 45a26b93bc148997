"""Span precision, recall and F1, lenient and strict, overall and by groups of posts."""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .labels_mmner import Span, tags_to_spans

_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 10


class SpanF1(evaluate.Metric):
    """Entity-level precision, recall and F1 of tag sequences, as fractions.

    ``mode="lenient"`` is seqeval's default and what the field reports: an orphan I- begins an entity. ``mode="strict"`` counts
    only entities that begin with B-, as seqeval's IOB2.
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="Entity-level precision, recall and F1 of BIO tags.",
            citation="",
            inputs_description="predictions and references: lists of tag lists",
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: Any, references: Any, mode: str = "lenient") -> dict[str, float]:
        if mode not in ("lenient", "strict"):
            raise ValueError(f"mode: expected 'lenient' or 'strict', found {mode!r}")
        return tag_score(references, predictions, strict=mode == "strict")


def tag_score(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, strict: bool = False) -> dict[str, float]:
    """Micro precision, recall and F1 in 0..1 of tag sequences, and the number of gold entities."""
    counts = tag_counts(gold, predicted, strict=strict).sum(0)
    precision, recall, f1 = (float(ratio) for ratio in _ratios(counts))
    return {"precision": precision, "recall": recall, "f1": f1, "number": int(counts[2])}


def tag_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, strict: bool = False) -> np.ndarray:
    """`span_counts` of the entities of tag sequences."""
    read = _strict_spans if strict else tags_to_spans
    return span_counts([set(read(tags)) for tags in gold], [set(read(tags)) for tags in predicted])


def span_counts(gold: Sequence[set[Any]], predicted: Sequence[set[Any]]) -> np.ndarray:
    """(posts, 3): entities that are correct, predicted and gold in each post."""
    pairs = zip(gold, predicted, strict=True)
    return np.array([(len(right & found), len(found), len(right)) for right, found in pairs], dtype=float).reshape(-1, 3)


def count_score(counts: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Micro precision, recall, F1 in 0..1 from `span_counts`, with a 95% bootstrap interval of F1 over posts."""
    precision, recall, f1 = _ratios(counts.sum(0))
    interval = [0.0, 0.0]
    if len(counts):
        interval = [*bootstrap_interval(counts, lambda sums: _ratios(sums.T)[2], resamples=_RESAMPLES, seed=seed)]
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "number": int(counts[:, 2].sum()),
        "confidence_interval": interval,
    }


def bootstrap_interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, resamples: int, seed: int
) -> tuple[float, float]:
    """The ends of a 95% bootstrap interval over posts.

    Args:
        values: (posts, V) what each post adds, posts > 0.
        statistic: of the sums (n, V) of n resamples, (n,).
        resamples: how many are drawn, some at a time: a row of each post's draws for all of them would not fit into memory.
        seed: random seed of the draws.
    """
    random, posts = np.random.default_rng(seed), len(values)
    found = []
    for first in range(0, resamples, _RESAMPLES_AT_ONCE):
        draws = random.multinomial(posts, np.full(posts, 1 / posts), size=min(_RESAMPLES_AT_ONCE, resamples - first))
        found.append(statistic(draws @ values))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return float(low), float(high)


def _ratios(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of (correct, predicted, gold), each a number or an array; 0 where there is nothing to divide."""
    correct, predicted, gold = counts
    return (
        correct / np.maximum(predicted, 1),
        correct / np.maximum(gold, 1),
        2 * correct / np.maximum(predicted + gold, 1),
    )


def evaluate_tags(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    languages: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
) -> dict[str, Any]:
    """All scores of a split.

    Args:
        gold, predicted: a list of BIO tags for each post.
        languages, sources: of each post; groups are scored where they are given.

    Returns:
        overall (lenient), strict, by_type, and by_language, by_source, by_language_and_source where asked for; each a score of
        `count_score`. With languages also language_macro_f1, the mean of their F1.

    Raises:
        ValueError: a post has another number of predicted than of gold tags.
    """
    for index, (right, found) in enumerate(zip(gold, predicted, strict=True)):
        if len(right) != len(found):
            raise ValueError(f"post {index}: expected {len(right)} predicted tags, one a word, found {len(found)}")
    spans = [set(tags_to_spans(tags)) for tags in gold], [set(tags_to_spans(tags)) for tags in predicted]
    counts = span_counts(*spans)
    strict = tag_counts(gold, predicted, strict=True)
    types = sorted({span.type for post in spans[0] + spans[1] for span in post})
    result: dict[str, Any] = {"overall": count_score(counts), "strict": count_score(strict), "by_type": {}}
    for name in types:
        result["by_type"][name] = count_score(
            span_counts(*([{s for s in post if s.type == name} for post in side] for side in spans))
        )
    groups = {"by_language": languages, "by_source": sources}
    if languages is not None and sources is not None:
        groups["by_language_and_source"] = [f"{language}/{source}" for language, source in zip(languages, sources, strict=True)]
    for key, names in groups.items():
        if names is not None:
            chosen = np.array(names)
            result[key] = {name: count_score(counts[chosen == name]) for name in sorted(set(names))}
    if languages is not None:
        scores = [score["f1"] for score in result["by_language"].values()]
        result["language_macro_f1"] = float(np.mean(scores)) if scores else 0.0
    return result


def _strict_spans(tags: Sequence[str]) -> set[Span]:
    """Entities that begin with B-: a lenient one that an orphan I- began does not count."""
    return {span for span in tags_to_spans(tags) if tags[span.start].startswith("B-")}
