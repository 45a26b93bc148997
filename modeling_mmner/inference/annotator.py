"""A trained model as a function of rows, which can be sent to other processes."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from huggingface_hub import snapshot_download

from ..escaping import encodable
from ..files import sha256
from ..model.effects_mmner import EFFECTS
from ..model.images_mmner import PICTURE_COLUMNS
from ..model.picture_text_mmner import PictureReader, reader_of
from ..model.posts_mmner import PostError, meant_by
from ..model.prediction_mmner import BatchPredictor, Prediction
from .loading import Dtype, check_files, load_predictor, model_named

_ENTITY = {"entity_group": pa.string(), "score": pa.float64(), "word": pa.string()}
_ENTITY |= dict.fromkeys(("start", "end", "first_word", "last_word"), pa.int64())
_ENTITY |= dict.fromkeys(EFFECTS, pa.float64())
_BOX = pa.struct(dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), pa.int64()))
_SEEN = {"image": pa.int64(), "box": _BOX, "word": pa.string(), "score": pa.float64()}
_ENTITY |= _SEEN | {"seen": pa.list_(pa.struct(_SEEN))}
_WORDS = {"text": pa.string()} | dict.fromkeys(("tokens", "tags"), pa.list_(pa.string()))
FOUND = pa.schema(_WORDS | {"entities": pa.list_(pa.struct(_ENTITY)), "error": pa.string()})
"""What is found in a post. `error` says why it could not be read or, where it has a text, why pictures of it
were left out. `start` and `end` of an entity count characters of the text, as in Python; it has the words
``tokens[first_word:last_word + 1]``. One in a picture has none of these, but the picture's number `image`,
from 0, and the `box` in its pixels; `seen` says where one of the text stands in pictures, too. Its
effects are null where they were not asked for.
"""
POST_COLUMNS = ("id", "text", "tokens", "context", *PICTURE_COLUMNS)
"""What a post is made of; other columns are not read."""


def post_columns(columns: Iterable[str]) -> list[str]:
    """Those of a post, and those under wrong names, of which the reader of posts will tell."""
    return [name for name in columns if name in POST_COLUMNS or meant_by(name) is not None]


_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.onnx*")
_OF_ITS_RUN = ("metrics.json", "manifest.json")
_PROCESS = os.getpid()  # another one in a process that was forked since


@dataclass(frozen=True)
class Annotator:
    """Finds the entities of rows. A process that it is sent to loads the model when it needs it first.

    Attributes:
        model: a folder, or an id on the Hub.
        device, dtype, batch_size, num_workers, threshold, precision, effects,
        read_pictures: see `load_predictor`.
        image_dir: the folder that paths of pictures may not lead out of, see `PostReader`.
        sha256: of the model's files. `datasets` takes what a function has done before from its cache, by all
            that the function holds: so another model in the same folder is another function.
    """

    model: str
    device: str | None = None
    dtype: Dtype = "auto"
    threshold: float = 0.0
    precision: float | None = None
    effects: bool = False
    batch_size: int = 32
    num_workers: int = 0
    read_pictures: bool | PictureReader = False
    image_dir: str | None = None
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        reader_of(self.read_pictures)  # before a task asks for it
        folder = Path(self.model)
        with model_named(self.model):
            if not folder.is_dir():
                folder = Path(snapshot_download(self.model, allow_patterns=list(_MODEL_FILES)))
        check_files(folder)
        own = {path for pattern in _MODEL_FILES for path in folder.glob(pattern)}
        own -= {folder / name for name in _OF_ITS_RUN}
        object.__setattr__(self, "model", str(folder))
        object.__setattr__(self, "sha256", hash_of_files(sorted(own)))

    def find(self, posts: Iterable[Any], *, first: int = 0) -> Iterator[dict[str, Any]]:
        """A record of `FOUND` and the post's id for each post, in their order; errors count from `first`."""
        return map(_record_of, _predictor_of(self, os.getpid()).predict(posts, first=first))

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows with tokens, tags, entities and error added, and text where there is none.

        For ``Dataset.with_format("arrow").map(annotator, batched=True)`` and Ray's ``map_batches(...,
        batch_format="pyarrow")``.

        Raises:
            ValueError: the rows have a column tags, entities or error already.
        """
        if taken := [name for name in ("tags", "entities", "error") if name in table.column_names]:
            raise ValueError(f"rows: expected no columns {', '.join(taken)}, which are added; rename them")
        posts = rows_of(table.select(post_columns(table.column_names)))
        found = table_of(self.find(posts), FOUND)
        for name in FOUND.names:
            if name not in table.column_names:
                table = table.append_column(FOUND.field(name), found[name])
        return table


@lru_cache(maxsize=1)
def _predictor_of(annotator: Annotator, process: int) -> BatchPredictor:
    """The model, loaded once in a process, however often its annotator is sent there.

    A process that was forked, as those of `Dataset.map`, has none of the threads that torch and onnxruntime
    had before, and would wait for them without end: it computes in one, with a model of its own.
    """
    if process != _PROCESS:
        torch.set_num_threads(1)
    options = {one.name: getattr(annotator, one.name) for one in fields(annotator) if one.init}
    return load_predictor(options.pop("model"), **options)


def _record_of(found: Prediction) -> dict[str, Any]:
    text, words = (found.post.text, found.post.words) if found.post is not None else (None, [])
    starts = {word.start: number for number, word in enumerate(words)}
    ends = {word.end: number for number, word in enumerate(words)}
    return {
        "id": found.id,
        "text": text,
        "tokens": [word.text for word in words],
        "tags": found.tags,
        "entities": [
            one | {"first_word": starts.get(one["start"]), "last_word": ends.get(one["end"])}
            for one in found.entities
        ],
        "error": str(found.error or "; ".join(found.broken_pictures)) or None,
    }


def rows_of(table: pa.Table, *, first: int = 0) -> list[Any]:
    """The rows of a table; one that Python cannot hold, as of a text that is no UTF-8 or a date in the year
    10000, is a `PostError`, which counts from `first`.
    """
    try:
        return table.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        if len(table) == 1:
            expected = "expected values that Python can hold, texts in UTF-8"
            return [PostError(f"post {first}: {expected}, found {error}")]
    return [row for at in range(len(table)) for row in rows_of(table.slice(at, 1), first=first + at)]


def table_of(records: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The records as a table. An id that is no string is JSON in it, for a column has one type; U+FFFD stands
    for what UTF-8 cannot encode, as a byte of a file's name in an error.
    """
    rows = list(records)
    for row in rows:
        if not isinstance(row["id"], str | None):
            row["id"] = json.dumps(row["id"], ensure_ascii=False, default=str)
    rows = json.loads(encodable(json.dumps(rows, ensure_ascii=False)))
    return pa.Table.from_pylist(rows, schema=schema)


def hash_of_files(paths: Iterable[Path]) -> str:
    """The SHA-256 of the names and contents of files."""
    return hashlib.sha256("".join(f"{path.name} {sha256(path)}\n" for path in paths).encode()).hexdigest()
