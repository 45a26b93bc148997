"""Posts to try a model on: pairs of one text with two drawings that give its name another type."""

import random
from dataclasses import dataclass

from PIL import Image

from .drawing import draw
from .subjects import PictureKind
from .texts import ambiguous_groups

_SEED = 1
# One pair of types a language, so that each example is a name of another kind.
_TYPES: dict[str, tuple[PictureKind, PictureKind]] = {
    "en": ("PER", "LOC"),
    "fr": ("LOC", "ORG"),
    "de": ("ORG", "MISC"),
    "es": ("PER", "MISC"),
}
_DRAWINGS = {"PER": "a person", "LOC": "a place", "ORG": "an organisation", "MISC": "a thing"}


@dataclass(frozen=True)
class Example:
    """A text and a picture to try; `alt` says in words what is drawn."""

    language: str
    text: str
    picture: Image.Image
    alt: str
    context: str = ""


def examples() -> list[Example]:
    """Two in each language; no text of theirs is in the training split."""
    found = []
    for language, types in _TYPES.items():
        group = next(group for group in ambiguous_groups(language, "test", _SEED) if group.types == types)
        text = group.sentence.replace("{NAME}", group.name)
        for kind in types:
            picture = draw(kind, random.Random(f"{text}:{kind}"))
            found.append(Example(language, text, picture, f"a drawing of {_DRAWINGS[kind]}"))
    return found
