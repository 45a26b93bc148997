"""Small corpora in files for the tests of reading and building: tagged posts, released folders, pictures."""

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from dataset_scripts.builders.builder import PostsBuilder, corpus_features

POSTS = {
    "train": [("1", "Paris/B-LOC is/O Paris/B-LOC"), ("2", "Jordan/B-PER Henderson/I-PER"), ("3", "so/O")],
    "valid": [("4", "Amazon/B-ORG"), ("5", "Nice/B-LOC")],
    "test": [("6", "Euro/B-MISC 2016/I-MISC"), ("7", "me/O")],
}


def tagged_row(text: str = "", *, labels: list[str], **columns: Any) -> dict[str, Any]:
    """A row without a picture from ``word/TAG word ...``; no tag is O."""
    pairs = [pair.partition("/") for pair in text.split()]
    tags = [labels.index(tag or "O") for _, _, tag in pairs]
    about = {"id": "1", "language": "en", "source": "tweet", "tokens": [word for word, _, _ in pairs]}
    return about | {"ner_tags": tags} | columns


def row_features(labels: list[str], column: str = "image") -> datasets.Features:
    """The columns of a corpus, pictures not decoded; `column`: image, or images for lists of them."""
    features = corpus_features(labels, decode=False)
    picture = features.pop("image")
    return datasets.Features(features | {column: datasets.List(picture) if column == "images" else picture})


def imgid_text(posts: list[tuple[str, str]]) -> str:
    """A file's text from posts (id, ``token/tag token/tag``)."""
    blocks = ((post_id, text.replace("/", "\t").replace(" ", "\n")) for post_id, text in posts)
    return "".join(f"IMGID:{post_id}\n{lines}\n\n" for post_id, lines in blocks)


def write_posts(folder: Path, posts: dict[str, list[tuple[str, str]]] = POSTS, ending: str = ".txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in posts.items():
        (folder / f"{split}{ending}").write_bytes(imgid_text(rows).encode())
    return folder


def encoded(seed: int, file_format: str) -> bytes:
    """A small picture of random colours."""
    pixels = random.Random(seed).randbytes(24 * 16 * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (24, 16), pixels).save(buffer, file_format)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header speaks of many pixels and whose data has next to none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(99))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write_pictures(folder: Path) -> Path:
    """Pictures of the posts 1, 2, 4 and 6; that of post 2 is a PNG by content."""
    folder.mkdir()
    for name in "1246":
        (folder / f"{name}.jpg").write_bytes(encoded(int(name), "PNG" if name == "2" else "JPEG"))
    return folder


def write_mmner(root: Path, **folders: list[tuple[str, str]]) -> Path:
    """Released folders by name, whose training split has the given posts."""
    for name, posts in folders.items():
        write_posts(root / f"train_valid_test_{name}", POSTS | {"train": posts}, "_conll_format.txt")
    return root


def make(kind: type[PostsBuilder], config: str | None = None, **options: Any) -> PostsBuilder:
    """A builder that, unless told otherwise, takes any copy of a corpus."""
    return kind(config, **{"no_verify": True} | options)
