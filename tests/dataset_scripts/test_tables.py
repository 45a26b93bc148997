"""Tests of files as people have them: delimiters, names of columns, rows of words, CoNLL's columns, numbers
as tags, and scripts without spaces.
"""

from pathlib import Path

import datasets
import pytest

from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.opening import Corpus, open_corpus
from tests.tool_exports import json_lines

SPREAD = {"split_ratio": "50,25,25"}


def written(folder: Path, name: str, posts: list[str], *, between: str = "", before: str = "") -> str:
    """A file of posts that stand one below the other."""
    (folder / name).write_text(before + between.join(posts), encoding="utf-8", newline="")
    return str(folder / name)


def posts_of(corpus: Corpus) -> list[tuple[list[str], list[str]]]:
    """Words and tags of all posts, in the order of their second words."""
    rows = [row for rows in corpus.splits.values() for row in rows]
    found = [(row["tokens"], [corpus.labels[tag] for tag in row["ner_tags"]]) for row in rows]
    return sorted(found, key=lambda post: post[0][1])


NUMBERS = [str(number) for number in range(10, 20)]
EXPECTED = [(["Lima", number, '"'], ["B-LOC", "O", "O"]) for number in NUMBERS]

TABLES = {
    "semicolons": (
        "a.csv",
        "tokens;ner_tags\n",
        '"Lima {} """;B-LOC O O\n',
        "",
        "tables read with semicolons",
    ),
    "tabs in .csv": ("a.csv", "tokens\tner_tags\n", 'Lima {} "\tB-LOC O O\n', "", "tables read with tabs"),
    "usual names": (
        *("a.csv", "Sentence,Labels\n", '"Lima {} """,B-LOC O O\n', ""),
        "columns taken by their usual names",
    ),
    "lists": (
        *("a.csv", "words,tags\n", "\"['Lima', '{}', '\"\"']\",\"['B-LOC', 'O', 'O']\"\n", ""),
        "columns taken by their usual names",
    ),
    "a word a row, numbered": (
        *("a.csv", "Sentence #,Word,POS,Tag\n"),
        *('Sentence: {0},Lima,NN,B-LOC\n,{0},CD,O\n,"""",X,O\n', "", "tables read with a word in each row"),
    ),
    "a word a row, blank lines": (
        *("a.csv", "word;label\n", 'Lima;B-LOC\n{};O\n"""";O\n', "\n", "tables read with a word in each row"),
    ),
    "a word a row, empty cells": (
        *("a.csv", "token,tag\n", 'Lima,B-LOC\n{},O\n"""",O\n', ",\n", "tables read with a word in each row"),
    ),
    "a word a row, tabs and a bare quote": (
        *("a.tsv", "word\ttag\n", 'Lima\tB-LOC\n{}\tO\n"\tO\n', "\n", "tables read with a word in each row"),
    ),
    "tabs without headings": ("a.tsv", "", 'Lima\tB-LOC\n{}\tO\n"\tO\n', "\n", "tags read as BIO"),
    "CoNLL-2003": (
        *("a.conll", "-DOCSTART- -X- -X- O\n\n", 'Lima NNP B-NP B-LOC\n{} CD I-NP O\n" " O O\n', "\n"),
        "files of 4 columns, of which token is 1 and tag 4",
    ),
    "aligned by spaces": ("a.txt", "", 'Lima   B-LOC\n{}     O\n"      O\n', "\n", "spaces read as tabs"),
    "MultiCoNER": (
        *("a.conll", "", '# id 7 domain=en\nLima _ _ B-LOC\n{} _ _ O\n" _ _ O\n', "\n"),
        "comments and -DOCSTART- lines left out",
    ),
    "indexed": ("a.bio", "", '1\tLima\tB-LOC\n2\t{}\tO\n3\t"\tO\n', "\n", "tags read as BIO"),
    "IMGID alone": ("a.txt", "", 'IMGID:{0}\nLima\tB-LOC\n{0}\tO\n"\tO\n', "\n", "tags read as BIO"),
    "IOB1": ("a.conll", "", 'Lima I-LOC\n{} O\n" O\n', "\n", "tags read as IOB1"),
    "bare types": ("a.conll", "", 'Lima LOC\n{} O\n" O\n', "\n", "tags read as BARE (no prefixes)"),
    "BILOU in lower case": ("a.conll", "", 'Lima u-LOC\n{} o\n" o\n', "\n", "tags read as BILOU (10 U-)"),
}


@pytest.mark.parametrize(("name", "before", "post", "between", "said"), TABLES.values(), ids=TABLES)
def test_files_are_read_as_they_are_and_it_is_said(tmp_path, name, before, post, between, said):
    """If it failed, somebody would have to convert a file, or the words behind a quote be lost unsaid."""
    path = written(
        tmp_path, name, [post.format(number) for number in NUMBERS], between=between, before=before
    )
    corpus = open_corpus(path, **SPREAD)
    assert posts_of(corpus) == EXPECTED
    assert any(what.startswith(said) for what in corpus.findings.numbers()), corpus.findings.numbers()


