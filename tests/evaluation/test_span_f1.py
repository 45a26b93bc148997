"""Tests of the metric as a module of evaluate: against seqeval, and each figure against one that is worked
out in another way.
"""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from modeling_mmner.evaluation.span_f1.span_f1 import SpanF1, count_score, evaluate_tags, tag_score
from modeling_mmner.evaluation.span_f1.spans import read_spans, span_counts
from modeling_mmner.model.labels_mmner import bio_labels, tags_to_spans
from tests.elsewhere import run_elsewhere
from tests.shared_data import property_test

# seqeval's, where nothing is found
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
METRIC = SpanF1(keep_in_memory=True)  # on disk, an error leaves a lock for which others wait
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "modeling_mmner" / "evaluation" / "span_f1"
LABELS = bio_labels(["PER", "LOC", "geo-org"])
MODES = {"lenient": {}, "strict": {"mode": "strict", "scheme": IOB2}}
# Types with a hyphen, with nothing but signs, like a prefix; and tags without a type.
TYPES = ["-a-b", "-a", "--a", "-.", "-O", "-I", "-x y", "", "-"]
ODD = ["O", *(prefix + kind for prefix in "BI" for kind in TYPES)]
GOLD = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O"], ["B-LOC", "O"], ["B-PER"]]
PREDICTED = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-LOC"], ["B-LOC", "O"], ["O"]]


def random_posts(posts, seed):
    """Words, gold tags and the tags of two systems, each of which has a quarter of them changed."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, posts)
    words = [random.choice(["Paris", "paris", "Jordan", "in", "New"], length).tolist() for length in lengths]
    gold = [random.choice(LABELS, length).tolist() for length in lengths]
    systems = [
        [[random.choice(LABELS) if random.random() < 0.25 else tag for tag in tags] for tags in gold]
        for _ in range(2)
    ]
    return words, gold, [[[str(tag) for tag in tags] for tags in system] for system in systems]


@st.composite
def gold_and_predicted(draw):
    """Tags of a few posts, orphan I- among them; the predicted ones are gold with some tags changed."""
    tag = st.sampled_from(LABELS)
    gold = draw(st.lists(st.lists(tag, min_size=1, max_size=8), min_size=1, max_size=5))
    return gold, [[draw(tag) if draw(st.integers(0, 3)) == 0 else label for label in post] for post in gold]


# What an entity is


@property_test
@given(st.lists(st.sampled_from(ODD), max_size=8))
def test_entities_are_those_of_the_package(tags):
    """If it failed, the metric and the models would count other entities, where a type has an odd name."""
    spans = tags_to_spans(tags)
    assert read_spans(tags) == spans
    assert read_spans(tags, strict=True) == [span for span in spans if tags[span.start].startswith("B-")]


@pytest.mark.parametrize("tag", ["E-PER", "S-PER", "BPER", "PER", "0", ""])
def test_tags_of_another_scheme_are_refused(tag):
    """If it failed, the metric would read BIOES tags one way and the package another way, both silently."""
    message = rf"tags: expected 'O', 'B-<type>' or 'I-<type>', found '{tag}'; convert the tags to BIO first"
    with pytest.raises(ValueError, match=message):
        METRIC.compute(predictions=[["O", tag]], references=[["O", "B-PER"]])


# Against seqeval


@property_test
@given(gold_and_predicted())
def test_micro_macro_and_types_are_seqevals(case):
    """If it failed, a figure would bear seqeval's name and be another."""
    gold, predicted = case
    keys = ("precision", "recall", "f1")
    for mode, options in MODES.items():
        found = METRIC.compute(predictions=predicted, references=gold, mode=mode)
        report = classification_report(gold, predicted, output_dict=True, zero_division=0, **options)
        for prefix, average in (("", "micro avg"), ("macro_", "macro avg")):
            expected = [report[average][key] for key in ("precision", "recall", "f1-score")]
            # Without a type, seqeval's means are no numbers.
            assert [found[prefix + key] for key in keys] == pytest.approx(
                expected if found["by_type"] else [0.0] * 3
            )
        types = {name: score for name, score in report.items() if not name.endswith(" avg")}
        assert list(found["by_type"]) == sorted(types)
        for name, score in found["by_type"].items():
            assert [score[key] for key in (*keys, "number")] == pytest.approx([*types[name].values()])


