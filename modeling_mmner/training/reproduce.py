"""Runs the rows of a paper's table: timed steps of each first, then each row with each seed, in a process of
its own.

A run is made in a folder whose name begins with a dot and gets its own name when it is whole; so a run that
was cut off goes on from its last checkpoint the next time, and one that is whole is not run again.
"""

import json
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

from ..evaluation.metrics import RunMetrics
from .paper_tables import TABLES, Row, row_recipe
from .recipes import PACE, Recipe, differences, flat_settings

LOG = "train.log"
"""In a run's folder: what its training printed."""

_GIB = 2**30
_EVALUATIONS = 6
"""Passes over held-out posts at a run's end: both splits, raw text, shuffled pictures and none, and one to
spare.
"""


@dataclass(frozen=True)
class Run:
    """A row of a table with a random seed.

    Attributes:
        row: of the table.
        seed: of the run.
        recipe: what is trained; its output folder is that of the run.
    """

    row: Row
    seed: int
    recipe: Recipe

    @property
    def folder(self) -> Path:
        """Where its results are once it is whole."""
        return Path(self.recipe.training.output_dir)

    def metrics(self) -> RunMetrics | None:
        """Its metrics, None where it is not whole.

        Raises:
            ValueError: its folder holds a run with other settings.
        """
        if not self.folder.is_dir():
            return None
        metrics = RunMetrics.from_file(self.folder / "metrics.json")
        expected, found = (
            flat_settings(settings, without=PACE) for settings in (self.recipe.to_dict(), metrics.recipe)
        )
        if different := differences(expected, found):
            raise ValueError(
                f"{self.folder}: expected a run with these settings, found another one's: {different}; name"
                " another --output_dir, or remove that folder"
            )
        return metrics

    def predictions(self) -> tuple[list[list[str]], list[list[str]]]:
        """The gold and the predicted tags of its test split."""
        with (self.folder / "predictions.jsonl").open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return [row["gold"] for row in rows], [row["predicted"] for row in rows]


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


@dataclass(frozen=True)
class Estimate:
    """What timed steps say of a row.

    Attributes:
        parameters: of its model.
        step_seconds: of one training step.
        memory: most bytes that the process had.
        run_seconds: what a whole run will take at that rate.
        posts: of each split.
        pictures: how many of each split's posts have a picture.
    """

    parameters: int
    step_seconds: float
    memory: int
    run_seconds: float
    posts: dict[str, int]
    pictures: dict[str, int]


