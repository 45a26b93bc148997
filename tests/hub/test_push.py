"""Tests of model folders and of pushing them: what is refused, what goes where, and what is asked of the Hub
in which order.
"""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from transformers import AutoConfig

from modeling_mmner import MMNERConfig, MMNERForTokenClassification
from modeling_mmner.cli import main
from modeling_mmner.hub import push as hub
from modeling_mmner.hub.push import plan_upload, push, save_hub_folder
from tests.saved import save_small
from tests.small_metrics import card_of, make_metrics, run_metrics
from tests.tiny import TEXT, TOWER, ready_model

PACKAGE = Path(hub.__file__).parents[1] / "model"


class Hub:
    """Stands for the Hub, with at most one repository; writes down what is asked of it."""

    def __init__(self) -> None:
        self.private: bool | None = None
        self.tags: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.calls: list[tuple[str, tuple, dict]] = []

    def __call__(self) -> "Hub":
        return self

    def __getattr__(self, name: str):
        assert hasattr(HfApi, name)

        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            if name in self.failing:
                raise self.failing[name]
            refs = SimpleNamespace(
                tags=[SimpleNamespace(name=tag) for tag in self.tags], branches=[SimpleNamespace(name="main")]
            )
            answers = {
                "repo_exists": self.private is not None,
                "repo_info": SimpleNamespace(private=self.private),
                "list_repo_refs": refs,
                "create_commit": SimpleNamespace(oid="c0ffee", commit_url="https://hub/commit"),
            }
            return answers.get(name)

        return call

    def asked(self) -> list[str]:
        return [name for name, _, _ in self.calls]


@pytest.fixture
def online(monkeypatch) -> Hub:
    fake = Hub()
    monkeypatch.setattr(hub, "HfApi", fake)
    return fake


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save_small(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A model's folder that the test may spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pushed(folder: Path, *options: str) -> int:
    return main(["push", "--model", str(folder), "--repo_id", "org/name", *options])


# The folder.


def test_manifest_has_the_hash_of_every_other_file(saved):
    """If it failed, a file could be changed without being found out."""
    manifest = json.loads((saved / "manifest.json").read_text("utf-8"))
    files = {path.name: sha256(path.read_bytes()) for path in saved.iterdir() if path.name != "manifest.json"}
    assert manifest == {"mmner": "0.1.0", "files": files}
    code = {path.name for path in PACKAGE.glob("*_mmner.py")}
    assert files.keys() >= code | {
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "README.md",
    }


def test_card_and_metrics_of_the_folder_agree(saved):
    """If it failed, nobody could hold the card on the Hub against the metrics beside it."""
    metrics = json.loads((saved / "metrics.json").read_text("utf-8"))
    assert (saved / "README.md").read_text("utf-8") == card_of(metrics)
    assert metrics["splits"] == run_metrics().to_dict()["splits"]


def test_saving_again_replaces_the_model_and_takes_nothing_else_up(folder):
    """If it failed, an older save's weights would be loaded, or notes that lay in the folder would be pushed
    as the model's.
    """
    (folder / "notes.txt").write_text("private")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"old")
    before = plan_upload(folder, repo_id="org/name").files.keys()
    model = MMNERForTokenClassification.from_pretrained(folder)
    processor = SimpleNamespace(save_pretrained=lambda target: None)
    save_hub_folder(model, processor, folder=folder, metrics=run_metrics())
    assert (folder / "notes.txt").read_text() == "private" and not (
        folder / "model-00001-of-00002.safetensors"
    ).exists()
    plan = plan_upload(folder, repo_id="org/name")
    assert "notes.txt" in plan.left_out and plan.files.keys() < before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_save_that_is_cut_off_leaves_the_model_that_was_there(folder):
    """Regression: a save that was killed between two files left the new weights beside the old tokenizer, and
    both loaded.
    """
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    class Killed(BaseException):
        pass

    def die(target: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        save_hub_folder(
            ready_model(seed=7), SimpleNamespace(save_pretrained=die), folder=folder, metrics=run_metrics()
        )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_metrics_that_make_no_card_cost_no_weights(tmp_path):
    """If it failed, a slip in a name would throw away a training of days; and a folder without its card might
    be pushed.
    """
    model, metrics = ready_model(), run_metrics()
    metrics.license = "mit"
    with pytest.raises(ValueError, match=r"expected the license 'apache-2\.0'"):
        save_hub_folder(
            model, SimpleNamespace(save_pretrained=lambda target: None), folder=tmp_path, metrics=metrics
        )
    again = MMNERForTokenClassification.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match=r"expected manifest\.json"):
        plan_upload(tmp_path, repo_id="org/name")


def test_path_of_the_text_encoder_stays_private(tmp_path):
    """If it failed, config.json on the Hub would have folder names of whoever trained the model, as
    transformers writes them.
    """
    encoder = AutoConfig.for_model(**TEXT)
    encoder._name_or_path = str(tmp_path / "somebody" / "encoder")
    model = MMNERForTokenClassification(MMNERConfig(text_config=encoder, vision_towers=[TOWER]))
    processor = SimpleNamespace(save_pretrained=lambda target: None)
    save_hub_folder(
        model,
        processor,
        folder=tmp_path / "model",
        metrics=run_metrics(output_dir=str(tmp_path / "somebody")),
    )
    texts = [
        path.read_text("utf-8") for path in (tmp_path / "model").iterdir() if path.suffix in (".json", ".md")
    ]
    assert len(texts) == 4 and not any(str(tmp_path) in text for text in texts)


