"""Tests of explanations: what pictures, context and cells did, the drawings, and the command."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageStat

from modeling_mmner import MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.inference.explain import draw_cells, explain, filled, save_explanation, table_lines
from modeling_mmner.model.images_mmner import PictureError
from modeling_mmner.training.vocabulary import train_tokenizer
from tests.tiny import LABELS, TOWER, VIT, tiny_model

WORDS = ["Jordan", "posts", "from", "Paris", "today", "and", "tomorrow"]
TEXT = "Jordan posts from Paris today"
MODELS = {
    "cross-modal": {"fusion": "cross-modal"},
    "two encoders": {"fusion": "collaboration", "vision_towers": [VIT, TOWER | {"pooled": True}]},
    "gvatt": {"fusion": "gvatt"},
    "text alone": {"fusion": "text-only", "vision_towers": [], "objectives": {"crf": 1.0}},
}
WITH_PICTURES = [name for name in MODELS if name != "text alone"]


@pytest.fixture(scope="module")
def make():
    """A function that gives the tiny model of a name and its processor, which reads contexts; made once."""
    made = {}
    tokenizer = train_tokenizer([WORDS], 100)

    def parts(name="cross-modal"):
        if name not in made:
            size = None if name == "text alone" else 64
            model = tiny_model(text={"vocab_size": len(tokenizer)}, **MODELS[name])
            processor = MMNERProcessor(tokenizer, labels=LABELS, image_size=size, context_window=8)
            made[name] = model, processor
        return made[name]

    return parts


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of coarse random colours, different in every part."""
    colours = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


# What is found


@pytest.mark.parametrize("name", WITH_PICTURES)
@torch.inference_mode()
def test_a_cell_s_effect_is_that_of_a_picture_without_it(make, name):
    """If it failed, a cell would be drawn with the effect of another cell, picture or entity."""
    model, processor = make(name)
    pictures = [noise(64, 64), noise(64, 64, seed=1)]
    found = explain(model, processor, TEXT, pictures, context="today")
    whole = model(**processor(TEXT, images=pictures, context="today"))
    assert found.cells.shape == (len(found.entities), 2, 4, 4) and found.cells.dtype == np.float32
    assert len(found.entities) > 0 and np.abs(found.cells).max() > 1e-4
    starts = [TEXT.split().index(TEXT[one["start"] :].split()[0]) for one in found.entities]
    for number, row, column in ((0, 0, 0), (0, 2, 1), (1, 3, 0), (1, 1, 3)):
        blanked = [one.copy() for one in pictures]
        mean = tuple(round(channel) for channel in ImageStat.Stat(pictures[number]).mean)
        blanked[number].paste(mean, (16 * column, 16 * row, 16 * column + 16, 16 * row + 16))
        inputs = processor(TEXT, images=blanked, context="today")
        scores = model.crf.span_scores(model(**inputs).logits, whole.tags, mask=inputs["word_mask"])
        expected = (whole.span_scores - scores)[0, starts].numpy()
        np.testing.assert_allclose(found.cells[:, number, row, column], expected, atol=1e-5)


def test_filled_covers_a_picture_of_any_size_once():
    """If it failed, pixels at the cells' borders would be in two cells or in none."""
    each = torch.eye(16, dtype=torch.bool).view(16, 4, 4)
    parts = filled(torch.zeros(3, 30, 41), each, filling=torch.ones(3, 1, 1))
    assert parts.sum(0).eq(1).all() and parts.amax((1, 2, 3)).eq(1).all()


@pytest.mark.parametrize("name", MODELS)
def test_without_a_picture_there_is_no_effect_of_it(make, name):
    """If it failed, a post would tell of a picture that it has not, or that its model does not read."""
    given = "/not/there.jpg" if name == "text alone" else None
    found = explain(*make(name), TEXT, given, context="today")
    assert (found.cells, found.pictures, found.text) == (None, [], TEXT)
    assert [one["picture_effect"] for one in found.entities] == [None] * len(found.entities)
    assert all(-1 <= one["context_effect"] <= 1 for one in found.entities)
    bare = [{key: one[key] for key in one if not key.endswith("effect")} for one in found.entities]
    assert bare and bare == found.without_pictures
    assert all("-" in line for line in list(table_lines(found))[1:])


@torch.inference_mode()
def test_entities_without_the_picture_are_those_of_the_post_without_it(make):
    """If it failed, what only the other pass finds would be another post's."""
    model, processor = make()
    found = explain(model, processor, TEXT.split(), noise(64, 64), cells=False)
    (expected,) = processor.post_process_entities(model(**processor(TEXT)), TEXT)
    assert found.without_pictures == expected and found.cells is None
    assert [one.text for one in found.words] == TEXT.split()


def test_pictures_are_whole_and_upright(make, tmp_path):
    """If it failed, cells would be drawn over another picture than the model read: turned, or a square."""
    turned = noise(40, 20)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    pictures = [str(tmp_path / "turned.png"), noise(30, 50).convert("RGBA")]
    read = explain(*make(), TEXT, pictures, cells=False).pictures
    assert [(one.mode, one.size) for one in read] == [("RGB", (20, 40)), ("RGB", (30, 50))]