def estimate(recipe: Recipe) -> Estimate:
    """Build a recipe's model and time a training step of it, the fastest of four."""
    import torch
    from accelerate import Accelerator

    from .assembly import build_model, build_processor
    from .collator import MMNERCollator
    from .corpus import load_corpus
    from .steps import resolve_precision

    accelerator = Accelerator(mixed_precision=resolve_precision(recipe.training.mixed_precision))
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # it has its say when the run is made
        corpus = load_corpus(recipe.corpus)
    summary, rows, size = corpus.summary(), corpus.splits["train"], recipe.training.batch_size
    processor = build_processor(recipe, labels=corpus.labels, posts=rows["tokens"])
    model = build_model(recipe, processor).to(accelerator.device).train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], fused=True)
    collate = MMNERCollator(processor)
    times = []
    for first in range(0, 4 * size, size):
        started = time.perf_counter()
        batch = collate([rows[index % len(rows)] for index in range(first, first + size)])
        with accelerator.autocast():
            loss = model(**{name: tensor.to(accelerator.device) for name, tensor in batch.items()}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
    seconds = min(times)  # the first ones allocate, and another program may get in the way of one
    steps = {split: -(-count // size) for split, count in summary.posts.items()}
    evaluations = _EVALUATIONS + (2 if recipe.corpus.context is not None else 0)
    passes = (
        recipe.training.epochs * (steps["train"] + steps["validation"] / 3) + evaluations * steps["test"] / 3
    )
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_memory()
    present = {split: counts.present for split, counts in summary.pictures.items()}
    return Estimate(model.num_parameters(), seconds, memory, seconds * passes, summary.posts, present)


def train_run(recipe: Recipe, *, keep_model: bool) -> None:
    """Train a recipe in a folder beside its own, which then becomes its own."""
    from train_accelerate import train

    folder = Path(recipe.training.output_dir)
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with (partial / LOG).open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        train(recipe.with_settings(output_dir=str(partial)))
        sys.stdout.flush()
    if not keep_model:
        shutil.rmtree(partial / "model")
    partial.rename(folder)


def in_own_process(function: Callable[..., Any], *arguments: Any, jobs: int = 1, **options: Any) -> Any:
    """What a function returns, run in a new process, which ends with this one.

    Args:
        jobs: how many such processes share the processor; each gets its share of the threads.

    Raises:
        RowError: what the function raised, or that its process ended without a word.
    """
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_begin, initargs=(jobs,)
    ) as pool:
        try:
            return pool.submit(function, *arguments, **options).result()
        except BrokenProcessPool as error:
            raise RowError("its process was ended, as by a lack of memory") from error
        except Exception as error:  # whatever a row runs into, the others go on
            raise RowError(f"{type(error).__name__}: {error}") from error


class RowError(RuntimeError):
    """Why a row has no result."""


def _begin(jobs: int) -> None:
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _peak_memory() -> int:
    """Most bytes that this process had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def preflight(runs: Sequence[Run], report: Callable[[str], None], *, jobs: int = 1) -> None:
    """Time steps of each row that has a run to make, and say what the whole will take and whether all is
    there.

    Args:
        jobs: runs at a time, see `make_runs`.
    """
    seconds, count = 0.0, 0
    waiting: dict[str, list[Run]] = {}
    for run in runs:
        if run.metrics() is None:
            waiting.setdefault(run.row.name, []).append(run)
    for name, left in waiting.items():
        try:
            found: Estimate = in_own_process(estimate, left[0].recipe, jobs=jobs)
        except RowError as error:
            report(f"{name}: cannot run; {error}")
            continue
        seconds, count = seconds + len(left) * found.run_seconds, count + len(left)
        pictures = ", ".join(
            f"{split} {found.pictures[split]:,} of {count:,}" for split, count in found.posts.items()
        )
        read = f"posts with a picture: {pictures}" if left[0].recipe.model.towers else "reads no pictures"
        report(
            f"{name}: {found.parameters:,} parameters, {found.step_seconds:.2f} s a step,"
            f" {found.memory / _GIB:.1f} GiB, about {len(left)} x {found.run_seconds / 60:.1f} min; {read}"
        )
    together = "" if jobs == 1 else f", {jobs} at a time"
    report(f"in all about {seconds / 60 / jobs:.0f} min for {count} of {len(runs)} runs{together}")


def make_runs(
    runs: Sequence[Run], report: Callable[[str], None], *, keep_models: bool = False, jobs: int = 1
) -> dict[tuple[str, int], str]:
    """Make the runs that are not there; returns, by row and seed, why some of them are not there now.

    Args:
        jobs: runs at a time; small models on a processor of many cores gain by it.
    """
    with ThreadPoolExecutor(jobs) as pool:
        found = pool.map(lambda run: _make_run(run, report, keep_models=keep_models, jobs=jobs), runs)
        return {(run.row.name, run.seed): error for run, error in zip(runs, found, strict=True) if error}


def _make_run(run: Run, report: Callable[[str], None], *, keep_models: bool, jobs: int) -> str | None:
    place, started = f"{run.row.name}, seed {run.seed}", time.perf_counter()
    if run.metrics() is not None:
        report(f"{place}: there already")
        return None
    try:
        in_own_process(train_run, run.recipe, keep_model=keep_models, jobs=jobs)
    except RowError as error:
        report(f"{place}: failed; {error}")
        return str(error)
    metrics = run.metrics()
    assert metrics is not None
    f1, minutes = metrics.splits.test.overall.f1, (time.perf_counter() - started) / 60
    report(f"{place}: test F1 {100 * f1:.1f}, {minutes:.1f} min")
    return None
