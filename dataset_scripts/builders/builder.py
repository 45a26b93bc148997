"""What the builders of all corpora share: columns, what is known of a corpus, and the reading of posts."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from importlib import resources
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import datasets

from modeling_mmner.files import read_yaml, sha256
from modeling_mmner.model.batching_mmner import ahead
from modeling_mmner.model.labels_mmner import bio_labels

from ..findings import NO_FILE, Findings
from ..formats.pictures import find_picture
from ..formats.reader import SPLITS, CorpusError, Reading, TaggedPost, find_split, mismatch, read_posts
from ..formats.schemes import TagScheme, scheme_of
from ..reading_options import ReadingOptions
from ..slices import parse_slice

FACTS: Mapping[str, Any] = read_yaml(resources.files(__package__).joinpath("facts.yaml").read_text("utf-8"))
"""What is known of corpora, by name: citation (BibTeX), known problems (a sentence each), and under
``official``, by config and split, the first 12 hex digits of the SHA-256 of the official files.
"""

read_ahead = partial(ahead, threads=4, most=16)
"""Reads pictures: so many at a time, and so many wait at most."""


def corpus_features(labels: list[str], *, decode: bool = True) -> datasets.Features:
    """The columns of every corpus: id, tokens, ner_tags, image (may be null), language and source."""
    text, tag = datasets.Value("string"), datasets.ClassLabel(names=labels)
    columns = {"id": text, "tokens": datasets.List(text), "ner_tags": datasets.List(tag)}
    picture = datasets.Image(decode=decode)
    return datasets.Features(columns | {"image": picture, "language": text, "source": text})


def decoded(features: datasets.Features) -> datasets.Features:
    """The columns with pictures that are decoded on access."""
    picture = {"image": datasets.Image(), "images": datasets.List(datasets.Image())}
    return datasets.Features({name: picture.get(name, kind) for name, kind in features.items()})


class CorpusBuilder:
    """Base of all builders: what is known of a corpus, and how it is read.

    Attributes:
        CONFIGS: the options of each config, by its name.
        DEFAULT_CONFIG: taken where none is named; empty: one must be.
        LICENSE: that the corpus gives; ``other``: none, or one without a name on the Hub.
        TERMS: under which the posts and pictures may be used.
        IS_GENERATED: whether it is made by a program: there are no files to read, nobody has rights in it.
        NEEDS_LANGUAGE: whether nothing but the user says in which language the posts are.
        labels: the BIO labels in id order.
        file_hashes: 12 hex digits of the SHA-256 of each split's file, or of its files' hashes; None: it has
            none.
        findings: all that reading has shown, with places.
        notes: of each split, how often something was read otherwise than it stands.

    Args:
        config: the name of one.
        options: in place of the config's own.

    Raises:
        CorpusError: the corpus has no such config.
    """

    CONFIGS: ClassVar[Mapping[str, Any]]
    DEFAULT_CONFIG: ClassVar[str] = "default"
    LICENSE: ClassVar[str] = "other"
    TERMS: ClassVar[str] = (
        "Posts and pictures belong to their authors. Whoever publishes this data set must have the right to,"
        " and says by the licence field what others may do; `other` gives them no right."
    )
    IS_GENERATED: ClassVar[bool] = False
    NEEDS_LANGUAGE: ClassVar[bool] = False
    labels: Any
    file_hashes: Any = None

    def __init__(self, config: str | None = None, **options: Any) -> None:
        self.name, self.config_name = type(self).__name__.lower(), config or self.DEFAULT_CONFIG
        if self.config_name not in self.CONFIGS:
            expected = f"a config (--config, in training --dataset_config) out of {', '.join(self.CONFIGS)}"
            raise mismatch(self.name, expected, repr(config))
        self.config = replace(self.CONFIGS[self.config_name], **options)
        self.findings, self.notes = Findings(), dict[str, Counter[str]]()

    @classmethod
    def configs_in(cls, data_dir: Path) -> list[str]:
        """The configs that a folder of files is built into by default; empty: the builder's own default."""
        return []

    @classmethod
    def chance(cls, languages: Iterable[str]) -> dict[str, float] | None:
        """Best F1 of text alone on the ambiguous test posts, by language and over ``all``, if it is known."""
        return None

    @classmethod
    def about(cls) -> dict[str, Any]:
        """What a data card says of it that its posts do not show."""
        facts = FACTS.get(cls.__name__.lower(), {})
        return {
            "description": " ".join((cls.__doc__ or "").split()),
            "citation": facts.get("citation", ""),
            "license": cls.LICENSE,
            "terms": cls.TERMS,
            "known_problems": facts.get("known_problems", []),
        }

    def version_name(self) -> str:
        """A name for this copy of the corpus, which no other copy has."""
        raise NotImplementedError

    def splits(self) -> dict[str, datasets.Dataset]:
        """All splits, pictures not decoded.

        Raises:
            CorpusError: the files are malformed, or are not the official ones and must be.
        """
        raise NotImplementedError


