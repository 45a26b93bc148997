"""The pipeline: its options, its pictures (broken ones, and those on the web), and the models that it
serves.
"""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import pipeline

from modeling_mmner import MultimodalNERPipeline
from modeling_mmner.model import prediction_mmner
from modeling_mmner.model.images_mmner import FORMATS, PictureError
from tests.model.test_images import POSTSCRIPT
from tests.picture_server import picture_server
from tests.small_posts import POSTS, RED, ROWS, SPECKLED, TEXTS, assert_same, by_hand, encoded, small_parts
from tests.tiny import SYSTEMS

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(scope="module")
def parts():
    return small_parts(**SYSTEMS["mlmner"])


@pytest.fixture(scope="module")
def pipe(parts):
    model, processor = parts
    return pipeline("multimodal-ner", model=model, processor=processor)


@pytest.fixture(scope="module")
def expected(parts):
    """The entities of `POSTS`."""
    return [by_hand(parts, text, pictures) for text, pictures in POSTS]


def test_options_of_a_call_are_those_of_the_pipeline_unless_given(parts, monkeypatch, expected) -> None:
    """If it failed, options at construction would be lost, or not be overridden, as 0 workers once."""
    model, processor = parts
    loaders = []

    class Noted(DataLoader):
        def __init__(self, dataset: Any, **options: Any) -> None:
            loaders.append((options["batch_size"], options["num_workers"]))
            super().__init__(dataset, **options | {"num_workers": 0})

    monkeypatch.setattr(prediction_mmner, "DataLoader", Noted)
    given = {"threshold": 0.2, "batch_size": 4, "num_workers": 2, "broken_pictures": "skip"}
    pipe = pipeline("multimodal-ner", model=model, processor=processor, **given)
    strong = [[one for one in entities if one["score"] >= 0.2] for entities in expected]
    assert 0 < sum(map(len, strong)) < sum(map(len, expected))
    assert_same(pipe(ROWS), strong)
    assert_same(pipe(ROWS, threshold=0.0, batch_size=1, num_workers=0), expected)
    assert_same(pipe(ROWS), strong)
    assert_same([pipe(row, threshold=0) for row in ROWS], expected)
    assert loaders == [(4, 2), (4, 2)]  # no process is started where none is asked for, nor for a single post
    with pytest.raises(PictureError):
        pipe({"text": "Paris", "image": "not/there.png"}, broken_pictures="raise")


NO_SCORE = "threshold: expected a score in 0..1, found"


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        (
            {"treshold": 0.5},
            TypeError,
            r"unknown options \['treshold'\]; expected some of allow_urls, batch_size, ",
        ),
        ({"threshold": 1.5}, ValueError, f"{NO_SCORE} 1.5"),
        ({"threshold": float("nan")}, ValueError, f"{NO_SCORE} nan"),
        ({"threshold": "0.5"}, ValueError, f"{NO_SCORE} '0.5'"),
        ({"threshold": None}, ValueError, f"{NO_SCORE} None"),
        ({"broken_pictures": "no"}, ValueError, "broken_pictures: expected 'raise' or 'skip', found 'no'"),
        *(
            (
                {"aggregation_strategy": name},
                ValueError,
                "expected 'simple' or 'first', found .* words are tag",
            )
            for name in ("none", "average", "max", None)
        ),
        ({"broken_posts": "skip"}, ValueError, "broken_posts: expected 'raise' or 'return', found 'skip'"),
    ],
)
def test_options_that_nobody_knows_are_errors(parts, pipe, option, error, message) -> None:
    """If it failed, a misspelt option would be ignored without a word."""
    model, processor = parts
    with pytest.raises(error, match=message):
        pipeline("multimodal-ner", model=model, processor=processor, **option)
    with pytest.raises(error, match=message):
        pipe(iter(ROWS), **option)
    with pytest.raises(ValueError, match="batch_size"):
        pipe(ROWS, batch_size=0)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with picture_server() as running:
        running.serve("/1.png", encoded(SPECKLED))
        running.serve("/2.png", encoded(RED))
        running.serve("/page.html", b"<html>Not found</html>")
        running.serve("/moved.png", "/1.png")
        yield running


def test_pictures_are_fetched_only_when_that_is_asked_for(pipe, server) -> None:
    """If it failed, whoever writes posts could make the machine that reads them call any address."""
    url = server.address + "/1.png"
    for picture in (url, {"bytes": None, "path": url}, [url]):
        with pytest.raises(PictureError) as refused:
            pipe(["Paris", "Jordan"], images=[None, picture])
        assert str(refused.value) == (
            f"post 2: picture {url}: expected one at hand, found one on the web; allow_urls=True fetches it;"
            " broken_pictures='skip' goes on without it"
        )
        assert pipe("Jordan", images=picture, broken_pictures="skip") == pipe("Jordan")
    assert server.requests == []


