"""The leakage guard: which posts two corpora, or two splits of one corpus, have in common.

A post of one split occurs in another

- by text: the tokens, joined by single spaces, NFKC-normalised and casefolded, are the same;
- by id: the id is the same and the texts are alike, that is, share at least half of their letter triples
  (Dice coefficient of the sets; white space and case do not matter).

An id alone proves nothing. Data sets without ids get the row numbers "0", "1", ... when they are opened,
posts of the indexed format get "train-17": such ids are shared by any two corpora, and shape does not tell
them from real ones (those of Twitter-2015 are numbers). Texts do: posts that MMNERD-en shares with
Twitter-2017 under their id, but with other tokens, differ in where words are split alone, while posts that
have nothing to do with each other hardly ever share half of their triples. Posts of one id with unlike texts
are counted apart, as `Overlap.same_id_other_post`, and not taken for the same. A post translated under its
old id is among them: its picture may be the same, so look at them where that number is not 0 and the ids are
real.

Only the columns id, tokens and ner_tags are read, never a picture.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations, product
from typing import Any, NamedTuple

import datasets

from .formats.reader import CorpusError
from .opening import Corpus

_ALIKE = 0.5
_ROWS_AT_ONCE = 1000
_SAME_TAG = {"B-OTHER": "B-MISC", "I-OTHER": "I-MISC"}


@dataclass(frozen=True)
class Overlap:
    """How many posts of a split occur in another one.

    Attributes:
        posts: of the split.
        by_id: have their id on a post with the same or an alike text there.
        by_text: have their text there.
        either: occur there by id or by text.
        same_id_other_tokens: of those by id, the ones whose tokens the post of that id has not: another text,
            or the same one split into another number of tokens.
        same_id_other_post: have their id there, but only on unlike texts: not the same posts. `by_id` plus
            this is the number of shared ids.
        conflicting_tags: of those by text, the ones with other tags on as many tokens there; OTHER and MISC
            are one type.
    """

    posts: int
    by_id: int
    by_text: int
    either: int
    same_id_other_tokens: int
    same_id_other_post: int
    conflicting_tags: int


def split_overlap(
    of: datasets.Dataset,
    found_in: datasets.Dataset,
    *,
    of_labels: Sequence[str],
    found_in_labels: Sequence[str],
) -> Overlap:
    """How many posts of one split occur in another; the other way round the counts differ where posts repeat
    within a split.

    Args:
        of: the split whose posts are counted, for a leak the held-out one.
        found_in: the split in which they are looked up, for a leak the one trained on.
        of_labels, found_in_labels: the names of their tag ids; tags are compared by name.

    Raises:
        CorpusError: a tag id has no name.
    """
    return _overlap(_Posts(of, of_labels), _Posts(found_in, found_in_labels))


def overlap_matrix(of: Corpus, found_in: Corpus | None = None) -> dict[str, Any]:
    """For each pair of splits, how many posts of the one corpus occur in the other.

    Without `found_in`, how many posts of each later split of `of` occur in each earlier one:
    train-validation, train-test, validation-test.

    Returns:
        ``of`` and ``found_in``, each with name, version_name and the version of each split; and ``pairs``, a
        list of ``{"found_in": split, "of": split}`` with the counts of `Overlap`, all of `found_in`'s first
        split first. Ready for JSON.
    """
    posts_of = {split: _Posts(rows, of.labels) for split, rows in of.splits.items()}
    if found_in is None:
        pairs = list(combinations(posts_of.items(), 2))
    else:
        posts_there = {split: _Posts(rows, found_in.labels) for split, rows in found_in.splits.items()}
        pairs = list(product(posts_there.items(), posts_of.items()))
    return {
        "of": _identity(of),
        "found_in": _identity(found_in or of),
        "pairs": [
            {"found_in": split_there, "of": split} | asdict(_overlap(posts, there))
            for (split_there, there), (split, posts) in pairs
        ],
    }


def overlapping(train: datasets.Dataset, *held_out: datasets.Dataset) -> list[int]:
    """The positions, ascending, of the training posts that occur by id or by text in any of the held-out
    splits.

    Without them no post of `train` is in a held-out split, nor one of those in `train`.
    """
    indices = [_Posts(rows) for rows in held_out]
    found = (any(there.find(post).is_there for there in indices) for post in _posts(train))
    return [position for position, is_there in enumerate(found) if is_there]


class _Post(NamedTuple):
    """A post's id, normalised text, number of tokens and names of tags; OTHER and MISC are one type."""

    id: str | None
    text: str
    length: int
    tags: list[str]


