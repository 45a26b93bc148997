"""Corpora as people have them: records in any of the forms of `annotations` -> posts, splits and tables."""

import random
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from modeling_mmner.escaping import encodable
from modeling_mmner.files import picture_hash
from modeling_mmner.model.labels_mmner import bio_labels, is_unspaced
from modeling_mmner.model.posts_mmner import is_words

from ..builders.builder import corpus_features, types_by_frequency
from ..findings import Findings
from ..reading_options import ReadingOptions
from .annotations import LeftOut, read_annotation
from .pictures import PictureFiles
from .reader import SPLIT_OF, SPLITS, CorpusError, Reading, check_link, mismatch
from .records import read_records, record_files
from .schemes import PREFIXES, is_tag, scheme_of, tag_forms
from .tables import cell_list

Posts = list[dict[str, Any]]
"""Rows with tags by name; ``images``, a list; ``split``, what the record says; and ``tagged at``, the place
of posts whose tags are as they stand until `read_tags`, or None: they come from spans.
"""

Records = Iterable[tuple[str, Any]]
"""Each with its place, for errors."""

_OWN = ("id", "tokens", "ner_tags", "image", "images", "language", "source", "text", "split", "tagged at")


@dataclass
class OwnPosts:
    """Posts read from records, in order; spans left out; and all that was found in reading.

    `forms` are those that records have, see `Annotation`.
    `division` is, for the version's name, how the posts were split; empty: they had their splits.
    """

    posts: Posts = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    forms: dict[str, None] = field(default_factory=dict)
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
    options.check(str(path))
    files = record_files(path)
    base = path if path.is_dir() else path.parent
    read, found = OwnPosts(), {}
    for split, file in files.items():
        if path.is_dir() and not options.follow_links:
            check_link(file, path)
        records = read_records(file, options.columns, read.findings)
        source = file.stem if split == "all" else base.name
        found[split] = add_posts(records, read, options, folder=base, source=source)
    read_tags(read, options)
    if not read.posts:
        names = ", ".join(file.name for file in files.values())
        raise mismatch(path, "annotated posts", f"none in {names}")
    return (_divided(read, options) if list(found) in (["all"], ["train"]) else found), read


def add_posts(
    records: Records, read: OwnPosts, options: ReadingOptions, *, folder: Path | None, source: str
) -> Posts:
    """Add the posts of records to those that were read; returns them.

    Args:
        folder: where relative paths of pictures begin; None: there are no files.
        source: of posts that do not say theirs.
    """
    first, findings = len(read.posts), read.findings
    files, ids = PictureFiles(folder, options), dict[str, str]()
    for place, record in records:
        if isinstance(record, dict):
            record = {key: cell_list(value, key, place) for key, value in record.items()}
        annotation = read_annotation(record, place, findings, word_rule=options.word_rule)
        if annotation is None:
            findings.add("posts that their annotator rejected or skipped", place, lost=False)
            continue
        words, tags, left_out, own, form = annotation
        read.forms[form] = None
        read.left_out += left_out or []
        texts = {
            str(key): encodable(value) if isinstance(value, str) else [encodable(text) for text in value]
            for key, value in own.items()
            if key not in _OWN and (isinstance(value, str) or is_words(value))
        }
        post: dict[str, Any] = {
            "id": str(own["id"]) if own.get("id") is not None else f"{source}-{len(read.posts) + 1}",
            "tokens": [encodable(word) for word in words],
            "ner_tags": tags if left_out is not None else _named(tags, options.tag_names, place),
            "images": files.pictures(own, place, findings),
            "language": str(own.get("language") or options.language),
            "source": str(own.get("source") or source),
            "split": own.get("split"),
            "tagged at": None if left_out is not None else place,
        }
        if own.get("id") is not None and (other := ids.setdefault(post["id"], place)) != place:
            what, advice = "ids that an earlier post has", "--columns id=COLUMN names a column of others"
            findings.add(what, f"{place}: {post['id']!r:.80}, also {other}", remedy=advice, lost=False)
        read.posts.append(texts | post)
    return read.posts[first:]


def _named(tags: list[Any], names: list[str], place: str) -> list[str]:
    """The tags by their names."""
    numbers = {str(number): name for number, name in enumerate(names)}
    named = [numbers.get(str(tag), tag) for tag in tags]
    if wrong := [tag for tag in named if not isinstance(tag, str) or tag.isdecimal()]:
        found = f"{wrong[0]!r:.80}; --tag_names O,B-PER,I-PER,... says what 0, 1, 2, ... mean"
        raise mismatch(place, "tags by their names", found)
    return named


