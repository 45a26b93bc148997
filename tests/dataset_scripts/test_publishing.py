"""Tests of publishing: who may put what on the Hub, and which files go there."""

import fnmatch
from types import SimpleNamespace
from unittest.mock import call, create_autospec

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from dataset_scripts.builders import built_corpus
from dataset_scripts.builders.built_corpus import check_may_publish, publish
from dataset_scripts.formats.reader import CorpusError
from modeling_mmner.cli import main
from tests.built_corpora import build_small, built_sample, files_of
from tests.small_corpora import write_posts


@pytest.fixture
def hub(monkeypatch):
    """Stands for the Hub; writes down what is asked of it."""
    api = create_autospec(HfApi, instance=True)
    api.upload_folder.return_value = SimpleNamespace(commit_url="https://hub/commit")
    monkeypatch.setattr(built_corpus, "HfApi", lambda: api)
    return api


def has_repository(hub: HfApi, private: bool | None) -> None:
    """Whether the Hub has the repository, and as what; None: it has none."""
    absent = RepositoryNotFoundError("not found", response=SimpleNamespace(headers={}, request=None))
    hub.repo_info.side_effect = absent if private is None else None
    hub.repo_info.return_value = SimpleNamespace(private=private)


@pytest.fixture
def corpus(tmp_path):
    return write_posts(tmp_path / "corpus")


def build(tmp_path, *options: str, dataset: str = "conll") -> int:
    folders = ["--data_dir", str(tmp_path / "corpus"), "--output_dir", str(tmp_path / "built")]
    return main(["build", dataset, *folders, *options])


# Who may publish.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--push", "org/posts"],
            "posts and pictures belong to their authors, and this corpus comes without",
        ),
        (["--push", "org/posts", "--i_have_the_rights"], "expected a new or a private repository, found a"),
        (["--public"], "--public and --i_have_the_rights: expected them with --push ORG/NAME"),
        (["--i_have_the_rights"], "--public and --i_have_the_rights: expected them with --push ORG/NAME"),
    ],
)
def test_what_may_not_be_pushed_is_refused_before_it_is_built(
    hub, corpus, tmp_path, capsys, options, message
):
    """If it failed, tweets would go to the Hub without anybody having said that they may, or, meant to be
    private, to where everybody sees them; or after hours of building; or not at all, and its user believe it.
    """
    has_repository(hub, private=False)
    assert build(tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert {name for name, _, _ in hub.method_calls} <= {"repo_info"} and not (tmp_path / "built").exists()


@pytest.mark.parametrize(
    ("private", "public"), [(None, False), (True, False), (False, True), (None, True), (True, True)]
)
def test_new_private_and_meant_repositories_are_allowed(hub, private, public):
    """If it failed, nobody could publish privately, or renew what they have published."""
    has_repository(hub, private)
    check_may_publish("org/posts", generated=False, has_rights=True, public=public)
    check_may_publish("org/posts", generated=True, has_rights=False, public=public)
    with pytest.raises(CorpusError, match="say --i_have_the_rights"):
        check_may_publish("org/posts", generated=False, has_rights=False, public=public)
    assert hub.repo_info.mock_calls == [call("org/posts", repo_type="dataset")] * (0 if public else 2)


# What is published.


@pytest.mark.parametrize("public", [False, True])
def test_built_data_set_is_pushed(hub, corpus, tmp_path, capsys, public):
    """If it failed, a data set would be public without --public, or not there after the command said so."""
    has_repository(hub, private=None)
    assert build(tmp_path, "--push", "org/posts", "--i_have_the_rights", *["--public"] * public) == 0
    assert capsys.readouterr().out.endswith("pushed to https://hub/commit\n")
    hub.create_repo.assert_called_once_with(
        "org/posts", repo_type="dataset", private=not public, exist_ok=True
    )
    upload = {"repo_id": "org/posts", "repo_type": "dataset", "folder_path": str(tmp_path / "built")}
    assert hub.upload_folder.call_args.kwargs.items() >= upload.items()


def test_upload_is_one_commit_of_the_files_of_the_data_set(hub, tmp_path):
    """If it failed, the Hub would show half a data set between two commits, or the report with local paths or
    what else lies in the folder; or shards of an older build would stay, and posts that were taken out.
    """
    built = build_small(tmp_path)
    for name in ("notes.txt", ".env"):
        (built / name).write_text("private")
    assert publish(built, "org/posts") == "https://hub/commit"
    upload = hub.upload_folder.call_args.kwargs
    data = {f"default/{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")}
    sent = set(filter_repo_objects(files_of(built), allow_patterns=upload["allow_patterns"]))
    assert sent == {"README.md", "corpus.json", "eval.yaml"} | data
    [pattern] = upload["delete_patterns"]
    assert fnmatch.fnmatch("en_plus_fr/train-00003-of-00007.parquet", pattern)
    assert not fnmatch.fnmatch("README.md", pattern) and not fnmatch.fnmatch(".gitattributes", pattern)
    publish(built_sample(), "org/sample")
    assert hub.upload_folder.call_args.kwargs["commit_message"] == "sample generated-1.0.0-seed-1"


def test_folder_without_a_data_set_is_not_published(hub, tmp_path):
    """If it failed, a wrong folder would be uploaded, or a repository be made for nothing."""
    with pytest.raises(CorpusError, match=r"expected a data set made by .*build.*, found no corpus"):
        publish(tmp_path, "org/posts")
    assert not hub.method_calls
