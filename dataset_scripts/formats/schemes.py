"""Tag schemes of corpora: whatever a file has becomes BIO, where B- begins every entity."""

from collections.abc import Sequence
from typing import Literal

from modeling_mmner.model.labels_mmner import may_follow

TagScheme = Literal["bio", "iob1", "bioes"]

PREFIXES = {"bio": ("B", "I"), "iob1": ("B", "I"), "bioes": ("B", "I", "E", "S")}


def tag_forms(scheme: TagScheme) -> str:
    """What the tags of a scheme look like, for errors."""
    return ", ".join(["O", *(f"{prefix}-<type>" for prefix in PREFIXES[scheme])])


def is_tag(tag: str, scheme: TagScheme) -> bool:
    """Whether it is O, or a prefix of the scheme with a type."""
    prefix, _, entity_type = tag.partition("-")
    return tag == "O" or (prefix in PREFIXES[scheme] and bool(entity_type.strip()))


def to_bio(tags: Sequence[str], scheme: TagScheme) -> list[str]:
    """The BIO tags of one post.

    - ``bio`` (IOB2) stays as it is.
    - ``iob1``: an entity begins with I-, and with B- only where it touches another one of its type (Ramshaw
      and Marcus 1995).
    - ``bioes``: E- ends an entity of several words, S- is one of a single word. An I- or E- that continues
      nothing becomes an orphan I-; behind an entity of its type that has ended, where BIO would read on, it
      becomes a B-.
    """
    if scheme == "bio":
        return list(tags)
    if scheme == "iob1":
        return repaired(tags)
    pairs = zip(["O", *tags], tags, strict=False)
    return [tag if tag == "O" else _bioes_prefix(before, tag) + tag[1:] for before, tag in pairs]


def _bioes_prefix(before: str, tag: str) -> str:
    has_ended = before[0] in "ES" and before[2:] == tag[2:]
    return "B" if tag[0] in "BS" or has_ended else "I"


def repaired(tags: Sequence[str]) -> list[str]:
    """BIO tags in which every I- that continues nothing has become a B-: the entities that lenient scoring
    reads.
    """
    return [f"B{tag[1:]}" if is_orphan else tag for tag, is_orphan in zip(tags, orphans(tags), strict=True)]


def orphans(tags: Sequence[str]) -> list[bool]:
    """For each BIO tag whether it is an I- that continues no entity of its type."""
    return [not may_follow(previous, tag) for previous, tag in zip([None, *tags], tags, strict=False)]
