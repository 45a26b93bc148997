"""Tests of the reports: plots, confusion counts, the table of results and the words about the picture."""

import io
import random
import time

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from seqeval.metrics.sequence_labeling import get_entities

from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.evaluation.reports import (
    picture_worth,
    plot_confusion,
    plot_learning_curves,
    results_table,
    span_confusion,
)
from tests.small_metrics import make_metrics

# Of each epoch its total loss, the losses of its parts, and the validation F1, lenient and strict.
HISTORY = [
    {"epoch": epoch, "loss": loss, "validation_f1": lenient, "validation_strict_f1": lenient - 0.1} | parts
    for epoch, loss, lenient, parts in (
        (1, 9.0, 0.5, {"loss_crf": 8.0}),
        (2, 3.0, 0.9, {"loss_crf": 2.0, "loss_clustering": 1.5}),
        (3, 2.0, 0.7, {"loss_crf": 1.0, "loss_clustering": 1.0}),
    )
]
WEIGHTS = {"crf": 1.0, "clustering": 0.5}
GOLD = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
PREDICTED = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-LOC"]]


def score(f1: float, *, half_width: float = 0.05) -> dict:
    interval = [max(0.0, f1 - half_width), min(1.0, f1 + half_width)]
    return {"precision": f1, "recall": f1, "f1": f1, "number": 48, "confidence_interval": interval}


def block(f1: float, **ambiguous: float) -> dict:
    """A block with an F1 overall and one on the ambiguous posts, if any."""
    of_ambiguous = {source: score(f1) for source, f1 in ambiguous.items()}
    return {
        "overall": score(f1),
        "strict": score(f1 - 0.01),
        "by_type": {},
        "by_language": {},
        "by_source": {"plain": score(0.99)} | of_ambiguous,
        "by_language_and_source": {},
    }


def metrics(*, chance: dict | None = None, **modes: dict) -> RunMetrics:
    """Metrics with a test block for each kind of picture, first the kind that the run was trained with."""
    run = make_metrics()
    run["splits"]["test"] = next(iter(modes.values())) | {"picture": modes, "raw_text": score(0.5)}
    run["corpus"]["chance"] = chance
    return RunMetrics.from_dict(run)


