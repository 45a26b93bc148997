"""Settings as a command line: an option for each, in the signature of a function that typer reads.

What was given there is known by where a value came from: an option that repeats a default still wins over
the recipe.
"""

import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from inspect import Parameter
from textwrap import shorten
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from ..escaping import say
from ..files import read_yaml
from ..model.parts_mmner import Setting
from .recipes import TOWER_FLAGS, Recipe, all_settings, flat_settings, load_recipe, recipe_names

_RECIPES = "one of the recipes above, or a YAML file"
_RECIPE = typer.Option("--recipe", metavar="NAME", help=_RECIPES, autocompletion=recipe_names)
RecipeName = Annotated[str, _RECIPE]
PLAIN: Any = {"context_settings": {"max_content_width": 110}, "rich_markup_mode": None}
"""Help is plain text, in as many columns at most."""


def parse_arguments(arguments: Sequence[str] | None = None) -> Recipe:
    """The recipe that a command line asks for: ``--recipe NAME`` and an option for every setting.

    Raises:
        SystemExit: help was asked for (0), or the command line is wrong, and why has been said (2).
    """
    app = typer.Typer(add_completion=False, **PLAIN)

    @app.command(cls=SettingsCommand)
    @takes_settings
    def chosen(recipe: RecipeName = "quickstart", *, settings: dict[str, Any]) -> Recipe:
        """Train a recipe; without one quickstart, which takes minutes."""
        loaded = load_recipe(recipe, settings)
        if "learning_rate" in settings and not loaded.model.trains_pretrained:
            expected = "expected pretrained towers that are trained, whose rate it is, found none"
            raise ValueError(f"--learning_rate: {expected}; all else learns at --head_learning_rate")
        return loaded

    try:
        found = app(None if arguments is None else list(arguments), standalone_mode=False)
    except (typer.TyperException, TypeError, ValueError) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else error
        say(f"train_accelerate.py: error: {message}", file=sys.stderr)
        sys.exit(2)
    return found if isinstance(found, Recipe) else sys.exit(0)


