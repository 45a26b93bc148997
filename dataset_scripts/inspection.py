"""Statistics of a corpus: counts, lengths of posts, pictures, and which entities occur in train too."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
from rich.table import Table

from modeling_mmner.escaping import terminal_text
from modeling_mmner.model.batching_mmner import ahead
from modeling_mmner.model.images_mmner import PICTURE_COLUMNS, PictureError, load_picture, pictures_of
from modeling_mmner.model.labels_mmner import entity_types, tags_to_spans
from modeling_mmner.model.windows_mmner import step_bytes, window_starts

from .builders.builder import READ_AHEAD, READING_THREADS
from .formats.schemes import orphans
from .opening import Corpus

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
_SEEN_KINDS = ("seen", "as_several_types", "as_another_type")
_OF_ENTITIES = ("entities", *_SEEN_KINDS)
_OF_SURFACES = ("surfaces", *(f"surfaces_{kind}" for kind in _SEEN_KINDS))


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
        "tokens_per_post": _lengths(lengths),
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
    splits = statistics["splits"]
    summaries, lengths = [], []
    entities: Any = defaultdict(dict)
    values: Any = defaultdict(dict)
    for split, found in splits.items():
        total, pictures = sum(found["entities"].values()), found["pictures"]
        counts = {"posts": found["posts"], "tokens": found["tokens"], "entities": total}
        shares = {"without entity": _share(found["posts_without_entity"], found["posts"])}
        shares["without picture"] = pictures["missing_share"]
        summaries.append({"split": split} | counts | {"orphan I-": found["orphans"]} | shares)
        measures = {name: found["tokens_per_post"][name] for name in _LENGTHS}
        shown = {name: value and f"{round(value, 1):,}" for name, value in measures.items()}
        lengths.append({"split": split} | shown)
        for name, number in found["entities"].items():
            entities[name] |= {"type": name, split: number, f"of {split}": _share(number, total)}
        values["tokens"][split] = found["tokens_per_post"]["histogram"]
        values["pictures"][split] = pictures["posts_by_number"]
        values["language"][split] = found["languages"]
        values["source"][split] = found["sources"]
    seen = [
        {"split": split if row == 0 else "", "type": name, "entities": found["entities"]}
        | {kind.replace("_", " "): _share(found[kind], found["entities"]) for kind in _SEEN_KINDS}
        | {"different": found["surfaces"], "seen of these": _share(found["surfaces_seen"], found["surfaces"])}
        for split, blocks in _compared(statistics).items()
        for row, (name, found) in enumerate(blocks.items())
    ]
    kinds = [row for name, columns in values.items() for row in _value_rows(name, columns)]
    return [
        _table(_title(statistics), summaries),
        _table("Tokens per post", lengths),
        _table("Entities by type (B- tags)", [*entities.values()]),
        *([_table("Entities seen in train (the same words, whatever their case)", seen)] if seen else []),
        _table("Posts by", kinds),
    ]


def describe_longest(statistics: Statistics) -> str:
    """How long the longest post is, and what posts like it would take in training: a plain estimate."""
    lengths = [found["tokens_per_post"]["max"] for found in statistics["splits"].values()]
    words = max(filter(None, lengths), default=0)
    pieces, room = 3 * words // 2, 510  # a window of 512 has two special tokens
    windows, length = 16 * len(window_starts(pieces, room)), min(pieces, room) + 2
    held = step_bytes(windows, length, layers=12, heads=12, width=768) / 1e9
    estimate = f"about {held:.1f} GB besides the weights (a plain estimate: BERT-base, 1.5 sub-tokens a word)"
    return f"longest post: {words:,} words; a training step of 16 such posts takes {estimate}"


def _title(statistics: Statistics) -> str:
    return f"{statistics['name']}, version {statistics['version_name']}"


def _value_rows(name: str, columns: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """A row for each value that occurs, its number in each split; beyond `_SHOWN_VALUES` one for the rest."""
    found = pd.DataFrame(columns).fillna(0).astype(int)
    found = found[found.any(axis=1)]
    if len(found) > _SHOWN_VALUES + 1:  # a line "1 more" would take the room of what it hides
        rest = found[_SHOWN_VALUES:]
        found = pd.concat([found[:_SHOWN_VALUES], rest.sum().rename(f"{len(rest)} more").to_frame().T])
    rows = found.rename_axis("value").reset_index().to_dict("records")
    return [{"": "" if number else name} | row for number, row in enumerate(rows)]


def _compared(statistics: Statistics) -> dict[str, dict[str, Statistics]]:
    found = {split: split_found.get("seen") for split, split_found in statistics["splits"].items()}
    return {split: seen["by_type"] | {"all types": seen["overall"]} for split, seen in found.items() if seen}


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of plain text; numbers are counts, fractions are shares, None is a dash.

    A new section begins where the first of several columns of text says something.
    """
    table = Table(title=terminal_text(title), title_justify="left")
    texts = [name for name in (rows[0] if rows else ()) if name in ("", "split", "type", "value")]
    for name in rows[0] if rows else ():
        is_text = name in texts
        justify: Any = "left" if is_text else "right"
        table.add_column(terminal_text(name), justify=justify, overflow="fold", no_wrap=is_text)
    for row in rows:
        if len(texts) > 1 and row[texts[0]]:
            table.add_section()
        table.add_row(*(terminal_text(_cell(value)) for value in row.values()))
    return table


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.1%}"
