"""Tests of the reader of tagged posts: both formats, what real files hold, notes on what was read otherwise,
and errors.
"""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.formats.reader import (
    CorpusError,
    Reading,
    TaggedPost,
    find_picture,
    find_splits,
    parse_posts,
    read_posts,
)
from tests.shared_data import property_test

IMGID = "IMGID:1\nParis\tB-LOC\n!\tO\n\nIMGID:2\nJordan\tB-PER\nHenderson\tI-PER\n\n"
INDEXED = "0\tParis\tB-LOC\n1\t!\tO\n\n0\tJordan\tB-PER\n1\tHenderson\tI-PER\n\n"
POSTS = [(["Paris", "!"], ["B-LOC", "O"]), (["Jordan", "Henderson"], ["B-PER", "I-PER"])]

UNSAFE_IDS = ["../x", "/etc/x", "a/b", "..\\x", "a\0", "", ".", ".."]
each_unsafe_id = pytest.mark.parametrize(
    "post_id", UNSAFE_IDS, ids=["up", "root", "folder", "backslash", "NUL", "empty", "dot", "two dots"]
)


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


@pytest.mark.parametrize("content", [IMGID, INDEXED], ids=["IMGID", "indexed"])
@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "\n\n" + text.replace("\n\n", "\n\n\n"),
        lambda text: "\ufeff\r\n" + text.replace("\n", "\r\n").rstrip("\n"),
        lambda text: text.replace("\t", " "),
    ],
    ids=[
        "as it is",
        "no last line feed",
        "CR LF",
        "BOM",
        "more empty lines",
        "BOM, CR LF and no last line feed",
        "spaces",
    ],
)
def test_forms_of_one_corpus_hold_the_same_posts(content, changed):
    """If it failed, an editor's line ends, mark or missing line end would change or lose posts."""
    assert contents(changed(content)) == POSTS


def test_posts_without_empty_lines_between_them_are_told_apart_by_their_marks():
    """If it failed, posts of an IMGID file that lacks an empty line would be read as one."""
    assert contents(IMGID.replace("\n\n", "\n")) == POSTS


@pytest.mark.parametrize(
    ("content", "expected"),
    [(IMGID, [("1", 1), ("2", 5)]), (INDEXED, [("train-1", 1), ("train-2", 4)])],
    ids=["IMGID", "indexed"],
)
def test_posts_know_their_id_and_line(content, expected):
    """If it failed, predictions could not be matched to posts, or errors would name another line."""
    assert [(post.id, post.line) for post in parsed(content)] == expected


def test_numbers_of_posts_begin_with_the_files_stem(written):
    """If it failed, posts of the train and the validation file would have the same ids."""
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


