"""Tables as people have them: their delimiter, a row for each post or word, usual names of columns, lists in
cells.
"""

import ast
import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from ..findings import Findings
from .reader import CorpusError, Reading, mismatch, read_posts
from .schemes import parts_of

Numbered = Iterator[tuple[int, dict[str, Any]]]
"""Records with the numbers of their lines or rows."""

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
_LISTS = ("tokens", "ner_tags", "spans", "entities", "ents", "label", "labels", "images")
_VALUE = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[\w.]+|[\])}])(\s+(?=['"\w\[({-]))?""")
"""A value of a list or its end, and the blanks before another one."""
_CELL_LIMIT = 10**7  # characters; Python's own limit is below the length of a long article with its spans
_LOOKED_AT = 200  # rows


def read_columns(path: Path, findings: Findings, columns: Mapping[str, str]) -> Numbered:
    """The posts of a file in CoNLL's columns, see `reader`, each with its line and its tags as they stand."""
    reading = Reading("auto", columns={key: number for key, number in columns.items() if number.isdecimal()})
    for post in read_posts(path, reading):
        picture = {} if post.is_numbered else {"image": f"{post.id}.jpg"}
        yield post.line, {"id": post.id, "tokens": post.tokens, "ner_tags": post.tags} | picture
    for note, number in reading.notes.items():
        findings.add(note, lost=False, number=number)


def read_table(path: Path, findings: Findings, columns: Mapping[str, str]) -> Numbered:
    """The posts of a table with a line of headings, each with the number of its (first) row from 1.

    The delimiter is that which makes the most headings. A table has a row for each word where its first rows
    have one word and one tag each, and between them rows without, or a column that numbers posts.
    """
    csv.field_size_limit(_CELL_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as lines:  # line ends as they are, which CSV wants
        heading = next(lines, "")
        if re.fullmatch(r'"?sep=.\s*"?\s*', heading):  # for Excel
            heading = next(lines, "")
        own = "\t" if path.suffix.lower() == ".tsv" else ","
        by_delimiter = {mark: next(csv.reader([heading], delimiter=mark), []) for mark in (own, *_DELIMITERS)}
        delimiter = max(by_delimiter, key=lambda mark: len(by_delimiter[mark]))
        names = by_delimiter[delimiter]
        if re.fullmatch("O|[BIESLUM]-.+", heading.split()[-1] if heading.strip() else ""):  # no headings
            yield from read_columns(path, findings, columns)
            return
        if delimiter != own:
            findings.add(f"tables read with {_DELIMITERS[delimiter]} between columns", lost=False)
        rows = partial(_rows, list(lines), names, delimiter)
        called = {name.strip().casefold(): name for name in names}
        word, tag, post = (
            columns.get(ours) or next((called[name] for name in known if name in called), "")
            for ours, known in (("tokens", _WORDS), ("ner_tags", _USUAL["ner_tags"]), ("id", _NUMBERS))
        )
        if _has_row_for_word([*islice(rows(), _LOOKED_AT)], word, tag, post):
            findings.add("tables read with a word in each row", lost=False)
            yield from _joined(rows(), word, tag, post)
            return
        for number, row in enumerate(rows(), start=1):
            if any(row.values()):
                yield number, {str(key): cell or None for key, cell in row.items()}


def _has_row_for_word(rows: list[dict[str, str]], word: str, tag: str, post: str) -> bool:
    filled = [row for row in rows if row.get(word) and row.get(tag)]
    single = all(" " not in row[word] + row[tag] and row[tag][0] != "[" for row in filled)
    numbers = [row[post] for row in filled if row.get(post)]
    has_borders = not all(map(any, map(dict.values, rows[:-1]))) or (post and len({*numbers}) < len(filled))
    return bool(filled and single and has_borders)


def _rows(lines: list[str], names: list[str], delimiter: str) -> Iterator[dict[Any, Any]]:
    """Rows by their headings. Where tabs alone make the columns, a quote may be a word, or stand around one:
    no cell needs it.
    """
    is_plain = delimiter == "\t" and {line.count("\t") for line in lines if line.strip()} == {len(names) - 1}
    quoting: Any = csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL
    for row in csv.reader(lines, delimiter=delimiter, quoting=quoting):
        cells = (c[1:-1].replace('""', '"') if re.fullmatch('"(?:[^"]|"")+"', c) else c for c in row)
        yield dict(zip_longest(names, cells if is_plain else row))


def _joined(rows: Iterable[dict[str, str]], word: str, tag: str, post: str) -> Numbered:
    """Posts of rows of words: one ends before a row without any cell, or where the number changes."""
    first, record = 0, dict[str, Any]()
    for number, row in enumerate(rows, start=1):
        if record and (not any(row.values()) or row.get(post) not in ("", None, record.get(post))):
            yield first, record
            record = {}
        if any(row.values()):
            if not row.get(word) or not row.get(tag):
                raise mismatch(f"row {number}", "a word and its tag", f"{row!s:.200}")
            first = number if not record else first
            record = record or {name: cell or None for name, cell in row.items()} | {word: [], tag: []}
            record[word].append(row[word])
            record[tag].append(row[tag])
    if record:
        yield first, record


def usual_columns(record: Any) -> dict[str, str]:
    """What our columns seem to be called in a record, where that is not their own names."""
    if not isinstance(record, dict) or "data" in record:  # a task of Label Studio
        return {}
    called = {str(name).strip().casefold(): name for name in record}
    values = {ours: [called[name] for name in known if name in called] for ours, known in _USUAL.items()}
    tags = next((name for name in values["ner_tags"] if _are_tags(_words(record[name]))), None)
    count = len(_words(record[tags])) if tags else None
    words = next((name for name in values["tokens"] if len(_words(record[name])) == count), None)
    text = next((name for name in values["text"] if isinstance(record[name], str)), None)
    found = {"tokens": words, "ner_tags": tags} if words is not None else {"text": text}
    found["image"] = next((name for name in values["image"] if _PICTURE.search(str(record[name]))), None)
    return {ours: name for ours, name in found.items() if name not in (None, ours, f"{ours}s")}


def _words(value: Any) -> list[Any]:
    """As `cell_list` of words or tags, empty for what is none."""
    try:
        found = cell_list(value, "tokens", "")
        return found if isinstance(found, list) else []
    except CorpusError:
        return []


def _are_tags(values: list[Any]) -> bool:
    """Whether a cell is a list of names or numbers, one at least O, with a prefix or a number."""
    is_plain = all(isinstance(value, (str, int)) for value in values)
    return is_plain and any(str(value).isdecimal() or parts_of(str(value))[0] for value in values)


def cell_list(value: Any, key: str, place: str) -> Any:
    """The list that a table's cell stands for: JSON, Python's, NumPy's, or words and tags between spaces. An
    empty one is None.

    Raises:
        CorpusError: it is damaged, or NumPy has left out its middle.
    """
    if not isinstance(value, str) or key not in _LISTS:
        return value
    if (text := value.strip()).startswith("["):
        for parse in (json.loads, _literal):
            try:
                if isinstance(found := parse(text), list) and ... not in found:
                    return found
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
        if text[1:].lstrip()[:1] in ("'", '"') or " ... " in text:
            raise mismatch(place, f"a whole list in the column {key}, best as JSON", f"{text!r:.80}")
    return value.split() if key in ("tokens", "ner_tags") else value or None


def _literal(text: str) -> Any:
    """The value of Python's notation, or of NumPy's, which has no commas between items."""
    return ast.literal_eval(_VALUE.sub(lambda found: found[1] + ("," if found[2] else ""), text))