def test_fetched_pictures_are_those_at_hand(pipe, parts, server) -> None:
    """If it failed, a picture on the web would be read as another, in another order, or more than once."""
    first, second, moved = (server.address + path for path in ("/1.png", "/2.png", "/moved.png"))
    chat = [
        {"role": "user", "content": [{"type": "image", "url": first}, {"type": "text", "text": "from Paris"}]}
    ]
    posts = [
        ({"text": "from Paris", "image": first}, [SPECKLED]),
        ({"text": "from Paris", "image": {"bytes": None, "path": second}}, [RED]),
        ({"text": "from Paris", "image": {"bytes": encoded(RED), "path": first}}, [RED]),
        ({"text": "from Paris", "images": [second, first]}, [RED, SPECKLED]),
        ({"text": "from Paris", "image": moved}, [SPECKLED]),
        (chat, [SPECKLED]),
    ]
    expected = [by_hand(parts, "from Paris", pictures) for _, pictures in posts]
    assert_same(pipe([post for post, _ in posts], allow_urls=True, batch_size=2), expected)
    paths = sorted(path for path, _ in server.requests)  # several at a time
    assert paths == ["/1.png", "/1.png", "/1.png", "/1.png", "/2.png", "/2.png", "/moved.png"]


NO_FORMAT = f"expected one of the formats {', '.join(FORMATS)}, found none of them; save it as one of them"
BROKEN = {
    "/not/there.png": "picture /not/there.png: expected a file, found none",
    "file:///etc/hostname": "picture file:///etc/hostname: expected a file, found none",
    "ftp://127.0.0.1/1.png": "picture ftp://127.0.0.1/1.png: expected a file, found none",
    "{server}/missing.png": (
        "picture {server}/missing.png: expected to fetch it, found HTTP Error 404: Not Found"
    ),
    "{server}/page.html": f"picture 22 bytes: {NO_FORMAT}",
    "data:image/png;base64,": f"picture 0 bytes: {NO_FORMAT}",
    "data:image/png;base64,iVBORw": (
        "picture data:image/png;base64,iVBORw...: expected base64, found Incorrect padding"
    ),
    b"no picture": f"picture 10 bytes: {NO_FORMAT}",
    POSTSCRIPT: f"picture 86 bytes: {NO_FORMAT}",
    3: (
        "picture: expected a PIL image, a path, bytes, an open file, an array (H, W), (H, W, 1/3/4) or (3, H,"
        " W), or a row with 'bytes' or 'path', found int"
    ),
}


def test_options_of_loading_reach_the_model(parts, expected, tmp_path) -> None:
    """Regression: `model_kwargs` that AutoModel takes were refused as unknown keys of the config."""
    for part in parts:
        part.save_pretrained(tmp_path)
    nothing = dict.fromkeys(["key_mapping", "tp_plan", "state_dict", "gguf_file"])
    options = nothing | {"weights_only": True, "use_kernels": False}
    pipe = pipeline("multimodal-ner", str(tmp_path), model_kwargs=options, trust_remote_code=True)
    assert_same(pipe(ROWS), expected)


@pytest.mark.parametrize(("picture", "message"), BROKEN.items())
def test_a_broken_picture_is_an_error_or_left_out(pipe, parts, server, caplog, picture, message) -> None:
    """If it failed, a broken picture would end a run though told not to, or be passed over in silence."""
    if isinstance(picture, str):
        picture = picture.replace("{server}", server.address)
    message = "post 2: " + message.replace("{server}", server.address)
    posts = [{"text": "Paris"}, {"text": "from Paris", "images": [RED, picture]}]
    with pytest.raises(PictureError) as refused:
        pipe(posts, allow_urls=True)
    assert str(refused.value) == f"{message}; broken_pictures='skip' goes on without it"
    with caplog.at_level(logging.WARNING):
        _, found = pipe(posts, allow_urls=True, broken_pictures="skip")
    assert found == by_hand(parts, "from Paris", [RED])
    assert message.replace("post 2:", "post 2 read without its picture:") in caplog.text


