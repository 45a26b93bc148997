"""Subjects of kind ORG: shops and offices under a sign-board, and the badges, crests and banners of clubs."""

import math

from ..canvas import Colour, Sketch, shade

_EMBLEMS = {
    "bolt": ((0.3, -1), (-0.6, 0.2), (-0.05, 0.2), (-0.3, 1), (0.6, -0.25), (0.05, -0.25)),
    "diamond": ((0, -1), (0.7, 0), (0, 1), (-0.7, 0)),
    "crown": ((-1, -0.6), (-0.45, 0), (0, -0.8), (0.45, 0), (1, -0.6), (0.8, 0.7), (-0.8, 0.7)),
}


def _emblem(sketch: Sketch, x: float, y: float, radius: float, colour: Colour) -> None:
    """An invented logo."""
    shape = sketch.rng.choice(("star", "ring", "bolt", "diamond", "cross", "crown"))
    if shape == "star":
        sketch.star(x, y, radius, colour, sketch.rng.choice((5, 6, 8)))
    elif shape == "ring":
        sketch.ring(x, y, 0.72 * radius, 0.45 * radius, colour)
    elif shape == "cross":
        sketch.rectangle(x - radius, y - 0.3 * radius, x + radius, y + 0.3 * radius, colour)
        sketch.rectangle(x - 0.3 * radius, y - radius, x + 0.3 * radius, y + radius, colour)
    else:
        sketch.polygon([(x + a * radius, y + b * radius) for a, b in _EMBLEMS[shape]], colour)


def _sign(sketch: Sketch, left: float, top: float, right: float, bottom: float) -> None:
    """A sign-board: a logo, and bars in place of letters because fonts differ between systems."""
    board, ink = sketch.two_colours()
    height = bottom - top
    sketch.rectangle(left - 0.025, top - 0.025, right + 0.025, bottom + 0.025, ink)
    sketch.rectangle(left, top, right, bottom, board)
    _emblem(sketch, left + 0.55 * height, top + height / 2, 0.36 * height, ink)
    x = left + 1.1 * height
    while x < right - 0.07:
        sketch.rectangle(x, top + sketch.rng.uniform(0.22, 0.4) * height, x + 0.045, top + 0.76 * height, ink)
        x += 0.08


def _storefront(sketch: Sketch) -> None:
    rng = sketch.rng
    wall, glass = sketch.two_colours()
    stripes = sketch.colour(wall)
    sketch.rectangle(0.04, 0.08, 0.96, 0.98, wall)
    _sign(sketch, 0.02, 0.12, 0.98, 0.36)
    awning = (stripes, shade(stripes, 1.85) if sum(stripes) < 550 else shade(stripes, 0.4))
    for stripe in range(8):
        left = 0.02 + stripe * 0.12
        sketch.rectangle(left, 0.42, left + 0.12, 0.54, awning[stripe % 2])
        sketch.dome(left + 0.06, 0.54, 0.06, -0.06, awning[stripe % 2])
    doors = "window and door" if rng.random() < 0.5 else "door between windows"
    sketch.figure(doors, glass=glass)


def _office(sketch: Sketch) -> None:
    wall, glass = sketch.two_colours()
    left = sketch.rng.uniform(0.14, 0.24)
    sketch.rectangle(left, 0.3, 1 - left, 1.0, wall)
    for row in range(4):
        for column in range(4):
            x = left + (column + 0.5) * (1 - 2 * left) / 4
            sketch.rectangle(x - 0.05, 0.4 + 0.13 * row, x + 0.05, 0.47 + 0.13 * row, glass)
    sketch.rectangle(0.43, 0.88, 0.57, 1.0, shade(wall, 0.4))
    for post in (0.3, 0.7):
        sketch.line([(post, 0.26), (post, 0.34)], 0.035, wall)
    _sign(sketch, 0.06, 0.04, 0.94, 0.27)


def _crest(sketch: Sketch) -> None:
    field, rim = sketch.colour(), sketch.colour()
    second = sketch.colour(field)
    for reach, colour in ((1.0, rim), (0.88, field)):
        half, top, low = 0.38 * reach, 0.45 - 0.41 * reach, 0.45 + 0.49 * reach
        outline = ((1, 0.5), (0.8, 0.7), (0, low), (-0.8, 0.7), (-1, 0.5))
        sides = [(0.5 + side * half, y) for side, y in outline]
        sketch.polygon([(0.5 - half, top), (0.5, top + 0.04), (0.5 + half, top), *sides], colour)
    style = sketch.rng.choice(("chevron", "band", "stripes"))
    if style == "chevron":
        sketch.line([(0.2, 0.68), (0.5, 0.5), (0.8, 0.68)], 0.09, second)
    elif style == "band":
        sketch.rectangle(0.17, 0.5, 0.83, 0.63, second)
    else:
        for x in (0.26, 0.46, 0.66):
            sketch.rectangle(x, 0.5, x + 0.08, 0.74, second)
    _emblem(sketch, 0.5, 0.3, 0.16, second)


def _badge(sketch: Sketch) -> None:
    rim, field = sketch.colour(), sketch.colour()
    ink = sketch.colour(rim)
    sketch.disc(0.5, 0.5, 0.46, rim)
    letters = sketch.rng.randrange(14, 21)
    for letter in range(letters):
        angle = 2 * math.pi * letter / letters
        x, y = math.cos(angle), math.sin(angle)
        sketch.line([(0.5 + 0.34 * x, 0.5 + 0.34 * y), (0.5 + 0.42 * x, 0.5 + 0.42 * y)], 0.045, ink)
    sketch.disc(0.5, 0.5, 0.3, field)
    _emblem(sketch, 0.5, 0.5, 0.21, sketch.colour(field))


def _pennant(sketch: Sketch) -> None:
    pole, cloth = sketch.colour(), sketch.colour()
    ink = sketch.colour(cloth)
    sketch.figure("pennant", pole=pole, cloth=cloth, ink=ink)
    _emblem(sketch, 0.42, 0.4, 0.16, ink)


def _banner(sketch: Sketch) -> None:
    rod, cloth = sketch.colour(), sketch.colour()
    ink = sketch.colour(cloth)
    sketch.figure("banner", rod=rod, cloth=cloth, ink=ink)
    _emblem(sketch, 0.5, 0.44, 0.18, ink)


SUBJECTS = (_storefront, _office, _crest, _badge, _pennant, _banner)
