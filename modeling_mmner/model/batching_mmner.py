"""A stream of posts -> batches of like length and bounded size; work done ahead, in order, bounded memory."""

import gc
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CORES = os.cpu_count() or 1


def begin_worker(number: int) -> None:
    """Begin a process that prepares batches, in a group of its own: signals to the whole group are its
    parent's, which ends it. What its parent has thrown away is not cleared up here, too."""
    gc.freeze()
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, most: int
) -> Iterator[Result]:
    """The results of work on items, in their order. The caller's thread alone asks for the items.

    Args:
        threads: how many do the work meanwhile; 0: each item is worked on when its result is asked for.
        most: how many results may wait, done or not, > 0; so many items are taken ahead.
    """
    if not threads:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def of_like_size(
    items: Iterable[Item], *, size: Callable[[Item], int], most: int, bound: int
) -> Iterator[Sequence[Item]]:
    """Items in batches, small ones first, and those of equal size in their order.

    Args:
        size: what an item takes, > 0; in a batch each takes as much as the largest, for it is padded to it.
        most: items a batch.
        bound: what a batch takes; one item that takes more is a batch by itself.
    """
    batch: list[Item] = []
    for item in sorted(items, key=size):
        if batch and (len(batch) == most or (len(batch) + 1) * size(item) > bound):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
