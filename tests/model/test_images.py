"""Tests of reading pictures: every kind and mode, and every way in which one can be broken."""

import io
import random
import struct
import subprocess
import zlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modeling_mmner.model import images_mmner
from modeling_mmner.model.images_mmner import PictureError, load_picture, square_pixels
from tests.shared_data import DATA, PICTURED_FILES, needs_data, property_test

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (24, 36, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encoded(picture: Image.Image = PICTURE, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def loaded(picture: object) -> np.ndarray:
    """(H, W, 3) uint8."""
    result = load_picture(picture)
    assert result.mode == "RGB"
    return np.asarray(result)


@pytest.fixture
def png_path(tmp_path):
    path = tmp_path / "ünï ? & =.png"
    path.write_bytes(encoded())
    return path


CHANNELS_FIRST = torch.tensor(PIXELS).permute(2, 0, 1)
KINDS: dict[str, Callable[[Any], Any]] = {
    "PIL": lambda path: PICTURE,
    "Path": lambda path: path,
    "str": lambda path: str(path),
    "bytes": lambda path: encoded(),
    "bytearray": lambda path: bytearray(encoded()),
    "memoryview": lambda path: memoryview(encoded()),
    "uint8 array": lambda path: PIXELS,
    "uint16 array": lambda path: PIXELS.astype(np.uint16) * 257,
    "float array": lambda path: PIXELS / 255,
    "channels first": lambda path: PIXELS.transpose(2, 0, 1),
    "tensor": lambda path: CHANNELS_FIRST,
    "float tensor": lambda path: CHANNELS_FIRST / 255,
    "tensor with a gradient": lambda path: (CHANNELS_FIRST / 255).requires_grad_(),
    "BytesIO": lambda path: io.BytesIO(encoded()),
    "open file": lambda path: path.open("rb"),
    "row of bytes": lambda path: {"bytes": encoded(), "path": None},
    "row of bytes and a stale path": lambda path: {"bytes": encoded(), "path": "/not/there.png"},
    "row of a path": lambda path: {"bytes": None, "path": str(path)},
    "row without bytes": lambda path: {"path": str(path)},
}


@pytest.mark.parametrize("as_kind", KINDS.values(), ids=KINDS)
def test_every_kind_gives_the_same_picture(as_kind, png_path):
    """If it failed, what a user passes a picture as would change what the model sees."""
    assert np.array_equal(loaded(as_kind(png_path)), PIXELS)


def test_floats_are_rounded_to_the_nearest_byte():
    """Regression: NumPy knows no bfloat16, so a batch from a half-precision program stopped with torch's own
    error; and float pictures must not be darker than the same pictures as bytes.
    """
    exact = torch.tensor([[0.0, 0.25, 0.5, 1.0]], dtype=torch.bfloat16)
    assert loaded(exact)[0, :, 0].tolist() == [0, 64, 128, 255]
    floats = np.array([[0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0]])
    assert loaded(floats)[0, :, 0].tolist() == [0, 0, 1, 255, 255]


ROW_IN_ITSELF: dict[str, Any] = {}
ROW_IN_ITSELF["path"] = ROW_IN_ITSELF
CLOSED = io.BytesIO(encoded())
CLOSED.close()
NO_PICTURES = {
    "bytes that are text": ({"bytes": "text"}, "expected the row's 'bytes' to be bytes, found str"),
    "row in itself": (ROW_IN_ITSELF, "or a row with 'bytes' or 'path', found dict"),
    "list": ([PICTURE], "expected a PIL image, a path, bytes, an open file, an array .* found list"),
    "number": (7, "found int"),
    "text file": (io.StringIO("text"), r"expected a file opened as bytes \('rb'\), found one that reads str"),
    "closed file": (CLOSED, "expected a file open for reading, found I/O operation on closed file"),
    "keys of other types": ({1: 2, "a": 3}, r"found the keys \['1', 'a'\] and neither has a value"),
    "empty row": (
        {"bytes": None, "path": None},
        r"found the keys \['bytes', 'path'\] and neither has a value",
    ),
    "row of missing": ({"path": "not/there.jpg"}, "picture not/there.jpg: expected a file, found none"),
    "row of broken": (
        {"bytes": b"x", "path": "cat.jpg"},
        "row with path 'cat.jpg': expected one of the formats",
    ),
    "https": ("https://x/1.jpg", "picture https://x/1.jpg: .*URLs are not fetched, download it first"),
    "http": ("http://x", "picture http://x: .*URLs are not fetched"),
    "missing": ("not/there.jpg", "picture not/there.jpg: expected a file, found none"),
    "null in path": ("a\0b", "expected a file, found none"),
    "path too long": ("x" * 5000, "expected a file, found none"),
    "folder": ("/", "picture /: expected a file, found none"),
    "complex array": (np.zeros((2, 2), complex), "uint8, uint16 or floats in 0..1, found complex128"),
    "objects": (np.array([[None, "a"]]), "uint8, uint16 or floats in 0..1, found object"),
    "truth values": (np.ones((2, 2), bool), "uint8, uint16 or floats in 0..1, found bool"),
    "int64": (np.zeros((4, 5), np.int64), "uint8, uint16 or floats in 0..1, found int64"),
    "not a number": (torch.full((2, 2), float("nan")), "expected floats in 0..1, found values outside"),
    "floats to 255": (np.full((4, 5), 200.0), "floats in 0..1, found values outside; or pass uint8"),
    "negative": (np.full((4, 5), -0.1), "expected floats in 0..1, found values outside"),
    "tensor on meta": (torch.zeros(2, 2, device="meta"), "found a Tensor that gives none"),
    "no width": (Image.new("RGB", (0, 5)), "picture the PIL image: expected at least one pixel, found 0 x 5"),
    "no rows": (np.zeros((0, 4), np.uint8), r"found \(0, 4\)"),
    "two channels": (np.zeros((4, 5, 2), np.uint8), r"expected shape .* found \(4, 5, 2\)"),
    "four axes": (np.zeros((2, 3, 4, 5), np.uint8), r"expected shape .* found \(2, 3, 4, 5\)"),
}


@pytest.mark.parametrize(("picture", "message"), NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_is_named(picture, message):
    """If it failed, a batch would stop with an error that names no picture."""
    with pytest.raises(PictureError, match=message):
        load_picture(picture)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n9 9 scale\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    "as_kind", [lambda path: path, lambda path: path.read_bytes(), lambda path: path.open("rb")]
)
def test_a_picture_starts_no_program(as_kind, tmp_path, monkeypatch):
    """Regression: an .eps under the name of a .jpg made Pillow run Ghostscript on a stranger's program."""
    path = tmp_path / "picture.jpg"
    path.write_bytes(POSTSCRIPT)
    with Image.open(path) as opened:
        assert opened.format == "EPS"  # Pillow alone would read it
    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, mock.Mock(side_effect=AssertionError("a program was started")))
    with pytest.raises(PictureError, match=r"expected one of the formats JPEG, PNG, .*, found none of them"):
        load_picture(as_kind(path))


def row_picture(mode: str, values: list) -> Image.Image:
    """A picture one pixel high."""
    picture = Image.new(mode, (len(values), 1))
    for column, value in enumerate(values):
        picture.putpixel((column, 0), value)
    return picture


def palette_picture() -> Image.Image:
    """Red, green and blue by a palette."""
    picture = row_picture("P", [0, 1, 2])
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return picture


RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


RGB_ROW, CLEAR = row_picture("RGB", [RED, GREEN]), [(*RED, 255), (*RED, 0), (*RED, 51)]
MODES = {
    "grey": (encoded(row_picture("L", [0, 100, 255])), [BLACK, (100,) * 3, WHITE]),
    "1-bit": (encoded(row_picture("1", [0, 1])), [BLACK, WHITE]),
    "palette PNG": (encoded(palette_picture()), [RED, GREEN, BLUE]),
    "palette GIF": (encoded(palette_picture(), "GIF"), [RED, GREEN, BLUE]),
    "transparent palette PNG": (encoded(palette_picture(), transparency=1), [RED, WHITE, BLUE]),
    "transparent palette GIF": (encoded(palette_picture(), "GIF", transparency=1), [RED, WHITE, BLUE]),
    "half-transparent palette": (
        encoded(palette_picture(), transparency=bytes([255, 51, 0])),
        [RED, (204, 255, 204), WHITE],
    ),
    "RGB with a transparent colour": (encoded(RGB_ROW, transparency=RED), [WHITE, GREEN]),
    "grey with a transparent grey": (encoded(row_picture("L", [0, 9]), transparency=9), [BLACK, WHITE]),
    "RGBA": (encoded(row_picture("RGBA", CLEAR)), [RED, WHITE, (255, 204, 204)]),
    "LA": (encoded(row_picture("LA", [(0, 255), (0, 0), (0, 51)])), [BLACK, WHITE, (204,) * 3]),
    "CMYK": (
        row_picture("CMYK", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 255)]),
        [WHITE, (0, 255, 255), (255, 0, 255), BLACK],
    ),
    "BMP": (encoded(RGB_ROW, "BMP"), [RED, GREEN]),
    "WebP": (encoded(RGB_ROW, "WEBP", lossless=True), [RED, GREEN]),
}


