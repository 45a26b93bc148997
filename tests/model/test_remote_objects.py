"""Models that are objects, made by the code that travels with them, in a process without the package."""

import json

import pytest

from modeling_mmner import MultimodalNERPipeline
from tests.elsewhere import BLOCKED, run_elsewhere
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
import modeling_mmner.model.pipeline_mmner
classes = PIPELINE_REGISTRY.supported_tasks["multimodal-ner"]["impl"], type(pipe)
assert classes[0] is modeling_mmner.MultimodalNERPipeline and classes[1] is not classes[0], classes
AutoModelForTokenClassification.from_pretrained(**loading)
assert PIPELINE_REGISTRY.supported_tasks["multimodal-ner"]["impl"] is classes[0]
"""


@pytest.mark.parametrize("more", ["", WITH_PACKAGE], ids=["package absent", "package imported later"])
def test_task_is_known_where_only_the_model_s_code_is(tmp_path, more) -> None:
    """Regression: pipeline("multimodal-ner", model=model) of a merged or tuned model was an unknown task."""
    parts = small_parts()
    for part in parts:
        part.save_pretrained(tmp_path / "model")
    blocked = ["nothing"] if more else None
    options = {"blocked": blocked, "PYTHONPATH": ":".join(__import__("sys").path)} if more else {}
    done = run_elsewhere(OBJECTS + more, tmp_path / "model", folder=tmp_path, **options)
    pipe = MultimodalNERPipeline(model=parts[0], processor=parts[1])
    found, expected = json.loads(done.stdout), pipe("Jordan posts from Paris")
    places = [[(one["word"], one["start"]) for one in entities] for entities in (found, expected)]
    assert places[0] == places[1] != []
    assert "already registered" not in done.stderr
