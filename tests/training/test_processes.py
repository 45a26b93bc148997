"""Several processes that train together, held against one that has the whole batch."""

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.config import load_config_from_file
from torch import Tensor, nn
from torch.distributed import TCPStore

import train_accelerate
from dataset_scripts.formats.reader import CorpusError
from modeling_mmner.evaluation.scores import Predictor
from modeling_mmner.model.gathering_mmner import gathered, mean_over_processes, whole_batch
from modeling_mmner.model.objectives_mmner import nt_xent
from modeling_mmner.training import optimisation, processes
from modeling_mmner.training.assembly import build_model, build_processor
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.optimisation import refresh_centres
from modeling_mmner.training.processes import _meeting_place
from modeling_mmner.training.recipes import Recipe, load_recipe
from modeling_mmner.training.run_folder import RunError
from modeling_mmner.training.sampling import PostSampler
from tests import tiny
from tests.together import exit_codes, together
from tests.training.test_training import TEXT, TOWER, write_corpus

LAUNCH = Path(train_accelerate.__file__).with_name("modeling_mmner") / "training" / "launch"
QUIET_TEXT = TEXT | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
VIT = tiny.VIT | {"pretrained": False}
FROZEN, TRAINED = TOWER | {"frozen": True}, TOWER | {"frozen": False, "image_size": 64}
SYSTEMS: dict[str, dict[str, Any]] = {
    "quickstart": {"vision_towers": [FROZEN], "objectives": {"clustering": 0.1}},
    "2m-ner-quickstart": {"vision_towers": [VIT, FROZEN | {"pooled": True}]},
}


@pytest.fixture(scope="module")
def posts(tmp_path_factory) -> Path:
    """A corpus of 23 training posts, some without a picture: an epoch's last step has an odd number."""
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
        "feature_cache": str(folder / "features"),
        "centre_warmup_epochs": 0,
        "compare_without_pictures": False,
        "mixed_precision": "no",
    }
    return load_recipe(name, overrides | SYSTEMS[name] | settings)


def steps_of(recipe: Recipe) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Train; the losses of each step, and the metrics."""
    steps: list[dict[str, float]] = []

    def observed(*arguments: Any, **options: Any) -> Iterator[dict[str, float]]:
        for losses in optimisation.train_batches(*arguments, **options):
            steps.append(losses)
            yield losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_accelerate, "train_batches", observed)
        metrics = train_accelerate.train(recipe)
    return steps, metrics.to_dict()


def one_and_two(
    name: str, posts: Path, tmp_path: Path, **settings: Any
) -> list[tuple[list[dict[str, float]], dict[str, Any]]]:
    """A run in one process, and that of each of two with the same number of posts a step."""
    one = recipe_of(name, posts, batch_size=10, output_dir=str(tmp_path / "one"), **settings)
    two = recipe_of(name, posts, batch_size=5, output_dir=str(tmp_path / "two"), **settings)
    return [steps_of(one), *together(steps_of, two, folder=tmp_path)]


def largest_difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    assert [step.keys() for step in one] == [step.keys() for step in other]
    return max(abs(step[name] - same[name]) for step, same in zip(one, other, strict=True) for name in step)


@pytest.mark.slow  # two more processes on two cores
@pytest.mark.parametrize("name", ["quickstart", "2m-ner-quickstart"])
def test_two_processes_take_the_steps_of_one(name, posts, tmp_path):
    """If it failed, more processes would train something else: other posts a step, negatives or rates."""
    (one, measured), (first, metrics), (second, others) = one_and_two(name, posts, tmp_path, epochs=2)
    assert len(one) == 6 and first == second
    assert largest_difference(one, first) < 1e-4
    for split in ("validation", "test"):
        found, theirs, ours = (each["splits"][split]["overall"] for each in (metrics, others, measured))
        assert found == theirs == ours
    assert json.loads((tmp_path / "two" / "metrics.json").read_text("utf-8"))["splits"] == metrics["splits"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_two_processes_stay_with_one_for_fifty_steps(name, posts, tmp_path):
    """If it failed, differences would grow, or come with new centres, accumulation or the rate's decay."""
    settings = {"epochs": 17, "accumulation": 2, "centre_refresh_epochs": 3}
    (one, _), (two, _), _ = one_and_two(name, posts, tmp_path, **settings)
    assert len(one) == 51
    assert largest_difference(one[:50], two[:50]) < 1e-4


