"""What the demo page says of a post: its entities with the picture, without it and with another one.

A mistake of a visitor's is a `gr.Error` with a sentence of demo.yaml; nothing that they sent is in it.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from itertools import compress, islice
from typing import Any
from unicodedata import bidirectional

import gradio as gr
import numpy as np
from gradio_client.utils import is_file_obj_with_meta
from PIL import Image, ImageOps

from ..escaping import encodable
from ..files import read_yaml
from ..hub.examples import Example
from ..model.images_mmner import PictureError, load_picture
from ..model.picture_text_mmner import PictureReader
from ..model.posts_mmner import fetched
from ..model.prediction_mmner import BatchPredictor, PostReader
from ..model.processing_mmner import MMNERProcessor
from .demo_limits import MOST_PICTURES
from .explain import explain

SAID = read_yaml(resources.files(__package__).joinpath("demo.yaml").read_text("utf-8"))
MOST_CHARACTERS = 20_000
"""Of a text with its context: some 4,000 words, which take seconds. Others wait for as long."""
DRAWN_SIZE = (512, 512)
"""Of a picture, at most; smaller ones are enlarged."""
PART_CHARACTERS = 2000
"""Of a part of a long text, which is read by itself: about what an encoder reads at once."""

# The rest of a text; or else up to the end of a sentence or line, to a blank, or to anything.
_PART = re.compile(
    r"(?s).{1,2000}\Z|.{1000,1999}[.!?\n\u2026\u3002\uff01\uff1f](?=\s)|.{1,2000}(?=\s)|.{1,2000}"
)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What was found in a post so far.

    Attributes:
        text: of the post.
        readings: entities as `explain` gives them, found with the pictures ("with") and, where that was
            tried, without any ("without"), with others in their place ("other"), and in the text that stands
            in them ("inside"), each with its `image` and `box`.
        pictures: to be drawn on, the small ones enlarged.
        scales: by how much each is larger than the one given.
        cells: (E, N, 4, 4), see `explain`; None for a long text, too.
        done: the share of the text that is read, in 0..1.
    """

    text: str
    readings: dict[str, list[dict[str, Any]]]
    pictures: list[Image.Image]
    cells: np.ndarray | None
    done: float
    scales: Sequence[float] = ()

    @property
    def entities(self) -> list[dict[str, Any]]:
        """Those of the post as it is."""
        return self.readings["with"]

    def above(self, threshold: float) -> "Answer":
        """The same without the entities that have a lower score."""
        sure = {name: [one["score"] >= threshold for one in found] for name, found in self.readings.items()}
        kept = {name: [*compress(found, sure[name])] for name, found in self.readings.items()}
        return replace(self, readings=kept, cells=None if self.cells is None else self.cells[sure["with"]])

    def marked(self, name: str) -> list[tuple[str, str | None]]:
        """The text of a reading in pieces, each with its label or None; every second one is an entity, whose
        label says so where no other reading has it.

        What UTF-8 cannot encode is U+FFFD.
        """
        others = self.readings.get("without" if name == "with" else "with")
        known = None if others is None else [_place(one) for one in others]
        pieces: list[tuple[str, str | None]] = []
        end = 0
        for one in self.readings.get(name, []):
            label = one["entity_group"]
            if known is not None and _place(one) not in known:
                label = label_only(label, name)
            before, end = self.text[end : one["start"]], one["end"]
            if pieces and before.isspace():  # which by itself would be a button without a name
                pieces[-1], before = (pieces[-1][0] + before, pieces[-1][1]), ""
            pieces += [(encodable(before), None), (encodable(self.text[one["start"] : end]), label)]
        return [*pieces, (encodable(self.text[end:]), None)]

    @property
    def is_right_to_left(self) -> bool:
        """Whether the first letter that has a direction goes from right to left, as in Arabic and Hebrew."""
        kinds = (bidirectional(character) for character in self.text)
        return next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L"


NOTHING = Answer("", {"with": []}, [], None, 1.0)


