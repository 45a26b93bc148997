"""Tests of explanations: word-over-region maps, the gate's mean, pictures with maps drawn over them, and the
command.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.inference.explain import draw_map, draw_maps, explain, region_maps, save_explanation
from modeling_mmner.model.images_mmner import PictureError
from modeling_mmner.training.vocabulary import train_tokenizer
from tests.tiny import LABELS, TOWER, VIT, naive_attention, naive_layer, tiny_model

WORDS = ["Jordan", "posts", "from", "Paris", "today", "and", "tomorrow"]
TEXT = "Jordan posts from Paris today"
FINE_VIT = VIT | {"backbone_args": VIT["backbone_args"] | {"patch_size": 8}}
REGISTER_VIT = VIT | {"backbone_args": VIT["backbone_args"] | {"patch_size": 8, "reg_tokens": 2}}
SWIN_SIZES = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 2, 2, 2]}
SWIN = {"backbone": "swin_tiny_patch4_window7_224", "backbone_args": SWIN_SIZES, "image_size": 64}
POOLED = TOWER | {"pooled": True}
# Each model's settings, the prefix tokens of its attended encoder, and the side of that one's map.
MODELS = {
    "cross-modal, cnn": ({"fusion": "cross-modal"}, 0, 2),
    "cross-modal, swin": ({"fusion": "cross-modal", "vision_towers": [SWIN]}, 0, 2),
    "cross-modal, vit": ({"fusion": "cross-modal", "vision_towers": [FINE_VIT]}, 1, 4),
    "collaboration, vit first": ({"fusion": "collaboration", "vision_towers": [FINE_VIT, POOLED]}, 1, 4),
    "collaboration, vit second": ({"fusion": "collaboration", "vision_towers": [POOLED, REGISTER_VIT]}, 3, 4),
}
WITHOUT_MAPS = {
    "text alone": {"fusion": "text-only", "vision_towers": [], "objectives": {"crf": 1.0}},
    "all pooled": {"fusion": "collaboration", "vision_towers": [POOLED]},
}

each_model = pytest.mark.parametrize("kind", MODELS)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([WORDS], 100)


@pytest.fixture(scope="module")
def make(tokenizer):
    """A function that gives a tiny model of some settings and its processor; each is made once."""
    made = {}

    def parts(**settings):
        key = json.dumps(settings)
        if key not in made:
            size = 64 if settings.get("vision_towers", [TOWER]) else None
            model = tiny_model(text={"vocab_size": len(tokenizer)}, **settings)
            made[key] = model, MMNERProcessor(tokenizer, labels=LABELS, image_size=size)
        return made[key]

    return parts


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of coarse random colours, different in every part."""
    colours = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


@torch.no_grad()
def naive_weights(model: MMNERForTokenClassification, inputs) -> torch.Tensor:
    """Each word's attention (W, R) over the attended encoder's regions, head by head and without a batch."""
    context = model.encode(**inputs)
    attended = [tower.pooled for tower in model.vision_towers].index(False)
    words, regions = context.text.words[0], context.regions[attended].states[0]
    if model.config.fusion == "cross-modal":
        text, _ = naive_layer(model.fusion.text_layer, words, words)
        return naive_layer(model.fusion.text_guided_image, text, model.fusion.region_projection(regions))[1]
    reader = next(part for part in model.fusion.readers if hasattr(part, "query"))
    return naive_attention(reader, words, regions)[1]


# Maps and gate


@each_model
def test_maps_are_the_attention_laid_out_region_by_region(make, kind):
    """If it failed, a map would show another word's or picture's attention, or lose shares of it."""
    settings, prefix, side = MODELS[kind]
    model, processor = make(**settings)
    pictures = [noise(70, 40), noise(33, 90, seed=1)]
    explanation = explain(model, processor, TEXT, pictures)
    weights = naive_weights(model, processor(TEXT, images=pictures))
    assert explanation.maps.shape == (5, 2, side, side) and explanation.maps.dtype == np.float32
    by_picture = weights[:5].unflatten(1, (2, prefix + side * side))
    places = by_picture[..., prefix:].unflatten(2, (side, side))
    np.testing.assert_allclose(explanation.maps, places.numpy(), atol=1e-6)
    assert explanation.maps.std() > 1e-4
    # What a ViT's class token takes has no place, and is all that is missing.
    missing = by_picture[..., :prefix].sum((1, 2)).numpy()
    np.testing.assert_allclose(explanation.maps.sum((1, 2, 3)), 1 - missing, atol=1e-5)
    assert (missing > 0.01).all() if prefix else not missing.any()


