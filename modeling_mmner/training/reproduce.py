"""Trains every row of a paper's table with every seed, and writes what the runs found beside its figures."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from ..escaping import rendered, say
from ..evaluation.metrics import RunMetrics
from ..evaluation.span_f1.confidence import paired_randomisation
from ..evaluation.span_f1.spans import tag_counts
from ..files import write_text
from .paper_tables import TABLES, PaperTable, Row, row_recipe
from .processes import Stopped, quiet_libraries
from .recipes import Recipe
from .run_folder import MODEL, PREDICTIONS
from .runner import Train, finished_run, own_folders

FIGURES = ("precision", "recall", "f1")
AMBIGUOUS = "ambiguous"
"""The source of the sample corpus's posts whose names only the picture can tell."""
_HEADINGS = {"picture": "pictures", AMBIGUOUS: "pictures, ambiguous names", "context": "contexts"}


@dataclass(frozen=True, eq=False)
class Run:
    """A row of a table with a random seed, which its recipe has, as well as an output folder of its own."""

    row: Row
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        return f"{self.row.name}, seed {self.seed}"

    def predictions(self) -> tuple[list[list[str]], list[list[str]]]:
        """The gold and the predicted tags of its test split."""
        path = Path(self.recipe.training.output_dir) / PREDICTIONS
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [row["gold"] for row in rows], [row["predicted"] for row in rows]


def plan(
    name: str, settings: Mapping[str, Any], *, seeds: Sequence[int], encoders: str | None, folder: Path
) -> list[Run]:
    """The runs of one of the `TABLES` with each seed, row by row; for the others see `row_recipe`."""
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
    keep_models: bool = False,
) -> int:
    """Make the runs of a table that are not there, one after another, and write what all of them found.

    Args:
        name, settings, seeds, encoders, folder: see `plan`.
        keep_models: otherwise a finished run's model folder is removed.

    Returns:
        0; 1 where a run failed, the code of a signal that ended one.

    Raises:
        ValueError, TypeError: the settings are no row's, or a folder holds a run with others.
    """
    quiet_libraries()
    runs, errors = plan(name, settings, seeds=seeds, encoders=encoders, folder=folder), dict[str, str]()
    for run in runs:
        finished_run(run.recipe)  # which refuses those of other settings
    for run in runs:
        try:
            say(f"{run.name}: {_made(run, train, keep_model=keep_models)}")
        except Stopped as stopped:
            say(f"{run.name}: {stopped}; the same command goes on")
            return stopped.code
        except Exception as error:  # whatever a run meets, the others go on
            errors[run.name] = f"{type(error).__name__}: {error}"
            say(f"{run.name}: failed; {errors[run.name]}")
    say(write_table(collect(TABLES[name], runs, errors), folder))
    say(f"results.json and results.md are in {folder}/")
    return int(bool(errors))


def _made(run: Run, train: Train, *, keep_model: bool) -> str:
    """Make a run that is not there; in words, how it went."""
    began = time.perf_counter()
    with own_folders(run.recipe):
        if finished_run(run.recipe) is not None:
            return "there already"
        f1 = train(run.recipe).splits.test.overall.f1
        if not keep_model:
            shutil.rmtree(Path(run.recipe.training.output_dir) / MODEL)
    return f"test F1 {100 * f1:.1f}, {(time.perf_counter() - began) / 60:.1f} min"


