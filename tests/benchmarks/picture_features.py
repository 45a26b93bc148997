"""Where ready-made picture features come from: the one place that knows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.collator import MMNERCollator

from .setting import Setting

Features = dict[str, Tensor]
"""For each post, by its id, the regions (M, C) of its picture."""


@torch.no_grad()
def picture_features(setting: Setting, model: MMNERForTokenClassification) -> Features:
    """The features of the setting's pictures, from the model's frozen picture encoder."""
    (tower,), collate = model.vision_towers, MMNERCollator(setting.processor)
    return {post["id"]: tower.features(collate([post])["pixel_values"][0])[0] for post in setting.posts}


def without_pictures(posts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The posts with none of their pictures to be opened."""
    return [post | {"image": None} for post in posts]


def with_features(
    collate: Callable[[list[Any]], dict[str, Tensor]], features: Features, ids: Callable[[Any], str]
) -> Callable[[list[Any]], dict[str, Tensor]]:
    """A collator that puts the features in the place of the pixels; `ids` tells a post's id."""

    def collate_with_features(batch: list[Any]) -> dict[str, Tensor]:
        inputs = {name: tensor for name, tensor in collate(batch).items() if name not in ("pixel_values", "image_mask")}
        return inputs | {"image_features": torch.stack([features[ids(post)] for post in batch])[:, None]}

    return collate_with_features
