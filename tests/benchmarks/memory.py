"""Peak memory on a small and on a large corpus: `python -m tests.benchmarks.memory`.

Each run is a process of its own, on Linux. Its peak is of the memory that is its own. Pages of files that it
maps, as a corpus is read by `datasets`, are told apart: the kernel takes them back whenever somebody wants
the room.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets

from dataset_scripts.sample.sample import Sample

WATCH = """
import json, sys, threading, time

peaks = {"RssAnon": 0, "RssFile": 0}

def watch():
    while True:
        with open("/proc/self/status") as status:
            found = dict(line.split(":", 1) for line in status)
        for name in peaks:
            peaks[name] = max(peaks[name], int(found[name].split()[0]) / 1024)
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
"""
"""Before each program: it watches its own memory, in MiB."""

TRAINING = """
from itertools import islice
from modeling_mmner.training.recipes import load_recipe
import train_accelerate as script

dataset, output, steps, left = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[3])
whole_epoch = script.train_batches

def some_steps(model, batches, **options):
    global left
    taken = min(left, len(batches))
    left -= taken
    return whole_epoch(model, islice(batches, taken), **options)

script.train_batches = some_steps
given = {"dataset": dataset, "output_dir": output, "compare_without_pictures": False, "exclude_overlap": False}
recipe = load_recipe("quickstart", given)
rows = script.load_corpus(recipe.corpus).splits["train"]
epochs = -(-steps // -(-len(rows) // recipe.training.batch_size))
script.train(recipe.with_settings(epochs=epochs))
assert left == 0
print(json.dumps(peaks))
"""
"""A training of so many steps: the script's own, its epochs cut short."""

EXTRACTION = """
import datasets
from modeling_mmner.inference.loading import load_model
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader

rows = datasets.load_dataset(sys.argv[1], split="train")
model, processor = load_model(sys.argv[2])
posts = sum(1 for _ in BatchPredictor(model, PostReader(processor), batch_size=32, read_ahead=True).predict(rows))
assert posts == len(rows)
print(json.dumps(peaks))
"""
"""The entities of all training posts."""


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    add = parser.add_argument
    add(
        "--training",
        type=int,
        nargs=2,
        default=[1_000, 100_000],
        metavar="POSTS",
        help="of the two corpora (default 1000 100000)",
    )
    add(
        "--extraction",
        type=int,
        nargs=2,
        default=[5_000, 50_000],
        metavar="POSTS",
        help="the same (default 5000 50000)",
    )
    add("--steps", type=int, default=200, help="of training (default 200)")
    add("--folder", help="folder for corpora and models, kept and used again (default: a temporary one)")
    return parser.parse_args()


def main(options: argparse.Namespace, folder: Path) -> None:
    """Print each run's peaks, and by how much the large corpus's differs from the small one's."""
    _compare(
        "training",
        [(TRAINING, posts, [str(folder / f"run-{posts}"), str(options.steps)]) for posts in options.training],
        folder,
    )
    model = str(folder / f"run-{options.training[0]}" / "model")
    _compare("extraction", [(EXTRACTION, posts, [model]) for posts in options.extraction], folder)


def _compare(what: str, runs: list[tuple[str, int, list[str]]], folder: Path) -> None:
    peaks = []
    for program, posts, arguments in runs:
        dataset = str(write_corpus(folder / f"corpus-{posts}", posts))
        found = _run(WATCH + program, [dataset, *arguments])
        peaks.append(found["RssAnon"])
        print(
            f"{what}, {posts:,} posts: {peaks[-1]:,.0f} MiB of its own, {found['RssFile']:,.0f} MiB of files",
            flush=True,
        )
    print(f"{what}: {100 * (peaks[1] / peaks[0] - 1):+.1f}%", flush=True)


def _run(program: str, arguments: list[str]) -> dict[str, Any]:
    """What a program says in its last line; its first run, which fills caches, does not count."""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"benchmarks: a run failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_corpus(folder: Path, posts: int) -> Path:
    """A data set with so many training posts of the sample corpus, and its other splits as they are; returns
    the folder.
    """
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        for split, most in (("train", posts), ("validation", None), ("test", None)):
            rows = datasets.Dataset.from_generator(
                generated_rows, features=Sample().info.features, gen_kwargs={"split": split, "most": most}
            )
            rows.to_parquet(partial / f"{split}-00000-of-00001.parquet")
        partial.rename(folder)
    return folder


def generated_rows(split: str, most: int | None) -> Iterator[dict[str, Any]]:
    """Posts of the sample corpus with one seed after the other; None: those of the first."""
    builders = (Sample(seed=seed) for seed in (count(1) if most is not None else [1]))
    rows = (
        row | {"id": f"{builder.config.seed}-{row['id']}"}
        for builder in builders
        for _, row in builder._generate_examples(split)
    )
    yield from islice(rows, most)


if __name__ == "__main__":
    given = parse_arguments()
    if given.folder is not None:
        main(given, Path(given.folder))
    else:
        with TemporaryDirectory() as temporary:
            main(given, Path(temporary))
