"""What the builders of all corpora share: the columns, the reading of posts, the check of every picture."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets

from modeling_mmner.model.batching_mmner import ahead
from modeling_mmner.model.images_mmner import PictureError, load_picture
from modeling_mmner.model.labels_mmner import bio_labels

from ..formats.reader import CorpusError, Reading, TaggedPost, find_picture, find_split, read_posts
from ..formats.records import undecoded
from ..reading_options import ReadingOptions, closed_sets
from ..slices import SplitSlice, parse_slice
from .official import OFFICIAL, Counts, Official, differences, file_hash

SPLITS = ("train", "validation", "test")
STANDARD_TYPES = ("PER", "LOC", "ORG", "MISC")
READING_THREADS, READ_AHEAD = 4, 16
"""Of pictures: so many are read at a time, and so many wait at most."""


def corpus_features(labels: list[str]) -> datasets.Features:
    """The columns of every corpus: id, tokens, ner_tags, image (may be null), language and source."""
    text, tag = datasets.Value("string"), datasets.ClassLabel(names=labels)
    columns = {"id": text, "tokens": datasets.List(text), "ner_tags": datasets.List(tag)}
    return datasets.Features(columns | {"image": datasets.Image(), "language": text, "source": text})


@dataclass
class PostsConfig(ReadingOptions, datasets.BuilderConfig):
    """How a corpus in files is read, see `ReadingOptions`, and what is asked of its pictures.

    Attributes:
        license: that the corpus gives; ``other``: none, or one without a name on the Hub.
        broken_pictures: ``keep`` the post of a picture that cannot be decoded without it, or ``stop``.
        require_images: stop at a post without a picture file.
    """

    license: str = "other"
    broken_pictures: Literal["keep", "stop"] = "keep"
    require_images: bool = False


@dataclass
class SplitReport:
    """What reading a split has shown: notes on reading, counts, posts with a picture, broken pictures."""

    notes: Counter[str] = field(default_factory=Counter)
    counts: Counts = field(default_factory=Counts)
    present: int = 0
    broken: list[dict[str, str]] = field(default_factory=list)

    def pictures(self) -> dict[str, Any]:
        """How many posts have a picture, none, or a broken one, and the ids of the last."""
        broken = [problem["id"] for problem in self.broken]
        missing = self.counts.posts - self.present - len(broken)
        return {"present": self.present, "missing": missing, "broken": len(broken), "broken_ids": broken}


class CorpusBuilder(datasets.GeneratorBasedBuilder):
    """Base of all builders: what a data card says of a corpus, and what reading its files has shown.

    Attributes:
        CITATION: BibTeX.
        KNOWN_PROBLEMS: a sentence each.
        TERMS: under which the posts and pictures may be used.
        IS_GENERATED: whether it is made by a program, so that there are no files to read and nobody has
            rights in it.
        NAMED_BY_FOLDER: whether the builder reads any corpus, so that only the folder's name tells which one.
        NEEDS_LANGUAGE: whether nothing but the user says in which language the posts are.
        reports: what reading each split has shown, by split; empty until it was generated.
    """

    VERSION = datasets.Version("1.0.0")
    CITATION: ClassVar[str] = ""
    KNOWN_PROBLEMS: ClassVar[tuple[str, ...]] = ()
    TERMS: ClassVar[str]
    IS_GENERATED: ClassVar[bool] = False
    NAMED_BY_FOLDER: ClassVar[bool] = False
    NEEDS_LANGUAGE: ClassVar[bool] = False

    def __init__(self, **kwargs: Any) -> None:
        self.reports: dict[str, SplitReport] = {}
        self._hashes: dict[Path, str] = {}
        super().__init__(**kwargs)

    @classmethod
    def configs_in(cls, data_dir: Path) -> list[str]:
        """The configs that a folder of files is built into by default; empty: the builder's own default."""
        return []

    @classmethod
    def chance(cls, languages: Iterable[str]) -> dict[str, float] | None:
        """Best F1 of text alone on the ambiguous test posts, by language and over ``all``; None where that is
        not known.
        """
        return None

    def version_name(self) -> str:
        """A name for this copy of the corpus, which no other copy has."""
        raise NotImplementedError

    def file_hashes(self) -> dict[str, str]:
        """The first 12 hex digits of the SHA-256 of each split's file; empty for a corpus that is not in
        files.
        """
        return {}

    def labels(self) -> list[str]:
        """The BIO labels in id order."""
        return list(self.info.features["ner_tags"].feature.names)

    def splits(self) -> dict[str, datasets.Dataset]:
        """All splits, pictures not decoded."""
        self.download_and_prepare()
        return {split: undecoded(self.as_dataset(split=split)) for split in SPLITS}

    def checked_rows(self, split: str) -> Iterator[dict[str, Any]]:
        """The rows of a split, with pictures that can be decoded."""
        raise NotImplementedError

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in SPLITS]

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        labels, report = self.labels(), SplitReport()
        self.reports[split] = report
        for number, row in enumerate(self.checked_rows(split)):
            tags = [labels[tag] if isinstance(tag, int) else tag for tag in row["ner_tags"]]
            report.counts.add(tags, row["language"], row["source"])
            report.present += row["image"] is not None
            yield number, row


