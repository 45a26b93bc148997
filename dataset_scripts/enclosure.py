"""What data say of files: nothing outside of a data set's own folder is read, and nothing is fetched, because
of it.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from huggingface_hub import constants

from modeling_mmner.model.posts_mmner import file_within

from .formats.reader import CorpusError

_CARDS = ("README.md", ".huggingface.yaml")


def check_card(folder: Path) -> None:
    """Check that the card of a data set in a folder names no files outside of it.

    Raises:
        CorpusError: it names an address, an absolute path or one with `..`, or its front matter is no YAML.
    """
    for path in (folder / name for name in _CARDS if (folder / name).is_file()):
        for named in _texts(_front_matter(path).get("configs")):
            if "://" in named or PurePath(named).is_absolute() or ".." in PurePath(named).parts:
                expected = "files of the data set's own folder under 'configs'"
                raise CorpusError(f"{path}: expected {expected}, found {named!r:.200}")


def _front_matter(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".md":
        opening, _, rest = text.partition("---\n")
        text = "" if opening.strip() else rest.partition("\n---")[0]
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, TypeError, LookupError) as error:
        raise CorpusError(f"{path}: expected YAML at its beginning, found {error!s:.300}") from error
    return content if isinstance(content, dict) else {}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of YAML, keys included."""
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, (dict, list)) and id(one) not in seen:  # YAML may refer to a value many times
            seen.add(id(one))
            waiting += [*one, *one.values()] if isinstance(one, dict) else one


def check_pictures(rows: datasets.Dataset, column: str, *, dataset: str, place: str) -> None:
    """Check that pictures which rows have as paths lie where the data set does.

    Args:
        rows: fresh from `load_dataset`, pictures not decoded.
        column: of pictures, or of lists of them.
        dataset: its folder, or its id on the Hub, whose files are in Hugging Face's caches.
        place: for errors.

    Raises:
        CorpusError: one is a file that lies elsewhere.
    """
    roots = [Path(constants.HF_HUB_CACHE), Path(datasets.config.HF_DATASETS_CACHE)]
    roots += [Path(dataset)] if Path(dataset).is_dir() else []
    for chunk in rows.data.column(column).chunks:
        pictures = chunk if pa.types.is_struct(chunk.type) else pc.list_flatten(chunk)
        content, paths = (pc.struct_field(pictures, name) for name in ("bytes", "path"))
        for path in pc.unique(paths.filter(content.is_null())).drop_null().to_pylist():
            if os.path.isfile(path) and not any(file_within(os.path.abspath(path), root) for root in roots):
                found = f"{path!r:.200}, which leads out of it; put the pictures' bytes into the rows"
                raise CorpusError(
                    f"{place}, column {column}: expected pictures in the data set, found {found}"
                )
