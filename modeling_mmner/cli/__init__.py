"""The command `mmner`. What a command works with is imported when it runs: `--help` answers at once."""

import logging
import sys
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any

from typer import Exit, Option, Typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from .. import __version__
from ..escaping import PrintableLines, print_in_any_encoding, say
from ..training.recipe_options import PLAIN, SettingsCommand
from .corpora import build, contexts, export_imgid, inspect, overlap
from .models import annotate, calibrate, demo, evaluate, explain, export_onnx, predict, push, review
from .runs import reproduce, train

GROUPS = {
    "Use a trained model": (predict, demo, explain, evaluate, calibrate, annotate, review),
    "Train": (train, reproduce),
    "Data": (inspect, contexts, overlap, build, export_imgid),
    "Publish": (push, export_onnx),
}
EXTRAS = {"datatrove": "datatrove", "gradio": "demo", "mcp": "mcp", "mcp.server.fastmcp": "mcp"}
EXTRAS |= dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx")
"""Packages that not everybody needs, and the extra that brings each."""


class CommandGroups(TyperGroup):
    """The commands, listed under the headings of `GROUPS`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for heading, functions in GROUPS.items():
            names = [function.__name__.replace("_", "-") for function in functions]
            helps = [self.commands[name].get_short_help_str(formatter.width - width - 4) for name in names]
            with formatter.section(heading):
                formatter.write_dl([*zip([name.ljust(width) for name in names], helps, strict=True)])


app = Typer(cls=CommandGroups, no_args_is_help=True, pretty_exceptions_enable=False, **PLAIN)
for function in chain(*GROUPS.values()):
    app.command(cls=SettingsCommand)(function)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"mmner {__version__}")
        raise Exit


_VERSION = Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)


@app.callback()
def about(version: Annotated[bool, _VERSION] = False) -> None:
    """Multimodal named entity recognition: a sentence and its picture in, entities out.

    `mmner train` alone trains the recipe quickstart, on a corpus that it makes, in minutes; `mmner inspect
    FILE` says how your own posts are read; `mmner COMMAND --help` lists a command's options.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0, 1 where a part of the input could not be used, 2 where none could.
    """
    print_in_any_encoding()
    (handler := logging.StreamHandler()).setFormatter(PrintableLines("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    place = " ".join(arguments[:1])
    try:
        return get_command(app).main(arguments, prog_name="mmner", standalone_mode=False) or 0
    except TyperException as error:  # a mistake in the command line
        message = error.format_message()
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = f"pip install 'mmner[{EXTRAS[error.name]}]'"
        message = f"needs the package {error.name}, which is not installed; {extra}"
    except (OSError, ValueError) as error:
        message = str(error)
    say(f"{place}: {message}" if place else message, file=sys.stderr)
    return 2
