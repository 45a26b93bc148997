"""What the pictures of the sample corpus show: the subjects of each kind of picture."""

import math
from collections.abc import Callable
from itertools import product
from typing import Literal

from .canvas import FIXED, Colour, Sketch, around, random_colour, shade

PictureKind = Literal["PER", "LOC", "ORG", "MISC", "OTHER"]

# Subjects of kind PER: one person or two, as a portrait or standing.

_SKINS, _HAIR = ([tuple(colour) for colour in FIXED[name]] for name in ("skins", "hair"))
_ARMS = (((0.2, 0.46), (0.2, 0.62)), ((0.28, 0.42), (0.34, 0.18)), ((0.25, 0.46), (0.12, 0.54)))
"""Elbow and hand of an arm that hangs, waves, or rests on the hip: distance from the middle, and height."""


def _portrait(sketch: Sketch) -> None:
    skin, hair = sketch.rng.choice(_SKINS), sketch.rng.choice(_HAIR)
    sketch.figure("portrait", skin=skin, hair=hair, clothes=sketch.colour(sketch.backdrop, skin))


def _standing(sketch: Sketch) -> None:
    rng = sketch.rng
    skin, hair = rng.choice(_SKINS), rng.choice(_HAIR)
    top, bottom = sketch.colour(sketch.backdrop, skin), sketch.colour()
    if rng.random() < 0.35:
        sketch.rectangle(0.37, 0.13, 0.63, rng.uniform(0.28, 0.36), hair)
    spread, has_skirt = rng.uniform(0.05, 0.14), rng.random() < 0.35
    for side in (-1, 1):
        foot = 0.5 + side * (0.05 + spread)
        sketch.line([(0.5 + side * 0.06, 0.6), (foot, 0.93)], 0.1, skin if has_skirt else bottom)
        sketch.ellipse(foot + side * 0.02, 0.96, 0.07, 0.035, (40, 35, 35))
    if has_skirt:
        sketch.polygon([(0.4, 0.58), (0.6, 0.58), (0.72, 0.8), (0.28, 0.8)], bottom)
    for side in (-1, 1):
        elbow, hand = rng.choice(_ARMS)
        joints = [(0.5 + side * out, height) for out, height in ((0.12, 0.33), elbow, hand)]
        sketch.line(joints, 0.085, shade(top, 0.85))
        sketch.disc(*joints[-1], 0.05, skin)
    sketch.figure("body and head", skin=skin, top=top, hair=hair)


def _couple(sketch: Sketch) -> None:
    figure = sketch.rng.choice((_portrait, _standing))
    size, apart = (0.7, 0.24) if figure is _portrait else (0.88, 0.22)
    for side in (-1, 1):
        lift = sketch.rng.uniform(0.0, 0.08)
        figure(sketch.within(0.5 - size / 2 + side * apart, 1.0 - size - lift, size))


# Subjects of kind LOC: landscapes and towns, which reach beyond their box to both sides.


def _ground(sketch: Sketch, top: float) -> Colour:
    colour = sketch.colour()
    sketch.rectangle(-1, top, 2, 2, colour)
    return colour


def _tree(sketch: Sketch, x: float, base: float, height: float) -> None:
    trunk, leaves = sketch.colour(), sketch.colour()
    sketch.rectangle(x - 0.06 * height, base - 0.4 * height, x + 0.06 * height, base, trunk)
    if sketch.rng.random() < 0.5:
        sketch.ellipse(x, base - 0.65 * height, 0.26 * height, 0.35 * height, leaves)
    else:
        for tier in (0.25, 0.45, 0.65):
            reach, low = 0.42 * height * (1.15 - tier), base - tier * height
            tip = base - (tier + 0.38) * height
            sketch.polygon([(x - reach, low), (x + reach, low), (x, tip)], leaves)


def _mountains(sketch: Sketch) -> None:
    rng = sketch.rng
    sketch.figure("sky")
    rock = sketch.colour()
    snow = sketch.colour(rock, sketch.backdrop)
    for x in rng.sample((0.0, 0.25, 0.5, 0.75, 1.0), 3):
        peak, reach = rng.uniform(0.12, 0.4), rng.uniform(0.38, 0.55)
        tone = shade(rock, rng.uniform(0.7, 1.2))
        sketch.polygon([(x - reach, 0.85), (x, peak), (x + reach, 0.85)], tone)
        cap, drop = 0.3 * reach, peak + 0.3 * (0.85 - peak)
        melted = [(x + 0.4 * cap, drop - 0.05), (x, drop + 0.03)]
        sketch.polygon([(x - cap, drop), (x, peak), (x + cap, drop), *melted], snow)
    _ground(sketch, 0.8)
    for x in rng.sample((0.0, 0.2, 0.45, 0.7, 0.95), rng.randrange(3)):
        _tree(sketch, x, 0.95, rng.uniform(0.2, 0.35))


