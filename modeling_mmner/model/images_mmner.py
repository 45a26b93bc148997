"""Any picture -> a square of RGB bytes. This file loads no torch: tensors are known by what they can do."""

import asyncio
import functools
import io
import os
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from .picture_files_mmner import bare_file, check_size

PICTURE_COLUMNS = ("image", "images")
"""The columns of a row that may hold pictures: one, or a list of them."""

FEATURE_COLUMN = "image_features_"
"""Begins the name of the column of a tower's ready-made features; its number follows."""

# Named one by one: Pillow reads more, and for some of it (EPS) starts another program.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
FORMATS += ("AVIF",) if features.check("avif") else ()
"""The formats of picture files that are read: those of posts, and none that few have tried to break."""

_GIVEN = threading.Lock()
"""Held while a PIL image is read, which decodes itself in place: posts of several threads may share it."""
_MOST_BYTES = 50_000_000
_MOST_FILE_BYTES = 1_000_000_000
"""Of a file that is named by its path: a BMP of the most pixels is larger than what is fetched."""
_MOST_REDIRECTS = 5
_MOST_EXIF = 2**17
"""Bytes, two segments of a JPEG; Pillow makes of it as much as its square."""
_TURNS = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270"]
_TURNS += ["TRANSVERSE", "ROTATE_90"]
"""What stands a picture upright, by the orientation of Exif from 2."""
_SHAPES = "(H, W), (H, W, 1/3/4) or (3, H, W)"
_EXPECTED = f"a PIL image, a path, bytes, an open file, an array {_SHAPES}, or a row with 'bytes' or 'path'"


# Pillow tells of each broken tag with its numbers, so that a corpus of photos gives thousands of lines.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class PictureError(ValueError):
    """A picture that is missing, broken or of no known kind; the text names it and says what was expected."""


def load_picture(picture: Any) -> Image.Image:
    """Open a picture of any kind as RGB: upright by its EXIF, of an animation the first frame, over white.

    Args:
        picture: PIL image, path, bytes, a file open for reading bytes, array or tensor (uint8, uint16, or
            floats in 0..1), or ``{"bytes": ..., "path": ...}``. Files are read in one of `FORMATS`, at most
            1 GB. A `PictureError` in its place is raised. Of greys in more than 8 bits, 16 bits are divided
            by 257 and floats in 0..1 are times 255; floats and 32-bit ints of a PIL image up to 255 are taken
            as they are, ints up to 65535 as 16 bits.

    Raises:
        PictureError: naming the picture, and why it cannot be read.
    """
    if isinstance(picture, PictureError):
        raise picture
    row = picture if isinstance(picture, dict) else None
    if row is not None:
        picture = _content_of(row)
    if isinstance(picture, Image.Image):
        with _GIVEN:
            return _decoded(picture, "the PIL image")
    if isinstance(picture, (bytes, bytearray, memoryview)):
        name = f"{len(picture)} bytes" if row is None else f"row with path {row.get('path')!r}"
        return _opened(bytes(picture), name)
    if isinstance(picture, (str, os.PathLike)):
        return _opened_path(os.fspath(picture))
    if callable(getattr(picture, "read", None)):
        return _opened(_bytes_of(picture, _MOST_BYTES), f"open file {getattr(picture, 'name', '')}".rstrip())
    if hasattr(picture, "__array__"):
        return _from_array(_as_array(picture))
    raise PictureError(f"picture: expected {_EXPECTED}, found {type(picture).__name__}")


def is_url(picture: Any) -> bool:
    """Whether a picture is given by its address on the web."""
    return isinstance(picture, str) and picture[:8].lower().startswith(("http://", "https://"))


def fetch_picture(url: str, *, timeout: float = 20.0) -> bytes:
    """The bytes at an address on the web, at most 50 MB in `timeout` seconds, or PictureError is raised.

    At most 5 redirects are followed, to http and https only. Where an address leads is not checked: this
    machine and those beside it are reached, too, by a redirect or by a name as well as by a number. Whoever
    fetches what strangers post does so where nothing private can be reached, or through a proxy
    (``HTTPS_PROXY``) that refuses it.
    """
    fetched: Future[bytes] = Future()

    async def fetch() -> None:
        try:
            async with asyncio.timeout(timeout):
                fetched.set_result(await _fetched(url))
        except Exception as error:  # broken addresses and servers lead the client to many
            fetched.set_exception(error)

    # A thread of its own: the caller's may run a loop, and what a system's call for a name holds up is left.
    threading.Thread(target=lambda: asyncio.run(fetch()), daemon=True).start()
    try:
        return fetched.result(timeout + 0.5)
    except Exception as error:
        # An error without a text is that of the deadline.
        found = str(error) or f"no end of it after {timeout} seconds"
        raise PictureError(f"picture {url:.300}: expected to fetch it, found {found:.300}") from error


