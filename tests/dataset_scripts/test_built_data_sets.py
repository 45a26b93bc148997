"""Built data sets as their users meet them: `datasets` alone, in a process without the package and without
the network.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from dataset_scripts.builders.built_corpus import build_dataset
from modeling_mmner.model.labels_mmner import bio_labels
from tests.built_corpora import build_small, rows_of
from tests.elsewhere import run_elsewhere
from tests.small_corpora import write_mmner, write_pictures

LOADED = """
import hashlib, json, sys
import datasets

def sha256(content):
    return hashlib.sha256(content).hexdigest()

def described(rows):
    found = []
    for decoded, row in zip(rows, rows.cast_column("image", datasets.Image(decode=False)), strict=True):
        file, picture = row.pop("image"), decoded["image"]
        row["file"] = file and [file["path"], sha256(file["bytes"])]
        row["pixels"] = picture and [picture.mode, list(picture.size), sha256(picture.tobytes())]
        found.append(row)
    return found

result = {}
for name, folder, configs in json.loads(sys.argv[1]):
    for config in configs:
        for streaming in (False, True):
            corpus = datasets.load_dataset(folder, config, streaming=streaming)
            features = corpus["train"].features
            result[f"{name} {config} {streaming}"] = {
                "rows": {split: described(rows) for split, rows in corpus.items()},
                "labels": features["ner_tags"].feature.names,
                "columns": {column: type(feature).__name__ for column, feature in features.items()},
            }
with open(sys.argv[2], "w") as target:
    json.dump(result, target)
"""
MMNER = {
    "en": [("1", "Paris/B-LOC")],
    "fr": [("2---x", "Nice/B-LOC"), ("3", "oui/O")],
    "fr_plus_en": [("1", "Paris/B-LOC")],
}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*expected the official file")]


def turned_picture() -> bytes:
    """A photograph that its Exif says to turn."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((30, 10)).convert("RGB").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def described(path: Path) -> dict[str, Any]:
    """What a picture file must come back as."""
    picture = ImageOps.exif_transpose(Image.open(path))
    content = [path.name, hashlib.sha256(path.read_bytes()).hexdigest()]
    return {
        "file": content,
        "pixels": [picture.mode, list(picture.size), hashlib.sha256(picture.tobytes()).hexdigest()],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small data set, one with several configs, and the real posts that have pictures."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "small").mkdir()
    write_pictures(folder / "images")
    (folder / "images" / "8.jpg").write_bytes(turned_picture())
    build_small(folder / "small", image_dir=folder / "images", language="en")
    write_mmner(folder / "released", **MMNER)
    build_dataset("mmner", folder / "mmner" / "built", data_dir=folder / "released", no_verify=True)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    """What the other process finds in each, by name, config and whether it streams."""
    configs = {"small": [None, "default"], "mmner": [None, "en", "fr", "en_plus_fr"]}
    found = [
        (name, str(folder / name / "built"), names)
        for name, names in configs.items()
        if (folder / name / "built").is_dir()
    ]
    run_elsewhere(LOADED, json.dumps(found), folder / "result.json", folder=folder, HF_HUB_OFFLINE=1)
    return json.loads((folder / "result.json").read_text())


def test_columns_have_their_types_and_labels_their_names(loaded):
    """If it failed, ids of labels would have no meaning on the Hub, or pictures be shown as bytes."""
    texts = dict.fromkeys(("id", "language", "source"), "Value")
    for found in loaded.values():
        assert found["columns"] == texts | {"tokens": "List", "ner_tags": "List", "image": "Image"}
    assert loaded["mmner None False"]["labels"] == bio_labels(["PER", "LOC", "ORG", "MISC"])
    assert loaded["small None False"]["labels"] == bio_labels(["LOC", "MISC", "PER", "ORG"])


def test_rows_are_those_that_were_built_loaded_or_streamed(folder, loaded):
    """If it failed, the Hub would give other posts or pictures than the corpus has."""
    texts = ("id", "tokens", "ner_tags", "language", "source")
    for split, found in loaded["small None False"]["rows"].items():
        for row, post in zip(found, rows_of(folder / "small" / "built", split), strict=True):
            assert [row[column] for column in texts] == [post[column] for column in texts]
            path = folder / "images" / f"{post['id']}.jpg"
            picture = described(path) if path.exists() else {"file": None, "pixels": None}
            assert {"file": row["file"], "pixels": row["pixels"]} == picture
    streamed = {name: found for name, found in loaded.items() if name.endswith("True")}
    assert len(streamed) == len(loaded) / 2
    for name, found in streamed.items():
        assert found == loaded[name.replace("True", "False")]


def test_configs_are_loaded_by_name(loaded):
    """If it failed, the card would name files of a config that are not its own."""
    ids = {
        name: [row["id"] for row in loaded[f"mmner {name} False"]["rows"]["train"]]
        for name in (None, "en", "fr", "en_plus_fr")
    }
    assert ids == {None: ["1"], "en": ["1"], "fr": ["2---x", "3"], "en_plus_fr": ["1"]}
    assert loaded["small None False"] == loaded["small default False"]
