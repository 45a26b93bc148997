"""Statistics of a corpus: counts, lengths of posts, pictures, and which entities occur in train too."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
from rich.table import Table

from modeling_mmner.escaping import terminal_text
from modeling_mmner.model.batching_mmner import ahead
from modeling_mmner.model.images_mmner import PICTURE_COLUMNS, PictureError, load_picture, pictures_of
from modeling_mmner.model.labels_mmner import entity_types, tags_to_spans

from .builders.builder import READ_AHEAD, READING_THREADS
from .builders.official import Counts
from .opening import Corpus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Statistics = dict[str, Any]
_Surface = tuple[str, str]
"""The casefolded words of an entity, and its type."""

BIN_ENDS = (5, 10, 15, 20, 25, 30, 40, 60, 100, 200, 500)
"""The longest post of each bin of the histogram of lengths; a last bin holds those beyond."""
_BETWEEN = [f"{previous + 1}-{last}" for previous, last in pairwise(BIN_ENDS)]
BINS = [f"up to {BIN_ENDS[0]}", *_BETWEEN, f"over {BIN_ENDS[-1]}"]

_BATCH = 250  # of rows that were selected or shuffled the pictures are copied after all, so few at a time
_SHOWN_VALUES = 12
_OVERALL = ""
_p95: Any = partial(np.percentile, q=95)
_LENGTHS = {"min": np.min, "median": np.median, "mean": np.mean, "percentile_95": _p95, "max": np.max}
_LENGTH_HEADINGS = ("split", "min", "median", "mean", "95%", "max")
_SEEN_KINDS = ("seen", "as_several_types", "as_another_type")
_OF_ENTITIES = ("entities", *_SEEN_KINDS)
_OF_SURFACES = ("surfaces", *(f"surfaces_{kind}" for kind in _SEEN_KINDS))
_SPLIT_HEADINGS = ("split", "posts", "tokens", "entities", "orphan I-", "without entity", "without picture")
_SEEN_HEADINGS: tuple[str, ...] = ("split", "type", "entities", "seen")
_SEEN_HEADINGS += ("as several types", "as another type only", "different ones", "of these seen")
_SPLIT_COLOURS = {"train": "#1769aa", "validation": "#d9730d", "test": "#3b8f6b"}
_SEEN_COLOURS = ["#1769aa", "#8fbbe0", "#d9730d", "#dde2e8"]


def inspect_corpus(corpus: Corpus) -> Statistics:
    """Statistics of every split, ready for JSON. Shares are fractions in 0..1, or None where the whole is 0.

    Returns:
        ``name``, ``version_name``, ``version``, ``types`` in label order, and ``splits``; for each split

        - ``posts``, ``tokens``, ``entities`` (B- tags) by type, ``orphans`` (I- tags that continue nothing);
        - ``tokens_per_post``: `_LENGTHS`, and ``histogram``, posts by `BINS`;
        - ``posts_without_entity``, by spans as below;
        - ``pictures``: ``posts_by_number``, ``missing`` (posts with none) and ``missing_share``. A picture
          counts where the row names one, and among the ``broken`` too where it cannot be decoded;
        - ``languages``, ``sources``: posts by each, the most frequent first;
        - ``seen`` for all but train, ``overall`` and ``by_type``: how many ``entities`` there are; how many
          are ``seen``, that is occur in train with the same casefolded words and type, and of these there
          ``as_several_types``; how many occur there ``as_another_type`` only; ``seen_share``; the same for
          the distinct ``surfaces``. None without a train split. Entities are read leniently (see
          `tags_to_spans`), so an orphan I- begins one here.
    """
    types = entity_types(corpus.labels)
    splits, surfaces = {}, {}
    for split, rows in corpus.splits.items():
        splits[split], surfaces[split] = split_statistics(rows, corpus.labels)
        splits[split]["pictures"]["broken"] = _count_broken(corpus, split)
    known: dict[str, set[str]] = defaultdict(set)
    for surface, entity_type in surfaces.get("train", ()):
        known[surface].add(entity_type)
    for split in splits.keys() - {"train"}:
        splits[split]["seen"] = _seen(surfaces[split], known, types) if "train" in splits else None
    return {**corpus.identity(), "types": types, "splits": splits}


def split_statistics(rows: datasets.Dataset, labels: Sequence[str]) -> tuple[Statistics, Counter[_Surface]]:
    """The statistics of a split but for ``seen``, which compares two, and how often each surface occurs."""
    counts, lengths, without_entity = Counts(), [], 0
    surfaces: Counter[_Surface] = Counter()
    for batch in _batches(rows, ["tokens", "ner_tags", "language", "source"]):
        for row in batch.to_pylist():
            tags = [labels[number] for number in row["ner_tags"]]
            spans = tags_to_spans(tags)
            counts.add(tags, row["language"], row["source"])
            lengths.append(len(tags))
            without_entity += not spans
            words = (" ".join(row["tokens"][span.start : span.end]).casefold() for span in spans)
            surfaces.update(zip(words, (span.type for span in spans), strict=True))
    pictures = Counter(picture_numbers(rows).tolist())
    return counts.summary(entity_types(labels)) | {
        "tokens_per_post": _lengths(lengths),
        "posts_without_entity": without_entity,
        "pictures": {
            "posts_by_number": {str(number): pictures[number] for number in sorted(pictures)},
            "missing": pictures[0],
            "missing_share": _share(pictures[0], counts.posts),
        },
    }, surfaces


def _count_broken(corpus: Corpus, split: str) -> int:
    """How many pictures of a split cannot be read; the corpus's findings say which."""
    rows, number = corpus.splits[split], 0
    rows = rows.select_columns(["id", *(name for name in PICTURE_COLUMNS if name in rows.column_names)])
    given = ((row["id"], picture) for row in rows for picture in pictures_of(row))
    read = partial(ahead, threads=READING_THREADS, most=READ_AHEAD)
    for name, why in read(lambda one: (one[0], picture_problem(one[1])), given):
        if why:
            number += 1
            example, remedy = f"{split}, post {name!r:.80}: {why}", "repair or take out the files"
            corpus.findings.add("pictures that cannot be read", example, remedy=remedy)
    return number


