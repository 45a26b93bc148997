"""Whether the maps of `explain` point at what decides: regions are blanked in the picture, and the cost is
measured.

If a map means something, blanking the regions that a name attends to most costs more than blanking as many
others. The cost is how far the CRF's posterior of exactly the gold name falls. The others are

- random ones;
- those that the name attends to least;
- those to which the name of another post attends most, in its own picture: a map that always points at the
  same places, such as the middle of the picture, is no better than that;
- those to which the other words of the post attend most: where the map is no better, it is the picture's
  rather than the word's.

A model with several picture encoders may read the picture through one whose regions no word attends over. So
the whole picture is also blanked for the attended encoder alone: where that costs nothing, its maps explain
nothing, wherever they point.

Notation: P posts, R regions of a picture, h x w their grid.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torch import Tensor
from tqdm.auto import tqdm

from ..evaluation.span_f1.confidence import bootstrap_interval
from ..model.images_mmner import load_picture, pictures_of
from ..model.labels_mmner import OUTSIDE, Span, tags_to_spans
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.processing_mmner import MMNERProcessor
from .explain import attended_tower, explain

MOST, RANDOM, LEAST, OTHER_POST, OTHER_WORDS = (
    "most attended",
    "random",
    "least attended",
    "another post's",
    "other words'",
)
CHOICES = (MOST, RANDOM, LEAST, OTHER_POST, OTHER_WORDS)
NOTHING, EVERYTHING, ATTENDED_ALONE = "nothing", "everything", "everything, attended encoder only"
_SHARES = (1 / 8, 1 / 4, 1 / 2)
_RESAMPLES = 2000
_PRINTED = 0.0005  # less is printed as 0.0 points, and is no difference


class _Name(NamedTuple):
    """A post of one picture and one gold entity."""

    words: list[str]
    tags: list[str]
    span: Span
    picture: Image.Image


@dataclass(frozen=True)
class Costs:
    """What blanking cost in each post, the mean over the draws where regions were drawn.

    Attributes:
        fall: (P,) in -1..1, by how much the probability of the name fell.
        wrong: (P,) in 0..1, whether the name then was missed or had another type.
    """

    fall: np.ndarray
    wrong: np.ndarray


@dataclass(frozen=True)
class MapCheck:
    """The costs of blanking, by which and how many regions were blanked.

    Attributes:
        regions: R.
        counts: the numbers of regions that were blanked.
        costs: of ("nothing", 0), of each choice of regions with each of the counts, of ("everything", R), and
            for a model of several picture encoders of ("everything, attended encoder only", R).
    """

    regions: int
    counts: list[int]
    costs: dict[tuple[str, int], Costs]

    def difference(self, choice: str, count: int) -> tuple[float, float, float]:
        """By how much more the most attended regions cost than as many of another choice, paired by post: see
        `interval`.
        """
        return interval(self.costs[MOST, count].fall - self.costs[choice, count].fall)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean of values (P,), one a post, and the ends of its 95% bootstrap interval over posts."""
    low, high = bootstrap_interval(
        values[:, None], lambda sums: sums[:, 0] / len(values), resamples=_RESAMPLES, seed=0
    )
    return float(values.mean()), low, high


def check_maps(
    model: MMNERForTokenClassification,
    processor: MMNERProcessor,
    rows: Iterable[dict[str, Any]],
    labels: Sequence[str],
    *,
    posts: int = 200,
    draws: int = 10,
    seed: int = 1,
) -> MapCheck:
    """Blank an eighth, a quarter, a half and all of the regions, and measure what that costs.

    Args:
        model: in evaluation mode.
        processor: its processor.
        rows: with `tokens`, `ner_tags` (ids) and a picture; those of one picture, one entity and another word
            are used.
        labels: the names of the tag ids.
        posts: how many to draw from the rows.
        draws: of random regions, and of other posts, for each post; where there are not more sets of regions,
            all of them.
        seed: of posts and regions.

    Raises:
        ValueError: fewer than two such posts; a model without maps, or with maps of one region; a label that
            it does not know.
    """
    rng = np.random.default_rng(seed)
    names = _names(rows, labels, posts, rng)
    own, others = zip(*(_maps(model, processor, name) for name in names), strict=True)
    regions = own[0].size
    if regions < 2:
        raise ValueError("maps: expected several regions to choose from, found maps of one region")
    counts = sorted({max(1, int(share * regions)) for share in _SHARES})
    results: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number, name in enumerate(tqdm(names, desc="posts", leave=False)):
        elsewhere = [own[(number + step) % len(names)] for step in range(1, min(draws, len(names) - 1) + 1)]
        rankings = {
            MOST: [own[number]],
            LEAST: [-own[number]],
            OTHER_POST: elsewhere,
            OTHER_WORDS: [others[number]],
        }
        chosen: dict[tuple[str, int], list[np.ndarray]] = {(NOTHING, 0): [np.arange(0)]}
        for count in counts:
            for choice in CHOICES:
                chosen[choice, count] = (
                    _random_regions(regions, count, draws=draws, rng=rng)
                    if choice == RANDOM
                    else [
                        np.argsort(-ranking, axis=None, kind="stable")[:count] for ranking in rankings[choice]
                    ]
                )
        chosen[EVERYTHING, regions] = [np.arange(regions)]
        for key, cost in _costs(model, processor, name, chosen, grid=own[0].shape).items():
            results.setdefault(key, []).append(cost)
    return MapCheck(regions, counts, {key: Costs(*np.array(values).T) for key, values in results.items()})


