"""Posts of a corpus on one sheet, to look at: each a card with its pictures and its text, the entities marked."""

import colorsys
import random
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import matplotlib
from PIL import Image, ImageDraw, ImageFont

from modeling_mmner.images_mmner import PictureError, load_picture, pictures_of
from modeling_mmner.labels_mmner import OUTSIDE, entity_types, tags_to_spans

from .inspection import picture_numbers

CARD_WIDTH, PICTURE_HEIGHT, NO_PICTURE_HEIGHT = 360, 240, 50
"""Of a card, of the room for pictures on it, and of that room on a sheet without any picture; in pixels."""

_INK, _MUTED, _PAGE, _CARD, _EMPTY, _EDGE = "#1f2933", "#68727d", "#eef1f4", "#ffffff", "#dde2e8", "#ccd3da"
_MARGIN, _INSET, _PAD = 20, 12, 4  # around cards, inside a card, beside a marked entity
_LINE, _SMALL_LINE = 25, 17
_MAX_LINES, _MAX_PICTURES, _LONGEST_PART = 12, 4, 500
_UNDRAWABLE = ("Cc", "Cs", "Zl", "Zp")
_PASTELS = ("#ffcf99", "#a6e3a1", "#a5d0ff", "#e2c4ff", "#fff09a", "#ffb6bb", "#9be8e0", "#d8cfc0")

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Piece:
    """A run of characters on one line of wrapped text.

    Attributes:
        text: part of a word as it is shown, or an entity's type behind its last word, or the note that ends a cut text.
        word: which word it is part of; None: a type or the note.
        entity: which of the entities it belongs to; None: none.
        x, width: where it begins and how wide it is with the padding of its entity, in pixels.
    """

    text: str
    word: int | None
    entity: int | None
    x: float
    width: float


def contact_sheet(
    rows: datasets.Dataset,
    labels: Sequence[str],
    path: str | Path,
    *,
    count: int = 12,
    seed: int = 1,
    columns: int = 4,
    title: str = "",
) -> list[str]:
    """Save a PNG with cards of some posts, chosen by `choose_posts` and in the order of the corpus.

    Args:
        rows: with the columns of a `Corpus`; pictures that are missing or broken are said to be so on their card.
        labels: the BIO label names in id order.
        count: of posts; all if there are fewer.
        columns: cards in a row.
        title: above the cards, before the number of posts and the types.

    Returns:
        The ids of the posts shown.

    Raises:
        ValueError: there is no post, or `count` or `columns` is not positive.
    """
    if not len(rows):
        raise ValueError("rows: expected at least one post, found none; there is nothing to show")
    if count < 1 or columns < 1:
        raise ValueError(f"expected count and columns of at least 1, found count {count} and columns {columns}")
    chosen = choose_posts(rows, labels, count=count, seed=seed)
    posts = [rows[number] for number in chosen]
    picture_height = PICTURE_HEIGHT if any(map(pictures_of, posts)) else NO_PICTURE_HEIGHT
    cards = [draw_card(post, labels, picture_height=picture_height) for post in posts]
    columns = min(columns, len(cards))
    lines = [cards[first : first + columns] for first in range(0, len(cards), columns)]
    width = _MARGIN + columns * (CARD_WIDTH + _MARGIN)
    head = _draw_head(width, labels, " ".join(filter(None, [title, f"{len(posts):,} of {len(rows):,} posts"])))
    heights = [max(card.height for card in line) for line in lines]
    sheet = Image.new("RGB", (width, head.height + sum(heights) + len(lines) * _MARGIN), _PAGE)
    sheet.paste(head, (0, 0))
    draw, y = ImageDraw.Draw(sheet), head.height
    for line, height in zip(lines, heights, strict=True):
        for column, card in enumerate(line):
            x = _MARGIN + column * (CARD_WIDTH + _MARGIN)
            draw.rectangle((x - 1, y - 1, x + CARD_WIDTH, y + height), fill=_CARD, outline=_EDGE)
            sheet.paste(card, (x, y))
        y += height + _MARGIN
    sheet.save(path, format="PNG")
    return [str(post["id"]) for post in posts]


def choose_posts(rows: datasets.Dataset, labels: Sequence[str], *, count: int, seed: int) -> list[int]:
    """Which posts to show: a sample at random, of posts that have both a picture and an entity as long as there are such,
    then of posts that have either, then of the rest. The positions are in ascending order."""
    tags = rows.select_columns(["ner_tags"]).with_format("arrow")[:]["ner_tags"].to_pylist()
    outside = labels.index(OUTSIDE)
    has_picture = picture_numbers(rows) > 0
    merits = [any(tag != outside for tag in post) + int(pictured) for post, pictured in zip(tags, has_picture, strict=True)]
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    return sorted(sorted(order, key=lambda position: -merits[position])[:count])


def type_colours(types: Sequence[str]) -> dict[str, str]:
    """A light background colour for each type (``#rrggbb``), different for each, the same whatever types come behind it."""
    return {name: _PASTELS[number] if number < len(_PASTELS) else _further_pastel(number) for number, name in enumerate(types)}


