"""Tests of the command `mmner` as it is typed: what it lists, what it refuses, and what reaches the work."""

import re
from dataclasses import fields

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dataset_scripts.reading_options import ReadingOptions
from modeling_mmner import __version__
from modeling_mmner.cli import GROUPS, app, main
from modeling_mmner.training.recipes import recipe_names

COMMAND_LINE = get_command(app)


@pytest.fixture
def called(monkeypatch):
    """What `stand_in` has seen."""
    calls = []

    def stand_in(place: str, answer: object = None) -> list:
        monkeypatch.setattr(place, lambda *args, **kwargs: calls.append((args, kwargs)) or answer)
        return calls

    return stand_in


def test_every_command_has_help_for_every_option(capsys):
    """If it failed, nobody could find out what a command or one of its options does."""
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out.partition(next(iter(GROUPS)))[2]
    listed = re.findall(r"^  ([a-z-]+)  ", printed, flags=re.MULTILINE)
    assert listed == [command.__name__.replace("_", "-") for group in GROUPS.values() for command in group]
    for name, command in COMMAND_LINE.commands.items():
        assert main([name, "--help"]) == 0
        assert f"Usage: mmner {name}" in capsys.readouterr().out
        assert command.help and "Args:" not in command.help
        assert [option.name for option in command.params if not option.help] == [], name


def test_commands_stand_in_groups_and_the_version_is_told(capsys):
    """If it failed, commands would stand in no order, or nobody could say which version they have."""
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    headings = re.findall(r"^(\w.*):$", printed, flags=re.MULTILINE)
    assert headings == ["Options", "Use a trained model", "Train", "Data", "Publish"]
    assert re.search(r"^  train +Train a recipe; without one quickstart", printed, flags=re.MULTILINE)
    assert max(map(len, printed.splitlines())) <= 80
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"mmner {__version__}\n"


def test_help_lists_the_recipes_and_says_what_an_option_takes(capsys, monkeypatch):
    """If it failed, the default recipe, or what the others are, would be known to readers of source alone, or
    an option show another's word for text.
    """
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--help"]) == 0
    printed = capsys.readouterr().out
    listed = re.findall(r"^  ([\w-]+) {2,}\S", printed.partition("Options:")[0], flags=re.MULTILINE)
    assert listed == recipe_names()
    assert "[default: quickstart]" in " ".join(printed.split())
    assert "--follow_links / --no_follow_links" in printed and "[default: no_follow_links]" in " ".join(
        printed.split()
    )
    for name, command in COMMAND_LINE.commands.items():
        assert main([name, "--help"]) == 0
        kinds = set(re.findall(r"^  --\w+ (\S+)", capsys.readouterr().out, flags=re.MULTILINE))
        assert {kind for kind in kinds if re.fullmatch(r"<[^|]*>", kind)} == set(), (name, command)


def test_options_are_spelt_in_one_way():
    """If it failed, an option would be --output_dir in one command and --output-dir in another, or a switch
    be turned off in two ways.
    """
    for name, command in COMMAND_LINE.commands.items():
        for option in (option for option in command.params if option.param_type_name == "option"):
            *short, spelt = option.opts
            opposite = f"--{option.name.removeprefix('no_')}"
            if not option.name.startswith("no_"):
                opposite = f"--no_{option.name}"
            assert spelt == f"--{option.name}" and short in ([], ["-n"]), name
            assert option.secondary_opts == [opposite] * bool(option.is_flag), name


