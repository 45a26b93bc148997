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
from huggingface_hub import SpaceCard
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from modeling_mmner.evaluation.span_f1.confidence import calibration, paired_randomisation
from modeling_mmner.evaluation.span_f1.span_f1 import SpanF1, count_score, evaluate_tags, tag_score
from modeling_mmner.evaluation.span_f1.spans import read_spans, span_counts, surface_groups, training_surfaces
from modeling_mmner.model.labels_mmner import bio_labels, tags_to_spans
from tests.elsewhere import run_elsewhere
from tests.shared_data import property_test

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning", "ignore::UserWarning"
)  # seqeval's, where nothing is found
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "modeling_mmner" / "evaluation" / "span_f1"
LABELS = bio_labels(["PER", "LOC", "geo-org"])
MODES = {"lenient": {}, "strict": {"mode": "strict", "scheme": IOB2}}
# Types with a hyphen, with nothing but signs, like a prefix; and tags without a type.
ODD = [
    "O",
    "B-a-b",
    "I-a-b",
    "B-a",
    "I-a",
    "B--a",
    "I--a",
    "B-.",
    "I-.",
    "B-O",
    "I-O",
    "B-I",
    "I-I",
    "B-x y",
    "B",
    "I",
    "B-",
    "I-",
]


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
    """If it failed, the metric would count other entities than the models find, where a type has an odd
    name.
    """
    assert read_spans(tags) == tags_to_spans(tags)
    assert read_spans(tuple(tags), strict=True) == [
        span for span in tags_to_spans(tags) if tags[span.start].startswith("B-")
    ]


@pytest.mark.parametrize("tag", ["E-PER", "S-PER", "U-PER", "BPER", "PER", "other", "0", ""])
def test_tags_of_another_scheme_are_refused(tag):
    """If it failed, BIOES tags would be read one way by the metric and another way by the package, both
    silently.
    """
    message = rf"tags: expected 'O', 'B-<type>' or 'I-<type>', found '{tag}'; convert the tags to BIO first"
    with pytest.raises(ValueError, match=message):
        SpanF1(keep_in_memory=True).compute(predictions=[["O", tag]], references=[["O", "B-PER"]])


# Against seqeval


@property_test
@given(gold_and_predicted())
def test_micro_macro_and_types_are_seqevals(case):
    """If it failed, a figure would bear seqeval's name and be another."""
    gold, predicted = case
    keys = ("precision", "recall", "f1")
    for mode, options in MODES.items():
        found = SpanF1().compute(predictions=predicted, references=gold, mode=mode)
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
    """If it failed, the module and the report of a training run would score the same tags differently."""
    _, gold, (predicted, _) = random_posts(40, 0)
    groups = {"languages": ["en", "de"] * 20, "sources": ["a"] * 10 + ["b"] * 30}
    report = evaluate_tags(gold, predicted, **groups)
    for mode, key in (("lenient", "overall"), ("strict", "strict")):
        found = SpanF1().compute(predictions=predicted, references=gold, mode=mode, intervals=True, **groups)
        assert {name: found[name] for name in report[key]} == report[key]
        score = tag_score(gold, predicted, strict=mode == "strict")
        assert {name: found[name] for name in score} == score
    found = SpanF1().compute(predictions=predicted, references=gold, intervals=True, **groups)
    same = ("by_type", "by_language", "by_source", "by_language_and_source", "language_macro_f1")
    assert {name: found[name] for name in same} == {name: report[name] for name in same}


def test_only_what_is_asked_for_is_there():
    """If it failed, each epoch's validation would draw thousands of resamples that nobody reads."""
    _, gold, (predicted, _) = random_posts(10, 1)
    plain = SpanF1().compute(predictions=predicted, references=gold)
    micro = {"precision", "recall", "f1", "number"}
    assert set(plain) == micro | {"macro_precision", "macro_recall", "macro_f1", "by_type"}
    assert all(set(score) == micro for score in plain["by_type"].values())


