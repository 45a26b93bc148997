"""Corpora as people have them: files or data sets of records in any of the forms of `annotations` -> a
`Corpus`.
"""

import base64
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import datasets

from modeling_mmner.escaping import encodable
from modeling_mmner.model.images_mmner import is_url
from modeling_mmner.model.labels_mmner import bio_labels
from modeling_mmner.model.posts_mmner import is_words

from ..builders.builder import SPLITS, corpus_features
from ..reading_options import ReadingOptions
from ..splitting import parse_ratio, split_by_ratio
from .annotations import LeftOut, read_annotation, words_and_tags
from .reader import SPLIT_NAMES, CorpusError, Reading
from .records import cell_list, read_records, record_files
from .schemes import PREFIXES

_OWN = ("id", "tokens", "ner_tags", "image", "images", "language", "source", "text", "split")


@dataclass
class OwnPosts:
    """Posts read from records.

    Attributes:
        posts: rows with tags by name, and ``images``, a list.
        splits: what each post says of the split it is in; None where it says nothing.
        left_out: spans that are no entities of the posts.
        notes: what was found in reading, counted.
        division: for the version's name, the ratio and seed by which the posts were split; empty: they had
            their splits.
    """

    posts: list[dict[str, Any]] = field(default_factory=list)
    splits: list[Any] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    division: str = ""


def read_own(path: Path, options: ReadingOptions) -> tuple[dict[str, list[dict[str, Any]]], OwnPosts]:
    """The posts of files by split, and all that was read.

    Args:
        path: a file, or a folder with a file for each split or with one for all.
        options: `columns`, `split_ratio` and `split_seed`, those of tags, and `image_dir`: where pictures are
            looked for by their paths and names; None: beside the file.

    Raises:
        CorpusError: a file or record cannot be read; there is no post; a split would be empty.
    """
    files = record_files(path)
    base = path if path.is_dir() else path.parent
    read, found = OwnPosts(), {}
    for split, file in files.items():
        first = len(read.posts)
        add_posts(
            read_records(file, options.columns),
            read,
            options,
            folder=base,
            source=file.stem if split == "all" else base.name,
        )
        found[split] = list(range(first, len(read.posts)))
    if not read.posts:
        raise CorpusError(
            f"{path}: expected annotated posts, found none in"
            f" {', '.join(file.name for file in files.values())}"
        )
    if list(found) == ["all"]:
        found = _divided(read, options)
    return {split: [read.posts[number] for number in numbers] for split, numbers in found.items()}, read


def add_posts(
    records: Iterable[tuple[str, Any]],
    read: OwnPosts,
    options: ReadingOptions,
    *,
    folder: Path | None,
    source: str,
) -> None:
    """Add the posts of records, each given with its place, to those that were read.

    Args:
        folder: where relative paths of pictures begin; None: there are no files.
        source: of posts that do not say theirs.
    """
    reading = Reading(options.tag_scheme, options.rename_types, options.repair_orphans, read.notes)
    for place, given in records:
        record = (
            {key: cell_list(value, key) for key, value in given.items()} if isinstance(given, dict) else given
        )
        annotation = read_annotation(record, place)
        if annotation is None:
            read.notes["posts that their annotator rejected or skipped"] += 1
            continue
        if annotation.words is not None:
            words, tags = (
                annotation.words,
                reading.bio_tags(_tag_names(annotation.tags or [], options, place)),
            )
        else:
            words, tags, left_out = words_and_tags(annotation.text, annotation.spans, place)
            tags = Reading("bio", options.rename_types, notes=read.notes).bio_tags(tags)
            read.left_out += left_out
        own = annotation.record
        pictures = _pictures(own, options, folder, read.notes)
        texts = {
            str(key): encodable(value) if isinstance(value, str) else [encodable(text) for text in value]
            for key, value in own.items()
            if key not in _OWN and (isinstance(value, str) or is_words(value))
        }
        read.posts.append(
            texts
            | {
                "id": str(own["id"]) if own.get("id") is not None else f"{source}-{len(read.posts) + 1}",
                "tokens": [encodable(word) for word in words],
                "ner_tags": tags,
                "images": pictures,
                "language": str(own.get("language") or options.language),
                "source": str(own.get("source") or source),
            }
        )
        read.splits.append(own.get("split"))


def _tag_names(tags: list[Any], options: ReadingOptions, place: str) -> list[str]:
    """The tags of a post, which must be of the scheme."""
    allowed = PREFIXES[options.tag_scheme]
    for tag in tags:
        prefix, _, entity_type = tag.partition("-") if isinstance(tag, str) else ("", "", "")
        if tag != "O" and (prefix not in allowed or not entity_type.strip()):
            hint = (
                "names in place of ids"
                if not isinstance(tag, str)
                else "--tag_scheme says that a file is in IOB1 or BIOES"
            )
            forms = ", ".join(f"{prefix}-<type>" for prefix in allowed)
            raise CorpusError(f"{place}: expected tags O, {forms}, found {tag!r:.80}; {hint}")
    return tags


def _split_name(given: Any, post: str) -> str:
    """Our name of the split that a post says it is in."""
    for split, names in SPLIT_NAMES.items():
        if str(given).lower() in names:
            return split
    raise CorpusError(
        f"post {post!r}, column split: expected one of {', '.join(SPLITS)}, found {given!r:.80}"
    )


