"""The commands about corpora: build-dataset, inspect, overlap, remove, export-imgid."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from .corpora import BUILDERS
from .formats.reader import CorpusError
from .reading_options import ReadingOptions, closed_sets

if TYPE_CHECKING:
    from .opening import Corpus

# What runs a command is imported when it runs: `datasets` alone takes a second, and --help has no need of it.

_DATASET = f"one of {', '.join(BUILDERS)}, a folder with a built data set or raw files, or a Hub id"


def add_corpus_commands(commands: Any) -> None:
    """Add the parsers of the commands, with the functions that run them, to `commands`."""
    build = commands.add_parser("build-dataset", help="build a corpus into a folder that the Hub serves")
    build.set_defaults(command=_build)
    build.add_argument("dataset", choices=list(BUILDERS), help="the corpus")
    build.add_argument("--output_dir", required=True, help="folder to make")
    build.add_argument(
        "--overwrite", action="store_true", help="replace a data set that was built there before"
    )
    build.add_argument(
        "--config", default="", help="configs to build, separated by commas (mmner: en, all, en_plus_de, ...)"
    )
    build.add_argument(
        "--broken_pictures", choices=["keep", "stop"], help="keep a post without its broken picture, or stop"
    )
    build.add_argument(
        "--require_images", action="store_true", default=None, help="stop at a post whose picture is missing"
    )
    build.add_argument("--license", help="of the corpus, for conll (default other)")
    build.add_argument("--push", metavar="ORG/NAME", help="put the data set on the Hub, private")
    build.add_argument("--public", action="store_true", help="with --push: for everybody to see")
    build.add_argument(
        "--i_have_the_rights", action="store_true", help="with --push: to the posts and pictures"
    )
    add_reading_options(build)

    inspect = commands.add_parser("inspect", help="print what a corpus holds, and draw it")
    inspect.set_defaults(command=_inspect)
    inspect.add_argument("dataset", help=_DATASET)
    inspect.add_argument(
        "--output_dir", help="folder for statistics.json, statistics.png and contact_sheet.html"
    )
    inspect.add_argument("--config", help="config of a data set that has several")
    inspect.add_argument("--split", default="train", help="split of the contact sheet (default train)")
    inspect.add_argument("--count", type=int, default=12, help="posts on the contact sheet (default 12)")
    inspect.add_argument(
        "--seed", type=int, default=1, help="random seed for the choice of posts (default 1)"
    )
    add_reading_options(inspect)

    overlap = commands.add_parser(
        "overlap", help="count the posts that two corpora, or the splits of one, have in common"
    )
    overlap.set_defaults(command=_overlap)
    overlap.add_argument("of", help=f"corpus whose posts are counted: {_DATASET}")
    overlap.add_argument(
        "found_in", nargs="?", help="corpus in which they are looked up; none: in the other splits"
    )

    remove = commands.add_parser("remove", help="take posts out of a built data set and its card")
    remove.set_defaults(command=_remove)
    remove.add_argument("folder", help="a data set made by build-dataset")
    remove.add_argument("--ids", required=True, metavar="FILE", help="the posts' ids, one a line")

    export = commands.add_parser("export-imgid", help="write a corpus as IMGID files and pictures")
    export.set_defaults(command=_export)
    export.add_argument("dataset", help=_DATASET)
    export.add_argument("--output_dir", required=True, help="folder to make")
    export.add_argument("--config", help="config of a data set that has several")
    add_reading_options(export)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of how files are read; what is not given is left to the corpus's builder."""
    group, choices = parser.add_argument_group("raw files"), dict(closed_sets(ReadingOptions))
    hints = get_type_hints(ReadingOptions)
    for item in fields(ReadingOptions):
        kind: dict[str, Any] = {"choices": choices.get(item.name)}
        if hints[item.name] is int:
            kind = {"type": int}
        elif hints[item.name] is bool:
            kind = {"action": "store_true"}
        elif "form" in item.metadata:
            kind = {"type": mapping_reader(item.metadata["form"]), "metavar": f"{item.metadata['form']},..."}
        group.add_argument(f"--{item.name}", default=None, help=item.metadata["help"], **kind)


def mapping_reader(form: str) -> Callable[[str], dict[str, str]]:
    """What reads ``a=x,b=y``; the form is told where it is another, as ``OURS=THEIRS``."""

    def read(text: str) -> dict[str, str]:
        pairs = [pair.split("=") for pair in text.split(",")]
        if not all(len(pair) == 2 and all(pair) for pair in pairs):
            raise argparse.ArgumentTypeError(f"expected {form},{form}, found {text!r}")
        return dict(pairs)

    return read


