"""The Python examples of a model card, run in another process from the Hub's cache, without the package."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.elsewhere import run_elsewhere
from tests.outlines import programs
from tests.saved import save_small

RUN = """
import json, sys
for example in json.loads(sys.argv[1]):
    exec(compile(example, "example", "exec"), {})
"""


@pytest.mark.slow
def test_examples_of_the_cards_run_at_the_pinned_tag(tmp_path: Path) -> None:
    """If it failed, what a user copies from a card would not run, or load what the tag does not pin."""
    examples = []
    for recipe in ("quickstart", "bert-crf"):
        folder = save_small(tmp_path / recipe, recipe=recipe)
        examples += programs((folder / "README.md").read_text("utf-8"))
        # Only the tag is in the cache and no branch main: what does not pin it finds nothing.
        repository = tmp_path / "cache" / f"models--org--{recipe}"
        shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "v0.1.0").write_text("0" * 40)
    Image.linear_gradient("L").save(tmp_path / "picture.jpg")
    assert len(examples) == 6

    done = run_elsewhere(
        RUN, json.dumps(examples), folder=tmp_path, HF_HUB_CACHE=tmp_path / "cache", HF_HUB_OFFLINE=1
    )
    printed = [ast.literal_eval(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(printed) == 4
    for from_pipeline, (from_model, second) in (printed[:2], printed[2:]):
        assert len(from_pipeline) == len(from_model) > 0 and isinstance(second, list)
        for one, other in zip(from_pipeline, from_model, strict=True):
            assert list(one) == ["entity_group", "score", "word", "start", "end"]
            assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-4)
            assert one == other
