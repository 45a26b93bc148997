"""Recipes and configs: each setting with values of each wrong kind, and files that are no recipes."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import yaml

from modeling_mmner import MMNERConfig
from modeling_mmner.model.parts_mmner import SETTINGS
from modeling_mmner.training.recipes import MODEL_KEYS, SECTIONS, load_recipe, recipe_from_settings
from tests.tiny import tiny_config

from .cases import Bench, Case, is_own, refused, taken

VALUES: list[Any] = [None, True, -1, 0, 10**400, 0.5, float("nan"), float("inf"), "", "x", "\ud83d", []]
VALUES += [[1, None], {}, {"a": [{}]}, {1: 2}]
LAUGHS = zip("abcdefgh", "bcdefghi", strict=True)
RECIPES: dict[str, str | bytes] = {
    "empty": "",
    "a list": "[1, 2]",
    "no YAML": "a: [",
    "NUL": "a: \0",
    "UTF-16": "a: 1".encode("utf-16"),
    "an object of Python": "model: !!python/object/apply:os.system ['true']",
    "a mapping for a key": "? {a: 1}\n: 2",
    "a list within itself": "terms: &a [*a]",
    "a billion laughs": "a: &a [x]\n" + "".join(f"{c}: &{c} [{'*' + p}, {'*' + p}]\n" for p, c in LAUGHS),
    "nested 20,000 deep": "a: " + "[" * 20_000,
    "numbers for keys": "1: 2",
    "an unknown key": "training: {epoch: 3}",
    "a section that is a list": "training: [1]",
    "a tower without a name": "model: {vision_towers: [{frozen: true}]}",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "labels that are a list": {"id2label": ["O"]},
    "a label of 10^9": {"id2label": {"1000000000": "O"}},
    "a tower on the Hub": {"vision_towers": [{"backbone": "hf-hub:a/b"}]},
    "a deviation of 0": {"vision_towers": [{"backbone": "resnet10t", "std": [0.0, 1.0, 1.0]}]},
    "an encoder that nobody knows": {"text_config": {"model_type": "evil"}},
    "texts for numbers": {"text_config": {"model_type": "bert", "hidden_size": "x"}},
    "no type of torch's": {"dtype": "float7"},
}
KEYS = {"config": [*SETTINGS, "dropout", "fusion", "text_tower", "objectives", "vision_towers", "id2label"]}
KEYS |= {section: list(kind.__dataclass_fields__) for section, kind in SECTIONS.items()}
KEYS["model"] += MODEL_KEYS


def saved_config() -> dict[str, Any]:
    """A config as it is saved."""
    return json.loads(tiny_config().to_json_string(use_diff=False))


def every_value(_: Bench, place: tuple[str, str]) -> None:
    """Each value is taken, or refused by an error of the package's own."""
    section, key = place
    for value in map(copy.deepcopy, VALUES):
        try:
            if section == "config":
                MMNERConfig.from_dict(saved_config() | {key: value})
            else:
                recipe = recipe_from_settings({section: {key: value}}, source="recipe")
                yaml.safe_dump(recipe.to_settings())
        except Exception as error:
            assert is_own(error), f"{key} {value!r}: {type(error).__name__}: {error}"


def load_file(bench: Bench, content: str | bytes) -> None:
    load_recipe(str(bench.file("recipe.yaml", content)))


def cases() -> Iterator[Case]:
    yield from refused("recipe file", "^recipe ", RECIPES, load_file)
    places = {f"{section}.{key}": (section, key) for section, keys in KEYS.items() for key in keys}
    yield from taken("setting", places, every_value)
    named = "id2label|vision tower|text_config|MMNERConfig"
    configs = {name: saved_config() | settings for name, settings in CONFIGS.items()}
    yield from refused("config", named, configs, lambda _, config: MMNERConfig.from_dict(config))
