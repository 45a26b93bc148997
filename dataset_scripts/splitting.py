"""Splits of posts that come in one file: by ratio and seed, posts with the same text or picture on one
side.
"""

import random
from collections.abc import Hashable, Iterable, Sequence

from .formats.reader import CorpusError


def parse_ratio(text: str) -> tuple[int, int, int]:
    """``80,10,10`` -> the shares of train, validation and test.

    Raises:
        CorpusError: it is no three numbers of which the first is above 0.
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts) or int(parts[0]) == 0:
        expected = "three whole numbers as 80,10,10 (train, validation, test)"
        raise CorpusError(f"--split_ratio: expected {expected}, found {text!r}")
    return int(parts[0]), int(parts[1]), int(parts[2])


def split_by_ratio(
    keys: Sequence[Iterable[Hashable]], ratio: tuple[int, int, int], *, seed: int
) -> dict[str, list[int]]:
    """The posts' numbers of each split, ascending; posts that share a key, also by way of others, are in the
    same split.

    Args:
        keys: of each post, what no two splits may have in common.
        ratio: of train, validation and test.
        seed: of the choice.

    Raises:
        CorpusError: a split with a share above 0 would be empty.
    """
    groups = _groups(keys)
    random.Random(seed).shuffle(groups)
    total, names = sum(ratio), ("test", "validation", "train")
    splits: dict[str, list[int]] = {name: [] for name in names}
    wanted = dict(zip(names, (len(keys) * share / total for share in reversed(ratio)), strict=True))
    for group in groups:
        # The split that is farthest from its share, so that a large group goes where there is room for it.
        name = max(names, key=lambda name: wanted[name] - len(splits[name]))
        splits[name] += group
    for name, share in zip(names, reversed(ratio), strict=True):
        if share and not splits[name]:
            found = f"none for {name}: there are {len(keys)} posts"
            why = f"which the same texts and pictures keep together in {len(groups)} groups"
            raise CorpusError(f"--split_ratio: expected posts for each split, found {found}, {why}")
    return {name: sorted(splits[name]) for name in reversed(names)}


def _groups(keys: Sequence[Iterable[Hashable]]) -> list[list[int]]:
    """The posts that share keys, by union-find; in the order of their first posts."""
    parents = list(range(len(keys)))

    def root(post: int) -> int:
        while parents[post] != post:
            parents[post] = parents[parents[post]]
            post = parents[post]
        return post

    first: dict[Hashable, int] = {}
    for post, own in enumerate(keys):
        for key in own:
            parents[root(post)] = root(first.setdefault(key, post))
    groups: dict[int, list[int]] = {}
    for post in range(len(keys)):
        groups.setdefault(root(post), []).append(post)
    return list(groups.values())
