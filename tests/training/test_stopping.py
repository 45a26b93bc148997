"""Runs that end early: by a signal, by patience, by numbers that are none, by a full disk."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import train_accelerate
from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.training.checkpoints import Checkpoints
from modeling_mmner.training.processes import Stopped, command_to_go_on
from modeling_mmner.training.recipes import Recipe
from modeling_mmner.training.run_folder import FILES, STATUS, Progress, RunError, begin_run, is_finished
from modeling_mmner.training.runner import run_each, runs_of
from tests.interrupted import assert_same_run, checkpoints_in, recipe_in
from tests.training.test_killed_runs import started
from tests.training.test_reproduce import fake_train


@pytest.fixture
def recipe(corpus, tmp_path) -> Recipe:
    return recipe_in(corpus, output_dir=str(tmp_path / "output"))


def after_batches(monkeypatch: pytest.MonkeyPatch, count: int, do: Any) -> None:
    """Do something after so many batches of a run."""
    add, batches = Progress.add, []

    def add_and_do(self: Progress, losses: dict[str, float]) -> None:
        add(self, losses)
        batches.append(losses)
        if len(batches) == count:
            do()

    monkeypatch.setattr(Progress, "add", add_and_do)


# Signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_signal_is_heard_at_the_end_of_the_step(recipe, uninterrupted, monkeypatch, number, code):
    """If it failed, a machine that is taken back would cost all since the last checkpoint."""
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        after_batches(patch, 9, lambda: os.kill(os.getpid(), number))
        saved = rf"stopped by {number.name}; saved .*epoch-0002-step-00000009$"
        with pytest.raises(Stopped, match=saved) as stopped:
            train_accelerate.train(recipe)
    assert stopped.value.code == code and signal.getsignal(number) == before
    train_accelerate.train(recipe)
    assert_same_run(uninterrupted, recipe)


def test_signal_within_an_accumulated_step_waits_for_its_end(corpus, tmp_path, monkeypatch):
    """If it failed, the gradients of half a step would be lost, and the run go on another way."""
    recipe = recipe_in(corpus, output_dir=str(tmp_path / "output"), accumulation=4, checkpoint_steps=0)
    after_batches(monkeypatch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="step-00000001"):
        train_accelerate.train(recipe)
    progress = json.loads((checkpoints_in(recipe)[-1] / "progress.json").read_text())
    assert (progress["batches"], progress["steps"]) == (4, 1)


def test_second_signal_ends_the_run_at_once(corpus, tmp_path, monkeypatch, request):
    """If it failed, a step that hangs could not be interrupted."""
    # Whoever runs the tests may ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    recipe = recipe_in(corpus, output_dir=str(tmp_path / "output"), accumulation=4)
    for count in (1, 2):
        after_batches(monkeypatch, count, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train_accelerate.train(recipe)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_script_says_how_to_go_on(corpus, tmp_path, number, code):
    """If it failed, a job's script would not know that the run is to be started again, or a person how."""
    recipe = recipe_in(corpus, output_dir=str(tmp_path / "out put"), epochs=1000)
    with started(recipe, stderr=subprocess.PIPE) as process:
        while not checkpoints_in(recipe):
            assert process.poll() is None
        process.send_signal(number)
        _, said = process.communicate()
    assert process.returncode == code
    newest, path = checkpoints_in(recipe)[-1], f"{tmp_path}/out put-recipe/tiny.yaml"
    command = f"python train_accelerate.py --recipe '{path}'"
    expected = f"train_accelerate.py: stopped by {number.name}; saved {newest}. Go on with: {command}"
    assert said.splitlines()[-1] == expected
    assert is_finished(tmp_path / "out put") is False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_whole_group_is_the_run_s_alone(corpus, tmp_path, number):
    """Regression: a scheduler's SIGTERM ended the loader's workers, and so the run without a checkpoint;
    Ctrl-C had each worker print its traceback."""
    recipe = recipe_in(corpus, output_dir=str(tmp_path / "out"), epochs=1000, num_workers=2)
    with started(recipe, stderr=subprocess.PIPE, start_new_session=True) as process:
        while not checkpoints_in(recipe):
            assert process.poll() is None
        os.killpg(process.pid, number)
        _, said = process.communicate()
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; saved {checkpoints_in(recipe)[-1]}" in said.splitlines()[-1]
    assert "Traceback" not in said and "DataLoader" not in said


