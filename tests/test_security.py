"""What strangers send, or what their data say, runs nothing, fetches nothing, and opens no file that lies
elsewhere.
"""

import ast
import json
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

import train_accelerate
from dataset_scripts.builders.built_corpus import build_dataset
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.opening import open_corpus
from modeling_mmner.cli import main
from modeling_mmner.files import read_yaml
from modeling_mmner.inference.posts_input import open_posts
from modeling_mmner.model.images_mmner import PictureError
from modeling_mmner.model.pipeline_mmner import MultimodalNERPipeline
from modeling_mmner.model.vision_mmner import VisionTower
from modeling_mmner.training.assembly import build_model, build_processor, check_model
from modeling_mmner.training.recipes import load_recipe
from tests.inference.test_picture_contexts import blip
from tests.picture_server import picture_server
from tests.small_corpora import write_pictures, write_posts
from tests.small_posts import small_parts
from tests.tiny import TOWER, see, tiny_config
from tests.training.test_training import small_recipe, write_corpus

# Nothing is fetched


class Network:
    """Refuses every connection but those within this computer's own processes, and remembers who was asked
    for.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        connect = socket.socket.connect

        def refused(own: socket.socket, address: Any) -> Any:
            if own.family == socket.AF_UNIX:
                return connect(own, address)
            self.asked.append(address)
            raise OSError(f"a connection to {address}")

        def unknown(*address: Any, **_: Any) -> Any:
            self.asked.append(address)
            raise socket.gaierror(f"the address of {address}")

        patch.setattr(socket.socket, "connect", refused)
        patch.setattr(socket.socket, "connect_ex", refused)
        patch.setattr(socket, "getaddrinfo", unknown)


@pytest.fixture
def network(monkeypatch) -> Network:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return Network(monkeypatch)


def test_the_network_is_watched(network):
    """If it failed, the tests below would see nothing of what is asked for."""
    with pytest.raises(PictureError):
        MultimodalNERPipeline(model=(parts := small_parts())[0], processor=parts[1])(
            {"text": "a", "image": "http://example.org/a.jpg"}, allow_urls=True
        )
    assert network.asked


@pytest.mark.slow
def test_whoever_has_the_files_needs_no_network(network, tmp_path, capsys):
    """If it failed, training, prediction or looking at a corpus would tell others what is done, or stop
    without a network.
    """
    write_corpus(tmp_path)
    recipe = small_recipe(tmp_path, epochs=1)
    train_accelerate.train(recipe)
    model = str(Path(recipe.training.output_dir) / "model")
    picture = str(next((tmp_path / "images").glob("en-test-*")))
    text = "Look at this : Jordan !"
    lines = tmp_path / "posts.jsonl"
    lines.write_text(json.dumps({"text": text, "image": Path(picture).name}), encoding="utf-8")
    for part in (made := blip())[0], *made[1]:
        part.save_pretrained(tmp_path / "blip")
    posts, images = str(tmp_path), str(tmp_path / "images")
    looking, written = ["--text", text, "--image", picture], ["--output_dir", f"{posts}/explained"]
    blip_model = ["--reader", f"{posts}/blip", "--output_file", f"{posts}/c.jsonl"]
    for command in (
        ["predict", "--model", model, "--input", str(lines), "--image_dir", images],
        ["explain", "--model", model, *looking, *written],
        ["inspect", posts, "--image_dir", images, "--output_dir", f"{posts}/inspected"],
        ["evaluate", posts, "--image_dir", images, "--model", model],
        ["contexts", posts, "--image_dir", images, *blip_model],
    ):
        is_lossy = command[0] == "inspect"  # for the corpus has a broken picture
        assert main(command) == is_lossy, capsys.readouterr().err
    assert network.asked == []


ADDRESS = "http://127.0.0.1:9/a.jpg"


@pytest.mark.parametrize("command", ["predict", "own data", "data set"])
def test_addresses_in_data_are_not_fetched(network, tmp_path, command):
    """If it failed, whoever writes a file of posts would learn who reads it, or reach what only its reader
    may reach.
    """
    row = {"tokens": ["Jordan", "x"], "ner_tags": ["B-PER", "O"], "image": ADDRESS}
    lines = tmp_path / "posts.jsonl"
    lines.write_text("\n".join(json.dumps(row | {"tokens": ["Jordan", str(n)]}) for n in range(30)))
    if command == "predict":
        for part in small_parts():
            part.save_pretrained(tmp_path / "model")
        given = ["--model", str(tmp_path / "model"), "--input", str(lines), "--output", str(tmp_path / "o")]
        assert main(["predict", *given]) == 0
    elif command == "own data":
        corpus = open_corpus(str(lines))
        assert corpus.findings.numbers()["pictures left out: addresses on the web"] == 30
    else:
        (tmp_path / "set").mkdir()
        card = f"---\nconfigs:\n- config_name: default\n  data_files: {ADDRESS}\n---\n"
        (tmp_path / "set" / "README.md").write_text(card, encoding="utf-8")
        (tmp_path / "set" / "train-00000-of-00001.parquet").write_bytes(b"")
        with pytest.raises(CorpusError, match="expected files of the data set's own folder under 'configs'"):
            open_corpus(str(tmp_path / "set"))
    assert network.asked == []


# Nothing outside is opened


def test_pictures_of_posts_lie_in_their_folder(tmp_path):
    """If it failed, whoever sends posts could have any file of the computer opened."""
    pictures, outside = tmp_path / "pictures", tmp_path / "outside.png"
    pictures.mkdir()
    for path in (outside, pictures / "inside.png"):
        Image.new("RGB", (9, 9)).save(path)
    (pictures / "link.png").symlink_to(outside)
    model, processor = small_parts()
    pipe = MultimodalNERPipeline(model=model, processor=processor)
    for given in ("inside.png", str(pictures / "inside.png"), {"path": "inside.png"}):
        pipe({"text": "a", "image": given}, image_dir=pictures)
    message = r"expected a file in .*pictures, found none; --image_dir names another"
    by_path = {"bytes": None, "path": str(outside)}
    for given in ("../outside.png", str(outside), "link.png", by_path, "", ".", "a\0b"):
        with pytest.raises(PictureError, match=message):
            pipe({"text": "a", "image": given}, image_dir=pictures)
    pipe({"text": "a", "image": str(outside)})  # of a program's own posts any file is opened


DIARY = {"id": "1", "text": "Lima rain", "tokens": ["Lima", "rain"], "ner_tags": ["B-LOC", "O"]}


def a_data_set(folder: Path, front_matter: str = "", *, name: str = "train-00000-of-00001.parquet") -> str:
    """A data set in a new folder, beside a diary that is none of its files."""
    folder.mkdir(parents=True)
    for path in (folder / name, folder.parent / "diary.parquet"):
        datasets.Dataset.from_list([DIARY]).to_parquet(path)
    (folder / "README.md").write_text(f"---\n{front_matter}\n---\n", encoding="utf-8")
    return str(folder)


DOORS: dict[str, Callable[[str], Any]] = {
    "inspect": lambda dataset: open_corpus(dataset),
    "annotate": lambda dataset: open_posts(dataset, split="train"),
}
LEADING_OUT = {
    "a path above": "../diary.parquet",
    "an absolute path": "{tmp}/diary.parquet",
    "a file's address": "file:{tmp}/diary.parquet",
    "a local address": "local:{tmp}/diary.parquet",
    "an address": "{address}/diary.parquet",
    "an address in another": "zip::{address}/diary.parquet",
}


@pytest.mark.parametrize("opening", ["", "a: 1\n---x: 1\n"], ids=["plain", "odd front matter"])
@pytest.mark.parametrize("named", LEADING_OUT.values(), ids=LEADING_OUT)
@pytest.mark.parametrize("door", DOORS)
def test_no_door_obeys_a_card_that_leads_out(tmp_path, door, named, opening):
    """Regression: `annotate` and `inspect` read what a stranger's card named, a diary or an address,
    where the card was written so that our reader saw another front matter than the library's.
    """
    with picture_server() as server:
        files = json.dumps(named.format(tmp=tmp_path, address=server.address))
        card = f"{opening}configs:\n- config_name: default\n  data_files: {files}"
        with pytest.raises(CorpusError, match="expected files of the data set's own folder"):
            DOORS[door](a_data_set(tmp_path / "set", card))
    assert server.requests == [], "an address was asked for"


@pytest.mark.parametrize("door", DOORS)
def test_no_door_obeys_a_card_of_the_hub_that_leads_out(tmp_path, monkeypatch, door):
    """Regression: the card of a data set on the Hub could name files of this computer, and they were read."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789" * 4
    repository = tmp_path / "datasets--org--name"
    a_data_set(repository / "snapshots" / commit, f"configs:\n- data_files: {tmp_path}/diary.parquet")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    with pytest.raises(CorpusError, match=r"README\.md: expected files of the data set's own folder under"):
        DOORS[door]("org/name")


