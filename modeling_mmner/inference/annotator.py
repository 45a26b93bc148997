"""A trained model that annotates rows: posts -> records, tables -> tables; it can be sent to other
processes.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from .. import __version__
from ..model.images_mmner import PICTURE_COLUMNS
from ..model.prediction_mmner import BatchPredictor, PostReader, Prediction
from .annotation_records import FOUND, table_of
from .loading import Dtype, Quantization, computing_dtype, device_named, load_model

_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_OF_ITS_RUN = ("metrics.json", "manifest.json")
_POST_COLUMNS = ("text", "tokens", "context", *PICTURE_COLUMNS)


@dataclass
class Annotator:
    """Finds the entities of rows. A process that it is sent to loads the model when it needs it first.

    Attributes:
        model: a folder, or an id on the Hub.
        device, dtype, quantize: see `load_model`.
        threshold, batch_size, num_workers: see `BatchPredictor`.
        image_dir: see `PostReader`.
    """

    model: str
    device: str | None = None
    dtype: Dtype = "auto"
    quantize: Quantization | None = None
    threshold: float = 0.0
    batch_size: int = 32
    num_workers: int = 0
    image_dir: str | None = None

    def __post_init__(self) -> None:
        self._predictor: BatchPredictor | None = None
        self._folder = _model_folder(self.model)
        # Said outright, for `datasets` takes what a function has done before from its cache, by all that the
        # function holds.
        self._sha256 = _hash_of_model(self._folder)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_predictor": None}

    def made_by(self) -> dict[str, Any]:
        """All that the records depend on: machines that compute in another dtype would give other scores."""
        dtype = "float32" if self.quantize and self.dtype == "auto" else self.dtype
        computed_in = str(
            computing_dtype(dtype, device_named("cpu" if self.quantize else self.device))
        ).removeprefix("torch.")
        options = {"dtype": computed_in, "quantize": self.quantize, "threshold": self.threshold}
        return {"model": self._sha256, "mmner": __version__} | options

    def predictor(self) -> BatchPredictor:
        """The model, loaded."""
        if self._predictor is None:
            model, processor = load_model(
                str(self._folder), device=self.device, dtype=self.dtype, quantize=self.quantize
            )
            reader = PostReader(processor, broken_pictures="skip", image_dir=self.image_dir)
            sizes = {
                "batch_size": self.batch_size,
                "num_workers": self.num_workers,
                "threshold": self.threshold,
            }
            self._predictor = BatchPredictor(model, reader, read_ahead=True, **cast(Any, sizes))
        return self._predictor

    def find(self, posts: Iterable[Any], first: int = 0) -> Iterator[dict[str, Any]]:
        """A record ``{"id", "text", "tokens", "tags", "entities", "error"}`` for each post, in their order.

        Args:
            first: number of the first, by which errors name it.
        """
        return map(record_of, self.predictor().predict(posts, first=first))

    def __call__(self, table: pa.Table) -> pa.Table:
        """A batch of rows with the columns tokens, tags, entities and error added, and text where there is
        none.

        For ``Dataset.with_format("arrow").map(annotator, batched=True)`` and Ray's ``map_batches(...,
        batch_format="pyarrow")``.

        Raises:
            ValueError: the rows have a column tags, entities or error already.
        """
        if taken := [name for name in ("tags", "entities", "error") if name in table.column_names]:
            raise ValueError(
                f"rows: expected no columns {', '.join(taken)}, which are added, found them; rename them"
            )
        posts = table.select([name for name in _POST_COLUMNS if name in table.column_names]).to_pylist()
        found = table_of(self.find(posts), FOUND)
        for name in FOUND.names:
            if name not in table.column_names:
                table = table.append_column(FOUND.field(name), found[name])
        return table


def record_of(found: Prediction) -> dict[str, Any]:
    """The record of a prediction. An entity has the words ``tokens[first_word:last_word + 1]``."""
    error = str(found.error) if found.error is not None else "; ".join(found.broken_pictures) or None
    text, words = (found.post.text, found.post.words) if found.post is not None else (None, [])
    starts = {word.start: number for number, word in enumerate(words)}
    ends = {word.end: number for number, word in enumerate(words)}
    places = ({"first_word": starts[one["start"]], "last_word": ends[one["end"]]} for one in found.entities)
    return {
        "id": found.id,
        "text": text,
        "tokens": [word.text for word in words],
        "tags": found.tags,
        "entities": [one | place for one, place in zip(found.entities, places, strict=True)],
        "error": error,
    }


def _model_folder(model: str) -> Path:
    """The folder of a model, after it was downloaded where it is on the Hub."""
    if os.path.isdir(model):
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, allow_patterns=list(_MODEL_FILES)))


def _hash_of_model(folder: Path) -> str:
    """The SHA-256 of the names and contents of all files that a model is loaded from."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)}):
        if path.name not in _OF_ITS_RUN:
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
