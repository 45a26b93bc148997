"""Files: JSON lines and plain YAML read; files and folders written so that they appear only when complete."""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sqlite3
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from math import isfinite
from pathlib import Path
from typing import IO, Any

import yaml

from .claims import claimed
from .model.posts_mmner import PostError, file_within


def write_whole(path: Path, write: Callable[[Path], Any]) -> Any:
    """Write a file under another name, see that it is on the disk, and rename it. Gives what `write` does."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.touch()  # with the mode that new files get here
        mode = partial.stat().st_mode
        written = write(partial)
        _settle(partial, mode)
        partial.replace(path)
        _sync(path.parent)
        return written
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As `write_whole`, a text in UTF-8."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_named(path: Path, write: Callable[[Path], Any]) -> Any:
    """As `write_whole`, a file that a user has named: a link stays one, a pipe or a device is written to.

    Raises:
        OSError: its folder is not there, or `path` is a folder.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise OSError(f"{path}: expected a file in a folder that exists; make the folder")
    return write(path) if path.exists() and not path.is_file() else write_whole(path.resolve(), write)


def check_apart(outputs: Iterable[str | Path], inputs: Iterable[str | Path | None]) -> None:
    """See that what is to be written is nothing that is read, under whatever name, before it is written.

    Args:
        outputs, inputs: files and folders, of inputs with the files in them; what is neither, as an id on the
            Hub, is passed over.

    Raises:
        ValueError: an output is an input.
    """
    written = {identity: output for output in outputs if (identity := _identity(output))}
    for given in (Path(one) for one in inputs if one and written):
        inside = (one for one in given.iterdir() if one.is_file()) if os.path.isdir(given) else ()
        for one in (given, *inside):
            if (identity := _identity(one)) and (output := written.get(identity)):
                expected = "expected another place to write to than what is read"
                raise ValueError(f"{output}: {expected}, found that it is {one}; name another")


def _identity(place: str | Path) -> tuple[int, int] | None:
    """What a file or a folder is known by under each of its names; None where it is neither."""
    if not os.path.isfile(place) and not os.path.isdir(place):
        return None
    found = os.stat(place)
    return found.st_dev, found.st_ino


@contextmanager
def staged_folder(
    target: str | Path, *, marker: str | None = None, overwrite: bool = False
) -> Iterator[Path]:
    """A temporary folder beside `target`, which takes its place when the block ends without an error.

    After an error it is removed, and so is what a killed run has left behind.

    Args:
        marker: a file by which a folder of the same making is known; no other folder is ever replaced.
        overwrite: replace such a folder.

    Raises:
        FileExistsError: `target` is there and may not be replaced.
        BlockingIOError: another process is making it.
    """
    target = Path(target).absolute()
    with recovered(target):
        if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
            is_known = marker is not None and (target / marker).is_file()
            if not is_known or not overwrite:
                found = "a built data set; --overwrite replaces it" if is_known else "something else there"
                raise FileExistsError(f"{target}: expected a new or an empty folder, found {found}")
        with _staged(target) as staged:
            yield staged