def takes_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command of typer whose parameter `settings` gets the settings of a recipe that were given.

    Its help shows the values of the recipe that its option `recipe` names; without that option, none.
    """
    groups = all_settings()
    del groups["recipe"]["name"], groups["recipe"]["description"]
    for flag, key in TOWER_FLAGS.items():
        about = f"{key} of the vision tower (several: separated by commas)"
        groups["model"][flag] = Setting(str | None, None, about)
    has_recipe = "recipe" in inspect.signature(command).parameters
    return takes_options(command, groups, into="settings", show_default=has_recipe)


def takes_options(
    command: Callable[..., Any],
    groups: Mapping[str, Mapping[str, Setting]],
    *,
    into: str | None = None,
    show_default: bool = True,
) -> Callable[..., Any]:
    """Give a command of typer an option for each setting that it has no parameter for.

    Args:
        groups: settings by the heading under which the help lists them. Those of a group that were given come
            as the command's parameter of that name, by their names.
        into: a parameter that gets those of all groups instead.
        show_default: whether the help shows defaults.
    """
    own = inspect.signature(command, eval_str=True).parameters
    filled = {into or group for group in groups}
    rows = [
        (group, name, setting)
        for group, settings in groups.items()
        for name, setting in settings.items()
        if name not in own
    ]

    @wraps(command)
    def run(typer_context: typer.Context, **given: Any) -> Any:
        gathered: dict[str, dict[str, Any]] = {name: {} for name in filled}
        for group, name, setting in rows:
            value, source = given.pop(name), typer_context.get_parameter_source(name)
            if source and source.name == "COMMANDLINE":
                if setting.range and value is not None and not setting.range.holds(value):
                    expected = f"expected {setting.range.words}, found {value}"
                    raise typer.BadParameter(expected, param_hint=f"'--{name}'")
                gathered[into or group][name] = value
        return command(**given, **gathered)

    others = [item.replace(kind=Parameter.KEYWORD_ONLY) for item in own.values() if item.name not in filled]
    context = Parameter("typer_context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    options = [_option(name, setting, group, show_default=show_default) for group, name, setting in rows]
    parameters = [context, *others, *options]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    return run


def _option(name: str, setting: Setting, group: str, *, show_default: bool) -> Parameter:
    kind: Any = Literal[tuple(setting.table)] if setting.table is not None else setting.type
    names = f"--{name}"
    more: dict[str, Any] = {"help": setting.help, "rich_help_panel": group, "show_default": show_default}
    if kind is bool:
        names += f"/--{name.removeprefix('no_') if name.startswith('no_') else f'no_{name}'}"
    elif kind in (int, float, str):
        more["metavar"] = METAVARS[kind]
    elif get_origin(kind) is not Literal:
        form, read = _READERS.get(kind, ("YAML", read_yaml))
        more |= {"parser": partial(_read, form=form, read=read, hint=kind), "metavar": form}
        kind = str
    default = as_text(setting.default, setting.type)
    annotation = Annotated[kind, typer.Option(names, **more)]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _read(text: str, *, form: str, read: Callable[[str], Any], hint: Any) -> Any:
    if text == "none" and NoneType in get_args(hint):
        return None
    try:
        return read(text)
    except ValueError as error:
        raise typer.BadParameter(f"expected {form}, found {text!r}") from error


def _pairs(kind: type, text: str) -> dict[str, Any]:
    """``a=x,b=y`` -> {"a": "x", "b": "y"}, the values of a type."""
    pairs = [pair.split("=") for pair in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError
    return {name: kind(value) for name, value in pairs}


_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    str | None: ("TEXT", str),
    int | None: ("NUMBER", int),
    float | None: ("NUMBER", float),
    list[str]: ("NAME,...", lambda text: text.split(",")),
    dict[str, str]: ("NAME=VALUE,...", partial(_pairs, str)),
    dict[str, float] | None: ("NAME=WEIGHT,...", partial(_pairs, float)),
}
"""How help calls the text of an option, and what reads it; other types are read as YAML."""
_TEXTS = (str, str | None, list[str], list[str] | None)
METAVARS: dict[Any, str] = {int: "NUMBER", float: "NUMBER"} | dict.fromkeys(_TEXTS, "TEXT")
"""How it calls that of an option which typer reads."""


class SettingsCommand(TyperCommand):
    """A command whose help has a heading for each group of options, and the values of the recipe named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {option.name: option for option in self.params}
        if "--help" in args and "recipe" in options:
            given = self.make_parser(ctx).parse_args(list(args))[0]
            recipe = load_recipe(given.get("recipe") or str(options["recipe"].default))
            known = {name: one for settings in all_settings().values() for name, one in settings.items()}
            for name, value in flat_settings(recipe.to_dict(), without=()).items():
                options[name].default = as_text(value, known[name].type)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        if "recipe" in (option.name for option in self.params):
            names = recipe_names()
            room = formatter.width - 4 - max(map(len, names))
            about = [shorten(load_recipe(name).description, room, placeholder="...") for name in names]
            with formatter.section("Recipes"):
                formatter.write_dl(list(zip(names, about, strict=True)))
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            if record := option.get_help_record(ctx):
                groups.setdefault(getattr(option, "rich_help_panel", None) or "Options", []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def as_text(value: Any, hint: Any) -> Any:
    """A value as the command line spells it; a flag's as it is, None for nothing."""
    if isinstance(value, (bool, str)) or value in (None, [], {}):
        return value if value is False else value or None
    if hint in _READERS and isinstance(value, (list, dict)):
        pairs = value.items() if isinstance(value, dict) else [(item,) for item in value]
        return ",".join("=".join(map(str, pair)) for pair in pairs)
    return json.dumps(value)
