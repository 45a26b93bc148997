"""A trained model as a function of tables, for `datasets` and Ray."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import datasets
import pyarrow as pa
import pytest
from datasets.fingerprint import Hasher
from PIL import Image

from modeling_mmner.cli import main
from modeling_mmner.inference import annotator as annotator_module
from modeling_mmner.inference.annotator import FOUND, Annotator, table_of
from tests.small_posts import WORDS, small_parts
from tests.tiny import SYSTEMS


def test_columns_that_are_there_stay(tmp_path) -> None:
    """If it failed, what the user gave would be written over."""
    for part in small_parts(**SYSTEMS["bilstm"]):
        part.save_pretrained(tmp_path)
    annotator = Annotator(str(tmp_path))
    table = pa.table({"text": ["Jordan in Paris", None], "more": [1, 2]})
    found = annotator(table)
    assert found.column_names == ["text", "more", "tokens", "tags", "entities", "error"]
    assert found.select(["text", "more"]) == table
    assert found["tokens"].to_pylist() == [["Jordan", "in", "Paris"], []]
    said = "post 1: expected either 'text' or 'tokens', found neither; its keys are ['text']"
    assert found["error"].to_pylist() == [None, said]
    with pytest.raises(ValueError, match="rows: expected no columns tags, which are added; rename them"):
        annotator(table.append_column("tags", [["a", "b"]]))


def test_effects_reach_predict_and_annotations(tmp_path, capsys) -> None:
    """If it failed, --effects would be taken and tell nothing, or tell it where nobody asked."""
    for part in small_parts(**SYSTEMS["mlmner"]):
        part.save_pretrained(tmp_path)
    Image.linear_gradient("L").save(tmp_path / "a.png")
    rows = [
        {"text": "Jordan posts from Paris", "image": str(tmp_path / "a.png")},
        {"text": "Jordan in Paris"},
    ]
    own = {"device": "cpu", "dtype": "float32"}
    asked, plain = (
        Annotator(str(tmp_path), **own, effects=effects)(pa.Table.from_pylist(rows))["entities"].to_pylist()
        for effects in (True, False)
    )
    assert all(asked) and all(one["picture_effect"] is None for one in [*asked[1], *plain[0], *plain[1]])
    given = ["--text", rows[0]["text"], "--image", rows[0]["image"], "--device", "cpu", "--dtype", "float32"]
    assert main(["predict", "--model", str(tmp_path), *given, "--effects"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    effects = [(one["picture_effect"], one["context_effect"]) for one in json.loads(line)["entities"]]
    assert effects == [(pytest.approx(one["picture_effect"], abs=1e-5), None) for one in asked[0]]


@pytest.mark.slow
def test_map_annotates_by_several_processes(tmp_path) -> None:
    """If it failed, the model would not reach the other processes, or rows come back at another place."""
    for part in small_parts(**SYSTEMS["bilstm"]):
        part.save_pretrained(tmp_path)
    texts = [" ".join(WORDS[row % 7 :] + WORDS[: row % 5]) for row in range(40)]
    rows = datasets.Dataset.from_dict({"text": texts}).with_format("arrow")
    annotator = Annotator(str(tmp_path), device="cpu", dtype="float32")
    found = rows.map(annotator, batched=True, batch_size=8, num_proc=2).with_format(None)
    assert found["text"][:] == texts and found["tags"][:] == annotator(rows[:])["tags"].to_pylist()


def test_another_model_in_the_same_folder_is_another_function(tmp_path) -> None:
    """If it failed, `datasets` would take the rows of the old model from its cache, or processes that keep a
    loaded model use it on.
    """
    hashes = []
    for dropout in (0.1, 0.1, 0.2):
        for part in small_parts(**SYSTEMS["bilstm"], dropout=dropout):
            part.save_pretrained(tmp_path)
        hashes.append(Hasher.hash(Annotator(str(tmp_path))))
    assert hashes[0] == hashes[1] != hashes[2]


def in_latin_1(*values: str) -> pa.Array:
    """Strings as Arrow takes them from a file, in another encoding than UTF-8."""
    return pa.Array.from_buffers(
        pa.string(), len(values), pa.array([one.encode("latin-1") for one in values]).buffers()
    )


def test_a_row_that_python_cannot_hold_costs_itself_alone(tmp_path) -> None:
    """If it failed, one text that is no UTF-8 would end the annotation of all others, or give no reason."""
    for part in small_parts(**SYSTEMS["bilstm"]):
        part.save_pretrained(tmp_path)
    texts = in_latin_1("Jordan in Paris", "caf\xe9", "Jordan in Paris")
    ids = pa.array([0, 0, 2**62], pa.timestamp("us"))
    found = Annotator(str(tmp_path), device="cpu", dtype="float32")(pa.table({"text": texts, "id": ids}))
    assert found["tokens"].to_pylist() == [["Jordan", "in", "Paris"], [], []]
    utf8 = "'utf-8' codec can't decode byte 0xe9 in position 3: unexpected end of data"
    assert found["error"].to_pylist() == [
        None,
        f"post 1: expected values that Python can hold, texts in UTF-8, found {utf8}",
        "post 2: expected values that Python can hold, texts in UTF-8, found date value out of range",
    ]


def test_a_record_that_utf8_cannot_hold_is_kept() -> None:
    """If it failed, half an emoji in one text would cost the records beside it."""
    records = [
        {
            "id": "a",
            "text": "half \ud83d",
            "tokens": ["half", "\ud83d"],
            "tags": ["O", "O"],
            "entities": [],
            "error": None,
        },
        {
            "id": {"of": "\udce9"},
            "text": "Zoë 😍",
            "tokens": [],
            "tags": [],
            "entities": [],
            "error": "\udce9.png",
        },
    ]
    table = table_of(records, pa.schema([pa.field("id", pa.string()), *FOUND]))
    assert (
        table["text"].to_pylist() == ["half \ufffd", "Zoë 😍"] and table["tokens"][0].as_py()[1] == "\ufffd"
    )
    assert table["id"].to_pylist() == ["a", '{"of": "\ufffd"}'] and table["error"].to_pylist() == [
        None,
        "\ufffd.png",
    ]


_IN_A_NOTEBOOK = """
import datasets, sys, torch
from modeling_mmner.inference.annotator import Annotator
torch.set_num_threads(2)
rows = datasets.Dataset.from_dict({"text": ["Jordan in Paris"] * 8}).with_format("arrow")
annotator = Annotator(sys.argv[1], device="cpu", dtype="float32")
expected = annotator(rows[:])["tags"].to_pylist()
torch.ones(3_000_000).sum()
found = rows.map(annotator, batched=True, batch_size=4, num_proc=2).with_format(None)
assert found["tags"][:] == expected
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["saved", "exported"])
def test_map_ends_after_torch_was_used(tmp_path, form) -> None:
    """If it failed, a notebook that has looked at one post would wait without end for processes that wait for
    threads which only their parent has.
    """
    for part in small_parts(**SYSTEMS["bilstm"]):
        part.save_pretrained(tmp_path / "saved")
    if form == "exported":
        assert main(["export-onnx", f"--model={tmp_path}/saved", f"--output_dir={tmp_path}/exported"]) == 0
    command = [sys.executable, "-c", _IN_A_NOTEBOOK, str(tmp_path / form)]
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    environment.pop("OMP_NUM_THREADS", None)
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stderr=subprocess.PIPE
    ) as process:
        try:
            said = process.communicate(timeout=120)[1].decode()
        finally:  # the processes that wait, too
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said[-2000:]


def test_a_forked_process_computes_in_one_thread(tmp_path, monkeypatch) -> None:
    """If it failed, see the test above; and it would run a graph whose threads are its parent's."""
    for part in small_parts(**SYSTEMS["bilstm"]):
        part.save_pretrained(tmp_path)
    annotator, threads, loaded = Annotator(str(tmp_path), device="cpu"), [], []
    load = annotator_module.load_predictor
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr(
        annotator_module, "load_predictor", lambda *a, **kw: loaded.append(a) or load(*a, **kw)
    )
    for process, said in ((os.getpid(), []), (os.getpid() + 1, [1])):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        list(annotator.find(["Paris"]))
        assert (threads, len(loaded)) == (said, 1 + len(said))
