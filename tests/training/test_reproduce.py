"""Tests of `reproduce`: what each row of a paper's table trains, what is run again and what not, and what the
table says.
"""

import json
import shutil
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from threading import Barrier
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image

from modeling_mmner.cli import main
from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.training import paper_tables, reproduce
from modeling_mmner.training.assembly import check_model
from modeling_mmner.training.paper_tables import TABLES, PaperTable, Reported, Row, row_recipe
from modeling_mmner.training.recipes import Recipe, load_recipe
from modeling_mmner.training.reproduce import RowError, Run, make_runs, plan, preflight
from modeling_mmner.training.table_report import collect, markdown, p_value, write_table
from tests.small_metrics import make_metrics
from tests.training.test_training import TEXT, write_corpus

ROWS = [(name, row) for name, table in TABLES.items() for row in table.rows]


# What each row trains


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name}-{row.name}" for name, row in ROWS])
def test_each_row_is_a_model(name, row):
    """If it failed, a row would fail when its turn comes, after hours."""
    check_model(row_recipe(row, {}))
    check_model(
        row_recipe(row, {"epochs": 2}, encoders="2m-ner-quickstart" if name == "languages" else "quickstart")
    )


def test_rows_of_the_papers():
    """If it failed, a system of the papers' tables would be missing, or stand beside another one's figure."""
    figures = {row.name: row.reported.f1 for row in TABLES["table3"].rows}
    assert list(figures.values()) == [76.31, 79.37, 80.37, 83.44, 81.87, 82.15, 85.31, 85.59]
    assert [row.reported.f1 for row in TABLES["table4"].rows] == [83.71, 84.57, 84.91, 85.59]
    for row in [
        row for table in ("table3", "table4") for row in TABLES[table].rows if row.reported.precision
    ]:
        precision, recall, f1 = row.reported
        assert 2 * precision * recall / (precision + recall) == pytest.approx(f1, abs=0.011)
    assert [row.settings["languages"] for row in TABLES["languages"].rows][4:6] == [
        ["en", "fr"],
        ["en", "de"],
    ]
    assert len(TABLES["languages"].rows) == 4 + 6 + 1


def test_settings_are_for_all_rows_that_have_the_part():
    """If it failed, rows would be trained with different budgets, or a text encoder be refused by the rows of
    words.
    """
    settings = {
        "epochs": 2,
        "batch_size": 7,
        "text_encoder": "a/b",
        "vision_backbone": "resnet18",
        "word_vectors": "v.txt",
    }
    recipes = {row.recipe: row_recipe(row, settings) for row in TABLES["table3"].rows}
    assert {(recipe.training.epochs, recipe.training.batch_size) for recipe in recipes.values()} == {(2, 7)}
    assert recipes["bert-crf"].model.text_encoder == recipes["mlmner"].model.text_encoder == "a/b"
    assert (
        recipes["gvatt-hbilstm-crf"].model.text_encoder is None
        and recipes["mlmner"].model.word_vectors is None
    )
    assert (
        recipes["gvatt-hbilstm-crf"].model.word_vectors == recipes["bilstm-crf"].model.word_vectors == "v.txt"
    )
    backbones = {name: [tower.backbone for tower in recipe.model.towers] for name, recipe in recipes.items()}
    assert {name for name, found in backbones.items() if found == ["resnet18"]} == {
        *("gvatt-hbilstm-crf", "adacan-cnn-bilstm-crf", "umt-bert-crf", "mlmner")
    }
    assert backbones["bert-crf"] == backbones["bilstm-crf"] == []


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


