"""Output files and folders that appear only when they are complete."""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path

from filelock import FileLock, Timeout

_ABANDONED = 24 * 3600
"""Seconds after which an unlocked room of another machine is taken for one of a killed process: not every shared file system
tells one machine what another has locked."""


@contextmanager
def staged_folder(target: str | Path, *, marker: str | None = None, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and is removed when it does not.

    What a killed run has left behind is cleared away, and a folder that it had just moved aside is put back.

    Args:
        marker: a file by which a folder of the same making is known; no other folder is ever replaced, and without it none.
        overwrite: replace such a folder.

    Raises:
        FileExistsError: `target` is there and may not be replaced.
    """
    target = Path(target).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    _recover(target)
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        if marker is None or not (target / marker).is_file():
            raise FileExistsError(f"{target}: expected a new or an empty folder, found something else there")
        if not overwrite:
            raise FileExistsError(f"{target}: expected a new folder, found a built data set; --overwrite replaces it")
    staged = _beside(target, "incomplete")
    staged.mkdir()
    try:
        yield staged
        _exchange(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _exchange(staged: Path, target: Path) -> None:
    """Put the staged folder in the target's place; the old one is gone only when the new one is there."""
    old = _beside(target, "replaced")
    if target.exists():
        target.rename(old)
    try:
        staged.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path, state: str) -> Path:
    """A new hidden name, which tells the process that made it."""
    return target.parent / f".{target.name}.{state}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _recover(target: Path) -> None:
    """Clear up after killed runs; those still at work are left alone.

    A name with this process's own number is of a killed run too: in containers, numbers come again.
    """
    for state in ("replaced", "incomplete"):
        for path in target.parent.glob(f".{_escaped(target.name)}.{state}-*"):
            if (process := path.name.split("-")[-2]) != str(os.getpid()) and _is_running(process):
                continue
            if state == "replaced" and not target.exists():
                path.rename(target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _is_running(process: str) -> bool:
    with suppress(ValueError, ProcessLookupError):
        try:
            os.kill(int(process), 0)
        except PermissionError:  # somebody else's process
            return True
        return True
    return False


@contextmanager
def own_room(rooms: Path) -> Iterator[Path]:
    """A folder for what this process has not finished yet, gone when the block ends; those of killed processes are cleared.

    Args:
        rooms: where the processes, on one machine or many, have their rooms, each with a lock beside it as long as it is used.
    """
    rooms.mkdir(parents=True, exist_ok=True)
    _clear_rooms(rooms)
    room = rooms / f"{socket.gethostname()}-{uuid.uuid4().hex}"
    lock = room.with_name(f"{room.name}.lock")
    with FileLock(lock):
        room.mkdir()
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)
    lock.unlink(missing_ok=True)


def _clear_rooms(rooms: Path) -> None:
    for lock in rooms.glob("*.lock"):
        room = lock.with_suffix("")
        if not room.name.startswith(f"{socket.gethostname()}-") and _last_change(room, lock) > time.time() - _ABANDONED:
            continue
        with suppress(Timeout, OSError, NotImplementedError), FileLock(lock, blocking=False):
            shutil.rmtree(room, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _last_change(room: Path, lock: Path) -> float:
    changes = [0.0]
    for path in (lock, room, *room.glob("*")):
        with suppress(FileNotFoundError):
            changes.append(path.stat().st_mtime)
    return max(changes)


@contextmanager
def staged_file(target: Path, *, room: Path) -> Iterator[BufferedRandom]:
    """A file in a room that is on the disk, and then takes the target's place, when the block ends well."""
    path = room / target.name
    try:
        with path.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not every file system can do it for a folder
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
