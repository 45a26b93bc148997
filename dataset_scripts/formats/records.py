"""Records of people's own files: JSON lines, JSON, CSV, TSV and Parquet."""

import csv
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq

from modeling_mmner.files import MOST_LINE_BYTES, numbered_json_lines, parsed
from modeling_mmner.model.posts_mmner import PostError

from ..findings import Findings
from .reader import SPLIT_OF, SPLITS, CorpusError, mismatch
from .tables import read_columns, read_table, usual_columns

_IN_COLUMNS = (".conll", ".conllu", ".bio", ".iob", ".iob2")
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", *_IN_COLUMNS)
_LOOKED_AT = 20  # records, for the names of columns
_ROWS = 16  # of a Parquet file, so many are read at a time


def record_files(path: Path) -> dict[str, Path]:
    """The files of records at a path: of a folder with split files each by its split, else one as ``all``.

    Empty: there are none.

    Raises:
        CorpusError: the file is of another kind; the folder has several that are not called as splits, or
            several for a split.
    """
    if path.is_file():
        if path.suffix.lower() not in (*ENDINGS, ".txt"):
            expected = f"a file whose name ends in {', '.join(ENDINGS)}, or a folder"
            advice = "unpack an archive first; save a sheet as CSV UTF-8, others as JSON lines with spans"
            raise mismatch(path, expected, f"another; {advice}")
        return {"all": path}
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        advice = "`load_from_disk(FOLDER)[SPLIT].to_parquet(SPLIT + '.parquet')` of `datasets` writes such"
        raise mismatch(path, "files of posts", f"what `save_to_disk` has written; {advice}")
    files = [file for file in sorted(path.glob("*")) if file.suffix.lower() in ENDINGS and file.is_file()]
    named = [(split, file) for split in SPLITS for file in files if SPLIT_OF.get(file.stem) == split]
    found = dict(named)
    if len(found) < len(named):
        raise mismatch(path, "one file for each split", ", ".join(file.name for _, file in named))
    if len(files) > 1 and not found:
        several = ", ".join(file.name for file in files[:10])
        raise mismatch(path, "train, validation and test files, or one alone", several)
    return found or dict(zip(["all"], files, strict=False))


def read_records(path: Path, columns: dict[str, str], findings: Findings) -> Iterator[tuple[str, Any]]:
    """The records of a file, each with its place for errors.

    Args:
        columns: what our columns are called in the file; others are taken by usual names.
        findings: to which it is added what was taken for what.

    Raises:
        CorpusError: the file cannot be read.
    """
    table = partial(read_table, findings=findings, columns=columns)
    in_columns = partial(read_columns, findings=findings, columns=columns)
    readers: dict[str, Any] = dict.fromkeys((*_IN_COLUMNS, ".txt"), in_columns)
    readers |= dict.fromkeys((".jsonl", ".ndjson"), read_json_lines)
    readers |= {".json": _json_array, ".parquet": _parquet}
    missing = {theirs for theirs in columns.values() if not theirs.isdecimal()}
    try:
        records = readers.get(path.suffix.lower(), table)(path)
        first = list(islice(records, _LOOKED_AT))
        found = Counter(tuple(usual_columns(record).items()) for _, record in first)
        usual: dict[str, str] = dict(*(names for names, _ in found.most_common(1)))
        free = {ours: name for ours, name in usual.items() if ours not in columns and name not in missing}
        if free:
            columns = free | columns
            named = ",".join("=".join(pair) for pair in columns.items())
            findings.add("columns taken by their usual names", remedy=f"as by --columns {named}", lost=False)
        for number, record in chain(first, records):
            missing -= _keys(record)
            yield f"{path.name}:{number}", renamed(record, columns)
    except CorpusError:
        raise
    except UnicodeDecodeError as error:
        raise mismatch(path, "UTF-8", f"{error}; save it as UTF-8, in Excel as CSV UTF-8") from error
    except (OSError, csv.Error, ValueError, TypeError, LookupError, NotImplementedError) as error:
        raise CorpusError(f"{path}: cannot be read; {error}") from error  # Arrow's errors are of these kinds
    if missing:
        raise mismatch(f"{path}: --columns", f"{sorted(missing)} among the columns", "them in no post")


def _keys(record: Any) -> set[str]:
    return {*record, *_keys(record.get("data"))} if isinstance(record, dict) else set()


def renamed(record: Any, columns: dict[str, str]) -> Any:
    """The record, or a task's data, with our names for its columns; what is no object stays."""
    if not isinstance(record, dict):
        return record
    if isinstance(record.get("data"), dict):
        return record | {"data": renamed(record["data"], columns)}
    found = {ours: record[theirs] for ours, theirs in columns.items() if theirs in record}
    return {key: value for key, value in record.items() if key not in columns.values()} | found


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """What stands on each line of a file that is not empty, with the line's number.

    Raises:
        CorpusError: a line is no JSON in UTF-8, or longer than any post.
    """
    with path.open("rb") as file:
        for number, value in numbered_json_lines(file, str(path)):
            if isinstance(value, PostError):
                raise CorpusError(str(value))
            yield number, value


def _json_array(path: Path) -> Iterator[tuple[int, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = parsed(text)
    except ValueError as error:
        if str(error).startswith("Extra data"):  # JSON lines under another name
            yield from read_json_lines(path)
            return
        raise mismatch(path, "JSON", f"{text.strip()[:80]!r} ({error!s:.200})") from error
    if not isinstance(content, list):
        raise mismatch(path, "a JSON array of posts", type(content).__name__)
    yield from enumerate(content, start=1)


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with pq.ParquetFile(path) as file:
        names = _tag_names(datasets.Features.from_arrow_schema(file.schema_arrow))
        number = 0
        for batch in file.iter_batches(batch_size=_ROWS):
            if batch.nbytes > MOST_LINE_BYTES * _ROWS:
                most = f"rows of at most {MOST_LINE_BYTES:,} bytes"
                raise mismatch(path, most, f"larger ones from {number} on")
            for row in batch.to_pylist():
                yield number, _with_names(row, names)
                number += 1


def dataset_records(rows: datasets.Dataset) -> Iterator[dict[str, Any]]:
    """The rows, tag ids by their names, pictures not decoded."""
    names = _tag_names(rows.features)
    return (_with_names(row, names) for row in undecoded(rows))


def undecoded(rows: datasets.Dataset) -> datasets.Dataset:
    """A data set whose columns of pictures give bytes and paths."""
    picture = datasets.Image(decode=False)
    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, picture)
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            rows = rows.cast_column(column, datasets.List(picture))
    return rows


def _tag_names(features: datasets.Features) -> dict[str, list[str]]:
    """The names of the ids in each column that is a list of ids with names."""
    kinds = {column: getattr(feature, "feature", None) for column, feature in features.items()}
    return {column: kind.names for column, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)}


def _with_names(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """A row with names in the place of ids; ids that have none stay."""
    for column, labels in names.items():
        known = dict(enumerate(labels))
        row[column] = [known.get(tag, tag) for tag in row[column] or []]
    return row
