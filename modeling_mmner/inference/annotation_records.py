"""The rows of an annotation as files of Parquet or JSON lines."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..escaping import encodable
from ..files import json_line

Form = Literal["parquet", "jsonl"]

ENTITY = pa.struct(
    {
        "entity_group": pa.string(),
        "score": pa.float64(),
        "word": pa.string(),
        "start": pa.int64(),
        "end": pa.int64(),
        "first_word": pa.int64(),
        "last_word": pa.int64(),
    }
)
"""An entity: `start` and `end` are characters of the text, as in Python; `first_word` and `last_word` are
words, from 0.
"""
FOUND = pa.schema(
    {
        "text": pa.string(),
        "tokens": pa.list_(pa.string()),
        "tags": pa.list_(pa.string()),
        "entities": pa.list_(ENTITY),
        "error": pa.string(),
    }
)
"""What is found in a post. `error` says why it could not be read or, where it has a text, why pictures of it
were left out.
"""
SCHEMA = pa.schema([pa.field("row", pa.int64()), pa.field("id", pa.string()), *FOUND])
"""A row of Parquet: ids are strings in it, for a column has one type; JSON lines have them as they were
given.
"""
_ROW_GROUP = 1000


def table_of(records: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The records as a table; half an emoji, which UTF-8 cannot hold, is U+FFFD in it."""
    rows = [record | {"id": _id_text(record.get("id"))} for record in records]
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except UnicodeEncodeError:
        return pa.Table.from_pylist([_encodable(row) for row in rows], schema=schema)


def _id_text(given: Any) -> str | None:
    return (
        given
        if given is None or isinstance(given, str)
        else json.dumps(given, ensure_ascii=False, default=str)
    )


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encodable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_encodable(part) for part in value]
    return encodable(value) if isinstance(value, str) else value


def _write_parquet(file: BinaryIO, records: Iterator[dict[str, Any]]) -> None:
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        while part := list(islice(records, _ROW_GROUP)):
            writer.write_table(table_of(part, SCHEMA))


def _write_json_lines(file: BinaryIO, records: Iterator[dict[str, Any]]) -> None:
    for record in records:
        file.write(f"{json_line(record)}\n".encode())


def _parquet_rows(path: Path) -> Iterator[int]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["row"]):
            yield from batch.column(0).to_pylist()


def _json_rows(path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        yield from (json.loads(line)["row"] for line in file)


class _Kind(NamedTuple):
    write: Callable[[BinaryIO, Iterator[dict[str, Any]]], None]
    row_numbers: Callable[[Path], Iterator[int]]


_KINDS: dict[Form, _Kind] = {
    "parquet": _Kind(_write_parquet, _parquet_rows),
    "jsonl": _Kind(_write_json_lines, _json_rows),
}


def write_records(file: BinaryIO, records: Iterator[dict[str, Any]], form: Form) -> None:
    """Write records ``{"row", "id", **FOUND}`` one after the other."""
    _KINDS[form].write(file, records)


def row_numbers(path: Path, form: Form) -> Iterator[int]:
    """The numbers of the rows that a file of records holds, in its order."""
    return _KINDS[form].row_numbers(path)