def test_splits_without_entities_or_posts_score_nothing():
    """If it failed, a split without entities would end the run with a division by zero."""
    options = {
        "tokens": [["a"]],
        "train_surfaces": ["a"],
        "other_predictions": [["O"]],
        "scores": [[]],
        "intervals": True,
    }
    for posts in (1, 0):
        asked = {name: value[:posts] if name != "intervals" else value for name, value in options.items()}
        found = SpanF1().compute(predictions=[["O"]][:posts], references=[["O"]][:posts], **asked)
        assert (found["f1"], found["macro_f1"], found["by_type"], found["by_seen"]["unseen"]["number"]) == (
            0.0,
            0.0,
            {},
            0,
        )
        assert found["confidence_interval"] == found["macro_confidence_interval"] == [0.0, 0.0]
        assert found["paired"] == {"other_f1": 0.0, "difference": 0.0, "p_value": 1.0}
        assert found["calibration"]["expected_calibration_error"] == found["calibration"]["number"] == 0


# By surface


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_groups_by_surface_are_those_of_loops(mode, seed):
    """If it failed, a name of training would count as new, or one of two types as one of a single type."""
    words, gold, (predicted, _) = random_posts(200, seed)
    train_words, train_tags, _ = random_posts(6, 100 + seed)
    training = [
        (train_words[post][span.start : span.end], span.type)
        for post in range(6)
        for span in tags_to_spans(train_tags[post])
    ]

    def group(post, span):
        types = {kind for surface, kind in training if surface == words[post][span.start : span.end]}
        return "ambiguous" if len(types) > 1 else "unambiguous" if types else "unseen"

    read = [
        [
            {span for span in tags_to_spans(tags) if mode == "lenient" or tags[span.start].startswith("B-")}
            for tags in side
        ]
        for side in (gold, predicted)
    ]
    expected = {}
    for name in ("ambiguous", "unambiguous", "unseen"):
        chosen = [
            [{span for span in post if group(row, span) == name} for row, post in enumerate(side)]
            for side in read
        ]
        expected[name] = count_score(span_counts(*chosen))
    given = {"predictions": predicted, "references": gold, "mode": mode, "intervals": True, "tokens": words}
    found = SpanF1().compute(**given, train_tokens=train_words, train_tags=train_tags)
    assert found["by_ambiguity"] == expected
    assert all(score["number"] for score in expected.values())
    assert found["by_seen"]["unseen"] == expected["unseen"]
    assert (
        found["by_seen"]["seen"]["number"]
        == expected["ambiguous"]["number"] + expected["unambiguous"]["number"]
    )
    listed = SpanF1().compute(**given, train_surfaces=[" ".join(surface) for surface, _ in training])
    assert listed["by_seen"] == found["by_seen"] and "by_ambiguity" not in listed
    mapped = SpanF1().compute(**given, train_surfaces=training_surfaces(train_words, train_tags))
    assert mapped == found


def test_surfaces_of_a_case_counted_by_hand():
    """If it failed, case or length of a name would not matter, or the type that was predicted would decide on
    the group.
    """
    surfaces = training_surfaces(
        [["New", "York", "Jordan"], ["Jordan", "new"]], [["B-LOC", "I-LOC", "B-PER"], ["B-LOC", "O"]]
    )
    assert surfaces == {"New York": {"LOC"}, "Jordan": {"PER", "LOC"}}
    gold, predicted = [[("LOC", 0, 2), ("PER", 2, 3)]], [[("PER", 0, 2), ("LOC", 3, 4), ("LOC", 4, 5)]]
    tokens = [["New", "York", "Jordan", "York", "jordan"]]
    found = surface_groups(gold, predicted, tokens=tokens, surfaces=surfaces)
    assert {name: counts.tolist() for name, counts in found.items()} == {
        "seen": [[0, 1, 2]],
        "unseen": [[0, 2, 0]],
        "ambiguous": [[0, 0, 1]],
        "unambiguous": [[0, 1, 1]],
    }
    assert list(surface_groups(gold, predicted, tokens=tokens, surfaces={"New York", "Jordan"})) == [
        "seen",
        "unseen",
    ]


# Errors