@pytest.mark.slow
def test_batch_norm_that_trains_ends_with_the_same_statistics_everywhere(posts, tmp_path):
    """If it failed, processes would predict with statistics of their own, which are not saved."""
    (one, _), (first, metrics), (second, others) = one_and_two(
        "quickstart", posts, tmp_path, vision_towers=[TRAINED], epochs=1
    )
    assert first == second and metrics["splits"] == others["splits"]
    assert largest_difference(one, first) > 1e-4  # each process normalises its own pictures


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_model_that_is_shared_out_is_refused_before_anything_is_done(tmp_path, monkeypatch, name):
    """If it failed, a run started in a way that this model is not made for would train something else."""
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    recipe = load_recipe("quickstart", {"output_dir": str(tmp_path / "out")})
    message = rf"processes: expected each to have the whole model \(DDP\), found {name}; start them by"
    with pytest.raises(RunError, match=message):
        train_accelerate.main(recipe)
    assert not (tmp_path / "out").exists()


def test_accelerate_knows_every_key_of_the_launch_file():
    """If it failed, a launch file would end in an error, or a key of it be misspelt."""
    config = load_config_from_file(str(LAUNCH / "two_machines.yaml"))
    assert config.num_processes == 16 and config.distributed_type == "MULTI_GPU"


# Runs of several models


@pytest.mark.slow
def test_comparison_and_its_results_come_once(posts, tmp_path):
    """Regression: the end of the first model's training took the group of the processes away."""
    recipe = recipe_of("quickstart", posts, batch_size=5, epochs=1, output_dir=str(tmp_path / "out"))
    together(train_accelerate.main, recipe.with_settings(compare_without_pictures=True), folder=tmp_path)
    printed, others = [(tmp_path / f"{rank}.out").read_text("utf-8") for rank in range(2)]
    assert not others
    counts = [printed.count(text) for text in ("epoch 1: loss", "Test split", "Model folder")]
    assert counts == [2, 1, 1]
    for folder in (tmp_path / "out", tmp_path / "out" / "without_pictures"):
        assert (folder / "model" / "model.safetensors").is_file() and (folder / "metrics.json").is_file()


# Processes that fail


def broken_second(recipe: Recipe) -> None:
    def train_batches(*arguments: Any, **options: Any) -> Iterator[dict[str, float]]:
        if torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return optimisation.train_batches(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_accelerate, "train_batches", train_batches)
        train_accelerate.main(recipe)


@pytest.mark.slow
def test_killed_process_ends_the_run(posts, tmp_path):
    """If it failed, the others would wait for it as long as they wait for one that builds a corpus."""
    recipe = recipe_of("quickstart", posts, batch_size=5, output_dir=str(tmp_path / "out"))
    assert exit_codes(broken_second, recipe, folder=tmp_path) == [1, -signal.SIGKILL]


