"""The README's pictures, the links of all READMEs, and the notebook as it is stored."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_scripts.opening import open_corpus
from modeling_mmner.model.images_mmner import load_picture

ROOT = Path(__file__).parents[1]


@pytest.fixture
def check_readme(monkeypatch):
    """The script that runs the READMEs' blocks."""
    spec = importlib.util.spec_from_file_location("check_readme", ROOT / ".ci" / "check_readme.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.chdir(ROOT)
    return script


def test_pictures_of_the_readme_are_those_that_its_command_writes():
    """If it failed, the README would show other drawings than a reader finds in outputs/sample."""
    posts = {post["id"]: post for post in open_corpus("sample", config="en").splits["test"]}
    for post_id, name in (("en-test-0144", "place"), ("en-test-0197", "person")):
        assert posts[post_id]["tokens"][0] == "Montana"
        drawn = np.asarray(load_picture(posts[post_id]["image"]).convert("RGB"), dtype=int)
        with Image.open(ROOT / "dataset_scripts" / "sample" / f"montana_{name}.png") as shown:
            difference = np.abs(drawn - np.asarray(shown.convert("RGB"), dtype=int)).mean()
        assert difference < 8  # of 255: versions of Pillow draw edges otherwise


def test_links_of_the_readmes_lead_somewhere(check_readme):
    """If it failed, a reader would be sent to a page that is not there."""
    pages = check_readme.pages()
    assert len(pages) >= 10
    assert {page: check_readme.dead_links(page) for page in pages} == {page: [] for page in pages}


def test_stored_notebook_is_a_whole_run_and_small():
    """If it failed, a reader on the web would see cells without what they give, out of order, or an error."""
    path = ROOT / "modeling_mmner" / "inference" / "first_hour.ipynb"
    cells = [cell for cell in json.loads(path.read_bytes())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = [output for cell in cells[1:] for output in cell["outputs"]]
    assert all(cell["outputs"] for cell in cells[1:])
    assert {output["output_type"] for output in shown} <= {"stream", "execute_result"}
    assert {output["name"] for output in shown if output["output_type"] == "stream"} == {"stdout"}
    assert path.stat().st_size < 300_000
