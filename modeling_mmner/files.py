"""Files: JSON lines and plain YAML read, files and folders written so that they appear only when complete."""

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any

import yaml
from filelock import FileLock, Timeout

from .model.posts_mmner import PostError

_ABANDONED = 24 * 3600
"""Seconds after which an unlocked room of another machine is taken for one of a killed process: not every
shared file system tells one machine what another has locked."""


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name, see that it is on the disk, and rename it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As `write_whole`, a text in UTF-8."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


@contextmanager
def staged_folder(
    target: str | Path, *, marker: str | None = None, overwrite: bool = False
) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and is removed when
    it does not.

    What a killed run has left behind is cleared away, and a folder that it had just moved aside is put back.

    Args:
        marker: a file by which a folder of the same making is known; no other folder is ever replaced, and
            without it none.
        overwrite: replace such a folder.

    Raises:
        FileExistsError: `target` is there and may not be replaced.
    """
    target = Path(target).absolute()
    recover(target)
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        if marker is None or not (target / marker).is_file():
            raise FileExistsError(f"{target}: expected a new or an empty folder, found something else there")
        if not overwrite:
            raise FileExistsError(
                f"{target}: expected a new folder, found a built data set; --overwrite replaces it"
            )
    with _staged(target) as staged:
        yield staged


@contextmanager
def renewed_folder(target: str | Path, *, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """As `staged_folder`, for a folder that may hold files of others: they go along, whatever the new one
    holds.

    Args:
        is_ours: of a file's name in the folder, with slashes, whether it goes with the old ones.

    Raises:
        FileExistsError: `target` is a file.
    """
    target = Path(target).resolve()  # where it is a link, what it leads to is renewed
    recover(target)
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target}: expected a folder, found a file; remove it, or name another folder")
    with _staged(target) as staged:
        yield staged
        for path in sorted(target.rglob("*")):
            own = staged / path.relative_to(target)
            if path.is_dir() and not path.is_symlink():
                own.mkdir(exist_ok=True)
            elif not is_ours(path.relative_to(target).as_posix()) and not own.exists():
                _take_along(path, own)


def _take_along(path: Path, to: Path) -> None:
    """A file, or a link, under a second name; as a copy where the disk knows no second names."""
    try:
        os.link(path, to, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(path, to, follow_symlinks=False)


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its place."""
    staged = _beside(target, "incomplete")
    staged.mkdir(parents=True)
    try:
        yield staged
        _exchange(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _exchange(staged: Path, target: Path) -> None:
    """Put the staged folder in the target's place; the old one is gone only when the new one is there, and on
    the disk.
    """
    for path in (*(path for path in staged.rglob("*") if not path.is_symlink()), staged):
        _sync(path)
    old = _beside(target, "replaced")
    if target.exists():
        target.rename(old)
    try:
        staged.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """See that a file, or the names in a folder, are on the disk."""
    if os.name == "nt":  # opens no folder, and syncs no file that is open for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # not every file system syncs folders
            raise
    finally:
        os.close(descriptor)


def _beside(target: Path, state: str) -> Path:
    """A new hidden name, which tells the process that made it."""
    return target.parent / f".{target.name}.{state}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def recover(target: Path) -> None:
    """Clear up after killed runs that made `target`, and put it back where they had moved it aside; those at
    work are left alone.

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
    """A folder for what this process has not finished yet, gone when the block ends; those of killed
    processes are cleared.

    Args:
        rooms: where the processes, on one machine or many, have their rooms, each with a lock beside it as
            long as it is used.
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
        if (
            not room.name.startswith(f"{socket.gethostname()}-")
            and _last_change(room, lock) > time.time() - _ABANDONED
        ):
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
    _sync(target.parent)


MOST_LINE_BYTES = 100_000_000
"""Of a line; one that holds a picture of 50 MB in base64 is shorter."""


def bounded_lines(source: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a file with their numbers, from 1; None for one that is longer than `MOST_LINE_BYTES`,
    which is never held.
    """
    number = 0
    while line := source.readline(MOST_LINE_BYTES):
        number += 1
        is_whole = line.endswith(b"\n") or len(line) < MOST_LINE_BYTES
        yield number, line if is_whole else None
        while not is_whole:
            rest = source.readline(MOST_LINE_BYTES)
            is_whole = rest.endswith(b"\n") or len(rest) < MOST_LINE_BYTES


def parsed(text: str) -> Any:
    """The value that JSON stands for.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refused)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def read_json_lines(source: IO[bytes], name: str) -> Iterator[dict[str, Any] | PostError]:
    """The objects of a file of JSON lines, a `PostError` in the place of each line that is no JSON; empty
    lines are passed over.

    Args:
        name: what errors call the file.
    """
    for number, line in bounded_lines(source):
        if line is None:
            yield PostError(
                f"{name}:{number}: expected a line of at most {MOST_LINE_BYTES:,} bytes, found a longer one"
            )
        elif line.strip():
            yield parsed_post(line, f"{name}:{number}", is_first=number == 1)


def parsed_post(line: bytes, place: str, *, is_first: bool) -> Any:
    """What stands on a line of JSON, or a `PostError` that names its place; the first of a file may have a
    byte order mark.
    """
    try:
        return parsed(line.decode("utf-8-sig" if is_first else "utf-8").strip())
    except ValueError as error:
        found = line.strip()[:200].decode("utf-8", "replace")
        return PostError(f"{place}: expected a JSON object, found {found!r:.80} ({error!s:.200})")


def json_line(record: dict[str, Any]) -> str:
    """The record as one line of JSON, readable where it can be; half an emoji, which UTF-8 cannot hold, is
    escaped.
    """
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(record)
    return line


class _PlainLoader(yaml.SafeLoader):
    """YAML without references, by which a few lines would stand for more than there is memory, or for
    something within itself.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to another place by `*`; write the value out")
        return super().compose_node(parent, index)


def read_yaml(text: str) -> Any:
    """The value that YAML stands for: plain values alone.

    Raises:
        ValueError: it is no YAML, has references or tags of Python's, or is nested too deeply.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except (
        yaml.YAMLError,
        RecursionError,
        LookupError,
        TypeError,
    ) as error:  # PyYAML raises the last two for odd keys
        raise ValueError(f"{error!s:.500}" or type(error).__name__) from error
