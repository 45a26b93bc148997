"""Follow the READMEs to the letter: their links lead somewhere, every Python block runs, and so does every
command that works on what the quickstart has made.

Each block runs in a process of its own, in the order of the page, the first page of all first, without the
Hub. Of the command blocks those lines run that name `outputs/`, but for the page, which serves until it is
stopped, and training. A block that begins with the name of a file of the package is one to add to that file;
`tests/model/test_own_parts.py` does so. One that imports a package that no extra installs is left out, and
said to be, where the package is absent.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOMS = ("modeling_mmner", "dataset_scripts", "model_cards", "tests")
MOST_LINES = 250  # of the first page
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)|<img src=\"([^\"]+)\"")
NOT_RUN = (" demo ", "pip install", "train_accelerate.py", "mmner train")
IN_NO_EXTRA = ("ray",)


def pages() -> list[Path]:
    """The README of the top level, then those of the rooms."""
    return [Path("README.md"), *sorted(path for room in ROOMS for path in Path(room).rglob("README.md"))]


def dead_links(page: Path) -> list[str]:
    """The links and pictures of a page that lead to no file; addresses are not asked for."""
    links = [link or picture for link, picture in LINK.findall(page.read_text(encoding="utf-8"))]
    return [link for link in links if "://" not in link and not (page.parent / link).exists()]


def blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, language and content of each fenced block that runs; a long command's lines are joined."""
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        language, content = match.groups()
        if language == "bash":
            commands = content.replace("\\\n", " ").splitlines()
            content = "\n".join(
                one for one in commands if "outputs/" in one and not any(name in one for name in NOT_RUN)
            )
        if content.strip() and not content.startswith("# modeling_mmner/"):
            yield line, language, content


def absent_packages(content: str) -> list[str]:
    """The packages of no extra that a block imports and that are not installed."""
    imported = re.findall(r"^(?:import|from) (\w+)", content, re.MULTILINE)
    return [name for name in IN_NO_EXTRA if name in imported and find_spec(name) is None]


def run(place: str, language: str, content: str) -> None:
    """Run a block. Raises SystemExit with what it printed where it fails."""
    command = [sys.executable, "-c", content] if language == "python" else ["bash", "-euc", content]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PATH": path}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    print(f"{place}: {language}, {taken:.0f} s, exit status {done.returncode}", flush=True)
    if done.returncode:
        raise SystemExit(f"{content}\n{done.stdout}\n{done.stderr[-3000:]}")


def main() -> None:
    started, ran = time.perf_counter(), {"python": 0, "bash": 0}
    for page in pages():
        if dead := dead_links(page):
            raise SystemExit(f"{page}: expected links to files that are there, found {', '.join(dead)}")
    lines = pages()[0].read_text(encoding="utf-8").count("\n")
    if lines > MOST_LINES:
        raise SystemExit(f"{pages()[0]}: expected at most {MOST_LINES} lines, found {lines}")
    for page in pages():
        for line, language, content in blocks(page.read_text(encoding="utf-8")):
            place = f"{page}:{line}"
            if language == "python" and (absent := absent_packages(content)):
                print(f"{place}: not run, since {', '.join(absent)} is not installed")
                continue
            run(place, language, content)
            ran[language] += 1
    print(
        f"{len(pages())} READMEs: ran {ran['python']} Python blocks and {ran['bash']} blocks of commands in"
        f" {time.perf_counter() - started:.0f} s"
    )
    if not all(ran.values()):
        raise SystemExit("expected blocks of both kinds, found none of one: are they fenced otherwise now?")


if __name__ == "__main__":
    main()