@pytest.mark.parametrize(("data", "expected"), MODES.values(), ids=MODES)
def test_every_mode_shows_its_colours_over_white(data, expected):
    """If it failed, files of this mode would have other colours, or transparency would not be white."""
    assert loaded(data).tolist() == [[list(colour) for colour in expected]]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_modes_keep_their_colours(mode):
    """If it failed, grey or print JPEGs (whose inks are stored inverted) would come out as their negative."""
    colour = Image.new("RGB", (16, 16), (200, 60, 20)).convert(mode)
    found = loaded(encoded(colour, "JPEG", quality=95)).astype(int)
    assert np.abs(found - np.asarray(colour.convert("RGB"))).max() <= 3


@pytest.mark.parametrize("file_format", ["PNG", None])
def test_sixteen_bits_are_scaled_not_clipped(file_format):
    """If it failed, all but the darkest 255 of 65,536 greys would be white, as Pillow's own has it."""
    ramp = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    picture = Image.fromarray(ramp)
    result = loaded(encoded(picture, file_format) if file_format else picture)
    assert np.abs(result - ramp[..., None] / 65535 * 255).max() <= 1
    assert np.array_equal(result, loaded(ramp))


UPRIGHT_BY_ORIENTATION: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT_BY_ORIENTATION)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_turned_photos_stand_upright(orientation, file_format):
    """If it failed, photos of phones would lie on their side."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = UPRIGHT_BY_ORIENTATION[orientation](loaded(encoded(PICTURE, file_format)))
    assert np.array_equal(loaded(encoded(PICTURE, file_format, exif=exif)), turned)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_animations_show_their_first_frame(file_format):
    """If it failed, the frame would depend on the format, or on what was done with the picture before."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    last = Image.open(io.BytesIO(data))
    last.seek(2)
    first = np.full((8, 8, 3), RED)
    assert np.abs(loaded(data) - first).max() <= 2
    assert np.abs(loaded(last) - first).max() <= 2


