"""Precision, recall and F1 over entities, as a module of `evaluate` and as functions.

`evaluate.load` takes this folder without the package around it: it copies this file and those beside it that
it imports. So they import nothing else of the package.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import datasets
import evaluate
import numpy as np

from .confidence import bootstrap_interval, paired_randomisation
from .spans import (
    Posts,
    check_number,
    check_posts,
    grouped_counts,
    ratios,
    read_spans,
    span_counts,
    surface_groups,
    tag_counts,
)

_RESAMPLES = 1000


class SpanF1(evaluate.Metric):
    """Precision, recall and F1 over the entities of BIO tags, as seqeval counts them.

    They are micro, macro and by type; and, where it is asked for, by surface, language and source, with
    bootstrap intervals and a paired test against another system.

    `compute` takes, besides, and gives:

    Args:
        predictions, references: a list of BIO tags for each post, one a word.
        mode: "lenient" (seqeval's default, an orphan I- begins an entity) or "strict" (only B- does,
            seqeval's IOB2).
        intervals: whether each score has a 95% bootstrap interval of F1 over posts.
        languages, sources: of each post, for scores by either and by both.
        tokens: the words of each post, for scores by surface; with train_tokens and train_tags, the words
            and tags of each training post.
        other_predictions: tags of another system for the same posts, for a paired
            approximate-randomisation test of micro F1.
        resamples: of the bootstrap.
        swaps: resamples of the paired test.
        seed: of both.

    Returns:
        precision, recall, f1 (micro), macro_precision, macro_recall, macro_f1 (over types), in 0..1;
        number (of gold entities); by_type; and where asked for confidence_interval,
        macro_confidence_interval, by_seen, by_ambiguity, by_language, by_source, by_language_and_source,
        language_macro_f1, paired.

    Example:
        >>> metric = evaluate.load("modeling_mmner/evaluation/span_f1")
        >>> metric.compute(predictions=[["B-PER", "O"]], references=[["B-PER", "O"]])["f1"]
        1.0
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=inspect.getdoc(SpanF1) or "",
            citation="H. Nakayama: seqeval, 2018, https://github.com/chakki-works/seqeval",
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(
        self,
        predictions: Posts,
        references: Posts,
        *,
        mode: str = "lenient",
        intervals: bool = False,
        languages: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        tokens: Posts | None = None,
        train_tokens: Posts | None = None,
        train_tags: Posts | None = None,
        other_predictions: Posts | None = None,
        resamples: int = _RESAMPLES,
        swaps: int = 10_000,
        seed: int = 0,
    ) -> dict[str, Any]:
        if mode not in ("lenient", "strict"):
            raise ValueError(f"mode: expected 'lenient' or 'strict', found {mode!r}")
        if min(resamples, swaps) < 1:
            raise ValueError(f"resamples, swaps: expected 1 or more, found {resamples}, {swaps}")
        strict = mode == "strict"
        check_posts(references, predictions, name="predictions")
        sides = references, predictions
        gold, found = ([read_spans(tags, strict=strict) for tags in side] for side in sides)
        counts, groups = span_counts(gold, found), {"by_type": grouped_counts(gold, found)}
        if tokens is not None and train_tokens is not None and train_tags is not None:
            check_posts(references, tokens, name="tokens")
            training = {"train_tokens": train_tokens, "train_tags": train_tags}
            groups |= surface_groups(gold, found, tokens=tokens, **training)
        elif (tokens, train_tokens, train_tags) != (None, None, None):
            expected = "expected tokens, train_tokens and train_tags, found no three; give all, or none"
            raise ValueError(f"scores by surface: {expected}")
        drawn = resamples if intervals else 0
        score = partial(count_score, resamples=drawn, seed=seed)
        by_type = np.hstack([*groups["by_type"].values()] or [np.zeros((0, 3))])
        result = score(counts) | score(by_type, prefix="macro_")
        result |= _group_scores(groups, counts, {"language": languages, "source": sources}, score)
        if other_predictions is not None:
            check_posts(references, other_predictions, name="other_predictions")
            other = tag_counts(references, other_predictions, strict=strict)
            other_f1 = count_score(other, resamples=0)["f1"]
            p_value = paired_randomisation(counts, other, resamples=swaps, seed=seed)
            difference = result["f1"] - other_f1
            result["paired"] = {"other_f1": other_f1, "difference": difference, "p_value": p_value}
        return result


def tag_score(gold: Posts, predicted: Posts, *, strict: bool = False) -> dict[str, float]:
    """Micro precision, recall and F1 in 0..1 of tag sequences, and the number of gold entities."""
    return count_score(tag_counts(gold, predicted, strict=strict), resamples=0)


def count_score(
    counts: np.ndarray, *, resamples: int = _RESAMPLES, seed: int = 0, prefix: str = ""
) -> dict[str, Any]:
    """Precision, recall, F1 in 0..1 from counts; 95% bootstrap interval of F1 if resampled.

    Args:
        counts: (posts, 3) of `span_counts`; or (posts, 3 T) of T types side by side, for means over them.
        prefix: of all names but ``number``.
    """

    def means(sums: np.ndarray) -> list[np.ndarray]:
        """Of sums (n, 3 T) three arrays (n,)."""
        return [one.mean(-1) for one in ratios(np.moveaxis(sums.reshape(len(sums), -1, 3), 2, 0))]

    figures = zip(("precision", "recall", "f1"), means(counts.sum(0, keepdims=True)), strict=True)
    score: dict[str, Any] = {f"{prefix}{name}": float(mean[0]) for name, mean in figures}
    score["number"] = int(counts[:, 2::3].sum())
    if resamples:
        interval = bootstrap_interval(counts, lambda sums: means(sums)[2], resamples=resamples, seed=seed)
        score[f"{prefix}confidence_interval"] = interval
    return score


def evaluate_tags(
    gold: Posts,
    predicted: Posts,
    *,
    languages: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
) -> dict[str, Any]:
    """All scores of a split, from the BIO tags of each post.

    Returns:
        overall (lenient), strict, by_type, and where they are given by_language, by_source,
        by_language_and_source; each a score of `count_score`. With languages also language_macro_f1, the mean
        of their F1.

    Raises:
        ValueError: arguments are of other numbers of posts or, in a post, tags; or a tag is not BIO.
    """
    check_posts(gold, predicted, name="predicted")
    spans = [[read_spans(tags) for tags in side] for side in (gold, predicted)]
    counts, by_type = span_counts(*spans), grouped_counts(*spans)
    scores = {"overall": count_score(counts), "strict": count_score(tag_counts(gold, predicted, strict=True))}
    kinds = {"language": languages, "source": sources}
    return scores | _group_scores({"by_type": by_type}, counts, kinds, count_score)


def _group_scores(
    groups: dict[str, dict[str, np.ndarray]],
    counts: np.ndarray,
    kinds: dict[str, Sequence[str] | None],
    score: Callable[[np.ndarray], dict[str, Any]],
) -> dict[str, Any]:
    """The score of each group, and of the posts of each language, source and pair, where they are given."""
    given = {kind: names for kind, names in kinds.items() if names is not None}
    for kind, names in given.items():
        check_number(names, posts=len(counts), name=f"{kind}s")
    if len(given) == 2:
        given["language_and_source"] = ["/".join(pair) for pair in zip(*given.values(), strict=True)]
    for kind, names in given.items():
        of_kind = {name: counts[np.array(names) == name] for name in sorted(set(names))}
        groups = groups | {f"by_{kind}": of_kind}
    scores: dict[str, Any] = {
        kind: {name: score(part) for name, part in parts.items()} for kind, parts in groups.items()
    }
    if "language" in given:
        f1s = [one["f1"] for one in scores["by_language"].values()]
        scores["language_macro_f1"] = float(np.mean(f1s)) if f1s else 0.0
    return scores
