"""Opens any corpus by its name, folder or Hub id: generated, raw files, a built data set."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import datasets
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from modeling_mmner.model.labels_mmner import check_labels

from .builders.builder import SPLITS, CorpusBuilder, PostsBuilder
from .corpora import BUILDERS, FOLDER_CORPUS
from .enclosure import check_card, check_pictures
from .formats.annotations import LeftOut
from .formats.own_data import OwnPosts, add_posts, hash_of_posts, read_own, tables_of
from .formats.reader import SPLIT_NAMES, CorpusError, holds_splits
from .formats.records import dataset_records, record_files
from .reading_options import ReadingOptions
from .slices import parse_slice

_OF_OWN_FILES = ("columns", "split_ratio", "split_seed")
_OF_TAGS = ("tag_scheme", "rename_types", "repair_orphans", "language")
RECORD = "corpus.json"
"""The file of a built data set that says what it was built from; its card is rendered from it."""


@dataclass
class Corpus:
    """A corpus of which every split is open.

    Attributes:
        name: for reports.
        splits: some of train, validation and test, with the columns id, tokens, ner_tags (ids), language,
            source and image (``{"bytes", "path"}`` or None) or images (a list of such).
        labels: the BIO label names in id order.
        version_name: ``official``, or what else tells this copy from others.
        version: for each split 12 hex digits of the SHA-256 of the file that it comes from, or of its rows.
        left_out: spans of people's own files that are no entities of the corpus, since they are no whole
            words.
        notes: what else was found in reading such files, counted.
    """

    name: str
    splits: dict[str, datasets.Dataset]
    labels: list[str]
    version_name: str
    version: dict[str, str]
    left_out: list[LeftOut] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def reading_report(self, *, most: int = 5) -> list[str]:
        """What was found in reading people's own files, a line each: the notes, and of the spans left out the
        first `most`.
        """
        lines = [f"{self.name}: {note}: {number}" for note, number in self.notes.items()]
        if self.left_out:
            lines.append(
                f"{self.name}: spans left out, since they are no whole words or overlap: {len(self.left_out)}"
            )
        lines += [
            f"  {one.place}: {one.label} {one.start}-{one.end} {one.text!r} {one.reason}"
            for one in self.left_out[:most]
        ]
        return lines + (["  ..."] if len(self.left_out) > most else [])


def open_corpus(
    dataset: str,
    *,
    config: str | None = None,
    data_dir: str | Path | None = None,
    image_dir: str | Path | None = None,
    **options: Any,
) -> Corpus:
    """Open a corpus.

    Args:
        dataset: ``sample``; the name of a builder, for the files in `data_dir`; a folder with a built data
            set or with raw split files; a file of posts or a folder of such files, see `records` and
            `annotations`; or a Hub id.
        config: of a data set or builder that has several.
        data_dir, image_dir: folders of raw files and pictures. Where `dataset` is itself a folder of raw
            files, the pictures are by default those in its subfolder ``images``, if it has one.
        options: more `ReadingOptions`, for raw files.

    Raises:
        CorpusError: there is no such corpus, it has not the columns or labels needed, or its files are
            malformed.
    """
    given = {"data_dir": data_dir, "image_dir": image_dir, **options}
    if dataset in BUILDERS:
        builder = make_builder(dataset, config=config, **given)
        return _generated(builder) if builder.IS_GENERATED else _raw(builder)
    path = Path(dataset)
    kind = _kind(path)
    if kind == "own":
        if config is not None:
            raise CorpusError(
                f"dataset {dataset!r}: expected no --config, which data sets have, found {config!r}"
            )
        return _own(path, **given)
    if kind == "raw":
        beside = path / "images" if (path / "images").is_dir() else None
        return _raw(
            make_builder(FOLDER_CORPUS, **given | {"data_dir": path, "image_dir": image_dir or beside})
        )
    return _built(dataset, config, **given)


def _kind(path: Path) -> Literal["own", "raw", "built"]:
    """What a path holds: people's own files, raw split files, or a data set as `build-dataset` or the Hub
    lays it out. What is no path is an id on the Hub, of the last kind."""
    if path.is_file():
        return "own"
    if not path.is_dir() or (path / RECORD).is_file() or any(path.glob("*-of-*.parquet")):
        return "built"
    if holds_splits(path):
        return "raw"
    if record_files(path):
        return "own"
    return "built" if any(path.rglob("*.parquet")) else "raw"


def make_builder(
    name: str, *, config: str | None = None, cache_dir: str | None = None, **options: Any
) -> Any:
    """The builder of a corpus, a `CorpusBuilder`; for the `options` of corpora in files see `PostsConfig`.

    Raises:
        CorpusError: folders or files are missing or malformed, or the corpus has no such config.
    """
    builder = BUILDERS[name]
    _refuse(name, options if builder.IS_GENERATED else {key: options.get(key) for key in _OF_OWN_FILES})
    known = [known.name for known in builder.BUILDER_CONFIGS]
    config = config or builder.DEFAULT_CONFIG_NAME or (known[0] if len(known) == 1 else None)
    if config not in known:
        raise CorpusError(
            f"{name}: expected a config (--config, in training --dataset_config) out of {', '.join(known)};"
            f" found {config!r}"
        )
    given = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in options.items()
        if value is not None
    }
    return builder(config_name=config, cache_dir=cache_dir, **given)


def _refuse(name: str, options: Mapping[str, Any]) -> None:
    """Options of reading that a corpus has no use for: whoever gives them expects something else."""
    if given := [f"--{key}" for key, value in options.items() if value is not None]:
        kind = "other files" if set(options) <= set(_OF_OWN_FILES) else "raw files"
        raise CorpusError(
            f"dataset {name!r}: expected no {' and no '.join(given)}, which say how {kind} are read; found"
            " them"
        )


def _generated(builder: CorpusBuilder) -> Corpus:
    builder.download_and_prepare()
    splits = {
        split: builder.as_dataset(split=split).cast_column("image", datasets.Image(decode=False))
        for split in SPLITS
    }
    version = {split: row_hash(rows) for split, rows in splits.items()}
    return Corpus(builder.name, splits, builder.labels(), builder.version_name(), version)


def _raw(builder: PostsBuilder) -> Corpus:
    builder.check_files()
    features = builder.info.features.copy()
    features["image"] = datasets.Image(decode=False)
    splits = {
        split: datasets.Dataset.from_list(list(builder.rows(split)), features=features) for split in SPLITS
    }
    name = Path(builder.config.data_dir).name if builder.NAMED_BY_FOLDER else builder.name
    return Corpus(name, splits, builder.labels(), builder.version_name(), builder.file_hashes())


def _own(path: Path, **given: Any) -> Corpus:
    """Posts in people's own files; the pictures of a folder are by default those in its subfolder ``images``,
    too.
    """
    _refuse(str(path), {key: given.pop(key, None) for key in ("data_dir", "split_slices", "no_verify")})
    known: dict[str, Any] = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in given.items()
        if value is not None
    }
    options = ReadingOptions(**known)
    posts, read = read_own(path, options)
    if not read.division:
        _refuse(
            f"{path}, which has its own splits",
            {key: known.get(key) for key in ("split_ratio", "split_seed")},
        )
    return _converted(path.stem if path.is_file() else path.name, posts, read)


def _converted(name: str, posts: dict[str, list[dict[str, Any]]], read: OwnPosts) -> Corpus:
    """The corpus of posts that were read from records."""
    splits, labels = tables_of(posts)
    version = {split: hash_of_posts(rows) for split, rows in posts.items()}
    version_name = f"copy-{hash_of_posts(read.posts)}{read.division}"
    return Corpus(name, splits, labels, version_name, version, read.left_out, dict(read.notes))


def _built(dataset: str, config: str | None, **given: Any) -> Corpus:
    """A data set that `datasets` loads, from a folder or from the Hub."""
    slices = given.pop("split_slices", None) or {}
    columns: dict[str, str] = given.pop("columns", None) or {}
    of_tags = {key: given.pop(key) for key in _OF_TAGS if given.get(key) is not None}
    _refuse(dataset, given)
    check_card(Path(dataset))
    try:
        found = datasets.load_dataset(dataset, config)
    except (ValueError, OSError, RuntimeError) as error:
        what = f"one of {', '.join(BUILDERS)}, a folder with a corpus, or the id of a data set on the Hub"
        raise CorpusError(
            f"dataset {dataset!r}, config {config!r}: expected {what}; could not load it: {error}"
        ) from error
    found = datasets.DatasetDict({name: _renamed(rows, columns, dataset) for name, rows in found.items()})
    if not all(_is_ready(rows) for rows in found.values()):
        return _from_records(dataset, found, slices, ReadingOptions(**cast(dict[str, Any], of_tags)))
    _refuse(dataset, of_tags)
    splits, origin = {}, {}
    for split in SPLITS:
        wanted = parse_slice(slices.get(split, split))
        origin[split], known = next(
            (item for item in SPLIT_NAMES.items() if wanted.name in item[1]), (wanted.name, (wanted.name,))
        )
        if names := [name for name in known if name in found]:
            rows = _with_columns(found[names[0]], f"dataset {dataset!r}, split {names[0]!r}", dataset)
            splits[split] = (
                rows if wanted.posts == slice(None) else rows.select(range(len(rows))[wanted.posts])
            )
    if not splits:
        raise CorpusError(
            f"dataset {dataset!r}: expected splits among {', '.join(SPLITS)}, found {', '.join(found)}"
        )
    labels = next(iter(splits.values())).features["ner_tags"].feature.names
    try:
        check_labels(labels)
    except ValueError as error:
        raise CorpusError(f"dataset {dataset!r}, column ner_tags: {error}") from error
    record = _record(dataset, config)
    hashes = {split: details["sha256"] for split, details in record.get("splits", {}).items()}
    version = {split: hashes.get(origin[split]) or row_hash(rows) for split, rows in splits.items()}
    version_name = "".join(
        [record.get("version", "unverified"), *(f"+{split}={part}" for split, part in slices.items())]
    )
    return Corpus(record.get("name", Path(dataset).name), splits, labels, version_name, version)


def _is_ready(rows: datasets.Dataset) -> bool:
    """Whether tags have ids with names, or nothing else is there that tags could be made of."""
    tags = rows.features.get("ner_tags")
    kind = getattr(tags, "feature", None)
    return isinstance(kind, datasets.ClassLabel) or not (
        "text" in rows.features
        or (isinstance(kind, datasets.Value) and kind.dtype in ("string", "large_string"))
    )


def _renamed(rows: datasets.Dataset, columns: Mapping[str, str], dataset: str) -> datasets.Dataset:
    """The rows with our names for their columns."""
    if missing := sorted(set(columns.values()) - set(rows.features)):
        raise CorpusError(
            f"dataset {dataset!r}, --columns: expected columns among {', '.join(rows.features)}, found"
            f" {missing}"
        )
    rows = rows.remove_columns(
        [ours for ours, theirs in columns.items() if ours in rows.features and ours != theirs]
    )
    return rows.rename_columns({theirs: ours for ours, theirs in columns.items()})


def _from_records(
    dataset: str, found: Mapping[str, datasets.Dataset], slices: Mapping[str, str], options: ReadingOptions
) -> Corpus:
    """A data set whose tags have no ids yet, or which has texts with spans."""
    read, posts = OwnPosts(), {}
    for split in SPLITS:
        wanted = parse_slice(slices.get(split, split))
        known = next((names for names in SPLIT_NAMES.values() if wanted.name in names), (wanted.name,))
        for rows in [found[name] for name in known if name in found][:1]:
            first = len(read.posts)
            records = (
                (f"{dataset}, {split}, row {number}", record) for number, record in dataset_records(rows)
            )
            add_posts(records, read, options, folder=None, source=Path(dataset).name)
            posts[split] = read.posts[first:][wanted.posts]
    if not posts:
        raise CorpusError(
            f"dataset {dataset!r}: expected splits among {', '.join(SPLITS)}, found {', '.join(found)}"
        )
    return _converted(Path(dataset).name, posts, read)


def _record(dataset: str, config: str | None) -> dict[str, Any]:
    """What a built data set says of itself and of a config; empty where it has no record."""
    path = Path(dataset) / RECORD
    if not Path(dataset).is_dir():
        try:
            path = Path(hf_hub_download(dataset, RECORD, repo_type="dataset"))
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled):
            return {}
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        part = record["configs"].get(config or next(iter(record["configs"])), {})
        return {"name": str(record["name"])} | {key: part[key] for key in ("version", "splits") & part.keys()}
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise CorpusError(
            f"{path}: expected the record that build-dataset writes, found {type(error).__name__}: {error}"
        ) from error


def _with_columns(rows: datasets.Dataset, place: str, name: str) -> datasets.Dataset:
    """The rows with all columns of a corpus, pictures not decoded; id, language and source are filled in
    where missing.
    """
    for column in ("tokens", "ner_tags"):
        if column not in rows.features:
            raise CorpusError(
                f"{place}: expected the columns tokens and ner_tags, found {', '.join(rows.features)}"
            )
    if not isinstance(getattr(rows.features["ner_tags"], "feature", None), datasets.ClassLabel):
        found = rows.features["ner_tags"]
        raise CorpusError(
            f"{place}: expected ner_tags to be a list of ClassLabel, whose names say what the ids mean, found"
            f" {found}"
        )
    defaults: dict[str, Callable[[int], str]] = {
        "id": str,
        "language": lambda _: "unknown",
        "source": lambda _: Path(name).name,
    }
    for column, default in defaults.items():
        if column not in rows.features:
            rows = rows.add_column(column, [default(number) for number in range(len(rows))])
    for column, feature in (
        ("images", datasets.List(datasets.Image(decode=False))),
        ("image", datasets.Image(decode=False)),
    ):
        if column in rows.features:
            rows = rows.cast_column(column, feature)
            check_pictures(rows, column, dataset=name, place=place)
            return rows
    return rows.add_column("image", [None] * len(rows), feature=datasets.Image(decode=False))


def row_hash(rows: datasets.Dataset) -> str:
    """The first 12 hex digits of the SHA-256 of the rows, pictures included."""
    digest = hashlib.sha256()
    for row in rows:
        pictures = [row.pop("image", None), *(row.pop("images", None) or [])]
        digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass"))
        for picture in pictures:
            digest.update(b"-" if picture is None else picture["bytes"] or str(picture["path"]).encode())
    return digest.hexdigest()[:12]
