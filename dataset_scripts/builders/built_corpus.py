"""Builds a corpus into a folder as the Hub serves it, Parquet, a record and a card, and uploads that."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from modeling_mmner.escaping import say
from modeling_mmner.files import json_line, picture_content, staged_folder
from modeling_mmner.model.images_mmner import PICTURE_COLUMNS, PictureError, load_picture, pictures_of
from modeling_mmner.model.labels_mmner import entity_types

from ..contexts import CONTEXT
from ..corpora import BUILDERS
from ..formats.reader import CorpusError, mismatch
from ..inspection import picture_numbers, split_statistics
from ..opening import RECORD, Corpus, open_corpus
from .builder import CorpusBuilder, corpus_features, decoded, read_ahead
from .data_card import render_benchmark, render_data_card

BROKEN_REPORT = "broken_pictures.jsonl"
"""Lists the pictures that could not be decoded; stays local."""

BENCHMARK = "eval.yaml"
"""Says what is scored, for the Hub."""

PUBLISHED = ("README.md", RECORD, BENCHMARK, "*/*.parquet")
"""The files of a built data set that belong on the Hub."""

_SHARD_BYTES = 500_000_000  # of a Parquet file at most, as `datasets` writes them


def build_dataset(
    name: str,
    output_dir: str | Path,
    *,
    configs: Sequence[str] = (),
    overwrite: bool = False,
    license: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Build a corpus; `output_dir` is there when all of it is done, and not before.

    Args:
        name: whatever `open_corpus` opens: the name of a corpus, a file of posts, ...
        configs: those to build; by default the only one, or of MMNERD all that `data_dir` holds.
        overwrite: replace a data set that was built there before.
        license: of the corpus, where it has none of its own.
        options: of `ReadingOptions`, among them the folders of the raw files and the pictures.

    Returns:
        The record: what was built, and from what.

    Raises:
        CorpusError: the raw files are missing, malformed or another version.
        FileExistsError: the output folder is taken.
    """
    data_dir = options.get("data_dir")
    target = Path(output_dir).resolve()
    read = (data_dir, options.get("image_dir"), None if name in BUILDERS else name)
    for place in filter(None, read if overwrite else ()):
        if Path(place).resolve().is_relative_to(target):
            expected = "a folder beside what is read, for all in it is replaced"
            raise mismatch(output_dir, expected, f"{place} in it; name another")
    with staged_folder(output_dir, marker=RECORD, overwrite=overwrite) as staged:
        corpora = _opened(name, configs, options)
        for corpus in corpora.values():
            corpus.splits = {split: _ours(rows, corpus.labels) for split, rows in corpus.splits.items()}
        record = _described(name, next(iter(corpora.values())), license)
        broken: list[dict[str, str]] = []
        for config, corpus in corpora.items():
            say(f"{record['name']} {config}: version {corpus.version_name}", file=sys.stderr)
            splits = {split: _build_split(corpus, split, staged / config, broken) for split in corpus.splits}
            record["configs"][config] = {"version": corpus.version_name, "splits": splits}
        found = json.dumps(record, indent=2, ensure_ascii=False)
        (staged / RECORD).write_text(found, encoding="utf-8", errors="backslashreplace")  # half an emoji
        (staged / "README.md").write_text(render_data_card(record), encoding="utf-8")
        (staged / BENCHMARK).write_text(render_benchmark(record), encoding="utf-8")
        lines = [json_line(problem) + "\n" for problem in broken]
        (staged / BROKEN_REPORT).write_text("".join(lines), encoding="utf-8")
    return record


def _opened(name: str, configs: Sequence[str], options: dict[str, Any]) -> dict[str, Corpus]:
    """The corpora to build, each by the name of its config."""
    if name in BUILDERS:
        builder, data_dir = BUILDERS[name], options.get("data_dir")
        found = [] if data_dir is None else builder.configs_in(Path(data_dir))
        wanted = list(configs) or found or [builder.DEFAULT_CONFIG]
        return {config: open_corpus(name, config=config or None, **options) for config in wanted}
    if len(configs) > 1:
        raise mismatch(f"dataset {name!r}", "one --config at most", ", ".join(configs))
    return {"default": open_corpus(name, config=configs[0] if configs else None, **options)}


