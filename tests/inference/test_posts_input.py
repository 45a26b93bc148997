"""The input of `annotate`, held against the same files read by the standard library and by pyarrow."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_scripts.formats.reader import CorpusError
from modeling_mmner import files
from modeling_mmner.inference.posts_input import open_posts
from modeling_mmner.model.posts_mmner import PostError
from tests.elsewhere import run_elsewhere

ROOT = Path(__file__).parents[2]


def posts_in(source: Path, **options: Any) -> list[Any]:
    """All posts, read in three parts, the last one first; errors by their text."""
    posts = open_posts(str(source), **options)
    total = len(posts.rows)
    parts = [range(total * part // 3, total * (part + 1) // 3) for part in range(3)]
    found = [list(posts.read(part)) for part in reversed(parts)]
    return [str(one) if isinstance(one, PostError) else one for part in reversed(found) for one in part]


TEXTS = st.text(alphabet=st.sampled_from("aé漢😍 \u2028\x85"), max_size=6)
LINES = st.one_of(
    TEXTS.map(lambda text: json.dumps({"text": text}, ensure_ascii=False).encode()),
    st.sampled_from([b"", b" \t", b"{", b"\xff\xfe", b'"a"', b"\xc3", b"[1]", "é".encode() * 40]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\n\n"])), max_size=12), st.booleans())
def test_each_line_that_is_not_blank_is_a_row(tmp_path, lines, ends_with_newline) -> None:
    """If it failed, a post would be lost, doubled or torn, or one broken line end the reading."""
    content = b"".join(line + end for line, end in lines)
    content = content if ends_with_newline else content.rstrip(b"\r\n")
    (tmp_path / "posts.jsonl").write_bytes(content)
    expected = [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    for post, (number, line) in zip(posts_in(tmp_path / "posts.jsonl"), expected, strict=True):
        try:
            assert post == json.loads(line.decode())
        except ValueError:
            assert post.startswith(f"posts.jsonl:{number}: expected a JSON object, found ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "\xe9"}', "found '{\"text\": \"\ufffd\"}' ('utf-8' codec can't"),
        (b"1" * 5000, "found '1111"),
        (b"[" * 100_000, "found '[[[["),
        (b'"' + b"x" * 1000 + b'"', "expected a line of at most 600 bytes, found a longer one"),
    ],
    ids=["Latin-1", "a number of 5000 digits", "brackets in brackets", "a line without end"],
)
def test_what_is_no_post_is_an_error_in_its_place(tmp_path, monkeypatch, line, said) -> None:
    """If it failed, one bad line would end a task, take all its memory, or be lost without a word."""
    if "at most" in said:
        monkeypatch.setattr(files, "MOST_LINE_BYTES", 600)
    (tmp_path / "posts.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n' + line + b'\n{"text": "b"}\n')
    first, bad, last = posts_in(tmp_path / "posts.jsonl")
    assert (first, last) == ({"text": "a"}, {"text": "b"}), "a byte order mark is no part of a post"
    assert bad.startswith("posts.jsonl:2: expected a ") and said in bad and len(bad) < 400


def test_a_file_that_has_changed_is_read_again(tmp_path) -> None:
    """If it failed, `datasets` would give the rows of the old file from its cache."""
    path = tmp_path / "posts.jsonl"
    hashes = set()
    for text in ("a", "b", "a"):
        path.write_text(json.dumps({"text": text}))
        assert posts_in(path) == [{"text": text}]
        hashes.add(open_posts(str(path)).sha256)
    assert len(hashes) == 2
    path.write_text("")
    assert posts_in(path) == []


def test_a_process_that_it_is_sent_to_reads_the_same(tmp_path) -> None:
    """If it failed, or the rows were sent along, workers could not begin, or each hold the corpus."""
    (tmp_path / "posts.jsonl").write_text(json.dumps({"text": "a" * 100_000}))
    sent = pickle.dumps(open_posts(str(tmp_path / "posts.jsonl")))
    assert len(sent) < 20_000
    assert list(pickle.loads(sent).read(range(1))) == [{"text": "a" * 100_000}]


@pytest.mark.parametrize("row_group_size", [1, 7, 1000])
def test_parquet_is_read_at_any_row(tmp_path, row_group_size) -> None:
    """If it failed, rows at the borders of row groups or of batches would be lost or doubled, or columns that
    are no part of a post be read.
    """
    rows = [{"id": number, "tokens": ["a"] * (number % 3), "other": "x"} for number in range(150)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "posts.parquet", row_group_size=row_group_size)
    expected = [{"id": row["id"], "tokens": row["tokens"]} for row in rows]
    assert posts_in(tmp_path / "posts.parquet") == expected


@pytest.mark.parametrize("name", ["posts.parquet", "posts.jsonl"])
def test_columns_are_renamed(tmp_path, name) -> None:
    """If it failed, corpora with other names for their columns could not be annotated."""
    rows = [{"id": 1, "body": "a", "text": "not this one"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "posts.parquet")
    (tmp_path / "posts.jsonl").write_text(json.dumps(rows[0]))
    (post,) = posts_in(tmp_path / name, columns={"text": "body"})
    assert (post["id"], post["text"]) == (1, "a")


def test_name_of_a_file_is_no_pattern(tmp_path) -> None:
    """Regression: in the place of ``a[1].parquet`` the file ``a1.parquet`` beside it was read."""
    for name in ("a[1].parquet", "a1.parquet", "b*.parquet"):
        pq.write_table(pa.Table.from_pylist([{"text": name}]), tmp_path / name)
    for name in ("a[1].parquet", "b*.parquet"):
        assert posts_in(tmp_path / name) == [{"text": name}]


def test_pictures_in_parquet_come_as_they_are(tmp_path) -> None:
    """If it failed, data sets of the Hub would be read without their pictures, or a broken one end a task."""
    pictures = [{"bytes": b"no picture", "path": "x.png"}, None]
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "image": pictures})
    rows.cast_column("image", datasets.Image()).to_parquet(tmp_path / "data/train.parquet")
    for source in (tmp_path / "data/train.parquet", tmp_path):
        assert [post["image"] for post in posts_in(source)] == pictures
        assert open_posts(str(source)).image_dir == str(source if source.is_dir() else source.parent)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_folder_is_read_as_datasets_knows_it(tmp_path, kind) -> None:
    """If it failed, files of another split would be annotated, or some of this one left out."""
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        rows = [{"text": f"{name} {row}"} for row in range(3)]
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"data/{name}.parquet")
        else:
            (tmp_path / f"data/{name}.jsonl").write_text("\n".join([*map(json.dumps, rows), "{"]))
    found = [post["text"] for post in posts_in(tmp_path, split="train") if not isinstance(post, str)]
    assert found == [f"train-0000{part}-of-00002 {row}" for part in range(2) for row in range(3)]
    with pytest.raises(CorpusError, match=r"--split: expected one of train, test, found None"):
        open_posts(str(tmp_path))


def test_a_card_names_no_file_elsewhere(tmp_path) -> None:
    """If it failed, the card of a stranger's data set could have any file of the machine read."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}')
    card = "---\nconfigs:\n- config_name: a\n  data_files: ../secret.jsonl\n---"
    (tmp_path / "in/README.md").write_text(card)
    with pytest.raises(CorpusError, match=r"expected files of the data set's own folder"):
        open_posts(str(tmp_path / "in"))


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.csv", {}), ("a.jsonl", {"config": "a"}), ("a.jsonl", {"revision": "a"}), ("nowhere", {})],
)
def test_what_is_no_input_is_refused_by_name(tmp_path, monkeypatch, name, options) -> None:
    """If it failed, users would not know what to give instead."""
    monkeypatch.chdir(tmp_path)
    for library in (constants, datasets.config):  # the Hub is not asked
        monkeypatch.setattr(library, "HF_HUB_OFFLINE", True)
    for real in ("a.csv", "a.jsonl"):
        Path(real).write_text("{}")
    said = rf"--input {name} .*: expected a file \*.jsonl, \*.ndjson or \*.par"
    with pytest.raises(CorpusError, match=said):
        open_posts(name, **options)


@pytest.mark.parametrize("columns", [{}, {"text": "words"}, {"text": "body", "id": "number"}])
def test_parquet_without_texts_is_refused(tmp_path, columns) -> None:
    """If it failed, each row of a large file would be an error."""
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "posts.parquet")
    said = r"expected columns of the input, and one for text or .*, found body"
    with pytest.raises(CorpusError, match=said):
        open_posts(str(tmp_path / "posts.parquet"), columns=columns)


ON_THE_HUB = """
import json
from modeling_mmner.inference.posts_input import open_posts
posts = open_posts("org/posts", split="test")
print(json.dumps([list(posts.read(range(len(posts.rows)))), posts.image_dir]))
"""


@pytest.mark.slow
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
            where = {"folder": tmp_path, "blocked": (), "PYTHONPATH": ROOT, "HF_HUB_OFFLINE": 0}
            done = run_elsewhere(ON_THE_HUB, **where, HF_ENDPOINT=server.stdout.readline().strip())
        finally:
            server.terminate()
    posts, image_dir = json.loads(done.stdout)
    assert posts == [{"text": "test"}] and Path(image_dir).name == "hub"
