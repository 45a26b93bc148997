"""Subjects of kind OTHER: pictures that say nothing about the entities of a post."""

import math

from ..canvas import Sketch, random_colour, shade


def _shapes(sketch: Sketch) -> None:
    rng = sketch.rng
    for _ in range(rng.randrange(8, 14)):
        x, y, reach = rng.random(), rng.random(), rng.uniform(0.08, 0.2)
        turns = [rng.uniform(0, 2 * math.pi) for _ in range(rng.choice((3, 4, 5)))]
        corners = [(x + reach * math.cos(turn), y + reach * math.sin(turn)) for turn in sorted(turns)]
        if rng.random() < 0.4:
            sketch.disc(x, y, 0.6 * reach, random_colour(rng))
        else:
            sketch.polygon(corners, random_colour(rng))


def _stripes(sketch: Sketch) -> None:
    rng = sketch.rng
    colours = [sketch.colour(), random_colour(rng), random_colour(rng)]
    slant, width = rng.choice((-0.8, 0.0, 0.8)), rng.uniform(0.12, 0.2)
    for stripe in range(int(5 / width)):
        left = -2 + 1.2 * width * stripe
        corners = [(left, -0.5), (left + width, -0.5), (left + width + slant, 1.5), (left + slant, 1.5)]
        sketch.polygon(corners, colours[stripe % 3])


def _plate(sketch: Sketch) -> None:
    rng = sketch.rng
    plate = sketch.colour()
    sketch.disc(0.5, 0.5, 0.46, plate)
    sketch.disc(0.5, 0.5, 0.35, shade(plate, 0.85))
    for _ in range(rng.randrange(6, 11)):
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 0.22)
        x, y = 0.5 + distance * math.cos(angle), 0.5 + distance * math.sin(angle)
        sketch.ellipse(x, y, rng.uniform(0.05, 0.11), rng.uniform(0.04, 0.08), sketch.colour(plate))
    if rng.random() < 0.6:
        sketch.line([(1.03, 0.15), (1.03, 0.85)], 0.05, sketch.colour())


def _flowers(sketch: Sketch) -> None:
    rng = sketch.rng
    stem = sketch.colour()
    for x in rng.sample((0.15, 0.33, 0.5, 0.67, 0.85), rng.randrange(2, 5)):
        y, petal = rng.uniform(0.2, 0.5), sketch.colour()
        sketch.line([(x, y), (0.5 + 0.4 * (x - 0.5), 1.0)], 0.035, stem)
        for leaf in range(6):
            angle = 2 * math.pi * leaf / 6
            sketch.disc(x + 0.1 * math.cos(angle), y + 0.1 * math.sin(angle), 0.065, petal)
        sketch.disc(x, y, 0.06, sketch.colour(petal))


SUBJECTS = (_shapes, _stripes, _plate, _flowers)
