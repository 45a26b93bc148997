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
    "floats in 0..1": RAMP,
    "ints of bytes": BYTES.astype(np.int32),
    "ints of 16 bits": BYTES.astype(np.int32) * 257,
}


@pytest.mark.parametrize("values", GREYS.values(), ids=GREYS)
def test_deep_greys_are_scaled_not_clipped(values):
    """Regression: greys of 32 bits came out black, for Pillow's own conversion clips them."""
    assert np.array_equal(loaded(Image.fromarray(values)), np.repeat(BYTES[..., None], 3, axis=2))


@pytest.mark.parametrize("values", [RAMP * 5 - 2, RAMP * np.nan, BYTES.astype(np.int32) * 4000])
def test_greys_of_another_range_are_refused(values):
    """If it failed, what is black and what is white would be guessed."""
    with pytest.raises(
        PictureError, match=r"picture array: expected (uint8, uint16 or )?floats in 0\.\.1, f"
    ):
        load_picture(Image.fromarray(values))


def png_chunk(part: tuple[bytes, bytes]) -> bytes:
    name, data = part
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


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
    "text of no kind": (with_chunk(b"zTXt", b"x\0\7"), PIXELS),
    "short gamma": (with_chunk(b"gAMA", b"x"), PIXELS),
    "short colours": (with_chunk(b"cHRM", b"x"), PIXELS),
    "short animation": (with_chunk(b"acTL", b"x"), PIXELS),
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


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP", "AVIF"])
def test_what_is_left_out_is_no_pixel(file_format):
    """If it failed, pictures would have other colours than Pillow gives them."""
    options = {"PNG": {"dpi": (72, 72)}, "JPEG": {"comment": b"c"}, "GIF": {"comment": b"c"}}.get(
        file_format, {}
    )
    kept = {} if file_format == "GIF" else {"exif": exif(), "icc_profile": bytes(200)}
    content = encoded(PICTURE, file_format, **options, **kept)
    plain = Image.open(io.BytesIO(content)).convert("RGB")
    assert np.array_equal(loaded(content), np.rot90(np.asarray(plain), -bool(kept)))


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


def overlapping() -> bytes:
    """Tags of Exif that name the same bytes."""
    tags = [struct.pack("<HHII", 40_000 + number, 7, 300_000, 26_000) for number in range(2000)]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(tags) + bytes(330_000)


UNPACKED = bytes(60_000)
SEVERAL = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + UNPACKED) * 800
ORDINARY = "expected a picture of ordinary size; found"
HOSTILE: dict[str, tuple[bytes, str | None]] = {
    "a text of the PPM family": (b"P3\n9 9\n255\n" + b"#a\n" * 999_999, "found none of them; save it as one"),
    "a huge PNG": (encoded(Image.new("1", (12_000, 12_000))), f"{ORDINARY} 12000 x 12000"),
    "a huge bitmap": (packed_bmp(12_000, 9000, b""), f"{ORDINARY} 12000 x 9000 pixels"),
    "a jump over rows": (packed_bmp(8_000_000, 10, b"\0\2\0\xff"), "more than .* 65535 in a row or column"),
    "scans": (with_scans(200), "could not be opened; expected a JPEG of at most 100 scans, found more"),
    "comments of a GIF": (with_comments(180_000), None),
    "tags of Exif": (encoded(exif=overlapping()), None),
    "Exif of a JPEG": ((jpeg := encoded(PICTURE, "JPEG"))[:2] + SEVERAL + jpeg[2:], None),
    "tags of Exif in AVIF": (encoded(PICTURE, "AVIF", exif=overlapping()), None),
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
