"""Posts with and without pictures, a small model that finds entities in them, and its answers without the
pipeline.
"""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from tests.tiny import parts_of

WORDS = ["Jordan", "posts", "from", "Paris", "today", "and", "tomorrow"]
NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
GRADIENT, SPECKLED = Image.linear_gradient("L"), Image.fromarray(NOISE)
RED = Image.new("RGB", (50, 20), "red")
POSTS: list[tuple[str, list[Image.Image]]] = [
    ("Jordan posts from Paris today", [SPECKLED]),
    ("Paris and Jordan", []),
    ("from Paris", [RED, GRADIENT]),
    ("", [RED]),
    ("posts from Jordan and Paris, tomorrow #today", [GRADIENT]),
    ("tomorrow posts", [RED]),
    ("", []),
]
TEXTS = [text for text, _ in POSTS]
PICTURES = [pictures for _, pictures in POSTS]
ROWS: list[dict[str, Any]] = [{"text": text, "images": pictures} for text, pictures in POSTS]
Entities = list[dict[str, Any]]
Parts = tuple[MMNERForTokenClassification, MMNERProcessor]


def small_parts(**settings: Any) -> Parts:
    """A tiny model that finds entities in random words, and its processor."""
    return parts_of(settings, posts=[WORDS])


def by_hand(parts: Parts, text: str | list[str], pictures: list[Any]) -> Entities:
    """One post's entities by processor and model."""
    model, processor = parts
    with torch.no_grad():
        outputs = model(**processor([text], images=[pictures]))
    return processor.post_process_entities(outputs, text=[text])[0]


def assert_same(found: list[Entities], expected: list[Entities]) -> None:
    """The same entities, with scores that differ by no more than padding makes them."""

    def places(posts: list[Entities]) -> list[list[tuple[Any, ...]]]:
        names = ("entity_group", "word", "start", "end")
        return [[tuple(one[name] for name in names) for one in entities] for entities in posts]

    def scores(posts: list[Entities]) -> list[float]:
        return [one["score"] for entities in posts for one in entities]

    assert places(found) == places(expected)
    assert scores(found) == pytest.approx(scores(expected), abs=1e-5)


def encoded(picture: Image.Image) -> bytes:
    """The picture as a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
