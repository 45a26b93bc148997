"""Shared by the tests of built data sets: building small ones, and reading their files."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dataset_scripts.builders.built_corpus import build_dataset
from tests.small_corpora import write_pictures, write_posts

POSTS = {
    "train": [
        ("1", "Paris/B-LOC is/O Zqvorn/I-LOC"),
        ("2", "Jordan/B-PER Henderson/I-PER"),
        ("3", "Wxyrble/O"),
    ],
    "valid": [("4", "Amazon/B-ORG"), ("5", "Nice/B-LOC so/O")],
    "test": [("6", "Euro/B-MISC 2016/I-MISC"), ("7", "me/O"), ("8", "Köln/B-LOC")],
}
"""Posts with an orphan and with tokens that occur nowhere else; `write_pictures` has those of 1, 2, 4 and 6.
"""


def build_small(folder: Path, **options: Any) -> Path:
    """A data set built of `POSTS` in ``folder/built``, from ``folder/corpus`` and ``folder/images``."""
    posts, pictures = write_posts(folder / "corpus", POSTS), write_pictures(folder / "images")
    build_dataset("conll", folder / "built", **({"data_dir": posts, "image_dir": pictures} | options))
    return folder / "built"


@cache
def built_sample() -> Path:
    """The English sample corpus, built once for all tests; leave it as it is."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build_dataset("sample", folder / "sample", configs=["en"])
    return folder / "sample"


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "corpus.json").read_text(encoding="utf-8"))


def rows_of(folder: Path, split: str, config: str = "default") -> list[dict[str, Any]]:
    """A split's rows as its Parquet files hold them."""
    return [
        row
        for path in sorted((folder / config).glob(f"{split}-*"))
        for row in pq.read_table(path).to_pylist()
    ]


def all_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of every config and split."""
    places = product(record_of(folder)["configs"], ("train", "validation", "test"))
    return {f"{config}/{split}": rows_of(folder, split, config) for config, split in places}


def files_of(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder by its path there; a folder without files is named with nothing in
    it.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() or not any(path.iterdir()))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in paths}
