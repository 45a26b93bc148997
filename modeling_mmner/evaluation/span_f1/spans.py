"""Entities of BIO tags, and how many are right: in each post, by type, and by what training told of them.

An entity, or span, is a tuple: its type, its first word, and one past its last word. Counts are arrays
(posts, 3): the entities that are correct, predicted and gold in each post.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities

Posts = Sequence[Sequence[str]]
"""For each post its BIO tags, or its words."""
Entities = Sequence[Collection[Any]]
"""For each post its entities, each once."""


def read_spans(tags: Sequence[str], *, strict: bool = False) -> list[tuple[str, int, int]]:
    """Entities of one post, in order of their start.

    Args:
        tags: BIO tags, one a word.
        strict: whether to leave out entities that do not begin with B-, as seqeval's IOB2 does; else an
            orphan I- begins one, as in seqeval's default mode.

    Returns:
        Each entity's type, first word, and one past its last word. The type of bare tags (``B``, ``I``) is
        empty.

    Raises:
        ValueError: a tag is not BIO.
    """
    tags = list(tags)
    if unknown := sorted(tag for tag in set(tags) if tag.partition("-")[0] not in ("O", "B", "I")):
        expected = "expected 'O', 'B-<type>' or 'I-<type>'"
        raise ValueError(f"tags: {expected}, found {unknown[0]!r}; convert the tags to BIO first")
    # seqeval calls the type of bare tags "_", which may be a type's name.
    spans = [(tags[first].partition("-")[2], first, last + 1) for _, first, last in get_entities(tags)]
    return [span for span in spans if not strict or tags[span[1]].startswith("B-")]


def check_posts(gold: Posts, values: Posts, *, name: str) -> None:
    """Raises ValueError unless `values`, which errors call `name`, has as many posts and words as `gold`."""
    check_number(values, posts=len(gold), name=name)
    for post, (right, found) in enumerate(zip(gold, values, strict=True)):
        if len(right) != len(found):
            expected = f"expected {len(right)}, one a word, found {len(found)}"
            raise ValueError(f"{name}, post {post}: {expected}; split all as the gold tags")


def check_number(values: Sequence[Any], *, posts: int, name: str) -> None:
    """Raises ValueError unless `values`, which errors call `name`, has one for each post."""
    if len(values) != posts:
        expected = f"expected {posts}, one for each post, found {len(values)}"
        raise ValueError(f"{name}: {expected}; give those of the same posts in the same order")


def span_counts(gold: Entities, predicted: Entities) -> np.ndarray:
    """(posts, 3): entities that are correct, predicted and gold in each post.

    Raises ValueError where there is another number of predicted than of gold posts.
    """
    check_number(predicted, posts=len(gold), name="predicted")
    pairs = zip(map(set, gold), map(set, predicted), strict=True)
    counts = [(len(right & found), len(found), len(right)) for right, found in pairs]
    return np.array(counts, dtype=float).reshape(-1, 3)


def tag_counts(gold: Posts, predicted: Posts, *, strict: bool = False) -> np.ndarray:
    """`span_counts` of the entities of tag sequences, see `read_spans`."""
    return span_counts(*([read_spans(tags, strict=strict) for tags in side] for side in (gold, predicted)))


def grouped_counts(
    gold: Entities, predicted: Entities, *, group: Callable[[int, Any], str] = lambda post, span: span[0]
) -> dict[str, np.ndarray]:
    """`span_counts` of each group of entities, by its name in alphabetical order; an entity is in one group.

    Args:
        group: gives the name of an entity's group, from the number of its post and the entity; by default its
            type.
    """
    counts: dict[str, np.ndarray] = {}
    for post, (right, found) in enumerate(zip(map(set, gold), map(set, predicted), strict=True)):
        for column, spans in enumerate((right & found, found, right)):
            for span in spans:
                counts.setdefault(group(post, span), np.zeros((len(gold), 3)))[post, column] += 1
    return dict(sorted(counts.items()))


def training_surfaces(tokens: Posts, tags: Posts) -> dict[str, set[str]]:
    """The types that a training split gives each surface, tags read leniently; raises as `check_posts`."""
    check_posts(tags, tokens, name="training tokens")
    found: dict[str, set[str]] = {}
    for words, post in zip(tokens, tags, strict=True):
        for kind, first, end in read_spans(post):
            found.setdefault(" ".join(words[first:end]), set()).add(kind)
    return found


def surface_groups(
    gold: Entities, predicted: Entities, *, tokens: Posts, train_tokens: Posts, train_tags: Posts
) -> dict[str, dict[str, np.ndarray]]:
    """`span_counts` of entities whose surface was one in training, and of others (Augenstein et al. 2017).

    A gold entity and a predicted one of the same words are of one group, whatever their types. `tokens` are
    the words of each post, `train_tokens` and `train_tags` those of training.

    Returns:
        by_seen: ``seen`` and ``unseen``; by_ambiguity: ``ambiguous``, of several types in training,
        ``unambiguous``, of one, and ``unseen``.
    """
    surfaces = training_surfaces(train_tokens, train_tags)

    def group(post: int, span: tuple[str, int, int]) -> str:
        known = surfaces.get(" ".join(tokens[post][span[1] : span[2]]))
        return "unseen" if known is None else "ambiguous" if len(known) > 1 else "unambiguous"

    kinds = dict.fromkeys(("ambiguous", "unambiguous", "unseen"), np.zeros((len(gold), 3)))
    kinds |= grouped_counts(gold, predicted, group=group)
    seen = {"seen": kinds["ambiguous"] + kinds["unambiguous"], "unseen": kinds["unseen"]}
    return {"by_seen": seen, "by_ambiguity": kinds}


def ratios(counts: Sequence[Any] | np.ndarray) -> tuple[Any, Any, Any]:
    """Precision, recall and F1 in 0..1 of (correct, predicted, gold), numbers or arrays; 0 for 0 of 0."""
    correct, predicted, gold = counts
    precision, recall = (correct / np.maximum(number, 1) for number in (predicted, gold))
    return precision, recall, 2 * correct / np.maximum(predicted + gold, 1)
