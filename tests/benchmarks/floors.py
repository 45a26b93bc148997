"""What no program can be faster than: the layers alone, on random tensors, without any padding.

A batch has as many sub-tokens and words as the posts that it stands for, but evenly spread: each of its posts
has the mean.

Notation: B batch, S sub-tokens, W words, M regions of a picture.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from modeling_mmner import MMNERForTokenClassification

from .setting import Setting

Batches = list[dict[str, Tensor]]


class TrainingFloor:
    """Text encoder and fusion of a model, trained alone in the setting's precision."""

    def __init__(self, setting: Setting, model: MMNERForTokenClassification) -> None:
        self.model, self.precision = model, setting.precision
        self.batches = exact_batches(setting, model)

    def epoch(self, optimizer: Any = None) -> None:
        """Forwards and backwards, and a step of the optimizer where it is given."""
        self.model.train()
        for batch in self.batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
                features = self.model.encode(**batch).fused.features
            features.float().square().mean().backward()
            if optimizer is not None:
                optimizer.step()
            self.model.zero_grad()


class ExtractionFloor:
    """Copies of a model's layers, with weights in the setting's precision and the picture encoder in
    channels-last layout.
    """

    def __init__(self, setting: Setting, model: MMNERForTokenClassification) -> None:
        self.model = (
            copy.deepcopy(model).eval().to(torch.bfloat16 if setting.precision == "bf16" else torch.float32)
        )
        self.tower = self.model.vision_towers[0].to(memory_format=torch.channels_last)
        self.batches = exact_batches(setting, model)
        pixels = torch.rand(
            setting.batch_size,
            3,
            self.tower.image_size,
            self.tower.image_size,
            dtype=self.tower.backbone.dtype,
        )
        self.pixels = pixels.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def fuse(self) -> None:
        """Text encoder and fusion."""
        for batch in self.batches:
            self.model.encode(**batch)

    @torch.inference_mode()
    def encode(self) -> None:
        """Text encoder and picture encoder, and nothing that reads them."""
        for batch in self.batches:
            self.model.text_tower.encoder(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            )
            self.tower.backbone.timm_model.forward_features(self.pixels[: len(batch["input_ids"])])


def exact_batches(setting: Setting, model: MMNERForTokenClassification) -> Batches:
    """Random inputs of `MMNERForTokenClassification.encode`, of the sizes of the setting's posts."""
    tower, generator = model.vision_towers[0], torch.Generator().manual_seed(setting.seed)
    with torch.no_grad():
        regions = tower.features(
            torch.zeros(1, 3, tower.image_size, tower.image_size, dtype=torch.uint8)
        ).shape[1]
    vocabulary = model.get_input_embeddings().num_embeddings
    return [
        {
            "input_ids": torch.randint(vocabulary, (posts, pieces), generator=generator),
            "attention_mask": torch.ones(posts, pieces, dtype=torch.long),
            "word_starts": torch.arange(1, words + 1).expand(posts, -1),
            "word_mask": torch.ones(posts, words, dtype=torch.bool),
            "image_features": torch.rand(posts, 1, regions, tower.channels, generator=generator),
        }
        for posts, pieces, words in _sizes(setting)
    ]


def _sizes(setting: Setting) -> list[tuple[int, int, int]]:
    """(B, S, W) of each batch."""
    lengths = list(zip(setting.sub_tokens(), (len(post["tokens"]) for post in setting.posts), strict=True))
    batches = setting.in_batches(lengths)
    return [
        (len(batch), *(math.ceil(sum(column) / len(batch)) for column in zip(*batch, strict=True)))
        for batch in batches
    ]
