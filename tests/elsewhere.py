"""What small models say in this process, and other processes, without the package, that must say the same."""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor, MultimodalNERPipeline
from modeling_mmner.model.pipeline_mmner import TASKS
from tests.tiny import SYSTEMS, parts_of

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

models, autos, tasks, texts, picture, target = map(json.loads, sys.argv[1:])
picture = Image.open(picture)

def load(options, tasks):
    found, repository = {}, options.pop("push_to", None)
    processor = transformers.AutoProcessor.from_pretrained(**options, trust_remote_code=True)
    inputs = processor(text=texts, images=[picture, None], return_tensors="pt")
    for auto in autos:
        model = getattr(transformers, auto).from_pretrained(**options, trust_remote_code=True).eval()
        with torch.no_grad():
            outputs = model(**inputs)
        entities = processor.post_process_entities(outputs, text=texts)
        found[auto] = {"inputs": dict(inputs), "outputs": dict(outputs), "entities": entities}
    transformers.pipeline("multimodal-ner", model=model, processor=processor)  # the task is known by its code
    if repository:
        model.push_to_hub(repository)
        processor.push_to_hub(repository)
    options["model"] = options.pop("pretrained_model_name_or_path")
    pipes = [transformers.pipeline(task, **options, trust_remote_code=True) for task in tasks]
    first, *others = [pipe([{"text": texts[0], "image": picture}, texts[1]]) for pipe in pipes]
    assert all(other == first for other in others), others
    return found | {"pipeline": first}

results = {}
for key, options in models.items():
    try:
        results[key] = load(options, tasks[:1] if results else tasks)
    except Exception:
        results[key] = {"error": traceback.format_exc()}
torch.save(results, target)
"""


def small_system(name: str, *, seed: int = 0) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """One of `SYSTEMS` with a tokenizer for `TEXTS`."""
    return parts_of(SYSTEMS[name], posts=[text.split() for text in TEXTS], seed=seed)


# Loads once what every script needs and what reads nothing of its environment, and forks for each script.
LOADER = """
import json, os, sys, traceback
import PIL.Image, httpx, numpy, regex, safetensors.torch, tokenizers, torch, torchvision, tqdm, yaml

for line in sys.stdin:
    job = json.loads(line)
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    code = 1
    try:
        for number, path in ((0, os.devnull), (1, job["stdout"]), (2, job["stderr"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environment"])
        sys.argv, sys.path[0] = ["-c", *job["arguments"]], ""
        exec(compile(job["script"], "<script>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""


@cache
def loader() -> subprocess.Popen[str]:
    """The one process that runs the scripts of the whole test run."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", LOADER], env=clean_environment(), **pipes)
    atexit.register(process.kill)
    return process


def clean_environment(**added: Any) -> dict[str, str]:
    """The environment without what steers transformers and the Hub, and with `added`."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "TRANSFORMERS_", "PYTHONPATH"))
    }
    return kept | {"OMP_NUM_THREADS": "1"} | {key: str(value) for key, value in added.items()}


def run_elsewhere(
    script: str,
    *arguments: object,
    folder: Path,
    blocked: Sequence[str] = PACKAGES,
    check: bool = True,
    **environment: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, which starts in `folder`, has its caches there and cannot import
    `blocked`.
    """
    script = BLOCKED.format(blocked=tuple(blocked)) + script
    environment = clean_environment(
        **{"HF_HOME": folder / "home", "HF_HUB_DISABLE_TELEMETRY": 1} | environment
    )
    if "torch" in blocked or "PYTHONPATH" in environment:  # for which the loader's own state is no good
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    else:
        with TemporaryDirectory() as outputs:
            places = {name: str(Path(outputs) / name) for name in ("stdout", "stderr")}
            job = {
                "script": script,
                "arguments": [*map(str, arguments)],
                "folder": str(folder),
                "environment": environment,
            } | places
            print(json.dumps(job), file=loader().stdin, flush=True)
            code = int(loader().stdout.readline())
            said = {name: Path(place).read_text(encoding="utf-8") for name, place in places.items()}
            done = subprocess.CompletedProcess(script, code, **said)
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
    """Load models in another process, each by the keyword arguments of `from_pretrained`; returns what they
    say there.

    With ``push_to`` among them, model and processor are pushed there.

    Returns:
        For each model what `said` returns, by Auto class, and its ``"pipeline"``, of the first model the
        same by each of its names; or ``{"error": the
        traceback}``.
    """
    target = folder / "loaded.pt"
    arguments = map(json.dumps, (models, autos, TASKS, TEXTS, str(picture), str(target)))
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
        "pipeline": MultimodalNERPipeline(model=model, processor=processor)(
            [{"text": TEXTS[0], "image": picture}, TEXTS[1]]
        ),
    }


def assert_says_as(found: Mapping[str, Any], folder: Path, *, picture: Path) -> None:
    """Check that one of `load_elsewhere` says what the model in a folder says here, bit for bit.

    The model here is loaded, too: weights in memory lie otherwise aligned than those of a file, which can
    change a last bit.
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
