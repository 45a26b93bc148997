"""Tests of model folders and of pushing them: what is refused, what goes where, and in which order."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from transformers import AutoConfig

from modeling_mmner import MMNERConfig, MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.hub import push as hub
from modeling_mmner.hub.push import plan_upload, push, save_hub_folder
from tests.saved import save_small
from tests.small_metrics import card_of, make_metrics, run_metrics
from tests.tiny import TEXT, TOWER, ready_model

PACKAGE = Path(hub.__file__).parents[1] / "model"
NO_PROCESSOR: Any = SimpleNamespace(save_pretrained=lambda target: None)


@pytest.fixture
def online(monkeypatch) -> HfApi:
    """Stands for the Hub, which has no repository; writes down what is asked of it."""
    api = create_autospec(HfApi, instance=True)
    api.create_repo.side_effect = lambda target, private, exist_ok: has_repository(api, private=private)
    api.create_commit.return_value = SimpleNamespace(oid="c0ffee", commit_url="https://hub/commit")
    monkeypatch.setattr(hub, "HfApi", lambda: api)
    return api


def asked(api: HfApi) -> list[str]:
    return [name for name, _, _ in api.method_calls]


def has_repository(api: HfApi, *, private: bool, tags: tuple[str, ...] = ()) -> None:
    api.create_repo.side_effect = None
    api.repo_info.return_value.private = private
    named = {"tags": tags, "branches": ("main",)}
    refs = {kind: [SimpleNamespace(name=name) for name in names] for kind, names in named.items()}
    api.list_repo_refs.return_value = SimpleNamespace(**refs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save_small(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A model's folder that the test may spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def pushed(folder: Path, *options: str) -> int:
    return main(["push", "--model", str(folder), "--repo_id", "org/name", *options])


# The folder.


def test_folder_holds_a_whole_model_and_its_own_card(saved):
    """If it failed, a model could not be loaded, bring files that nothing reads, or have another's card."""
    names = {path.name for path in saved.iterdir()}
    travelling = {path.name for path in PACKAGE.glob("*_mmner.py")}
    assert {name for name in names if name.endswith(".py")} == travelling | {"handler.py"}
    assert names >= {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}
    metrics = json.loads((saved / "metrics.json").read_text("utf-8"))
    assert (saved / "README.md").read_text("utf-8") == card_of(metrics)
    assert metrics["splits"] == run_metrics().to_dict()["splits"]


