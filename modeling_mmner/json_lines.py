"""JSON lines: posts read from them, results written as them."""

import json
from collections.abc import Iterator
from typing import IO, Any

from .posts_mmner import PostError


def read_json_lines(source: IO[str], name: str) -> Iterator[dict[str, Any] | PostError]:
    """The objects of a file of JSON lines, a `PostError` in the place of each line that is no JSON; empty lines are passed over.

    Args:
        name: what errors call the file.
    """
    for number, line in enumerate(source, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                yield PostError(f"{name}:{number}: expected a JSON object, found {line.strip()!r:.80} ({error})")


def json_line(record: dict[str, Any]) -> str:
    """The record as one line of JSON, readable where it can be; half an emoji, which UTF-8 cannot hold, is escaped."""
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(record)
    return line
