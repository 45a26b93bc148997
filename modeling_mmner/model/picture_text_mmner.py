"""Text that stands in pictures: what a picture reader gives -> texts for the model -> entities with boxes.

No reader of pictures is imported here: one is handed in, and what it gives is a stranger's text, which is
checked, bounded and tagged.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

PictureReader = Callable[[Image.Image], Iterable[Mapping[str, Any]]]
"""An upright RGB picture, in its own pixels -> its lines ``{"text", "score", "box"}``: the score in 0..1, the
box ``(xmin, ymin, xmax, ymax)`` or four corners. Lines may have ``"words"``, pieces ``{"text", "box"}`` from
first to last, by which the boxes of entities are more exact. Names in lines with a score below a reader's
attribute `least_score`, if it has one, are no entities.
"""
MOST_LINES, MOST_CHARACTERS = 256, 8192
"""Of a picture; what is beyond is not read."""
LEAST_SCORE = 0.65
"""Of the tagger, for an entity in a picture; chosen on pictures of tweets."""
_POWER = 3  # of the mean over the ways of reading: one that is sure counts for more than several that doubt
OWN_READERS: list[Callable[[], PictureReader]] = []
"""Makes that of the package, where it is loaded."""

_ADDRESS = re.compile(r"://|www\.|\S@\S|[^\W\d_]/|[^\W_]{2}\.(?:com|net|org|[a-z]{2})\b", re.IGNORECASE)
_GLUED = re.compile(r"(?<=[^\W\d_][.,:;!?])(?=[^\W\d_]{2})")
_WORD = re.compile(r"[^\W_](?:\S*[^\W_])?")
_NOT_FIRST = re.compile(r"(?<=[^\W\d_])['\u2019]?[^\W\d_]+")  # letters of a word


def reader_of(read_pictures: bool | PictureReader) -> PictureReader | None:
    """The picture reader that an option names: a function, True for the package's own, False for none.

    Raises:
        ValueError: it is none of them, or the package's own is not there.
    """
    if read_pictures is True and OWN_READERS:
        return OWN_READERS[0]()
    if read_pictures is False or callable(read_pictures):
        return read_pictures or None
    expected = "expected a function picture -> lines {text, score, box}, as"
    own = "modeling_mmner.inference.picture_reader.RapidOCRReader() of mmner[ocr]; True where that is loaded"
    raise ValueError(f"read_pictures: {expected} {own}; found {read_pictures!r:.80}")


class _Line(NamedTuple):
    text: str
    cells: np.ndarray  # (characters of the text, 4): where each stands
    scores: np.ndarray  # (characters of the text,)
    height: float  # of its letters

    @property
    def box(self) -> np.ndarray:
        return _around(self.cells)


@dataclass
class PictureText:
    """What stands in a picture.

    Attributes:
        image: the picture's number in its post, from 0.
        text: its lines in reading order, block by block, with spaces between.
        titled: the same text, its lines in capitals as titles.
        parts: places of its lines, of its blocks and of all in the text.
        cells: (C, 4), xmin, ymin, xmax, ymax of each character of the text, in the picture's pixels.
        scores: (C,), in 0..1: the reader's for the line of each character.
        least_score: of the reader, for an entity.
    """

    image: int
    text: str
    titled: str
    parts: list[slice]
    cells: np.ndarray
    scores: np.ndarray
    least_score: float = 0.0

    def readings(self) -> list[tuple[int, str]]:
        """The ways in which the model reads it, as places and texts: by lines, by blocks and as one, each as
        it stands and with lines in capitals as titles, which taggers have seen more of.
        """
        return [(part.start, text[part]) for text in (self.text, self.titled) for part in self.parts]

    def entities(self, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """The entities in the picture, of which no two overlap, from those found in each of its readings.

        The tagger's score of one is its cubic mean over the six ways of reading, 0 where it is not found.
        """
        totals: dict[tuple[int, int, str], float] = defaultdict(float)
        for place, text in self.readings():
            for one in found[text]:
                key = place + one["start"], place + one["end"], one["entity_group"]
                totals[key] += one["score"] ** _POWER / 6
        chosen: dict[int, dict[str, Any]] = {}
        taken = np.zeros(len(self.text), dtype=bool)
        for (start, end, kind), total in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
            own, score = self._placed(start, end), total ** (1 / _POWER)
            is_sure = score >= LEAST_SCORE and own["score"] >= self.least_score
            if is_sure and not taken[start:end].any() and not self._in_address(start, end):
                taken[start:end] = True
                entity = {"entity_group": kind, "score": score * own["score"], "word": own["word"]}
                chosen[start] = entity | {"start": None, "end": None, "image": self.image, "box": own["box"]}
        return [chosen[start] for start in sorted(chosen)]

    def seen(self, word: str) -> list[dict[str, Any]]:
        """Where the words of a text's entity stand in the picture, but for case and spaces."""
        wanted = [one.casefold() for one in _WORD.findall(unicodedata.normalize("NFC", word))]
        own = list(_WORD.finditer(self.text))
        folded = [one[0].casefold() for one in own]
        places = range(len(own) - len(wanted) + 1) if wanted else ()
        runs = [own[at : at + len(wanted)] for at in places if folded[at : at + len(wanted)] == wanted]
        return [{"image": self.image} | self._placed(run[0].start(), run[-1].end()) for run in runs]

    def _placed(self, start: int, end: int) -> dict[str, Any]:
        (xmin, ymin), (xmax, ymax) = _around(self.cells[start:end]).reshape(2, 2).tolist()
        box = {"xmin": int(xmin), "ymin": int(ymin), "xmax": round(xmax), "ymax": round(ymax)}
        return {"box": box, "word": self.text[start:end], "score": float(self.scores[start:end].mean())}

    def _in_address(self, start: int, end: int) -> bool:
        """Whether a place lies in an address of the web, whose parts are no names."""
        first, last = self.text.rfind(" ", 0, start) + 1, self.text.find(" ", end)
        return _ADDRESS.search(self.text[first : last if last > 0 else None]) is not None


