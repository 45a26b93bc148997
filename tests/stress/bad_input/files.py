"""Files: JSON lines of posts for prediction, corpora in all their formats, contexts, word vectors."""

import io
import json
import shutil
from collections.abc import Iterator
from functools import partial
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
from modeling_mmner.training.vocabulary import check_vectors
from tests.small_posts import assert_same

from .cases import GOOD, Bench, Case, refused, taken

DIGITS = b'{"id": ' + b"9" * 10_000 + b', "text": "Paris"}'
ODD_LINES: dict[str, bytes] = {
    "white space": b" \t ",
    "escapes": b'{"text": "\\u0000\\ud83d\\u202e"}',
    "a huge number for an id": b'{"id": 1e999, "text": "Paris"}',
    "a text alone": b'"Jordan"',
}
NO_JSON: dict[str, bytes] = {
    "half an object": b'{"text": "Jor',
    "no UTF-8": b'{"text": "Z\xfcrich"}',
    "UTF-16": '{"text": "a"}'.encode("utf-16-le"),
    "NUL": b"\0" * 20,
    "NaN": b'{"id": NaN, "text": "Paris"}',
    "a number of 10,000 digits": DIGITS,
    "nested 100,000 deep": b"[" * 100_000,
    "a line that is too long": b'{"text": "' + b"a" * 2_000_000 + b'"}',
}
NO_POSTS: dict[str, bytes] = {
    "null": b"null",
    "tokens that are a string": b'{"tokens": "Jordan"}',
    "bytes that are numbers": b'{"text": "a", "image": {"bytes": [1, 2]}}',
    "a picture on the web": b'{"text": "a", "image": "http://127.0.0.1:9/a.jpg"}',
}
LEADING_OUT: dict[str, bytes] = {
    "a picture outside": b'{"text": "a", "image": "/proc/self/cmdline"}',
    "a picture above": b'{"text": "a", "image": "../outside.jpg"}',
    "a picture that a link leads to": b'{"text": "a", "image": "link.jpg"}',
}