@pytest.fixture
def saved_figures(monkeypatch):
    """The figures that were saved, to look at what is drawn in them."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **kw: figures.append(self) or save(self, *a, **kw)
    )
    return figures


def legend_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_learning_curves_show_every_loss_and_mark_the_selected_epoch(saved_figures, tmp_path):
    """If it failed, a loss would be missing from the plot, or another epoch than the one kept be marked."""
    plot_learning_curves(HISTORY, tmp_path / "curves.png", selected_epoch=3, weights=WEIGHTS)
    losses, scores = saved_figures[0].axes
    assert legend_of(losses) == ["total", "crf × 1", "clustering × 0.5"]
    values = [line.get_ydata() for line in losses.lines]
    # Regression: they were drawn before they are weighted, and clustering towered over the total.
    np.testing.assert_array_equal(values, [[9, 3, 2], [8, 2, 1], [np.nan, 0.75, 0.5]])
    assert losses.get_yscale() == "linear"
    lenient, strict = ([round(y) for y in line.get_ydata()] for line in scores.lines[:2])
    assert (lenient, strict) == ([50, 90, 70], [40, 80, 60])
    assert legend_of(scores) == ["lenient", "strict", "selected: epoch 3, F1 70.0"]
    assert all(
        axes.get_xlabel() and axes.get_ylabel() and axes.get_title("left") for axes in (losses, scores)
    )
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 500


@pytest.mark.parametrize(("f1", "limits"), [(0.0, (0, 5)), (1.0, (95, 100)), (0.5, (45, 55))])
def test_axis_of_scores_is_percents(saved_figures, tmp_path, f1, limits):
    """Regression: where every F1 is 0 the axis went from -0.04 to 0.04 percent."""
    history = [epoch | {"validation_f1": f1, "validation_strict_f1": f1} for epoch in HISTORY]
    plot_learning_curves(history, tmp_path / "curves.png", selected_epoch=1, weights=WEIGHTS)
    assert saved_figures[0].axes[1].get_ylim() == limits


def test_span_confusion_counts_types_missed_and_spurious():
    """If it failed, an entity would be counted under another type, or a missed one as spurious."""
    types, matrix = span_confusion(GOLD, PREDICTED)
    assert types == ["LOC", "ORG", "PER"]
    assert matrix.tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]]
    assert span_confusion([["B-PER", "I-PER"]], [["B-PER", "O"]])[1].tolist() == [[0, 1], [1, 0]]  # a part


def test_span_confusion_agrees_with_seqeval():
    """If it failed, the plot and the scores beside it would speak of different entities."""
    rng = random.Random(0)
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    gold, predicted = ([[rng.choice(tags) for _ in range(8)] for _ in range(60)] for _ in range(2))
    matrix = span_confusion(gold, predicted)[1]
    entities, found = set(get_entities(gold)), set(get_entities(predicted))
    assert np.trace(matrix[:-1, :-1]) == len(entities & found) > 10
    assert matrix[:-1].sum() == len(entities)
    assert matrix[:, :-1].sum() == len(found)


def test_confusion_plot_shows_every_count_and_no_corner(saved_figures, tmp_path):
    """If it failed, a count would be missing, or the corner that means nothing would bear one."""
    plot_confusion(GOLD, PREDICTED, tmp_path / "confusion.png")
    axes = saved_figures[0].axes[0]
    drawn = {tuple(map(int, text.get_position()[::-1])): text.get_text() for text in axes.texts}
    matrix = span_confusion(GOLD, PREDICTED)[1]
    assert drawn == {place: str(matrix[place]) for place in np.ndindex(4, 4) if place != (3, 3)}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["LOC", "ORG", "PER", "missed"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["LOC", "ORG", "PER", "spurious"]
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.format == "PNG"


def test_confusion_of_other_posts_or_of_nothing_is_refused(tmp_path):
    """If it failed, gold and predictions out of step would be compared without a word."""
    for predicted, message in ((PREDICTED[:1], "predicted: expected 2"), ([["O"] * 4, ["O"]], "post 1: exp")):
        with pytest.raises(ValueError, match=message):
            span_confusion(GOLD, predicted)
    with pytest.raises(ValueError, match="tags: expected an entity in gold or predicted, found none"):
        plot_confusion([["O"]], [["O"]], tmp_path / "x.png")


def test_names_of_types_are_not_mathematics(tmp_path):
    """If it failed, a type's name could stop a run after its training."""
    tags = [[f"B-{name}" for name in (r"$\frac{$", "[/red]", "x" * 300)]]
    plot_confusion(tags, tags, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert max(picture.size) < 1500


@pytest.mark.parametrize("name", ["[/red] run", ":smiley: run", "\x1b[31mred", "half \ud83d", "two\nlines"])
def test_names_neither_command_nor_break_the_terminal(name):
    """If it failed, a name could colour the terminal, turn into an emoji, or stop the table."""
    console = Console(width=120, file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    console.print(results_table({name: metrics(none=block(0.45))}))
    console.file.seek(0)
    shown = console.file.read()
    assert "\x1b" not in shown and (name in shown) == name.endswith(" run")


def test_results_table_has_a_row_for_each_run_and_kind_of_picture():
    """If it failed, scores would stand in the wrong row, or a run would be missing."""
    modes = {
        "true": block(0.9, ambiguous=0.95),
        "shuffled": block(0.6, ambiguous=0.42),
        "none": block(0.5, ambiguous=0.41),
    }
    runs = {"with": metrics(**modes), "without": metrics(none=block(0.45))}
    table = results_table(runs)
    columns = [[str(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    assert list(zip(*columns, strict=True)) == [
        ("run", "picture", "P", "R", "F1", "strict\nF1", "F1\nplain", "F1\nambiguous"),
        ("with", "true", "90.0", "90.0", "90.0", "89.0", "99.0", "95.0"),
        ("with", "shuffled", "60.0", "60.0", "60.0", "59.0", "99.0", "42.0"),
        ("with", "none", "50.0", "50.0", "50.0", "49.0", "99.0", "41.0"),
        ("without", "none", "45.0", "45.0", "45.0", "44.0", "99.0", "-"),
    ]


def worth(*, text: float, true: float, shuffled: float, chance: float = 0.46) -> str:
    modes = {"true": block(0.9, ambiguous=true), "shuffled": block(0.6, ambiguous=shuffled)}
    return picture_worth(metrics(chance={"all": chance}, **modes), metrics(none=block(0.5, ambiguous=text)))


def test_picture_worth_says_all_figures():
    """If it failed, a figure would be missing or another one's would stand in its place."""
    said = worth(text=0.461, true=0.989, shuffled=0.452)
    assert said == (
        "On ambiguous names text alone reaches 46.1 F1 (95% interval 41.1-51.1, chance 46.0);"
        " with its picture the model reaches 98.9, with another post's picture 45.2: a clear gain from the"
        " pictures."
    )


@pytest.mark.parametrize(
    ("text", "true", "shuffled", "verdict"),
    [
        (0.46, 0.5, 0.4, ": no clear gain from the pictures."),
        (0.46, 0.3, 0.3, ": the pictures clearly do harm."),
        (0.46, 0.7, 0.68, "not from what the pictures show, since another post's serves as well."),
    ],
)
def test_picture_worth_is_honest_where_pictures_do_not_help(text, true, shuffled, verdict):
    """If it failed, the report would praise pictures that do nothing."""
    said = worth(text=text, true=true, shuffled=shuffled)
    assert verdict in said and "a clear gain from the pictures" not in said


def test_picture_worth_needs_pictures_and_ambiguous_names_alone():
    """Regression: a run on posts without pictures, compared with itself, ended in a KeyError."""
    none = metrics(none=block(0.5, ambiguous=0.4))
    assert picture_worth(none, none) == picture_worth(metrics(true=block(0.9)), none) == ""
    text = picture_worth(metrics(true=block(0.9, ambiguous=0.9)), none)
    assert "(95% interval 35.0-45.0);" in text and "chance" not in text


def test_of_many_types_those_most_confused_are_shown(saved_figures, tmp_path):
    """If it failed, time and memory would grow with the square of the types, until nothing is drawn."""
    names = [f"T{number:03d}" for number in range(500)]
    gold = [[f"B-{name}" for name in names]]
    predicted = [["B-T499" if number % 20 == 7 else tag for number, tag in enumerate(gold[0])]]
    start = time.perf_counter()
    plot_confusion(gold, predicted, tmp_path / "confusion.png")
    assert time.perf_counter() - start < 8, "a heat map of 30 types takes about a second"
    axes = saved_figures[0].axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown[-2:] == ["T499", "spurious"] and shown == sorted(shown[:-1]) + shown[-1:]
    assert {name for name in names if int(name[1:]) % 20 == 7} < set(shown)
    title = "Entities of the test split, by type: of 500 types those confused most often"
    assert axes.get_title(loc="left") == title and len(axes.texts) == 31 * 31 - 1
    row = list(axes.images[0].get_array()[shown.index("T007")])
    assert row == [float(name == "T499") for name in [*shown[:-1], "missed"]]
    assert max(saved_figures[0].get_size_inches()) <= 20
