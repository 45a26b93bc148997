"""Memory and speed of building a corpus with many pictures: `pytest -m slow -s
tests/dataset_scripts/test_built_corpus_scale.py` prints them.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.memory import WATCH

DRAWN = 50  # pictures that differ in their pixels; the others differ in bytes after the end of the picture

BUILD = (
    WATCH
    + """
import json
from pathlib import Path
import datasets
from dataset_scripts.builders.built_corpus import build_dataset
datasets.disable_progress_bars()
time.sleep(0.2)
before, started, folder = peak, time.perf_counter(), Path(sys.argv[1])
record = build_dataset("conll", folder / "built", data_dir=folder, image_dir=folder / "images")
seconds = time.perf_counter() - started
present = sum(split["pictures"]["present"] for split in record["configs"]["default"]["splits"].values())
print(json.dumps({"imports_mib": before, "peak_mib": peak, "pictures": present, "rate": present / seconds}))
"""
)
"""Memory is the process's own: pages of files that it maps go back whenever somebody wants the room."""

READ_AND_DECODE = """
import json, sys, time
from pathlib import Path
from PIL import Image
started = time.perf_counter()
paths = sorted((Path(sys.argv[1]) / "images").iterdir())
for path in paths:
    with Image.open(path) as picture:
        picture.load()
print(json.dumps({"rate": len(paths) / (time.perf_counter() - started)}))
"""


def write_corpus(folder: Path, posts: int) -> None:
    """Posts of 16 words, each with a JPEG of 1024 x 768 pixels and about 100 KB."""
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(DRAWN):
        coarse = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize(
            (1024, 768), Image.Resampling.BICUBIC
        )
        grain = generator.integers(-6, 7, (768, 1024, 3))
        buffer = io.BytesIO()
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(
            buffer, "JPEG", quality=80
        )
        drawn.append(buffer.getvalue())
    blocks = []
    for number in range(posts):
        (folder / "images" / f"{number}.jpg").write_bytes(drawn[number % DRAWN] + number.to_bytes(4, "big"))
        words = "".join(
            f"word{(7 * number + place) % 5000}\t{'B-PER' if place == 3 else 'O'}\n" for place in range(16)
        )
        blocks.append(f"IMGID:{number}\n{words}\n")
    tenth = posts // 10
    for name, part in {
        "train": blocks[2 * tenth :],
        "valid": blocks[:tenth],
        "test": blocks[tenth : 2 * tenth],
    }.items():
        (folder / f"{name}.txt").write_text("".join(part), encoding="utf-8")


def run(program: str, folder: Path) -> dict[str, float]:
    """What a program prints, in a process of its own."""
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_many_pictures_take_little_memory_and_time(tmp_path: Path) -> None:
    """If it failed, a large corpus would not fit in memory, or building take much longer than reading its
    pictures once.
    """
    write_corpus(tmp_path / "small", 1_000)
    write_corpus(tmp_path / "large", 8_000)
    small, large = run(BUILD, tmp_path / "small"), run(BUILD, tmp_path / "large")
    bare = run(READ_AND_DECODE, tmp_path / "large")
    print(json.dumps({"1,000": small, "8,000": large, "bare loop over the 8,000": bare}, indent=2))
    assert large["pictures"] == 8_000
    assert large["peak_mib"] <= 1.2 * small["peak_mib"]
    own_large, own_small = (figures["peak_mib"] - figures["imports_mib"] for figures in (large, small))
    assert own_large <= 1.5 * own_small, "memory grows with the corpus beneath what the imports take"
    assert large["rate"] >= 0.8 * bare["rate"]