# Malformed files.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"IMGID:1\na\xff\tO\n",
            r"train\.txt:2: expected UTF-8, found the byte 0xff at column 2; convert the file first",
        ),
        (
            IMGID.encode("utf-16"),
            r"train\.txt:1: expected UTF-8, found the byte 0xff at column 1; convert the file first",
        ),
        (
            IMGID.encode("utf-16-le"),
            r"train\.txt:1: expected index<TAB>token<TAB>tag .*found 1 columns in 'I\\x00M",
        ),
        ("IMGID:1\naO\n", r"train\.txt:2: expected token<TAB>tag, found 1 columns in 'aO'"),
        ("IMGID:1\na b O\n", r"train\.txt:2: expected token<TAB>tag, found 1 columns in 'a b O'"),
        ("IMGID:1\na b\n", r"train\.txt:2: expected a tag O, B-<type>, I-<type>, found 'b'"),
        ("IMGID:1\na\tb\tO\n", r"train\.txt:2: expected token<TAB>tag, found 3 columns in 'a\\tb\\tO'"),
        ("0\ta\tO\n1\tb\n", r"train\.txt:2: expected index<TAB>token<TAB>tag .*, found 2 columns in '1\\tb'"),
        (
            "a\tO\n",
            r"train\.txt:1: expected .* \(or IMGID:<id> before the first token\), found 2 columns in 'a\\tO'",
        ),
        (
            "IMGID:1\na\tO\n\nb\tO\n",
            r"train\.txt:4: expected a line IMGID:<id> before a post's first token, found 'b\\tO'",
        ),
        (
            "0\ta\tO\n\nIMGID:1\n",
            r"train\.txt:3: expected index<TAB>token<TAB>tag as before, found the post mark 'IMGID:1'",
        ),
        ("IMGID:1\na\tO\nb\tPER\n", r"train\.txt:3: expected a tag O, B-<type>, I-<type>, found 'PER'$"),
        ("IMGID:1\na\tX-PER\n", r"train\.txt:2: expected a tag O, B-<type>, I-<type>, found 'X-PER'$"),
        (
            "IMGID:1\na\tS-PER\n",
            r"train\.txt:2: .* found 'S-PER'; if the file is in BIOES, say --tag_scheme bioes$",
        ),
        ("IMGID:1\na\tB-\n", r"train\.txt:2: .* found 'B-'$"),
        ("IMGID:1\na\tO \n", r"train\.txt:2: .* found 'O '$"),
        ("IMGID:1\na\t\n", r"train\.txt:2: .* found ''$"),
        ("IMGID:1\na\tO\n\tO\n", r"train\.txt:3: expected a token before the tag, found nothing in '\\tO'"),
        ("IMGID:1\n\nIMGID:2\na\tO\n", r"train\.txt:1: expected tokens after IMGID:1, found none"),
        ("IMGID:1\nIMGID:2\na\tO\n", r"train\.txt:1: expected tokens after IMGID:1, found none"),
        ("IMGID:1\na\tO\n\nIMGID:2\n", r"train\.txt:4: expected tokens after IMGID:2, found none"),
        ("IMGID:1\na\tO\n\nIMGID:1\nb\tO\n", r"train\.txt:4: expected each id once, found '1' on line 1 too"),
        ("", r"train\.txt: expected at least one post, found none"),
        ("\n\r\n", r"train\.txt: expected at least one post, found none"),
    ],
    ids=[
        *[
            "not UTF-8",
            "UTF-16 with a mark",
            "UTF-16 without",
            "no tab",
            "two spaces",
            "space within a token",
        ],
        *["too many columns", "too few columns", "token before the first mark", "token after an empty line"],
        *[
            "mark in an indexed file",
            "tag without prefix",
            "unknown prefix",
            "prefix of BIOES",
            "no type",
            "space after the tag",
        ],
        *[
            "no tag",
            "empty token",
            "post without tokens",
            "post without tokens or empty line",
            "last post without tokens",
        ],
        *["id twice", "empty file", "only empty lines"],
    ],
)
def test_malformed_files_say_where(content, message):
    """If it failed, a user would have to search a file of 50,000 lines, or train on a part of it
    unnoticed.
    """
    with pytest.raises(CorpusError, match=message):
        parsed(content)


@pytest.mark.parametrize(
    ("scheme", "tag"), [("bio", "-PER"), ("bio", "BI-PER"), ("bioes", "IE-PER"), ("bioes", "-PER")]
)
def test_prefixes_are_single_letters(scheme, tag):
    """If it failed, tags without a prefix or with two would pass: a substring of the scheme's letters once
    counted as one.
    """
    with pytest.raises(
        CorpusError, match=rf"train\.txt:2: expected a tag O, B-<type>, .*I-<type>.*, found '{tag}'$"
    ):
        parsed(f"IMGID:1\na\t{tag}\n", Reading(scheme=scheme))


@pytest.mark.parametrize(
    "content",
    [b"IMGID:1\na\tB-LOC \n", b"IMGID:1\na\tB-LOC\r\r\n", b"IMGID:1\r\r\na\tB-LOC\n"],
    ids=["space after the type", "line end of CR CR LF", "line end of a post mark"],
)
def test_what_an_editor_left_at_a_lines_end_is_refused(content):
    """If it failed, `LOC ` would be a type beside `LOC`, or a post look for the picture of an id that ends in
    CR.
    """
    with pytest.raises(CorpusError, match=r"train\.txt:[12]: expected .*found '(B-LOC |B-LOC\\r|1\\r)'$"):
        parsed(content)


