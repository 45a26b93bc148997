"""Several runs: one after another or each in a process of its own, and what they found side by side.

A run that is finished is not run again where the others go on; one that is not goes on from its checkpoint.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from rich.console import Console

from dataset_scripts.formats.reader import CorpusError

from ..claims import claimed
from ..escaping import print_in_any_encoding, printable, say
from ..evaluation.metrics import RunMetrics
from ..evaluation.reports import context_worth, picture_worth, results_table, transfer_table
from ..files import write_text
from .checkpoints import AUTO, NEVER
from .processes import started_processes
from .recipes import PACE, Recipe, differences, flat_settings
from .run_folder import METRICS, MODEL, RunError, begin_run, check_run, is_finished

Train = Callable[[Recipe], RunMetrics]

LOG = "train.log"
"""In the folder of a run that has a process of its own: what its training printed."""


def runs_of(recipe: Recipe) -> dict[str, Recipe]:
    """The runs that a recipe asks for, by name: itself and, with `compare_without_pictures`, one that sees
    none; with `transfer` one for each language instead, tested on all.

    Raises:
        CorpusError: transfer between fewer than two languages.
        RunError: transfer from one checkpoint.
    """
    settings, languages = recipe.training, recipe.corpus.languages
    is_one_checkpoint = settings.resume not in (AUTO, NEVER)
    if settings.transfer:
        if len(languages) < 2:
            raise CorpusError(f"--transfer: expected two --languages or more, found {languages}")
        if is_one_checkpoint:
            found = f"found {settings.resume:.300}"
            raise RunError(f"--resume: expected auto or never with --transfer, several runs; {found}")
        outputs = {language: f"{settings.output_dir}/{language}" for language in languages}
        test = recipe.with_settings(test_languages=languages)
        return {one: test.with_settings(languages=[one], output_dir=path) for one, path in outputs.items()}
    runs = {recipe.name: recipe}
    if settings.compare_without_pictures and recipe.corpus.use_images and recipe.model.towers:
        output = f"{settings.output_dir}/without_pictures"
        resume = AUTO if is_one_checkpoint else settings.resume  # the checkpoint is the first run's
        without = recipe.with_settings(use_images=False, output_dir=output, resume=resume)
        runs[f"{recipe.name}, no pictures"] = without
    return runs


@contextmanager
def own_folders(*recipes: Recipe) -> Iterator[None]:
    """Hold the output folders of recipes in the main process, against all other commands.

    A run that torchrun has started again waits for the one before, whose processes may still be ending.

    Raises:
        RunError: another command is at work in one, or it cannot be written. All processes raise it.
    """
    is_restart, refusal = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0", None
    with ExitStack() as held:
        outputs = [Path(recipe.training.output_dir) for recipe in recipes]
        for output in outputs if started_processes().is_main_process else ():
            try:
                output.mkdir(parents=True, exist_ok=True)
                held.enter_context(claimed(output, patience=30.0 if is_restart else 1.0))
            except OSError as error:
                expected = "expected a folder to write in that no other command uses"
                told = f"--output_dir {output!s:.300}: {expected}, found {error}; or name another folder"
                refusal = RunError(told)
                break
        (refusal,) = broadcast_object_list([refusal])
        if refusal is not None:
            raise refusal
        yield


def report_runs(recipe: Recipe, runs: Mapping[str, RunMetrics]) -> None:
    """Print what the runs of `runs_of` found, side by side; transfer's scores go to transfer.json as well."""
    console, output = Console(width=None if sys.stdout.isatty() else 120), Path(recipe.training.output_dir)
    if recipe.training.transfer:
        scores = {language: metrics.splits.test.by_language for language, metrics in runs.items()}
        console.print(transfer_table(scores))
        if started_processes().is_main_process:
            write_text(output / "transfer.json", json.dumps(scores, default=asdict, indent=2))
        return
    console.print(results_table(dict(runs)))
    worth = picture_worth(*runs.values()) if len(runs) == 2 else ""
    for text in filter(None, (worth, context_worth(runs[recipe.name]))):
        console.print(printable(text), markup=False, emoji=False, highlight=False)
    say(f"Model folder, metrics, predictions and plots are in {output}/")