def test_module_and_functions_agree():
    """If it failed, a model would be selected, or the module score it, by another figure than is reported."""
    _, gold, (predicted, _) = random_posts(40, 0)
    groups = {"languages": ["en", "de"] * 20, "sources": ["a"] * 10 + ["b"] * 30}
    report = evaluate_tags(gold, predicted, **groups)
    for mode, key in (("lenient", "overall"), ("strict", "strict")):
        found = METRIC.compute(predictions=predicted, references=gold, mode=mode, intervals=True, **groups)
        assert {name: found[name] for name in report[key]} == report[key]
        score = tag_score(gold, predicted, strict=mode == "strict")
        assert {name: found[name] for name in score} == score
        if mode == "lenient":
            same = ("by_type", "by_language", "by_source", "by_language_and_source", "language_macro_f1")
            assert {name: found[name] for name in same} == {name: report[name] for name in same}


def test_groups_are_scored_as_if_alone():
    """If it failed, a language's score would depend on the others' posts, or unasked groups be shown."""
    assert set(evaluate_tags(GOLD, PREDICTED)) == {"overall", "strict", "by_type"}
    assert "by_language_and_source" not in evaluate_tags(GOLD, PREDICTED, languages=["en"] * 4)
    languages, sources = ["en", "fr", "en", "fr"], ["plain", "plain", "ambiguous", "plain"]
    scores = evaluate_tags(GOLD, PREDICTED, languages=languages, sources=sources)
    parts = {
        "by_language": {"en": [0, 2], "fr": [1, 3]},
        "by_source": {"ambiguous": [2], "plain": [0, 1, 3]},
        "by_language_and_source": {"en/ambiguous": [2], "en/plain": [0], "fr/plain": [1, 3]},
    }
    for kind, groups in parts.items():
        assert scores[kind] == {
            name: evaluate_tags([GOLD[row] for row in rows], [PREDICTED[row] for row in rows])["overall"]
            for name, rows in groups.items()
        }


def test_splits_without_entities_or_posts_score_nothing():
    """If it failed, a split without entities would end the run with a division by zero."""
    asked = {"tokens": [["a"]], "train_tokens": [["a"]], "train_tags": [["O"]]}
    asked |= {"other_predictions": [["O"]]}
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 0}
    for posts in (1, 0):
        tags, options = [["O"]][:posts], {name: value[:posts] for name, value in asked.items()}
        found = METRIC.compute(predictions=tags, references=tags, intervals=True, **options)
        assert {name: found[name] for name in nothing} == nothing == tag_score(tags, tags)
        assert (found["macro_f1"], found["by_type"], found["by_seen"]["unseen"]["number"]) == (0.0, {}, 0)
        assert found["confidence_interval"] == found["macro_confidence_interval"] == [0.0, 0.0]
        assert found["paired"] == {"other_f1": 0.0, "difference": 0.0, "p_value": 1.0}


# By surface


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_groups_by_surface_are_those_of_loops(mode, seed):
    """If it failed, a name of training would count as new, or one of two types as one of a single type."""
    words, gold, (predicted, _) = random_posts(200, seed)
    train_words, train_tags, _ = random_posts(6, 100 + seed)
    training = [
        (words[span.start : span.end], span.type)
        for words, tags in zip(train_words, train_tags, strict=True)
        for span in tags_to_spans(tags)
    ]

    sides = (gold, predicted)
    entities = [[read_spans(tags, strict=mode == "strict") for tags in side] for side in sides]

    def group(post, span):
        types = {kind for surface, kind in training if surface == words[post][span[1] : span[2]]}
        return "ambiguous" if len(types) > 1 else "unambiguous" if types else "unseen"

    expected = {}
    for name in ("ambiguous", "unambiguous", "unseen"):
        chosen = [
            [{span for span in spans if group(post, span) == name} for post, spans in enumerate(side)]
            for side in entities
        ]
        expected[name] = count_score(span_counts(*chosen))
    given = {"predictions": predicted, "references": gold, "mode": mode, "intervals": True, "tokens": words}
    found = METRIC.compute(**given, train_tokens=train_words, train_tags=train_tags)
    assert found["by_ambiguity"] == expected
    assert all(score["number"] for score in expected.values())
    assert found["by_seen"]["unseen"] == expected["unseen"]
    seen = [expected[name]["number"] for name in ("ambiguous", "unambiguous")]
    assert found["by_seen"]["seen"]["number"] == sum(seen)


