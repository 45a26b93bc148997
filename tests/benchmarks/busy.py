"""Steps a second of the quickstart, alone and beside busy processes, with threads that wait or that spin.

`python -m tests.benchmarks.busy --rounds 5`: runs take turns, so that other load falls on all of them alike.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

TIMED = """
import os, sys, time
{first}
import train_accelerate
from modeling_mmner.training.recipes import load_recipe
from modeling_mmner.training.run_folder import Progress

steps, times = int(sys.argv[1]), []
def timed(self, losses):
    times.append(time.perf_counter())
    if len(times) == steps + 3:  # the first ones are slower
        print("steps a second", steps / (times[-1] - times[2]), flush=True)
        os._exit(0)

Progress.add = timed
options = dict(output_dir=sys.argv[2], num_workers=0, compare_without_pictures=False)
train_accelerate.train(load_recipe("quickstart", options))
"""
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
WAITING = {"spinning": "import torch  # before the package settles it", "passive, the default": ""}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing but work."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def steps_a_second(first: str, steps: int) -> float:
    """Of a run in a process of its own, which ends after its steps."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TIMED.format(first=first), str(steps), folder]
        said = subprocess.run(command, env=kept, capture_output=True, text=True, check=True).stdout
    return float(said.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind (default 3)")
    parser.add_argument("--steps", type=int, default=20, help="of each run (default 20)")
    parser.add_argument("--busy", type=int, default=3, help="busy processes (default 3)")
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for processes in (0, options.busy):
            for name, first in WAITING.items():
                with busy(processes):
                    speed = steps_a_second(first, options.steps)
                found.setdefault(f"{name}, beside {processes}", []).append(speed)
    for name, speeds in found.items():
        print(f"{name}: {median(speeds):.2f} steps/s ({min(speeds):.2f} to {max(speeds):.2f})")


if __name__ == "__main__":
    main()
