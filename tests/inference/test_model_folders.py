"""Folders of models that strangers made: whatever is in them, one learns soon and by name what is wrong."""

import json
import os
import shutil
from pathlib import Path

import pytest

from modeling_mmner import MMNERConfig
from modeling_mmner.inference.annotator import Annotator
from modeling_mmner.inference.demo_space import card_data
from modeling_mmner.inference.loading import load_model
from modeling_mmner.model.labels_mmner import check_labels
from tests.small_posts import small_parts

DOORS = {
    "load": lambda folder: load_model(str(folder), device="cpu"),
    "annotator": lambda folder: Annotator(str(folder)),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "saved"
    for part in small_parts():
        part.save_pretrained(path)
    return path


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def changed(folder: Path, name: str, **settings) -> None:
    """Change settings of a JSON file; a mapping's keys are changed one by one."""
    content = json.loads((folder / name).read_text())
    for key, value in settings.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize(
    "name", ["x.json", "config.json", "model.safetensors", "additional_chat_templates/a.jinja"]
)
def test_a_pipe_in_the_place_of_a_file_is_named(folder, door, name) -> None:
    """Regression: reading it waited for ever."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    message = (
        f"{folder / name}: expected ordinary files in a model's folder, found a pipe or a device; remove it"
    )
    with pytest.raises(ValueError, match="expected ordinary") as raised:
        door(folder)
    assert str(raised.value) == message


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_link_to_a_device_is_named(folder, door) -> None:
    """Regression: /dev/zero under a file's name was read without end."""
    (folder / "added_tokens.json").symlink_to("/dev/zero")
    with pytest.raises(
        ValueError, match=r"added_tokens.json: expected ordinary files .* found a pipe or a device"
    ):
        door(folder)


DEEP = {
    "text": ("text_config", {"num_hidden_layers": 200_000}, "text_config num_hidden_layers"),
    "pictures": (
        "vision_towers",
        [{"backbone": "resnet10t", "backbone_args": {"layers": [1, 1, 1, 200_000]}}],
        "vision tower backbone_args layers",
    ),
}


@pytest.mark.parametrize(("key", "value", "place"), DEEP.values(), ids=DEEP)
def test_an_encoder_without_end_is_refused(folder, key, value, place) -> None:
    """Regression: 200,000 layers were made, one by one, before they were compared with the weights."""
    changed(folder, "config.json", **{key: value})
    with pytest.raises(ValueError, match=f"{place}: expected at most 1,000 layers, found .*200000"):
        load_model(str(folder), device="cpu")


def test_encoders_of_1000_layers_are_taken() -> None:
    """If it failed, a deep but possible encoder, or a long vocabulary, would be refused."""
    deep = {"model_type": "bert", "num_hidden_layers": 1000, "vocab_size": 250_000}
    assert MMNERConfig(text_config=deep).text_config.num_hidden_layers == 1000


def test_more_labels_than_a_crf_holds_are_refused() -> None:
    """If it failed, 100,000 labels of a stranger's model would take 40 GB before anything is compared."""
    labels = ["O", *(f"B-{number}" for number in range(10_000))]
    check_labels(labels[:-1])
    with pytest.raises(ValueError, match="labels: expected at most 10,000, found 10,001"):
        check_labels(labels)


@pytest.mark.parametrize(
    "name", ["../elsewhere.safetensors", "sub/../../elsewhere.safetensors", "/elsewhere", "within"]
)
def test_an_index_names_weights_of_the_model_alone(folder, name) -> None:
    """Regression: an index of weights had files outside of the folder opened."""
    weights = folder / "model.safetensors"
    names = json.loads(weights.read_bytes()[8 : 8 + int.from_bytes(weights.read_bytes()[:8], "little")])
    is_within = name == "within"
    name = "model-00001-of-00001.safetensors" if is_within else name
    weights.rename(folder / name if is_within else folder.parent / "elsewhere.safetensors")
    parts = {tensor: name for tensor in names if tensor != "__metadata__"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    if is_within:
        load_model(str(folder), device="cpu")
        return
    found = f"model.safetensors.index.json that names '{name}', outside of the model"
    with pytest.raises(ValueError, match=f"model {folder}: expected .* found ValueError: {found}"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("kind", ["BertTokenizer", "RobertaTokenizer", "DebertaV2Tokenizer", "T5Tokenizer"])
def test_a_missing_vocabulary_is_missed(folder, kind) -> None:
    """Regression: without tokenizer.json a model had a vocabulary of five words, and nobody said so."""
    (folder / "tokenizer.json").unlink()
    changed(folder, "tokenizer_config.json", tokenizer_class=kind)
    expected = r"expected sub-tokens, found none but \d+ special ones; is the model's tokenizer.json missing"
    with pytest.raises(ValueError, match=expected):
        load_model(str(folder), device="cpu")


CARDS = {
    "no YAML": b"---\na: [b\n---\n",
    "a list": b"---\n- a\n---\n",
    "figures that are none": b"---\nmodel-index: 3\n---\n",
    "no UTF-8": b"---\n\xff\n---\n",
    "nested": b"---\na: " + b"[" * 3000 + b"\n---\n",
}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_broken_card_is_named(tmp_path, card) -> None:
    """Regression: yaml's own error came through, which names no file."""
    (tmp_path / "README.md").write_bytes(card)
    with pytest.raises(
        ValueError, match=r"README.md: expected a card with YAML at its beginning, found none that"
    ) as one:
        card_data(str(tmp_path))
    assert str(one.value).startswith(str(tmp_path))