def _further_pastel(number: int) -> str:
    """Hues a golden section apart never meet again; three depths keep neighbours apart."""
    hue, depth = number * 0.618034 % 1, number % 3
    channels = colorsys.hls_to_rgb(hue, (0.78, 0.7, 0.86)[depth], (0.8, 0.5, 0.9)[depth])
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def draw_card(row: dict[str, Any], labels: Sequence[str], *, picture_height: int = PICTURE_HEIGHT) -> Image.Image:
    """A post as an image `CARD_WIDTH` pixels wide: pictures, id, language and source, the text with its entities marked."""
    inner = CARD_WIDTH - 2 * _INSET
    pictures = pictures_of(row)
    spans = tags_to_spans([labels[tag] for tag in row["ner_tags"]])
    lines = wrap_words(row["tokens"], [(span.start, span.end, span.type) for span in spans], width=inner)
    top = picture_height + _INSET
    text_top = top + 2 * _SMALL_LINE + 6
    card = Image.new("RGB", (CARD_WIDTH, text_top + len(lines) * _LINE + _INSET), _CARD)
    card.paste(_picture_room(pictures, (CARD_WIDTH, picture_height)), (0, 0))
    draw = ImageDraw.Draw(card)
    number = "" if len(pictures) < 2 else f"{len(pictures)} pictures"
    number += f", {_MAX_PICTURES} shown" if len(pictures) > _MAX_PICTURES else ""
    about = " · ".join(str(part) for part in (row.get("language"), row.get("source"), number) if part)
    draw.text((_INSET, top), _fitted(str(row["id"]), _font(12, bold=True), inner), font=_font(12, bold=True), fill=_INK)
    draw.text((_INSET, top + _SMALL_LINE), _fitted(about, _font(12), inner), font=_font(12), fill=_MUTED)
    colours = type_colours(entity_types(labels))
    for position, line in enumerate(lines):
        _draw_line(draw, line, (_INSET, text_top + position * _LINE), [colours[span.type] for span in spans])
    return card


def _draw_head(width: int, labels: Sequence[str], title: str) -> Image.Image:
    """What stands above the cards: the title, and the types on their colours."""
    types = entity_types(labels)
    wrapping = _Wrapping(width - 2 * _MARGIN)
    for position, word in enumerate(title.split()):
        wrapping.add(shown(word), word=position)
    for number, name in enumerate(types):
        wrapping.add(shown(name), word=number, entity=number)
    head = Image.new("RGB", (width, len(wrapping.lines) * _LINE + 2 * _INSET), _PAGE)
    colours = list(type_colours(types).values())
    for position, line in enumerate(wrapping.lines):
        _draw_line(ImageDraw.Draw(head), line, (_MARGIN, _INSET + position * _LINE), colours)
    return head


