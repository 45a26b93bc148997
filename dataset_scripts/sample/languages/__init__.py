"""What each language brings to the sample corpus: its sentences, and the names that fill their slots."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from modeling_mmner.files import read_yaml

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
    """Sentences and names, as tokens joined by spaces; a slot is a token such as {PERSON}.

    Attributes:
        sentences: with one to three slots; the words around a slot tell the entity's type.
        sentences_without_entities: without slots.
        neutral_sentences: with one slot {NAME}; no word tells a person, place, organisation or thing.
        ambiguous_names: of one or two tokens, by the types they may have; none of their tokens occurs in
            another name.
        first_names, last_names: of the slot PERSON, which mostly takes both.
        names: the fillings of every other slot.
        hashtags: words after a '#', none of which hints at a type of entity.
    """

    sentences: list[str]
    sentences_without_entities: list[str]
    neutral_sentences: list[str]
    ambiguous_names: Mapping[tuple[EntityType, ...], list[str]]
    first_names: list[str]
    last_names: list[str]
    names: Mapping[str, list[str]]
    hashtags: list[str]


def _read(code: str) -> Language:
    content = read_yaml(resources.files(__package__).joinpath(f"{code}.yaml").read_text(encoding="utf-8"))
    by_types = {tuple(types.split()): names for types, names in content["ambiguous_names"].items()}
    return Language(**content | {"ambiguous_names": by_types})


LANGUAGES: Mapping[str, Language] = {code: _read(code) for code in ("en", "fr", "de", "es")}
