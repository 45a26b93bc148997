"""Tests of `reproduce`: what each row of a paper's table trains, what is run again and what not, and what the
table says.
"""

import json
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from unittest.mock import patch

import pytest
from markdown_it import MarkdownIt

import train_accelerate
from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.training.assembly import check_model
from modeling_mmner.training.paper_tables import TABLES, PaperTable, Row, row_recipe
from modeling_mmner.training.recipes import Recipe, load_recipe
from modeling_mmner.training.reproduce import Run, collect, p_value, reproduce, write_table
from modeling_mmner.training.run_folder import begin_run, end_run
from modeling_mmner.training.runner import finished_run
from tests.interrupted import at_work, hold
from tests.small_metrics import make_metrics
from tests.test_staging import fill
from tests.training.test_training import TEXT, write_corpus

ROWS = [(name, row) for name, table in TABLES.items() for row in table.rows]


# What each row trains


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name}-{row.name}" for name, row in ROWS])
def test_each_row_is_a_model(name, row):
    """If it failed, a row would fail when its turn comes, after hours."""
    encoders = "2m-ner-quickstart" if name == "languages" else "quickstart"
    check_model(row_recipe(row, {}))
    check_model(row_recipe(row, {"epochs": 2}, encoders=encoders))


def test_rows_of_the_papers():
    """If it failed, a system of the papers' tables would be missing, or stand beside another one's figure."""
    table3, table4, languages = (TABLES[name].rows for name in ("table3", "table4", "languages"))
    assert [row.reported[2] for row in table3] == [76.31, 79.37, 80.37, 83.44, 81.87, 82.15, 85.31, 85.59]
    assert [row.reported[2] for row in table4] == [83.71, 84.57, 84.91, 85.59]
    for precision, recall, f1 in (row.reported for row in (*table3, *table4) if row.reported[0]):
        assert 2 * precision * recall / (precision + recall) == pytest.approx(f1, abs=0.011)
    assert [row.settings["languages"] for row in languages][4:6] == [["en", "fr"], ["en", "de"]]
    assert len({row.name for row in languages}) == 4 + 6 + 1
    assert all(row.name.split("+") == row.settings["languages"] for row in languages)


def test_settings_are_for_all_rows_that_have_the_part():
    """If it failed, rows would be trained with different budgets, or a text encoder be refused by the rows of
    words.
    """
    settings = {"epochs": 2, "text_encoder": "a/b", "vision_backbone": "resnet18", "word_vectors": "v.txt"}
    recipes = {row.recipe: row_recipe(row, settings) for row in TABLES["table3"].rows}
    assert {recipe.training.epochs for recipe in recipes.values()} == {2}
    models = {name: recipe.model for name, recipe in recipes.items()}
    texts = {name: (model.text_encoder, model.word_vectors) for name, model in models.items()}
    assert texts["bert-crf"] == texts["mlmner"] == ("a/b", None)
    assert texts["gvatt-hbilstm-crf"] == texts["bilstm-crf"] == (None, "v.txt")
    pictured = {"gvatt-hbilstm-crf", "adacan-cnn-bilstm-crf", "umt-bert-crf", "mlmner"}
    for name, model in models.items():
        assert [tower.backbone for tower in model.towers] == ["resnet18"] * (name in pictured)


def test_encoders_of_another_recipe():
    """If it failed, the small encoders would replace more than encoders, or not reach a row."""
    donor = load_recipe("quickstart").model
    for row in TABLES["table3"].rows:
        own, found = load_recipe(row.recipe), row_recipe(row, {}, encoders="quickstart")
        assert found.model.towers == (donor.towers if own.model.towers else [])
        assert found.model.text_encoder is None
        assert found.model.config.get("text_config") == (
            donor.config["text_config"] if own.model.text_tower.has_encoder else None
        )
        kept = ("text_tower", "fusion", "objectives", "boundary_share", "dropout")
        assert [found.model.config.get(key) for key in kept] == [own.model.config.get(key) for key in kept]
        assert (found.corpus, found.training) == (own.corpus, own.training)


# What is run