def _picture_room(pictures: Sequence[Any], size: tuple[int, int]) -> Image.Image:
    """The first pictures in two columns, each whole; grey boxes say where one is missing or broken."""
    if not pictures:
        return _box("no picture", size)
    room = Image.new("RGB", size, _EMPTY)
    columns, lines = min(len(pictures), 2), 1 if len(pictures) <= 2 else 2
    cell_size = (size[0] // columns, size[1] // lines)
    for position, picture in enumerate(pictures[:_MAX_PICTURES]):
        try:
            cell = _letterboxed(load_picture(picture), cell_size)
        except PictureError as error:
            cell = _box(f"broken picture: {str(error).removeprefix('picture ')}", cell_size)
        room.paste(cell, (position % columns * cell_size[0], position // columns * cell_size[1]))
    return room


def _letterboxed(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The whole picture as large as fits, in the middle of a grey box."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    # A line of pixels must not shrink to none.
    width, height = (max(1, round(scale * side)) for side in picture.size)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)
    cell = Image.new("RGB", size, _EMPTY)
    cell.paste(resized, ((size[0] - width) // 2, (size[1] - height) // 2))
    return cell


def _box(text: str, size: tuple[int, int]) -> Image.Image:
    """A grey box with a text in its middle."""
    cell = Image.new("RGB", size, _EMPTY)
    lines = wrap_words(text.split(), [], width=size[0] - 2 * _INSET, max_lines=size[1] // _LINE)
    for position, line in enumerate(lines):
        width = line[-1].x + line[-1].width if line else 0
        top = (size[1] - len(lines) * _LINE) // 2 + position * _LINE
        _draw_line(ImageDraw.Draw(cell), line, ((size[0] - width) // 2, top), [], ink=_MUTED)
    return cell


def _draw_line(
    draw: ImageDraw.ImageDraw, line: Sequence[Piece], place: tuple[float, float], colours: Sequence[str], ink: str = _INK
) -> None:
    """A line of text with its top left at `place`; `colours` are those of the entities."""
    left, top = place
    marked = {piece.entity: piece for piece in line if piece.entity is not None}  # the last piece of each
    for entity, last in marked.items():
        first = next(piece for piece in line if piece.entity == entity)
        box = (left + first.x, top + 1, left + last.x + last.width, top + _LINE - 3)
        draw.rounded_rectangle(box, radius=4, fill=colours[entity])
    for piece in line:
        is_note = piece.word is None and piece.entity is None
        x = left + piece.x + (0 if piece.entity is None else _PAD)
        draw.text((x, top + _LINE - 8), piece.text, font=_piece_font(piece.word), fill=_MUTED if is_note else ink, anchor="ls")


def wrap_words(
    words: Sequence[str],
    spans: Sequence[tuple[int, int, str]],
    *,
    width: float,
    max_lines: int = _MAX_LINES,
) -> list[list[Piece]]:
    """Break a text into lines no wider than `width` pixels. Words go to the next line whole; one wider than a line is broken
    between characters. A text of more than `max_lines` lines ends with a note of how many words are missing.

    Args:
        words: any; they are shown as by `shown`.
        spans: (first word, one past the last word, type) of the entities, apart from each other. The type follows the last
            word, on its line where both fit into one.
    """
    entity_of = {word: number for number, (start, end, _) in enumerate(spans) for word in range(start, end)}
    type_after = {end - 1: shown(entity_type) for _, end, entity_type in spans}
    wrapping = _Wrapping(width)
    for number, word in enumerate(words):
        entity, name = entity_of.get(number), type_after.get(number)
        wrapping.add(shown(word), word=number, entity=entity, behind=name or "")
        if name is not None:
            wrapping.add(name, entity=entity)
    return wrapping.cut(max_lines)


class _Wrapping:
    """Lines of text that grow piece by piece."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.lines: list[list[Piece]] = [[]]

    def add(self, text: str, *, word: int | None = None, entity: int | None = None, behind: str = "") -> None:
        """Put a text behind the last one: on the next line where it does not fit, together with the type `behind` it; in parts
        where no line could hold it."""
        font, padding = _piece_font(word), 0 if entity is None else 2 * _PAD
        needed = font.getlength(text) + padding
        needed += (_piece_font(None).getlength(behind) + padding + self._gap(entity, entity)) if behind else 0
        for part in _parts(text, font, self.width - padding):
            if self.lines[-1] and self._next_x(entity) + needed > self.width:
                self.lines.append([])
            self.lines[-1].append(Piece(part, word, entity, self._next_x(entity), font.getlength(part) + padding))

    def cut(self, max_lines: int) -> list[list[Piece]]:
        """The first lines; where there are more, the last of them ends with a note."""
        lines, rest = self.lines[:max_lines], self.lines[max_lines:]
        if not rest:
            return lines
        missing = {piece.word for line in rest for piece in line} - {None}
        font, self.lines = _piece_font(None), lines
        while True:
            note = f"… {len(missing)} more word{'' if len(missing) == 1 else 's'}" if missing else "…"
            x, width = self._next_x(None), font.getlength(note)
            if x + width <= self.width or not lines[-1]:
                lines[-1].append(Piece(note, None, None, x, width))
                return lines
            missing |= {lines[-1].pop().word} - {None}

    def _next_x(self, entity: int | None) -> float:
        """Where a piece would begin on the last line."""
        if not self.lines[-1]:
            return 0
        last = self.lines[-1][-1]
        return last.x + last.width + self._gap(last.entity, entity)

    def _gap(self, before: int | None, after: int | None) -> float:
        """Between two pieces; inside an entity the padding of both is no gap."""
        space = _piece_font(0).getlength(" ")
        return space - 2 * _PAD if before is not None and before == after else space


def _parts(text: str, font: Font, width: float) -> list[str]:
    """The text in parts no wider than `width`, of one character at least; a single empty one of an empty text."""
    if font.getlength(text) <= width:
        return [text]
    parts = []
    while text:
        length = bisect_right(range(1, min(len(text), _LONGEST_PART) + 1), width, key=lambda end: font.getlength(text[:end]))
        parts.append(text[: max(length, 1)])
        text = text[len(parts[-1]) :]
    return parts


def _fitted(text: str, font: Font, width: float) -> str:
    """One line of text; what is too wide ends with an ellipsis."""
    text = shown(text)
    if font.getlength(text) <= width:
        return text
    return f"{_parts(text, font, width - font.getlength('…'))[0]}…"


def shown(text: str) -> str:
    """A text as it can be drawn on one line: accents on their letters, a box for a control character or half of a surrogate
    pair. Characters that the font lacks it draws as boxes itself."""
    composed = unicodedata.normalize("NFC", text)
    return "".join("\u25a1" if unicodedata.category(character) in _UNDRAWABLE else character for character in composed)


def _piece_font(word: int | None) -> Font:
    """Words are larger than types and notes."""
    return _font(10, bold=True) if word is None else _font(15)


@cache
def _font(size: int, *, bold: bool = False) -> Font:
    """A font that comes with a package we need anyway, so that a sheet looks the same everywhere."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    # The basic layout is in every build of Pillow.
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
