"""What the pictures and the context of one post did, entity by entity, and what each part of a picture did.

A picture is cut into 4 x 4 cells. What a cell did for an entity is tried, not guessed: the model reads the
picture again without it.

Notation: E entities, N pictures, P variants of one of them, W words, M regions of a picture, C channels.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..files import json_line, write_text, write_whole
from ..model.context_mmner import Context, TextStates
from ..model.effects_mmner import EFFECTS, with_effects
from ..model.labels_mmner import Word
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.parts_mmner import MAIN_HEAD
from ..model.picture_text_mmner import PictureReader, reader_of
from ..model.posts_mmner import with_beside
from ..model.prediction_mmner import BatchPredictor, PostReader
from ..model.processing_mmner import MMNERProcessor

SIDE = 4
"""A picture is cut into so many rows and columns of cells."""
_HEIGHT = 480  # pixels of a drawing
_HELPS, _HINDERS = (0, 110, 60), (170, 20, 40)


@dataclass(frozen=True)
class Explanation:
    """A post with its entities, and what its pictures and its context did for each.

    Attributes:
        text: the raw text, or the words with a space between.
        words: of the text, with their offsets.
        entities: as `MMNERProcessor.post_process_entities` gives them, with their `picture_effect` and
            `context_effect`.
        pictures: as the model read them: RGB, whole, each of its own size; none where the model reads text
            alone.
        without_pictures: the entities that are found without any picture, the context kept.
        cells: (E, N, 4, 4) float32 in -1..1, for each entity the fall of its score when a cell of a picture
            has the picture's mean colour, for all picture encoders at once. Exact for that cell; cells that
            replace each other show none. None without a picture, and where not asked for.
        in_pictures: the entities in the text that stands in the pictures, where it was read.
    """

    text: str
    words: list[Word]
    entities: list[dict[str, Any]]
    pictures: list[Image.Image]
    without_pictures: list[dict[str, Any]]
    cells: np.ndarray | None
    in_pictures: list[dict[str, Any]] = field(default_factory=list)


@torch.inference_mode()
def explain(
    model: MMNERForTokenClassification,
    processor: MMNERProcessor,
    text: str | Sequence[str],
    images: Any = None,
    *,
    context: str | Sequence[str] | None = None,
    cells: bool = True,
    read_pictures: bool | PictureReader = False,
) -> Explanation:
    """Find the entities of one post, and what its pictures and its context did for each of them.

    Args:
        model, processor: in evaluation mode, on any device.
        text: a raw text, or the words of one post.
        images: a picture, a list of them, or None (see `load_picture` for the kinds).
        context: a text about the post, or several; for models that read contexts.
        cells: whether each cell is tried, for which each picture is read 16 times more.
        read_pictures: as of the pipeline.

    Raises:
        ValueError: the model is in training mode.
        TypeError: `text` is more than one post.
        PictureError: a picture cannot be read.
    """
    if model.training:
        raise ValueError("explain: expected evaluation mode, found training mode; call model.eval()")
    (post,) = processor.read([text], [images], context=[context])
    inputs, effects = processor.encode([post]).to(model.device), None
    read = model.encode(**inputs)
    outputs = with_effects(model, processor, inputs, [post], read=read)
    (entities,) = processor.post_process_entities(outputs, [post])
    without = model.output(model.encode(text=read.text))
    (found_without,) = processor.post_process_entities(without, [post])
    if cells and post.pictures:
        starts = [word.start for word in post.words]
        numbers = [starts.index(entity["start"]) for entity in entities]
        effects = cell_effects(model, read, inputs["pixel_values"][0], outputs)[numbers]
    pictures, inside = list(post.pictures), []
    if read_pictures:
        predictor = BatchPredictor(model, PostReader(processor, picture_reader=reader_of(read_pictures)))
        (found,) = predictor.predict([with_beside({"text": post.text}, images=images, number=1)])
        inside = [entity for entity in found.entities if entity["start"] is None]
    return Explanation(post.text, post.words, entities, pictures, found_without, effects, inside)


def cell_effects(model: Any, read: Context, pixels: Tensor, outputs: Any) -> np.ndarray:
    """(W, N, 4, 4) float32: how much the span scores of one post fall when a cell has its picture's mean
    colour.

    Args:
        read: the post as the model has read it.
        pixels: (N, 3, H, W) uint8, its pictures as the model reads them.
        outputs: of that pass, with `tags` and `span_scores` (1, W).
    """
    each = torch.eye(SIDE * SIDE, dtype=torch.bool, device=pixels.device).view(-1, SIDE, SIDE)
    scores = []
    for number, picture in enumerate(pixels):
        mean = picture.float().mean((1, 2), keepdim=True).round().to(torch.uint8)
        blanked = filled(picture, each, filling=mean)
        scores.append(scores_of_variants(model, read, pixels, blanked, number=number, tags=outputs.tags))
    falls = outputs.span_scores[0] - torch.stack(scores)  # shape: (N, 16, W)
    return falls.permute(2, 0, 1).unflatten(2, (SIDE, SIDE)).float().cpu().numpy()


def filled(picture: Tensor, cells: Tensor, *, filling: Tensor) -> Tensor:
    """(P, 3, H, W): the picture (3, H, W) with `filling`, a colour (3, 1, 1) or another picture (3, H, W), in
    the cells (P, 4, 4) that are True."""
    rows, columns = (torch.arange(side, device=picture.device) * SIDE // side for side in picture.shape[1:])
    return torch.where(cells[:, rows][:, :, columns][:, None], filling, picture)


def scores_of_variants(
    model: Any, read: Context, pixels: Tensor, variants: Tensor, *, number: int, tags: Tensor
) -> Tensor:
    """(P, W) the span scores of one post's tags (1, W) when a picture is replaced by each of its variants.

    Args:
        read: the post as the model has read it; its text is not read again.
        pixels: (N, 3, H, W) uint8, its pictures.
        variants: (P, 3, H, W) uint8, of the picture of that number.
    """
    count = len(variants)
    pictures = pixels.repeat(count, 1, 1, 1, 1)  # shape: (P, N, 3, H, W)
    pictures[:, number] = variants
    text = TextStates(*(own.expand(count, *own.shape[1:]) for own in vars(read.text).values()))
    varied = model.run_head(MAIN_HEAD, model.encode(text=text, pixel_values=pictures))
    return model.crf.span_scores(varied, tags.expand(count, -1), mask=text.mask)


def draw_cells(picture: Image.Image, cells: np.ndarray) -> Image.Image:
    """Draw what its cells (4, 4) did, in -1..1, over a picture in grey: each with its number, green where it
    speaks for the entity and red where against it, the more the stronger.

    Returns:
        RGB, 480 pixels high, so that the numbers of a small picture can be read; a narrow one is widened.
    """
    wide = min(max(_HEIGHT // 2, _HEIGHT * picture.width // picture.height), 4 * _HEIGHT)
    dimmed = picture.convert("L").point(lambda value: round(0.7 * value))  # white numbers show on it
    drawn = dimmed.convert("RGB").resize((wide, _HEIGHT))
    width, height = drawn.width / SIDE, drawn.height / SIDE
    brush, font = ImageDraw.Draw(drawn, "RGBA"), ImageFont.load_default(min(width / 4, height / 2))
    look: Any = {"font": font, "fill": "white", "stroke_fill": "black", "stroke_width": 2}
    for (row, column), value in np.ndenumerate(cells):
        left, top = column * width, row * height
        colour = (*(_HELPS if value > 0 else _HINDERS), round(200 * min(1.0, abs(float(value)))))
        brush.rectangle((left, top, left + width - 1, top + height - 1), colour, "white")
        brush.text((left + width / 2, top + height / 2), f"{value:+z.2f}", anchor="mm", **look)
    return drawn


def save_explanation(explanation: Explanation, folder: str | Path) -> None:
    """Write the explanation, and for each entity a drawing of the cells, ``<number>_<entity>.png``.

    ``explanation.json`` has ``{"text", "words": [{"text", "start", "end"}], "entities", "without_pictures",
    "cells", "in_pictures"}``; several pictures are drawn side by side.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cells = None if explanation.cells is None else explanation.cells.tolist()
    record = {name: value for name, value in vars(explanation).items() if name != "pictures"}
    record |= {"words": [one._asdict() for one in explanation.words], "cells": cells}
    write_text(folder / "explanation.json", json_line(record) + "\n")
    for number, of_pictures in enumerate(() if explanation.cells is None else explanation.cells):
        drawn = [draw_cells(*one) for one in zip(explanation.pictures, of_pictures, strict=True)]
        strip = Image.fromarray(np.hstack([np.asarray(one) for one in drawn]))
        safe = re.sub(r"\W", "_", explanation.entities[number]["word"])[:40]
        write_whole(folder / f"{number + 1}_{safe}.png", partial(strip.save, format="png"))


