"""Features of frozen picture encoders, computed once and kept in files.

The features of a tower lie in a folder whose name is a hash of all that they depend on: its weights, its
settings, the size of the pictures, the precision. A picture is known by the hash of its bytes. So a row is
never stale, and runs, recipes, seeds and processes share it. The files are safetensors, some hundred rows
each; they are read by memory mapping, written under another name and renamed, and never changed. A folder is
filled by one process at a time; whoever waited finds what the other computed.

Notation: B batch, N pictures a post, M regions of a picture (1 of a pooled tower), C channels.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from filelock import FileLock
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from ..files import write_text, write_whole
from ..model.batching_mmner import CORES, ahead
from ..model.images_mmner import PICTURE_COLUMNS, load_picture, pictures_of, square_pixels
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.processing_mmner import MMNERProcessor
from ..model.vision_mmner import VisionTower

ABOUT = "about.json"
"""Says of a tower's folder what it is."""

SOURCES = "sources"
"""The folder that tells by the hash of a file of weights whose features are theirs."""

_STORED = torch.bfloat16
"""Of features: what an encoder in mixed precision computes in, and wide enough for any."""

_BATCH = 8
"""Pictures that are run together. There are always so many, lest a row depend on which others were still
missing.
"""

_FILE_BYTES = 32_000_000


class FeatureError(ValueError):
    """Features that are not there or cannot be read; the text says which, and what to do."""


def default_folder() -> Path:
    """Where features are kept if nothing else is said: beside what Hugging Face's libraries keep."""
    return Path(constants.HF_HOME) / "mmner" / "features"


