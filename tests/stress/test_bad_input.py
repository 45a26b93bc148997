"""Every row of the table of bad inputs has the outcome that the table says."""

import pytest

from tests.stress.bad_input.cases import Bench, Case, outcome
from tests.stress.bad_input.table import CASES


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("case", CASES, ids=[f"{case.door}: {case.name}" for case in CASES])
def test_each_input_has_its_outcome(bench, case: Case):
    """If it failed, what somebody sends would be answered by a library's own error, or by one that does not
    name the thing.
    """
    found, text = outcome(case, bench)
    assert (found, (case.error or "") in text) == (case.expected, True), text[:500]


def test_the_table_has_each_input_once():
    """If it failed, a row would hide another of its name, or the table would have shrunk."""
    names = [(case.door, case.name) for case in CASES]
    assert len(set(names)) == len(names) > 200
