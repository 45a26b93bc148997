"""Posts in files, of any size, as ranges of rows that are read each by itself and one post at a time.

A range of JSON lines is found by the byte at which it begins, one of Parquet by the row groups that hold it.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from modeling_mmner.files import MOST_LINE_BYTES, parsed_post
from modeling_mmner.model.images_mmner import PICTURE_COLUMNS, PictureError
from modeling_mmner.model.posts_mmner import PostError

from .formats.own_data import local_picture
from .formats.reader import CorpusError
from .formats.records import renamed

POST_COLUMNS = ("id", "text", "tokens", "context", *PICTURE_COLUMNS)
"""What a post is made of; other columns are not read."""
_PARQUET_ROWS = 64  # that are in memory at a time, with their pictures
_HUB = "hf://"


@dataclass(frozen=True)
class Survey:
    """What a file holds.

    Attributes:
        size: in bytes.
        sha256: of its bytes.
        rows: how many it has.
        starts: where each range begins: the byte in JSON lines, the row in Parquet.
    """

    size: int
    sha256: str
    rows: int
    starts: list[int]


@dataclass
class RowFile(ABC):
    """A file of posts.

    Attributes:
        name: by which it is known wherever it lies.
        fetch: gives its path; of a file on the Hub, after it was downloaded.
    """

    name: str
    fetch: Callable[[], Path]

    @cached_property
    def path(self) -> Path:
        return self.fetch()

    @cached_property
    def first_stamp(self) -> tuple[int, int]:
        """Size in bytes and time of the last change in nanoseconds, when they were first asked for."""
        return self.stamp()

    def stamp(self) -> tuple[int, int]:
        """The same as they are now."""
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns

    def check_unchanged(self) -> None:
        """Raises: CorpusError: the file has changed since it was first looked at."""
        if self.stamp() != self.first_stamp:
            raise CorpusError(
                f"{self.name}: expected a file that stays as it is, found it changed while it was read"
            )

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def survey(self, rows_per_range: int) -> Survey:
        """Read the file once, from end to end."""
        size, _ = self.first_stamp
        found = self._survey(size, rows_per_range)
        self.check_unchanged()
        return found

    @abstractmethod
    def _survey(self, size: int, rows_per_range: int) -> Survey: ...

    @abstractmethod
    def read(self, start: int, rows: int, *, first: int, columns: Mapping[str, str]) -> Iterator[Any]:
        """The posts of a range; what is none is a `PostError`.

        Args:
            start: where the range begins, as a survey says.
            rows: how many to read; fewer come where the file ends.
            first: by which errors number the first of them.
            columns: what our columns are called in the file.
        """


class JsonLinesFile(RowFile):
    """A row is a line that is not blank."""

    def _survey(self, size: int, rows_per_range: int) -> Survey:
        digest, starts, rows = hashlib.sha256(), [], 0
        with self.path.open("rb") as file:
            for rows, (begin, _) in enumerate(_lines(file, digest.update), start=1):
                if rows % rows_per_range == 1 or rows_per_range == 1:
                    starts.append(begin)
        return Survey(size, digest.hexdigest(), rows, starts)

    def read(self, start: int, rows: int, *, first: int, columns: Mapping[str, str]) -> Iterator[Any]:
        with self.path.open("rb") as file:
            file.seek(start)
            for number, (begin, line) in zip(range(first, first + rows), _lines(file), strict=False):
                yield renamed(_post(line, f"{self.name}, row {number}", is_first=begin == 0), dict(columns))


def _lines(file: BinaryIO, seen: Callable[[bytes], object] = len) -> Iterator[tuple[int, bytes]]:
    """The lines from here on that are not blank, each with the byte at which it begins.

    Args:
        seen: is given all bytes, in order.
    """
    begin = file.tell()
    while line := file.readline(MOST_LINE_BYTES + 1):
        seen(line)
        length, rest = len(line), line
        while not rest.endswith(b"\n") and (rest := file.readline(MOST_LINE_BYTES)):
            seen(rest)
            length += len(rest)
        if len(line) > MOST_LINE_BYTES or not line.isspace():
            yield begin, line
        begin += length


def _post(line: bytes, place: str, *, is_first: bool) -> Any:
    if len(line) > MOST_LINE_BYTES:
        return PostError(f"{place}: expected a line of at most {MOST_LINE_BYTES:,} bytes, found a longer one")
    return parsed_post(line, place, is_first=is_first)


class ParquetFile(RowFile):
    """A row is a row."""

    def _survey(self, size: int, rows_per_range: int) -> Survey:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            rows = file.metadata.num_rows
        return Survey(size, self.sha256(), rows, list(range(0, rows, rows_per_range)))

    def read(self, start: int, rows: int, *, first: int, columns: Mapping[str, str]) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path, buffer_size=2**20) as file:
            groups, before = _row_groups(file.metadata, start, start + rows)
            wanted = self._wanted(file.schema_arrow.names, columns)
            skip, left = start - before, rows
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, row_groups=groups, columns=wanted):
                part = batch.slice(skip, left)
                skip, left = max(0, skip - len(batch)), left - len(part)
                yield from (renamed(row, dict(columns)) for row in part.to_pylist())
                if not left:
                    return

    def _wanted(self, found: list[str], columns: Mapping[str, str]) -> list[str]:
        """The columns to read.

        Raises:
            CorpusError: none of them holds texts, or --columns names one that is not there.
        """
        names = [columns.get(column, column) for column in POST_COLUMNS]
        if missing := sorted(set(columns.values()) - set(found)):
            raise CorpusError(
                f"{self.name}, --columns: expected columns among {', '.join(found)}, found"
                f" {', '.join(missing)}"
            )
        if not {columns.get("text", "text"), columns.get("tokens", "tokens")} & set(found):
            raise CorpusError(
                f"{self.name}: expected a column text or tokens, found {', '.join(found)}; --columns"
                " text=THEIRS says what it is called"
            )
        return [name for name in names if name in found]


def _row_groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows, and how many rows stand before these groups."""
    groups, before, first = [], 0, 0
    for group in range(metadata.num_row_groups):
        after = first + metadata.row_group(group).num_rows
        if after <= start:
            before = after
        elif first < stop:
            groups.append(group)
        first = after
    return groups, before


