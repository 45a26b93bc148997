"""Runs that go on from a checkpoint equal those never interrupted, and what does not fit is refused."""

import hashlib
import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel, pipeline

import train_accelerate
from modeling_mmner import MMNERForTokenClassification, files
from modeling_mmner.model import images_mmner
from modeling_mmner.training.assembly import content_of_names
from modeling_mmner.training.checkpoints import Checkpoints
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.recipes import Recipe, load_recipe
from modeling_mmner.training.run_folder import RunError, is_finished
from modeling_mmner.training.vocabulary import train_tokenizer
from tests import tiny
from tests.interrupted import (
    TRAINED_TOWER,
    TWO_M_NER,
    Killed,
    assert_same_run,
    checkpoints_in,
    frozen_tower,
    recipe_in,
    train_dying,
    train_killed,
    whole_and_killed,
)


@pytest.fixture(scope="module")
def died(corpus, tmp_path_factory) -> Recipe:
    """The recipe of a run that died in its second epoch, with two checkpoints."""
    recipe = recipe_in(corpus, output_dir=str(tmp_path_factory.mktemp("died") / "output"))
    train_killed(recipe, saves=5)
    return recipe


@pytest.fixture
def recipe(died, tmp_path) -> Recipe:
    """A copy of the run that died, for one test."""
    shutil.copytree(died.training.output_dir, tmp_path / "output")
    return died.with_settings(output_dir=str(tmp_path / "output"))


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a step is made."""
    monkeypatch.setattr(train_accelerate, "train_batches", lambda *_, **__: pytest.fail("a step was made"))


# Going on equals never having stopped

SYSTEMS: dict[str, tuple[dict[str, Any], int]] = {
    "accumulation": ({"accumulation": 4, "checkpoint_steps": 1}, 6),
    "between epochs": ({"checkpoint_steps": 0, "epochs": 3}, 3),
    "no pictures": ({"use_images": False, "checkpoint_steps": 4}, 5),
    "2M-NER": (TWO_M_NER | {"checkpoint_steps": 4}, 5),
    "trained tower": ({"vision_towers": [TRAINED_TOWER], "checkpoint_steps": 3}, 6),
}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_run_that_dies_at_each_checkpoint_equals_one_that_does_not(corpus, tmp_path, system):
    """If it failed, a run that goes on would see other posts or forget what it had found."""
    settings, deaths = SYSTEMS[system]
    whole, dying = whole_and_killed(corpus, tmp_path, **settings)
    train_accelerate.train(whole)
    assert train_dying(dying) == deaths
    assert_same_run(whole, dying)


@pytest.mark.slow
def test_frozen_encoder_that_is_not_there_is_in_no_checkpoint(corpus, tmp_path):
    """If it failed, a run without its encoder could not go on."""
    settings = {"vision_towers": [frozen_tower(tmp_path)], "feature_cache": str(tmp_path / "features")}
    whole, dying = whole_and_killed(corpus, tmp_path, **settings)
    train_accelerate.train(whole)
    train_killed(dying, saves=5)
    newest = checkpoints_in(dying)[-1]
    names = [load_file(newest / name).keys() for name in ("model.safetensors", "best.safetensors")]
    assert names[0] == names[1] and len(names[0]) > 50
    assert not [name for name in names[0] if "backbone" in name]
    train_accelerate.train(dying)
    assert_same_run(whole, dying)
    saved = MMNERForTokenClassification.from_pretrained(tmp_path / "killed" / "model")
    assert saved.vision_towers[0].backbone is not None


@pytest.mark.slow
def test_settings_that_change_no_result_may_differ(recipe, uninterrupted, tmp_path):
    """If it failed, a run could not go on with more workers, or from another place."""
    moved = tmp_path / "moved"
    shutil.move(recipe.training.output_dir, moved)
    other = recipe.with_settings(
        output_dir=str(moved),
        checkpoint_steps=3,
        checkpoints_kept=1,
        num_workers=1,
        feature_cache=str(tmp_path / "features"),
    )
    train_accelerate.train(other)
    assert_same_run(uninterrupted, recipe.with_settings(output_dir=str(moved)))


def test_named_checkpoint_goes_on_in_another_folder(recipe, uninterrupted, tmp_path):
    """If it failed, a checkpoint could not be tried twice, or would need the folder that it was made in."""
    first, _ = checkpoints_in(recipe)
    other = recipe.with_settings(output_dir=str(tmp_path / "other"), resume=str(first))
    train_accelerate.train(other)
    assert_same_run(uninterrupted, other)
    assert len(checkpoints_in(recipe)) == 2


@pytest.mark.slow
def test_finished_run_is_run_anew(uninterrupted, tmp_path):
    """If it failed, the same command again would do nothing, or half replaced results pass for its own."""
    shutil.copytree(uninterrupted.training.output_dir, tmp_path / "again")
    again = uninterrupted.with_settings(output_dir=str(tmp_path / "again"))
    output = tmp_path / "again"
    results = [output / name for name in ("metrics.json", "model/model.safetensors", "predictions.jsonl")]
    assert is_finished(output) and not (output / "checkpoints").exists()
    before = [path.read_bytes() for path in results]
    train_killed(again, saves=1)
    assert is_finished(output) is False and before == [path.read_bytes() for path in results]
    train_accelerate.train(again)
    assert is_finished(output) and (output / "metrics.json").read_bytes() != before[0]  # its times are others
    assert_same_run(uninterrupted, again)


def test_unfinished_run_loads_as_no_model(recipe):
    """If it failed, half a model would be used as a whole one."""
    output = Path(recipe.training.output_dir)
    assert is_finished(output) is False
    for folder in (output, output / "model", checkpoints_in(recipe)[-1]):
        for load in (AutoModel.from_pretrained, lambda place: pipeline("multimodal-ner", model=place)):
            with pytest.raises((OSError, ValueError)):
                load(str(folder))


def test_never_begins_anew(recipe, monkeypatch):
    """If it failed, nobody could be rid of a run that was begun."""

    def save(checkpoints: Checkpoints, *_: Any, **__: Any) -> None:
        assert checkpoints.progress.steps == 1 and not checkpoints_in(recipe)
        raise Killed

    monkeypatch.setattr(train_accelerate, "save", save)
    with pytest.raises(Killed):
        train_accelerate.train(recipe.with_settings(resume="never"))


def test_last_checkpoints_are_kept_with_the_weights_that_they_need(corpus, tmp_path):
    """If it failed, checkpoints would fill the disk, or the best epoch's weights be gone."""
    recipe = recipe_in(corpus, output_dir=str(tmp_path), checkpoints_kept=3)
    train_killed(recipe, saves=6)
    names = [f"epoch-0002-step-{step:08d}" for step in (6, 8, 10)]
    there = sorted((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in there] == names
    # The weights of the first epoch, under several names.
    assert len({(path / "best.safetensors").stat().st_ino for path in there}) == 1


# What does not fit is refused


def test_checkpoint_of_another_recipe_is_refused_by_name(recipe, monkeypatch):
    """If it failed, a run would go on with settings that half of it was not trained with."""
    no_training(monkeypatch)
    newest = checkpoints_in(recipe)[-1]
    message = (
        f"{newest}: expected a checkpoint of the same recipe and corpus, found one that differs in batch_size"
        " (expected 8, found 4), seed (expected 7, found 1). Give its settings,"
        " name another --output_dir, or begin anew: --resume never removes it"
    )
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        train_accelerate.train(recipe.with_settings(batch_size=8, seed=7))
    assert len(checkpoints_in(recipe)) == 2


def test_checkpoint_of_another_corpus_is_refused(recipe, corpus, tmp_path, monkeypatch):
    """If it failed, the posts that a checkpoint takes for seen would be others."""
    no_training(monkeypatch)
    shutil.copytree(corpus / "images", tmp_path / "corpus" / "images")
    for path in corpus.glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / "corpus" / path.name).write_text(text.replace("\tO\n", "\tB-LOC\n", 1), encoding="utf-8")
    moved = {"data_dir": str(tmp_path / "corpus"), "image_dir": str(tmp_path / "corpus" / "images")}
    message = r"differs in corpus \(expected '.*', found '.*'\), labels .*\. Give its settings"
    with pytest.raises(RunError, match=message):
        train_accelerate.train(recipe.with_settings(**moved))


