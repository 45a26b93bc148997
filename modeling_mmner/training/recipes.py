"""Recipes: what a system is made of and how it is trained, as one YAML file each.

A recipe has the sections ``corpus``, ``model`` and ``training``. Precedence: default < the recipe's file <
the command line. Each setting is an option of the command line by its own name. The model's defaults are
those of `MMNERConfig`.
"""

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

from dataset_scripts.corpora import BUILDERS, FOLDER_CORPUS
from dataset_scripts.reading_options import ReadingOptions, option

from ..files import read_yaml
from ..model.parts_mmner import (
    COMMON_SETTINGS,
    FUSIONS,
    TEXT_TOWERS,
    Setting,
    TextTowerPart,
    describe_type,
    fits_type,
    part_settings,
)
from .terms import check_terms, exists

PEOPLE = "people"
"""The writer of contexts that no model wrote."""
PLACES = ("data_dir", "image_dir", "context_file")
"""Settings that say where a corpus lies, but not what is in it."""
PACE = (
    "output_dir",
    "feature_cache",
    "mixed_precision",
    "num_workers",
    "resume",
    "checkpoint_steps",
    "checkpoints_kept",
)
"""Settings that change no result, or not by themselves: it is the precision in force that counts."""
TOWER_FLAGS = {"vision_backbone": "backbone", "vision_checkpoint": "checkpoint"}


@dataclass
class CorpusSettings(ReadingOptions):
    """What is trained and tested on. Raises TypeError for a value of another type, ValueError for one out of
    range.
    """

    dataset: str = option(
        "sample", f"{', '.join(BUILDERS)} (all but sample: files in --data_dir), a folder, or a Hub id"
    )
    dataset_config: str | None = option(None, "config of a data set that has several, as mmner's en or all")
    test_dataset: str | None = option(
        None, "folder or Hub id of another corpus, whose test split is tested on"
    )
    exclude_test_of: list[str] = option(
        [], "folders or Hub ids of corpora whose test posts are left out of training"
    )
    exclude_overlap: bool = option(
        False, "leave training posts out that occur in the validation or test split"
    )
    require_images: bool = option(False, "make a missing or broken picture an error")
    use_images: bool = option(True, "false withholds every picture, in training and evaluation")
    context: str | None = option(
        None,
        "column of the corpus, or field of --context_file, with a text about each post that is read beside"
        " it; none: no contexts",
    )
    context_file: list[str] = option(
        [], "files of JSON lines (or folders of them) with the posts' id and the field --context"
    )
    context_writer: str | None = option(
        None, "who wrote the contexts: people, or the name of a model; for the card"
    )
    languages: list[str] = option(
        [], "languages to take; a single one is also that of posts which do not say theirs"
    )
    test_languages: list[str] = option(
        [], "languages of the test split, where they are others than those of training"
    )
    language_temperature: float = option(
        1.0,
        "a language of n posts is drawn in proportion to n^(1/temperature); 1: as many as it has, large: all"
        " alike",
    )

    def __post_init__(self) -> None:
        _check_types(self)
        _check_positive(self, "language_temperature")
        if self.context == "" or (self.context_file and self.context is None):
            raise ValueError(
                "recipe context: expected the column, or field of context_file, that is read, found"
                f" {self.context!r} (--context)"
            )

    @property
    def source(self) -> str:
        """What tells which corpus it is: its name, or the folder of files that have no name."""
        return self.data_dir if self.dataset == FOLDER_CORPUS and self.data_dir else self.dataset


