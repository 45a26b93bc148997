"""The commands about corpora."""

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_scripts.corpora import BUILDERS

from ..escaping import say
from ..training.recipe_options import as_text
from .options import BUILDING, DESCRIBING, READING, Positive, command

if TYPE_CHECKING:
    from datasets import Dataset

    from dataset_scripts.opening import Corpus


_INSPECTED = ("statistics.json", "contact_sheet.html", "spans_left_out.jsonl")


@command(reading=READING)
def inspect(
    dataset: str,
    *,
    output_dir: str | None = None,
    split: str = "train",
    count: Positive = 12,
    seed: int = 1,
    reading: dict[str, Any],
) -> int:
    """Say what is understood of a corpus, what would be lost and what mends it; count and show it.

    The status is 1 where something would be lost in training, and 2 where the corpus cannot be opened. The
    last line is the command that trains on it, where it has the splits for that.

    Args:
        dataset: sample, twitter2015, twitter2017, mmner or conll; a file or folder of posts; a folder with a
            built data set or raw files; or a Hub id.
        output_dir: folder for statistics.json and contact_sheet.html.
        split: split of the contact sheet.
        count: posts on the contact sheet.
        seed: random seed for the choice of posts.
    """
    from rich.console import Console

    from dataset_scripts.builders.builder import SPLITS
    from dataset_scripts.contact_sheet import contact_sheet
    from dataset_scripts.diagnosis import add_hints, diagnosis
    from dataset_scripts.inspection import inspect_corpus, tables
    from dataset_scripts.opening import open_corpus

    from ..files import check_apart, write_text, write_whole

    if output_dir:
        written = [Path(output_dir), *(Path(output_dir) / name for name in _INSPECTED)]
        check_apart(written, [dataset, reading.get("data_dir"), reading.get("image_dir")])
    corpus = open_corpus(dataset, **reading)
    rows, statistics = split_of(corpus, split), inspect_corpus(corpus)
    add_hints(corpus, statistics)
    for line in diagnosis(corpus, statistics):
        say(line)
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in tables(statistics):
        console.print(table)
    if output_dir:
        folder, title = Path(output_dir), f"{corpus.name}, {split}"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "statistics.json", json.dumps(statistics, indent=2, ensure_ascii=False))
        corpus.write_left_out(folder)
        sheet = partial(contact_sheet, rows, corpus.labels, count=count, seed=seed, title=title)
        write_whole(folder / "contact_sheet.html", sheet)
        say(f"statistics.json and contact_sheet.html are in {folder}/")
    lost = sum(one.lost for one in corpus.findings.sorted())
    is_whole = corpus.splits.keys() >= set(SPLITS)
    if lost:
        way = "as it is, it is trained on by" if is_whole else "training needs more splits"
        say(f"of {lost} kinds something would be lost, see above; {way}")
    if is_whole:
        say(training_command(corpus, dataset, reading))
    return int(lost > 0)


def training_command(corpus: "Corpus", dataset: str, reading: dict[str, Any]) -> str:
    """The command that trains on a corpus as it was read, for a shell."""
    from dataset_scripts.findings import PICTURES_LEFT_OUT
    from dataset_scripts.inspection import picture_numbers

    known = sorted({name for rows in corpus.splits.values() for name in rows["language"]} - {"unknown"})
    has_pictures = any(picture_numbers(rows).any() for rows in corpus.splits.values())
    recipe = "bert-crf" if not has_pictures else "2m-ner" if {*known} - {"en"} else "mlmner"
    given: dict[str, Any] = {"recipe": recipe, "dataset": dataset, "languages": ",".join(known)}
    lost = any(what.startswith(PICTURES_LEFT_OUT) for what in corpus.findings.numbers())
    given["no_use_images"] = lost and not has_pictures  # training refuses to lose all that posts name
    given |= {"dataset_config" if name == "config" else name: value for name, value in reading.items()}
    parts = ["mmner", "train"]
    for name, value in (given | {"output_dir": f"outputs/{corpus.name}"}).items():
        value = as_text(value, dict[str, str])
        parts += [f"--{name}"] if value is True else [f"--{name}", value] if value else []
    return shlex.join(parts)


