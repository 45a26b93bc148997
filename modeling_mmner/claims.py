"""Claims: a folder, or what is to be made, belongs to one command at a time."""

import errno
import os
import platform
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_HELD: dict[Path, tuple[int, int]] = {}
"""The process and the thread that hold each claim. A forked child has them, too, and holds none."""


@contextmanager
def claimed(place: Path, *, beside: bool = False, patience: float = 1.0) -> Iterator[None]:
    """Hold a place against all other processes: a folder, or by a file `beside` it what is to be made there.

    It is held by a record lock, which children do not inherit and which ends with its process. The locked
    file says whose it is, and goes when the place is given back; that of a dead process keeps nobody out.
    A thread may claim again what it holds.

    Args:
        patience: seconds to wait for whoever holds it.

    Raises:
        BlockingIOError: another one holds it.
        OSError: no file can be written there.
    """
    path = place.parent.resolve() / f".{place.name}.claim" if beside else place.resolve() / ".claim"
    ours = os.getpid(), threading.get_ident()
    if _HELD.get(path) == ours:
        yield
        return
    deadline = time.monotonic() + patience
    while (file := _locked(path)) is None:
        if time.monotonic() > deadline:
            raise BlockingIOError(f"{place}: {_holder(path)} is at work there; wait for it, or end it")
        time.sleep(0.05)
    with file:
        _HELD[path] = ours
        try:
            file.write(f"process {ours[0]} on {platform.node()}, which began {time.ctime()},\n")
            file.flush()
            yield
        finally:
            if os.getpid() == ours[0]:  # and no child that was forked within
                del _HELD[path]
                with suppress(OSError):  # Windows removes no open file
                    path.unlink()


def _holder(path: Path) -> str:
    with suppress(OSError):
        if _HELD.get(path, (0,))[0] != os.getpid():
            return path.read_text("utf-8", "replace").strip() or "another process"
    return "another thread, or a process that has just ended,"


def _locked(path: Path) -> IO[str] | None:
    """The file, locked and empty; None where another one holds it. To close it is to give the lock back."""
    if _HELD.get(path, (0,))[0] == os.getpid():  # whose lock would end if the file were opened and closed
        return None
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file.fileno(), 1 << 30, os.SEEK_SET)  # what is locked there cannot be read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            file.truncate()
            return file
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            warnings.warn(f"{path}: this disk has no locks; use it by one command at a time", stacklevel=4)
            return file
    file.close()  # another one has it, or has just removed it
    return None