def read_text(picture: Image.Image, reader: PictureReader, *, image: int = 0) -> PictureText:
    """What a reader finds in a picture, its lines in reading order.

    Raises:
        ValueError: it gives something else than lines; whatever it raises is left as it is.
    """
    lines, characters = [], 0
    for entry in islice(reader(picture), MOST_LINES):
        line = _line_of(entry, picture.size, MOST_CHARACTERS - characters)
        characters += len(line.text)
        if line.text:
            lines.append(line)
    blocks = _grouped([_joined(row) for row in _grouped(lines, along=0)], along=1)
    rows, wholes = list(chain.from_iterable(blocks)), [_joined(block) for block in blocks]
    whole, titled = _joined(wholes), " ".join(_titled(row.text) for row in rows)
    parts = [*_places(rows), *_places(wholes), slice(0, len(whole.text))]
    least = getattr(reader, "least_score", 0.0)
    return PictureText(image, whole.text, titled, parts, whole.cells, whole.scores, least)


def _places(lines: Sequence[_Line]) -> list[slice]:
    """Where lines stand in the text that they make together."""
    starts = accumulate((len(line.text) + 1 for line in lines), initial=0)
    return [slice(start, start + len(line.text)) for start, line in zip(starts, lines, strict=False)]


def _line_of(entry: Any, size: tuple[int, int], most: int) -> _Line:
    """A line of a reader's: boxes end at the picture's edges, the text after so many characters."""
    try:
        given, score, corners = entry["text"], float(entry["score"]), _corners(entry["box"], size)
        pieces = [(_plain(one["text"]), _corners(one["box"], size)) for one in entry.get("words") or ()]
        if not (isinstance(given, str) and 0 <= score <= 1):
            raise ValueError("no text, or a score out of 0..1")
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        expected = "expected lines {'text': str, 'score': 0..1, 'box': (xmin, ymin, xmax, ymax) or corners}"
        raise ValueError(f"picture reader: {expected}, found {entry!r:.200} ({error})") from error
    text = _plain(given)[:most].strip()
    if "".join(piece for piece, _ in pieces).replace(" ", "") != text.replace(" ", ""):
        pieces = [(text, corners)]
    text = " ".join(word if _ADDRESS.search(word) else _GLUED.sub(" ", word) for word in text.split())
    letters = np.concatenate([np.zeros((0, 4)), *(_cells(*piece) for piece in pieces)])
    cells = letters[np.cumsum([letter != " " for letter in text], dtype=int) - 1]
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    height = float(min(sides[0::2].mean(), sides[1::2].mean()))
    return _Line(text, cells, np.full(len(text), score), height)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _corners(box: Any, size: tuple[int, int]) -> np.ndarray:
    """(4, 2) corners of a box, within the picture."""
    given = np.asarray(box, dtype=np.float64)
    corners = given[[[0, 1], [2, 1], [2, 3], [0, 3]]] if given.shape == (4,) else given
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        raise ValueError("a box of another shape, or with no finite numbers")
    return corners.clip(0, size)


