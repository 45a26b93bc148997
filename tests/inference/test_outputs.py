"""What commands write: never over what they read, whole or not at all, in any encoding of the terminal."""

import io
import json
import os
from pathlib import Path

import pytest

from modeling_mmner.cli import main
from tests.built_corpora import POSTS as CORPUS
from tests.small_corpora import write_posts
from tests.small_posts import small_parts
from tests.tiny import SYSTEMS

POSTS = "\n".join(
    map(json.dumps, [{"id": "a", "text": "Zoë 😍 in Paris"}, {"id": "b", "text": "Jordan \ud83d"}])
).encode()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    for part in small_parts(**SYSTEMS["bilstm"]):
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def posts(tmp_path, monkeypatch) -> Path:
    """Posts in the working folder, which have other names, too."""
    path = tmp_path / "posts.jsonl"
    path.write_bytes(POSTS)
    (tmp_path / "link.jsonl").symlink_to(path)
    (tmp_path / "hard.jsonl").hardlink_to(path)
    monkeypatch.chdir(tmp_path)
    return path


def in_bytes(monkeypatch, encoding: str) -> io.BytesIO:
    """What is printed, by an interpreter whose standard output has that encoding."""
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding, write_through=True))
    return printed


@pytest.mark.parametrize(
    "name", ["posts.jsonl", "./posts.jsonl", "../{}/posts.jsonl", "link.jsonl", "hard.jsonl"]
)
def test_predict_does_not_write_over_its_posts(posts, capsys, name) -> None:
    """If it failed, the posts would be gone, and the status say that all is well."""
    name = name.format(posts.parent.name)
    assert main(["predict", "--model=none", "--input=posts.jsonl", f"--output={name}"]) == 2
    said = (
        f"predict: {name}: expected another place to write to than what is read, found that it is posts.jsonl"
    )
    assert capsys.readouterr().err == f"{said}; name another\n"
    assert posts.read_bytes() == POSTS


def test_predict_does_not_write_over_what_it_reads_unnamed(posts, model, capfd) -> None:
    """If it failed, posts that come by standard input, a picture, or a file of the model would be lost, or
    a file grow without end by what is read from it.
    """
    open_posts, kept = os.open(posts, os.O_RDWR | os.O_APPEND), (os.dup(0), os.dup(1))
    try:
        os.dup2(open_posts, 0)
        assert main(["predict", "--model=none", "--output=posts.jsonl"]) == 2
        os.dup2(kept[0], 0)
        os.dup2(open_posts, 1)
        assert main(["predict", "--model=none", "--input=link.jsonl"]) == 2
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
    config = Path(model, "config.json").read_bytes()
    assert main(["predict", "--model", model, "--text=a", "--output", f"{model}/config.json"]) == 2
    assert main(["predict", "--model=none", "--text=a", "--image=hard.jsonl", "--output=posts.jsonl"]) == 2
    found = [line.partition(", found that it is ")[2] for line in capfd.readouterr().err.splitlines()]
    places = ["/dev/stdin", "link.jsonl", f"{model}/config.json", "hard.jsonl"]
    assert found == [f"{place}; name another" for place in places]
    assert (posts.read_bytes(), Path(model, "config.json").read_bytes()) == (POSTS, config)


def test_predict_writes_beside_and_renames(posts, model, monkeypatch, capsys) -> None:
    """If it failed, a run that ends early would leave half a file in the place of a whole one, a link become
    a file, or a device be replaced by one.
    """
    Path("old.jsonl").write_text("what was there")
    Path("link_to_old").symlink_to("old.jsonl")
    options = ["--model", model, "--device=cpu", "--input=posts.jsonl"]
    with monkeypatch.context() as patch:
        patch.setattr("modeling_mmner.files.json_line", lambda record: [][record["id"] == "b"])
        with pytest.raises(IndexError):
            main(["predict", *options, "--output=old.jsonl"])
    assert Path("old.jsonl").read_text() == "what was there"
    for name in ("link_to_old", os.devnull):
        assert main(["predict", *options, "--output", name]) == 0
    assert [json.loads(line)["id"] for line in Path("old.jsonl").read_text().splitlines()] == ["a", "b"]
    assert Path("link_to_old").is_symlink() and not Path(os.devnull).is_file()
    assert not list(Path().glob("*.partial"))
    capsys.readouterr()
    assert main(["predict", *options, "--output=nowhere/new.jsonl"]) == 2
    expected = "predict: nowhere/new.jsonl: expected a file in a folder that exists; make the folder\n"
    assert capsys.readouterr().err.endswith(expected)


