"""Contexts: a text about each post or its picture, from a column of the corpus or from files of their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from modeling_mmner.escaping import encodable
from modeling_mmner.model.posts_mmner import is_words

from .formats.reader import mismatch
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
    words: dict[str, Any] = {}
    for split, rows in splits.items():
        for post, tokens in zip(map(str, rows["id"]), rows["tokens"], strict=True):
            if words.setdefault(post, tokens) != tokens:
                hint = "give the posts ids, or the contexts in a column of the corpus"
                what = f"{post!r} for several, one of them in the {split} split; {hint}"
                raise mismatch("--context_file", "an id of its own for each post", what)
    found = {split: [contexts.get(str(post)) for post in rows["id"]] for split, rows in splits.items()}
    if not any(context for column in found.values() for context in column):
        expected = f"contexts of the corpus's posts by their ids, such as {next(iter(words), None)!r}"
        first = f"the first id in {files[0]} is {next(iter(contexts), None)!r}"
        raise mismatch("--context_file", expected, f"none of them; {first}")
    return {split: _with_column(rows, found[split]) for split, rows in splits.items()}


def read_contexts(files: Sequence[str], field: str) -> dict[str, Any]:
    """By the posts' ids, the contexts in files of JSON lines: objects with ``id`` and `field`, text or texts.

    Args:
        files: files, or folders whose ``*.jsonl`` are read.

    Raises:
        CorpusError: a file is missing or has a line that is no such object, or two lines of one id that
            differ.
    """
    contexts: dict[str, Any] = {}
    for name in files:
        paths = sorted(Path(name).glob("*.jsonl")) if Path(name).is_dir() else [Path(name)]
        if not paths or not all(path.is_file() for path in paths):
            files = "a file of JSON lines, or a folder with *.jsonl files"
            raise mismatch(f"--context_file {name}", files, "none")
        for path in paths:
            for number, entry in read_json_lines(path):
                place = f"{path}, line {number}"
                post, context = _entry(entry, field, place)
                if contexts.setdefault(post, context) != context:
                    raise mismatch(place, "one context for a post", f"another of {post!r}")
    return contexts


def _entry(entry: Any, field: str, place: str) -> tuple[str, Any]:
    if not isinstance(entry, dict) or not {"id", field} <= entry.keys() or not _is_context(entry[field]):
        expected = f"an object with 'id' and a text {field!r} (--context names it), or a list of texts"
        found = sorted(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        raise mismatch(place, expected, f"{found!s:.200}")
    context = entry[field] or ""
    is_text = isinstance(context, str)
    return str(entry["id"]), encodable(context) if is_text else [encodable(text) for text in context]


def _from_column(rows: datasets.Dataset, field: str, split: str) -> datasets.Dataset:
    if field not in rows.features:
        found = f"{', '.join(rows.features)}; contexts in a file of their own are given by --context_file"
        raise mismatch("--context", f"a column {field!r} in the {split} split", found)
    contexts = list(rows[field])
    if wrong := [context for context in contexts if not _is_context(context)]:
        raise mismatch("--context", f"texts, or lists of them, in the column {field!r}", f"{wrong[0]!r:.80}")
    return rows if field == CONTEXT else _with_column(rows, contexts)


def _is_context(value: Any) -> bool:
    return value is None or isinstance(value, str) or is_words(value)


def _with_column(rows: datasets.Dataset, contexts: list[Any]) -> datasets.Dataset:
    rows = rows.remove_columns(CONTEXT) if CONTEXT in rows.features else rows
    text = datasets.Value("string")
    if not any(isinstance(context, list) for context in contexts):
        return rows.add_column(CONTEXT, contexts, feature=text)
    lists = [[context] if isinstance(context, str) else context for context in contexts]
    return rows.add_column(CONTEXT, lists, feature=datasets.List(text))
