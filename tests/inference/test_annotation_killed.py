"""Fifty thousand posts by four workers as processes that are killed ten times, and by datatrove: each row is
there once.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modeling_mmner.cli import main
from tests.annotation_parts import contents
from tests.elsewhere import clean_environment
from tests.small_posts import WORDS, small_parts

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
POSTS, WORKERS, KILLS = 50_000, 4, 10
SETTINGS = {"rows_per_shard": 500, "dtype": "float32", "device": "cpu"}

DATATROVE = """
import json, sys
from datatrove.executor import LocalPipelineExecutor
from modeling_mmner.inference.annotate_command import AnnotationJob
from modeling_mmner.inference.datatrove_step import AnnotateStep
if __name__ == "__main__":
    job = AnnotationJob("model", "posts.jsonl", "by_datatrove", **json.loads(sys.argv[1]))
    LocalPipelineExecutor([AnnotateStep(job)], tasks=4, workers=2, logging_dir="logs").run()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of text alone, and posts of which each thousandth is broken."""
    folder, chance = tmp_path_factory.mktemp("killed"), random.Random(1)
    model, processor = small_parts(fusion="text-only", objectives={"crf": 1.0})
    processor.tokenizer.model_max_length = 64  # which is what the model reads
    for part in (model, processor):
        part.save_pretrained(folder / "model")
    with (folder / "posts.jsonl").open("w") as file:
        for row in range(POSTS):
            line = json.dumps(
                {
                    "id": row,
                    "text": " ".join(chance.choices([*WORDS, "#fun", "@you,"], k=chance.randint(1, 25))),
                }
            )
            file.write((line[:-3] if row % 1000 == 999 else line) + "\n")
    return folder


def start(folder: Path, rank: int) -> tuple[subprocess.Popen, Path]:
    """A worker, and the file of what it says."""
    options = [part for name, value in SETTINGS.items() for part in (f"--{name}", str(value))]
    place = ["--model", "model", "--input", "posts.jsonl", "--output_dir", "killed", "--rank", str(rank)]
    command = [
        sys.executable,
        "-m",
        "modeling_mmner",
        "annotate",
        *place,
        "--world_size",
        str(WORKERS),
        *options,
    ]
    said = folder / f"said-{rank}-{time.monotonic_ns()}.txt"
    with said.open("w") as file:
        environment = clean_environment(PYTHONPATH=ROOT)
        return (
            subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT),
            said,
        )


def verified(folder: Path, name: str, capsys: pytest.CaptureFixture) -> str:
    assert main(["annotate", "--verify", str(folder / name), "--input", str(folder / "posts.jsonl")]) == 0
    return capsys.readouterr().out.splitlines()[-1].partition(": ")[2]


def test_ten_kills_lose_nothing(folder, capsys) -> None:
    """If it failed, a real process that is killed while it computes or writes would lose or double rows."""
    chance, kills = random.Random(7), 0
    working = {rank: start(folder, rank) for rank in range(WORKERS)}
    while working:
        time.sleep(0.2)
        for rank, (process, said) in list(working.items()):
            if process.poll() is not None:
                assert process.returncode == 0, said.read_text()[-2000:]
                del working[rank]
        begun = [rank for rank, (_, said) in working.items() if "shard" in said.read_text()]
        if kills < KILLS and begun:
            time.sleep(chance.random())
            rank = chance.choice(begun)
            process, said = working[rank]
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL
                kills += 1
                working[rank] = start(folder, rank)
    assert kills == KILLS
    text = verified(folder, "killed", capsys)
    assert text == "50,000 of 50,000 rows are there exactly once, 50 of them with an error"
    print(f"\n{kills} kills: {text}")


def test_datatrove_leaves_the_same(folder, capsys) -> None:
    """If it failed, results would depend on who starts the workers."""
    pytest.importorskip("datatrove")
    (folder / "by_datatrove.py").write_text(DATATROVE)
    command = [sys.executable, "by_datatrove.py", json.dumps(SETTINGS)]
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(PYTHONPATH=ROOT), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"\ndatatrove: {verified(folder, 'by_datatrove', capsys)}")
    assert contents(folder / "by_datatrove") == contents(folder / "killed")
