"""Ranges of rows, held against the same files read as a whole by others: the standard library, pyarrow,
datasets.
"""

import hashlib
import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_scripts import row_ranges
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.row_ranges import Rows, open_rows
from modeling_mmner.model.images_mmner import PictureError
from modeling_mmner.model.posts_mmner import PostError
from tests.elsewhere import run_elsewhere

ROOT = Path(__file__).parents[2]


def by_ranges(source: Path, rows_per_range: int, **options: Any) -> list[Any]:
    """All posts, each range read by itself and the last one first; errors by their text."""
    rows = open_rows(str(source), **options)
    found: list[Any] = []
    for number, file in enumerate(rows.files):
        survey = file.survey(rows_per_range)
        firsts = range(0, survey.rows, rows_per_range)
        parts = [
            list(rows.read(number, start, min(rows_per_range, survey.rows - first), first=first))
            for first, start in reversed(list(zip(firsts, survey.starts, strict=True)))
        ]
        found += [post for part in reversed(parts) for post in part]
    return [str(post) if isinstance(post, PostError) else post for post in found]


def naive(content: bytes) -> list[bytes]:
    """The lines that are not blank, read all at once."""
    return [line for line in content.split(b"\n") if line.strip()]


TEXTS = st.text(alphabet=st.sampled_from("aé漢😍 \u2028\x85"), max_size=6)
LINES = st.one_of(
    TEXTS.map(lambda text: json.dumps({"text": text}, ensure_ascii=False).encode()),
    st.sampled_from([b"", b" \t", b"{", b"\xff\xfe", b'"a"', b"\xc3", b"[1]", "é".encode() * 40]),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\n\n"])), max_size=12),
    st.booleans(),
    st.integers(1, 5),
)
def test_json_lines_are_cut_where_lines_begin(
    tmp_path_factory, lines, ends_with_newline, rows_per_range
) -> None:
    """If it failed, a post at the border of two shards would be lost, doubled or torn."""
    content = b"".join(line + end for line, end in lines)
    content = content if ends_with_newline else content.rstrip(b"\r\n")
    path = tmp_path_factory.mktemp("lines") / "posts.jsonl"
    path.write_bytes(content)
    found = by_ranges(path, rows_per_range)
    assert len(found) == len(naive(content))
    for number, (post, line) in enumerate(zip(found, naive(content), strict=True)):
        try:
            assert post == json.loads(line.decode())
        except ValueError:
            assert post.startswith(f"posts.jsonl, row {number}: expected ")


def test_survey_hashes_the_whole_file(tmp_path) -> None:
    """If it failed, a changed file could be taken for the one that an annotation was begun with."""
    path = tmp_path / "posts.jsonl"
    path.write_bytes(b'\n{"text": "a"}\r\n\n' + b"x" * 100 + b"\n  \n")
    survey = open_rows(str(path)).files[0].survey(1)
    assert survey.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (survey.size, survey.rows, survey.starts) == (path.stat().st_size, 2, [1, 17])


def test_a_line_without_end_is_not_held_in_memory(tmp_path, monkeypatch) -> None:
    """If it failed, one broken file would take all memory of its worker; or what follows the line would be
    lost.
    """
    monkeypatch.setattr(row_ranges, "MOST_LINE_BYTES", 100)
    path = tmp_path / "posts.jsonl"
    fits = json.dumps({"text": "x" * 87}).encode()
    assert len(fits) == 100 - len("\n")
    path.write_bytes(b"\n".join([fits, b'"' + b"x" * 1000 + b'"', b" " * 300 + b"{}", fits]))
    first, long, spaces, last = by_ranges(path, 2)
    assert first == last == json.loads(fits)
    assert long == "posts.jsonl, row 1: expected a line of at most 100 bytes, found a longer one"
    assert spaces == "posts.jsonl, row 2: expected a line of at most 100 bytes, found a longer one"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "posts.jsonl, row 0: expected a JSON object, found '{' (Expecting property name"),
        (
            b'{"text": "\xe9"}',
            "posts.jsonl, row 0: expected a JSON object, found '{\"text\": \"\ufffd\"}' ('utf-8' codec can't",
        ),
        (b"1" * 5000, "posts.jsonl, row 0: expected a JSON object, found '1111"),
        (b"[" * 100_000, "posts.jsonl, row 0: expected a JSON object, found '[[[["),
    ],
    ids=["cut off", "Latin-1", "a number of 5000 digits", "brackets in brackets"],
)
def test_what_is_no_json_is_an_error_in_its_place(tmp_path, line, said) -> None:
    """If it failed, one bad line would end a worker, or be lost without a word."""
    path = tmp_path / "posts.jsonl"
    path.write_bytes(line + b'\n{"text": "a"}\n')
    bad, good = by_ranges(path, 1)
    assert bad.startswith(said) and len(bad) < 400
    assert good == {"text": "a"}


