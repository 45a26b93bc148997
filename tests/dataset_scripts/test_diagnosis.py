"""Tests of what `mmner inspect` says of people's own files: the mistake, what mends it, how to train."""

import shlex
from pathlib import Path
from typing import Any

import datasets
import pytest

import train_accelerate
from modeling_mmner.cli import main
from modeling_mmner.inference.loading import load_model
from modeling_mmner.training.recipes import load_recipe
from tests.mistaken_exports import MISTAKES, Mistake, pictures, records
from tests.small_corpora import write_posts
from tests.tiny import TEXT, TOWER
from tests.tool_exports import json_lines


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """`datasets` keeps what it loads in a folder of the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def options_of(mistake: Mistake, folder: Path) -> dict[str, Any]:
    filled = mistake.options.items()
    return {key: value.format(folder) if isinstance(value, str) else value for key, value in filled}


def typed(options: dict[str, Any]) -> list[str]:
    """The options as they stand in a command."""
    parts = []
    for name, value in options.items():
        pairs = [f"{key}={one}" for key, one in value.items()] if isinstance(value, dict) else value
        parts += [f"--{name}", value if isinstance(value, str) else ",".join(pairs)]
    return parts


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_named_with_its_remedy(tmp_path, capsys, mistake):
    """If it failed, somebody would train on less than they labelled, or not know what to type."""
    status = main(["inspect", str(mistake.write(tmp_path))])
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert (status, mistake.named in said, mistake.remedy in said) == (mistake.status, True, True), said


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_mended_file_loses_nothing_and_trains(tmp_path, capsys, mistake):
    """If it failed, the remedy would be none, or what is understood could not be trained on."""
    path, options = (mistake.mended or mistake.write)(tmp_path), options_of(mistake, tmp_path)
    assert main(["inspect", str(path), *typed(options)]) == 0
    assert "Nothing would be lost in training." in capsys.readouterr().out
    small = {
        "text_config": TEXT,
        "vocabulary_size": 100,
        "vision_towers": [TOWER | {"pretrained": False}],
        "epochs": 1,
    }
    given = {"dataset": str(path), "output_dir": str(tmp_path / "run"), "languages": [], **options}
    train_accelerate.train(load_recipe("quickstart", small | given | {"compare_without_pictures": False}))
    model, _ = load_model(str(tmp_path / "run" / "model"))
    assert {label[2:] for label in model.config.labels if label != "O"} == {"PER", "LOC"}


def test_what_is_understood_comes_first_and_the_command_last(tmp_path, capsys):
    """If it failed, the most needed would drown in tables, or the command train on something else."""
    path = json_lines(tmp_path / "my posts.jsonl", records(language=lambda number, _: "de"))
    assert main(["inspect", str(path), "--columns", "text=text", "--split_ratio", "60,20,20"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "my posts: what was understood"
    wanted = {
        "form": "my posts.jsonl: texts with spans, split by 60,20,20, seed 1",
        "types": "PER 20, LOC 20",
        "splits": "train 24, validation 8, test 8",
        "languages": "de",
        "pictures": "0 found, 0 missing, 0 broken; posts without one: 40",
    }
    found = dict(line.split(maxsplit=1) for line in lines[:7])
    assert found.pop("longest").startswith("7 words; a training step of 16 such posts takes about ")
    assert found == wanted | {"columns": "id, tokens, ner_tags, image, language, source"}
    command = ["mmner", "train", "--recipe", "bert-crf", "--dataset", str(path), "--languages", "de"]
    command += ["--columns", "text=text", "--split_ratio", "60,20,20", "--output_dir", "outputs/my posts"]
    assert shlex.split(lines[-1]) == command


def test_command_trains_where_all_pictures_are_lost(tmp_path, capsys):
    """If it failed, the command that `inspect` gives would be refused by training."""
    path = json_lines(tmp_path / "posts.jsonl", records(image=lambda number, _: f"p{number}.jpg"))
    assert main(["inspect", str(path)]) == 1
    assert "--no_use_images" in shlex.split(capsys.readouterr().out.splitlines()[-1])


def test_types_and_tags_that_cannot_be_learnt_are_said(tmp_path, capsys):
    """If it failed, a type of the test split alone or orphan I- tags would show in scores only."""
    for split, tags in {"train": "B-PER I-LOC", "valid": "B-PER O", "test": "B-ORG B-LOC"}.items():
        made = [{"tokens": [f"{split}{n}", "b"], "ner_tags": tags.split()} for n in range(3)]
        json_lines(tmp_path / f"{split}.jsonl", made)
    assert main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "I- tags that continue no entity: 3" in said and "-> --repair_orphans" in said
    assert "types without an entity to learn from in train: 2" in said


@pytest.mark.parametrize("name", ["posts.jsonl", "train.txt"])
def test_renaming_a_type_that_is_not_there_is_refused(tmp_path, capsys, name):
    """If it failed, a slip of the pen would leave two types that were to be one."""
    if name == "train.txt":
        write_posts(tmp_path)
    path = tmp_path if name == "train.txt" else json_lines(tmp_path / name, records())
    assert main(["inspect", str(path), "--rename_types", "LCO=PLACE"]) == 2
    assert "--rename_types: expected a type of the corpus, as " in (said := capsys.readouterr().err)
    assert "LOC" in said and said.endswith("found 'LCO'\n")
    assert main(["inspect", str(path), "--rename_types", "LOC=PLACE"]) == 0


def test_training_posts_alone_are_split_and_others_are_asked_for(tmp_path, capsys):
    """If it failed, `inspect` would give a command that fails, and say that nothing is lost."""
    json_lines(tmp_path / "train.jsonl", records())
    assert main(["inspect", str(tmp_path)]) == 0
    assert "train 32, validation 4, test 4" in capsys.readouterr().out
    json_lines(tmp_path / "valid.jsonl", records())
    assert main(["inspect", str(tmp_path)]) == 1
    assert "splits that training needs: no test: 1" in (said := capsys.readouterr().out)
    assert said.endswith("; training needs more splits\n")


def test_type_that_no_model_can_have_is_refused(tmp_path, capsys):
    """If it failed, training would refuse what `inspect` has found to be in order."""
    kind = lambda _, record: [record["spans"][0] | {"label": "a\tb"}]  # noqa: E731
    assert main(["inspect", str(json_lines(tmp_path / "posts.jsonl", records(spans=kind)))]) == 2
    assert "no tab, line break or space at a type's ends" in capsys.readouterr().err


def test_one_text_with_two_pictures_may_have_two_readings(tmp_path, capsys):
    """If it failed, what a picture decides would be called a mistake."""
    pictures(tmp_path / "images")
    made = records(image=lambda number, _: f"images/p{number:03}.jpg")
    again = records(image=lambda number, _: f"images/p{39 - number:03}.jpg", spans=lambda *_: [])
    assert main(["inspect", str(json_lines(tmp_path / "posts.jsonl", made + again))]) == 0


def test_examples_of_strangers_do_not_reach_the_terminal_raw(tmp_path, capsys):
    """If it failed, a post could clear the screen of whoever inspects it."""
    made = records(image=lambda number, _: f"\x1b[2J{number}\n.jpg")
    assert main(["inspect", str(json_lines(tmp_path / "posts.jsonl", made))]) == 1
    said = capsys.readouterr().out
    assert "pictures left out: no such file: 40" in said and "\x1b" not in said
