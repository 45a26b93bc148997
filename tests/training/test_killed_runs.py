"""Training processes that are killed: what they find when they go on is what nobody disturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import train_accelerate
from modeling_mmner.training.recipes import Recipe, load_recipe
from modeling_mmner.training.run_folder import is_finished
from modeling_mmner.training.runner import own_folders
from tests.interrupted import TWO_M_NER, assert_same_run, checkpoints_in, whole_and_killed
from tests.training.test_training import write_corpus

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max_restarts=3")


def started(
    recipe: Recipe, *, launcher: Sequence[str] = (), stderr: int = subprocess.DEVNULL, **options: Any
) -> subprocess.Popen[str]:
    """The script at work on a recipe, started by Python alone or by a launcher's module."""
    path = Path(f"{recipe.training.output_dir}-recipe", "tiny.yaml")
    path.parent.mkdir(exist_ok=True)
    settings = recipe.to_settings()
    del settings["name"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-u", *launcher, "train_accelerate.py", "--recipe", str(path)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as in the tests' process, for equal bits
    return subprocess.Popen(
        command, cwd=ROOT, env=one_thread, stdout=subprocess.PIPE, stderr=stderr, text=True, **options
    )


@pytest.mark.slow  # as those below; in one process test_stopping.py and test_checkpoints.py go on
def test_killed_script_goes_on(tmp_path):
    """If it failed, a run on a machine that fails would find something else when it is started again."""
    write_corpus(tmp_path)
    whole, killed = whole_and_killed(tmp_path, tmp_path)
    with started(killed) as process:
        while not checkpoints_in(killed):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert is_finished(tmp_path / "killed") is False
    settings = {"output_dir": str(tmp_path / "killed")}
    assert (tmp_path / "killed" / ".claim").is_file()  # which keeps nobody out
    again = load_recipe(f"{tmp_path}/killed-recipe/tiny.yaml", settings)
    with own_folders(again):
        train_accelerate.train(again)
    train_accelerate.train(whole.with_settings(name="tiny"))
    assert_same_run(whole, killed)


def kill_at_random(recipe: Recipe, chance: random.Random) -> bool:
    """Start the script and kill it once it trains, every second time while it writes a checkpoint; whether it
    was still at work."""
    folder = Path(recipe.training.output_dir) / "checkpoints"
    with started(recipe) as process:
        if checkpoints_in(recipe):
            assert process.stdout is not None
            while "going on from" not in (line := process.stdout.readline()):
                assert line, "the script ended without going on"
        while process.poll() is None and not checkpoints_in(recipe):
            time.sleep(0.01)
        in_writing = chance.random() < 0.5
        while in_writing and process.poll() is None and not list(folder.glob(".epoch-*")):
            pass
        time.sleep(chance.uniform(0, 0.05 if in_writing else 1.0))
        process.kill()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, TWO_M_NER], ids=["MLMNER", "2M-NER"])
def test_twenty_kills_change_nothing(tmp_path, settings):
    """If it failed, a run on a cluster that takes its machines back would find something else, or nothing."""
    write_corpus(tmp_path)
    settings = {"epochs": 60, "checkpoint_steps": 5} | settings
    whole, killed = whole_and_killed(tmp_path, tmp_path, **settings)
    assert started(whole).wait() == 0
    chance = random.Random(1)
    assert all(kill_at_random(killed, chance) for _ in range(20))
    assert started(killed).wait() == 0
    assert is_finished(Path(killed.training.output_dir)) and not checkpoints_in(killed)
    assert_same_run(whole, killed)


def second_process(of: subprocess.Popen[str]) -> int | None:
    """The second of the processes that train under torchrun, while there is one."""
    for children in Path(f"/proc/{of.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with suppress(OSError):  # it has ended
                if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes():
                    return int(child)
    return None


@pytest.mark.slow
def test_torchrun_restarts_a_run_that_goes_on_by_itself(tmp_path):
    """If it failed, a run of several processes would begin anew, or end, where one of them has died."""
    write_corpus(tmp_path)
    settings = {"epochs": 40, "checkpoint_steps": 5, "batch_size": 2}
    whole, killed = whole_and_killed(tmp_path, tmp_path, **settings)
    assert started(whole, launcher=TORCHRUN).wait() == 0
    places: list[Path] = []
    with (
        (tmp_path / "errors.txt").open("w") as errors,
        started(killed, launcher=TORCHRUN, stderr=errors.fileno()) as process,
    ):
        while len(places) < 3:
            assert process.poll() is None, f"the run ended after {len(places)} kills"
            newer = [path for path in checkpoints_in(killed) if not places or path.name > places[-1].name]
            if newer and (second := second_process(process)) is not None:
                places.append(newer[-1])
                os.kill(second, signal.SIGKILL)
            time.sleep(0.01)
        process.communicate()  # what it prints is read to its end, or printing would fail
    assert process.returncode == 0, (tmp_path / "errors.txt").read_text("utf-8")[-5000:]
    assert_same_run(whole, killed)
