"""Corpora as people have them: files or data sets of records in any of the forms of `annotations` -> a
`Corpus`.
"""

import base64
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from modeling_mmner.escaping import encodable
from modeling_mmner.files import picture_content
from modeling_mmner.model.images_mmner import is_url, pictures_of
from modeling_mmner.model.labels_mmner import bio_labels
from modeling_mmner.model.posts_mmner import file_within, is_words

from ..builders.builder import corpus_features, types_by_frequency
from ..reading_options import ReadingOptions
from ..splitting import parse_ratio, split_by_ratio
from .annotations import LeftOut, read_annotation, words_and_tags
from .reader import SPLIT_NAMES, SPLITS, CorpusError, Reading
from .records import cell_list, read_records, record_files
from .schemes import TagScheme, is_tag, tag_forms

Posts = list[dict[str, Any]]
"""Rows with tags by name, ``images``, a list, and ``split``, what the record says of it."""

_OWN = ("id", "tokens", "ner_tags", "image", "images", "language", "source", "text", "split")


@dataclass
class OwnPosts:
    """Posts read from records.

    Attributes:
        posts: in order.
        left_out: spans that are no entities of the posts.
        notes: what was found in reading, counted.
        division: for the version's name, the ratio and seed by which the posts were split; empty: they had
            their splits.
    """

    posts: Posts = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    division: str = ""


def read_own(path: Path, options: ReadingOptions) -> tuple[dict[str, Posts], OwnPosts]:
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
        records = read_records(file, options.columns)
        source = file.stem if split == "all" else base.name
        found[split] = add_posts(records, read, options, folder=base, source=source)
    if not read.posts:
        names = ", ".join(file.name for file in files.values())
        raise CorpusError(f"{path}: expected annotated posts, found none in {names}")
    return (_divided(read, options) if list(found) == ["all"] else found), read


def add_posts(
    records: Iterable[tuple[str, Any]],
    read: OwnPosts,
    options: ReadingOptions,
    *,
    folder: Path | None,
    source: str,
) -> Posts:
    """Add the posts of records, each given with its place, to those that were read; returns them.

    Args:
        folder: where relative paths of pictures begin; None: there are no files.
        source: of posts that do not say theirs.
    """
    first = len(read.posts)
    for place, record in records:
        if isinstance(record, dict):
            record = {key: cell_list(value, key) for key, value in record.items()}
        annotation = read_annotation(record, place)
        if annotation is None:
            read.notes["posts that their annotator rejected or skipped"] += 1
            continue
        words, tags, scheme = annotation.words, annotation.tags or [], options.tag_scheme
        if words is None:
            words, tags, left_out = words_and_tags(annotation.text, annotation.spans, place)
            scheme, read.left_out = "bio", read.left_out + left_out
        _check_tags(tags, scheme, place)
        own = annotation.record
        reading = Reading(scheme, options.rename_types, options.repair_orphans, read.notes)
        texts = {
            str(key): encodable(value) if isinstance(value, str) else [encodable(text) for text in value]
            for key, value in own.items()
            if key not in _OWN and (isinstance(value, str) or is_words(value))
        }
        post = {
            "id": str(own["id"]) if own.get("id") is not None else f"{source}-{len(read.posts) + 1}",
            "tokens": [encodable(word) for word in words],
            "ner_tags": reading.bio_tags(tags),
            "images": _pictures(own, options, folder, read.notes),
            "language": str(own.get("language") or options.language),
            "source": str(own.get("source") or source),
            "split": own.get("split"),
        }
        read.posts.append(texts | post)
    return read.posts[first:]


def _check_tags(tags: list[Any], scheme: TagScheme, place: str) -> None:
    for tag in tags:
        if not isinstance(tag, str):
            found = f"{tag!r:.80}; names in place of ids"
        elif not is_tag(tag, scheme):
            found = f"{tag!r:.80}; --tag_scheme says that a file is in IOB1 or BIOES"
        else:
            continue
        raise CorpusError(f"{place}: expected tags {tag_forms(scheme)}, found {found}")