def picture_problem(picture: Any) -> str:
    """Why a picture cannot be read; empty: it can."""
    try:
        load_picture(picture)
    except PictureError as error:
        return str(error)
    return ""


def picture_numbers(rows: datasets.Dataset) -> np.ndarray:
    """How many pictures each post has, as `pictures_of` would find them, by the nulls alone: (posts,)"""
    numbers = np.zeros(len(rows), dtype=np.int64)
    for column in (name for name in PICTURE_COLUMNS if name in rows.column_names):  # a list goes before one
        cells = chain.from_iterable(batch[column] for batch in _batches(rows, [column]))
        for post, cell in enumerate(cells):
            if cell.is_valid:
                is_list = isinstance(cell, pa.ListScalar)
                numbers[post] = len(cell.values) - cell.values.null_count if is_list else 1
    return numbers


def _batches(rows: datasets.Dataset, columns: list[str]) -> Iterator[pa.Table]:
    """The columns, a few rows at a time: pictures may not fit into memory."""
    return rows.select_columns(columns).with_format("arrow").iter(batch_size=_BATCH)


def _lengths(lengths: Sequence[int]) -> Statistics:
    bins = np.bincount(np.searchsorted(BIN_ENDS, lengths), minlength=len(BINS))
    found = {name: measure(lengths).item() if lengths else None for name, measure in _LENGTHS.items()}
    return found | {"histogram": dict(zip(BINS, bins.tolist(), strict=True))}