def long_ago(path: Path, content: bytes, *, seconds: int = 1_700_000_000) -> None:
    """Write a file as if it were old, so that its hash is noted."""
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))


def test_checkpoint_of_other_pictures_is_refused(corpus, tmp_path, monkeypatch):
    """If it failed, a run would go on with other pictures of the same names and sizes, and find nonsense."""
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    pictures = sorted((folder / "images").glob("*.jpg"))
    for path in pictures:
        long_ago(path, path.read_bytes())
    recipe = recipe_in(folder, output_dir=str(tmp_path / "output"))
    train_killed(recipe, saves=1)
    no_training(monkeypatch)
    content = {path: path.read_bytes() for path in pictures}
    for path, other in zip(pictures, [*pictures[1:], pictures[0]], strict=True):
        size = len(content[path])
        long_ago(path, content[other][:size].ljust(size, b"\0"), seconds=1_700_000_001)
    with pytest.raises(RunError, match=r"one that differs in corpus \(expected '.*', found '.*'\)\. Give"):
        train_accelerate.train(recipe)


def test_start_on_a_corpus_that_has_not_changed_reads_no_picture(corpus, tmp_path, monkeypatch):
    """If it failed, each start would read, or even decode, all pictures again."""
    shutil.copytree(corpus, tmp_path / "corpus")
    settings = recipe_in(tmp_path / "corpus").corpus
    monkeypatch.setattr(files.time, "time_ns", lambda: 2**62)  # long after the copy
    first = load_corpus(settings)
    digest = first.digest()
    read_bytes, opened = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: [opened.append(path), read_bytes(path)][1])
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(images_mmner, "_decoded", lambda *_: pytest.fail("a picture was decoded"))
    again = load_corpus(settings)
    assert again.pictures == first.pictures and again.pictures["train"].broken == 1
    assert again.digest() == digest and not [path for path in opened if path.suffix == ".jpg"]


