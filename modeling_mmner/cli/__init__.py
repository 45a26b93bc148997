"""The command `mmner`. What a command works with is imported when it runs: `--help` answers at once."""

import logging
import sys
from collections.abc import Sequence

from typer import Typer
from typer.exceptions import TyperException
from typer.main import get_command

from ..training.recipe_options import SettingsCommand
from . import corpora, models, runs

COMMANDS = (
    runs.train,
    models.predict,
    models.evaluate,
    models.annotate,
    corpora.caption,
    models.explain,
    models.demo,
    corpora.inspect,
    corpora.build,
    corpora.overlap,
    corpora.export_imgid,
    models.export_onnx,
    models.push,
    runs.reproduce,
)
EXTRAS = {
    "datatrove": "datatrove",
    "gradio": "demo",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
}
"""Packages that not everybody needs, and the extra that brings each."""

app = Typer(
    help="Multimodal named entity recognition: a sentence and its picture in, entities out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command(cls=SettingsCommand)(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 where a part of the input could not be used, 2 where none
    could.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    place = " ".join(arguments[:1])
    try:
        return get_command(app).main(arguments, prog_name="mmner", standalone_mode=False) or 0
    except TyperException as error:  # a mistake in the command line
        message = error.format_message()
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        needed = f"needs the package {error.name}, which is not installed"
        message = f"{needed}; pip install 'mmner[{EXTRAS[error.name]}]'"
    except (OSError, ValueError) as error:
        message = str(error)
    print(f"{place}: {message}" if place else message, file=sys.stderr)
    return 2
