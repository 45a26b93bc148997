"""How a corpus in files is read: the one list of options for builders, commands and recipes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from modeling_mmner.model.labels_mmner import WordRule
from modeling_mmner.model.parts_mmner import option

from .formats.reader import SPLITS, mismatch
from .formats.schemes import TagScheme


@dataclass
class ReadingOptions:
    """How a corpus in files is read.

    Attributes:
        data_dir: the folder with its train, valid and test files.
        image_dir: the folder with the pictures ``<id>.jpg``; None: no post has a picture.
        follow_links: take files and pictures that are links out of the corpus's folders.
        language: of every post.
        tag_scheme: of the files; ``auto``: what most tags of the corpus are in, see `scheme_of`; BIO for a
            corpus that has a builder of its own.
        tag_names: of people's own files, in which tags are numbers.
        rename_types: entity types to call otherwise.
        repair_orphans: make an I- that continues nothing a B-.
        split_slices: for a split another file or a part of it, as ``{"train": "val[:2000]"}``; of each file,
            where a split has several.
        no_verify: only warn where the files are not the official ones; otherwise that is an error.
        columns: of people's own files and data sets, what our columns are called in them, as ``{"tokens":
            "words"}``.
        word_rule: how texts are split into words, see `split_words`; a model that is trained keeps it.
        split_ratio, split_seed: how posts that come in one file are split, see `split_by_ratio`.
    """

    data_dir: str | None = option(None, "folder with train, valid and test files")
    image_dir: str | None = option(None, "folder with the pictures <id>.jpg of --data_dir")
    follow_links: bool = option(False, "take files and pictures that are links out of the corpus's folders")
    language: str = option("unknown", "language of all posts, where the corpus does not say it")
    tag_scheme: TagScheme = option("auto", "tag scheme of the files; auto: what their tags are in")
    tag_names: list[str] = option([], "what tags that are numbers mean, from 0 on, as O,B-PER,I-PER")
    rename_types: dict[str, str] = option({}, "entity types of the files to call otherwise, as OLD=NEW")
    repair_orphans: bool = option(False, "make an I- tag that continues nothing a B-; otherwise it stays")
    split_slices: dict[str, str] = option({}, "parts to take, as train=train[:4000],validation=val[2000:]")
    no_verify: bool = option(False, "take files that are not the official ones, with a warning")
    columns: dict[str, str] = option({}, "what our columns are called in your files, as tokens=words")
    word_rule: WordRule = option("spaces", "what ends a word; characters: each of a script without spaces")
    split_ratio: str = option("80,10,10", "shares of train, validation and test of posts in one file")
    split_seed: int = option(1, "random seed of that split")

    def check(self, place: str) -> None:
        """Check what can be wrong with any corpus; CorpusError: a value is none that it may be."""
        for name, hint in get_type_hints(ReadingOptions).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                allowed = f"one of {', '.join(get_args(hint))}"
                raise mismatch(f"{place} {name}", allowed, repr(getattr(self, name)))
        if unknown := ", ".join(sorted({*self.split_slices} - {*SPLITS})):
            raise mismatch(f"{place} split_slices", f"some of {', '.join(SPLITS)}", unknown)
        if self.image_dir is not None and not Path(self.image_dir).is_dir():
            folder = "a folder with the posts' pictures"
            raise mismatch(f"--image_dir {self.image_dir}", folder, "none; unpack an archive first")

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults; the builder may have its own for the others."""
        values = vars(ReadingOptions())
        return {name: getattr(self, name) for name in values if getattr(self, name) != values[name]}
