"""Tag schemes of corpora: whatever a file has becomes BIO, where B- begins every entity."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from modeling_mmner.model.labels_mmner import may_follow

from ..findings import Findings

TagScheme = Literal["auto", "bio", "iob1", "bioes", "bilou", "bmes", "bare"]

PREFIXES: dict[TagScheme, dict[str, str]] = {
    "bio": {"B": "B", "I": "I"},
    "iob1": {"B": "B", "I": "I"},
    "bioes": {"B": "B", "I": "I", "E": "E", "S": "S"},
    "bilou": {"B": "B", "I": "I", "L": "E", "U": "S"},
    "bmes": {"B": "B", "M": "I", "E": "E", "S": "S"},
    "bare": {},
}
"""The prefixes of each scheme, and what BIOES calls them; bare types have none."""
_LETTERS = frozenset().union(*PREFIXES.values())
_TYPE = r"(\S|\S.*\S)"
_BARE = re.compile(r"[^\W\d_](.*\w)?", re.DOTALL)  # a name: neither a number nor a prefix without its type
_TAG = re.compile(rf"([A-Za-z])[-_]{_TYPE}|{_TYPE}[-_]([A-Za-z])", re.DOTALL)


def tag_forms(scheme: TagScheme) -> str:
    """What the tags of a scheme look like, for errors."""
    return ", ".join(["O", *([f"{prefix}-<type>" for prefix in PREFIXES[scheme]] or ["<type>"])])


def parts_of(tag: str) -> tuple[str, str]:
    """Prefix and type of a tag as B-PER, b-PER, B_PER or PER-B; none of a bare type, and O alone of O."""
    found = _TAG.fullmatch(tag)
    if found and (prefix := (found[1] or found[4]).upper()) in _LETTERS:
        return prefix, found[2] or found[3]
    return ("O", "") if tag in ("O", "o") else ("", tag)


def is_tag(tag: str, scheme: TagScheme) -> bool:
    """Whether it is O, or a type with a prefix of the scheme, if that has some."""
    prefix = parts_of(tag)[0]
    return prefix == "O" or prefix in PREFIXES[scheme] or (scheme == "bare" and bool(_BARE.fullmatch(tag)))


def scheme_of(posts: Iterable[Sequence[str]], findings: Findings) -> TagScheme:
    """The scheme that most tags of a corpus are in; what was counted is added to the findings.

    Bare types where most tags have no prefix; else that with the most tags' prefixes, BIO before others. Of
    BIO and IOB1, which have the same ones: IOB1 where more entities begin with I- than with B-; those that
    begin right behind one of their type, where both say B-, do not count.
    """
    letters, firsts = Counter[str](), Counter[str]()
    for tags in posts:
        before = ""
        for prefix, entity_type in map(parts_of, tags):
            if entity_type:
                letters[prefix] += 1
                firsts[prefix] += entity_type != before
            before = entity_type
    covered = {name: sum(letters[prefix] for prefix in known) for name, known in PREFIXES.items()}
    scheme: Any = "bare" if letters[""] > letters.total() / 2 else max(covered, key=covered.__getitem__)
    counted = ", ".join(f"{number} {prefix}-" for prefix, number in letters.items() if prefix)
    if scheme == "bio":
        scheme = "iob1" if firsts["I"] > firsts["B"] else "bio"
        counted = f"{firsts['B']} entities begin with B-, {firsts['I']} with I-"
    others = ", ".join(name for name in PREFIXES if name != scheme)
    what = f"tags read as {scheme.upper()} ({counted or 'no prefixes'})"
    advice = f"if they are in another scheme, say --tag_scheme ({others})"
    findings.add(what, remedy=advice, lost=False, number=letters.total())
    return scheme


def to_bio(tags: Sequence[str], scheme: TagScheme) -> list[str]:
    """The BIO tags of one post, those of types whose prefix is written otherwise too, see `parts_of`.

    - ``bio`` (IOB2) stays as it is.
    - ``iob1``: an entity begins with I-, and with B- only where it touches another one of its type (Ramshaw
      and Marcus 1995).
    - ``bare``: words beside each other with the same type are one entity.
    - ``bioes``: E- ends an entity of several words, S- is one of a single word; ``bilou`` calls them L- and
      U-, and ``bmes`` calls I- M-. An I- or E- that continues nothing becomes an orphan I-; behind an entity
      of its type that has ended, where BIO would read on, it becomes a B-.
    """
    if scheme == "bare":
        return repaired([tag.upper() if tag in ("O", "o") else f"I-{tag}" for tag in tags])
    called = PREFIXES[scheme] | {"O": "O"}
    parts = [(called[prefix], entity_type) for prefix, entity_type in map(parts_of, tags)]
    plain = [prefix + (entity_type and f"-{entity_type}") for prefix, entity_type in parts]
    if scheme == "iob1":
        return repaired(plain)
    pairs = zip(["O", *plain], plain, strict=False)
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
