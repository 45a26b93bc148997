"""The command `mmner`. What a command works with is imported when it runs: `--help` answers at once."""

import logging
import sys
from collections.abc import Sequence

from typer import Typer
from typer.exceptions import TyperException
from typer.main import get_command

from ..training.recipe_options import SettingsCommand
from . import corpora, models, runs

COMMANDS = {
    "train": runs.train,
    "predict": models.predict,
    "evaluate": models.evaluate,
    "annotate": models.annotate,
    "caption": corpora.caption,
    "explain": models.explain,
    "demo": models.demo,
    "inspect": corpora.inspect,
    "build": corpora.build,
    "overlap": corpora.overlap,
    "export-imgid": corpora.export_imgid,
    "export-onnx": models.export_onnx,
    "push": models.push,
    "reproduce": runs.reproduce,
}

app = Typer(
    help="Multimodal named entity recognition: a sentence and its picture in, entities out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for name, function in COMMANDS.items():
    app.command(name, cls=SettingsCommand)(function)


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
        print(f"{place}: {error.format_message()}" if place else error.format_message(), file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"{place}: {error}", file=sys.stderr)
        return 2
