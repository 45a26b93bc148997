"""The one reader of tagged posts in text files, for every corpus.

Three formats, told apart by the first line that is not empty:

- IMGID: a line ``IMGID:<id>``, then ``token<TAB>tag`` lines, an empty line after each post; GMNER is in it,
  and FMNERG, whose third column, with finer types, is not read;
- indexed: ``index<TAB>token<TAB>tag`` lines, an empty line after each sentence; posts are numbered, they have
  no picture;
- columns, as CoNLL's: the same, with the token in the first and the tag in the last of two or more columns;
  `Reading.columns` says others by their numbers. Lines of -DOCSTART- and comments before posts are left out.

Tokens may be U+00A0 and the like, so lines end at a line feed and fields at a tab, nowhere else; only a line
that holds no tab may have single spaces in their place, or in columns any number of them. Every change made
in reading (types renamed, line ends) is counted in `Reading.notes`.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from modeling_mmner.model.posts_mmner import file_within

from .schemes import PREFIXES, TagScheme, is_tag, parts_of, repaired, tag_forms, to_bio

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""What the splits are called in files and data sets."""

SPLITS = tuple(SPLIT_NAMES)

SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
"""The split that each such name means."""

_SPLIT_ENDINGS = (".txt", "_conll_format.txt", ".conllu", ".conll")
_POST_MARK = "IMGID:"
UNSAFE_ID = re.compile(r"[/\\\x00-\x1f]|^\.{0,2}$")
"""Matches an id that is no plain file name, or whose picture would lie outside of its folder."""


class CorpusError(ValueError):
    """A corpus that cannot be used; the text names file and line, what was expected and what was found."""


def mismatch(place: object, expected: str, found: object) -> CorpusError:
    """The error of a place at which something else was found than was expected."""
    return CorpusError(f"{place}: expected {expected}, found {found}")


@dataclass
class TaggedPost:
    """A tagged post: its id, its tokens, a BIO tag for each, and the line on which it begins (from 1).

    `is_numbered`: the file has no ids, this one was made of its name and a number.
    """

    id: str
    line: int
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    is_numbered: bool = False


@dataclass
class Reading:
    """How tags are read, and what was found on the way.

    Attributes:
        scheme, rename_types, repair_orphans: see `ReadingOptions`; posts come out in BIO, but for ``auto``:
            with their tags as they stand.
        notes: how often each kind of change was made in reading.
        columns: ``tokens`` and ``ner_tags`` by numbers from 1, of files in columns.
    """

    scheme: TagScheme = "bio"
    rename_types: Mapping[str, str] = field(default_factory=dict)
    repair_orphans: bool = False
    notes: Counter[str] = field(default_factory=Counter)
    columns: Mapping[str, str] = field(default_factory=dict)

    def bio_tags(self, tags: list[str]) -> list[str]:
        """The tags of one post in BIO, renamed and repaired as wanted; each changed tag is counted."""
        if self.scheme == "auto":
            return tags
        note = f"tags in {self.scheme.upper()} rewritten as B- and I-"
        tags = self._noted(tags, to_bio(tags, self.scheme), note)
        names = self.rename_types
        self.notes.update(f"tags renamed from {t[2:]} to {names[t[2:]]}" for t in tags if t[2:] in names)
        called = [names.get(tag[2:], tag[2:]) for tag in tags]
        tags = ["O" if "O" in (t, new) else t[:2] + new for t, new in zip(tags, called, strict=True)]
        return self._noted(tags, repaired(tags), "orphan I- tags made B-") if self.repair_orphans else tags

    def check_renamed(self, types: Iterable[str]) -> None:
        """Check that each name that is to be renamed was read; CorpusError: none of the types was called so.

        Args:
            types: of the corpus, for the error.
        """
        for old, new in self.rename_types.items():
            if not self.notes[f"tags renamed from {old} to {new}"]:
                raise mismatch("--rename_types", f"a type of the corpus, as {', '.join(types)}", repr(old))

    def _noted(self, before: list[str], after: list[str], note: str) -> list[str]:
        if changed := sum(old != new for old, new in zip(before, after, strict=True)):
            self.notes[note] += changed
        return after


