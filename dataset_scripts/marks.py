"""A text with its entities marked, as HTML and CSS: the same marks on the demo page and on a corpus's contact
sheet.
"""

import base64
import html
import io
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image

from modeling_mmner.escaping import encodable

STYLE = """
.mmner { --mark: 85% 88%; --mark-ink: #111; --type: 70% 24%; --type-ink: #fff; }
.mmner .text { white-space: pre-wrap; overflow-wrap: anywhere; overflow-y: auto; line-height: 2; }
.mmner mark { background: hsl(var(--hue) var(--mark)); color: var(--mark-ink); border-radius: 6px; padding: 3px 5px;
    -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.mmner mark .type { background: hsl(var(--hue) var(--type)); color: var(--type-ink); margin-inline-start: 4px; padding: 1px 5px;
    border-radius: 4px; font-size: 0.8rem; font-weight: 700; white-space: nowrap; unicode-bidi: isolate; }
"""
"""CSS of marks inside an element of the class ``mmner``, and of a block of text (class ``text``) with such
marks.
"""

DARK_COLOURS = "--mark: 45% 24%; --mark-ink: #fff; --type: 80% 85%; --type-ink: #111;"
"""CSS declarations for ``.mmner`` on a dark page, which say the same of its colours as `STYLE` does for a
light one.
"""

# Of the usual types; another type has the hue that its name gives.
_HUES = {"PER": 215, "LOC": 145, "ORG": 35, "MISC": 290}


class Mark(NamedTuple):
    """An entity of a text: its first word, one past its last word, its type, and a label to show behind it,
    or none.
    """

    start: int
    end: int
    type: str
    label: str


def hue(entity_type: str) -> int:
    """The hue in 0..359 of a type's colour, the same on every page."""
    return _HUES.get(entity_type, zlib.crc32(entity_type.encode("utf-8", "surrogatepass")) % 360)


def escaped(text: object) -> str:
    """As HTML text or the value of an attribute. What UTF-8 cannot encode (half an emoji) stands as
    U+FFFD.
    """
    return html.escape(encodable(text))


def marked_words(
    words: Sequence[str],
    marks: Sequence[Mark],
    *,
    gaps: Sequence[str] | None = None,
    wrap: Callable[[int, str], str] = lambda number, word: word,
) -> str:
    """The words of a text as HTML with its entities marked; all of `words`, `gaps` and `marks` is escaped.

    Args:
        words: W words.
        marks: the entities, none inside another.
        gaps: the W + 1 texts before, between and after the words; by default a space between two.
        wrap: makes the HTML of a word from its number and its escaped text.
    """
    gaps = gaps or ["", *[" "] * (len(words) - 1), ""]
    opened, closed = {mark.start: mark for mark in marks}, {mark.end - 1: mark for mark in marks}
    parts = [escaped(gaps[0])]
    for number, word in enumerate(words):
        if number in opened:
            parts.append(f'<mark style="--hue:{hue(opened[number].type)}">')
        parts.append(wrap(number, escaped(word)))
        if number in closed:
            label = escaped(closed[number].label)
            parts.append(f'<span class="type">{label}</span></mark>' if label else "</mark>")
        parts.append(escaped(gaps[number + 1]))
    return "".join(parts)


def data_uri(picture: Image.Image, file_format: str = "PNG") -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, file_format)
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
