"""Features of frozen picture encoders, computed once and kept as Arrow files: columns of the rows.

The posts of a split are taken some hundred at a time. What a tower makes of their pictures is one file, whose
name is a hash of all that it depends on: the tower's weights and settings, the size of the pictures, the
precision, timm's version, and the pictures' contents. So no row is ever stale, and runs, recipes, seeds,
processes and the Trainer share the files. Where all of them are there, the encoder is not even read.

Notation: M regions of a picture (1 of a pooled tower), C channels.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from accelerate import Accelerator
from datasets import Dataset, Features, List, Value, concatenate_datasets
from filelock import FileLock
from huggingface_hub import constants

from ..escaping import say
from ..files import noted, noted_sha256, picture_hash, sha256, write_text
from ..model import images_mmner as images
from ..model.batching_mmner import CORES, ahead
from ..model.images_mmner import FEATURE_COLUMN, PictureError, pictures_of
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.processing_mmner import MMNERProcessor
from ..model.ready_features_mmner import packed
from ..model.vision_mmner import VisionTower
from .assembly import load_tower, weights_file
from .corpus import TrainingCorpus
from .progress import ProgressBar
from .recipes import Recipe, TowerSettings

OFF = "off"
_FILE_POSTS, _WRITTEN_POSTS = 500, 64
_AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_BATCH = 8
"""Pictures that are run together. There are always so many, lest a row depend on which others there are."""


def default_folder() -> Path:
    """Where features are kept if nothing else is said."""
    return Path(constants.HF_HOME) / "mmner" / "features"


def feature_folder(setting: str) -> Path | None:
    """The folder that the setting `feature_cache` names; None where features are not kept."""
    return None if setting == OFF else default_folder() if setting == "auto" else Path(setting).expanduser()


def with_features(
    rows: Dataset,
    model: MMNERForTokenClassification,
    processor: MMNERProcessor,
    *,
    folder: str | Path | None = None,
    bf16: bool = False,
) -> Dataset:
    """A data set's rows with the features of a model's frozen picture encoders, for the Trainer.

    Args:
        rows: with a column `image` or `images`.
        folder: of the kept files (default: `default_folder`).
        bf16: whether the encoders run in bfloat16, as `TrainingArguments(bf16=True)` has it.

    Returns:
        the rows with a column ``image_features_0``, ... for each tower, which `MMNERCollator` reads in place
        of pixels; it is null for a tower that is trained.

    Raises:
        ValueError: the model has no frozen tower, the rows no such column.
    """
    if not any(tower.frozen for tower in model.vision_towers) or processor.image_size is None:
        raise ValueError("with_features: expected a model with a frozen picture encoder, found none")
    if not any(name in rows.features for name in images.PICTURE_COLUMNS):
        raise ValueError(f"with_features: expected a column image or images, found {rows.column_names}")
    folder = default_folder() if folder is None else Path(folder)
    encoders = [FrozenEncoder(tower) if tower.frozen else None for tower in model.vision_towers]
    kept = KeptFeatures(folder, encoders, processor.image_size, "bf16" if bf16 else "no")
    with kept.bar(rows) as bar:
        return _beside(rows, kept.columns(rows, bar))


def run_features(
    recipe: Recipe, processor: MMNERProcessor, model: MMNERForTokenClassification, accelerator: Accelerator
) -> "KeptFeatures":
    """The features of a run's frozen towers, whose weights `build_model` has left out where they are kept."""
    folder, size = feature_folder(recipe.training.feature_cache), processor.image_size
    if folder is None or size is None or not any(tower.frozen for tower in model.vision_towers):
        return KeptFeatures(Path())
    # Weights that started at random are nowhere else.
    sources = [settings if settings.has_weights else None for settings in recipe.model.towers]
    pairs = zip(model.vision_towers, sources, strict=True)
    encoders = [FrozenEncoder(tower, source) if tower.frozen else None for tower, source in pairs]
    return KeptFeatures(folder, encoders, size, accelerator.mixed_precision)


