"""What stands in for a model in tests of annotations: a text's capitalised words are its entities. It loads
no torch.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset_scripts.row_ranges import open_rows
from modeling_mmner.inference.annotation_shards import ABOUT, AnnotationFolder, Outcome, annotate
from modeling_mmner.model.posts_mmner import PostError

MADE_BY = {"model": "capitals", "threshold": 0.0}


def find(posts: Iterator[Any], first: int) -> Iterator[dict[str, Any]]:
    for post in posts:
        yield record_of(post)


def record_of(post: Any) -> dict[str, Any]:
    if isinstance(post, PostError):
        return {"id": None, "text": None, "tokens": [], "tags": [], "entities": [], "error": str(post)}
    tokens = post["text"].split()
    tags = ["B-X" if token[0].isupper() else "O" for token in tokens]
    return {
        "id": post["id"],
        "text": post["text"],
        "tokens": tokens,
        "tags": tags,
        "entities": [],
        "error": None,
    }


def write_posts(path: Path, number: int, *, word: str = "Paris") -> Path:
    """JSON lines of posts, of which each seventh is broken."""
    lines = [json.dumps({"id": f"post-{row}", "text": f"{word} in row {row}"}) for row in range(number)]
    path.write_text("\n".join(line[:9] if row % 7 == 6 else line for row, line in enumerate(lines)))
    return path


def expected_records(source: Path) -> list[dict[str, Any]]:
    """What an annotation of posts must hold: they are read all at once, from the beginning."""
    rows = open_rows(str(source))
    return [{"row": number} | record_of(post) for number, post in enumerate(rows.read(0, 0, 10**9, first=0))]


def annotated(source: Path, folder: Path, *, rank: int = 0, world_size: int = 1, **options: Any) -> Outcome:
    """One worker's share, in JSON lines, five rows a shard."""
    options = {"find": find, "made_by": MADE_BY, "form": "jsonl", "rows_per_shard": 5, "say": str} | options
    return annotate(folder, open_rows(str(source)), rank=rank, world_size=world_size, **options)


def records_in(folder: Path) -> list[dict[str, Any]]:
    """All records of the files in a folder, those of the first file first."""
    return [
        json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """What lies in the folder of an annotation and what is kept about it, but for times."""
    files = [
        path
        for place in (folder, folder / ABOUT)
        for path in place.iterdir()
        if path.is_file() and path.name != "plan.json"
    ]
    return {path.name: path.read_bytes() for path in files}


def done_shards(folder: Path) -> list[int]:
    """The numbers of the shards that count as done."""
    target = AnnotationFolder(folder)
    plan = target.required_plan()
    return [shard.number for shard in plan.shards if target.flaw(plan, shard) is None]
