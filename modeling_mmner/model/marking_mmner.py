"""Posts with their entities marked: in a notebook as displaCy draws them, in a terminal in colours."""

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from itertools import cycle, starmap
from operator import itemgetter
from typing import Any

# displaCy's.
_COLOURS = ("#aa9cfc", "#ff9561", "#7aecec", "#feca74", "#bfeeb7", "#ff8197", "#9cc9cc", "#ffeb80", "#c887fb")
_POST = """<div style="display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; margin: 0.5em 0">
{pictures}<div style="flex: 1 1 20em; min-width: 0">
<div class="entities" dir="auto" style="line-height: 2.5; white-space: pre-wrap">{text}</div>
{notes}</div></div>"""
_MARK = """<mark class="entity" title="{score:.4f}" style="background: {colour}; color: #000; line-height: 1;
 padding: 0.45em 0.6em; margin: 0 0.25em; border-radius: 0.35em">{word}<span style="font-size: 0.8em;
 font-weight: bold; vertical-align: middle; margin-inline-start: 0.5rem">{kind}</span></mark>"""
_PICTURE = '<img alt="picture of the post" src="data:image/jpeg;base64,{data}" style="max-width: 15em">\n'


def encodable(text: object) -> str:
    """The text with U+FFFD for what UTF-8 cannot encode, as half an emoji or a byte of a file name."""
    return str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def printable(text: object) -> str:
    """The text for a terminal, which obeys control characters: all but line ends and tabs as ``\\x1b``."""
    control = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    return re.sub(control, lambda found: f"\\x{ord(found[0]):02x}", encodable(text))


class MarkedPosts:
    """Posts with their entities marked: HTML in a notebook, text elsewhere, which rich prints in colours.

    Args:
        predictions: of posts, see `Prediction`; HTML has their thumbnails beside the text.
        types: the entity types, of which each has a colour.
    """

    def __init__(self, predictions: Sequence[Any], types: Sequence[str]) -> None:
        self.predictions = predictions
        self._colours = dict(zip(types, cycle(_COLOURS), strict=False))

    def _repr_html_(self) -> str:
        """The posts, each with its pictures beside it; whatever others wrote is escaped."""
        return "\n".join(map(self._html, self.predictions))

    def _html(self, found: Any) -> str:
        text = ""
        for piece, kind, score in _pieces(found):
            word, shown = html.escape(encodable(piece)), html.escape(encodable(kind))
            colour = self._colours.get(kind)
            text += _MARK.format(word=word, kind=shown, score=score, colour=colour) if kind else word
        pictures = [_PICTURE.format(data=_jpeg(picture)) for picture in found.thumbnails]
        notes = [f"<p><small>{html.escape(encodable(note))}</small></p>" for note in found.broken_pictures]
        return _POST.format(pictures="".join(pictures), text=text, notes="".join(notes))

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        """A line for each post; an entity as ``Jordan [PER 0.97]``."""
        for found in self.predictions:
            text = console.render_str("")
            for piece, kind, score in _pieces(found):
                style = f"#000000 on {self._colours[kind]}" if kind else ""
                text.append(_as_text(piece, kind, score), style)
            yield text

    def __repr__(self) -> str:
        """What `__rich_console__` gives, without its colours."""
        return "\n".join("".join(starmap(_as_text, _pieces(found))) for found in self.predictions)


def _pieces(found: Any) -> Iterator[tuple[str, str, float]]:
    """The text of a post, or why it could not be read, in pieces, with the type and score of entities."""
    text, end = str(found.error) if found.post is None else found.post.text, 0
    own = (entity for entity in found.entities if entity["start"] is not None)
    for entity in sorted(own, key=itemgetter("start")):
        yield text[end : entity["start"]], "", 0.0
        end = entity["end"]
        yield text[entity["start"] : end], entity["entity_group"], entity["score"]
    yield text[end:], "", 0.0
    for entity in found.entities:
        if entity["start"] is None:
            yield f"\nin picture {entity['image'] + 1}: ", "", 0.0
            yield entity["word"], entity["entity_group"], entity["score"]


def _as_text(piece: str, kind: str, score: float) -> str:
    sure = ">0.99" if score > 0.99 else f"{score:.2f}"
    return printable(f"{piece} [{kind} {sure}]" if kind else piece)


def _jpeg(picture: Any) -> str:
    picture.save(file := io.BytesIO(), "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()
