"""What others say, written into Markdown or a terminal so that it stays text: no tag, block or command."""

import codecs
import html
import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from .model.marking_mmner import encodable, printable

if TYPE_CHECKING:
    from rich.text import Text

# An underscore between letters is one; elsewhere it may begin or end emphasis.
_MARKDOWN = re.compile(r"([`*\[\]|~]|(?<![^\W_])_|_(?![^\W_]))")
# A backslash before a bracket, and dollars, begin mathematics on the Hub, whatever stands before them.
_MATHEMATICS = str.maketrans({"\\": "&#92;", "$": "&#36;"})


def print_in_any_encoding() -> None:
    """What the terminal's encoding lacks, as cp1252 emoji, is printed from now on as JSON escapes it: no text
    ends a command, and lines of JSON stay such.
    """
    codecs.register_error("escaped", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="escaped")


def _escaped(error: Any) -> tuple[str, int]:
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def one_line(text: object) -> str:
    """The text on one line: every run of white space and control characters is a space."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", encodable(text)).strip()


def say(text: object, *, file: IO[str] | None = None) -> None:
    """Print what others may have had a hand in."""
    print(printable(text), file=file, flush=True)


class PrintableLines(logging.Formatter):
    """What is logged, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def terminal_text(text: object) -> "Text":
    """As text in rich's tables and titles, which read strings as markup and emoji."""
    from rich.text import Text  # dear, and cards have no need of it

    return Text(one_line(text))


def markdown_text(text: object) -> str:
    """As plain text anywhere in Markdown, a table's cell included."""
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(one_line(text), quote=False).translate(_MATHEMATICS))
    return re.sub(r"^(?:(?=[#+=-])|\d+(?=[.)](?:\s|$)))", r"\g<0>\\", escaped)


def code_span(text: object) -> str:
    """As a code span, a table's cell included: its backticks are more than any run of them in the text.

    A pipe would end a cell even there, and readers differ in what a backslash before it is: such text is an
    HTML element.
    """
    line = one_line(text)
    if "|" in line:
        escaped = (char if char.isalnum() or char == " " else f"&#{ord(char)};" for char in line)
        return f"<code>{''.join(escaped)}</code>"
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{space}{line}{space}{fence}"


def code_block(text: object, language: str = "") -> str:
    """As a fenced block, whose fence is longer than any in the text."""
    content = encodable(text)
    fence = "`" * max(3, max(map(len, re.findall("`+", content)), default=0) + 1)
    return f"{fence}{language}\n{content}\n{fence}"


def rendered(template: Any, values: Mapping[str, Any], **filters: Any) -> str:
    """A file of Jinja's with its values, which filters escape: `text`, `code`, `block` and those given."""
    from jinja2 import Environment, StrictUndefined

    blocks: Any = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(undefined=StrictUndefined, **blocks)
    environment.filters |= {"text": markdown_text, "code": code_span, "block": code_block} | filters
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)
