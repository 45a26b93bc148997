"""Annotations by processes that are killed, and by executors of datatrove for clusters: each row is there
once, and what it was.
"""

import json
import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from modeling_mmner.inference.annotate import verify
from tests.elsewhere import clean_environment
from tests.small_posts import WORDS, small_parts

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
POSTS, TASKS, KILLS = 50_000, 100, 10
LOCAL = """
import sys
from modeling_mmner.inference.annotate import AnnotateStep, Annotator, annotate, open_posts
if __name__ == "__main__":
    source, out, tasks = sys.argv[1:]
    step = AnnotateStep(Annotator("model", dtype="float32", device="cpu"), open_posts(source), out)
    print(annotate(step, tasks=int(tasks), workers=2))
"""
RAY = """
import ray
from datatrove.executor import RayPipelineExecutor
from modeling_mmner.inference.annotate import AnnotateStep, Annotator, open_posts

ray.init(num_cpus=2, include_dashboard=False)
step = AnnotateStep(Annotator("model", dtype="float32", device="cpu"), open_posts("few.jsonl"), "by_ray")
RayPipelineExecutor([step], tasks=6, workers=2, mem_per_cpu_gb=0.5, logging_dir="by_ray/.annotation").run()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of text alone, and posts of which each thousandth is broken."""
    folder, chance = tmp_path_factory.mktemp("killed"), random.Random(1)
    model, processor = small_parts(fusion="text-only", objectives={"crf": 1.0})
    processor.tokenizer.model_max_length = 64  # which is what the model reads
    for part in (model, processor):
        part.save_pretrained(folder / "model")
    words = [*WORDS, "#fun", "@you,"]
    texts = (" ".join(chance.choices(words, k=chance.randint(1, 25))) for _ in range(POSTS))
    lines = [json.dumps({"id": row, "text": text}) for row, text in enumerate(texts)]
    lines[999::1000] = [line[:-3] for line in lines[999::1000]]
    (folder / "posts.jsonl").write_text("\n".join(lines))
    (folder / "few.jsonl").write_text("\n".join(lines[:5000]))
    return folder


def start(folder: Path, program: str, *arguments: str) -> subprocess.Popen:
    path = folder / f"program{len(program)}.py"  # a file, which other processes can import
    path.write_text(program)
    environment = clean_environment(PYTHONPATH=ROOT, OMP_NUM_THREADS=1, HF_HOME=folder / "home")
    with (folder / "said.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, path.name, *arguments], cwd=folder, env=environment, stdout=said, stderr=said
        )


def done_tasks(out: Path) -> int:
    return len(list((out / ".annotation/completions").glob("*")))


def same_rows(folder: Path, one: str, other: str) -> bool:
    def table(name: str) -> object:
        return pq.read_table([str(path) for path in sorted((folder / name).glob("*.parquet"))])

    return table(one) == table(other)


def test_ten_kills_lose_nothing(folder) -> None:
    """If it failed, a process that is killed while it computes or writes would lose or double rows, or its
    driver wait for it without end.
    """
    chance, kills = random.Random(7), {"driver": 0, "worker": 0}
    given = ["posts.jsonl", "killed", str(TASKS)]
    while sum(kills.values()) < KILLS:
        driver, before = start(folder, LOCAL, *given), done_tasks(folder / "killed")
        while done_tasks(folder / "killed") < before + 2:
            assert driver.poll() is None, (folder / "said.txt").read_text()[-2000:]
            time.sleep(0.1)
        time.sleep(chance.random())
        workers = [
            child for child in psutil.Process(driver.pid).children() if "spawn_main" in str(child.cmdline())
        ]
        assert len(workers) == 2
        if sum(kills.values()) % 2:
            chance.choice(workers).kill()
            kills["worker"] += 1
            time.sleep(2 * chance.random())
        driver.kill()
        driver.wait()
        kills["driver"] += 1
        for worker in workers:  # they end after their task, for whoever starts again shall have the machine
            worker.wait(60)
    assert done_tasks(folder / "killed") < TASKS
    assert start(folder, LOCAL, *given).wait(900) == 0
    outcome = verify(folder / "killed")
    assert (outcome.done, outcome.errors, outcome.flaws) == (POSTS, POSTS // 1000, [])
    assert start(folder, LOCAL, "posts.jsonl", "whole", str(TASKS)).wait(900) == 0
    assert same_rows(folder, "killed", "whole")
    print(f"\n{kills} kills: {outcome}")


def test_a_worker_that_is_killed_leaves_the_others_at_work(folder) -> None:
    """If it failed, one worker that takes too much memory would end the run, or have it wait without end."""
    given = ["few.jsonl", "worker", "20"]
    driver = start(folder, LOCAL, *given)
    while done_tasks(folder / "worker") < 1:
        assert driver.poll() is None
        time.sleep(0.05)
    next(iter(c for c in psutil.Process(driver.pid).children() if "spawn_main" in str(c.cmdline()))).kill()
    assert driver.wait(300) == 0
    assert 10 <= done_tasks(folder / "worker") < 20 and verify(folder / "worker").flaws
    assert start(folder, LOCAL, *given).wait(300) == 0
    assert verify(folder / "worker").flaws == []


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_runs_the_tasks(folder) -> None:
    """If it failed, a worker of Ray's that is killed would lose or double rows."""
    driver = start(folder, RAY)
    while done_tasks(folder / "by_ray") < 2:
        assert driver.poll() is None, (folder / "said.txt").read_text()[-2000:]
        time.sleep(0.1)
    children = psutil.Process(driver.pid).children(recursive=True)
    actors = [child for child in children if child.name().startswith("ray::RankWorker")]
    actors[0].kill()
    assert driver.wait(500) == 0, (folder / "said.txt").read_text()[-2000:]
    assert str(verify(folder / "by_ray")) == "5,000 of 5,000 rows are there exactly once, 5 with an error"
    assert start(folder, LOCAL, "few.jsonl", "by_local", "6").wait(300) == 0
    assert same_rows(folder, "by_ray", "by_local")