def test_saving_again_replaces_the_model_and_takes_nothing_else_up(folder):
    """If it failed, an older save's weights would be loaded, or notes in the folder be pushed."""
    (folder / "notes.txt").write_text("private")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"old")
    parts = [kind.from_pretrained(folder) for kind in (MMNERForTokenClassification, MMNERProcessor)]
    save_hub_folder(*parts, folder=folder, metrics=run_metrics())
    assert (folder / "notes.txt").read_text() == "private"
    assert not (folder / "model-00001-of-00002.safetensors").exists()
    assert plan_upload(folder, repo_id="org/name").left_out == ["notes.txt"]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_save_that_is_cut_off_leaves_the_model_that_was_there(folder):
    """Regression: a killed save left the new weights beside the old tokenizer, and both loaded."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    class Killed(BaseException):
        pass

    def die(target: str) -> None:
        raise Killed

    processor = SimpleNamespace(save_pretrained=die)
    with pytest.raises(Killed):
        save_hub_folder(ready_model(seed=7), processor, folder=folder, metrics=run_metrics())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_metrics_that_make_no_card_cost_no_weights(tmp_path):
    """If it failed, a slip in a name would throw away a training, or be pushed without a card."""
    model, metrics = ready_model(), run_metrics()
    metrics.license = "mit"
    with pytest.raises(ValueError, match=r"expected the license 'apache-2\.0'"):
        save_hub_folder(model, NO_PROCESSOR, folder=tmp_path, metrics=metrics)
    again = MMNERForTokenClassification.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match=r"found no metrics\.json, processor_config\.json, tokenizer\.json"):
        plan_upload(tmp_path, repo_id="org/name")


def test_path_of_the_text_encoder_stays_private(tmp_path):
    """If it failed, config.json on the Hub would have folder names of whoever trained the model."""
    encoder = AutoConfig.for_model(**TEXT)
    encoder._name_or_path = str(tmp_path / "somebody" / "encoder")
    model = MMNERForTokenClassification(MMNERConfig(text_config=encoder, vision_towers=[TOWER]))
    metrics = run_metrics(output_dir=str(tmp_path / "somebody"))
    save_hub_folder(model, NO_PROCESSOR, folder=tmp_path / "model", metrics=metrics)
    texts = [path.read_text("utf-8") for path in (tmp_path / "model").glob("*.[jm]*[nd]")]
    assert len(texts) == 3 and not any(str(tmp_path) in text for text in texts)


# What would go where.


def test_dry_run_prints_what_goes_where_and_asks_nothing(folder, online, capsys):
    """If it failed, a user would not see what is published, or the question would publish it."""
    (folder / "notes.txt").write_text("private")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "checkpoint").mkdir()
    for name in ("optimizer.pt", "model.safetensors", "metrics.json"):
        (folder / "checkpoint" / name).write_bytes(b"x")
    assert pushed(folder, "--revision", "v7", "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "repository: org/name (private)",
        "revision: main, tag v7",
        "licence: apache-2.0, from the terms of",
        "  corpus sample: apache-2.0",
    ]
    for name in ("config.json", "model.safetensors", "modeling_mmner.py", "metrics.json"):
        assert f"  {name}: {(folder / name).stat().st_size:,} bytes" in lines
    card = card_of(make_metrics(), repo_id="org/name", revision="v7").encode()
    others = {".DS_Store", "notes.txt", "README.md"}
    ours = [path for path in folder.iterdir() if path.is_file() and path.name not in others]
    sizes = [len(card), *(path.stat().st_size for path in ours)]
    assert f"  {len(sizes)} files, {sum(sizes):,} bytes" in lines
    left_out = [".DS_Store", "checkpoint/metrics.json", "checkpoint/model.safetensors"]
    left_out += ["checkpoint/optimizer.pt", "notes.txt"]
    assert lines[-7:-2] == [f"left out: {name}" for name in left_out]
    assert lines[-2].startswith("posts that become readable for whoever sees the repository: none; --card_ex")
    assert lines[-1] == "dry run: nothing was sent"
    assert not asked(online)


def test_terms_are_shown_before_a_push(tmp_path, online, capsys):
    """If it failed, weights from posts without a licence would be published unseen."""
    assert pushed(save_small(tmp_path / "model", recipe="bert-crf"), "--public") == 0
    shown = capsys.readouterr().out
    assert "repository: org/name (public)\n" in shown
    terms = "licence: other, from the terms of\n  corpus twitter2017: none\n  text encoder"
    assert f"{terms} google-bert/bert-base-cased: apache-2.0\n" in shown


# What is refused.


def test_link_out_of_the_folder_is_not_pushed(folder, online, tmp_path, capsys):
    """Regression: the file that a link in the folder led to was uploaded under the link's name."""
    (tmp_path / "key").write_text("SECRET")
    (folder / "tokenizer_extra.json").symlink_to(tmp_path / "key")
    assert pushed(folder) == 2
    assert "tokenizer_extra.json: expected a file of the folder" in capsys.readouterr().err
    assert not asked(online)


@pytest.mark.parametrize(
    "names",
    [
        ["crf_mmner.py", "processor_config.json"],
        *(["model.safetensors"], ["modeling_mmner.py"], ["metrics.json"], ["config.json"]),
    ],
)
def test_missing_files_are_refused_and_all_named(folder, online, capsys, names):
    """If it failed, a model would be pushed that cannot be loaded, or its gaps be told one by one."""
    for name in names:
        (folder / name).unlink()
    assert pushed(folder, "--dry_run") == 2
    error = capsys.readouterr().err
    message = f"push: {folder}: expected all files of a trained model, found no {', '.join(names)}. Save the"
    assert error.startswith(message) and error.count("\n") == 1
    assert not asked(online)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", None),
        ("config.json", b"{}"),
        ("config.json", b'{"auto_map": 3}'),
        ("metrics.json", b"{"),
        ("crf_mmner.py", b"\xff"),
    ],
)
def test_files_that_cannot_be_read_are_refused(folder, online, capsys, name, content):
    """If it failed, weights that were cut off would get to the Hub, or a damaged file end in a trace."""
    (folder / name).write_bytes((folder / name).read_bytes()[:-9] if content is None else content)
    assert pushed(folder) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"push: {folder}") and "expected" in error and error.count("\n") == 1
    assert not asked(online)


