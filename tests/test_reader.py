"""Tests of the reader of tagged posts: both formats, what real files hold, and errors with file and line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.conll import CorpusError, find_picture, find_splits, read_posts
from tests.shared_data import property_test

IMGID = "IMGID:1\nParis\tB-LOC\n!\tO\n\nIMGID:2\nJordan\tB-PER\nHenderson\tI-PER\n\n"
INDEXED = "0\tParis\tB-LOC\n1\t!\tO\n\n0\tJordan\tB-PER\n1\tHenderson\tI-PER\n\n"
POSTS = [(["Paris", "!"], ["B-LOC", "O"]), (["Jordan", "Henderson"], ["B-PER", "I-PER"])]


@pytest.fixture
def written(tmp_path):
    """A function that writes a file of text or bytes and gives its path."""

    def write(content, name="train.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


def contents(path):
    return [(post.tokens, post.tags) for post in read_posts(path)]


@pytest.mark.parametrize(
    "content",
    [
        IMGID,
        INDEXED,
        IMGID.rstrip("\n"),
        INDEXED.rstrip("\n"),
        IMGID.replace("\n", "\r\n"),
        INDEXED.replace("\n", "\r\n"),
        "\ufeff" + IMGID,
        "\ufeff" + INDEXED,
        "\n\n" + IMGID.replace("\n\n", "\n\n\n"),
        "\n\n" + INDEXED.replace("\n\n", "\n\n\n"),
        IMGID.replace("\n\n", "\n"),
    ],
    ids=[
        *["IMGID", "indexed", "IMGID, no last line feed", "indexed, no last line feed", "IMGID, CRLF", "indexed, CRLF"],
        *["IMGID, BOM", "indexed, BOM", "IMGID, more empty lines", "indexed, more empty lines", "IMGID, no empty lines"],
    ],
)
def test_forms_of_one_corpus_hold_the_same_posts(written, content):
    """If it failed, an editor's line ends, mark or missing line end would change or lose posts."""
    assert contents(written(content)) == POSTS


def test_posts_know_their_id_and_line(written):
    """If it failed, predictions could not be matched to posts, or errors would name another line."""
    assert [(post.id, post.line) for post in read_posts(written(IMGID))] == [("1", 1), ("2", 5)]
    assert [(post.id, post.line) for post in read_posts(written(INDEXED, "val.conllu"))] == [("val-1", 1), ("val-2", 4)]


field_text = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1, max_size=4)
any_post = st.lists(st.tuples(field_text, st.sampled_from(["O", "B-PER", "I-PER", "B-x-y"])), min_size=1, max_size=4)


@property_test
@given(st.lists(any_post, min_size=1, max_size=4))
def test_what_is_written_is_read(tmp_path_factory, posts):
    """If it failed, tokens such as U+00A0, U+0085 or U+2028 would be stripped, split or taken for line ends."""
    folder = tmp_path_factory.mktemp("written")
    expected = [([token for token, _ in post], [tag for _, tag in post]) for post in posts]
    blocks = ["\n".join(f"{token}\t{tag}" for token, tag in post) for post in posts]
    (folder / "ids.txt").write_bytes("".join(f"IMGID:{n}\n{block}\n\n" for n, block in enumerate(blocks)).encode())
    indexed = "\n\n".join("\n".join(f"{n}\t{token}\t{tag}" for n, (token, tag) in enumerate(post)) for post in posts)
    (folder / "indexed.txt").write_bytes(indexed.encode())
    assert contents(folder / "ids.txt") == expected
    assert contents(folder / "indexed.txt") == expected