class PostsBuilder(CorpusBuilder):
    """Base of the builders whose corpus is a folder of tagged posts and a folder of pictures.

    Attributes:
        TYPES: the entity types; empty: those of the files, by frequency.
    """

    BUILDER_CONFIG_CLASS = PostsConfig
    TYPES: ClassVar[tuple[str, ...]] = STANDARD_TYPES
    TERMS = (
        "This corpus comes without a licence for its posts and pictures: tweets carry their platform's terms"
        " and their authors' rights, and so do web captions and pictures. Whoever publishes this data set"
        " must have the right to."
    )

    def folders(self) -> list[Path]:
        """The folders with split files: one, unless a corpus has one for each language.

        Raises:
            CorpusError: no data_dir was given.
        """
        if self.config.data_dir is None:
            expected = "data_dir, the folder with its train, valid and test files"
            raise CorpusError(f"{self.name}: expected {expected}, found none")
        return [Path(self.config.data_dir)]

    def files(self) -> dict[str, list[Path]]:
        """The files of each split, one from each folder.

        Raises:
            CorpusError: see `folders` and `find_split`; or a split is to be taken from a part that cannot be
                read.
        """
        if unknown := ", ".join(sorted(set(self.config.split_slices) - set(SPLITS))):
            expected = f"some of {', '.join(SPLITS)}"
            raise CorpusError(f"{self.name} split_slices: expected {expected}; found {unknown}")
        return {
            split: [find_split(folder, self._slice(split).name) for folder in self.folders()]
            for split in SPLITS
        }

    def _slice(self, split: str) -> SplitSlice:
        return parse_slice(self.config.split_slices.get(split, split))

    def file_hashes(self) -> dict[str, str]:
        """The first 12 hex digits of the SHA-256 of each split's file, or of the hashes of its files."""
        hashes = {split: [self._hash_of(path) for path in paths] for split, paths in self.files().items()}
        return {split: found[0] if len(found) == 1 else short_hash(found) for split, found in hashes.items()}

    def _hash_of(self, path: Path) -> str:
        """A builder hashes each file once."""
        if path not in self._hashes:
            self._hashes[path] = file_hash(path)
        return self._hashes[path]

    def official(self) -> Mapping[str, Official]:
        """The official splits that this corpus is compared with; empty where none are known."""
        return OFFICIAL.get(self.name) or OFFICIAL.get(f"{self.name}/{self.config.name}", {})

    def check_files(self) -> None:
        """Compare the files with the official ones, where there are such.

        Raises:
            CorpusError: a split differs, unless the config says `no_verify`; then it is a warning.
        """
        files, reading = self.files(), self.reading()
        compared = (
            differences(path, self._hash_of(path), reading, official)
            for split, official in self.official().items()
            for path in files[split]
        )
        if different := [difference for difference in compared if difference]:
            text = "\n".join([*different, f"this copy is version {self.version_name()!r}"])
            if not self.config.no_verify:
                raise CorpusError(f"{text}; --no_verify takes it as another version of the corpus")
            warnings.warn(text, stacklevel=2)

    def version_name(self) -> str:
        """``official`` or ``copy-<hash>`` by the files' content, and what was done to the tags."""
        hashes = self.file_hashes()
        official = {split: figures.sha256 for split, figures in self.official().items()}
        name = "official" if hashes == official else f"copy-{short_hash(hashes)}"
        parts = [f"+{split}={part}" for split, part in self.config.split_slices.items()]
        return "".join([name, *parts, "+orphans-repaired" if self.config.repair_orphans else ""])

    def reading(self) -> Reading:
        """How this corpus's tags are read; a new one each time, with no notes."""
        config = self.config
        return Reading(config.tag_scheme, config.rename_types, config.repair_orphans)

    def about(self, post: TaggedPost, path: Path) -> dict[str, str]:
        """The columns of a post of a file that are not in the file's lines: id, language and source."""
        return {"id": post.id, "language": self.config.language, "source": self.name}

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        """The rows of a split, pictures by their path: ``{"bytes": None, "path": ...}``.

        Raises:
            CorpusError: a file is malformed, has an unknown tag, or a picture is missing and required.
        """
        reading, labels = self.reading(), {label: i for i, label in enumerate(self.labels())}
        self.reports.setdefault(split, SplitReport()).notes = reading.notes
        for path, post in self._posts(split, reading):
            place = f"{path}:{post.line}"
            if unknown := sorted(set(post.tags) - set(labels)):
                found = f"{unknown}; if it is another name for one of them, say --rename_types OLD=NEW"
                raise CorpusError(f"{place}: expected tags among {list(labels)}, found {found}")
            yield self.about(post, path) | {
                "tokens": post.tokens,
                "ner_tags": [labels[tag] for tag in post.tags],
                "image": self._picture(post, place),
            }

    def _posts(self, split: str, reading: Reading) -> Iterator[tuple[Path, TaggedPost]]:
        """The split's posts, each with its file."""
        wanted = self._slice(split).posts
        for path in self.files()[split]:
            posts = islice(read_posts(path, reading), wanted.start, wanted.stop, wanted.step)
            yield from ((path, post) for post in posts)

    def _picture(self, post: TaggedPost, place: str) -> dict[str, Any] | None:
        folder, follows = self.config.image_dir, self.config.follow_links
        picture = None if folder is None else find_picture(folder, post.id, follow_links=follows)
        if picture is not None:
            return {"bytes": None, "path": str(picture)}
        if self.config.require_images:
            hint = "without --require_images such posts are kept without a picture"
            raise CorpusError(f"{place}: expected the picture {post.id}.jpg in {folder}, found none; {hint}")
        return None

    def checked_rows(self, split: str) -> Iterator[dict[str, Any]]:
        """`rows` with each picture read and decoded once: ``{"bytes": ..., "path": "<id>.jpg"}``, or None
        where it is broken.

        Raises:
            CorpusError: as `rows`; or a picture is broken and `broken_pictures` says stop.
        """
        rows = self.rows(split)
        for row, problem in ahead(_with_picture, rows, threads=READING_THREADS, most=READ_AHEAD):
            if problem is not None:
                if self.config.broken_pictures == "stop":
                    hint = "with --broken_pictures keep such posts are kept without their picture"
                    raise CorpusError(f"post {row['id']!r}: {problem}; {hint}")
                broken = {"split": split, "id": row["id"], "file": f"{row['id']}.jpg", "problem": problem}
                self.reports[split].broken.append(broken)
            yield row

    def _info(self) -> datasets.DatasetInfo:
        features = corpus_features(bio_labels(self.TYPES or self._types_in_files()))
        return datasets.DatasetInfo(
            description=self.__doc__, citation=self.CITATION, license=self.config.license, features=features
        )

    def _types_in_files(self) -> list[str]:
        """Every type of any split: a small training split may lack one, which is then a type that a model
        will not find.
        """
        paths, reading = dict.fromkeys(chain(*self.files().values())), self.reading()
        return types_by_frequency(post.tags for path in paths for post in read_posts(path, reading))

    def splits(self) -> dict[str, datasets.Dataset]:
        """All splits, pictures by their paths and not looked at; nothing is cached.

        Raises:
            CorpusError: see `check_files` and `rows`.
        """
        self.check_files()
        features = self.info.features.copy()
        features["image"] = datasets.Image(decode=False)
        return {
            split: datasets.Dataset.from_list(list(self.rows(split)), features=features) for split in SPLITS
        }

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        self.check_files()
        return super()._split_generators(dl_manager)

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """As `datasets` does, but always anew: files and pictures may have changed since the last time."""
        anew = {"download_mode": "force_redownload", "verification_mode": "no_checks"}
        super().download_and_prepare(*args, **kwargs | anew)

    def _create_builder_config(self, *args: Any, **kwargs: Any) -> tuple[datasets.BuilderConfig, str]:
        self.config, config_id = super()._create_builder_config(*args, **kwargs)
        for name, choices in closed_sets(PostsConfig):
            if (value := getattr(self.config, name)) not in choices:
                expected = f"one of {', '.join(choices)}"
                raise CorpusError(f"{self.name} {name}: expected {expected}; found {value!r}")
        self.files()  # says what is missing
        pictures = self.config.image_dir
        if pictures is not None and not Path(pictures).is_dir():
            expected = "a folder with the pictures <id>.jpg, found none; unpack an archive first"
            raise CorpusError(f"{self.name} image_dir {pictures}: expected {expected}")
        return self.config, config_id


def short_hash(value: Any) -> str:
    """12 hex digits of the SHA-256 of a value, as it prints."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def types_by_frequency(tags: Iterable[Iterable[str]]) -> list[str]:
    """The entity types of posts' tags, the one with the most tags first."""
    types = Counter(tag[2:] for post in tags for tag in post if tag != "O")
    return sorted(types, key=lambda name: (-types[name], name))


def _with_picture(row: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The row with its picture's bytes, after decoding it once; or without it, and what is wrong with it."""
    if row["image"] is None:
        return row, None
    path = Path(row["image"]["path"])
    try:
        picture = {"bytes": path.read_bytes(), "path": path.name}
        load_picture(picture)
    except (PictureError, OSError) as error:
        return row | {"image": None}, str(error)
    return row | {"image": picture}, None