@pytest.mark.parametrize(
    ("option", "names", "message"),
    [
        ("--repo_id", ["name", "org/name/more", "org/na me", "org/--name"], ""),
        ("--revision", ["a b", "-v1", "v1..2", "v1.lock", "v1.", "refs/tags/v1", "v1~"], "expected the name"),
        ("--model", ["nowhere"], "nowhere: expected the folder of a trained model, found none"),
    ],
)
def test_impossible_names_are_refused(saved, online, capsys, option, names, message):
    """If it failed, the Hub would refuse a name half-way, and the card's examples would load nothing."""
    for name in names:
        assert pushed(saved, f"{option}={name}") == 2
        error = capsys.readouterr().err
        assert message in error and name in error and error.count("\n") == 1
    assert not asked(online)


# The push.


@pytest.mark.parametrize("public", [False, True])
def test_new_repository_gets_one_commit_and_then_its_tag(folder, online, capsys, public):
    """If it failed, a model would be public unasked, there by halves, without its tag, or with a card of
    another name or with a typed-in score.
    """
    (folder / "notes.txt").write_text("private")
    (folder / "README.md").write_text("| overall | 99.9 |")
    assert pushed(folder, *["--public"] * public) == 0
    assert capsys.readouterr().out.endswith("pushed to https://hub/commit\n")
    assert asked(online) == ["create_repo", "repo_info", "list_repo_refs", "create_commit", "create_tag"]
    online.create_repo.assert_called_once_with("org/name", private=not public, exist_ok=True)
    online.create_tag.assert_called_once_with("org/name", tag="v0.1.0", revision="c0ffee")
    (target, operations), options = online.create_commit.call_args
    assert (target, options["commit_message"]) == ("org/name", "quickstart v0.1.0, trained with mmner 0.1.0")
    assert all(isinstance(operation, CommitOperationAdd) for operation in operations)
    content = {operation.path_in_repo: operation.path_or_fileobj for operation in operations}
    assert content.pop("README.md") == card_of(make_metrics(), repo_id="org/name").encode()
    ours = {path.name: str(path) for path in folder.iterdir()}
    assert content == {name: path for name, path in ours.items() if name not in ("notes.txt", "README.md")}


def test_existing_repository_is_looked_at_first(saved, online):
    """If it failed, a push would overwrite what it should not, or could not renew a model."""
    has_repository(online, private=True, tags=("v0.0.9",))
    assert push(plan_upload(saved, repo_id="org/name")) == "https://hub/commit"
    assert asked(online) == ["create_repo", "repo_info", "list_repo_refs", "create_commit", "create_tag"]


@pytest.mark.parametrize(
    ("private", "options", "message"),
    [
        (False, [], "expected a private repository, found a public one; --public says that is meant"),
        (True, ["--public"], "expected a public repository, found a private one; leave --public out, or"),
        (True, [], "expected no tag or branch 'v0.1.0' yet, found one, which others may have pinned"),
        (True, ["--revision", "main"], "expected no tag or branch 'main' yet, found one"),
    ],
)
def test_repository_with_another_visibility_or_such_a_tag_is_refused(
    saved, online, capsys, private, options, message
):
    """If it failed, private weights would be seen by all, or a pinned tag be another model's."""
    has_repository(online, private=private, tags=("v0.1.0",))
    assert pushed(saved, *options) == 2
    assert f"push: org/name: {message}" in capsys.readouterr().err
    assert "create_commit" not in asked(online)


@pytest.mark.parametrize(
    ("call", "doing"),
    [
        ("create_repo", "making the repository, or looking at it"),
        ("create_commit", "uploading the files"),
        ("create_tag", "setting the tag (the files are there: the same command again only sets the tag)"),
    ],
)
def test_errors_of_the_network_are_one_line(saved, online, capsys, call, doing):
    """If it failed, a user without a network would see a trace, or not know how far the push has got."""
    getattr(online, call).side_effect = OfflineModeIsEnabled("no\n network")
    assert pushed(saved) == 2
    assert capsys.readouterr().err == f"push: org/name: {doing} failed: no network\n"
    assert asked(online)[-1] == call
