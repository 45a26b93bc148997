"""What a training run shows of itself: plots, a table of results, and what the picture was worth in plain
words.

Everything is read from the metrics that training writes; all scores in them are fractions in 0..1.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from ..escaping import terminal_text
from ..model.labels_mmner import tags_to_spans
from .metrics import RunMetrics, Score, SplitScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[dict[str, Any]]

MISSED, SPURIOUS = "missed", "spurious"
_INK, _MUTED = "#1f2933", "#8a94a0"


def percent(fraction: float) -> str:
    """``0.4567`` -> ``45.7``.

    Raises:
        ValueError: `fraction` is no number in 0..1.
    """
    if not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
        raise ValueError(
            f"score: expected a fraction in 0..1, found {fraction!r}; metrics hold fractions, not percent"
        )
    return f"{100 * fraction:.1f}"


def plot_learning_curves(history: History, path: str | Path, *, selected_epoch: int | None = None) -> None:
    """Save a PNG with the losses (left) and the validation F1 (right) of each epoch.

    Args:
        history: an entry per epoch with ``epoch``, ``loss``, any ``loss_*``, ``validation_f1`` and
            ``validation_strict_f1``. A loss may be absent from some epochs.
        selected_epoch: the epoch to mark; None: the first with the highest validation F1.

    Raises:
        ValueError: the history is empty, or has not the selected epoch.
    """
    from matplotlib.figure import Figure  # slow to import, and training without reports has no need of it

    epochs = [entry["epoch"] for entry in history]
    if not epochs:
        raise ValueError("history: expected an entry per epoch, found none; train at least one epoch")
    if selected_epoch is None:
        selected_epoch = max(history, key=lambda entry: entry["validation_f1"])["epoch"]
    if selected_epoch not in epochs:
        raise ValueError(
            f"selected_epoch: expected one of the history's epochs {epochs}, found {selected_epoch}"
        )
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    _draw_losses(losses, history)
    _draw_scores(scores, history, selected_epoch)
    for axes in (losses, scores):
        axes.set_xlabel("epoch")
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    figure.savefig(path, format="png", dpi=150)


def _draw_losses(axes: "Axes", history: History) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    names = dict.fromkeys(
        key for entry in history for key in entry if key == "loss" or key.startswith("loss_")
    )
    for name in names:
        points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
        is_total = name == "loss"
        label = "total (weighted)" if is_total else name.removeprefix("loss_").replace("_", " ")
        (line,) = axes.plot(*zip(*points, strict=True), label=label, marker="o", markersize=3)
        if is_total:
            line.set(color=_INK, linewidth=2.4)
    # Losses of different scale share the axes, so a log scale keeps the small ones apart; clustering may fall
    # below zero.
    if all(entry[name] > 0 for entry in history for name in names if name in entry):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title("Training losses", loc="left")
    axes.set_ylabel("loss")
    for text in axes.legend(frameon=False).get_texts():
        text.set_parse_math(False)


def _draw_scores(axes: "Axes", history: History, selected_epoch: int) -> None:
    epochs = [entry["epoch"] for entry in history]
    lines = {
        "validation_f1": ("lenient", "#1769aa", "-"),
        "validation_strict_f1": ("strict", "#d9730d", "--"),
    }
    for key, (label, colour, style) in lines.items():
        scores = [100 * entry[key] for entry in history]
        axes.plot(epochs, scores, style, label=label, color=colour, marker="o", markersize=3)
    best = next(entry["validation_f1"] for entry in history if entry["epoch"] == selected_epoch)
    label = f"selected: epoch {selected_epoch}, F1 {percent(best)}"
    axes.plot(
        selected_epoch,
        100 * best,
        "o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=_INK,
        label=label,
    )
    axes.set_title("Validation", loc="left")
    axes.set_ylabel("F1 (%)")
    axes.legend(frameon=False)


def span_confusion(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> tuple[list[str], np.ndarray]:
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
    if len(gold) != len(predicted):
        raise ValueError(f"predicted: expected tags of {len(gold)} posts as in gold, found {len(predicted)}")
    pairs: list[tuple[str | None, str | None]] = []
    for index, (gold_tags, predicted_tags) in enumerate(zip(gold, predicted, strict=True)):
        if len(gold_tags) != len(predicted_tags):
            raise ValueError(
                f"predicted tags of post {index}: expected {len(gold_tags)} as in gold, found"
                f" {len(predicted_tags)}"
            )
        gold_types, predicted_types = _types_by_place(gold_tags), _types_by_place(predicted_tags)
        places = gold_types.keys() | predicted_types.keys()
        pairs += [(gold_types.get(place), predicted_types.get(place)) for place in places]
    types = sorted({entity_type for pair in pairs for entity_type in pair if entity_type is not None})
    index_of = {entity_type: index for index, entity_type in enumerate(types)} | {None: len(types)}
    matrix = np.zeros((len(types) + 1, len(types) + 1), dtype=np.int64)
    for gold_type, predicted_type in pairs:
        matrix[index_of[gold_type], index_of[predicted_type]] += 1
    return types, matrix


def _types_by_place(tags: Sequence[str]) -> dict[tuple[int, int], str]:
    return {(span.start, span.end): span.type for span in tags_to_spans(tags)}


def plot_confusion(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], path: str | Path
) -> None:
    """Save a PNG of `span_confusion`: counts, shaded by their share of the gold type's entities.

    Raises:
        ValueError: as `span_confusion`, or there is no entity in either.
    """
    from matplotlib.figure import Figure

    types, matrix = span_confusion(gold, predicted)
    if not types:
        raise ValueError(
            "tags: expected an entity in gold or predicted, found none; there is nothing to plot"
        )
    count = len(types)
    # A spurious entity is a share of no gold type, so its row stays white.
    shares = matrix[:count] / np.maximum(matrix[:count].sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(2.6 + 0.8 * count, 1.8 + 0.7 * count), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_ylim(count + 0.5, -0.5)
    for row, column in np.ndindex(matrix.shape):
        if (row, column) != (count, count):
            is_dark = row < count and shares[row, column] > 0.5
            axes.text(
                column,
                row,
                str(matrix[row, column]),
                ha="center",
                va="center",
                color="white" if is_dark else _INK,
            )
    axes.axhline(count - 0.5, color=_MUTED, linewidth=1)
    axes.axvline(count - 0.5, color=_MUTED, linewidth=1)
    names = [f"{name:.20}" for name in types]
    axes.set_xticks(range(count + 1), [*names, MISSED], parse_math=False)
    axes.set_yticks(range(count + 1), [*names, SPURIOUS], parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_color(_MUTED)
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold")
    figure.colorbar(image, ax=axes, label="share of the gold type", shrink=0.9).outline.set_visible(False)
    figure.savefig(path, format="png", dpi=150)


def results_table(runs: dict[str, RunMetrics]) -> Table:
    """Test scores in percent, a row for each run (by name) and each kind of picture and context that it was
    tested with.

    Pictures and contexts are ``true`` (the post's own), ``shuffled`` (another post's) or ``none``.

    Raises:
        ValueError: a score is no fraction in 0..1.
    """
    rows = [(name, *row) for name, metrics in runs.items() for row in _tested_with(metrics)]
    has_contexts = any(context is not None for _, _, context, _ in rows)
    sources = list(dict.fromkeys(source for *_, block in rows for source in block.by_source))
    table = Table(title="Test split, percent")
    for heading in ("run", "picture", *(["context"] if has_contexts else [])):
        table.add_column(heading)
    for heading in ("P", "R", "F1", "strict F1", *(f"F1 {source}" for source in sources)):
        table.add_column(terminal_text(heading), justify="right")
    for position, (name, picture, context, block) in enumerate(rows):
        overall, by_source = block.overall, block.by_source
        scores = [overall.precision, overall.recall, overall.f1, block.strict.f1]
        cells = [
            picture,
            *([context or "none"] if has_contexts else []),
            *(percent(score) for score in scores),
        ]
        cells += [percent(by_source[source].f1) if source in by_source else "-" for source in sources]
        ends_run = position + 1 < len(rows) and rows[position + 1][0] != name
        table.add_row(terminal_text(name), *cells, end_section=ends_run)
    return table


def _tested_with(metrics: RunMetrics) -> Iterator[tuple[str, str | None, SplitScores]]:
    """What a run's test posts were shown, pictures and contexts, with the scores; its own first. No contexts:
    None.
    """
    test = metrics.splits.test
    own = "true" if test.context else None
    for mode, block in test.picture.items():
        yield mode, own, block
    for mode, block in test.context.items():
        if mode != "true":
            yield next(iter(test.picture)), mode, block


def transfer_table(scores: dict[str, dict[str, Score]]) -> Table:
    """Test F1 in percent by the language trained on (rows) and the language tested on (columns)."""
    tested = list(next(iter(scores.values())))
    table = Table(title="Test F1 of each language, by the language trained on")
    table.add_column("trained on")
    for language in tested:
        table.add_column(terminal_text(language), justify="right")
    for trained, by_language in scores.items():
        table.add_row(terminal_text(trained), *(percent(by_language[language].f1) for language in tested))
    return table


def picture_worth(with_pictures: RunMetrics, without_pictures: RunMetrics) -> str:
    """What the picture did on ambiguous names in the test split: a line per language, and one over several
    languages.

    "Clearly" means that the 95% intervals do not overlap.

    Args:
        with_pictures: metrics of a run.
        without_pictures: metrics of the same recipe trained and tested without pictures.

    Returns:
        The lines; empty where no post is of source ``ambiguous``, or none has a picture.
    """
    own = with_pictures.splits.test.picture
    if "true" not in own:
        return ""
    text_alone = dict(_ambiguous_scores(without_pictures.splits.test))
    shuffled = dict(_ambiguous_scores(own["shuffled"])) if "shuffled" in own else {}
    chances = with_pictures.corpus.chance or {}
    return "\n".join(
        f"On ambiguous names ({'all languages' if language == 'all' else language}) "
        + _sentence(
            text_alone[language], score, shuffled=shuffled.get(language), chance=chances.get(language)
        )
        for language, score in _ambiguous_scores(own["true"])
    )


def context_worth(metrics: RunMetrics) -> str:
    """What the contexts of the test split did for a model that reads them, in words; empty where there are
    none.

    "Clearly" means that the p-value of the difference is below 0.05.
    """
    test = metrics.splits.test
    if "none" not in test.context:
        return ""
    own, p_values = test.overall.f1, test.p_values["context"]
    told = {"shuffled": "another post's", "none": "none"}
    others = [
        f"with {told[mode]} {percent(block.overall.f1)} (p = {p_values[mode]:.4f})"
        for mode, block in test.context.items()
        if mode in told
    ]
    verdicts = [
        (
            f"{'clearly better' if gain > 0 else 'clearly worse'} than {told[mode]}"
            if p_values[mode] < 0.05
            else f"no clear difference to {told[mode]}"
        )
        for mode, gain in (
            (mode, own - block.overall.f1) for mode, block in test.context.items() if mode in told
        )
    ]
    return (
        f"With each post's own context the model reaches {percent(own)} F1, {', '.join(others)}:"
        f" {', '.join(verdicts)}. What a model reaches that never had one takes a run without --context."
    )


def _ambiguous_scores(block: SplitScores) -> Iterator[tuple[str, Score]]:
    """(language, score) of the ambiguous posts, and ("all", score) where there are several languages."""
    by_language = {
        key.removesuffix("/ambiguous"): score
        for key, score in block.by_language_and_source.items()
        if key.endswith("/ambiguous")
    }
    yield from by_language.items()
    if len(by_language) > 1:
        yield "all", block.by_source["ambiguous"]


def _sentence(text_alone: Score, pictured: Score, *, shuffled: Score | None, chance: float | None) -> str:
    """The scores of one language in words, and what they say of the picture."""
    interval = "-".join(map(percent, text_alone.confidence_interval))
    of_chance = "" if chance is None else f", chance {percent(chance)}: {_against_chance(text_alone, chance)}"
    text = f"text alone reaches {percent(text_alone.f1)} F1 (95% interval {interval}{of_chance})"
    text += f"; with its picture the model reaches {percent(pictured.f1)}"
    if shuffled is not None:
        text += f", with another post's picture {percent(shuffled.f1)}"
    difference = _clear_difference(pictured, text_alone)
    if difference < 0:
        return f"{text}: the pictures clearly do harm."
    if difference == 0:
        return f"{text}: no clear gain from the pictures."
    if shuffled is not None and _clear_difference(pictured, shuffled) <= 0:
        return (
            f"{text}: a clear gain, but not from what the pictures show, since another post's serves as well."
        )
    return f"{text}: a clear gain from the pictures."


def _against_chance(score: Score, chance: float) -> str:
    low, high = score.confidence_interval
    if low > chance:
        return "above chance, so the words give some of it away"
    return "below chance" if high < chance else "no better than chance"


def _clear_difference(score: Score, other: Score) -> int:
    """1 or -1 where the 95% interval of `score` lies above or below that of `other`, 0 where they overlap."""
    (low, high), (other_low, other_high) = score.confidence_interval, other.confidence_interval
    return int(low > other_high) - int(high < other_low)
