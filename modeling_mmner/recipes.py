"""Recipes: what a system is made of and how it is trained, as one YAML file each.

Precedence: the defaults below < the recipe's file < the command line. A key that nobody knows is an error in each.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import yaml

from dataset_scripts.schemes import TagScheme

from .configuration_mmner import FusionName, describe_type, fits_type
from .terms import check_terms

_TOWER_FLAGS = {"vision_backbone": "backbone", "vision_checkpoint": "checkpoint"}


def _setting(default: Any, help_text: str) -> Any:
    """A dataclass field with its help for the command line."""
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help_text})
    return field(default=default, metadata={"help": help_text})


@dataclass
class Recipe:
    """Every setting of a training run. Each field is a key of a recipe's YAML and an option of the command line.

    Raises:
        TypeError: a value of another type than its field's.
    """

    name: str = _setting("mlmner", "name of the recipe")
    description: str = _setting("", "one line about it")

    dataset: str = _setting(
        "sample", "sample, twitter2015, twitter2017, mmner, conll (the last four: files in --data_dir), a folder, or a Hub id"
    )
    dataset_config: str | None = _setting(None, "config of a data set that has several, as mmner's en or all")
    data_dir: str | None = _setting(None, "folder with train, valid and test files")
    image_dir: str | None = _setting(None, "folder with the pictures <id>.jpg of --data_dir")
    test_dataset: str | None = _setting(None, "folder or Hub id of another corpus, whose test split is tested on")
    split_slices: dict[str, str] = _setting(
        {}, "parts to take, as train=train[:4000],validation=val[2000:]; of each language's file"
    )
    exclude_test_of: list[str] = _setting([], "folders or Hub ids of corpora whose test posts are left out of training")
    exclude_overlap: bool = _setting(False, "leave training posts out that occur in the validation or test split")
    tag_scheme: TagScheme = _setting("bio", "of the files")
    rename_types: dict[str, str] = _setting({}, "entity types of the files to call otherwise, as OLD=NEW,OLD=NEW")
    repair_orphans: bool = _setting(False, "make an I- tag that continues nothing a B-; otherwise it stays")
    no_verify: bool = _setting(False, "take files that are not the official ones, with a warning")
    require_images: bool = _setting(False, "make a missing or broken picture an error")
    use_images: bool = _setting(True, "false withholds every picture, in training and evaluation")
    languages: list[str] = _setting([], "languages to take; of files that do not say theirs (conll), their language")
    test_languages: list[str] = _setting([], "languages of the test split, where they are others than those of training")
    language_temperature: float = _setting(
        1.0, "a language of n posts is drawn in proportion to n^(1/temperature); 1: as many as it has, large: all alike"
    )
    transfer: bool = _setting(False, "train on each language alone, test on each (zero-shot transfer)")
    terms: dict[str, str] = _setting(
        {}, "licences of corpora and pretrained encoders, as NAME=LICENCE,PATH=LICENCE; none: published without one"
    )

    text_encoder: str | None = _setting(None, "model id or folder of the text encoder; none trains text_config from scratch")
    text_config: dict[str, Any] = _setting({}, "config of a text encoder from scratch")
    vocabulary_size: int = _setting(6000, "sub-tokens of the tokenizer trained for a text encoder from scratch")
    vision_towers: list[dict[str, Any]] = _setting(
        [], "picture encoders: backbone, frozen, pooled, image_size, backbone_args, pretrained, checkpoint"
    )
    fusion: FusionName = _setting("cross-modal", "how pictures enter the words' features")
    fusion_heads: int | None = _setting(None, "attention heads of the fusion; none takes the text encoder's")
    dropout: float = _setting(0.1, "share in 0..1")
    objectives: dict[str, float] = _setting({"crf": 1.0}, "loss weights, as name=weight,name=weight; others are kept")
    contrastive_temperature: float = _setting(0.1, "temperature of the contrastive loss")
    contrastive_image_share: float = _setting(0.75, "share of image-to-text in the contrastive loss")

    alignment_temperature: float = _setting(0.5, "temperature of the alignment loss")

    epochs: int = _setting(10, "passes over the training split")
    batch_size: int = _setting(32, "posts a step and process")
    accumulation: int = _setting(1, "batches a step")
    learning_rate: float = _setting(3e-5, "of the pretrained towers")
    head_learning_rate: float = _setting(3e-4, "of all that is not a pretrained tower")
    weight_decay: float = _setting(0.01, "on matrices, not on biases and norms")
    warmup_share: float = _setting(0.1, "share of the steps in which the learning rate rises")
    max_grad_norm: float = _setting(1.0, "clip the gradient's norm")
    centre_warmup_epochs: int = _setting(2, "epochs before the first entity centres (clustering)")
    centre_refresh_epochs: int = _setting(2, "epochs between refreshes of the centres")
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = _setting("auto", "auto: bf16 where the device is fast at it")
    seed: int = _setting(1, "of everything random")
    num_workers: int = _setting(0, "processes that prepare batches")
    output_dir: str = _setting("outputs", "folder of the run's results")
    compare_without_pictures: bool = _setting(False, "train the same model without pictures as well, and compare")

    def __post_init__(self) -> None:
        hints = get_type_hints(Recipe)
        for item in fields(self):
            value = getattr(self, item.name)
            if not fits_type(value, hints[item.name]):
                raise TypeError(f"recipe {item.name}: expected {describe_type(hints[item.name])}, found {value!r}")
        for name in ("epochs", "batch_size", "accumulation", "centre_refresh_epochs", "vocabulary_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"recipe {name}: expected at least 1, found {getattr(self, name)}")
        for name in ("learning_rate", "head_learning_rate", "max_grad_norm", "language_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"recipe {name}: expected a number > 0, found {getattr(self, name)}")
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"recipe warmup_share: expected a share in 0..1, found {self.warmup_share}")
        check_terms(self.terms)
        known = ("backbone", "backbone_args", "frozen", "pooled", "image_size", "pretrained", "checkpoint")
        for tower in self.vision_towers:
            if unknown := sorted(set(tower) - set(known)):
                raise ValueError(f"recipe vision_towers: unknown keys {unknown}; expected some of {list(known)}")
            if "backbone" not in tower:
                raise ValueError(f"recipe vision_towers: expected 'backbone', the name of a timm model, found {sorted(tower)}")

    def to_dict(self) -> dict[str, Any]:
        """The settings, and the Hub ids of the models that training starts from."""
        return asdict(self) | {"base_models": self.base_models()}

    def base_models(self) -> list[str]:
        """Hub ids of the pretrained towers; those that come from a local path are left out."""
        towers = [tower for tower in self.vision_towers if tower.get("pretrained", True) and not tower.get("checkpoint")]
        names = [name for name in (self.text_encoder, *(tower["backbone"] for tower in towers)) if name is not None]
        return [name for name in names if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists()]


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    files = resources.files("modeling_mmner").joinpath("recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe by its name or by the path of a YAML file, with `overrides` on top.

    Mappings are merged key by key, so that ``{"objectives": {"clustering": 0}}`` leaves the other weights.

    Raises:
        ValueError: no such recipe, a file that is no mapping in YAML, or an unknown key in it or in the overrides.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else None
    if path is None and name not in recipe_names():
        raise ValueError(f"recipe {name!r}: expected one of {recipe_names()} or the path of a .yaml file")
    source = path if path is not None else resources.files("modeling_mmner").joinpath("recipes", f"{name}.yaml")
    settings = {"name": name if path is None else path.stem} | _read_mapping(source)
    for key, value in (overrides or {}).items():
        merges = isinstance(value, dict) and isinstance(settings.get(key), dict)
        settings[key] = settings[key] | value if merges else value
    return recipe_from_settings(settings, source=f"recipe {name!r}")


def _read_mapping(source: Any) -> dict[str, Any]:
    """The settings in a recipe's file."""
    if not source.is_file():
        raise ValueError(f"recipe {source}: expected a YAML file, found none")
    try:
        settings = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"recipe {source}: expected YAML; {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"recipe {source}: expected a mapping of settings, found {type(settings).__name__}")
    return settings


