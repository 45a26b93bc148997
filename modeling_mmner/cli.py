"""The package's commands. Training has a script of its own, `train_accelerate.py`."""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from dataset_scripts.commands import add_corpus_commands

from .model_commands import add_model_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 where a part of the input could not be used, 2 where none could."""
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
        description="Find the entities of one text (--text, --image), or of JSON lines {id, text | tokens, image, context} read "
        "from --input or the standard input; writes JSON lines {id, text, entities}, and {id, error} if it cannot be read.",
    )
    predict.set_defaults(command=_predict)
    predict.add_argument("--model", required=True, help="folder or Hub id of a trained model")
    predict.add_argument("--text", help="one text")
    predict.add_argument("--image", nargs="+", default=[], metavar="FILE", help="the pictures of --text")
    predict.add_argument(
        "--context", nargs="+", default=[], metavar="TEXT", help="texts about --text, for models that read contexts"
    )
    predict.add_argument("--input", metavar="FILE", help="JSON lines to read; default: standard input")
    predict.add_argument("--output", metavar="FILE", help="file to write; default: standard output")
    predict.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: an accelerator if there is one")
    predict.add_argument("--batch_size", type=int, default=32, help="posts a batch (default 32)")
    predict.add_argument("--num_workers", type=int, default=0, help="processes that read pictures (default 0: this one)")
    predict.add_argument("--threshold", type=float, default=0.0, help="leave out entities with a lower score, in 0..1")
    return parser


def _predict(options: argparse.Namespace) -> int:
    """Write a line for each post; the status is 1 where one of them could not be read."""
    if options.text is not None and options.input is not None:
        raise ValueError("expected --text or --input, found both")
    for name in ("image", "context"):
        if options.text is None and getattr(options, name):
            raise ValueError(f"expected --text with --{name}; JSON lines have their own under {name!r}")
    from .json_lines import json_line, read_json_lines
    from .loading import load_model
    from .prediction_mmner import BatchPredictor, PostReader

    model, processor = load_model(options.model, device=options.device, reads_contexts=bool(options.context))
    reader = PostReader(processor, broken_pictures="skip")
    sizes = {"batch_size": options.batch_size, "num_workers": options.num_workers}
    predictor = BatchPredictor(model, reader, threshold=options.threshold, read_ahead=True, **sizes)
    failed = broken = 0
    with ExitStack() as files:
        posts: Iterable[Any] = [{"text": options.text, "images": options.image, "context": options.context}]
        if options.text is None:
            source = files.enter_context(open(options.input, encoding="utf-8")) if options.input else sys.stdin
            posts = read_json_lines(source, options.input or "standard input")
        target = files.enter_context(open(options.output, "w", encoding="utf-8")) if options.output else sys.stdout
        for found in predictor.predict(posts):
            failed += found.error is not None
            broken += len(found.broken_pictures)
            if found.post is None:
                print(json_line({"id": found.id, "error": str(found.error)}), file=target)
                print(f"predict: {found.error}", file=sys.stderr)
            else:
                print(json_line({"id": found.id, "text": found.post.text, "entities": found.entities}), file=target)
    if broken:
        print(f"predict: {broken} pictures could not be read and were left out", file=sys.stderr)
    if failed:
        print(f"predict: {failed} posts could not be read; their lines have an 'error' in place of entities", file=sys.stderr)
    return int(failed > 0)
