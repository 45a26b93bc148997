"""Tests of the reader of tagged posts: both formats, what real files hold, notes on what was read otherwise,
and errors.
"""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.formats.pictures import find_picture
from dataset_scripts.formats.reader import (
    SPLITS,
    CorpusError,
    Reading,
    TaggedPost,
    find_split,
    parse_posts,
    read_posts,
)
from tests.shared_data import property_test

IMGID = "IMGID:1\nParis\tB-LOC\n!\tO\n\nIMGID:2\nJordan\tB-PER\nHenderson\tI-PER\n\n"
INDEXED = "0\tParis\tB-LOC\n1\t!\tO\n\n0\tJordan\tB-PER\n1\tHenderson\tI-PER\n\n"
POSTS = [(["Paris", "!"], ["B-LOC", "O"]), (["Jordan", "Henderson"], ["B-PER", "I-PER"])]

UNSAFE_IDS = ["../x", "/etc/x", "a/b", "..\\x", "a\0", "", ".", ".."]
each_unsafe_id = pytest.mark.parametrize("post_id", UNSAFE_IDS, ids=repr)


@pytest.fixture
def written(tmp_path):
    """A function that writes a file of text or bytes and gives its path."""

    def write(content: str | bytes, name: str = "train.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


def parsed(content: str | bytes, reading: Reading | None = None) -> list[TaggedPost]:
    """The posts of a file called train.txt with this content."""
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    return list(parse_posts(io.BytesIO(data), "train.txt", reading))


def contents(content: str | bytes, reading: Reading | None = None) -> list[tuple[list[str], list[str]]]:
    return [(post.tokens, post.tags) for post in parsed(content, reading)]


@pytest.mark.parametrize("content", [IMGID, IMGID.replace("\n\n", "\n"), INDEXED, "\n\n" + INDEXED])
def test_forms_of_one_corpus_hold_the_same_posts(content):
    """If it failed, posts would be changed or lost, or those of a file without empty lines be read as one."""
    assert contents(content.replace("\n\n", "\n\n\n")) == contents(content) == POSTS


def test_posts_know_their_id_and_line(written):
    """If it failed, predictions could not be matched to posts, errors would name another line, or posts of
    the train and the validation file have the same ids.
    """
    assert [(post.id, post.line) for post in parsed(IMGID)] == [("1", 1), ("2", 5)]
    assert [(post.id, post.line) for post in parsed(INDEXED)] == [("train-1", 1), ("train-2", 4)]
    assert [post.id for post in read_posts(written(INDEXED, "val.conllu"))] == ["val-1", "val-2"]


@pytest.mark.parametrize("post_id", ["17_06_1.jpg", "a?b%20c&d=e", " 7 ", "é", "IMGID:1", "...", "x" * 248])
def test_ids_are_taken_as_they_stand(post_id):
    """If it failed, a post would lose its picture because its id was cleaned up."""
    [post] = parsed(f"IMGID:{post_id}\na\tO\n")
    assert post.id == post_id


@pytest.mark.parametrize("content", ["IMGID:1\na\tO\nIMGID:5\tB-LOC\n", "0\ta\tO\nIMGID:5\tIMGID:5\tB-LOC\n"])
def test_a_token_that_looks_like_a_post_mark_survives(content):
    """If it failed, a token IMGID:5 with a tag behind it would cut its post in two."""
    assert contents(content) == [(["a", "IMGID:5"], ["O", "B-LOC"])]


def test_posts_come_one_at_a_time():
    """If it failed, the reader would hold a whole file in memory before it gives the first post."""
    taken = []
    posts = parse_posts(
        (taken.append(line) or line for line in IMGID.encode().splitlines(keepends=True)), "train.txt"
    )
    next(posts)
    assert len(taken) == 4


def test_third_column_of_finer_types_is_counted_and_not_read():
    """If it failed, FMNERG's files could not be opened, or nobody know that a part of them is not read."""
    reading = Reading()
    content = "IMGID:O_1\nTed\tB-PER\tB-politician\nspeaks\tO\tO\n"
    assert contents(content, reading) == [(["Ted", "speaks"], ["B-PER", "O"])]
    assert reading.notes == {"tags of finer types, in a third column, not read": 1}


# Malformed files.


MALFORMED = {
    "not UTF-8": (b"IMGID:1\na\xff\tO\n", ":2: expected UTF-8, found the byte 0xff at column 2; convert the"),
    "UTF-16 without": (
        IMGID.encode("utf-16-le"),
        ":1: expected two columns or more, token<TAB>tag (or IMGID:<id> before the first token), found",
    ),
    "no tab": ("IMGID:1\naO\n", ":2: expected token<TAB>tag, found 1 columns in 'aO'"),
    "two spaces": ("IMGID:1\na b O\n", ":2: expected token<TAB>tag, found 1 columns in 'a b O'"),
    "space in a token": ("IMGID:1\na b\n", ":2: expected a tag O, B-<type>, I-<type>, found 'b'"),
    "many columns": ("IMGID:1\na\tb\tO\n", ":2: expected token<TAB>tag, found 3 columns in 'a\\tb\\tO'"),
    "few columns": (
        "0\ta\tO\n1\tb\n",
        ":2: expected 3 columns, as in the first line, found 2 columns in '1\\tb'",
    ),
    "token after an empty line": (
        "IMGID:1\na\tO\n\nb\tO\n",
        ":4: expected a line IMGID:<id> before a post's first token, found 'b\\tO'",
    ),
    "mark in an indexed file": (
        "0\ta\tO\n\nIMGID:1\n",
        ":3: expected lines in columns as before, found 'IMGID:1'",
    ),
    "no prefix": ("IMGID:1\na\tO\nb\tPER\n", ":3: expected a tag O, B-<type>, I-<type>, found 'PER'"),
    "BIOES": ("IMGID:1\na\tS-PER\n", "found 'S-PER'; if the file is in BIOES, say --tag_scheme bioes"),
    "no type": ("IMGID:1\na\tB-\n", ":2: expected a tag O, B-<type>, I-<type>, found 'B-'"),
    "space after the tag": ("IMGID:1\na\tO \n", "found 'O '"),
    "CR CR LF": ("IMGID:1\na\tB-LOC\r\r\n", "found 'B-LOC\\r'"),
    "CR CR LF at a mark": (
        "IMGID:1\r\r\na\tB-LOC\n",
        ":1: expected an id that is a plain file name, found '1\\r'",
    ),
    "no tag": ("IMGID:1\na\t\n", "found ''"),
    "empty token": ("IMGID:1\na\tO\n\tO\n", ":3: expected a token before the tag, found nothing in '\\tO'"),
    "no tokens": ("IMGID:1\n\nIMGID:2\na\tO\n", ":1: expected tokens after IMGID:1, found none"),
    "last has no tokens": ("IMGID:1\na\tO\n\nIMGID:2\n", ":4: expected tokens after IMGID:2, found none"),
    "id twice": ("IMGID:1\na\tO\n\nIMGID:1\nb\tO\n", ":4: expected each id once, found '1' on line 1 too"),
    "empty file": ("", ": expected at least one post, found none"),
    "only empty lines": ("\n\r\n", ": expected at least one post, found none"),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_files_say_where(content, message):
    """If it failed, a user would have to search a file of 50,000 lines, or train on a part unnoticed."""
    with pytest.raises(CorpusError) as caught:
        parsed(content)
    assert str(caught.value).startswith("train.txt:") and message in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "tag"),
    [("bio", "-PER"), ("bio", "BI-PER"), ("bioes", "IE-PER"), ("bioes", "-PER"), ("bioes", "U-PER")],
)
def test_prefixes_are_single_letters_of_the_scheme(scheme, tag):
    """If it failed, tags without a prefix or with two would pass (a substring of the scheme's letters once
    counted as one), or a user who has named the scheme be told to name it.
    """
    with pytest.raises(CorpusError, match=rf"train\.txt:2: expected a tag O, B-<type>, .*, found '{tag}'$"):
        parsed(f"IMGID:1\na\t{tag}\n", Reading(scheme=scheme))


