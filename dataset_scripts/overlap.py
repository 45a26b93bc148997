"""The leakage guard: which posts two corpora, or two splits of one corpus, have in common.

A post of one split occurs in another

- by text: the tokens, joined by single spaces, NFKC-normalised and casefolded, are the same;
- by id: the id is the same and the texts are alike, that is, share at least half of their letter triples
  (Dice coefficient of the sets; white space and case do not matter).

An id alone proves nothing: any two corpora without ids share row numbers, and shape does not tell these from
real ones (those of Twitter-2015 are numbers). Texts do: posts that MMNERD-en shares with Twitter-2017 under
their id, but with other tokens, differ in where words are split alone, while posts that have nothing to do
with each other hardly ever share half of their triples. Posts of one id with unlike texts are counted apart,
as ``same_id_other_post``, and not taken for the same. A post translated under its old id is among them: its
picture may be the same, so look at them where that number is not 0 and the ids are real.

Only the columns id and tokens are read, never a picture.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import datasets

from .formats.own_data import normalised
from .opening import Corpus

_ALIKE = 0.5
_ROWS_AT_ONCE = 1000


def overlap_matrix(of: Corpus, found_in: Corpus | None = None) -> dict[str, Any]:
    """For each pair of splits, how many posts of the one corpus occur in the other.

    Without `found_in`, how many posts of each later split of `of` occur in each earlier one. Where posts
    repeat within a split, the counts differ the other way round.

    Returns:
        ``of`` and ``found_in``, each with name, version_name and the version of each split; and ``pairs``, a
        list of ``{"found_in": split, "of": split}``, all of `found_in`'s first split first, ready for JSON.
        Each has the number of ``posts`` of the split, and of those that

        - ``by_id``: have their id on a post with the same or an alike text there;
        - ``by_text``: have their text there;
        - ``either``: occur there by id or by text;
        - ``same_id_other_post``: have their id there, but only on unlike texts: not the same posts. ``by_id``
          plus this is the number of shared ids.
    """
    posts = {split: _Posts(rows) for split, rows in of.splits.items()}
    there = {split: _Posts(rows) for split, rows in found_in.splits.items()} if found_in else posts
    pairs = combinations(posts, 2) if found_in is None else product(there, posts)
    return {
        "of": of.identity(),
        "found_in": (found_in or of).identity(),
        "pairs": [
            {"found_in": split_there, "of": split} | there[split_there].overlap(posts[split])
            for split_there, split in pairs
        ],
    }


def overlapping(train: datasets.Dataset, *held_out: datasets.Dataset) -> list[int]:
    """The positions, ascending, of the training posts that occur by id or by text in a held-out split.

    Without them no post of `train` is in a held-out split, nor one of those in `train`.
    """
    splits = [_Posts(rows) for rows in held_out]
    return [
        position
        for position, post in enumerate(_posts(train))
        if any(any(split.occurrence(*post)) for split in splits)
    ]


class _Posts:
    """The posts of a split, by their ids and by their texts."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self.posts = list(_posts(rows))
        self.texts = {text for _, text in self.posts}
        self.texts_of_id: dict[str, list[str]] = defaultdict(list)
        for post_id, text in self.posts:
            self.texts_of_id[post_id].append(text)
        self.texts_of_id.pop("", None)

    def occurrence(self, post_id: str, text: str) -> tuple[bool, bool]:
        """Whether another split's post occurs here by its id, with an alike text; and whether by its text."""
        return any(_are_alike(text, other) for other in self.texts_of_id.get(post_id, ())), text in self.texts

    def overlap(self, of: "_Posts") -> dict[str, int]:
        found = [self.occurrence(*post) for post in of.posts]
        by_id = sum(same_id for same_id, _ in found)
        return {
            "posts": len(found),
            "by_id": by_id,
            "by_text": sum(same_text for _, same_text in found),
            "either": sum(map(any, found)),
            "same_id_other_post": sum(post_id in self.texts_of_id for post_id, _ in of.posts) - by_id,
        }


def _posts(rows: datasets.Dataset) -> Iterator[tuple[str, str]]:
    """The id, empty where there is none, and the normalised text of each post."""
    for batch in rows.with_format(None).select_columns(["id", "tokens"]).iter(_ROWS_AT_ONCE):
        for post_id, tokens in zip(batch["id"], batch["tokens"], strict=True):
            yield "" if post_id is None else str(post_id), normalised(tokens)


def _are_alike(first: str, second: str) -> bool:
    triples, others = _triples(first), _triples(second)
    return 2 * len(triples & others) >= _ALIKE * (len(triples) + len(others))


def _triples(text: str) -> set[str]:
    """The letter triples of a text without its white space; of a shorter text, the text."""
    letters = "".join(text.split())
    return {letters[start : start + 3] for start in range(max(1, len(letters) - 2))}