def test_empty_post_has_no_entities(make):
    """If it failed, the padding that stands for an empty text would be explained as a word."""
    found = explain(*make(), "", noise(64, 64))
    assert (found.words, found.entities, found.cells.shape) == ([], [], (0, 1, 4, 4))


def test_what_cannot_be_explained_is_refused(make):
    """If it failed, dropout would tell of another effect each time, or the first of several posts be read."""
    model, processor = make()
    with pytest.raises(TypeError, match="expected a string or a list of strings, found list"):
        explain(model, processor, [["Jordan"], ["Paris"]])
    with pytest.raises(PictureError, match=r"^text 0: picture /not/there.jpg: expected a file, found none"):
        explain(model, processor, TEXT, "/not/there.jpg")
    model.train()
    try:
        with pytest.raises(ValueError, match=r"expected evaluation mode, found training mode"):
            explain(model, processor, TEXT)
    finally:
        model.eval()


# Drawings, files and the command


@pytest.mark.parametrize("size", [(64, 64), (7, 200), (3000, 5), (1, 1)])
def test_cells_are_coloured_where_they_are(size):
    """If it failed, cells would be drawn transposed, or a small picture's numbers be too small to read."""
    cells = np.zeros((4, 4), dtype=np.float32)
    cells[1, 2], cells[3, 0] = 1, -1
    drawn = draw_cells(Image.new("RGB", size, "gray"), cells)
    assert drawn.height == 480 and 240 <= drawn.width <= 1920
    width, height = drawn.width // 4, drawn.height // 4
    for (row, column), value in np.ndenumerate(cells):
        red, green, _ = drawn.getpixel((column * width + 4, row * height + 4))
        assert (green > red, green < red) == (value > 0, value < 0)
        middle = drawn.crop(
            [column * width + 4, row * height + 4, (column + 1) * width - 4, (row + 1) * height - 4]
        )
        assert middle.getextrema()[2][1] > 200  # the white of its number


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    noise(50, 30).save(path)
    return path


def test_command_writes_and_prints_what_explain_gives(make, picture, tmp_path, capsys):
    """If it failed, the files or lines would tell of other effects than the model's."""
    for part in make():
        part.save_pretrained(tmp_path / "model")
    common = [
        "--model",
        tmp_path / "model",
        "--text",
        TEXT,
        "--context",
        "today",
        "--output_dir",
        tmp_path / "out",
    ]
    assert main(["explain", *map(str, common), "--image", str(picture), "--image", str(picture)]) == 0
    expected = explain(*make(), TEXT, [picture, picture], context="today")
    record = json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert (record["text"], record["entities"]) == (TEXT, expected.entities)
    assert record["without_pictures"] == expected.without_pictures
    assert [TEXT[word["start"] : word["end"]] for word in record["words"]] == TEXT.split()
    np.testing.assert_allclose(record["cells"], expected.cells)
    drawings = sorted((tmp_path / "out").glob("*.png"))
    assert len(drawings) == len(expected.entities)
    for path, cells in zip(drawings, expected.cells, strict=True):
        drawn = np.asarray(Image.open(path))
        halves = [np.asarray(draw_cells(expected.pictures[0], one)) for one in cells]
        np.testing.assert_array_equal(drawn, np.concatenate(halves, axis=1))
    lines = capsys.readouterr().out.splitlines()
    assert lines == list(table_lines(expected))
    first = expected.entities[0]
    figures = [first["score"], first["score"] - first["picture_effect"], first["picture_effect"]]
    assert [float(one) for one in lines[1].split()[-6:-3]] == pytest.approx(figures, abs=0.006)


def test_table_names_what_only_the_other_pass_finds(make):
    """If it failed, nobody would hear of an entity that the picture took away."""
    found = explain(*make(), TEXT, noise(64, 64))
    lost = found.entities[0] | {"entity_group": "ORG", "score": 0.5}
    found.without_pictures[:] = [found.entities[0], lost]
    said = [line for line in table_lines(found) if line.startswith("only without the picture")]
    assert said == [f"only without the picture: {lost['word']}, ORG 0.50"]


def test_file_names_are_safe(make, picture, tmp_path):
    """If it failed, an entity could write outside the folder, or half an emoji end the command."""
    found = explain(*make(), TEXT, picture)
    entities, safe = found.entities[:1] * 4, ["___up", "https___a_b", "_", "x" * 40]
    names = ["../up", "https://a/b", "\ud83d", "x" * 300]
    found.entities[:] = [one | {"word": word} for one, word in zip(entities, names, strict=True)]
    object.__setattr__(found, "cells", np.repeat(found.cells[:1], 4, axis=0))
    save_explanation(found, tmp_path / "out")
    drawn = {f"{number}_{name}.png" for number, name in enumerate(safe, start=1)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"explanation.json", *drawn}
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