def fake_train(recipe: Recipe, *, keep_model: bool, f1: float = 0.5) -> None:
    """Leave what a run leaves, without a training."""
    folder = Path(recipe.training.output_dir)
    folder.mkdir(parents=True)
    content = make_metrics() | {"recipe": recipe.to_dict(), "seed": recipe.training.seed}
    content["splits"]["test"]["overall"]["f1"] = f1
    (folder / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    rows = [
        {"gold": ["B-PER", "O"], "predicted": ["B-PER" if index < 20 * f1 else "O", "O"]}
        for index in range(20)
    ]
    (folder / "predictions.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )


def in_this_process(function: Any, *arguments: Any, jobs: int = 1, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except Exception as error:
        raise RowError(f"{type(error).__name__}: {error}") from error


@pytest.fixture
def trained(monkeypatch) -> list[tuple[str, int]]:
    """The runs that were made, by recipe and seed; they are not really trained."""
    made: list[tuple[str, int]] = []

    def train(recipe: Recipe, *, keep_model: bool) -> None:
        made.append((recipe.name, recipe.training.seed))
        if recipe.name == "hbilstm-crf":
            raise ValueError("no memory | left")
        fake_train(recipe, keep_model=keep_model, f1=0.5 + 0.1 * recipe.training.seed)

    monkeypatch.setattr(reproduce, "train_run", train)
    monkeypatch.setattr(reproduce, "in_own_process", in_this_process)
    return made


def table4_runs(folder: Path, **settings: Any) -> list[Run]:
    return plan("table4", {"epochs": 3} | settings, seeds=[1, 2], encoders=None, folder=folder)


def test_what_is_there_is_not_run_again(trained, tmp_path):
    """If it failed, a table that was cut off would start from its first row."""
    said: list[str] = []
    runs = table4_runs(tmp_path)
    assert make_runs(runs[:3], said.append) == {}
    partial = runs[3].folder.with_name(".seed-2.partial")
    partial.mkdir(parents=True)
    assert make_runs(runs, said.append) == {}
    wanted = ("mlmner-without-both", "mlmner-without-contrastive", "mlmner-without-clustering", "mlmner")
    assert trained == list(product(wanted, (1, 2)))
    assert (
        said[3] == "without both, seed 1: there already" and "without both, seed 1: test F1 60.0" in said[0]
    )


def test_jobs_run_at_the_same_time(monkeypatch, tmp_path):
    """If it failed, `--jobs` would leave cores idle, or run more at a time than was asked for."""
    both, running, most = Barrier(2, timeout=20), [], []

    def train(recipe: Recipe, *, keep_model: bool) -> None:
        running.append(recipe)
        most.append(len(running))
        both.wait()
        running.remove(recipe)
        fake_train(recipe, keep_model=keep_model)

    monkeypatch.setattr(reproduce, "train_run", train)
    monkeypatch.setattr(reproduce, "in_own_process", in_this_process)
    said: list[str] = []
    assert make_runs(table4_runs(tmp_path), said.append, jobs=2) == {}
    assert len(said) == 8 and max(most) == 2


def test_jobs_share_the_threads():
    """If it failed, each of two jobs would start as many threads as there are cores, and both would crawl."""
    alone, shared, least = (reproduce.in_own_process(torch.get_num_threads, jobs=jobs) for jobs in (1, 2, 99))
    assert (shared, least) == (max(1, alone // 2), 1)


@pytest.mark.parametrize(
    "settings", [{"epochs": 4}, {"dataset": "twitter2015"}, {"objectives": {"boundary": 0.9}}]
)
def test_run_of_other_settings_is_not_taken_for_this_one(trained, tmp_path, settings):
    """If it failed, a table would mix rows of different budgets or corpora."""
    make_runs(table4_runs(tmp_path), lambda line: None)
    (key,) = settings
    with pytest.raises(
        ValueError, match=rf"seed-1: expected a run with these settings, found another one's: {key} "
    ):
        make_runs(table4_runs(tmp_path, **settings), lambda line: None)


def test_row_that_fails_says_why_and_the_others_go_on(trained, tmp_path):
    """If it failed, one row without memory would cost the whole table, or its reason be lost."""
    runs = plan("table3", {}, seeds=[1], encoders=None, folder=tmp_path)
    errors = make_runs(runs, lambda line: None)
    assert errors == {("HBiLSTM-CRF", 1): "ValueError: no memory | left"}
    results = collect(TABLES["table3"], runs, errors)
    assert [row["name"] for row in results["rows"] if row["mean"] is None] == ["HBiLSTM-CRF"]
    assert r"- HBiLSTM-CRF, seed 1: ValueError: no memory \| left" in markdown(results)
    make_runs(runs, lambda line: None)
    assert [recipe for recipe, _ in trained].count("hbilstm-crf") == 2 and len(trained) == 9


def test_run_is_whole_or_not_there(monkeypatch, tmp_path):
    """If it failed, a run that was cut off while its results were written would be taken for a whole one."""
    run, *_ = table4_runs(tmp_path)

    def cut_off(recipe: Recipe) -> None:
        assert recipe.training.output_dir != run.recipe.training.output_dir
        (Path(recipe.training.output_dir) / "metrics.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr("train_accelerate.train", cut_off)
    monkeypatch.setattr(reproduce.os, "dup2", lambda *streams: None)
    with pytest.raises(KeyboardInterrupt):
        reproduce.train_run(run.recipe, keep_model=False)
    assert run.metrics() is None

    def whole(recipe: Recipe) -> None:
        shutil.rmtree(recipe.training.output_dir)
        fake_train(recipe, keep_model=False)
        (Path(recipe.training.output_dir) / "model").mkdir()

    monkeypatch.setattr("train_accelerate.train", whole)
    reproduce.train_run(run.recipe, keep_model=True)
    assert isinstance(run.metrics(), RunMetrics) and (run.folder / "model").is_dir()
    assert [path.name for path in run.folder.parent.iterdir()] == ["seed-1"]


# What the table says


def results_of(folder: Path, f1: dict[tuple[int, int], float]) -> tuple[dict[str, Any], list[Run]]:
    """Results of two rows whose runs have these F1, by row and seed."""
    table = PaperTable(
        "A, table 1", (Row("one | two", "bert-crf", Reported(None, None, 80.0)), Row("other", "bilstm-crf"))
    )
    runs = []
    for (number, seed), score in f1.items():
        row = table.rows[number]
        recipe = row_recipe(row, {"seed": seed, "output_dir": str(folder / str(number) / str(seed))})
        fake_train(recipe, keep_model=False, f1=score)
        runs.append(Run(row, seed, recipe))
    return collect(table, runs, {}), runs


def test_means_deviations_and_pictures(tmp_path):
    """If it failed, a figure of the table would be of other runs than its row's."""
    scores = {(0, 1): 0.5, (0, 2): 0.7, (1, 1): 0.9}
    results, runs = results_of(tmp_path, scores)
    first, second = results["rows"]
    assert first["mean"]["f1"] == pytest.approx(mean([0.5, 0.7])) and first["deviation"][
        "f1"
    ] == pytest.approx(stdev([0.5, 0.7]))
    assert second["deviation"] is None and second["runs"][0]["seed"] == 1
    metrics = runs[2].metrics()
    assert metrics is not None
    for mode, block in metrics.splits.test.picture.items():
        assert (
            second["picture"][mode] == block.overall.f1
            and second["ambiguous"][mode] == block.by_source["ambiguous"].f1
        )
    assert (first["p_value"], first["reported"]) == (None, {"precision": None, "recall": None, "f1": 80.0})


def test_p_value_is_that_of_the_common_seeds(tmp_path):
    """If it failed, a row would be called better for a seed that the row above has not run."""
    _, runs = results_of(tmp_path, {(0, 1): 0.5, (0, 2): 0.5, (1, 2): 0.5, (1, 3): 1.0})
    above, below = {run.seed: run for run in runs[:2]}, {run.seed: run for run in runs[2:]}
    assert p_value(above, below) == 1.0
    assert p_value(above, {2: below[3]}) < 0.01
    assert p_value({1: above[1]}, {3: below[3]}) is None
    lines = (
        (below[2].folder / "predictions.jsonl")
        .read_text()
        .replace('"B-PER", "O"], "predicted', '"B-LOC", "O"], "predicted')
    )
    (below[2].folder / "predictions.jsonl").write_text(lines)
    assert p_value(above, below) is None  # other posts


def test_written_table_is_a_table(tmp_path):
    """If it failed, a row would break the table, lack a cell, or the files not be there."""
    results, _ = results_of(tmp_path / "runs", {(0, 1): 0.5, (0, 2): 0.7, (1, 1): 0.9, (1, 2): 0.9})
    write_table(results, tmp_path / "table")
    text = (tmp_path / "table" / "results.md").read_text(encoding="utf-8")
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    assert [sum(token.type == kind for token in tokens) for kind in ("tr_open", "th_open", "td_open")] == [
        3,
        8,
        16,
    ]
    cells = [token.content for token in tokens if token.type == "inline"]
    assert cells[8:13] == ["one | two", "- / - / 80.00", *cells[10:12], "60.0 ± 14.1"] and "p" in cells
    assert json.loads((tmp_path / "table" / "results.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(results)
    )
    with Image.open(tmp_path / "table" / "results.png") as picture:
        assert picture.width > 500


# The command


def test_seed_is_an_option_of_the_rows(capsys):
    """If it failed, `--seed 3` would be given to all rows and then overwritten without a word."""
    assert main(["reproduce", "table3", "--seed", "3", "--dry_run"]) == 2
    assert "--seed: expected --seeds, the seeds of all rows" in capsys.readouterr().err


@pytest.mark.slow
def test_command_trains_times_and_goes_on(tmp_path, monkeypatch, capsys):
    """If it failed, the command would not train in processes of their own, or run a finished row again."""
    rows = (Row("BiLSTM-CRF", "bilstm-crf"), Row("broken", "bert-crf"), Row("MLMNER", "mlmner"))
    monkeypatch.setitem(paper_tables.TABLES, "table3", PaperTable("a table", rows))
    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    towers = "[{backbone: resnet10t, pretrained: false, image_size: 64}]"
    options = [
        "--dataset",
        "conll",
        "--data_dir",
        str(tmp_path),
        "--image_dir",
        str(tmp_path / "images"),
        "--epochs",
        "1",
    ]
    options += [
        "--batch_size",
        "8",
        "--vision_towers",
        towers,
        "--text_encoder",
        "none",
        "--mixed_precision",
        "no",
    ]
    command = ["reproduce", "table3", *options, "--output_dir", "out"]
    assert main([*command, "--text_config", json.dumps(TEXT | {"hidden_size": 33})]) == 1
    said = capsys.readouterr().out
    assert "BiLSTM-CRF, seed 1: test F1" in said and "broken: cannot run; ValueError" in said
    assert (tmp_path / "out" / "BiLSTM-CRF" / "seed-1" / reproduce.LOG).read_text(encoding="utf-8")
    assert main([*command, "--text_config", json.dumps(TEXT)]) == 0
    said = capsys.readouterr().out
    assert "BiLSTM-CRF, seed 1: there already" in said and "MLMNER, seed 1: test F1" in said
    assert not (tmp_path / "out" / "MLMNER" / "seed-1" / "model").exists()
    assert main([*command, "--epochs", "2", "--text_config", json.dumps(TEXT)]) == 2
    assert "found another one's: epochs (expected 2, found 1)" in capsys.readouterr().err


def test_preflight_names_what_is_missing(monkeypatch, tmp_path):
    """If it failed, a user would learn after the first rows that the weights of the last are not there."""

    def step(recipe: Recipe) -> reproduce.Estimate:
        if recipe.name == "mlmner":
            raise OSError("no weights")
        return reproduce.Estimate(1000, 0.5, 2**31, 90.0, {"train": 9, "test": 4}, {"train": 3, "test": 0})

    monkeypatch.setattr(reproduce, "estimate", step)
    monkeypatch.setattr(reproduce, "in_own_process", in_this_process)
    said: list[str] = []
    preflight(table4_runs(tmp_path), said.append)
    step_line, pictures = said[0].split("; ")
    assert step_line == "without both: 1,000 parameters, 0.50 s a step, 2.0 GiB, about 2 x 1.5 min"
    assert pictures == "posts with a picture: train 3 of 9, test 0 of 4"
    assert said[3:] == ["MLMNER: cannot run; OSError: no weights", "in all about 9 min for 6 of 8 runs"]