def _divided(read: OwnPosts, options: ReadingOptions) -> dict[str, Posts]:
    """The posts of each split: as the posts say, or else by ratio."""
    if any(post["split"] is not None for post in read.posts):
        found: dict[str, Posts] = {split: [] for split in SPLITS}
        for post in read.posts:
            split = str(post["split"]).lower()
            if (name := next((ours for ours, names in SPLIT_NAMES.items() if split in names), None)) is None:
                place = f"post {post['id']!r}, column split"
                raise CorpusError(
                    f"{place}: expected one of {', '.join(SPLITS)}, found {post['split']!r:.80}"
                )
            found[name].append(post)
    else:
        read.division = f"+{options.split_ratio}, seed {options.split_seed}"
        keys = [list(_keys(post)) for post in read.posts]
        numbers = split_by_ratio(keys, parse_ratio(options.split_ratio), seed=options.split_seed)
        found = {split: [read.posts[number] for number in chosen] for split, chosen in numbers.items()}
    return {split: posts for split, posts in found.items() if posts}


def _keys(post: dict[str, Any]) -> Iterator[Hashable]:
    """What two splits must not have in common: a post's text and its pictures."""
    yield "text", unicodedata.normalize("NFKC", " ".join(post["tokens"])).casefold()
    yield from (hashlib.sha256(picture_content(picture)).digest() for picture in post["images"])


def _pictures(record: Any, options: ReadingOptions, folder: Path | None, notes: Counter[str]) -> Posts:
    """The pictures of a record that are there; the others are counted."""
    found = []
    for given in pictures_of(record):
        picture = local_picture(
            given, image_dir=options.image_dir, folder=folder, follow_links=options.follow_links
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
    content = given.get("bytes") if isinstance(given, dict) else given
    if isinstance(content, bytes):
        return {"bytes": content, "path": None}
    path = given.get("path") if isinstance(given, dict) else given
    if not isinstance(path, str):
        return "neither a path nor bytes"
    if path.startswith("data:image/"):
        try:
            return {"bytes": base64.b64decode(path.partition(",")[2], validate=True), "path": None}
        except ValueError:
            return "broken base64"
    roots = [Path(root) for root in (image_dir, folder) if root is not None]
    if is_url(path) and image_dir is None:  # nothing is fetched
        roots = []
    for root in roots:
        for name in (path, Path(path).name):
            if found := file_within(name, root, follow_links=follow_links):
                return {"bytes": None, "path": str(found)}
    if is_url(path):
        return "addresses on the web; download them into --image_dir"
    return "no such file in the folder or --image_dir"


def tables_of(splits: dict[str, Posts]) -> tuple[dict[str, datasets.Dataset], list[str]]:
    """The data set of each split, and the BIO labels, the most frequent type first.

    Raises:
        CorpusError: no post has an entity.
    """
    posts = [post for rows in splits.values() for post in rows]
    types = types_by_frequency(post["ner_tags"] for post in posts)
    if not types:
        raise CorpusError(f"corpus: expected posts with entities, found none in {len(posts)} posts")
    labels = bio_labels(types)
    ids = {label: number for number, label in enumerate(labels)}
    features, picture = corpus_features(labels), datasets.Image(decode=False)
    if any(len(post["images"]) > 1 for post in posts):
        del features["image"]
        features["images"] = datasets.List(picture)
    else:
        features["image"] = picture
    text = datasets.Value("string")
    more = sorted({key for post in posts for key in post.keys() - set(_OWN)})
    lists = {key for key in more if any(isinstance(post.get(key), list) for post in posts)}
    for key in more:
        features[key] = datasets.List(text) if key in lists else text

    def row(post: dict[str, Any]) -> dict[str, Any]:
        found = post | {key: [post[key]] for key in lists if isinstance(post.get(key), str)}
        found["ner_tags"] = [ids[tag] for tag in post["ner_tags"]]
        found["image"] = next(iter(post["images"]), None)
        return {key: found.get(key) for key in features}

    tables = {
        split: datasets.Dataset.from_list([row(post) for post in rows], features=features)
        for split, rows in splits.items()
    }
    return tables, labels