def test_an_animation_with_a_broken_later_frame_is_read():
    """If it failed, a picture would be lost for frames that nobody looks at, or all frames be read."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(loaded(data[: data.rindex(b",") + 4] + bytes(9)), np.full((8, 8, 3), RED))


def test_the_file_says_what_it_is_not_its_name(tmp_path):
    """If it failed, the corpora's PNGs named .jpg would be lost."""
    path = tmp_path / "1.jpg"
    path.write_bytes(encoded(file_format="PNG"))
    assert np.array_equal(loaded(path), PIXELS)


def test_files_are_read_up_to_a_bound(tmp_path, monkeypatch):
    """If it failed, a file of any size would be read into memory."""
    path = tmp_path / "large.png"
    path.write_bytes(encoded())
    for name, source in (("_MOST_FILE_BYTES", path), ("_MOST_BYTES", path.open("rb"))):
        monkeypatch.setattr(images_mmner, name, 999)
        with pytest.raises(
            PictureError, match=r"picture .*large\.png: expected at most 999 bytes, found more"
        ):
            load_picture(source)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds nothing."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
    png = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        png += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return png


UNKNOWN = "expected one of the formats JPEG, .* found none of them"
BROKEN = {
    "empty": (b"", f"picture 0 bytes: {UNKNOWN}"),
    "text": (b"no picture at all", f"picture 17 bytes: {UNKNOWN}"),
    "truncated JPEG": (
        encoded(file_format="JPEG")[:900],
        "picture 900 bytes: could not be decoded, the file is broken; image file is truncated",
    ),
    "truncated PNG": (encoded()[:600], "picture 600 bytes: could not be decoded, the file is broken"),
    "decompression bomb": (png_header(50000, 50000), "expected a picture of ordinary size; .* exceeds limit"),
    "no height": (png_header(9, 0), f"picture 45 bytes: {UNKNOWN}"),
    "TIFF": (encoded(file_format="TIFF"), f"picture \\d+ bytes: {UNKNOWN}; save it as one of them"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_say_what_is_wrong(data, message, tmp_path):
    """If it failed, a broken picture would stop a training, or its report not say which it is and why."""
    with pytest.raises(PictureError, match=message):
        load_picture(data)
    path = tmp_path / "broken.jpg"
    path.write_bytes(data)
    with pytest.raises(PictureError, match=r"picture .*broken\.jpg: "):
        load_picture(path)


SEEDS = [encoded(PICTURE, name) for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF")]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@property_test
@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_damaged_files_are_read_or_refused_in_one_way(data, seed):
    """If it failed, one damaged file of thousands would end a run: Pillow raises a dozen kinds of errors."""
    random_state = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(random_state.choice([1, 3, 10])):
        damaged[random_state.randrange(min(len(damaged), 300))] = random_state.randrange(256)
    try:
        with mock.patch.object(Image, "MAX_IMAGE_PIXELS", 10**6):  # a damaged size costs no memory here
            assert load_picture(bytes(damaged)).mode == "RGB"
    except PictureError as error:
        assert str(error).startswith(f"picture {len(data)} bytes: ")


def test_square_is_the_whole_picture_resized():
    """If it failed, pixels would be cropped, transposed or no bytes, and the towers see another picture."""
    colours = np.array([[RED, GREEN], [BLUE, WHITE]], dtype=np.uint8)
    square = square_pixels(Image.fromarray(colours.repeat(20, axis=0).repeat(50, axis=1)), 32)
    assert (square.shape, square.dtype) == ((3, 32, 32), np.uint8)
    assert [tuple(square[:, row, column]) for row in (0, -1) for column in (0, -1)] == [
        RED,
        GREEN,
        BLUE,
        WHITE,
    ]
    assert np.array_equal(square[:, 0, 0], RED) and np.abs(square[1, :16, :16]).max() < 255
    assert np.array_equal(square_pixels(PICTURE.crop((0, 0, 24, 24)), 24), PIXELS[:, :24].transpose(2, 0, 1))
    chequered = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    assert np.abs(square_pixels(chequered, 16).astype(float) - 127.5).max() < 10  # smoothly


@needs_data
@pytest.mark.parametrize("path", PICTURED_FILES)
def test_real_pictures_are_read(path):
    """If it failed, pictures as people post them (JPEG, and PNG named .jpg) would be taken for broken."""
    folder = (DATA / path).parent / "images"
    pictures = sorted(folder.glob(f"{(DATA / path).stem}_*.jpg"))
    assert len(pictures) == 5
    for picture in pictures:
        with Image.open(picture) as plain:
            assert np.array_equal(loaded(picture), np.asarray(plain.convert("RGB")))
