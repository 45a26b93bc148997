"""Entities of BIO tags, and how many are right: in each post, by type, and by what training told of them.

An entity, or span, is a tuple: its type, its first word, and one past its last word. Counts are arrays
(posts, 3): the entities that are correct, predicted and gold in each post.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities

_PREFIXES = {"O", "B", "I"}


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
    if unknown := sorted(tag for tag in set(tags) if tag.partition("-")[0] not in _PREFIXES):
        raise ValueError(
            f"tags: expected 'O', 'B-<type>' or 'I-<type>', found {unknown[0]!r}; convert the tags to BIO"
            " first"
        )
    # seqeval calls the type of bare tags "_", which may be a type's name.
    spans = [(tags[first].partition("-")[2], first, last + 1) for _, first, last in get_entities(tags)]
    return [span for span in spans if not strict or tags[span[1]].startswith("B-")]


def check_posts(gold: Sequence[Sequence[Any]], values: Sequence[Sequence[Any]], *, name: str) -> None:
    """Check that there are as many values as gold tags, in each post.

    Args:
        gold, values: of each post a list, one a word.
        name: of the values.

    Raises:
        ValueError: there is another number of posts, or of words in a post.
    """
    check_number(values, posts=len(gold), name=name)
    for post, (right, found) in enumerate(zip(gold, values, strict=True)):
        if len(right) != len(found):
            raise ValueError(
                f"{name}, post {post}: expected {len(right)}, one a word, found {len(found)}; split all as"
                " the gold tags"
            )


def check_number(values: Sequence[Any], *, posts: int, name: str) -> None:
    """Raises ValueError unless `values`, which `name` names, has one for each post."""
    if len(values) != posts:
        raise ValueError(
            f"{name}: expected {posts}, one for each post, found {len(values)}; give those of the same posts"
            " in the same order"
        )


def span_counts(gold: Sequence[Collection[Any]], predicted: Sequence[Collection[Any]]) -> np.ndarray:
    """(posts, 3): entities that are correct, predicted and gold in each post.

    Args:
        gold, predicted: the entities of each post, each once, of any form that says type and place.

    Raises:
        ValueError: there is another number of predicted than of gold posts.
    """
    check_number(predicted, posts=len(gold), name="predicted")
    pairs = zip(map(set, gold), map(set, predicted), strict=True)
    return np.array(
        [(len(right & found), len(found), len(right)) for right, found in pairs], dtype=float
    ).reshape(-1, 3)


def tag_counts(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, strict: bool = False
) -> np.ndarray:
    """`span_counts` of the entities of tag sequences, see `read_spans`."""
    return span_counts(*([read_spans(tags, strict=strict) for tags in side] for side in (gold, predicted)))


def grouped_counts(
    gold: Sequence[Iterable[Any]], predicted: Sequence[Iterable[Any]], *, group: Callable[[int, Any], str]
) -> dict[str, np.ndarray]:
    """`span_counts` of each group of entities, by its name in alphabetical order; an entity is in one group.

    Args:
        gold, predicted: the entities of each post.
        group: gives the name of an entity's group, from the number of its post and the entity.
    """
    counts: dict[str, np.ndarray] = {}
    for post, (right, found) in enumerate(zip(map(set, gold), map(set, predicted), strict=True)):
        for column, spans in enumerate((right & found, found, right)):
            for span in spans:
                counts.setdefault(group(post, span), np.zeros((len(gold), 3)))[post, column] += 1
    return dict(sorted(counts.items()))


def type_counts(
    gold: Sequence[Iterable[tuple[str, int, int]]], predicted: Sequence[Iterable[tuple[str, int, int]]]
) -> dict[str, np.ndarray]:
    """`span_counts` of the entities of each type that is gold or predicted anywhere."""
    return grouped_counts(gold, predicted, group=lambda post, span: span[0])


def training_surfaces(tokens: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    """The types that a training split gives each surface: an entity's words, joined by spaces.

    Args:
        tokens, tags: the words and the BIO tags of each post, the latter read leniently.

    Raises:
        ValueError: the two are of another number of posts, or of words in a post.
    """
    check_posts(tags, tokens, name="training tokens")
    found: dict[str, set[str]] = {}
    for words, post in zip(tokens, tags, strict=True):
        for span in read_spans(post):
            found.setdefault(_surface(words, span), set()).add(span[0])
    return found


def surface_groups(
    gold: Sequence[Iterable[tuple[str, int, int]]],
    predicted: Sequence[Iterable[tuple[str, int, int]]],
    *,
    tokens: Sequence[Sequence[str]],
    surfaces: Mapping[str, Collection[str]] | Collection[str],
) -> dict[str, np.ndarray]:
    """`span_counts` of entities whose surface was one in training, and of others (Augenstein et al. 2017).

    A gold entity and a predicted one of the same words are of one group, whatever their types.

    Args:
        gold, predicted: the entities of each post.
        tokens: the words of each post.
        surfaces: the types of each surface, as `training_surfaces` gives them, or the surfaces alone.

    Returns:
        ``seen`` and ``unseen``. Where `surfaces` has the types, also the two that make up ``seen``:
        ``unambiguous``, of one type in training, and ``ambiguous``, of more.

    Raises:
        ValueError: there is another number of predicted posts or of lists of words than of gold posts, or a
            post lacks words.
    """
    check_number(tokens, posts=len(gold), name="tokens")
    check_number(predicted, posts=len(gold), name="predicted")
    types = surfaces if isinstance(surfaces, Mapping) else dict.fromkeys(surfaces, ())

    def group(post: int, span: tuple[str, int, int]) -> str:
        known = types.get(_surface(tokens[post], span))
        return "unseen" if known is None else "ambiguous" if len(known) > 1 else "unambiguous"

    nothing = np.zeros((len(gold), 3))
    counts = dict.fromkeys(("ambiguous", "unambiguous", "unseen"), nothing) | grouped_counts(
        gold, predicted, group=group
    )
    seen = {"seen": counts["ambiguous"] + counts["unambiguous"], "unseen": counts["unseen"]}
    return seen | counts if isinstance(surfaces, Mapping) else seen


def ratios(counts: Iterable[Any]) -> tuple[Any, Any, Any]:
    """Precision, recall and F1 in 0..1 of (correct, predicted, gold), numbers or arrays; 0 for 0 of 0."""
    correct, predicted, gold = counts
    return (
        correct / np.maximum(predicted, 1),
        correct / np.maximum(gold, 1),
        2 * correct / np.maximum(predicted + gold, 1),
    )


def _surface(words: Sequence[str], span: tuple[str, int, int]) -> str:
    """The words of an entity, joined by spaces."""
    if span[2] > len(words):
        raise ValueError(
            f"tokens: expected {span[2]} words or more, to which the entity {span} reaches, found"
            f" {list(words)!r:.80}"
        )
    return " ".join(words[span[1] : span[2]])
