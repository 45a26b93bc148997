"""The commands that train."""

from pathlib import Path
from typing import Any, Literal

from ..training.paper_tables import TABLES
from ..training.recipe_options import RecipeName, takes_settings
from ..training.recipes import load_recipe
from .options import Numbers, command


@takes_settings
def train(recipe: RecipeName = "quickstart", *, settings: dict[str, Any]) -> int:
    """Train a recipe; without one quickstart, which takes minutes."""
    try:
        chosen = load_recipe(recipe, settings)
    except TypeError as error:
        raise ValueError(error) from error
    from train_accelerate import run

    return run(chosen)


@takes_settings
@command()
def reproduce(
    table: Literal[*TABLES],  # type: ignore[valid-type]
    *,
    seeds: Numbers = "1",
    encoders: str | None = None,
    keep_models: bool = False,
    settings: dict[str, Any],
) -> int:
    """Train every row of a paper's table, and write the table.

    Trains every row with every seed, on one corpus, with one budget and one metric, and writes results.json
    and results.md (the paper's figures beside ours). What is there already is not run again.
    Settings are for all rows; a row passes over those of parts that it has not.

    Args:
        table: tables 3 and 4 of Li et al. 2022, on Twitter-2017, or the languages of Wang et al. 2024.
        seeds: random seeds of each row.
        encoders: take text and picture encoders from this recipe.
        keep_models: keep the trained models, too.
    """
    if "seed" in settings:
        raise ValueError("--seed: expected --seeds, the seeds of all rows")
    from train_accelerate import train

    from ..training.reproduce import reproduce

    folder = Path(settings.pop("output_dir", f"outputs/{table}"))
    rows: Any = {"seeds": seeds, "encoders": encoders, "keep_models": keep_models, "settings": settings}
    return reproduce(table, train=train, folder=folder, **rows)
