"""Ready-made features of frozen vision towers, as columns of the rows that hold the pictures.

Notation: B batch, N pictures a post, M regions of a picture (1 of a pooled tower), C channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .images_mmner import FEATURE_COLUMN, PictureError, pictures_of

TowerFeatures = Sequence[bytes] | None
"""What `packed` has made of each of a post's pictures; None for a tower that reads pixels."""


def packed(features: Tensor) -> bytes:
    """A picture's features (M, C) bfloat16 as bytes: M and C as int32, then their bits, row by row."""
    bits = features.contiguous().view(torch.int16).numpy()
    return np.array(bits.shape, "<i4").tobytes() + bits.astype("<i2").tobytes()


def unpacked(content: bytes) -> np.ndarray:
    """(M, C) int16, the bits of what was packed."""
    return np.frombuffer(content, "<i2", offset=8).reshape(np.frombuffer(content, "<i4", count=2))


def features_of(row: Mapping[str, Any]) -> list[TowerFeatures]:
    """The features of a row's pictures by tower; raises PictureError where they are not as many."""
    towers: list[TowerFeatures] = []
    while (column := f"{FEATURE_COLUMN}{len(towers)}") in row:
        towers.append(row[column])
    pictures = len(pictures_of(row))
    for found in towers:
        if found is not None and len(found) != pictures:
            raise PictureError(
                f"picture features: expected those of {pictures} pictures in the row, found {len(found)}; a"
                " picture cannot be read, or the row is not the one that they were computed for"
            )
    return towers


def reads_pixels(towers: Sequence[Any]) -> bool:
    """Whether a model reads pixels of a post with these features: it has none, or not of every tower."""
    return not towers or None in towers


def image_features(posts: Sequence[Sequence[TowerFeatures]]) -> list[Tensor | None]:
    """Of what `features_of` found in each post: (B, N, M, C) bfloat16 for each tower, zero where a post has
    no picture, or None where the tower reads pixels; nothing where no post has features."""
    towers = max(map(len, posts), default=0)
    by_tower = [[(post[tower] if post else None) or () for post in posts] for tower in range(towers)]
    most = max((len(found) for posts_of in by_tower for found in posts_of), default=0)
    return [_batched(found, most) if any(found) else None for found in by_tower] if most else []


def _batched(posts: Sequence[Sequence[bytes]], most: int) -> Tensor:
    """(B, `most`, M, C) bfloat16 of the pictures of some posts."""
    shape = unpacked(next(content for post in posts for content in post)).shape
    bits = np.zeros((len(posts), most, *shape), np.int16)
    for row, post in enumerate(posts):
        for column, content in enumerate(post):
            bits[row, column] = unpacked(content)
    return torch.from_numpy(bits).view(torch.bfloat16)
