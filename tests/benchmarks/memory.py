"""Peak memory on a small and on a large corpus: `python -m tests.benchmarks.memory --help`.

Each run is a process of its own, on Linux. Its peak is of the memory that is its own; pages of files that it
maps, as `datasets` reads a corpus, do not count: the kernel takes them back whenever somebody wants the room.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets

from dataset_scripts.builders.builder import corpus_features
from dataset_scripts.sample.sample import Sample

WATCH = """
import re, sys, threading, time

peak = 0.0

def watch():
    global peak
    while True:
        with open("/proc/self/status") as status:
            peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", status.read())[1]) / 1024)
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
given = {"dataset": dataset, "output_dir": output, "compare_without_pictures": False}
recipe = load_recipe("quickstart", given | {"exclude_overlap": False})
rows = script.load_corpus(recipe.corpus).splits["train"]
epochs = -(-steps // -(-len(rows) // recipe.training.batch_size))
script.train(recipe.with_settings(epochs=epochs))
assert left == 0
print(peak)
"""
"""A training of so many steps: the script's own, its epochs cut short."""

EXTRACTION = """
import datasets
from modeling_mmner.inference.loading import load_predictor

rows = datasets.load_dataset(sys.argv[1], split="train")
assert sum(1 for _ in load_predictor(sys.argv[2], batch_size=32).predict(rows)) == len(rows)
print(peak)
"""
"""The entities of all training posts."""

LONG_POSTS = """
import torch
from modeling_mmner import MMNERConfig, MMNERForTokenClassification
from modeling_mmner.training.processes import give_memory_back

posts, words, windows, length, types = 16, 500, 4, 512, range(13)
torch.manual_seed(0)
sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536}
labels = ["O", *(f"{begin}-{kind}" for kind in types for begin in "BI")]
pictured = sys.argv[1] == "mlmner"
parts = {"vision_towers": [{"backbone": "resnet152"}]} if pictured else {
    "fusion": "text-only", "vision_towers": [], "objectives": {"crf": 1.0}
}
config = {"text_config": sizes | {"model_type": "bert"}, "id2label": dict(enumerate(labels))}
model = MMNERForTokenClassification(MMNERConfig(**config, **parts)).train()
if pictured:
    model.objectives["clustering"].has_centre.fill_(True)
batch = {
    "input_ids": torch.randint(5, 30000, (posts, windows, length)),
    "word_starts": torch.linspace(1, windows * length - 2, words).long().expand(posts, -1),
    "word_mask": torch.ones(posts, words, dtype=torch.bool),
    "labels": torch.randint(0, len(labels), (posts, words)),
}
if pictured:
    batch["pixel_values"] = torch.randint(0, 256, (posts, 1, 3, 224, 224)).to(torch.uint8)
give_memory_back()
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
model(**batch).loss.backward()
optimizer.step()
print(peak)
"""
"""One step on 16 posts of 500 words, each in four windows of 512 sub-tokens, by random weights."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    add, sizes = parser.add_argument, {"type": int, "nargs": 2, "metavar": "POSTS"}
    add("--training", default=[1_000, 100_000], help="of the two corpora (default 1000 100000)", **sizes)
    add("--extraction", default=[5_000, 50_000], help="the same (default 5000 50000)", **sizes)
    add("--long", action="store_true", help="instead, a training step on posts of 500 words")
    add("--steps", type=int, default=200, help="of training (default 200)")
    return parser.parse_args(arguments)


def main(options: argparse.Namespace, folder: Path) -> None:
    """Print each run's peak, and by how much the large corpus's differs from the small one's."""
    for system in ("mlmner", "text-only") if options.long else ():
        print(
            f"{system}, 16 posts of 500 words: {_peak(WATCH + LONG_POSTS, [system], runs=1):,.0f} MiB",
            flush=True,
        )
    if options.long:
        return
    run, steps = folder / "run", str(options.steps)
    training = {posts: [f"{run}-{posts}", steps] for posts in options.training}
    _compare("training", TRAINING, training, folder)
    model = f"{run}-{options.training[0]}/model"
    _compare("extraction", EXTRACTION, {posts: [model] for posts in options.extraction}, folder)


def _compare(what: str, program: str, runs: dict[int, list[str]], folder: Path) -> None:
    peaks = []
    for posts, arguments in runs.items():
        dataset = write_corpus(folder / f"corpus-{posts}", posts)
        peaks.append(_peak(WATCH + program, [str(dataset), *arguments]))
        print(f"{what}, {posts:,} posts: {peaks[-1]:,.0f} MiB of its own", flush=True)
    print(f"{what}: {100 * (peaks[1] / peaks[0] - 1):+.1f}%", flush=True)


def _peak(program: str, arguments: list[str], *, runs: int = 2) -> float:
    """What a program says in its last line; its first run of two, which fills caches, does not count."""
    for _ in range(runs):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"benchmarks: a run failed:\n{done.stderr[-4000:]}")
    return float(done.stdout.splitlines()[-1])


def write_corpus(folder: Path, posts: int) -> Path:
    """A data set with so many training posts of the sample corpus, and its other splits as they are."""
    for split, most in (("train", posts), ("validation", None), ("test", None)):
        given, features = {"split": split, "most": most}, corpus_features(Sample.labels)
        rows = datasets.Dataset.from_generator(generated_rows, features=features, gen_kwargs=given)
        folder.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def generated_rows(split: str, most: int | None) -> Iterator[dict[str, Any]]:
    """Posts of the sample corpus with one seed after the other; None: those of the first."""
    seeds = count(1) if most is not None else [1]
    rows = ((seed, row) for seed in seeds for row in Sample(seed=seed).rows(split))
    yield from (row | {"id": f"{seed}-{row['id']}"} for seed, row in islice(rows, most))


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        main(parse_arguments(), Path(temporary))