# What would go where.


def test_dry_run_prints_what_goes_where_and_asks_nothing(folder, online, capsys):
    """If it failed, a user would not see before the push what is published, or the question would publish
    something.
    """
    (folder / "notes.txt").write_text("private")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "optimizer.pt").write_bytes(b"x")
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
    plan = plan_upload(folder, repo_id="org/name", revision="v7")
    sizes = [len(part) if isinstance(part, bytes) else part.stat().st_size for part in plan.files.values()]
    assert f"  {len(sizes)} files, {sum(sizes):,} bytes" in lines
    left_out = ["left out: .DS_Store", "left out: checkpoint/optimizer.pt", "left out: notes.txt"]
    assert lines[-4:] == [*left_out, "dry run: nothing was sent"]
    assert not online.calls


def test_terms_are_shown_before_a_push(tmp_path, online, capsys):
    """If it failed, weights from posts without a licence would be published without its user having seen
    that.
    """
    assert pushed(save_small(tmp_path / "model", recipe="bert-crf"), "--public") == 0
    shown = capsys.readouterr().out
    assert "repository: org/name (public)\n" in shown
    terms = (
        "licence: other, from the terms of\n  corpus twitter2017: none\n  text encoder"
        " google-bert/bert-base-cased: apache-2.0\n"
    )
    assert terms in shown


def test_uploaded_card_and_manifest_are_made_for_their_place(saved):
    """If it failed, the card on the Hub would name another model, or the manifest there would not fit its
    files.
    """
    files = plan_upload(saved, repo_id="org/name", revision="v7").files
    card, manifest = files["README.md"], json.loads(files["manifest.json"])
    assert card.decode() == card_of(make_metrics(), repo_id="org/name", revision="v7")
    contents = {name: part if isinstance(part, bytes) else part.read_bytes() for name, part in files.items()}
    assert manifest["files"] == {
        name: sha256(part) for name, part in contents.items() if name != "manifest.json"
    }
    assert contents.keys() == {path.name for path in saved.iterdir()}


def test_tag_is_by_default_the_version_that_trained_the_model(saved):
    """If it failed, a later version of the package would tag a model as its own."""
    assert plan_upload(saved, repo_id="org/name").revision == "v0.1.0"


# What is refused.


@pytest.mark.parametrize(
    "name",
    ["modeling_mmner.py", "model.safetensors", "config.json", "tokenizer.json", "README.md", "metrics.json"],
)
def test_changed_file_is_refused(folder, online, capsys, name):
    """If it failed, code, weights or a figure that nobody has trained or measured would get to the Hub."""
    expected = sha256((folder / name).read_bytes())
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert pushed(folder) == 2
    error = capsys.readouterr().err
    found = sha256((folder / name).read_bytes())
    assert error.startswith(
        f"push: {folder}: expected the files that were saved with the model. {name}: expected SHA-256"
        f" {expected}, "
    )
    assert (
        f"found {found}. Put the saved files back, or save the model again" in error
        and error.count("\n") == 1
    )
    assert not online.calls


def test_missing_files_are_refused_and_all_named(folder, online, capsys):
    """If it failed, a model would be pushed that cannot be loaded, or its user would find the gaps one by
    one.
    """
    (folder / "processor_config.json").unlink()
    (folder / "crf_mmner.py").unlink()
    assert pushed(folder, "--dry_run") == 2
    error = capsys.readouterr().err
    assert "crf_mmner.py: expected SHA-256" in error and "processor_config.json: expected SHA-256" in error
    assert error.count("found no file") == 2


