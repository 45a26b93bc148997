"""Subjects of kind PER: one person or two, as a portrait or standing."""

from ..canvas import Colour, Sketch, shade

_SKINS: tuple[Colour, ...] = (
    (255, 224, 196), (241, 194, 155), (224, 172, 125), (198, 134, 86), (141, 85, 48), (92, 56, 34),
)  # fmt: skip
_HAIR: tuple[Colour, ...] = (
    (28, 22, 20), (74, 46, 28), (128, 76, 36), (214, 176, 92), (178, 68, 32), (168, 168, 172),
)  # fmt: skip

_ARMS = (((0.2, 0.46), (0.2, 0.62)), ((0.28, 0.42), (0.34, 0.18)), ((0.25, 0.46), (0.12, 0.54)))
"""Elbow and hand of an arm that hangs, waves, or rests on the hip: distance from the middle, and height."""


def _portrait(sketch: Sketch) -> None:
    rng = sketch.rng
    skin, hair = rng.choice(_SKINS), rng.choice(_HAIR)
    clothes = sketch.colour(sketch.backdrop, skin)
    style = rng.choice(("short", "short", "long", "bun", "bald"))
    if style == "long":
        sketch.dome(0.5, 0.4, 0.25, 0.3, hair)
        sketch.rectangle(0.25, 0.4, 0.75, rng.uniform(0.6, 0.78), hair)
    sketch.figure("bust", clothes=clothes, skin=skin)
    if style == "bun":
        sketch.disc(0.5, 0.13, 0.1, hair)
    if style != "bald":
        sketch.ellipse(0.5, 0.36, 0.2, 0.22, hair)
    sketch.ellipse(0.5, 0.41, 0.17, 0.21, skin)
    if style != "bald":
        sketch.dome(0.5, 0.33, 0.18, 0.16, hair)
    sketch.figure("eyes and nose", skin=skin)
    if rng.random() < 0.5:
        sketch.dome(0.5, 0.525, 0.06, -0.05, (190, 50, 60))
    else:
        sketch.line([(0.44, 0.535), (0.5, 0.55), (0.56, 0.535)], 0.022, (150, 50, 55))
    if rng.random() < 0.4:
        side = rng.choice((-1, 1))
        hand = 0.5 + 0.36 * side
        sketch.line([(hand, 0.95), (0.5 + 0.46 * side, 0.7), (hand, 0.5)], 0.11, clothes)
        sketch.disc(hand, 0.45, 0.075, skin)


def _standing(sketch: Sketch) -> None:
    rng = sketch.rng
    skin, hair = rng.choice(_SKINS), rng.choice(_HAIR)
    top, bottom = sketch.colour(sketch.backdrop, skin), sketch.colour()
    if rng.random() < 0.35:
        sketch.rectangle(0.37, 0.13, 0.63, rng.uniform(0.28, 0.36), hair)
    _legs(sketch, skin, bottom)
    for side in (-1, 1):
        elbow, hand = rng.choice(_ARMS)
        joints = [(0.5 + side * out, height) for out, height in ((0.12, 0.33), elbow, hand)]
        sketch.line(joints, 0.085, shade(top, 0.85))
        sketch.disc(*joints[-1], 0.05, skin)
    sketch.figure("body and head", skin=skin, top=top, hair=hair)


def _legs(sketch: Sketch, skin: Colour, clothes: Colour) -> None:
    spread = sketch.rng.uniform(0.05, 0.14)
    skirt = sketch.rng.random() < 0.35
    for side in (-1, 1):
        foot = 0.5 + side * (0.05 + spread)
        sketch.line([(0.5 + side * 0.06, 0.6), (foot, 0.93)], 0.1, skin if skirt else clothes)
        sketch.ellipse(foot + side * 0.02, 0.96, 0.07, 0.035, (40, 35, 35))
    if skirt:
        sketch.polygon([(0.4, 0.58), (0.6, 0.58), (0.72, 0.8), (0.28, 0.8)], clothes)


def _couple(sketch: Sketch) -> None:
    figure = sketch.rng.choice((_portrait, _standing))
    size, apart = (0.7, 0.24) if figure is _portrait else (0.88, 0.22)
    for side in (-1, 1):
        lift = sketch.rng.uniform(0.0, 0.08)
        figure(sketch.within(0.5 - size / 2 + side * apart, 1.0 - size - lift, size))


SUBJECTS = (_portrait, _standing, _couple)
