"""Subjects of kind MISC: things that are made, sold or won."""

from ..canvas import Sketch, shade

_DARK = (35, 35, 40)


def _car(sketch: Sketch) -> None:
    body, glass = sketch.two_colours()
    roof = sketch.rng.uniform(0.28, 0.36)
    sketch.polygon([(0.2, 0.52), (0.32, roof), (0.66, roof), (0.8, 0.52)], body)
    sketch.polygon([(0.26, 0.51), (0.35, roof + 0.05), (0.48, roof + 0.05), (0.48, 0.51)], glass)
    sketch.polygon([(0.52, 0.51), (0.52, roof + 0.05), (0.64, roof + 0.05), (0.73, 0.51)], glass)
    sketch.polygon([(0.0, 0.56), (0.06, 0.5), (0.8, 0.5), (0.96, 0.55), (1.0, 0.73), (0.0, 0.73)], body)
    sketch.rectangle(0.93, 0.57, 1.0, 0.63, shade(body, 1.8))
    sketch.line([(0.03, 0.66), (0.97, 0.66)], 0.016, shade(body, 0.6))
    for wheel in (0.23, 0.77):
        sketch.disc(wheel, 0.73, 0.13, _DARK)
        sketch.disc(wheel, 0.73, 0.06, (190, 190, 195))


def _phone(sketch: Sketch) -> None:
    case, screen = sketch.two_colours()
    sketch.rectangle(0.28, 0.04, 0.72, 0.96, case)
    sketch.rectangle(0.25, 0.07, 0.75, 0.93, case)
    sketch.rectangle(0.3, 0.13, 0.7, 0.83, screen)
    sketch.line([(0.44, 0.09), (0.56, 0.09)], 0.02, shade(case, 0.5))
    sketch.disc(0.5, 0.88, 0.032, screen)
    if sketch.rng.random() < 0.65:
        for row in range(4):
            for column in range(3):
                x, y = 0.34 + 0.125 * column, 0.18 + 0.16 * row
                sketch.rectangle(x, y, x + 0.08, y + 0.09, sketch.colour(screen))
    else:
        for row in range(6):
            right = sketch.rng.uniform(0.45, 0.64)
            sketch.line([(0.36, 0.21 + 0.1 * row), (right, 0.21 + 0.1 * row)], 0.035, sketch.colour(screen))


def _trophy(sketch: Sketch) -> None:
    metal = sketch.colour()
    for side in (-1, 1):
        sketch.ring(0.5 + side * 0.26, 0.28, 0.13, 0.05, shade(metal, 0.8))
    sketch.rectangle(0.26, 0.1, 0.74, 0.32, metal)
    sketch.dome(0.5, 0.32, 0.24, -0.3, metal)
    sketch.rectangle(0.22, 0.06, 0.78, 0.12, shade(metal, 0.8))
    sketch.rectangle(0.46, 0.6, 0.54, 0.78, metal)
    sketch.polygon([(0.4, 0.76), (0.6, 0.76), (0.7, 0.84), (0.3, 0.84)], metal)
    sketch.rectangle(0.26, 0.84, 0.74, 0.97, sketch.colour())
    sketch.line([(0.35, 0.17), (0.35, 0.36)], 0.045, shade(metal, 1.6))


def _bottle(sketch: Sketch) -> None:
    glass, label = sketch.two_colours()
    shoulder = sketch.rng.uniform(0.34, 0.44)
    sketch.rectangle(0.44, 0.08, 0.56, shoulder, glass)
    sketch.rectangle(0.42, 0.02, 0.58, 0.1, sketch.colour())
    sketch.dome(0.5, shoulder + 0.08, 0.17, 0.18, glass)
    sketch.rectangle(0.33, shoulder + 0.07, 0.67, 0.97, glass)
    sketch.rectangle(0.33, 0.58, 0.67, 0.82, label)
    sketch.line([(0.4, 0.66), (0.6, 0.66)], 0.03, glass)
    sketch.line([(0.43, 0.74), (0.57, 0.74)], 0.03, glass)
    sketch.line([(0.39, shoulder + 0.08), (0.39, 0.54)], 0.03, shade(glass, 1.6))


