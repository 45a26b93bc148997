"""Tests of the commands about corpora, as they are typed."""

import json
import warnings

import datasets
import pytest

from modeling_mmner.cli import main
from tests.built_corpora import POSTS, build_small, files_of, record_of, rows_of
from tests.small_corpora import write_mmner, write_pictures, write_posts


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


# build-dataset


def test_corpus_is_built(corpus, images, tmp_path, capsys):
    """If it failed, the README's command would build nothing, or not say what it built."""
    assert (
        run(
            "build-dataset",
            "conll",
            "--data_dir",
            corpus,
            "--image_dir",
            images,
            "--output_dir",
            tmp_path / "built",
        )
        == 0
    )
    assert [row["id"] for row in rows_of(tmp_path / "built", "train")] == ["1", "2", "3"]
    printed = capsys.readouterr().out
    assert (
        "default train: 3 posts, 6 tokens, {'LOC': 1, 'MISC': 0, 'PER': 1, 'ORG': 0}, pictures: 2 present, 1"
        " missing" in printed
    )
    assert f"load_dataset('{tmp_path / 'built'}') loads it" in printed


def test_notes_are_printed(corpus, tmp_path, capsys):
    """If it failed, whoever builds would not learn that a file was not read as it stands."""
    (corpus / "train.txt").write_bytes((corpus / "train.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert run("build-dataset", "conll", "--data_dir", corpus, "--output_dir", tmp_path / "built") == 0
    assert "default train: line ends of CR LF read as LF: 12\n" in capsys.readouterr().out


def test_configs_are_chosen_by_commas(tmp_path):
    """If it failed, --config would build other configs than the user listed."""
    root = write_mmner(
        tmp_path / "released", en=[("1", "so/O")], fr=[("2", "oui/O")], all_lang=[("1", "so/O")]
    )
    options = ["--data_dir", root, "--output_dir", tmp_path / "built", "--config", "fr,all"]
    assert run("build-dataset", "mmner", *options) == 0
    assert list(record_of(tmp_path / "built")["configs"]) == ["fr", "all"]


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ([], {}),
        (["--language", "de"], {"language": "de"}),
        (["--tag_scheme", "bioes"], {"tag_scheme": "bioes"}),
        (["--rename_types", "LOC=PLACE,PER=PERSON"], {"rename_types": {"LOC": "PLACE", "PER": "PERSON"}}),
        (["--repair_orphans"], {"repair_orphans": True}),
        (["--no_verify"], {"no_verify": True}),
        (["--split_slices", "train=val[:9]"], {"split_slices": {"train": "val[:9]"}}),
        (["--broken_pictures", "stop"], {"broken_pictures": "stop"}),
        (["--require_images"], {"require_images": True}),
        (["--license", "cc-by-4.0"], {"license": "cc-by-4.0"}),
        (["--image_dir", "a"], {"image_dir": "a"}),
        (["--overwrite"], {"overwrite": True}),
        (["--config", "en,fr"], {"configs": ["en", "fr"]}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_reach_the_builder_and_nothing_else_does(monkeypatch, options, given):
    """If it failed, an option would do nothing, or a default of the command would overrule one of the
    corpus.
    """
    calls = []
    stub = lambda *args, **kwargs: calls.append((args, kwargs)) or {"configs": {}}  # noqa: E731
    monkeypatch.setattr("dataset_scripts.builders.built_corpus.build_dataset", stub)
    assert run("build-dataset", "mmner", "--data_dir", "raw", "--output_dir", "built", *options) == 0
    assert calls == [(("mmner", "built"), {"configs": [], "overwrite": False, "data_dir": "raw"} | given)]


def test_options_of_reading_change_what_is_built(tmp_path):
    """If it failed, the options would be taken and passed over."""
    corpus = write_posts(
        tmp_path / "corpus",
        {split: [(split, "Paris/S-LOC so/E-ORG")] for split in ("train", "valid", "test")},
    )
    options = [
        "--tag_scheme",
        "bioes",
        "--rename_types",
        "LOC=PLACE",
        "--repair_orphans",
        "--language",
        "de",
        "--license",
        "mit",
    ]
    assert (
        run("build-dataset", "conll", "--data_dir", corpus, "--output_dir", tmp_path / "built", *options) == 0
    )
    record = record_of(tmp_path / "built")
    [row] = rows_of(tmp_path / "built", "train")
    assert ([record["labels"][tag] for tag in row["ner_tags"]], row["language"]) == (
        ["B-PLACE", "B-ORG"],
        "de",
    )
    assert record["license"] == "mit" and record["configs"]["default"]["version"].endswith(
        "+orphans-repaired"
    )


def test_other_copies_are_built_when_asked(corpus, tmp_path, capsys):
    """If it failed, --no_verify would still refuse another copy, or the check be lost without it."""
    options = ["--data_dir", corpus, "--output_dir", tmp_path / "built"]
    assert run("build-dataset", "twitter2017", *options) == 2
    assert "; --no_verify takes it as another version of the corpus" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="expected the official file"):
        assert run("build-dataset", "twitter2017", *options, "--no_verify") == 0


BAD_BUILDS = {
    "no split files": (["conll", "--data_dir", "{tmp}/empty"], "expected one train file out of"),
    "no folder": (
        ["conll", "--data_dir", "{tmp}/nothere"],
        "nothere: expected a folder or an archive (zip, tar), found nothing",
    ),
    "no data_dir": (
        ["twitter2015"],
        "twitter2015: expected data_dir, the folder with its train, valid and test files",
    ),
    "unknown config": (["mmner", "--data_dir", "{tmp}/corpus", "--config", "it"], "mmner: expected a config"),
    "files for the sample": (["sample", "--data_dir", "{tmp}/corpus"], "'sample': expected no --data_dir"),
    "taken folder": (
        ["conll", "--data_dir", "{tmp}/corpus", "--output_dir", "{tmp}/corpus"],
        "expected a new or an empty folder",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_BUILDS.values(), ids=BAD_BUILDS)
def test_what_cannot_be_built_is_named_in_a_line(corpus, tmp_path, capsys, arguments, message):
    """If it failed, a slip would end in a traceback, or in a status that a script takes for success."""
    (tmp_path / "empty").mkdir()
    before = files_of(tmp_path)
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    assert run("build-dataset", "--output_dir", tmp_path / "built", *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("build-dataset: ") and message in printed and printed.count("\n") == 1
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rename_types", "LOC"], "expected OLD=NEW,OLD=NEW, found 'LOC'"),
        (["--rename_types", "LOC="], "expected OLD=NEW,OLD=NEW, found 'LOC='"),
        (["--rename_types", "A=B,=C"], "expected OLD=NEW,OLD=NEW, found 'A=B,=C'"),
        (["--rename_types", "A=B=C"], "expected OLD=NEW,OLD=NEW, found 'A=B=C'"),
        (["--tag_scheme", "bilou"], "invalid choice: 'bilou'"),
        (["--broken_pictures", "drop"], "invalid choice: 'drop'"),
    ],
)
def test_wrong_option_is_named(tmp_path, capsys, options, message):
    """If it failed, a slip in an option would give other labels than the user meant."""
    with pytest.raises(SystemExit, match="2"):
        run("build-dataset", "conll", "--output_dir", tmp_path / "built", *options)
    assert message in capsys.readouterr().err


# inspect, overlap


def test_corpus_is_inspected(corpus, images, tmp_path, capsys):
    """If it failed, nobody could look at a corpus before using it."""
    options = ["--data_dir", corpus, "--image_dir", images, "--output_dir", tmp_path / "report", "--count", 2]
    assert run("inspect", "conll", *options) == 0
    assert set(files_of(tmp_path / "report")) == {"statistics.json", "statistics.png", "contact_sheet.html"}
    json.loads((tmp_path / "report" / "statistics.json").read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    assert "train" in printed and "validation" in printed


def test_built_data_set_is_inspected_without_writing(tmp_path, capsys):
    """If it failed, a built data set could not be looked at, or looking would leave files."""
    built = build_small(tmp_path)
    before = files_of(tmp_path)
    assert run("inspect", built) == 0
    assert "train" in capsys.readouterr().out and files_of(tmp_path) == before


def test_unknown_split_is_named(corpus, capsys):
    """If it failed, a contact sheet of a split that is not there would end in a traceback."""
    assert run("inspect", corpus, "--split", "dev") == 2
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
        assert (
            f"{command[0]}: dataset '{tmp_path / 'nothere'}', config None: expected one of sample"
            in capsys.readouterr().err
        )


# remove, export-imgid


def test_posts_are_removed(tmp_path, capsys):
    """If it failed, the command could not meet an author's request, or not say which posts it did not
    find.
    """
    built = build_small(tmp_path)
    (tmp_path / "ids.txt").write_text("1\n2\nnobody\n")
    assert run("remove", built, "--ids", tmp_path / "ids.txt") == 0
    printed = capsys.readouterr()
    assert f"{built}: took out 2 rows of 2 posts; counts and card are new\n" in printed.out
    assert printed.err.endswith("not found: nobody\n")
    assert [row["id"] for row in rows_of(built, "train")] == ["3"]


@pytest.mark.parametrize(
    ("folder", "ids", "message"),
    [
        ("built", b"nobody\n", r"expected posts with the ids ['nobody'], found none of them"),
        ("built", b"", "ids.txt: expected an id a line, found none"),
        ("corpus", b"1\n", "corpus: expected a data set made by build-dataset, found no corpus.json in it"),
    ],
)
def test_removal_that_is_not_possible_is_named(tmp_path, capsys, folder, ids, message):
    """If it failed, a request would be taken as met although nothing was removed."""
    build_small(tmp_path)
    (tmp_path / "ids.txt").write_bytes(ids)
    before = files_of(tmp_path)
    assert run("remove", tmp_path / folder, "--ids", tmp_path / "ids.txt") == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("remove: ") and message in printed
    assert files_of(tmp_path) == before


def test_corpus_is_exported(tmp_path, capsys):
    """If it failed, a data set could not be used with other programs, which read files."""
    built = build_small(tmp_path)
    assert run("export-imgid", built, "--output_dir", tmp_path / "exported") == 0
    assert (
        f"wrote train.txt, valid.txt, test.txt and images/ to {tmp_path / 'exported'}"
        in capsys.readouterr().out
    )
    assert (tmp_path / "exported" / "train.txt").read_bytes() == (
        tmp_path / "corpus" / "train.txt"
    ).read_bytes()
    assert run("export-imgid", built, "--output_dir", tmp_path / "exported") == 2
    assert (
        "export-imgid: " in (printed := capsys.readouterr().err)
        and "expected a new or an empty folder" in printed
    )


def test_config_of_a_built_data_set_is_exported(tmp_path):
    """If it failed, only the first config of a data set could be exported."""
    root = write_mmner(tmp_path / "released", en=[("1", "so/O")], fr=[("2", "oui/O")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (
            run(
                "build-dataset",
                "mmner",
                "--no_verify",
                "--data_dir",
                root,
                "--output_dir",
                tmp_path / "built",
            )
            == 0
        )
    assert (
        run("export-imgid", tmp_path / "built", "--config", "fr", "--output_dir", tmp_path / "exported") == 0
    )
    assert (tmp_path / "exported" / "train.txt").read_text() == "IMGID:2\noui\tO\n\n"
