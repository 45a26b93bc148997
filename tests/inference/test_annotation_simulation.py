"""A thousand shards and 32 workers at once, in processes that die at random places, on a disk that spoils
files.

Workers are forked, and end by `os._exit` before a random one of their operations on files: nothing of theirs
is tidied up, and the kernel lets go of their locks, as after SIGKILL. Meanwhile an observer looks whether
what counts as done is right.
"""

import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dataset_scripts.row_ranges import open_rows
from modeling_mmner.inference.annotation_shards import ABOUT, AnnotationFolder, verify
from tests.annotation_parts import annotated, expected_records, write_posts

SHARDS, ROWS_PER_SHARD, WORKERS = 1000, 3, 32
KILLED = 9


def die_after(steps: int) -> None:
    """Let this process die before one of its next operations on files."""
    left = [steps]

    def mortal(operation: Any) -> Any:
        def act(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os._exit(KILLED)
            return operation(*args, **kwargs)

        return act

    for place, name in (
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (shutil, "rmtree"),
        (os, "fsync"),
    ):
        setattr(place, name, mortal(getattr(place, name)))


def start(source: Path, folder: Path, rank: int, *, world_size: int, steps: int | None) -> int:
    """A worker in a process of its own; returns the process's id."""
    if child := os.fork():
        return child
    code = 1
    try:
        if steps is not None:
            die_after(steps)
        outcome = annotated(source, folder, rank=rank, world_size=world_size, rows_per_shard=ROWS_PER_SHARD)
        code = int(bool(outcome.failures))
    finally:
        os._exit(code)


def spoil(folder: Path, chance: random.Random) -> None:
    """What a bad disk or a careless hand does to one of the files."""
    files = [*folder.glob("*.jsonl"), *(folder / ABOUT).glob("shard-*.json")]
    if not files:
        return
    path = chance.choice(files)
    try:
        content = path.read_bytes()
        match chance.randrange(4):
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(content[: len(content) // 2])
            case 2:
                place = chance.randrange(len(content))
                path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            case 3:
                path.write_bytes(chance.choice(files).read_bytes())
    except (FileNotFoundError, ValueError):  # a worker was quicker
        return


def looks(folder: Path, expected: list[dict[str, Any]], chance: random.Random, shards: int) -> list[bool]:
    """For those among random shards that count as done, whether they are right. A file is read before and
    after it is judged.
    """
    target = AnnotationFolder(folder)
    if (plan := target.plan()) is None:
        return []
    found = []
    for shard in chance.sample(plan.shards, shards):
        try:
            before = target.file_of(plan, shard).read_bytes()
            done = target.flaw(plan, shard) is None
            if done and before == target.file_of(plan, shard).read_bytes():
                right = expected[shard.first : shard.first + shard.rows]
                found.append([json.loads(line) for line in before.splitlines()] == right)
        except FileNotFoundError:
            continue
    return found


def test_a_thousand_shards_and_32_workers_that_die(tmp_path) -> None:
    """If it failed, there would be an order of deaths and damages after which rows are lost, doubled or
    wrong.
    """
    chance = random.Random(20)
    source, folder = write_posts(tmp_path / "posts.jsonl", SHARDS * ROWS_PER_SHARD - 1), tmp_path / "out"
    expected, ends, seen, spoilt = expected_records(source), Counter[int](), list[bool](), 0
    for round_number in range(8):
        # In each round another number of workers, and some ranks twice.
        world_size = WORKERS - round_number
        ranks = [*range(world_size), *chance.sample(range(world_size), round_number)]
        living = {
            start(source, folder, rank, world_size=world_size, steps=chance.randrange(120)) for rank in ranks
        }
        while living:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child in living:
                living.remove(child)
                ends[os.waitstatus_to_exitcode(status)] += 1
            if round_number % 2:
                spoil(folder, chance)
                spoilt += 1
            seen += looks(folder, expected, chance, 20)
            time.sleep(0.005)
    # Now nobody dies, and nothing is spoilt any more.
    missing = verify(folder).flaws
    last = [start(source, folder, rank, world_size=WORKERS, steps=None) for rank in range(WORKERS)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in last] == [0] * WORKERS
    report = verify(folder, open_rows(str(source)))
    assert (report.flaws, report.done) == ([], len(expected))
    assert all(seen)
    assert ends[KILLED] > 100 and len(seen) > 1000 and spoilt > 50 and missing  # or the test would say little
    print(
        f"{ends[KILLED]} killed, {spoilt} times spoilt, {len(seen)} looks at shards that were done,"
        f" {len(missing)} done at last"
    )