@each_unsafe_id
def test_ids_that_are_no_file_names_are_refused(tmp_path, post_id):
    """If it failed, a corpus file could make the program read or write any file of the user's."""
    with pytest.raises(CorpusError, match=r"train\.txt:4: expected an id that is a plain file name, found "):
        parsed(f"IMGID:1\na\tO\n\nIMGID:{post_id}\nb\tO\n")
    (tmp_path / "images").mkdir()
    assert find_picture(tmp_path / "images", post_id) is None
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"x\.jpg: expected a file that lies in .*images, found"):
        find_picture(tmp_path / "images", "../x")


# Notes on what was read otherwise than it stands.


@pytest.mark.parametrize("content", [IMGID, INDEXED], ids=["IMGID", "indexed"])
@pytest.mark.parametrize(
    ("old", "new", "settings", "notes"),
    [
        ("", "", {}, {}),
        ("", "", {"scheme": "bioes", "rename_types": {"OTHER": "MISC"}, "repair_orphans": True}, {}),
        ("!\tO\n", "!\tO\r\n", {}, {"line ends of CR LF read as LF": 1}),
        ("LOC", "PLACE", {"rename_types": {"PLACE": "LOC"}}, {"tags renamed from PLACE to LOC": 1}),
        (
            *("", "", {"rename_types": {"PER": "P", "LOC": "L"}}),
            {"tags renamed from PER to P": 2, "tags renamed from LOC to L": 1},
        ),
        ("B-", "I-", {"scheme": "iob1"}, {"tags in IOB1 rewritten as B- and I-": 2}),
        ("B-LOC", "S-LOC", {"scheme": "bioes"}, {"tags in BIOES rewritten as B- and I-": 1}),
        ("I-PER", "E-PER", {"scheme": "bioes"}, {"tags in BIOES rewritten as B- and I-": 1}),
        ("B-LOC", "I-LOC", {"repair_orphans": True}, {"orphan I- tags made B-": 1}),
        ("B-LOC", "I-LOC", {}, {}),
    ],
)
def test_each_thing_read_otherwise_is_counted(content, old, new, settings, notes):
    """If it failed, a corpus's card would be silent about a change, or name one that was not made."""
    reading = Reading(**settings)
    parsed(content.replace(old, new) if old else content, reading)
    assert dict(reading.notes) == notes


