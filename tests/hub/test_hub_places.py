"""A model that was pushed to the Hub, in each place where people use it by its id alone: the Space, its tool
for agents, the command line, spaCy, onnxruntime, and the card's widget.

Each place is a process that begins with an empty cache, and must find what the model's folder says here. How
the Auto classes, the pipelines, endpoints and data sets do stands in `test_hub_http.py`.
"""

import ast
import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gradio_client import Client, handle_file
from huggingface_hub import metadata_load
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from modeling_mmner import load
from modeling_mmner.hub.push import save_hub_folder
from tests.demo_parts import answer, free_port
from tests.elsewhere import TEXTS, clean_environment, run_elsewhere, small_system
from tests.hub.served import ROOT, Hub, serving
from tests.small_metrics import run_metrics
from tests.small_posts import assert_same

pytestmark = pytest.mark.slow  # a process or two for each place, which loads all that the place needs
SYSTEMS = ("mlmner", "2m-ner")
each_system = pytest.mark.parametrize("system", SYSTEMS)
PACKAGE = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"  # before what is installed of it
COMMANDS = """
import json
from modeling_mmner.cli import main
for command in sys.argv[1:]:
    assert main(json.loads(command)) == 0, command
"""
NO_TOKEN = {"HF_TOKEN": "", "HF_HUB_DISABLE_IMPLICIT_TOKEN": 1}


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[Hub]:
    """A Hub to which `push` has brought models with two posts, as private repositories, and nothing else."""
    folder = tmp_path_factory.mktemp("hub")
    with serving(folder) as hub:
        posts: list[dict[str, Any]] = [{"text": TEXTS[0], "image": "picture.png"}, {"text": TEXTS[1]}]
        (folder / "posts.jsonl").write_text("\n".join(map(json.dumps, posts)))
        for system in SYSTEMS:
            save_hub_folder(*small_system(system), folder=folder / system, metrics=run_metrics())
        pushed = [f"push --model {one} --repo_id org/{one} --card_examples posts.jsonl" for one in SYSTEMS]
        run(hub, COMMANDS, *map(words, pushed), folder=folder)
        yield hub


def words(command: str) -> str:
    return json.dumps(command.split())


def run(hub: Hub, script: str, *arguments: object, folder: Path, **environment: Any) -> Any:
    """Run a script in a process of its own that has the package and the Hub."""
    environment = hub.environment() | environment
    return run_elsewhere(PACKAGE + script, *arguments, folder=folder, blocked=(), **environment)


def expected(hub: Hub, system: str, picture: Path | None = None, **options: Any) -> list[list[dict]]:
    """What the folder that was pushed says here of `TEXTS`, the first of which has a picture."""
    posts = [{"text": TEXTS[0], "image": picture or hub.picture}, {"text": TEXTS[1]}]
    found = load(str(hub.folder / system))(posts, **options)
    alone = load(str(hub.folder / system))([post["text"] for post in posts])
    assert all(found) and found[0] != alone[0], "expected entities on which the picture has an effect"
    return found


# The Space and its tool for agents.


class Space(NamedTuple):
    folder: Path
    address: str
    config: str


