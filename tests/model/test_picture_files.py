"""Tests of what pictures' files hold beside their pixels: broken it costs nothing, hostile it is refused."""

import io
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from modeling_mmner.model.images_mmner import PictureError, load_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encoded(picture: Image.Image = PICTURE, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def loaded(picture: Any) -> np.ndarray:
    return np.asarray(load_picture(picture))


# Greys of more than 8 bits

RAMP = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
BYTES = np.arange(256).reshape(16, 16)
GREYS = {
    "floats in 0..1": (RAMP, BYTES),
    "floats in -2..3": (RAMP * 5 - 2, BYTES),
    "floats of one value": (np.full_like(RAMP, 7), 0 * BYTES),
    "floats without a value": (np.where(RAMP == 0, np.nan, np.where(RAMP == 1, np.inf, RAMP)), BYTES),
    "ints of bytes": (BYTES.astype(np.int32), BYTES),
    "ints of 16 bits": (BYTES.astype(np.int32) * 257, BYTES),
    "ints to a million": (BYTES.astype(np.int32) * 4000, BYTES),
    "negative ints": (BYTES.astype(np.int32) * 2 - 300, BYTES),
}


@pytest.mark.parametrize(("values", "expected"), GREYS.values(), ids=GREYS)
def test_deep_greys_are_scaled_not_clipped(values, expected):
    """Regression: scans and maps of 32-bit greys came out black, for Pillow's own conversion clips them."""
    for picture in (Image.fromarray(values), encoded(Image.fromarray(values), "TIFF")):
        found = loaded(picture)
        assert np.array_equal(found[:, :, 0], found[:, :, 2])
        assert np.abs(found[:, :, 0].astype(int) - expected).max() <= 1


def test_portable_greys_are_those_of_other_files():
    """Regression: a PFM was black; and a dark PGM of 16 bits must not be brighter than the same PNG."""
    assert np.array_equal(loaded(encoded(Image.fromarray(RAMP), "PPM"))[:, :, 0], BYTES)
    dark = Image.fromarray(BYTES.astype(np.uint16))
    assert loaded(encoded(dark, "PPM")).max() == loaded(encoded(dark)).max() == 0


def png_chunk(part: tuple[bytes, bytes]) -> bytes:
    name, data = part
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(tags: list[tuple[int, int, int, Any]], data: bytes = b"") -> bytes:
    """A TIFF of some tags; a value in a tuple is where in the data it lies."""
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [
        struct.pack("<HHII", tag, kind, count, start + value[0] if isinstance(value, tuple) else value)
        for tag, kind, count, value in tags
    ]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4) + data


def grey_tiff(width: int, height: int, bits: int, size: int) -> list[Any]:
    kinds = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: (0,), 277: 1, 278: height, 279: size}
    return [(tag, 4, 1, value) for tag, value in kinds.items()]


# Metadata


def exif(orientation: int = 6, **more: Any) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


TURNED = loaded(np.rot90(PIXELS, -1))
RAW = "\nexif\n      {}\n{}"
UPRIGHT, PROFILE = exif().tobytes(), zlib.compress(bytes(2_000_000))
# A resolution of -1/2: Pillow reads it, and cannot write it again.
RATIONAL = b"II*\0\x08\0\0\0" + struct.pack("<HHHIIHHII", 2, 0x0112, 3, 1, 6, 282, 10, 1, 38) + bytes(4)
RATIONAL += struct.pack("<iI", -1, 2)


def with_chunk(name: bytes, data: bytes, **options: Any) -> bytes:
    content = encoded(PICTURE, **options)
    return content[:33] + png_chunk((name, data)) + content[33:]


def with_texts(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key.replace("_", " "), value)
    return encoded(PICTURE, pnginfo=info)