def fake_train(recipe: Recipe, f1: float = 0.5) -> RunMetrics:
    """Leave what a run leaves, without a training."""
    folder = Path(recipe.training.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    begin_run(folder)
    (folder / "model").mkdir(exist_ok=True)
    content = make_metrics() | {"recipe": recipe.to_dict(), "seed": recipe.training.seed}
    content["splits"]["test"]["overall"]["f1"] = f1
    (folder / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    tags = [(["B-PER", "O"], ["B-PER" if index < 20 * f1 else "O", "O"]) for index in range(20)]
    lines = [json.dumps({"gold": gold, "predicted": predicted}) + "\n" for gold, predicted in tags]
    (folder / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    end_run(folder)
    return RunMetrics.from_dict(content)


def made(table: str, folder: Path, *, broken: str = "", **settings: Any) -> tuple[list[Any], list[str], int]:
    """Make a table without its trainings; the runs that were made, what was said, and the exit code."""
    runs: list[tuple[str, int]] = []
    said: list[str] = []

    def train(recipe: Recipe) -> RunMetrics:
        runs.append((recipe.name, recipe.training.seed))
        if recipe.name == broken:
            raise ValueError("no memory | left")
        return fake_train(recipe, 0.5 + 0.1 * recipe.training.seed)

    options = {"settings": {"epochs": 3} | settings, "seeds": [1, 2]}
    with patch("modeling_mmner.training.reproduce.say", said.append):
        code = reproduce(table, train=train, folder=folder, **options)
    return runs, said, code


def test_what_is_there_is_not_run_again(tmp_path):
    """If it failed, a table that was cut off would start from its first row, or take half a run for one."""
    runs, said, code = made("table4", tmp_path)
    wanted = ("mlmner-without-both", "mlmner-without-contrastive", "mlmner-without-clustering", "mlmner")
    assert runs == list(product(wanted, (1, 2))) and code == 0
    assert said[0].startswith("without both, seed 1: test F1 60.0")
    cut = tmp_path / "without-contrastive-fusion" / "seed-1"
    assert not (cut / "model").exists()
    begin_run(cut)
    runs, said, _ = made("table4", tmp_path)
    assert runs == [("mlmner-without-contrastive", 1)] and said[0] == "without both, seed 1: there already"


@pytest.mark.parametrize(
    "settings", [{"epochs": 4}, {"dataset": "twitter2015"}, {"objectives": {"boundary": 0.9}}]
)
def test_run_of_other_settings_is_not_taken_for_this_one(tmp_path, settings):
    """If it failed, a table would mix rows of different budgets or corpora."""
    made("table4", tmp_path)
    (key,) = settings
    message = rf"seed-1: expected a run with these settings, found another one's: {key} "
    with pytest.raises(ValueError, match=message):
        made("table4", tmp_path, **settings)


def test_row_that_fails_says_why_and_the_others_go_on(tmp_path):
    """If it failed, a row without memory, or in whose folder another command is, would cost the table."""
    process, let_end = at_work(hold(fill(tmp_path / "BiLSTM-CRF" / "seed-2", {"status.json": b"{}"})))
    runs, said, code = made("table3", tmp_path, broken="hbilstm-crf")
    let_end()
    assert code == 1 and len(runs) == 2 * 8 - 1
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [row["name"] for row in results["rows"] if row["mean"] is None] == ["HBiLSTM-CRF"]
    assert r"- HBiLSTM-CRF, seed 1: ValueError: no memory \| left" in said[-2]
    assert f"process {process.pid} on" in said[1] and said[1].startswith(
        "BiLSTM-CRF, seed 2: failed; RunError"
    )
    runs, _, code = made("table3", tmp_path, broken="hbilstm-crf")
    assert code == 1 and runs == [("bilstm-crf", 2), ("hbilstm-crf", 1), ("hbilstm-crf", 2)]


# What the table says


def results_of(folder: Path, f1: dict[tuple[int, int], float]) -> tuple[dict[str, Any], list[Run]]:
    """Results of two rows whose runs have these F1, by row and seed."""
    rows = (Row("one | two", "bert-crf", (None, None, 80.0)), Row("other", "bilstm-crf"))
    runs = []
    for (number, seed), score in f1.items():
        place = {"seed": seed, "output_dir": str(folder / str(number) / str(seed))}
        runs.append(Run(rows[number], seed, row_recipe(rows[number], place)))
        fake_train(runs[-1].recipe, score)
    return collect(PaperTable("A, table 1", rows), runs, {}), runs


def test_means_deviations_and_pictures(tmp_path):
    """If it failed, a figure of the table would be of other runs than its row's."""
    scores = {(0, 1): 0.5, (0, 2): 0.7, (1, 1): 0.9}
    results, runs = results_of(tmp_path, scores)
    first, second = results["rows"]
    assert first["mean"]["f1"] == pytest.approx(mean([0.5, 0.7]))
    assert first["deviation"]["f1"] == pytest.approx(stdev([0.5, 0.7]))
    assert second["deviation"] is None and second["runs"][0]["seed"] == 1
    metrics = finished_run(runs[2].recipe)
    assert metrics is not None
    for mode, block in metrics.splits.test.picture.items():
        assert second["picture"][mode] == block.overall.f1
        assert second["ambiguous"][mode] == block.by_source["ambiguous"].f1
    assert (first["p_value"], first["reported"]) == (None, {"precision": None, "recall": None, "f1": 80.0})


def test_p_value_is_that_of_the_common_seeds(tmp_path):
    """If it failed, a row would be called better for a seed that the row above has not run."""
    _, runs = results_of(tmp_path, {(0, 1): 0.5, (0, 2): 0.5, (1, 2): 0.5, (1, 3): 1.0})
    above, below = {run.seed: run for run in runs[:2]}, {run.seed: run for run in runs[2:]}
    assert p_value(above, below) == 1.0
    assert p_value(above, {2: below[3]}) < 0.01
    assert p_value({1: above[1]}, {3: below[3]}) is None
    path = Path(below[2].recipe.training.output_dir, "predictions.jsonl")
    path.write_text(path.read_text().replace('{"gold": ["B-PER"', '{"gold": ["B-LOC"'))
    assert p_value(above, below) is None  # other posts


def test_written_table_is_a_table(tmp_path):
    """If it failed, a row would break the table, lack a cell, or the files not be there."""
    results, _ = results_of(tmp_path / "runs", {(0, 1): 0.5, (0, 2): 0.7, (1, 1): 0.9, (1, 2): 0.9})
    write_table(results, tmp_path / "table")
    text = (tmp_path / "table" / "results.md").read_text(encoding="utf-8")
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    kinds = [token.type for token in tokens]
    assert [kinds.count(kind) for kind in ("tr_open", "th_open", "td_open")] == [3, 8, 16]
    cells = [token.content for token in tokens if token.type == "inline"]
    assert cells[8:13] == ["one | two", "- / - / 80.00", *cells[10:12], "60.0 ± 14.1"] and "p" in cells
    written = (tmp_path / "table" / "results.json").read_text(encoding="utf-8")
    assert json.loads(written) == json.loads(json.dumps(results))


# The command


@pytest.mark.slow
def test_table_is_trained_and_gone_on_with(tmp_path, monkeypatch):
    """If it failed, a row would spoil the next one's training, or a finished row be run again."""
    rows = (Row("BiLSTM-CRF", "bilstm-crf"), Row("broken", "bert-crf"), Row("MLMNER", "mlmner"))
    monkeypatch.setitem(TABLES, "table3", PaperTable("a table", rows))
    write_corpus(tmp_path)
    tower = {"backbone": "resnet10t", "pretrained": False, "image_size": 64}
    settings = {
        "dataset": "conll",
        "data_dir": str(tmp_path),
        "image_dir": str(tmp_path / "images"),
        "epochs": 1,
        "batch_size": 8,
        "vision_towers": [tower],
        "text_encoder": None,
        "text_config": TEXT | {"hidden_size": 33},
        "mixed_precision": "no",
    }
    said: list[str] = []
    monkeypatch.setattr("modeling_mmner.training.reproduce.say", said.append)
    options: dict[str, Any] = {"folder": tmp_path / "out"}
    assert reproduce("table3", train=train_accelerate.train, settings=settings, **options) == 1
    assert "BiLSTM-CRF, seed 1: test F1" in said[0] and "broken, seed 1: failed; RunError" in said[1]
    settings["text_config"] = TEXT
    assert reproduce("table3", train=train_accelerate.train, settings=settings, **options) == 0
    assert "BiLSTM-CRF, seed 1: there already" in said and (tmp_path / "out" / "results.md").is_file()
    assert not (tmp_path / "out" / "MLMNER" / "seed-1" / "model").exists()
