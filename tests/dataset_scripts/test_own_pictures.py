"""Tests of pictures of own posts: by the paths that tools write, missing, broken, doubtful, and shared."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from dataset_scripts.formats.pictures import PictureFiles
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.opening import Corpus, open_corpus
from dataset_scripts.reading_options import ReadingOptions
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.recipes import CorpusSettings
from tests.tool_exports import json_lines

UUID = "123e4567-e89b-12d3-a456-426614174000"


def picture_file(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), shade).save(path, format="PNG")
    return path


def corpus_of(folder: Path, names: list[str | None], **options: str) -> Corpus:
    """A corpus of a post for each picture's name."""
    posts = [
        {"tokens": ["Jordan", f"w{n}"], "ner_tags": ["B-PER", "O"], "image": name}
        for n, name in enumerate(names)
    ]
    return open_corpus(str(json_lines(folder / "posts.jsonl", posts)), **options)


def found_in(folder: Path, given: str, **options: str) -> object:
    """The file that a name leads to, from the folder on, or what is said of it."""
    picture = PictureFiles(folder, ReadingOptions(**options)).picture(given)
    if isinstance(picture, dict):
        return Path(picture["path"]).relative_to(folder).as_posix()
    return picture.what.removeprefix("pictures left out: "), picture.examples[0]


@pytest.mark.parametrize(
    ("file", "given"),
    [
        ("a.jpg", r"images\a.jpg"),
        ("a.jpg", r"C:\Users\me\a.jpg"),
        ("sub/a.jpg", r"C:\Users\me\sub\a.jpg"),
        ("a.jpg", "/data/local-files/?d=a.jpg"),
        ("sub/a b.jpg", "/data/local-files/?d=me/sub%2Fa%20b.jpg"),
        ("a b.jpg", "/data/upload/1/a%20b.jpg"),
        ("a%20b.jpg", "a%20b.jpg"),
        ("a.jpg", "file:///home/me/a.jpg"),
        ("a b.jpg", "file:///C:/me/a%20b.jpg"),
        ("a.jpg", "s3://bucket/sub/a.jpg"),
        ("a.jpg", "/media/a.jpg?token=1"),
        ("p000.jpg", "ab12cd34-p000.jpg"),
        ("p000.jpg", "/data/upload/3/ab12cd34-p000.jpg"),
        ("p000.jpg", f"/media/{UUID}_p000.jpg"),
        ("ab12cd34-p000.jpg", "ab12cd34-p000.jpg"),
        ("a.JPG", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        (unicodedata.normalize("NFD", "Zürich.jpg"), unicodedata.normalize("NFC", "Zürich.jpg")),
        (unicodedata.normalize("NFC", "Zürich.jpg"), unicodedata.normalize("NFD", "Zürich.jpg")),
    ],
)
def test_pictures_are_found_by_the_paths_of_tools(tmp_path, file, given):
    """Regression: of these only a path's last name behind slashes was looked for, and all pictures lost."""
    picture_file(tmp_path / file)
    assert found_in(tmp_path, given) == file


def test_which_file_is_meant(tmp_path):
    """If it failed, a picture would be another post's, or a name that fits two files be guessed."""
    for name in ("a.jpg", "x/a.jpg", "y/a.jpg", "B.JPG", "b.Jpg", "p.jpg", "ab12cd34-p.jpg"):
        picture_file(tmp_path / name)
    assert found_in(tmp_path, "/me/x/a.jpg") == "x/a.jpg"
    assert found_in(tmp_path, "/me/z/a.jpg") == "a.jpg"
    assert found_in(tmp_path, "/me/ab12cd34-p.jpg") == "ab12cd34-p.jpg"
    assert found_in(tmp_path, "b.Jpg") == "b.Jpg"
    names = f"b.jpg: {tmp_path / 'B.JPG'}, {tmp_path / 'b.Jpg'}"
    assert found_in(tmp_path, "b.jpg") == ("several files could be meant", names)


@pytest.mark.parametrize(
    "given",
    [
        *("../secret.png", r"..\secret.png", "x/../../secret.png", "%2e%2e/secret.png", "link.png"),
        *("/data/local-files/?d=../secret.png", "LINK.png", "file://../secret.png", "out/secret.png"),
        *("http://[", "a\0b", "/" * 100_000, "\ud800.png", "x" * 5000, "?d=", "..", "."),
    ],
)
def test_no_spelling_leads_out_of_the_folder(tmp_path, given):
    """If it failed, a stranger's file of posts could put any file of the computer into a corpus."""
    folder = tmp_path / "data"
    folder.mkdir()
    picture_file(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "out").symlink_to(tmp_path)
    what, _ = found_in(folder, given)
    assert what in ("no such file", "links or paths out of the folder", "addresses on the web")


def test_missing_pictures_are_said_with_names_and_places(tmp_path):
    """Regression: that all pictures were missing was one line at the end, with no name and no place."""
    (tmp_path / "pictures").mkdir()
    picture_file(tmp_path / "p0.jpg")
    corpus = corpus_of(tmp_path, [f"p{n}.jpg" for n in range(30)], image_dir=str(tmp_path / "pictures"))
    found, _ = corpus.findings.sorted()  # and the scheme of the tags
    assert (found.what, found.number, found.lost) == ("pictures left out: no such file", 29, True)
    place = f"posts.jsonl:2: p1.jpg, looked in {tmp_path / 'pictures'} and {tmp_path}"
    assert found.examples[0] == place
    report = ["posts: pictures left out: no such file: 29; --image_dir FOLDER, where the files are"]
    assert corpus.findings.lines(f"{corpus.name}: ")[:2] == [*report, f"- {place}"]


def test_training_without_any_picture_is_refused(tmp_path):
    """Regression: a run said "finished" after it had lost all pictures."""
    corpus_of(tmp_path, [f"p{n}.jpg" for n in range(30)])
    settings = CorpusSettings(dataset=str(tmp_path / "posts.jsonl"))
    with pytest.raises(CorpusError, match=r"expected pictures .* found none, .*--no_use_images trains"):
        load_corpus(settings)
    settings.use_images = False
    assert len(load_corpus(settings).splits["train"]) == 24


def test_image_folder_that_is_not_there_is_refused(tmp_path):
    """Regression: ``--image_dir /nope`` was taken, and every picture lost."""
    with pytest.raises(CorpusError, match=r"--image_dir .*nope: expected a folder .*, found none"):
        corpus_of(tmp_path, [None] * 30, image_dir=str(tmp_path / "nope"))


def test_a_picture_of_all_posts_leaves_the_splits(tmp_path):
    """Regression: a logo made one group of the corpus, and no split was possible."""
    picture_file(tmp_path / "logo.png")
    for n in range(20):
        picture_file(tmp_path / f"p{n}.png", n + 1)
    posts = [
        {"tokens": ["Jordan", f"w{n}"], "ner_tags": ["B-PER", "O"], "images": ["logo.png", f"p{n // 2}.png"]}
        for n in range(40)
    ]
    corpus = open_corpus(str(json_lines(tmp_path / "posts.jsonl", posts)))
    assert {split: len(rows) for split, rows in corpus.splits.items()} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }
    owners = [{Path(row["images"][1]["path"]).name for row in rows} for rows in corpus.splits.values()]
    assert sum(map(len, owners)) == 20  # the other pictures keep their posts together
    found = next(one for one in corpus.findings.sorted() if one.what.startswith("pictures"))
    assert found.what == "pictures in several splits, for they join many posts" and not found.lost
    assert found.examples == [f"{tmp_path / 'logo.png'} joins 40 of 40 posts"]
    assert found.remedy == "a column 'split' says where each post belongs"


