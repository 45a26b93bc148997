"""Recipes: what a system is made of and how it is trained, as one YAML file each.

Precedence: default < the recipe's file < the command line. Each setting is an option of the command line by
its own name. The model's defaults are those of `MMNERConfig`.
"""

import json
import os
import re
from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal

from dataset_scripts.corpora import BUILDERS, FOLDER_CORPUS
from dataset_scripts.reading_options import ReadingOptions

from ..files import read_yaml
from ..model import parts_mmner as parts
from ..model.parts_mmner import POSITIVE, SHARE, Range, Setting, Settings, option, settings_in
from ..names import names_like

PEOPLE = "people"
"""The writer of contexts that no model wrote."""
PLACES = ("data_dir", "image_dir", "context_file")
"""Settings that say where a corpus lies, but not what is in it."""
PACE = (
    *("output_dir", "feature_cache", "mixed_precision", "num_workers"),
    *("resume", "checkpoint_steps", "checkpoints_kept", "card_examples", "report_to"),
)
"""Settings on which a run's result does not depend. (Of `mixed_precision` the one in force counts.)"""
_OF_ONE_CORPUS: dict[str, Any] = {"dataset_config": None, "languages": [], "context_writer": None}
"""Settings of a recipe that speak of its corpus alone, and their values for any other."""
TOWER_FLAGS = {"vision_backbone": "backbone", "vision_checkpoint": "checkpoint"}

_FOLDER = resources.files(__package__).joinpath("recipes")

_TEXT_CONFIG = Setting(dict[str, Any], {}, "config of a text encoder from scratch")
MODEL_KEYS = ChainMap(parts.SETTINGS, {"text_config": _TEXT_CONFIG})
"""The keys of `MMNERConfig` that a recipe may give, those of parts that others add included."""

_AT_LEAST_ONE = Range("at least 1", lambda value: value >= 1)
_NAME = Range("a timm model's name", bool)
_NOT_NEGATIVE = Range("a number >= 0", lambda value: value >= 0)


def _check_keys(given: Any, known: Collection[str], place: str) -> None:
    if not isinstance(given, Mapping):
        raise TypeError(f"{place}: expected a mapping of settings, found {given!r:.200}")
    if unknown := sorted(set(map(str, given)) - set(known)):
        hints = [
            f"; {key!r} belongs to the section {section!r}" for key in unknown if (section := section_of(key))
        ] or [f"; did you mean {close[0]!r}?" for key in unknown if (close := get_close_matches(key, known))]
        raise ValueError(f"{place}: unknown keys {unknown}; expected some of {[*known]}{''.join(hints)}")


@dataclass
class CorpusSettings(Settings, ReadingOptions):
    """What is trained and tested on."""

    dataset: str = option("sample", f"{', '.join(BUILDERS)} (with --data_dir), a folder, or a Hub id")
    dataset_config: str | None = option(None, "config of a data set that has several, as mmner's en or all")
    test_dataset: str | None = option(None, "folder or Hub id of a corpus whose test split is tested on")
    exclude_overlap: bool = option(False, "leave out training posts that are in the validation or test split")
    require_images: bool = option(False, "make a missing or broken picture an error")
    use_images: bool = option(True, "read the pictures; without, training and evaluation see none")
    context: str | None = option(None, "column, or field of --context_file, that is read beside each post")
    context_file: list[str] = option([], "JSON lines (or folders of them) with posts' id and field --context")
    context_writer: str | None = option(None, "who wrote the contexts: people, or a model; for the card")
    languages: list[str] = option([], "languages to take; a single one is also that of posts without any")
    test_languages: list[str] = option([], "languages of the test split, where they are others")

    @property
    def source(self) -> str:
        """What tells which corpus it is: its name, or the folder of files that have no name."""
        return self.data_dir if self.dataset == FOLDER_CORPUS and self.data_dir else self.dataset


