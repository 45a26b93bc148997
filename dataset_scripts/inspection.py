"""Statistics of a corpus: counts, lengths of posts, pictures, and how many entities of a split occur in the
training split.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
from rich.table import Table

from modeling_mmner.escaping import terminal_text
from modeling_mmner.model.labels_mmner import entity_types, tags_to_spans

from .builders.official import Counts
from .opening import Corpus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Statistics = dict[str, Any]

BIN_ENDS = (5, 10, 15, 20, 25, 30, 40, 60, 100, 200, 500)
"""The longest post of each bin of the histogram of lengths; a last bin holds those beyond."""
BINS = [
    f"up to {BIN_ENDS[0]}",
    *(f"{previous + 1}-{last}" for previous, last in pairwise(BIN_ENDS)),
    f"over {BIN_ENDS[-1]}",
]

_BATCH = 250  # of rows that were selected or shuffled the pictures are copied after all, so few at a time
_SHOWN_VALUES = 12
_LEGEND_ROOM = 24
_SPLIT_COLOURS = {"train": "#1769aa", "validation": "#d9730d", "test": "#3b8f6b"}
_SEEN_COLOURS = {
    "this type only": "#1769aa",
    "several types": "#8fbbe0",
    "another type only": "#d9730d",
    "not at all": "#dde2e8",
}


def inspect_corpus(corpus: Corpus) -> Statistics:
    """Statistics of every split, ready for JSON. Shares are fractions in 0..1, or None where the whole is 0.

    Returns:
        ``name``, ``version_name``, ``version``, ``types`` in label order, and ``splits``; for each split

        - ``posts``, ``tokens``, ``entities`` (B- tags) by type, ``orphans`` (I- tags that continue nothing);
        - ``tokens_per_post``: ``min``, ``median``, ``mean``, ``percentile_95``, ``max``, and ``histogram``,
          posts by `BINS`;
        - ``posts_without_entity``, by spans as below;
        - ``pictures``: ``posts_by_number``, ``missing`` (posts with none) and ``missing_share``. A picture
          counts where the row names one; whether it can be decoded is not tried;
        - ``languages``, ``sources``: posts by each, the most frequent first;
        - ``seen`` for all but train, ``overall`` and ``by_type``: how many ``entities`` there are; how many
          are ``seen``, that is occur in train with the same casefolded words and type, and how many of these
          there occur ``as_several_types``; how many occur there ``as_another_type`` only; ``seen_share``. The
          same for the distinct ``surfaces``: ``surfaces_seen``, ``surfaces_as_several_types``,
              ``surfaces_as_another_type``. None without a train split.
          Entities are read leniently (see `tags_to_spans`), so an orphan I- begins one here.
    """
    types = entity_types(corpus.labels)
    found = {split: _figures_of(rows, corpus.labels) for split, rows in corpus.splits.items()}
    known = found["train"].types_of_surfaces() if "train" in found else None
    splits = {split: figures.statistics(types) for split, figures in found.items()}
    for split, figures in found.items():
        if split != "train":
            splits[split]["seen"] = None if known is None else _seen(figures.surfaces, known, types)
    about = {"name": corpus.name, "version_name": corpus.version_name, "version": dict(corpus.version)}
    return {**about, "types": types, "splits": splits}


@dataclass
class _SplitFigures:
    """The counts of one split; `surfaces` counts entities by (casefolded words, type)."""

    counts: Counts = field(default_factory=Counts)
    lengths: list[int] = field(default_factory=list)
    without_entity: int = 0
    pictures: Counter[int] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    surfaces: Counter[tuple[str, str]] = field(default_factory=Counter)

    def types_of_surfaces(self) -> Mapping[str, set[str]]:
        """The types that each surface occurs with."""
        types: dict[str, set[str]] = defaultdict(set)
        for surface, entity_type in self.surfaces:
            types[surface].add(entity_type)
        return types

    def statistics(self, types: Sequence[str]) -> Statistics:
        """The statistics of `inspect_corpus` without ``seen``, which compares two splits."""
        posts, missing = self.counts.posts, self.pictures[0]
        return {
            "posts": posts,
            "tokens": self.counts.tokens,
            "entities": {entity_type: self.counts.entities[entity_type] for entity_type in types},
            "orphans": self.counts.orphans,
            "tokens_per_post": _lengths(self.lengths),
            "posts_without_entity": self.without_entity,
            "pictures": {
                "posts_by_number": {str(number): self.pictures[number] for number in sorted(self.pictures)},
                "missing": missing,
                "missing_share": _share(missing, posts),
            },
            "languages": dict(self.languages.most_common()),
            "sources": dict(self.sources.most_common()),
        }


def _figures_of(rows: datasets.Dataset, labels: Sequence[str]) -> _SplitFigures:
    figures = _SplitFigures()
    for batch in _batches(rows, ["tokens", "ner_tags", "language", "source", "image", "images"]):
        figures.pictures.update(_pictures_in(batch).tolist())
        for column, counter in (("language", figures.languages), ("source", figures.sources)):
            counter.update("unknown" if value is None else str(value) for value in batch[column].to_pylist())
        for tokens, ids in zip(batch["tokens"].to_pylist(), batch["ner_tags"].to_pylist(), strict=True):
            tags = [labels[number] for number in ids]
            spans = tags_to_spans(tags)
            figures.counts.add(tags)
            figures.lengths.append(len(tokens))
            figures.without_entity += not spans
            figures.surfaces.update(
                (" ".join(tokens[span.start : span.end]).casefold(), span.type) for span in spans
            )
    return figures


def picture_numbers(rows: datasets.Dataset) -> np.ndarray:
    """How many pictures each post has, as `pictures_of` would find them, without reading any. *Shape:*
    (posts,)
    """
    numbers = [_pictures_in(batch) for batch in _batches(rows, ["image", "images"])]
    return np.concatenate([np.zeros(0, dtype=np.int64), *numbers])


def _batches(rows: datasets.Dataset, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Those of the columns that there are, a slice at a time: a corpus of pictures may not fit into
    memory.
    """
    present = [column for column in columns if column in rows.column_names]
    yield from rows.select_columns(present).with_format("arrow").iter(batch_size=_BATCH)


