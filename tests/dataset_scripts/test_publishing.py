"""Tests of publishing: who may put what on the Hub, and which files go there."""

import fnmatch
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from dataset_scripts.builders import built_corpus, publishing
from dataset_scripts.builders.publishing import check_may_publish, publish
from dataset_scripts.formats.reader import CorpusError
from modeling_mmner.cli import main
from tests.built_corpora import build_small, built_sample, files_of
from tests.small_corpora import write_posts


class Hub:
    """Stands for the Hub, with at most one repository; writes down what is asked of it."""

    def __init__(self) -> None:
        self.private: bool | None = None
        self.calls: list[tuple[str, dict]] = []

    def __call__(self) -> "Hub":
        return self

    def repo_info(self, repo_id: str, **options: object) -> SimpleNamespace:
        self.calls.append(("repo_info", {"repo_id": repo_id} | options))
        if self.private is None:
            raise RepositoryNotFoundError("not found", response=SimpleNamespace(headers={}, request=None))
        return SimpleNamespace(private=self.private)

    def create_repo(self, repo_id: str, **options: object) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id} | options))

    def upload_folder(self, **options: object) -> SimpleNamespace:
        self.calls.append(("upload_folder", options))
        return SimpleNamespace(commit_url="https://hub/commit")

    def changes(self) -> list[tuple[str, dict]]:
        return [call for call in self.calls if call[0] != "repo_info"]


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(publishing, "HfApi", hub)
    return hub


@pytest.fixture
def corpus(tmp_path):
    return write_posts(tmp_path / "corpus")


def build(tmp_path, *options: str, dataset: str = "conll") -> int:
    folders = ["--data_dir", str(tmp_path / "corpus"), "--output_dir", str(tmp_path / "built")]
    return main(["build-dataset", dataset, *folders, "--push", "org/posts", *options])


# Who may publish.


def test_posts_of_others_are_refused_before_anything_is_built(hub, corpus, tmp_path, capsys):
    """If it failed, tweets would go to the Hub without anybody having said that they may, or after hours of
    building.
    """
    assert build(tmp_path) == 2
    message = (
        "build-dataset: --push org/posts: posts and pictures belong to their authors, and this corpus comes"
        " without a licence"
    )
    assert message in capsys.readouterr().err
    assert not hub.calls and not (tmp_path / "built").exists()


def test_public_repository_is_refused_before_anything_is_built(hub, corpus, tmp_path, capsys):
    """If it failed, posts meant to be private would be added to a repository that everybody sees."""
    hub.private = False
    assert build(tmp_path, "--i_have_the_rights") == 2
    message = (
        "--push org/posts: expected a new or a private repository, found a public one; --public says that is"
        " meant"
    )
    assert message in capsys.readouterr().err
    assert not hub.changes() and not (tmp_path / "built").exists()


@pytest.mark.parametrize("private", [None, True])
def test_new_and_private_repositories_are_allowed(hub, private):
    """If it failed, nobody could publish privately, or renew what they have published."""
    hub.private = private
    check_may_publish("org/posts", generated=False, has_rights=True, public=False)
    assert hub.calls == [("repo_info", {"repo_id": "org/posts", "repo_type": "dataset"})]


def test_public_repository_is_allowed_when_it_is_meant(hub):
    """If it failed, a public data set could not be renewed."""
    hub.private = False
    check_may_publish("org/posts", generated=False, has_rights=True, public=True)


def test_rights_are_needed_for_public_repositories_too(hub):
    """If it failed, --public would stand for a right that nobody claimed."""
    with pytest.raises(CorpusError, match="say --i_have_the_rights"):
        check_may_publish("org/posts", generated=False, has_rights=False, public=True)


def test_generated_posts_need_no_rights(hub):
    """If it failed, the sample, which is under a licence, could not be published."""
    check_may_publish("org/posts", generated=True, has_rights=False, public=False)


