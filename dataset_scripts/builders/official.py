"""Counts and hashes of the official copies of the corpora, and the comparison of a user's copy with them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modeling_mmner.files import sha256

from ..formats.reader import Reading, read_posts
from ..formats.schemes import orphans


@dataclass
class Counts:
    """What a split holds: posts, tokens, entities (B- tags) by type, orphan I- tags, posts by language and
    by source.
    """

    posts: int = 0
    tokens: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    orphans: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def add(self, post_tags: Iterable[str], language: str | None = None, source: str | None = None) -> None:
        """Count one post by its BIO tags, its language and its source."""
        tags = list(post_tags)
        self.posts += 1
        self.tokens += len(tags)
        self.entities.update(tag[2:] for tag in tags if tag.startswith("B-"))
        self.orphans += sum(orphans(tags))
        self.languages["unknown" if language is None else language] += 1
        self.sources["unknown" if source is None else source] += 1

    def flat(self) -> dict[str, int]:
        """The counts by name, the entity types among them."""
        return {
            "posts": self.posts,
            "tokens": self.tokens,
            **dict(sorted(self.entities.items())),
            "orphan I-": self.orphans,
        }


@dataclass(frozen=True)
class Official:
    """A split of an official copy: its counts, and the first 12 hex digits of its file's SHA-256."""

    counts: Counts
    sha256: str


def _row(
    posts: int, tokens: int, per: int, loc: int, org: int, misc: int, orphans: int, sha256: str
) -> Official:
    return Official(Counts(posts, tokens, Counter(PER=per, LOC=loc, ORG=org, MISC=misc), orphans), sha256)


OFFICIAL: Mapping[str, Mapping[str, Official]] = {
    "twitter2015": {
        "train": _row(4000, 64439, 2217, 2091, 927, 931, 186, "a6246e37aa1c"),
        "validation": _row(1000, 16178, 552, 522, 247, 220, 53, "9dcc7f9df733"),
        "test": _row(3257, 52822, 1816, 1697, 839, 720, 135, "edb2665b89bf"),
    },
    "twitter2017": {
        "train": _row(3373, 53007, 2943, 731, 1674, 701, 0, "801e149e8635"),
        "validation": _row(723, 11309, 626, 173, 375, 150, 0, "41b5db90cb32"),
        "test": _row(723, 11330, 621, 178, 395, 157, 0, "a7d9e172ae85"),
    },
    "mmner/en": {
        "train": _row(19968, 328043, 3344, 4742, 7764, 25322, 0, "09460256b558"),
        "validation": _row(2463, 40584, 419, 552, 972, 3166, 0, "58185cc1f77e"),
        "test": _row(2533, 41889, 431, 517, 1019, 3214, 0, "187de233e976"),
    },
}
"""By corpus (``name`` or ``name/config``) and split. MMNERD's French, German and Spanish files are not
public.
"""


def count_file(path: Path, reading: Reading) -> Counts:
    """The counts of a corpus file, its orphans before any repair.

    Raises:
        CorpusError: see `read_posts`.
    """
    raw = Reading(scheme=reading.scheme, rename_types=reading.rename_types)
    counts = Counts()
    for post in read_posts(path, raw):
        counts.add(post.tags)
    return counts


def file_hash(path: Path) -> str:
    """The first 12 hex digits of the file's SHA-256, which name the version of a corpus."""
    return sha256(path)[:12]


def differences(path: Path, found_hash: str, reading: Reading, official: Official) -> str | None:
    """How a file, whose `file_hash` is known, differs from the official split, in words; None where it is the
    official file.

    Raises:
        CorpusError: the file cannot be read.
    """
    if found_hash == official.sha256:
        return None
    expected, found = official.counts.flat(), count_file(path, reading).flat()
    parts = [
        f"{name} {found.get(name, 0)} instead of {expected.get(name, 0)}"
        for name in dict.fromkeys([*expected, *found])
        if found.get(name, 0) != expected.get(name, 0)
    ]
    what = ", ".join(parts) or "the same counts with other content"
    return f"{path}: expected the official file, sha256 {official.sha256}; found sha256 {found_hash}: {what}"
