"""What small models say in this process, and other processes, without the package, that must say the same."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor, MultimodalNERPipeline
from modeling_mmner.assembly import train_tokenizer
from tests.tiny import LABELS, SYSTEMS, ready_model

TEXTS = ["Jordan posts from Paris", "nothing to see"]
PACKAGES = ("modeling_mmner", "dataset_scripts")

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""

LOADED = """
import json, sys, traceback
import torch, transformers
from PIL import Image

models, autos, texts, picture, target = map(json.loads, sys.argv[1:])
picture = Image.open(picture)

def load(options):
    found, repository = {}, options.pop("push_to", None)
    processor = transformers.AutoProcessor.from_pretrained(**options, trust_remote_code=True)
    inputs = processor(text=texts, images=[picture, None], return_tensors="pt")
    for auto in autos:
        model = getattr(transformers, auto).from_pretrained(**options, trust_remote_code=True).eval()
        with torch.no_grad():
            outputs = model(**inputs)
        entities = processor.post_process_entities(outputs, text=texts)
        found[auto] = {"inputs": dict(inputs), "outputs": dict(outputs), "entities": entities}
    if repository:
        model.push_to_hub(repository)
        processor.push_to_hub(repository)
    options["model"] = options.pop("pretrained_model_name_or_path")
    pipe = transformers.pipeline("multimodal-ner", **options, trust_remote_code=True)
    return found | {"pipeline": pipe([{"text": texts[0], "image": picture}, texts[1]])}

results = {}
for key, options in models.items():
    try:
        results[key] = load(options)
    except Exception:
        results[key] = {"error": traceback.format_exc()}
torch.save(results, target)
"""


def small_system(name: str, *, seed: int = 0) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """One of `SYSTEMS` with a tokenizer for `TEXTS`."""
    tokenizer = train_tokenizer([text.split() for text in TEXTS], 100)
    model = ready_model(**SYSTEMS[name], text={"vocab_size": len(tokenizer)}, seed=seed)
    return model, MMNERProcessor(tokenizer, labels=LABELS, image_size=64)


def run_elsewhere(
    script: str,
    *arguments: object,
    folder: Path,
    blocked: Sequence[str] = PACKAGES,
    check: bool = True,
    **environment: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, which starts in `folder`, has its caches there and cannot import `blocked`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_", "PYTHONPATH"))}
    added = {"HF_HOME": folder / "home", "HF_HUB_DISABLE_TELEMETRY": 1, "OMP_NUM_THREADS": 1} | environment
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=tuple(blocked)) + script, *map(str, arguments)],
        cwd=folder,
        env=kept | {key: str(value) for key, value in added.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr[-2000:]
    return done


def load_elsewhere(
    models: Mapping[str, Mapping[str, str]],
    *,
    autos: Sequence[str] = ("AutoModel", "AutoModelForTokenClassification"),
    picture: Path,
    folder: Path,
    **environment: Any,
) -> dict[str, dict[str, Any]]:
    """Load models in another process, each by the keyword arguments of `from_pretrained`; returns what they say there.

    With ``push_to`` among them, model and processor are pushed there.

    Returns:
        For each model what `said` returns, by Auto class, and its ``"pipeline"``; or ``{"error": the traceback}``.
    """
    target = folder / "loaded.pt"
    arguments = map(json.dumps, (models, autos, TEXTS, str(picture), str(target)))
    run_elsewhere(LOADED, *arguments, folder=folder, **environment)
    return torch.load(target, weights_only=False)


def said(folder: Path, *, picture: Path) -> dict[str, Any]:
    """What a saved model says of `TEXTS`, the first of which has the picture, in this process."""
    model = MMNERForTokenClassification.from_pretrained(folder).eval()
    processor = MMNERProcessor.from_pretrained(folder)
    inputs = processor(TEXTS, images=[Image.open(picture), None])
    with torch.no_grad():
        outputs = model(**inputs)
    return {
        "inputs": dict(inputs),
        "outputs": dict(outputs),
        "entities": processor.post_process_entities(outputs, text=TEXTS),
        "pipeline": MultimodalNERPipeline(model=model, processor=processor)([{"text": TEXTS[0], "image": picture}, TEXTS[1]]),
    }


def assert_says_as(found: Mapping[str, Any], folder: Path, *, picture: Path) -> None:
    """Check that one of `load_elsewhere` says what the model in a folder says here, bit for bit.

    The model here is loaded, too: weights in memory lie otherwise aligned than those of a file, which can change a last bit.
    """
    assert "error" not in found, found["error"]
    expected = said(folder, picture=picture)
    for auto in found.keys() - {"pipeline"}:
        assert_same(found[auto], expected)
    assert found["pipeline"] == expected["pipeline"]


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Check that a model says here and elsewhere the same, bit for bit."""
    assert found["entities"] == expected["entities"]
    for part in ("inputs", "outputs"):
        assert found[part].keys() == expected[part].keys()
        for name, tensor in expected[part].items():
            assert torch.equal(found[part][name], tensor), f"{part} {name} differs"
