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

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice, product
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
    return _overlap(_SplitIndex(of, of_labels), _SplitIndex(found_in, found_in_labels))


def overlap_matrix(of: Corpus, found_in: Corpus | None = None) -> dict[str, Any]:
    """For each pair of splits, how many posts of the one corpus occur in the other.

    Without `found_in`, how many posts of each later split of `of` occur in each earlier one:
    train-validation, train-test, validation-test.

    Returns:
        ``of`` and ``found_in``, each with name, version_name and the version of each split; and ``pairs``, a
        list of ``{"found_in": split, "of": split}`` with the counts of `Overlap`, all of `found_in`'s first
        split first. Ready for JSON.
    """
    posts_of = {split: _SplitIndex(rows, of.labels) for split, rows in of.splits.items()}
    if found_in is None:
        pairs = list(combinations(posts_of.items(), 2))
    else:
        posts_there = {split: _SplitIndex(rows, found_in.labels) for split, rows in found_in.splits.items()}
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
    indices, found = [_SplitIndex(rows) for rows in held_out], set()
    for first in range(0, len(train), _ROWS_AT_ONCE):  # a training split may be large
        posts = _SplitIndex(train.select(range(first, min(first + _ROWS_AT_ONCE, len(train)))))
        shared = (post for there in indices for post in _shared_posts(posts, there))
        found |= {first + post.position for post in shared if post.is_same_post}
    return sorted(found)


class _SplitIndex:
    """A split's posts by id and by text; their tokens are read again only where an id has two texts.

    Attributes:
        ids: of each post; None where it has none.
        texts: of each post the hash of its normalised text.
        tags: of each post the hash of its tags' names, OTHER and MISC being one; empty if no labels were
            given.
        lengths: of each post the number of its tokens.
    """

    def __init__(self, rows: datasets.Dataset, labels: Sequence[str] | None = None) -> None:
        names = [_SAME_TAG.get(label, label) for label in labels or ()]
        columns = ["id", "tokens"] if labels is None else ["id", "tokens", "ner_tags"]
        self.rows = rows.with_format(None).select_columns(columns)
        self.ids: list[str | None] = []
        self.texts: list[bytes] = []
        self.tags: list[bytes] = []
        self.lengths: list[int] = []
        for batch in self.rows.iter(_ROWS_AT_ONCE):
            self.ids += [None if name in (None, "") else str(name) for name in batch["id"]]
            self.texts += [_hash(_normalised(tokens)) for tokens in batch["tokens"]]
            self.tags += [_hash("\0".join(_names(tags, names))) for tags in batch.get("ner_tags", ())]
            self.lengths += [len(tokens) for tokens in batch["tokens"]]
        self.with_id = _positions(self.ids)
        self.with_text = _positions(self.texts)

    def triples(self, positions: Sequence[int]) -> list[set[str]]:
        """The letter triples of some posts."""
        return [_triples(tokens) for tokens in self.rows[positions]["tokens"]]


class _SharedPost(NamedTuple):
    """A post whose id or text is in another split.

    Attributes:
        position: in its own split.
        same_text: the positions of the same text in the other split.
        same_id: the positions of the same id there, with the same or an alike text.
        id_alone: whether the id is there, but on unlike texts alone.
    """

    position: int
    same_text: list[int]
    same_id: list[int]
    id_alone: bool

    @property
    def is_same_post(self) -> bool:
        return bool(self.same_text or self.same_id)


def _shared_posts(posts: _SplitIndex, there: _SplitIndex) -> Iterator[_SharedPost]:
    """The posts whose id or text is in the other split."""
    alike = _alike(posts, there)
    for position, (name, text) in enumerate(zip(posts.ids, posts.texts, strict=True)):
        same_text, with_id = there.with_text.get(text, []), there.with_id.get(name, [])
        if same_text or with_id:
            same_id = [other for other in with_id if there.texts[other] == text or (position, other) in alike]
            yield _SharedPost(position, same_text, same_id, bool(with_id) and not same_id)


def _alike(posts: _SplitIndex, there: _SplitIndex) -> set[tuple[int, int]]:
    """The pairs of positions of one id whose texts are not the same, but alike; read a part at a time to keep
    memory flat.
    """
    pairs = (
        (position, other)
        for position, name in enumerate(posts.ids)
        for other in there.with_id.get(name, [])
        if posts.texts[position] != there.texts[other]
    )
    found: set[tuple[int, int]] = set()
    while part := list(islice(pairs, _ROWS_AT_ONCE)):
        triples = (
            posts.triples([position for position, _ in part]),
            there.triples([other for _, other in part]),
        )
        for pair, first, second in zip(part, *triples, strict=True):
            if 2 * len(first & second) >= _ALIKE * (len(first) + len(second)):
                found.add(pair)
    return found


def _overlap(posts: _SplitIndex, there: _SplitIndex) -> Overlap:
    shared = list(_shared_posts(posts, there))
    return Overlap(
        posts=len(posts.ids),
        by_id=sum(bool(post.same_id) for post in shared),
        by_text=sum(bool(post.same_text) for post in shared),
        either=sum(post.is_same_post for post in shared),
        same_id_other_tokens=sum(_has_other_tokens(post, posts, there) for post in shared),
        same_id_other_post=sum(post.id_alone for post in shared),
        conflicting_tags=sum(_has_other_tags(post, posts, there) for post in shared),
    )


def _has_other_tokens(post: _SharedPost, posts: _SplitIndex, there: _SplitIndex) -> bool:
    """Whether the post is there by id, but no post of that id has its tokens."""
    own = posts.texts[post.position], posts.lengths[post.position]
    return bool(post.same_id) and own not in [
        (there.texts[other], there.lengths[other]) for other in post.same_id
    ]


def _has_other_tags(post: _SharedPost, posts: _SplitIndex, there: _SplitIndex) -> bool:
    """Whether a post of the same tokens has other tags; where the tokens are cut otherwise, tags cannot be
    compared.
    """
    length, tags = posts.lengths[post.position], posts.tags[post.position]
    return any(there.lengths[other] == length and there.tags[other] != tags for other in post.same_text)


def _positions(keys: Iterable[Hashable]) -> dict[Hashable, list[int]]:
    """Where each key stands; None is no key."""
    positions: dict[Hashable, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        if key is not None:
            positions[key].append(position)
    return dict(positions)


def _names(tags: Sequence[int], labels: Sequence[str]) -> list[str]:
    if not all(0 <= tag < len(labels) for tag in tags):
        raise CorpusError(
            f"ner_tags: expected ids from 0 to {len(labels) - 1}, one for each of {list(labels)}, found"
            f" {list(tags)}"
        )
    return [labels[tag] for tag in tags]


def _normalised(tokens: Iterable[str]) -> str:
    return unicodedata.normalize("NFKC", " ".join(tokens)).casefold()


def _triples(tokens: Iterable[str]) -> set[str]:
    """The letter triples of a text without its white space; of a shorter text, the text."""
    text = "".join(_normalised(tokens).split())
    return {text[start : start + 3] for start in range(max(1, len(text) - 2))}


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def _identity(corpus: Corpus) -> dict[str, Any]:
    return {"name": corpus.name, "version_name": corpus.version_name, "version": dict(corpus.version)}
