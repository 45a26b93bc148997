"""Pictures of posts: contents of files, and what else may stand in the place of a picture."""

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

from .cases import GOOD, Bench, Case, refused, taken
from .folders import Planted

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8))
Content = Callable[[], bytes]


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def half(kind: str) -> Content:
    return lambda: encoded(PICTURE, kind)[: len(encoded(PICTURE, kind)) // 2]


def frames(kind: str, count: int = 5) -> Content:
    more = [PICTURE.rotate(90 * turn) for turn in range(1, count)]
    return lambda: encoded(PICTURE, kind, save_all=True, append_images=more)


def with_an_orientation_of_text() -> bytes:
    entry = struct.pack("<HHI", 0x0112, 2, 4) + b"top\0"
    return encoded(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4))


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", b"x")
    return buffer.getvalue()


READABLE: dict[str, Content] = {
    "one pixel": lambda: encoded(Image.new("L", (1, 1)), "JPEG"),
    "animated GIF": frames("GIF", 50),
    "orientation that is a text": with_an_orientation_of_text,
    "Exif of noise": lambda: encoded(PICTURE, "JPEG", exif=b"Exif\0\0" + bytes(range(200))),
    "a JPEG that is a zip, too": lambda: encoded(PICTURE, "JPEG") + zipped(),
}
BOMBS: dict[str, Content] = {
    "a PNG that claims 2^31 x 2^31": lambda: png_that_claims(2**31 - 1, 2**31 - 1),
    "150 million pixels in 20 KB": lambda: encoded(Image.new("1", (15_000, 10_000)), "PNG"),
    "a BMP that claims 99,999 x 99,999": lambda: (
        b"BM" + struct.pack("<IIIIiiHH", 54, 0, 54, 40, 99_999, 99_999, 1, 24) + bytes(24)
    ),
}
UNREADABLE: dict[str, Content] = {
    "empty": lambda: b"",
    "zeros": lambda: bytes(10_000),
    **{f"half a {kind}": half(kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP")},
    "the head of a JPEG": lambda: encoded(PICTURE, "JPEG")[:20],
    "a PNG of 0 x 0": lambda: png_that_claims(0, 0),
    "EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "a pickle": lambda: pickle.dumps(Planted(Path("planted-by-a-picture"))),
    "a pointer of Git LFS": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}
MODES = ("1", "L", "P", "LA", "PA", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV", "I", "F")


def of_mode(mode: str) -> Image.Image:
    if mode in ("LAB", "PA"):
        return Image.new(mode, (9, 9))
    through = {"La": "LA", "RGBa": "RGBA", "I": "L", "F": "L"}.get(mode, "RGB")
    return PICTURE.convert(through).convert(mode)


def a_pipe(bench: Bench) -> Any:
    if not (bench.tmp / "pipe.jpg").exists():
        os.mkfifo(bench.tmp / "pipe.jpg")
    return bench.tmp / "pipe.jpg"


def a_circle(bench: Bench) -> Any:
    link = bench.tmp / "circle.jpg"
    if not link.is_symlink():
        link.symlink_to(link)
    return link


NO_PICTURES: dict[str, Callable[[Bench], Any]] = {
    "a folder": lambda bench: bench.tmp,
    "a pipe": a_pipe,
    "a device": lambda _: "/dev/zero",
    "a link to itself": a_circle,
    "an empty path": lambda _: "",
    "a path with NUL": lambda _: "a\0b.jpg",
    "a path of half an emoji": lambda _: "\ud83d.jpg",
    "an address of ftp": lambda _: "ftp://127.0.0.1/a.jpg",
    "an address of a file": lambda _: "file:///etc/passwd",
    "data of HTML": lambda _: "data:text/html,<b>",
    "a row without values": lambda _: {"bytes": None, "path": None},
    "an array of objects": lambda _: np.full((9, 9), None),
}
ON_THE_WEB = {
    "an address": "HTTP://127.0.0.1:9/a.jpg",
    "an address in a row": {"bytes": None, "path": "https://example.org/a.jpg"},
}


def with_picture(bench: Bench, picture: Any) -> None:
    bench.among_others(GOOD | {"image": picture})


def made(bench: Bench, make: Callable[[Bench], Any]) -> None:
    with_picture(bench, make(bench))


def as_file(bench: Bench, content: Content) -> None:
    with_picture(bench, str(bench.file("picture.jpg", content())))


def skipped(bench: Bench, broken: bytes) -> None:
    """With `broken_pictures="skip"` the post has the entities of its text."""
    found = bench.among_others(GOOD | {"image": broken}, broken_pictures="skip")
    assert len(found.broken_pictures) == 1
    assert_same([found.entities], [bench.good])


def cases() -> Iterator[Case]:
    yield from taken("picture, bytes", READABLE, lambda bench, content: with_picture(bench, content()))
    rows = {name: {"bytes": content()} for name, content in UNREADABLE.items()}
    yield from refused("picture, bytes", "^post 2: picture row", rows, with_picture)
    yield from refused("picture, file", r"^post 2: picture .*/picture\.jpg: ", UNREADABLE, as_file)
    yield from refused("picture, file", "expected a picture of ordinary size", BOMBS, as_file)
    modes = {f"mode {mode}": mode for mode in MODES}
    yield from taken("picture, PIL", modes, lambda bench, mode: with_picture(bench, of_mode(mode)))
    yield from refused("picture", "(?s)^post 2: picture", NO_PICTURES, made)
    yield from refused("picture", "allow_urls=True fetches it", ON_THE_WEB, with_picture)
    yield from taken("picture", {"broken, to be skipped": b"x"}, skipped)
