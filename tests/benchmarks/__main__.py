"""The command: `python -m tests.benchmarks --help`."""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from .parts import PARTS
from .rounds import table
from .setting import make_setting

PACKAGES = ("mmner", "torch", "transformers", "timm", "accelerate", "pytorch-crf")
OF_SETTING = ("recipe", "data_dir", "image_dir", "text_encoder", "vision_backbone", "vision_checkpoint")
OF_SETTING += ("precision", "batches", "batch_size", "seed")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    told = " ".join(f"{name}: {' '.join(part.__doc__.split())}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Time mmner on the CPU beside other programs that do the same work, in rounds.",
        epilog=f"Parts: {told}",
    )
    add, threads = parser.add_argument, torch.get_num_threads()
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    add("--rounds", type=int, default=5, help="times that each contender runs (default 5)")
    add("--batches", type=int, default=8, help="batches of a training epoch to draw (default 8)")
    add("--batch_size", type=int, default=8, help="posts a batch (default 8)")
    add("--recipe", default="umt-bert-crf", help="of our model; the plain program is UMT")
    add("--data_dir", help="folder of a corpus (default: the generated sample corpus)")
    add("--image_dir", help="folder of its pictures; posts without one get a drawn one")
    add("--text_encoder", help="folder or id of a text encoder (default: a random one of BERT-base's size)")
    add("--vision_backbone", help="timm's name of the picture encoder (default: the recipe's)")
    add("--vision_checkpoint", help="file of its weights (default: random ones)")
    add("--precision", choices=["auto", "bf16", "no"], default="auto", help="of all but the plain program")
    add("--threads", type=int, default=threads, help="threads, but for the part crf, which has one")
    add("--seed", type=int, default=1, help="of posts, weights and orders (default 1)")
    add("--output", type=Path, help="JSON file to write the figures to")
    options = parser.parse_args(arguments)
    for name in ("rounds", "batches", "batch_size", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected a number > 0, found {getattr(options, name)}")
    return options


def main(options: argparse.Namespace) -> dict[str, Any]:
    """Run the parts, print their figures, and return what the JSON file holds."""
    torch.set_num_threads(options.threads)
    setting = make_setting(**{name: getattr(options, name) for name in OF_SETTING})
    report: dict[str, Any] = {
        "options": {name: str(value) for name, value in vars(options).items()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": {"cores": os.cpu_count(), "capability": torch.backends.cpu.get_cpu_capability()},
        "precision": setting.precision,
        "corpus": setting.facts(),
        "parts": {},
    }
    for name in ("versions", "machine", "precision", "corpus"):
        print(f"{name}: {json.dumps(report[name])}")
    print(f"median of {options.rounds} rounds (least to greatest); a ratio is of times of the same round\n")
    for name in options.only:
        report["parts"][name] = []
        for comparison in PARTS[name](setting):
            times = comparison.measure(options.rounds)
            print(table(times), end="\n\n", flush=True)
            report["parts"][name].append(times)
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2), encoding="utf-8")
    return report


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        main(parse_arguments())
    except ValueError as error:
        raise SystemExit(f"benchmarks: {error}") from None
