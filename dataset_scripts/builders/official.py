"""What is known of the published corpora, and the comparison of a user's copy with them."""

from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from modeling_mmner.files import read_yaml

from ..formats.reader import Reading, read_posts
from ..formats.schemes import orphans

FACTS: Mapping[str, Any] = read_yaml(
    resources.files(__package__).joinpath("facts.yaml").read_text(encoding="utf-8")
)
"""By name: citation, known problems, and under ``official``, by config and split, the counts and the first 12
hex digits of the SHA-256 of the official files.
"""


def differences(path: Path, found_hash: str, reading: Reading, official: Mapping[str, Any]) -> str | None:
    """How a file, whose hash is known, differs from the official split, in words; None: it is that.

    Counted are posts, tokens, B- tags by type, and orphan I- tags before any repair.
    """
    if found_hash == official["sha256"]:
        return None
    expected, found = Counter(official["counts"]), Counter[str]()
    for post in read_posts(path, Reading(scheme=reading.scheme, rename_types=reading.rename_types)):
        found["posts"] += 1
        found["tokens"] += len(post.tokens)
        found["orphan I-"] += sum(orphans(post.tags))
        found.update(tag[2:] for tag in post.tags if tag.startswith("B-"))
    names = [name for name in dict.fromkeys([*expected, *found]) if found[name] != expected[name]]
    parts = [f"{name} {found[name]} instead of {expected[name]}" for name in names]
    what = ", ".join(parts) or "the same counts with other content"
    expected_file = f"expected the official file, sha256 {official['sha256']}"
    return f"{path}: {expected_file}; found sha256 {found_hash}: {what}"
