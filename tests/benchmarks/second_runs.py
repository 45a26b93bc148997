"""What a second epoch, run and seed compute again of the pictures: `python -m tests.benchmarks.second_runs
--help`.

Each run is a process of its own, the script's training with its epochs cut short.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

RUN = """
import time
started = time.perf_counter()
import json, sys
from itertools import islice
from modeling_mmner.training.features import PictureFeatures
from modeling_mmner.training.recipe_options import parse_arguments

recipe = parse_arguments(sys.argv[2:])
import train_accelerate as script

STEPS, computed, steps = int(sys.argv[1]), [], []
of_rows, whole_epoch = PictureFeatures._rows, script.train_batches

def counted(self, tower, squares):
    computed.extend(squares)
    return of_rows(self, tower, squares)

def some_steps(model, batches, **options):
    for losses in whole_epoch(model, islice(batches, STEPS), **options):
        steps.append((time.perf_counter() - started, len(computed)))
        yield losses

PictureFeatures._rows, script.train_batches = counted, some_steps
script.train(recipe)
seconds, before = steps[0]
print(json.dumps({"pictures": len(set(computed)), "before": before, "later": len(computed) - before, "seconds": seconds}))
"""


def main() -> None:
    """Train three times: with nothing kept, once more, and with another seed; print what each has
    computed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.second_runs",
        description=__doc__,
        epilog=(
            "All other options are those of train_accelerate.py; of its recipe at least one picture encoder"
            " is frozen."
        ),
    )
    parser.add_argument("--steps", type=int, default=5, help="of each epoch (default 5)")
    options, of_script = parser.parse_known_args()
    with TemporaryDirectory() as folder:
        kept = [
            "--feature_cache",
            str(Path(folder) / "features"),
            "--output_dir",
            str(Path(folder) / "run"),
            "--epochs",
            "2",
        ]
        for what, seed in (("first run", 1), ("second run", 1), ("second seed", 2)):
            command = [sys.executable, "-c", RUN, str(options.steps), *of_script, *kept, "--seed", str(seed)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"benchmarks: the {what} failed:\n{done.stderr[-4000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                "{what}: encoders ran on {pictures} pictures, {before} times before the first step and"
                " {later} times later; first step done {seconds:.1f} s after the start".format(
                    what=what, **found
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