@pytest.mark.parametrize("door", DOORS)
def test_no_door_follows_links_out_of_a_data_set(tmp_path, door):
    """Regression: a file of a data set that is a link to a diary was read as if it lay there."""
    folder = Path(a_data_set(tmp_path / "set"))
    DOORS[door](str(folder))
    (folder / "train-00000-of-00001.parquet").unlink()
    (folder / "train-00000-of-00001.parquet").symlink_to(tmp_path / "diary.parquet")
    with pytest.raises(CorpusError, match=r"train-00000-of-00001\.parquet', which leads out of it"):
        DOORS[door](str(folder))


def test_no_raw_corpus_is_read_through_links(tmp_path):
    """Regression: a corpus's train file that is a link to a diary was read, and its posts could be shown,
    built and pushed.
    """
    diary = write_posts(tmp_path / "elsewhere") / "train.txt"
    folder = write_posts(tmp_path / "corpus")
    (folder / "train.txt").unlink()
    (folder / "train.txt").symlink_to(diary)
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "diary.jsonl").write_text(f"{json.dumps(DIARY)}\n")
    for split in ("train", "test"):
        (own / f"{split}.jsonl").symlink_to(tmp_path / "diary.jsonl")
    for corpus in (folder, own):
        with pytest.raises(
            CorpusError, match=r"train\.\w+: expected a file that lies in .*--follow_links takes it"
        ):
            open_corpus(str(corpus))
        assert open_corpus(str(corpus), follow_links=True).splits["train"]
    with pytest.raises(CorpusError, match="--follow_links takes it"):
        build_dataset("conll", tmp_path / "built", data_dir=str(folder))