def test_processes_that_are_started_again_do_not_hear_the_dead(monkeypatch):
    """Regression: a second attempt's processes called at the first one's addresses, in torchrun's store."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port), "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in (place | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    server.set("address", "of the dead")
    assert _meeting_place() == {}
    for attempt in ("1", "2"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        found = _meeting_place()
        assert (found["rank"], found["world_size"]) == (0, 1)
        assert not found["store"].check(["address"])
        found["store"].set("address", "of the dead")


@pytest.mark.slow
def test_fewer_posts_than_processes_are_refused(posts, tmp_path):
    """If it failed, a process without a post would leave the others waiting."""
    few = recipe_of("quickstart", posts, output_dir=str(tmp_path / "out"))
    expected = "training split: expected a post for each of 2 processes, found 1; start fewer"
    assert together(refused_for_posts, few, folder=tmp_path) == [expected] * 2


def refused_for_posts(recipe: Recipe) -> str:
    def one_post(settings: Any) -> Any:
        corpus = load_corpus(settings)
        corpus.splits["train"] = corpus.splits["train"].select([0])
        return corpus

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CorpusError) as error:
        patch.setattr(train_accelerate, "load_corpus", one_post)
        train_accelerate.train(recipe)
    return str(error.value)


# The pieces


def centres_and_tags(recipe: Recipe, count: int) -> tuple[Tensor, list[list[str]]]:
    """The entity centres over some posts, and their tags."""
    processes.started_processes()
    rows = load_corpus(recipe.corpus).splits["train"].select(range(count))
    torch.manual_seed(0)
    processor = build_processor(recipe, labels=rows.features["ner_tags"].feature.names, posts=rows["tokens"])
    model, accelerator = build_model(recipe, processor), Accelerator()
    refresh_centres(model, rows, collate=MMNERCollator(processor), batch_size=2, accelerator=accelerator)
    tags = Predictor(model, processor, accelerator, batch_size=2).tags(rows)
    return model.objectives["clustering"].centres, tags


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 7])
def test_three_processes_count_each_post_once(count, posts, tmp_path):
    """If it failed, a post would count twice or never, or a process without one leave the others waiting."""
    recipe = recipe_of("quickstart", posts, feature_cache="off")
    centres, tags = centres_and_tags(recipe, count)
    for found, theirs in together(centres_and_tags, recipe, count, folder=tmp_path, processes=3):
        torch.testing.assert_close(found, centres, atol=1e-6, rtol=1e-5)
        assert theirs == tags and len(tags) == count


@pytest.mark.parametrize("count", range(1, 14))
def test_steps_have_the_posts_of_one_process(count):
    """If it failed, two processes would see other posts in a step than one, or one have more steps."""
    posts = partial(PostSampler, [1] * count, seed=1)
    one = [sorted(batch) for batch in posts(batch_size=6, processes=1)]
    batches = posts(batch_size=3, processes=2)
    two = [sorted(first + second) for first, second in zip(*[iter(batches)] * 2, strict=True)]
    assert two == (one[:-1] if count % 6 == 1 else one)
    assert len(batches) == len(list(batches)) and all(batches)
    assert all(abs(len(one) - len(other)) <= 1 for one, other in zip(*[iter(batches)] * 2, strict=True))


class Loss(nn.Module):
    """A loss of two linear maps, whose weights get the gradients."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name, self.first, self.second = name, nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.name == "squares":
            return mean_over_processes(self.first(inputs).square().sum(1))
        views = gathered(torch.stack([self.first(inputs), self.second(inputs)], dim=1))
        return whole_batch(nt_xent(*views.unbind(1), temperature=0.5))

    def step(self, loss: Tensor) -> tuple[float, list[Tensor]]:
        loss.backward()
        return loss.item(), [one.grad for one in self.parameters() if one.grad is not None]


def shared_step(name: str, shares: list[Tensor]) -> tuple[float, list[Tensor]]:
    """The loss, and the gradients that data-parallel training averages, of this process's share."""
    torch.distributed.init_process_group("gloo")
    module = Loss(name)
    parallel = nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
    return module.step(parallel(shares[torch.distributed.get_rank()]))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(3, 3), (1, 4), (0, 3)], ids=["even", "uneven", "empty"])
@pytest.mark.parametrize("name", ["contrast", "squares"])
def test_loss_and_gradient_are_those_of_the_whole_batch(name, sizes, tmp_path):
    """If it failed, each process's share would count by itself, or the gradient's scale would be off."""
    inputs = torch.randn(sum(sizes), 6, generator=torch.Generator().manual_seed(1))
    module = Loss(name)
    loss, expected = module.step(module(inputs))
    for found, gradients in together(shared_step, name, list(inputs.split(sizes)), folder=tmp_path):
        assert found == pytest.approx(loss, abs=1e-6)
        torch.testing.assert_close(gradients, expected, atol=1e-6, rtol=1e-5)