def _given(options: argparse.Namespace, *more: str) -> dict[str, Any]:
    """The options of reading raw files that were given."""
    names = (*(item.name for item in fields(ReadingOptions)), *more)
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def opened_corpus(options: argparse.Namespace) -> "Corpus":
    """The corpus that a command's options name."""
    from .opening import open_corpus

    return open_corpus(options.dataset, config=options.config, **_given(options))


def _build(options: argparse.Namespace) -> int:
    from .builders.built_corpus import build_dataset
    from .builders.publishing import check_may_publish, publish

    if (options.public or options.i_have_the_rights) and not options.push:
        raise CorpusError(
            "--public and --i_have_the_rights: expected them with --push ORG/NAME, found no --push"
        )
    if options.push:
        check_may_publish(
            options.push,
            generated=BUILDERS[options.dataset].IS_GENERATED,
            has_rights=options.i_have_the_rights,
            public=options.public,
        )
    record = build_dataset(
        options.dataset,
        options.output_dir,
        configs=[name for name in options.config.split(",") if name],
        overwrite=options.overwrite,
        **_given(options, "broken_pictures", "require_images", "license"),
    )
    for name, config in record["configs"].items():
        for split, counts in config["splits"].items():
            pictures = ", ".join(
                f"{counts['pictures'][state]} {state}" for state in ("present", "missing", "broken")
            )
            print(
                f"{name} {split}: {counts['posts']} posts, {counts['tokens']} tokens, {counts['entities']},"
                f" pictures: {pictures}"
            )
            for note, number in counts["notes"].items():
                print(f"{name} {split}: {note}: {number}")
    print(
        f"built {options.output_dir}; load_dataset({str(options.output_dir)!r}) loads it, README.md is its"
        " card"
    )
    if options.push:
        print(f"pushed to {publish(options.output_dir, options.push, public=options.public)}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from rich.console import Console

    from modeling_mmner.escaping import one_line
    from modeling_mmner.files import json_line

    from .contact_sheet import contact_sheet
    from .inspection import inspect_corpus, plot_statistics, tables

    corpus = opened_corpus(options)
    if options.split not in corpus.splits:
        raise CorpusError(f"--split: expected one of {', '.join(corpus.splits)}, found {options.split!r}")
    statistics = inspect_corpus(corpus)
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in tables(statistics):
        console.print(table)
    for line in corpus.reading_report():
        print(one_line(line))
    if options.output_dir:
        folder = Path(options.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "statistics.json").write_text(
            json.dumps(statistics, indent=2, ensure_ascii=False), encoding="utf-8"
        )
        plot_statistics(statistics, folder / "statistics.png")
        rows = corpus.splits[options.split]
        title = f"{corpus.name}, {options.split}"
        if corpus.left_out:
            lines = [json_line(asdict(span)) + "\n" for span in corpus.left_out]
            (folder / "spans_left_out.jsonl").write_text("".join(lines), encoding="utf-8")
        contact_sheet(
            rows,
            corpus.labels,
            folder / "contact_sheet.html",
            count=options.count,
            seed=options.seed,
            title=title,
        )
        print(f"statistics.json, statistics.png and contact_sheet.html are in {folder}/")
    return 0


def _overlap(options: argparse.Namespace) -> int:
    from .opening import open_corpus
    from .overlap import overlap_matrix

    found_in = open_corpus(options.found_in) if options.found_in else None
    print(json.dumps(overlap_matrix(open_corpus(options.of), found_in), indent=2, ensure_ascii=False))
    return 0


def _remove(options: argparse.Namespace) -> int:
    from .builders.editing import read_ids, remove_posts

    removed = remove_posts(options.folder, read_ids(options.ids))
    absent = [post_id for post_id, rows in removed.items() if not rows]
    print(
        f"{options.folder}: took out {sum(removed.values())} rows of {len(removed) - len(absent)} posts;"
        " counts and card are new"
    )
    if absent:
        print(f"not found: {', '.join(absent)}", file=sys.stderr)
    return 0


def _export(options: argparse.Namespace) -> int:
    from .builders.editing import export_imgid

    export_imgid(opened_corpus(options), options.output_dir)
    print(f"wrote train.txt, valid.txt, test.txt and images/ to {options.output_dir}")
    return 0