async def _fetched(url: str) -> bytes:
    """The body at an address. A head of over 100 KB is refused by the client, and bodies are counted."""
    try:
        import httpx2
    except ImportError as error:
        raise ImportError("no httpx2; pip install httpx2, or download the picture first") from error
    # Some servers refuse a client's own name; what is packed would be counted before it is unpacked.
    headers = {"User-Agent": "mmner", "Accept-Encoding": "identity"}
    content = bytearray()
    async with httpx2.AsyncClient(verify=_certificates(), headers=headers, timeout=None) as client:
        for _ in range(_MOST_REDIRECTS + 1):
            async with client.stream("GET", url) as response:
                if response.has_redirect_location:  # whose body nobody reads
                    url = str(response.url.join(response.headers["location"]))
                    if not is_url(url):
                        raise OSError(f"a redirect to {url}")
                    continue
                if not response.is_success:
                    raise OSError(f"HTTP Error {response.status_code}: {response.reason_phrase}")
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > _MOST_BYTES:
                        raise OSError(f"more than {_MOST_BYTES:,} bytes")
                return bytes(content)
    raise OSError(f"more than {_MOST_REDIRECTS} redirects, the last to {url}")


@functools.cache
def _certificates() -> Any:
    """Whom https trusts; reading it takes longer than fetching a picture."""
    import httpx2

    return httpx2.create_ssl_context()


def is_picture_column(name: str) -> bool:
    """Whether a column holds pictures or features of theirs."""
    return name in PICTURE_COLUMNS or name.startswith(FEATURE_COLUMN)


def pictures_of(row: Mapping[str, Any]) -> list[Any]:
    """The pictures of a row: those of its list `images` where it has one, else its `image`; no nulls."""
    several = listed(row.get("images"))
    entry = row.get("image") if is_missing(several) else several
    pictures = entry if isinstance(entry, (list, tuple)) else [entry]
    return [picture for picture in pictures if not is_missing(picture)]


def is_missing(value: Any) -> bool:
    """Whether it stands for no value: None, or what pandas has in its place."""
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def listed(given: Any) -> Any:
    """A list, where lists are arrays of texts or objects, or columns, as in NumPy and pandas; others as they
    are."""
    kind = getattr(getattr(given, "dtype", None), "kind", "")
    is_list = hasattr(given, "iloc") or kind in ("O", "U", "T")
    return given.tolist() if is_list and given.ndim == 1 else given


def square(picture: Image.Image, size: int) -> Image.Image:
    """An RGB picture resized to a square of `size` pixels, bicubic, nothing cropped."""
    return picture if picture.size == (size, size) else picture.resize((size, size), Image.Resampling.BICUBIC)


def square_pixels(picture: Image.Image, size: int) -> np.ndarray:
    """(3, size, size) uint8 of `square`."""
    return np.asarray(square(picture, size), dtype=np.uint8).transpose(2, 0, 1)


def _content_of(row: dict[str, Any]) -> Any:
    """What a row of `datasets.Image(decode=False)` holds: its bytes if it has them, else its path."""
    content, path = row.get("bytes"), row.get("path")
    if content is not None and not isinstance(content, (bytes, bytearray, memoryview)):
        raise PictureError(f"picture: expected the row's 'bytes' to be bytes, found {type(content).__name__}")
    if content is None and path is None:
        found = f"the keys {sorted(map(str, row))} and neither has a value"
        raise PictureError(f"picture: expected 'bytes' or 'path' in the row, found {found}")
    return path if content is None else content


def _opened_path(path: str | bytes) -> Image.Image:
    name = os.fsdecode(path)
    if is_url(name):
        raise PictureError(f"picture {name}: expected {_EXPECTED}; URLs are not fetched, download it first")
    if not os.path.isfile(path):
        raise PictureError(f"picture {name:.300}: expected a file, found none")
    try:
        with open(path, "rb") as file:
            return _opened(_bytes_of(file, _MOST_FILE_BYTES), name)
    except OSError as error:
        raise PictureError(f"picture {name}: could not be opened; {error}") from error


