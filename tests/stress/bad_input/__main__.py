"""`python -m tests.bad_input`: the counts by door and outcome; the status is 1 where a row has another than
it must.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

from .cases import Bench, outcome
from .table import CASES

OUTCOMES = ("result", "own error", "caller's error", "foreign error")


def main() -> int:
    counts: Counter[tuple[str, str]] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for case in CASES:
            found, text = outcome(case, bench)
            counts[case.door, found] += 1
            if found != case.expected or (case.error or "") not in text:
                wrong += 1
                print(
                    f"{case.door}: {case.name}: expected {case.expected} {case.error or ''!r}, found {found}"
                    f" {text[:300]!r}"
                )
    print(f"{'door':<20}" + "".join(f"{name:>16}" for name in OUTCOMES))
    for door in dict.fromkeys(case.door for case in CASES):
        print(f"{door:<20}" + "".join(f"{counts[door, name]:>16}" for name in OUTCOMES))
    print(
        f"{'all ' + str(len(CASES)):<20}"
        + "".join(f"{sum(counts[key] for key in counts if key[1] == name):>16}" for name in OUTCOMES)
    )
    print(f"{wrong} other than the table says")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
