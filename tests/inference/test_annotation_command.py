"""The command `annotate`, held against `predict` on the same posts."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from modeling_mmner.cli import main
from modeling_mmner.inference.annotate_command import worker_of
from tests.small_posts import PICTURES, SPECKLED, TEXTS, WORDS, assert_same, by_hand, encoded, small_parts
from tests.tiny import SYSTEMS

OPTIONS = ["--device", "cpu", "--dtype", "float32", "--rows_per_shard", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and posts of every kind, good and bad, in posts.jsonl."""
    folder = tmp_path_factory.mktemp("annotate")
    for part in small_parts(**SYSTEMS["mlmner"]):
        part.save_pretrained(folder / "model")
    (folder / "speckled.png").write_bytes(encoded(SPECKLED))
    (folder / "broken.png").write_bytes(encoded(SPECKLED)[:200])
    good: list[dict[str, Any]] = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    posts = [
        *good,
        {"id": "a", "tokens": WORDS, "image": str(folder / "speckled.png")},
        {"id": "b", "text": "Jordan in Paris", "image": str(folder / "broken.png")},
        {
            "id": "c",
            "text": "Paris today",
            "images": [str(folder / "speckled.png"), str(folder / "nowhere.png")],
        },
        {"id": "d"},
        {"id": "e", "text": ["Paris"]},
        {"id": "f", "text": "Paris", "tokens": ["Paris"]},
        ["no", "post", 1],
        {"id": "g", "text": "half an emoji \ud83d from Paris"},
        {"id": {"odd": [1]}, "text": "from Paris"},
    ]
    lines = [json.dumps(post) for post in posts]
    (folder / "posts.jsonl").write_text(
        "\n\n".join([*lines[:9], '{"id": "cut off', *lines[9:]]), encoding="utf-8"
    )
    return folder


def run(folder: Path, target: Path, *options: str, source: str = "posts.jsonl") -> int:
    given = ["--model", str(folder / "model"), "--input", str(folder / source), "--output_dir", str(target)]
    return main(["annotate", *given, *OPTIONS, *options])