class _Found(NamedTuple):
    """The posts of a split with the text of another post, and those with its id and the same or an alike
    text; whether its id is there, on whatever text.
    """

    same_text: list[_Post]
    same_id: list[_Post]
    has_id: bool

    @property
    def is_there(self) -> bool:
        return bool(self.same_text or self.same_id)


class _Posts:
    """A split's posts, to be found by id and by text."""

    def __init__(self, rows: datasets.Dataset, labels: Sequence[str] | None = None) -> None:
        self.posts = list(_posts(rows, labels))
        self._with_id: dict[str, list[_Post]] = defaultdict(list)
        self._with_text: dict[str, list[_Post]] = defaultdict(list)
        for post in self.posts:
            self._with_text[post.text].append(post)
            if post.id is not None:
                self._with_id[post.id].append(post)

    def find(self, post: _Post) -> _Found:
        """What of another split's post is in this one."""
        with_id = [] if post.id is None else self._with_id.get(post.id, [])
        same_id = [other for other in with_id if other.text == post.text or _are_alike(other, post)]
        return _Found(self._with_text.get(post.text, []), same_id, bool(with_id))


def _posts(rows: datasets.Dataset, labels: Sequence[str] | None = None) -> Iterator[_Post]:
    names = [_SAME_TAG.get(label, label) for label in labels or ()]
    columns = ["id", "tokens"] if labels is None else ["id", "tokens", "ner_tags"]
    for batch in rows.with_format(None).select_columns(columns).iter(_ROWS_AT_ONCE):
        tags = batch.get("ner_tags", [[]] * len(batch["id"]))
        for post_id, tokens, ids in zip(batch["id"], batch["tokens"], tags, strict=True):
            text = unicodedata.normalize("NFKC", " ".join(tokens)).casefold()
            known = None if post_id in (None, "") else str(post_id)
            yield _Post(known, text, len(tokens), _names(ids, names))


def _are_alike(first: _Post, second: _Post) -> bool:
    triples, others = _triples(first.text), _triples(second.text)
    return 2 * len(triples & others) >= _ALIKE * (len(triples) + len(others))


def _triples(text: str) -> set[str]:
    """The letter triples of a text without its white space; of a shorter text, the text."""
    letters = "".join(text.split())
    return {letters[start : start + 3] for start in range(max(1, len(letters) - 2))}


def _overlap(posts: _Posts, there: _Posts) -> Overlap:
    counts: Counter[str] = Counter(posts=len(posts.posts))
    for post in posts.posts:
        found = there.find(post)
        own = (post.text, post.length)
        other_tokens = own not in [(other.text, other.length) for other in found.same_id]
        # Where the tokens are cut otherwise, tags cannot be compared.
        other_tags = [other.tags != post.tags for other in found.same_text if other.length == post.length]
        counts["by_id"] += bool(found.same_id)
        counts["by_text"] += bool(found.same_text)
        counts["either"] += found.is_there
        counts["same_id_other_tokens"] += bool(found.same_id) and other_tokens
        counts["same_id_other_post"] += found.has_id and not found.same_id
        counts["conflicting_tags"] += any(other_tags)
    return Overlap(**{item.name: counts[item.name] for item in fields(Overlap)})


def _names(tags: Sequence[int], labels: Sequence[str]) -> list[str]:
    if not all(0 <= tag < len(labels) for tag in tags):
        expected = f"ids from 0 to {len(labels) - 1}, one for each of {list(labels)}"
        raise CorpusError(f"ner_tags: expected {expected}, found {list(tags)}")
    return [labels[tag] for tag in tags]


def _identity(corpus: Corpus) -> dict[str, Any]:
    return {"name": corpus.name, "version_name": corpus.version_name, "version": dict(corpus.version)}
