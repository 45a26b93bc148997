"""Notes on files: one that has not changed is not read again, one that has changed always is."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from modeling_mmner import files
from modeling_mmner.files import noted, noted_sha256, sha256


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A cache folder of its own, a minute later than files were written."""
    now = time.time_ns
    monkeypatch.setattr(files.time, "time_ns", lambda: now() + 60_000_000_000)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    files._notes.cache_clear()
    yield tmp_path / "home" / "mmner"
    files._notes.cache_clear()


@pytest.fixture
def file(tmp_path) -> Path:
    """A file that was written long ago, for all that its times say."""
    return written(tmp_path / "file", b"before")


def written(path: Path, content: bytes, *, seconds: int = 1_700_000_000) -> Path:
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))
    return path


def is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Ask for its hash as a new process would; returns whether it was read."""
    read: list[Path] = []
    files._notes.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256", lambda path: [read.append(path), sha256(path)][1])
        assert noted_sha256(file) == sha256(file), f"the hash of {file.name} is another file's"
    return bool(read)


def replaced(file: Path) -> None:
    """By another file of the same size and time: only the inode is another."""
    other = written(file.with_name("new"), b"after!")
    other.replace(file)


CHANGES: dict[str, Any] = {
    "another time": lambda file: written(file, b"after!", seconds=1_700_000_001),
    "another size": lambda file: written(file, b"afterwards"),
    "another inode": replaced,
    "the same time put back": lambda file: written(file, b"after!"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_file_is_read_once_until_it_changes(file, monkeypatch, change):
    """If it failed, each start would read all pictures, or a run go on with another's."""
    assert is_read(file, monkeypatch) and not is_read(file, monkeypatch)
    change(file)
    assert is_read(file, monkeypatch)


def test_file_written_just_now_is_not_noted(file, monkeypatch):
    """If it failed, a second change within a tick of the disk's clock would not be seen."""
    monkeypatch.setattr(files.time, "time_ns", lambda: file.stat().st_ctime_ns)
    assert is_read(file, monkeypatch) and is_read(file, monkeypatch)


def test_notes_are_bounded_and_the_last_ones_stay(monkeypatch):
    """If it failed, the notes would grow with every corpus that was ever read."""
    monkeypatch.setattr(files, "_MOST_NOTES", 3)
    answers = [noted(str(number), lambda: "old") for number in range(5)]
    files._notes.cache_clear()
    again = [noted(str(number), lambda: "new") for number in range(5)]
    assert answers == ["old"] * 5 and again == ["new", "new", "old", "old", "old"]


def test_where_nobody_may_write_nothing_is_noted(file, home, monkeypatch):
    """If it failed, a read-only home or a broken cache would stop every run."""
    home.parent.mkdir()
    written(home, b"a file where the folder should be")
    assert is_read(file, monkeypatch) and is_read(file, monkeypatch)
    home.unlink()
    home.mkdir()
    written(home / "notes.sqlite", b"no data base" * 100)
    assert is_read(file, monkeypatch) and is_read(file, monkeypatch)