HEX = RAW.format(len(UPRIGHT), UPRIGHT.hex())
XMP = "<x:xmpmeta><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
PNGS = {
    "Exif of garbage": (encoded(exif=b"garbage that is no Exif"), PIXELS),
    "cut Exif": (encoded(exif=UPRIGHT[:-9]), PIXELS),
    "raw Exif that is no hex": (with_texts(Raw_profile_type_exif="\n\n\nno hex"), PIXELS),
    "raw Exif": (with_texts(Raw_profile_type_exif=HEX), TURNED),
    "a negative rational": (encoded(exif=RATIONAL), TURNED),
    "ICC profile of 2 MB": (with_chunk(b"iCCP", b"x\0\0" + PROFILE), PIXELS),
    "ICC profile of 2 MB, turned": (with_chunk(b"iCCP", b"x\0\0" + PROFILE, exif=exif()), TURNED),
    "ICC profile of no kind": (with_chunk(b"iCCP", b"x\0\7" + PROFILE), PIXELS),
    "text of 2 MB": (with_chunk(b"zTXt", b"x\0\0" + PROFILE), PIXELS),
    "raw Exif of 2 MB": (with_chunk(b"zTXt", b"Raw profile type exif\0\0" + PROFILE), PIXELS),
    "text of no kind": (with_chunk(b"zTXt", b"x\0\7"), PIXELS),
    "short gamma": (with_chunk(b"gAMA", b"x"), PIXELS),
    "short colours": (with_chunk(b"cHRM", b"x"), PIXELS),
    "short animation": (with_chunk(b"acTL", b"x"), PIXELS),
    "short transparent colour": (with_chunk(b"tRNS", b"x"), PIXELS),
    "wrong checksum of a text": (
        with_chunk(b"tEXt", b"x\0y").replace(png_chunk((b"tEXt", b"x\0y")), b"\0\0\0\3tEXtx\0yFALS"),
        PIXELS,
    ),
}


@pytest.mark.parametrize(("content", "expected"), PNGS.values(), ids=PNGS)
def test_a_png_is_a_picture_whatever_its_metadata(content, expected):
    """Regression: pictures were left out of corpora for what no viewer looks at."""
    assert np.array_equal(loaded(content), expected)


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


JPEGS = {
    "short JFIF": segment(0xE0, b"JFIF"),
    "short Adobe": segment(0xEE, b"Adobe"),
    "short ICC": segment(0xE2, b"ICC_PROFILE\0"),
    "Photoshop without numbers": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
    "several pictures in one": segment(0xE2, b"MPF\0" + bytes(12)),
    "Exif of garbage": segment(0xE1, b"Exif\0\0garbage"),
    "junk and filling": b"junk" + b"\xff" * 9,
    "comment": segment(0xFE, b"\xff\xda"),
}
TAGS_OF_TIFFS = {
    "text as a resolution": (282, 2, 4, 0),
    "Exif that is nowhere": (34665, 4, 1, 2**31),
    "Exif in itself": (34665, 4, 1, 8),
    "ICC that ends early": (34675, 7, 2**30, 8),
    "Photoshop as a number": (34377, 3, 1, 7),
}


@pytest.mark.parametrize("before", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_is_a_picture_whatever_its_metadata(before):
    """Regression: so were photos, for segments cut short by the programs that they went through."""
    for options, turn in (({}, 0), ({"exif": exif()}, -1)):
        content = encoded(PICTURE, "JPEG", **options)
        plain = np.rot90(np.asarray(Image.open(io.BytesIO(content))), turn)
        after_head = content.index(b"\xff\xdb")
        found = loaded(content[:after_head] + before + content[after_head:])
        assert np.array_equal(found, plain)
        if b"Exif" not in before:
            assert np.array_equal(loaded(content[:2] + before + content[2:]), plain)


@pytest.mark.parametrize("tag", TAGS_OF_TIFFS.values(), ids=TAGS_OF_TIFFS)
def test_a_tiff_is_a_picture_whatever_its_metadata(tag):
    """Regression: so were scans."""
    content = tiff(sorted([*grey_tiff(2, 1, 8, 2), (274, 3, 1, 3), tag]), bytes([0, 200]))
    assert loaded(content)[0, :, 0].tolist() == [200, 0]


def test_big_tiffs_keep_their_pixels():
    """If it failed, the form of TIFF for large files would be taken for the other."""
    content = encoded(PICTURE, "TIFF", big_tiff=True, tiffinfo={270: "a description", 274: 6})
    assert content.startswith(b"II+\0") and np.array_equal(loaded(content), TURNED)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "AVIF"])
