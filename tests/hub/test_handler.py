"""The file by which an Inference Endpoint runs a model: what it answers and what it refuses, always JSON."""

import base64
import json
import re
from pathlib import Path

import pytest

from modeling_mmner import MMNERForTokenClassification, MultimodalNERPipeline
from modeling_mmner.hub.handler import EndpointHandler
from modeling_mmner.model.pipeline_mmner import TASKS
from tests.small_posts import RED, SPECKLED, assert_same, encoded, small_parts

TEXT = "Jordan posts from Paris"
RED_BASE64, SPECKLED_BASE64 = (base64.encodebytes(encoded(picture)).decode() for picture in (RED, SPECKLED))


@pytest.fixture(scope="module")
def pipe() -> MultimodalNERPipeline:
    model, processor = small_parts()
    return MultimodalNERPipeline(model=model, processor=processor)


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory) -> Path:
    pipe.save_pretrained(saved := tmp_path_factory.mktemp("endpoint"))
    return saved


@pytest.fixture(scope="module")
def endpoint(folder) -> EndpointHandler:
    return EndpointHandler(str(folder))


def test_endpoint_answers_what_the_pipeline_answers(endpoint, pipe) -> None:
    """If it failed, an endpoint would find other entities than the model does, or lose a picture."""
    posts = [{"text": TEXT, "image": RED}, TEXT, {"tokens": TEXT.split(), "images": [RED, SPECKLED]}]
    expected = pipe(posts, batch_size=8)
    given = [{"text": TEXT, "image": f"data:image/png;base64,{RED_BASE64}"}, {"text": TEXT}]
    given.append({"tokens": TEXT.split(), "images": [RED_BASE64, SPECKLED_BASE64]})
    assert len(expected[0]) > 0 and json.loads(json.dumps(endpoint({"inputs": given}))) == expected
    alone = endpoint({"inputs": {"text": TEXT, "image": encoded(RED)}})
    simple = endpoint({"inputs": TEXT, "parameters": {"aggregation_strategy": "simple"}})
    assert_same([alone, simple], expected[:2])
    assert endpoint({"inputs": [TEXT], "parameters": {"threshold": 1.0}}) == [pipe(TEXT, threshold=1.0)]
    assert endpoint({"inputs": TEXT, "parameters": {"effects": True}}) == pipe(TEXT, effects=True)
    assert "run mmner calibrate" in endpoint({"inputs": TEXT, "parameters": {"precision": 0.9}})["error"]


@pytest.mark.parametrize(
    "place", ["/etc/passwd", "picture.png", "https://example.org/a.png", "file:///a.png"]
)
@pytest.mark.parametrize("form", ["image", "images", "row"])
def test_no_picture_is_opened_or_fetched_by_its_name(endpoint, tmp_path, monkeypatch, place, form) -> None:
    """If it failed, whoever sends posts could read the endpoint's files, or make it call any address."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.png").write_bytes(encoded(RED))
    given = {"image": place, "images": [place], "row": {"path": place}}[form]
    answer = endpoint({"inputs": {"text": TEXT, "image" if form == "row" else form: given}})
    assert "paths and other addresses are not opened" in answer["error"]


@pytest.mark.parametrize(
    ("inputs", "parameters", "message"),
    [
        (None, {}, "post 1: expected a text, or an object with some of the keys text, tokens, .*NoneType"),
        ([TEXT, 5], {}, "post 2: expected a text"),
        (
            [{"role": "user", "content": [{"type": "image", "path": "/a"}]}],
            {},
            r"found the keys \['content', ",
        ),
        (
            TEXT,
            {"image_dir": "/"},
            "parameters: expected an object with some of threshold, precision, effects, aggr",
        ),
        (TEXT, ["threshold"], "parameters: expected an object"),
        (TEXT, {"threshold": 2}, r"threshold: expected a score in 0\.\.1, found 2"),
        (TEXT, {"aggregation_strategy": "max"}, "aggregation_strategy: expected 'simple' or 'first'"),
        ([TEXT] * 65, {}, "expected at most 64 posts, found 65"),
        ([{"tokens": ["a" * 1000] * 50, "context": "b" * 60_000}], {}, "at most 100,000 characters, found"),
        ([{"text": "a", "images": ["AAAA"] * 129}], {}, "at most 128 pictures, found 129"),
        ([{"text": "a", "image": b"a" * 50_000_001}], {}, "at most 50,000,000 bytes of pictures, found"),
    ],
)
def test_what_cannot_be_answered_is_said_in_json(endpoint, inputs, parameters, message) -> None:
    """If it failed, a mistake would end in an error of the server, or a request fill its memory."""
    answer = endpoint({"inputs": inputs, "parameters": parameters})
    assert answer.keys() == {"error"} and re.search(message, answer["error"])


def test_post_that_cannot_be_read_costs_no_other_its_answer(endpoint) -> None:
    """If it failed, one broken picture would lose a whole request."""
    broken, whole = endpoint(
        {"inputs": [{"text": TEXT, "image": base64.b64encode(b"GIF89a").decode()}, TEXT]}
    )
    assert "picture" in broken["error"] and whole == endpoint({"inputs": TEXT})


def test_folder_of_before_has_all_names_when_it_is_saved_again(pipe, folder, tmp_path) -> None:
    """If it failed, the Hub's own snippet would meet the stock pipeline for an older model."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert set(config["custom_pipelines"]) == set(TASKS)
    del config["custom_pipelines"]["ner"], config["custom_pipelines"]["token-classification"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert EndpointHandler(str(folder))({"inputs": TEXT}) == pipe(TEXT)
    MMNERForTokenClassification.from_pretrained(folder).save_pretrained(tmp_path)
    again = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert set(again["custom_pipelines"]) == set(TASKS)