@pytest.mark.parametrize("post_id", ["17_06_1.jpg", "a?b%20c&d=e", " 7 ", "é", "IMGID:1", "x" * 248])
def test_ids_are_taken_as_they_stand(written, post_id):
    """If it failed, a post would lose its picture because its id was cleaned up."""
    [post] = read_posts(written(f"IMGID:{post_id}\na\tO\n"))
    assert post.id == post_id


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"IMGID:1\na\xff\tO\n", r"train\.txt: expected UTF-8, found a byte that is none at offset 9"),
        ("a\tO\nIMGID:1\nb\tO\n", r"train\.txt:1: expected a line IMGID:<id> before the first token, found 'a\\tO'"),
        ("IMGID:1\na O\n", r"train\.txt:2: expected token<TAB>tag, found 1 fields in 'a O'"),
        ("IMGID:1\na\tb\tO\n", r"train\.txt:2: expected token<TAB>tag, found 3 fields"),
        ("0\ta\tO\n1\tb\n", r"train\.txt:2: expected index<TAB>token<TAB>tag, found 2 fields in '1\\tb'"),
        ("IMGID:1\na\tO\nb\tPER\n", r"train\.txt:3: expected a tag O, B-<type> or I-<type>, found 'PER'"),
        ("IMGID:1\na\tS-PER\n", r"train\.txt:2: .* found 'S-PER'"),
        ("IMGID:1\na\tB-\n", r"train\.txt:2: .* found 'B-'"),
        ("IMGID:1\na\tO \n", r"train\.txt:2: .* found 'O '"),
        ("IMGID:1\n\nIMGID:2\na\tO\n", r"train\.txt:1: expected tokens after IMGID:1, found none"),
        ("IMGID:1\na\tO\n\nIMGID:2\n", r"train\.txt:4: expected tokens after IMGID:2, found none"),
        ("IMGID:1\na\tO\n\nIMGID:1\nb\tO\n", r"train\.txt:4: expected each id once, found '1' on line 1 too"),
        ("", r"train\.txt: expected at least one post, found none"),
        ("\n\n", r"train\.txt: expected at least one post, found none"),
    ],
    ids=[
        *["not UTF-8", "token before the first id", "no tab", "too many fields", "too few fields", "tag without prefix"],
        *["another scheme", "no type", "space after the tag", "post without tokens", "last post without tokens"],
        *["id twice", "empty file", "only empty lines"],
    ],
)
def test_malformed_files_say_where(written, content, message):
    """If it failed, a user would have to search a file of 50,000 lines, or train on a part of it unnoticed."""
    with pytest.raises(CorpusError, match=message):
        list(read_posts(written(content)))


def test_missing_file_is_the_systems_error(tmp_path):
    """If it failed, a wrong path would look like an empty corpus."""
    with pytest.raises(FileNotFoundError, match=r"nothere\.txt"):
        list(read_posts(tmp_path / "nothere.txt"))


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("train.txt", "dev.txt", "test.txt"),
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
        (["train.txt", "test.txt"], r"expected one validation file out of valid\.txt, .*dev\.conll; found none"),
        (["train.txt", "valid.txt", "dev.txt", "test.txt"], r"one validation file .*; found valid\.txt, dev\.txt"),
        (["train.txt", "train.conllu", "valid.txt", "test.txt"], r"one train file .*; found train\.txt, train\.conllu"),
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
    with pytest.raises(CorpusError, match=r"nothere: expected a folder with train, valid and test files, found no folder"):
        find_splits(tmp_path / "nothere")


@pytest.mark.parametrize("post_id", ["1", "1.jpg", "a?b%20c&d=e", "é", " 7", "..x", "x" * 240])
def test_picture_is_the_id_and_jpg(tmp_path, post_id):
    """If it failed, a post whose id ends in .jpg or holds odd characters would lose its picture."""
    (tmp_path / f"{post_id}.jpg").write_bytes(b"")
    assert find_picture(tmp_path, post_id) == tmp_path / f"{post_id}.jpg"


@pytest.mark.parametrize("post_id", ["2", "1.jpg", "x" * 5000, "folder"], ids=["absent", "jpg once", "too long", "folder"])
def test_post_without_picture_file_has_none(tmp_path, post_id):
    """If it failed, another file would be taken for the picture, or a long id would end the run."""
    (tmp_path / "1.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    assert find_picture(tmp_path, post_id) is None


@pytest.mark.parametrize("post_id", ["../1", "/etc/1", "a/b", "..\\1", "a\0", ".", ".."])
def test_ids_that_lead_out_of_the_folder_are_refused(tmp_path, post_id):
    """If it failed, a corpus file could make the program read any file of the user's."""
    with pytest.raises(CorpusError, match="expected an id that is a plain file name, found one that leads out of"):
        find_picture(tmp_path / "images", post_id)