@pytest.mark.parametrize(
    ("program", "start"),
    [
        ("train_accelerate.py", "python train_accelerate.py"),
        ("/bin/mmner", "python -m modeling_mmner"),
        ("modeling_mmner/__main__.py", "python -m modeling_mmner"),
    ],
)
def test_command_to_go_on_never_begins_anew(monkeypatch, program, start):
    """If it failed, the command that is given would not start, or throw away what was saved."""
    monkeypatch.setattr(sys, "argv", [program, "--resume", "never", "--recipe", "a b"])
    assert command_to_go_on("never") == f"{start} --resume never --recipe 'a b' --resume auto"


def test_several_runs_go_on_where_they_were_stopped(recipe):
    """If it failed, a comparison that is stopped in its second run would make the first one again."""
    runs = runs_of(recipe.with_settings(compare_without_pictures=True))
    first, second = (Path(one.training.output_dir) for one in runs.values())
    assert first != second
    never = {name: one.with_settings(resume="never") for name, one in runs.items()}

    def made(recipes: dict[str, Recipe]) -> list[bool]:
        """Which runs are made, by whether they see pictures."""
        found: list[bool] = []

        def train(one: Recipe) -> RunMetrics:
            found.append(one.corpus.use_images)
            return fake_train(one)

        assert list(run_each(recipes, train=train)) == list(recipes)
        return found

    assert made(runs) == [True, False]
    begin_run(second)  # as a run leaves it that was stopped
    assert made(runs) == [False]
    assert made(runs) == [True, False]
    begin_run(second)
    assert made(never) == [True, False]


def test_named_checkpoint_is_that_of_one_run(recipe, tmp_path):
    """If it failed, the run without pictures would go on from another's checkpoint."""
    compared = runs_of(recipe.with_settings(compare_without_pictures=True, resume=str(tmp_path)))
    assert [one.training.resume for one in compared.values()] == [str(tmp_path), "auto"]


# Early stopping


@pytest.mark.slow
def test_patience_ends_training_and_keeps_the_best_epoch(corpus, tmp_path, monkeypatch):
    """If it failed, epochs would be spent for nothing, or the last weights be taken for the best ones."""
    scores = iter([score for score in (0.2, 0.5, 0.5, 0.4, 0.9) for _ in ("lenient", "strict")])
    saved: list[dict[str, torch.Tensor]] = []
    save = Checkpoints.save

    def save_and_see(self: Checkpoints) -> Path:
        saved.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        return save(self)

    monkeypatch.setattr(train_accelerate, "tag_score", lambda *_, **__: {"f1": next(scores)})
    monkeypatch.setattr(Checkpoints, "save", save_and_see)
    recipe = recipe_in(corpus, output_dir=str(tmp_path / "output"), epochs=9, patience=2, checkpoint_steps=0)
    metrics = train_accelerate.train(recipe)
    assert [epoch["validation_f1"] for epoch in metrics.history] == [0.2, 0.5, 0.5, 0.4]
    assert metrics.selected_epoch == 2 and len(saved) == 4
    state = MMNERForTokenClassification.from_pretrained(tmp_path / "output" / "model").state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in saved[1].items())


# Numbers that are none


