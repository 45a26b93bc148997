"""The commands for a trained model: push it, export it, look into it, try it on a page.

Each command imports what it needs when it runs: the extras `onnx` and `demo` are not always installed.
"""

import argparse
from typing import Any


def add_model_commands(commands: Any) -> None:
    """Add the commands for trained models to the command line's subparsers."""
    _add_push_and_cards(commands)
    _add_export(commands)


def _add_model_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="folder or Hub id of a trained model")


def _add_push_and_cards(commands: Any) -> None:
    push = commands.add_parser("push", help="put a trained model on the Hub")
    push.set_defaults(command=_push)
    push.add_argument("--model", required=True, metavar="FOLDER", help="folder of a trained model, made by training")
    push.add_argument("--repo_id", required=True, metavar="ORG/NAME", help="repository on the Hub")
    push.add_argument("--revision", metavar="TAG", help="tag for its commit (default: v and the version of mmner, as v0.1.0)")
    push.add_argument("--public", action="store_true", help="for everybody to see; otherwise the repository is private")
    push.add_argument("--dry_run", action="store_true", help="only print what would go where; asks nothing of the Hub")

    cards = commands.add_parser("cards", help="render the model cards of the package's recipes")
    cards.set_defaults(command=_cards)
    cards.add_argument(
        "--metrics", nargs="+", default=[], metavar="FILE", help="metrics.json of runs, taken in as their recipes'"
    )
    cards.add_argument("--output_dir", help="folder of the cards and their metrics (default: the package's model_cards)")


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export-onnx",
        help="export a trained model for onnxruntime",
        description="Writes a folder from which a model runs without torch: its graph, checked against the model, and CRF "
        "decoding in numpy. Needs the extra `onnx`.",
    )
    export.set_defaults(command=_export_onnx)
    _add_model_option(export)
    export.add_argument("--output_dir", required=True, help="folder to make")


def _push(options: argparse.Namespace) -> int:
    from .hub import plan_upload, push

    upload = plan_upload(options.model, repo_id=options.repo_id, revision=options.revision)
    print(upload.describe(public=options.public))
    if options.dry_run:
        print("dry run: nothing was sent")
    else:
        print(f"pushed to {push(upload, public=options.public)}")
    return 0


def _cards(options: argparse.Namespace) -> int:
    from importlib import resources

    from .cards import write_cards

    for path in write_cards(options.output_dir or str(resources.files("model_cards")), metrics=options.metrics):
        print(path)
    return 0


def _export_onnx(options: argparse.Namespace) -> int:
    from .onnx_export import export_onnx

    report = export_onnx(options.model, options.output_dir)
    print(f"wrote {options.output_dir}: model.onnx (opset {report.opset}), decoding.json, onnx_decoding.py and the processor")
    print(f"greatest difference of the emissions from torch's: {report.difference:.1e}, over made-up posts")
    return 0
