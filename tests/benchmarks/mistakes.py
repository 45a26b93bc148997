"""What scores and effects tell of a model's mistakes: `python -m tests.benchmarks.mistakes --help`.

Prints how many mistakes stand in the posts that `mmner review` ranks first, beside random ones; and, where
posts have contexts, what these did for the entities, with the precision of those that rest on them and of the
others.
"""

import argparse
from typing import Any

import numpy as np

from dataset_scripts.contexts import with_contexts
from dataset_scripts.opening import open_corpus
from modeling_mmner.evaluation.scores import gold_tags
from modeling_mmner.inference.loading import load_predictor
from modeling_mmner.inference.review import doubts
from modeling_mmner.model.labels_mmner import tags_to_spans
from modeling_mmner.model.prediction_mmner import Prediction


def hits(found: Prediction, gold: list[str]) -> list[bool]:
    """Of each entity found in a post, whether it is a gold one."""
    assert found.post is not None
    starts = {word.start: number for number, word in enumerate(found.post.words)}
    ends = {word.end: number + 1 for number, word in enumerate(found.post.words)}
    spans = {(span.type, span.start, span.end) for span in tags_to_spans(gold)}
    return [(one["entity_group"], starts[one["start"]], ends[one["end"]]) in spans for one in found.entities]


def ranked(found: list[Prediction], gold: list[list[str]], *, first: int) -> str:
    """Mistakes in the posts with the most `doubts`: entities that are none, and those that are missing."""
    wrong, missed = [], []
    for one, tags in zip(found, gold, strict=True):
        right = hits(one, tags)
        wrong.append(len(right) - sum(right))
        missed.append(len(tags_to_spans(tags)) - sum(right))
    errors = np.array(wrong) + missed
    doubt = np.array([sum(doubts(one).values()) for one in found])
    ours = int(errors[np.argsort(-doubt, kind="stable")[:first]].sum())
    random = errors.mean() * first
    return f"mistakes in the first {first} posts: {ours}, {random:.1f} at random, {ours / random:.1f} times"


def effects(found: list[Prediction], gold: list[list[str]]) -> list[str]:
    """The context's effect on entities, and their precision by it."""
    pairs = [
        (entity["context_effect"], right)
        for one, tags in zip(found, gold, strict=True)
        for entity, right in zip(one.entities, hits(one, tags), strict=True)
        if entity["context_effect"] is not None
    ]
    effect, right = np.array([value for value, _ in pairs]), np.array([is_right for _, is_right in pairs])
    lines = [f"context_effect of {len(pairs)} entities: mean {effect.mean():+.3f}"]
    lines[0] += f", above 0 for {(effect > 0).mean():.0%}"
    for name, which in (("0.5 and more", effect >= 0.5), ("within 0.1", abs(effect) < 0.1)):
        lines.append(f"{name}: {which.sum()} entities, precision {right[which].mean():.3f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data_dir", required=True, help="Twitter-2017")
    parser.add_argument("--context_file", help="JSON lines of its test posts' contexts, under 'context'")
    parser.add_argument("--first", type=int, default=100)
    given = parser.parse_args()
    corpus = open_corpus("twitter2017", data_dir=given.data_dir)
    rows: Any = corpus.splits["test"]
    if given.context_file:
        rows = with_contexts({"test": rows}, "context", [given.context_file])["test"]
    predictor = load_predictor(given.model, dtype="float32", effects=bool(given.context_file))
    found, gold = list(predictor.predict(rows)), gold_tags(rows, corpus.labels)
    print(ranked(found, gold, first=given.first))
    if given.context_file:
        print(*effects(found, gold), sep="\n")


if __name__ == "__main__":
    main()
