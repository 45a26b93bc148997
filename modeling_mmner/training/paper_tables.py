"""The papers' tables: each row a recipe, and the figures that the paper reports for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

from .recipes import TOWER_FLAGS, Recipe, load_recipe


class Reported(NamedTuple):
    """What a paper reports of a system on the test split: precision, recall and F1 in percent; None where it
    has only F1.
    """

    precision: float | None
    recall: float | None
    f1: float


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: as the paper has it.
        recipe: the recipe of its system.
        reported: the paper's figures, where it has any.
        settings: of the recipe, for this row alone.
    """

    name: str
    recipe: str
    reported: Reported | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table: what it is of, and its rows from top to bottom."""

    source: str
    rows: tuple[Row, ...]


_MLMNER = "Li et al. 2022 (MLMNER)"
_LANGUAGES = ("en", "fr", "de", "es")
TABLES: dict[str, PaperTable] = {
    "table3": PaperTable(
        f"{_MLMNER}, table 3, Twitter-2017",
        (
            Row("BiLSTM-CRF", "bilstm-crf", Reported(79.42, 73.43, 76.31)),
            Row("CNN-BiLSTM-CRF", "cnn-bilstm-crf", Reported(80.00, 78.76, 79.37)),
            Row("HBiLSTM-CRF", "hbilstm-crf", Reported(82.69, 78.16, 80.37)),
            Row("BERT-CRF", "bert-crf", Reported(83.32, 83.57, 83.44)),
            Row("GVATT-HBiLSTM-CRF", "gvatt-hbilstm-crf", Reported(83.41, 80.38, 81.87)),
            Row("AdaCAN-CNN-BiLSTM-CRF", "adacan-cnn-bilstm-crf", Reported(84.16, 80.24, 82.15)),
            Row("UMT-BERT-CRF", "umt-bert-crf", Reported(85.28, 85.34, 85.31)),
            Row("MLMNER", "mlmner", Reported(85.46, 85.71, 85.59)),
        ),
    ),
    "table4": PaperTable(
        f"{_MLMNER}, table 4, Twitter-2017",
        (
            Row("without both", "mlmner-without-both", Reported(None, None, 83.71)),
            Row("without contrastive fusion", "mlmner-without-contrastive", Reported(None, None, 84.57)),
            Row("without entity clustering", "mlmner-without-clustering", Reported(None, None, 84.91)),
            Row("MLMNER", "mlmner", Reported(85.46, 85.71, 85.59)),
        ),
    ),
    "languages": PaperTable(
        "Wang et al. 2024 (2M-NER): each language, each pair, and all four",
        tuple(
            Row("+".join(languages), "2m-ner", settings={"languages": list(languages)})
            for size in (1, 2, 4)
            for languages in combinations(_LANGUAGES, size)
        ),
    ),
}

# What only some rows can take, and the others pass over.
_OF_ENCODERS = frozenset(
    ["text_encoder", "text_config", "context", "context_file", "context_writer", "context_window"]
)
_OF_WORDS = frozenset(["word_vectors"])
_OF_TOWERS = frozenset(["vision_towers", *TOWER_FLAGS])


def row_recipe(row: Row, settings: Mapping[str, Any], *, encoders: str | None = None) -> Recipe:
    """The recipe of a row.

    Args:
        settings: for all rows, by their plain names; what a row has no part for, it passes over.
        encoders: a recipe whose text encoder and picture encoders take the place of the row's own.

    Raises:
        ValueError, TypeError: as `load_recipe`.
    """
    own = load_recipe(row.recipe)
    given = dict(settings)
    if encoders is not None:
        donor = load_recipe(encoders).to_settings()["model"]
        given = {
            key: donor[key] for key in ("text_encoder", "text_config", "vision_towers") if key in donor
        } | given
        if own.model.text_tower.has_encoder:
            given.setdefault("vocabulary_size", donor["vocabulary_size"])
    missing = _OF_WORDS if own.model.text_tower.has_encoder else _OF_ENCODERS
    missing |= frozenset() if own.model.towers else _OF_TOWERS
    given = {key: value for key, value in given.items() if key not in missing}
    return load_recipe(row.recipe, given | dict(row.settings))