def find_split(folder: str | Path, name: str, *, root: Path | None = None) -> Path:
    """The file of a split in a corpus folder, by any of the names that the split goes by.

    Args:
        root: the folder that it lies in, whatever links there are; None: links are followed.

    Raises:
        CorpusError: the folder or the file is missing or lies elsewhere, or the split has several.
    """
    folder = Path(folder)
    if not folder.is_dir():
        files = "a folder with train, valid and test files"
        raise mismatch(folder, files, "no folder; unpack an archive first")
    split = SPLIT_OF.get(name, name)
    candidates = [known + ending for known in SPLIT_NAMES.get(split, (name,)) for ending in _SPLIT_ENDINGS]
    found = [candidate for candidate in candidates if (folder / candidate).is_file()]
    if len(found) != 1:
        raise mismatch(folder, f"one {split} file out of {', '.join(candidates)}", ", ".join(found) or "none")
    if root is not None:
        check_link(folder / found[0], root)
    return folder / found[0]


def holds_splits(folder: Path) -> bool:
    """Whether a folder holds at least one split file."""
    return any((folder / f"{name}{ending}").is_file() for name in SPLIT_OF for ending in _SPLIT_ENDINGS)


def read_posts(path: str | Path, reading: Reading | None = None) -> Iterator[TaggedPost]:
    """The posts of a file in order, one at a time; see `parse_posts`."""
    with Path(path).open("rb") as file:
        yield from parse_posts(file, str(path), reading)


def parse_posts(file: Iterable[bytes], name: str, reading: Reading | None = None) -> Iterator[TaggedPost]:
    """The posts of an open file.

    Args:
        file: its lines, each with its line feed.
        name: what errors call the file; the numbers of posts without an id begin with its stem.
        reading: how to read the tags (default: BIO, as they stand); its notes are added to.

    Raises:
        CorpusError: not UTF-8, a line with another number of fields, a tag of another scheme, a token outside
            of any post, a post without tokens, an empty token, an id that occurs twice or is no plain file
            name, no post at all.
    """
    reading = reading or Reading()
    seen: dict[str, int] = {}
    for post in _posts(file, name, reading):
        place = f"{name}:{post.line}"
        if not post.tokens:
            raise mismatch(place, f"tokens after {_POST_MARK}{post.id}", "none")
        if UNSAFE_ID.search(post.id):
            raise mismatch(place, "an id that is a plain file name", repr(post.id))
        if (line := seen.setdefault(post.id, post.line)) != post.line:
            raise mismatch(place, "each id once", f"{post.id!r} on line {line} too")
        post.tags = reading.bio_tags(post.tags)
        yield post
    if not seen:
        raise mismatch(name, "at least one post", "none")


def _posts(file: Iterable[bytes], name: str, reading: Reading) -> Iterator[TaggedPost]:
    """Posts, tags as they stand; one ends at an empty line, or where the next one's id begins."""
    post: TaggedPost | None = None
    layout: _Layout | None = None
    count = 0
    for number, line in _lines(file, name, reading):
        place = f"{name}:{number}"
        is_mark = line.startswith(_POST_MARK) and "\t" not in line
        if post is not None and (is_mark or not line):
            yield post
            post = None
        if is_mark:
            layout = layout or _Layout(with_ids=True)
            if not layout.with_ids:
                raise mismatch(place, "lines in columns as before", repr(line))
            post = TaggedPost(line.removeprefix(_POST_MARK), number)
        elif post is None and not (layout and layout.with_ids) and _is_said_aside(line):
            reading.notes["comments and -DOCSTART- lines left out"] += 1
        elif line:
            layout = layout or _layout(line, place, reading)
            token, tag = _fields(line, layout, place, reading)
            if post is None and layout.with_ids:
                raise mismatch(place, f"a line {_POST_MARK}<id> before a post's first token", f"{line!r:.99}")
            if post is None:
                count += 1
                post = TaggedPost(f"{Path(name).stem}-{count}", number, is_numbered=True)
            post.tokens.append(token)
            post.tags.append(tag)
    if post is not None:
        yield post