def _cup(sketch: Sketch) -> None:
    china, band = sketch.two_colours()
    sketch.ring(0.74, 0.62, 0.14, 0.065, china)
    sketch.polygon([(0.16, 0.4), (0.74, 0.4), (0.68, 0.9), (0.22, 0.9)], china)
    sketch.polygon([(0.175, 0.56), (0.725, 0.56), (0.71, 0.7), (0.19, 0.7)], band)
    sketch.ellipse(0.45, 0.4, 0.29, 0.07, shade(china, 0.75))
    sketch.ellipse(0.45, 0.41, 0.24, 0.05, (84, 50, 28))
    steam = sketch.colour()
    for x in (0.34, 0.46, 0.58):
        sketch.line([(x, 0.3), (x + 0.04, 0.22), (x - 0.02, 0.15), (x + 0.02, 0.06)], 0.025, steam)
    sketch.ellipse(0.45, 0.93, 0.42, 0.05, shade(china, 0.85))


def _guitar(sketch: Sketch) -> None:
    wood, neck = sketch.two_colours()
    sketch.disc(0.5, 0.76, 0.235, wood)
    sketch.disc(0.5, 0.54, 0.175, wood)
    sketch.disc(0.5, 0.62, 0.085, _DARK)
    sketch.rectangle(0.46, 0.13, 0.54, 0.58, neck)
    sketch.polygon([(0.43, 0.0), (0.57, 0.0), (0.55, 0.14), (0.45, 0.14)], shade(wood, 0.7))
    for peg in (0.03, 0.09):
        for side in (-1, 1):
            sketch.disc(0.5 + side * 0.09, peg, 0.025, neck)
    sketch.rectangle(0.4, 0.8, 0.6, 0.84, _DARK)
    for x in (0.48, 0.52):
        sketch.line([(x, 0.05), (x, 0.82)], 0.008, (235, 235, 235))


def _book(sketch: Sketch) -> None:
    cover = sketch.colour()
    if sketch.rng.random() < 0.5:
        page = shade(cover, 1.85)
        ink = sketch.colour(page)
        sketch.polygon([(0.0, 0.26), (0.5, 0.32), (1.0, 0.26), (1.0, 0.84), (0.5, 0.9), (0.0, 0.84)], cover)
        for side in (-1, 1):
            edge = [(0.5, 0.27), (0.5 + side * 0.45, 0.2), (0.5 + side * 0.45, 0.77), (0.5, 0.84)]
            sketch.polygon(edge, page)
            for row in range(5):
                y = 0.34 + 0.09 * row
                sketch.line([(0.5 + side * 0.07, y), (0.5 + side * 0.38, y - 0.05)], 0.028, ink)
        sketch.line([(0.5, 0.27), (0.5, 0.86)], 0.025, shade(page, 0.6))
    else:
        ink = sketch.colour(cover)
        edges = [(0.2, 0.06), (0.78, 0.06), (0.86, 0.12), (0.86, 0.96), (0.28, 0.96), (0.2, 0.9)]
        sketch.polygon(edges, (245, 240, 225))
        sketch.rectangle(0.2, 0.06, 0.78, 0.9, cover)
        sketch.rectangle(0.2, 0.06, 0.28, 0.9, shade(cover, 0.65))
        sketch.rectangle(0.36, 0.2, 0.7, 0.28, ink)
        sketch.rectangle(0.42, 0.34, 0.64, 0.39, ink)
        sketch.disc(0.53, 0.62, 0.12, ink)


SUBJECTS = (_car, _phone, _trophy, _bottle, _cup, _guitar, _book)