@dataclass
class TowerSettings(Settings):
    """A picture encoder of a recipe; `frozen`, `pooled` and `backbone_args` as in `VisionTowerConfig`."""

    owner: ClassVar[str] = "recipe vision_towers"
    backbone: str = option("", "timm's name, with or without its tag and the Hub's timm/", range=_NAME)
    frozen: bool = option(True, "keep its weights as they are")
    pooled: bool = option(False, "make one vector of a post's pictures")
    backbone_args: dict[str, Any] | None = option(None, "keyword arguments of timm's model")
    image_size: int | None = option(None, "in pixels; none: that of the model's pretraining")
    pretrained: bool = option(True, "start from timm's weights")
    checkpoint: str | None = option(None, "file of weights to start from instead")

    @property
    def has_weights(self) -> bool:
        """Whether it comes with pretrained weights, and so learns at the rate of pretrained towers."""
        return self.pretrained or self.checkpoint is not None

    @property
    def model_name(self) -> str:
        """timm's name without the Hub's ``timm/``."""
        return self.backbone.removeprefix("hf-hub:").removeprefix("timm/")


@dataclass
class ModelSettings(Settings):
    """What the model is made of: the encoders, where they come from, and in `config` the `MODEL_KEYS`."""

    text_encoder: str | None = option(None, "id or folder of the encoder; none: text_config from scratch")
    vocabulary_size: int = option(6000, "sub-tokens, or words, of a tower from scratch", range=_AT_LEAST_ONE)
    word_vectors: str | None = option(None, "vectors in GloVe's format, from which a tower of words starts")
    word_bytes: int = option(64, "bytes of a word that are read by character, at most", range=_AT_LEAST_ONE)
    context_window: int = option(64, "sub-tokens of a context that are read, at most", range=_AT_LEAST_ONE)
    vision_towers: list[TowerSettings] | None = option(None, "picture encoders; none: the fusion's own")
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.config.items():
            MODEL_KEYS[name].check(name, value, owner="recipe")
        towers: Any = self.vision_towers  # of a file they are mappings
        if isinstance(towers, list) and all(isinstance(tower, dict) for tower in towers):
            for tower in towers:
                _check_keys(tower, settings_in(TowerSettings), TowerSettings.owner)
            self.vision_towers = [TowerSettings(**tower) for tower in towers]
        super().__post_init__()
        of_words, of_encoders = ("words", "text_encoder"), ("sub-tokens", "word_vectors")
        kind, useless = of_encoders if self.text_tower.has_encoder else of_words
        if (found := getattr(self, useless)) is not None:
            raise ValueError(f"recipe {useless}: expected none with a text tower of {kind}, found {found!r}")

    @property
    def text_tower(self) -> parts.TextTowerPart:
        return parts.TEXT_TOWERS[self.config.get("text_tower", parts.SETTINGS["text_tower"].default)]

    @property
    def fusion(self) -> str:
        return self.config.get("fusion", parts.SETTINGS["fusion"].default)

    @property
    def objectives(self) -> dict[str, float]:
        """The weights of the objectives, those of the fusion where none are given."""
        return self.config.get("objectives") or dict(parts.FUSIONS[self.fusion].default_objectives)

    @property
    def trains_pretrained(self) -> bool:
        """Whether an encoder comes with pretrained weights and learns on, at the rate of such towers."""
        return self.text_encoder is not None or any(one.has_weights and not one.frozen for one in self.towers)

    @property
    def towers(self) -> list[TowerSettings]:
        """The picture encoders, those of the fusion where none are given."""
        if self.vision_towers is not None:
            return self.vision_towers
        # What is known of a model beside these, timm tells.
        own, known = parts.FUSIONS[self.fusion].default_towers, settings_in(TowerSettings).keys()
        return [TowerSettings(**{key: tower[key] for key in known & tower.keys()}) for tower in own]