def read_tags(read: OwnPosts, options: ReadingOptions) -> None:
    """Make the tags of all posts BIO; only all of them together tell their scheme.

    Raises:
        CorpusError: a tag is of another scheme.
    """
    scheme = options.tag_scheme
    reading = Reading("bio", options.rename_types, options.repair_orphans)
    given = [post["ner_tags"] for post in read.posts if post["tagged at"]]
    if given and scheme == "auto":
        scheme = scheme_of(given, read.findings)
    for post in read.posts:
        own = reading.scheme = scheme if post["tagged at"] else "bio"
        if wrong := [tag for tag in post["ner_tags"] if not is_tag(tag, own)]:
            known = next(name for name in PREFIXES if is_tag(wrong[0], name) or name == "bare")
            hint = f"if the other tags are wrong, and this is right, say --tag_scheme {known}"
            raise mismatch(post["tagged at"], f"tags {tag_forms(own)}", f"{wrong[0]!r:.80}; {hint}")
        post["ner_tags"] = reading.bio_tags(post["ner_tags"])
    reading.check_renamed(types_by_frequency(post["ner_tags"] for post in read.posts))
    for note, number in reading.notes.items():
        read.findings.add(note, lost=False, number=number)
    _check_agreement(read)
    if options.word_rule == "spaces":
        check_words((post["tokens"] for post in read.posts), read.findings)


def _check_agreement(read: OwnPosts) -> None:
    """Add posts whose words and pictures an earlier one has, with other entities."""
    first: dict[Hashable, dict[str, Any]] = {}
    for post in read.posts:
        other = first.setdefault(tuple(post["tokens"]), post)
        differs = post["ner_tags"] != other["ner_tags"]
        if differs and [*map(_digest, post["images"])] == [*map(_digest, other["images"])]:
            example = f"{post['id']!r:.80}, also {other['id']!r:.80}: {' '.join(post['tokens'])}"
            advice = "make them agree, or keep one of them; a model learns both and is scored by either"
            read.findings.add("posts that are there before with other entities", example, remedy=advice)


def check_words(posts: Iterable[list[str]], findings: Findings) -> None:
    """Add it to the findings if a corpus splits texts by characters: a model that does not would not see its
    words.
    """
    texts = [words for post in posts if (words := [word for word in post if is_unspaced(word)])]
    single = [words for words in texts if max(map(len, words)) == 1 < len(words)]
    if len(single) > len(texts) / 2:
        what = "posts whose words are single characters of a script without spaces"
        remedy = "--word_rule characters, so that the model splits texts as the corpus does"
        findings.add(what, "".join(single[0]), remedy=remedy, number=len(single))


def _divided(read: OwnPosts, options: ReadingOptions) -> dict[str, Posts]:
    """The posts of each split: as the posts say, or else by ratio."""
    if any(post["split"] is not None for post in read.posts):
        found: dict[str, Posts] = {split: [] for split in SPLITS}
        for post in read.posts:
            if (split := SPLIT_OF.get(str(post["split"]).lower())) is None:
                place = f"post {post['id']!r}, column split"
                raise mismatch(place, f"one of {', '.join(SPLITS)}", f"{post['split']!r:.80}")
            found[split].append(post)
    else:
        read.division = f"+{options.split_ratio}, seed {options.split_seed}"
        numbers = _kept_apart(read, parse_ratio(options.split_ratio), seed=options.split_seed)
        found = {split: [read.posts[number] for number in chosen] for split, chosen in numbers.items()}
    return {split: posts for split, posts in found.items() if posts}


def _kept_apart(read: OwnPosts, ratio: tuple[int, int, int], *, seed: int) -> dict[str, list[int]]:
    """The posts' numbers of each split: no two have a text in common, and no picture, unless more posts share
    it than the smallest split has, or pictures leave no posts for a split.
    """
    posts = read.posts
    pictures = [{_digest(picture): picture for picture in post["images"]} for post in posts]
    joined = Counter(key for own in pictures for key in own)
    least = len(posts) * min(filter(None, ratio)) / sum(ratio)
    large = {key for key, number in joined.items() if number > max(least, 1)}
    for dropped in (large, {*joined}):
        owned = zip(posts, pictures, strict=True)
        keys = [[normalised(post["tokens"]), *own.keys() - dropped] for post, own in owned]
        try:
            splits = split_by_ratio(keys, ratio, seed=seed)
            break
        except CorpusError:
            if len(dropped) == len(joined):
                raise
    named = {key: picture["path"] or "bytes" for own in pictures for key, picture in own.items()}
    for key in (key for key, number in joined.most_common() if number > 1 and key in dropped):
        what = "pictures in several splits, for they join many posts"
        example = f"{named[key]} joins {joined[key]} of {len(posts)} posts"
        read.findings.add(what, example, remedy="a column 'split' says where each post belongs", lost=False)
    return splits