@pytest.mark.parametrize(
    ("settings", "tags", "expected"),
    [
        ({}, "I-A B-A I-B O", "I-A B-A I-B O"),
        ({"scheme": "iob1"}, "I-A I-A B-A I-B O I-B", "B-A I-A B-A B-B O B-B"),
        ({"scheme": "bioes"}, "S-A B-A I-A E-A O E-A", "B-A B-A I-A I-A O I-A"),
        ({"scheme": "bioes", "repair_orphans": True}, "S-A B-A I-A E-A O E-A", "B-A B-A I-A I-A O B-A"),
        ({"rename_types": {"A": "B"}, "repair_orphans": True}, "B-B I-A I-C O I-A", "B-B I-B B-C O B-B"),
        ({"rename_types": {"A": "X"}}, "B-A B-AA I-A-A O", "B-X B-AA I-A-A O"),
        ({"rename_types": {"A": "B", "B": "A"}}, "B-A I-A B-B O", "B-B I-B B-A O"),
    ],
)
def test_tags_are_rewritten_in_order(settings, tags, expected):
    """If it failed, tags would be repaired before they are BIO or have their final types, and entities be cut
    in two.
    """
    assert Reading(**settings).bio_tags(tags.split()) == expected.split()


# Whatever a file may hold.

ODD_TOKENS = [*"\u00a0\u0085\u2028\u2029\u200b\ufeff\x1c\x0b\0O#", "IMGID:", "👨‍👩‍👧‍👦", "🇫🇷"]
any_field = st.text(
    st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1, max_size=4
)
any_token = st.one_of(st.sampled_from(ODD_TOKENS), any_field)
any_tag = st.sampled_from(["O", "B-PER", "I-PER", "B-x-y", "I-LOC"])
any_posts = st.lists(st.lists(st.tuples(any_token, any_tag), min_size=1, max_size=4), min_size=1, max_size=4)


