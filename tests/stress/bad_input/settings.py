"""Recipes and configs: each setting of each section with values of each wrong kind, and files that are no
recipes.
"""

import copy
import json
from collections.abc import Iterator
from typing import Any

import yaml

from modeling_mmner import MMNERConfig
from modeling_mmner.model.parts_mmner import part_settings
from modeling_mmner.training.recipes import SECTIONS, load_recipe, model_keys, recipe_from_settings
from tests.tiny import tiny_config

from .cases import Case

# Values of each kind; a setting takes some of them and refuses the rest in our words.
VALUES: dict[str, Any] = {
    "nothing": None,
    "a truth": True,
    "a negative number": -1,
    "zero": 0,
    "a huge number": 10**400,
    "a half": 0.5,
    "no number": float("nan"),
    "infinity": float("inf"),
    "an empty text": "",
    "a text": "x",
    "half an emoji": "\ud83d",
    "an empty list": [],
    "a list": [1, None],
    "an empty mapping": {},
    "a mapping": {"a": [{}]},
    "a mapping of numbers": {1: 2},
}
RECIPES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "expected a mapping of settings, found NoneType"),
    "a list": ("[1, 2]", "expected a mapping of settings, found list"),
    "a text": ("x", "expected a mapping of settings, found str"),
    "no YAML": ("a: [", "expected YAML"),
    "NUL": ("a: \0", "expected YAML"),
    "UTF-16": ("a: 1".encode("utf-16"), "expected YAML"),
    "an object of Python": ("model: !!python/object/apply:os.system ['true']", "expected YAML"),
    "a mapping for a key": ("? {a: 1}\n: 2", "expected YAML"),
    "a list within itself": ("terms: &a [*a]", "expected YAML"),
    "a billion laughs": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "expected YAML",
    ),
    "nested 20,000 deep": ("a: " + "[" * 20_000, "expected YAML"),
    "an unknown section": ("optimizer: {}", "unknown keys ['optimizer']"),
    "numbers for keys": ("1: 2", "unknown keys"),
    "an unknown key": ("training: {epoch: 3}", "unknown keys ['epoch']"),
    "a section that is a list": ("training: [1]", "expected a mapping of settings"),
    "a tower without a name": ("model: {vision_towers: [{frozen: true}]}", "expected 'backbone'"),
    "a tower that is a text": ("model: {vision_towers: [resnet]}", "expected list of mappings"),
    "numbers for keys of a tower": ("model: {vision_towers: [{1: 2, backbone: x}]}", "unknown keys"),
}
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "labels that are a list": ({"id2label": ["O"]}, "id2label: expected label names and their numbers"),
    "labels of texts": ({"id2label": {"a": "O"}}, "id2label: expected label names and their numbers"),
    "labels that are numbers": ({"id2label": {"0": 7}}, "id2label: expected label names and their numbers"),
    "a label of 10^9": ({"id2label": {"1000000000": "O"}}, "id2label: expected"),
    "towers that are a number": ({"vision_towers": 7}, "vision_towers: expected a list of mappings"),
    "towers that are texts": ({"vision_towers": ["x"]}, "vision_towers: expected a list of mappings"),
    "a tower on the Hub": (
        {"vision_towers": [{"backbone": "hf-hub:a/b"}]},
        "expected the name of a timm model",
    ),
    "a deviation of 0": (
        {"vision_towers": [{"backbone": "resnet10t", "std": [0.0, 1.0, 1.0]}]},
        "expected finite values, std > 0",
    ),
    "an encoder that nobody knows": (
        {"text_config": {"model_type": "evil"}},
        "expected the config of a text encoder",
    ),
    "an encoder that is a list": ({"text_config": []}, "text_config: expected a config or its dict"),
    "an encoder with texts for numbers": (
        {"text_config": {"model_type": "bert", "hidden_size": "x"}},
        "expected the config of a text encoder",
    ),
    "a type of numbers that torch does not have": (
        {"dtype": "float7"},
        "expected keys as transformers saves them",
    ),
    "a type of numbers that is a list": ({"dtype": [1]}, "dtype: expected the name of one of torch's"),
}


def cases() -> Iterator[Case]:
    """The rows."""
    for name, (content, error) in RECIPES.items():
        yield Case(
            "recipe file", name, lambda b, c=content: load_recipe(str(b.file("recipe.yaml", c))), error
        )
    for section, kind in SECTIONS.items():
        for key in (*kind.__dataclass_fields__, *(model_keys() if section == "model" else ())):
            yield Case("recipe setting", f"{section}.{key}", lambda _, s=section, k=key: every_value(s, k))
    for key in (
        *part_settings(),
        "dropout",
        "fusion",
        "text_tower",
        "objectives",
        "vision_towers",
        "word_vocabulary",
        "id2label",
    ):
        yield Case("config key", key, lambda _, key=key: every_value(None, key))
    for name, (settings, error) in CONFIGS.items():
        yield Case(
            "config",
            name,
            lambda _, settings=settings: MMNERConfig.from_dict(saved_config() | settings),
            error,
        )


def saved_config() -> dict[str, Any]:
    """A config as it is saved."""
    return json.loads(tiny_config().to_json_string(use_diff=False))


def every_value(section: str | None, key: str) -> None:
    """Each value is taken, or refused by an error that names the setting.

    Raises:
        AssertionError: it is refused in other words.
    """
    from .cases import is_own

    for name, value in VALUES.items():
        try:
            if section is None:
                MMNERConfig.from_dict(saved_config() | {key: copy.deepcopy(value)})
            else:
                recipe = recipe_from_settings({section: {key: copy.deepcopy(value)}}, source="recipe")
                yaml.safe_dump(recipe.to_settings())
        except Exception as error:
            assert is_own(error), f"{key} {name}: {type(error).__name__}: {error}"