@contextmanager
def renewed_folder(target: str | Path, *, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """As `staged_folder`, for a folder that may hold files of others, which the new folder takes over.

    They are neither opened nor changed. Where one can be neither linked nor copied, the old folder is left
    beside the new one, and a warning names it.

    Args:
        is_ours: whether a file, named with slashes from the folder on, goes with the old folder.

    Raises:
        FileExistsError: `target` is a file.
        BlockingIOError: another process is making it.
    """
    target = Path(target).resolve()  # where it is a link, what it leads to is renewed
    with recovered(target):
        if target.exists() and not target.is_dir():
            raise FileExistsError(f"{target}: expected a folder, found a file; remove it, or name another")
        with _staged(target, is_ours) as staged:
            yield staged


@contextmanager
def _staged(target: Path, is_ours: Callable[[str], bool] | None = None) -> Iterator[Path]:
    """The temporary folder; the old one is deleted only when the new one is in its place and on the disk."""
    mark = uuid.uuid4().hex[:8]
    staged, old = (target.with_name(f".{target.name}.{state}-{mark}") for state in ("incomplete", "replaced"))
    staged.mkdir(parents=True)
    try:
        yield staged
        for path in (path for path in staged.rglob("*") if not path.is_symlink()):
            _settle(path, staged.stat().st_mode)
        if is_ours is not None and target.exists() and (left := _take_along(target, staged, is_ours)):
            old = target.with_name(f".{target.name}.kept-{mark}")
            found = f"found {left[0]}, which can be neither linked nor copied"
            warnings.warn(f"{target}: {found}; the folder as it was is {old} now", stacklevel=4)
        _sync(staged)
        if target.exists():
            target.rename(old)
        staged.rename(target)
        _sync(target.parent)
    finally:
        with recovered(target):
            pass


def _take_along(old: Path, new: Path, is_ours: Callable[[str], bool]) -> list[str]:
    """Give a new folder the files of others in the old one; returns those for which that cannot be done."""
    left: list[str] = []
    for folder, folders, files in os.walk(old, onerror=lambda error: left.append(error.filename)):
        for path in (Path(folder, name) for name in (*folders, *files)):
            own = new / path.relative_to(old)
            try:
                if path.name in folders and not os.path.islink(path):
                    own.mkdir(exist_ok=True)
                elif not is_ours(path.relative_to(old).as_posix()) and not os.path.lexists(own):
                    link(path, own)
            except OSError:
                left.append(str(path))
    return left


def link(path: Path, own: Path) -> None:
    """Give a file a second name, or else a copy."""
    try:
        os.link(path, own, follow_symlinks=False)
    except (OSError, NotImplementedError):  # the disk knows no second names
        if not path.is_file() and not path.is_symlink():  # what is no file may have no end
            raise
        shutil.copy2(path, own, follow_symlinks=False)


def _settle(path: Path, mode: int) -> None:
    """Give what was written here the mode that new files get, for some writers have ideas of their own, and
    see that it is on the disk.
    """
    if path.is_file():
        with suppress(OSError):  # not every disk has modes
            path.chmod(mode & 0o666)
    _sync(path)


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


@contextmanager
def recovered(target: Path) -> Iterator[None]:
    """Hold the making of `target`, after clearing up what killed runs have left of it.

    A folder that they had moved aside is put back where there is none.

    Raises:
        BlockingIOError: another process is making it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with claimed(target, beside=True):
        for state in ("replaced", "kept", "incomplete"):
            for path in target.parent.glob(f".{glob.escape(target.name)}.{state}-*"):
                if state != "incomplete" and not target.exists():
                    path.rename(target)
                elif state != "kept":
                    shutil.rmtree(path, ignore_errors=True)
        yield


def reason(error: Exception, place: str | Path) -> str:
    """What an error of reading a file or a folder says. Some readers say of what may not be read that it is
    not there.
    """
    for path in (Path(place), *Path(place).glob("*")) if isinstance(error, OSError) else ():
        if os.path.lexists(path) and not os.access(path, os.R_OK):
            error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return f"{type(error).__name__}: {error!s:.500}"


def check_own_files(folder: str | Path, is_used: Callable[[str], bool] = lambda _: True) -> None:
    """Check that the files of a model's folder that will be copied, or those of some names, are its own.

    Raises:
        ValueError: one is a link that leads out of the folder, or no regular file.
    """
    for path in sorted(Path(folder).absolute().rglob("*")):
        is_own = (path.is_dir() and not path.is_symlink()) or file_within(path, Path(folder)) is not None
        if not is_own and is_used(path.name):
            expected = f"a file of the folder {folder}, since it would be copied"
            raise ValueError(f"{path}: expected {expected}, found none or a link to another place")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_MOST_NOTES = 200_000


@cache
def _notes() -> sqlite3.Connection:
    """What was found out before, by any process of this user."""
    from huggingface_hub import constants

    path = Path(constants.HF_HOME) / "mmner" / "notes.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # What is lost is asked again.
    notes.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY")
    notes.execute("CREATE TABLE IF NOT EXISTS notes (at INTEGER PRIMARY KEY, key TEXT UNIQUE, answer TEXT)")
    notes.execute("DELETE FROM notes WHERE at <= (SELECT max(at) FROM notes) - ?", [_MOST_NOTES])
    return notes


def noted(key: str, find: Callable[[], str]) -> str:
    """What `find` says, which is asked once for a key, unless notes can be neither read nor written."""
    no_notes = suppress(sqlite3.Error, OSError)
    with no_notes:
        if found := _notes().execute("SELECT answer FROM notes WHERE key = ?", [key]).fetchone():
            return found[0]
    answer = find()
    with no_notes:
        _notes().execute("INSERT OR REPLACE INTO notes (key, answer) VALUES (?, ?)", [key, answer])
    return answer


def noted_sha256(path: Path) -> str:
    """As `sha256`; a file whose path, size, times of change and inode are as they were is not read again."""
    status = path.stat()
    # One that was written just now may be written again before the clock of its disk moves on.
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < 2_000_000_000:
        return sha256(path)
    stamp = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    return noted(f"sha256 {path.absolute()} {stamp}", lambda: sha256(path))


def picture_hash(picture: Mapping[str, Any]) -> str:
    """The SHA-256 of `picture_content`, of a file as `noted_sha256`."""
    content = picture["bytes"]
    return noted_sha256(Path(picture["path"])) if content is None else hashlib.sha256(content).hexdigest()


def picture_content(picture: Mapping[str, Any]) -> bytes:
    """The bytes of a picture, given as ``{"bytes", "path"}``: what it is known by, wherever it lies."""
    content = picture["bytes"]
    return Path(picture["path"]).read_bytes() if content is None else content


MOST_LINE_BYTES = 100_000_000
"""The most that is read of a line; one that holds a picture of 50 MB in base64 is shorter."""


def read_json_lines(source: IO[bytes], name: str) -> Iterator[Any]:
    """The values on the lines of a file of JSON lines, with a `PostError` for each line that is no JSON.

    Empty lines are passed over, a line longer than `MOST_LINE_BYTES` is never held. Errors say `name`.
    """
    return (value for _, value in numbered_json_lines(source, name))


def numbered_json_lines(source: IO[bytes], name: str) -> Iterator[tuple[int, Any]]:
    """As `read_json_lines`, each value with the number of its line, from 1."""

    def is_cut(line: bytes) -> bool:
        return len(line) == MOST_LINE_BYTES and not line.endswith(b"\n")

    for number, line in enumerate(iter(lambda: source.readline(MOST_LINE_BYTES), b""), start=1):
        if is_cut(line):
            found = f"expected a line of at most {MOST_LINE_BYTES:,} bytes, found a longer one"
            yield number, PostError(f"{name}:{number}: {found}")
            while is_cut(source.readline(MOST_LINE_BYTES)):
                pass
        elif line.strip():
            try:  # the first line of a file may have a byte order mark
                yield number, parsed(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
            except ValueError as error:
                found = line.strip()[:200].decode("utf-8", "replace")
                place = f"{name}:{number}: expected a JSON object, found {found!r:.80}"
                hint = "; convert the file to UTF-8" if isinstance(error, UnicodeDecodeError) else ""
                yield number, PostError(f"{place} ({error!s:.200}){hint}")


def parsed(text: str) -> Any:
    """The value that JSON stands for; a number greater than any float, as 1e999, stays a text.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refused, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _finite(number: str) -> float | str:
    return value if isfinite(value := float(number)) else number


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def json_line(record: dict[str, Any]) -> str:
    """The record as one line of JSON, in which half an emoji, which UTF-8 cannot hold, is escaped, and so are
    control characters, which a terminal obeys.

    What is no number in JSON, as infinity, is null.
    """
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:
        finite = json.loads(json.dumps(record), parse_constant=lambda name: None)
        line = json.dumps(finite, ensure_ascii=False)
    line = line.encode(errors="backslashreplace").decode()
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", line)


class _PlainLoader(yaml.SafeLoader):
    """YAML without references, with which a few lines could stand for more than fits into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to another place by `*`; write the value out")
        return super().compose_node(parent, index)


_POWER_OF_TEN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")  # 1e-4, of which YAML 1.1 makes a string
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", _POWER_OF_TEN, list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """The value that YAML stands for: plain values alone.

    Raises:
        ValueError: it is no YAML, has references or tags of Python's, or is nested too deeply.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, RecursionError, LookupError, TypeError) as error:  # the last two for odd keys
        raise ValueError(f"{error!s:.500}" or type(error).__name__) from error
