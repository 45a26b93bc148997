"""Draws the pictures of the sample corpus: background, clutter, and a subject whose shape tells its kind."""

import random
import struct
import zlib
from dataclasses import replace

from PIL import Image, ImageDraw

from .canvas import OVERSAMPLING, SIDE, Sketch, random_colour
from .subjects import PictureKind, draw_subject


def draw(kind: PictureKind, rng: random.Random) -> Image.Image:
    """A random RGB picture of `kind`, SIDE x SIDE pixels; equal states of `rng` give equal pictures.

    Only the subject's shape tells the kinds apart: all else is drawn from the same ranges for every kind.
    """
    image = Image.new("RGB", (SIDE * OVERSAMPLING, SIDE * OVERSAMPLING))
    sketch = Sketch(ImageDraw.Draw(image), rng, random_colour(rng))
    _background(sketch)
    _clutter(sketch)
    size = rng.uniform(0.68, 1.0)
    subject = replace(
        sketch,
        left=rng.uniform(-0.06, 1.0 - size + 0.06),
        top=rng.uniform(-0.04, 1.0 - size + 0.04),
        size=size,
        mirrored=rng.random() < 0.5,
        tilt=rng.uniform(-0.12, 0.12),
    )
    draw_subject(kind, subject)
    return image.reduce(OVERSAMPLING)


def encode_png(image: Image.Image) -> bytes:
    """`image` (RGB) as an uncompressed PNG file.

    Written out here because compressors differ between builds of Pillow, while these bytes, which the hash of
    a corpus counts, depend on the pixels only.
    """
    pixels, row = image.tobytes(), 3 * image.width
    lines = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row))
    header = struct.pack(">IIBBBBB", *image.size, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _background(sketch: Sketch) -> None:
    """Plain, a gradient, or two areas; close enough to the backdrop for contrasting colours to stand out."""
    sketch.rectangle(0, 0, 1, 1, sketch.backdrop)
    style = sketch.rng.choice(("plain", "gradient", "horizon"))
    target = tuple(max(0, min(255, channel + sketch.rng.randint(-70, 70))) for channel in sketch.backdrop)
    if style == "gradient":
        for band in range(16):
            mixed = tuple(a + (b - a) * band // 15 for a, b in zip(sketch.backdrop, target, strict=True))
            sketch.rectangle(0, band / 16, 1, 1, mixed)
    elif style == "horizon":
        sketch.rectangle(0, sketch.rng.uniform(0.5, 0.9), 1, 1, target)


def _clutter(sketch: Sketch) -> None:
    """Up to six small marks without meaning, the same ones behind every kind of subject."""
    rng = sketch.rng
    for _ in range(rng.randrange(7)):
        x, y, reach = rng.random(), rng.random(), rng.uniform(0.02, 0.07)
        colour = random_colour(rng)
        mark = rng.choice(("disc", "block", "stroke", "wedge"))
        if mark == "disc":
            sketch.disc(x, y, reach, colour)
        elif mark == "block":
            sketch.rectangle(x - reach, y - reach, x + reach, y + reach, colour)
        elif mark == "stroke":
            sketch.line([(x, y), (x + rng.uniform(-0.3, 0.3), y + rng.uniform(-0.3, 0.3))], 0.02, colour)
        else:
            sketch.polygon([(x, y - reach), (x + reach, y + reach), (x - reach, y + reach)], colour)