class PostsBuilder(CorpusBuilder):
    """Base of the builders whose corpus is a folder of tagged posts and a folder of pictures.

    Attributes:
        TYPES: the entity types; empty: those of the files, by frequency.

    Raises:
        CorpusError: files or folders are missing, or an option has a value that it cannot have.
    """

    CONFIGS = {"default": ReadingOptions()}
    TYPES: ClassVar[tuple[str, ...]] = ("PER", "LOC", "ORG", "MISC")
    TERMS = (
        "This corpus comes without a licence for its posts and pictures: tweets carry their platform's terms"
        " and their authors' rights, and so do web captions and pictures. Whoever publishes this data set"
        " must have the right to."
    )

    def __init__(self, config: str | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self.config.check(self.name)
        self.files()  # says what is missing

    @cached_property
    def labels(self) -> list[str]:
        """The BIO labels in id order.

        Types are those of any split: a small training split may lack one, which a model will then not find.
        """
        reading = self.reading()
        types = self.TYPES or types_by_frequency(self._tags(reading))
        if not self.TYPES:
            reading.check_renamed(types)
        return bio_labels(types)

    def folders(self) -> list[Path]:
        """The folders with split files: one, unless a corpus has one for each language."""
        if self.config.data_dir is None:
            raise mismatch(self.name, "data_dir, the folder with its train, valid and test files", "none")
        return [Path(self.config.data_dir)]

    def files(self) -> dict[str, list[Path]]:
        """The files of each split, one from each folder."""
        folders = self.folders()
        return {split: [self.file(folder, self._part(split)[0]) for folder in folders] for split in SPLITS}

    def file(self, folder: Path, name: str) -> Path:
        """The file of a split in one of the folders."""
        return find_split(folder, name, root=None if self.config.follow_links else Path(self.config.data_dir))

    def _part(self, split: str) -> tuple[str, slice]:
        return parse_slice(self.config.split_slices.get(split, split))

    @cached_property
    def file_hashes(self) -> dict[str, str]:
        hashes = {split: [sha256(path)[:12] for path in paths] for split, paths in self.files().items()}
        return {split: found[0] if len(found) == 1 else short_hash(found) for split, found in hashes.items()}

    def official(self) -> Mapping[str, str]:
        """The hashes of the official splits; empty where none are known."""
        return FACTS.get(self.name, {}).get("official", {}).get(self.config_name, {})

    def check_files(self) -> None:
        """Compare the files with official ones, where there are such.

        Raises:
            CorpusError: a split differs, unless the config says `no_verify`; then it is a warning.
        """
        found, official = self.file_hashes, self.official()
        different = [
            f"{self.files()[split][0]}: expected the official file, sha256 {one}; found sha256 {found[split]}"
            for split, one in official.items()
            if found[split] != one
        ]
        if different:
            text = "\n".join([*different, f"this copy is version {self.version_name()!r}"])
            if not self.config.no_verify:
                raise CorpusError(f"{text}; --no_verify takes it as another version of the corpus")
            warnings.warn(text, stacklevel=2)

    def version_name(self) -> str:
        """``official`` or ``copy-<hash>`` by the files' content, and what was done to the tags."""
        hashes = self.file_hashes
        name = "official" if hashes == self.official() else f"copy-{short_hash(hashes)}"
        parts = [f"+{split}={part}" for split, part in self.config.split_slices.items()]
        return "".join([name, *parts, "+orphans-repaired" if self.config.repair_orphans else ""])

    def reading(self) -> Reading:
        """How this corpus's tags are read; with no notes."""
        config = self.config
        return Reading(self.tag_scheme, config.rename_types, config.repair_orphans, columns=config.columns)

    @cached_property
    def tag_scheme(self) -> TagScheme:
        """Of the files; where nobody says it, what most tags are in, but BIO if the types are known."""
        if self.config.tag_scheme != "auto" or self.TYPES:
            return "bio" if self.config.tag_scheme == "auto" else self.config.tag_scheme
        return scheme_of(self._tags(Reading("auto", columns=self.config.columns)), self.findings)

    def _tags(self, reading: Reading) -> Iterator[list[str]]:
        """The tags of all posts of all files."""
        for path in dict.fromkeys(chain(*self.files().values())):
            yield from (post.tags for post in read_posts(path, reading))

    def columns_of(self, post: TaggedPost, path: Path) -> dict[str, str]:
        """The columns of a post that are not in its file's lines: id, language and source."""
        return {"id": post.id, "language": self.config.language, "source": self.name}

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        """The rows of a split, pictures by their path: ``{"bytes": None, "path": ...}``.

        Raises:
            CorpusError: a file is malformed, or has an unknown tag.
        """
        reading, labels = self.reading(), {label: i for i, label in enumerate(self.labels)}
        self.notes[split] = reading.notes
        (_, wanted), folder = self._part(split), self.config.image_dir
        for path in self.files()[split]:
            for post in islice(read_posts(path, reading), wanted.start, wanted.stop, wanted.step):
                place = f"{path}:{post.line}"
                if unknown := sorted(set(post.tags) - set(labels)):
                    found = f"{unknown}; if it is another name for one of them, say --rename_types OLD=NEW"
                    raise mismatch(place, f"tags among {list(labels)}", found)
                picture = folder and find_picture(folder, post.id, follow_links=self.config.follow_links)
                if picture is None and not post.is_numbered:
                    what, remedy = NO_FILE
                    looked = f"{place}: {post.id}.jpg, looked in {folder or 'no folder'}"
                    self.findings.add(what, looked, remedy=remedy, lost=folder is not None)
                yield self.columns_of(post, path) | {
                    "tokens": post.tokens,
                    "ner_tags": [labels[tag] for tag in post.tags],
                    "image": None if picture is None else {"bytes": None, "path": str(picture)},
                }
        for note, number in reading.notes.items():
            self.findings.add(note, lost=False, number=number)

    def splits(self) -> dict[str, datasets.Dataset]:
        """All splits, pictures by their paths and not looked at; nothing is cached."""
        self.check_files()
        features = corpus_features(self.labels, decode=False)
        return {
            split: datasets.Dataset.from_list(list(self.rows(split)), features=features) for split in SPLITS
        }


def short_hash(value: Any) -> str:
    """12 hex digits of the SHA-256 of a value, as it prints."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def types_by_frequency(tags: Iterable[Iterable[str]]) -> list[str]:
    """The entity types of posts' tags, the one with the most tags first."""
    types = Counter(tag[2:] for post in tags for tag in post if tag != "O")
    return sorted(types, key=lambda name: (-types[name], name))