@dataclass
class TowerSettings:
    """A picture encoder of a recipe.

    Attributes:
        backbone: timm's name of the model, with or without its tag and the Hub's ``timm/``.
        frozen, pooled, backbone_args: see `VisionTowerConfig`.
        image_size: in pixels; None asks timm for the size of the model's pretraining.
        pretrained: whether it starts from timm's weights.
        checkpoint: file of weights to start from instead.
    """

    backbone: str
    frozen: bool = True
    pooled: bool = False
    backbone_args: dict[str, Any] | None = None
    image_size: int | None = None
    pretrained: bool = True
    checkpoint: str | None = None

    @classmethod
    def from_settings(cls, settings: Any) -> "TowerSettings":
        """A tower from plain settings. Raises ValueError for an unknown key or no backbone, TypeError for a
        wrong type.
        """
        if isinstance(settings, cls):
            return replace(settings)
        known = [item.name for item in fields(cls)]
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"recipe vision_towers: unknown keys {unknown}; expected some of {known}")
        if "backbone" not in settings:
            raise ValueError(
                "recipe vision_towers: expected 'backbone', the name of a timm model, found"
                f" {sorted(settings)}"
            )
        tower = cls(**settings)
        _check_types(tower, "recipe vision_towers")
        return tower

    @property
    def has_weights(self) -> bool:
        """Whether it comes with pretrained weights, and so learns at the rate of pretrained towers."""
        return self.pretrained or self.checkpoint is not None

    @property
    def model_name(self) -> str:
        """timm's name without the Hub's ``timm/``."""
        return self.backbone.removeprefix("hf-hub:").removeprefix("timm/")


def model_keys() -> dict[str, Setting]:
    """The keys of `MMNERConfig` that a recipe may give."""
    text_config = Setting(dict[str, Any], {}, "config of a text encoder from scratch")
    return {"text_config": text_config} | COMMON_SETTINGS | part_settings()


@dataclass
class ModelSettings:
    """What the model is made of: the encoders, where they come from, and what is handed to `MMNERConfig`.

    Attributes:
        config: keys of `MMNERConfig`, see `model_keys`.
    """

    text_encoder: str | None = option(
        None, "model id or folder of the text encoder; none trains text_config from scratch"
    )
    vocabulary_size: int = option(
        6000, "sub-tokens of the tokenizer of a text encoder from scratch; words of a text tower of words"
    )
    word_vectors: str | None = option(
        None, "file of word vectors in GloVe's format, from which a text tower of words starts"
    )
    word_bytes: int = option(64, "bytes of a word that a text tower of characters reads, at most")
    context_window: int = option(
        64, "sub-tokens of a context, at most; what a text leaves of the encoder's window may be less"
    )
    vision_towers: list[TowerSettings] | None = option(
        None,
        "picture encoders: backbone, frozen, pooled, image_size, backbone_args, pretrained, checkpoint; none:"
        " the fusion's own",
    )
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known_keys = model_keys()
        for name, value in self.config.items():
            known_keys[name].check(name, value, owner="recipe")
        if (towers := self.vision_towers) is not None:
            if not isinstance(towers, list) or not all(
                isinstance(tower, (dict, TowerSettings)) for tower in towers
            ):
                raise TypeError(f"recipe vision_towers: expected list of mappings, found {towers!r}")
            self.vision_towers = [TowerSettings.from_settings(tower) for tower in towers]
        _check_types(self)
        _check_at_least_one(self, "vocabulary_size", "word_bytes", "context_window")
        text_tower = self.text_tower
        if self.text_encoder is not None and not text_tower.has_encoder:
            raise ValueError(
                f"recipe text_encoder: expected none with a text tower of words, found {self.text_encoder!r}"
            )
        if self.word_vectors is not None and text_tower.has_encoder:
            raise ValueError(
                "recipe word_vectors: expected a text tower of words, found a transformers encoder and"
                f" {self.word_vectors!r}"
            )

    @property
    def text_tower(self) -> TextTowerPart:
        """The row of the text tower."""
        return TEXT_TOWERS[self.config.get("text_tower", COMMON_SETTINGS["text_tower"].default)]

    @property
    def towers(self) -> list[TowerSettings]:
        """The picture encoders, those of the fusion where none are given."""
        if self.vision_towers is not None:
            return self.vision_towers
        known = {item.name for item in fields(TowerSettings)}  # timm tells the rest
        default = FUSIONS[self.config.get("fusion", COMMON_SETTINGS["fusion"].default)].default_towers
        return [TowerSettings(**{key: tower[key] for key in tower.keys() & known}) for tower in default]