def test_a_byte_order_mark_is_no_part_of_the_first_post(tmp_path) -> None:
    """If it failed, the first post of files from Windows would be an error."""
    path = tmp_path / "posts.jsonl"
    path.write_bytes('\ufeff{"text": "a"}\r\n'.encode())
    assert by_ranges(path, 3) == [{"text": "a"}]


@pytest.mark.parametrize("row_group_size", [1, 7, 1000])
@pytest.mark.parametrize("rows_per_range", [1, 10, 64, 500])
def test_parquet_is_cut_at_any_row(tmp_path, row_group_size, rows_per_range) -> None:
    """If it failed, rows at the borders of row groups or of batches would be lost or doubled."""
    rows = [{"id": number, "tokens": ["a"] * (number % 3), "other": "x"} for number in range(150)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "posts.parquet", row_group_size=row_group_size)
    found = by_ranges(tmp_path / "posts.parquet", rows_per_range)
    assert found == [{"id": row["id"], "tokens": row["tokens"]} for row in rows]


def test_columns_are_renamed(tmp_path) -> None:
    """If it failed, corpora with other names for their columns could not be annotated."""
    rows = [{"id": 1, "body": "a", "text": "not this one"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "posts.parquet")
    (tmp_path / "posts.jsonl").write_text(json.dumps(rows[0]))
    for name in ("posts.parquet", "posts.jsonl"):
        (post,) = by_ranges(tmp_path / name, 1, columns={"text": "body"})
        assert (post["id"], post["text"]) == (1, "a")


def picture(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_are_found_in_their_folder_alone(tmp_path) -> None:
    """If it failed, posts of strangers could name any file of the machine as their picture."""
    (tmp_path / "in").mkdir()
    for place in ("in/red.png", "outside.png"):
        (tmp_path / place).write_bytes(picture("red"))
    names = ["red.png", "../outside.png", str(tmp_path / "outside.png"), "http://a.b/c.png", None]
    lines = [json.dumps({"text": "a", "image": name}) for name in names] + [
        json.dumps({"text": "a", "images": names[:2]})
    ]
    (tmp_path / "in/posts.jsonl").write_text("\n".join(lines))
    found = [post.get("image", post.get("images")) for post in by_ranges(tmp_path / "in/posts.jsonl", 2)]
    own = {"bytes": None, "path": str((tmp_path / "in/red.png").resolve())}
    assert found[0] == own and found[4] is None and found[5][0] == own
    refused = [found[1], found[2], found[3], found[5][1]]
    assert all(isinstance(one, PictureError) for one in refused)
    assert str(refused[0]) == "picture '../outside.png': no such file in the folder or --image_dir"
    assert (
        str(refused[2]) == "picture 'http://a.b/c.png': addresses on the web; download them into --image_dir"
    )


def test_pictures_in_parquet_come_as_bytes(tmp_path) -> None:
    """If it failed, data sets of the Hub would be read without their pictures."""
    image = pa.array([{"bytes": picture("red"), "path": "x.png"}, None])
    pq.write_table(pa.table({"text": ["a", "b"], "image": image}), tmp_path / "posts.parquet")
    first, second = by_ranges(tmp_path / "posts.parquet", 2)
    assert first["image"] == {"bytes": picture("red"), "path": None} and second["image"] is None


def test_a_folder_is_read_as_datasets_knows_it(tmp_path) -> None:
    """If it failed, files of another split would be annotated, or some of this one left out."""
    (tmp_path / "data").mkdir()
    for split, parts in {"train": 2, "test": 1}.items():
        for part in range(parts):
            table = pa.table({"text": [f"{split} {part} {row}" for row in range(3)]})
            pq.write_table(table, tmp_path / f"data/{split}-{part:05d}-of-{parts:05d}.parquet")
    found = by_ranges(tmp_path, 2, split="train")
    assert [post["text"] for post in found] == [
        f"train {part} {row}" for part in range(2) for row in range(3)
    ]
    names = [file.name for file in open_rows(str(tmp_path), split="train").files]
    assert names == ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    with pytest.raises(CorpusError, match=r"--split: expected one of train, test, found None"):
        open_rows(str(tmp_path))


def test_a_file_that_changes_is_noticed(tmp_path) -> None:
    """If it failed, one shard would have rows of the old file and of the new one."""
    path = tmp_path / "posts.jsonl"
    path.write_text('{"text": "a"}\n' * 3)
    rows = open_rows(str(path))
    rows.files[0].survey(3)
    posts = rows.read(0, 0, 3, first=0)
    next(posts)
    with path.open("a") as file:
        file.write('{"text": "b"}\n')
    with pytest.raises(
        CorpusError, match="expected a file that stays as it is, found it changed while it was read"
    ):
        list(posts)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "posts.csv",
            {},
            "posts.csv: expected a file whose name ends in .jsonl, .ndjson, .parquet, found another",
        ),
        (
            "posts.jsonl",
            {"split": "train"},
            "posts.jsonl: expected no --split, which data sets have, found them",
        ),
        (
            "nowhere",
            {},
            "nowhere, --config None: expected a file of JSON lines or Parquet, a folder of them, or the id",
        ),
    ],
)
def test_what_is_no_input_is_refused_by_name(tmp_path, monkeypatch, name, options, said) -> None:
    """If it failed, users would not know what to give instead."""
    monkeypatch.chdir(tmp_path)
    for library in (constants, datasets.config):  # the Hub is not asked
        monkeypatch.setattr(library, "HF_HUB_OFFLINE", True)
    for real in ("posts.csv", "posts.jsonl"):
        Path(real).write_text("{}")
    with pytest.raises(CorpusError) as refused:
        open_rows(name, **options)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("columns", [{}, {"text": "words"}])
