"""Folders of models: damaged, incomplete, of another model, with something planted."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from modeling_mmner.inference.loading import load_model

from .cases import Bench, Case

NO_MODEL = "expected the folder or Hub id of a trained model"
OTHER_PROCESSOR = "expected the processor that was saved with the model"
MISSING = "expected a trained model with all its weights, found none for"


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sign),)


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a file of JSON."""
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")


def cut(name: str, share: float) -> Callable[[Path], None]:
    """Cut a file's end off."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return damage


def removed(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def config(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: changed(folder, "config.json", lambda saved: saved | settings)


def processor(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: changed(folder, "processor_config.json", lambda saved: saved | settings)


def text_config(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: changed(
        folder, "config.json", lambda saved: saved | {"text_config": saved["text_config"] | settings}
    )


def tower(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: changed(
        folder, "config.json", lambda saved: saved | {"vision_towers": [saved["vision_towers"][0] | settings]}
    )


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(
            {name: tensor.clone() for name, tensor in change(load_file(path)).items()}, path, {"format": "pt"}
        )

    return damage


def planted(name: str, *, instead: bool) -> Callable[[Path], None]:
    """A pickle beside the weights, or in their place."""

    def damage(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            pickle.dump(Planted(folder / "planted"), file)
        if instead:
            (folder / "model.safetensors").unlink()

    return damage


def own_code(name: str, key: str) -> Callable[[Path], None]:
    """Code of the folder's own that a config asks for."""

    def damage(folder: Path) -> None:
        (folder / "planted_code.py").write_text(
            f"import os\nos.mkdir({str(folder / 'planted')!r})\nclass Evil: pass\n"
        )
        maps = {
            "AutoConfig": "planted_code.Evil",
            "AutoModel": "planted_code.Evil",
            "AutoTokenizer": ["planted_code.Evil"] * 2,
        }

        def ask(saved: dict[str, Any]) -> dict[str, Any]:
            if key:
                saved[key]["auto_map"] = maps
            else:
                saved["auto_map"] = maps
            return saved

        changed(folder, name, ask)

    return damage


