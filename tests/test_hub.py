"""The saved folder as a user of the Hub meets it: another process, no package, a cache with the folder in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from modeling_mmner import MMNERProcessor
from modeling_mmner.building import train_tokenizer
from modeling_mmner.hub import save_hub_folder
from tests.tiny import LABELS, SYSTEMS, ready_model

TEXTS = ["Jordan posts from Paris", "nothing to see"]

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""

LOADED = """
import sys, torch
from PIL import Image
from transformers import {auto}, AutoProcessor
results = {{}}
for name in {names!r}:
    model = {auto}.from_pretrained(f"org/{{name}}", trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(f"org/{{name}}", trust_remote_code=True)
    inputs = processor(text={texts!r}, images=[Image.open(sys.argv[1]), None], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    entities = processor.post_process_entities(outputs, text={texts!r})
    results[name] = {{"outputs": dict(outputs), "entities": entities, "inputs": dict(inputs)}}
torch.save(results, sys.argv[2])
"""


def publish(name: str, folder: Path, picture: Path) -> dict[str, Any]:
    """Put a system's model into a simulated Hub cache; what it says of the texts and the picture in this process."""
    tokenizer = train_tokenizer([text.split() for text in TEXTS], 100)
    model = ready_model(**SYSTEMS[name], text={"vocab_size": len(tokenizer)})
    processor = MMNERProcessor(tokenizer, labels=LABELS, image_size=64)
    save_hub_folder(model, processor, folder=folder / name, card="# card")

    repository = folder / "cache" / f"models--org--{name}"
    shutil.copytree(folder / name, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)

    inputs = processor(TEXTS, images=[Image.open(picture), None])
    with torch.no_grad():
        outputs = model(**inputs)
    entities = processor.post_process_entities(outputs, text=TEXTS)
    return {"inputs": dict(inputs), "outputs": dict(outputs), "entities": entities}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of the cache with a model of each system, a picture, and what the models say here."""
    folder = tmp_path_factory.mktemp("published")
    picture = folder / "picture.png"
    Image.linear_gradient("L").save(picture)
    return {"folder": folder, "picture": picture, "systems": {name: publish(name, folder, picture) for name in SYSTEMS}}


def run_elsewhere(published, script: str, *arguments: object, blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own that sees the cache, no network, and none of the blocked modules."""
    folder = published["folder"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_MODULES_CACHE": str(folder / "modules"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", BLOCKED.format(blocked=blocked) + script, *map(str, arguments)]
    return subprocess.run(command, cwd=folder / "cache", env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("auto", ["AutoModel", "AutoModelForTokenClassification"])
def test_loads_from_the_hub_without_the_package(published, tmp_path: Path, auto: str) -> None:
    """If it failed, the Hub folder would lack code or settings, or the travelling code would compute something else."""
    result = tmp_path / "result.pt"
    script = LOADED.format(auto=auto, names=list(SYSTEMS), texts=TEXTS)
    done = run_elsewhere(published, script, published["picture"], result, blocked=("modeling_mmner", "dataset_scripts"))
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = torch.load(result, weights_only=False)
    for system, expected in published["systems"].items():
        assert loaded[system]["entities"] == expected["entities"]
        for part in ("inputs", "outputs"):
            assert loaded[system][part].keys() == expected[part].keys()
            for name, tensor in expected[part].items():
                assert torch.equal(loaded[system][part][name], tensor), f"{system} {part} {name} differs"


def test_missing_crf_package_is_named_rightly(published) -> None:
    """If it failed, users without pytorch-crf would be sent to install another package."""
    script = 'from transformers import AutoModel\nAutoModel.from_pretrained("org/mlmner", trust_remote_code=True)'
    done = run_elsewhere(published, script, blocked=("modeling_mmner", "torchcrf"))
    assert done.returncode != 0
    assert "pip install pytorch-crf" in done.stderr


def test_travelling_files_are_those_with_the_suffix(published) -> None:
    """If it failed, a file would travel that the loader cannot follow, or one would stay behind."""
    package = Path(__file__).parents[1] / "modeling_mmner"
    travelling = {path.name for path in package.glob("*_mmner.py")}
    for system in SYSTEMS:
        assert {path.name for path in (published["folder"] / system).glob("*.py")} == travelling
