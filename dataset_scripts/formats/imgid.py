"""Writes a corpus as IMGID files and pictures, which every other program for this task reads."""

from pathlib import Path
from typing import Any

from modeling_mmner.files import picture_content, picture_hash, staged_folder
from modeling_mmner.model.images_mmner import pictures_of

from ..opening import Corpus
from .reader import UNSAFE_ID, CorpusError

_FILE_NAMES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}


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
    hashes: dict[str, str | None] = {}
    with staged_folder(output_dir) as staged:
        (staged / "images").mkdir()
        for split, rows in corpus.splits.items():
            with (staged / _FILE_NAMES[split]).open("w", encoding="utf-8", newline="\n") as file:
                for row in rows:
                    file.write(_block(row, corpus.labels))
                    picture = next(iter(pictures_of(row)), None)
                    known = picture and picture_hash(picture)
                    if hashes.setdefault(row["id"], known) != known:
                        expected = "the same picture in every split, found another one or none"
                        raise _unfit(row["id"], expected)
                    if picture:
                        (staged / "images" / f"{row['id']}.jpg").write_bytes(picture_content(picture))


def _block(row: dict[str, Any], labels: list[str]) -> str:
    post_id, tokens = row["id"], row["tokens"]
    if UNSAFE_ID.search(post_id):
        raise _unfit(post_id, "an id that is a plain file name, found another")
    if not tokens:
        raise _unfit(post_id, "tokens, found none")
    if wrong := [token for token in tokens if not token or "\t" in token or "\n" in token]:
        raise _unfit(post_id, f"tokens without tab and line feed, found {wrong[0]!r}")
    if (number := len(pictures_of(row))) > 1:
        raise _unfit(post_id, f"one picture, found {number}")
    lines = [f"{token}\t{labels[tag]}\n" for token, tag in zip(tokens, row["ner_tags"], strict=True)]
    return f"IMGID:{post_id}\n{''.join(lines)}\n"


def _unfit(post_id: str, expected: str) -> CorpusError:
    return CorpusError(f"post {post_id!r}: expected {expected}; IMGID files cannot hold it")
