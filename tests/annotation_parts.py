"""What tests of annotations share: posts, and a stand-in for a model, whose tags are a text's capitalised
words.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from modeling_mmner.inference.annotate import AnnotateStep, Outcome, annotate, verify
from modeling_mmner.inference.posts_input import open_posts
from modeling_mmner.model.posts_mmner import PostError


@dataclass(frozen=True)
class Capitals:
    """In the place of an `Annotator`.

    Attributes:
        sha256: as of a model's files.
        fails_at: the text of a post at which it raises.
    """

    sha256: str = "capitals"
    device: str = "cpu"
    dtype: str = "float32"
    threshold: float = 0.0
    precision: float | None = None
    effects: bool = False
    read_pictures: bool = False
    image_dir: str | None = None
    fails_at: str | None = None

    def find(self, posts: Iterable[Any], *, first: int = 0) -> Iterator[dict[str, Any]]:
        return map(self.record_of, posts)

    def record_of(self, post: Any) -> dict[str, Any]:
        found: dict[str, Any] = dict.fromkeys(("id", "text", "error")) | {"entities": []}
        if isinstance(post, PostError):
            return found | {"tokens": [], "tags": [], "error": str(post)}
        if post["text"] == self.fails_at:
            raise RuntimeError("out of memory")
        tokens = post["text"].split()
        tags = ["B-X" if token[0].isupper() else "O" for token in tokens]
        return found | {"id": post["id"], "text": post["text"], "tokens": tokens, "tags": tags}


def write_posts(path: Path, number: int, *, word: str = "Paris") -> Path:
    """JSON lines of posts, of which each seventh is broken."""
    lines = [json.dumps({"id": f"post-{row}", "text": f"{word} in row {row}"}) for row in range(number)]
    path.write_text("\n".join(line[:9] if row % 7 == 6 else line for row, line in enumerate(lines)))
    return path


def annotated(source: Path, folder: Path, *, tasks: int = 4, first: int = 0, **options: Any) -> Outcome:
    """An annotation by the stand-in, in this process."""
    reading = {name: options.pop(name) for name in ("columns", "split") if name in options}
    share = {"local_tasks": options.pop("local_tasks", -1), "local_rank_offset": first}
    step = AnnotateStep(Capitals(**options), open_posts(str(source), **reading), folder)
    annotate(step, tasks=tasks, **share)
    return verify(folder)


def rows_in(folder: Path, cache: Path) -> list[dict[str, Any]]:
    """All rows, as whoever uses an annotation reads it."""
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(cache / "cache")).to_list()