@dataclass(eq=False)
class Answers:
    """Answers posts by a model in evaluation mode, on its device.

    Attributes:
        examples: their pictures are the others that posts are read with.
        picture_reader: see `PictureReader`; None: nobody reads the text in pictures.
    """

    model: Any
    processor: MMNERProcessor
    examples: Sequence[Example] = ()
    picture_reader: PictureReader | None = None

    def find_entities(
        self, text: str, pictures: list[str] | None = None, context: str = "", threshold: float = 0.0
    ) -> list[dict]:
        """Find the people, places, organisations and other named things in a post: a text and its pictures.

        Args:
            text: of the post, at most 20,000 characters with its context
            pictures: at most 4, each data:image/jpeg;base64,... (1 MB) or handle_file(path) of gradio_client
            context: what somebody wrote about the post or its pictures; few models read it
            threshold: between 0 and 1; entities with a lower score are left out

        Returns:
            the entities, each with entity_group (its type), score (0 to 1), word, start, end (in characters)
            and picture_effect (-1 to 1: by how much the pictures raise the score; null where there is none)
        """
        with _mistakes():
            strings, numbers = isinstance(text, str) and isinstance(context, str), (int, float)
            is_share = isinstance(threshold, numbers) and 0 <= threshold <= 1
            if not (strings and is_share and isinstance(pictures or [], list)):
                raise mistake("unreadable")
            loaded = self._loaded(text, [*map(_sent, pictures or [])], context)
            *_, answer = self._parts(text, loaded, [], context, has_cells=False)
            return answer.above(threshold).entities

    def compared(
        self, text: str, pictures: Sequence[Any], others: Sequence[Any], context: str, *, inside: bool = False
    ) -> Iterator[Answer]:
        """What is found in a post as it is, with each cell of its pictures blanked, without them, with others
        (none: an example's) and, where asked for, inside its pictures; again and again while it is read.

        Raises:
            gr.Error: the post cannot be read.
        """
        with _mistakes():
            own, beside = (self._loaded(text, given, context) for given in (pictures, others))
            same = [(one.size, one.tobytes()) for one in own]
            shown = (picture for example in self.examples for picture in example.pictures[:1])
            differing = (one for one in shown if (one.size, one.tobytes()) not in same)
            beside = beside or [*islice(differing, 1)]
            for answer in self._parts(text, own, beside, context, has_cells=len(text) <= PART_CHARACTERS):
                yield answer
            if own and inside and (reader := self.picture_reader):
                found = explain(self.model, self.processor, "-", own, cells=False, read_pictures=reader)
                yield replace(answer, readings=answer.readings | {"inside": found.in_pictures})

    def _loaded(self, text: str, pictures: Sequence[Any], context: str) -> list[Image.Image]:
        """The pictures, if all is within bounds."""
        is_long, are_many = len(text) + len(context) > MOST_CHARACTERS, len(pictures) > MOST_PICTURES
        problems = {"empty_text": not text.strip(), "long_text": is_long, "many_pictures": are_many}
        for problem in compress(problems, problems.values()):
            raise mistake(problem)
        return [*map(load_picture, pictures)]

    def _parts(
        self, text: str, pictures: Sequence[Any], others: Sequence[Any], context: str, *, has_cells: bool
    ) -> Iterator[Answer]:
        drawn = [ImageOps.contain(picture, DRAWN_SIZE) for picture in pictures]
        scales = [new.width / old.width for new, old in zip(drawn, pictures, strict=True)]
        pictures = pictures if self.processor.image_size is not None else []
        predictor, beside = BatchPredictor(self.model, PostReader(self.processor)), context or None
        readings: dict[str, list[dict[str, Any]]] = {}
        for part in _PART.finditer(text):
            if not part[0].strip():
                continue
            found = explain(self.model, self.processor, part[0], pictures, context=beside, cells=has_cells)
            read = {"with": found.entities}
            if pictures:
                read["without"] = found.without_pictures
            if pictures and others:
                (other,) = predictor.predict([{"text": part[0], "images": others, "context": beside}])
                read["other"] = other.entities
            readings = {
                name: readings.get(name, []) + [_moved(one, part.start()) for one in entities]
                for name, entities in read.items()
            }
            yield Answer(text, readings, drawn, found.cells, part.end() / len(text), scales)


def label_only(label: str, name: str) -> str:
    """The label of an entity that one reading has alone."""
    return f"{label} \u2013 {SAID['only'][name]}"


def mistake(name: str) -> gr.Error:
    """What is said of a mistake."""
    return gr.Error(SAID[name], print_exception=False)


def _place(entity: dict[str, Any]) -> tuple[Any, ...]:
    return entity["entity_group"], entity["start"], entity["end"]


def _moved(entity: dict[str, Any], by: int) -> dict[str, Any]:
    """The entity of a part where it stands in the whole text; its word can be sent."""
    place = {"start": entity["start"] + by, "end": entity["end"] + by}
    return entity | place | {"word": encodable(entity["word"])}


def _sent(picture: Any) -> Any:
    """The file or bytes of a picture that came by the API; Gradio has checked where an uploaded file lies."""
    if is_file_obj_with_meta(picture):
        return picture["path"]
    if not isinstance(picture, str) or not picture.startswith("data:image/"):
        raise mistake("upload_only")
    return fetched(picture, allow_urls=False, timeout=0)


@contextmanager
def _mistakes() -> Iterator[None]:
    """Whatever is raised becomes a sentence for visitors, and a line of the log."""
    try:
        yield
    except gr.Error:
        raise
    except PictureError as error:
        _logger.warning("%s", error)
        raise mistake("broken_picture") from None
    except Exception:
        _logger.exception("the demo page could not find the entities of a text")
        raise mistake("unexpected") from None
