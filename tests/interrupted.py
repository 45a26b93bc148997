"""Training runs on a tiny corpus that die at every checkpoint, and what a run has found, for comparison."""

import json
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import train_accelerate
from modeling_mmner.claims import claimed
from modeling_mmner.training.checkpoints import Checkpoints
from modeling_mmner.training.recipes import PACE, Recipe
from tests import tiny
from tests.training.test_training import TOWER, small_recipe

PLAIN = {"batch_size": 4, "checkpoint_steps": 2}
# Of 64 pixels more than one place is left for batch normalisation, even where a batch has one picture.
TRAINED_TOWER = TOWER | {"frozen": False, "image_size": 64}
VIT = tiny.VIT | {"image_size": 64, "pretrained": False}
VIT["backbone_args"] = tiny.VIT["backbone_args"] | {"img_size": 64}
TOWERS = [VIT, TRAINED_TOWER | {"pooled": True}]
TWO_M_NER = {"fusion": "collaboration", "objectives": None, "vision_towers": TOWERS}


class Killed(BaseException):
    """Ends a run as a kill would, for all that a test in one process sees of it."""


def recipe_in(folder: Path, **settings: Any) -> Recipe:
    """A tiny recipe on the corpus in a folder, in which training draws random numbers and clusters."""
    return small_recipe(folder, **PLAIN | settings)


def whole_and_killed(corpus: Path, folder: Path, **settings: Any) -> tuple[Recipe, Recipe]:
    """The same recipe twice, for a run that is not disturbed and for one that is."""
    whole, killed = (
        recipe_in(corpus, output_dir=str(folder / name), **settings) for name in ("whole", "killed")
    )
    return whole, killed


def frozen_tower(folder: Path) -> dict[str, Any]:
    """A frozen picture encoder with weights in a file, which a run with kept features does not read."""
    torch.manual_seed(0)
    backbone = timm.create_model(TOWER["backbone"], num_classes=0, **TOWER["backbone_args"])
    save_file(backbone.state_dict(), folder / "tower.safetensors")
    return TOWER | {"pretrained": True, "frozen": True, "checkpoint": str(folder / "tower.safetensors")}


@contextmanager
def killed_after(saves: int) -> Iterator[None]:
    """A run in this context dies after so many checkpoints."""
    save, done = Checkpoints.save, []

    def save_and_die(self: Checkpoints) -> Path:
        done.append(save(self))
        if len(done) == saves:
            raise Killed
        return done[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_die)
        yield


def train_killed(recipe: Recipe, saves: int) -> None:
    """Train until the process dies after so many checkpoints."""
    with killed_after(saves), pytest.raises(Killed):
        train_accelerate.train(recipe)


def train_dying(recipe: Recipe) -> int:
    """Train in processes that die after their first checkpoint; returns how many have died."""
    deaths = 0
    while True:
        try:
            with killed_after(1):
                train_accelerate.train(recipe)
            return deaths
        except Killed:
            deaths += 1


def checkpoints_in(recipe: Recipe) -> list[Path]:
    """The checkpoints of a run, the newest last."""
    return sorted((Path(recipe.training.output_dir) / "checkpoints").glob("epoch-*"))


def found_by(recipe: Recipe) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the metrics of a finished run, without its times and its place."""
    output = Path(recipe.training.output_dir)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    del metrics["timing"]
    for key in PACE:
        metrics["recipe"]["training"].pop(key, None)
    for epoch in metrics["history"]:
        del epoch["seconds"]
    return load_file(output / "model" / "model.safetensors"), metrics


def assert_same_run(first: Recipe, second: Recipe) -> None:
    """All that two runs have found is equal, bit for bit."""
    (weights, metrics), (others, other_metrics) = found_by(first), found_by(second)
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
    assert metrics == other_metrics
    outputs = [Path(recipe.training.output_dir, "predictions.jsonl") for recipe in (first, second)]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def at_work(action: Callable[[Any], None]) -> tuple[multiprocessing.Process, Callable[[], None]]:
    """A process that has begun an action and waits within it; and what lets it end."""
    context = multiprocessing.get_context("fork")
    begun, may_end = context.Event(), context.Event()
    process = context.Process(target=action, args=(lambda: (begun.set(), may_end.wait(60)),))
    process.start()
    assert begun.wait(60)
    return process, may_end.set


def hold(folder: Path, **options: Any) -> Callable[[Callable[[], None]], None]:
    """An action that holds a folder."""

    def action(wait: Callable[[], None]) -> None:
        with claimed(folder, **options):
            wait()

    return action
