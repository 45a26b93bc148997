"""Several runs, one after another, and what they found side by side.

A run that is finished is not run again where the others go on; one that is not goes on from its checkpoint.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate.utils import broadcast_object_list
from rich.console import Console

from ..claims import claimed
from ..escaping import printable, say
from ..evaluation.metrics import RunMetrics
from ..evaluation.reports import context_worth, picture_worth, results_table
from .checkpoints import AUTO, NEVER
from .processes import started_processes
from .recipes import PACE, Recipe, differences, flat_settings
from .run_folder import METRICS, RunError, begin_run, check_run, is_finished

Train = Callable[[Recipe], RunMetrics]


def runs_of(recipe: Recipe) -> dict[str, Recipe]:
    """The runs that a recipe asks for, by name: itself and, with `compare_without_pictures`, one that sees
    none.
    """
    settings = recipe.training
    runs = {recipe.name: recipe}
    if settings.compare_without_pictures and recipe.corpus.use_images and recipe.model.towers:
        output = f"{settings.output_dir}/without_pictures"
        resume = settings.resume if settings.resume == NEVER else AUTO  # a checkpoint is the first run's
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
    """Print what the runs of `runs_of` found, side by side."""
    console = Console(width=shutil.get_terminal_size((120, 24)).columns)
    console.print(results_table(dict(runs)))
    worth = picture_worth(*runs.values()) if len(runs) == 2 else ""
    for text in filter(None, (worth, context_worth(runs[recipe.name]))):
        console.print(printable(text), markup=False, emoji=False, highlight=False)
    say(f"Model folder, metrics, predictions and plots are in {recipe.training.output_dir}/")


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
    left = [name for name in recipes if finished[name] is None]
    several = "trainings follow; --no_compare_without_pictures leaves the second out"
    say(f"{len(left)} {several if len(left) > 1 else 'training follows'}")
    found = {}
    for number, (name, recipe) in enumerate(recipes.items(), start=1):
        if finished[name] is None:
            say(f"training {number} of {len(recipes)}: {name}; reading {recipe.corpus.dataset:.300}")
        found[name] = finished[name] or train(recipe)
    return found
