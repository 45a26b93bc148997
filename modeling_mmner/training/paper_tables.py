"""The papers' tables: each row a recipe, and the figures that the paper reports for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from ..files import read_yaml
from .recipes import TOWER_FLAGS, Recipe, load_recipe


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: as the paper has it.
        recipe: the recipe of its system.
        reported: the paper's precision, recall and F1 on the test split in percent, None where it has only
            F1; empty where it has no figures.
        settings: of the recipe, for this row alone.
    """

    name: str
    recipe: str
    reported: tuple[float | None, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table: what it is of, and its rows from top to bottom."""

    source: str
    rows: tuple[Row, ...]


_TEXT = resources.files(__package__).joinpath("paper_tables.yaml").read_text(encoding="utf-8")
TABLES = {
    name: PaperTable(table["source"], tuple(Row(**row) for row in table["rows"]))
    for name, table in read_yaml(_TEXT).items()
}

# What only some rows can take, and the others pass over.
_OF_ENCODERS = {"text_encoder", "text_config", "context", "context_file", "context_writer", "context_window"}
_OF_TOWERS = {"vision_towers", *TOWER_FLAGS}


def row_recipe(row: Row, settings: Mapping[str, Any], *, encoders: str | None = None) -> Recipe:
    """The recipe of a row.

    Args:
        settings: for all rows, by their plain names; what a row has no part for, it passes over.
        encoders: a recipe whose text encoder and picture encoders take the place of the row's own.

    Raises:
        ValueError, TypeError: as `load_recipe`.
    """
    own = load_recipe(row.recipe)
    has_encoder = own.model.text_tower.has_encoder
    given = dict(settings)
    if encoders is not None:
        donor = load_recipe(encoders).to_settings()["model"]
        shared = donor.keys() & {"text_encoder", "text_config", "vision_towers"}
        given = {key: donor[key] for key in shared} | given
        if has_encoder:
            given.setdefault("vocabulary_size", donor["vocabulary_size"])
    missing = {"word_vectors"} if has_encoder else _OF_ENCODERS
    missing = missing if own.model.towers else missing | _OF_TOWERS
    given = {key: value for key, value in given.items() if key not in missing}
    return load_recipe(row.recipe, given | dict(row.settings))