@dataclass
class TrainingSettings(Settings):
    """How the model is trained."""

    epochs: int = option(10, "passes over the training split", range=_AT_LEAST_ONE)
    batch_size: int = option(32, "posts a step and process", range=_AT_LEAST_ONE)
    accumulation: int = option(1, "batches a step", range=_AT_LEAST_ONE)
    learning_rate: float = option(3e-5, "of the pretrained towers", range=POSITIVE)
    head_learning_rate: float = option(3e-4, "of all that is not a pretrained tower", range=POSITIVE)
    weight_decay: float = option(0.01, "on matrices, not on biases and norms", range=_NOT_NEGATIVE)
    warmup_share: float = option(0.1, "share of the steps in which the learning rate rises", range=SHARE)
    max_grad_norm: float = option(1.0, "clip the gradient's norm", range=POSITIVE)
    centre_warmup_epochs: int = option(2, "epochs before the first entity centres", range=_NOT_NEGATIVE)
    centre_refresh_epochs: int = option(2, "epochs between refreshes of the centres", range=_AT_LEAST_ONE)
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = option("auto", "auto: bf16 where it is fast")
    seed: int = option(1, "random seed", range=_NOT_NEGATIVE)
    num_workers: int | None = option(None, "reading processes; none: by cores, up to 4", range=_NOT_NEGATIVE)
    output_dir: str = option("outputs", "folder of the run's results")
    compare_without_pictures: bool = option(False, "train the same model without pictures too, and compare")
    feature_cache: str = option("auto", "folder of frozen encoders' features; auto: in HF_HOME; off: none")
    patience: int = option(0, "epochs without a better F1 that end training; 0: all", range=_NOT_NEGATIVE)
    checkpoint_steps: int = option(0, "steps between checkpoints; 0: each epoch alone", range=_NOT_NEGATIVE)
    checkpoints_kept: int = option(2, "checkpoints that stay while training goes on", range=_AT_LEAST_ONE)
    resume: str = option("auto", "auto: the newest checkpoint in output_dir; never; or a checkpoint's folder")
    report_to: Literal["none", "tensorboard", "trackio", "wandb"] = option("none", "where curves go as well")
    card_examples: str | None = option(None, "JSON lines of posts that may be published, for card and page")


SECTIONS: dict[str, type] = {"corpus": CorpusSettings, "model": ModelSettings, "training": TrainingSettings}


@dataclass
class Recipe(Settings):
    """Every setting of a training run. Each but name and description is an option of the command line."""

    name: str = option("mlmner", "of the recipe")
    description: str = option("", "of the recipe, in a line")
    terms: dict[str, str] = option({}, "licences of corpora and encoders, as NAME=LICENCE; none: without one")
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, licence in self.terms.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
                expected = "expected a licence as the Hub spells it (mit, cc-by-nc-sa-4.0, ...) or none"
                raise ValueError(f"recipe terms, {name}: {expected}, found {licence!r}")
        context = self.corpus.context
        if context is not None and not self.model.text_tower.has_encoder:
            raise ValueError(f"recipe context: expected none with a text tower of words, found {context!r}")
        if context == "" or (self.corpus.context_file and context is None):
            expected = "expected the column, or field of context_file, that is read"
            raise ValueError(f"recipe context: {expected}, found {context!r} (--context)")

    def with_settings(self, **settings: Any) -> "Recipe":
        """The recipe with other values of some settings, whatever their section.

        What it says of its own corpus, name and description among it, does not outlive another one.

        Raises:
            ValueError, TypeError: as `recipe_from_settings`.
        """
        whole, source = self.to_settings(), f"recipe {self.name!r}"
        sections = {key: section for section, known in all_settings().items() for key in known}
        _check_keys(settings, sections, source)
        for key, value in settings.items():
            whole.get(sections[key], whole)[key] = value
        changed = recipe_from_settings(whole, source=source)
        if self.corpus.source in (place := changed.corpus.source, FOLDER_CORPUS):  # which names none yet
            return changed
        # The name of `Corpus`.
        name = Path(place).stem if os.path.isfile(place) else Path(place).absolute().name
        of_a_corpus = {"name": name, "description": "", **_OF_ONE_CORPUS}
        for key in of_a_corpus.keys() - settings.keys():
            whole.get(sections[key], whole)[key] = of_a_corpus[key]
        whole["terms"].pop(self.corpus.dataset, None)
        return recipe_from_settings(whole, source=source)

    def to_settings(self) -> dict[str, Any]:
        """The recipe as it stands in a file: sections of plain values."""
        settings = asdict(self)
        settings["model"] |= settings["model"].pop("config")
        return settings

    def to_dict(self) -> dict[str, Any]:
        """`to_settings` with fusion, objectives and towers in force, and the ids of `base_models`."""
        settings, model = self.to_settings(), self.model
        towers = [asdict(tower) for tower in model.towers]
        settings["model"] |= {"fusion": model.fusion, "objectives": model.objectives, "vision_towers": towers}
        return settings | {"base_models": self.base_models()}

    def base_models(self) -> list[str]:
        """Hub ids of the pretrained towers; those that come from a local path are left out."""
        towers = [tower.backbone for tower in self.model.towers if tower.pretrained and not tower.checkpoint]
        names = [name for name in (self.model.text_encoder, *towers) if name is not None]
        return [name for name in names if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not os.path.exists(name)]