def json_rows(target: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(target.glob("*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]


def test_rows_are_those_of_predict(folder, tmp_path, capsys) -> None:
    """If it failed, a corpus would be annotated otherwise than its posts one by one, or its rows be another
    post's.
    """
    source, target = folder / "posts.jsonl", tmp_path / "predicted.jsonl"
    given = ["--model", str(folder / "model"), "--input", str(source), "--output", str(target), *OPTIONS[:4]]
    assert main(["predict", *given]) == 1
    predicted = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert run(folder, tmp_path / "out", "--form", "jsonl") == 0
    rows = json_rows(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(17))
    for row, expected in zip(rows, predicted, strict=True):
        assert row["id"] == expected["id"]
        assert (row["text"] is None) == ("error" in expected)
        if row["text"] is not None:
            assert row["text"] == expected["text"]
            assert_same([row["entities"]], [expected["entities"]])
    assert sum(len(row["entities"]) for row in rows) > 10


def test_bad_rows_say_what_they_are(folder, tmp_path, capsys) -> None:
    """If it failed, a bad row would be lost, or the user not find it again."""
    assert run(folder, tmp_path / "out", "--form", "jsonl") == 0
    rows = json_rows(tmp_path / "out")
    said = {(row["row"], str(row["id"])): row["error"] for row in rows if row["error"] is not None}
    broken, nowhere = said.pop((8, "b")), said.pop((10, "c"))
    assert broken.startswith(f"picture {folder / 'broken.png'}: could not be decoded, the file is broken;")
    assert nowhere.startswith("picture '/") and nowhere.endswith(
        ": no such file in the folder or --image_dir"
    )
    assert all(rows[number]["entities"] for number in (8, 10)), "a post without its picture is a post"
    assert said == {
        (9, "None"): (
            'posts.jsonl, row 9: expected a JSON object, found \'{"id": "cut off\' (Unterminated string'
            " starting at: line 1 column 8 (char 7))"
        ),
        (11, "d"): "post 11: expected either 'text' or 'tokens', found neither; its keys are ['id']",
        (12, "e"): "post 12: expected 'text' to be a string, found list",
        (13, "f"): "post 13: expected either 'text' or 'tokens', found both",
        (14, "None"): "post 14: expected an object with 'text' or 'tokens', found list",
    }
    assert (
        "annotate: 7 rows have an 'error', a post or a picture that could not be read"
        in capsys.readouterr().err
    )


def test_offsets_are_those_of_text_and_tokens(folder, tmp_path) -> None:
    """If it failed, entities could not be found again in the text or among the words."""
    run(folder, tmp_path / "out", "--form", "jsonl")
    for row in json_rows(tmp_path / "out"):
        assert len(row["tokens"]) == len(row["tags"])
        for entity in row["entities"]:
            words = slice(entity["first_word"], entity["last_word"] + 1)
            assert row["text"][entity["start"] : entity["end"]] == entity["word"]
            assert "".join(row["tokens"][words]) == entity["word"].replace(" ", "")
            assert row["tags"][words] == [
                f"{part}-{entity['entity_group']}" for part in "B" + "I" * (len(row["tags"][words]) - 1)
            ]


def test_parquet_and_json_lines_say_the_same(folder, tmp_path) -> None:
    """If it failed, what is found would depend on the form of the files."""
    run(folder, tmp_path / "lines", "--form", "jsonl")
    run(folder, tmp_path / "tables")
    tables = [
        row
        for path in sorted((tmp_path / "tables").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    lines = json_rows(tmp_path / "lines")
    assert (
        lines[15]["text"] == "half an emoji \ud83d from Paris"
        and tables[15]["text"] == "half an emoji � from Paris"
    )
    ids = {None: None, **{row["id"]: str(row["id"]) for row in lines if isinstance(row["id"], (int, str))}}
    for table, line in zip(tables, lines, strict=True):
        expected_id = '{"odd": [1]}' if isinstance(line["id"], dict) else ids[line["id"]]
        assert table == json.loads(json.dumps(line).replace("\\ud83d", "\\ufffd")) | {"id": expected_id}
    loaded = datasets.load_dataset(str(tmp_path / "tables"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["row"][:] == list(range(17)), "datasets must see the shards alone"


def test_four_workers_leave_what_one_leaves(folder, tmp_path, monkeypatch, capsys) -> None:
    """If it failed, a job on many machines would give other rows; here their number comes from the
    environment.
    """
    run(folder, tmp_path / "one", "--form", "jsonl")
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        assert run(folder, tmp_path / "four", "--form", "jsonl") == 0
        assert (
            f"worker {rank} of 4: {2 if rank == 0 else 1} shards annotated, 0 were there"
            in capsys.readouterr().out
        )
    assert json_rows(tmp_path / "four") == json_rows(tmp_path / "one")


def test_a_data_set_with_pictures(folder, tmp_path) -> None:
    """If it failed, data sets of the Hub could not be annotated, or without their pictures."""
    images = [[{"bytes": encoded(picture), "path": None} for picture in pictures] for pictures in PICTURES]
    rows = datasets.Dataset.from_dict(
        {"id": range(len(TEXTS)), "body": TEXTS, "images": images, "tags": TEXTS}
    )
    (folder / "data").mkdir(exist_ok=True)
    rows.cast_column("images", datasets.List(datasets.Image())).to_parquet(folder / "data/train.parquet")
    assert run(folder, tmp_path / "out", "--columns", "text=body", "--form", "jsonl", source="data") == 0
    parts = small_parts(**SYSTEMS["mlmner"])
    for row, text, pictures in zip(json_rows(tmp_path / "out"), TEXTS, PICTURES, strict=True):
        assert row["text"] == text
        assert_same([row["entities"]], [by_hand(parts, text, pictures)])


def test_verify_tells_by_its_status(folder, tmp_path, capsys) -> None:
    """If it failed, a script would take what is missing for done."""
    target, source = str(tmp_path / "out"), str(folder / "posts.jsonl")
    run(folder, tmp_path / "out", "--rank", "1", "--world_size", "2")
    capsys.readouterr()
    assert main(["annotate", "--verify", target]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "shard 0 (rows 0 to 3) is missing",
        "shard 2 (rows 8 to 11) is missing",
        "shard 4 (rows 16 to 16) is missing",
        f"{target}: 8 of 17 rows are there exactly once, 3 of them with an error",
    ]
    run(folder, tmp_path / "out")
    capsys.readouterr()
    assert main(["annotate", "--verify", target, "--input", source]) == 0
    assert (
        capsys.readouterr().out
        == f"{target}: 17 of 17 rows are there exactly once, 7 of them with an error\n"
    )
    assert main(["annotate", "--verify", str(folder)]) == 2


def test_another_model_or_precision_is_refused(folder, tmp_path, capsys) -> None:
    """If it failed, machines that compute otherwise, or with another training's weights, would fill one
    folder.
    """
    assert run(folder, tmp_path / "out", "--rank", "0", "--world_size", "2") == 0
    assert run(folder, tmp_path / "out", "--dtype", "bfloat16") == 2
    assert run(folder, tmp_path / "out", "--threshold", "0.5") == 2
    for part in small_parts(**SYSTEMS["mlmner"] | {"dropout": 0.3}):
        part.save_pretrained(tmp_path / "other/model")
    given = [
        "--model",
        str(tmp_path / "other/model"),
        "--input",
        str(folder / "posts.jsonl"),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert main(["annotate", *given, *OPTIONS]) == 2
    first, second, third = [line for line in capsys.readouterr().err.splitlines() if "Go on with" in line]
    assert first.startswith(
        "annotate: dtype: expected float32, found bfloat16. Go on with what the annotation was begun with"
    )
    assert second.startswith("annotate: threshold: expected 0.0, found 0.5.")
    assert third.startswith("annotate: model: expected ")


def test_options_that_are_missing_are_named(capsys) -> None:
    """If it failed, users would see a traceback."""
    assert main(["annotate", "--model", "m"]) == 2
    said = (
        "annotate: expected --model, --input and --output_dir, or --verify OUT; found no --input and no"
        " --output_dir"
    )
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        ({}, (None, None), (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, (None, None), (2, 4)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, (0, 3), (0, 3)),
        (
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0"},
            (None, None),
            (3, 8),
        ),
        (
            {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"},
            (None, None),
            (7, 8),
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "14",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            (None, None),
            (2, 3),
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"},
            (None, None),
            (1, 2),
        ),
    ],
)
def test_who_a_worker_is(environment, given, expected) -> None:
    """If it failed, two machines would do the same shards, and others none."""
    assert worker_of(environment, *given) == expected


@pytest.mark.parametrize(
    ("environment", "given", "said"),
    [
        ({}, (1, None), "--rank, --world_size: expected two numbers, found 1 and None"),
        ({"RANK": "1"}, (None, None), "RANK, WORLD_SIZE: expected two numbers, found 1 and None"),
        (
            {"RANK": "x", "WORLD_SIZE": "2"},
            (None, None),
            "RANK, WORLD_SIZE: expected two numbers, found x and 2",
        ),
        ({}, (2, 2), "--rank, --world_size: expected a worker from 0 to 1, found 2 of 2"),
        (
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "3"},
            (None, None),
            "SLURM_ARRAY_TASK_ID, SLURM_ARRAY_TASK_COUNT: expected a worker from 0 to 1, found 4 of 2",
        ),
    ],
)
def test_half_an_answer_to_who_a_worker_is_is_refused(environment, given, said) -> None:
    """If it failed, shards of a rank that does not exist would be missing at the end."""
    with pytest.raises(ValueError) as refused:
        worker_of(environment, *given)
    assert str(refused.value) == said
