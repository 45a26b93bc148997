"""Subjects of kind LOC: landscapes and towns, which reach beyond their box to both sides."""

from ..canvas import Colour, Sketch, shade


def _ground(sketch: Sketch, top: float) -> Colour:
    colour = sketch.colour()
    sketch.rectangle(-1, top, 2, 2, colour)
    return colour


def _sun(sketch: Sketch) -> None:
    if sketch.rng.random() < 0.6:
        sketch.disc(sketch.rng.uniform(0.05, 0.95), sketch.rng.uniform(0.05, 0.2), 0.085, sketch.colour())


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
    _sun(sketch)
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
    _sun(sketch)
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
    _sun(sketch)
    tone, lit = sketch.two_colours()
    left = -0.3
    while left < 1.2:
        width, top = rng.uniform(0.14, 0.24), rng.uniform(0.15, 0.6)
        wall = shade(tone, rng.uniform(0.65, 1.2))
        sketch.rectangle(left, top, left + width, 0.95, wall)
        if rng.random() < 0.3:
            sketch.line([(left + width / 2, top), (left + width / 2, top - 0.12)], 0.02, wall)
        for row in range(int((0.9 - top) / 0.1)):
            for column in (0.2, 0.6):
                if rng.random() < 0.8:
                    x, y = left + column * width, top + 0.04 + 0.1 * row
                    sketch.rectangle(x, y, x + 0.22 * width, y + 0.05, lit)
        left += width + rng.uniform(0.0, 0.04)
    _ground(sketch, 0.92)


def _beach(sketch: Sketch) -> None:
    rng = sketch.rng
    _sun(sketch)
    sea = _ground(sketch, 0.52)
    for y in (0.58, 0.66):
        for x in (0.0, 0.4, 0.8):
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


SUBJECTS = (_mountains, _village, _skyline, _beach)
