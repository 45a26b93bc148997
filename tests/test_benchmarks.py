"""The benchmarks in `tests/benchmarks`: that contenders do the work that they are timed at. Nothing is timed
here.
"""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import load_dataset
from torch import nn

from modeling_mmner.model.crf_mmner import CRF
from tests.benchmarks import crf_speed, memory, rounds, second_runs, step_shares
from tests.benchmarks.__main__ import main, parse_arguments
from tests.benchmarks.floors import exact_batches
from tests.benchmarks.mmner_runs import MMNERExtraction, MMNERTraining
from tests.benchmarks.parts import PARTS, plain_program
from tests.benchmarks.picture_features import picture_features
from tests.benchmarks.setting import Setting, make_setting
from tests.interrupted import frozen_tower
from tests.tiny import TEXT, TOWER, fuse, stir

RECIPE = {
    "description": "UMT in small",
    "model": {
        "text_config": TEXT | {"vocab_size": 3000, "max_position_embeddings": 128},
        "vision_towers": [TOWER | {"pretrained": False}],
        "fusion": "cross-modal",
        "objectives": {"crf": 1.0, "boundary": 0.5, "contrastive": 0.5},
        "boundary_share": 0.5,
    },
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return str(path)


@pytest.fixture(scope="module")
def setting(recipe: str) -> Setting:
    return make_setting(
        recipe, data_dir=None, image_dir=None, batches=2, batch_size=4, precision="no", seed=1
    )


@pytest.fixture
def plain(setting: Setting) -> Any:
    return plain_program(setting, setting.model())


@pytest.mark.parametrize("part", PARTS)
def test_part_runs(recipe: str, part: str, tmp_path: Path, capsys, monkeypatch) -> None:
    """If it failed, a part of the benchmark would not run, or its ratios would not be those of its times."""
    monkeypatch.setattr(crf_speed, "SIZES", [(2, 3)])
    monkeypatch.setattr(rounds, "LEAST_SECONDS", 0.0)
    output = tmp_path / "figures.json"
    arguments = [
        "--recipe",
        recipe,
        "--rounds",
        "3",
        "--batches",
        "2",
        "--batch_size",
        "4",
        "--precision",
        "no",
    ]
    main(parse_arguments([*arguments, "--only", part, "--output", str(output)]))
    report, shown = json.loads(output.read_text()), capsys.readouterr().out
    assert report["parts"].keys() == {part}
    for result in report["parts"][part]:
        assert result["title"] in shown
        for ratio in result.get("ratios", []):
            one, other = (result["seconds"][ratio[name]]["rounds"] for name in ("of", "to"))
            assert ratio["rounds"] == [first / second for first, second in zip(one, other, strict=True)]
            assert ratio["median"] == sorted(ratio["rounds"])[1]
        for number in range(3 if "shares" in result else 0):
            assert sum(share["rounds"][number] for share in result["shares"].values()) == pytest.approx(1.0)


def test_plain_programs_loss_is_that_of_our_crfs(plain) -> None:
    """If it failed, the plain program would train something else than a CRF over its sub-tokens and one over
    their boundaries.
    """
    torch.manual_seed(0)
    model = plain.model
    lengths, sizes = torch.tensor([9, 4, 1]), (len(model.labels), len(model.boundary_labels))
    mask = torch.arange(9) < lengths[:, None]
    emissions, labels = zip(
        *((torch.randn(3, 9, size), torch.randint(size, (3, 9))) for size in sizes), strict=True
    )
    expected = []
    for crf, names, scores, tags in zip(
        (model.crf, model.boundary_crf), (model.labels, model.boundary_labels), emissions, labels, strict=True
    ):
        ours = CRF(names)
        ours.load_state_dict(crf.state_dict())
        expected.append(ours.negative_log_likelihood(scores, tags, mask=mask).mean())
    torch.testing.assert_close(model.loss(*emissions, *labels, mask.long()), expected[0] + 0.5 * expected[1])


def test_plain_program_fuses_as_our_model_does(setting: Setting, plain) -> None:
    """If it failed, the two would not be the same system, and their times would say nothing of each other."""
    torch.manual_seed(0)
    model, fusion = plain.model.eval(), setting.model().eval().fusion
    stir(fusion)
    for name, layer in fusion.named_children():
        getattr(model, name).load_state_dict(layer.state_dict())
    words, regions = (
        torch.randn(3, 7, TEXT["hidden_size"]),
        torch.randn(3, 4, fusion.region_projection.in_features),
    )
    mask = torch.arange(7) < torch.tensor([7, 2, 5])[:, None]
    ours = fuse(
        fusion, words, word_mask=mask, regions=[(regions, torch.ones(3, 4, dtype=torch.bool))]
    ).features
    torch.testing.assert_close(
        model.fused(words, regions, mask.long())[mask], ours[mask], atol=1e-5, rtol=1e-5
    )


def test_plain_program_is_as_large_as_our_model(setting: Setting, plain) -> None:
    """If it failed, one would be timed with smaller layers. What depends on the labels is left out:
    sub-tokens have more.
    """

    def size(model: nn.Module) -> int:
        own = ("classifier", "crf", "no_picture")
        return sum(
            tensor.numel()
            for name, tensor in model.named_parameters()
            if not any(part in name for part in own)
        )

    assert size(plain.model) == size(setting.model())


def test_plain_program_tags_each_word_and_learns(setting: Setting, plain) -> None:
    """If it failed, its labels would not stand where its words do."""
    plain.optimizer.param_groups[0]["lr"] = 5e-3
    losses = [plain.epoch() for _ in range(12)]
    assert losses[-1] < 0.3 * losses[0]
    gold = [[setting.processor.labels[tag] for tag in post["ner_tags"]] for post in setting.posts]
    found = plain.extract()
    assert [len(tags) for tags in found] == [len(tags) for tags in gold]
    right = [one == other for one, other in zip(chain(*found), chain(*gold), strict=True)]
    assert sum(right) > 0.9 * len(right)


def test_ready_features_are_those_of_the_pictures(setting: Setting) -> None:
    """If it failed, training and extraction with features would be timed on something else than the posts'
    pictures.
    """
    model = setting.model()
    stir(model)
    features = picture_features(setting, model)
    training = MMNERTraining(setting, model)
    model.eval()
    for pixels, ready in zip(training.loader(), training.loader(features=features), strict=True):
        assert "pixel_values" in pixels and "pixel_values" not in ready
        torch.testing.assert_close(
            model(**pixels).loss, model(**ready).loss, atol=1e-2, rtol=1e-2
        )  # features are in bfloat16
    seen, given = MMNERExtraction(setting, model), MMNERExtraction(setting, model, features=features)
    found = seen.extract()
    places = [
        [[(one["start"], one["end"]) for one in entities] for entities in each]
        for each in (given.extract(), found)
    ]
    assert places[0] == places[1] and any(found)


def test_floor_has_the_posts_sub_tokens(setting: Setting) -> None:
    """If it failed, what stands for the least possible work would be less, or more, than the posts need."""
    batches = setting.in_batches(setting.sub_tokens())
    for batch, lengths in zip(exact_batches(setting, setting.model()), batches, strict=True):
        assert sum(lengths) <= batch["input_ids"].numel() < sum(lengths) + len(lengths)


class Clock:
    """A clock that stands still until somebody takes time."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def takes(self, seconds: float) -> Any:
        """A hook that takes time."""

        def hook(*arguments: Any) -> None:
            self.now += seconds

        return hook


def test_backward_pass_is_counted_by_part(setting: Setting, monkeypatch) -> None:
    """If it failed, a step's profile would put the backward pass of one part down to another."""
    clock = Clock()
    monkeypatch.setattr(step_shares, "time", clock)
    training, stopwatch = MMNERTraining(setting, setting.model()), step_shares.Stopwatch()
    step_shares.watch_training(stopwatch, training)
    model = training.model
    layers = {
        "text encoder": model.get_input_embeddings().weight,
        "fusion": model.fusion.region_projection.weight,
        "heads": model.heads["boundary"].text_layer.attention.query.weight,
        "CRF": model.heads["boundary"].crf.transitions,
    }
    for number, parameter in enumerate(layers.values()):
        parameter.register_hook(clock.takes(10.0**number))
    shares = step_shares.Profile("", training, training.loader(), stopwatch).measure(1)
    taken = {part: seconds for part, seconds in shares.seconds[0].items() if seconds}
    assert taken == {part: 2 * 10.0**number for number, part in enumerate(layers)}  # two batches


@pytest.mark.slow
def test_second_run_and_second_seed_compute_no_picture(tmp_path: Path, monkeypatch, capsys) -> None:
    """If it failed, a frozen encoder would run again on pictures whose features are kept, or the command
    would not count it.
    """
    with_weights = RECIPE["model"] | {
        "vision_towers": [frozen_tower(tmp_path)]
    }  # random ones would be another seed's
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | {"model": with_weights}))
    recipe = str(tmp_path / "tiny.yaml")
    monkeypatch.setattr(
        "sys.argv", ["second_runs", "--steps", "1", "--recipe", recipe, "--mixed_precision", "no"]
    )
    second_runs.main()
    first, second, seed = capsys.readouterr().out.splitlines()
    pictures = int(first.split("encoders ran on ")[1].split()[0])
    assert pictures > 1000 and f"{pictures} times before the first step and 0 times later" in first
    assert "ran on 0 pictures, 0 times before the first step and 0 times later" in second
    assert "ran on 0 pictures, 0 times before the first step and 0 times later" in seed


@pytest.mark.slow
def test_memory_command_trains_and_extracts_on_as_many_posts_as_it_says(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    """If it failed, the figures of memory would not be those of corpora of two sizes."""
    monkeypatch.setattr(
        "sys.argv", ["memory", "--training", "40", "80", "--extraction", "40", "80", "--steps", "4"]
    )
    memory.main(memory.parse_arguments(), tmp_path)
    shown = capsys.readouterr().out
    assert re.findall(r"(\w+), (\d+) posts: [\d,]+ MiB of its own", shown) == [
        (what, posts) for what in ("training", "extraction") for posts in ("40", "80")
    ]
    assert len(load_dataset(str(tmp_path / "corpus-80"), split="train")) == 80