@each_unsafe_id
def test_ids_of_posts_that_are_no_file_names_are_refused(post_id):
    """If it failed, building a corpus could read or write files outside of its folders."""
    with pytest.raises(CorpusError, match=r"train\.txt:4: expected an id that is a plain file name, found "):
        parsed(f"IMGID:1\na\tO\n\nIMGID:{post_id}\nb\tO\n")


def test_a_tag_of_bioes_that_no_scheme_has_is_refused_without_a_hint():
    """If it failed, a user who has named the scheme already would be told to name it."""
    message = r"expected a tag O, B-<type>, I-<type>, E-<type>, S-<type>, found 'U-PER'$"
    with pytest.raises(CorpusError, match=message):
        parsed("IMGID:1\na\tU-PER\n", Reading(scheme="bioes"))


def test_posts_before_a_malformed_line_are_given(written):
    """If it failed, an error would come before the posts that stand before it, so that files were read
    twice.
    """
    posts = read_posts(written("IMGID:1\na\tO\n\nIMGID:2\nbad\n"))
    assert next(posts).id == "1"
    with pytest.raises(CorpusError, match=r"train\.txt:5: expected token<TAB>tag"):
        next(posts)


def test_missing_file_is_the_systems_error(tmp_path):
    """If it failed, a wrong path would look like an empty corpus."""
    with pytest.raises(FileNotFoundError, match=r"nothere\.txt"):
        list(read_posts(tmp_path / "nothere.txt"))


# Notes on what was read otherwise than it stands.


def notes_of(content: str | bytes, **settings: object) -> dict[str, int]:
    reading = Reading(**settings)
    parsed(content, reading)
    return dict(reading.notes)


@pytest.mark.parametrize("content", [IMGID, INDEXED], ids=["IMGID", "indexed"])
@pytest.mark.parametrize(
    ("changed", "settings", "notes"),
    [
        (lambda text: text, {}, {}),
        (
            lambda text: text,
            {"scheme": "bioes", "rename_types": {"OTHER": "MISC"}, "repair_orphans": True},
            {},
        ),
        (lambda text: "\ufeff" + text, {}, {"byte order mark left out": 1}),
        (lambda text: text.rstrip("\n"), {}, {"missing last line feed": 1}),
        (lambda text: text.replace("!\tO\n", "!\tO\r\n"), {}, {"line ends of CR LF read as LF": 1}),
        (
            lambda text: text.replace("LOC", "PLACE"),
            {"rename_types": {"PLACE": "LOC"}},
            {"tags renamed from PLACE to LOC": 1},
        ),
        (
            lambda text: text,
            {"rename_types": {"PER": "P", "LOC": "L"}},
            {"tags renamed from PER to P": 2, "tags renamed from LOC to L": 1},
        ),
        (lambda text: text.replace("B-", "I-"), {"scheme": "iob1"}, {"tags rewritten from IOB1 to BIO": 2}),
        (
            lambda text: text.replace("B-LOC", "S-LOC"),
            {"scheme": "bioes"},
            {"tags rewritten from BIOES to BIO": 1},
        ),
        (
            lambda text: text.replace("I-PER", "E-PER"),
            {"scheme": "bioes"},
            {"tags rewritten from BIOES to BIO": 1},
        ),
        (
            lambda text: text.replace("B-LOC", "I-LOC"),
            {"repair_orphans": True},
            {"orphan I- tags made B-": 1},
        ),
        (lambda text: text.replace("B-LOC", "I-LOC"), {}, {}),
    ],
    ids=[
        *["clean", "clean, nothing to do", "BOM", "no last line feed", "one CR LF", "renamed", "two renamed"],
        *["IOB1", "BIOES S-", "BIOES E-", "repaired", "orphan left as it is"],
    ],
)
def test_each_thing_read_otherwise_is_counted(content, changed, settings, notes):
    """If it failed, a corpus's card would be silent about a change, or name one that was not made."""
    assert notes_of(changed(content), **settings) == notes