def _cells(text: str, corners: np.ndarray) -> np.ndarray:
    """(letters, 4) boxes of a text's characters but its spaces; all share the longer side of its box."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    longer = int(high[1] - low[1] > high[0] - low[0] and len(text) > 1)
    edges = np.linspace(low[longer], high[longer], len(text) + 1)
    cells = np.tile(np.concatenate([low, high]), (len(text), 1))
    cells[:, longer], cells[:, longer + 2] = edges[:-1], edges[1:]
    return cells[[letter != " " for letter in text]]


def _around(cells: np.ndarray) -> np.ndarray:
    return np.concatenate([cells[:, :2].min(axis=0), cells[:, 2:].max(axis=0)])


def _joined(lines: Sequence[_Line]) -> _Line:
    """Lines as one; the spaces between stand where the character before them does."""
    if not lines:
        return _Line("", np.zeros((0, 4)), np.zeros(0), 0.0)
    cells = [np.concatenate([line.cells, line.cells[-1:]]) for line in lines]
    scores = [np.append(line.scores, line.scores[-1]) for line in lines]
    text = " ".join(line.text for line in lines)
    return _Line(text, np.concatenate(cells)[:-1], np.concatenate(scores)[:-1], lines[0].height)


def _grouped(lines: Iterable[_Line], *, along: int) -> list[list[_Line]]:
    """Lines that follow each other from left to right (along 0) or from top to bottom (1): near the last one
    of their group, beside or below it, with letters of about its size. Groups begin from top to bottom.
    """
    groups: list[list[_Line]] = []
    across = 1 - along
    for line in sorted(lines, key=lambda line: (line.box[along], line.box[across])):
        box = line.box
        for group in reversed(groups):
            last, (low, high) = group[-1].box, sorted([line.height, group[-1].height])
            gap = (box[along] - last[along + 2]) / max(low, 1)
            shared = min(box[across + 2], last[across + 2]) - max(box[across], last[across])
            if shared > (0 if along else low / 2) and -0.6 <= gap <= 0.7 and high <= 1.7 * low:
                group.append(line)
                break
        else:
            groups.append([line])
    return sorted(groups, key=lambda group: (group[0].box[1], group[0].box[0]))


def _titled(line: str) -> str:
    """A line in capitals as a title, any other as it is; initials (U.K.) stay."""
    letters = [letter for letter in line if letter.isalpha()]
    if len(letters) < 2 or sum(map(str.isupper, letters)) < 0.8 * len(letters):
        return line
    titled = _NOT_FIRST.sub(lambda found: found[0].lower(), line)
    return titled if len(titled) == len(line) else line
