"""Models that are objects, made by the code that travels with them, in a process without the package."""

import json
import sys

import pytest

from modeling_mmner import MultimodalNERPipeline
from tests.elsewhere import PACKAGES, run_elsewhere
from tests.small_posts import small_parts

OBJECTS = """
import json, sys
from transformers import AutoModelForTokenClassification, AutoProcessor, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

loading = {"pretrained_model_name_or_path": sys.argv[1], "trust_remote_code": True}
model = AutoModelForTokenClassification.from_pretrained(**loading)
pipe = pipeline("multimodal-ner", model=model, processor=AutoProcessor.from_pretrained(**loading))
print(json.dumps(pipe("Jordan posts from Paris")))
"""
WITH_PACKAGE = """
import modeling_mmner
registered = lambda: PIPELINE_REGISTRY.supported_tasks["multimodal-ner"]["impl"]
assert registered() is type(pipe) is not modeling_mmner.MultimodalNERPipeline, registered()
import modeling_mmner.model.pipeline_mmner
assert registered() is modeling_mmner.MultimodalNERPipeline, registered()
AutoModelForTokenClassification.from_pretrained(**loading)
assert registered() is modeling_mmner.MultimodalNERPipeline, registered()
"""


@pytest.mark.slow
@pytest.mark.parametrize("blocked", [PACKAGES, ()], ids=["package absent", "package present"])
def test_task_is_known_where_only_the_model_s_code_is(tmp_path, blocked) -> None:
    """Regression: pipeline("multimodal-ner", model=model) of a merged or tuned model was an unknown task.

    Where the package is there, too, the task is the package's, whichever of the two is imported first.
    """
    parts = small_parts()
    for part in parts:
        part.save_pretrained(tmp_path / "model")
    script, options = (
        (OBJECTS, {}) if blocked else (OBJECTS + WITH_PACKAGE, {"PYTHONPATH": ":".join(sys.path)})
    )
    done = run_elsewhere(script, tmp_path / "model", folder=tmp_path, blocked=blocked, **options)
    expected = MultimodalNERPipeline(model=parts[0], processor=parts[1])("Jordan posts from Paris")
    assert expected and json.loads(done.stdout) == [
        one | {"score": pytest.approx(one["score"], abs=1e-5)} for one in expected
    ]
    assert "already registered" not in done.stderr
