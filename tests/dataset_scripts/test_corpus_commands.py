"""Tests of the commands about corpora, as they are typed."""

import json
import warnings

import datasets
import pytest

from modeling_mmner.cli import main
from tests.built_corpora import POSTS, build_small, files_of, record_of, rows_of
from tests.small_corpora import write_mmner, write_pictures, write_posts
from tests.tool_exports import json_lines


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """`datasets` keeps what it loads in a folder of the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def corpus(tmp_path):
    return write_posts(tmp_path / "corpus", POSTS)


@pytest.fixture
def images(tmp_path):
    return write_pictures(tmp_path / "images")


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


# build


def test_corpus_is_built(corpus, images, tmp_path, capsys):
    """If it failed, the README's command would build nothing, or not say what it built, and how it read
    it.
    """
    (corpus / "train.txt").write_bytes((corpus / "train.txt").read_bytes().replace(b"\n", b"\r\n"))
    built = tmp_path / "built"
    assert run("build", "conll", "--data_dir", corpus, "--image_dir", images, "--output_dir", built) == 0
    assert [row["id"] for row in rows_of(built, "train")] == ["1", "2", "3"]
    printed = capsys.readouterr().out
    counts = "3 posts, 6 tokens, {'LOC': 1, 'MISC': 0, 'PER': 1, 'ORG': 0}, pictures: 2 present, 1 missing"
    assert f"default train: {counts}" in printed
    assert "default train: line ends of CR LF read as LF: 12\n" in printed
    assert f"load_dataset('{built}') loads it" in printed


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ("", {}),
        ("--language de --tag_scheme bioes", {"language": "de", "tag_scheme": "bioes"}),
        ("--tag_scheme bio", {"tag_scheme": "bio"}),
        ("--rename_types LOC=PLACE,PER=PERSON", {"rename_types": {"LOC": "PLACE", "PER": "PERSON"}}),
        ("--repair_orphans --no_verify", {"repair_orphans": True, "no_verify": True}),
        ("--split_slices train=val[:9]", {"split_slices": {"train": "val[:9]"}}),
        ("--license cc-by-4.0 --image_dir a", {"license": "cc-by-4.0", "image_dir": "a"}),
        ("--overwrite --config en,fr", {"overwrite": True, "configs": ["en", "fr"]}),
    ],
)
def test_options_reach_the_builder_and_nothing_else_does(monkeypatch, options, given):
    """If it failed, an option would do nothing, or a default of the command would overrule one of the
    corpus.
    """
    calls = []
    stub = lambda *args, **kwargs: calls.append((args, kwargs)) or {"configs": {}}  # noqa: E731
    monkeypatch.setattr("dataset_scripts.builders.built_corpus.build_dataset", stub)
    assert run("build", "mmner", "--data_dir", "raw", "--output_dir", "built", *options.split()) == 0
    assert calls == [(("mmner", "built"), {"configs": [], "overwrite": False, "data_dir": "raw"} | given)]


BAD_BUILDS = {
    "no split files": ("conll --data_dir {tmp}/empty", "expected one train file out of"),
    "no folder": ("conll --data_dir {tmp}/nothere", "nothere: expected a folder"),
    "no data_dir": ("twitter2015", "twitter2015: expected data_dir, the folder with its train, valid and"),
    "unknown config": ("mmner --data_dir {tmp}/corpus --config it", "mmner: expected a config"),
    "files for the sample": ("sample --data_dir {tmp}/corpus", "'sample': expected no --data_dir"),
    "taken folder": ("conll --data_dir {tmp}/corpus --output_dir {tmp}/corpus", "expected a new or an empty"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_BUILDS.values(), ids=BAD_BUILDS)
def test_what_cannot_be_built_is_named_in_a_line(corpus, tmp_path, capsys, arguments, message):
    """If it failed, a slip would end in a traceback, or in a status that a script takes for success."""
    (tmp_path / "empty").mkdir()
    before = files_of(tmp_path)
    assert run("build", "--output_dir", tmp_path / "built", *arguments.format(tmp=tmp_path).split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("build: ") and message in printed and printed.count("\n") == 1
    assert files_of(tmp_path) == before


# inspect, overlap


def test_corpus_is_inspected(corpus, images, tmp_path, capsys):
    """If it failed, nobody could look at a corpus before using it."""
    options = ["--data_dir", corpus, "--image_dir", images, "--output_dir", tmp_path / "report", "--count", 2]
    assert run("inspect", "conll", *options) == 0
    assert set(files_of(tmp_path / "report")) == {"statistics.json", "contact_sheet.html"}
    json.loads((tmp_path / "report" / "statistics.json").read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    assert "train" in printed and "validation" in printed


def test_spans_left_out_are_written(tmp_path):
    """If it failed, nobody could find the spans in a tool's export that are no whole words."""
    span = {"start": 0, "end": 6, "label": "PER"}
    posts = [{"text": f"Jordan {n}", "spans": [span, span | {"end": 5}]} for n in range(20)]
    path = json_lines(tmp_path / "posts.jsonl", posts)
    assert run("inspect", path, "--output_dir", tmp_path / "report") == 1
    lines = (tmp_path / "report" / "spans_left_out.jsonl").read_text(encoding="utf-8").splitlines()
    place = {"place": "posts.jsonl:1", "start": 0, "end": 5, "label": "PER", "text": "Jorda"}
    assert len(lines) == 20
    assert json.loads(lines[0]) == place | {"reason": "ends one character before a word does", "detail": ""}