def test_a_snapshot_of_the_hub_is_its_repository_s_own(tmp_path):
    """If it failed, what the Hub's client has downloaded, all links to blobs, could not be opened by its
    folder.
    """
    repository = tmp_path / "datasets--org--name"
    folder = Path(a_data_set(repository / "snapshots" / "0123"))
    (repository / "blobs").mkdir()
    [path] = folder.glob("*.parquet")
    path.rename(repository / "blobs" / "4567")
    path.symlink_to("../../blobs/4567")
    for door in DOORS.values():
        door(str(folder))


def test_data_sets_are_opened_by_one_door():
    """If it failed, a new command could open a stranger's data set without looking at its card first."""
    found = {
        path.name
        for room in ("modeling_mmner", "dataset_scripts", "train_accelerate.py")
        for path in ([Path(room)] if room.endswith(".py") else Path(room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr.startswith("load_dataset")
    }
    assert found == {"enclosure.py", "posts_input.py"}, (
        "posts_input opens a single Parquet file, without a card"
    )


CIRCLES = ("raw", "own", "built")


@pytest.mark.parametrize("kind", CIRCLES)
def test_links_in_circles_stop_no_corpus(tmp_path, kind):
    """If it failed, an unpacked archive with a link to itself, which no post names, could not be opened."""
    folder = tmp_path / "corpus"
    if kind == "built":
        a_data_set(folder)
    else:
        write_posts(folder)
    if kind == "own":
        lines = [json.dumps(DIARY | {"id": str(n), "image": f"{n}.jpg"}) for n in range(3)]
        for path in folder.glob("*.txt"):
            path.with_suffix(".jsonl").write_text("\n".join(lines))
            path.unlink()
    pictures = write_pictures(folder / "images")
    expected = len(open_corpus(str(folder)).splits["train"])
    (pictures / "a.jpg").symlink_to("b.jpg")
    (pictures / "b.jpg").symlink_to("a.jpg")
    for name in ("again", "more"):
        (pictures / name).symlink_to("../images")
    (pictures / "1.jpg").unlink()
    (pictures / "1.jpg").symlink_to("1.jpg")  # which a post names
    assert len(open_corpus(str(folder)).splits["train"]) == expected


def test_links_of_a_corpus_are_followed_when_it_is_said(tmp_path):
    """If it failed, an unpacked corpus could have a picture that is any file, or nobody could keep pictures
    elsewhere.
    """
    folder, pictures = write_posts(tmp_path / "corpus"), write_pictures(tmp_path / "pictures")
    (tmp_path / "elsewhere.jpg").write_bytes((pictures / "1.jpg").read_bytes())
    (pictures / "1.jpg").unlink()
    (pictures / "1.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    message = r"1\.jpg: expected a file that lies in .*, found a link to .*--follow_links takes it"
    with pytest.raises(CorpusError, match=message):
        open_corpus(str(folder), image_dir=pictures)
    rows = open_corpus(str(folder), image_dir=pictures, follow_links=True).splits["train"]
    assert rows[0]["image"]["path"] == str(pictures / "1.jpg")
    rows_of_posts = [
        {"tokens": ["Jordan" * n], "ner_tags": ["B-PER"], "image": None if n > 1 else "1.jpg"}
        for n in range(1, 31)
    ]
    lines = tmp_path / "posts.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows_of_posts)), encoding="utf-8")
    left_out = "pictures left out: links or paths out of the folder"
    assert open_corpus(str(lines), image_dir=pictures).findings.numbers()[left_out] == 1
    assert left_out not in open_corpus(str(lines), image_dir=pictures, follow_links=True).findings.numbers()


# Nothing is run


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sign),)


def a_pickle(folder: Path, name: str) -> str:
    with (folder / name).open("wb") as file:
        pickle.dump(Planted(folder / "planted"), file)
    return str(folder / name)


@pytest.mark.parametrize(
    ("recipe", "setting", "name", "message"),
    [
        ("mlmner", "vision_checkpoint", "a.pth", ": expected .*safetensors, found"),
        ("mlmner", "vision_checkpoint", "a.safetensors", ": expected .*safetensors, found"),
        ("bilstm-crf", "word_vectors", "a.txt", ", line 1: expected a word and its"),
    ],
)
def test_pickles_are_no_weights_and_no_vectors(recipe, setting, name, message, tmp_path):
    """If it failed, weights or vectors from somewhere would run a program as they are read."""
    with pytest.raises(ValueError, match=f"{setting} .*{message}"):
        check_model(load_recipe(recipe, {setting: a_pickle(tmp_path, name)}))
    assert not (tmp_path / "planted").exists()


SMALL = dict.fromkeys(("hidden_size", "intermediate_size"), 8) | {"vocab_size": 100, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 1}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_pickles_are_no_text_encoders(name, tmp_path):
    """If it failed, an encoder from somewhere would run a program as it is read."""
    BertConfig(**SMALL).save_pretrained(tmp_path)
    _, processor = small_parts()
    processor.tokenizer.save_pretrained(tmp_path)
    a_pickle(tmp_path, name)
    recipe = load_recipe("bert-crf", {"text_encoder": str(tmp_path)})
    message = r"text_encoder .*: expected the folder or Hub id of an encoder of transformers with weights"
    with pytest.raises(ValueError, match=message):
        build_model(recipe, build_processor(recipe, labels=processor.labels, posts=[["a"]]))
    assert not (tmp_path / "planted").exists()


def test_code_of_a_text_encoder_is_not_run(tmp_path, monkeypatch):
    """If it failed, an encoder from somewhere would run a program, or training stop at a question that nobody
    sees.
    """
    BertModel(BertConfig(**SMALL)).save_pretrained(tmp_path)
    _, processor = small_parts()
    processor.tokenizer.save_pretrained(tmp_path)
    program = f"import os\nos.mkdir({str(tmp_path / 'planted')!r})\nclass Evil: pass\n"
    (tmp_path / "planted_code.py").write_text(program)
    for name in ("config.json", "tokenizer_config.json"):
        saved = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        evil = "planted_code.Evil"
        saved["auto_map"] = {"AutoConfig": evil, "AutoModel": evil, "AutoTokenizer": [evil, evil]}
        (tmp_path / name).write_text(json.dumps(saved), encoding="utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("training asked a question"))
    recipe = load_recipe("bert-crf", {"text_encoder": str(tmp_path)})
    build_model(recipe, build_processor(recipe, labels=processor.labels, posts=[["a"]]))
    assert not (tmp_path / "planted").exists()


def test_weights_in_safetensors_are_read(tmp_path):
    """If it failed, the refusals above would refuse everything."""
    tower = VisionTower(tiny_config().vision_tower_configs()[0])
    save_file(tower.backbone.timm_model.state_dict(), tmp_path / "a.safetensors")
    settings = {"vision_towers": [TOWER], "vision_checkpoint": str(tmp_path / "a.safetensors")}
    check_model(load_recipe("mlmner", settings))


NOT_PLAIN = {
    "an object": "!!python/object/apply:os.system ['true']",
    "a list in itself": "&a [*a]",
    "a reference": "a: &b [x]\nc: *b",
    "nested deep": "[" * 20_000,
    "cut": "a: [",
    "NUL": "a: \0",
}


@pytest.mark.parametrize("text", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_yaml_says_plain_values(text):
    """If it failed, a recipe or option from somewhere could run something, or stand for more than there is
    memory.
    """
    with pytest.raises(ValueError):
        read_yaml(text)
    assert read_yaml("a: [1, x, {b: null}]") == {"a": [1, "x", {"b": None}]}


# Nothing stops without a word


def test_a_tower_that_was_let_go_of_says_so():
    """If it failed, pixels for a model that keeps features alone would end in an attribute that None does not
    have.
    """
    tower = VisionTower(tiny_config().vision_tower_configs()[0])
    tower.release()
    pixels, nothing = torch.zeros(1, 1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.bool)
    message = r"vision tower resnet10t: expected ready-made features, .* found pixels"
    with pytest.raises(ValueError, match=message):
        see(tower, pixels, image_mask=~nothing)
    assert see(tower, pixels, image_mask=nothing)[0].shape == (1, 0, tower.channels)