def test_parquet_without_texts_is_refused(tmp_path, columns) -> None:
    """If it failed, each row of a large file would be an error."""
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "posts.parquet")
    rows: Rows = open_rows(str(tmp_path / "posts.parquet"), columns=columns)
    said = (
        "expected columns among body, found words"
        if columns
        else "expected a column text or tokens, found body; --columns text"
    )
    with pytest.raises(CorpusError, match=said):
        next(rows.read(0, 0, 1, first=0))


ON_THE_HUB = """
import json, sys
from dataset_scripts.row_ranges import open_rows
rows = open_rows("org/posts", split="test")
posts = [post for number, file in enumerate(rows.files) for post in rows.read(number, 0, 10, first=0)]
print(json.dumps([[file.name for file in rows.files], posts]))
"""


def test_a_data_set_on_the_hub(tmp_path) -> None:
    """If it failed, data sets would have to be downloaded by hand."""
    data = tmp_path / "served/datasets/org/posts/data"
    data.mkdir(parents=True)
    for split in ("train", "test"):
        pq.write_table(pa.table({"text": [split]}), data / f"{split}-00000-of-00001.parquet")
    command = [sys.executable, "-m", "tests.hub_server", str(tmp_path / "served")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            done = run_elsewhere(
                ON_THE_HUB, folder=tmp_path, blocked=(), PYTHONPATH=ROOT, HF_ENDPOINT=address
            )
        finally:
            server.terminate()
    assert json.loads(done.stdout) == [["data/test-00000-of-00001.parquet"], [{"text": "test"}]]


def test_reading_takes_no_more_memory_the_longer_a_file_is(tmp_path) -> None:
    """If it failed, a large corpus would not fit into a worker."""
    path = tmp_path / "posts.jsonl"
    path.write_text('{"id": 1, "text": "Jordan posts from Paris"}\n' * 20_000)
    (file,) = open_rows(str(path)).files
    tracemalloc.start()
    try:
        survey = file.survey(5000)
        assert sum(1 for _ in file.read(survey.starts[2], 10_000, first=10_000, columns={})) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 500_000 < path.stat().st_size
    finally:
        tracemalloc.stop()
