"""The picture features of a training run: frozen encoders whose features are all there are not even read.

Which features are an encoder's depends on its weights. A file of weights that was read once is known by its
hash, so that the next run finds their features without reading it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
from accelerate import Accelerator
from huggingface_hub import try_to_load_from_cache

from ..files import write_text
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.processing_mmner import MMNERProcessor
from ..model.vision_mmner import VisionTower
from .assembly import load_tower
from .features import SOURCES, FeatureStore, FrozenTower, PictureFeatures, default_folder, open_store
from .recipes import Recipe, TowerSettings

OFF = "off"


def feature_folder(setting: str) -> Path | None:
    """The folder that the setting `feature_cache` names; None where features are not kept."""
    return None if setting == OFF else default_folder() if setting == "auto" else Path(setting).expanduser()


@dataclass
class _Encoder:
    """A frozen tower whose weights are read when somebody needs them."""

    tower: VisionTower
    settings: TowerSettings
    device: Any
    is_loaded: bool = False

    def load(self) -> None:
        if not self.is_loaded:
            load_tower(self.tower, self.settings)
            self.tower.to(self.device)
            self.is_loaded = True

    def release(self) -> None:
        if self.settings.has_weights:  # what started at random is nowhere else
            self.tower.release()
            self.is_loaded = False


@dataclass
class RunFeatures:
    """The features of a run, and the encoders that they stand for.

    Attributes:
        features: see `PictureFeatures`; None where nothing is kept.
        encoders: the frozen towers.
    """

    features: PictureFeatures | None = None
    encoders: list[_Encoder] = field(default_factory=list)

    def fill(self, splits: dict[str, Any]) -> str:
        """Compute what is missing for the pictures of all splits, and let go of the encoders; returns in
        words what was done.
        """
        if self.features is None:
            return ""
        for rows in splits.values():
            self.features.fill(rows)
        for encoder in self.encoders:
            encoder.release()
        sizes = [frozen.store.bytes for frozen in self.features.frozen]
        folders = ", ".join(str(frozen.store.folder) for frozen in self.features.frozen)
        return f"picture features: {self.features.computed} computed, {sum(sizes) / 1e6:,.1f} MB in {folders}"

    def put_encoders_back(self) -> None:
        """Read the encoders again, so that the model computes from pixels."""
        for encoder in self.encoders:
            encoder.load()


def run_features(
    recipe: Recipe, processor: MMNERProcessor, model: MMNERForTokenClassification, accelerator: Accelerator
) -> RunFeatures:
    """The features of a run's frozen towers, whose weights `build_model` has left out where they are kept.

    Raises:
        FeatureError: a file of features cannot be read.
    """
    folder, size = feature_folder(recipe.training.feature_cache), processor.image_size
    if folder is None or size is None or not any(tower.frozen for tower in model.vision_towers):
        return RunFeatures()
    towers: list[FrozenTower | None] = []
    encoders = []
    for tower, settings in zip(model.vision_towers, recipe.model.towers, strict=True):
        if tower.frozen:
            own = replace(settings)  # the recipe's shall not learn where this machine keeps the file
            encoders.append(_Encoder(tower, own, accelerator.device, is_loaded=not settings.has_weights))
            store = _store_of(folder, encoders[-1], image_size=size, precision=accelerator.mixed_precision)
        towers.append(FrozenTower(tower, store, encoders[-1].load) if tower.frozen else None)
    return RunFeatures(PictureFeatures(size, towers, autocast=accelerator.autocast), encoders)


def _store_of(folder: Path, encoder: _Encoder, *, image_size: int, precision: str) -> FeatureStore:
    """The features of an encoder, found by the file of its weights where that was read before."""
    source = _source(encoder, image_size=image_size, precision=precision)
    known = folder / SOURCES / source if source is not None else None
    if known is not None and known.is_file():
        return FeatureStore(folder / known.read_text(encoding="utf-8"))
    encoder.load()
    store = open_store(folder, encoder.tower, image_size=image_size, precision=precision)
    if known is not None:
        known.parent.mkdir(exist_ok=True)
        write_text(known, store.folder.name)
    return store


def _source(encoder: _Encoder, *, image_size: int, precision: str) -> str | None:
    """The hash of the file that an encoder's weights come from and of all else that its features depend
    on.
    """
    settings = encoder.settings
    path: Any = settings.checkpoint
    if (
        path is None
        and settings.has_weights
        and (cfg := timm.get_pretrained_cfg(settings.model_name)) is not None
    ):
        path = cfg.hf_hub_id and try_to_load_from_cache(cfg.hf_hub_id, "model.safetensors")
    if not isinstance(path, (str, Path)) or not Path(path).is_file():
        return None
    settings.checkpoint = str(path)  # the same file is read at the end, whatever the Hub has by then
    with open(path, "rb") as file:
        weights = hashlib.file_digest(file, "blake2b").hexdigest()
    given = asdict(replace(settings, checkpoint=None))
    about = [weights, encoder.tower.config.to_diff_dict(), given, image_size, precision, timm.__version__]
    return hashlib.blake2b(
        json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16
    ).hexdigest()