@pytest.mark.parametrize("kind", WITHOUT_MAPS)
def test_model_without_regions_has_no_maps(make, kind):
    """If it failed, a pooled picture's only weight, 1 for every word, would be drawn as if it pointed."""
    explanation = explain(*make(**WITHOUT_MAPS[kind]), TEXT, noise(64, 64))
    assert (explanation.maps, explanation.gate) == (None, None)
    if kind == "text alone":  # opens no picture
        assert explain(*make(**WITHOUT_MAPS[kind]), TEXT, "/not/there.jpg").pictures == []
    with pytest.raises(ValueError, match="maps: expected a picture and a model whose words"):
        explanation.required_maps()


def test_words_and_raw_text_are_explained_alike(make):
    """If it failed, maps of posts given as words would be off by what the words are split into."""
    parts = make(fusion="cross-modal")
    raw, words = explain(*parts, TEXT, noise(64, 64)), explain(*parts, TEXT.split(), [noise(64, 64)])
    np.testing.assert_array_equal(raw.maps, words.maps)
    assert (raw.text, raw.words, raw.entities) == (words.text, words.words, words.entities)
    assert [raw.text[word.start : word.end] for word in raw.words] == TEXT.split()


@pytest.mark.parametrize("text", ["", []], ids=["text", "words"])
def test_empty_post_has_maps_of_no_word(make, text):
    """If it failed, the padding that stands for an empty text would be explained as a word."""
    explanation = explain(*make(fusion="cross-modal"), text, noise(64, 64))
    assert (
        explanation.maps.shape == (0, 1, 2, 2) and explanation.gate.shape == (0,) and explanation.words == []
    )


def test_pictures_are_whole_and_upright(make, tmp_path):
    """If it failed, a map would be drawn over another picture than the model read: turned, or a square."""
    turned = noise(40, 20)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    pictures = [str(tmp_path / "turned.png"), noise(30, 50).convert("RGBA")]
    read = explain(*make(fusion="cross-modal"), TEXT, pictures).pictures
    assert [(one.mode, one.size) for one in read] == [("RGB", (20, 40)), ("RGB", (30, 50))]


def test_entity_types_are_found_by_word(make):
    """If it failed, a word would be shown with the type of an entity that it is no part of."""
    explanation = explain(*make(fusion="cross-modal"), TEXT, noise(64, 64))
    types = dict.fromkeys(range(5))
    for entity in explanation.entities:
        inside = range(entity["start"], entity["end"])
        words = [number for number, word in enumerate(explanation.words) if word.start in inside]
        types |= dict.fromkeys(words, entity["entity_group"])
    assert any(types.values())
    assert [explanation.entity_type(number) for number in range(5)] == list(types.values())


# What cannot be explained


def test_what_cannot_be_explained_is_refused(make):
    """If it failed, dropout would draw another map each time, or the first of several posts be explained."""
    model, processor = make(fusion="cross-modal")
    with pytest.raises(TypeError, match="expected the words of one post, found several posts"):
        explain(model, processor, [["Jordan"], ["Paris"]])
    with pytest.raises(PictureError, match=r"^picture /not/there.jpg: expected a file, found none"):
        explain(model, processor, TEXT, "/not/there.jpg")
    model.train()
    try:
        with pytest.raises(ValueError, match=r"expected evaluation mode, found training mode"):
            explain(model, processor, TEXT)
    finally:
        model.eval()