def line_among_others(bench: Bench, line: bytes) -> None:
    """What `predict` makes of a line between two good ones; each answer is a line of JSON."""
    pictures, good_line = bench.tmp / "pictures", json.dumps(GOOD).encode()
    pictures.mkdir(exist_ok=True)
    if not (pictures / "link.jpg").is_symlink():
        (pictures / "link.jpg").symlink_to(bench.file("outside.jpg", b"x"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "MOST_LINE_BYTES", 1_000_000)
        posts = list(read_json_lines(io.BytesIO(b"\n".join([good_line, line, good_line])), "posts"))
    model, processor = bench.parts
    reader = PostReader(processor, image_dir=pictures)
    found = list(BatchPredictor(model, reader, batch_size=4).predict(posts))
    assert_same([found[0].entities, found[-1].entities], [bench.good, bench.good])
    for prediction in found:
        json.loads(json_line({"id": prediction.id, "error": str(prediction.error)}))
    list(bench.pipe(iter(posts[1:-1]), image_dir=str(pictures)))


ROW = {"tokens": ["Jordan", "x"], "ner_tags": ["B-PER", "O"]}
BROKEN_FILES: dict[str, tuple[str, Any]] = {
    "empty": ("jsonl", ""),
    "no JSON": ("jsonl", json.dumps(ROW) + "\nx"),
    "UTF-16": ("jsonl", json.dumps(ROW).encode("utf-16")),
    "nested too deep": ("jsonl", "[" * 100_000),
    "a number of 10,000 digits": ("jsonl", DIGITS),
    "tags that are ids": ("jsonl", json.dumps(ROW | {"ner_tags": [1, 0]})),
    "fewer tags than tokens": ("jsonl", json.dumps(ROW | {"ner_tags": ["O"]})),
    "a span of infinity": ("jsonl", '{"text": "Jordan", "spans": [[0, 1e999, "PER"]]}'),
    "a JSON object in place of a list": ("json", "{}"),
    "half a JSON file": ("json", '[["Jordan", {"entities"'),
    "a task with a broken result": ("json", '[{"data": {"text": "a"}, "annotations": [{"result": 7}]}]'),
    "a table of NUL": ("csv", bytes(99)),
    "a table in Latin-1": ("csv", b"tokens,ner_tags\nZ\xfcrich,B-LOC\n"),
    "a cell of 11 million characters": ("csv", "tokens,ner_tags\n" + "a" * 11_000_000 + ",O\n"),
    "no Parquet": ("parquet", b"PAR1 no, it is not"),
    "Parquet of numbers": ("parquet", pa.table({"tokens": [1, 2], "ner_tags": [3, 4]})),
    "Parquet with nulls": ("parquet", pa.table({"tokens": [None, ["a"]], "ner_tags": [["O"], ["B-X"]]})),
    "a pickle": ("pkl", b"\x80\x04."),
}


def file_of_posts(bench: Bench, given: tuple[str, Any]) -> None:
    ending, content = given
    path = bench.tmp / f"posts.{ending}"
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        bench.file(path.name, content)
    open_corpus(str(path))


CONLL: dict[str, bytes | str] = {
    "no UTF-8": b"IMGID:1\nZ\xfcrich\tB-LOC\n",
    "NUL": bytes(99),
    "a prefix without its type": "IMGID:1\nJordan\tB-\n",
    "tags by numbers": "IMGID:1\nJordan\t1\n",
    "an id twice": "IMGID:1\na\tO\n\nIMGID:1\na\tO\n",
    "an id that leads out": "IMGID:../../etc/passwd\na\tO\n",
    "an id with NUL": "IMGID:a\0b\na\tO\n",
    "a line of 5 million characters": "IMGID:1\n" + "a" * 5_000_000,
}


def conll(bench: Bench, content: bytes | str) -> None:
    """A folder whose training split has such a content."""
    good = "IMGID:9\nParis\tB-LOC\n"
    for name, text in {"valid.txt": good, "test.txt": good, "train.txt": content}.items():
        bench.file(f"conll/{name}", text)
    open_corpus(str(bench.tmp / "conll"))


CONTEXTS: dict[str, bytes] = {
    "no JSON": b"x",
    "two of a post": b'{"id": 1, "context": "a"}\n{"id": 1, "context": "b"}',
    "no UTF-8": b'{"id": 1, "context": "\xff"}',
}


def contexts(bench: Bench, content: bytes) -> None:
    read_contexts([str(bench.file("contexts.jsonl", content))], "context")


VECTORS: dict[str, bytes] = {
    "empty": b"",
    "infinity": b"a 1 inf 3\n",
    "a pickle": b"\x80\x04\x95\x10\0\0\0.\n",
    "a line of 30 million characters": b"a " + b"1" * 30_000_000,
}


def vectors(bench: Bench, content: bytes) -> None:
    check_vectors(str(bench.file("vectors.txt", content)), width=3)


def built(bench: Bench, picture: str | None = None, *, card: str = "# A data set", record: str = "") -> None:
    """A data set as the Hub has it, with a picture that is a path, a card and a record."""
    bench.file("outside.jpg", b"x")
    folder = bench.tmp / "built"
    shutil.rmtree(folder, ignore_errors=True)
    names = {"ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-A"]))}
    features = {"tokens": datasets.List(datasets.Value("string")), "image": datasets.Image(decode=False)}
    image = {"bytes": None, "path": picture.format(tmp=bench.tmp)} if picture else None
    rows = [{"tokens": ["a"], "ner_tags": [1], "image": image}]
    table = datasets.Dataset.from_list(rows, features=datasets.Features(features | names))
    bench.file("built/README.md", card)
    pq.write_table(table.data.table, folder / "train-00000-of-00001.parquet")
    if record:
        bench.file("built/corpus.json", record)
    open_corpus(str(folder))


def naming(data_files: Any) -> str:
    files = json.dumps(data_files)
    return f"---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n"


OUTSIDE = ("https://127.0.0.1:9/train.csv", "/etc/passwd", "../posts.csv", {"train": ["a", "../b"]})
CARDS = {f"a card that names {named}": naming(named) for named in OUTSIDE}
PICTURES = {"a picture outside": "{tmp}/outside.jpg", "a picture above": "{tmp}/built/../outside.jpg"}


def cases() -> Iterator[Case]:
    yield from taken("JSON lines", ODD_LINES, line_among_others)
    yield from refused("JSON lines", "^posts:2: expected a ", NO_JSON, line_among_others)
    yield from refused("JSON lines", "^post 1: ", NO_POSTS, line_among_others)
    yield from refused("JSON lines", "expected a file in .*/pictures", LEADING_OUT, line_among_others)
    yield from refused("file of posts", r"posts\.\w+", BROKEN_FILES, file_of_posts)
    yield from refused("IMGID files", r"/train\.txt(:\d+)?: expected", CONLL, conll)
    yield from refused("contexts", r"contexts\.jsonl", CONTEXTS, contexts)
    yield from refused("word vectors", r"^word_vectors .*/vectors\.txt", VECTORS, vectors)
    yield from refused("data set", "which leads out of", PICTURES, built)
    yield from refused(
        "data set",
        "expected files of the data set's own folder",
        CARDS,
        lambda bench, card: built(bench, card=card),
    )
    noise = partial(built, record="[]")
    yield Case("data set", "a record of noise", noise, "built/corpus.json|expected the record")
    yield Case("data set", "none at all", lambda bench: open_corpus(str(bench.tmp / "nowhere")), "nowhere")