def test_explain_does_not_draw_over_its_picture(posts, capsys) -> None:
    """If it failed, the picture of a post would be replaced by a drawing of it."""
    Path("1_Jordan.png").write_bytes(b"a picture")
    said = "explain: 1_Jordan.png: expected another place to write to than what is read, found that it is "
    for picture in ("1_Jordan.png", "link.png"):
        Path("link.png").unlink(missing_ok=True)
        Path("link.png").symlink_to("1_Jordan.png")
        assert main(["explain", "--model=none", "--text=Jordan", f"--image={picture}", "--output_dir=."]) == 2
        assert capsys.readouterr().err == f"{said}{picture}; name another\n"
    assert Path("1_Jordan.png").read_bytes() == b"a picture"


def test_commands_about_corpora_do_not_write_over_them(posts, tmp_path, capsys) -> None:
    """If it failed, a corpus would be replaced by what is said of it, or its only line be cut off."""
    line = b'{"id": "a", "tokens": ["Paris"], "ner_tags": ["B-LOC"]}'
    for name in ("statistics.json", "alone.jsonl"):
        (tmp_path / name).write_bytes(line)
    (tmp_path / "corpus").mkdir()
    for arguments in (
        ["inspect", "statistics.json", "--output_dir=."],
        ["inspect", "corpus", "--output_dir=../{}/corpus"],
        ["contexts", "alone.jsonl", "--reader=none", "--output_file=alone.jsonl"],
    ):
        assert main([one.format(tmp_path.name) for one in arguments]) == 2
        assert "expected another place to write to than what is read" in capsys.readouterr().err
    assert (tmp_path / "statistics.json").read_bytes() == (tmp_path / "alone.jsonl").read_bytes() == line


def test_a_data_set_that_is_read_is_not_replaced(tmp_path, capsys) -> None:
    """If it failed, --overwrite would delete the raw files that lie in the folder it replaces."""
    write_posts(tmp_path / "raw", CORPUS)
    built = tmp_path / "built"
    assert main(["build", "conll", "--data_dir", str(tmp_path / "raw"), "--output_dir", str(built)]) == 0
    (tmp_path / "raw").rename(built / "raw")
    raw = sorted(path for path in built.rglob("*") if path.is_file())
    arguments = ["--data_dir", str(built / "raw"), "--output_dir", str(built), "--overwrite"]
    assert main(["build", "conll", *arguments]) == 2
    expected = "expected a folder beside what is read, for all in it is replaced"
    assert f"build: {built}: {expected}, found {built / 'raw'} in it; name another" in capsys.readouterr().err
    assert sorted(path for path in built.rglob("*") if path.is_file()) == raw


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_encoding_prints_every_post(posts, model, monkeypatch, encoding) -> None:
    """If it failed, one emoji would end the command, and the posts behind it never be read."""
    printed = in_bytes(monkeypatch, encoding)
    assert main(["predict", "--model", model, "--device=cpu", "--input=posts.jsonl"]) == 0
    found = [json.loads(line) for line in printed.getvalue().decode(encoding).splitlines()]
    assert [one["text"] for one in found] == ["Zoë 😍 in Paris", "Jordan \ud83d"]


def test_any_encoding_prints_what_is_said_of_a_corpus(tmp_path, monkeypatch) -> None:
    """If it failed, the name of a type would end the command where the terminal cannot show it."""
    rows = [{"id": name, "tokens": [name], "ner_tags": ["B-😍"]} for name in "abcdefghij"]
    (tmp_path / "posts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    printed = in_bytes(monkeypatch, "ascii")
    assert main(["inspect", str(tmp_path / "posts.jsonl")]) == 0
    assert rb"\ud83d\ude0d" in printed.getvalue()