@pytest.mark.parametrize(("content", "spaces"), [(IMGID, 4), (INDEXED, 8)], ids=["IMGID", "indexed"])
def test_each_space_read_as_a_tab_is_counted(content, spaces):
    """If it failed, a file without tabs would be taken for one in the released form."""
    assert notes_of(content.replace("\t", " ")) == {"spaces read as tabs": spaces}


@pytest.mark.parametrize(("content", "lines"), [(IMGID, 8), (INDEXED, 6)], ids=["IMGID", "indexed"])
def test_each_line_of_cr_lf_is_counted(content, lines):
    """If it failed, empty lines or post marks would be left out of the count of line ends."""
    assert notes_of(content.replace("\n", "\r\n")) == {"line ends of CR LF read as LF": lines}


def test_notes_of_several_files_add_up():
    """If it failed, the notes on one split's file would replace those on another's."""
    reading = Reading(repair_orphans=True, notes=Counter({"orphan I- tags made B-": 3}))
    parsed("IMGID:1\na\tI-X\nb\tI-Y\nc\tI-Y\n", reading)
    assert reading.notes == {"orphan I- tags made B-": 5}


@pytest.mark.parametrize(
    ("settings", "tags", "expected"),
    [
        ({}, "I-A B-A I-B O", "I-A B-A I-B O"),
        ({"scheme": "iob1"}, "I-A I-A B-A I-B O I-B", "B-A I-A B-A B-B O B-B"),
        ({"scheme": "bioes"}, "S-A B-A I-A E-A O E-A", "B-A B-A I-A I-A O I-A"),
        ({"scheme": "bioes", "repair_orphans": True}, "S-A B-A I-A E-A O E-A", "B-A B-A I-A I-A O B-A"),
        ({"rename_types": {"A": "B"}, "repair_orphans": True}, "B-B I-A I-C O I-A", "B-B I-B B-C O B-B"),
        ({"rename_types": {"A": "X"}}, "B-A B-AA I-A-A O", "B-X B-AA I-A-A O"),
    ],
    ids=[
        "as they stand",
        "IOB1",
        "BIOES",
        "BIOES repaired",
        "renamed before the repair",
        "whole types are renamed",
    ],
)
def test_tags_are_rewritten_in_order(settings, tags, expected):
    """If it failed, tags would be repaired before they are BIO or have their final types, and entities be cut
    in two.
    """
    assert Reading(**settings).bio_tags(tags.split()) == expected.split()


def test_types_can_be_swapped():
    """If it failed, renaming A to B and B to A would call all of them A: each tag is renamed once."""
    assert Reading(rename_types={"A": "B", "B": "A"}).bio_tags(["B-A", "I-A", "B-B", "O"]) == [
        "B-B",
        "I-B",
        "B-A",
        "O",
    ]


# Whatever a file may hold.

ODD_TOKENS = [
    "\u00a0",
    "\u0085",
    "\u2028",
    "\u2029",
    "\u200b",
    "\ufeff",
    "\x1c",
    "\x0b",
    "\0",
    "IMGID:",
    "👨‍👩‍👧‍👦",
    "🇫🇷",
    "O",
    "#",
]
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
    return (
        "\n".join(
            "".join(f"{number}\t{token}\t{tag}\n" for number, (token, tag) in enumerate(post))
            for post in posts
        )
        + "\n"
    )


each_format = pytest.mark.parametrize("as_text", [imgid_text, indexed_text], ids=["IMGID", "indexed"])


@each_format
@property_test
@given(posts=any_posts)
def test_what_is_written_is_read(tmp_path_factory, as_text, posts):
    """If it failed, tokens such as U+00A0, U+0085 or U+2028 would be stripped, split or taken for line
    ends.
    """
    path = tmp_path_factory.mktemp("written") / "train.txt"
    path.write_bytes(as_text(posts).encode())
    reading = Reading()
    assert [list(zip(post.tokens, post.tags, strict=True)) for post in read_posts(path, reading)] == posts
    assert reading.notes == {}