# Errors


TAGS = {"predictions": [["B-PER", "O"]], "references": [["B-PER", "O"]]}
WRONG_INPUTS = [
    ({"mode": "Strict"}, "mode: expected 'lenient' or 'strict', found 'Strict'"),
    ({"predictions": [["O"]]}, "predictions, post 0: expected 2, one a word, found 1; split all as the gold"),
    ({"languages": ["en"] * 2}, "languages: expected 1, one for each post, found 2; give those of the same"),
    ({"sources": []}, "sources: expected 1, one for each post, found 0"),
    ({"tokens": [["a", "b"]], "train_tags": [["O"]]}, "scores by surface: .* found no three; give all, or"),
    ({"tokens": [["a", "b"]], "train_tokens": [["a"]], "train_tags": [["O"] * 2]}, "training tokens, post 0"),
    ({"other_predictions": [["O"]]}, "other_predictions, post 0: expected 2, one a word, found 1"),
    ({"intervals": True, "resamples": 0}, "resamples, swaps: expected 1 or more, found 0, 10000"),
    ({"other_predictions": [["O", "O"]], "swaps": 0}, "resamples, swaps: expected 1 or more, found 1000, 0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_INPUTS)
def test_wrong_inputs_are_named(options, message):
    """If it failed, a figure would be made of inputs that do not belong together."""
    with pytest.raises(ValueError, match=message):
        METRIC.compute(**TAGS | options)


# The folder, away from the package

LOADED = """
import json, sys
import evaluate
metric = evaluate.load(sys.argv[1])
assert metric.name == "span_f1" and type(metric).__module__.startswith("evaluate_modules.")
found = [metric.compute(**inputs) for inputs in json.loads(open(sys.argv[2]).read())]
assert not [name for name in sys.modules if name.partition(".")[0] in ("modeling_mmner", "dataset_scripts")]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", [FOLDER, FOLDER / "span_f1.py"], ids=["folder", "file"])
def test_evaluate_loads_the_folder_without_the_package(place, tmp_path):
    """If it failed, the metric could not be used without the package, or would say something else there."""
    words, gold, systems = random_posts(25, 8)
    given = {"predictions": systems[0], "references": gold, "other_predictions": systems[1]}
    given |= {"tokens": words, "train_tokens": words[:3], "train_tags": gold[:3]}
    given |= {"languages": ["en"] * 25, "sources": ["a"] * 25, "swaps": 200, "intervals": True}
    inputs = [given | {"mode": mode} for mode in MODES]
    (tmp_path / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    done = run_elsewhere(LOADED, place, tmp_path / "inputs.json", folder=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1]) == [METRIC.compute(**one) for one in inputs]


@pytest.mark.slow
def test_readme_runs_as_it_is_written(tmp_path):
    """If it failed, the README would show a call that fails, or a result that is not there."""
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    first, second = (one.replace('"modeling_mmner/evaluation/span_f1"', repr(str(FOLDER))) for one in blocks)
    script = first.replace("metric.compute", "import json; found = metric.compute")
    script += second.replace("metric.compute", "more = metric.compute")
    done = run_elsewhere(script + "print(json.dumps([found, more]))", folder=tmp_path)
    found, more = json.loads(done.stdout.splitlines()[-1])
    shown = re.search(r"# \{(.*), \.\.\.", first).group(1)
    assert shown == ", ".join(f"{name!r}: {round(found[name], 3)}" for name in list(found)[:5])
    assert set(more) <= set(re.findall(r"`(\w+)`", readme.partition("### Outputs")[2]))


def test_folder_needs_what_it_says():
    """If it failed, the metric would need more than its requirements.txt names, or another version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert set(needed) <= set(project["dependencies"])
    allowed = {re.match(r"\w+", line).group() for line in needed} | set(sys.stdlib_module_names)
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert {name.partition(".")[0] for name in names} <= allowed
