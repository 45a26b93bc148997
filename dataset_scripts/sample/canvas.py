"""A small drawing surface in unit coordinates, on which every subject of the sample corpus is drawn."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from PIL import ImageDraw

from modeling_mmner.files import read_yaml

Colour = tuple[int, ...]
"""Red, green and blue, each 0 to 255."""

Point = tuple[float, float]

SIDE = 64
"""Width and height in pixels of a finished picture."""

OVERSAMPLING = 4
"""Pixels drawn per finished pixel and axis; their average smooths the edges."""

FIXED: dict[str, Any] = read_yaml(resources.files(__package__).joinpath("figures.yaml").read_text("utf-8"))
"""What is fixed in the drawings: ``figures``, ``emblems``, and the colours of ``skins`` and ``hair``."""

_ELLIPSE_CORNERS = 32
_LEAST_CONTRAST = 200


def random_colour(rng: random.Random) -> Colour:
    """Any colour, each channel 0 to 255, so that no colour tells what is drawn."""
    return (rng.randrange(256), rng.randrange(256), rng.randrange(256))


def around(x: float, y: float, distance: float, angle: float) -> Point:
    """The point at `distance` from (`x`, `y`), `angle` radians clockwise of the right."""
    return x + distance * math.cos(angle), y + distance * math.sin(angle)


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` darkened (`factor` 0 to 1) or lightened towards white (1 to 2)."""
    light = max(0.0, factor - 1)
    return tuple(round(c * factor if factor <= 1 else c + (255 - c) * light) for c in colour)


@dataclass(frozen=True)
class Sketch:
    """A square box on the drawing in which (0, 0) is the top left corner and (1, 1) the bottom right one.

    Coordinates outside 0 to 1 reach beyond the box; what leaves the picture is cut off. Everything is drawn
    as polygons, which are filled, and lines, so that a mirrored or tilted box mirrors or tilts all it holds.
    """

    surface: ImageDraw.ImageDraw
    rng: random.Random
    backdrop: Colour
    left: float = 0.0
    top: float = 0.0
    size: float = 1.0
    mirrored: bool = False
    tilt: float = 0.0
    """Rotation about the box's centre in radians."""

    def within(self, left: float, top: float, size: float) -> "Sketch":
        """The upright box whose corner lies at (`left`, `top`) of this one, `size` times as large."""
        own = self.size
        return replace(self, left=self.left + left * own, top=self.top + top * own, size=own * size)

    def colour(self, *others: Colour) -> Colour:
        """A random colour that stands out against the backdrop, or against `others` where given."""
        rivals = others or (self.backdrop,)
        while True:
            candidate = random_colour(self.rng)
            contrasts = (sum(abs(a - b) for a, b in zip(candidate, rival, strict=True)) for rival in rivals)
            if min(contrasts) >= _LEAST_CONTRAST:
                return candidate

    def two_colours(self) -> tuple[Colour, Colour]:
        """A colour that stands out against the backdrop, and one that stands out against the first."""
        first = self.colour()
        return first, self.colour(first)

    def figure(self, name: str, **known: Any) -> dict[str, Any]:
        """Draw a figure of ``figures.yaml`` with known colours and numbers; returns those that it draws lots
        for, too.
        """
        rng = self.rng
        for what, *given in FIXED["figures"][name]:
            if what == "colour":
                known[given[0]] = self.colour(*(known[other] for other in given[1:]))
            elif what == "number":
                known[given[0]] = rng.uniform(*given[1:])
            elif what == "figure":
                known |= self.figure(*given, **known)
            elif what == "one of":
                known |= self.figure(rng.choice(given), **known)
            elif what == "chance":
                known |= self.figure(given[1] if rng.random() < given[0] else given[2], **known)
            else:
                fill, *place = given
                colour, _, factor = fill.partition(" * ") if isinstance(fill, str) else ("", "", "")
                fill = shade(known[colour], float(factor or 1)) if colour else tuple(fill)
                getattr(self, what)(*_placed(place, known), fill=fill)
        return known

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        self.surface.polygon([self._pixel(point) for point in points], fill=fill)

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, fill: Colour) -> None:
        self.polygon(_arc(x, y, radius_x, radius_y, 2 * math.pi), fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        self.ellipse(x, y, radius, radius, fill)

    def dome(self, x: float, base: float, radius: float, height: float, fill: Colour) -> None:
        """The half of an ellipse above the line y = `base`; a negative `height` gives the half below."""
        self.polygon(_arc(x, base, radius, -height, math.pi), fill)

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """A stroke through `points` with round ends, `width` in units of the box."""
        pixels = [self._pixel(point) for point in points]
        thickness = max(1, round(width * self.size * SIDE * OVERSAMPLING))
        self.surface.line(pixels, fill=fill, width=thickness, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            reach = thickness // 2
            self.surface.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Colour) -> None:
        """A circle's outline, `width` in units of the box."""
        self.line(_arc(x, y, radius, radius, 2 * math.pi), width, fill)

    def emblem(self, x: float, y: float, radius: float, fill: Colour) -> None:
        """An invented logo around (`x`, `y`)."""
        shape = self.rng.choice(("star", "ring", "bolt", "diamond", "cross", "crown"))
        if shape == "star":
            points = self.rng.choice((5, 6, 8))
            angles = [math.pi * corner / points - math.pi / 2 for corner in range(2 * points)]
            reaches = itertools.cycle((radius, 0.45 * radius))
            self.polygon([around(x, y, *ray) for ray in zip(reaches, angles, strict=False)], fill)
        elif shape == "ring":
            self.ring(x, y, 0.72 * radius, 0.45 * radius, fill)
        elif shape == "cross":
            self.rectangle(x - radius, y - 0.3 * radius, x + radius, y + 0.3 * radius, fill)
            self.rectangle(x - 0.3 * radius, y - radius, x + 0.3 * radius, y + radius, fill)
        else:
            self.polygon([(x + a * radius, y + b * radius) for a, b in FIXED["emblems"][shape]], fill)

    def _pixel(self, point: Point) -> tuple[int, int]:
        x, y = (0.5 - point[0] if self.mirrored else point[0] - 0.5), point[1] - 0.5
        turned_x = x * math.cos(self.tilt) - y * math.sin(self.tilt)
        turned_y = x * math.sin(self.tilt) + y * math.cos(self.tilt)
        places = self.left + (turned_x + 0.5) * self.size, self.top + (turned_y + 0.5) * self.size
        return round(places[0] * SIDE * OVERSAMPLING), round(places[1] * SIDE * OVERSAMPLING)


def _arc(x: float, y: float, radius_x: float, radius_y: float, turn: float) -> list[Point]:
    angles = [turn * corner / _ELLIPSE_CORNERS for corner in range(_ELLIPSE_CORNERS + 1)]
    return [(x + radius_x * math.cos(angle), y + radius_y * math.sin(angle)) for angle in angles]


def _placed(value: Any, known: Mapping[str, float]) -> Any:
    """A place with the numbers that it names, as in ``roof + 0.05``."""
    if isinstance(value, list):
        return [_placed(part, known) for part in value]
    if not isinstance(value, str):
        return value
    name, _, more = value.partition(" + ")
    return known[name] + float(more or 0)