def test_the_whole_option_is_said_and_gives_the_same(tmp_path):
    """If it failed, nobody could write down how a file was understood, or correct it."""
    records = [
        {"sentence": f"Lima {number}", "labels": ["B-LOC", "O"], "photo": "a.jpg"} for number in range(9)
    ]
    path = str(json_lines(tmp_path / "a.jsonl", records))
    corpus = open_corpus(path, **SPREAD)
    [remedy] = [one.remedy for one in corpus.findings.sorted() if one.what.startswith("columns")]
    assert remedy == "as by --columns tokens=sentence,ner_tags=labels,image=photo"
    columns = dict(pair.split("=") for pair in remedy.split()[-1].split(","))
    assert open_corpus(path, columns=columns, **SPREAD).version == corpus.version
    assert {"sentence", "labels", "photo"}.isdisjoint(corpus.splits["train"].features)


@pytest.mark.parametrize(
    "record",
    [
        {"text": "Lima", "label": ["good"], "spans": [{"start": 0, "end": 4, "label": "LOC"}]},
        {"text": "Lima 7", "labels": [[0, 4, "LOC"]]},
        {"tokens": ["Lima", "7"], "ner_tags": ["B-LOC", "O"], "labels": ["x", "y"], "filename": "page.txt"},
    ],
)
def test_columns_that_are_called_as_ours_stay(tmp_path, record):
    """If it failed, a text's class would be taken for its tags, or a file's name for a picture's."""
    records = [record | {"id": str(number)} for number in range(8)] + [
        {"tokens": [f"x{number}"], "ner_tags": ["O"]} for number in range(8)
    ]
    corpus = open_corpus(str(json_lines(tmp_path / "a.jsonl", records)), **SPREAD)
    assert "columns taken by their usual names" not in corpus.findings.numbers()
    assert corpus.labels == ["O", "B-LOC", "I-LOC"]


@pytest.mark.parametrize("quotes", ["", '"'])
def test_text_that_begins_with_a_quote_swallows_no_row(tmp_path, quotes):
    """Regression: in a TSV all rows up to the next quote became one post."""
    path, spans = tmp_path / "posts.TSV", '[{"start": 1, "end": 5, "label": "LOC"}]'
    cell = spans.replace('"', quotes * 2 or '"')
    rows = [f'"Lima, {n}\t{quotes}{cell}{quotes}\n' for n in range(20)]
    path.write_text("text\tspans\n" + "".join(rows))
    posts = [row["tokens"] for rows in open_corpus(str(path)).splits.values() for row in rows]
    assert sorted(posts) == sorted(['"', "Lima", ",", str(n)] for n in range(20))


@pytest.mark.parametrize("name", ["posts.ndjson", "posts.json", "POSTS.JSONL"])
def test_json_lines_are_read_by_whatever_name(tmp_path, name):
    """If it failed, a file would be refused for its name alone."""
    json_lines(tmp_path / name, [{"tokens": [f"Lima{n}"], "ner_tags": ["B-LOC"]} for n in range(9)])
    assert sum(map(len, open_corpus(str(tmp_path / name)).splits.values())) == 9


def test_line_for_excel_before_the_headings_is_no_heading(tmp_path):
    """If it failed, a table that Excel has written would have no columns."""
    (tmp_path / "a.csv").write_text("sep=;\ntokens;ner_tags\n" + "".join(f"a {n};B-X O\n" for n in range(9)))
    assert sum(map(len, open_corpus(str(tmp_path / "a.csv")).splits.values())) == 9


def test_what_is_no_file_of_posts_is_answered_by_what_makes_it_one(tmp_path):
    """If it failed, somebody would not know what to do with a sheet or a folder of `save_to_disk`."""
    (tmp_path / "posts.xlsx").write_bytes(b"PK")
    with pytest.raises(CorpusError, match="save a sheet as CSV UTF-8"):
        open_corpus(str(tmp_path / "posts.xlsx"))
    datasets.Dataset.from_list([{"text": "a"}]).save_to_disk(tmp_path / "saved")
    with pytest.raises(CorpusError, match=r"`save_to_disk` has written; .*to_parquet"):
        open_corpus(str(tmp_path / "saved"))


def test_row_without_its_word_is_said(tmp_path):
    """If it failed, a table whose writer made an empty cell of a word would lose it, or be cut there."""
    path = written(tmp_path, "a.csv", ["Lima,B-LOC\n", "Lima,B-LOC\n,O\n"], before="word,tag\n", between="\n")
    with pytest.raises(CorpusError, match=r"row 4: expected a word and its tag, found .*'tag': 'O'"):
        open_corpus(path)


