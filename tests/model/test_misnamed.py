"""What a post has and nobody reads: pictures and contexts under other names, contexts for a model of none."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers.utils import logging

from modeling_mmner import MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.inference.annotator import Annotator
from modeling_mmner.inference.posts_input import open_posts
from modeling_mmner.model.pipeline_mmner import MultimodalNERPipeline
from modeling_mmner.model.posts_mmner import PostError, meant_by
from modeling_mmner.training.collator import MMNERCollator
from tests.small_posts import GRADIENT, RED, encoded, small_parts

MEANT = {
    "image": [
        "img",
        "imgs",
        "Image",
        "IMAGE",
        "picture",
        "photo",
        "Photos",
        "image_path",
        "imagePath",
        "image_url",
    ]
    + [
        "img_file",
        "image_bytes",
        "photo_base64",
        "pic",
        "imagen",
        "foto",
        "Bild",
        "imge",
        "pictures",
        "image1",
    ],
    "context": ["contexts", "Context", "contex"],
    None: [
        "id",
        "image_id",
        "imgid",
        "imageid",
        "text",
        "tokens",
        "caption",
        "language",
        "likes",
        3,
        "imagination",
    ]
    + ["picture_of_the_day", "ner_tags", "file_name", "path", "date"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that reads pictures."""
    path = tmp_path_factory.mktemp("model")
    for part in small_parts():
        part.save_pretrained(path)
    return path


@pytest.mark.parametrize(("meant", "key"), [(meant, key) for meant, keys in MEANT.items() for key in keys])
def test_keys_like_those_that_are_read(meant, key) -> None:
    """If it failed, a misspelt key would go unnoticed, or a column of something else be complained of."""
    assert meant_by(key) == meant


def piped(model, processor) -> MultimodalNERPipeline:
    return MultimodalNERPipeline(model=model, processor=processor)


def said(number: int, key: str, keys: str = "'image' or 'images'") -> str:
    hint = "which nobody reads; rename it, as --columns image="
    return f"post {number}: expected the key {keys}, found {key!r}, {hint}{key} does for annotate"


@pytest.mark.parametrize("key", ["img", "picture", "photo", "image_path"])
def test_pictures_under_another_key_are_told_of(folder, tmp_path, key, capsys) -> None:
    """Regression: such a picture was ignored without a word, wherever posts come in."""
    bad, good = {"text": "Jordan posts", key: encoded(RED)}, {"text": "Paris"}
    pipe = piped(*small_parts())
    with pytest.raises(PostError) as raised:
        pipe([good, bad])
    assert str(raised.value) == said(2, key)
    table = pa.Table.from_pylist([bad, good])
    annotator = Annotator(str(folder), device="cpu")
    assert annotator(table)["error"].to_pylist() == [said(0, key), None]
    pq.write_table(table, tmp_path / "posts.parquet")
    posts = open_posts(str(tmp_path / "posts.parquet"))
    assert [found["error"] for found in annotator.find(posts.read(range(2)))] == [said(0, key), None]
    posts = open_posts(str(tmp_path / "posts.parquet"), columns={"image": key})
    assert [found["error"] for found in annotator.find(posts.read(range(2)))] == [None, None]
    lines = tmp_path / "posts.jsonl"
    lines.write_text(json.dumps({"id": "a", "text": "Paris", key: "1.png"}), encoding="utf-8")
    assert main(["predict", "--model", str(folder), "--input", str(lines), "--device", "cpu"]) == 1
    assert json.loads(capsys.readouterr().out) == {"id": "a", "error": said(1, key)}
    with pytest.raises(PostError, match=f"post 1: expected the key 'image' or 'images', found '{key}'"):
        MMNERCollator(pipe.processor)([{"tokens": ["Paris"], key: RED}])


def test_a_picture_is_known_by_what_it_is() -> None:
    """Regression: `KeyPairDataset` of transformers gives pictures as `text_pair`, WebDataset as `jpg`, which
    were ignored without a word.
    """
    for key in ("text_pair", "jpg", "thumb"):
        with pytest.raises(PostError, match=said(1, key)):
            piped(*small_parts())({"text": "Paris", key: Image.new("RGB", (2, 2))})


def test_columns_beside_the_right_one_are_no_matter(tmp_path) -> None:
    """If it failed, data sets with columns of their own would be refused."""
    pipe = piped(*small_parts())
    expected = pipe("Paris", images=RED)
    row = {"text": "Paris", "image_path": "1.png", "photo": GRADIENT, "likes": 3}
    assert pipe(row | {"image": RED}) == pipe(row | {"images": [RED]}) == pipe(row, images=RED) == expected
    assert pipe(row | {"image": None}) == pipe({"text": "Paris", "photo": None}) == pipe("Paris")
    model, processor = small_parts(fusion="text-only", vision_towers=[], objectives={"crf": 1.0})
    text_only = piped(model, MMNERProcessor(processor.tokenizer, labels=processor.labels, image_size=None))
    assert text_only(row) == text_only("Paris")


def test_contexts_under_another_key_are_told_of() -> None:
    """If it failed, a model that reads contexts would read none, without a word."""
    model, processor = small_parts()
    reading = MMNERProcessor(processor.tokenizer, labels=processor.labels, image_size=64, context_window=8)
    for pipe, says in ((piped(model, reading), True), (piped(model, processor), False)):
        error = pipe({"text": "Paris", "contexts": "a town"}, broken_posts="return")
        assert ("expected the key 'context', found 'contexts'" in str(error)) == says


@pytest.fixture
def told(caplog):
    """What is warned of, as if for the first time."""
    logging.get_logger().warning_once.__func__.cache_clear()
    return caplog


GIVEN = ["a town", ["a town", "in France"]]


@pytest.mark.parametrize("context", GIVEN, ids=["text", "texts"])
@pytest.mark.parametrize("door", ["processor", "processor, several", "pipeline", "post", "data set"])
def test_contexts_that_a_model_does_not_read_are_told_of_once(told, door, context) -> None:
    """Regression: a context for a model that reads none changed nothing, and nobody said so."""
    pipe = piped(*small_parts())
    doors = {
        "processor": lambda: pipe.processor("Paris", context=context),
        "processor, several": lambda: pipe.processor(["Paris", "a"], context=[None, context]),
        "pipeline": lambda: pipe("Paris", context=context),
        "post": lambda: pipe({"text": "Paris", "context": context}),
        "data set": lambda: list(pipe(datasets.Dataset.from_list([{"text": "Paris", "context": context}]))),
    }
    for _ in range(2):
        doors[door]()
    (record,) = [one for one in told.records if "context" in one.getMessage()]
    expected = "context: expected none, for this model reads none, found some, which changes nothing"
    assert record.getMessage() == f"{expected}. Use a model trained with --context, or leave it out"


@pytest.mark.parametrize("nothing", [None, "", [], float("nan"), {"a": 1}])
def test_no_context_is_not_told_of(told, nothing) -> None:
    """If it failed, rows without a context, or with another thing of that name, would be complained of."""
    pipe = piped(*small_parts())
    assert pipe({"text": "Paris", "context": nothing}) == pipe("Paris")
    assert "context" not in told.text