def table_lines(explanation: Explanation) -> Iterator[str]:
    """The explanation as a table for a terminal: a line for each entity, then what the numbers mean."""
    heads = ("score", "no picture", "effect", "best cell", "no context", "effect")
    yield f"{'entity':<24} {'type':<6}" + "".join(f"{head:>12}" for head in heads)
    for number, one in enumerate(explanation.entities):
        cell = None if explanation.cells is None else explanation.cells[number].max()
        effects = [one[name] for name in EFFECTS]
        less = [None if effect is None else one["score"] - effect for effect in effects]
        figures = (one["score"], less[0], effects[0], cell, less[1], effects[1])
        told = "".join(f"{'-' if figure is None else f'{figure:z.2f}':>12}" for figure in figures)
        yield f"{one['word']:<24.24} {one['entity_group']:<6}{told}"
    places = {(one["start"], one["end"], one["entity_group"]) for one in explanation.entities}
    for one in explanation.without_pictures:
        if (one["start"], one["end"], one["entity_group"]) not in places:
            yield f"only without the picture: {one['word']}, {one['entity_group']} {one['score']:.2f}"
    for one in explanation.in_pictures:
        yield f"in picture {one['image'] + 1}: {one['word']}, {one['entity_group']} {one['score']:.2f}"
    if explanation.cells is not None:
        yield "An effect is the fall of the score without the picture, or without one cell of it. Cells that"
        yield "replace each other show none, so the whole picture's effect stands beside the best cell's."
