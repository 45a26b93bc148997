"""Mutated corpus files: whatever a file holds, the reader refuses it with a `CorpusError` or gives sound
posts.
"""

import io
import random
import re
from collections import Counter

import pytest

from dataset_scripts.formats.reader import CorpusError, Reading, TaggedPost, parse_posts

IMGID = (
    "IMGID:17_06_1\nParis\tB-LOC\n\u00a0\tO\n!\tO\n\n"
    "IMGID:a---b.jpg\nJordan\tB-PER\nHenderson\tI-PER\nat\tO\nNew\tB-x-y\nYork\tI-x-y\nIMGID:5\tI-LOC\n\n"
    "IMGID:3?x=1&y\n👨‍👩‍👧\tO\n\u2028\tB-ORG\n\n"
)
INDEXED = (
    "0\tL'\tO\n1\tItalie\tB-LOC\n\n0\tNeue\tB-ORG\n1\tZürcher\tI-ORG\n2\tZeitung\tI-ORG\n\n0\t\u200b\tO\n\n"
)
BIOES = "IMGID:1\nNew\tB-LOC\nYork\tI-LOC\nCity\tE-LOC\nand\tO\nParis\tS-LOC\n\nIMGID:2\nme\tO\n\n"
IOB1 = "0\tNew\tI-LOC\n1\tYork\tI-LOC\n2\tParis\tB-LOC\n\n0\tme\tI-PER\n1\tit\tO\n\n"
TEXTS = (IMGID, INDEXED, BIOES, IOB1)
VALID = [
    form.encode()
    for text in TEXTS
    for form in (
        *(text, text.replace("\n", "\r\n"), "\ufeff" + text.rstrip("\n")),
        text.replace("IMGID:5\t", "IMG\t").replace("\t", " "),  # without a tab, IMGID:5 would be a post mark
    )
]
READINGS = (
    {},
    {"repair_orphans": True},
    {"scheme": "iob1"},
    {"scheme": "bioes"},
    {"scheme": "bioes", "rename_types": {"LOC": "PLACE", "x-y": "LOC"}, "repair_orphans": True},
)
SPECIAL = [
    *(bytes([byte]) for byte in b"\r\n\t\0\xff\xfe \x0b\x0c\x1c\\.-O"),
    *(b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xf0\x9f"),
    *(b"IMGID:", b"\nIMGID:", b"IMGID:../", b"IMGID:a/b\n", b"../", b"\n\nIMGID:.\na\tO\n", b"\na\tO\n"),
    *(b"\tB-", b"\tI-LOC\n", b"\tE-LOC\n", b"\tS-LOC\n", b"\tO\n", b"B-"),
]


def mutated(generator: random.Random) -> bytes:
    """A valid file after one to three mutations: bytes or lines that are lost, doubled or of another file."""
    data = generator.choice(VALID)
    for _ in range(generator.randint(1, 3)):
        by_line = generator.random() < 0.3
        parts = re.split(rb"(?<=\n)", data) if by_line else [bytes([byte]) for byte in data]
        start = generator.randrange(len(parts) + 1)
        end = min(len(parts), start + generator.choice((0, 0, 1, 1, 2, 5)))
        other = generator.choice(VALID)
        pieces = (b"", generator.randbytes(2), generator.choice(SPECIAL), b"".join(parts[start:end] * 2))
        pieces += (
            generator.choice(SPECIAL),
            generator.choice(parts or [b""]),
            other[generator.randrange(len(other)) :],
        )
        data = b"".join(parts[:start]) + generator.choice(pieces) + b"".join(parts[end:])
    return data


def parsed(data: bytes, reading: Reading) -> list[TaggedPost]:
    return list(parse_posts(io.BytesIO(data), "train.txt", reading))


def check_posts(posts: list[TaggedPost], repaired: bool) -> None:
    """Each post has a safe id of its own, tokens, and a BIO tag for each of them."""
    ids = [post.id for post in posts]
    assert posts
    assert len(set(ids)) == len(ids)
    assert not any(set(post_id) & set("/\\\0\n\t") or post_id in ("", ".", "..") for post_id in ids)
    for post in posts:
        assert len(post.tags) == len(post.tokens) > 0
        assert not any(not token or set(token) & set("\t\n") for token in post.tokens)
        assert all(tag == "O" or (tag[:2] in ("B-", "I-") and tag[2:]) for tag in post.tags)
        if repaired:
            before = ["O", *post.tags]
            assert all(tag[0] != "I" or before[place][2:] == tag[2:] for place, tag in enumerate(post.tags))


def check_written(posts: list[TaggedPost]) -> None:
    """Posts written in the released form and, without their ids, in the indexed one are read as the same."""
    blocks = [list(zip(post.tokens, post.tags, strict=True)) for post in posts]
    with_ids = "".join(
        f"IMGID:{post.id}\n" + "".join(f"{token}\t{tag}\n" for token, tag in block) + "\n"
        for post, block in zip(posts, blocks, strict=True)
    )
    indexed = "".join(
        "".join(f"{n}\t{token}\t{tag}\n" for n, (token, tag) in enumerate(block)) + "\n" for block in blocks
    )
    reading = Reading()
    again, numbered = parsed(with_ids.encode(), reading), parsed(indexed.encode(), reading)
    assert [(post.id, post.tokens, post.tags) for post in again] == [
        (post.id, post.tokens, post.tags) for post in posts
    ]
    assert [(post.tokens, post.tags) for post in numbered] == [(post.tokens, post.tags) for post in posts]
    assert not reading.notes


def outcome(data: bytes, settings: dict[str, object]) -> str:
    """``accepted`` or ``refused``.

    Raises:
        AssertionError: the reader raised something else, an error does not say where, or the posts are not
            sound.
    """
    try:
        posts = parsed(data, Reading(**settings))
    except CorpusError as error:
        found = re.match(r"train\.txt(?::(\d+))?: expected ", str(error))
        assert found, f"{data!r} read with {settings}: {error}"
        assert found[1] is None or 1 <= int(found[1]) <= data.count(b"\n") + 1
        return "refused"
    check_posts(posts, bool(settings.get("repair_orphans")))
    check_written(posts)
    return "accepted"


@pytest.mark.parametrize("data", VALID)
def test_files_that_are_mutated_are_valid(data):
    """If it failed, mutations would begin at files that are refused anyway, and reach no further than the
    first check.
    """
    assert outcome(data, {"scheme": "bioes"}) == "accepted"


@pytest.mark.parametrize(
    ("count", "seed", "least"), [(2_000, 1, 200), pytest.param(200_000, 2, 1_000, marks=pytest.mark.slow)]
)
def test_mutated_files_give_sound_posts_or_a_corpus_error(count, seed, least):
    """If it failed, a damaged file could crash the reader, or posts come out of it that cannot be trained
    on.
    """
    generator = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        data, settings = mutated(generator), generator.choice(READINGS)
        try:
            outcomes[outcome(data, settings)] += 1
        except Exception as error:
            raise AssertionError(f"{data!r} read with {settings}: {type(error).__name__}: {error}") from error
    assert min(outcomes["accepted"], outcomes["refused"]) > least, outcomes
