"""Files: JSON lines and plain YAML read; files and folders written so that they appear only when complete."""

import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from .model.posts_mmner import PostError


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
                try:
                    os.link(path, own, follow_symlinks=False)
                except (OSError, NotImplementedError):  # the disk knows no second names
                    shutil.copy2(path, own, follow_symlinks=False)


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its place; the old one is gone only when the new one is there,
    and on the disk.
    """
    staged, old = (_beside(target, state) for state in ("incomplete", "replaced"))
    staged.mkdir(parents=True)
    try:
        yield staged
        for path in (*(path for path in staged.rglob("*") if not path.is_symlink()), staged):
            _sync(path)
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
    finally:
        shutil.rmtree(staged, ignore_errors=True)


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
        for path in target.parent.glob(f".{glob.escape(target.name)}.{state}-*"):
            process = path.name.split("-")[-2]
            if process != str(os.getpid()) and _is_running(process):
                continue
            if state == "replaced" and not target.exists():
                path.rename(target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # somebody else's process
        return True
    return True


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def picture_content(picture: Mapping[str, Any]) -> bytes:
    """The bytes of a picture, given as ``{"bytes", "path"}``: what it is known by, wherever it lies."""
    content = picture["bytes"]
    return Path(picture["path"]).read_bytes() if content is None else content


MOST_LINE_BYTES = 100_000_000
"""Of a line; one that holds a picture of 50 MB in base64 is shorter."""


def read_json_lines(source: IO[bytes], name: str) -> Iterator[Any]:
    """What stands on the lines of a file of JSON lines, a `PostError` in the place of each that is no JSON;
    empty lines are passed over.

    Args:
        name: what errors call the file.
    """
    return (value for _, value in numbered_json_lines(source, name))


def numbered_json_lines(source: IO[bytes], name: str) -> Iterator[tuple[int, Any]]:
    """As `read_json_lines`, each with the number of its line, from 1. A line longer than `MOST_LINE_BYTES` is
    never held.
    """
    number = 0
    while line := source.readline(MOST_LINE_BYTES):
        number += 1
        is_whole = line.endswith(b"\n") or len(line) < MOST_LINE_BYTES
        if not is_whole:
            found = f"expected a line of at most {MOST_LINE_BYTES:,} bytes, found a longer one"
            yield number, PostError(f"{name}:{number}: {found}")
        elif line.strip():
            yield number, parsed_post(line, f"{name}:{number}", is_first=number == 1)
        while not is_whole:
            rest = source.readline(MOST_LINE_BYTES)
            is_whole = rest.endswith(b"\n") or len(rest) < MOST_LINE_BYTES


def parsed_post(line: bytes, place: str, *, is_first: bool) -> Any:
    """What stands on a line of JSON, or a `PostError` that names its place; the first of a file may have a
    byte order mark.
    """
    try:
        return parsed(line.decode("utf-8-sig" if is_first else "utf-8").strip())
    except ValueError as error:
        found = line.strip()[:200].decode("utf-8", "replace")
        return PostError(f"{place}: expected a JSON object, found {found!r:.80} ({error!s:.200})")


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
    except (yaml.YAMLError, RecursionError, LookupError, TypeError) as error:  # the last two for odd keys
        raise ValueError(f"{error!s:.500}" or type(error).__name__) from error