TAGS = {"predictions": [["B-PER", "O"]], "references": [["B-PER", "O"]]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "Strict"}, "mode: expected 'lenient' or 'strict', found 'Strict'"),
        (
            {"predictions": [["O"]]},
            "predictions, post 0: expected 2, one a word, found 1; split all as the gold tags",
        ),
        (
            {"languages": ["en", "de"]},
            (
                "languages: expected 1, one for each post, found 2; give those of the same posts in the same"
                " order"
            ),
        ),
        ({"sources": []}, "sources: expected 1, one for each post, found 0"),
        (
            {"tokens": [["a", "b"]]},
            (
                "scores by surface: expected tokens with either train_tokens and train_tags .* found tokens;"
                " give"
            ),
        ),
        (
            {"tokens": [["a", "b"]], "train_tags": [["O"]]},
            "scores by surface: .* found tokens, train_tags; give the missing",
        ),
        (
            {"train_surfaces": ["a"]},
            "scores by surface: .* found train_surfaces; give the missing ones, or none",
        ),
        ({"tokens": [["a"]], "train_surfaces": ["a"]}, "tokens, post 0: expected 2, one a word, found 1"),
        (
            {"tokens": [["a", "b"]], "train_tokens": [["a"]], "train_tags": [["O", "O"]]},
            "training tokens, post 0: expected 2, .* found 1",
        ),
        ({"other_predictions": []}, "other_predictions: expected 1, one for each post, found 0"),
        ({"other_predictions": [["O"]]}, "other_predictions, post 0: expected 2, one a word, found 1"),
        ({"scores": []}, "scores: expected 1, one for each post, found 0"),
        (
            {"scores": [[0.5, 0.5]]},
            (
                "scores, post 0: expected 1, one for each predicted entity by its start, found 2; an orphan"
                " I- begins"
            ),
        ),
        (
            {"scores": [[2.5]]},
            r"scores: expected probabilities in 0\.\.1, found 2\.5; give probabilities rather than logits",
        ),
        ({"scores": [[float("nan")]]}, r"scores: expected probabilities in 0\.\.1, found nan"),
        ({"intervals": True, "resamples": 0}, "resamples: expected 1 or more, found 0"),
        ({"other_predictions": [["O", "O"]], "swaps": 0}, "resamples: expected 1 or more, found 0"),
    ],
)
def test_wrong_inputs_are_named(options, message):
    """If it failed, a figure would be made of inputs that do not belong together, or an error not say which
    they are.
    """
    with pytest.raises(ValueError, match=message):
        SpanF1(keep_in_memory=True).compute(
            **TAGS | options
        )  # on disk, an error leaves a lock for which others wait


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate_tags([["O"]], []), "predicted: expected 1, one for each post, found 0"),
        (lambda: evaluate_tags([["O"]], [["O", "O"]]), "predicted, post 0: expected 1, one a word, found 2"),
        (lambda: span_counts([set()], []), "predicted: expected 1, one for each post, found 0"),
        (lambda: calibration([0.5], []), "scores: expected 0, one for each predicted entity, found 1"),
        (lambda: calibration([], [], bins=0), "bins: expected 1 or more, found 0"),
        (
            lambda: surface_groups([[]], [[]], tokens=[], surfaces=[]),
            "tokens: expected 1, one for each post, found 0",
        ),
        (
            lambda: surface_groups([[("PER", 0, 2)]], [[]], tokens=[["a"]], surfaces=[]),
            r"tokens: expected 2 words or more, to which the entity \('PER', 0, 2\) reaches, found \['a'\]",
        ),
        (
            lambda: paired_randomisation(np.zeros((2, 3)), np.zeros((2, 2))),
            r"counts_b: expected \(posts, 3\), the correct, predicted and gold entities, found \(2, 2\)",
        ),
        (
            lambda: paired_randomisation(np.zeros((2, 3)), np.zeros((1, 3))),
            "counts_b: expected 2, one for each post, found 1",
        ),
        (
            lambda: paired_randomisation(np.array([[0.0, 0, 2]]), np.array([[0.0, 0, 1]])),
            (
                "counts_b, post 0: expected 2 gold entities as in counts_a, found 1; count both systems on"
                " the same posts"
            ),
        ),
    ],
)
def test_functions_name_what_is_wrong(call, message):
    """If it failed, two systems would be compared on different posts, or entities be cut off without a
    word.
    """
    with pytest.raises(ValueError, match=message):
        call()