@command(into="reading", reading=READING, building=BUILDING)
def build(
    dataset: str,
    *,
    output_dir: str,
    overwrite: bool = False,
    config: str = "",
    push: str | None = None,
    public: bool = False,
    i_have_the_rights: bool = False,
    reading: dict[str, Any],
) -> None:
    """Build a corpus into a folder that the Hub serves.

    Args:
        dataset: the corpus, named as for inspect.
        output_dir: folder to make.
        overwrite: replace a data set that was built there before.
        config: configs to build, separated by commas (mmner: en, all, en_plus_de, ...).
        push: ORG/NAME of a data set on the Hub that it is put to.
        public: with --push: for everybody to see; otherwise the data set is private.
        i_have_the_rights: with --push: to the posts and pictures.
    """
    from dataset_scripts.builders.built_corpus import build_dataset, check_may_publish, publish

    if (public or i_have_the_rights) and not push:
        raise ValueError("--public and --i_have_the_rights: expected them with --push ORG/NAME, found none")
    if push:
        is_generated = dataset in BUILDERS and BUILDERS[dataset].IS_GENERATED
        check_may_publish(push, generated=is_generated, has_rights=i_have_the_rights, public=public)
    names = config.split(",") if config else []
    record = build_dataset(dataset, output_dir, configs=names, overwrite=overwrite, **reading)
    for name, built in record["configs"].items():
        for split, counts in built["splits"].items():
            found = counts["pictures"]
            states = ", ".join(f"{found[state]} {state}" for state in ("present", "missing", "broken"))
            size = f"{counts['posts']} posts, {counts['tokens']} tokens, {counts['entities']}"
            say(f"{name} {split}: {size}, pictures: {states}")
            for note, number in counts["notes"].items():
                say(f"{name} {split}: {note}: {number}")
    say(f"built {output_dir}; load_dataset({output_dir!r}) loads it, README.md is its card")
    if push:
        say(f"pushed to {publish(output_dir, push, public=public)}")


@command()
def overlap(of: str, found_in: str | None = None) -> None:
    """Count the posts that two corpora, or the splits of one, have in common.

    Args:
        of: corpus whose posts are counted, named as for inspect.
        found_in: corpus in which they are looked up; none: in the other splits.
    """
    from dataset_scripts.opening import open_corpus
    from dataset_scripts.overlap import overlap_matrix

    other = open_corpus(found_in) if found_in else None
    print(json.dumps(overlap_matrix(open_corpus(of), other), indent=2))


@command(reading=READING)
def export_imgid(dataset: str, *, output_dir: str, reading: dict[str, Any]) -> None:
    """Write a corpus as IMGID files and pictures.

    Args:
        dataset: the corpus, named as for inspect.
        output_dir: folder to make.
    """
    from dataset_scripts.formats.imgid import export_imgid
    from dataset_scripts.opening import open_corpus

    export_imgid(open_corpus(dataset, **reading), output_dir)
    say(f"wrote train.txt, valid.txt, test.txt and images/ to {output_dir}")


@command(reading=READING, describing=DESCRIBING)
def contexts(
    dataset: str,
    *,
    reader: str,
    output_file: str,
    splits: str = "",
    reading: dict[str, Any],
    describing: dict[str, Any],
) -> None:
    """Write what stands in the pictures of a corpus, or what a model says of them, as contexts for training.

    Each picture is described once; training reads the file with --context ocr, or caption, and --context_file
    FILE. A file that is not whole is gone on with.

    Args:
        dataset: the corpus, named as for inspect.
        reader: rapidocr for the text in the pictures (pip install 'mmner[ocr]'), or folder or Hub id of an
            image-to-text or image-text-to-text model; code of its own is not run.
        output_file: JSON lines to write or to go on with.
        splits: splits to describe, separated by commas; default: all.
    """
    from dataset_scripts.opening import open_corpus

    from ..files import check_apart
    from ..inference.picture_contexts import Captioner, Transcriber, write_contexts

    check_apart([output_file], [dataset, reader, reading.get("data_dir"), reading.get("image_dir")])
    corpus = open_corpus(dataset, **reading)
    names = splits.split(",") if splits else list(corpus.splits)
    chosen = {name: split_of(corpus, name, option="--splits") for name in names}
    size, own = describing.pop("batch_size", 8), reader == "rapidocr"
    if own and describing:
        raise ValueError(f"--reader rapidocr: expected no option of a model, found {', '.join(describing)}")
    describer = Transcriber() if own else Captioner(reader, **describing)
    say(write_contexts(chosen, describer, output_file=output_file, batch_size=size))


def split_of(corpus: "Corpus", split: str, *, option: str = "--split") -> "Dataset":
    """The rows of a corpus's split; ValueError where it has none of that name."""
    if split not in corpus.splits:
        raise ValueError(f"{option}: expected one of {', '.join(corpus.splits)}, found {split!r}")
    return corpus.splits[split]
