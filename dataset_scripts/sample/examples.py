"""Posts to try a model on: pairs of one text with two drawings that give its name another type."""

import random
from typing import NamedTuple

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


class Example(NamedTuple):
    """A text and a picture to try."""

    language: str
    text: str
    picture: Image.Image


def examples() -> list[Example]:
    """Two in each language; no text of theirs is in the training split."""
    found = []
    for language, types in _TYPES.items():
        group = next(group for group in ambiguous_groups(language, "test", _SEED) if group.types == types)
        text = group.sentence.replace("{NAME}", group.name)
        for kind in types:
            found.append(Example(language, text, draw(kind, random.Random(f"{text}:{kind}"))))
    return found
