"""Follow the README to the letter: run every Python block, and every command that works on what the
quickstart has made.

Each block runs in a process of its own, in the order of the README, without the Hub. Of the command blocks
those lines run that name `outputs/`, the folder of the quickstart, but for the demo, which serves until it is
stopped. A block that begins with the name of a file of the package is one to add to that file;
`tests/test_own_parts.py` does so. One that reads posts.jsonl, a file of the reader's own, is run by
`tests/test_annotation_engines.py`.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = (" demo ", "pip install", "train_accelerate.py")


def blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, language and content of each fenced block that can run; a long command's lines are
    joined.
    """
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        language, content = match.groups()
        if language == "bash":
            commands = content.replace("\\\n", " ").splitlines()
            content = "\n".join(
                one for one in commands if "outputs/" in one and not any(name in one for name in NOT_RUN)
            )
        if content.strip() and not content.startswith("# modeling_mmner/") and "posts.jsonl" not in content:
            yield line, language, content


def main() -> None:
    ran = {"python": 0, "bash": 0}
    for line, language, content in blocks(Path("README.md").read_text(encoding="utf-8")):
        started = time.perf_counter()
        command = [sys.executable, "-c", content] if language == "python" else ["bash", "-euc", content]
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        print(
            f"README.md:{line}: {language}, {time.perf_counter() - started:.0f} s, exit status"
            f" {done.returncode}"
        )
        if done.returncode:
            sys.exit(f"{content}\n{done.stdout}\n{done.stderr[-3000:]}")
        ran[language] += 1
    print(f"README.md: ran {ran['python']} Python blocks and {ran['bash']} blocks of commands")
    if not all(ran.values()):
        sys.exit(
            "README.md: expected blocks of both kinds, found none of one: has the way they are fenced"
            " changed?"
        )


if __name__ == "__main__":
    main()
