"""Whatever is drawn for a door of the package, it is taken or refused by an error of the package's own."""

import pytest

from tests.stress.fuzz import DOORS, fuzz

each_door = pytest.mark.parametrize("door", DOORS)


@each_door
def test_some_inputs_are_taken_or_refused(door):
    """If it failed, somebody's file or post would end in an error of a library, which does not say what is
    wrong with it.
    """
    counts = fuzz(door, 200)
    assert counts.total() >= 200
    assert min(counts["taken"], counts["refused"]) > 10


@pytest.mark.slow
@each_door
def test_very_many_inputs_are_taken_or_refused(door):
    """If it failed, rare input would end in an error of a library."""
    counts = fuzz(door, 20_000, first=2)
    print(door, dict(counts))
    assert counts.total() >= 20_000
