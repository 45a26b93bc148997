"""Several processes that train together, held against one that has the whole batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import train_accelerate
from modeling_mmner import training
from modeling_mmner.gathering_mmner import gathered, mean_over_processes, whole_batch
from modeling_mmner.objectives_mmner import nt_xent
from modeling_mmner.recipes import Recipe, load_recipe
from tests.test_training import TEXT, TOWER, write_corpus
from tests.together import together

QUIET_TEXT = TEXT | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
VIT = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_args": {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2},
    "image_size": 32,
    "pretrained": False,
    "frozen": False,
}
FROZEN = TOWER | {"frozen": True}
SYSTEMS: dict[str, dict[str, Any]] = {
    "quickstart": {"vision_towers": [FROZEN], "objectives": {"clustering": 0.1}},
    "2m-ner-quickstart": {"vision_towers": [VIT, FROZEN | {"pooled": True}]},
}


@pytest.fixture(scope="module")
def posts(tmp_path_factory) -> Path:
    """A corpus of 23 training posts, some without a picture, so that the last step of an epoch has an odd number."""
    folder = tmp_path_factory.mktemp("posts")
    write_corpus(folder)
    blocks = (folder / "train.txt").read_text("utf-8").strip().split("\n\n")
    (folder / "train.txt").write_text("\n\n".join(blocks[:-1]) + "\n", encoding="utf-8")
    return folder


def recipe_of(name: str, folder: Path, **settings: Any) -> Recipe:
    """A system in tiny whose losses depend on nothing random."""
    overrides = {
        "text_config": QUIET_TEXT,
        "vocabulary_size": 300,
        "dropout": 0.0,
        "dataset": "conll",
        "data_dir": str(folder),
        "image_dir": str(folder / "images"),
        "languages": ["en"],
        "centre_warmup_epochs": 0,
        "compare_without_pictures": False,
        "mixed_precision": "no",
    }
    return load_recipe(name, overrides | SYSTEMS[name] | settings)


def steps_of(recipe: Recipe) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Train; the losses of each step, and the metrics."""
    steps: list[dict[str, float]] = []

    def observed(*arguments: Any, report: Any, **options: Any) -> dict[str, float]:
        def both(losses: dict[str, float]) -> None:
            steps.append(losses)
            report(losses)

        return training.train_epoch(*arguments, report=both, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_accelerate, "train_epoch", observed)
        metrics = train_accelerate.train(recipe)
    return steps, metrics.to_dict()


def one_and_two(name: str, posts: Path, tmp_path: Path, **settings: Any) -> list[tuple[list[dict[str, float]], dict[str, Any]]]:
    """A run in one process, and that of each of two with the same number of posts a step."""
    one = recipe_of(name, posts, batch_size=10, output_dir=str(tmp_path / "one"), **settings)
    two = recipe_of(name, posts, batch_size=5, output_dir=str(tmp_path / "two"), **settings)
    return [steps_of(one), *together(steps_of, two, folder=tmp_path)]


def largest_difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    assert [step.keys() for step in one] == [step.keys() for step in other]
    return max(abs(step[name] - same[name]) for step, same in zip(one, other, strict=True) for name in step)


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_processes_take_the_steps_of_one(name, posts, tmp_path):
    """If it failed, training in more processes would train something else: other posts a step, other weights of posts, other
    negatives, another learning rate."""
    (one, measured), (first, metrics), (second, others) = one_and_two(name, posts, tmp_path, epochs=3)
    assert len(one) == 9 and first == second
    assert largest_difference(one, first) < 1e-4
    for split in ("validation", "test"):
        assert metrics["splits"][split]["overall"] == others["splits"][split]["overall"] == measured["splits"][split]["overall"]
    assert json.loads((tmp_path / "two" / "metrics.json").read_text("utf-8"))["splits"] == metrics["splits"]


# The pieces


class Vectors(nn.Module):
    """Two linear maps whose weights get the gradients."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 4), nn.Linear(6, 4)


def contrast(inputs: Tensor, module: Vectors) -> Tensor:
    first, second = gathered(torch.stack([module.first(inputs), module.second(inputs)], dim=1)).unbind(1)
    return whole_batch(nt_xent(first, second, temperature=0.5))


def squares(inputs: Tensor, module: Vectors) -> Tensor:
    return mean_over_processes(module.first(inputs).square().sum(1))


def shared_step(loss_of: Any, shares: list[Tensor]) -> tuple[float, list[Tensor]]:
    """The loss, and the gradients that data-parallel training averages, of this process's share."""
    torch.distributed.init_process_group("gloo")
    module = Vectors()
    parallel = nn.parallel.DistributedDataParallel(Wrapped(module, loss_of), find_unused_parameters=True)
    loss = parallel(shares[torch.distributed.get_rank()])
    loss.backward()
    return loss.item(), [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


class Wrapped(nn.Module):
    def __init__(self, module: Vectors, loss_of: Any) -> None:
        super().__init__()
        self.module, self.loss_of = module, loss_of

    def forward(self, inputs: Tensor) -> Tensor:
        return self.loss_of(inputs, self.module)


@pytest.mark.parametrize("sizes", [(3, 3), (1, 4), (0, 3)], ids=["even", "uneven", "empty"])
@pytest.mark.parametrize("loss_of", [contrast, squares])
def test_loss_and_gradient_are_those_of_the_whole_batch(loss_of, sizes, tmp_path):
    """If it failed, each process's share would count by itself, whatever its size, or the gradient's scale would be off."""
    inputs = torch.randn(sum(sizes), 6, generator=torch.Generator().manual_seed(1))
    module = Vectors()
    loss = loss_of(inputs, module)
    loss.backward()
    expected = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    for found, gradients in together(shared_step, loss_of, list(inputs.split(sizes)), folder=tmp_path):
        assert found == pytest.approx(loss.item(), abs=1e-6)
        torch.testing.assert_close(gradients, expected, atol=1e-6, rtol=1e-5)