def blank_regions(
    picture: Image.Image, regions: Sequence[int] | np.ndarray, *, grid: tuple[int, ...]
) -> Image.Image:
    """Fill regions of a picture with its mean colour.

    Args:
        picture: RGB, of any size.
        regions: numbers in 0..h*w-1, row by row.
        grid: h and w. A pixel belongs to the region in which its centre lies.
    """
    pixels = np.array(picture)
    chosen = np.isin(np.arange(np.prod(grid)), regions).reshape(grid)
    rows, columns = (
        (2 * np.arange(size) + 1) * cells // (2 * size)
        for size, cells in zip(pixels.shape[:2], grid, strict=True)
    )
    pixels[chosen[rows[:, None], columns]] = pixels.mean((0, 1)).round()
    return Image.fromarray(pixels)


def _names(
    rows: Iterable[dict[str, Any]], labels: Sequence[str], posts: int, rng: np.random.Generator
) -> list[_Name]:
    """At most `posts` of the rows that have one picture, one entity and another word, drawn at random."""
    found = []
    for row in rows:
        tags = [labels[tag] for tag in row["ner_tags"]]
        spans, pictures = tags_to_spans(tags), pictures_of(row)
        if len(spans) == len(pictures) == 1 and OUTSIDE in tags:
            found.append((row["tokens"], tags, spans[0], pictures[0]))
    if min(len(found), posts) < 2:
        raise ValueError(
            "posts to check maps on: expected at least 2, each with one picture, one entity and another"
            f" word; found {len(found)} of them, {posts} wanted"
        )
    drawn = (found[index] for index in rng.permutation(len(found))[:posts])
    return [_Name(words, tags, span, load_picture(picture)) for words, tags, span, picture in drawn]