def other_weights(path: Path) -> None:
    state = {name: tensor + 1 for name, tensor in load_file(path).items()}
    save_file(state, path)
    os.utime(path, (1_700_000_001, 1_700_000_001))


def test_checkpoint_of_other_weights_of_one_name_is_refused(corpus, tmp_path, monkeypatch):
    """Regression: other weights under the same --vision_checkpoint gave the result of neither run."""
    recipe = recipe_in(corpus, output_dir=str(tmp_path / "output"), vision_towers=[frozen_tower(tmp_path)])
    os.utime(tmp_path / "tower.safetensors", (1_700_000_000, 1_700_000_000))
    train_killed(recipe, saves=1)
    no_training(monkeypatch)
    other_weights(tmp_path / "tower.safetensors")
    what = r"differs in content of vision_towers\[0\] \(expected '\w{12}', found '\w{12}'\)\. Give"
    with pytest.raises(RunError, match=what):
        train_accelerate.train(recipe)


@pytest.fixture
def encoder(tmp_path) -> Path:
    """A folder with a text encoder."""
    folder = tmp_path / "encoder"
    BertModel(BertConfig(**tiny.TEXT)).save_pretrained(folder)
    train_tokenizer([["Jordan", "posts"]], 100).save_pretrained(folder)
    return folder