_KINDS: dict[str, type[RowFile]] = {
    ".jsonl": JsonLinesFile,
    ".ndjson": JsonLinesFile,
    ".parquet": ParquetFile,
}


@dataclass
class Rows:
    """The posts of one file or several, in order.

    Attributes:
        files: in which they are.
        columns: what our columns are called in them.
        image_dir: where pictures are looked for by their paths and names; None: beside their file.
    """

    files: list[RowFile]
    columns: dict[str, str] = field(default_factory=dict)
    image_dir: str | None = None

    def read(self, file: int, start: int, rows: int, *, first: int) -> Iterator[Any]:
        """The posts of a range, see `RowFile.read`; a picture that is not there is a `PictureError` in its
        place.

        Raises:
            CorpusError: the file has changed meanwhile.
            OSError, ValueError: it cannot be read.
        """
        source = self.files[file]
        source.check_unchanged()
        for post in source.read(start, rows, first=first, columns=self.columns):
            yield self._with_pictures(post, source.path.parent)
        source.check_unchanged()

    def _with_pictures(self, post: Any, folder: Path) -> Any:
        if not isinstance(post, dict):
            return post
        found = dict(post)
        for column in PICTURE_COLUMNS:
            given = post.get(column)
            if isinstance(given, list):
                found[column] = [self._picture(one, folder) for one in given]
            elif given is not None:
                found[column] = self._picture(given, folder)
        return found

    def _picture(self, given: Any, folder: Path) -> Any:
        """A picture by its path or bytes; no path leads out of the folders."""
        if given is None:
            return None
        picture = local_picture(given, image_dir=self.image_dir, folder=folder)
        if isinstance(picture, dict):
            return picture
        path = given.get("path") if isinstance(given, dict) else given
        return PictureError(
            f"picture {path!r:.80}: {picture}" if isinstance(path, str) else f"picture: {picture}"
        )


def open_rows(
    source: str,
    *,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    image_dir: str | None = None,
) -> Rows:
    """Open posts, which need no tags.

    Args:
        source: a file of JSON lines or Parquet; a folder or a Hub id that `datasets` knows as a data set of
            such files.
        config, split: of a data set that has several.
        revision: of a data set on the Hub: branch, tag or commit.
        columns: what our columns are called, as ``{"text": "body"}``.
        image_dir: see `Rows`.

    Raises:
        CorpusError: there is no such file or data set, or its files are of another kind.
    """
    path = Path(source)
    if path.is_file():
        if given := [
            name for name, value in (("config", config), ("split", split), ("revision", revision)) if value
        ]:
            raise CorpusError(
                f"{source}: expected no --{' and no --'.join(given)}, which data sets have, found them"
            )
        files = [_row_file(path.name, lambda: path)]
    else:
        files = [_file_of(name, path) for name in _data_files(source, config, split, revision)]
    return Rows(files, dict(columns or {}), image_dir)


def _row_file(name: str, fetch: Callable[[], Path]) -> RowFile:
    kind = _KINDS.get(Path(name).suffix)
    if kind is None:
        raise CorpusError(f"{name}: expected a file whose name ends in {', '.join(_KINDS)}, found another")
    return kind(name, fetch)


def _data_files(source: str, config: str | None, split: str | None, revision: str | None) -> Iterable[str]:
    """The files of a data set's split."""
    import datasets

    try:
        found = datasets.load_dataset_builder(source, config, revision=revision).config.data_files or {}
    except (ValueError, OSError, RuntimeError) as error:
        what = "a file of JSON lines or Parquet, a folder of them, or the id of a data set on the Hub"
        raise CorpusError(
            f"{source}, --config {config}: expected {what}; could not open it: {error}"
        ) from error
    splits = [str(name) for name in found]
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        raise CorpusError(f"{source}, --split: expected one of {', '.join(splits)}, found {split}")
    return [str(name) for name in found[datasets.NamedSplit(split)]]


def _file_of(name: str, folder: Path) -> RowFile:
    """A file as `datasets` names it: by its path, or on the Hub."""
    if not name.startswith(_HUB):
        return _row_file(Path(os.path.relpath(name, folder)).as_posix(), lambda: Path(name))
    from huggingface_hub import HfFileSystem, hf_hub_download

    place: Any = HfFileSystem().resolve_path(name)

    def fetch() -> Path:
        return Path(
            hf_hub_download(place.repo_id, place.path_in_repo, repo_type="dataset", revision=place.revision)
        )

    return _row_file(place.path_in_repo, fetch)