def whole_file(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def nothing(folder: Path) -> None:
    """As it is."""


def a_bert(folder: Path) -> None:
    """Another model's config."""
    text = json.loads((folder / "config.json").read_text(encoding="utf-8"))["text_config"]
    (folder / "config.json").write_text(json.dumps(text), encoding="utf-8")


def first_of(saved: dict[str, torch.Tensor]) -> str:
    return "text_tower.encoder.embeddings.word_embeddings.weight"


SOUND: dict[str, Callable[[Path], None]] = {
    "as it was saved": nothing,
    "a key that nobody knows": config(brightness=3),
    "weights that nobody asked for": weights(lambda saved: saved | {"backdoor": torch.ones(3)}),
    "a pickle beside the weights": planted("pytorch_model.bin", instead=False),
    "an attention from the Hub": text_config(_attn_implementation="evil/kernels"),
    "quantized by a package that is not there": config(quantization_config={"quant_method": "evil"}),
    "code of its own, in the config": own_code("config.json", ""),
    "code of its own, in the text encoder's config": own_code("config.json", "text_config"),
    "code of its own, in the tokenizer's config": own_code("tokenizer_config.json", ""),
}
DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (removed("config.json"), NO_MODEL),
    "no weights": (removed("model.safetensors"), NO_MODEL),
    "no processor": (removed("processor_config.json", "tokenizer.json", "tokenizer_config.json"), NO_MODEL),
    "no tokenizer": (removed("tokenizer.json"), NO_MODEL),
    "half the config": (cut("config.json", 0.5), NO_MODEL),
    "an empty config": (cut("config.json", 0), NO_MODEL),
    "half the weights": (cut("model.safetensors", 0.5), NO_MODEL),
    "the head of the weights": (cut("model.safetensors", 0.01), NO_MODEL),
    "no byte of the weights": (cut("model.safetensors", 0), NO_MODEL),
    "half the tokenizer": (cut("tokenizer.json", 0.5), NO_MODEL),
    "half the processor": (cut("processor_config.json", 0.5), NO_MODEL),
    "weights with a head of 10^18 bytes": (
        whole_file("model.safetensors", (10**18).to_bytes(8, "little") + b"{}"),
        NO_MODEL,
    ),
    "a config that is a list": (whole_file("config.json", b"[]"), NO_MODEL),
    "a config of NUL": (whole_file("config.json", bytes(100)), NO_MODEL),
    "a config nested 100,000 deep": (whole_file("config.json", b'{"a":' * 100_000), NO_MODEL),
    "a pickle in place of the weights (.bin)": (planted("pytorch_model.bin", instead=True), NO_MODEL),
    "a pickle in place of the weights (.pt)": (planted("model.pt", instead=True), NO_MODEL),
    "a pickle called as the weights": (planted("model.safetensors", instead=False), NO_MODEL),
    "the config of another model": (a_bert, NO_MODEL),
    "a wrong shape": (weights(lambda saved: saved | {first_of(saved): torch.ones(3, 3)}), NO_MODEL),
    "a weight missing": (
        weights(lambda saved: {k: v for k, v in saved.items() if "crf.transitions" not in k}),
        MISSING,
    ),
    "no weight": (weights(lambda saved: {"x": torch.ones(1)}), MISSING),
    "another number of labels": (config(id2label={"0": "O", "1": "B-X"}, label2id=None), NO_MODEL),
    "other labels": (
        config(id2label=dict(enumerate(["O", "B-A", "I-A", "B-B", "I-B"])), label2id=None),
        OTHER_PROCESSOR,
    ),
    "labels that are no BIO set": (config(id2label={"0": "x"}, label2id=None), "labels: expected"),
    "labels of another processor": (processor(labels=["O", "B-X"]), OTHER_PROCESSOR),
    "labels of a processor that are a number": (processor(labels=7), "labels: expected a list of strings"),
    "a word rule from tomorrow": (processor(word_rule="mmner-words-9"), "word rule: expected one of"),
    "pictures of 10^9 pixels a side": (processor(image_size=10**9), "image_size: expected at most"),
    "pictures of half a pixel": (processor(image_size=0.5), "image_size: expected a number > 0"),
    "pictures of no processor": (processor(image_size=None), OTHER_PROCESSOR),
    "a context window of a text": (processor(context_window="x"), "context_window: expected a number > 0"),
    "a window that the encoder does not have": (
        lambda folder: changed(
            folder, "tokenizer_config.json", lambda saved: saved | {"model_max_length": 100_000}
        ),
        OTHER_PROCESSOR,
    ),
    "a window of 3": (
        lambda folder: changed(
            folder, "tokenizer_config.json", lambda saved: saved | {"model_max_length": 3}
        ),
        "tokenizer model_max_length: expected room",
    ),
    "a tower that is read from a folder": (
        tower(backbone="local-dir:/etc"),
        "expected the name of a timm model",
    ),
    "a tower of the Hub": (tower(backbone="hf-hub:evil/model"), "expected the name of a timm model"),
    "a tower that nobody knows": (tower(backbone="resnet1999"), NO_MODEL),
    "a tower with a checkpoint": (
        tower(backbone_args={"checkpoint_path": "evil.pth"}),
        "expected none that makes timm read files",
    ),
    "a tower with weights of its own": (
        tower(backbone_args={"pretrained_cfg": {"file": "evil.pth"}}),
        "expected none that makes timm read files",
    ),
    "a tower of 10^9 pixels a side": (tower(image_size=10**9), "vision tower image_size: expected pixels"),
    "an encoder that nobody knows": (text_config(model_type="evil"), "expected the config of a text encoder"),
    "an encoder of 10^12 dimensions": (text_config(hidden_size=4 * 10**11), NO_MODEL),
    "an encoder of as many layers": (text_config(num_hidden_layers=3), MISSING),
}


def cases() -> Iterator[Case]:
    """The rows."""
    for name, damage in SOUND.items():
        yield Case("model folder", name, lambda bench, damage=damage: loaded(bench, damage))
    for name, (damage, error) in DAMAGED.items():
        yield Case("model folder", name, lambda bench, damage=damage: loaded(bench, damage), error)
    yield Case("model folder", "none at all", lambda bench: load_model(str(bench.tmp / "nowhere")), NO_MODEL)
    yield Case(
        "model folder", "a file", lambda bench: load_model(str(bench.file("model.txt", "x"))), NO_MODEL
    )


def loaded(bench: Bench, damage: Callable[[Path], None]) -> None:
    """Load a copy of the model's folder with something done to it; nothing that is planted in it may run."""
    folder = bench.tmp / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bench.saved, folder)
    damage(folder)
    try:
        load_model(str(folder), device="cpu")
    finally:
        assert not (folder / "planted").exists()
