"""What commands print: a terminal obeys control characters, so what others wrote has none there."""

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from transformers.utils import logging as transformers_logging

from modeling_mmner.cli import main
from modeling_mmner.escaping import printable, say
from modeling_mmner.files import json_line
from tests.tiny import parts_of

ROOT = Path(__file__).parents[1]
CLEAR, TITLE, C1 = "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m\x85\x7f"
HOSTILE = f"Jordan{CLEAR}{TITLE}{C1}"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LABELS = [
    "O",
    *(f"{prefix}-{kind}" for kind in (f"P{CLEAR}", f"L{C1.replace(chr(0x85), '')}") for prefix in "BI"),
]


@pytest.fixture(autouse=True)
def without_bars() -> Iterator[None]:
    """Without transformers' bars, which move the cursor where a test before has left one open."""
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.enable_progress_bar()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A model with hostile labels, which finds them in random words."""
    path = tmp_path_factory.mktemp("model")
    parts = parts_of({}, posts=[["Jordan", "posts"]], seed=1)
    parts[0].config.id2label, parts[1].labels = dict(enumerate(LABELS)), LABELS
    for part in parts:
        part.save_pretrained(path)
    return str(path)


def assert_harmless(capfd, *, holds: str) -> None:
    """Check that neither stream has a control character, and that the escaped text is there."""
    out, err = capfd.readouterr()
    assert not CONTROL.findall(out + err), out + err
    assert holds in out + err, out + err


def test_control_characters_are_shown() -> None:
    """If it failed, one would reach the terminal, or another text be changed."""
    assert printable(f"a{CLEAR}\r\n\tb{C1}é\u2028") == "a\\x1b[2J\\x0d\n\tb\\x9b31m\\x85\\x7fé\u2028"
    assert printable(ValueError("plain: ßéñ 🙂")) == "plain: ßéñ 🙂"


def test_json_lines_hold_what_they_held() -> None:
    """If it failed, an escaped text would be another, or a C1 character, which JSON allows, stay as it is."""
    record = {"text": HOSTILE, HOSTILE: "ß🙂"}
    assert json.loads(json_line(record)) == record and not CONTROL.search(json_line(record))
    assert json_line({"text": "ß🙂é"}) == '{"text": "ß🙂é"}'


def test_predict_prints_no_control_characters(model, tmp_path, capfd) -> None:
    """Regression: labels and texts of strangers could clear the screen or rename the window."""
    assert main(["predict", "--model", model, "--text", HOSTILE, "--device", "cpu"]) == 0
    out, _ = capfd.readouterr()
    assert json.loads(out)["text"] == HOSTILE and not CONTROL.search(out.rstrip("\n"))
    lines = tmp_path / "posts.jsonl"
    posts = [{"text": "Jordan", "image": f"{HOSTILE}.png"}, {HOSTILE: 1}]
    lines.write_text("\n".join(map(json.dumps, posts)), encoding="utf-8")
    assert main(["predict", "--model", model, "--input", str(lines), "--device", "cpu"]) == 1
    assert_harmless(capfd, holds="Jordan\\x1b[2J")


def test_explain_prints_no_control_characters(model, tmp_path, capfd) -> None:
    """Regression: words and labels went to the terminal as they are."""
    Image.linear_gradient("L").save(tmp_path / "a.png")
    given = [
        "--text",
        f"{HOSTILE} posts",
        "--image",
        str(tmp_path / "a.png"),
        "--output_dir",
        str(tmp_path / "o"),
    ]
    assert main(["explain", "--model", model, *given]) == 0
    assert_harmless(capfd, holds="L\\x9b31m\\x7f")


@pytest.mark.parametrize("command", ["inspect", "evaluate"])
def test_corpora_print_no_control_characters(model, tmp_path, capfd, command) -> None:
    """Regression: so did what stands in a corpus of strangers."""
    posts = [
        {"id": f"{number}{CLEAR}", "tokens": [HOSTILE, str(number)], "ner_tags": [LABELS[1], "O"]}
        for number in range(30)
    ]
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, posts)), encoding="utf-8")
    given = ["--model", model, "--device", "cpu"] if command == "evaluate" else ["--split", "test"]
    assert main([command, str(folder), *given]) == 0
    assert_harmless(capfd, holds="corpus" if command == "evaluate" else "P [2J")


def test_errors_and_warnings_have_no_control_characters(capfd, monkeypatch) -> None:
    """If it failed, the name of a file would be enough."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert main(["predict", "--model", f"none{CLEAR}", "--text", "a"]) == 2
    assert_harmless(capfd, holds="none\\x1b[2J")
    logging.getLogger("modeling_mmner.model.prediction_mmner").warning("post %d: %s", 1, HOSTILE)
    assert_harmless(capfd, holds="post 1: Jordan\\x1b[2J")
    say(HOSTILE)
    assert_harmless(capfd, holds="Jordan\\x1b[2J")


def test_all_commands_print_by_one_function() -> None:
    """If it failed, a new line of a command could print what strangers wrote as it is."""
    files = [
        ROOT / "train_accelerate.py",
        *(ROOT / "modeling_mmner").rglob("*.py"),
        *(ROOT / "dataset_scripts").rglob("*.py"),
    ]
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.add((path.name, ast.unparse(node.args[0])))
    json_alone = {
        ("models.py", "json_line(record)"),
        ("corpora.py", "json.dumps(overlap_matrix(open_corpus(of), other), indent=2)"),
    }
    assert found == json_alone | {("escaping.py", "printable(text)")}
