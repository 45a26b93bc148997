"""What a language brings to the sample corpus: its sentences, and the names that fill their slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EntityType = Literal["PER", "LOC", "ORG", "MISC"]

SLOT_TYPES: Mapping[str, EntityType] = {
    "PERSON": "PER",
    "PLACE": "LOC",
    "CLUB": "ORG",
    "COMPANY": "ORG",
    "PRODUCT": "MISC",
    "TITLE": "MISC",
}
"""The slots a sentence may hold, and the type of entity that each of them makes."""


@dataclass(frozen=True)
class Language:
    """Sentences and names, as tokens joined by spaces; a slot is a token such as {PERSON}."""

    sentences: tuple[str, ...]
    """Sentences with one to three slots, in which the words around a slot tell the entity's type."""

    sentences_without_entities: tuple[str, ...]
    neutral_sentences: tuple[str, ...]
    """Sentences with one slot {NAME}, in which no word tells a person, place, organisation or thing."""

    ambiguous_names: Mapping[tuple[EntityType, ...], tuple[str, ...]]
    """Names of one or two tokens by the types they may have; none of their tokens occurs in another name."""

    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    """The fillings of every slot but PERSON, which is filled with a first and mostly a last name."""

    hashtags: tuple[str, ...]
    """Words after a '#', none of which hints at a type of entity."""
