"""What a training run shows of itself: plots, tables, and what pictures and contexts were worth, in words.

Everything is read from the metrics that training writes; all scores in them are fractions in 0..1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from ..escaping import terminal_text
from ..model.labels_mmner import tags_to_spans
from .metrics import RunMetrics, Score
from .span_f1.spans import Posts, check_posts

MOST_TYPES = 30
"""Entity types that a plot of them shows, at most: what it takes grows with their square."""
_INK, _MUTED = "#1f2933", "#8a94a0"
_DOTS: dict[str, Any] = {"marker": "o", "markersize": 3}


def percent(fraction: float) -> str:
    """``0.4567`` -> ``45.7``.

    Raises:
        ValueError: `fraction` is not in 0..1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"score: expected a fraction in 0..1, found {fraction!r}; metrics hold no percent")
    return f"{100 * fraction:.1f}"


def plot_learning_curves(
    history: Sequence[dict[str, Any]], path: str | Path, *, selected_epoch: int, weights: Mapping[str, float]
) -> None:
    """Save a PNG with the losses (left) and the validation F1 (right) of each epoch, one of them marked.

    Args:
        history: see `RunMetrics`. A loss may be absent from some epochs.
        weights: of the losses in the total, by their names without ``loss_``.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    losses.plot(epochs, [entry["loss"] for entry in history], color=_INK, label="total", **_DOTS)
    for name, weight in weights.items():
        values = [weight * entry.get(f"loss_{name}", np.nan) for entry in history]
        losses.plot(epochs, values, label=f"{name} × {weight:g}".replace("_", " "), **_DOTS)
    lenient = [100 * entry["validation_f1"] for entry in history]
    strict = [100 * entry["validation_strict_f1"] for entry in history]
    scores.plot(epochs, lenient, "-", label="lenient", color="#1769aa", clip_on=False, **_DOTS)
    scores.plot(epochs, strict, "--", label="strict", color="#d9730d", clip_on=False, **_DOTS)
    scores.set_ylim(max(0, min(*lenient, *strict) - 5), min(100, max(*lenient, *strict) + 5))
    best = lenient[epochs.index(selected_epoch)]
    label = f"selected: epoch {selected_epoch}, F1 {best:.1f}"
    scores.plot(selected_epoch, best, "o", markersize=9, mfc="none", mec=_INK, label=label, clip_on=False)
    losses.set_title("Training loss, and its weighted parts", loc="left")
    scores.set_title("F1 on the validation split", loc="left")
    for axes, label in ((losses, "loss"), (scores, "F1 (%)")):
        axes.set(xlabel="epoch", ylabel=label, xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        axes.legend(framealpha=0.85, edgecolor="none")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    figure.savefig(path, format="png", dpi=150)


def span_confusion(gold: Posts, predicted: Posts) -> tuple[list[str], np.ndarray]:
    """Count which types the entities of one tagging have in another.

    Args:
        gold, predicted: for each post the BIO tags of its words, read leniently (see `tags_to_spans`).

    Returns:
        The T entity types in alphabetical order, and counts (T + 1, T + 1) of entities with the same
        boundaries in both: gold types in rows, predicted types in columns. The last column counts those
        missed, the last row spurious ones.

    Raises:
        ValueError: the two differ in posts or in the words of a post.
    """
    check_posts(gold, predicted, name="predicted")
    right, found = map(_kinds, (gold, predicted))
    types = sorted({*right.values(), *found.values()})
    numbers: dict[str | None, int] = {kind: number for number, kind in enumerate([*types, None])}
    matrix = np.zeros((len(numbers), len(numbers)), dtype=np.int64)
    for place in right.keys() | found.keys():
        matrix[numbers[right.get(place)], numbers[found.get(place)]] += 1
    return types, matrix


def _kinds(posts: Posts) -> dict[tuple[int, int, int], str]:
    """The type of each entity by its post, its first word, and one past its last word."""
    spans = ((post, *span) for post, tags in enumerate(posts) for span in tags_to_spans(tags))
    return {(post, first, end): kind for post, kind, first, end in spans}


def plot_confusion(gold: Posts, predicted: Posts, path: str | Path) -> None:
    """Save a PNG of `span_confusion`: counts, shaded by their share of the gold type's entities.

    Of more than `MOST_TYPES` types it shows those most confused.

    Raises:
        ValueError: as `span_confusion`, or there is no entity in either.
    """
    types, matrix = span_confusion(gold, predicted)
    if not types:
        raise ValueError("tags: expected an entity in gold or predicted, found none to plot")
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares[-1] = 0  # a spurious entity is a share of no gold type
    shown = np.sort(np.argsort(-errors[:-1], kind="stable")[:MOST_TYPES])
    matrix, shares = (values[np.ix_([*shown, -1], [*shown, -1])] for values in (matrix, shares))
    count, names = len(shown), [f"{types[number]:.20}" for number in shown]
    figure = Figure(figsize=(min(2.6 + 0.8 * count, 20), min(1.8 + 0.7 * count, 17)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares[:count], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_ylim(count + 0.5, -0.5)
    for row, column in np.ndindex(matrix.shape):
        if (row, column) != (count, count):
            colour = "white" if shares[row, column] > 0.5 else _INK
            text = axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
            text.set_in_layout(False)  # it lies within the axes, and to measure each of them takes long
    axes.axhline(count - 0.5, color=_MUTED, linewidth=1)
    axes.axvline(count - 0.5, color=_MUTED, linewidth=1)
    most = "" if count == len(types) else f": of {len(types)} types those confused most often"
    axes.set_title(f"Entities of the test split, by type{most}", loc="left")
    upright = 90 if count > 8 else 0
    axes.set_xticks(range(count + 1), [*names, "missed"], parse_math=False, rotation=upright)
    axes.set_yticks(range(count + 1), [*names, "spurious"], parse_math=False)
    axes.set(xlabel="predicted", ylabel="gold")
    figure.colorbar(image, ax=axes, label="share of the gold type", shrink=0.9).outline.set_visible(False)
    figure.savefig(path, format="png", dpi=150)


def results_table(runs: Mapping[str, RunMetrics]) -> Table:
    """Test scores in percent, a row for each run (by name) and each kind of picture and context shown to it.

    Pictures and contexts are ``true`` (the post's own), ``shuffled`` (another post's) or ``none``.

    Raises:
        ValueError: a score is no fraction in 0..1.
    """
    tests = {name: metrics.splits.test for name, metrics in runs.items()}
    blocks = [block for test in tests.values() for block in (*test.picture.values(), *test.context.values())]
    sources = list(dict.fromkeys(source for block in blocks for source in block.by_source))
    has_contexts = any(test.context for test in tests.values())
    names = ("run", "picture", "context") if has_contexts else ("run", "picture")
    figures = ("P", "R", "F1", "strict F1", *(f"F1 {source}" for source in sources))
    # Headings are two lines, so that the table fits into 80 columns.
    headings = [Text("\n").join(map(terminal_text, figure.split(" ", 1))) for figure in figures]
    columns = [Column(heading, justify="right") for heading in headings]
    table = Table(*names, *columns, title="Test split, percent", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for name, test in tests.items():
        own_picture, own_context = next(iter(test.picture)), "true" if test.context else "none"
        shown = [(mode, own_context, block) for mode, block in test.picture.items()]
        shown += [(own_picture, mode, block) for mode, block in test.context.items() if mode != "true"]
        for picture, context, block in shown:
            overall, by_source = block.overall, block.by_source
            cells = [picture, context] if has_contexts else [picture]
            cells += map(percent, (overall.precision, overall.recall, overall.f1, block.strict.f1))
            cells += [percent(by_source[source].f1) if source in by_source else "-" for source in sources]
            table.add_row(terminal_text(name), *cells)
        table.add_section()
    return table


def picture_worth(with_pictures: RunMetrics, without_pictures: RunMetrics) -> str:
    """What the picture did on ambiguous names in the test split, in a sentence.

    "Clearly" means that the 95% intervals do not overlap.

    Args:
        without_pictures: of the same recipe trained and tested without pictures.

    Returns:
        The sentence; empty where no post is of source ``ambiguous``, or none has a picture.
    """
    tested = with_pictures.splits.test.picture.items()
    pictured = {mode: block.by_source.get("ambiguous") for mode, block in tested}
    if (own := pictured.get("true")) is None:
        return ""
    text_alone = without_pictures.splits.test.by_source["ambiguous"]
    low, high = map(percent, text_alone.confidence_interval)
    chance = f", chance {percent(with_pictures.corpus.chance['all'])}" if with_pictures.corpus.chance else ""
    text = f"On ambiguous names text alone reaches {percent(text_alone.f1)} F1 (95% interval {low}-{high}"
    text += f"{chance}); with its picture the model reaches {percent(own.f1)}"
    if shuffled := pictured.get("shuffled"):
        text += f", with another post's picture {percent(shuffled.f1)}"
    if _clearly_above(text_alone, own):
        return f"{text}: the pictures clearly do harm."
    if not _clearly_above(own, text_alone):
        return f"{text}: no clear gain from the pictures."
    if shuffled is None or _clearly_above(own, shuffled):
        return f"{text}: a clear gain from the pictures."
    return f"{text}: a clear gain, but not from what the pictures show, since another post's serves as well."


def _clearly_above(score: Score, other: Score) -> bool:
    """Whether the 95% interval of one score lies above that of the other."""
    return score.confidence_interval[0] > other.confidence_interval[1]


def context_worth(metrics: RunMetrics) -> str:
    """What the contexts of the test split did for a model that reads them; empty where there are none."""
    test, others = metrics.splits.test, []
    for mode, p in test.p_values.get("context", {}).items():
        whose = "another post's" if mode == "shuffled" else "none"
        others.append(f"with {whose} {percent(test.context[mode].overall.f1)} (p = {p:.4f})")
    if not others:
        return ""
    own = f"With each post's own context the model reaches {percent(test.overall.f1)} F1"
    advice = "What a model reaches that never had one takes a run without --context."
    return f"{own}, {', '.join(others)}. {advice}"
