"""A small Hub that runs while tests use it, see `tests/hub_server.py`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from PIL import Image

ROOT = Path(__file__).parents[2]


@dataclass
class Hub:
    """A running server, and a folder with what it began with and what is pushed to it."""

    address: str
    folder: Path

    @property
    def picture(self) -> Path:
        return self.folder / "picture.png"

    def repository(self, name: str) -> dict[str, Any]:
        with urlopen(f"{self.address}/log") as log:
            return json.load(log)[name]

    def commits(self, name: str) -> list[dict[str, Any]]:
        """What was pushed, after the commit with which the Hub makes a repository."""
        return self.repository(name)["commits"][1:]

    def environment(self) -> dict[str, Any]:
        return {"HF_ENDPOINT": self.address, "HF_TOKEN": "hf_any", "NO_PROXY": "127.0.0.1"}

    def model_folder(self, key: str) -> Path:
        return self.folder / "served" / "models" / "org" / key


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """A Hub that has what lies in ``folder/served``, and a picture beside it."""
    Image.linear_gradient("L").save(folder / "picture.png")
    command = [sys.executable, "-m", "tests.hub_server", str(folder / "served")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Hub(process.stdout.readline().strip(), folder)
        finally:
            process.terminate()