@dataclass
class TrainingSettings:
    """How the model is trained. Raises TypeError for a value of another type, ValueError for one out of
    range.
    """

    epochs: int = option(10, "passes over the training split")
    batch_size: int = option(32, "posts a step and process")
    accumulation: int = option(1, "batches a step")
    learning_rate: float = option(3e-5, "of the pretrained towers")
    head_learning_rate: float = option(3e-4, "of all that is not a pretrained tower")
    weight_decay: float = option(0.01, "on matrices, not on biases and norms")
    warmup_share: float = option(0.1, "share of the steps in which the learning rate rises")
    max_grad_norm: float = option(1.0, "clip the gradient's norm")
    centre_warmup_epochs: int = option(2, "epochs before the first entity centres (clustering)")
    centre_refresh_epochs: int = option(2, "epochs between refreshes of the centres")
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = option(
        "auto", "auto: bf16 where the device is fast at it"
    )
    compile: bool = option(
        False, "run encoders and fusion through torch.compile: the first steps take minutes, the others less"
    )
    seed: int = option(1, "random seed")
    num_workers: int | None = option(
        None,
        "processes that prepare batches; none: where a step opens pictures, one for each core but one, and 4"
        " at most",
    )
    output_dir: str = option("outputs", "folder of the run's results")
    compare_without_pictures: bool = option(
        False, "train the same model without pictures as well, and compare"
    )
    feature_cache: str = option(
        "auto",
        "folder of the kept features of frozen picture encoders; auto: beside Hugging Face's own caches; off:"
        " keep none",
    )
    patience: int = option(
        0, "epochs without a better validation F1 after which training ends; 0: all epochs"
    )
    checkpoint_steps: int = option(0, "steps between checkpoints; 0: at the end of each epoch alone")
    checkpoints_kept: int = option(2, "checkpoints that stay while training goes on")
    resume: str = option(
        "auto",
        "auto: go on from the newest checkpoint in output_dir, if any; never: begin anew; else the folder of"
        " a checkpoint",
    )
    transfer: bool = option(False, "train on each language alone, test on each (zero-shot transfer)")

    def __post_init__(self) -> None:
        _check_types(self)
        _check_at_least_one(
            self, "epochs", "batch_size", "accumulation", "centre_refresh_epochs", "checkpoints_kept"
        )
        _check_positive(self, "learning_rate", "head_learning_rate", "max_grad_norm")
        for name in (
            "weight_decay",
            "centre_warmup_epochs",
            "seed",
            "num_workers",
            "patience",
            "checkpoint_steps",
        ):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"recipe {name}: expected a number >= 0, found {getattr(self, name)}")
        if self.transfer and self.compare_without_pictures:
            raise ValueError(
                "recipe transfer: expected no compare_without_pictures beside it, which compares other"
                " models, found both; --compare_without_pictures false leaves it out"
            )
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"recipe warmup_share: expected a share in 0..1, found {self.warmup_share}")


SECTIONS = {"corpus": CorpusSettings, "model": ModelSettings, "training": TrainingSettings}


@dataclass
class Recipe:
    """Every setting of a training run. Each setting of a section is an option of the command line.

    Attributes:
        name, description: of the recipe, one line each.
        terms: licences of corpora and pretrained encoders, as the Hub spells them; ``none``: published
            without one.
    """

    name: str = "mlmner"
    description: str = ""
    terms: dict[str, str] = option(
        {},
        "licences of corpora and pretrained encoders, as NAME=LICENCE,PATH=LICENCE; none: published"
        " without one",
    )
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        _check_types(self)
        check_terms(self.terms)
        if self.corpus.context is not None and not self.model.text_tower.has_encoder:
            raise ValueError(
                "recipe context: expected none with a text tower of words, which reads none, found"
                f" {self.corpus.context!r}"
            )

    def with_settings(self, **settings: Any) -> "Recipe":
        """The recipe with other values of some settings, whatever their section.

        Raises:
            ValueError: an unknown setting, or a value out of its range.
            TypeError: a value of another type.
        """
        return recipe_from_settings(
            _updated(self.to_settings(), settings, "recipe", merge=False), source="recipe"
        )

    def to_settings(self) -> dict[str, Any]:
        """The recipe as it stands in a file: sections of plain values."""
        settings = asdict(self)
        model = settings["model"]
        settings["model"] = {key: value for key, value in model.items() if key != "config"} | model["config"]
        return settings

    def to_dict(self) -> dict[str, Any]:
        """`to_settings` with fusion, objectives and towers in force, and the Hub ids of the models that
        training starts from.
        """
        settings = self.to_settings()
        fusion = settings["model"].setdefault("fusion", COMMON_SETTINGS["fusion"].default)
        settings["model"]["objectives"] = settings["model"].get("objectives") or dict(
            FUSIONS[fusion].default_objectives
        )
        settings["model"]["vision_towers"] = [asdict(tower) for tower in self.model.towers]
        return settings | {"base_models": self.base_models()}

    def base_models(self) -> list[str]:
        """Hub ids of the pretrained towers; those that come from a local path are left out."""
        towers = [tower.backbone for tower in self.model.towers if tower.pretrained and not tower.checkpoint]
        names = [name for name in (self.model.text_encoder, *towers) if name is not None]
        return [name for name in names if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not exists(name)]


