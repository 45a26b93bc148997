"""Tests of the command `demo`: its refusals, and the folder for a Space, which runs with nothing but what it
says.
"""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import gradio
import pytest
import yaml
from huggingface_hub import metadata_load

from modeling_mmner.cli import main
from modeling_mmner.inference.demo_space import card_data, model_name, write_space
from tests.demo_parts import answer, free_port, marking_model, processor_of

ROOT = Path(__file__).parents[2]


def write_card(folder: Path, name: str) -> None:
    """The card of a model with a name and a licence."""
    metrics = [{"type": "f1", "value": 1}]
    result = {"task": {"type": "t"}, "dataset": {"type": "x", "name": "x"}, "metrics": metrics}
    front = {"license": "cc-by-4.0", "model-index": [{"name": name, "results": [result]}]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front)}---\n# A card\n")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A saved model with a card that has a name and a licence."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    marking_model().save_pretrained(folder)
    processor_of().save_pretrained(folder)
    write_card(folder, "tiny")
    return folder


def test_impossible_places_are_answered_in_one_line(saved, monkeypatch, capsys):
    """If it failed, a taken port, a device that is not there, or a missing extra would end in a traceback."""
    command = ["demo", "--model", str(saved)]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main([*command, "--port", port]) == 2
    expected = f"--port {port}: expected an address of this computer and a port that is free"
    assert expected in capsys.readouterr().err
    assert main([*command, "--device", "nowhere"]) == 2
    assert "device nowhere: expected one that this computer has" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "mcp.server.fastmcp", None)
        assert main([*command, "--port", str(free_port()), "--mcp"]) == 2
    assert "pip install 'mmner[mcp]'" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "modeling_mmner.inference.demo")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(command) == 2
    assert "pip install 'mmner[demo]'" in capsys.readouterr().err


def name_of(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement).group()


def front_matter(folder: Path) -> dict:
    return metadata_load(folder / "README.md")


def test_space_says_what_it_needs(saved, tmp_path, capsys):
    """If it failed, the Space would not build, or be shown under another licence or another Gradio."""
    folder = tmp_path / "space"
    assert main(["demo", "--model", str(saved), "--space", str(folder)]) == 0
    assert f"hf upload ORG/NAME {folder} --repo-type space" in capsys.readouterr().out
    front = front_matter(folder)
    assert (front["sdk"], front["sdk_version"], front["app_file"]) == ("gradio", gradio.__version__, "app.py")
    assert (front["license"], front["title"]) == ("cc-by-4.0", "Entities of posts: tiny")
    assert front["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert "models" not in front
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "app.py", "dataset_scripts", "model", "modeling_mmner", "requirements.txt",
    ]  # fmt: skip
    assert not list(folder.rglob("__pycache__"))


HOSTILE_NAME = (
    'x"""\nimport os\nos.system("touch PWNED")\n"""{name!r}\\\n---\nlicense:'
    " mit\n---\n<script>alert(1)</script>"
)


def test_a_model_s_name_is_never_code(saved, tmp_path):
    """Regression: a card whose model's name closes a docstring put its rest into app.py, which every
    visitor's Space runs.
    """
    model = shutil.copytree(saved, tmp_path / "model")
    write_card(model, HOSTILE_NAME)
    named = {"plain": saved, "hostile": model}
    plain, hostile = (write_space(str(one), tmp_path / name) for name, one in named.items())
    program, expected = ((folder / "app.py").read_text() for folder in (hostile, plain))
    assert ast.dump(ast.parse(program)) == ast.dump(ast.parse(expected)).replace("'tiny'", repr(HOSTILE_NAME))
    assert front_matter(hostile).keys() == front_matter(plain).keys()
    assert front_matter(hostile)["license"] == "cc-by-4.0"
    cards = [(folder / "README.md").read_text() for folder in (hostile, plain)]
    pages = [re.split(r"^---$", card, flags=re.MULTILINE)[2] for card in cards]
    assert "<script>" not in pages[0] and len(pages[0].splitlines()) == len(pages[1].splitlines())