@pytest.mark.parametrize("dataset", ["conll", "twitter2015", "twitter2017", "mmner", "sample"])
def test_only_the_sample_is_generated(hub, tmp_path, monkeypatch, dataset):
    """If it failed, one of the real corpora would be published without the question."""
    asked = []
    monkeypatch.setattr(publishing, "check_may_publish", lambda repo_id, **options: asked.append(options))
    monkeypatch.setattr(built_corpus, "build_dataset", lambda *_, **__: {"configs": {}})
    monkeypatch.setattr(publishing, "publish", lambda *_, **__: "")
    build(tmp_path, dataset=dataset)
    assert asked == [{"generated": dataset == "sample", "has_rights": False, "public": False}]


@pytest.mark.parametrize("option", ["--public", "--i_have_the_rights"])
def test_options_of_publishing_are_refused_without_it(hub, corpus, tmp_path, capsys, option):
    """If it failed, a user who forgot --push would believe that the data set is on the Hub."""
    options = ["--data_dir", str(corpus), "--output_dir", str(tmp_path / "built"), option]
    assert main(["build-dataset", "conll", *options]) == 2
    assert "--public and --i_have_the_rights: expected them with --push ORG/NAME" in capsys.readouterr().err
    assert not (tmp_path / "built").exists()


# What is published.


@pytest.mark.parametrize("public", [False, True])
def test_built_data_set_is_pushed(hub, corpus, tmp_path, capsys, public):
    """If it failed, a data set would be public without --public, or not there after the command said so."""
    assert build(tmp_path, "--i_have_the_rights", *["--public"] * public) == 0
    assert capsys.readouterr().out.endswith("pushed to https://hub/commit\n")
    [(created, repository), (uploaded, upload)] = hub.changes()
    assert (created, uploaded) == ("create_repo", "upload_folder")
    assert repository == {
        "repo_id": "org/posts",
        "repo_type": "dataset",
        "private": not public,
        "exist_ok": True,
    }
    assert (upload["repo_id"], upload["repo_type"], upload["folder_path"]) == (
        "org/posts",
        "dataset",
        str(tmp_path / "built"),
    )


def test_upload_is_one_commit_that_names_the_version(hub, tmp_path):
    """If it failed, the Hub would show half a data set between two commits, or nobody could tell versions
    apart.
    """
    assert publish(built_sample(), "org/sample") == "https://hub/commit"
    uploads = [options for name, options in hub.calls if name == "upload_folder"]
    assert [options["commit_message"] for options in uploads] == ["sample generated-1.0.0-seed-1"]


def test_uploaded_files_are_those_of_the_data_set(hub, tmp_path):
    """If it failed, the report with local paths, or what else lies in the folder, would go to the Hub, or
    data stay behind.
    """
    built = build_small(tmp_path)
    (built / "notes.txt").write_text("private")
    (built / ".env").write_text("private")
    publish(built, "org/posts")
    patterns = hub.changes()[1][1]["allow_patterns"]
    data = {f"default/{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")}
    assert (
        set(filter_repo_objects(files_of(built), allow_patterns=patterns))
        == {"README.md", "corpus.json"} | data
    )


def test_files_of_an_older_build_are_deleted_with_it(hub, tmp_path):
    """If it failed, shards of an older build would stay on the Hub, and posts that were taken out with
    them.
    """
    publish(build_small(tmp_path), "org/posts")
    [pattern] = hub.changes()[1][1]["delete_patterns"]
    assert fnmatch.fnmatch("en_plus_fr/train-00003-of-00007.parquet", pattern)
    assert not fnmatch.fnmatch("README.md", pattern) and not fnmatch.fnmatch(".gitattributes", pattern)


def test_folder_without_a_data_set_is_not_published(hub, tmp_path):
    """If it failed, a wrong folder would be uploaded, or a repository be made for nothing."""
    with pytest.raises(CorpusError, match="expected a data set made by `build`, found no corpus"):
        publish(tmp_path, "org/posts")
    assert not hub.calls
