"""How a function becomes a command, whose docstring is its help; and the options that several have."""

import re
from collections.abc import Callable, Mapping
from copy import copy
from inspect import Parameter, getdoc, signature
from typing import Annotated, Any, Literal, get_args, get_origin

from typer import Argument, BadParameter, Option

from dataset_scripts.reading_options import ReadingOptions

from ..model.parts_mmner import POSITIVE, SHARE, Range, Setting, settings_in
from ..training.recipe_options import METAVARS, takes_options

_NOT_NEGATIVE = Range("a number >= 0", lambda value: value >= 0)

_TEXT = str | None
_Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_CONFIG = {"config": Setting(_TEXT, None, "config of a data set that has several")}
READING = _CONFIG | settings_in(ReadingOptions)
"""How `open_corpus` reads. What is not given is left to the corpus's builder."""
BUILDING = {"license": Setting(_TEXT, None, "of the corpus, for conll; default: other")}
"""How `build_dataset` builds, beside reading; what is not given is left to the builder, too."""
DEVICE = {"device": Setting(_TEXT, None, "cpu, cuda, cuda:1, mps; default: an accelerator if there is one")}
COMPUTING = DEVICE | {
    "dtype": Setting(_Dtype, "auto", "what it computes in; auto: bfloat16 where the device is fast at it"),
    "batch_size": Setting(int, 32, "posts a batch, at most", POSITIVE),
    "num_workers": Setting(int, 0, "processes that read posts; 0: threads of this one", _NOT_NEGATIVE),
}
"""How `load_predictor` runs a model."""
PREDICTING = COMPUTING | {"threshold": Setting(float, 0.0, "leave out entities with a lower score", SHARE)}
PREDICTING |= {"precision": Setting(float | None, None, "keep what calibrate found so precise", SHARE)}
PREDICTING |= {"effects": Setting(bool, False, "tell of each entity what the picture and the context did")}
PREDICTING |= {"read_pictures": Setting(bool, False, "find entities in the text of pictures, too")}
INPUT = _CONFIG | {
    "split": Setting(_TEXT, None, "split of a data set that has several"),
    "revision": Setting(_TEXT, None, "branch, tag or commit of a data set on the Hub"),
    "columns": Setting(dict[str, str], {}, "what our columns are called there, as text=body,image=photo"),
    "image_dir": Setting(_TEXT, None, "where pictures lie, and nowhere else; default: in the input's folder"),
}
"""How `open_posts` reads the input of `annotate`."""
TASKS = {
    "tasks": Setting(int, 1, "parts of the input; each of them makes a file", POSITIVE),
    "workers": Setting(int, 1, "tasks at a time on this machine", POSITIVE),
    "local_tasks": Setting(int, -1, "how many of the tasks are this machine's; -1: all"),
    "local_rank_offset": Setting(int, 0, "number of this machine's first task", _NOT_NEGATIVE),
}
"""How `annotate` divides its work."""
DESCRIBING = DEVICE | {
    "prompt": Setting(_TEXT, None, "what a model that chats is asked, or how captions of others begin"),
    "batch_size": Setting(int, 8, "pictures a batch", POSITIVE),
    "max_new_tokens": Setting(int, 40, "length of a picture's caption", POSITIVE),
}
"""How `contexts` describes."""


def command(*, into: str | None = None, **tables: Mapping[str, Setting]) -> Callable[..., Any]:
    """A function as typer reads it.

    Its positional parameters are arguments, the others options that are spelt as in Python (``--output_dir``;
    ``--public``, ``--no_public``), and its docstring says under ``Args:`` what they are.

    Args:
        tables: more options; those of a table that were given come as the parameter of its name.
        into: a parameter that gets those of all tables instead.
    """

    def described(function: Callable[..., Any]) -> Callable[..., Any]:
        text, _, arguments = (getdoc(function) or "").partition("\n\nArgs:\n")
        helps = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, flags=re.MULTILINE))
        own = signature(function)
        parameters = [_described(item, helps.get(name)) for name, item in own.parameters.items()]
        function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        function.__doc__ = text
        return takes_options(function, tables, into=into) if tables else function

    return described


def _described(parameter: Parameter, text: str | None) -> Parameter:
    if text is None:  # no option: a table fills it
        return parameter
    kind, name = parameter.annotation, parameter.name
    is_option = parameter.kind is Parameter.KEYWORD_ONLY
    info: Any = Option() if is_option else Argument()
    if get_origin(kind) is Annotated:
        kind, info = get_args(kind)
        info = copy(info)
    info.help = " ".join(text.split()).removesuffix(".")
    if is_option:
        info.metavar = info.metavar or METAVARS.get(kind)
        spelt = f"--{name}/--no_{name}" if kind is bool else f"--{name}"
        info.param_decls = (*(info.param_decls or ()), spelt)
    return parameter.replace(annotation=Annotated[kind, info])


def _numbers(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise BadParameter(f"expected numbers separated by commas, found {text!r}")
    return [*map(int, text.split(","))]


Numbers = Annotated[Any, Option(parser=_numbers, metavar="N,N,...")]
Count = Annotated[int, Option("-n", min=1)]
Positive = Annotated[int, Option(min=1)]
Precision = Annotated[float, Option(min=0.01, max=0.999)]
Port = Annotated[int, Option(min=1, max=65535)]