def recipe_from_settings(settings: dict[str, Any], source: str) -> Recipe:
    """A recipe from plain settings; `source` names them in errors."""
    settings = dict(settings)
    flags = {key: settings.pop(flag) for flag, key in _TOWER_FLAGS.items() if flag in settings}
    known = [item.name for item in fields(Recipe)]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"{source}: unknown keys {unknown}; expected some of {known}")
    for key, value in settings.items():
        if isinstance(value, str) and get_type_hints(Recipe)[key] is float:
            with suppress(ValueError):
                settings[key] = float(value)  # YAML 1.1 takes 1e-4 for a string
    recipe = Recipe(**settings)
    towers = [dict(tower) for tower in recipe.vision_towers]
    for key, value in flags.items():
        values = str(value).split(",")
        if len(values) != len(towers):
            raise ValueError(f"{source}: expected {len(towers)} values of vision_{key}, one per vision tower, found {value!r}")
        for tower, item in zip(towers, values, strict=True):
            tower[key] = item
    return replace(recipe, vision_towers=towers)


def parse_arguments(arguments: Sequence[str] | None = None) -> Recipe:
    """The recipe that a command line asks for: ``--recipe NAME`` and an option for every setting."""
    parser = argparse.ArgumentParser(
        description="Train a multimodal NER system from a recipe.", argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    parser.add_argument("--recipe", default="quickstart", help=f"one of {', '.join(recipe_names())}, or a YAML file")
    for flag, key in _TOWER_FLAGS.items():
        parser.add_argument(f"--{flag}", metavar="VALUE", help=f"{key} of the vision tower (several: separated by commas)")
    hints = get_type_hints(Recipe)
    for item in fields(Recipe):
        if item.name not in ("name", "description"):
            hint = hints[item.name]
            switch: dict[str, Any] = {"nargs": "?", "const": True} if hint is bool else {}  # --require_images alone means true
            parser.add_argument(f"--{item.name}", type=_reader(hint), metavar="VALUE", help=item.metadata["help"], **switch)
    options = vars(parser.parse_args(arguments))
    try:
        return load_recipe(options.pop("recipe"), options)
    except (TypeError, ValueError) as error:
        parser.error(str(error))


def _reader(hint: Any) -> Callable[[str], Any]:
    """What turns an option's text into a value of the setting's type."""
    if hint in (int, float):
        return hint
    if hint == dict[str, float]:
        return _weights
    if hint == dict[str, str]:
        return _mapping
    if hint == list[str]:
        return lambda text: text.split(",")
    if hint in (str, str | None) or get_origin(hint) is Literal:
        return lambda text: None if text == "none" and hint == str | None else text
    return _yaml_value


def _yaml_value(text: str) -> Any:
    """A value in YAML; ``none``, the word of the options' help, is nothing."""
    try:
        return None if text == "none" else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"expected a value in YAML, found {text!r}") from error


def _mapping(text: str) -> dict[str, str]:
    """``a=x,b=y`` -> {"a": "x", "b": "y"}."""
    try:
        return dict(pair.split("=") for pair in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected name=value,name=value, found {text!r}") from error


def _weights(text: str) -> dict[str, float]:
    """``a=1,b=0.5`` -> {"a": 1.0, "b": 0.5}."""
    try:
        return {name: float(weight) for name, weight in (pair.split("=") for pair in text.split(","))}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected name=weight,name=weight, found {text!r}") from error
