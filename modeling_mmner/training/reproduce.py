"""Trains every row of a paper's table with every seed, and writes the table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .assembly import check_model
from .paper_tables import TABLES, row_recipe
from .runner import Train, finished_run, run_apart
from .table_report import Run, collect, markdown, write_table


def plan(
    name: str, settings: Mapping[str, Any], *, seeds: Sequence[int], encoders: str | None, folder: Path
) -> list[Run]:
    """The runs of a table, row by row.

    Args:
        name: of the table, see `TABLES`.
        settings, encoders: see `row_recipe`.
        seeds: random seeds of each row.
        folder: the results' folder.
    """
    runs = []
    for row in TABLES[name].rows:
        recipe = row_recipe(row, settings, encoders=encoders)
        for seed in seeds:
            place = folder / row.name.replace(" ", "-") / f"seed-{seed}"
            runs.append(Run(row, seed, recipe.with_settings(seed=seed, output_dir=str(place))))
    return runs


def reproduce(
    name: str,
    *,
    train: Train,
    folder: Path,
    settings: Mapping[str, Any],
    seeds: Sequence[int] = (1,),
    encoders: str | None = None,
    jobs: int = 1,
    keep_models: bool = False,
    dry_run: bool = False,
    report: Callable[[str], None] = print,
) -> int:
    """Make the runs of a table that are not there, see `run_apart`, and write what all of them found.

    Args:
        name, settings, seeds, encoders, folder: see `plan`.
        train, jobs, keep_models: see `run_apart`.
        dry_run: only say which runs are there and whether the others can be made.
        report: is told each line.

    Returns:
        1 where a run failed or cannot be made, else 0.

    Raises:
        ValueError, TypeError: the settings are no row's, or a folder holds a run with others.
    """
    runs = plan(name, settings, seeds=seeds, encoders=encoders, folder=folder)
    if dry_run:
        return int(bool([run for run in runs if _is_hindered(run, report)]))
    recipes = {run.name: run.recipe for run in runs}
    errors = run_apart(recipes, train=train, report=report, jobs=jobs, keep_models=keep_models)
    results = collect(TABLES[name], runs, errors)
    write_table(results, folder)
    report(markdown(results))
    report(f"results.json, results.md and results.png are in {folder}/")
    return int(bool(errors))


def _is_hindered(run: Run, report: Callable[[str], None]) -> bool:
    """Whether a run cannot be made; says so, or that it is there, or where it will be."""
    if finished_run(run.recipe) is not None:
        report(f"{run.name}: there already")
        return False
    try:
        check_model(run.recipe)
    except (TypeError, ValueError) as error:
        report(f"{run.name}: cannot run; {error}")
        return True
    report(f"{run.name}: to be trained in {run.recipe.training.output_dir}")
    return False