def test_figure_typed_into_card_and_manifest_does_not_get_to_the_hub(folder):
    """If it failed, whoever renews the manifest by hand could publish a score that was never measured."""
    card = (folder / "README.md").read_text("utf-8").replace("| overall |", "| overall | 99.9 |")
    (folder / "README.md").write_text(card, encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["files"]["README.md"] = sha256(card.encode())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    uploaded = plan_upload(folder, repo_id="org/name").files["README.md"]
    assert "99.9" in card and uploaded == card_of(make_metrics(), repo_id="org/name").encode()


@pytest.mark.parametrize(
    "content", [None, "", "[]", '{"files": []}', '{"files": {}}', '{"files": {"config.json": "0"}}']
)
def test_folder_without_a_manifest_is_refused(folder, online, capsys, content):
    """If it failed, a model would be pushed of which nobody can say whether it is the one that was scored."""
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    assert pushed(folder) == 2
    error = capsys.readouterr().err
    assert (
        f"push: {folder}: expected manifest.json with the SHA-256 of the model's files, among them"
        " metrics.json, found" in error
    )
    assert "Save the model with save_hub_folder, as training does" in error and error.count("\n") == 1
    assert not online.calls


def test_something_else_than_a_folder_is_refused(tmp_path, online, capsys):
    """If it failed, a slip in the path, or a model's id, would end in a trace."""
    assert pushed(tmp_path / "none") == 2
    assert (
        capsys.readouterr().err
        == f"push: {tmp_path / 'none'}: expected the folder of a trained model, found none\n"
    )


@pytest.mark.parametrize("repo_id", ["name", "org/name/more", "org/na me", "org/--name"])
def test_impossible_repository_is_refused(saved, online, repo_id, capsys):
    """If it failed, the card's examples would load from a name that is none, or the Hub would refuse it
    half-way.
    """
    assert main(["push", "--model", str(saved), "--repo_id", repo_id]) == 2
    assert f"{repo_id}'" in capsys.readouterr().err and not online.calls


@pytest.mark.parametrize("revision", ["a b", "-v1", "v1..2", "v1.lock", "v1.", "refs/tags/v1", "v1~"])
def test_impossible_tag_is_refused(saved, online, revision, capsys):
    """If it failed, the files would be uploaded and their tag refused, so that the card's examples find
    nothing.
    """
    assert pushed(saved, f"--revision={revision}") == 2
    assert f"--revision: expected the name of a tag, as v0.1.0, found '{revision}'" in capsys.readouterr().err
    assert not online.calls


# The push.


@pytest.mark.parametrize("public", [False, True])
def test_new_repository_gets_one_commit_and_then_its_tag(folder, online, capsys, public):
    """If it failed, a model would be public unasked, there by halves, or without the tag that its card
    pins.
    """
    (folder / "notes.txt").write_text("private")
    assert pushed(folder, *["--public"] * public) == 0
    assert capsys.readouterr().out.endswith("pushed to https://hub/commit\n")
    assert online.asked() == ["repo_exists", "create_repo", "create_commit", "create_tag"]
    _, created, committed, tagged = online.calls
    assert created[1:] == (("org/name",), {"private": not public})
    (target, operations), options = committed[1:]
    assert target == "org/name" and options == {
        "commit_message": "quickstart v0.1.0, trained with mmner 0.1.0"
    }
    assert tagged[1:] == (("org/name",), {"tag": "v0.1.0", "revision": "c0ffee"})

    plan = plan_upload(folder, repo_id="org/name")
    assert all(isinstance(operation, CommitOperationAdd) for operation in operations)
    assert {operation.path_in_repo: operation.path_or_fileobj for operation in operations} == {
        name: part if isinstance(part, bytes) else str(part) for name, part in plan.files.items()
    }
    assert "notes.txt" not in plan.files and "README.md" in plan.files


def test_existing_repository_is_looked_at_first(saved, online):
    """If it failed, a push would overwrite what it should not, or could not renew a model."""
    online.private, online.tags = True, ["v0.0.9"]
    assert push(plan_upload(saved, repo_id="org/name")) == "https://hub/commit"
    assert online.asked() == ["repo_exists", "repo_info", "list_repo_refs", "create_commit", "create_tag"]


@pytest.mark.parametrize(
    ("private", "options", "message"),
    [
        (False, [], "expected a private repository, found a public one; --public says that is meant"),
        (True, ["--public"], "expected a public repository, found a private one; leave --public out, or"),
    ],
)
def test_repository_of_the_other_visibility_is_refused(saved, online, capsys, private, options, message):
    """If it failed, weights meant to be private would be seen by everybody, or a user be told that all can
    see them.
    """
    online.private = private
    assert pushed(saved, *options) == 2
    assert f"push: org/name: {message}" in capsys.readouterr().err
    assert online.asked() == ["repo_exists", "repo_info"]


@pytest.mark.parametrize(("revision", "kind"), [("v0.1.0", "tag"), ("main", "branch")])
def test_known_tag_is_refused_before_anything_is_uploaded(saved, online, capsys, revision, kind):
    """If it failed, a tag that others have pinned would stand for another model, or the push would stop
    half-way.
    """
    online.private, online.tags = True, ["v0.1.0"]
    assert pushed(saved, "--revision", revision) == 2
    error = capsys.readouterr().err
    assert (
        f"org/name: expected no {kind} '{revision}' yet, found one" in error
        and "choose another tag with --revision" in error
    )
    assert online.asked() == ["repo_exists", "repo_info", "list_repo_refs"]


@pytest.mark.parametrize(
    ("call", "doing"),
    [
        ("repo_exists", "looking for the repository failed"),
        ("create_repo", "making the repository failed"),
        ("create_commit", "uploading the files failed"),
        (
            "create_tag",
            "setting the tag (the files are there: the same command again only sets the tag) failed",
        ),
    ],
)
def test_errors_of_the_network_are_one_line(saved, online, capsys, call, doing):
    """If it failed, a user without a network would see a trace, or not know how far the push has got."""
    online.failing = {call: OfflineModeIsEnabled("no\n network")}
    assert pushed(saved) == 2
    assert capsys.readouterr().err == f"push: org/name: {doing}: no network\n"
    assert online.asked()[-1] == call
