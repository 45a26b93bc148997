"""How many pictures a second run and a second seed run a frozen encoder on again:
`python -m tests.benchmarks.second_runs --help`. None is what is right.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

SCRIPT = Path(__file__).parents[2] / "train_accelerate.py"
COMPUTED = re.compile(r"picture features: ([\d,]+) computed")


def main(arguments: list[str] | None = None) -> list[int]:
    """Train three times: with nothing kept, once more, and with another seed; prints and returns how many
    pictures each has computed the features of.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.second_runs", description=__doc__)
    parser.epilog = "Options are those of train_accelerate.py; its recipe has at least one frozen encoder."
    _, of_script = parser.parse_known_args(arguments)
    counts = []
    with TemporaryDirectory() as temporary:
        kept = ["--feature_cache", f"{temporary}/features", "--output_dir", f"{temporary}/run"]
        for what, seed in (("first run", "1"), ("second run", "1"), ("second seed", "2")):
            command = [sys.executable, str(SCRIPT), *of_script, *kept, "--seed", seed]
            done = subprocess.run(command, capture_output=True, text=True)
            told = COMPUTED.search(done.stdout)
            if done.returncode or told is None:
                raise SystemExit(f"benchmarks: the {what} failed:\n{done.stdout[-500:]}{done.stderr[-4000:]}")
            counts.append(int(told[1].replace(",", "")))
            print(f"{what}: encoders ran on {counts[-1]:,} pictures", flush=True)
    return counts


if __name__ == "__main__":
    main()
