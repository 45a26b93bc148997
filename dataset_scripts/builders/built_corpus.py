"""Builds a corpus into a folder that the Hub serves: Parquet with the pictures in it, a record, and a card
made from it.
"""

import inspect
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets.exceptions import DatasetGenerationError

from modeling_mmner.files import staged_folder

from ..archives import unpacked
from ..corpora import BUILDERS
from ..formats.reader import CorpusError
from ..opening import RECORD, make_builder
from .builder import SPLITS, CorpusBuilder, SplitReport
from .data_card import render_data_card
from .official import Counts

BROKEN_REPORT = "broken_pictures.jsonl"
"""Lists the pictures that could not be decoded; stays local."""

PUBLISHED = ("README.md", RECORD, "*/*.parquet")
"""The files of a built data set that belong on the Hub."""

_ESCAPED = "backslashreplace"  # half a surrogate pair is then written as JSON escapes it


def build_dataset(
    name: str,
    output_dir: str | Path,
    *,
    configs: Sequence[str] = (),
    data_dir: str | Path | None = None,
    image_dir: str | Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Build a corpus; `output_dir` is there when all of it is done, and not before.

    Args:
        name: of a builder.
        configs: those to build; by default the only one, or of MMNERD all that `data_dir` holds.
        data_dir, image_dir: of the raw files, each a folder or an archive.
        overwrite: replace a data set that was built there before.
        options: of `PostsConfig`.

    Returns:
        The record: what was built, and from what.

    Raises:
        CorpusError: the raw files are missing, malformed or another version.
        FileExistsError: the output folder is taken.
    """
    with staged_folder(output_dir, marker=RECORD, overwrite=overwrite) as staged:
        scratch = staged / "scratch"
        sources = {"data_dir": data_dir, "image_dir": image_dir}
        folders = {key: unpacked(path, scratch / key) for key, path in sources.items() if path is not None}
        found = BUILDERS[name].configs_in(folders["data_dir"]) if "data_dir" in folders else []
        names = list(configs) or found or [""]
        builders = [
            make_builder(name, config=config, cache_dir=str(scratch / "cache"), **folders, **options)
            for config in names
        ]
        record = _described(builders[0])
        for builder in builders:
            record["configs"][builder.config.name] = _build_config(
                builder, scratch / "built" / builder.config.name, staged / builder.config.name
            )
        broken = [
            {"config": builder.config.name} | problem
            for builder in builders
            for report in builder.reports.values()
            for problem in report.broken
        ]
        shutil.rmtree(scratch, ignore_errors=True)
        write_record(staged, record)
        (staged / BROKEN_REPORT).write_text(
            "".join(json.dumps(problem, ensure_ascii=False) + "\n" for problem in broken),
            encoding="utf-8",
            errors=_ESCAPED,
        )
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a built data set, and the card that follows from it."""
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (folder / RECORD).write_text(text, encoding="utf-8", errors=_ESCAPED)
    (folder / "README.md").write_text(render_data_card(record), encoding="utf-8")


def read_record(folder: str | Path) -> dict[str, Any]:
    """The record of a built data set.

    Raises:
        CorpusError: the folder holds none.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise CorpusError(f"{folder}: expected a data set made by build-dataset, found no {RECORD} in it")
    return json.loads(path.read_text(encoding="utf-8"))


def _described(builder: CorpusBuilder) -> dict[str, Any]:
    """What is said of a corpus as a whole."""
    return {
        "name": builder.name,
        "description": inspect.cleandoc(builder.info.description),
        "citation": builder.CITATION,
        "license": builder.info.license,
        "terms": builder.TERMS,
        "known_problems": list(builder.KNOWN_PROBLEMS),
        "versions": {package: version(package) for package in ("mmner", "datasets")},
        "labels": builder.labels(),
        "configs": {},
    }


def _build_config(builder: CorpusBuilder, scratch: Path, target: Path) -> dict[str, Any]:
    """Write the Parquet files of a config by way of a scratch folder; returns its part of the record."""
    print(f"{builder.name} {builder.config.name}: version {builder.version_name()}", file=sys.stderr)
    try:
        builder.download_and_prepare(str(scratch), file_format="parquet")
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, CorpusError):
            raise error.__cause__ from None
        raise
    target.mkdir()
    splits = {}
    for split in SPLITS:
        files = sorted(scratch.glob(f"{builder.dataset_name}-{split}*.parquet"))
        for number, path in enumerate(files):
            path.rename(target / shard_name(split, number, len(files)))
        details = describe_split(target, split, builder.labels(), builder.info.splits[split].num_bytes)
        report = builder.reports.get(split, SplitReport(missing=details["pictures"]["missing"]))
        details["pictures"] |= {
            "missing": report.missing,
            "broken": len(report.broken),
            "broken_ids": [problem["id"] for problem in report.broken],
        }
        hashes = {"sha256": builder.file_hashes()[split]} if split in builder.file_hashes() else {}
        splits[split] = hashes | details | {"notes": dict(report.notes)}
    return {"version": builder.version_name(), "splits": splits}


def shard_name(split: str, number: int, count: int) -> str:
    """The name of one of a split's `count` Parquet files, from 0, as the Hub has it."""
    return f"{split}-{number:05d}-of-{count:05d}.parquet"


def shards(folder: Path, split: str) -> list[Path]:
    """The Parquet files of a split in their order."""
    return sorted(folder.glob(f"{split}-*-of-*.parquet"))


def describe_split(folder: Path, split: str, labels: Sequence[str], num_bytes: int) -> dict[str, Any]:
    """Counts of a built split, taken from its Parquet files without reading a picture.

    Args:
        num_bytes: of the rows in memory, as `datasets` counts them.
    """
    counts, present = Counts(), 0
    languages: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    for batch in _batches(shards(folder, split), ["ner_tags", "language", "source", "image.path"]):
        for tags in batch["ner_tags"]:
            counts.add(labels[tag] for tag in tags)
        languages.update(batch["language"])
        sources.update(batch["source"])
        present += sum(image is not None for image in batch["image"])
    return {
        "posts": counts.posts,
        "tokens": counts.tokens,
        "entities": {
            name: counts.entities[name]
            for name in dict.fromkeys(label[2:] for label in labels if label != "O")
        },
        "orphans": counts.orphans,
        "pictures": {"present": present, "missing": counts.posts - present},
        "languages": dict(languages.most_common()),
        "sources": dict(sources.most_common()),
        "num_bytes": num_bytes,
        "download_bytes": sum(path.stat().st_size for path in shards(folder, split)),
    }


def _batches(files: Iterable[Path], columns: list[str]) -> Iterable[dict[str, list[Any]]]:
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns):
                yield batch.to_pydict()
