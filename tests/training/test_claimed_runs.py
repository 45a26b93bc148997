"""An output folder belongs to one command: what the second one is told, and what a dead one leaves."""

import platform
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import train_accelerate
from modeling_mmner.claims import claimed
from modeling_mmner.training import processes, runner
from modeling_mmner.training.recipes import Recipe
from modeling_mmner.training.run_folder import RunError
from modeling_mmner.training.runner import own_folders
from tests.built_corpora import files_of
from tests.interrupted import assert_same_run, at_work, checkpoints_in, frozen_tower, hold, recipe_in
from tests.test_staging import fill
from tests.together import together
from tests.training.test_killed_runs import started

PAIRS = 20


@pytest.fixture
def recipe(corpus, tmp_path) -> Recipe:
    return recipe_in(corpus, output_dir=str(tmp_path / "output"))


@pytest.fixture
def holding(tmp_path) -> Iterator[Callable[[str], str]]:
    """Lets another process hold a folder; returns how a second command names it."""
    ends: list[Callable[[], None]] = []

    def held(folder: str) -> str:
        path = fill(tmp_path / folder, {"status.json": b"{}"})
        process, let_end = at_work(hold(path))
        ends.append(let_end)
        expected = "expected a folder to write in that no other command uses"
        found = rf"{path}: process {process.pid} on {platform.node()}, which began .*, is at work there"
        return (
            rf"--output_dir {path}: {expected}, found {found}; wait for it, or end it; or name another folder"
        )

    yield held
    for end in ends:
        end()


@pytest.mark.parametrize(
    ("folder", "settings"),
    [("output", {}), ("output/without_pictures", {"compare_without_pictures": True})],
    ids=["its own", "without pictures"],
)
def test_second_command_is_told_before_it_writes(
    recipe, tmp_path, holding, monkeypatch, capsys, folder, settings
):
    """If it failed, two commands would write into one folder, and each go on with weights of the other."""
    monkeypatch.setattr(processes, "stop_at_once", lambda: None)
    message, before = holding(folder), files_of(tmp_path)
    assert train_accelerate.run(recipe.with_settings(**settings)) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(f"train_accelerate.py: {message}\n", said), said
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(("restarts", "seconds"), [("0", 1.0), ("1", 30.0)])
def test_run_that_is_started_again_waits_for_its_predecessor(recipe, monkeypatch, restarts, seconds):
    """If it failed, torchrun's restarts would be refused while the processes before are ending."""
    asked: list[float] = []

    def observed(folder: Path, *, patience: float) -> Any:
        asked.append(patience)
        return claimed(folder, patience=patience)

    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    monkeypatch.setattr(processes, "_meeting_place", dict)
    monkeypatch.setattr(runner, "claimed", observed)
    with own_folders(recipe):
        assert asked == [seconds]


def refusal(recipe: Recipe) -> str:
    with pytest.raises(RunError) as refused:
        train_accelerate.main(recipe)
    return str(refused.value)


@pytest.mark.slow
def test_all_processes_learn_of_the_refusal(recipe, tmp_path, holding):
    """If it failed, the other processes of a command that is refused would wait for hours for the first."""
    message = holding("output")
    first, second = together(refusal, recipe, folder=tmp_path)
    assert first == second and re.fullmatch(message, first)


@pytest.mark.slow
def test_two_commands_at_once_end_with_one_run_and_one_refusal(corpus, tmp_path):
    """If it failed, commands that start at the same moment would spoil each other's run."""
    alone = recipe_in(corpus, output_dir=str(tmp_path / "alone"), epochs=20)
    assert started(alone).wait() == 0
    chance = random.Random(3)
    for pair in range(PAIRS):
        shared, delay = (
            recipe_in(corpus, output_dir=str(tmp_path / f"pair-{pair}"), epochs=20),
            chance.random(),
        )
        runs = [started(shared, stderr=subprocess.PIPE)]
        time.sleep(2 * delay**2)  # a run takes longer than that
        runs.append(started(shared, stderr=subprocess.PIPE))
        said = [(run.communicate()[1].splitlines() or [""])[-1] for run in runs]
        codes = [run.returncode for run in runs]
        assert sorted(codes) == [0, 1], said
        owner, second = codes.index(0), codes.index(1)
        holder = f"process {runs[owner].pid} on {platform.node()}, which began"
        assert f"--output_dir {tmp_path / f'pair-{pair}'}: expected a folder to write in" in said[second]
        assert holder in said[second], said
        assert_same_run(alone, shared)
        assert not checkpoints_in(shared) and not list((tmp_path / f"pair-{pair}").glob(".*"))
        print(f"pair {pair + 1}: {2 * delay**2:.2f} s apart, run {owner + 1} whole, run {second + 1} refused")


@pytest.mark.slow
def test_two_commands_with_one_feature_cache_both_succeed(corpus, tmp_path):
    """If it failed, the runs of a sweep could not share what each would compute for minutes."""
    settings = {"vision_towers": [frozen_tower(tmp_path)], "feature_cache": str(tmp_path / "features")}
    both = [recipe_in(corpus, output_dir=str(tmp_path / name), **settings) for name in ("one", "two")]
    runs = [started(recipe) for recipe in both]
    assert [(run.communicate(), run.returncode)[1] for run in runs] == [0, 0]
    assert_same_run(*both)