def imgid_text(posts: list[list[tuple[str, str]]]) -> str:
    blocks = ["".join(f"{token}\t{tag}\n" for token, tag in post) for post in posts]
    return "".join(f"IMGID:{number}\n{block}\n" for number, block in enumerate(blocks))


def indexed_text(posts: list[list[tuple[str, str]]]) -> str:
    blocks = ("".join(f"{n}\t{token}\t{tag}\n" for n, (token, tag) in enumerate(post)) for post in posts)
    return "\n".join(blocks) + "\n"


each_format = pytest.mark.parametrize("as_text", [imgid_text, indexed_text], ids=["IMGID", "indexed"])


FORMS: dict[str, Callable[[str], tuple[str, dict[str, int]]]] = {
    "as it is": lambda text: (text, {}),
    "CR LF": lambda text: (text.replace("\n", "\r\n"), {"line ends of CR LF read as LF": text.count("\n")}),
    "mark": lambda text: ("\ufeff" + text, {}),
    "no last line feed": lambda text: (text.rstrip("\n"), {}),
    "spaces": lambda text: (text.replace("\t", " "), {"spaces read as tabs": text.count("\t")}),
}


@pytest.mark.slow
@each_format
@pytest.mark.parametrize("form", FORMS)
@property_test
@given(posts=any_posts)
def test_every_form_of_a_file_holds_what_was_written(as_text, form, posts):
    """If it failed, tokens such as U+00A0, U+0085 or U+2028 would be stripped, split or taken for line ends
    in some form, or the notes not say how much of it there is.
    """
    if form == "spaces":  # in which a token's space or mark is none
        keep = "".maketrans({" ": "_", "I": "i"})
        posts = [[(token.translate(keep), tag) for token, tag in post] for post in posts]
    content, notes = FORMS[form](as_text(posts))
    reading = Reading()
    assert [list(zip(*post, strict=True)) for post in contents(content, reading)] == posts
    assert reading.notes == notes


# The files of a corpus.


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("train.txt", "dev.txt", "test.txt"),
        ("train.txt", "validation.txt", "test.txt"),
        ("train_conll_format.txt", "valid_conll_format.txt", "test_conll_format.txt"),
        ("train.conllu", "val.conllu", "test.conllu"),
        ("train.conll", "val.conll", "test.txt"),
    ],
)
def test_split_files_are_found_by_the_corpora_habits(written, names):
    """If it failed, a corpus as its authors publish it would have to be renamed."""
    paths = [written("", name) for name in (*names, "train_extra.txt", "README.txt")]
    assert [find_split(paths[0].parent, split) for split in SPLITS] == paths[:3]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("train.txt test.txt", r"one validation file out of validation\.txt, .*dev\.conll, found none"),
        ("train.txt valid.txt dev.txt test.txt", r"one validation file .*, found valid\.txt, dev\.txt"),
        ("train.txt train.conllu valid.txt", r"one train file .*, found train\.txt, train\.conllu"),
    ],
)
def test_missing_and_doubtful_splits_are_refused(written, tmp_path, names, message):
    """If it failed, a model would be selected on a file that the user did not mean, or a wrong --data_dir be
    reported as a missing file in it.
    """
    paths = [written("", name) for name in names.split()]
    with pytest.raises(CorpusError, match=message):
        for split in SPLITS:
            find_split(paths[0].parent, split)
    with pytest.raises(
        CorpusError, match="expected a folder with train, valid and test files, found no folder"
    ):
        find_split(tmp_path / "nothere", "train")


@pytest.mark.parametrize("post_id", ["1", "1.jpg", "a?b%20c&d=e", "é", " 7", "..x", "...", "x" * 240])
def test_picture_is_the_id_and_jpg(tmp_path, post_id):
    """If it failed, a post whose id ends in .jpg or holds odd characters would lose its picture, or another
    file be taken for it, or a long id end the run.
    """
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / f"{post_id}.jpg").write_bytes(b"")
    assert find_picture(tmp_path, post_id) == tmp_path / f"{post_id}.jpg"
    others = ["2", f"{post_id}.jpg", "x" * 5000, "folder"]
    assert [find_picture(tmp_path, other) for other in others] == [None] * 4
