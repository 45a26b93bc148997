"""Tests of the scores: against seqeval, and of their groups and intervals."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from modeling_mmner.evaluation.span_f1.span_f1 import SpanF1, count_score, evaluate_tags, tag_score
from modeling_mmner.evaluation.span_f1.spans import span_counts
from modeling_mmner.model.labels_mmner import Span, bio_labels, tags_to_spans
from tests.shared_data import property_test

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning", "ignore::UserWarning"
)  # seqeval's, where nothing is found
LABELS = bio_labels(["PER", "LOC", "MISC"])
GOLD = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O"], ["B-LOC", "O"], ["B-PER"]]
PREDICTED = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-LOC"], ["B-LOC", "O"], ["O"]]


@st.composite
def gold_and_predicted(draw: st.DrawFn) -> tuple[list[list[str]], list[list[str]]]:
    """Tags of a few posts, orphan I- among them; the predicted ones are gold with some tags changed."""
    tag = st.sampled_from(LABELS)
    gold = draw(st.lists(st.lists(tag, min_size=1, max_size=8), min_size=1, max_size=5))
    changed = [[draw(tag) if draw(st.integers(0, 3)) == 0 else label for label in post] for post in gold]
    return gold, changed


def seqeval_scores(gold, predicted, **options):
    scores = (precision_score, recall_score, f1_score)
    return [float(score(gold, predicted, zero_division=0, **options)) for score in scores]


def ours(score):
    return [score["precision"], score["recall"], score["f1"]]


@property_test
@given(gold_and_predicted())
def test_the_metric_for_trainers_agrees_with_the_report(case):
    """If it failed, a model would be selected by another figure than is reported."""
    scores = evaluate_tags(*case)
    for strict, name in ((False, "overall"), (True, "strict")):
        found = tag_score(*case, strict=strict)
        assert found == pytest.approx({key: scores[name][key] for key in found})


def test_scores_of_a_case_counted_by_hand():
    """If it failed, precision and recall would be exchanged, or entities be counted by words."""
    overall = evaluate_tags(GOLD, PREDICTED)["overall"]
    assert ours(overall) == pytest.approx([2 / 4, 2 / 4, 2 / 4])
    assert overall["number"] == 4
    strict = evaluate_tags([["B-PER", "I-PER"]], [["I-PER", "I-PER"]])
    assert (strict["overall"]["f1"], strict["strict"]["f1"], strict["strict"]["recall"]) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_evaluate_metric_gives_seqevals_scores(mode):
    """If it failed, the metric for evaluate's and the Trainer's users would not be ours."""
    gold, predicted = [*GOLD, ["O", "B-PER", "I-PER"]], [*PREDICTED, ["O", "I-PER", "I-PER"]]
    metric = SpanF1()
    metric.add_batch(predictions=predicted[:2], references=gold[:2])
    metric.add_batch(predictions=predicted[2:], references=gold[2:])
    options = {"mode": "strict", "scheme": IOB2} if mode == "strict" else {}
    assert ours(metric.compute(mode=mode)) == pytest.approx(seqeval_scores(gold, predicted, **options))


def test_what_cannot_be_scored_is_refused():
    """If it failed, a misspelt mode would give the lenient score under another name (it once did), or
    predictions of another split be scored as far as they go.
    """
    with pytest.raises(ValueError, match="mode: expected 'lenient' or 'strict', found 'Strict'"):
        SpanF1().compute(predictions=PREDICTED, references=GOLD, mode="Strict")
    with pytest.raises(ValueError, match="predicted: expected 4, one for each post, found 3"):
        evaluate_tags(GOLD, PREDICTED[:3])


def test_posts_without_entities_score_nothing():
    """If it failed, a split without entities would end the run with a division by zero."""
    empty = [["O", "O"], []]
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 0}
    assert tag_score(empty, empty) == nothing
    assert evaluate_tags(empty, empty)["overall"] == nothing | {"confidence_interval": [0.0, 0.0]}
    assert count_score(span_counts([], [])) == nothing | {"confidence_interval": [0.0, 0.0]}


# Groups


def test_groups_are_scored_as_if_alone():
    """If it failed, a language's score would depend on the others' posts, or unasked groups be shown."""
    assert set(evaluate_tags(GOLD, PREDICTED)) == {"overall", "strict", "by_type"}
    assert "by_language_and_source" not in evaluate_tags(GOLD, PREDICTED, languages=["en"] * 4)
    languages, sources = ["en", "fr", "en", "fr"], ["plain", "plain", "ambiguous", "plain"]
    scores = evaluate_tags(GOLD, PREDICTED, languages=languages, sources=sources)
    parts = {
        ("by_language", "en"): [0, 2],
        ("by_language", "fr"): [1, 3],
        ("by_source", "plain"): [0, 1, 3],
        ("by_source", "ambiguous"): [2],
        ("by_language_and_source", "en/plain"): [0],
        ("by_language_and_source", "en/ambiguous"): [2],
        ("by_language_and_source", "fr/plain"): [1, 3],
    }
    assert {
        (kind, name) for kind in scores if "by_" in kind and kind != "by_type" for name in scores[kind]
    } == set(parts)
    for (kind, name), rows in parts.items():
        alone = evaluate_tags([GOLD[row] for row in rows], [PREDICTED[row] for row in rows])["overall"]
        assert scores[kind][name] == alone


@property_test
@given(gold_and_predicted())
def test_counts_of_posts_add_up_to_the_whole(case):
    """If it failed, an entity would be counted in no post or in two."""
    spans = [[set(tags_to_spans(tags)) for tags in side] for side in case]
    counts = span_counts(*spans)
    pooled = [{(row, span) for row, post in enumerate(side) for span in post} for side in spans]
    assert counts.sum(0).tolist() == [len(pooled[0] & pooled[1]), len(pooled[1]), len(pooled[0])]
    assert counts.shape == (len(case[0]), 3)


# The interval


def random_counts(posts, seed=0):
    """Counts of posts with up to three entities, seven tenths of them right."""
    generator = np.random.default_rng(seed)
    gold = generator.integers(0, 4, posts)
    correct = generator.binomial(gold, 0.7)
    return np.stack([correct, correct + generator.binomial(gold - correct, 0.8), gold], axis=1).astype(float)


def test_interval_shrinks_as_the_root_of_the_number_of_posts():
    """If it failed, the interval would not hold its figure, or promise more than the posts can tell."""
    scores = [count_score(np.tile(random_counts(100), (times, 1))) for times in (1, 4, 16)]
    intervals = [score["confidence_interval"] for score in scores]
    assert all(
        0 <= low < score["f1"] < high <= 1 for (low, high), score in zip(intervals, scores, strict=True)
    )
    widths = [high - low for low, high in intervals]
    assert [widths[0] / widths[1], widths[1] / widths[2]] == pytest.approx([2, 2], rel=0.15)


def test_interval_equals_a_bootstrap_written_as_a_loop():
    """If it failed, the quick multinomial form would not be a bootstrap over posts."""
    counts, generator = random_counts(60), np.random.default_rng(5)
    draws = [counts[generator.integers(0, 60, 60)].sum(0) for _ in range(4000)]
    low, high = np.quantile(
        [2 * correct / (predicted + gold) for correct, predicted, gold in draws], [0.025, 0.975]
    )
    assert count_score(counts)["confidence_interval"] == pytest.approx([low, high], abs=0.01)


def test_interval_of_a_large_split_fits_into_memory():
    """Regression: the draws of all resamples at once took gigabytes for a split of 500,000 posts."""
    counts = random_counts(5_000)
    tracemalloc.start()
    count_score(counts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * counts.nbytes  # each post's draws of 1000 resamples are 333 times that


@pytest.mark.slow
def test_interval_covers_the_truth_about_nineteen_times_of_twenty():
    """If it failed, "95%" would be a wrong promise."""
    truth = 2 * 0.7 / (0.7 + 0.3 * 0.8 + 1)  # of the process that `random_counts` draws from
    intervals = [count_score(random_counts(150, seed=seed))["confidence_interval"] for seed in range(100)]
    assert 88 <= sum(low <= truth <= high for low, high in intervals) <= 99


def test_scores_are_plain_numbers_that_the_seed_decides():
    """If it failed, metrics.json could not be written, or equal predictions get unequal intervals."""
    counts = random_counts(50)
    assert count_score(counts) == count_score(counts, seed=0) != count_score(counts, seed=1)
    score = count_score(span_counts([{Span("PER", 0, 1)}], [{Span("PER", 0, 1)}]))
    assert {type(value) for key, value in score.items() if key != "confidence_interval"} == {float, int}
    assert [type(value) for value in score["confidence_interval"]] == [float, float]
