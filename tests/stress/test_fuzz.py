"""Whatever is drawn for a door of the package, it is taken or refused by an error of the package's own."""

import pytest

from tests.stress.fuzz import DOORS, fuzz


@pytest.mark.parametrize("door", DOORS)
def test_some_inputs_are_taken_or_refused(door):
    """If it failed, somebody's file or post would end in an error of a library, which does not say what is
    wrong with it.
    """
    counts = fuzz(door, 100)
    assert counts.total() >= 100
    assert min(counts["taken"], counts["refused"]) > 5