def _house(sketch: Sketch, x: float, base: float, width: float, height: float) -> None:
    rng = sketch.rng
    wall, roof = sketch.colour(), sketch.colour()
    glass = sketch.colour(wall)
    top = base - height
    if rng.random() < 0.5:
        sketch.rectangle(x + 0.6 * width, top - 0.42 * height, x + 0.75 * width, top, roof)
    sketch.rectangle(x, top, x + width, base, wall)
    gable = (x + 0.5 * width, top - 0.55 * height)
    sketch.polygon([(x - 0.1 * width, top), gable, (x + 1.1 * width, top)], roof)
    sketch.rectangle(x + 0.41 * width, base - 0.45 * height, x + 0.59 * width, base, shade(wall, 0.4))
    for pane in (0.1, 0.68):
        left, upper = x + pane * width, top + 0.25 * height
        sketch.rectangle(left, upper, left + 0.22 * width, upper + 0.3 * height, glass)
        sketch.line([(left + 0.11 * width, upper), (left + 0.11 * width, upper + 0.3 * height)], 0.012, wall)


def _village(sketch: Sketch) -> None:
    rng = sketch.rng
    sketch.figure("sky")
    _ground(sketch, rng.uniform(0.7, 0.8))
    if rng.random() < 0.5:
        _house(sketch, 0.2, 0.88, 0.56, 0.4)
        _tree(sketch, 0.97, 0.9, rng.uniform(0.4, 0.6))
    else:
        for x in (-0.1, 0.28, 0.68):
            left, base, height = x + rng.uniform(-0.03, 0.03), rng.uniform(0.8, 0.92), rng.uniform(0.22, 0.32)
            _house(sketch, left, base, 0.32, height)


def _skyline(sketch: Sketch) -> None:
    rng = sketch.rng
    sketch.figure("sky")
    tone, lit = sketch.two_colours()
    left = -0.3
    while left < 1.2:
        width, top = rng.uniform(0.14, 0.24), rng.uniform(0.15, 0.6)
        wall = shade(tone, rng.uniform(0.65, 1.2))
        sketch.rectangle(left, top, left + width, 0.95, wall)
        if rng.random() < 0.3:
            sketch.line([(left + width / 2, top), (left + width / 2, top - 0.12)], 0.02, wall)
        for row, column in product(range(int((0.9 - top) / 0.1)), (0.2, 0.6)):
            if rng.random() < 0.8:
                x, y = left + column * width, top + 0.04 + 0.1 * row
                sketch.rectangle(x, y, x + 0.22 * width, y + 0.05, lit)
        left += width + rng.uniform(0.0, 0.04)
    _ground(sketch, 0.92)


def _beach(sketch: Sketch) -> None:
    rng = sketch.rng
    sketch.figure("sky")
    sea = _ground(sketch, 0.52)
    for y, x in product((0.58, 0.66), (0.0, 0.4, 0.8)):
        start = x + rng.uniform(-0.1, 0.1)
        sketch.line([(start, y), (start + 0.06, y - 0.02), (start + 0.12, y)], 0.018, shade(sea, 1.5))
    sand = sketch.colour(sea)
    sketch.polygon([(-1, 0.9), (0.3, 0.8), (1.0, 0.68), (2, 0.6), (2, 2), (-1, 2)], sand)
    trunk, leaves = sketch.colour(), sketch.colour()
    crown = (rng.uniform(0.5, 0.64), rng.uniform(0.2, 0.3))
    sketch.line([(0.8, 0.85), (0.74, 0.55), crown], 0.055, trunk)
    for x, y in ((-0.3, 0.12), (-0.26, -0.06), (-0.08, -0.16), (0.14, -0.14), (0.28, -0.02), (0.28, 0.16)):
        tip, bend = (crown[0] + x, crown[1] + y), (crown[0] + 0.5 * x, crown[1] + 0.3 * y - 0.08)
        sketch.polygon([crown, bend, tip, (bend[0], bend[1] + 0.08)], leaves)


# Subjects of kind ORG: shops and offices under a sign-board, and the badges, crests and banners of clubs.


def _sign(sketch: Sketch, left: float, top: float, right: float, bottom: float) -> None:
    """A sign-board: a logo, and bars in place of letters because fonts differ between systems."""
    board, ink = sketch.two_colours()
    height = bottom - top
    sketch.rectangle(left - 0.025, top - 0.025, right + 0.025, bottom + 0.025, ink)
    sketch.rectangle(left, top, right, bottom, board)
    sketch.emblem(left + 0.55 * height, top + height / 2, 0.36 * height, ink)
    x = left + 1.1 * height
    while x < right - 0.07:
        sketch.rectangle(x, top + sketch.rng.uniform(0.22, 0.4) * height, x + 0.045, top + 0.76 * height, ink)
        x += 0.08


