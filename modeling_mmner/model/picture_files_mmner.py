"""The files of pictures: what in them is no pixel, and breaks, slows down or swells their reading."""

import re
from contextlib import suppress

from PIL import Image

_MOST_SIDE = 65_535
"""Of a JPEG. Of a packed BMP Pillow adds 255 rows at once, however long they are."""
_MOST_SCANS = 100
"""Of a JPEG, each of which is a walk over all its pixels, by as little as 100 bytes; there are about 10."""
_JPEG_KEPT = {b"JFIF": 14, b"Exif": 6, b"http": 29, b"Adob": 12}
"""How the segments begin that tell of colours and of what is upright, and their least bytes."""
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
_PNG_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")


def check_size(picture: Image.Image) -> None:
    """DecompressionBombError for more pixels than `PIL.Image.MAX_IMAGE_PIXELS`; Pillow itself only warns up
    to the double of it.
    """
    limit, (width, height) = Image.MAX_IMAGE_PIXELS, picture.size
    if (limit is not None and width * height > limit) or max(width, height) > _MOST_SIDE:
        most = f"{limit}, or than {_MOST_SIDE} in a row or column"
        raise Image.DecompressionBombError(f"found {width} x {height} pixels, more than {most}")


def bare_file(content: bytes) -> bytes:
    """A file with no more metadata than tells of colours and of what is upright.

    The rest may be broken, and Pillow reads some of it in the square of its length, or unpacks it unbounded.

    Raises:
        ValueError: a JPEG has too many scans.
    """
    if content.startswith(b"\xff\xd8"):
        return _bare_jpeg(content)
    if content.startswith(b"\x89PNG"):
        return _bare_png(content)
    if content.startswith(b"GIF"):
        with suppress(IndexError):  # a file without its end; whoever decodes it says so
            return _bare_gif(content)
    if content[4:8] == b"ftyp":  # AVIF, whose own boxes say what is upright
        return re.sub(rb"(infe.{8,10})Exif", rb"\1none", content, flags=re.DOTALL)
    return content


def _bare_png(content: bytes) -> bytes:
    kept, at = [content[:8]], 8
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] in _PNG_KEPT or content.startswith(_PNG_TEXTS, at + 8):
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def _bare_jpeg(content: bytes) -> bytes:
    """Of each kind the first; ValueError for more than `_MOST_SCANS`."""
    if len(re.findall(rb"\xff\xda\0[\x08-\x0e]", content)) > _MOST_SCANS:
        raise ValueError(f"expected a JPEG of at most {_MOST_SCANS} scans, found more")
    kept, at, least = [content[:2]], 2, dict(_JPEG_KEPT)
    while 0 <= (at := content.find(b"\xff", at)) < len(content) - 1 and (marker := content[at + 1]) != 0xDA:
        if marker < 0xC0 or 0xD0 <= marker < 0xDA or marker == 0xFF:  # nothing follows
            at += 2 - (marker == 0xFF)
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        is_word = 0xE0 <= marker < 0xF0 or marker == 0xFE
        if not is_word or end - at - 4 >= least.pop(content[at + 4 : at + 8], 2**16):
            kept.append(content[at:end])
        at = end
    return b"".join(kept) + content[at:]


def _bare_gif(content: bytes) -> bytes:
    """The first frame."""

    def after_palette(at: int, flags: int) -> int:
        return at + (3 << (flags % 8 + 1) if flags & 0x80 else 0)

    def after_blocks(at: int) -> int:
        while at < len(content) and (size := content[at]):
            at += size + 1
        return at + 1

    at = after_palette(13, content[10])
    kept = [content[:at]]
    while content[at] == 0x21:
        end = after_blocks(at + 2)
        if content[at + 1] == 0xF9:  # what is transparent
            kept.append(content[at:end])
        at = end
    return b"".join([*kept, content[at : after_blocks(after_palette(at + 10, content[at + 9]) + 1)], b";"])
