"""How a function becomes a command, whose docstring is its help; and the options that several have."""

import re
from collections.abc import Callable
from copy import copy
from functools import wraps
from inspect import Parameter, getdoc, signature
from typing import Annotated, Any, Literal, get_args, get_origin

from typer import Argument, BadParameter, Option

from dataset_scripts.reading_options import ReadingOptions

from ..model.parts_mmner import Setting
from ..training.recipe_options import takes_options
from ..training.recipes import settings_in


def described(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as typer reads it: its positional parameters are arguments, the others options that are
    spelt as in Python (``--output_dir``; ``--public``, ``--no_public``), and its docstring says under
    ``Args:`` what they are.
    """
    text, _, arguments = (getdoc(function) or "").partition("\n\nArgs:\n")
    helps = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, flags=re.MULTILINE))

    @wraps(function)
    def run(**given: Any) -> Any:
        return function(**given)

    own = signature(function)
    run.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[_described(item, helps.get(name)) for name, item in own.parameters.items()]
    )
    run.__doc__ = text
    return run


def _described(parameter: Parameter, text: str | None) -> Parameter:
    kind, name = parameter.annotation, parameter.name
    is_option = parameter.kind is Parameter.KEYWORD_ONLY
    if get_origin(kind) is Annotated:
        kind, info = get_args(kind)
    elif text is None:  # no option: another decorator fills it
        return parameter
    else:
        info = Option() if is_option else Argument()
    info = copy(info)
    if text is not None:
        info.help = " ".join(text.split()).removesuffix(".")
    if is_option:
        info.param_decls = (f"--{name}/--no_{name}" if kind in (bool, bool | None) else f"--{name}",)
    return parameter.replace(annotation=Annotated[kind, info])


_config = Setting(str | None, None, "config of a data set that has several")
reads_corpora = takes_options({"reading": {"config": _config, **settings_in(ReadingOptions)}}, into="reading")
"""Gives a command the options of `open_corpus`; those that were given come as `reading`, for the others are
left to the corpus's builder.
"""


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise BadParameter(f"expected numbers separated by commas, found {text!r}")
    return [int(part) for part in parts]


def _mapping(text: str) -> dict[str, str]:
    pairs = [pair.split("=") for pair in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise BadParameter(f"expected NAME=VALUE,NAME=VALUE, found {text!r}")
    return dict(pairs)


def comma_separated(text: str) -> list[str]:
    """``a,b`` -> ["a", "b"]; nothing in an empty text."""
    return [part for part in text.split(",") if part]


Numbers = Annotated[Any, Option(parser=_numbers, metavar="N,N,...")]
Columns = Annotated[Any, Option(parser=_mapping, metavar="OURS=THEIRS,...")]
Device = Annotated[str | None, Option(help="cpu, cuda, cuda:1, mps; default: an accelerator if there is one")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    Option(help="what it computes in; auto: bfloat16 where the device is fast at it"),
]
Positive = Annotated[int, Option(min=1)]
Jobs = Annotated[int, Option(min=1, max=64)]
Port = Annotated[int, Option(min=1, max=65535)]
BatchSize = Annotated[int, Option(min=1, help="posts a batch, at most")]
NumWorkers = Annotated[
    int, Option(min=0, help="processes that read posts and pictures; 0: threads of this one")
]
Threshold = Annotated[float, Option(min=0, max=1, help="leave out entities with a lower score")]
