"""Folders of models: damaged, incomplete, of another model, with something planted."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from modeling_mmner.inference.loading import load_model

from .cases import Bench, Case, refused, taken

Damage = Callable[[Path], Any]
FILES = ("config.json", "model.safetensors", "tokenizer.json")
EMBEDDINGS = "text_tower.encoder.embeddings.word_embeddings.weight"


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sign),)


def changed(name: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Change a file of JSON."""

    def damage(folder: Path) -> None:
        saved = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(change(saved)), encoding="utf-8")

    return damage


def cut(name: str, share: float) -> Damage:
    """Cut a file's end off."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return damage


def whole_file(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def config(**settings: Any) -> Damage:
    return changed("config.json", lambda saved: saved | settings)


def processor(**settings: Any) -> Damage:
    return changed("processor_config.json", lambda saved: saved | settings)


def window(length: int) -> Damage:
    return changed("tokenizer_config.json", lambda saved: saved | {"model_max_length": length})


def text_config(**settings: Any) -> Damage:
    return changed("config.json", lambda saved: saved | {"text_config": saved["text_config"] | settings})


def tower(**settings: Any) -> Damage:
    return changed(
        "config.json", lambda saved: saved | {"vision_towers": [saved["vision_towers"][0] | settings]}
    )


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        saved = {name: tensor.clone() for name, tensor in change(load_file(path)).items()}
        save_file(saved, path, {"format": "pt"})

    return damage


def planted(name: str, *, instead: bool = False) -> Damage:
    """A pickle beside the weights, or in their place."""

    def damage(folder: Path) -> None:
        if instead:
            (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(Planted(folder / "planted")))

    return damage


def own_code(name: str, *keys: str) -> Damage:
    """Code of the folder's own that a config asks for."""

    def damage(folder: Path) -> None:
        code = f"import os\nos.mkdir({str(folder / 'planted')!r})\nclass Evil: pass\n"
        (folder / "planted_code.py").write_text(code)
        maps: dict[str, Any] = dict.fromkeys(("AutoConfig", "AutoModel"), "planted_code.Evil")
        maps["AutoTokenizer"] = ["planted_code.Evil"] * 2

        changed(name, lambda saved: reduce(getitem, keys, saved).update(auto_map=maps) or saved)(folder)

    return damage


SOUND: dict[str, Damage] = {
    "as it was saved": lambda folder: None,
    "a key that nobody knows": config(brightness=3),
    "weights that nobody asked for": weights(lambda saved: saved | {"backdoor": torch.ones(3)}),
    "a pickle beside the weights": planted("pytorch_model.bin"),
    "an attention from the Hub": text_config(_attn_implementation="evil/kernels"),
    "quantized by a package that is not there": config(quantization_config={"quant_method": "evil"}),
    "code of its own, in the config": own_code("config.json"),
    "code of its own, in the text encoder's config": own_code("config.json", "text_config"),
    "code of its own, in the tokenizer's config": own_code("tokenizer_config.json"),
}
DAMAGED: dict[str, Damage] = {
    **{f"no {name}": lambda folder, name=name: (folder / name).unlink() for name in FILES},
    **{f"half of {name}": cut(name, 0.5) for name in FILES},
    "no byte of the weights": cut("model.safetensors", 0),
    "weights with a head of 10^18 bytes": whole_file("model.safetensors", (10**18).to_bytes(8, "little")),
    "a config that is a list": whole_file("config.json", b"[]"),
    "a config nested 100,000 deep": whole_file("config.json", b'{"a":' * 100_000),
    "a pickle in place of the weights (.bin)": planted("pytorch_model.bin", instead=True),
    "a pickle called as the weights": planted("model.safetensors"),
    "the config of another model": changed("config.json", lambda saved: saved["text_config"]),
    "a wrong shape": weights(lambda saved: saved | {EMBEDDINGS: torch.ones(3, 3)}),
    "another number of labels": config(id2label={"0": "O", "1": "B-X"}, label2id=None),
    "labels that are no BIO set": config(id2label={"0": "x"}, label2id=None),
    "a word rule from tomorrow": processor(word_rule="mmner-words-9"),
    "pictures of 10^9 pixels a side": processor(image_size=10**9),
    "a window of 3": window(3),
    "a tower that is read from a folder": tower(backbone="local-dir:/etc"),
    "a tower of the Hub": tower(backbone="hf-hub:evil/model"),
    "a tower with a checkpoint": tower(backbone_args={"checkpoint_path": "evil.pth"}),
    "a tower with weights of its own": tower(backbone_args={"pretrained_cfg": {"file": "evil.pth"}}),
    "a tower of 10^9 pixels a side": tower(image_size=10**9),
    "an encoder that nobody knows": text_config(model_type="evil"),
    "an encoder of 10^12 dimensions": text_config(hidden_size=4 * 10**11),
}
LACKING: dict[str, Damage] = {
    "a weight missing": weights(lambda saved: {k: v for k, v in saved.items() if "crf.transitions" not in k}),
    "no weight": weights(lambda saved: {"x": torch.ones(1)}),
    "an encoder of more layers": text_config(num_hidden_layers=3),
}
MISMATCHED: dict[str, Damage] = {
    "other labels": config(id2label=dict(enumerate(["O", "B-A", "I-A", "B-B", "I-B"])), label2id=None),
    "labels of another processor": processor(labels=["O", "B-X"]),
    "pictures of no processor": processor(image_size=None),
    "a window that the encoder does not have": window(100_000),
}


def loaded(bench: Bench, damage: Damage) -> None:
    """Load a copy of the model's folder with something done to it; nothing that is planted in it may run."""
    saved, folder = bench.tmp / "saved", bench.tmp / "damaged"
    if not saved.exists():
        for part in bench.parts:
            part.save_pretrained(saved)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    damage(folder)
    try:
        load_model(str(folder), device="cpu")
    finally:
        assert not (folder / "planted").exists()


def cases() -> Iterator[Case]:
    yield from taken("model folder", SOUND, loaded)
    whole, of_it = "all its weights, found none for", "the processor that was saved with the model"
    kinds = {
        "the folder (or Hub id|of a trained)": DAMAGED,
        f"a trained model with {whole}": LACKING,
        of_it: MISMATCHED,
    }
    for expected, damages in kinds.items():
        yield from refused("model folder", f"^model .*/damaged'?: expected {expected}", damages, loaded)
    yield Case(
        "model folder",
        "none",
        lambda bench: load_model(f"{bench.tmp}/no"),
        "^model .*/no': expected a file or folder",
    )
