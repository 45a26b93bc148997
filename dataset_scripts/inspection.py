"""Statistics of a corpus: counts, lengths of posts, pictures, and how many entities occur in train too."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from rich.table import Table

from modeling_mmner.escaping import terminal_text
from modeling_mmner.model.images_mmner import PICTURE_COLUMNS, PictureError, load_picture, pictures_of
from modeling_mmner.model.labels_mmner import entity_types, tags_to_spans
from modeling_mmner.model.windows_mmner import step_bytes, window_starts

from .builders.builder import read_ahead
from .formats.schemes import orphans
from .opening import Corpus

Statistics = dict[str, Any]
_Surface = tuple[str, str]
"""The casefolded words of an entity, and its type."""

_BATCH = 250  # of rows that were selected or shuffled the pictures are copied after all, so few at a time
_LANGUAGES = 12  # that are shown
_p95: Any = partial(np.percentile, q=95)
_LENGTHS = {"min": np.min, "median": np.median, "mean": np.mean, "percentile_95": _p95, "max": np.max}


def inspect_corpus(corpus: Corpus) -> Statistics:
    """Statistics of every split, ready for JSON; shares are fractions in 0..1, or None where the whole is 0.

    Returns:
        ``name``, ``version_name``, ``version``, ``types`` in label order, and ``splits``; for each split

        - ``posts``, ``tokens``, ``entities`` (B- tags) by type, ``orphans`` (I- tags that continue nothing);
        - ``tokens_per_post``: `_LENGTHS`;
        - ``posts_without_entity``, by spans as below;
        - ``pictures``: ``posts_by_number``, ``missing`` (posts with none) and ``missing_share``. A picture
          counts where the row names one, and among the ``broken`` too where it cannot be decoded;
        - ``languages``, ``sources``: posts by each, the most frequent first;
        - ``seen_share``, where another split is train: of the entities those that occur there with the same
          casefolded words and type. Entities are read leniently (see `tags_to_spans`), so an orphan I- begins
          one here.
    """
    splits, surfaces = {}, {}
    for split, rows in corpus.splits.items():
        splits[split], surfaces[split] = split_statistics(rows, corpus.labels)
        splits[split]["pictures"]["broken"] = _count_broken(corpus, split)
    for split in splits.keys() - {"train"} if "train" in splits else ():
        seen = sum(number for one, number in surfaces[split].items() if one in surfaces["train"])
        splits[split]["seen_share"] = _share(seen, surfaces[split].total())
    return {**corpus.identity(), "types": entity_types(corpus.labels), "splits": splits}


def split_statistics(rows: datasets.Dataset, labels: Sequence[str]) -> tuple[Statistics, Counter[_Surface]]:
    """The statistics of a split but for those of `inspect_corpus`, and how often each surface occurs."""
    lengths, entities, surfaces = list[int](), Counter[str](), Counter[_Surface]()
    found = {"orphans": 0, "posts_without_entity": 0}
    kinds = {name: Counter[str]() for name in ("language", "source")}
    for batch in _batches(rows, ["tokens", "ner_tags", *kinds]):
        for row in batch.to_pylist():
            tags = [labels[number] for number in row["ner_tags"]]
            spans = tags_to_spans(tags)
            lengths.append(len(tags))
            entities.update(tag[2:] for tag in tags if tag.startswith("B-"))
            found["orphans"] += sum(orphans(tags))
            found["posts_without_entity"] += not spans
            for name, counted in kinds.items():
                counted[row[name] or "unknown"] += 1
            words = (" ".join(row["tokens"][span.start : span.end]).casefold() for span in spans)
            surfaces.update(zip(words, (span.type for span in spans), strict=True))
    pictures = Counter(picture_numbers(rows).tolist())
    return {
        "posts": len(lengths),
        "tokens": sum(lengths),
        "entities": {name: entities[name] for name in entity_types(labels)},
        **found,
        **{f"{name}s": dict(counted.most_common()) for name, counted in kinds.items()},
        "tokens_per_post": {
            name: measure(lengths).item() if lengths else None for name, measure in _LENGTHS.items()
        },
        "pictures": {
            "posts_by_number": {str(number): pictures[number] for number in sorted(pictures)},
            "missing": pictures[0],
            "missing_share": _share(pictures[0], len(lengths)),
        },
    }, surfaces


def _count_broken(corpus: Corpus, split: str) -> int:
    """How many pictures of a split cannot be read; the corpus's findings say which."""
    rows, number = corpus.splits[split], 0
    rows = rows.select_columns(["id", *(name for name in PICTURE_COLUMNS if name in rows.column_names)])
    given = ((row["id"], picture) for row in rows for picture in pictures_of(row))
    for name, why in read_ahead(lambda one: (one[0], picture_problem(one[1])), given):
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


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def tables(statistics: Statistics) -> list[Table]:
    """Tables of 120 columns: splits, lengths of posts, entities by type, posts by language."""
    splits = statistics["splits"]
    summaries, lengths = [], []
    by_type: dict[str, dict[str, Any]] = {name: {"type": name} for name in statistics["types"]}
    for split, found in splits.items():
        total = sum(found["entities"].values())
        counts = {"posts": found["posts"], "tokens": found["tokens"], "entities": total}
        shares = {
            "without entity": _share(found["posts_without_entity"], found["posts"]),
            "without picture": found["pictures"]["missing_share"],
            "seen in train": found.get("seen_share"),
        }
        summaries.append({"split": split} | counts | {"orphan I-": found["orphans"]} | shares)
        shown = {name: value and f"{round(value, 1):,}" for name, value in found["tokens_per_post"].items()}
        lengths.append({"split": split} | shown)
        for name, number in found["entities"].items():
            by_type[name] |= {split: number, f"of {split}": _share(number, total)}
    languages = [*dict.fromkeys(chain(*(found["languages"] for found in splits.values())))]
    heading = "language" if len(languages) <= _LANGUAGES else f"language, {_LANGUAGES} of {len(languages)}"
    by_language = [
        {heading: name} | {split: found["languages"].get(name, 0) for split, found in splits.items()}
        for name in languages[:_LANGUAGES]
    ]
    return [
        _table(f"{statistics['name']}, version {statistics['version_name']}", summaries),
        _table("Tokens per post", lengths),
        _table("Entities by type (B- tags)", [*by_type.values()]),
        _table("Posts by language", by_language),
    ]


def describe_longest(statistics: Statistics) -> str:
    """How long the longest post is, and what posts like it would take in training: a plain estimate."""
    lengths = [found["tokens_per_post"]["max"] for found in statistics["splits"].values()]
    words = max(filter(None, lengths), default=0)
    pieces, room = 3 * words // 2, 510  # a window of 512 has two special tokens
    windows, length = 16 * len(window_starts(pieces, room)), min(pieces, room) + 2
    held = step_bytes(windows, length, layers=12, heads=12, width=768) / 1e9
    estimate = f"about {held:.1f} GB besides the weights (a plain estimate: BERT-base, 1.5 sub-tokens a word)"
    return f"{words:,} words; a training step of 16 such posts takes {estimate}"


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of plain text; numbers are counts, fractions are shares, None is a dash."""
    table = Table(title=terminal_text(title), title_justify="left")
    for number, name in enumerate(rows[0] if rows else ()):
        justify: Any = "right" if number else "left"
        table.add_column(terminal_text(name), justify=justify, overflow="fold", no_wrap=not number)
    for row in rows:
        table.add_row(*(terminal_text(_cell(value)) for value in row.values()))
    return table


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.1%}"
