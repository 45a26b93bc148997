"""What others say, written into Markdown so that it stays text: it opens no tag, ends no block and starts no new line."""

import html
import re

_MARKDOWN = re.compile(r"([\\`*_\[\]|~])")


def one_line(text: object) -> str:
    """The text on one line: every run of white space and control characters is a space."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(text)).strip()


def markdown_text(text: object) -> str:
    """As plain text anywhere in Markdown, a table's cell included."""
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(one_line(text), quote=False))
    escaped = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", escaped)
    return re.sub(r"^([#+>-])", r"\\\1", escaped)


def code_span(text: object) -> str:
    """As a code span, a table's cell included: its backticks are more than any run of them in the text."""
    line = one_line(text).replace("|", "\\|")
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{space}{line}{space}{fence}"


def code_block(text: object, language: str = "") -> str:
    """As a fenced block, whose fence is longer than any in the text."""
    content = str(text)
    fence = "`" * max(3, max(map(len, re.findall("`+", content)), default=0) + 1)
    return f"{fence}{language}\n{content}\n{fence}"
