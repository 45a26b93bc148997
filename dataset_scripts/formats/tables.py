"""Tables as people have them: their delimiter, a row for each post or word, and usual names of columns."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..findings import Findings
from .reader import Reading, read_posts
from .schemes import parts_of

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_WORDS, _TEXTS = ("tokens", "words", "token", "word"), ("text", "sentence", "sentences")
_USUAL = {
    "tokens": (*_WORDS, *_TEXTS),
    "ner_tags": ("ner_tags", "tags", "labels", "tag", "label", "ner", "ner_labels", "ner_tag", "entity"),
    "text": (*_TEXTS, "content", "body", "tweet", "post", "message"),
    "image": ("image", "images", "picture", "photo", "img", "image_path", "image_file", "filename"),
}
"""What our columns are often called, whatever the case of their letters; their own names first."""
_NUMBERS = ("sentence #", "sentence", "sentence_id", "sent_id", "post", "post_id", "id")
"""How the column is called that says which post a row's word is of."""
_PICTURE = re.compile(r"\.(jpe?g|png|gif|webp|bmp)\b", re.IGNORECASE)
_CELL_LIMIT = 10**7  # characters; Python's own limit is below the length of a long article with its spans
_LOOKED_AT = 200  # rows


def read_columns(
    path: Path, findings: Findings, columns: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The posts of a file in CoNLL's columns, see `reader`, each with its line and its tags as they stand."""
    reading = Reading("auto", columns={key: number for key, number in columns.items() if number.isdecimal()})
    for post in read_posts(path, reading):
        picture = {} if post.is_numbered else {"image": f"{post.id}.jpg"}
        yield post.line, {"id": post.id, "tokens": post.tokens, "ner_tags": post.tags} | picture
    for note, number in reading.notes.items():
        findings.add(note, lost=False, number=number)


def read_table(
    path: Path, findings: Findings, columns: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The posts of a table with a line of headings, each with the number of its (first) row from 1.

    The delimiter is that which makes the most headings. A table has a row for each word where its first rows
    have one word and one tag each, and between them rows without, or a column that numbers posts.
    """
    csv.field_size_limit(_CELL_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as lines:  # line ends as they are, which CSV wants
        heading = next(lines, "")
        own = "\t" if path.suffix == ".tsv" else ","
        by_delimiter = {mark: next(csv.reader([heading], delimiter=mark), []) for mark in (own, *_DELIMITERS)}
        delimiter = max(by_delimiter, key=lambda mark: len(by_delimiter[mark]))
        names = by_delimiter[delimiter]
        if re.fullmatch("O|[BIESLUM]-.+", heading.split()[-1] if heading.strip() else ""):  # no headings
            yield from read_columns(path, findings, columns)
            return
        if delimiter != own:
            findings.add(f"tables read with {_DELIMITERS[delimiter]} between columns", lost=False)
        first, called = list(islice(lines, _LOOKED_AT)), {name.strip().casefold(): name for name in names}
        word, tag, post = (
            columns.get(ours) or next((called[name] for name in known if name in called), "")
            for ours, known in (("tokens", _WORDS), ("ner_tags", _USUAL["ner_tags"]), ("id", _NUMBERS))
        )
        quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL  # a quote may be a word
        sample = [
            dict(zip(names, row, strict=False))
            for row in csv.reader(first, delimiter=delimiter, quoting=quoting)
        ]
        if _has_row_for_word(sample, word, tag, post):
            findings.add("tables read with a word in each row", lost=False)
            rows = csv.reader(chain(first, lines), delimiter=delimiter, quoting=quoting)
            yield from _joined(
                (dict(zip(names, map(_unquoted, row), strict=False)) for row in rows), word, tag, post
            )
            return
        whole = csv.DictReader(chain([heading], first, lines), delimiter=delimiter)
        for number, row in enumerate(whole, start=1):
            yield number, {str(key): None if value == "" else value for key, value in row.items()}


def _has_row_for_word(rows: list[dict[str, str]], word: str, tag: str, post: str) -> bool:
    filled = [row for row in rows if row.get(word) and row.get(tag)]
    single = all(" " not in row[word] + row[tag] and row[tag][0] != "[" for row in filled)
    numbers = [row[post] for row in filled if row.get(post)]
    has_borders = not all(row.get(word) for row in rows[:-1]) or (post and len({*numbers}) < len(filled))
    return bool(filled and single and has_borders)


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if re.fullmatch('"(?:[^"]|"")+"', cell) else cell


def _joined(
    rows: Iterable[dict[str, str]], word: str, tag: str, post: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Posts of rows of words: one ends before a row without a word, or where the number changes."""
    first, record = 0, dict[str, Any]()
    for number, row in enumerate(rows, start=1):
        if record and (not row.get(word) or row.get(post) not in ("", None, record.get(post))):
            yield first, record
            record = {}
        if row.get(word):
            if not record:
                first, record = (
                    number,
                    {**{name: cell or None for name, cell in row.items()}, word: [], tag: []},
                )
            record[word].append(row[word])
            record[tag].append(row.get(tag) or "")
    if record:
        yield first, record


def usual_columns(record: Any, cell: Callable[[Any], Any]) -> dict[str, str]:
    """What our columns seem to be called in a record, where that is not their own names.

    Args:
        cell: the list that a cell stands for.
    """
    if not isinstance(record, dict) or "data" in record:  # a task of Label Studio
        return {}
    called = {str(name).strip().casefold(): name for name in record}
    values = {ours: [called[name] for name in known if name in called] for ours, known in _USUAL.items()}
    tags = next((name for name in values["ner_tags"] if _are_tags(cell(record[name]))), None)
    count = len(cell(record[tags])) if tags is not None else 0
    fitting = (name for name in values["tokens"] if tags and _length(cell(record[name])) == count)
    words = next(fitting, None)
    text = next((name for name in values["text"] if isinstance(record[name], str)), None)
    found = {"tokens": words, "ner_tags": tags} if words is not None else {"text": text}
    pictured = (name for name in values["image"] if _PICTURE.search(str(record[name])))
    found["image"] = next(pictured, None)
    return {ours: name for ours, name in found.items() if name not in (None, ours, f"{ours}s")}


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else -1


def _are_tags(values: Any) -> bool:
    """Whether a cell is a list of names or numbers, one at least O, with a prefix or a number."""
    if not isinstance(values, list) or not all(isinstance(value, (str, int)) for value in values):
        return False
    return any(str(value).isdecimal() or parts_of(str(value))[0] for value in values)
