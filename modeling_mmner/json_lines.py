"""JSON lines: posts read from them, results written as them."""

import json
from collections.abc import Iterator
from typing import IO, Any

from .posts_mmner import PostError

MOST_LINE_BYTES = 100_000_000
"""Of a line; one that holds a picture of 50 MB in base64 is shorter."""


def bounded_lines(source: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a file with their numbers, from 1; None for one that is longer than `MOST_LINE_BYTES`, which is never held."""
    number = 0
    while line := source.readline(MOST_LINE_BYTES):
        number += 1
        is_whole = line.endswith(b"\n") or len(line) < MOST_LINE_BYTES
        yield number, line if is_whole else None
        while not is_whole:
            rest = source.readline(MOST_LINE_BYTES)
            is_whole = rest.endswith(b"\n") or len(rest) < MOST_LINE_BYTES


def parsed(text: str) -> Any:
    """The value that JSON stands for.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refused)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def read_json_lines(source: IO[bytes], name: str) -> Iterator[dict[str, Any] | PostError]:
    """The objects of a file of JSON lines, a `PostError` in the place of each line that is no JSON; empty lines are passed over.

    Args:
        name: what errors call the file.
    """
    for number, line in bounded_lines(source):
        if line is None:
            yield PostError(f"{name}:{number}: expected a line of at most {MOST_LINE_BYTES:,} bytes, found a longer one")
        elif line.strip():
            yield parsed_post(line, f"{name}:{number}", is_first=number == 1)


def parsed_post(line: bytes, place: str, *, is_first: bool) -> Any:
    """What stands on a line of JSON, or a `PostError` that names its place; the first of a file may have a byte order mark."""
    try:
        return parsed(line.decode("utf-8-sig" if is_first else "utf-8").strip())
    except ValueError as error:
        found = line.strip()[:200].decode("utf-8", "replace")
        return PostError(f"{place}: expected a JSON object, found {found!r:.80} ({error!s:.200})")


def json_line(record: dict[str, Any]) -> str:
    """The record as one line of JSON, readable where it can be; half an emoji, which UTF-8 cannot hold, is escaped."""
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(record)
    return line