def collect(table: PaperTable, runs: Sequence[Run], errors: Mapping[str, str]) -> dict[str, Any]:
    """The results of a table.

    Args:
        errors: by name why a run is not there.

    Returns:
        What results.json holds: ``source``, ``versions``, ``corpus`` and ``rows``; each row has its ``runs``
        by seed, ``mean`` and ``deviation`` (over seeds, of a sample; None of one) of precision, recall and F1
        in 0..1, ``picture``, ``context`` (mean F1 by what the posts were shown) and ``ambiguous`` (as
        ``picture``, over ambiguous names), ``by_language`` (mean F1), and ``p_value`` against the row above
        (None without common posts).
    """
    rows: list[dict[str, Any]] = []
    above: dict[int, Run] = {}
    found = {run: finished_run(run.recipe) for run in runs}
    for row in table.rows:
        own = {run.seed: run for run in runs if run.row == row}
        scores = [_scores(run, found[run], errors.get(run.name)) for run in own.values()]
        reported = dict(zip(FIGURES, row.reported, strict=True)) if row.reported else None
        there = {seed: run for seed, run in own.items() if found[run]}
        named = {"name": row.name, "recipe": row.recipe, "reported": reported, "runs": scores}
        rows.append(named | _over_seeds(scores) | {"p_value": p_value(above, there)})
        above = there
    last = next(filter(None, reversed(found.values())), None)
    return {
        "source": table.source,
        "versions": last and last.versions,
        "corpus": last and {name: getattr(last.corpus, name) for name in ("name", "version_name", "posts")},
        "rows": rows,
    }


def _scores(run: Run, metrics: RunMetrics | None, error: str | None) -> dict[str, Any]:
    if metrics is None:
        return {"seed": run.seed, "error": error}
    test = metrics.splits.test
    ambiguous = {mode: block.by_source.get(AMBIGUOUS) for mode, block in test.picture.items()}
    return {
        "seed": run.seed,
        **{figure: getattr(test.overall, figure) for figure in FIGURES},
        "validation_f1": metrics.splits.validation.overall.f1,
        "selected_epoch": metrics.selected_epoch,
        "minutes": metrics.timing.total_seconds / 60,
        "by_language": {name: score.f1 for name, score in test.by_language.items()},
        "picture": {mode: block.overall.f1 for mode, block in test.picture.items()},
        "context": {mode: block.overall.f1 for mode, block in test.context.items()},
        AMBIGUOUS: {mode: score.f1 for mode, score in ambiguous.items() if score is not None},
    }


def _over_seeds(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means and deviations over the runs that are there; of pictures and contexts, in modes that all have."""
    whole = [run for run in scores if "f1" in run]
    figures = [{figure: run[figure] for figure in FIGURES} for run in whole]
    means = {group: _common(mean, [run[group] for run in whole]) for group in (*_HEADINGS, "by_language")}
    deviation = _common(stdev, figures) if len(whole) > 1 else None
    return {"mean": _common(mean, figures) or None, "deviation": deviation} | means


def _common(
    statistic: Callable[[list[float]], float], runs: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """A statistic of each figure that all runs have."""
    names = [name for name in runs[0] if all(name in run for run in runs)] if runs else []
    return {name: statistic([run[name] for run in runs]) for name in names}


def p_value(above: Mapping[int, Run], below: Mapping[int, Run]) -> float | None:
    """The p-value of the difference of two rows' F1, by paired approximate randomisation over posts.

    The posts are those of the seeds that both have; None where there are none, or the posts differ.
    """
    counts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for seed in sorted(above.keys() & below.keys()):
        tags = [run.predictions() for run in (above[seed], below[seed])]
        if tags[0][0] != tags[1][0]:
            return None
        for side, (gold, predicted) in zip(counts, tags, strict=True):
            side.append(tag_counts(gold, predicted))
    return paired_randomisation(*map(np.concatenate, counts)) if counts[0] else None


def write_table(results: Mapping[str, Any], folder: Path) -> str:
    """Write results.json and results.md: the table in percent, its columns explained, the runs that failed.

    Returns:
        The text of results.md.
    """
    rows = results["rows"]
    runs = [(row["name"], run) for row in rows for run in row["runs"]]
    # A system that reads no pictures has scores without them alone, which say nothing new.
    groups = [group for group in _HEADINGS if any(row[group].keys() - {"none"} for row in rows)]
    values = {
        "results": results,
        "groups": {group: _HEADINGS[group] for group in groups},
        "seeds": sorted({run["seed"] for _, run in runs}),
        "languages": sorted({language for row in rows for language in row["by_language"]}),
        "failed": [(name, run) for name, run in runs if run.get("error")],
    }
    text = rendered(resources.files(__package__).joinpath("results.md.jinja"), values)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(folder / "results.md", text)
    return text