def normalised(tokens: Sequence[str]) -> str:
    """The text by which posts are the same: with single spaces, NFKC-normalised, casefolded."""
    return unicodedata.normalize("NFKC", " ".join(tokens)).casefold()


def _digest(picture: dict[str, Any]) -> str:
    try:
        return picture_hash(picture)
    except OSError:  # not ours to read
        return picture["path"]


def tables_of(splits: dict[str, Posts], read: OwnPosts) -> tuple[dict[str, datasets.Dataset], list[str]]:
    """The data set of each split, and the BIO labels, the most frequent type first.

    Raises:
        CorpusError: no post has an entity; it says what was found in reading.
    """
    posts = [post for rows in splits.values() for post in rows]
    labels = bio_labels(types_by_frequency(post["ner_tags"] for post in posts))
    if len(labels) == 1:
        found = "\n".join([f"none in {len(posts)} posts", *read.findings.lines()])
        raise mismatch("corpus", "posts with entities", found)
    features, text = corpus_features(labels, decode=False), datasets.Value("string")
    if any(len(post["images"]) > 1 for post in posts):
        features["images"] = datasets.List(features.pop("image"))
    more = sorted({key for post in posts for key in post.keys() - set(_OWN) if post[key]})
    lists = {key for key in more if any(isinstance(post.get(key), list) for post in posts)}
    features |= {key: datasets.List(text) if key in lists else text for key in more}
    for post in posts:
        post["image"] = next(iter(post["images"]), None)
        post |= {key: [post[key]] for key in lists if isinstance(post.get(key), str)}
    return {
        split: datasets.Dataset.from_list(
            [{key: post.get(key) for key in features} for post in rows], features=features
        )
        for split, rows in splits.items()
    }, labels


def parse_ratio(text: str) -> tuple[int, int, int]:
    """``80,10,10`` -> the shares of train, validation and test.

    Raises:
        CorpusError: it is no three numbers of which the first is above 0.
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts) or int(parts[0]) == 0:
        raise mismatch("--split_ratio", "three whole numbers as 80,10,10 (train, validation, test)", text)
    return int(parts[0]), int(parts[1]), int(parts[2])


def split_by_ratio(
    keys: Sequence[Iterable[Hashable]], ratio: tuple[int, int, int], *, seed: int
) -> dict[str, list[int]]:
    """The posts' numbers of each split, ascending; posts that share a key, also by way of others, are in the
    same split.

    Args:
        keys: of each post, what no two splits may have in common.
        ratio: of train, validation and test.
        seed: of the choice.

    Raises:
        CorpusError: a split with a share above 0 would be empty.
    """
    groups = _groups(keys)
    random.Random(seed).shuffle(groups)
    names = ("test", "validation", "train")
    shares = zip(names, reversed(ratio), strict=True)
    wanted = {name: len(keys) * share / sum(ratio) for name, share in shares}
    for ordered in (groups, sorted(groups, key=len, reverse=True)):
        splits: dict[str, list[int]] = {name: [] for name in names}
        empty = [name for name in names if wanted[name]]
        for left, group in zip(range(len(groups), 0, -1), ordered, strict=True):
            # The split that is farthest from its share, so that a large group goes where there is room for
            # it. Where that leaves one empty, the large ones go first, and the last ones where there is none.
            open_ = empty if ordered is not groups and left <= len(empty) else names
            splits[max(open_, key=lambda name: wanted[name] - len(splits[name]))] += group
            empty = [name for name in empty if not splits[name]]
        if not empty:
            return {name: sorted(splits[name]) for name in reversed(names)}
    found = f"none for {empty[0]}: there are {len(keys)} posts"
    why = f"{len(groups)} where the same text counts once; add posts, or say 'split' in a column"
    raise mismatch("--split_ratio", "posts for each split", f"{found}, {why}")


def _groups(keys: Sequence[Iterable[Hashable]]) -> list[list[int]]:
    """The posts that share keys, in the order of their first posts."""
    from networkx.utils import UnionFind  # slow to import

    joined = UnionFind(range(len(keys)))
    for post, own in enumerate(keys):
        joined.union(post, *(("key", key) for key in own))
    return [sorted(one for one in group if isinstance(one, int)) for group in joined.to_sets()]
