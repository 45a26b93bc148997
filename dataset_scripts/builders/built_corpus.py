"""Builds a corpus into a folder as the Hub serves it, Parquet, a record and a card, and uploads that."""

import json
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from modeling_mmner.escaping import say
from modeling_mmner.files import staged_folder

from ..corpora import BUILDERS
from ..formats.reader import CorpusError
from ..inspection import split_statistics
from ..opening import RECORD, make_builder, open_corpus
from .builder import CorpusBuilder
from .data_card import render_benchmark, render_data_card
from .opened import OpenedCorpus

BROKEN_REPORT = "broken_pictures.jsonl"
"""Lists the pictures that could not be decoded; stays local."""

BENCHMARK = "eval.yaml"
"""Says what is scored, for the Hub."""

PUBLISHED = ("README.md", RECORD, BENCHMARK, "*/*.parquet")
"""The files of a built data set that belong on the Hub."""

_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}
"""How JSON is written: half a surrogate pair as JSON escapes it."""

_OF_BUILDING = {"license", "broken_pictures", "require_images"}
_SHARD_BYTES = 500_000_000  # of a Parquet file at most, as `datasets` writes them


def build_dataset(
    name: str, output_dir: str | Path, *, configs: Sequence[str] = (), overwrite: bool = False, **options: Any
) -> dict[str, Any]:
    """Build a corpus; `output_dir` is there when all of it is done, and not before.

    Args:
        name: of a builder; or whatever `open_corpus` opens, as a file of posts.
        configs: those to build; by default the only one, or of MMNERD all that `data_dir` holds.
        overwrite: replace a data set that was built there before.
        options: of `PostsConfig`, among them the folders of the raw files and the pictures.

    Returns:
        The record: what was built, and from what.

    Raises:
        CorpusError: the raw files are missing, malformed or another version.
        FileExistsError: the output folder is taken.
    """
    data_dir = options.get("data_dir")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise CorpusError(f"{data_dir}: expected a folder as data_dir, found none; unpack an archive first")
    target = Path(output_dir).resolve()
    read = (data_dir, options.get("image_dir"), None if name in BUILDERS else name)
    for place in filter(None, read if overwrite else ()):
        if Path(place).resolve().is_relative_to(target):
            expected = "expected a folder beside what is read, for all in it is replaced"
            raise CorpusError(f"{output_dir}: {expected}, found {place} in it; name another")
    with staged_folder(output_dir, marker=RECORD, overwrite=overwrite) as staged:
        builders = _builders(name, configs, options)
        record = _described(builders[0])
        record["configs"] = {builder.config_name: _build_config(builder, staged) for builder in builders}
        (staged / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False), **_TEXT)
        (staged / "README.md").write_text(render_data_card(record), encoding="utf-8")
        (staged / BENCHMARK).write_text(render_benchmark(record), encoding="utf-8")
        broken = [
            json.dumps({"config": builder.config_name} | problem, ensure_ascii=False)
            for builder in builders
            for report in builder.reports.values()
            for problem in report.broken
        ]
        (staged / BROKEN_REPORT).write_text("".join(f"{line}\n" for line in broken), **_TEXT)
    return record


def _builders(name: str, configs: Sequence[str], options: dict[str, Any]) -> list[CorpusBuilder]:
    if name in BUILDERS:
        data_dir = options.get("data_dir")
        found = [] if data_dir is None else BUILDERS[name].configs_in(Path(data_dir))
        wanted: list[Any] = list(configs) or found or [None]
        return [make_builder(name, config=config, **options) for config in wanted]
    if len(configs) > 1:
        raise CorpusError(f"dataset {name!r}: expected one --config at most, found {', '.join(configs)}")
    building = {key: options[key] for key in _OF_BUILDING & options.keys()}
    reading = {key: options[key] for key in options.keys() - _OF_BUILDING}
    corpus = open_corpus(name, config=configs[0] if configs else None, **reading)
    return [OpenedCorpus(corpus, **building)]


def read_record(folder: str | Path) -> dict[str, Any]:
    """The record of a built data set.

    Raises:
        CorpusError: the folder holds none.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise CorpusError(f"{folder}: expected a data set made by `build`, found no {RECORD} in it")
    return json.loads(path.read_text(encoding="utf-8"))


def _described(builder: CorpusBuilder) -> dict[str, Any]:
    return {
        "name": builder.name,
        "description": builder.description,
        "citation": builder.CITATION,
        "license": builder.config.license,
        "terms": builder.TERMS,
        "known_problems": list(builder.known_problems),
        "versions": {package: version(package) for package in ("mmner", "datasets")},
        "labels": builder.labels,
    } | builder.more_columns()


def _build_config(builder: CorpusBuilder, staged: Path) -> dict[str, Any]:
    """Write the Parquet files of a config; returns its part of the record."""
    say(f"{builder.name} {builder.config_name}: version {builder.version_name()}", file=sys.stderr)
    builder.check_files()
    scratch, target = staged / "scratch", staged / builder.config_name
    target.mkdir()
    splits, hashes = {}, builder.file_hashes()
    for split in builder.split_names():
        rows = builder.checked(split, cache_dir=scratch)
        size = rows.info.splits[split].num_bytes
        files = 1 + size // _SHARD_BYTES
        for number in range(files):
            path = target / f"{split}-{number:05d}-of-{files:05d}.parquet"  # as on the Hub
            rows.shard(files, number, contiguous=True).to_parquet(path)
        found, _ = split_statistics(rows, builder.labels)
        for unused in ("tokens_per_post", "posts_without_entity"):
            del found[unused]
        without, broken = found["pictures"]["missing"], builder.reports[split].broken
        present, missing = found["posts"] - without, without - builder.reports[split].without
        counts = {"present": present, "missing": missing, "broken": len(broken)}
        found["pictures"] = counts | {"broken_ids": [problem["id"] for problem in broken]}
        found |= {"sha256": hashes[split]} if split in hashes else {}
        found |= {"num_bytes": size, "notes": dict(builder.reports[split].notes)}
        found["download_bytes"] = sum(path.stat().st_size for path in target.glob(f"{split}-*"))
        splits[split] = found
        del rows
        shutil.rmtree(scratch)
    return {"version": builder.version_name(), "splits": splits}


def check_may_publish(repo_id: str, *, generated: bool, has_rights: bool, public: bool) -> None:
    """Check that a corpus may go to the Hub as wanted, before any work is done for it.

    Args:
        generated: nobody else has rights in it.
        has_rights: the user says to have the right to publish its posts and pictures.
        public: whether everybody is to see it.

    Raises:
        CorpusError: the rights are missing; the repository is public and this is to be private; or the Hub
            does not answer.
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