def flat_settings(recipe: Mapping[str, Any], *, without: Collection[str]) -> dict[str, Any]:
    """The settings of `Recipe.to_dict`, whatever their section, as JSON holds them."""
    found = {key: value for section in SECTIONS for key, value in recipe[section].items()}
    return json.loads(json.dumps({key: value for key, value in found.items() if key not in without}))


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Which settings differ, and how, in words; empty: none."""
    pairs = {key: (expected.get(key), found.get(key)) for key in sorted({*expected, *found})}
    different = {key: (wanted, there) for key, (wanted, there) in pairs.items() if wanted != there}
    return ", ".join(f"{key} (expected {a!r:.80}, found {b!r:.80})" for key, (a, b) in different.items())


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir())


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by its name or by the path of a YAML file, with `overrides` on top, by the settings' names.

    Mappings are merged key by key, so that ``{"objectives": {"clustering": 0}}`` leaves the other weights.
    ``vision_backbone`` and ``vision_checkpoint`` change one key of each picture encoder.

    Raises:
        ValueError, TypeError: no such recipe, or a file or overrides that make none.
    """
    path: Any = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in (names := recipe_names()):
            close = get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"recipe {name!r}: expected one of {names} or the path of a .yaml file{hint}")
        path = _FOLDER / f"{name}.yaml"
    try:
        settings = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "" if path.is_file() else names_like(name)
        raise ValueError(f"recipe {name!r}: expected a file of YAML; {error}{hint}") from error
    if isinstance(settings, dict):
        settings = {"name": path.name.rpartition(".")[0]} | settings
    return _overridden(recipe_from_settings(settings, source=f"recipe {name!r}"), overrides or {})


def _overridden(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with other settings; mappings change the keys that they name."""
    mappings = {key: value for key, value in overrides.items() if isinstance(value, dict)}
    plain = overrides.keys() - mappings.keys() - TOWER_FLAGS.keys()
    recipe = recipe.with_settings(**{key: overrides[key] for key in plain})
    in_force = {"terms": recipe.terms} | flat_settings(recipe.to_dict(), without=())
    changed = {key: (in_force.get(key) or {}) | value for key, value in mappings.items()}
    for flag in TOWER_FLAGS.keys() & overrides.keys():
        values, towers = str(overrides[flag]).split(","), in_force["vision_towers"]
        if len(values) != len(towers):
            raise ValueError(f"recipe {flag}: expected {len(towers)} values, one per tower, found {values}")
        for tower, value in zip(towers, values, strict=True):
            tower[TOWER_FLAGS[flag]] = value or tower[TOWER_FLAGS[flag]]  # nothing: as it was
        changed["vision_towers"] = towers
    return recipe.with_settings(**changed)


def all_settings() -> dict[str, dict[str, Setting]]:
    """The settings of a recipe itself (``recipe``) and of each section, by their names."""
    found = {name: settings_in(kind) for name, kind in {"recipe": Recipe, **SECTIONS}.items()}
    return found | {"model": {**found["model"], **MODEL_KEYS}}


def section_of(key: str) -> str | None:
    """The section that a setting belongs to; None for those of the recipe itself, and for unknown ones."""
    return next((section for section in SECTIONS if key in all_settings()[section]), None)


def recipe_from_settings(settings: Mapping[str, Any], source: str) -> Recipe:
    """A recipe from settings in sections, as in a file; `source` names them in errors.

    Raises:
        ValueError: an unknown key, a key in the wrong place, a value out of its range.
        TypeError: a value of another type.
    """
    _check_keys(settings, [item.name for item in fields(Recipe)], source)
    values = {key: value for key, value in settings.items() if key not in SECTIONS}
    for section, kind in SECTIONS.items():
        given = settings.get(section, {})
        _check_keys(given, all_settings()[section], f"{source}, section {section!r}")
        own = {key: given[key] for key in settings_in(kind).keys() & given.keys()}
        config = {key: value for key, value in given.items() if key not in own}
        values[section] = kind(**own, config=config) if section == "model" else kind(**own)
    return Recipe(**values)