def flat_settings(recipe: Mapping[str, Any], *, without: Collection[str]) -> dict[str, Any]:
    """The settings of `Recipe.to_dict`, whatever their section, as JSON holds them."""
    settings = {
        key: value for section in SECTIONS for key, value in recipe[section].items() if key not in without
    }
    return json.loads(json.dumps(settings))


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Which settings differ, and how, in words; empty: none."""
    keys = [key for key in sorted({*expected, *found}) if expected.get(key) != found.get(key)]
    return ", ".join(
        f"{key} (expected {expected.get(key)!r:.80}, found {found.get(key)!r:.80})" for key in keys
    )


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    files = resources.files(__package__).joinpath("recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by its name or by the path of a YAML file, with `overrides` on top, by the settings' names.

    Mappings are merged key by key, so that ``{"objectives": {"clustering": 0}}`` leaves the other weights.

    Raises:
        ValueError: no such recipe, a file that is no mapping in YAML, or an unknown key in it or in the
            overrides.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else None
    if path is None and name not in recipe_names():
        raise ValueError(f"recipe {name!r}: expected one of {recipe_names()} or the path of a .yaml file")
    source = path if path is not None else resources.files(__package__).joinpath("recipes", f"{name}.yaml")
    settings = {"name": name if path is None else path.stem} | _read_mapping(source)
    source_name = f"recipe {name!r}"
    return recipe_from_settings(
        _updated(settings, overrides or {}, source_name, merge=True), source=source_name
    )


def _read_mapping(source: Any) -> dict[str, Any]:
    """The settings in a recipe's file."""
    if not source.is_file():
        raise ValueError(f"recipe {source}: expected a YAML file, found none")
    try:
        settings = read_yaml(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"recipe {source}: expected YAML; {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"recipe {source}: expected a mapping of settings, found {type(settings).__name__}")
    return settings


def settings_of(section: str) -> dict[str, Any]:
    """The keys of a section with their types."""
    hints = get_type_hints(SECTIONS[section])
    if section == "model":
        hints.pop("config")
        hints |= {name: setting.type for name, setting in model_keys().items()}
    return hints


def section_of(key: str) -> str | None:
    """The section that a setting belongs to; None for those of the recipe itself, and for unknown ones."""
    return next((section for section in SECTIONS if key in settings_of(section)), None)


def _updated(
    settings: dict[str, Any], overrides: Mapping[str, Any], source: str, *, merge: bool
) -> dict[str, Any]:
    """Settings in sections, with overrides by their plain names on top; mappings are merged key by key where
    wanted.
    """
    settings = {
        key: dict(value) if key in SECTIONS and isinstance(value, dict) else value
        for key, value in settings.items()
    }
    flags = {TOWER_FLAGS[key]: value for key, value in overrides.items() if key in TOWER_FLAGS}
    for key, value in overrides.items():
        if key in TOWER_FLAGS:
            continue
        section = section_of(key)
        if section is None and key not in {"name", "description", "terms"}:
            raise ValueError(f"{source}: unknown keys {[key]}; expected some of {all_setting_names()}")
        place = settings if section is None else settings.setdefault(section, {})
        if not isinstance(place, dict):
            raise TypeError(f"{source}, section {section!r}: expected a mapping of settings, found {place!r}")
        before = place.get(key)
        if before is None and key == "objectives":
            fusion = overrides.get("fusion", place.get("fusion", COMMON_SETTINGS["fusion"].default))
            before = dict(FUSIONS[fusion].default_objectives) if fusion in list(FUSIONS) else None
        place[key] = (
            before | value if merge and isinstance(value, dict) and isinstance(before, dict) else value
        )
    if flags:
        model = settings.setdefault("model", {})
        model["vision_towers"] = _flagged_towers(model, flags, source)
    return settings


def _flagged_towers(model: dict[str, Any], flags: dict[str, Any], source: str) -> list[TowerSettings]:
    """The towers of a model section with the values that the command line gives for each of them."""
    towers = recipe_from_settings({"model": model}, source=source).model.towers
    for key, value in flags.items():
        values = str(value).split(",")
        if len(values) != len(towers):
            raise ValueError(
                f"{source}: expected {len(towers)} values of vision_{key}, one per vision tower, found"
                f" {value!r}"
            )
        changes: list[dict[str, Any]] = [{key: item} if item else {} for item in values]  # nothing: as it was
        towers = [replace(tower, **change) for tower, change in zip(towers, changes, strict=True)]
    return towers


def all_setting_names() -> list[str]:
    return [key for section in SECTIONS for key in settings_of(section)]


def recipe_from_settings(settings: Mapping[str, Any], source: str) -> Recipe:
    """A recipe from settings in sections, as in a file; `source` names them in errors.

    Raises:
        ValueError: an unknown key, a key in the wrong place, a value out of its range.
        TypeError: a value of another type.
    """
    if not isinstance(settings, Mapping):
        raise TypeError(f"{source}: expected a mapping of settings, found {type(settings).__name__}")
    own = [item.name for item in fields(Recipe)]
    if unknown := sorted(set(settings) - set(own)):
        places = [
            f"{key!r} belongs to the section {section!r}" for key in unknown if (section := section_of(key))
        ]
        raise ValueError(
            f"{source}: unknown keys {unknown}; expected some of"
            f" {own}{''.join(f'; {place}' for place in places)}"
        )
    values = {key: value for key, value in settings.items() if key not in SECTIONS}
    for section, kind in SECTIONS.items():
        given = settings.get(section, {})
        if not isinstance(given, dict):
            raise TypeError(f"{source}, section {section!r}: expected a mapping of settings, found {given!r}")
        hints = settings_of(section)
        if unknown := sorted(set(given) - set(hints)):
            raise ValueError(
                f"{source}, section {section!r}: unknown keys {unknown}; expected some of {list(hints)}"
            )
        given = {key: _number(value) if hints[key] is float else value for key, value in given.items()}
        if isinstance(weights := given.get("objectives"), dict):
            given["objectives"] = {name: _number(weight) for name, weight in weights.items()}
        if kind is ModelSettings:
            ours = {item.name for item in fields(kind)}
            config = {key: value for key, value in given.items() if key not in ours}
            given = {key: value for key, value in given.items() if key in ours} | {"config": config}
        values[section] = kind(**given)
    return Recipe(**values)


def _number(value: Any) -> Any:
    """A float from its text: YAML 1.1 takes 1e-4 for a string."""
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _check_types(settings: Any, place: str = "recipe") -> None:
    hints = get_type_hints(type(settings))
    for item in fields(settings):
        value = getattr(settings, item.name)
        if not fits_type(value, hints[item.name]):
            raise TypeError(
                f"{place} {item.name}: expected {describe_type(hints[item.name])}, found {value!r}"
            )


def _check_at_least_one(settings: Any, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(f"recipe {name}: expected at least 1, found {getattr(settings, name)}")


def _check_positive(settings: Any, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"recipe {name}: expected a number > 0, found {getattr(settings, name)}")