def test_columns_of_files_are_chosen_by_their_numbers(tmp_path):
    """If it failed, nested tags, as GermEval's, in the last column would be the only ones to be read."""
    posts = [f"1\tLima\tB-LOC\tO\n2\t{number}\tO\tB-X\n" for number in range(10)]
    path = written(tmp_path, "a.conll", posts, between="\n")
    corpus = open_corpus(path, columns={"ner_tags": "3"}, **SPREAD)
    assert corpus.labels[1:] == ["B-LOC", "I-LOC"]
    with pytest.raises(CorpusError, match=r"a\.conll:1: expected --columns tokens=1,ner_tags=4 or other num"):
        open_corpus(path, columns={"ner_tags": "5"})


@pytest.mark.parametrize("tags", [[1, 0, 2], "1 0 2"])
def test_tags_that_are_numbers_need_their_names(tmp_path, tags):
    """If it failed, ids would be types of their own, or the error a riddle."""
    records = [{"tokens": ["Lima", str(number), "Jo"], "ner_tags": tags} for number in range(10)]
    path = str(json_lines(tmp_path / "a.jsonl", records))
    with pytest.raises(
        CorpusError, match=r"a\.jsonl:1: expected tags by their names, found '?1'?; --tag_name"
    ):
        open_corpus(path)
    corpus = open_corpus(path, tag_names=["O", "B-LOC", "B-PER"], **SPREAD)
    assert posts_of(corpus)[0][1] == ["B-LOC", "O", "B-PER"]


def test_split_files_are_detected_together_and_an_option_overrides(tmp_path):
    """If it failed, a small test split could be read in another scheme than the training split."""
    posts = ["Lima I-LOC\nPeru I-LOC\nJo O\n", "Lima I-LOC\nPeru B-LOC\nJo O\n", "Lima I-LOC\nPeru O\nJo O\n"]
    for name, post in zip(("train", "valid", "test"), posts, strict=True):
        written(tmp_path, f"{name}.txt", [post])
    corpus = open_corpus(str(tmp_path))
    assert [tags for _, tags in posts_of(corpus)] == [["B-LOC", "I-LOC", "O"], ["B-LOC", "B-LOC", "O"]] + [
        ["B-LOC", "O", "O"]
    ]
    assert corpus.findings.numbers()["tags read as IOB1 (0 entities begin with B-, 3 with I-)"] == 5
    kept = open_corpus(str(tmp_path), tag_scheme="bio")
    assert posts_of(kept)[0][1] == ["I-LOC", "I-LOC", "O"]
    assert not [what for what in kept.findings.numbers() if what.startswith("tags read")]


def test_official_corpora_stay_in_bio(tmp_path):
    """If it failed, a corpus whose counts are published could be read otherwise than it was counted."""
    for name in ("train", "valid", "test"):
        written(tmp_path, f"{name}.txt", ["IMGID:1\nLima\tI-LOC\nJo\tO\n"])
    with pytest.warns(UserWarning, match="expected the official file"):
        corpus = open_corpus("twitter2017", data_dir=tmp_path, no_verify=True)
    assert posts_of(corpus)[0][1] == ["I-LOC", "O"]


CHINESE = "我在北京看雨{}"


def test_spans_in_a_script_without_spaces(tmp_path):
    """Regression: a Chinese sentence was one word, all of its spans were left out, and nothing said why."""
    records = [{"text": CHINESE.format(number), "spans": [[2, 4, "LOC"]]} for number in range(10)]
    path = str(json_lines(tmp_path / "a.jsonl", records))
    with pytest.raises(
        CorpusError, match="cuts words of a script without spaces: 10; --word_rule characters ma"
    ):
        open_corpus(path)
    corpus = open_corpus(path, word_rule="characters", **SPREAD)
    assert not corpus.findings.numbers() and not corpus.left_out
    assert corpus.splits["train"][0]["tokens"][:6] == ["我", "在", "北", "京", "看", "雨"]
    assert posts_of(corpus)[0][1][:5] == ["O", "O", "B-LOC", "I-LOC", "O"]


@pytest.mark.parametrize("is_raw", [True, False])
def test_words_of_single_characters_are_said(tmp_path, is_raw):
    """If it failed, a model would be trained on characters and then be shown whole sentences as words."""
    posts = ["".join(f"{word} O\n" for word in f"北京雨{n}") + "秘 B-LOC\n" for n in range(12)]
    if is_raw:
        for name in ("train", "valid", "test"):
            written(tmp_path, f"{name}.txt", posts, between="\n")
    path = str(tmp_path) if is_raw else written(tmp_path, "a.conll", posts, between="\n")
    for options, number in (({}, 36 if is_raw else 12), ({"word_rule": "characters"}, None)):
        corpus = open_corpus(path, **options)
        what = "posts whose words are single characters of a script without spaces"
        assert corpus.findings.numbers().get(what) == number
