"""The benchmarks in `tests/benchmarks`: that contenders do the work that they are timed at."""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from modeling_mmner.model.crf_mmner import CRF
from tests.benchmarks import crf_speed, memory, rounds
from tests.benchmarks.__main__ import main, parse_arguments
from tests.benchmarks.mmner_runs import MMNERExtraction, MMNERTraining
from tests.benchmarks.parts import PARTS, plain_program
from tests.benchmarks.setting import Setting, make_setting
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
SIZES: dict[str, Any] = {"batches": 2, "batch_size": 4, "precision": "no"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return str(path)


@pytest.fixture(scope="module")
def setting(recipe: str) -> Setting:
    return make_setting(recipe=recipe, data_dir=None, image_dir=None, seed=1, **SIZES)


@pytest.fixture
def plain(setting: Setting) -> Any:
    return plain_program(setting, setting.model())


@pytest.mark.slow
def test_parts_run(recipe: str, tmp_path: Path, monkeypatch) -> None:
    """If it failed, a part of the benchmark would not run, or its ratios would not be those of its times."""
    monkeypatch.setattr(crf_speed, "SIZES", [(2, 3)])
    monkeypatch.setattr(rounds, "LEAST_SECONDS", 0.0)
    output = tmp_path / "figures.json"
    sizes = [part for name, value in SIZES.items() for part in (f"--{name}", str(value))]
    main(parse_arguments(["--recipe", recipe, "--rounds", "3", *sizes, "--output", str(output)]))
    report = json.loads(output.read_text())
    assert report["parts"].keys() == PARTS.keys()
    for result in chain(*report["parts"].values()):
        for ratio in result["ratios"]:
            one, other = (result["seconds"][ratio[name]]["rounds"] for name in ("of", "to"))
            assert ratio["rounds"] == [first / second for first, second in zip(one, other, strict=True)]
            assert ratio["median"] == sorted(ratio["rounds"])[1]


@pytest.mark.slow
def test_plain_program_is_our_system(setting: Setting, plain) -> None:
    """If it failed, the plain program would fuse otherwise, or have smaller layers, and its times would say
    nothing of ours. What depends on the labels is left out: sub-tokens have more.
    """
    torch.manual_seed(0)
    ours = setting.model().eval()
    own = ("classifier", "crf", "no_picture")
    shared = [
        [tensor for name, tensor in model.named_parameters() if not any(part in name for part in own)]
        for model in (plain.model, ours)
    ]
    assert sum(map(torch.numel, shared[0])) == sum(map(torch.numel, shared[1]))
    model, fusion = plain.model.eval(), ours.fusion
    stir(fusion)
    for name, layer in fusion.named_children():
        getattr(model, name).load_state_dict(layer.state_dict())
    words = torch.randn(3, 7, TEXT["hidden_size"])
    regions = torch.randn(3, 4, fusion.region_projection.in_features)
    mask = torch.arange(7) < torch.tensor([7, 2, 5])[:, None]
    seen = [(regions, torch.ones(3, 4, dtype=torch.bool))]
    expected = fuse(fusion, words, word_mask=mask, regions=seen).features[mask]
    torch.testing.assert_close(model.fused(words, regions, mask.long())[mask], expected, atol=1e-5, rtol=1e-5)


def test_plain_programs_loss_is_that_of_our_crfs(plain) -> None:
    """If it failed, the plain program would not train a CRF over its sub-tokens and one over boundaries."""
    torch.manual_seed(0)
    model, mask = plain.model, torch.arange(9) < torch.tensor([9, 4, 1])[:, None]
    emissions, labels, expected = [], [], []
    for crf, names in ((model.crf, model.labels), (model.boundary_crf, model.boundary_labels)):
        emissions.append(torch.randn(3, 9, len(names)))
        labels.append(torch.randint(len(names), (3, 9)))
        ours = CRF(names)
        ours.load_state_dict(crf.state_dict())
        expected.append(ours.negative_log_likelihood(emissions[-1], labels[-1], mask=mask).mean())
    torch.testing.assert_close(model.loss(*emissions, *labels, mask.long()), expected[0] + 0.5 * expected[1])


@pytest.mark.slow
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
    """If it failed, training and extraction with features would be timed on other pictures."""
    model = setting.model()
    stir(model)
    featured, training = setting.with_features(model), MMNERTraining(setting, model)
    model.eval()
    for pixels, ready in zip(training.loader(setting.posts), training.loader(featured), strict=True):
        assert "pixel_values" in pixels and "pixel_values" not in ready
        losses = model(**pixels).loss, model(**ready).loss
        torch.testing.assert_close(*losses, atol=1e-2, rtol=1e-2)  # features are in bfloat16
    found = [MMNERExtraction(setting, model, posts).extract() for posts in (setting.posts, featured)]
    places = [[[(one["start"], one["end"]) for one in entities] for entities in each] for each in found]
    assert places[0] == places[1] and any(places[0])


@pytest.mark.slow
def test_memory_command_trains_and_extracts_on_corpora_of_two_sizes(tmp_path: Path, capsys) -> None:
    """If it failed, the figures of memory would not be those of corpora of two sizes."""
    sizes = ["--training", "40", "80", "--extraction", "40", "80", "--steps", "4"]
    memory.main(memory.parse_arguments(sizes), tmp_path)
    told = re.findall(r"(\w+), (\d+) posts: [\d,]+ MiB of its own", capsys.readouterr().out)
    assert told == [(what, posts) for what in ("training", "extraction") for posts in ("40", "80")]
