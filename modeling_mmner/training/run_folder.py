"""A training run: how far it has come, what it writes into its output folder, and whether it is finished."""

import json
import os
import platform
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate.tracking import get_available_trackers
from datasets import Dataset

from dataset_scripts.opening import SPANS_LEFT_OUT

from ..escaping import say
from ..evaluation.metrics import RunMetrics
from ..evaluation.reports import plot_confusion, plot_learning_curves
from ..files import check_apart, json_line, recovered, write_text, write_whole
from ..model.images_mmner import is_picture_column
from .assembly import check_model
from .corpus import TrainingCorpus
from .progress import ProgressBar
from .recipes import Recipe
from .terms import derived_licence, terms_of

MODEL, METRICS, PREDICTIONS = "model", "metrics.json", "predictions.jsonl"
CURVES, CONFUSION = "learning_curves.png", "confusion_matrix.png"
CHECKPOINTS, STATUS = "checkpoints", "status.json"
FILES = (METRICS, PREDICTIONS, CURVES, CONFUSION, STATUS, SPANS_LEFT_OUT)
PACKAGES = ("mmner", "torch", "transformers", "timm", "datasets", "accelerate")


class RunError(ValueError):
    """A run that cannot go on, or would fail after its training; the text says what to change."""


@dataclass
class Progress:
    """Where a training run is, and what it has found so far. It goes into each checkpoint, as JSON.

    Attributes:
        epoch: the one that is trained, from 1.
        batches: of this epoch that are done.
        steps: of the optimizer, in the whole run.
        sums: of each loss by its name, over this epoch's batches.
        counts: in how many of them each was computed.
        history: of the epochs that are done, see `RunMetrics`.
        seconds: that earlier processes have spent on the run.
        epoch_began: seconds of the run before this epoch.
    """

    epoch: int = 1
    batches: int = 0
    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    epoch_began: float = 0.0

    def __post_init__(self) -> None:
        self._since = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds of the run, those of earlier processes included."""
        return self.seconds + time.perf_counter() - self._since

    @property
    def best(self) -> dict[str, Any]:
        """The epoch of the history with the best validation F1, the first of equal ones."""
        return max(self.history, key=lambda epoch: epoch["validation_f1"])

    @property
    def has_just_been_best(self) -> bool:
        """Whether the best epoch has ended, and no batch has followed."""
        return self.batches == 0 and bool(self.history) and self.best is self.history[-1]

    def is_over(self, *, epochs: int, patience: int) -> bool:
        """Whether all epochs are done, or the last `patience` (0: any number) no better than one before."""
        stale = bool(self.history) and self.epoch - 1 - self.best["epoch"] >= patience > 0
        return self.epoch > epochs or stale

    def bar(self, batches: int, *, epochs: int) -> ProgressBar:
        """The bar of all epochs, each of so many batches."""
        return ProgressBar("training", batches * epochs, done=batches * (self.epoch - 1) + self.batches)

    def shown(
        self, steps: Iterable[dict[str, float]], bar: ProgressBar, *, epochs: int
    ) -> Iterator[dict[str, float]]:
        """Count the losses of the batches that are left of an epoch, and show how far the training is."""
        bar.set_description_str(f"epoch {self.epoch}/{epochs}", refresh=False)
        for losses in steps:
            self.add(losses)
            bar.set_postfix_str(f"loss {losses['loss']:.2f}", refresh=False)
            bar.update()
            yield losses

    def describe_last(self, bar: ProgressBar) -> str:
        """What the last epoch has come to, and the time that is left, in words."""
        last = self.history[-1]
        found = f"loss {last['loss']:.3f}, validation F1 {100 * last['validation_f1']:.1f}"
        left = bar.format_meter(**dict(bar.format_dict, bar_format="; {remaining} left"))
        return f"epoch {last['epoch']}: {found}{left if bar.n != bar.total else ''}"

    def add(self, losses: dict[str, float]) -> None:
        """Count a batch and its losses."""
        self.batches += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def mean_losses(self) -> dict[str, float]:
        """The mean of each loss over this epoch's batches in which it was computed."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}

    def end_epoch(self, results: dict[str, float]) -> None:
        """Put an epoch's results into the history and go to the next one."""
        self.history.append({"epoch": self.epoch} | results | {"seconds": self.elapsed - self.epoch_began})
        self.epoch, self.batches, self.sums, self.counts = self.epoch + 1, 0, {}, {}
        self.epoch_began = self.elapsed

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return asdict(self) | {"seconds": self.elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave. Raises KeyError where something is missing."""
        for item in fields(self):
            setattr(self, item.name, state[item.name])


def check_run(recipe: Recipe) -> None:
    """Check, before anything is read, that a recipe's parts fit and that its results can be written.

    Raises:
        RunError: something does not fit, is not installed, or has the name of a result.
    """
    output = Path(recipe.training.output_dir)
    sources = (recipe.corpus.dataset, *recipe.corpus.context_file)
    try:
        check_model(recipe)
        check_apart((output / name for name in FILES), [one for one in sources if os.path.isfile(one)])
    except (TypeError, ValueError) as error:
        raise RunError(f"settings of {recipe.name:.80}: {error}") from error
    if (tracker := recipe.training.report_to) not in ("none", *map(str, get_available_trackers())):
        package = "mmner[tensorboard]" if tracker == "tensorboard" else tracker
        expected = "expected a tracker that is installed, found none of that name"
        raise RunError(f"--report_to {tracker}: {expected}; pip install '{package}'")
    for path in (output / name for name in (MODEL, CHECKPOINTS, *FILES)):
        kind, is_kind = ("file", path.is_file()) if path.name in FILES else ("folder", path.is_dir())
        if path.exists() and not is_kind:
            expected = f"expected {path.name} to be a {kind}, found none"
            place = f"--output_dir {output!s:.300}"
            raise RunError(f"{place}: {expected}; move it away, or name another folder")


def begin_run(output: Path) -> None:
    """Say that the run in an output folder is not finished, and clear up after killed ones."""
    output.mkdir(parents=True, exist_ok=True)
    if is_finished(output):
        say(f"{output}: the results of an earlier run there are replaced")
    with recovered(output / MODEL):
        for path in (path for name in FILES for path in output.glob(f"{name}.*.partial")):
            path.unlink()
    write_text(output / STATUS, json.dumps({"finished": False}) + "\n")


def end_run(output: Path) -> None:
    """Say that the run in an output folder is finished."""
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
    found |= {
        "recipe": recipe.to_dict(),
        "terms": terms,
        "license": derived_licence(row["terms"] for row in terms),
        "seed": recipe.training.seed,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "corpus": asdict(corpus.summary()),
        "history": progress.history,
        "selected_epoch": progress.best["epoch"],
    }
    return RunMetrics.from_dict(found)


def write_results(
    output: Path, metrics: RunMetrics, rows: Dataset, *, gold: list[list[str]], predicted: list[list[str]]
) -> None:
    """Write metrics.json, predictions.jsonl (a line for each post of the test split) and the plots.

    A plot that cannot be drawn is warned of, whatever it is: the model is worth more.
    """
    write_text(output / METRICS, metrics.to_json())
    left_out = [name for name in rows.features if name == "ner_tags" or is_picture_column(name)]
    tagged = zip(rows.remove_columns(left_out), gold, predicted, strict=True)
    lines = [json_line(row | {"gold": right, "predicted": found}) for row, right, found in tagged]
    write_text(output / PREDICTIONS, "".join(f"{line}\n" for line in lines))
    weights = {name: weight for name, weight in metrics.recipe["model"]["objectives"].items() if weight > 0}
    about: dict[str, Any] = {"selected_epoch": metrics.selected_epoch, "weights": weights}
    curves = partial(plot_learning_curves, metrics.history, **about)
    for name, draw in ((CURVES, curves), (CONFUSION, partial(plot_confusion, gold, predicted))):
        try:
            write_whole(output / name, draw)
        except Exception as error:
            (output / name).unlink(missing_ok=True)  # of another run
            warnings.warn(f"{name} could not be drawn: {type(error).__name__}: {error!s:.300}", stacklevel=2)
