"""Posts of any number, for `annotate`, as rows of `datasets`, which keeps them in files and not in memory."""

import glob
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants

from dataset_scripts.enclosure import data_set_builder
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.formats.records import renamed

from ..escaping import encodable
from ..files import parsed, read_json_lines
from ..model.posts_mmner import PostError
from ..names import path_or_hub
from .annotator import POST_COLUMNS, hash_of_files, post_columns, rows_of

_JSON_LINES = (".jsonl", ".ndjson")
_LINE = datasets.Features({name: datasets.Value("large_string") for name in ("post", "error")})
_ROWS = 16  # that are in memory at a time, with their pictures


@dataclass(frozen=True)
class PostsInput:
    """Posts in files. A process that it is sent to finds the rows in the cache of `datasets`.

    Attributes:
        rows: as they stand in the files; of JSON lines each that is not blank, as `post` or `error`.
        columns: what our columns are called there, as ``{"text": "body"}``.
        image_dir: the folder that paths of pictures may not lead out of, where relative ones begin.
        sha256: of the files.
    """

    rows: datasets.Dataset
    columns: Mapping[str, str]
    image_dir: str
    sha256: str

    def read(self, numbers: range) -> Iterator[Any]:
        """The posts of some rows, their pictures not decoded; a line that is no JSON is a `PostError`."""
        rows = self.rows.with_format("arrow")
        for start in numbers[::_ROWS]:
            for row in rows_of(rows[start : min(start + _ROWS, numbers.stop)], first=start):
                yield renamed(_post_of(row) if rows.features == _LINE else row, dict(self.columns))


def open_posts(
    source: str,
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    image_dir: str | None = None,
) -> PostsInput:
    """Open posts, which need no tags.

    Args:
        source: a file of JSON lines or Parquet; a folder, or an id on the Hub, that `datasets` knows as a
            data set.
        split, config: of a data set that has several.
        revision: of a data set on the Hub: branch, tag or commit.
        columns, image_dir: see `PostsInput`; by default pictures lie in the folder of the input, those of a
            data set on the Hub in its cache.

    Raises:
        CorpusError: there is no such file, data set or split, it is of another kind, or it has no texts.
    """
    path = Path(source)
    about = f"--input {source} --config {config} --revision {revision}"
    expected = "a file *.jsonl, *.ndjson or *.parquet, a folder of such, or the id of a data set on the Hub"
    if path.is_file() and (config or revision or path.suffix not in (*_JSON_LINES, ".parquet")):
        raise CorpusError(f"{about}: expected {expected}; only data sets have configs and revisions")
    try:
        if path.is_file():
            builder = datasets.load_dataset_builder("parquet", data_files={"train": glob.escape(source)})
        else:
            with path_or_hub(source, kind="dataset"):
                builder = data_set_builder(source, config, revision=revision)
        splits = [str(name) for name in builder.config.data_files or {}]
        split = splits[0] if split is None and len(splits) == 1 else split
        if split not in splits:
            raise CorpusError(f"--input {source} --split: expected one of {', '.join(splits)}, found {split}")
        files = builder.config.data_files[datasets.NamedSplit(split)]
        files = [Path(file) for file in datasets.DownloadManager().download(list(map(str, files)))]
        sha256 = hash_of_files(files)
        if not all(file.suffix in _JSON_LINES for file in files):
            builder.download_and_prepare()
            rows: Any = _of_posts(builder.as_dataset(split=split), columns or {}, source)
        elif next(_lines(files, sha256), None) is None:  # of nothing `datasets` generates an error
            rows = datasets.Dataset.from_dict({"post": [], "error": []}, features=_LINE)
        else:
            named = {"files": files, "sha256": sha256}
            rows = datasets.Dataset.from_generator(_lines, features=_LINE, gen_kwargs=named)
    except CorpusError:
        raise
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise CorpusError(f"{about}: expected {expected}; {error}") from error
    folder = constants.HF_HUB_CACHE if not path.exists() else path.parent if path.is_file() else path
    return PostsInput(rows, columns or {}, image_dir or str(folder), sha256)


def _lines(files: list[Path], sha256: str) -> Iterator[dict[str, str | None]]:
    """Lines as rows, which `datasets` keeps by the hash; its own reader ends at the first broken line."""
    for path in files:
        with path.open("rb") as file:
            for post in read_json_lines(file, path.name):
                is_error = isinstance(post, PostError)
                line = encodable(post if is_error else json.dumps(post, ensure_ascii=False))
                yield {"post": None if is_error else line, "error": line if is_error else None}


def _post_of(line: Mapping[str, str | None]) -> Any:
    """What stands on a line; how deep it may be nested, Python decides by all that it is doing."""
    try:
        return PostError(line["error"]) if line["post"] is None else parsed(line["post"])
    except ValueError as error:
        return PostError(f"{line['post']:.80}: expected a JSON object, found {error}")


def _of_posts(rows: datasets.Dataset, columns: Mapping[str, str], source: str) -> datasets.Dataset:
    """The columns of a post alone; CorpusError where none holds texts, or --columns names another."""
    found = rows.column_names
    theirs = {ours: columns.get(ours, ours) for ours in POST_COLUMNS}
    if {theirs["text"], theirs["tokens"]}.isdisjoint(found) or not set(columns.values()) <= set(found):
        expected = "columns of the input, and one for text or tokens (--columns text=THEIRS)"
        given = f"--input {source} --columns {dict(columns)}"
        raise CorpusError(f"{given}: expected {expected}, found {', '.join(found)}")
    chosen = {*theirs.values(), *post_columns(found)}
    return rows.select_columns([name for name in found if name in chosen])