def _pictures_in(batch: pa.Table) -> np.ndarray:
    """The number of pictures of each row by the nulls alone. *Shape:* (rows,)"""
    numbers = np.zeros(batch.num_rows, dtype=np.int64)
    if "image" in batch.column_names:
        numbers += np.asarray(batch["image"].is_valid())
    if "images" in batch.column_names:
        chunks = batch["images"].chunks
        listed = np.concatenate([numbers[:0], *(_listed(chunk) for chunk in chunks)])
        numbers = np.where(np.asarray(batch["images"].is_valid()), listed, numbers)
    return numbers


def _listed(lists: pa.ListArray) -> np.ndarray:
    """How many entries of each list are not null. Flattening the lists would copy the pictures, their offsets
    do not.
    """
    offsets = np.asarray(lists.offsets).astype(np.int64)
    entries = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    before = np.concatenate([[0], np.cumsum(np.asarray(entries.is_valid()))])
    return np.diff(before[offsets - offsets[0]])


def _lengths(lengths: Sequence[int]) -> Statistics:
    bins = np.searchsorted(BIN_ENDS, lengths)
    histogram = dict(zip(BINS, np.bincount(bins, minlength=len(BINS)).tolist(), strict=True))
    names = ("min", "median", "mean", "percentile_95", "max")
    if not len(lengths):
        return dict.fromkeys(names) | {"histogram": histogram}
    figures = (
        min(lengths),
        float(np.median(lengths)),
        float(np.mean(lengths)),
        float(np.percentile(lengths, 95)),
        max(lengths),
    )
    return dict(zip(names, figures, strict=True)) | {"histogram": histogram}


def _seen(
    surfaces: Mapping[tuple[str, str], int], known: Mapping[str, set[str]], types: Sequence[str]
) -> Statistics:
    kinds = ("seen", "as_several_types", "as_another_type")
    overall: Counter[str] = Counter()
    by_type: dict[str, Counter[str]] = {entity_type: Counter() for entity_type in types}
    for (surface, entity_type), number in surfaces.items():
        there = known.get(surface, set())
        is_seen = entity_type in there
        is_kind = dict(
            zip(kinds, (is_seen, is_seen and len(there) > 1, bool(there) and not is_seen), strict=True)
        )
        for found in (by_type[entity_type], overall):
            found.update({"entities": number, "surfaces": 1})
            found.update({kind: number * holds for kind, holds in is_kind.items()})
            found.update({f"surfaces_{kind}": int(holds) for kind, holds in is_kind.items()})
    keys = ("entities", *kinds, "surfaces", *(f"surfaces_{kind}" for kind in kinds))

    def block(found: Counter[str]) -> Statistics:
        return {key: found[key] for key in keys} | {"seen_share": _share(found["seen"], found["entities"])}

    return {"overall": block(overall), "by_type": {name: block(found) for name, found in by_type.items()}}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def tables(statistics: Statistics) -> list[Table]:
    """Tables for printing at 120 columns: splits, lengths, entities by type, entities seen in train, posts by
    what they have.
    """
    split_tables = [_splits_table(statistics), _lengths_table(statistics), _types_table(statistics)]
    return [*split_tables, *_seen_tables(statistics), _posts_table(statistics)]


