"""The saved folder as a user of the Hub meets it: another process, no package, a cache that has it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor, MultimodalNERPipeline
from modeling_mmner.hub.push import save_hub_folder
from tests.elsewhere import TEXTS, assert_says_as, load_elsewhere, run_elsewhere, small_system
from tests.small_metrics import run_metrics
from tests.small_posts import assert_same
from tests.tiny import SYSTEMS

SAVED_AGAIN = """
import json, sys
from transformers import pipeline
posts, names = map(json.loads, sys.argv[1:])
found = {}
for name in names:
    for saved in (f"org/{name}", f"piped/{name}"):
        pipe = pipeline("ner", model=saved, trust_remote_code=True, batch_size=2)
        pipe.save_pretrained(f"again/{saved}")
        again = pipeline("multimodal-ner", model=f"again/{saved}", trust_remote_code=True, num_workers=2)
        found[saved] = [pipe(posts), again(posts)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder with a picture, a model of each system, and a Hub cache that has them, too."""
    folder = tmp_path_factory.mktemp("published")
    Image.linear_gradient("L").save(folder / "picture.png")
    for name in SYSTEMS:
        save_hub_folder(*small_system(name), folder=folder / name, metrics=run_metrics())
        repository = folder / "cache" / f"models--org--{name}"
        shutil.copytree(folder / name, repository / "snapshots" / ("0" * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
    return folder


def from_cache(published: Path) -> dict[str, Any]:
    """The environment of a user who is offline and has the models."""
    return {"HF_HUB_CACHE": published / "cache", "HF_HUB_OFFLINE": 1}


def test_loads_from_the_hub_without_the_package(published) -> None:
    """If it failed, the Hub folder would lack code, or the travelling code compute something else."""
    models = {name: {"pretrained_model_name_or_path": f"org/{name}"} for name in SYSTEMS}
    picture = published / "picture.png"
    loaded = load_elsewhere(models, picture=picture, folder=published, **from_cache(published))
    for system in SYSTEMS:
        assert_says_as(loaded[system], published / system, picture=picture)


@pytest.mark.slow
def test_pipelines_saved_here_and_elsewhere_are_whole(published) -> None:
    """If it failed, a saved pipeline would lack its code, its processor or its task."""
    posts = [{"text": TEXTS[0], "image": str(published / "picture.png")}, TEXTS[1]]
    expected = {}
    for name in SYSTEMS:
        folder = published / name
        model = MMNERForTokenClassification.from_pretrained(folder)
        processor = MMNERProcessor.from_pretrained(folder)
        pipe = MultimodalNERPipeline(model=model, processor=processor, batch_size=2)
        pipe.save_pretrained(published / "piped" / name)
        expected |= {f"org/{name}": [pipe(posts)] * 2, f"piped/{name}": [pipe(posts)] * 2}
    done = run_elsewhere(
        SAVED_AGAIN, json.dumps(posts), json.dumps(list(SYSTEMS)), folder=published, **from_cache(published)
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(entities for entities in expected["org/mlmner"][0])
    for saved, entities in expected.items():
        assert_same([*found[saved][0], *found[saved][1]], entities[0] + entities[1])


@pytest.mark.slow
def test_missing_crf_package_is_named_rightly(published) -> None:
    """If it failed, users without pytorch-crf would be sent to install another package."""
    script = (
        "from transformers import AutoModel as A; A.from_pretrained('org/mlmner', trust_remote_code=True)"
    )
    options = {"blocked": ("modeling_mmner", "torchcrf"), "check": False}
    done = run_elsewhere(script, folder=published, **options, **from_cache(published))
    assert done.returncode != 0 and "pip install pytorch-crf" in done.stderr
