"""The package's commands. Training has a script of its own, `train_accelerate.py`."""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_scripts.commands import add_corpus_commands, add_reading_options, opened_corpus

from .model_commands import add_model_commands, add_predictor_options

if TYPE_CHECKING:
    from .model.prediction_mmner import BatchPredictor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 where a part of the input could not be used, 2 where none
    could.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (OSError, ValueError) as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modeling_mmner", description="Multimodal named entity recognition."
    )
    commands = parser.add_subparsers(dest="name", required=True)
    add_corpus_commands(commands)
    add_model_commands(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    return parser


def _add_predict(commands: Any) -> None:
    predict = commands.add_parser(
        "predict",
        help="find the entities of a text or of JSON lines",
        description=(
            "Find the entities of one text (--text, --image), or of JSON lines {id, text | tokens, image,"
            " context} read from --input or the standard input; writes JSON lines {id, text, entities}, and"
            " {id, error} if it cannot be read."
        ),
    )
    predict.set_defaults(command=_predict)
    add_predictor_options(predict)
    predict.add_argument("--text", help="one text")
    predict.add_argument("--image", nargs="+", default=[], metavar="FILE", help="the pictures of --text")
    predict.add_argument(
        "--context",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="texts about --text, for models that read contexts",
    )
    predict.add_argument("--input", metavar="FILE", help="JSON lines to read; default: standard input")
    predict.add_argument(
        "--image_dir",
        metavar="FOLDER",
        help=(
            "where the pictures of JSON lines lie, and nowhere else (default: in the folder of --input, or"
            " the working one)"
        ),
    )
    predict.add_argument("--output", metavar="FILE", help="file to write; default: standard output")
    predict.add_argument(
        "--threshold", type=float, default=0.0, help="leave out entities with a lower score, in 0..1"
    )


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="score a trained model on a corpus, and time it",
        description=(
            "Tags a split of a corpus and prints precision, recall and F1 over entities, and posts a second:"
            " so it tells what --dtype, --quantize or another corpus costs."
        ),
        allow_abbrev=False,
    )
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("dataset", help="the corpus, named as for `inspect`")
    add_predictor_options(evaluate)
    evaluate.add_argument("--config", help="config of a data set that has several")
    evaluate.add_argument("--split", default="test", help="split to score (default test)")
    evaluate.add_argument(
        "--context",
        metavar="FIELD",
        help="column of the corpus, or field of --context_file, for models that read contexts",
    )
    evaluate.add_argument(
        "--context_file",
        nargs="+",
        default=[],
        metavar="FILE",
        help="JSON lines with the posts' id and FIELD",
    )
    add_reading_options(evaluate)


def _predictor(options: argparse.Namespace, *, threshold: float = 0.0) -> "BatchPredictor":
    """What the options of `add_predictor_options` ask for; a model that is given contexts must read them."""
    from .inference.loading import load_model
    from .model.prediction_mmner import BatchPredictor, PostReader

    computing = {name: getattr(options, name) for name in ("device", "dtype", "quantize")}
    model, processor = load_model(options.model, reads_contexts=bool(options.context), **computing)
    reader = PostReader(processor, broken_pictures="skip")
    sizes = {name: getattr(options, name) for name in ("batch_size", "num_workers")}
    return BatchPredictor(model, reader, read_ahead=True, threshold=threshold, **sizes)


def _predict(options: argparse.Namespace) -> int:
    """Write a line for each post; the status is 1 where one of them could not be read."""
    if options.text is not None and options.input is not None:
        raise ValueError("expected --text or --input, found both")
    for name in ("image", "context"):
        if options.text is None and getattr(options, name):
            raise ValueError(f"expected --text with --{name}; JSON lines have their own under {name!r}")
    from .files import json_line, read_json_lines

    predictor = _predictor(options, threshold=options.threshold)
    failed = broken = 0
    with ExitStack() as files:
        posts: Iterable[Any] = [{"text": options.text, "images": options.image, "context": options.context}]
        if options.text is None:
            source = files.enter_context(open(options.input, "rb")) if options.input else sys.stdin.buffer
            # Those who write the lines are not those who run the command: what they name must lie where
            # pictures are.
            predictor.read.image_dir = options.image_dir or (
                Path(options.input).parent if options.input else Path()
            )
            posts = read_json_lines(source, options.input or "standard input")
        target = (
            files.enter_context(open(options.output, "w", encoding="utf-8")) if options.output else sys.stdout
        )
        for found in predictor.predict(posts):
            failed += found.error is not None
            broken += len(found.broken_pictures)
            if found.post is None:
                print(json_line({"id": found.id, "error": str(found.error)}), file=target)
                print(f"predict: {found.error}", file=sys.stderr)
            else:
                print(
                    json_line({"id": found.id, "text": found.post.text, "entities": found.entities}),
                    file=target,
                )
    if broken:
        print(f"predict: {broken} pictures could not be read and were left out", file=sys.stderr)
    if failed:
        print(
            f"predict: {failed} posts could not be read; their lines have an 'error' in place of entities",
            file=sys.stderr,
        )
    return int(failed > 0)


def _evaluate(options: argparse.Namespace) -> int:
    """Print scores in percent and the pace of a split; a picture that cannot be read is left out and told
    of.
    """
    if options.context_file and options.context is None:
        raise ValueError("--context_file: expected --context, the field that holds the contexts, found none")
    from time import perf_counter

    from dataset_scripts.contexts import with_contexts

    from .evaluation.scores import evaluate_rows

    corpus = opened_corpus(options)
    if options.split not in corpus.splits:
        raise ValueError(f"--split: expected one of {', '.join(corpus.splits)}, found {options.split}")
    splits = {options.split: corpus.splits[options.split]}
    rows = (with_contexts(splits, options.context, options.context_file) if options.context else splits)[
        options.split
    ]
    predictor = _predictor(options)
    if unknown := sorted(set(corpus.labels) - set(predictor.read.processor.labels)):
        raise ValueError(
            f"{options.model}: expected a model that knows the labels of {corpus.name}, found none for"
            f" {unknown}"
        )
    started = perf_counter()
    tags = [found.tags for found in predictor.predict(rows)]
    pace = len(rows) / (perf_counter() - started)
    scores = evaluate_rows(tags, rows, corpus.labels)
    overall, strict = scores["overall"], scores["strict"]
    low, high = overall["confidence_interval"]
    print(
        f"{corpus.name}, {options.split}: {len(rows)} posts, {overall['number']} entities; {pace:.1f} posts a"
        " second"
    )
    print(
        f"precision {100 * overall['precision']:.2f}, recall {100 * overall['recall']:.2f}, strict F1"
        f" {100 * strict['f1']:.2f}"
    )
    print(f"F1 {100 * overall['f1']:.2f}, 95% interval {100 * low:.2f} to {100 * high:.2f}")
    return 0
