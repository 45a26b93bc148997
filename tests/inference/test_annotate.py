"""`annotate`: rows equal those of `predict`; what is done stays, what is not is done again, and nothing else
counts.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_mmner.escaping import encodable
from modeling_mmner.files import json_line, read_json_lines
from modeling_mmner.inference.annotate import ABOUT, AnnotateStep, Annotator, annotate, open_posts, verify
from modeling_mmner.inference.loading import load_model
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from tests.annotation_parts import annotated, rows_in, write_posts
from tests.interrupted import at_work, hold
from tests.small_posts import PICTURES, SPECKLED, TEXTS, WORDS, assert_same, by_hand, encoded, small_parts
from tests.tiny import SYSTEMS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and posts of every kind, good and bad, in posts.jsonl."""
    folder = tmp_path_factory.mktemp("annotate")
    for part in small_parts(**SYSTEMS["mlmner"]):
        part.save_pretrained(folder / "model")
    (folder / "speckled.png").write_bytes(encoded(SPECKLED))
    (folder / "broken.png").write_bytes(encoded(SPECKLED)[:200])
    posts: list[Any] = [
        *({"id": number, "text": text} for number, text in enumerate(TEXTS)),
        {"id": "a", "tokens": WORDS, "image": str(folder / "speckled.png")},
        {"id": "b", "text": "Jordan in Paris", "image": "broken.png"},
        {"id": "c", "text": "Paris today", "images": ["speckled.png", "nowhere.png", "../model"]},
        {"id": "d"},
        {"id": "e", "text": ["Paris"]},
        {"id": "f", "text": "Paris", "tokens": ["Paris"]},
        ["no", "post", 1],
        {"id": "g", "text": "half an emoji \ud83d from Paris"},
        {"id": {"odd": [1]}, "text": "from Paris"},
    ]
    lines = [json.dumps(post) for post in posts]
    lines.insert(9, '{"id": "cut off')
    (folder / "posts.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    return folder


def run(folder: Path, target: Path, *, source: str = "posts.jsonl", **options: Any) -> Any:
    reading = {name: options.pop(name) for name in ("columns", "split") if name in options}
    annotator = Annotator(str(folder / "model"), device="cpu", dtype="float32")
    step = AnnotateStep(annotator, open_posts(str(folder / source), **reading), target)
    return annotate(step, **{"tasks": 3} | options)


@pytest.fixture(scope="module")
def rows(folder, tmp_path_factory) -> list[dict[str, Any]]:
    target = tmp_path_factory.mktemp("rows")
    assert str(run(folder, target / "out")) == "17 of 17 rows are there exactly once, 7 with an error"
    return rows_in(target / "out", target)


def test_rows_are_those_of_predict(folder, rows) -> None:
    """If it failed, a corpus would be annotated otherwise than its posts one by one, or its rows be another
    post's.
    """
    model, processor = load_model(str(folder / "model"), device="cpu", dtype="float32")
    predictor = BatchPredictor(model, PostReader(processor, broken_pictures="skip", image_dir=folder))
    with (folder / "posts.jsonl").open("rb") as file:
        predicted = list(predictor.predict(read_json_lines(file, "posts.jsonl"), first=0))
    assert [row["row"] for row in rows] == list(range(17))
    for row, found in zip(rows, predicted, strict=True):
        text = found.post.text if found.post is not None else None
        (text, entities) = json.loads(encodable(json.dumps([text, found.entities], ensure_ascii=False)))
        assert (row["text"], row["tags"]) == (text, found.tags)
        assert_same([row["entities"]], [entities])
    assert sum(len(row["entities"]) for row in rows) > 10
    assert [row["id"] for row in rows[-3:]] == [None, "g", '{"odd": [1]}'] and rows[0]["id"] == "0"


def test_bad_rows_say_what_they_are(folder, rows) -> None:
    """If it failed, a bad row would be lost, or the user not find it again."""
    said = {row["row"]: row["error"] for row in rows if row["error"] is not None}
    broken, nowhere = said.pop(8), said.pop(10)
    assert broken.startswith(f"picture {folder / 'broken.png'}: could not be decoded, the file is broken;")
    for name in ("nowhere.png", "../model"):
        assert f"picture {name}: expected a file in {folder}, found none" in nowhere
    assert all(rows[number]["entities"] for number in (8, 10)), "a post without its picture is a post"
    assert said == {
        9: (
            'posts.jsonl:19: expected a JSON object, found \'{"id": "cut off\' (Unterminated string starting'
            " at: line 1 column 8 (char 7))"
        ),
        11: "post 11: expected either 'text' or 'tokens', found neither; its keys are ['id']",
        12: "post 12: expected 'text' to be a string, found list",
        13: "post 13: expected either 'text' or 'tokens', found both",
        14: "post 14: expected an object with 'text' or 'tokens', found list",
    }


def test_offsets_are_those_of_text_and_tokens(rows) -> None:
    """If it failed, entities could not be found again in the text or among the words."""
    for row in rows:
        assert len(row["tokens"]) == len(row["tags"])
        for entity in row["entities"]:
            words = slice(entity["first_word"], entity["last_word"] + 1)
            assert row["text"][entity["start"] : entity["end"]] == entity["word"]
            assert "".join(row["tokens"][words]) == entity["word"].replace(" ", "")
            inside = ["I"] * (len(row["tags"][words]) - 1)
            assert row["tags"][words] == [f"{part}-{entity['entity_group']}" for part in ["B", *inside]]


def test_a_data_set_with_pictures(folder, tmp_path) -> None:
    """If it failed, data sets of the Hub could not be annotated, or without their pictures."""
    images = [[{"bytes": encoded(picture), "path": None} for picture in pictures] for pictures in PICTURES]
    columns = {"id": range(len(TEXTS)), "body": TEXTS, "images": images, "tags": TEXTS}
    pictured = datasets.Dataset.from_dict(columns).cast_column("images", datasets.List(datasets.Image()))
    for name in ("train", "test"):
        pictured.to_parquet(folder / f"data/{name}-00000-of-00001.parquet")
    with pytest.raises(ValueError, match=r"--split: expected one of train, test, found None"):
        run(folder, tmp_path / "out", source="data")
    run(folder, tmp_path / "out", source="data", split="test", columns={"text": "body"})
    parts = small_parts(**SYSTEMS["mlmner"])
    for row, text, pictures in zip(rows_in(tmp_path / "out", tmp_path), TEXTS, PICTURES, strict=True):
        assert row["text"] == text
        assert_same([row["entities"]], [by_hand(parts, text, pictures)])


@pytest.mark.parametrize("tasks", [1, 3, 10])
def test_any_number_of_tasks_leaves_the_same(tmp_path, tasks) -> None:
    """If it failed, results would depend on how many tasks there were; columns of the first file are all
    empty or null here, and ten tasks have less than a row each.
    """
    lines = ["{", "{", *(json.dumps({"id": row, "text": f"Paris {row}"}) for row in range(6))]
    (tmp_path / "posts.jsonl").write_text("\n".join(lines))
    outcome = annotated(tmp_path / "posts.jsonl", tmp_path / "out", tasks=tasks)
    assert (outcome.rows, outcome.done, outcome.errors, outcome.flaws) == (8, 8, 2, [])
    rows = rows_in(tmp_path / "out", tmp_path)
    assert [row["row"] for row in rows] == list(range(8))
    assert [row["text"] for row in rows] == [None] * 2 + [f"Paris {row}" for row in range(6)]
    found = {"text": "Paris 0", "tokens": ["Paris", "0"], "tags": ["B-X", "O"], "entities": []}
    assert rows[2] == {"row": 2, "id": "0", **found, "error": None}


@pytest.fixture()
def source(tmp_path) -> Path:
    return write_posts(tmp_path / "posts.jsonl", 23)


@pytest.fixture()
def whole(source, tmp_path) -> list[dict[str, Any]]:
    """What a run that nothing disturbs leaves."""
    annotated(source, tmp_path / "whole")
    return rows_in(tmp_path / "whole", tmp_path)


def test_machines_share_the_tasks(source, tmp_path, whole) -> None:
    """If it failed, a second machine would do the tasks of the first, or none."""
    first = annotated(source, tmp_path / "out", local_tasks=2)
    assert first.done == 12
    assert [flaw.partition(";")[0] for flaw in first.flaws] == [
        f"annotated-0000{rank}-of-00004.parquet is missing" for rank in (2, 3)
    ]
    assert annotated(source, tmp_path / "out", first=2, local_tasks=2).flaws == []
    assert rows_in(tmp_path / "out", tmp_path) == whole


def test_what_is_done_is_not_done_again(source, tmp_path, whole) -> None:
    """If it failed, a job that is started again would cost its time again; a file that was removed since is
    written again, and what a killed process had begun is no row.
    """
    out = tmp_path / "whole"
    names = [f"annotated-0000{rank}-of-00004.parquet" for rank in range(4)]
    (out / names[2]).unlink()
    (out / f"{names[2]}.123.partial").write_bytes(b"PAR1")
    before = {name: (out / name).stat().st_mtime_ns for name in names if name != names[2]}
    assert rows_in(out, tmp_path / "between") == whole[:12] + whole[18:]
    assert annotated(source, out).flaws == []
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert rows_in(out, tmp_path / "after") == whole
    assert sorted(path.name for path in out.iterdir()) == [ABOUT, "README.md", *names]


def test_a_task_that_fails_does_not_stop_the_others(source, tmp_path, whole, capsys) -> None:
    """If it failed, one batch that does not fit in memory would leave all later tasks undone, or be taken for
    done.
    """
    out = tmp_path / "out"
    outcome = annotated(source, out, fails_at="Paris in row 7")
    assert outcome.done == 17 and len(outcome.flaws) == 1
    assert outcome.flaws[0].startswith("annotated-00001-of-00004.parquet is missing; annotate again, and see")
    assert "task 1 failed: RuntimeError: out of memory" in capsys.readouterr().err
    assert annotated(source, out).flaws == []
    assert rows_in(out, tmp_path) == whole


def test_a_task_that_another_command_is_at_is_left_to_it(source, tmp_path, capsys) -> None:
    """If it failed, two commands in one folder would remove each other's unfinished files."""
    out, name = tmp_path / "out", "annotated-00001-of-00004.parquet"
    annotated(source, out, local_tasks=1)
    process, let_end = at_work(hold(out / name, beside=True))
    (out / f"{name}.01234567.partial").touch()
    outcome = annotated(source, out)
    found = f"task 1 failed: BlockingIOError: {out / name}: process {process.pid} on "
    assert found in capsys.readouterr().err
    assert (out / f"{name}.01234567.partial").is_file() and len(outcome.flaws) == 1
    let_end()
    process.join()
    assert annotated(source, out).flaws == [] and list(out.glob("*.partial")) == []


def test_verify_tells_what_is_wrong(source, tmp_path, whole) -> None:
    """If it failed, a script would take what is missing, damaged or doubled for done."""
    out = tmp_path / "whole"
    names = [f"annotated-0000{rank}-of-00004.parquet" for rank in range(4)]
    (out / names[0]).write_bytes((out / names[0]).read_bytes()[:-9])
    (out / names[1]).write_bytes((out / names[2]).read_bytes())
    (out / names[3]).unlink()
    (out / "annotated-00009-of-00010.parquet").write_bytes((out / names[2]).read_bytes())
    outcome = verify(out)
    assert (outcome.rows, outcome.done) == (23, 6)
    said = [
        f"{names[0]} is damaged (",
        f"{names[1]} is damaged (row 12 in the place of row 6); remove it, and annotate again",
        f"{names[3]} is missing; annotate again",
        "annotated-00009-of-00010.parquet is no file of this annotation",
    ]
    for flaw, beginning in zip(outcome.flaws, said, strict=True):
        assert flaw.startswith(beginning)
    with pytest.raises(ValueError, match="expected the folder of an annotation, found none"):
        verify(tmp_path)


def test_another_model_input_or_number_of_tasks_is_refused(source, tmp_path, whole) -> None:
    """If it failed, a folder would hold rows of two models, or of two inputs."""
    out = tmp_path / "whole"
    other = write_posts(tmp_path / "other.jsonl", 23, word="Rome")
    for given, options, said in (
        (source, {"sha256": "other"}, "model: expected capitals, found other"),
        (source, {"threshold": 0.5}, r"threshold: expected 0.0, found 0.5\. Go on with .* was begun with"),
        (source, {"dtype": "bfloat16"}, "dtype: expected torch.float32, found torch.bfloat16"),
        (source, {"tasks": 5}, "tasks: expected 4, found 5"),
        (source, {"columns": {"text": "id"}}, "columns: expected {}, found {'text': 'id'}"),
        (other, {}, "input: expected [0-9a-f]{64}, found [0-9a-f]{64}"),
    ):
        with pytest.raises(ValueError, match=said):
            annotated(given, out, **options)
    (tmp_path / "copy").mkdir()
    copy = write_posts(tmp_path / "copy/posts.jsonl", 23)
    assert annotated(copy, out).flaws == [], "machines have their own copies of the input"
    (out / ABOUT / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json: expected an annotation's record, found it damaged"):
        annotated(source, out)


def test_a_folder_with_something_else_is_refused_untouched(source, tmp_path) -> None:
    """If it failed, the files of an annotation would lie among someone's other files."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"expected a new folder, or an annotation, found README.md"):
        annotated(source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["README.md"]


def test_tasks_that_are_none_are_refused(folder, tmp_path) -> None:
    """If it failed, a machine would do nothing, and say that all is well."""
    with pytest.raises(ValueError, match=r"Local tasks go beyond the total tasks .* = 4 > 3 = tasks"):
        run(folder, tmp_path / "out", local_tasks=3, local_rank_offset=1)


def test_what_is_written_loads_again(folder, tmp_path) -> None:
    """If it failed, an annotation would be lost by an error far behind, half an emoji, or a number that JSON
    has not; or one odd line cost all of its task.
    """
    deep = "[" * 980 + "]" * 980  # which Python reads or not, by what it is doing
    odd = ['{"text": "half \\ud83d", "id": "\\ud83d"}', '{"text": "Paris", "id": 1e999}']
    odd += [f'{{"text": "Paris", "id": {deep}}}', '{"text": "Paris today", "image": "\\udce9.png"}', "{"]
    lines = [json.dumps({"id": f"post-{number}", "text": "Jordan in Paris"}) for number in range(150)]
    (tmp_path / "posts.jsonl").write_text("\n".join([*lines, *odd]))
    annotator = Annotator(str(folder / "model"), device="cpu", dtype="float32")
    out = tmp_path / "out"
    step = AnnotateStep(annotator, open_posts(str(tmp_path / "posts.jsonl")), out)
    assert annotate(step).done == 155
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"), batch_size=10)
    assert loaded["row"][:] == list(range(155)) and loaded["error"][:150] == [None] * 150
    assert loaded["text"][150:152] == ["half \ufffd", "Paris"] and loaded["id"][150:152] == [
        "\ufffd",
        "1e999",
    ]
    assert "expected a file in" in loaded["error"][153] and "expected a JSON object" in loaded["error"][154]


def test_json_lines_have_no_infinity() -> None:
    """If it failed, programs that read JSON by its definition would refuse the file."""
    record = {"score": float("nan"), "of": [float("-inf"), 1e300, "NaN \ud83d"], "big": 10**400}
    line = json_line(record)
    assert line == '{"score": null, "of": [null, 1e+300, "NaN \\ud83d"], "big": 1' + "0" * 400 + "}"


def test_rows_that_are_not_utf8_are_rows_in_parquet(folder, tmp_path) -> None:
    """If it failed, one such text would cost a task for good."""
    values = pa.array([b"Jordan in Paris", b"caf\xe9", b"Paris"])
    texts = pa.Array.from_buffers(pa.string(), 3, values.buffers())
    ids = pa.array([None, Decimal("1.50"), Decimal("2")], pa.decimal128(9, 2))
    pq.write_table(pa.table({"text": texts, "id": ids}), tmp_path / "posts.parquet")
    annotator = Annotator(str(folder / "model"), device="cpu", dtype="float32")
    step = AnnotateStep(annotator, open_posts(str(tmp_path / "posts.parquet")), tmp_path / "out")
    assert str(annotate(step, tasks=2)) == "3 of 3 rows are there exactly once, 1 with an error"
    rows = rows_in(tmp_path / "out", tmp_path)
    assert [row["id"] for row in rows] == [None, None, '"2.00"']
    assert rows[1]["error"].startswith("post 1: expected values that Python can hold, texts in UTF-8, found")