@dataclass
class FrozenEncoder:
    """The encoder of a frozen tower, whose weights are read when somebody needs them.

    Attributes:
        settings: where they come from; None where the tower has them.
    """

    tower: VisionTower
    settings: TowerSettings | None = None

    def __post_init__(self) -> None:
        self.release()

    def load(self) -> None:
        """Read the weights where they are not there."""
        if self.settings is not None and self.tower.backbone is None:
            load_tower(self.tower, self.settings)
            self.tower.to(self.tower.mean.device)  # on which it was without its weights

    def release(self) -> None:
        """Let go of weights that can be read again."""
        if self.settings is not None:
            self.tower.release()

    def weights_hash(self) -> str:
        """Tells the weights from others; noted for a file, so that the next run need not read it."""
        file_hash = self._file_hash
        return noted(f"weights {file_hash}", self._content_hash) if file_hash else self._content_hash()

    def _content_hash(self) -> str:
        self.load()
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.tower.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @cached_property
    def _file_hash(self) -> str | None:
        """Of the file that the weights come from and of how it is read; None where there is no file."""
        if self.settings is None or (path := weights_file(self.settings)) is None:
            return None
        # The same file is read later, whatever the Hub has by then.
        self.settings = replace(self.settings, checkpoint=str(path))
        given = asdict(replace(self.settings, checkpoint=None))
        return _hash(noted_sha256(path), given, asdict(self.tower.config), timm.__version__)