def _seen(
    surfaces: Mapping[_Surface, int], known: Mapping[str, set[str]], types: Sequence[str]
) -> Statistics:
    counts = dict.fromkeys((*_OF_ENTITIES, *_OF_SURFACES), 0)
    blocks: dict[str, Statistics] = {name: dict(counts) for name in [*types, _OVERALL]}
    for (surface, entity_type), number in surfaces.items():
        there = known.get(surface, set())
        is_seen = entity_type in there
        holds = (True, is_seen, is_seen and len(there) > 1, bool(there) and not is_seen)
        for block in (blocks[entity_type], blocks[_OVERALL]):
            for of_entities, of_surfaces, is_so in zip(_OF_ENTITIES, _OF_SURFACES, holds, strict=True):
                block[of_entities] += is_so * number
                block[of_surfaces] += is_so
    for block in blocks.values():
        block["seen_share"] = _share(block["seen"], block["entities"])
    return {"overall": blocks.pop(_OVERALL), "by_type": blocks}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def tables(statistics: Statistics) -> list[Table]:
    """Tables of 120 columns: splits, lengths, entities by type, entities seen in train, kinds of posts."""
    types, splits = statistics["types"], statistics["splits"]
    totals = {split: sum(found["entities"].values()) for split, found in splits.items()}
    summaries, lengths, values = [], [], defaultdict(list)
    for split, found in splits.items():
        counts = [found["posts"], found["tokens"], totals[split], found["orphans"]]
        without = _share(found["posts_without_entity"], found["posts"])
        summaries.append([split, *counts, without, found["pictures"]["missing_share"]])
        measures = [found["tokens_per_post"][name] for name in _LENGTHS]
        lengths.append([split, *(None if value is None else f"{round(value, 1):,}" for value in measures)])
        values["tokens"].append(found["tokens_per_post"]["histogram"])
        values["pictures"].append(found["pictures"]["posts_by_number"])
        values["language"].append(found["languages"])
        values["source"].append(found["sources"])
    entities = {
        name: [(splits[split]["entities"][name], totals[split]) for split in splits] for name in types
    }
    shares = [[name, *chain(*((n, _share(n, of)) for n, of in own))] for name, own in entities.items()]
    seen = [
        [
            [split if row == 0 else "", name, found["entities"]]
            + [_share(found[kind], found["entities"]) for kind in _SEEN_KINDS]
            + [found["surfaces"], _share(found["surfaces_seen"], found["surfaces"])]
            for row, (name, found) in enumerate(blocks.items())
        ]
        for split, blocks in _compared(statistics).items()
    ]
    title = "Entities seen in train (the same words, whatever their case)"
    return [
        _table(_title(statistics), _SPLIT_HEADINGS, [summaries]),
        _table("Tokens per post", _LENGTH_HEADINGS, [lengths]),
        _table("Entities by type (B- tags)", ["type", *chain(*((s, "share") for s in splits))], [shares]),
        *([_table(title, _SEEN_HEADINGS, seen, text_columns=2)] if seen else []),
        _table("Posts by", ["", "", *splits], [_value_rows(*own) for own in values.items()], text_columns=2),
    ]


def _title(statistics: Statistics) -> str:
    return f"{statistics['name']}, version {statistics['version_name']}"


def _value_rows(name: str, columns: Sequence[Mapping[str, int]]) -> list[list[Any]]:
    """A row for each value that occurs, its number in each split; beyond `_SHOWN_VALUES` one for the rest."""
    values = list(dict.fromkeys(value for column in columns for value, number in column.items() if number))
    # A line "1 more" would take the room of what it hides.
    shown = values if len(values) <= _SHOWN_VALUES + 1 else values[:_SHOWN_VALUES]
    lines = {value: [value] for value in shown}
    if rest := values[len(shown) :]:
        lines[f"{len(rest)} more"] = rest
    rows = [["", line, *(sum(c.get(v, 0) for v in own) for c in columns)] for line, own in lines.items()]
    return [[name, *row[1:]] for row in rows[:1]] + rows[1:]


def _compared(statistics: Statistics) -> dict[str, dict[str, Statistics]]:
    found = {split: split_found.get("seen") for split, split_found in statistics["splits"].items()}
    return {split: seen["by_type"] | {"all types": seen["overall"]} for split, seen in found.items() if seen}


