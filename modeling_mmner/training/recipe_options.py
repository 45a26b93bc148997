"""A recipe as a command line: an option for every setting."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Literal, get_origin

from ..files import read_yaml
from .recipes import (
    SECTIONS,
    TOWER_FLAGS,
    Recipe,
    all_setting_names,
    load_recipe,
    model_keys,
    recipe_names,
    settings_of,
)


def parse_arguments(arguments: Sequence[str] | None = None) -> Recipe:
    """The recipe that a command line asks for: ``--recipe NAME`` and an option for every setting."""
    parser = argparse.ArgumentParser(
        description="Train a multimodal NER system from a recipe.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--recipe", default="quickstart", help=f"one of {', '.join(recipe_names())}, or a YAML file"
    )
    add_setting_options(parser)
    options = vars(parser.parse_args(arguments))
    try:
        return load_recipe(options.pop("recipe"), options)
    except (TypeError, ValueError) as error:
        parser.error(str(error))


def add_setting_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for every setting of a recipe to a parser that suppresses what is not given."""
    _add_option(
        parser,
        "terms",
        dict[str, str],
        next(item for item in fields(Recipe) if item.name == "terms").metadata["help"],
    )
    for section, kind in SECTIONS.items():
        group = parser.add_argument_group(section)
        helps = {item.name: item.metadata.get("help", "") for item in fields(kind)}
        if section == "model":
            helps |= {name: setting.help for name, setting in model_keys().items()}
            for flag, key in TOWER_FLAGS.items():
                group.add_argument(
                    f"--{flag}",
                    metavar="VALUE",
                    help=f"{key} of the vision tower (several: separated by commas)",
                )
        for name, hint in settings_of(section).items():
            _add_option(group, name, hint, helps[name])


def setting_names() -> list[str]:
    """The names of all options of `add_setting_options`."""
    return ["terms", *TOWER_FLAGS, *all_setting_names()]


def _add_option(group: Any, name: str, hint: Any, help_text: str) -> None:
    switch: dict[str, Any] = (
        {"nargs": "?", "const": True} if hint is bool else {}
    )  # --require_images alone means true
    group.add_argument(f"--{name}", type=_reader(hint), metavar="VALUE", help=help_text, **switch)


def _reader(hint: Any) -> Callable[[str], Any]:
    """What turns an option's text into a value of the setting's type."""
    if hint in (int, float):
        return hint
    if hint in (dict[str, float], dict[str, float] | None):
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
        return None if text == "none" else read_yaml(text)
    except ValueError as error:
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
