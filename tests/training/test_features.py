"""Picture features that are kept: the same as computed ones, whoever filled them, and never anybody
else's.
"""

import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from accelerate import Accelerator
from datasets import Dataset, Features, List
from datasets import Image as ImageFeature
from safetensors.torch import save_file
from torch.utils.data import DataLoader

import train_accelerate
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.evaluation.scores import ShownRows
from modeling_mmner.model import images_mmner
from modeling_mmner.model.images_mmner import PictureError, load_picture, pictures_of, square_pixels
from modeling_mmner.model.ready_features_mmner import unpacked
from modeling_mmner.model.vision_mmner import VisionTower
from modeling_mmner.training import features as module
from modeling_mmner.training.assembly import build_model, build_processor
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.features import FeatureError, run_features, with_features
from modeling_mmner.training.recipes import Recipe
from tests.small_posts import GRADIENT, RED, SPECKLED, encoded
from tests.tiny import parts_of
from tests.training.test_training import TOWER, small_recipe, write_corpus

WORDS = ["Jordan", "posts", "from", "Paris"]
PICTURES = [encoded(picture) for picture in (SPECKLED, GRADIENT, RED, RED.rotate(90, expand=True))]


def rows_of(posts: list[list[bytes]]) -> Dataset:
    """A data set of posts with these pictures."""
    texts = Dataset.from_list([{"tokens": WORDS, "ner_tags": [1, 0, 0, 3]}] * len(posts))
    images = [[{"bytes": one, "path": None} for one in post] for post in posts]
    return texts.add_column("images", images, feature=List(ImageFeature(decode=False)))


ROWS = rows_of([[PICTURES[0]], [], [PICTURES[1], PICTURES[2]], [PICTURES[3]], [PICTURES[0]]])
SYSTEMS = {"one frozen tower": {"fusion": "cross-modal"}, "beside a trained one": {"fusion": "collaboration"}}
each_system = pytest.mark.parametrize("settings", SYSTEMS.values(), ids=SYSTEMS)


def frozen_parts(**settings: Any) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """A tiny model, with a frozen tower at least, and its processor."""
    return parts_of({"fusion": "cross-modal"} | settings, posts=[WORDS])


@contextmanager
def counted(owner: Any, name: str) -> Iterator[list[Any]]:
    """The last arguments of the calls of a function while the block runs."""
    calls, function = [], getattr(owner, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, lambda *given: [calls.append(given[-1]), function(*given)][1])
        yield calls


def bits(content: bytes) -> torch.Tensor:
    return torch.from_numpy(unpacked(content).copy()).view(torch.bfloat16)


@each_system
def test_kept_features_are_computed_ones_rounded(settings, tmp_path):
    """If it failed, a row would be another picture's, or depend on which pictures were computed with it."""
    model, processor = frozen_parts(**settings)
    rows = with_features(ROWS, model, processor, folder=tmp_path)
    for number, tower in enumerate(model.vision_towers):
        column = rows[f"image_features_{number}"]
        if not tower.frozen:
            assert column[:] == [None] * len(ROWS)
            continue
        for row, kept in zip(ROWS, column, strict=True):
            assert len(kept) == len(row["images"])
            for picture, content in zip(row["images"], kept, strict=True):
                pixels = torch.from_numpy(square_pixels(load_picture(picture), processor.image_size).copy())
                with torch.inference_mode():
                    expected = tower.features(pixels[None])[0]
                expected = expected.mean(0, keepdim=True) if tower.pooled else expected
                assert torch.equal(bits(content), expected.bfloat16())


@each_system
@pytest.mark.parametrize("mode", ["true", "shuffled", "none"])
@torch.inference_mode()
def test_model_on_kept_features_equals_model_on_pixels(mode, settings, tmp_path, monkeypatch):
    """If it failed, a post would be read with another post's features, or with features where its picture
    was withheld, or a trained tower with features in place of its pixels.
    """
    model, processor = frozen_parts(**settings)
    rows = with_features(ROWS, model, processor, folder=tmp_path)
    collate = MMNERCollator(processor)
    found = model(**collate([*ShownRows(rows, mode)]))
    kept = VisionTower.kept_features

    def rounded(tower: VisionTower, pictures: torch.Tensor) -> torch.Tensor:
        return kept(tower, pictures).bfloat16().float()

    features = VisionTower.features
    for tower in model.vision_towers:
        if tower.frozen:
            monkeypatch.setattr(tower, "features", lambda pixels, tower=tower: rounded_features(tower, pixels))

    def rounded_features(tower: VisionTower, pixels: torch.Tensor) -> torch.Tensor:
        computed = features(tower, pixels)
        return (computed.mean(1, keepdim=True) if tower.pooled else computed).bfloat16().float()

    expected = model(**collate([*ShownRows(ROWS, mode)]))
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.loss, expected.loss)
    other = model(**collate([*ShownRows(ROWS, "true" if mode == "none" else "none")]))
    assert (found.logits - other.logits).abs().max() > 0.01, "the pictures make no difference"