# The folder, away from the package

LOADED = """
import json, sys
import evaluate
metric = evaluate.load(sys.argv[1])
assert metric.name == "span_f1" and type(metric).__module__.startswith("evaluate_modules."), type(metric).__module__
found = [metric.compute(**inputs) for inputs in json.loads(open(sys.argv[2]).read())]
assert not [name for name in sys.modules if name.partition(".")[0] in ("modeling_mmner", "dataset_scripts")]
print(json.dumps(found))
"""


@pytest.mark.parametrize("place", [FOLDER, FOLDER / "span_f1.py"], ids=["folder", "file"])
def test_evaluate_loads_the_folder_without_the_package(place, tmp_path):
    """If it failed, the metric could not be used, or published, without the package, or would say something
    else there.
    """
    words, gold, systems = random_posts(25, 8)
    given = {
        "predictions": systems[0],
        "references": gold,
        "tokens": words,
        "other_predictions": systems[1],
        "intervals": True,
    }
    given |= {
        "train_tokens": words[:3],
        "train_tags": gold[:3],
        "languages": ["en"] * 25,
        "sources": ["a"] * 25,
        "swaps": 200,
    }
    given["scores"] = [[0.7 for _ in tags_to_spans(tags)] for tags in systems[0]]
    inputs = [given | {"mode": mode} for mode in MODES]
    (tmp_path / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    done = run_elsewhere(LOADED, place, tmp_path / "inputs.json", folder=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1]) == [SpanF1().compute(**one) for one in inputs]


def test_readme_runs_as_it_is_written(tmp_path):
    """If it failed, the README would show a call that fails, or a result that is not there."""
    blocks = re.findall(
        r"^```py\n(.*?)^```$", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    first, second = (
        block.replace('"modeling_mmner/evaluation/span_f1"', repr(str(FOLDER))) for block in blocks
    )
    script = first.replace("metric.compute", "import json; found = metric.compute") + second.replace(
        "metric.compute", "more = metric.compute"
    )
    done = run_elsewhere(script + "print(json.dumps([found, more]))", folder=tmp_path)
    found, more = json.loads(done.stdout.splitlines()[-1])
    shown = re.search(r"# \{(.*), \.\.\.", first).group(1)
    assert shown == ", ".join(f"{name!r}: {round(found[name], 3)}" for name in list(found)[:5])
    tables = (FOLDER / "README.md").read_text(encoding="utf-8").partition("### Outputs")[2]
    assert set(more) <= set(re.findall(r"`(\w+)`", tables))


APP = """
import json, runpy, sys
import gradio
page = runpy.run_path(sys.argv[1])
try:
    page["score"]("B-PER", "E-PER", "lenient")
except gradio.Error as error:
    print(error.message)
print(json.dumps([page["score"]("I-PER O\\nB-LOC", "I-PER O\\nO", mode)["f1"] for mode in ("lenient", "strict")]))
print(page["build_page"]().article.strip().splitlines()[0])
"""


def test_page_of_the_space_scores(tmp_path):
    """If it failed, the Space would not start, or show an error without its reason."""
    done = run_elsewhere(APP, FOLDER / "app.py", folder=tmp_path)
    message, scores, article = done.stdout.splitlines()[-3:]
    assert (
        message
        == "tags: expected 'O', 'B-<type>' or 'I-<type>', found 'E-PER'; convert the tags to BIO first"
    )
    assert json.loads(scores) == pytest.approx([2 / 3, 0])
    assert article == "# Span F1"


def test_space_says_what_it_needs():
    """If it failed, the Space would be built with another set-up than the metric was tested with."""
    card = SpaceCard.load(FOLDER / "README.md").data
    assert (card.title, card.sdk, card.app_file, card.tags) == (
        "Span F1",
        "gradio",
        "app.py",
        ["evaluate", "metric"],
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert set(needed) <= set(project["dependencies"])
    allowed = {re.match(r"\w+", line).group() for line in needed} | set(sys.stdlib_module_names)
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert {name.partition(".")[0] for name in names} <= allowed | (
                {"gradio"} if path.name == "app.py" else set()
            )