def picture_key(picture: Any) -> str:
    """The hash of a picture's file, given as bytes, a path or a row of either; of any other kind that of its
    pixels.
    """
    content = picture
    if isinstance(picture, Mapping):
        content = picture["bytes"] if picture.get("bytes") is not None else picture.get("path")
    if isinstance(content, (str, os.PathLike)) and Path(content).is_file():
        content = Path(content).read_bytes()
    if not isinstance(content, (bytes, bytearray, memoryview)):
        pixels = np.asarray(load_picture(picture))
        content = str(pixels.shape).encode() + pixels.tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class FeatureStore:
    """The rows of one tower.

    Args:
        folder: of the tower; made when the first rows are added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        self._read: set[Path] = set()
        self._opened: dict[Path, Any] = {}
        self.refresh()

    def __len__(self) -> int:
        return len(self._file_of)

    def __contains__(self, key: object) -> bool:
        return key in self._file_of

    def __getitem__(self, key: str) -> Tensor:
        """(M, C) bfloat16, the features of a picture.

        Raises:
            FeatureError: they are not there.
        """
        path = self._file_of.get(key)
        if path is None:
            raise FeatureError(
                f"{self.folder}: expected features of picture {key}, found none; call fill with its post"
                " first"
            )
        if path not in self._opened:
            self._opened[path] = safe_open(path, framework="pt")
        return self._opened[path].get_tensor(key)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}  # another process maps the files itself

    @property
    def bytes(self) -> int:
        """Of all files that were read."""
        return sum(path.stat().st_size for path in self._read)

    def refresh(self) -> None:
        """Take in the files that other processes have added.

        Raises:
            FeatureError: a file cannot be read.
        """
        for path in sorted(set(self.folder.glob("*.safetensors")) - self._read):
            try:
                with safe_open(path, framework="pt") as file:
                    self._file_of |= dict.fromkeys(file.keys(), path)
            except (SafetensorError, OSError) as error:
                raise FeatureError(
                    f"{path}: expected a file of picture features, found {error}; remove it"
                ) from error
            self._read.add(path)

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Write rows (M, C) as one more file; a killed process leaves no file, or a whole one."""
        name = hashlib.blake2b("".join(rows).encode(), digest_size=16).hexdigest()
        path = self.folder / f"{name}.safetensors"
        write_whole(path, lambda partial: save_file(dict(rows), partial))
        self._read.add(path)
        self._file_of |= dict.fromkeys(rows, path)

    def lock(self) -> FileLock:
        """Held by the process that adds rows; what killed ones have left half written may then be removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")

    def remove_partial(self) -> None:
        """Remove what killed processes have left half written. Call it under the lock."""
        for path in self.folder.glob("*.partial"):
            path.unlink()


@dataclass
class FrozenTower:
    """A frozen tower and where its features are.

    Attributes:
        tower: with its encoder, whose weights may not have been read yet.
        store: see `FeatureStore`.
        load_weights: reads them; does nothing where they are there.
    """

    tower: VisionTower
    store: FeatureStore
    load_weights: Callable[[], None] = lambda: None


class PictureFeatures:
    """Makes what a model reads of pictures: ready-made features for its frozen towers.

    Args:
        image_size: of the squares that the processor makes of pictures, in pixels.
        towers: one for each of the model's; None for one that is trained.
        autocast: makes the context in which encoders run.
    """

    def __init__(
        self,
        image_size: int,
        towers: Sequence[FrozenTower | None],
        *,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.image_size, self.towers, self._autocast = image_size, list(towers), autocast
        self.needs_pixels = None in self.towers
        self.computed = 0  # pictures that an encoder was run on

    @classmethod
    def of_model(
        cls,
        model: MMNERForTokenClassification,
        processor: MMNERProcessor,
        *,
        folder: str | Path | None = None,
        bf16: bool = False,
    ) -> "PictureFeatures":
        """Those of a model that has its weights, for a `MMNERCollator` of the Trainer; call `fill` with the
        posts first.

        Args:
            folder: of all features (default: `default_folder`).
            bf16: whether the encoders run in bfloat16, as `TrainingArguments(bf16=True)` has it.

        Raises:
            ValueError: the model has no frozen tower.
        """
        if not any(tower.frozen for tower in model.vision_towers) or processor.image_size is None:
            raise ValueError("PictureFeatures: expected a model with a frozen picture encoder, found none")
        place, size = Path(folder) if folder is not None else default_folder(), processor.image_size
        towers = [
            (
                FrozenTower(
                    tower, open_store(place, tower, image_size=size, precision="bf16" if bf16 else "no")
                )
                if tower.frozen
                else None
            )
            for tower in model.vision_towers
        ]
        return cls(
            size, towers, autocast=lambda: torch.autocast(model.device.type, torch.bfloat16, enabled=bf16)
        )

    @property
    def frozen(self) -> list[FrozenTower]:
        """The towers whose features are kept."""
        return [tower for tower in self.towers if tower is not None]

    def fill(self, rows: Any) -> None:
        """Compute what is missing of the pictures of a data set's rows.

        Raises:
            PictureError: a picture cannot be read.
        """
        rows = rows.select_columns([column for column in PICTURE_COLUMNS if column in rows.features])
        places: dict[str, tuple[int, int]] = {}
        for number, row in enumerate(rows):
            for place, picture in enumerate(pictures_of(row)):
                key = picture_key(picture)
                if any(key not in frozen.store for frozen in self.frozen):
                    places.setdefault(key, (number, place))
        for frozen in self.frozen if places else ():
            with frozen.store.lock():
                frozen.store.remove_partial()
                frozen.store.refresh()
                missing = {key: place for key, place in places.items() if key not in frozen.store}
                if missing:
                    frozen.load_weights()
                    self._compute(frozen, rows, missing)

    def _compute(self, frozen: FrozenTower, rows: Any, missing: dict[str, tuple[int, int]]) -> None:
        """Run a tower's encoder on pictures, named by row and place in it."""

        def pixels(place: tuple[int, int]) -> np.ndarray:
            return square_pixels(load_picture(pictures_of(rows[place[0]])[place[1]]), self.image_size)

        gathered: dict[str, Tensor] = {}
        backbone, size = frozen.tower.config.backbone, 0
        squares = ahead(pixels, missing.values(), threads=min(8, CORES), most=4 * _BATCH)
        named = iter(
            tqdm(zip(missing, squares, strict=True), f"features of {backbone}", len(missing), delay=2)
        )
        while group := dict(islice(named, _BATCH)):
            rows_of_group = self._rows(frozen.tower, group)
            gathered |= rows_of_group
            size += sum(row.nbytes for row in rows_of_group.values())
            if size >= _FILE_BYTES:
                frozen.store.add(gathered)
                gathered, size = {}, 0
        if gathered:
            frozen.store.add(gathered)

    @torch.inference_mode()
    def _rows(self, tower: VisionTower, squares: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """The rows of at most `_BATCH` pictures, by their keys."""
        batch = np.zeros((_BATCH, 3, self.image_size, self.image_size), np.uint8)
        batch[: len(squares)] = list(squares.values())
        with self._autocast():
            features = tower.kept_features(torch.from_numpy(batch).to(tower.mean.device))
        self.computed += len(squares)
        return dict(zip(squares, features.to(_STORED).cpu().clone(), strict=False))

    def in_place_of_pixels(self, batch: dict[str, Any], posts: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """A batch with features, and without pixels where no tower needs them.

        Args:
            batch: as the processor makes it; without pictures, where no tower needs pixels.
            posts: the pictures of each of its posts.

        Returns:
            the batch with image_mask (B, N) bool and image_features, for each tower (B, N, M, C) bfloat16 or
            None.

        Raises:
            FeatureError: there are no features of a picture.
        """
        keys = [[picture_key(picture) for picture in pictures] for pictures in posts]
        mask = torch.zeros(len(keys), max(map(len, keys), default=0), dtype=torch.bool)
        for row, names in enumerate(keys):
            mask[row, : len(names)] = True
        given = {
            "image_mask": mask,
            "image_features": [self._gathered(tower, keys, mask) for tower in self.towers],
        }
        return {
            name: tensor for name, tensor in batch.items() if self.needs_pixels or name != "pixel_values"
        } | given

    @staticmethod
    def _gathered(frozen: FrozenTower | None, keys: list[list[str]], mask: Tensor) -> Tensor | None:
        if frozen is None:
            return None
        found = [frozen.store[key] for names in keys for key in names]
        shape = found[0].shape if found else (0, frozen.tower.channels)
        features = torch.zeros(*mask.shape, *shape, dtype=_STORED)
        if found:
            features[mask] = torch.stack(found)
        return features


def open_store(folder: Path, tower: VisionTower, *, image_size: int, precision: str) -> FeatureStore:
    """The features of a tower that has its weights.

    Args:
        folder: of all towers' features.
        image_size: of the squares that the processor makes of pictures.
        precision: that the encoder runs in: ``no``, ``bf16`` or ``fp16``.
    """
    about = tower.config.to_diff_dict() | {
        "pixels": image_size,
        "precision": precision,
        "timm": timm.__version__,
    }
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    own = folder / digest.hexdigest()
    if not (own / ABOUT).is_file():
        own.mkdir(parents=True, exist_ok=True)
        write_text(own / ABOUT, json.dumps(about, indent=2, default=str))
    return FeatureStore(own)


def stores_in(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Of each tower with features: what it is, how many pictures it has, and their bytes."""
    for path in sorted(folder.glob(f"*/{ABOUT}")):
        about = json.loads(path.read_text(encoding="utf-8"))
        store = FeatureStore(path.parent)
        yield (
            f"{about['backbone']}{', pooled' if about.get('pooled') else ''}, {about['precision']}",
            len(store),
            store.bytes,
        )


def clear(folder: Path) -> None:
    """Remove all features in a folder, and nothing else in it."""
    for about in folder.glob(f"*/{ABOUT}"):
        shutil.rmtree(about.parent)
    shutil.rmtree(folder / SOURCES, ignore_errors=True)