def test_a_model_of_text_alone_opens_no_picture(server) -> None:
    """If it failed, posts would be refused for pictures that nobody looks at, or fetched for nothing."""
    parts = small_parts(fusion="text-only", objectives={"crf": 1.0})
    pipe = pipeline("multimodal-ner", model=parts[0], processor=parts[1], allow_urls=True)
    expected = [by_hand(parts, text, []) for text in TEXTS]
    assert any(expected)
    for picture in (RED, "/not/there.png", server.address + "/1.png", None):
        assert_same(pipe([{"text": text, "image": picture} for text in TEXTS], batch_size=4), expected)
    assert server.requests == []


def test_a_pipeline_needs_a_processor(parts) -> None:
    """If it failed, the error would come with the first post, and not say what to do."""
    with pytest.raises(
        ValueError, match=r"multimodal-ner: expected a processor, found none; .* processor=processor\)"
    ):
        MultimodalNERPipeline(model=parts[0])
    with pytest.raises(Exception, match="Please provide a processor instance"):
        pipeline("multimodal-ner", model=parts[0])


def test_a_model_that_is_being_trained_is_used_without_dropout() -> None:
    """If it failed, a model handed over in training mode would answer at random, or not at all."""
    parts = small_parts(**SYSTEMS["mlmner"])
    expected = by_hand(parts, "Jordan posts from Paris", [RED])
    pipe = pipeline("multimodal-ner", model=parts[0].train(), processor=parts[1])
    assert pipe("Jordan posts from Paris", images=RED) == expected


def test_a_model_that_is_trained_on_answers_as_it_will_and_trains_on(parts, expected) -> None:
    """Regression: between two epochs, ner(...) ended in KeyError: 'tags'."""
    model, processor = parts
    pipe = pipeline("multimodal-ner", model=model, processor=processor)
    model.train()
    model.text_tower.eval()  # as who keeps a part still
    before = {name for name, module in model.named_modules() if module.training}
    try:
        assert_same(pipe(ROWS), expected)
        assert before == {name for name, module in model.named_modules() if module.training} != set()
        with torch.no_grad(), pytest.raises(ValueError, match=r"expected tags .* model.eval\(\)"):
            processor.post_process_entities(model(**processor(["Paris"])), text=["Paris"])
    finally:
        model.eval()


def test_a_saved_pipeline_is_whole(pipe, expected, tmp_path: Path) -> None:
    """If it failed, a pipeline saved or pushed would lack its processor, as those of transformers do."""
    pipe.save_pretrained(tmp_path)
    loaded = pipeline("multimodal-ner", model=str(tmp_path), pipeline_class=MultimodalNERPipeline)
    assert_same(loaded(ROWS), expected)
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert {path.name for path in again.iterdir()} == {path.name for path in tmp_path.iterdir()} - {"again"}
    assert_same(
        pipeline("multimodal-ner", model=str(again), pipeline_class=MultimodalNERPipeline)(ROWS), expected
    )


@pytest.mark.parametrize("device", ["cpu", -1, torch.device("cpu"), pytest.param(0, marks=needs_gpu)])
def test_a_pipeline_runs_where_it_is_told(pipe, expected, tmp_path, device) -> None:
    """If it failed, the option would be ignored, or posts stay on another device than the model."""
    pipe.save_pretrained(tmp_path)
    placed = pipeline(
        "multimodal-ner", model=str(tmp_path), pipeline_class=MultimodalNERPipeline, device=device
    )
    assert placed.model.device.type == ("cuda" if device == 0 else "cpu")
    assert_same(placed(ROWS, batch_size=3), expected)


def test_a_pipeline_in_half_precision(parts, tmp_path) -> None:
    """If it failed, dtype=torch.bfloat16 would be ignored, or reach the CRF, which it makes 20% wrong."""
    model, processor = parts
    MultimodalNERPipeline(model=model, processor=processor).save_pretrained(tmp_path)
    options: dict[str, Any] = {"pipeline_class": MultimodalNERPipeline, "dtype": torch.bfloat16}
    pipe = pipeline("multimodal-ner", model=str(tmp_path), **options)
    assert pipe.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in pipe.model.crf.parameters()} == {torch.float32}
    found = [by_hand((pipe.model, processor), text, pictures) for text, pictures in POSTS]
    assert any(found) and [pipe(row) for row in ROWS] == found


def test_a_long_address_makes_no_long_error(pipe) -> None:
    """If it failed, a broken picture given as base64 would fill the screen and the log."""
    post = {"text": "Paris", "image": "data:image/png;base64," + "A" * 100_001}
    with pytest.raises(PictureError) as refused:
        pipe(post)
    assert len(str(refused.value)) < 300
