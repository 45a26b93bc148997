"""Tests of splits by ratio: what belongs together stays together, and the shares are those asked for."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.formats.own_data import parse_ratio, split_by_ratio
from dataset_scripts.formats.reader import CorpusError
from tests.shared_data import property_test


@given(
    keys=st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=60), seed=st.integers(0, 5)
)
@property_test
def test_no_key_is_in_two_splits(keys, seed):
    """If it failed, the same text or picture would be trained and tested on."""
    splits = split_by_ratio(keys, (80, 0, 0), seed=seed)
    assert splits["train"] == list(range(len(keys)))
    try:
        splits = split_by_ratio(keys, (60, 20, 20), seed=seed)
    except CorpusError:
        return
    assert sorted(chain.from_iterable(splits.values())) == list(range(len(keys)))
    owners: dict[int, set[str]] = {}
    for split, numbers in splits.items():
        for key in {key for number in numbers for key in keys[number]}:
            owners.setdefault(key, set()).add(split)
    assert all(len(splits_of) == 1 for splits_of in owners.values())
    assert splits == split_by_ratio(keys, (60, 20, 20), seed=seed)


def test_split_is_by_ratio_and_seed():
    """If it failed, shares would be others than asked for, or each run have another test split."""
    keys = [[number] for number in range(1000)]
    splits = split_by_ratio(keys, parse_ratio("70,10,20"), seed=1)
    assert {split: len(numbers) for split, numbers in splits.items()} == {
        "train": 700,
        "validation": 100,
        "test": 200,
    }
    assert splits != split_by_ratio(keys, (70, 10, 20), seed=2)
    for wrong in ("80,20", "a,b,c", "0,50,50", "80,10,-10"):
        with pytest.raises(CorpusError, match="--split_ratio: expected three whole numbers as 80,10,10"):
            parse_ratio(wrong)