@pytest.mark.parametrize("name", ["inspect", "build", "export-imgid", "evaluate", "calibrate", "contexts"])
def test_commands_about_corpora_have_the_options_of_reading(name):
    """If it failed, a corpus could be opened in training and not be looked at, or not be built."""
    options = {option.name for option in COMMAND_LINE.commands[name].params}
    assert {item.name for item in fields(ReadingOptions)} <= options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspct"], "inspct: No such command 'inspct'. Did you mean 'inspect'?"),
        (["predict", "--modle", "x"], "predict: No such option: --modle (Possible options: --model"),
        (["train", "--lerning_rate=1"], "No such option: --lerning_rate (Possible options: --head_learning_"),
        (["--vershun"], "--vershun: No such option: --vershun"),
        (["predict"], "predict: Missing option '--model'."),
        (["demo", "--model=x", "--port=x"], "demo: Invalid value for '--port': Input should be a valid"),
        (["annotate", "--output_dir=x", "--tasks=0"], "annotate: Invalid value for '--tasks':"),
        (["annotate", "--output_dir=x", "--input=y"], "annotate: expected --model and --input, or --verify"),
        (["explain", "--words", "1"], "explain: No such option: --words"),
        (["build", "imdb", "--output_dir=x"], "build: dataset 'imdb': expected a file or folder"),
        (["build", "conll", "--output_dir=x", "--tag_scheme=a"], "'a' is not one of 'auto', 'bio', 'iob"),
        (["build", "conll", "--output_dir=x", "--rename_types=LOC"], "build: Invalid value for '--rename_ty"),
        (["reproduce", "table9"], "Invalid value for 'table': Value error, 'table9' is not one of"),
        (["reproduce", "table3", "--seed=2"], "reproduce: --seed: expected --seeds, the seeds of all rows"),
        (["train", "--recipe", "quickstrat"], "did you mean 'quickstart'?"),
        (["evaluate", "sample", "--model=x", "--context_file=y"], "evaluate: --context_file: expected --con"),
    ],
)
def test_mistakes_are_one_line_that_names_the_thing(capsys, arguments, message):
    """If it failed, a slip would end in a trace, or in a status that a script takes for success."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_shell_completes_commands_options_and_choices():
    """If it failed, a shell that has been told of `mmner` would complete nothing."""
    for typed, expected in (
        ("mmner insp", {"inspect"}),
        ("mmner push --dr", {"--dry_run"}),
        ("mmner predict --dtype fl", {"float32", "float16"}),
    ):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        done = CliRunner().invoke(app, prog_name="mmner", env={"_MMNER_COMPLETE": "complete_bash"} | words)
        assert set(done.output.split()) == expected


@pytest.mark.parametrize(
    ("arguments", "module", "package", "extra"),
    [
        (["demo"], "demo", "gradio", "demo"),
        (["export-onnx", "--output_dir", "out"], "onnx_export", "onnxscript", "onnx"),
    ],
)
def test_missing_extra_is_named(monkeypatch, capsys, arguments, module, package, extra):
    """If it failed, whoever has not installed an extra would see a trace, not what to install."""
    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.delitem(__import__("sys").modules, f"modeling_mmner.inference.{module}", raising=False)
    assert main([*arguments, "--model", "x"]) == 2
    needed = f"needs the package {package}, which is not installed; pip install 'mmner[{extra}]'"
    assert capsys.readouterr().err == f"{arguments[0]}: {needed}\n"


def test_settings_reach_training_and_tables(called):
    """If it failed, an option would not be the run's setting, or a default overrule the recipe's."""
    import train_accelerate

    calls = called("train_accelerate.run", 0)
    assert main(["train", "--recipe", "mlmner", "--epochs", "3", "--no_use_images"]) == 0
    [((recipe,), _)] = calls
    assert (recipe.name, recipe.training.epochs, recipe.corpus.use_images) == ("mlmner", 3, False)
    calls.clear()
    called("modeling_mmner.training.reproduce.reproduce", 1)
    options = ["--seeds=1,2", "--epochs=3", "--output_dir=here"]
    assert main(["reproduce", "table3", *options]) == 1
    [((table,), options)] = calls
    assert (table, options["seeds"], options["settings"]) == ("table3", [1, 2], {"epochs": 3})
    assert (str(options["folder"]), options["keep_models"]) == ("here", False)
    assert options["train"] is train_accelerate.train


def test_options_reach_the_annotation(called):
    """If it failed, an option of `annotate` would be taken and passed over."""
    from modeling_mmner.inference.annotate import Outcome

    places = ["annotate", "--model", "m", "--input", "i", "--output_dir", "o"]
    for name in ("Annotator", "open_posts", "AnnotateStep"):
        called(f"modeling_mmner.inference.annotate.{name}")
    calls = called("modeling_mmner.inference.annotate.annotate", Outcome(flaws=["one"]))
    options = ["--threshold", "0.5", "--tasks", "3", "--columns", "text=body,image=photo"]
    assert main([*places, *options]) == 1
    assert calls == [
        (("m",), {"threshold": 0.5}),
        (("i",), {"columns": {"text": "body", "image": "photo"}}),
        ((None, None, "o"), {}),
        ((None,), {"tasks": 3}),
    ]
    calls.clear()
    called("modeling_mmner.inference.annotate.verify", Outcome())
    assert main(["annotate", "--verify", "--output_dir", "o"]) == 0
    assert calls == [(("o",), {})]
