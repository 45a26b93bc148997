"""A fusion and an objective of one's own, added as the README shows: its blocks are put where they say, and
the model trained.
"""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train_accelerate
from modeling_mmner import MMNERConfig, MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.context_mmner import TextStates
from modeling_mmner.model.fusion_mmner import Fusion
from modeling_mmner.model.objectives_mmner import Objective
from modeling_mmner.model.parts_mmner import FUSIONS, LOSSES, SETTINGS, TEXT_TOWERS, TextTowerPart
from modeling_mmner.model.text_mmner import TextTower, TransformerTower
from modeling_mmner.training.recipes import load_recipe
from tests.elsewhere import run_elsewhere
from tests.tiny import ready_model, tiny_batch, without
from tests.training.test_training import TEXT, write_corpus

ROOT = Path(__file__).parents[2]
TINY = {
    "text_config": TEXT,
    "vocabulary_size": 300,
    "dataset": "conll",
    "languages": ["en"],
    "epochs": 1,
    "batch_size": 8,
    "mixed_precision": "no",
}


def readme_blocks() -> dict[str, str]:
    """The blocks of the package's README for a part of one's own, by the file that their first line names."""
    text = (ROOT / "modeling_mmner" / "README.md").read_text(encoding="utf-8")
    found = re.findall(
        r"^```(?:python|yaml)\n# (modeling_mmner/\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    return dict(found)


def test_the_readme_touches_the_class_s_file_the_table_and_the_recipe():
    """If it failed, adding a part would take more than its class, its row and its recipe."""
    assert list(readme_blocks()) == [
        "modeling_mmner/model/fusion_mmner.py",
        "modeling_mmner/model/objectives_mmner.py",
        "modeling_mmner/model/parts_mmner.py",
        "modeling_mmner/training/recipes/mine.yaml",
    ]


@pytest.fixture
def own_recipe(monkeypatch, tmp_path) -> Path:
    """The README's parts in place for one test, and the path of its recipe."""
    blocks = readme_blocks()
    for registry in (Fusion.classes, Objective.classes, FUSIONS, LOSSES):
        for name in ("concatenation", "short-features"):
            monkeypatch.setitem(registry, name, None)  # so that they are taken out again
            del registry[name]
    monkeypatch.setitem(SETTINGS, "feature_limit", None)
    for name, block in blocks.items():
        if name.endswith(".py"):
            exec(block, dict(vars(importlib.import_module(name.removesuffix(".py").replace("/", ".")))))
    path = tmp_path / "mine.yaml"
    path.write_text(blocks["modeling_mmner/training/recipes/mine.yaml"], encoding="utf-8")
    return path


@pytest.mark.slow
def test_own_parts_train_and_come_back(own_recipe, tmp_path):
    """If it failed, a part added by its class, row and recipe would not be one like the others."""
    write_corpus(tmp_path)
    folders = {
        "data_dir": str(tmp_path),
        "image_dir": str(tmp_path / "images"),
        "output_dir": str(tmp_path / "out"),
    }
    recipe = load_recipe(str(own_recipe), TINY | folders)
    metrics = train_accelerate.train(recipe).to_dict()
    assert metrics["history"][0]["loss_short-features"] > 0
    assert metrics["history"][0].keys() >= {"loss", "loss_crf"}
    model = MMNERForTokenClassification.from_pretrained(tmp_path / "out" / "model").eval()
    assert (model.config.fusion, model.config.feature_limit) == ("concatenation", 5.0)
    inputs = MMNERProcessor.from_pretrained(tmp_path / "out" / "model")(["Jordan posts"])
    features = model.encode(**inputs).fused.features
    assert features.shape == (1, 2, 64) and features[..., 32:].eq(0).all()  # no picture: [h; 0]
    assert load_recipe(str(own_recipe), {"feature_limit": 3.0}).model.config["feature_limit"] == 3.0
    with pytest.raises(ValueError, match="feature_limit: expected > 0, found -1"):
        load_recipe(str(own_recipe), {"feature_limit": -1.0})
    with pytest.raises(ValueError, match="objectives: 'contrastive' needs the fusion 'cross-modal', found"):
        type(model.config)(**model.config.to_dict() | {"objectives": {"crf": 1.0, "contrastive": 1.0}})


def test_text_tower_of_ones_own(monkeypatch, tmp_path):
    """If it failed, a text tower would need more than its class and its row, as the README says it does."""
    for registry in (TextTower.classes, TEXT_TOWERS):
        monkeypatch.setitem(registry, "convolved", None)
    TEXT_TOWERS["convolved"] = TextTowerPart("sees neighbours once more")

    class Convolved(TransformerTower, part="convolved"):
        def __init__(self, config: MMNERConfig) -> None:
            super().__init__(config)
            self.convolution = torch.nn.Conv1d(self.width, self.width, 3, padding=1)

        def forward(self, *arguments: torch.Tensor, **places: torch.Tensor) -> TextStates:
            text = super().forward(*arguments, **places)
            words = self.convolution(text.words.mT).mT.masked_fill(~text.mask[..., None], 0.0)
            return TextStates(words, text.mask, text.sentence)

    model = ready_model(text_tower="convolved")
    inputs = without(tiny_batch(), "labels")
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        found = model(**inputs).logits
        again = MMNERForTokenClassification.from_pretrained(tmp_path).eval()
        assert torch.equal(again(**inputs).logits, found)
        model.text_tower.convolution.weight.zero_()
        assert not torch.equal(model(**inputs).logits, found)


LOADED = """
import json, sys
import torch
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
with torch.no_grad():
    outputs = model(**processor(["Jordan posts"]))
print(json.dumps({"fusion": type(model.fusion).__name__, "tags": outputs.tags.tolist()}))
"""


@pytest.mark.slow
def test_own_parts_travel_with_the_model(tmp_path):
    """If it failed, a model with parts of one's own could not be loaded from the Hub without the package."""
    checkout = tmp_path / "checkout"
    for name in ("modeling_mmner", "dataset_scripts", "model_cards"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train_accelerate.py", checkout)
    for name, block in readme_blocks().items():
        path = checkout / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(f"{before}\n\n{block}", encoding="utf-8")
    write_corpus(tmp_path / "corpus")
    folders = {"data_dir": "../corpus", "image_dir": "../corpus/images", "output_dir": "../out"}
    command = [sys.executable, "train_accelerate.py", "--recipe", "mine", "--languages", "en"]
    for name, value in (TINY | folders).items():
        if name != "languages":
            command += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(
        run_elsewhere(LOADED, tmp_path / "out" / "model", folder=tmp_path).stdout.splitlines()[-1]
    )
    assert found["fusion"] == "Concatenation" and len(found["tags"][0]) == 2


def test_the_readme_s_parts_are_gone_again():
    """If it failed, the tests above would change what the others test."""
    assert "concatenation" not in FUSIONS and "short-features" not in Objective.classes
