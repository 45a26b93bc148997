"""The package's commands. Training has a script of its own, `train_accelerate.py`."""

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any

from dataset_scripts.commands import add_corpus_commands

from .model_commands import add_model_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, or 2 for input that cannot be used."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (OSError, ValueError) as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modeling_mmner", description="Multimodal named entity recognition.")
    commands = parser.add_subparsers(dest="name", required=True)
    add_corpus_commands(commands)
    add_model_commands(commands)
    predict = commands.add_parser(
        "predict",
        help="find the entities of a text or of JSON lines",
        description="Find the entities of one text (--text, --image), or of JSON lines {id, text | tokens, image} read from "
        "--input or the standard input; writes JSON lines {id, text, entities}.",
    )
    predict.set_defaults(command=_predict)
    predict.add_argument("--model", required=True, help="folder or Hub id of a trained model")
    predict.add_argument("--text", help="one text")
    predict.add_argument("--image", nargs="+", default=[], metavar="FILE", help="the pictures of --text")
    predict.add_argument("--input", metavar="FILE", help="JSON lines to read; default: standard input")
    predict.add_argument("--output", metavar="FILE", help="file to write; default: standard output")
    predict.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: an accelerator if there is one")
    predict.add_argument("--batch_size", type=int, default=32, help="posts a batch (default 32)")
    predict.add_argument("--num_workers", type=int, default=0, help="processes that read pictures (default 0: this one)")
    predict.add_argument("--threshold", type=float, default=0.0, help="leave out entities with a lower score, in 0..1")
    return parser


def _predict(options: argparse.Namespace) -> int:
    from .prediction import Annotator, json_line, load_model

    if options.text is not None and options.input is not None:
        raise ValueError("expected --text or --input, found both")
    if options.text is None and options.image:
        raise ValueError("expected --text with --image; JSON lines name their own pictures under 'image'")
    model, processor = load_model(options.model, device=options.device)
    annotator = Annotator(
        model=model,
        processor=processor,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        threshold=options.threshold,
    )
    with ExitStack() as files:
        posts: Iterable[dict[str, Any]] = [{"text": options.text, "image": options.image}]
        if options.text is None:
            source = files.enter_context(open(options.input, encoding="utf-8")) if options.input else sys.stdin
            posts = read_json_lines(source, options.input or "standard input")
        target = files.enter_context(open(options.output, "w", encoding="utf-8")) if options.output else sys.stdout
        for result in annotator.annotate(posts):
            print(json_line(result), file=target)
    if annotator.broken_pictures:
        print(f"predict: {annotator.broken_pictures} pictures could not be read and were left out", file=sys.stderr)
    return 0


def read_json_lines(source: IO[str], name: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; empty lines are passed over.

    Raises:
        ValueError: naming the line that is no JSON.
    """
    for number, line in enumerate(source, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{name}:{number}: expected a JSON object, found {line.strip()!r:.80} ({error})") from error
