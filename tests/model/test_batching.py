"""Batches of like size, and work that is done ahead."""

import gc
import os
import sys
import threading
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from modeling_mmner.model.batching_mmner import ahead, begin_worker, of_like_size
from tests.shared_data import property_test

SIZES = st.lists(st.integers(1, 20), max_size=30)


@property_test
@given(SIZES, st.integers(1, 5), st.integers(1, 60))
def test_batches_hold_every_item_once_within_their_bounds(sizes, most, bound):
    """If it failed, a post would be lost or read twice, or a batch take more memory than it may."""
    batches = list(of_like_size(enumerate(sizes), size=lambda item: item[1], most=most, bound=bound))
    assert [item for batch in batches for item in batch] == sorted(enumerate(sizes), key=lambda item: item[1])
    for batch in batches:
        assert len(batch) <= most
        assert len(batch) == 1 or len(batch) * max(size for _, size in batch) <= bound


@property_test
@given(SIZES, st.integers(1, 5), st.integers(1, 60))
def test_batches_are_as_full_as_they_can_be(sizes, most, bound):
    """If it failed, there would be more batches than are needed, and each costs time."""
    batches = list(of_like_size(sizes, size=int, most=most, bound=bound))
    for batch, following in pairwise(batches):
        assert len(batch) == most or (len(batch) + 1) * following[0] > bound


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(threads):
    """If it failed, a post would get what another one's picture shows."""
    waits = [threading.Event() for _ in range(3)]

    def work(number):
        if threads == 3 and number < 3:  # the first three end in reverse
            if number < 2:
                assert waits[number + 1].wait(timeout=10)
            waits[number].set()
        return number**2

    assert list(ahead(work, range(20), threads=threads, most=4)) == [number**2 for number in range(20)]


@pytest.mark.parametrize("number", [0, 1, 4, 5, 6])
def test_every_item_has_its_result(number):
    """If it failed, the last items of a split, or those of a short one, would be lost."""
    assert list(ahead(str, range(number), threads=2, most=5)) == [str(item) for item in range(number)]


def test_several_items_are_worked_on_at_once():
    """If it failed, pictures would be read one after the other, in several times as long."""
    together = threading.Barrier(2, timeout=30)
    assert len(list(ahead(lambda _: together.wait(), range(4), threads=2, most=4))) == 4


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_of_the_items_is_passed_on(threads):
    """If it failed, a malformed line would end a split early, as if the file ended there."""

    def items():
        yield from range(5)
        raise ValueError("train.txt:6: malformed")

    with pytest.raises(ValueError, match=r"train\.txt:6: malformed"):
        list(ahead(str, items(), threads=threads, most=2))


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_stands_in_its_item_s_place(threads):
    """If it failed, the results before an error would be lost, or the error be lost among them."""
    results = ahead(lambda number: 6 // (3 - number), range(9), threads=threads, most=4)
    assert list(islice(results, 3)) == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_work_that_nobody_waits_for_is_left():
    """If it failed, a program would read on after it has stopped at an error."""
    done, go_on = [], threading.Event()

    def work(number):
        assert number == 0 or go_on.wait(timeout=10)
        done.append(number)

    results = ahead(work, range(100), threads=1, most=50)
    next(results)
    threading.Timer(0.05, go_on.set).start()
    results.close()
    assert done in ([0], [0, 1])


def test_items_are_asked_for_by_one_thread():
    """If it failed, data sets that belong to a thread, as those in SQLite, could not be read."""
    askers = set()
    items = (askers.add(threading.get_ident()) for _ in range(20))
    workers = set(ahead(lambda item: threading.get_ident(), items, threads=3, most=4))
    assert askers == {threading.get_ident()} and not askers & workers


class Asked:
    """Says of the process that asks for an item what group it is in; there it clears up what nobody needs."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[int, int]:
        gc.collect()
        return os.getpid(), os.getpgrp()


def asked_by_a_worker() -> DataLoader:
    options = {"worker_init_fn": begin_worker, "persistent_workers": True, "collate_fn": list}
    return DataLoader(Asked(), num_workers=1, **options)


def test_worker_is_in_no_group_that_signals_are_sent_to():
    """Regression: SIGTERM to a run's group ended its workers first, and the run without a checkpoint."""
    ((process, group),) = next(iter(asked_by_a_worker()))
    assert process == group != os.getpgrp()


@pytest.mark.slow
def test_worker_does_not_clear_up_what_its_parent_has_thrown_away(capfd, monkeypatch):
    """Regression: between two trainings a worker said "can only test a child process" of the first one's."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # pytest's says nothing in a worker
    gc.disable()
    try:
        first = asked_by_a_worker()
        next(iter(first))
        first.own = first  # only the next clearing up finds it
        del first
        next(iter(asked_by_a_worker()))
    finally:
        gc.enable()
        gc.collect()
    assert capfd.readouterr().err == ""
