"""Uploads a built data set to the Hub, after a check that the user may."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from ..formats.reader import CorpusError
from .built_corpus import PUBLISHED, read_record


def check_may_publish(repo_id: str, *, generated: bool, has_rights: bool, public: bool) -> None:
    """Check that a corpus may go to the Hub as wanted, before any work is done for it.

    Args:
        generated: nobody else has rights in it.
        has_rights: the user says to have the right to publish its posts and pictures.
        public: whether everybody is to see it.

    Raises:
        CorpusError: the user has not said to have the rights; a repository of that name is public and this is
            to be private; or the Hub does not answer.
    """
    place = f"--push {repo_id}"
    if not (generated or has_rights):
        why = "posts and pictures belong to their authors, and this corpus comes without a licence for them"
        raise CorpusError(f"{place}: {why}; if you may publish them, say --i_have_the_rights")
    try:
        is_private = public or HfApi().repo_info(repo_id, repo_type="dataset").private
    except RepositoryNotFoundError:
        return
    except Exception as error:  # the HTTP client's own errors are no part of huggingface_hub's interface
        raise CorpusError(f"{place}: expected an answer from the Hub, found none: {error}") from error
    if not is_private:
        expected = "a new or a private repository, found a public one; --public says that is meant"
        raise CorpusError(f"{place}: expected {expected}")


def publish(folder: str | Path, repo_id: str, *, public: bool = False) -> str:
    """Upload a built data set in one commit; a new repository is private unless `public`. Returns the
    commit's address.

    Raises:
        CorpusError: the folder holds no built data set.
    """
    record, api = read_record(folder), HfApi()
    api.create_repo(repo_id, repo_type="dataset", private=not public, exist_ok=True)
    versions = ", ".join(config["version"] for config in record["configs"].values())
    commit = api.upload_folder(
        repo_id=repo_id,
        repo_type="dataset",
        folder_path=folder,
        allow_patterns=list(PUBLISHED),
        delete_patterns=["*.parquet"],
        commit_message=f"{record['name']} {versions}",
    )
    return str(commit.commit_url)
