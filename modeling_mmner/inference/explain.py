"""What a model looked at: for each word a map over the pictures' regions, and the mean of its gate.

A map is the attention that the fusion paid, mean over its heads. It need not point at what decides.

Notation: W words, N pictures, R regions of all of them, h x w the grid of one picture's, D the gate's
dimensions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, inference_mode

from ..files import json_line, write_text, write_whole
from ..model.context_mmner import Context, TextStates
from ..model.effects_mmner import emissions, with_effects
from ..model.labels_mmner import Word
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.processing_mmner import MMNERProcessor
from ..model.vision_mmner import VisionTower

SIDE = 4
"""A picture is cut into so many rows and columns of cells."""
_COLOURS = colormaps["inferno"]
_OPACITY = 0.6
_LEAST_SIDE = 256  # pixels of a drawing of cells


@dataclass(frozen=True)
class Explanation:
    """A post with its entities, and what the model looked at for each word.

    Attributes:
        text: the raw text, or the words with a space between.
        words: of the text, with their offsets.
        entities: as `MMNERProcessor.post_process_entities` gives them, with their `picture_effect` and
            `context_effect`.
        without_pictures: the entities that are found without any picture, the context kept.
        cells: (E, N, 4, 4) float32 in -1..1, for each of the entities the fall of its score when a cell of a
            picture has the picture's mean colour, for all picture encoders at once. Exact for that cell;
            cells that replace each other show none. None without a picture, and where not asked for.
        pictures: as the model read them: RGB, whole, each of its own size; none where the model reads text
            alone.
        maps: (W, N, h, w) float32 in 0..1, each word's attention over the regions. A word's sum over all its
            pictures is at most 1: what a ViT's class token takes is missing. None for a post without a
            picture, and for a model whose words do not attend over regions.
        gate: (W,) float32 in 0..1, how much of the picture a word let through, mean over D. It is no measure
            of how much the picture decided: a gate may stand open for a word whose tag no picture would
            change. None for a post without a picture, and for a model without a gate.
    """

    text: str
    words: list[Word]
    entities: list[dict[str, Any]]
    pictures: list[Image.Image]
    maps: np.ndarray | None
    gate: np.ndarray | None
    without_pictures: list[dict[str, Any]] = field(default_factory=list)
    cells: np.ndarray | None = None

    def required_maps(self) -> np.ndarray:
        """The maps (W, N, h, w); ValueError where there are none."""
        if self.maps is None:
            raise ValueError("maps: expected a picture and a model whose words attend over it, found none")
        return self.maps

    def entity_type(self, number: int) -> str | None:
        """The type of the entity that word `number` (from 0) is in."""
        start = self.words[number].start
        around = (one for one in self.entities if one["start"] <= start < one["end"])
        return next((one["entity_group"] for one in around), None)


def explain(
    model: MMNERForTokenClassification,
    processor: MMNERProcessor,
    text: str | Sequence[str],
    images: Any = None,
    *,
    context: str | Sequence[str] | None = None,
    cells: bool = True,
) -> Explanation:
    """Find the entities of one post, and what the pictures and the context did for each of them.

    Args:
        model, processor: in evaluation mode, on any device.
        text: a raw text, or the words of one post.
        images: a picture, a list of them, or None (see `load_picture` for the kinds).
        context: a text about the post, or several; for models that read contexts.
        cells: whether each cell of the pictures is tried, which reads each picture 16 times more.

    Raises:
        ValueError: the model is in training mode; the regions are not a square grid.
        TypeError: `text` is more than one post.
        PictureError: a picture cannot be read.
    """
    if model.training:
        raise ValueError("explain: expected evaluation mode, found training mode; call model.eval()")
    is_words = not isinstance(text, str)
    if is_words and not all(isinstance(word, str) for word in text):
        raise TypeError("explain: expected the words of one post, found several posts; explain them singly")
    (post,) = processor.read(text, images, context=context, is_split_into_words=is_words)
    inputs, fall = processor.encode([post]).to(model.device), None
    with inference_mode():
        read = model.encode(**inputs, need_weights=True)
        outputs = with_effects(model, processor, inputs, [post], read=read)
        outputs.gate = read.fused.gate
        bare = model.output(model.encode(text=read.text))
        if cells and post.pictures:
            fall = cell_effects(model, read, inputs["pixel_values"][0], outputs)
    (entities,) = processor.post_process_entities(outputs, [post])
    (without,) = processor.post_process_entities(bare, [post])
    if fall is not None:
        numbers = {word.start: number for number, word in enumerate(post.words)}
        fall = fall[[numbers[entity["start"]] for entity in entities]]
    pictures, maps, gate = list(post.pictures), None, None
    # The attention that is returned is over the regions of the first picture encoder that is not pooled.
    tower = next((tower for tower in model.vision_towers if not tower.pooled), None)
    if pictures and tower is not None:
        maps = region_maps(outputs.attentions[0, : len(post.words)], tower, pictures=len(pictures))
    if pictures and outputs.gate is not None:
        gate = outputs.gate[0, : len(post.words)].float().mean(-1).cpu().numpy()
    return Explanation(post.text, post.words, entities, pictures, maps, gate, without, fall)


def cell_effects(model: Any, read: Context, pixels: Tensor, outputs: Any) -> np.ndarray:
    """(W, N, 4, 4) float32, the fall of the span scores (1, W) of one post when a cell is blanked.

    Args:
        read: the post as the model has read it.
        pixels: (N, 3, H, W) uint8, its pictures.
        outputs: of the whole pass.
    """
    each = torch.eye(SIDE * SIDE, dtype=torch.bool, device=pixels.device).view(-1, SIDE, SIDE)
    scores = []
    for number, picture in enumerate(pixels):
        mean = picture.float().mean((1, 2), keepdim=True).round().to(torch.uint8)
        variants = filled(picture, each, with_=mean)
        scores.append(scores_of_variants(model, read, pixels, variants, number=number, tags=outputs.tags))
    fall = outputs.span_scores[0] - torch.stack(scores)  # shape: (N, 16, W)
    return fall.permute(2, 0, 1).unflatten(2, (SIDE, SIDE)).float().cpu().numpy()


def filled(picture: Tensor, cells: Tensor, *, with_: Tensor) -> Tensor:
    """(P, 3, H, W) a picture (3, H, W), P times, with something else in those of its cells (P, 4, 4) that are
    True: a colour (3, 1, 1), or another picture (3, H, W).
    """
    rows, columns = (torch.arange(side, device=picture.device) * SIDE // side for side in picture.shape[1:])
    return torch.where(cells[:, rows][:, :, columns][:, None], with_, picture)


def scores_of_variants(
    model: Any, read: Context, pixels: Tensor, variants: Tensor, *, number: int, tags: Tensor
) -> Tensor:
    """(P, W) the span scores of a post's tags (1, W) with P variants (P, 3, H, W) of one of its pictures.

    Args:
        read: the post, whose text is not read again.
        pixels: (N, 3, H, W) its pictures, of which that of `number` is varied.
    """
    count, regions = len(variants), []
    mask = torch.ones(count, len(pixels), dtype=torch.bool, device=pixels.device)
    for tower in model.vision_towers:
        states = tower.features(pixels).repeat(count, 1, 1, 1)  # shape: (P, N, M, C)
        states[:, number] = tower.features(variants)
        regions.append(tower.regions_of_posts(states, mask))
    text = TextStates(*(own.expand(count, *own.shape[1:]) for own in vars(read.text).values()))
    logits = emissions(model, model.encode(text=text, regions=regions))
    return model.crf.span_scores(logits, tags.expand(count, -1), mask=text.mask)


def region_maps(attentions: Tensor, tower: VisionTower, *, pictures: int) -> np.ndarray:
    """Lay attention (W, R) over the regions of N pictures out as maps (W, N, h, w), float32.

    Args:
        tower: whose regions they are: of each picture prefix tokens, then a map row by row, a square one as
            its pictures are squares.

    Raises:
        ValueError: the regions are not a square map.
    """
    weights = attentions.unflatten(1, (pictures, -1))[..., tower.prefix_tokens :]
    regions = weights.shape[-1]
    side = isqrt(regions)
    if side * side != regions:
        found = f"{regions} regions a picture of {type(tower.backbone.timm_model).__name__}"
        raise ValueError(f"regions: expected a square map, found {found}")
    return weights.unflatten(-1, (side, side)).float().cpu().numpy()


def draw_map(picture: Image.Image, weights: np.ndarray, *, maximum: float | None = None) -> Image.Image:
    """Draw a map over a picture: the brighter, the more attention; without any the picture is dark.

    Colours are scaled to the map's own maximum: they compare regions of one map, not maps with each other.
    The picture is drawn in grey, so that every colour is the map's.

    Args:
        picture: of any size, which is that of the RGB picture that is returned.
        weights: (h, w), finite, at least 0.
        maximum: the weight that gets the brightest colour, to draw several maps on one scale.

    Raises:
        ValueError: the weights are no such map.
    """
    if weights.ndim != 2 or not weights.size or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"map: expected weights (h, w), finite and at least 0, found {weights!r}")
    brightest = weights.max() if maximum is None else maximum
    shares = (weights / brightest if brightest > 0 else np.zeros(weights.shape)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(shares).resize(picture.size, Image.Resampling.BICUBIC))
    colours = Image.fromarray(_COLOURS(smooth, bytes=True)).convert("RGB")
    return Image.blend(picture.convert("L").convert("RGB"), colours, _OPACITY)


def draw_maps(pictures: Sequence[Image.Image], maps: np.ndarray) -> Image.Image:
    """Draw one word's maps (N, h, w) over a post's pictures, side by side on one scale."""
    width, height = sum(one.width for one in pictures), max(one.height for one in pictures)
    strip, left = Image.new("RGB", (width, height), "white"), 0
    for picture, weights in zip(pictures, maps, strict=True):
        strip.paste(draw_map(picture, weights, maximum=maps.max()), (left, 0))
        left += picture.width
    return strip


def draw_cells(picture: Image.Image, cells: np.ndarray) -> Image.Image:
    """Draw the effects of a picture's cells (4, 4) over it, each with its number in hundredths.

    Cells that speak for the entity are green, those against it red, the stronger the more. A small picture is
    enlarged until its numbers can be read.

    Returns:
        RGB, in the picture's shape.
    """
    scale = max(1, _LEAST_SIDE / min(picture.size))
    drawn = picture.convert("RGB").resize([round(scale * side) for side in picture.size])
    brush, font = ImageDraw.Draw(drawn, "RGBA"), ImageFont.load_default(min(drawn.size) / SIDE / 3.5)
    for (row, column), value in np.ndenumerate(cells):
        left, right = (drawn.width * edge // SIDE for edge in (column, column + 1))
        top, bottom = (drawn.height * edge // SIDE for edge in (row, row + 1))
        colour = (0, 130, 60) if value > 0 else (190, 20, 40)
        opacity = round(200 * min(1, abs(float(value))))
        brush.rectangle((left, top, right - 1, bottom - 1), (*colour, opacity), "white")
        middle = ((left + right) / 2, (top + bottom) / 2)
        look: Any = {"fill": "white", "stroke_fill": "black", "stroke_width": 2}
        brush.text(middle, f"{value:+.2f}", font=font, anchor="mm", **look)
    return drawn


def save_explanation(explanation: Explanation, folder: str | Path, *, words: Sequence[int]) -> None:
    """Write the explanation, and the maps of words, ``<number>_<word>.png``.

    ``explanation.json`` has ``{"text", "words": [{"text", "start", "end"}], "entities", "gate", "maps"}``.

    Args:
        words: the numbers, from 1, of the words to draw.

    Raises:
        ValueError: there are no maps, or no word of such a number.
    """
    maps = explanation.required_maps()
    if wrong := sorted(number for number in words if not 1 <= number <= len(maps)):
        raise ValueError(f"words: expected numbers in 1..{len(maps)}, found {', '.join(map(str, wrong))}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    gate = None if explanation.gate is None else explanation.gate.tolist()
    record: dict[str, Any] = {"text": explanation.text, "words": [one._asdict() for one in explanation.words]}
    record |= {"entities": explanation.entities, "gate": gate, "maps": maps.tolist()}
    write_text(folder / "explanation.json", json_line(record) + "\n")
    for number in words:
        safe = re.sub(r"\W", "_", explanation.words[number - 1].text)[:40]
        drawn = draw_maps(explanation.pictures, maps[number - 1])
        write_whole(folder / f"{number}_{safe}.png", partial(drawn.save, format="png"))