@pytest.mark.slow
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_loss_that_is_no_number_names_its_posts(recipe, monkeypatch, value):
    """If it failed, a run would go on with weights that are no numbers, or save them."""
    seen: list[list[list[int]]] = []
    forward = MMNERForTokenClassification.forward

    def failing(self: Any, **batch: Any) -> Any:
        output = forward(self, **batch)
        if self.training:
            seen.append([[tag for tag in row if tag >= 0] for row in batch["labels"].tolist()])
            if len(seen) == 9:
                output.loss = output.loss * float(value)
        return output

    monkeypatch.setattr(MMNERForTokenClassification, "forward", failing)
    with pytest.raises(RunError) as raised:
        train_accelerate.train(recipe)
    found = re.fullmatch(
        r"epoch 2, batch 3: expected finite numbers, found (.*), with the posts (.*)\. Look at them, or begin"
        r" anew \(--resume never\) with a lower learning rate; the run can go on from (.*)",
        str(raised.value),
    )
    assert found is not None and f"loss {value}" in found[1] and found[3] == str(checkpoints_in(recipe)[-1])
    rows = train_accelerate.load_corpus(recipe.corpus).splits["train"]
    tags = dict(zip(rows["id"], rows["ner_tags"], strict=True))
    assert [tags[post] for post in found[2].split(", ")] == seen[-1]
    state = torch.load(checkpoints_in(recipe)[-1] / "optimizer.bin", weights_only=True)["state"]
    assert all(torch.isfinite(moment["exp_avg"]).all() for moment in state.values())


def test_gradient_that_is_no_number_stops_the_run(recipe, monkeypatch):
    """If it failed, the step after a good loss could make all weights NaN."""
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *a, **kw: clip(*a, **kw) * float("nan"))
    message = r"epoch 1, batch 1: expected finite numbers, found gradient's norm nan, with the posts .*no"
    with pytest.raises(RunError, match=message):
        train_accelerate.train(recipe)
    assert checkpoints_in(recipe) == []


# What would fail late


def test_results_that_cannot_be_written_are_found_before_the_corpus_is_read(recipe, monkeypatch):
    """If it failed, a run would find after its training that it cannot save."""
    monkeypatch.setattr(train_accelerate, "load_corpus", lambda settings: pytest.fail("the corpus was read"))
    output = Path(recipe.training.output_dir)
    output.write_text("a file")
    message = rf"--output_dir {output}: expected a folder to write in that no other .*, found .*exists"
    with pytest.raises(RunError, match=message):
        train_accelerate.main(recipe)
    output.unlink()
    for name in ("model", "checkpoints", *FILES):
        output.mkdir(parents=True)
        kind = "file" if name in FILES else "folder"
        (output / name).mkdir() if name in FILES else (output / name).write_text("a file")
        message = (
            f"--output_dir {output}: expected {name} to be a {kind}, found none; move it away, or name"
            " another folder"
        )
        with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
            train_accelerate.main(recipe)
        shutil.rmtree(output)
    output.mkdir()
    os.mkfifo(output / STATUS)  # to read it would wait without end
    with pytest.raises(RunError, match=f"expected {STATUS} to be a file, found none"):
        train_accelerate.main(recipe)


def test_output_folder_that_is_removed_is_named(corpus, tmp_path, monkeypatch, capfd):
    """Regression: a run whose folder somebody removed ended in a library's error, and its traceback."""
    recipe = recipe_in(corpus, output_dir=str(tmp_path / "output"))
    after_batches(monkeypatch, 9, lambda: shutil.rmtree(tmp_path / "output"))
    message = f"^{tmp_path}/output/checkpoints/.*: expected to write it, found .* No such file or directory"
    with pytest.raises(RunError, match=message):
        train_accelerate.train(recipe)
    assert "Traceback" not in capfd.readouterr().err


def test_full_disk_leaves_the_checkpoint_before(recipe, uninterrupted, monkeypatch):
    """If it failed, half a checkpoint would replace a whole one. A limit on files' sizes is the full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with monkeypatch.context() as patch:
            after_batches(patch, 5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1])))
            with pytest.raises(RunError) as raised:
                train_accelerate.train(recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    folder = Path(recipe.training.output_dir) / "checkpoints"
    second, third, failed = (folder / f"epoch-0001-step-{step:08d}" for step in (2, 4, 6))
    message = (
        rf"{failed}: expected to write it, found .*File too large.*; make room, or see who may write there;"
        rf" the run can go on from {third}"
    )
    assert re.fullmatch(message, str(raised.value)) and sorted(folder.iterdir()) == [second, third]
    train_accelerate.train(recipe)
    assert_same_run(uninterrupted, recipe)