def _table(title: str, headings: Sequence[str], *, text_columns: int = 1) -> Table:
    table = Table(title=terminal_text(title), title_justify="left")
    for position, heading in enumerate(headings):
        is_text = position < text_columns
        table.add_column(
            terminal_text(heading), justify="left" if is_text else "right", overflow="fold", no_wrap=is_text
        )
    return table


def _add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text."""
    table.add_row(*map(terminal_text, cells))


def _splits_table(statistics: Statistics) -> Table:
    headings = ["split", "posts", "tokens", "entities", "orphan I-", "without entity", "without picture"]
    table = _table(f"{statistics['name']}, version {statistics['version_name']}", headings)
    for split, found in statistics["splits"].items():
        numbers = (found["posts"], found["tokens"], sum(found["entities"].values()), found["orphans"])
        shares = (_share(found["posts_without_entity"], found["posts"]), found["pictures"]["missing_share"])
        _add_row(table, split, *(f"{number:,}" for number in numbers), *map(_percent, shares))
    return table


def _lengths_table(statistics: Statistics) -> Table:
    headings = {"min": "min", "median": "median", "mean": "mean", "percentile_95": "95%", "max": "max"}
    table = _table("Tokens per post", ["split", *headings.values()])
    for split, found in statistics["splits"].items():
        figures = [found["tokens_per_post"][key] for key in headings]
        _add_row(table, split, *("-" if figure is None else f"{round(figure, 1):,}" for figure in figures))
    return table


def _types_table(statistics: Statistics) -> Table:
    splits = statistics["splits"]
    table = _table(
        "Entities by type (B- tags)", ["type", *(heading for split in splits for heading in (split, "share"))]
    )
    for entity_type in statistics["types"]:
        numbers = [
            (found["entities"][entity_type], sum(found["entities"].values())) for found in splits.values()
        ]
        cells = [
            cell for number, total in numbers for cell in (f"{number:,}", _percent(_share(number, total)))
        ]
        _add_row(table, entity_type, *cells)
    return table


def _seen_tables(statistics: Statistics) -> list[Table]:
    """One table, or none where there is no train split, or nothing beside it."""
    compared = _compared(statistics)
    if not compared:
        return []
    headings = [
        "entities",
        "seen",
        "as several types",
        "as another type only",
        "different ones",
        "of these seen",
    ]
    table = _table(
        "Entities seen in train (the same words, whatever their case)",
        ["split", "type", *headings],
        text_columns=2,
    )
    for split, seen in compared.items():
        table.add_section()
        for position, (name, found) in enumerate(_blocks(seen).items()):
            shares = [
                _share(found[kind], found["entities"])
                for kind in ("seen", "as_several_types", "as_another_type")
            ]
            surfaces_seen = _share(found["surfaces_seen"], found["surfaces"])
            cells = [
                f"{found['entities']:,}",
                *map(_percent, shares),
                f"{found['surfaces']:,}",
                _percent(surfaces_seen),
            ]
            _add_row(table, "" if position else split, name, *cells)
    return [table]


def _compared(statistics: Statistics) -> dict[str, Statistics]:
    """``seen`` of the splits that have it."""
    return {
        split: found["seen"] for split, found in statistics["splits"].items() if found.get("seen") is not None
    }


def _blocks(seen: Statistics) -> dict[str, Statistics]:
    """A block for each type, and one over all, by the names that readers see."""
    return seen["by_type"] | {"all types": seen["overall"]}


def _posts_table(statistics: Statistics) -> Table:
    splits = statistics["splits"].values()
    blocks = {
        "tokens": [found["tokens_per_post"]["histogram"] for found in splits],
        "pictures": [found["pictures"]["posts_by_number"] for found in splits],
        "language": [found["languages"] for found in splits],
        "source": [found["sources"] for found in splits],
    }
    table = _table("Posts by", ["", "", *statistics["splits"]], text_columns=2)
    for name, columns in blocks.items():
        table.add_section()
        for position, (value, numbers) in enumerate(_shortened(columns)):
            _add_row(table, "" if position else name, value, *(f"{number:,}" for number in numbers))
    return table


def _shortened(columns: Sequence[Mapping[str, int]]) -> Iterator[tuple[str, list[int]]]:
    """(value, number in each split) of the values that occur; beyond `_SHOWN_VALUES` in one line."""
    values = [
        value
        for value in dict.fromkeys(value for column in columns for value in column)
        if any(c.get(value) for c in columns)
    ]
    # A line "1 more" would take the room of what it hides.
    shown = values if len(values) <= _SHOWN_VALUES + 1 else values[:_SHOWN_VALUES]
    for value in shown:
        yield value, [column.get(value, 0) for column in columns]
    if rest := values[len(shown) :]:
        yield f"{len(rest)} more", [sum(column.get(value, 0) for value in rest) for column in columns]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def plot_statistics(statistics: Statistics, path: str | Path) -> None:
    """Save a PNG: entities by type and split (left), lengths of posts (middle), entities seen in train by
    type (right).

    Raises:
        ValueError: there is no split.
    """
    from matplotlib.figure import Figure  # slow to import, and tables alone have no need of it

    if not statistics["splits"]:
        raise ValueError("statistics: expected at least one split, found none; there is nothing to plot")
    bars = len(statistics["types"]) * len(statistics["splits"])
    figure = Figure(figsize=(16, max(4.4, 1.4 + 0.24 * bars)), layout="constrained")
    types, lengths, seen = figure.subplots(1, 3)
    _draw_types(types, statistics)
    _draw_lengths(lengths, statistics)
    _draw_seen(seen, statistics)
    for axes in (types, lengths, seen):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y" if axes is lengths else "x", color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.suptitle(
        f"{statistics['name']}, version {statistics['version_name']}", x=0.01, ha="left", parse_math=False
    )
    figure.savefig(path, format="png", dpi=150)


def _draw_types(axes: "Axes", statistics: Statistics) -> None:
    types, splits = statistics["types"], statistics["splits"]
    height = 0.8 / len(splits)
    for position, (split, found) in enumerate(splits.items()):
        places = np.arange(len(types)) + (position - (len(splits) - 1) / 2) * height
        bars = axes.barh(
            places,
            [found["entities"][name] for name in types],
            height,
            color=_SPLIT_COLOURS[split],
            label=split,
        )
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    _name_types(axes, types)
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title("Entities by type", loc="left", pad=_LEGEND_ROOM)
    axes.set_xlabel("entities (B- tags)")
    _put_legend(axes)


def _draw_lengths(axes: "Axes", statistics: Statistics) -> None:
    splits = statistics["splits"]
    used = [
        name for name in BINS if any(found["tokens_per_post"]["histogram"][name] for found in splits.values())
    ]
    # From the first bin, so that what is absent on the left shows too; on the right it would only take room.
    shown = BINS[: BINS.index(used[-1]) + 1] if used else BINS[:1]
    width = 0.8 / len(splits)
    for position, (split, found) in enumerate(splits.items()):
        shares = [
            100 * (_share(found["tokens_per_post"]["histogram"][name], found["posts"]) or 0) for name in shown
        ]
        places = np.arange(len(shown)) + (position - (len(splits) - 1) / 2) * width
        axes.bar(places, shares, width, color=_SPLIT_COLOURS[split], label=split)
    axes.set_xticks(range(len(shown)), shown, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_title("Length of posts", loc="left", pad=_LEGEND_ROOM)
    axes.set_xlabel("tokens")
    axes.set_ylabel("posts (%)")
    _put_legend(axes)


def _draw_seen(axes: "Axes", statistics: Statistics) -> None:
    """For each type a bar per split, cut by what of it was seen in train."""
    compared = _compared(statistics)
    axes.set_title("Entities seen in train as ...", loc="left", pad=_LEGEND_ROOM)
    axes.set_xlabel("entities (%)")
    if not compared:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no two splits to compare", ha="center", va="center", transform=axes.transAxes)
        return
    names = list(_blocks(next(iter(compared.values()))))
    height = 0.8 / len(compared)
    for position, (split, seen) in enumerate(compared.items()):
        places = np.arange(len(names)) + (position - (len(compared) - 1) / 2) * height
        left = np.zeros(len(names))
        for part, shares in _parts(list(_blocks(seen).values())).items():
            label = part if position == 0 else None
            axes.barh(places, shares, 0.9 * height, left=left, color=_SEEN_COLOURS[part], label=label)
            left += shares
        for place in places:
            axes.text(101, place, split, va="center", fontsize=8)
    _name_types(axes, names)
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 20))
    _put_legend(axes)


def _parts(seen: Sequence[Statistics]) -> dict[str, np.ndarray]:
    """For each part of a bar its percentage of the entities of each type; they add up to 100 where a type has
    entities.
    """
    totals, found, several, other = (
        np.array([of_type[key] for of_type in seen], dtype=float)
        for key in ("entities", "seen", "as_several_types", "as_another_type")
    )
    numbers = (found - several, several, other, totals - found - other)
    return {
        part: 100 * number / np.maximum(totals, 1)
        for part, number in zip(_SEEN_COLOURS, numbers, strict=True)
    }


def _put_legend(axes: "Axes") -> None:
    """In a line between the title and the axes, where no bar can be in its way."""
    axes.legend(
        frameon=False,
        ncols=4,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderpad=0,
        borderaxespad=0.4,
        handlelength=1,
        columnspacing=1.2,
        fontsize=9,
    )


def _name_types(axes: "Axes", names: Sequence[str]) -> None:
    """The types from top to bottom."""
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
