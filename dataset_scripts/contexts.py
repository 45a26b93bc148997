"""Contexts: a text about each post or its picture, from a column of the corpus or from files of their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from modeling_mmner.escaping import encodable
from modeling_mmner.model.posts_mmner import is_words

from .formats.reader import CorpusError
from .formats.records import read_json_lines

CONTEXT = "context"
"""The column in which rows have their context: a string, a list of strings, or None."""


def with_contexts(
    splits: dict[str, datasets.Dataset], field: str, files: Sequence[str] = ()
) -> dict[str, datasets.Dataset]:
    """The splits with their contexts in the column `CONTEXT`.

    Args:
        field: of the files' objects; without files, the column of the corpus.
        files: see `read_contexts`. A post that they do not name has no context.

    Raises:
        CorpusError: a split has not the column, or it holds no texts; a file cannot be read; the files name
            no post of the corpus; two posts of one id have other words.
    """
    if not files:
        return {split: _from_column(rows, field, split) for split, rows in splits.items()}
    contexts = read_contexts(files, field)
    _check_ids(splits)
    found = {split: [contexts.get(str(post)) for post in rows["id"]] for split, rows in splits.items()}
    if not any(context for column in found.values() for context in column):
        ours, theirs = next(iter(splits.values()))["id"][0], next(iter(contexts), None)
        raise CorpusError(
            f"--context_file: expected contexts of the corpus's posts by their ids, such as {ours!r}, found"
            f" none of them; the first id in {files[0]} is {theirs!r}"
        )
    return {split: _with_column(rows, found[split]) for split, rows in splits.items()}


def read_contexts(files: Sequence[str], field: str) -> dict[str, Any]:
    """The contexts in files of JSON lines, each an object with ``id`` and `field`, a text or a list of texts,
    by the posts' ids.

    Args:
        files: files, or folders whose ``*.jsonl`` are read.

    Raises:
        CorpusError: a file is missing or has a line that is no such object, or two lines of one id that
            differ.
    """
    contexts: dict[str, Any] = {}
    for path in [path for name in files for path in _paths(name)]:
        for number, entry in read_json_lines(path):
            post, context = _entry(entry, field, f"{path}, line {number}")
            if contexts.setdefault(post, context) != context:
                raise CorpusError(
                    f"{path}, line {number}: expected one context for a post, found another of {post!r}"
                )
    return contexts


def _check_ids(splits: dict[str, datasets.Dataset]) -> None:
    """Contexts are found by id, so an id must stand for one post."""
    words: dict[str, Any] = {}
    for split, rows in splits.items():
        for post, tokens in zip(rows["id"], rows["tokens"], strict=True):
            if words.setdefault(str(post), tokens) != tokens:
                raise CorpusError(
                    f"--context_file: expected an id of its own for each post, found {post!r} for several,"
                    f" one of them in the {split} split; give the posts ids, or the contexts in a column of"
                    " the corpus"
                )


def _paths(name: str) -> list[Path]:
    path = Path(name)
    paths = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not paths or not all(each.is_file() for each in paths):
        raise CorpusError(
            f"--context_file {name}: expected a file of JSON lines, or a folder with *.jsonl files, found"
            " none"
        )
    return paths


def _entry(entry: Any, field: str, place: str) -> tuple[str, Any]:
    if not isinstance(entry, dict) or "id" not in entry or not _is_context(entry.get(field)):
        found = sorted(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        raise CorpusError(
            f"{place}: expected an object with 'id' and a text {field!r}, or a list of texts, found"
            f" {found!s:.200}"
        )
    if field not in entry:
        raise CorpusError(
            f"{place}: expected a field {field!r} (--context names it), found"
            f" {sorted(map(str, entry))!s:.200}"
        )
    context = entry[field] or ""
    return str(entry["id"]), (
        encodable(context) if isinstance(context, str) else [encodable(text) for text in context]
    )


def _from_column(rows: datasets.Dataset, field: str, split: str) -> datasets.Dataset:
    if field not in rows.features:
        raise CorpusError(
            f"--context: expected a column {field!r} in the {split} split, found {', '.join(rows.features)};"
            " contexts in a file of their own are given by --context_file"
        )
    contexts = list(rows[field])
    wrong = next((context for context in contexts if not _is_context(context)), None)
    if wrong is not None:
        raise CorpusError(
            f"--context: expected texts, or lists of them, in the column {field!r}, found {wrong!r:.80}"
        )
    return rows if field == CONTEXT else _with_column(rows, contexts)


def _is_context(value: Any) -> bool:
    return value is None or isinstance(value, str) or is_words(value)


def _with_column(rows: datasets.Dataset, contexts: list[Any]) -> datasets.Dataset:
    rows = rows.remove_columns(CONTEXT) if CONTEXT in rows.features else rows
    kind: Any = datasets.Value("string")
    if any(isinstance(context, list) for context in contexts):
        kind, contexts = (
            datasets.List(kind),
            [[context] if isinstance(context, str) else context for context in contexts],
        )
    return rows.add_column(CONTEXT, contexts, feature=kind)