@contextmanager
def started(hub: Hub, folder: Path, **environment: Any) -> Iterator[tuple[subprocess.Popen, str, Path]]:
    """The program of a Space, by its own copy of the code: the process, its address and what it prints."""
    port, log = free_port(), folder.parent / "log.txt"
    environment = hub.environment() | {"HF_HOME": folder.parent / "home"} | environment
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": port}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=folder,
            env=clean_environment(**environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, f"http://127.0.0.1:{port}/", log
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def space(hub, tmp_path_factory) -> Iterator[Space]:
    """The Space that `demo` writes of a model of the Hub, as it is served."""
    place = tmp_path_factory.mktemp("space")
    run(hub, COMMANDS, words("demo --model org/mlmner --space space"), folder=place)
    with started(hub, place / "space") as (process, address, log):
        yield Space(place / "space", address, answer(process, f"{address}config", log))


def test_space_is_that_of_the_card(hub, space):
    """If it failed, a Space would have another licence than its model, or show none of its posts."""
    front, card = (
        metadata_load(space.folder / "README.md"),
        metadata_load(hub.folder / "mlmner" / "README.md"),
    )
    assert (front["models"], front["license"]) == (["org/mlmner"], card["license"])
    assert f"[card]({hub.address}/org/mlmner)" in space.config
    assert all(text in space.config for text in TEXTS)


def assert_answers(hub: Hub, found: list[list[dict]]) -> None:
    """Check that the Space's function has answered as the folder does, effects of the picture included."""
    wanted = expected(hub, "mlmner", effects=True)
    assert_same(found, wanted)
    effects, others = ([[one["picture_effect"] for one in post] for post in side] for side in (found, wanted))
    assert effects[0] == pytest.approx(others[0], abs=1e-5) and effects[1] == others[1]


def test_space_answers_programs_as_the_folder(hub, space):
    """If it failed, a Space made of a Hub id would not start, or find other entities than the model."""
    client = Client(space.address, verbose=False, download_files=False)
    pictures = [[handle_file(str(hub.picture))], []]
    found = [
        client.predict(*post, "", 0.0, api_name="/find_entities")
        for post in zip(TEXTS, pictures, strict=True)
    ]
    assert_answers(hub, found)


def test_space_answers_agents_as_the_folder(hub, space):
    """If it failed, the Space's address for agents, which its card names, would have no tool or another."""
    data = "data:image/png;base64," + base64.b64encode(hub.picture.read_bytes()).decode()

    async def asked() -> list[Any]:
        async with (
            streamablehttp_client(f"{space.address}gradio_api/mcp/") as (reading, writing, _),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            posts = [{"text": TEXTS[0], "pictures": [data]}, {"text": TEXTS[1]}]
            return [(await session.call_tool("find_entities", post)).content[0].text for post in posts]

    answers = asyncio.run(asyncio.wait_for(asked(), 60))
    assert_answers(hub, [*map(ast.literal_eval, answers)])


# The command line


def test_predict_finds_what_the_folder_finds(hub, tmp_path):
    """If it failed, `mmner predict --model org/name` would not load from the Hub, or find something else."""
    command = f"predict --model org/mlmner --input {hub.folder}/posts.jsonl --output found.jsonl"
    run(hub, COMMANDS, words(f"{command} --dtype float32"), folder=tmp_path)
    lines = map(json.loads, (tmp_path / "found.jsonl").read_text().splitlines())
    assert_same([line["entities"] for line in lines], expected(hub, "mlmner"))


# spaCy

SPACY = """
import json
import spacy
picture, texts, found = sys.argv[1], json.loads(sys.argv[2]), {}
keys = ("entity_group", "word", "start", "end", "score")
for model in sys.argv[3:]:
    nlp = spacy.blank("en")
    nlp.add_pipe("mmner", config={"model": model})
    docs = [nlp.make_doc(text) for text in texts]
    docs[0].user_data["image"] = picture
    found[model] = []
    for doc in nlp.pipe(docs):
        scores = doc.spans["mmner"].attrs["scores"]
        ents = [(one.label_, one.text, one.start_char, one.end_char) for one in doc.ents]
        found[model].append([dict(zip(keys, (*one, score))) for one, score in zip(ents, scores, strict=True)])
print(json.dumps(found))
"""


def test_spacy_finds_what_the_folders_find(hub, tmp_path):
    """If it failed, `nlp.add_pipe("mmner", config={"model": "org/name"})` would not load from the Hub."""
    pytest.importorskip("spacy")
    models = [f"org/{system}" for system in SYSTEMS]
    done = run(hub, SPACY, hub.picture, json.dumps(TEXTS), *models, folder=tmp_path)
    found = json.loads(done.stdout)
    for system in SYSTEMS:
        assert_same(found[f"org/{system}"], expected(hub, system))


# ONNX

EXPORTED = """
import json, sys
from PIL import Image
from transformers import AutoProcessor
folder, picture, *texts = sys.argv[1:]
sys.path.append(folder)
from onnx_decoding import load
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
outputs = load(folder)(**processor(texts, images=[Image.open(picture), None], return_tensors="np"))
print(json.dumps(processor.post_process_entities(outputs, text=texts)))
"""


def test_exports_of_hub_models_find_what_the_folders_find(hub, tmp_path):
    """If it failed, a model of the Hub could not be exported, or would need the package or the Hub to run,
    or the command would tell of contexts that its user has never given.
    """
    commands = [f"export-onnx --model org/{system} --output_dir {system}" for system in SYSTEMS]
    assert "context: expected none" not in run(hub, COMMANDS, *map(words, commands), folder=tmp_path).stderr
    (tmp_path / "elsewhere").mkdir()
    for system in SYSTEMS:
        folder = (tmp_path / system).rename(tmp_path / "elsewhere" / system)
        where = {"folder": folder.parent, "HF_HUB_OFFLINE": 1}
        done = run_elsewhere(EXPORTED, folder, hub.picture, *TEXTS, **where)
        assert_same(json.loads(done.stdout), expected(hub, system))


# The card and its widget

WIDGET = """
import json, sys
from huggingface_hub import ModelCard, hf_hub_download
from transformers import pipeline
model = sys.argv[1]
widget = ModelCard.load(model).data.widget
picture = hf_hub_download(model, "example_1_1.jpg")
ner = pipeline("token-classification", model=model, trust_remote_code=True)
(first, second), stored = [one["text"] for one in widget], [one["output"] for one in widget]
found = ner([{"text": first, "image": picture}, second])
print(json.dumps([[first, second], picture, stored, found]))
"""


@each_system
def test_widget_shows_what_the_pipeline_finds(hub, tmp_path, system):
    """If it failed, a model's page would show other entities than whoever loads the model gets."""
    done = run_elsewhere(WIDGET, f"org/{system}", folder=tmp_path, **hub.environment())
    texts, picture, stored, found = json.loads(done.stdout.splitlines()[-1])
    assert texts == TEXTS
    assert_same(found, expected(hub, system, Path(picture)))
    assert stored == [[one | {"score": round(one["score"], 4)} for one in post] for post in found]


# What nobody may see, or is not there.

REFUSED = """
import spacy
from modeling_mmner.cli import main
for model in sys.argv[1:]:
    for command in ("demo --space space", "export-onnx --output_dir exported", "predict --text x"):
        name, *options = command.split()
        assert main([name, "--model", model, *options]) == 2
    try:
        spacy.blank("en").add_pipe("mmner", config={"model": model})
    except OSError as error:
        print(error, file=sys.stderr)
"""


def test_private_and_missing_models_are_told_in_one_line(hub, tmp_path):
    """If it failed, who lacks a token would read a traceback, or find half a Space or an export."""
    pytest.importorskip("spacy")
    models = ["org/mlmner", "org/nothing"]
    done = run(hub, REFUSED, *models, folder=tmp_path, **NO_TOKEN)
    lines = done.stderr.splitlines()
    assert len(lines) == 8, done.stderr
    for line, model in zip(lines, [one for one in models for _ in range(4)], strict=True):
        assert f"model '{model}': expected a file or folder that is there, or the ORG/NAME of a model" in line
        assert "found none, or one that is private (`hf auth login`)" in line
    assert not {path.name for path in tmp_path.iterdir()} & {"space", "exported"}


def test_space_without_a_token_says_so(hub, space):
    """If it failed, a Space of a private model that nobody has given a token would end in riddles."""
    home = space.folder.parent / "empty"
    with started(hub, space.folder, HF_HOME=home, **NO_TOKEN) as (process, _, log):
        assert process.wait(timeout=60) == 1
    assert (last := log.read_text().splitlines()[-1]).startswith("OSError: model 'org/mlmner': expected ")
    assert "found none, or one that is private (`hf auth login`)" in last
