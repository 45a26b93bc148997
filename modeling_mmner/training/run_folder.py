"""The output folder of a training run: whether all can be written there, and whether the run is finished."""

import json
import platform
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset

from ..evaluation.metrics import RunMetrics
from ..evaluation.reports import plot_confusion, plot_learning_curves
from ..files import json_line, recover, write_text, write_whole
from ..model.images_mmner import is_picture_column
from .assembly import check_model
from .corpus import TrainingCorpus
from .progress import Progress
from .recipes import Recipe
from .terms import derived_licence, terms_of

MODEL, METRICS, PREDICTIONS = "model", "metrics.json", "predictions.jsonl"
CURVES, CONFUSION = "learning_curves.png", "confusion_matrix.png"
CHECKPOINTS, STATUS = "checkpoints", "status.json"
FOLDERS, FILES = (MODEL, CHECKPOINTS, "tensorboard"), (METRICS, PREDICTIONS, CURVES, CONFUSION, STATUS)
PACKAGES = ("mmner", "torch", "transformers", "timm", "datasets", "accelerate")


class RunError(ValueError):
    """A run that cannot go on, or would fail after its training; the text says what to change."""


def check_run(recipe: Recipe) -> None:
    """Check, before anything is read, that a recipe's parts fit and that its results can be written.

    Raises:
        RunError: the parts do not fit together, the output folder cannot be made or written, or something
            else has the name of a result.
    """
    try:
        check_model(recipe)
    except (TypeError, ValueError) as error:
        raise RunError(f"recipe {recipe.name:.80}: {error}") from error
    output = Path(recipe.training.output_dir)
    place = f"--output_dir {output!s:.300}"
    try:
        output.mkdir(parents=True, exist_ok=True)
        TemporaryDirectory(dir=output).cleanup()
    except OSError as error:
        raise RunError(f"{place}: expected a folder to write in, found {error}; name another one") from error
    for name in (*FOLDERS, *FILES):
        path, kind, other = output / name, *(("folder", "file") if name in FOLDERS else ("file", "folder"))
        if path.exists() and path.is_dir() != (name in FOLDERS):
            expected = f"expected {name} to be a {kind}, found a {other}"
            raise RunError(f"{place}: {expected}; move it away, or name another folder")


def begin_run(output: Path) -> None:
    """Say that the run in an output folder is not finished, and clear up after killed ones."""
    recover(output / MODEL)
    for path in (path for name in FILES for path in output.glob(f"{name}.*.partial")):
        path.unlink()
    write_text(output / STATUS, json.dumps({"finished": False}) + "\n")


def end_run(output: Path) -> None:
    """Say that the run in an output folder is finished: all results are its own."""
    write_text(output / STATUS, json.dumps({"finished": True}) + "\n")


def is_finished(output: Path) -> bool | None:
    """Whether the run in an output folder has written all its results; None where none was begun."""
    try:
        return json.loads((output / STATUS).read_text(encoding="utf-8"))["finished"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def run_metrics(recipe: Recipe, corpus: TrainingCorpus, progress: Progress, **found: Any) -> RunMetrics:
    """What metrics.json holds: `found`, and where it comes from."""
    terms = terms_of(recipe)
    return RunMetrics.from_dict(
        found
        | {
            "recipe": recipe.to_dict(),
            "terms": terms,
            "license": derived_licence(row["terms"] for row in terms),
            "seed": recipe.training.seed,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "corpus": asdict(corpus.summary()),
            "history": progress.history,
            "selected_epoch": progress.best["epoch"],
        }
    )


def write_results(
    output: Path, metrics: RunMetrics, rows: Dataset, *, gold: list[list[str]], predicted: list[list[str]]
) -> None:
    """Write metrics.json, predictions.jsonl (a line for each post of the test split) and the plots."""
    write_text(output / METRICS, metrics.to_json())
    left_out = [name for name in rows.features if name == "ner_tags" or is_picture_column(name)]
    tagged = zip(rows.remove_columns(left_out), gold, predicted, strict=True)
    lines = [json_line(row | {"gold": right, "predicted": found}) for row, right, found in tagged]
    write_text(output / PREDICTIONS, "".join(f"{line}\n" for line in lines))
    curves = partial(plot_learning_curves, metrics.history, selected_epoch=metrics.selected_epoch)
    write_whole(output / CURVES, curves)
    write_whole(output / CONFUSION, partial(plot_confusion, gold, predicted))
