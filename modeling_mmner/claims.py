"""Claims: a folder, or what is to be made, belongs to one command at a time."""

import errno
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def claimed(place: Path, *, beside: bool = False, patience: float = 1.0) -> Iterator[None]:
    """Hold a place against all other processes: a folder, or by a file `beside` it what is to be made there.

    It is held by a lock, which children do not inherit and which ends with its process. The locked file says
    whose it is, and goes when the place is given back; that of a dead process keeps nobody out. A thread may
    claim again what it holds.

    Args:
        patience: seconds to wait for whoever holds it.

    Raises:
        BlockingIOError: another one holds it.
        OSError: no file can be written there.
    """
    path = place.parent.resolve() / f".{place.name}.claim" if beside else place.resolve() / ".claim"
    lock = FileLock(path, is_singleton=True, fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        who = "another process"
        with suppress(OSError):  # Windows reads no locked file
            who = path.read_text("utf-8", "replace").strip() or who
        raise BlockingIOError(f"{place}: {who} is at work there; wait for it, or end it") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(f"{path}: this disk has no locks; use it by one command at a time", stacklevel=3)
    is_held = lock.is_locked
    if lock.lock_counter == 1:
        who = f"process {os.getpid()} on {platform.node()}, which began {time.ctime()},\n"
        with suppress(OSError):  # Windows writes into no locked file
            path.write_text(who, encoding="utf-8")
    try:
        yield
    finally:
        # No inner claim, and no child that was forked within.
        if lock.lock_counter == 1 or not is_held:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()
        lock.release()