def _table(
    title: str, headings: Sequence[str], sections: Sequence[list[list[Any]]], *, text_columns: int = 1
) -> Table:
    """A table of plain text in sections of rows; numbers are counts, fractions are shares, None is a dash."""
    table = Table(title=terminal_text(title), title_justify="left")
    for position, heading in enumerate(headings):
        is_text = position < text_columns
        justify: Any = "left" if is_text else "right"
        table.add_column(terminal_text(heading), justify=justify, overflow="fold", no_wrap=is_text)
    for rows in sections:
        table.add_section()
        for row in rows:
            table.add_row(*(terminal_text(_cell(value)) for value in row))
    return table


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.1%}"


_MOST_TYPES = 30  # that are drawn; the tables and statistics.json have all


def plot_statistics(statistics: Statistics, path: str | Path) -> None:
    """Save a PNG: from the left, entities by type and split, lengths of posts, entities seen in train.

    Raises:
        ValueError: there is no split.
    """
    import pandas as pd  # both are slow to import, and tables alone have no need of them
    from matplotlib.figure import Figure

    types, splits = statistics["types"], statistics["splits"]
    if not splits:
        raise ValueError("statistics: expected at least one split, found none; there is nothing to plot")
    totals = {name: sum(found["entities"][name] for found in splits.values()) for name in types}
    frequent = set(sorted(types, key=totals.__getitem__, reverse=True)[:_MOST_TYPES])
    types = [name for name in types if name in frequent]
    which = f"the {len(types)} most frequent types" if len(types) < len(totals) else "type"
    figure = Figure(figsize=(16, max(4.4, 1.4 + 0.24 * len(types) * len(splits))), layout="constrained")
    by_type, lengths, seen = figure.subplots(1, 3)

    numbers = pd.DataFrame({split: found["entities"] for split, found in splits.items()}, index=types)
    _draw(by_type, numbers, _SPLIT_COLOURS, f"Entities by {which}", "entities (B- tags)")
    for bars in by_type.containers:
        by_type.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    by_type.margins(x=0.12)
    by_type.xaxis.set_major_formatter("{x:,.0f}")

    posts = pd.DataFrame({split: found["tokens_per_post"]["histogram"] for split, found in splits.items()})
    # From the first bin, so that what is absent on the left shows too; on the right it would only take room.
    posts = posts.loc[: max([BINS[0], *posts.index[posts.any(axis=1)]], key=BINS.index)]
    posts *= [100 / max(1, found["posts"]) for found in splits.values()]
    _draw(lengths, posts, _SPLIT_COLOURS, "Length of posts", "posts (%)", kind="bar")
    lengths.set_xlabel("tokens")

    compared = _compared(statistics)
    rows = {f"{name}, {split}": compared[split][name] for name in [*types, "all types"] for split in compared}
    kinds = pd.DataFrame(rows, index=_OF_ENTITIES).T.astype(int)
    whole, known, several, other = (kinds[column] for column in kinds)
    parts = {"this type only": known - several, "several types": several}
    parts |= {"another type only": other, "not at all": whole - known - other}
    shares = 100 * pd.DataFrame(parts).div(whole.clip(lower=1), axis=0)
    _draw(seen, shares, _SEEN_COLOURS, "Entities seen in train as ...", "entities (%)", stacked=True)

    figure.suptitle(_title(statistics), x=0.01, ha="left", parse_math=False)
    figure.savefig(path, format="png", dpi=150)


def _draw(axes: "Axes", bars: "DataFrame", colours: Any, title: str, label: str, **options: Any) -> None:
    """A group of bars for each row, or a stack, from top to bottom; or upright (`kind` is bar)."""
    if bars.empty:
        axes.set_axis_off()
        why = "no two splits to compare" if options.get("stacked") else "no entity types"
        axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes)
        return
    upright = options.setdefault("kind", "barh") == "bar"
    bars.plot(ax=axes, width=0.8, color=colours, legend=False, **options)
    if upright:
        axes.set_xticks(range(len(bars)), bars.index, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_ylabel(label)
    else:
        axes.set_yticks(range(len(bars)), bars.index, parse_math=False)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlabel(label)
    axes.set_title(title, loc="left", pad=24)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y" if upright else "x", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}  # above, where no bar can be
    axes.legend(frameon=False, ncols=4, fontsize=9, handlelength=1, columnspacing=1.2, **place)