def test_regions_that_are_no_square_are_refused():
    """If it failed, tokens without a place would be drawn at some place of the picture."""
    tower = SimpleNamespace(prefix_tokens=1, backbone=SimpleNamespace(timm_model=torch.nn.Identity()))
    with pytest.raises(ValueError, match=r"square map, found 6 regions a picture of Identity"):
        region_maps(torch.rand(3, 14), tower, pictures=2)


# Drawing


@pytest.mark.parametrize("shade", [0, 128, 255])
@pytest.mark.parametrize("size", [(80, 60), (7, 200), (300, 5)])
@pytest.mark.parametrize("grid", [(2, 2), (7, 7), (3, 5)])
def test_hot_spot_is_where_the_weight_is(shade, size, grid):
    """If it failed, the map would be drawn transposed or mirrored, or be lost on a white or black picture."""
    for hot in [(0, 0), (0, grid[1] - 1), (grid[0] - 1, 0), (grid[0] // 2, grid[1] // 2)]:
        weights = np.zeros(grid, dtype=np.float32)
        weights[hot] = 0.01
        drawn = draw_map(Image.new("RGB", size, (shade,) * 3), weights)
        assert (drawn.size, drawn.mode) == (size, "RGB")
        light = np.asarray(drawn.convert("L"), dtype=float)
        row, column = np.unravel_index(light.argmax(), light.shape)
        assert (int((row + 0.5) * grid[0] / size[1]), int((column + 0.5) * grid[1] / size[0])) == hot


def test_picture_stays_visible_under_its_map():
    """If it failed, one could not see what lies at the place that is looked at."""
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("black", (0, 32, 64, 64))
    for weights in (np.zeros((2, 2)), np.ones((2, 2)), np.eye(2)):
        light = np.asarray(draw_map(picture, weights).convert("L"), dtype=float)
        assert (light[8, [8, 56]] - light[56, [56, 8]] > 60).all()


@pytest.mark.parametrize("weights", [np.zeros((2, 2)), np.full((2, 2), 0.25), np.full((1, 1), 1e-30)])
def test_flat_map_is_drawn_flat(weights):
    """If it failed, a map of nothing would divide by 0, or noise be blown up to a hot spot."""
    with np.errstate(all="raise"):
        drawn = np.asarray(draw_map(Image.new("RGB", (20, 10), "gray"), weights))
    assert (drawn == drawn[0, 0]).all()
    assert (drawn[0, 0].mean() > 120) == bool(weights.max() > 0)


def test_colours_are_scaled_to_the_map_s_maximum_or_the_one_given():
    """If it failed, weak maps would be black, colours not have the order of the weights, or several maps of
    one scale not be comparable.
    """
    ramp = draw_map(Image.new("RGB", (900, 10), "gray"), np.linspace(0, 1, 9)[None])
    assert (np.diff(np.asarray(ramp.convert("L"), dtype=float)[5, 50::100]) > 5).all()
    picture, weights = noise(40, 30), np.random.default_rng(0).random((3, 3))
    drawn = np.asarray(draw_map(picture, weights))
    np.testing.assert_array_equal(np.asarray(draw_map(picture, weights / 64)), drawn)
    np.testing.assert_array_equal(np.asarray(draw_map(picture, weights, maximum=weights.max())), drawn)
    assert np.asarray(draw_map(picture, weights, maximum=4.0)).mean() < drawn.mean() - 10


@pytest.mark.parametrize(
    "weights",
    [np.ones(4), np.ones((0, 2)), np.ones((1, 2, 2)), np.array([[0.5, np.nan]]), np.array([[-0.1, 1.0]])],
)
def test_weights_that_are_no_map_are_refused(weights):
    """If it failed, a wrong array would be drawn as some picture, or end in an error of a library."""
    with pytest.raises(ValueError, match=r"map: expected weights \(h, w\), finite and at least 0, found"):
        draw_map(noise(8, 8), weights)


def test_maps_of_several_pictures_are_drawn_side_by_side_on_one_scale():
    """If it failed, a picture that is hardly looked at would look as hot as the one that is."""
    pictures, maps = [noise(30, 20), noise(10, 40, seed=1)], np.zeros((2, 2, 2), dtype=np.float32)
    maps[0, 0, 0], maps[1, 1, 1] = 0.8, 0.1
    strip = draw_maps(pictures, maps)
    assert strip.size == (40, 40)
    for box, picture, weights in zip([(0, 0, 30, 20), (30, 0, 40, 40)], pictures, maps, strict=True):
        expected = draw_map(picture, weights, maximum=maps.max())
        np.testing.assert_array_equal(np.asarray(strip.crop(box)), np.asarray(expected))
    assert strip.getpixel((5, 35)) == (255, 255, 255)


# Files and the command


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    noise(50, 30).save(path)
    return path


def run(make, folder, picture, *options, kind=None) -> int:
    """The command, of a model saved in a folder beside its output, ``out``."""
    for part in make(**(kind or {"fusion": "cross-modal"})):
        part.save_pretrained(folder / "model")
    common = ["--model", folder / "model", "--text", TEXT, "--image", picture, "--output_dir", folder / "out"]
    return main(["explain", *map(str, common), *options])


def test_command_writes_and_prints_what_explain_gives(make, picture, tmp_path, capsys):
    """If it failed, the files or lines would tell of other maps than the model's, or of other words."""
    assert run(make, tmp_path, picture, "--words", "4,1") == 0
    expected = explain(*make(fusion="cross-modal"), TEXT, picture)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"1_Jordan.png", "4_Paris.png", "explanation.json"}
    record = json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert record["text"] == TEXT and record["entities"] == expected.entities
    assert [TEXT[word["start"] : word["end"]] for word in record["words"]] == TEXT.split()
    np.testing.assert_allclose(record["maps"], expected.maps)
    np.testing.assert_allclose(record["gate"], expected.gate)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for line, (number, word) in zip(lines, ((3, "Paris"), (0, "Jordan")), strict=True):
        drawn = np.asarray(Image.open(tmp_path / "out" / f"{number + 1}_{word}.png"))
        assert np.array_equal(drawn, np.asarray(draw_map(expected.pictures[0], expected.maps[number, 0])))
        assert line[:3] == [str(number + 1), word, expected.entity_type(number) or "-"]
        assert line[4:6] == [f"{expected.gate[number]:.2f}", f"{expected.maps[number].max():.2f}"]


def test_file_names_are_safe(make, picture, tmp_path):
    """If it failed, a word could write outside the folder, a URL or half an emoji end the command, or only
    the first picture of a post be drawn.
    """
    words = ["../up", "https://a.b/c?d=e", "Zoë", "\ud83d", "x" * 300, "a\x00b", "😍"]
    explanation = explain(*make(fusion="cross-modal"), words, [picture, picture])
    save_explanation(explanation, tmp_path / "out", words=range(1, len(words) + 1))
    safe = ["___up", "https___a_b_c_d_e", "Zoë", "_", "x" * 40, "a_b", "_"]
    drawn = {f"{number}_{name}.png" for number, name in enumerate(safe, start=1)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"explanation.json", *drawn}
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    record = json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert record["text"] == " ".join(words)
    strip = np.asarray(Image.open(tmp_path / "out" / "3_Zoë.png"))
    np.testing.assert_array_equal(strip, np.asarray(draw_maps(explanation.pictures, explanation.maps[2])))
    assert strip.shape == (30, 100, 3)


def test_mistakes_end_the_command_in_a_line(make, picture, tmp_path, capsys):
    """If it failed, a mistyped name would end in a traceback, a wrong number draw another word, or files be
    written without a map.
    """
    for words in ("0", "6", "1,9"):
        assert run(make, tmp_path / "c", picture, "--words", words) == 2
        assert f"words: expected numbers in 1..5, found {words.split(',')[-1]}\n" in capsys.readouterr().err
    assert run(make, tmp_path / "a", tmp_path / "nothere.png") == 2
    assert "expected a file, found none" in capsys.readouterr().err
    assert run(make, tmp_path / "b", picture, kind=WITHOUT_MAPS["text alone"]) == 2
    assert "maps: expected a picture and a model whose words attend" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/out"))
