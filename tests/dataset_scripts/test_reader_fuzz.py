"""What sound posts of a corpus file are: those of valid files are, and `tests.stress.fuzz` mutates these."""

import io

import pytest

from dataset_scripts.formats.reader import Reading, TaggedPost, parse_posts

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
SPECIAL = [
    *(bytes([byte]) for byte in b"\r\n\t\0\xff\xfe \x0b\x0c\x1c\\.-O"),
    *(b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xf0\x9f"),
    *(b"IMGID:", b"\nIMGID:", b"IMGID:../", b"IMGID:a/b\n", b"../", b"\n\nIMGID:.\na\tO\n", b"\na\tO\n"),
    *(b"\tB-", b"\tI-LOC\n", b"\tE-LOC\n", b"\tS-LOC\n", b"\tO\n", b"B-"),
]


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


@pytest.mark.parametrize("data", VALID)
def test_valid_files_give_sound_posts(data):
    """If it failed, posts of a file could not be trained on, or come back otherwise from a file of them."""
    posts = parsed(data, Reading(scheme="bioes"))
    check_posts(posts, repaired=False)
    check_written(posts)
