"""The languages of the sample corpus by their two-letter codes."""

from collections.abc import Mapping

from .definition import SLOT_TYPES, EntityType, Language
from .english import ENGLISH
from .french import FRENCH
from .german import GERMAN
from .spanish import SPANISH

LANGUAGES: Mapping[str, Language] = {"en": ENGLISH, "fr": FRENCH, "de": GERMAN, "es": SPANISH}

__all__ = ["LANGUAGES", "SLOT_TYPES", "EntityType", "Language"]
