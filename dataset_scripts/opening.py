"""Opens any corpus by its name, folder or Hub id: generated, raw files, a built data set."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from modeling_mmner.files import json_line, picture_content, write_text
from modeling_mmner.model.images_mmner import PICTURE_COLUMNS
from modeling_mmner.model.labels_mmner import check_labels
from modeling_mmner.names import path_or_hub

from .builders.builder import short_hash
from .corpora import BUILDERS, FOLDER_CORPUS
from .enclosure import check_pictures, data_set_builder
from .findings import Findings
from .formats.annotations import LeftOut
from .formats.own_data import OwnPosts, Posts, add_posts, check_words, read_own, read_tags, tables_of
from .formats.reader import SPLIT_NAMES, SPLIT_OF, SPLITS, CorpusError, holds_splits, mismatch
from .formats.records import dataset_records, record_files
from .reading_options import ReadingOptions
from .slices import parse_slice

_OF_OWN_FILES = ("tag_names", "split_ratio", "split_seed")
_OF_TAGS = ("tag_scheme", "tag_names", "rename_types", "repair_orphans", "language")
SPANS_LEFT_OUT = "spans_left_out.jsonl"
RECORD = "corpus.json"
"""The file of a built data set that says what it was built from; its card is rendered from it."""
TAGGED_POSTS = "files of tagged posts"


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
        left_out: spans of people's own files that are no entities, since they are no whole words.
        findings: all that was found in reading it.
        form: what it was taken for, in words.
        about: see `CorpusBuilder.about`; empty where it has no builder.
        notes: of each split, how often something in its file was read otherwise than it stands.

    Raises:
        CorpusError: a type or a label is none that a model can have, see `check_labels`.
    """

    name: str
    splits: dict[str, datasets.Dataset]
    labels: list[str]
    version_name: str
    version: dict[str, str]
    left_out: list[LeftOut] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    form: str = "a data set"
    about: dict[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            if len(self.labels) > 1:  # posts without entities may be compared with others
                check_labels(self.labels)
        except ValueError as error:
            raise CorpusError(f"{self.name}, column ner_tags: {error}") from error

    def identity(self) -> dict[str, Any]:
        """Which copy of which corpus it is, for reports."""
        return {"name": self.name, "version_name": self.version_name, "version": dict(self.version)}

    def write_left_out(self, folder: Path) -> None:
        """Write the spans that were left out, if there are any, into a folder, a line each."""
        lines = [json_line(span._asdict()) + "\n" for span in self.left_out]
        write_text(folder / SPANS_LEFT_OUT, "".join(lines))
        if not lines:
            (folder / SPANS_LEFT_OUT).unlink()


def open_corpus(dataset: str, *, config: str | None = None, **options: Any) -> Corpus:
    """Open a corpus.

    Args:
        dataset: ``sample``; the name of a builder, for the files in `data_dir`; a folder with a built data
            set or with raw split files; a file of posts or a folder of such files, see `records` and
            `annotations`; or a Hub id.
        config: of a data set or builder that has several.
        options: `ReadingOptions`, for raw files. Where `dataset` is itself a folder of raw files, `image_dir`
            is by default its subfolder ``images``, if it has one.

    Raises:
        CorpusError: there is no such corpus, it has not the columns or labels needed, or its files are
            malformed.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if dataset in BUILDERS:
        return _from_builder(dataset, config, given)
    path = Path(dataset)
    is_built = (path / RECORD).is_file() or any(path.glob("*-of-*.parquet"))  # as `build` or the Hub lays out
    is_raw = path.is_dir() and not is_built and holds_splits(path)
    if path.is_file() or (path.is_dir() and not is_built and not is_raw and record_files(path)):
        if config is not None:
            raise mismatch(f"dataset {dataset!r}", "no --config, which data sets have", repr(config))
        return _own(path, given)
    if is_raw or (path.is_dir() and not is_built and not any(path.rglob("*.parquet"))):
        beside = {"image_dir": path / "images"} if (path / "images").is_dir() else {}
        return _from_builder(FOLDER_CORPUS, None, beside | given | {"data_dir": path})
    return _built(dataset, config, given)


def _from_builder(name: str, config: str | None, options: dict[str, Any]) -> Corpus:
    kind, is_folder = BUILDERS[name], name == FOLDER_CORPUS
    if kind.IS_GENERATED:
        options.pop("word_rule", None)  # the model's alone
    useless = _OF_OWN_FILES if is_folder else ("columns", *_OF_OWN_FILES)
    _refuse(name, options, options if kind.IS_GENERATED else useless)
    builder = kind(config, **options)
    splits = builder.splits()
    if is_folder and builder.config.word_rule == "spaces":
        check_words((tokens for rows in splits.values() for tokens in rows["tokens"]), builder.findings)
    return Corpus(
        name=Path(builder.config.data_dir).name if is_folder else name,
        splits=splits,
        labels=builder.labels,
        version_name=builder.version_name(),
        version=builder.file_hashes or {split: row_hash(rows) for split, rows in splits.items()},
        findings=builder.findings,
        form="generated" if kind.IS_GENERATED else TAGGED_POSTS,
        about=builder.about(),
        notes=builder.notes,
    )


def _refuse(dataset: str, given: Iterable[str], useless: Iterable[str]) -> None:
    """Options of reading that a corpus has no use for: whoever gives them expects something else."""
    if found := [key for key in given if key in useless]:
        kind = "other" if set(found) <= set(_OF_OWN_FILES) else "raw"
        names = " and no ".join(f"--{key}" for key in found)
        raise mismatch(f"dataset {dataset!r}", f"no {names}, which say how {kind} files are read", "them")


def _own(path: Path, given: dict[str, Any]) -> Corpus:
    _refuse(str(path), given, ("data_dir", "split_slices", "no_verify"))
    posts, read = read_own(path, ReadingOptions(**given))
    if not read.division:
        _refuse(f"{path}, which has its own splits", given, ("split_ratio", "split_seed"))
    name = path.stem if path.is_file() else path.name
    return _converted(name, posts, read, ", ".join(file.name for file in record_files(path).values()))


def _converted(name: str, posts: dict[str, Posts], read: OwnPosts, files: str) -> Corpus:
    splits, labels = tables_of(posts, read)
    version = {split: row_hash(rows) for split, rows in splits.items()}
    version_name = f"copy-{short_hash(version)}{read.division}"
    form = f"{files}: {' and '.join(read.forms)}{read.division and ', split by ' + read.division[1:]}"
    return Corpus(name, splits, labels, version_name, version, read.left_out, read.findings, form)


def _built(dataset: str, config: str | None, given: dict[str, Any]) -> Corpus:
    """A data set that `datasets` loads, from a folder or from the Hub."""
    slices, columns = given.pop("split_slices", {}), given.pop("columns", {})
    _refuse(dataset, given, given.keys() - {*_OF_TAGS, "word_rule"})
    place, name = f"dataset {dataset!r}", Path(dataset).name
    try:
        with path_or_hub(dataset, kind="dataset", known=BUILDERS, error=CorpusError):
            builder = data_set_builder(dataset, config)
            builder.download_and_prepare()
            found = builder.as_dataset()
    except CorpusError:
        raise
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        expected = f"one of {', '.join(BUILDERS)}, a folder with a corpus, or the id of a data set on the Hub"
        why = f"expected {expected}; could not load it: {error}"
        raise CorpusError(f"{place}, config {config!r}: {why}") from error
    splits, origin, numbers = {}, {}, {}
    for split in SPLITS:
        wanted, part = parse_slice(slices.get(split, split))
        known = SPLIT_OF.get(wanted, wanted)
        if there := next((other for other in SPLIT_NAMES.get(known, (wanted,)) if other in found), None):
            origin[split], numbers[split] = known, range(len(found[there]))[part]
            rows = found[there] if part == slice(None) else found[there].select(numbers[split])
            splits[split] = _renamed(rows, columns, place)
    if not splits:
        raise mismatch(place, f"splits among {', '.join(SPLITS)}", ", ".join(found))
    if not all(_has_ids(rows) for rows in splits.values()):
        read, posts, options = OwnPosts(), {}, ReadingOptions(**given)
        for split, rows in splits.items():
            places = (f"{dataset}, {split}, row {number}" for number in numbers[split])
            records = zip(places, dataset_records(rows), strict=True)
            posts[split] = add_posts(records, read, options, folder=None, source=name)
        read_tags(read, options)
        return _converted(name, posts, read, "a data set")
    _refuse(dataset, given, _OF_TAGS)
    splits = {split: _with_columns(rows, dataset, split) for split, rows in splits.items()}
    labels = next(iter(splits.values())).features["ner_tags"].feature.names
    record = _record(dataset, config)
    hashes = {split: details.get("sha256") for split, details in record.get("splits", {}).items()}
    version = {split: hashes.get(origin[split]) or row_hash(rows) for split, rows in splits.items()}
    parts = [f"+{split}={part}" for split, part in slices.items()]
    version_name = "".join([record.get("version", "unverified"), *parts])
    return Corpus(record.get("name", name), splits, labels, version_name, version)


def _renamed(rows: datasets.Dataset, columns: Mapping[str, str], place: str) -> datasets.Dataset:
    if missing := sorted(set(columns.values()) - set(rows.features)):
        raise mismatch(f"{place}, --columns", f"columns among {', '.join(rows.features)}", missing)
    replaced = [ours for ours, theirs in columns.items() if ours in rows.features and ours != theirs]
    return rows.remove_columns(replaced).rename_columns({theirs: ours for ours, theirs in columns.items()})


def _has_ids(rows: datasets.Dataset) -> bool:
    """Whether there are words, and tags that are ids with names: all else is read as people's own records."""
    kind = getattr(rows.features.get("ner_tags"), "feature", None)
    return "tokens" in rows.features and isinstance(kind, datasets.ClassLabel)


def _record(dataset: str, config: str | None) -> dict[str, Any]:
    """What a built data set says of itself and of a config; empty where it has no record."""
    path = Path(dataset) / RECORD
    try:
        if not Path(dataset).is_dir():
            path = Path(hf_hub_download(dataset, RECORD, repo_type="dataset"))
        record = json.loads(path.read_text(encoding="utf-8"))
        part = record["configs"].get(config or next(iter(record["configs"])), {})
        return {"name": str(record["name"])} | {key: part[key] for key in ("version", "splits") & part.keys()}
    except (FileNotFoundError, HfHubHTTPError, OfflineModeIsEnabled):
        return {}
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise mismatch(path, "the record that `build` writes", f"{type(error).__name__}: {error}") from error


def _with_columns(rows: datasets.Dataset, dataset: str, split: str) -> datasets.Dataset:
    """The rows with all columns of a corpus, those that are missing filled in, and pictures not decoded."""
    count, picture = len(rows), datasets.Image(decode=False)
    numbers = [str(number) for number in range(count)]
    defaults = {"id": numbers, "language": ["unknown"] * count, "source": [Path(dataset).name] * count}
    for column, values in defaults.items():
        if column not in rows.features:
            rows = rows.add_column(column, values)
    if rows.features.keys().isdisjoint(PICTURE_COLUMNS):
        rows = rows.add_column("image", [None] * count, feature=picture)
    for column in (name for name in PICTURE_COLUMNS if name in rows.features):
        rows = rows.cast_column(column, picture if column == "image" else datasets.List(picture))
        check_pictures(rows, column, dataset=dataset, place=f"dataset {dataset!r}, split {split!r}")
    return rows


def row_hash(rows: datasets.Dataset, content: Callable[[Mapping[str, Any]], bytes] = picture_content) -> str:
    """The first 12 hex digits of the SHA-256 of the rows, what stands for pictures' content included."""
    digest = hashlib.sha256()
    for row in rows:
        pictures = [row.pop("image", None), *(row.pop("images", None) or [])]
        digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass"))
        for picture in pictures:
            try:
                digest.update(b"-" if picture is None else content(picture))
            except OSError:  # it is not there
                digest.update(str(picture["path"]).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:12]