def in_the_cache(folder: Path, home: Path, name: str) -> Path:
    """Put a folder's files where the Hub's cache has those of a model of this name."""
    place = home / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    return Path(shutil.copytree(folder, place / "snapshots" / ("a" * 40)))


@pytest.mark.parametrize("is_on_hub", [False, True], ids=["folder", "Hub"])
def test_text_encoder_is_known_by_its_content(encoder, tmp_path, monkeypatch, is_on_hub):
    """If it failed, a run would go on with another encoder or tokenizer, or not with the same one."""
    name = str(encoder)
    if is_on_hub:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        name, encoder = "org/small", in_the_cache(encoder, tmp_path / "hub", "org/small")
    recipe = load_recipe("bert-crf", {"text_encoder": name})

    def content() -> str:
        return content_of_names(recipe)["content of text_encoder"]

    seen = [content()]
    (encoder / "README.md").write_text("another card")
    (encoder / "onnx").mkdir()
    assert content() == seen[0], "what no run reads is counted"
    other_weights(encoder / "model.safetensors")
    seen.append(content())
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (encoder / file).write_text((encoder / file).read_text() + " ")
        seen.append(content())
    assert len({*seen}) == len(seen) == 5


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.bin", "random_states_0.pkl", "progress.json", "checkpoint.json"]
)
def test_older_checkpoint_is_used_where_the_newest_is_corrupt(recipe, monkeypatch, capsys, name):
    """If it failed, one bad sector would cost the run, or its weights be nonsense."""
    older, newest = checkpoints_in(recipe)
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (newest / name).write_bytes(content)

    def stop(*_: Any, **__: Any) -> None:
        raise Killed

    monkeypatch.setattr(train_accelerate, "train_batches", stop)
    with pytest.raises(Killed):
        train_accelerate.train(recipe)
    said = capsys.readouterr().out
    is_manifest = name == "checkpoint.json"
    what = "checkpoint.json with the SHA-256 of its files" if is_manifest else f"{name} with SHA-256 "
    assert f"{newest}: expected {what}" in said and "passed over for the one before" in said
    assert f"going on from {older}: epoch 2, 0 batches done" in said


@pytest.mark.parametrize(("how", "wanted"), [("auto", "optimizer.bin with"), ("{}", "checkpoint.json with")])
def test_run_without_a_whole_checkpoint_does_not_begin_anew_unasked(
    recipe, tmp_path, monkeypatch, how, wanted
):
    """If it failed, days of training would be thrown away without a word, as for a mistyped path."""
    no_training(monkeypatch)
    for path in checkpoints_in(recipe):
        (path / "optimizer.bin").unlink()
    how = how.format(tmp_path)
    message = (
        rf"--resume {how}: expected a whole checkpoint .*, found none: .*: expected {wanted} .*, found no"
    )
    with pytest.raises(RunError, match=rf"{message}.* or begin anew with --resume never"):
        train_accelerate.train(recipe.with_settings(resume=how))


class Planted:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "form"),
    [("optimizer.bin", "pickle"), ("random_states_0.pkl", "torch"), ("custom_checkpoint_0.pkl", "pickle")],
)
def test_planted_pickle_is_refused(recipe, tmp_path, monkeypatch, name, form):
    """If it failed, whoever hands on a checkpoint could run a program on another's machine."""
    no_training(monkeypatch)
    newest, mark = checkpoints_in(recipe)[-1], tmp_path / "it was run"
    with (newest / name).open("wb") as file:
        pickle.dump(Planted(mark), file) if form == "pickle" else torch.save(Planted(mark), file)
    manifest = json.loads((newest / "checkpoint.json").read_text())
    manifest["files"][name] = hashlib.sha256((newest / name).read_bytes()).hexdigest()
    (newest / "checkpoint.json").write_text(json.dumps(manifest))
    message = (
        rf"{newest}: expected tensors and plain values that fit this run, found .*; nothing of it was run"
    )
    with pytest.raises(RunError, match=message):
        train_accelerate.train(recipe)
    assert not mark.exists()
