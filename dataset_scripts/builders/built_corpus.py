"""Builds a corpus into a folder that the Hub serves: Parquet with the pictures in it, a record, and a card
made from it.
"""

import inspect
import json
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetGenerationError

from modeling_mmner.files import staged_folder
from modeling_mmner.model.labels_mmner import entity_types

from ..corpora import BUILDERS
from ..formats.reader import CorpusError
from ..opening import RECORD, make_builder
from .builder import SPLITS, CorpusBuilder
from .data_card import render_data_card

BROKEN_REPORT = "broken_pictures.jsonl"
"""Lists the pictures that could not be decoded; stays local."""

PUBLISHED = ("README.md", RECORD, "*/*.parquet")
"""The files of a built data set that belong on the Hub."""

_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}
"""How JSON is written: half a surrogate pair as JSON escapes it."""


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
        data_dir, image_dir: folders of the raw files and the pictures.
        overwrite: replace a data set that was built there before.
        options: of `PostsConfig`.

    Returns:
        The record: what was built, and from what.

    Raises:
        CorpusError: the raw files are missing, malformed or another version.
        FileExistsError: the output folder is taken.
    """
    sources = {"data_dir": data_dir, "image_dir": image_dir}
    folders = {key: Path(path) for key, path in sources.items() if path is not None}
    for key, folder in folders.items():
        if not folder.is_dir():
            expected = f"a folder as {key}, found none; unpack an archive first"
            raise CorpusError(f"{folder}: expected {expected}")
    with staged_folder(output_dir, marker=RECORD, overwrite=overwrite) as staged:
        scratch = staged / "scratch"
        found = BUILDERS[name].configs_in(folders["data_dir"]) if "data_dir" in folders else []
        builders = [
            make_builder(name, config=config, cache_dir=str(scratch / "cache"), **folders, **options)
            for config in list(configs) or found or [""]
        ]
        record = _described(builders[0])
        for builder in builders:
            config = builder.config.name
            record["configs"][config] = _build_config(builder, scratch / "built" / config, staged / config)
        broken = [
            {"config": builder.config.name} | problem
            for builder in builders
            for report in builder.reports.values()
            for problem in report.broken
        ]
        shutil.rmtree(scratch, ignore_errors=True)
        (staged / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False), **_TEXT)
        (staged / "README.md").write_text(render_data_card(record), encoding="utf-8")
        lines = "".join(json.dumps(problem, ensure_ascii=False) + "\n" for problem in broken)
        (staged / BROKEN_REPORT).write_text(lines, **_TEXT)
    return record


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
    """What is said of a corpus as a whole."""
    paragraphs = inspect.cleandoc(builder.info.description).split("\n\n")
    return {
        "name": builder.name,
        "description": "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs),
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
    splits, hashes = {}, builder.file_hashes()
    for split in SPLITS:
        files = sorted(scratch.glob(f"{builder.dataset_name}-{split}*.parquet"))
        for number, path in enumerate(files):
            path.rename(target / f"{split}-{number:05d}-of-{len(files):05d}.parquet")  # as on the Hub
        report, size = builder.reports[split], sum(path.stat().st_size for path in shards(target, split))
        counts, own = report.counts, {"sha256": hashes[split]} if split in hashes else {}
        splits[split] = own | {
            "posts": counts.posts,
            "tokens": counts.tokens,
            "entities": {name: counts.entities[name] for name in entity_types(builder.labels())},
            "orphans": counts.orphans,
            "pictures": report.pictures(),
            "languages": dict(counts.languages.most_common()),
            "sources": dict(counts.sources.most_common()),
            "num_bytes": builder.info.splits[split].num_bytes,
            "download_bytes": size,
            "notes": dict(report.notes),
        }
    return {"version": builder.version_name(), "splits": splits}


def shards(folder: Path, split: str) -> list[Path]:
    """The Parquet files of a split in their order."""
    return sorted(folder.glob(f"{split}-*-of-*.parquet"))
