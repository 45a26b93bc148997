"""Records of people's own files: JSON lines, JSON, CSV, TSV and Parquet."""

import ast
import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from modeling_mmner.files import MOST_LINE_BYTES, bounded_lines, parsed

from .reader import SPLIT_NAMES, CorpusError

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_LISTS = ("tokens", "ner_tags", "spans", "entities", "ents", "label", "labels", "images")
_ROWS, _MOST_ROW_BYTES = 16, MOST_LINE_BYTES  # of a Parquet file, so many rows are read at a time
_CELL_LIMIT = 10**7  # characters; Python's own limit is below the length of a long article with its spans


def record_files(path: Path) -> dict[str, Path]:
    """The files of records at a path by their splits: of a folder with split files each; else the one file,
    as ``all``.

    Empty: there are none.

    Raises:
        CorpusError: the file is of another kind; the folder has several that are not called as splits, or
            several for a split.
    """
    if path.is_file():
        if path.suffix not in ENDINGS:
            raise CorpusError(
                f"{path}: expected a file whose name ends in {', '.join(ENDINGS)}, or a folder, found another"
            )
        return {"all": path}
    files = [file for file in sorted(path.glob("*")) if file.suffix in ENDINGS and file.is_file()]
    named = {split: [file for file in files if file.stem in names] for split, names in SPLIT_NAMES.items()}
    if any(named.values()):
        if several := next((found for found in named.values() if len(found) > 1), None):
            raise CorpusError(
                f"{path}: expected one file for each split, found {', '.join(file.name for file in several)}"
            )
        return {split: found[0] for split, found in named.items() if found}
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:10])
        raise CorpusError(
            f"{path}: expected train, validation and test files, or a single file, found {names}"
        )
    return {"all": files[0]} if files else {}


def read_records(path: Path, columns: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """The records of a file, each with its place for errors.

    Args:
        columns: what our columns are called in the file.

    Raises:
        CorpusError: the file cannot be read.
    """
    readers = {".jsonl": read_json_lines, ".json": _json_array, ".parquet": _parquet}
    missing = set(columns.values())
    try:
        for number, record in readers.get(path.suffix, _table)(path):
            missing -= _keys(record)
            yield f"{path.name}:{number}", renamed(record, columns)
        if missing:
            raise CorpusError(
                f"{path}: --columns: expected {sorted(missing)} among the columns, found them in no post"
            )
    except CorpusError:
        raise
    except (
        OSError,
        csv.Error,
        ValueError,
        TypeError,
        LookupError,
        NotImplementedError,
    ) as error:  # Arrow's are of these kinds
        raise CorpusError(f"{path}: cannot be read; {error}") from error


def _keys(record: Any) -> set[str]:
    """The keys of an object, and those of a task's data."""
    return {*record, *_keys(record.get("data"))} if isinstance(record, dict) else set()


def renamed(record: Any, columns: dict[str, str]) -> Any:
    """The record with our names for its columns, where it is an object; for a task of Label Studio, those of
    its data.
    """
    if not isinstance(record, dict):
        return record
    if isinstance(record.get("data"), dict):
        return record | {"data": renamed(record["data"], columns)}
    found = {ours: record[theirs] for ours, theirs in columns.items() if theirs in record}
    return {key: value for key, value in record.items() if key not in columns.values()} | found


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """What stands on each line of a file that is not empty, with the line's number.

    Raises:
        CorpusError: the file is not in UTF-8, or a line is no JSON.
    """
    with path.open("rb") as file:
        for number, line in bounded_lines(file):
            if line is None:
                raise CorpusError(
                    f"{path}, line {number}: expected at most {MOST_LINE_BYTES:,} bytes, found a longer line"
                )
            if line.strip():
                place = f"{path}, line {number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise CorpusError(
                        f"{place}: expected UTF-8, found {error}; convert the file first"
                    ) from error
                yield number, _parsed(text, place)


@contextmanager
def _text_of(path: Path) -> Iterator[TextIO]:
    """A file, open to read text in UTF-8; its line ends stay as they are, which CSV wants."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: expected UTF-8, found {error}; convert the file first") from error


def _json_array(path: Path) -> Iterator[tuple[int, Any]]:
    with _text_of(path) as text:
        content = _parsed(text.read(), str(path))
    if not isinstance(content, list):
        raise CorpusError(f"{path}: expected a JSON array of posts, found {type(content).__name__}")
    yield from enumerate(content, start=1)


def _parsed(text: str, place: str) -> Any:
    try:
        return parsed(text)
    except ValueError as error:
        raise CorpusError(f"{place}: expected JSON, found {text.strip()[:80]!r} ({error!s:.200})") from error


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(_CELL_LIMIT)
    with _text_of(path) as lines:
        for number, row in enumerate(
            csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ","), start=1
        ):
            yield number, {str(key): None if value == "" else value for key, value in row.items()}


def cell_list(value: Any, key: str) -> Any:
    """The list that a table's cell stands for: JSON, what Python prints of a list, or, of words and tags,
    separated by spaces.
    """
    if not isinstance(value, str) or key not in _LISTS:
        return value
    if value.lstrip().startswith("["):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return value.split() if key in ("tokens", "ner_tags") else value


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import datasets
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = _tag_names(datasets.Features.from_arrow_schema(file.schema_arrow))
        number = 0
        for batch in file.iter_batches(batch_size=_ROWS):
            if batch.nbytes > _MOST_ROW_BYTES * _ROWS:
                raise CorpusError(
                    f"{path}: expected rows of at most {_MOST_ROW_BYTES:,} bytes, found larger ones from"
                    f" {number} on"
                )
            for row in batch.to_pylist():
                yield number, _with_names(row, names)
                number += 1


def dataset_records(rows: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a data set, tag ids by their names, pictures not decoded."""
    import datasets

    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            rows = rows.cast_column(column, datasets.List(datasets.Image(decode=False)))
    names = _tag_names(rows.features)
    for number, row in enumerate(rows):
        yield number, _with_names(row, names)


def _tag_names(features: Any) -> dict[str, list[str]]:
    """The names of the ids in each column that is a list of ids with names."""
    import datasets

    kinds = {column: getattr(feature, "feature", None) for column, feature in features.items()}
    return {column: kind.names for column, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)}


def _with_names(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """A row with names in the place of ids; ids that have none stay."""
    named = {column: [_name(tag, labels) for tag in row[column] or []] for column, labels in names.items()}
    return row | named


def _name(tag: Any, labels: list[str]) -> Any:
    return labels[tag] if isinstance(tag, int) and 0 <= tag < len(labels) else tag