def _random_regions(regions: int, count: int, *, draws: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random sets of `count` regions; where there are no more than `draws` of them, each once, which is
    exact.
    """
    if comb(regions, count) <= draws:
        return [np.array(chosen) for chosen in combinations(range(regions), count)]
    return [rng.permutation(regions)[:count] for _ in range(draws)]


def _maps(
    model: MMNERForTokenClassification, processor: MMNERProcessor, name: _Name
) -> tuple[np.ndarray, np.ndarray]:
    """The maps (h, w) of a name and of the other words of its post, means over their words."""
    maps = explain(model, processor, name.words, name.picture).required_maps()[:, 0]
    own = slice(name.span.start, name.span.end)
    return maps[own].mean(0), np.delete(maps, own, axis=0).mean(0)


def _costs(
    model: MMNERForTokenClassification,
    processor: MMNERProcessor,
    name: _Name,
    chosen: dict[tuple[str, int], list[np.ndarray]],
    *,
    grid: tuple[int, ...],
) -> dict[tuple[str, int], tuple[float, float]]:
    """Fall and share of wrong for each choice of regions, of which the first is none and the last all."""
    pictures = [
        blank_regions(name.picture, regions, grid=grid) for drawn in chosen.values() for regions in drawn
    ]
    owner = np.repeat(np.arange(len(chosen)), [len(drawn) for drawn in chosen.values()])
    probability, wrong = _read(model, processor, name, pictures)
    fall = probability[0] - probability
    costs = {
        key: (fall[owner == number].mean(), wrong[owner == number].mean())
        for number, key in enumerate(chosen)
    }
    if len(model.vision_towers) > 1:
        with _whole_picture_for_others(model, processor, name):
            (alone,), (wrong_alone,) = _read(model, processor, name, pictures[-1:])
        costs[ATTENDED_ALONE, int(np.prod(grid))] = (probability[0] - alone, wrong_alone)
    return costs


@torch.inference_mode()
def _read(
    model: MMNERForTokenClassification,
    processor: MMNERProcessor,
    name: _Name,
    pictures: Sequence[Image.Image],
) -> tuple[np.ndarray, np.ndarray]:
    """The posterior of the gold name with each of the pictures, and whether it is missed or of another type
    then.
    """
    several = len(pictures)
    inputs = processor([name.words] * several, images=pictures, labels=[name.tags] * several).to(model.device)
    gold = inputs.pop("labels")
    outputs = model(**inputs)
    scores = model.crf.span_scores(outputs.logits, gold, mask=inputs["word_mask"])[:, name.span.start]
    found = [tags_to_spans([processor.labels[tag] for tag in tags]) for tags in outputs.tags.tolist()]
    return scores.double().cpu().numpy(), np.array([name.span not in spans for spans in found], dtype=float)


@contextmanager
def _whole_picture_for_others(
    model: MMNERForTokenClassification, processor: MMNERProcessor, name: _Name
) -> Iterator[None]:
    """Within it all picture encoders but the attended one see the name's picture as it is, whatever the model
    is given.
    """
    pixels = processor([name.words], images=[name.picture])["pixel_values"].to(model.device)

    def replace(_: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return pixels, *given[1:]

    attended = attended_tower(model)
    hooks = [
        tower.register_forward_pre_hook(replace) for tower in model.vision_towers if tower is not attended
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def cost_table(check: MapCheck) -> Table:
    """The costs in percent points, with 95% intervals."""
    table = Table(
        title=(
            f"Cost of blanking regions of the picture, {len(check.costs[NOTHING, 0].fall)} posts, percent"
            " points"
        )
    )
    table.add_column("blanked")
    for heading in ("regions", "probability falls by", "most attended cost more by", "wrong names"):
        table.add_column(heading, justify="right")
    for (choice, count), cost in check.costs.items():
        compared = count in check.counts and choice != MOST
        table.add_row(
            choice,
            f"{count} of {check.regions}",
            _points(interval(cost.fall)),
            _points(check.difference(choice, count)) if compared else "",
            f"{100 * cost.wrong.mean():.1f}",
        )
    return table


def verdict(check: MapCheck) -> str:
    """What the costs say in words, a sentence a line; "clearly" means that a 95% interval lies on one side of
    0.
    """
    whole = interval(check.costs[EVERYTHING, check.regions].fall)
    lines = [f"Blanking the whole picture takes {_points(whole)} points from the probability of a name."]
    alone = whole
    if (ATTENDED_ALONE, check.regions) in check.costs:
        alone = interval(check.costs[ATTENDED_ALONE, check.regions].fall)
        lines.append(f"Blanking it for that encoder alone to which the maps belong takes {_points(alone)}.")
    lines += [_comparison(check, choice) for choice in (RANDOM, OTHER_POST, OTHER_WORDS)]
    beyond_random, beyond_post = (_clear(check, choice)[1] for choice in (RANDOM, OTHER_POST))
    both = [count for count in beyond_random if count in beyond_post]
    if _sign(whole) <= 0:
        lines.append("The picture does not clearly count for these names, so its maps explain nothing.")
    elif _sign(alone) <= 0:
        lines.append(
            "The maps explain nothing: the model loses nothing when the encoder that they belong to sees no"
            " picture."
        )
    elif not beyond_random:
        lines.append("Nothing shows that the maps point at what decides.")
    elif not both:
        lines.append(
            "The maps point at places that often matter, but not clearly at what decides in the picture at"
            " hand."
        )
    elif len(both) < len(check.counts):
        lines.append("In part, the maps point at what decides in the picture at hand.")
    else:
        lines.append("The maps point at what decides in the picture at hand.")
    return "\n".join(lines)


def _clear(check: MapCheck, choice: str) -> dict[int, list[int]]:
    """The numbers of regions at which the most attended cost clearly more (1) or less (-1) than a choice, or
    neither (0).
    """
    signs: dict[int, list[int]] = {1: [], 0: [], -1: []}
    for count in check.counts:
        signs[_sign(check.difference(choice, count))].append(count)
    return signs


def _sign(values: tuple[float, float, float]) -> int:
    """1 or -1 where an interval lies above or below 0, 0 where it does not."""
    _, low, high = values
    return int(low > _PRINTED) - int(high < -_PRINTED)


def _comparison(check: MapCheck, choice: str) -> str:
    words = {1: "clearly more", 0: "neither clearly more nor less", -1: "clearly less"}
    parts = [
        f"{words[sign]} at {', '.join(map(str, counts))}"
        for sign, counts in _clear(check, choice).items()
        if counts
    ]
    return f"Against {choice} regions, the most attended cost {'; '.join(parts)} of {check.regions} regions."


def _points(interval: tuple[float, float, float]) -> str:
    mean, low, high = (100 * value for value in interval)
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"
