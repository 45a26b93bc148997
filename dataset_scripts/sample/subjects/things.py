"""Subjects of kind MISC: things that are made, sold or won."""

from ..canvas import Sketch, shade


def _car(sketch: Sketch) -> None:
    body, glass = sketch.two_colours()
    roof = sketch.rng.uniform(0.28, 0.36)
    sketch.polygon([(0.2, 0.52), (0.32, roof), (0.66, roof), (0.8, 0.52)], body)
    sketch.polygon([(0.26, 0.51), (0.35, roof + 0.05), (0.48, roof + 0.05), (0.48, 0.51)], glass)
    sketch.polygon([(0.52, 0.51), (0.52, roof + 0.05), (0.64, roof + 0.05), (0.73, 0.51)], glass)
    sketch.figure("car below its windows", body=body)


def _phone(sketch: Sketch) -> None:
    case, screen = sketch.two_colours()
    sketch.figure("phone", case=case, screen=screen)
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
    sketch.figure("trophy", metal=sketch.colour(), base=sketch.colour())


def _bottle(sketch: Sketch) -> None:
    glass, label = sketch.two_colours()
    shoulder = sketch.rng.uniform(0.34, 0.44)
    sketch.rectangle(0.44, 0.08, 0.56, shoulder, glass)
    sketch.rectangle(0.42, 0.02, 0.58, 0.1, sketch.colour())
    sketch.dome(0.5, shoulder + 0.08, 0.17, 0.18, glass)
    sketch.rectangle(0.33, shoulder + 0.07, 0.67, 0.97, glass)
    sketch.figure("label of a bottle", label=label, glass=glass)
    sketch.line([(0.39, shoulder + 0.08), (0.39, 0.54)], 0.03, shade(glass, 1.6))


def _cup(sketch: Sketch) -> None:
    china, band = sketch.two_colours()
    sketch.figure("cup", china=china, band=band, steam=sketch.colour())


def _guitar(sketch: Sketch) -> None:
    wood, neck = sketch.two_colours()
    sketch.figure("guitar", wood=wood, neck=neck)


def _book(sketch: Sketch) -> None:
    cover = sketch.colour()
    if sketch.rng.random() < 0.5:
        page = shade(cover, 1.85)
        sketch.figure("open book", cover=cover, page=page, ink=sketch.colour(page))
    else:
        sketch.figure("closed book", cover=cover, ink=sketch.colour(cover))


SUBJECTS = (_car, _phone, _trophy, _bottle, _cup, _guitar, _book)
