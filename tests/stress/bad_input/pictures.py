"""Pictures of posts: files, bytes, addresses, images of Pillow, arrays."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.small_corpora import png_that_claims
from tests.small_posts import assert_same

from .cases import GOOD, Bench, Case

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8))
FORMATS = "expected one of the formats"
KINDS = "expected a PIL image, a path, bytes"


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def half(kind: str) -> bytes:
    data = encoded(PICTURE, kind)
    return data[: len(data) // 2]


def frames(kind: str, count: int = 5) -> bytes:
    return encoded(
        PICTURE, kind, save_all=True, append_images=[PICTURE.rotate(90 * turn) for turn in range(1, count)]
    )


def with_exif(kind: int, value: bytes) -> bytes:
    """A JPEG whose Exif has one entry, the orientation, of a kind (2: text, 3: number) and four bytes."""
    entry = struct.pack("<HHI", 0x0112, kind, 1 if kind == 3 else 4) + value
    return encoded(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4))


def pickled() -> bytes:
    class Planted:
        def __reduce__(self) -> Any:
            return os.mkdir, ("planted-by-a-picture",)

    return pickle.dumps(Planted())


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", b"x")
    return buffer.getvalue()


def bmp_that_claims(side: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def gif_that_claims(side: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", side, side, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, side, side, 0)
        + b"\x02\x00;"
    )


# Contents of files that give a picture.
READABLE: dict[str, Callable[[], bytes]] = {
    "one pixel, PNG": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
    "one pixel, JPEG": lambda: encoded(Image.new("L", (1, 1)), "JPEG"),
    "one column": lambda: encoded(Image.new("RGB", (1, 30_000)), "PNG"),
    "animated GIF": lambda: frames("GIF"),
    "GIF of 500 frames": lambda: frames("GIF", 500),
    "animated PNG": lambda: frames("PNG"),
    "animated WEBP": lambda: frames("WEBP"),
    "TIFF of several pages": lambda: frames("TIFF"),
    "CMYK": lambda: encoded(PICTURE.convert("CMYK"), "JPEG"),
    "palette": lambda: encoded(PICTURE.convert("P"), "PNG"),
    "palette with transparency": lambda: encoded(PICTURE.convert("P"), "PNG", transparency=0),
    "grey with opacity": lambda: encoded(PICTURE.convert("LA"), "PNG"),
    "16 bit": lambda: encoded(PICTURE.convert("I;16"), "PNG"),
    "one bit": lambda: encoded(PICTURE.convert("1"), "PNG"),
    "orientation 99": lambda: with_exif(3, b"\x63\0\0\0"),
    "orientation that is a text": lambda: with_exif(2, b"top\0"),
    "Exif of noise": lambda: encoded(PICTURE, "JPEG", exif=b"Exif\0\0" + bytes(range(200))),
    "a PNG with something behind its end": lambda: encoded(PICTURE, "PNG") + b"<script>" * 100,
    "a JPEG that is a zip, too": lambda: encoded(PICTURE, "JPEG") + zipped(),
}
# Contents of files that give none, with a part of the error.
UNREADABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", FORMATS),
    "one byte": (lambda: b"\xff", FORMATS),
    "zeros": (lambda: bytes(10_000), FORMATS),
    "half a JPEG": (lambda: half("JPEG"), "the file is broken"),
    "half a PNG": (lambda: half("PNG"), "the file is broken"),
    "half a GIF": (lambda: half("GIF"), "the file is broken"),
    "half a WEBP": (lambda: half("WEBP"), "could not be opened"),
    "half a BMP": (lambda: half("BMP"), "the file is broken"),
    "the head of a JPEG": (lambda: encoded(PICTURE, "JPEG")[:20], "expected"),
    "the signature of a PNG": (lambda: b"\x89PNG\r\n\x1a\n", "expected"),
    "a PNG that claims 100,000 x 100,000": (
        lambda: png_that_claims(100_000, 100_000),
        "expected a picture of ordinary size",
    ),
    "a PNG that claims 2^31 x 2^31": (
        lambda: png_that_claims(2**31 - 1, 2**31 - 1),
        "expected a picture of ordinary size",
    ),
    "a PNG of 0 x 0": (lambda: png_that_claims(0, 0), "expected"),
    "a bomb: 150 million pixels in 20 KB": (
        lambda: encoded(Image.new("1", (15_000, 10_000)), "PNG"),
        "expected a picture of ordinary size",
    ),
    "a BMP that claims 60,000 x 60,000": (
        lambda: bmp_that_claims(60_000),
        "expected a picture of ordinary size",
    ),
    "a GIF that claims 65,535 x 65,535": (
        lambda: gif_that_claims(65_535),
        "expected a picture of ordinary size",
    ),
    "a PPM that claims 99,999 x 99,999": (
        lambda: b"P6 99999 99999 255\n",
        "expected a picture of ordinary size",
    ),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", FORMATS),
    "PDF": (lambda: b"%PDF-1.7\n1 0 obj\n", FORMATS),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', FORMATS),
    "HTML": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", FORMATS),
    "a pickle": (pickled, FORMATS),
    "a zip": (zipped, FORMATS),
    "a program": (lambda: b"\x7fELF" + bytes(100), FORMATS),
    "a pointer of Git LFS": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        FORMATS,
    ),
    "a PCX": (lambda: encoded(PICTURE, "PCX"), FORMATS),
}
MODES = (
    "1",
    "L",
    "P",
    "LA",
    "PA",
    "RGBA",
    "RGBX",
    "RGBa",
    "La",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
)


def a_folder(bench: Bench) -> Any:
    (bench.tmp / "folder.jpg").mkdir(exist_ok=True)
    return str(bench.tmp / "folder.jpg")


def a_pipe(bench: Bench) -> Any:
    if not (bench.tmp / "pipe.jpg").exists():
        os.mkfifo(bench.tmp / "pipe.jpg")
    return bench.tmp / "pipe.jpg"


def a_circle(bench: Bench) -> Any:
    link = bench.tmp / "circle.jpg"
    if not link.is_symlink():
        link.symlink_to(link)
    return link


class Endless(io.RawIOBase):
    """An open file without an end."""

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise MemoryError("an endless file was read to its end")
        return bytes(size)


class WithoutArray:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise KeyError("no array")


def closed(bench: Bench) -> Any:
    file = bench.file("closed.png", encoded(PICTURE, "PNG")).open("rb")
    file.close()
    return file


def a_closed_image(bench: Bench) -> Any:
    with Image.open(bench.file("closed.png", encoded(PICTURE, "PNG"))) as picture:
        return picture


# What else may stand in the place of a picture, with a part of the error.
NO_PICTURES: dict[str, tuple[Callable[[Bench], Any], str]] = {
    "a folder": (a_folder, "expected a file, found none"),
    "a pipe": (a_pipe, "expected a file, found none"),
    "a device": (lambda _: "/dev/zero", "expected a file, found none"),
    "a link to itself": (a_circle, "expected a file, found none"),
    "no file": (lambda bench: bench.tmp / "nothing.jpg", "expected a file, found none"),
    "an empty path": (lambda _: "", "expected a file, found none"),
    "a path with NUL": (lambda _: "a\0b.jpg", "expected a file, found none"),
    "a path of 5,000 characters": (lambda _: "x" * 5_000, "expected a file, found none"),
    "a path of half an emoji": (lambda _: "\ud83d.jpg", "expected a file, found none"),
    "an address": (lambda _: "http://127.0.0.1:9/a.jpg", "allow_urls=True fetches it"),
    "an address in a row": (
        lambda _: {"bytes": None, "path": "https://example.org/a.jpg"},
        "allow_urls=True fetches it",
    ),
    "an address in capitals": (lambda _: "HTTP://127.0.0.1:9/a.jpg", "allow_urls=True fetches it"),
    "an address of ftp": (lambda _: "ftp://127.0.0.1/a.jpg", "expected a file, found none"),
    "an address of a file": (lambda _: "file:///etc/passwd", "expected a file, found none"),
    "data without base64": (lambda _: "data:image/png;base64,%%%", "expected"),
    "data of HTML": (lambda _: "data:text/html,<b>", "expected a file, found none"),
    "data of nothing": (lambda _: "data:image/png;base64,", FORMATS),
    "a number": (lambda _: 7, KINDS),
    "True": (lambda _: True, KINDS),
    "a set": (lambda _: {1}, KINDS),
    "a row without values": (
        lambda _: {"bytes": None, "path": None},
        "expected 'bytes' or 'path' in the row",
    ),
    "a row without keys": (lambda _: {}, "expected 'bytes' or 'path' in the row"),
    "a row whose bytes are a string": (
        lambda _: {"bytes": "x"},
        "expected the row's 'bytes' to be bytes, found str",
    ),
    "a row in a row": (lambda _: {"path": {"path": "a.jpg"}}, "found a row inside a row"),
    "a row whose path is a number": (lambda _: {"path": 7}, KINDS),
    "a closed file": (closed, "expected a file open for reading"),
    "a file of text": (lambda _: io.StringIO("x"), "expected a file opened as bytes"),
    "an endless file": (lambda _: Endless(), "expected at most"),
    "a closed image": (a_closed_image, "could not be decoded"),
    "an image without pixels": (lambda _: Image.new("RGB", (0, 5)), "expected at least one pixel"),
    "an array without pixels": (lambda _: np.zeros((0, 5, 3), np.uint8), "expected shape"),
    "an array of one axis": (lambda _: np.zeros(9, np.uint8), "expected shape"),
    "an array of five channels": (lambda _: np.zeros((9, 9, 5), np.uint8), "expected shape"),
    "an array of four axes": (lambda _: np.zeros((1, 9, 9, 3), np.uint8), "expected shape"),
    "floats that are no numbers": (lambda _: np.full((9, 9), np.nan), "expected floats in 0..1"),
    "floats in 0..255": (lambda _: np.full((9, 9), 200.0), "expected floats in 0..1"),
    "negative numbers": (lambda _: np.full((9, 9), -1), "expected uint8, uint16 or floats"),
    "booleans": (lambda _: np.zeros((9, 9), bool), "expected uint8, uint16 or floats"),
    "complex numbers": (lambda _: np.zeros((9, 9), complex), "expected uint8, uint16 or floats"),
    "an array of objects": (lambda _: np.full((9, 9), None), "expected uint8, uint16 or floats"),
    "an array of texts": (lambda _: np.full((9, 9), "x"), "expected uint8, uint16 or floats"),
    "what gives no array": (lambda _: WithoutArray(), "expected an array, found a WithoutArray"),
    "a list in the list": (lambda _: [[PICTURE]], KINDS),
}


def cases() -> Iterator[Case]:
    """The rows. Each picture is that of a post between others, by its content and as a file under another
    name.
    """
    for name, content in READABLE.items():
        yield Case("picture, bytes", name, lambda bench, content=content: with_picture(bench, content()))
    for name, (content, error) in UNREADABLE.items():
        yield Case(
            "picture, bytes",
            name,
            lambda bench, content=content: with_picture(bench, {"bytes": content()}),
            error,
        )
        yield Case(
            "picture, file",
            f"{name}, named .jpg",
            lambda bench, content=content: as_file(bench, content()),
            error,
        )
    for mode in MODES:
        yield Case(
            "picture, PIL", f"mode {mode}", lambda bench, mode=mode: with_picture(bench, of_mode(mode))
        )
    for name, (give, error) in NO_PICTURES.items():
        yield Case("picture", name, lambda bench, give=give: with_picture(bench, give(bench)), error)
    yield Case("picture", "40 of them", lambda bench: bench.among_others(GOOD | {"images": [PICTURE] * 40}))
    yield Case(
        "picture", "none, in a list", lambda bench: bench.among_others(GOOD | {"images": [None, None]})
    )
    yield Case("picture", "broken, to be skipped", skipped)


def with_picture(bench: Bench, picture: Any) -> None:
    bench.among_others(GOOD | {"image": picture})


def as_file(bench: Bench, content: bytes) -> None:
    path: Path = bench.file("picture.jpg", content)
    bench.among_others(GOOD | {"image": str(path)})


def of_mode(mode: str) -> Image.Image:
    through = {"PA": "P", "LAB": "RGB", "La": "LA", "RGBa": "RGBA", "I": "L", "F": "L", "I;16": "I"}.get(
        mode, "RGB"
    )
    return (
        Image.new(mode, (9, 9)) if mode in ("LAB", "PA", "I;16") else PICTURE.convert(through).convert(mode)
    )


def skipped(bench: Bench) -> None:
    found = bench.among_others(GOOD | {"image": b"x"}, broken_pictures="skip")
    assert len(found.broken_pictures) == 1
    assert_same([found.entities], [bench.good])
