"""The README's examples of annotating by other engines, run as they stand, against `annotate`."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from modeling_mmner.inference.annotate_command import AnnotationJob
from modeling_mmner.inference.annotation_shards import verify
from modeling_mmner.inference.annotator import Annotator
from tests.elsewhere import clean_environment
from tests.small_posts import WORDS, small_parts
from tests.tiny import SYSTEMS

ROOT = Path(__file__).parents[2]
POSTS = 40
FOUND = ("text", "tokens", "tags", "entities", "error")


def readme_example(engine: str) -> str:
    """The README's program that imports an engine."""
    section = (
        (ROOT / "README.md")
        .read_text("utf-8")
        .split("## Annotate a corpus on many machines")[1]
        .split("\n## ")[0]
    )
    (found,) = (
        block for block in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL) if engine in block
    )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    for part in small_parts(**SYSTEMS["bilstm"]):
        part.save_pretrained(folder / "outputs/quickstart/model")
    posts = [{"id": row, "text": " ".join(WORDS[row % 7 :] + WORDS[: row % 5])} for row in range(POSTS)]
    posts[5]["text"] = None
    (folder / "posts.jsonl").write_text("\n".join(map(json.dumps, posts)))
    return folder


@pytest.fixture(scope="module")
def expected(folder) -> list[dict[str, Any]]:
    """What `annotate` finds, one worker, one shard."""
    job = AnnotationJob(
        str(folder / "outputs/quickstart/model"), str(folder / "posts.jsonl"), str(folder / "expected")
    )
    assert job.run().failures == {}
    return pq.read_table(next((folder / "expected").glob("*.parquet"))).to_pylist()


def run_example(engine: str, folder: Path) -> None:
    """In a process of its own, and a file of its own, for engines start processes that import it."""
    (folder / f"{engine}_example.py").write_text(readme_example(engine))
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = clean_environment(HF_HOME=folder / "home", PYTHONPATH=path)
    command = [sys.executable, f"{engine}_example.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def assert_found(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [str(row["id"]) for row in rows] == [row["id"] for row in expected]
    for row, one in zip(rows, expected, strict=True):
        assert {name: row[name] for name in FOUND if name not in ("entities", "error")} == {
            name: one[name] for name in FOUND if name not in ("entities", "error")
        }
        assert (row["error"] is None) == (one["error"] is None)
        for entity, other in zip(row["entities"], one["entities"], strict=True):
            assert entity == other | {"score": pytest.approx(other["score"])}


def test_datatrove_runs_the_workers(folder, expected) -> None:
    """If it failed, the step would lose shards between datatrove's tasks, or annotate otherwise."""
    pytest.importorskip("datatrove")
    run_example("datatrove", folder)
    report = verify(folder / "annotated")
    assert (report.rows, report.done, report.errors, report.flaws) == (POSTS, POSTS, 1, [])
    assert_found(pq.read_table(next((folder / "annotated").glob("*.parquet"))).to_pylist(), expected)
    assert sorted(path.name for path in (folder / "logs/completions").iterdir()) == [
        f"{rank:05d}" for rank in range(4)
    ]


def test_datatrove_does_not_mark_a_task_that_failed(folder, tmp_path, monkeypatch) -> None:
    """If it failed, datatrove would take missing shards for done, and never run them again."""
    executors = pytest.importorskip("datatrove.executor")
    from modeling_mmner.inference.datatrove_step import AnnotateStep

    def failing(self: Annotator, posts: Any, first: int = 0) -> Any:
        raise RuntimeError("out of memory")

    model, source = str(folder / "outputs/quickstart/model"), str(folder / "posts.jsonl")
    job = AnnotationJob(model, source, str(tmp_path / "out"), rows_per_shard=POSTS)
    executor = executors.LocalPipelineExecutor(
        [AnnotateStep(job)], tasks=2, workers=1, logging_dir=str(tmp_path / "logs")
    )
    with (
        monkeypatch.context() as patch,
        pytest.raises(RuntimeError, match=r"shard 0 \(rows 0 to 39\) failed: RuntimeError: out of"),
    ):
        patch.setattr(Annotator, "find", failing)
        executor.run()
    assert not (tmp_path / "logs/completions/00000").exists()
    executor.run()
    assert verify(tmp_path / "out").flaws == []


def test_map_of_datasets_annotates_by_several_processes(folder, expected) -> None:
    """If it failed, the model would not reach the other processes, or rows come back at another place."""
    run_example("datasets", folder)
    assert_found(pq.read_table(folder / "found.parquet").to_pylist(), expected)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_data_annotates(folder, expected) -> None:
    """If it failed, the README's example for Ray would not run, or lose rows."""
    run_example("ray", folder)
    rows = [row for path in (folder / "found").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert_found(sorted(rows, key=lambda row: row["id"]), expected)


def test_columns_that_are_there_stay(folder) -> None:
    """If it failed, what the user gave would be written over."""
    annotator = Annotator(str(folder / "outputs/quickstart/model"))
    table = pa.table({"text": ["Jordan in Paris", None], "more": [1, 2]})
    found = annotator(table)
    assert found.column_names == ["text", "more", "tokens", "tags", "entities", "error"]
    assert found.select(["text", "more"]) == table
    assert found["tokens"].to_pylist() == [["Jordan", "in", "Paris"], []]
    assert (
        found["error"][1].as_py()
        == "post 1: expected either 'text' or 'tokens', found neither; its keys are ['text']"
    )
    with pytest.raises(
        ValueError, match="rows: expected no columns tags, which are added, found them; rename them"
    ):
        annotator(table.append_column("tags", [["a", "b"]]))


def test_pictures_of_strangers_lie_in_the_folder_that_is_named(tmp_path) -> None:
    """If it failed, a row could have any picture of the machine opened, or one that lies where it should were
    not found.
    """
    for part in small_parts():
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "pictures").mkdir()
    for name in ("elsewhere.png", "pictures/own.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    names = ["own.png", "../elsewhere.png", str(tmp_path / "elsewhere.png")]
    annotator = Annotator(str(tmp_path / "model"), image_dir=str(tmp_path / "pictures"))
    errors = annotator(pa.table({"text": ["Jordan in Paris"] * 3, "image": names}))["error"].to_pylist()
    assert errors[0] is None
    for name, error in zip(names[1:], errors[1:], strict=True):
        assert (
            error
            == f"picture {name}: expected a file in {tmp_path / 'pictures'}, found none; --image_dir names"
            " another"
        )


def test_another_model_in_the_same_folder_is_another_function(folder, tmp_path) -> None:
    """If it failed, `datasets` would take the rows of the old model from its cache."""
    from datasets.fingerprint import Hasher

    hashes = []
    for dropout in (0.1, 0.1, 0.2):
        for part in small_parts(**SYSTEMS["bilstm"], dropout=dropout):
            part.save_pretrained(tmp_path / "model")
        annotator = Annotator(str(tmp_path / "model"))
        if not hashes:
            annotator.predictor()  # what is loaded is no part of it
        hashes.append(Hasher.hash(annotator))
    assert hashes[0] == hashes[1] != hashes[2]
