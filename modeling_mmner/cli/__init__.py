"""The command `mmner`. What a command works with is imported when it runs: `--help` answers at once."""

import logging
import sys
from collections.abc import Sequence

from typer import Typer
from typer.exceptions import TyperException
from typer.main import get_command

from ..escaping import PrintableLines, print_in_any_encoding, say
from ..training.recipe_options import SettingsCommand
from .corpora import build, caption, export_imgid, inspect, overlap
from .models import annotate, demo, evaluate, explain, export_onnx, predict, push
from .runs import reproduce, train

_OF_MODELS = (predict, evaluate, annotate, caption, explain, demo)
_OF_CORPORA = (inspect, build, overlap, export_imgid)
COMMANDS = (train, *_OF_MODELS, *_OF_CORPORA, export_onnx, push, reproduce)
EXTRAS = {"datatrove": "datatrove", "gradio": "demo"}
EXTRAS |= dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx")
"""Packages that not everybody needs, and the extra that brings each."""

app = Typer(
    help="Multimodal named entity recognition: a sentence and its picture in, entities out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for function in COMMANDS:
    app.command(cls=SettingsCommand)(function)


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