def _bytes_of(file: Any, most: int) -> bytes:
    """The rest of an open file."""
    try:
        content = file.read(most + 1)
    except Exception as error:  # closed, or not open for reading; files of others raise what they like
        raise PictureError(f"picture: expected a file open for reading, found {error}") from error
    if not isinstance(content, bytes):
        found = f"one that reads {type(content).__name__}"
        raise PictureError(f"picture: expected a file opened as bytes ('rb'), found {found}")
    if len(content) > most:
        name = f"picture {getattr(file, 'name', '')}".rstrip()
        raise PictureError(f"{name}: expected at most {most:,} bytes, found more in the open file")
    return content


def _as_array(picture: Any) -> np.ndarray:
    """An array or tensor as a NumPy array; a tensor's bfloat16 as float32."""
    try:
        if hasattr(picture, "detach"):
            picture = picture.detach().cpu()
            picture = picture.float() if picture.is_floating_point() else picture
        return np.asarray(picture)
    except Exception as error:  # whoever makes array-likes raises what they like
        found = f"a {type(picture).__name__} that gives none; {error}"
        raise PictureError(f"picture: expected an array, found {found}") from error


def _opened(content: bytes, name: str) -> Image.Image:
    """The picture of a file."""
    try:
        picture = Image.open(io.BytesIO(bare_file(content)), formats=FORMATS)
        check_size(picture)
    except UnidentifiedImageError as error:
        expected = f"one of the formats {', '.join(FORMATS)}"
        hint = "save it as one of them"
        raise PictureError(f"picture {name}: expected {expected}, found none of them; {hint}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"picture {name}: expected a picture of ordinary size; {error}") from error
    except Exception as error:  # a broken file may lead Pillow to any: struct.error, TypeError
        raise PictureError(f"picture {name}: could not be opened; {error}") from error
    return _decoded(picture, name)


def _decoded(picture: Image.Image, name: str) -> Image.Image:
    """The first frame, upright, as RGB."""
    try:
        if picture.tell():
            picture.seek(0)
        picture.load()
        if 0 in picture.size:
            found = "{} x {}".format(*picture.size)
            raise PictureError(f"picture {name}: expected at least one pixel, found {found}")
        turn = _orientation(picture)
        picture = _opaque(_shallow(picture) if picture.mode[0] in "FI" else picture)
        return picture.transpose(Image.Transpose[_TURNS[turn - 2]]) if turn in range(2, 9) else picture
    except PictureError:
        raise
    except Exception as error:  # as above
        raise PictureError(f"picture {name}: could not be decoded, the file is broken; {error}") from error


def _orientation(picture: Image.Image) -> Any:
    """What Exif or XMP say of it; 1, upright, where they cannot be read."""
    exif = picture.info.get("exif", b""), picture.info.get("Raw profile type exif", "")
    with suppress(Exception):  # as above
        if max(map(len, exif)) <= _MOST_EXIF:
            return picture.getexif().get(0x0112, 1)
    return 1


def _opaque(picture: Image.Image) -> Image.Image:
    """As RGB, over white."""
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _shallow(picture: Image.Image) -> Image.Image:
    """Greys of more than 8 bits in 8, see `load_picture`; Pillow's own conversion clips at 255."""
    values = np.asarray(picture)
    if picture.mode == "I" and values.min() >= 0 and values.max() <= 65535:
        values = values.astype(np.uint16 if values.max() > 255 else np.uint8)
    elif picture.mode == "F" and 1 < values.max() <= 255:
        values = values / 255
    return Image.fromarray(_in_bytes(values))


def _from_array(array: np.ndarray) -> Image.Image:
    """A picture from an array, see `_in_bytes`."""
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise PictureError(f"picture array: expected shape {_SHAPES}, found {array.shape}")
    return _decoded(Image.fromarray(_in_bytes(array)), "array")


def _in_bytes(values: np.ndarray) -> np.ndarray:
    """Pixels as uint8, of uint16 in 0..65535 or floats in 0..1."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return (values // 257).astype(np.uint8)
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise PictureError("picture array: expected floats in 0..1, found values outside; or pass uint8")
        return (values * 255).round().astype(np.uint8)
    if values.dtype != np.uint8:
        raise PictureError(f"picture array: expected uint8, uint16 or floats in 0..1, found {values.dtype}")
    return values