def _lines(file: Iterable[bytes], name: str, reading: Reading) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line, without a byte order mark."""
    for number, line in enumerate(file, start=1):
        line = line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").removesuffix(b"\n")
        if line.endswith(b"\r"):
            reading.notes["line ends of CR LF read as LF"] += 1
            line = line.removesuffix(b"\r")
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            found = f"the byte 0x{line[error.start]:02x} at column {error.start + 1}; convert the file first"
            raise mismatch(f"{name}:{number}", "UTF-8", found) from error


def _values(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))


def _is_said_aside(line: str) -> bool:
    """Whether a line before a post is a comment (no token # with its tag), or marks a document."""
    return line.startswith("-DOCSTART-") or (line.startswith("#") and not parts_of(_values(line)[-1])[0])


class _Layout(NamedTuple):
    """How many columns the lines of a file have, and which those of token and tag are."""

    width: int = 2
    token: int = 0
    tag: int = 1
    with_ids: bool = False


def _layout(line: str, place: str, reading: Reading) -> _Layout:
    """The layout of a file in columns, by its first line."""
    width, columns = len(values := _values(line)), reading.columns
    if width < 2:
        form = f"two columns or more, token<TAB>tag (or {_POST_MARK}<id> before the first token)"
        raise mismatch(place, form, f"{line!r:.200}")
    is_indexed = width > 2 and values[0] in ("0", "1")
    numbers = [columns.get("tokens", str(1 + is_indexed)), columns.get("ner_tags", str(width))]
    if not all(number.isdecimal() and 1 <= int(number) <= width for number in numbers):
        given = f"--columns tokens=1,ner_tags={width} or other numbers up to {width}"
        raise mismatch(place, given, dict(columns))
    token, tag = map(int, numbers)
    if width - token > 1:
        reading.notes[f"files of {width} columns, of which token is {token} and tag {tag}"] += 1
    return _Layout(width, token - 1, tag - 1)


def _fields(line: str, layout: _Layout, place: str, reading: Reading) -> tuple[str, str]:
    """Token and tag of a line."""
    values = line.split("\t")
    if len(values) == 1 and (not layout.with_ids or line.count(" ") == 1):
        reading.notes["spaces read as tabs"] += layout.width - 1
        values = _values(line)
    if layout.with_ids and len(values) == 3 and parts_of(values[1])[0] == parts_of(values[2])[0] != "":
        finer = values.pop()  # as FMNERG has
        if finer != "O":
            reading.notes["tags of finer types, in a third column, not read"] += 1
    if len(values) != layout.width:
        form = "token<TAB>tag" if layout.with_ids else f"{layout.width} columns, as in the first line"
        raise mismatch(place, form, f"{len(values)} columns in {line!r:.200}")
    token, tag = values[layout.token], values[layout.tag]
    if not token:
        raise mismatch(place, "a token before the tag", f"nothing in {line!r}")
    if reading.scheme != "auto" and not is_tag(tag, reading.scheme):
        known = [name for name in PREFIXES if reading.scheme in ("bio", "iob1") and is_tag(tag, name)]
        hint = f"; if the file is in {known[0].upper()}, say --tag_scheme {known[0]}" if known[:-1] else ""
        raise mismatch(place, f"a tag {tag_forms(reading.scheme)}", f"{tag!r:.80}{hint}")
    return token, tag


def check_link(path: Path, folder: Path) -> None:
    """Check that a file that was found in a corpus's folder lies in it; CorpusError: a link leads out."""
    if file_within(path.absolute(), folder) is None:
        link = f"a link to {path.resolve()}; --follow_links takes it"
        raise mismatch(path, f"a file that lies in {folder}", link)
