"""Changes to a built data set: posts removed from it, and its export to IMGID files."""

import hashlib
import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modeling_mmner.files import staged_folder
from modeling_mmner.model.images_mmner import pictures_of

from ..formats.reader import UNSAFE_ID, CorpusError
from ..opening import RECORD, Corpus
from .built_corpus import BROKEN_REPORT, describe_split, read_record, shards, write_record

_FILE_NAMES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}


def read_ids(path: str | Path) -> list[str]:
    """The ids in a file, one a line.

    Raises:
        CorpusError: there is no such file, it is not UTF-8, or it holds no id.
    """
    try:
        ids = [line.removesuffix("\r") for line in Path(path).read_bytes().decode("utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: expected a UTF-8 file with an id a line; {error}") from error
    if not (ids := [post_id for post_id in ids if post_id]):
        raise CorpusError(f"{path}: expected an id a line, found none")
    return ids


def remove_posts(folder: str | Path, ids: Collection[str]) -> dict[str, int]:
    """Take posts out of a built data set, in every config and split, and out of its card's counts.

    The data set is replaced when all of it is done, and not before. Its version gets another name.

    Returns:
        For each id the number of rows that had it.

    Raises:
        CorpusError: the folder holds no built data set, or none of the ids; or a split would be empty.
    """
    folder = Path(folder)
    record = read_record(folder)
    removed = dict.fromkeys(ids, 0)
    digest = hashlib.sha256("\n".join(sorted(removed)).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    with staged_folder(folder, marker=RECORD, overwrite=True) as staged:
        for name, config in record["configs"].items():
            before = sum(removed.values())
            (staged / name).mkdir()
            for split, details in config["splits"].items():
                kept_bytes = sum(
                    _filter(path, staged / name / path.name, removed) for path in shards(folder / name, split)
                )
                _recount(details, describe_split(staged / name, split, record["labels"], kept_bytes), removed)
                if not details["posts"]:
                    raise CorpusError(
                        f"{folder}: expected posts to be left in {name} {split}, found none; no split can be"
                        " empty"
                    )
            if sum(removed.values()) > before:
                config["version"] += f"+without-{digest}"
        if not any(removed.values()):
            raise CorpusError(
                f"{folder}: expected posts with the ids {sorted(removed)[:5]}, found none of them"
            )
        if (folder / BROKEN_REPORT).is_file():
            with (folder / BROKEN_REPORT).open(encoding="utf-8") as lines:
                kept = "".join(line for line in lines if json.loads(line)["id"] not in removed)
            (staged / BROKEN_REPORT).write_text(kept, encoding="utf-8")
        write_record(staged, record)
        for other in folder.iterdir():  # what the owner has put beside the data: a licence, a repository
            if not (staged / other.name).exists():
                (shutil.copytree if other.is_dir() else shutil.copy2)(other, staged / other.name)
    return removed


def _filter(source: Path, target: Path, removed: dict[str, int]) -> int:
    """Copy a Parquet file without the rows of some ids, which are counted; returns the size of the others in
    memory.
    """
    kept_bytes, gone = 0, pa.array(list(removed))
    with pq.ParquetFile(source) as file, pq.ParquetWriter(target, file.schema_arrow) as writer:
        for batch in file.iter_batches(batch_size=100):
            matches = pc.is_in(batch["id"], value_set=gone)
            for post_id in batch["id"].filter(matches).to_pylist():
                removed[post_id] += 1
            kept = batch.filter(pc.invert(matches))
            kept_bytes += kept.nbytes
            if kept.num_rows:  # `datasets` cannot load an empty row group
                writer.write_batch(kept)
    return kept_bytes


def _recount(details: dict[str, Any], counts: dict[str, Any], removed: Collection[str]) -> None:
    """Put the counts of the rows that are left in a split's part of the record."""
    if gone := details["posts"] - counts["posts"]:
        details["notes"]["posts taken out"] = details["notes"].get("posts taken out", 0) + gone
    broken = [post_id for post_id in details["pictures"]["broken_ids"] if post_id not in removed]
    details.update(counts)
    without = details["pictures"]["missing"]
    details["pictures"] |= {"missing": without - len(broken), "broken": len(broken), "broken_ids": broken}


def export_imgid(corpus: Corpus, output_dir: str | Path) -> None:
    """Write a corpus in the IMGID format: train.txt, valid.txt, test.txt, and the pictures as
    ``images/<id>.jpg``.

    A picture's bytes are written as they are, whatever their format. Building from these files gives the same
    rows again.

    Raises:
        CorpusError: the format cannot hold a post: its id is no file name or not the only one, a token is
            empty or holds a tab or a line feed, it has several pictures, or another one than a post of the
            same id.
        FileExistsError: the output folder is taken.
    """
    digests: dict[str, bytes | None] = {}
    with staged_folder(output_dir) as staged:
        (staged / "images").mkdir()
        for split, rows in corpus.splits.items():
            with (staged / _FILE_NAMES[split]).open("w", encoding="utf-8", newline="\n") as file:
                for row in rows:
                    file.write(_block(row, corpus.labels))
                    content = _picture(row)
                    digest = None if content is None else hashlib.sha256(content).digest()
                    if digests.setdefault(row["id"], digest) != digest:
                        raise CorpusError(
                            f"post {row['id']!r}: expected the same picture in every split, found another one"
                            " or none; IMGID files know pictures by id"
                        )
                    if content is not None:
                        (staged / "images" / f"{row['id']}.jpg").write_bytes(content)


def _picture(row: dict[str, Any]) -> bytes | None:
    """The content of a post's picture file."""
    pictures = pictures_of(row)
    if not pictures:
        return None
    if len(pictures) > 1:
        raise CorpusError(
            f"post {row['id']!r}: expected one picture, found {len(pictures)}; IMGID files cannot hold it"
        )
    return (
        pictures[0]["bytes"] if pictures[0]["bytes"] is not None else Path(pictures[0]["path"]).read_bytes()
    )


def _block(row: dict[str, Any], labels: list[str]) -> str:
    """The lines of a post."""
    post_id, tokens = row["id"], row["tokens"]
    if UNSAFE_ID.search(post_id):
        raise CorpusError(
            f"post {post_id!r}: expected an id that is a plain file name, found another; IMGID files cannot"
            " hold it"
        )
    if not tokens:
        raise CorpusError(
            f"post {post_id!r}: expected tokens, found none; IMGID files cannot hold such a post"
        )
    for token in tokens:
        if not token or "\t" in token or "\n" in token:
            raise CorpusError(
                f"post {post_id!r}: expected tokens without tab and line feed, found {token!r}; IMGID files"
                " cannot hold it"
            )
    lines = [f"{token}\t{labels[tag]}\n" for token, tag in zip(tokens, row["ner_tags"], strict=True)]
    return f"IMGID:{post_id}\n{''.join(lines)}\n"