def with_crlf(text: str) -> tuple[str, dict[str, int]]:
    return text.replace("\n", "\r\n"), {"line ends of CR LF read as LF": text.count("\n")}


def with_mark(text: str) -> tuple[str, dict[str, int]]:
    return "\ufeff" + text, {"byte order mark left out": 1}


def without_last_line_feed(text: str) -> tuple[str, dict[str, int]]:
    return text.rstrip("\n"), {"missing last line feed": 1}


def with_spaces(text: str) -> tuple[str, dict[str, int]]:
    return text.replace("\t", " "), {"spaces read as tabs": text.count("\t")}


@each_format
@pytest.mark.parametrize("as_form", [with_crlf, with_mark, without_last_line_feed, with_spaces])
@property_test
@given(posts=any_posts)
def test_every_form_of_a_file_holds_the_same_posts(as_text, as_form: Callable, posts):
    """If it failed, some token would be read otherwise in a form, or the notes would not say how much of it
    there is.
    """
    plain = as_text(posts)
    if (
        as_form is with_spaces
    ):  # without tabs, a token that holds a space or looks like a mark cannot be told from its line
        keep = "".maketrans({" ": "_", "I": "i"})
        posts = [[(token.translate(keep), tag) for token, tag in post] for post in posts]
        plain = as_text(posts)
    reading = Reading()
    form, notes = as_form(plain)
    assert contents(form, reading) == contents(plain)
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
    assert find_splits(paths[0].parent) == dict(zip(("train", "validation", "test"), paths[:3], strict=True))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train.txt", "test.txt"],
            r"expected one validation file out of validation\.txt, .*dev\.conll; found none",
        ),
        (
            ["train.txt", "valid.txt", "dev.txt", "test.txt"],
            r"one validation file .*; found valid\.txt, dev\.txt",
        ),
        (
            ["train.txt", "train.conllu", "valid.txt", "test.txt"],
            r"one train file .*; found train\.txt, train\.conllu",
        ),
    ],
    ids=["missing", "two names", "two endings"],
)
def test_missing_and_doubtful_splits_are_refused(written, names, message):
    """If it failed, a model would be selected on a file that the user did not mean."""
    paths = [written("", name) for name in names]
    with pytest.raises(CorpusError, match=message):
        find_splits(paths[0].parent)


def test_missing_folder_is_refused(tmp_path):
    """If it failed, a wrong --data_dir would be reported as a missing file in it."""
    with pytest.raises(
        CorpusError, match=r"nothere: expected a folder with train, valid and test files, found no folder"
    ):
        find_splits(tmp_path / "nothere")


@pytest.mark.parametrize("post_id", ["1", "1.jpg", "a?b%20c&d=e", "é", " 7", "..x", "...", "x" * 240])
def test_picture_is_the_id_and_jpg(tmp_path, post_id):
    """If it failed, a post whose id ends in .jpg or holds odd characters would lose its picture."""
    (tmp_path / f"{post_id}.jpg").write_bytes(b"")
    assert find_picture(tmp_path, post_id) == tmp_path / f"{post_id}.jpg"


@pytest.mark.parametrize(
    "post_id", ["2", "1.jpg", "x" * 5000, "folder"], ids=["absent", "jpg once", "too long", "folder"]
)
def test_post_without_picture_file_has_none(tmp_path, post_id):
    """If it failed, another file would be taken for the picture, or a long id would end the run."""
    (tmp_path / "1.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    assert find_picture(tmp_path, post_id) is None


@each_unsafe_id
def test_ids_that_lead_out_of_the_folder_are_refused(tmp_path, post_id):
    """If it failed, a corpus file could make the program read any file of the user's."""
    with pytest.raises(
        CorpusError, match="expected an id that is a plain file name, found one that leads out of"
    ):
        find_picture(tmp_path / "images", post_id)
