"""Counts and hashes of the official copies of the corpora, and the comparison of a user's copy with them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from modeling_mmner.files import read_yaml

from ..formats.reader import Reading, read_posts
from ..formats.schemes import orphans


@dataclass
class Counts:
    """What a split holds: posts, tokens, entities (B- tags) by type, orphan I- tags, languages, sources."""

    posts: int = 0
    tokens: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    orphans: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def add(self, tags: Sequence[str], language: str | None = None, source: str | None = None) -> None:
        self.posts += 1
        self.tokens += len(tags)
        self.entities.update(tag[2:] for tag in tags if tag.startswith("B-"))
        self.orphans += sum(orphans(tags))
        self.languages["unknown" if language is None else language] += 1
        self.sources["unknown" if source is None else source] += 1

    def summary(self, types: Sequence[str]) -> dict[str, Any]:
        """All counts by name, for JSON: entities by type, languages and sources from the most frequent on."""
        return vars(self) | {
            "entities": {entity_type: self.entities[entity_type] for entity_type in types},
            "languages": dict(self.languages.most_common()),
            "sources": dict(self.sources.most_common()),
        }

    def flat(self) -> dict[str, int]:
        """The counts by name, the entity types among them."""
        entities = dict(sorted(self.entities.items()))
        return {"posts": self.posts, "tokens": self.tokens} | entities | {"orphan I-": self.orphans}


FACTS: Mapping[str, Any] = read_yaml(
    resources.files(__package__).joinpath("facts.yaml").read_text(encoding="utf-8")
)
"""What is known of the published corpora by name: citation, known problems, and under ``official``, by config
and split, the counts and the first 12 hex digits of the SHA-256 of the official files.
"""


def count_file(path: Path, reading: Reading) -> Counts:
    """The counts of a corpus file, its orphans before any repair."""
    counts = Counts()
    for post in read_posts(path, Reading(scheme=reading.scheme, rename_types=reading.rename_types)):
        counts.add(post.tags)
    return counts


def differences(path: Path, found_hash: str, reading: Reading, official: Mapping[str, Any]) -> str | None:
    """How a file, whose hash is known, differs from the official split, in words; None: it is that."""
    if found_hash == official["sha256"]:
        return None
    expected, found = Counts(**official["counts"]).flat(), count_file(path, reading).flat()
    parts = [
        f"{name} {found.get(name, 0)} instead of {expected.get(name, 0)}"
        for name in dict.fromkeys([*expected, *found])
        if found.get(name, 0) != expected.get(name, 0)
    ]
    what = ", ".join(parts) or "the same counts with other content"
    return (
        f"{path}: expected the official file, sha256 {official['sha256']}; found sha256 {found_hash}: {what}"
    )