def _divided(read: OwnPosts, options: ReadingOptions) -> dict[str, list[int]]:
    """The numbers of the posts of each split: as the posts say, or else by ratio."""
    if any(given is not None for given in read.splits):
        names = [_split_name(given, post["id"]) for given, post in zip(read.splits, read.posts, strict=True)]
        return {
            split: [number for number, name in enumerate(names) if name == split]
            for split in SPLITS
            if split in names
        }
    read.division = f"+{options.split_ratio}, seed {options.split_seed}"
    keys = [list(_keys(post)) for post in read.posts]
    found = split_by_ratio(keys, parse_ratio(options.split_ratio), seed=options.split_seed)
    return {split: numbers for split, numbers in found.items() if numbers}


def _keys(post: dict[str, Any]) -> Iterator[Hashable]:
    """What two splits must not have in common: a post's text and its pictures."""
    yield "text", unicodedata.normalize("NFKC", " ".join(post["tokens"])).casefold()
    yield from (("picture", _hash_of(picture)) for picture in post["images"])


def _hash_of(picture: dict[str, Any]) -> bytes:
    """Of a picture's content."""
    content = picture["bytes"]
    return _hash_of_file(picture["path"]) if content is None else hashlib.sha256(content).digest()


@cache
def _hash_of_file(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


def _pictures(
    record: Any, options: ReadingOptions, folder: Path | None, notes: Counter[str]
) -> list[dict[str, Any]]:
    """The pictures of a record that are there; the others are counted."""
    several = record.get("images")
    given = (
        several
        if isinstance(several, (list, tuple))
        else [record.get("image") if several is None else several]
    )
    found = []
    for one in (one for one in given if one is not None):
        picture = local_picture(
            one, image_dir=options.image_dir, folder=folder, follow_links=options.follow_links
        )
        if isinstance(picture, str):
            notes[f"pictures left out: {picture}"] += 1
        else:
            found.append(picture)
    return found


def local_picture(
    given: Any, *, image_dir: str | Path | None, folder: Path | None, follow_links: bool = False
) -> dict[str, Any] | str:
    """A picture by its bytes or its path, or why it is left out.

    A path leads into the corpus's folder or --image_dir, and nowhere else; where a tool has kept its pictures
    elsewhere, they are found in --image_dir by their names.
    """
    if isinstance(given, bytes):
        return {"bytes": given, "path": None}
    if isinstance(given, dict) and isinstance(given.get("bytes"), bytes):
        return {"bytes": given["bytes"], "path": None}
    path = given.get("path") if isinstance(given, dict) else given
    if not isinstance(path, str):
        return "neither a path nor bytes"
    if path.startswith("data:image/"):
        try:
            return {"bytes": base64.b64decode(path.partition(",")[2], validate=True), "path": None}
        except ValueError:
            return "broken base64"
    roots = [Path(root).resolve() for root in (image_dir, folder) if root is not None]
    if is_url(path):
        roots = roots if image_dir is not None else []  # nothing is fetched
    for root in roots:
        for candidate in (root / path, root / Path(path).name):
            try:
                is_inside = candidate.resolve().is_relative_to(root)
                if (is_inside or (follow_links and _is_link_in(candidate, root))) and candidate.is_file():
                    return {"bytes": None, "path": str(candidate)}
            except (OSError, ValueError):  # a name that no file can have
                continue
    return (
        "addresses on the web; download them into --image_dir"
        if is_url(path)
        else "no such file in the folder or --image_dir"
    )


def _is_link_in(path: Path, root: Path) -> bool:
    """Whether a path is a link that itself lies in a folder."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(root)


def tables_of(splits: dict[str, list[dict[str, Any]]]) -> tuple[dict[str, datasets.Dataset], list[str]]:
    """The data set of each split, and the BIO labels, the most frequent type first.

    Raises:
        CorpusError: no post has an entity.
    """
    posts = [post for rows in splits.values() for post in rows]
    types = Counter(tag[2:] for post in posts for tag in post["ner_tags"] if tag != "O")
    if not types:
        raise CorpusError(f"corpus: expected posts with entities, found none in {len(posts)} posts")
    labels = bio_labels(sorted(types, key=lambda name: (-types[name], name)))
    ids = {label: number for number, label in enumerate(labels)}
    features = corpus_features(labels)
    features["image"] = datasets.Image(decode=False)
    if any(len(post["images"]) > 1 for post in posts):
        del features["image"]
        features["images"] = datasets.List(datasets.Image(decode=False))
    kinds: dict[str, set[bool]] = {}
    for post in posts:
        for key in post.keys() - set(_OWN):
            kinds.setdefault(key, set()).add(isinstance(post[key], str))
    lists = {key for key, is_text in kinds.items() if False in is_text}
    for key in sorted(kinds):
        features[key] = datasets.List(datasets.Value("string")) if key in lists else datasets.Value("string")

    def row(post: dict[str, Any]) -> dict[str, Any]:
        post = post | {key: [post[key]] for key in lists & post.keys() if isinstance(post[key], str)}
        tags = {"ner_tags": [ids[tag] for tag in post["ner_tags"]], "image": next(iter(post["images"]), None)}
        return {key: (post | tags).get(key) for key in features}

    tables = {
        split: datasets.Dataset.from_list([row(post) for post in rows], features=features)
        for split, rows in splits.items()
    }
    return tables, labels


def hash_of_posts(posts: list[dict[str, Any]]) -> str:
    """The first 12 hex digits of the SHA-256 of posts and their pictures, wherever these lie."""
    digest = hashlib.sha256()
    for post in posts:
        content = post | {"images": [_hash_of(picture) for picture in post["images"]]}
        digest.update(repr(sorted(content.items())).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:12]