def test_built_data_set_is_inspected_without_writing(tmp_path, capsys):
    """If it failed, a built data set could not be looked at, or looking would leave files; or a split that is
    not there would end in a traceback.
    """
    built = build_small(tmp_path)
    before = files_of(tmp_path)
    assert run("inspect", built) == 0
    assert "train" in capsys.readouterr().out and files_of(tmp_path) == before
    assert run("inspect", built, "--split", "dev") == 2
    assert "inspect: --split: expected one of train, validation, test, found 'dev'" in capsys.readouterr().err


def test_overlap_is_json(corpus, tmp_path, capsys):
    """If it failed, a script could not read what the command found."""
    other = write_posts(tmp_path / "other", POSTS | {"test": [("1", "Paris/B-LOC is/O Zqvorn/I-LOC")]})
    for arguments in ([corpus], [corpus, other]):
        assert run("overlap", *arguments) == 0
        assert json.loads(capsys.readouterr().out)


def test_corpus_that_is_not_there_is_named(tmp_path, capsys, monkeypatch):
    """If it failed, a mistyped corpus would end in a traceback."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for command in (["inspect"], ["overlap"], ["export-imgid", "--output_dir", tmp_path / "exported"]):
        assert run(*command, tmp_path / "nothere") == 2
        message = f"{command[0]}: dataset '{tmp_path / 'nothere'}': expected a file or folder that is there"
        assert message in capsys.readouterr().err


# export-imgid


def test_corpus_is_exported(tmp_path, capsys):
    """If it failed, a data set could not be used with other programs, which read files."""
    built, exported = build_small(tmp_path), tmp_path / "exported"
    assert run("export-imgid", built, "--output_dir", exported) == 0
    assert f"wrote train.txt, valid.txt, test.txt and images/ to {exported}" in capsys.readouterr().out
    assert (exported / "train.txt").read_bytes() == (tmp_path / "corpus" / "train.txt").read_bytes()
    assert run("export-imgid", built, "--output_dir", exported) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("export-imgid: ") and "expected a new or an empty folder" in printed


def test_configs_are_chosen(tmp_path):
    """If it failed, --config would build other configs than the user listed, or only the first could be
    exported.
    """
    root, built = tmp_path / "released", tmp_path / "built"
    write_mmner(root, en=[("1", "so/O")], fr=[("2", "oui/O")], all_lang=[("1", "so/O")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run("build", "mmner", "--data_dir", root, "--output_dir", built, "--config", "fr,all") == 0
    assert list(record_of(built)["configs"]) == ["fr", "all"]
    for name, text in (("fr", "IMGID:2\noui\tO\n\n"), ("all", "IMGID:1\nso\tO\n\n")):
        assert run("export-imgid", built, "--config", name, "--output_dir", tmp_path / name) == 0
        assert (tmp_path / name / "train.txt").read_text() == text