@dataclass
class KeptFeatures:
    """Finds features, or computes them.

    Attributes:
        encoders: for each of a model's towers; None for one that is trained. None at all keep nothing.
        image_size: of the squares that the processor makes of pictures, in pixels.
        precision: that the encoders run in: ``no``, ``bf16`` or ``fp16``.
        computed: pictures that an encoder was run on.
    """

    folder: Path
    encoders: Sequence[FrozenEncoder | None] = ()
    image_size: int = 1
    precision: str = "no"
    computed: int = 0

    def add_to(self, corpus: TrainingCorpus) -> None:
        """Give a corpus's splits the columns, let go of the encoders, and say what was done.

        Features are computed for the whole corpus, whichever posts are left out. Raises as `with_features`.
        """
        if not self.encoders:
            return
        with self.bar(*corpus.whole.values()) as bar:
            for split, rows in corpus.splits.items():
                columns = _picked(self.columns(corpus.whole[split], bar), np.array(corpus.places[split]))
                corpus.splits[split] = _beside(rows, columns)
        for encoder in filter(None, self.encoders):
            encoder.release()
        say(f"picture features: {self.computed} computed, kept in {self.folder}")

    def put_encoders_back(self) -> None:
        """Read the encoders again, so that the model computes from pixels."""
        for encoder in filter(None, self.encoders):
            encoder.load()

    def bar(self, *splits: Dataset) -> ProgressBar:
        """Of the splits' posts, once for each encoder."""
        return ProgressBar("picture features", sum(map(len, splits)) * sum(map(bool, self.encoders)))

    def columns(self, rows: Dataset, bar: ProgressBar) -> Dataset:
        """A column for each tower, as long as the rows; a picture that cannot be read has no features."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pictures = rows.select_columns([name for name in images.PICTURE_COLUMNS if name in rows.features])
        firsts = range(0, len(rows), _FILE_POSTS)
        chunks = [pictures.select(range(first, min(first + _FILE_POSTS, len(rows)))) for first in firsts]
        keys = [[[picture_key(picture) for picture in pictures_of(row)] for row in chunk] for chunk in chunks]
        columns = []
        for number, encoder in enumerate(self.encoders):
            name = f"{FEATURE_COLUMN}{number}"
            if encoder is None:
                columns.append(Dataset.from_dict({name: [None] * len(rows)}))
                continue
            weights, settings = encoder.weights_hash(), asdict(encoder.tower.config)
            about = (weights, settings, self.image_size, self.precision, timm.__version__)
            paths = [self.folder / f"{_hash(*about, own)}.arrow" for own in keys]
            files = [self._file(*pair, encoder, bar) for pair in zip(paths, chunks, strict=True)]
            columns.append(concatenate_datasets(files).rename_column(FEATURE_COLUMN, name))
        return concatenate_datasets(columns, axis=1)

    def _file(self, path: Path, posts: Dataset, encoder: FrozenEncoder, bar: ProgressBar) -> Dataset:
        """What is in a file, computed where none is whole; a killed process leaves it whole, or none."""
        if _is_whole(path):
            bar.update(len(posts))
        else:
            with FileLock(self.folder / ".lock"):
                for left in self.folder.glob("tmp*"):  # of killed processes
                    left.unlink()
                if not _is_whole(path):
                    if path.exists():
                        say(f"{path}: expected the SHA-256 noted beside it, found another; made again")
                    self._fill(path, posts, encoder, bar)
        return Dataset.from_file(str(path))

    def _fill(self, path: Path, posts: Dataset, encoder: FrozenEncoder, bar: ProgressBar) -> None:
        encoder.load()
        made = path.with_name(f"tmp-{path.name}")
        posts.map(
            partial(self._compute, encoder.tower, bar),
            batched=True,
            batch_size=_WRITTEN_POSTS,
            writer_batch_size=_WRITTEN_POSTS,
            remove_columns=posts.column_names,
            features=Features({FEATURE_COLUMN: List(Value("binary"))}),
            cache_file_name=str(made),
            new_fingerprint=path.stem,
        )
        write_text(path.with_suffix(".sha256"), sha256(made))
        made.replace(path)

    def _compute(
        self, tower: VisionTower, bar: ProgressBar, batch: dict[str, list[Any]]
    ) -> dict[str, list[list[bytes]]]:
        """The column of some posts. A picture that several of them have is run once."""
        rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        posts = [[(picture_key(picture), picture) for picture in pictures_of(row)] for row in rows]
        distinct = dict(chain.from_iterable(posts))
        squares = ahead(self._square, distinct.values(), threads=min(8, CORES), most=4 * _BATCH)
        pairs = zip(distinct, squares, strict=True)
        readable = ((key, square) for key, square in pairs if square is not None)
        found: dict[str, bytes] = {}
        while group := dict(islice(readable, _BATCH)):
            found |= self._features(tower, group)
        bar.update(len(posts))
        return {FEATURE_COLUMN: [[found[key] for key, _ in post if key in found] for post in posts]}

    def _square(self, picture: Any) -> np.ndarray | None:
        try:
            return images.square_pixels(images.load_picture(picture), self.image_size)
        except PictureError:
            return None

    @torch.inference_mode()
    def _features(self, tower: VisionTower, squares: dict[str, np.ndarray]) -> dict[str, bytes]:
        """The features (M, C) of at most `_BATCH` pictures (3, H, W), packed in bfloat16, which is enough."""
        batch, device = np.zeros((_BATCH, 3, self.image_size, self.image_size), np.uint8), tower.mean.device
        batch[: len(squares)] = list(squares.values())
        dtype = _AUTOCAST[self.precision]
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            features = tower.kept_features(torch.from_numpy(batch).to(device))
        self.computed += len(squares)
        return dict(zip(squares, map(packed, features.bfloat16().cpu()), strict=False))


def _is_whole(path: Path) -> bool:
    """Whether a file of features is as it was written: a flipped bit would change what is trained."""
    noted = path.with_suffix(".sha256")
    return path.is_file() and noted.is_file() and noted.read_text("utf-8", "replace") == sha256(path)


def _beside(rows: Dataset, columns: Dataset) -> Dataset:
    """The rows with more columns, of as many rows, which are not copied."""
    # A data set with a mapping of its indices would have those columns copied, too.
    return concatenate_datasets([rows if rows._indices is None else rows.flatten_indices(), columns], axis=1)


def _picked(columns: Dataset, places: np.ndarray) -> Dataset:
    """The rows at some places, none of them copied: slices of those that lie side by side, put together."""
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    return concatenate_datasets([columns.select(range(run[0], run[-1] + 1)) for run in runs])


def picture_key(picture: Any) -> str:
    """The hash of a picture's file, or else of its pixels; empty for one that cannot be read."""
    try:
        if isinstance(picture, Mapping):
            return picture_hash(picture)[:32]
        pixels = np.asarray(images.load_picture(picture))
        content = str(pixels.shape).encode() + pixels.tobytes()
    except (PictureError, OSError):
        return ""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _hash(*about: Any) -> str:
    text = json.dumps(about, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
