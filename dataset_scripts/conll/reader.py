"""One reader for tagged posts in text files.

Two formats, told apart by whether some line begins with ``IMGID:``:

- IMGID: a line ``IMGID:<id>``, then ``token<TAB>tag`` lines, an empty line after each post;
- indexed: ``index<TAB>token<TAB>tag`` lines, an empty line after each sentence; posts are numbered, they have no picture.

Tokens may be U+00A0 and the like, so lines end at a line feed and fields at a tab, nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_SPLIT_NAMES = {"train": ("train",), "validation": ("valid", "val", "dev"), "test": ("test",)}
_SPLIT_ENDINGS = (".txt", "_conll_format.txt", ".conllu", ".conll")
_POST_MARK = "IMGID:"


class CorpusError(ValueError):
    """A corpus file that cannot be read; the text names file and line, what was expected and what was found."""


@dataclass
class Post:
    """A tagged post: its id, its tokens, a BIO tag for each, and the line on which it begins (from 1)."""

    id: str
    line: int
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


def find_splits(folder: str | Path) -> dict[str, Path]:
    """The split files of a corpus folder, by the names train, validation and test.

    Raises:
        CorpusError: the folder or one of the splits is missing, or a split has several files.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CorpusError(f"{folder}: expected a folder with train, valid and test files, found no folder")
    splits = {}
    for split, names in _SPLIT_NAMES.items():
        candidates = [name + ending for name in names for ending in _SPLIT_ENDINGS]
        found = [folder / name for name in candidates if (folder / name).is_file()]
        if len(found) != 1:
            what = "none" if not found else ", ".join(path.name for path in found)
            raise CorpusError(f"{folder}: expected one {split} file out of {', '.join(candidates)}; found {what}")
        splits[split] = found[0]
    return splits


def read_posts(path: str | Path) -> Iterator[Post]:
    """The posts of a file in order.

    Raises:
        CorpusError: not UTF-8, a line with another number of fields, a tag that is not BIO, a token before the first
            IMGID line, a post without tokens, an id that occurs twice, no post at all.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: expected UTF-8, found a byte that is none at offset {error.start}") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    has_ids = any(line.startswith(_POST_MARK) for line in lines)
    seen: dict[str, int] = {}
    for post in _posts(path, lines, has_ids):
        if not post.tokens:
            raise CorpusError(f"{path}:{post.line}: expected tokens after {_POST_MARK}{post.id}, found none")
        if post.id in seen:
            raise CorpusError(f"{path}:{post.line}: expected each id once, found {post.id!r} on line {seen[post.id]} too")
        seen[post.id] = post.line
        yield post
    if not seen:
        raise CorpusError(f"{path}: expected at least one post, found none")


def _posts(path: Path, lines: list[str], has_ids: bool) -> Iterator[Post]:
    """Posts as they stand; an IMGID post ends where the next begins, an indexed one at an empty line."""
    post: Post | None = None
    count = 0
    for number, line in enumerate(lines, start=1):
        if line.startswith(_POST_MARK):
            if post is not None:
                yield post
            post = Post(line.removeprefix(_POST_MARK), number)
        elif line:
            if post is None:
                if has_ids:
                    raise CorpusError(f"{path}:{number}: expected a line {_POST_MARK}<id> before the first token, found {line!r}")
                count += 1
                post = Post(f"{path.stem}-{count}", number)
            token, tag = _fields(path, number, line, 2 if has_ids else 3)
            post.tokens.append(token)
            post.tags.append(tag)
        elif not has_ids and post is not None:
            yield post
            post = None
    if post is not None:
        yield post


def _fields(path: Path, number: int, line: str, count: int) -> tuple[str, str]:
    """Token and tag of a line."""
    values = line.split("\t")
    if len(values) != count:
        form = "token<TAB>tag" if count == 2 else "index<TAB>token<TAB>tag"
        raise CorpusError(f"{path}:{number}: expected {form}, found {len(values)} fields in {line!r}")
    token, tag = values[-2:]
    prefix, _, entity_type = tag.partition("-")
    if tag != "O" and (prefix not in ("B", "I") or not entity_type):
        raise CorpusError(f"{path}:{number}: expected a tag O, B-<type> or I-<type>, found {tag!r}")
    return token, tag


def find_picture(image_dir: str | Path, post_id: str) -> Path | None:
    """The picture ``<image_dir>/<id>.jpg`` of a post, or None where there is no such file.

    ``.jpg`` is appended even where the id already ends so, as the corpora's authors do; the file may hold another format.

    Raises:
        CorpusError: the id would lead out of the folder.
    """
    if "\0" in post_id or "/" in post_id or "\\" in post_id or post_id in (".", ".."):
        raise CorpusError(f"post {post_id!r}: expected an id that is a plain file name, found one that leads out of {image_dir}")
    path = Path(image_dir) / f"{post_id}.jpg"
    try:
        return path if path.is_file() else None
    except OSError:  # a name longer than the file system takes
        return None