def finished_run(recipe: Recipe) -> RunMetrics | None:
    """The metrics of a recipe's run, None where it is not finished.

    Raises:
        RunError: its folder holds a finished run with other settings.
    """
    output = Path(recipe.training.output_dir)
    if not is_finished(output):
        return None
    metrics = RunMetrics.from_file(output / METRICS)
    wanted, found = (flat_settings(settings, without=PACE) for settings in (recipe.to_dict(), metrics.recipe))
    if different := differences(wanted, found):
        others = f"found another one's: {different}; name another --output_dir, or remove that folder"
        raise RunError(f"{output}: expected a run with these settings, {others}")
    return metrics


def run_each(recipes: Mapping[str, Recipe], *, train: Train) -> dict[str, RunMetrics]:
    """The metrics of runs that are made one after another, in the processes that were started.

    Where an earlier process was stopped among them, those that it finished are not run again; where all are
    finished, or a recipe says never to resume, all are.

    Raises:
        RunError: as `check_run`, before the first run begins; or as `finished_run`.
    """
    outputs = [Path(recipe.training.output_dir) for recipe in recipes.values()]
    for recipe in recipes.values():
        check_run(recipe)
    never = all(recipe.training.resume == NEVER for recipe in recipes.values())
    goes_on = not never and any(is_finished(output) is False for output in outputs)
    finished = {name: finished_run(recipe) if goes_on else None for name, recipe in recipes.items()}
    # What the main process has found, before it writes.
    finished, goes_on = broadcast_object_list([finished, goes_on])
    if not goes_on and started_processes().is_main_process:
        for output in outputs:
            begin_run(output)
    return {name: finished[name] or train(recipe) for name, recipe in recipes.items()}


def run_apart(
    recipes: Mapping[str, Recipe],
    *,
    train: Train,
    report: Callable[[str], None],
    jobs: int = 1,
    keep_models: bool = False,
) -> dict[str, str]:
    """Make the runs that are not finished, each in a new process; returns by name why some failed.

    Args:
        train: found by its import path in the new process.
        report: is told of each run when it is done.
        jobs: runs at a time, which share the cores; small models on a processor of many cores gain by it.
        keep_models: otherwise a finished run's model folder is removed.

    Raises:
        RunError: as `finished_run`, before the first run begins.
    """
    finished = {name for name, recipe in recipes.items() if finished_run(recipe) is not None}
    errors: dict[str, str] = {}

    def make(name: str) -> None:
        if name in finished:
            return report(f"{name}: there already")
        began = time.perf_counter()
        try:
            f1 = in_own_process(_train_logged, recipes[name], train=train, keep_model=keep_models, jobs=jobs)
        except BrokenProcessPool:
            errors[name] = "its process was ended, as by a lack of memory"
        except Exception as error:  # whatever a run meets, the others go on
            errors[name] = f"{type(error).__name__}: {error}"
        if name in errors:
            return report(f"{name}: failed; {errors[name]}")
        return report(f"{name}: test F1 {100 * f1:.1f}, {(time.perf_counter() - began) / 60:.1f} min")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(make, recipes))  # which raises what one of them raises
    return errors


def _train_logged(recipe: Recipe, *, train: Train, keep_model: bool) -> float:
    """The test F1 of a training whose output goes to `LOG`, or of one that was finished in the meantime."""
    output = Path(recipe.training.output_dir)
    with own_folders(recipe):
        if (metrics := finished_run(recipe)) is None:
            with (output / LOG).open("a", encoding="utf-8") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                metrics = train(recipe)
                sys.stdout.flush()
            if not keep_model:
                shutil.rmtree(output / MODEL)
    return metrics.splits.test.overall.f1


def in_own_process(function: Callable[..., Any], *arguments: Any, jobs: int = 1, **options: Any) -> Any:
    """What a function returns, run in a new process, which ends with this one.

    Args:
        jobs: how many such processes share the processor; each gets its share of the threads.

    Raises:
        BrokenProcessPool: its process ended without a word.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _begin, (jobs,)) as pool:
        return pool.submit(function, *arguments, **options).result()


def _begin(jobs: int) -> None:
    """Take this process's share of the threads, and end where the process that started it has ended."""
    print_in_any_encoding()
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))

    def watch() -> None:
        parent_process().join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
