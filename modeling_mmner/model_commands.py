"""The commands for a trained model: push it, export it, look into it, try it on a page; and those that serve
training.

Each command imports what it needs when it runs: the extras `onnx` and `demo` are not always installed.
"""

import argparse
from typing import Any

from dataset_scripts.commands import add_reading_options, opened_corpus

from .training.paper_tables import TABLES
from .training.recipe_options import add_setting_options, setting_names


def add_model_commands(commands: Any) -> None:
    """Add the commands for trained models to the command line's subparsers."""
    _add_push_and_cards(commands)
    _add_export(commands)
    _add_demo(commands)
    _add_explanations(commands)
    _add_reproduction(commands)
    _add_captions(commands)
    _add_features(commands)


def add_model_option(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--model`."""
    parser.add_argument("--model", required=required, help="folder or Hub id of a trained model")


def add_predictor_options(parser: argparse.ArgumentParser, *, model_required: bool = True) -> None:
    """Add `--model` and how it computes."""
    add_model_option(parser, required=model_required)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: an accelerator if there is one")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help=(
            "what the model computes in; auto (default): bfloat16 where the device is fast at it, else"
            " float32"
        ),
    )
    parser.add_argument(
        "--quantize", choices=("int8",), help="compute linear layers in 8-bit integers, on the CPU"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="posts a batch, at most (default 32)")
    parser.add_argument(
        "--num_workers",
        type=int,
        default=0,
        help="processes that read posts and pictures (default 0: threads of this one)",
    )


def _add_push_and_cards(commands: Any) -> None:
    push = commands.add_parser("push", help="put a trained model on the Hub")
    push.set_defaults(command=_push)
    push.add_argument(
        "--model", required=True, metavar="FOLDER", help="folder of a trained model, made by training"
    )
    push.add_argument("--repo_id", required=True, metavar="ORG/NAME", help="repository on the Hub")
    push.add_argument(
        "--revision",
        metavar="TAG",
        help="tag for its commit (default: v and the version of mmner, as v0.1.0)",
    )
    push.add_argument(
        "--public", action="store_true", help="for everybody to see; otherwise the repository is private"
    )
    push.add_argument(
        "--dry_run", action="store_true", help="only print what would go where; asks nothing of the Hub"
    )

    cards = commands.add_parser("cards", help="render the model cards of the package's recipes")
    cards.set_defaults(command=_cards)
    cards.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="FILE",
        help="metrics.json of runs, taken in as their recipes'",
    )
    cards.add_argument(
        "--output_dir", help="folder of the cards and their metrics (default: the package's model_cards)"
    )


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export-onnx",
        help="export a trained model for onnxruntime",
        description=(
            "Writes a folder from which a model runs without torch: its graph, checked against the model, and"
            " CRF decoding in numpy. Needs the extra `onnx`."
        ),
    )
    export.set_defaults(command=_export_onnx)
    add_model_option(export)
    export.add_argument("--output_dir", required=True, help="folder to make")


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="try a model on a web page, or write the page as a Space",
        description=(
            "Serves a page on which a model can be tried (needs the extra `demo`), or writes it as a folder"
            " for a Space."
        ),
    )
    demo.set_defaults(command=_demo)
    add_model_option(demo)
    demo.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: an accelerator if there is one")
    demo.add_argument(
        "--host", default="127.0.0.1", help="address to serve on (default 127.0.0.1: this computer alone)"
    )
    demo.add_argument("--port", type=_port, default=7860, help="port to serve on (default 7860)")
    demo.add_argument(
        "--space", metavar="FOLDER", help="write a folder that is ready to be a Space instead of serving"
    )


def _add_explanations(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="draw what a model looks at in a picture, word by word",
        description=(
            "Finds the entities of a post and writes, for each word, its attention drawn over the picture,"
            " and all of it in numbers (explanation.json). `check-maps` tells whether the maps of a model"
            " mean something."
        ),
    )
    explain.set_defaults(command=_explain)
    add_model_option(explain)
    explain.add_argument("--text", required=True, help="the post's text")
    explain.add_argument(
        "--image", required=True, nargs="+", metavar="FILE", help="its pictures, drawn side by side"
    )
    explain.add_argument(
        "--context", nargs="+", metavar="TEXT", help="texts about the post, for models that read contexts"
    )
    explain.add_argument(
        "--output_dir", required=True, help="folder for explanation.json and <number>_<word>.png"
    )
    explain.add_argument(
        "--words",
        type=_numbers,
        metavar="N,N,...",
        help="numbers of the words to draw, from 1 (default: all)",
    )

    check = commands.add_parser(
        "check-maps",
        help="measure whether the maps of `explain` mean something",
        description=(
            "Blanks parts of the pictures of the sample corpus's ambiguous names, those that a name attends"
            " to most and others, and measures what each costs. For models trained on the sample corpus's"
            " types."
        ),
    )
    check.set_defaults(command=_check_maps)
    add_model_option(check)
    check.add_argument("--posts", type=int, default=200, help="posts of the test split to use (default 200)")
    check.add_argument(
        "--seed", type=int, default=1, help="random seed for the choice of posts and regions (default 1)"
    )


def _add_reproduction(commands: Any) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        help="train every row of a paper's table, and write the table",
        description=(
            "Trains every row of a table with every seed, on one corpus, with one budget and one metric, and"
            " writes results.json, results.md (the paper's figures beside ours) and results.png. What is"
            " there already is not run again. Options of the sections below are for all rows; a row passes"
            " over those of parts that it has not."
        ),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    reproduce.set_defaults(command=_reproduce)
    contents = "; ".join(f"{name}: {table.source}" for name, table in TABLES.items())
    reproduce.add_argument("table", choices=list(TABLES), help=contents)
    reproduce.add_argument(
        "--seeds", type=_numbers, default=[1], metavar="N,N,...", help="random seeds of each row (default 1)"
    )
    reproduce.add_argument(
        "--encoders", metavar="RECIPE", default=None, help="take text and picture encoders from this recipe"
    )
    reproduce.add_argument(
        "--jobs",
        type=int,
        choices=range(1, 65),
        default=1,
        metavar="N",
        help="runs at a time, 1 to 64 (default 1); they share the cores",
    )
    reproduce.add_argument("--dry_run", action="store_true", default=False, help="only say what it will take")
    reproduce.add_argument(
        "--keep_models", action="store_true", default=False, help="keep the trained models, too"
    )
    add_setting_options(reproduce)


def _add_captions(commands: Any) -> None:
    caption = commands.add_parser(
        "caption",
        help="describe the pictures of a corpus, as contexts for training",
        description=(
            "Writes what a model of transformers says of a corpus's pictures, each described once, as JSON"
            " lines that training reads with `--context caption --context_file FILE`. A file that is not"
            " whole is gone on with."
        ),
        allow_abbrev=False,
    )
    caption.set_defaults(command=_caption)
    caption.add_argument("dataset", help="the corpus, named as for `inspect`")
    caption.add_argument(
        "--model",
        required=True,
        help="folder or Hub id of an image-to-text or image-text-to-text model; code of its own is not run",
    )
    caption.add_argument(
        "--output_file", required=True, metavar="FILE", help="file of JSON lines to write or to go on with"
    )
    caption.add_argument("--config", help="config of a data set that has several")
    caption.add_argument("--splits", metavar="SPLIT,...", help="splits to describe (default: all)")
    caption.add_argument(
        "--prompt", metavar="TEXT", help="what a model that chats is asked, or how captions of others begin"
    )
    caption.add_argument("--batch_size", type=positive, default=8, help="pictures a batch (default 8)")
    caption.add_argument(
        "--max_new_tokens", type=positive, default=40, help="length of a picture's caption (default 40)"
    )
    caption.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: an accelerator if there is one")
    add_reading_options(caption)


def _add_features(commands: Any) -> None:
    features = commands.add_parser(
        "features",
        help="show or clear the kept features of frozen picture encoders",
        description=(
            "Lists the frozen picture encoders whose features are kept, with how many pictures and how much"
            " room they take. Training fills them; without them it computes them again."
        ),
    )
    features.set_defaults(command=_features)
    features.add_argument(
        "--feature_cache", default="auto", metavar="FOLDER", help="where training was told to keep them"
    )
    features.add_argument("--clear", action="store_true", help="remove them")


def positive(text: str) -> int:
    """What reads a number from 1."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text!r}")
    return int(text)


def _numbers(text: str) -> list[int]:
    if not all(part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, found {text!r}")
    return [int(part) for part in text.split(",")]


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"expected a port, 1 to 65535, found {text!r}")
    return int(text)


def _demo(options: argparse.Namespace) -> int:
    try:
        from .inference.demo import build_demo, launch
        from .inference.demo_space import model_name, write_space
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ValueError(
            "the page needs the package gradio, which is not installed; pip install 'mmner[demo]'"
        ) from error
    if options.space:
        folder = write_space(options.model, options.space)
        print(f"wrote {folder}; `hf upload ORG/NAME {folder} --repo-type space` puts it on the Hub")
        return 0
    from dataset_scripts.sample.examples import examples

    from .inference.loading import load_model

    parts = load_model(options.model, device=options.device)
    demo = build_demo(*parts, name=model_name(options.model), examples=examples())
    try:
        launch(demo, host=options.host, port=options.port)
    except OSError as error:
        place = f"--host {options.host} --port {options.port}"
        raise ValueError(
            f"{place}: expected an address of this computer and a port that is free on it; {error}"
        ) from error
    return 0


def _push(options: argparse.Namespace) -> int:
    from .hub.push import plan_upload, push

    upload = plan_upload(options.model, repo_id=options.repo_id, revision=options.revision)
    print(upload.describe(public=options.public))
    if options.dry_run:
        print("dry run: nothing was sent")
    else:
        print(f"pushed to {push(upload, public=options.public)}")
    return 0


def _cards(options: argparse.Namespace) -> int:
    from importlib import resources

    from .hub.model_card import write_cards
    from .training.corpus import known_corpora

    folder = options.output_dir or str(resources.files("model_cards"))
    for path in write_cards(folder, known_corpora(), metrics=options.metrics):
        print(path)
    return 0


def _export_onnx(options: argparse.Namespace) -> int:
    from .inference.onnx_export import export_onnx

    report = export_onnx(options.model, options.output_dir)
    print(
        f"wrote {options.output_dir}: model.onnx (opset {report.opset}), decoding.json, onnx_decoding.py and"
        " the processor"
    )
    print(f"greatest difference of the emissions from torch's: {report.difference:.1e}, over made-up posts")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from .inference.explain import explain, save_explanation
    from .inference.loading import load_model

    parts = load_model(options.model, reads_contexts=bool(options.context))
    explanation = explain(*parts, options.text, options.image, context=options.context)
    numbers = options.words or range(1, len(explanation.words) + 1)
    save_explanation(explanation, options.output_dir, words=numbers)
    for number in numbers:
        word, greatest = explanation.words[number - 1].text, explanation.required_maps()[number - 1].max()
        gate = "-" if explanation.gate is None else f"{explanation.gate[number - 1]:.2f}"
        entity_type = explanation.entity_type(number - 1) or "-"
        print(
            f"{number:>3}  {word:<20}  {entity_type:<8}  gate {gate:<4}  {greatest:.2f} of its attention on"
            " one region"
        )
    return 0


def _check_maps(options: argparse.Namespace) -> int:
    import sys

    from rich.console import Console

    from dataset_scripts.opening import open_corpus

    from .inference.loading import load_model
    from .inference.map_check import check_maps, cost_table, verdict

    sample = open_corpus("sample")
    rows = (row for row in sample.splits["test"] if row["source"] == "ambiguous")
    check = check_maps(
        *load_model(options.model), rows, sample.labels, posts=options.posts, seed=options.seed
    )
    Console(width=None if sys.stdout.isatty() else 120).print(cost_table(check))
    print(verdict(check))
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from pathlib import Path

    from train_accelerate import train

    from .training.reproduce import reproduce

    settings = {name: value for name, value in vars(options).items() if name in setting_names()}
    if "seed" in settings:
        raise ValueError("--seed: expected --seeds, the seeds of all rows")
    folder = Path(settings.pop("output_dir", f"outputs/{options.table}"))

    def say(line: str) -> None:
        print(line, flush=True)

    return reproduce(
        options.table,
        train=train,
        settings=settings,
        seeds=options.seeds,
        encoders=options.encoders,
        folder=folder,
        jobs=options.jobs,
        keep_models=options.keep_models,
        dry_run=options.dry_run,
        report=say,
    )


def _caption(options: argparse.Namespace) -> int:
    from .inference.captioning import Captioner, CaptionFile, caption_corpus

    made_by = {name: getattr(options, name) for name in ("model", "prompt", "max_new_tokens")}
    file = CaptionFile(options.output_file, made_by)
    splits = opened_corpus(options).splits
    chosen = options.splits.split(",") if options.splits else list(splits)
    if unknown := [name for name in chosen if name not in splits]:
        raise ValueError(f"--splits: expected some of {','.join(splits)}, found {','.join(unknown)}")
    settings = {name: getattr(options, name) for name in ("prompt", "max_new_tokens", "device")}
    captioner = Captioner(options.model, **settings)
    counts = caption_corpus(
        {name: splits[name] for name in chosen}, captioner, file, batch_size=options.batch_size
    )
    print(
        f"{file.path}: {len(file.posts)} posts with a caption, {counts.new} of them new; {counts.pictures}"
        " pictures described"
    )
    print(
        f"without a caption: {counts.without} posts that have no picture, {len(counts.broken)} whose picture"
        " is broken"
    )
    if counts.broken:
        print(f"the first broken one is that of {counts.broken[0]}")
    return 0


def _features(options: argparse.Namespace) -> int:
    from .training.features import clear, stores_in
    from .training.run_features import feature_folder

    folder = feature_folder(options.feature_cache)
    if folder is None:
        raise ValueError("--feature_cache: expected a folder or auto, found off")
    total = 0
    for name, pictures, size in stores_in(folder):
        print(f"{name}: {pictures:,} pictures, {size / 1e6:,.1f} MB")
        total += size
    print(f"{'cleared' if options.clear else 'kept'}: {total / 1e6:,.1f} MB in {folder}")
    if options.clear:
        clear(folder)
    return 0