def test_what_is_left_out_is_no_pixel(file_format):
    """If it failed, pictures would have other colours than Pillow gives them."""
    options = {"PNG": {"dpi": (72, 72)}, "JPEG": {"comment": b"c"}, "GIF": {"comment": b"c"}}.get(
        file_format, {}
    )
    kept = {} if file_format == "GIF" else {"exif": exif(), "icc_profile": bytes(200)}
    content = encoded(PICTURE, file_format, **options, **kept)
    plain = Image.open(io.BytesIO(content)).convert("RGB")
    turns = -1 if kept and file_format != "TIFF" else 0  # which Pillow itself turns
    assert np.array_equal(loaded(content), np.rot90(np.asarray(plain), turns))


def test_broken_metadata_is_no_news():
    """Regression: a corpus of photos printed a warning for each broken tag."""
    code = """
        import io
        from PIL import Image
        from modeling_mmner.model.images_mmner import load_picture

        for size in range(50, 90):
            buffer = io.BytesIO()
            tag = b"II*\\0\\x08\\0\\0\\0\\1\\0\\x0e\\1\\2\\0" + bytes([size, 0, 0, 0, 26, *bytes(7)])
            Image.new("RGB", (9, 9)).save(buffer, "JPEG", exif=b"Exif\\0\\0" + tag)
            load_picture(buffer.getvalue())
    """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stderr == ""


# Small files that take long, or much memory


def with_comments(count: int) -> bytes:
    content = encoded(PICTURE.convert("P"), "GIF")
    frame = content.index(b",\0\0\0\0")
    return content[:frame] + (b"!\xfe\x14" + b"c" * 20 + b"\0") * count + content[frame:]


def packed_bmp(width: int, height: int, rows: bytes) -> bytes:
    start = 14 + 40 + 1024
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + bytes(1024) + rows


def with_scans(count: int) -> bytes:
    content = encoded(Image.new("L", (800, 800), 99), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + content[-2:]


def one_tile(side: int) -> bytes:
    sizes = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: (0,), 325: 9}
    return tiff([(tag, 4, 1, value) for tag, value in sizes.items()], zlib.compress(b""))


def overlapping(tags: list[Any]) -> bytes:
    """Tags that name the same bytes."""
    return tiff([*tags, *((40_000 + n, 7, 300_000, (0,)) for n in range(2000))], bytes(300_000))


UNPACKED = bytes(60_000)
SEVERAL = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + UNPACKED) * 800
ORDINARY = "expected a picture of ordinary size; found"
PLAIN = r"found plain text of the PPM family \(P1, P2, P3\); save it as P4, P5, P6 or PNG"
HOSTILE: dict[str, tuple[bytes, str | None]] = {
    **{f"P{n} of text": (b"P%d\n9 9\n255\n" % n + b"#a\n" * 999_999, PLAIN) for n in (1, 2, 3)},
    "a huge tile": (one_tile(25_008), f"{ORDINARY} 25008 x 25008 pixels a tile, more than"),
    "a jump over rows": (packed_bmp(8_000_000, 10, b"\0\2\0\xff"), "more than .* 65535 in a row or column"),
    "scans": (with_scans(200), "could not be opened; expected a JPEG of at most 100 scans, found more"),
    "comments of a GIF": (with_comments(180_000), None),
    "tags of a TIFF": (overlapping(grey_tiff(2, 1, 8, 2)), None),
    "tags of Exif": (encoded(exif=overlapping([])), None),
    "Exif of a JPEG": ((jpeg := encoded(PICTURE, "JPEG"))[:2] + SEVERAL + jpeg[2:], None),
    "tags of Exif in AVIF": (encoded(PICTURE, "AVIF", exif=overlapping([])), None),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_small_files_take_little(content, message, monkeypatch):
    """Regression: a few megabytes of comments took minutes; metadata and containers, gigabytes, before the
    picture was refused.
    """
    made, create = [], Image.core.new
    monkeypatch.setattr(Image.core, "new", lambda mode, size: made.append(size) or create(mode, size))
    tracemalloc.start()
    started = time.process_time()
    if message is None:
        assert load_picture(content).mode == "RGB"
    else:
        with pytest.raises(PictureError, match=message):
            load_picture(content)
    taken, (_, most) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 2
    assert most < 100_000_000
    assert message is None or made == []  # nothing was decoded