def test_pictures_stay_together_where_texts_are_to_blame(tmp_path):
    """If it failed, a picture would be trained and tested on, and no split be the better for it."""
    picture_file(tmp_path / "a.png")
    posts = [{"tokens": ["Jordan", f"w{max(n - 17, 0)}"], "ner_tags": ["B-PER", "O"]} for n in range(20)]
    posts[0]["image"] = posts[1]["image"] = "a.png"
    path = json_lines(tmp_path / "posts.jsonl", posts)
    corpus = open_corpus(str(path), split_ratio="50,40,10")
    assert [len(rows) for rows in corpus.splits.values()] == [18, 1, 1]
    assert not [what for what in corpus.findings.numbers() if "pictures" in what]


def test_a_picture_of_many_posts_is_said(tmp_path):
    """If it failed, nobody would know that a picture is trained and tested on."""
    picture_file(tmp_path / "lima.png")
    corpus = corpus_of(tmp_path, ["lima.png" if n % 2 else None for n in range(40)])
    assert [len(rows) for rows in corpus.splits.values()] == [32, 4, 4]
    found = next(one for one in corpus.findings.sorted() if one.what.startswith("pictures"))
    assert found.what == "pictures in several splits, for they join many posts"
    assert found.examples == [f"{tmp_path / 'lima.png'} joins 20 of 40 posts"]


def test_few_texts_make_all_splits_or_say_what_to_do(tmp_path):
    """Regression: six posts of six texts went into no three splits."""
    assert [len(rows) for rows in corpus_of(tmp_path, [None] * 6).splits.values()] == [4, 1, 1]
    with pytest.raises(CorpusError, match="there are 2 posts, 2 where the same text counts once"):
        corpus_of(tmp_path, [None] * 2)


def test_doubtful_things_are_said(tmp_path):
    """If it failed, ids that repeat stand for two posts, or pictures in a column of another name be
    lost, and nobody know.
    """
    picture_file(tmp_path / "p.png")
    posts = [{"id": n % 29, "tokens": [f"w{n}"], "ner_tags": ["B-X"]} for n in range(30)]
    posts[2] |= {"photo": "p.png"}
    corpus = open_corpus(str(json_lines(tmp_path / "posts.jsonl", posts)))
    found = {one.what: (one.examples, one.remedy, one.lost) for one in corpus.findings.sorted()}
    assert found.pop("names of pictures in the column 'photo', not read") == (
        *(["posts.jsonl:3: p.png"], "--columns image=photo", True),
    )
    assert found["ids that an earlier post has"][0] == ["posts.jsonl:30: '0', also posts.jsonl:1"]
    assert not any(lost for _, _, lost in found.values())


def test_pictures_of_imgid_files_that_are_missing_are_said(tmp_path):
    """Regression: a folder of IMGID files without its pictures was read without a word."""
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text(f"IMGID:{split}\nJordan\tB-PER\n", encoding="utf-8")
    picture_file(tmp_path / "images" / "train.jpg")
    first, *_ = (corpus := open_corpus(str(tmp_path))).findings.sorted()
    assert (first.what, first.number, first.lost) == ("pictures left out: no such file", 2, True)
    place = f"{tmp_path / 'valid.txt'}:1: valid.jpg, looked in {tmp_path / 'images'}"
    assert first.examples[0] == place and corpus.splits["train"][0]["image"]
    (tmp_path / "images").rename(tmp_path / "photos")  # not named: nobody may want pictures
    first = next(one for one in open_corpus(str(tmp_path)).findings.sorted() if "pictures" in one.what)
    assert (first.number, first.lost) == (3, False) and "train.jpg, looked in no folder" in first.examples[0]
