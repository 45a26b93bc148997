"""Whether calibrated thresholds hold on posts of their own: `python -m tests.benchmarks.calibration --help`.

The posts of the validation and the test split are cut into halves at random, many times. Thresholds come from
one half; the other contradicts one where so few of its entities would be right with a probability of 10% at
most, if the wanted precision were true (one-sided, exact binomial). Beside it stand the share whose precision
in the other half is below the wanted one at all, and what a plain 0.9 on the score does.
"""

import argparse
import random
from collections import defaultdict
from typing import Any

from scipy.special import bdtr

from dataset_scripts.opening import open_corpus
from modeling_mmner.evaluation.calibration import calibrate
from modeling_mmner.evaluation.scores import gold_tags, scored_entities
from modeling_mmner.inference.loading import load_predictor
from modeling_mmner.model.labels_mmner import Span, entity_types, tags_to_spans

Scored = tuple[set[Span], dict[Span, float]]
PLAIN = 0.9


def scored_posts(model: str, dataset: str, data_dir: str | None) -> tuple[list[Scored], list[str]]:
    """Gold entities and scored ones of each post that is no training post, and the entity types."""
    corpus = open_corpus(dataset, **({"data_dir": data_dir} if data_dir else {}))
    predictor, posts = load_predictor(model, dtype="float32"), []
    for rows in (corpus.splits["validation"], corpus.splits["test"]):
        gold = [set(tags_to_spans(tags)) for tags in gold_tags(rows, corpus.labels)]
        posts += zip(gold, scored_entities(predictor, rows), strict=True)
    return posts, entity_types(corpus.labels)


def judge(posts: list[Scored], kind: str, least: float, precision: float) -> tuple[bool, bool, float, float]:
    """Whether posts contradict a threshold, whether they are below it at all, their precision and recall."""
    kept = [
        span in gold
        for gold, found in posts
        for span, score in found.items()
        if span[0] == kind and score >= least
    ]
    gold_count = sum(span[0] == kind for gold, _ in posts for span in gold)
    right, number = sum(kept), len(kept)
    # P(at most `right` right) = 1 - P(at most `wrong - 1` wrong).
    surprise = 1.0 if right == number else 1 - bdtr(number - right - 1, number, 1 - precision)
    share = right / number if number else 1.0
    return surprise <= 0.1, share < precision, share, right / max(1, gold_count)


def main(options: argparse.Namespace) -> None:
    """Print two lines for each precision and type: of calibrated thresholds, and of a plain one."""
    posts, types = scored_posts(options.model, options.dataset, options.data_dir)
    for precision in options.precision:
        drawn, rows = random.Random(options.seed), defaultdict[tuple[str, str], list[Any]](list)
        for _ in range(options.draws):
            drawn.shuffle(posts)
            one, other = posts[: len(posts) // 2], posts[len(posts) // 2 :]
            golds, founds = zip(*one, strict=True)
            thresholds = calibrate(golds, founds, types=types, precision=precision)["thresholds"]
            for kind, least in thresholds.items():
                for name, score in (("calibrated", least), (f"plain {PLAIN}", PLAIN)):
                    judged = None if score is None else judge(other, kind, score, precision)
                    rows[kind, name].append(judged)
                    rows["all", name].append(judged)
        print(f"precision {precision}, {options.draws} halves of {len(posts)} posts")
        for (kind, name), found in sorted(rows.items()):
            some = [row for row in found if row is not None]
            means = [100 * sum(column) / len(some) for column in zip(*some, strict=True)]
            parts = zip(("contradicted", "below", "precision", "recall"), means, strict=False)
            said = ", ".join(f"{part} {mean:.1f}%" for part, mean in parts)
            print(f"  {kind:5} {name:10} no threshold {1 - len(some) / len(found):6.1%}; {said}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.calibration", description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a trained model")
    parser.add_argument("--dataset", default="twitter2017", help="the corpus that it was trained on")
    parser.add_argument("--data_dir", help="folder of its files")
    parser.add_argument("--precision", type=float, nargs="+", default=[0.9, 0.95])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    main(parser.parse_args())