def _storefront(sketch: Sketch) -> None:
    wall, glass = sketch.two_colours()
    stripes = sketch.colour(wall)
    sketch.rectangle(0.04, 0.08, 0.96, 0.98, wall)
    _sign(sketch, 0.02, 0.12, 0.98, 0.36)
    light = shade(stripes, 1.85 if sum(stripes) < 550 else 0.4)
    sketch.figure("awning", dark=stripes, light=light)
    sketch.figure("window and door" if sketch.rng.random() < 0.5 else "door between windows", glass=glass)


def _office(sketch: Sketch) -> None:
    wall, glass = sketch.two_colours()
    left = sketch.rng.uniform(0.14, 0.24)
    sketch.rectangle(left, 0.3, 1 - left, 1.0, wall)
    for row, column in product(range(4), range(4)):
        x = left + (column + 0.5) * (1 - 2 * left) / 4
        sketch.rectangle(x - 0.05, 0.4 + 0.13 * row, x + 0.05, 0.47 + 0.13 * row, glass)
    sketch.figure("door and posts of a sign", wall=wall)
    _sign(sketch, 0.06, 0.04, 0.94, 0.27)


def _badge(sketch: Sketch) -> None:
    rim, field = sketch.colour(), sketch.colour()
    ink = sketch.colour(rim)
    sketch.disc(0.5, 0.5, 0.46, rim)
    letters = sketch.rng.randrange(14, 21)
    for letter in range(letters):
        angle = 2 * math.pi * letter / letters
        sketch.line([around(0.5, 0.5, 0.34, angle), around(0.5, 0.5, 0.42, angle)], 0.045, ink)
    sketch.disc(0.5, 0.5, 0.3, field)
    sketch.emblem(0.5, 0.5, 0.21, sketch.colour(field))


# Subjects of kind MISC: things that are made, sold or won.


def _phone(sketch: Sketch) -> None:
    screen = sketch.figure("phone")["screen"]
    if sketch.rng.random() < 0.65:
        for row, column in product(range(4), range(3)):
            x, y = 0.34 + 0.125 * column, 0.18 + 0.16 * row
            sketch.rectangle(x, y, x + 0.08, y + 0.09, sketch.colour(screen))
    else:
        for row in range(6):
            right = sketch.rng.uniform(0.45, 0.64)
            sketch.line([(0.36, 0.21 + 0.1 * row), (right, 0.21 + 0.1 * row)], 0.035, sketch.colour(screen))


def _book(sketch: Sketch) -> None:
    cover = sketch.colour()
    figure = "open book" if sketch.rng.random() < 0.5 else "closed book"
    sketch.figure(figure, cover=cover, page=shade(cover, 1.85))


# Subjects of kind OTHER: pictures that say nothing about the entities of a post.


def _shapes(sketch: Sketch) -> None:
    rng = sketch.rng
    for _ in range(rng.randrange(8, 14)):
        x, y, reach = rng.random(), rng.random(), rng.uniform(0.08, 0.2)
        turns = [rng.uniform(0, 2 * math.pi) for _ in range(rng.choice((3, 4, 5)))]
        if rng.random() < 0.4:
            sketch.disc(x, y, 0.6 * reach, random_colour(rng))
        else:
            corners = [around(x, y, reach, turn) for turn in sorted(turns)]
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
        x, y = around(0.5, 0.5, distance, angle)
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
            sketch.disc(*around(x, y, 0.1, 2 * math.pi * leaf / 6), 0.065, petal)
        sketch.disc(x, y, 0.06, sketch.colour(petal))


SUBJECTS: dict[PictureKind, tuple[Callable[[Sketch], object] | str, ...]] = {
    "PER": (_portrait, _standing, _couple),
    "LOC": (_mountains, _village, _skyline, _beach),
    "ORG": (_storefront, _office, "crest", _badge, "pennant", "banner"),
    "MISC": ("car", _phone, "trophy", "bottle", "cup", "guitar", _book),
    "OTHER": (_shapes, _stripes, _plate, _flowers),
}
"""Those of each kind; the names are of figures."""


def draw_subject(kind: PictureKind, sketch: Sketch) -> None:
    """Draw one of a kind's subjects."""
    subject = sketch.rng.choice(SUBJECTS[kind])
    sketch.figure(subject) if isinstance(subject, str) else subject(sketch)
