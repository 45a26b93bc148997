"""Any picture -> a square of RGB bytes. This file loads no torch: tensors are known by what they can do."""

import io
import os
import threading
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

PICTURE_COLUMNS = ("image", "images")
"""The columns of a row that may hold pictures: one, or a list of them."""

FEATURE_COLUMN = "image_features_"
"""Begins the name of the column of a tower's ready-made features; its number follows."""

# Named one by one: Pillow reads more, and for some of it (EPS) starts another program.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "TGA")
FORMATS += ("AVIF",) if features.check("avif") else ()
"""The formats of picture files that are read."""

_GIVEN = threading.Lock()
"""Held while a PIL image is read, which decodes itself in place: posts of several threads may share it."""
_MOST_BYTES = 50_000_000
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_SHAPES = "(H, W), (H, W, 1/3/4) or (3, H, W)"
_EXPECTED = f"a PIL image, a path, bytes, an open file, an array {_SHAPES}, or a row with 'bytes' or 'path'"


class PictureError(ValueError):
    """A picture that is missing, broken or of no known kind; the text names it and says what was expected."""


def load_picture(picture: Any) -> Image.Image:
    """Open a picture of any kind as RGB: upright by its EXIF, of an animation the first frame, over white.

    Args:
        picture: PIL image, path, bytes, a file open for reading bytes, array or tensor (uint8, uint16, or
            floats in 0..1), or ``{"bytes": ..., "path": ...}``. Files are read in one of `FORMATS`. A
            `PictureError` in its place is raised.

    Raises:
        PictureError: naming the picture, and why it cannot be read.
    """
    if isinstance(picture, PictureError):
        raise picture
    row = picture if isinstance(picture, dict) else None
    if row is not None and isinstance(picture := _content_of(row), dict):
        raise PictureError("picture: expected the row's 'path' to be a path, found a row inside a row")
    if isinstance(picture, Image.Image):
        with _GIVEN:
            return _decoded(picture, "the PIL image")
    if isinstance(picture, (bytes, bytearray, memoryview)):
        name = f"{len(picture)} bytes" if row is None else f"row with path {row.get('path')!r}"
        return _opened(io.BytesIO(bytes(picture)), name)
    if isinstance(picture, (str, os.PathLike)):
        return _opened_path(os.fspath(picture))
    if callable(getattr(picture, "read", None)):
        return _opened(io.BytesIO(_bytes_of(picture)), f"open file {getattr(picture, 'name', '')}".rstrip())
    if hasattr(picture, "__array__"):
        return _from_array(_as_array(picture))
    raise PictureError(f"picture: expected {_EXPECTED}, found {type(picture).__name__}")


def is_url(picture: Any) -> bool:
    """Whether a picture is given by its address on the web."""
    return isinstance(picture, str) and picture[:8].lower().startswith(("http://", "https://"))


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the web only; urllib's own also follows those to ftp."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        if not is_url(newurl):
            raise OSError(f"a redirect to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch_picture(url: str, *, timeout: float = 20.0) -> bytes:
    """The bytes at an address on the web, at most 50 MB in `timeout` seconds, or PictureError is raised."""
    deadline = time.monotonic() + timeout
    content = bytearray()
    try:
        # Some servers refuse urllib's own name.
        request = urllib.request.Request(url, headers={"User-Agent": "mmner"})
        with urllib.request.build_opener(_WebRedirects).open(request, timeout=timeout) as response:
            while chunk := response.read1(2**16):
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise OSError(f"more than {_MOST_BYTES:,} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no end of it after {timeout} seconds")
    except (OSError, ValueError, HTTPException) as error:
        raise PictureError(f"picture {url}: expected to fetch it, found {error}") from error
    return bytes(content)


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
    return _opened(path, name)


def _bytes_of(file: Any) -> bytes:
    """The rest of an open file."""
    try:
        content = file.read(_MOST_BYTES + 1)
    except Exception as error:  # closed, or not open for reading; files of others raise what they like
        raise PictureError(f"picture: expected a file open for reading, found {error}") from error
    if not isinstance(content, bytes):
        found = f"one that reads {type(content).__name__}"
        raise PictureError(f"picture: expected a file opened as bytes ('rb'), found {found}")
    if len(content) > _MOST_BYTES:
        raise PictureError(f"picture: expected at most {_MOST_BYTES:,} bytes, found more in the open file")
    return content


def _as_array(picture: Any) -> np.ndarray:
    """An array or tensor as a NumPy array; a tensor's bfloat16 as float32."""
    try:
        if hasattr(picture, "detach"):
            picture = picture.detach().cpu()
            picture = picture if str(picture.layout) == "torch.strided" else picture.to_dense()
            picture = picture.float() if picture.is_floating_point() else picture
        return np.asarray(picture)
    except Exception as error:  # whoever makes array-likes raises what they like
        found = f"a {type(picture).__name__} that gives none; {error}"
        raise PictureError(f"picture: expected an array, found {found}") from error


def _opened(source: Any, name: str) -> Image.Image:
    try:
        with Image.open(source, formats=FORMATS) as picture:
            limit = Image.MAX_IMAGE_PIXELS  # Pillow itself only warns between this and its double
            if limit is not None and picture.width * picture.height > limit:
                found = f"{picture.width} x {picture.height} pixels, more than {limit}"
                raise Image.DecompressionBombError(f"found {found}")
            return _decoded(picture, name)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        expected = f"one of the formats {', '.join(FORMATS)}"
        raise PictureError(f"picture {name}: expected {expected}, found none of them") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"picture {name}: expected a picture of ordinary size; {error}") from error
    except Exception as error:  # a broken file may lead Pillow to any: struct.error, TypeError
        raise PictureError(f"picture {name}: could not be opened; {error}") from error


def _decoded(picture: Image.Image, name: str) -> Image.Image:
    """The first frame, upright, as RGB."""
    try:
        if picture.tell():
            picture.seek(0)
        picture.load()
        # Without Exif there is nothing to turn, and exif_transpose would copy the pixels for it.
        upright = ImageOps.exif_transpose(picture) if picture.getexif() else picture
    except Exception as error:  # as above
        raise PictureError(f"picture {name}: could not be decoded, the file is broken; {error}") from error
    if 0 in upright.size:
        found = "{} x {}".format(*upright.size)
        raise PictureError(f"picture {name}: expected at least one pixel, found {found}")
    if upright.mode in _SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255 instead of scaling.
        scaled = np.asarray(upright).astype(np.int64).clip(0, 65535) // 257
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        layer = (upright.convert("LA") if upright.mode == "La" else upright).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    """A picture from an array; floats are taken in 0..1, uint16 in 0..65535."""
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise PictureError(f"picture array: expected shape {_SHAPES}, found {array.shape}")
    if array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    elif array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise PictureError("picture array: expected floats in 0..1, found values outside; or pass uint8")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise PictureError(f"picture array: expected uint8, uint16 or floats in 0..1, found {array.dtype}")
    return _decoded(Image.fromarray(array), "array")
