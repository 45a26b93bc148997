"""Bad input is taken, or refused by an error of the package's own that names the place."""

import re

import pytest

from tests.stress.bad_input import files, folders, pictures, settings, texts
from tests.stress.bad_input.cases import Bench, Case, is_own

CASES = [*texts.cases(), *pictures.cases(), *files.cases(), *settings.cases(), *folders.cases()]


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("case", CASES, ids=[f"{case.door}: {case.name}" for case in CASES])
def test_each_input_is_taken_or_refused_by_name(bench, case: Case):
    """If it failed, what somebody sends would be answered by a library's own error, or by one that does not
    say where to look.
    """
    if case.place is None:
        case.run(bench)
        return
    with pytest.raises((ValueError, TypeError, OSError)) as caught:
        case.run(bench)
    assert is_own(caught.value), repr(caught.value)
    assert re.search(case.place, str(caught.value)), str(caught.value)[:500]