def _ours(rows: datasets.Dataset, labels: Sequence[str]) -> datasets.Dataset:
    """The rows without columns that nobody asked to publish: those of a tool or a platform, say."""
    known = {*corpus_features([*labels]), *PICTURE_COLUMNS, CONTEXT}
    return rows.select_columns([name for name in rows.column_names if name in known])


def _described(name: str, corpus: Corpus, license: str | None) -> dict[str, Any]:
    """The record's beginning: what the card says of all configs."""
    own = CorpusBuilder.about() | {
        "description": f"Posts with named entities of the types {', '.join(entity_types(corpus.labels))}.",
        "known_problems": [f"{what}: {number}" for what, number in corpus.findings.numbers().items()],
    }
    record = {"name": name if name in BUILDERS else corpus.name} | own | corpus.about
    record |= {"license": license} if license else {}
    record["versions"] = {package: version(package) for package in ("mmner", "datasets")}
    record["labels"] = corpus.labels
    record["columns"] = next(iter(corpus.splits.values())).column_names
    return record | {"configs": {}}


def _build_split(corpus: Corpus, split: str, folder: Path, broken: list[dict[str, str]]) -> dict[str, Any]:
    """Write the Parquet files of a split of a config; returns its part of the record."""
    opened, scratch, first = corpus.splits[split], folder / "scratch", len(broken)
    rows = datasets.Dataset.from_generator(
        partial(_checked, opened, {"config": folder.name, "split": split}, broken),
        features=decoded(opened.features),
        cache_dir=str(scratch),
        split=datasets.NamedSplit(split),
        fingerprint=split,
    )
    files = 1 + rows.info.splits[split].num_bytes // _SHARD_BYTES
    for number in range(files):
        path = folder / f"{split}-{number:05d}-of-{files:05d}.parquet"  # as on the Hub
        rows.shard(files, number, contiguous=True).to_parquet(path)
    found, _ = split_statistics(rows, corpus.labels)
    for unused in ("tokens_per_post", "posts_without_entity"):
        del found[unused]
    broken_ids = [problem["id"] for problem in broken[first:]]
    found["pictures"] = {
        "present": found["posts"] - found["pictures"]["missing"],
        "missing": int((picture_numbers(opened) == 0).sum()),
        "broken": len(broken_ids),
        "broken_ids": broken_ids,
    }
    found |= {"sha256": corpus.version[split], "notes": dict(corpus.notes.get(split, {}))}
    del rows
    shutil.rmtree(scratch)
    return found


def _checked(
    rows: datasets.Dataset, place: dict[str, str], broken: list[dict[str, str]]
) -> Iterator[dict[str, Any]]:
    """The rows with the bytes of those pictures that can be decoded; each is decoded once."""
    for row, problem in read_ahead(_with_pictures, rows):
        if problem is not None:
            broken.append(place | {"id": row["id"]} | problem)
        yield row


def _with_pictures(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str] | None]:
    """The row with its pictures' bytes, and what is wrong with one that is left out."""
    good, problem = [], None  # of several the last one
    for given in pictures_of(row):
        name = given["path"] and Path(given["path"]).name
        try:
            load_picture(picture := {"bytes": picture_content(given), "path": name})
            good.append(picture)
        except (PictureError, OSError) as error:
            problem = {"file": name or "", "problem": str(error)}
    own = {"image": good[0] if good else None, "images": good}
    return row | {column: own[column] for column in PICTURE_COLUMNS if column in row}, problem


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
        raise mismatch(place, "an answer from the Hub", f"none: {error}") from error
    if not is_private:
        raise mismatch(place, "a new or a private repository", "a public one; --public says that is meant")


def publish(folder: str | Path, repo_id: str, *, public: bool = False) -> str:
    """Upload a built data set in one commit; a new repository is private unless `public`. Returns the
    commit's address.

    Raises:
        CorpusError: the folder holds no built data set.
    """
    path, api = Path(folder) / RECORD, HfApi()
    if not path.is_file():
        raise mismatch(folder, "a data set made by `build`", f"no {RECORD} in it")
    record = json.loads(path.read_text(encoding="utf-8"))
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