def test_space_has_the_model_s_own_files_alone(saved, tmp_path):
    """Regression: what links in a model's folder led to, files and folders of whoever ran the command, was
    copied into the folder that they are told to upload.
    """
    private = tmp_path / "private"
    private.mkdir()
    (private / "key").write_text("SECRET")
    model = shutil.copytree(saved, tmp_path / "model")
    (model / "notes.txt").write_text("SECRET")
    (model / "vocab.txt").symlink_to(private / "key")
    (model / "data").symlink_to(private)
    folder = write_space(str(model), tmp_path / "space")
    expected = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert {path.name: path.read_bytes() for path in (folder / "model").iterdir()} == expected
    (model / "tokenizer_config.json").unlink()
    (model / "tokenizer_config.json").symlink_to(private / "key")
    with pytest.raises(
        ValueError, match=r"tokenizer_config\.json: expected a file of the folder .*, found none or"
    ):
        write_space(str(model), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_space_is_made_of_a_snapshot_of_the_hub(saved, tmp_path):
    """If it failed, a model that was downloaded, whose files are links to blobs, would make no Space."""
    repository = tmp_path / "models--org--name"
    model = shutil.copytree(saved, repository / "snapshots" / "0123")
    (repository / "blobs").mkdir()
    for path in model.iterdir():
        path.rename(repository / "blobs" / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    folder = write_space(str(model), tmp_path / "space")
    assert {path.name for path in (folder / "model").iterdir()} == {path.name for path in saved.iterdir()}
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_space_of_a_hub_model_holds_its_name_alone(tmp_path, monkeypatch):
    """If it failed, the Space would look for a folder that it does not have, or not be listed with its
    model.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = write_space("org/mlmner", tmp_path)
    assert front_matter(folder)["models"] == ["org/mlmner"]
    assert front_matter(folder)["license"] == "other"
    shown = '{"name": \'org/mlmner\', "hub_id": \'org/mlmner\', "examples": published_examples(model)}'
    assert f"model = 'org/mlmner'\nshown = {shown}\n" in (folder / "app.py").read_text()
    assert (
        "[https://huggingface.co/org/mlmner](https://huggingface.co/org/mlmner)"
        in (folder / "README.md").read_text()
    )
    assert not (folder / "model").exists()


def test_names_and_licences_are_those_of_the_card(saved, tmp_path):
    """If it failed, a page would call its model otherwise than its card does, or stop at one called 2024."""
    bare, numbered = tmp_path / "bare", shutil.copytree(saved, tmp_path / "numbered")
    bare.mkdir()
    card = (numbered / "README.md").read_text()
    (numbered / "README.md").write_text(card.replace("name: tiny", "name: 2024"))
    names = {str(saved): "tiny", str(bare): "bare", "org/x": "org/x", str(numbered): "2024"}
    assert {model: model_name(model) for model in names} == names
    assert (card_data(str(saved)).license, card_data(str(bare)).license) == ("cc-by-4.0", None)


def test_space_is_not_written_over_anything(saved, tmp_path):
    """If it failed, a mistyped folder would be filled with a Space, or a model copied into itself without
    end.
    """
    (tmp_path / "mine.txt").write_text("mine")
    for model, folder, said in (
        (saved, tmp_path, "expected a new or an empty folder"),
        (saved, saved / "space", "outside of the model's"),
        (tmp_path, tmp_path / "space", "with a config.json, found mine.txt"),
        ("no/such/folder", tmp_path / "space", "expected a file or folder that is there"),
    ):
        with pytest.raises((OSError, ValueError), match=said):
            write_space(str(model), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert not (saved / "space").exists()


@pytest.mark.slow
def test_space_serves_its_own_copy_with_its_own_requirements(saved, tmp_path):
    """If it failed, the Space would start here, where everything is installed, and nowhere else."""
    folder = write_space(str(saved), tmp_path / "space")
    copied = folder / "modeling_mmner" / "inference" / "demo.yaml"
    copied.write_text(copied.read_text().replace("# Named entities", "# COPIED: Named entities"))
    lines = (folder / "requirements.txt").read_text().splitlines()
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert lines[0] == f"gradio[mcp]=={gradio.__version__}"
    names = set(map(name_of, lines[1:]))
    assert names == {name_of(line) for line in requires("mmner") if "extra" not in line}
    assert {"torch", "transformers", "timm"} <= names & set(map(name_of, dependencies))

    port = free_port()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        assert "COPIED: Named entities" in answer(process, f"http://127.0.0.1:{port}/config", log)
    finally:
        process.terminate()
        process.wait(timeout=20)
