"""Notes on files: one that has not changed is not read again, one that has changed always is."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from modeling_mmner import files
from modeling_mmner.files import FileNotes, sha256


@pytest.fixture
def file(tmp_path) -> Path:
    """A file that was written long ago, for all that its times say."""
    return written(tmp_path / "file", b"before")


@pytest.fixture(autouse=True)
def later(monkeypatch):
    """It is a minute later than files were written: what was written just now is not noted."""
    now = time.time_ns
    monkeypatch.setattr(files.time, "time_ns", lambda: now() + 60_000_000_000)


def written(path: Path, content: bytes, *, seconds: int = 1_700_000_000) -> Path:
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))
    return path


def asked(tmp_path: Path, *files_: Path) -> list[str]:
    """Ask for hashes as a new process would; returns the names of the files that were read."""
    read: list[str] = []
    notes = FileNotes(tmp_path / "cache" / "notes.json")

    def find(path: Path) -> str:
        read.append(path.name)
        return sha256(path)

    for path in files_:
        assert notes.of(path, "sha256", find) == sha256(path), f"the hash of {path.name} is another file's"
    notes.keep()
    return read


def test_unchanged_file_is_read_once(tmp_path, file):
    """If it failed, each start would read all weights and pictures."""
    other = written(tmp_path / "other", b"other")
    assert asked(tmp_path, file) == ["file"]
    assert asked(tmp_path, file, other) == ["other"]
    assert asked(tmp_path, other, file) == []


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
def test_changed_file_is_read_again(tmp_path, file, change):
    """If it failed, a run would go on with another's weights or pictures."""
    asked(tmp_path, file)
    change(file)
    assert asked(tmp_path, file) == ["file"]


def test_file_written_just_now_is_not_noted(tmp_path, file, monkeypatch):
    """If it failed, a second change within a tick of the disk's clock would not be seen."""
    monkeypatch.undo()
    assert asked(tmp_path, file) == asked(tmp_path, file) == ["file"]


def test_several_questions_have_their_own_answers(tmp_path, file):
    """If it failed, a picture's hash would pass for what is wrong with it."""
    notes = FileNotes(tmp_path / "notes.json")
    assert [notes.of(file, about, lambda _, said=about: said) for about in ("a", "b", "a")] == ["a", "b", "a"]


def test_what_others_have_noted_stays(tmp_path, file):
    """If it failed, two runs at a time would make each other read everything again."""
    other = written(tmp_path / "other", b"other")
    first, second = FileNotes(tmp_path / "cache" / "notes.json"), FileNotes(tmp_path / "cache" / "notes.json")
    first.of(file, "sha256", sha256)
    second.of(other, "sha256", sha256)
    first.keep()
    second.keep()
    assert asked(tmp_path, file, other) == []


def test_notes_are_bounded_and_the_last_ones_stay(tmp_path, monkeypatch):
    """If it failed, the notes would grow with every corpus that was ever read."""
    monkeypatch.setattr(FileNotes, "MOST", 3)
    several = [written(tmp_path / str(number), b"one") for number in range(5)]
    asked(tmp_path, *several)
    assert len(json.loads((tmp_path / "cache" / "notes.json").read_text())) == 3
    assert asked(tmp_path, *several) == ["0", "1"]


@pytest.mark.parametrize(
    "content", [b"{", b"\xff", b"[1, 2]", b"3", b'{"sha256 FILE": 3}', b'{"sha256 FILE": []}']
)
def test_broken_notes_are_none(tmp_path, file, content):
    """If it failed, a broken cache would stop every run."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "notes.json").write_bytes(content.replace(b"FILE", os.fsencode(file)))
    assert asked(tmp_path, file) == ["file"]
    assert asked(tmp_path, file) == []


def test_where_nobody_may_write_nothing_is_noted(tmp_path, file):
    """If it failed, a read-only home would stop every run."""
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert asked(tmp_path, file) == asked(tmp_path, file) == ["file"]
