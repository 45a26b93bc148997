"""Files: JSON lines of posts for prediction, corpora in all their formats, contexts, word vectors."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_scripts.contexts import read_contexts
from dataset_scripts.opening import open_corpus
from modeling_mmner import files as json_lines
from modeling_mmner.files import json_line, read_json_lines
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from modeling_mmner.training.word_vocabulary import check_vectors
from tests.small_posts import assert_same

from .cases import GOOD, Bench, Case

GOOD_LINE = json.dumps(GOOD).encode()
NO_JSON = "posts:2: expected a JSON object"
# Lines of JSON between good ones, with a part of the error; None: a result.
LINES: dict[str, tuple[bytes, str | None]] = {
    "an empty line": (b"", None),
    "white space": (b" \t ", None),
    "escapes": (b'{"text": "\\u0000\\ud83d\\u202e"}', None),
    "a key twice": (b'{"text": 7, "text": "Paris"}', None),
    "a huge number for an id": (b'{"id": 1e999, "text": "Paris"}', None),
    "no JSON": (b"Jordan", NO_JSON),
    "half an object": (b'{"text": "Jor', NO_JSON),
    "two objects": (b'{"text": "a"} {"text": "b"}', NO_JSON),
    "no UTF-8": (b'{"text": "Z\xfcrich"}', NO_JSON),
    "UTF-16": ('{"text": "a"}'.encode("utf-16-le").replace(b"\n", b""), "posts:2: "),
    "a byte order mark in the middle": (b'\xef\xbb\xbf{"text": "a"}', NO_JSON),
    "NUL": (b"\0" * 20, NO_JSON),
    "NaN": (b'{"id": NaN, "text": "Paris"}', NO_JSON),
    "Infinity": (b'{"id": -Infinity, "text": "Paris"}', NO_JSON),
    "a number of 10,000 digits": (b'{"id": ' + b"9" * 10_000 + b', "text": "Paris"}', NO_JSON),
    "nested 100,000 deep": (b"[" * 100_000, NO_JSON),
    "nested 100,000 deep, closed": (b"[" * 100_000 + b"]" * 100_000, NO_JSON),
    "a line that is too long": (
        b'{"text": "' + b"a" * 2_000_000 + b'"}',
        "posts:2: expected a line of at most",
    ),
    "a list of numbers": (b"[1, 2]", "post 1: expected an object"),
    "a list of words": (b'["Jordan"]', None),
    "a number": (b"7", "post 1: expected an object"),
    "null": (b"null", "post 1: expected an object"),
    "a text alone": (b'"Jordan"', None),
    "a text that is null": (b'{"text": null}', "post 1: expected either 'text' or 'tokens'"),
    "tokens that are a string": (
        b'{"tokens": "Jordan"}',
        "post 1: expected 'tokens' to be a list of strings",
    ),
    "pictures that are objects": (b'{"text": "a", "images": [{"a": 1}]}', "post 1: picture"),
    "a picture outside": (b'{"text": "a", "image": "/proc/self/cmdline"}', "expected a file in"),
    "a picture above": (b'{"text": "a", "image": "../outside.jpg"}', "expected a file in"),
    "a picture on the web": (
        b'{"text": "a", "image": "http://127.0.0.1:9/a.jpg"}',
        "allow_urls=True fetches it",
    ),
    "a picture that a link leads to": (b'{"text": "a", "image": "link.jpg"}', "expected a file in"),
    "bytes that are numbers": (
        b'{"text": "a", "image": {"bytes": [1, 2]}}',
        "expected the row's 'bytes' to be bytes",
    ),
}


def line_among_others(bench: Bench, line: bytes) -> None:
    """What `predict` makes of a line between two good ones; each answer is a line of JSON."""
    expected = bench.good
    pictures = bench.tmp / "pictures"
    pictures.mkdir(exist_ok=True)
    if not (pictures / "link.jpg").is_symlink():
        (pictures / "link.jpg").symlink_to(bench.file("outside.jpg", b"x"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "MOST_LINE_BYTES", 1_000_000)
        posts = list(read_json_lines(io.BytesIO(b"\n".join([GOOD_LINE, line, GOOD_LINE])), "posts"))
    model, processor = bench.parts
    found = list(
        BatchPredictor(model, PostReader(processor, image_dir=pictures), batch_size=4).predict(posts)
    )
    assert_same([found[0].entities, found[-1].entities], [expected, expected])
    for prediction in found:
        json.loads(json_line({"id": prediction.id, "error": str(prediction.error)}))
    list(bench.pipe(iter(posts[1:-1]), image_dir=str(pictures)))


# Files of people's own posts by their names' ends, with a part of the error.
SPAN = {"start": 0, "end": 6, "label": "PER"}
ROW = {"tokens": ["Jordan", "x"], "ner_tags": ["B-PER", "O"]}


def lines(*records: Any) -> str:
    return "\n".join(map(json.dumps, records))


def many(form: str) -> str:
    """Thirty lines with their number in them, enough for each split to have some."""
    return "\n".join(form.replace("NUMBER", str(number)) for number in range(30))


POSTS: dict[str, tuple[str, bytes | str, str | None]] = {
    "empty JSON lines": ("jsonl", "", "expected annotated posts, found none"),
    "JSON lines of no JSON": ("jsonl", lines(ROW) + "\nx", "line 2: expected JSON"),
    "JSON lines in UTF-16": ("jsonl", lines(ROW).encode("utf-16"), "expected UTF-8"),
    "JSON lines of NUL": ("jsonl", bytes(99), "line 1: expected JSON"),
    "JSON lines nested too deep": ("jsonl", "[" * 100_000, "line 1: expected JSON"),
    "a number of 10,000 digits": ("jsonl", '{"id": ' + "9" * 10_000 + "}", "line 1: expected JSON"),
    "a list": ("jsonl", "[1, 2]", "expected an object with"),
    "null": ("jsonl", "null", "expected an object with"),
    "no tags": ("jsonl", lines({"tokens": ["a"]}), "expected 'tokens' and 'ner_tags'"),
    "tags that are ids": ("jsonl", lines(ROW | {"ner_tags": [1, 0]}), "expected tags O, B-<type>"),
    "fewer tags than tokens": (
        "jsonl",
        lines(ROW | {"ner_tags": ["O"]}),
        "expected a tag for each of 2 words",
    ),
    "tags that are a number": ("jsonl", lines(ROW | {"ner_tags": 7}), "expected a tag for each of 2 words"),
    "tags of another scheme": ("jsonl", lines(ROW | {"ner_tags": ["S-PER", "O"]}), "--tag_scheme"),
    "a tag without a type": ("jsonl", lines(ROW | {"ner_tags": ["B-", "O"]}), "expected tags O"),
    "a tag with a line end": ("jsonl", lines(ROW | {"ner_tags": ["B-a\nb", "O"]}), "expected"),
    "a tag with half an emoji": ("jsonl", lines(ROW | {"ner_tags": ["B-\ud83d", "O"]}), "expected"),
    "no entity": ("jsonl", many('{"tokens": ["NUMBER"], "ner_tags": ["O"]}'), "expected posts with entities"),
    "a span without an end": (
        "jsonl",
        lines({"text": "Jordan", "spans": [{"start": 0}]}),
        "expected spans with",
    ),
    "spans that are a text": (
        "jsonl",
        lines({"text": "Jordan", "spans": "x"}),
        "expected 'tokens' and 'ner_tags'",
    ),
    "a span of a boolean": (
        "jsonl",
        lines({"text": "Jordan", "spans": [[True, 6, "PER"]]}),
        "expected spans with",
    ),
    "a span of no number": ("jsonl", '{"text": "Jordan", "spans": [[0, NaN, "PER"]]}', "expected"),
    "a span of infinity": (
        "jsonl",
        '{"text": "Jordan", "spans": [[0, 1e999, "PER"]]}',
        "expected spans with",
    ),
    "spans that are out of the text": (
        "jsonl",
        many('{"text": "NUMBER", "spans": [[0, 1000000000000000000000, "PER"]]}'),
        "expected posts with entities",
    ),
    "a text that is a number": ("jsonl", lines({"text": 7, "spans": []}), "expected 'tokens' and 'ner_tags'"),
    "an unknown split": ("jsonl", lines(ROW | {"split": "x"}), "column split: expected one of"),
    "a JSON object in place of a list": ("json", "{}", "expected a JSON array"),
    "half a JSON file": ("json", '[["Jordan", {"entities"', "expected JSON"),
    "a task without a text": (
        "json",
        lines([{"data": {"a": 1}, "annotations": []}]),
        "expected one text in 'data'",
    ),
    "a task with a broken result": (
        "json",
        lines([{"data": {"text": "a"}, "annotations": [{"result": 7}]}]),
        "expected a list of objects",
    ),
    "spaCy's with a number": (
        "json",
        lines([["Jordan", {"entities": 7}]]),
        "expected 'tokens' and 'ner_tags'",
    ),
    "a table of nothing": ("csv", "", "expected annotated posts, found none"),
    "a table without our columns": ("csv", "a,b\n1,2\n", "--columns OURS=THEIRS"),
    "a table with too many cells": ("csv", "tokens,ner_tags\n" + many("NUMBER,B-PER,x,y,z"), None),
    "a table with too few cells": ("csv", "tokens,ner_tags\nJordan\n", "expected 'tokens' and 'ner_tags'"),
    "a table of NUL": ("csv", bytes(99), "expected"),
    "a table in Latin-1": ("csv", b"tokens,ner_tags\nZ\xfcrich,B-LOC\n", "expected UTF-8"),
    "a cell of 11 million characters": (
        "csv",
        "tokens,ner_tags\n" + "a" * 11_000_000 + ",O\n",
        "cannot be read",
    ),
    "a quote without an end": ("csv", 'tokens,ner_tags\n"Jordan,B-PER\n' * 3, "expected"),
    "a cell that is a program": ("csv", "tokens,ner_tags\n\"[__import__('os')]\",O\n", "expected"),
    "a cell nested 100,000 deep": ("csv", "tokens,ner_tags\n" + "[" * 100_000 + ",O\n", "expected"),
    "no Parquet": ("parquet", b"PAR1 no, it is not", "cannot be read"),
    "an empty Parquet file": ("parquet", b"", "cannot be read"),
    "another kind of file": ("xml", "<a/>", "expected a file whose name ends in"),
    "a pickle": ("pkl", b"\x80\x04.", "expected a file whose name ends in"),
}
CONLL: dict[str, tuple[bytes | str, str]] = {
    "empty": ("", "expected at least one post"),
    "no UTF-8": (b"IMGID:1\nZ\xfcrich\tB-LOC\n", "train.txt:2: expected UTF-8"),
    "UTF-16": ("IMGID:1\na\tO\n".encode("utf-16"), "train.txt:1: expected UTF-8"),
    "NUL": (bytes(99), "train.txt:1: expected"),
    "one column": ("IMGID:1\nJordan\n", "train.txt:2: expected token<TAB>tag"),
    "five columns": ("IMGID:1\na\tb\tc\td\te\n", "train.txt:2: expected token<TAB>tag"),
    "an unknown tag": ("IMGID:1\nJordan\tX\n", "train.txt:2: expected a tag O"),
    "a tag of BIOES": ("IMGID:1\nJordan\tS-PER\n", "--tag_scheme bioes"),
    "a token without a post": ("a\tO\nIMGID:1\na\tO\n", "expected"),
    "a post without tokens": ("IMGID:1\n\nIMGID:2\na\tO\n", "train.txt:1: expected tokens after"),
    "an id twice": ("IMGID:1\na\tO\n\nIMGID:1\na\tO\n", "expected each id once"),
    "an id that leads out": ("IMGID:../../etc/passwd\na\tO\n", "expected an id that is a plain file name"),
    "an id with NUL": ("IMGID:a\0b\na\tO\n", "expected an id that is a plain file name"),
    "no id": ("IMGID:\na\tO\n", "expected an id that is a plain file name"),
    "an empty token": ("IMGID:1\n\tO\n", "expected a token before the tag"),
    "a line of 5 million characters": ("IMGID:1\n" + "a" * 5_000_000, "train.txt:2: expected token<TAB>tag"),
    "no entity": ("IMGID:1\na\tO\n", "expected"),
}
CONTEXTS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"x", "line 1: expected JSON"),
    "no id": (b'{"context": "a"}', "line 1: expected an object with 'id'"),
    "a number": (b'{"id": 1, "context": 7}', "line 1: expected an object with 'id'"),
    "no field": (b'{"id": 1}', "expected a field 'context'"),
    "two of a post": (
        b'{"id": 1, "context": "a"}\n{"id": 1, "context": "b"}',
        "line 2: expected one context for a post",
    ),
    "no UTF-8": (b'{"id": 1, "context": "\xff"}', "expected UTF-8"),
    "a number of 10,000 digits": (b'{"id": ' + b"9" * 10_000 + b"}", "line 1: expected JSON"),
}
VECTORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "found an empty file"),
    "words alone": (b"Jordan\nParis\n", "line 1: expected a word and its numbers"),
    "a number too few": (b"a 1 2\nb 1\n", "expected vectors of word_width 3, found 2"),
    "no number": (b"a 1 x 3\n", "line 1: expected a word and 3 numbers"),
    "infinity": (b"a 1 inf 3\n", "line 1: expected a word and 3 numbers"),
    "a pickle": (b"\x80\x04\x95\x10\0\0\0.\n", "line 1: expected a word and its numbers"),
    "NUL": (bytes(99), "line 1: expected a word and its numbers"),
    "a line of 30 million characters": (b"a " + b"1" * 30_000_000, "line 1: expected a line of at most"),
}


def parquet(**columns: Any) -> Callable[[Bench], Path]:
    def write(bench: Bench) -> Path:
        path = bench.tmp / "posts.parquet"
        pq.write_table(pa.table(columns), path)
        return path

    return write


PARQUET: dict[str, tuple[Callable[[Bench], Path], str]] = {
    "Parquet without rows": (
        parquet(tokens=pa.array([], pa.list_(pa.string()))),
        "expected annotated posts, found none",
    ),
    "Parquet of numbers": (parquet(tokens=[1, 2], ner_tags=[3, 4]), "expected 'tokens' and 'ner_tags'"),
    "Parquet with nulls": (
        parquet(tokens=[None, ["a"]], ner_tags=[["O"], ["B-X"]]),
        "expected 'tokens' and 'ner_tags'",
    ),
    "Parquet of other columns": (parquet(a=[1], b=["x"]), "--columns OURS=THEIRS"),
    "Parquet of ids": (parquet(tokens=[["a"]], ner_tags=[[1]]), "names in place of ids"),
}


def cases() -> Iterator[Case]:
    """The rows."""
    for name, (line, error) in LINES.items():
        yield Case("JSON lines", name, lambda bench, line=line: line_among_others(bench, line), error)
    for name, (ending, content, error) in POSTS.items():
        yield Case(
            "file of posts",
            name,
            lambda bench, e=ending, c=content: open_corpus(str(bench.file(f"posts.{e}", c))),
            error,
        )
    for name, (write, error) in PARQUET.items():
        yield Case("file of posts", name, lambda bench, write=write: open_corpus(str(write(bench))), error)
    for name, (content, error) in CONLL.items():
        yield Case("CoNLL", name, lambda bench, content=content: conll(bench, content), error)
    for name, (content, error) in CONTEXTS.items():
        yield Case(
            "contexts",
            name,
            lambda b, c=content: read_contexts([str(b.file("contexts.jsonl", c))], "context"),
            error,
        )
    for name, (content, error) in VECTORS.items():
        yield Case(
            "word vectors",
            name,
            lambda b, c=content: check_vectors(str(b.file("vectors.txt", c)), width=3),
            error,
        )
    yield Case("data set", "a folder of nothing", lambda bench: open_corpus(str(empty(bench))), "expected")
    yield Case(
        "data set", "no folder", lambda bench: open_corpus(str(bench.tmp / "nowhere")), "could not load it"
    )
    yield Case(
        "data set", "a picture outside", lambda bench: built(bench, outside(bench)), "which leads out of"
    )
    yield Case(
        "data set",
        "a picture above",
        lambda bench: built(bench, f"{bench.tmp}/built/../outside.jpg"),
        "which leads out of",
    )
    yield Case(
        "data set",
        "a record of noise",
        lambda bench: built(bench, None, record="[]"),
        "expected the record that build-dataset",
    )
    for named in ("https://127.0.0.1:9/train.csv", "/etc/passwd", "../posts.csv", {"train": ["a", "../b"]}):
        card = "---\nconfigs:\n- config_name: default\n  data_files: " + json.dumps(named) + "\n---\n"
        yield Case(
            "data set",
            f"a card that names {named}",
            lambda b, c=card: built(b, None, card=c),
            "expected files of the data set's",
        )


def conll(bench: Bench, content: bytes | str) -> Any:
    """A folder whose training split has such a content."""
    good = "IMGID:9\nParis\tB-LOC\n"
    folder = bench.tmp / "conll"
    for name, text in {"valid.txt": good, "test.txt": good, "train.txt": content}.items():
        bench.file(f"conll/{name}", text)
    corpus = open_corpus(str(folder))
    return (
        corpus
        if any(any(tags) for tags in corpus.splits["train"]["ner_tags"])
        else open_corpus(str(empty(bench)))
    )


def empty(bench: Bench) -> Path:
    folder = bench.tmp / "empty"
    folder.mkdir(exist_ok=True)
    return folder


def outside(bench: Bench) -> str:
    """A file that is in no folder of a data set."""
    return str(bench.file("outside.jpg", b"x"))


def built(bench: Bench, picture: str | None, *, card: str | None = None, record: str | None = None) -> None:
    """A data set as the Hub has it, with a picture that is a path, a card and a record."""
    outside(bench)
    folder = bench.tmp / "built"
    shutil.rmtree(folder, ignore_errors=True)
    features = {
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-A"])),
    }
    features |= {"image": datasets.Image(decode=False)}
    row = {"tokens": ["a"], "ner_tags": [1], "image": {"bytes": None, "path": picture} if picture else None}
    table = datasets.Dataset.from_list([row], features=datasets.Features(features))
    bench.file("built/README.md", card or "# A data set")
    pq.write_table(table.data.table, folder / "train-00000-of-00001.parquet")
    if record is not None:
        bench.file("built/corpus.json", record)
    open_corpus(str(folder))
