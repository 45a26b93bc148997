"""Text in pictures, by a reader made up here: its lines become texts, entities come back with their boxes."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from modeling_mmner.model import picture_text_mmner
from modeling_mmner.model.picture_text_mmner import LEAST_SCORE, PictureText, read_text, reader_of
from tests.small_posts import assert_same, small_parts
from tests.tiny import SYSTEMS

PICTURE = Image.new("RGB", (200, 120), "white")


def line(text: str, box: object, score: float = 1.0, **more: object) -> dict:
    return {"text": text, "score": score, "box": box, **more}


POSTER = [
    line("LONDON FORUM", (10, 60, 130, 80), 0.5),
    line("LAURA", (20, 5, 120, 25)),
    line("MARLING", (10, 30, 150, 50)),
    line("www.marling.com", (10, 100, 160, 110)),
]


def poster(picture: Image.Image) -> list[dict]:
    return POSTER


def read(*lines: dict) -> PictureText:
    return read_text(PICTURE, lambda picture: lines)


def found_in(text: PictureText, *names: tuple[str, str, float]) -> list[dict]:
    """The entities of a picture where a tagger finds some names in whatever it reads, in any case."""
    found = {}
    for _, reading in text.readings():
        places = [(reading.lower().find(name.lower()), len(name), kind, score) for name, kind, score in names]
        found[reading] = [
            {"entity_group": kind, "score": score, "start": start, "end": start + length}
            for start, length, kind, score in places
            if start >= 0
        ]
    return text.entities(found)


def test_lines_are_read_from_top_to_bottom_in_blocks():
    """If it failed, a name on two lines would be cut in two, or columns be mixed up."""
    text = read(*POSTER)
    assert text.text == "LAURA MARLING LONDON FORUM www.marling.com"
    assert [text.text[part] for part in text.parts[4:6]] == ["LAURA MARLING LONDON FORUM", "www.marling.com"]
    columns = read(*(line(f"{side}{row}", (x, y, x + 40, y + 9)) for side, x in (("a", 0), ("b", 90))
                     for row, y in enumerate((0, 10, 20))))  # fmt: skip
    assert [columns.text[part] for part in columns.parts[6:8]] == ["a0 a1 a2", "b0 b1 b2"]


def test_model_reads_capitals_as_they_stand_and_as_a_title():
    """If it failed, names in capitals would be read as taggers know them least, or other lines be changed."""
    text = read(line("U.K. O'NEIL'S STRASSE", (0, 0, 90, 9)), line("iPhone in NYC", (0, 60, 90, 69)))
    readings = [reading for _, reading in text.readings()]
    assert "U.K. O'neil's Strasse" in readings and "U.K. O'NEIL'S STRASSE" in readings
    assert "iPhone in NYC" in readings and not any("Nyc" in reading for reading in readings)
    assert all(text.text[at : at + len(one)].casefold() == one.casefold() for at, one in text.readings())


def test_entity_has_the_box_of_its_characters():
    """If it failed, boxes would lie beside the names."""
    pieces = [{"text": "in", "box": (0, 0, 20, 9)}, {"text": "New", "box": (30, 0, 60, 9)},
              {"text": "York!", "box": (70, 0, 120, 9)}]  # fmt: skip
    text = read(line("in New York!", (0, 0, 120, 9), 0.8, words=pieces))
    (entity,) = found_in(text, ("New York", "LOC", 0.75))
    assert entity.pop("score") == pytest.approx(0.75 * 0.8), "the tagger's times the reader's"
    box = {"xmin": 30, "ymin": 0, "xmax": 110, "ymax": 9}
    place = {"entity_group": "LOC", "word": "New York", "start": None, "end": None, "image": 0}
    assert entity == place | {"box": box}
    upright = read(line("New York", [[5, 0], [5, 80], [15, 80], [15, 0]]))
    assert found_in(upright, ("York", "LOC", 1.0))[0]["box"] == {
        "xmin": 5,
        "ymin": 40,
        "xmax": 15,
        "ymax": 80,
    }


def test_what_is_doubtful_overlaps_or_is_an_address_is_no_entity():
    """If it failed, pictures would fill the list with what nobody takes for names."""
    names = [
        ("Laura Marling", "PER", 0.9),
        ("Marling London", "ORG", 0.8),
        ("London", "LOC", LEAST_SCORE - 0.01),
    ]
    text = read(*POSTER)
    assert [entity["word"] for entity in found_in(text, *names)] == ["LAURA MARLING"]
    text.least_score = 0.6
    assert not found_in(text, ("London Forum", "LOC", 1.0)), "a reader's line below its own least score"
    assert [entity["word"] for entity in found_in(read(POSTER[3]), ("marling", "PER", 1.0))] == []


def test_pipeline_gives_what_the_model_says_of_each_reading(monkeypatch):
    """If it failed, pictures would be read otherwise than texts are, or otherwise in a batch."""
    monkeypatch.setattr(picture_text_mmner, "LEAST_SCORE", 0.0)
    model, processor = small_parts(**SYSTEMS["mlmner"])
    ner = pipeline("multimodal-ner", model=model, processor=processor)
    text = read_text(PICTURE, poster, image=1)
    expected = text.entities({reading: ner(reading) for _, reading in text.readings()})
    assert expected
    posts = ["Jordan", {"text": "Laura  marling in Paris", "images": [Image.new("RGB", (9, 9)), PICTURE]}]

    def second(picture):
        return POSTER if picture.size == PICTURE.size else []

    plain = ner(posts)
    for size in (1, 2):
        both = ner(posts, batch_size=size, read_pictures=second)
        assert_same([both[0]], [plain[0]])
        inside = [entity for entity in both[1] if entity["start"] is None]
        key = [(e["entity_group"], e["word"], e["image"], e["box"]) for e in inside]
        assert key == [(e["entity_group"], e["word"], e["image"], e["box"]) for e in expected]
        np.testing.assert_allclose([e["score"] for e in inside], [e["score"] for e in expected], atol=1e-5)
        own = [{k: e[k] for k in e if k != "seen"} for e in both[1] if e["start"] is not None]
        assert [e["word"] for e in own] == [e["word"] for e in plain[1]]
    threshold = sorted(entity["score"] for entity in expected)[0] + 1e-3
    kept = [e for e in ner(posts[1], threshold=threshold, read_pictures=second) if e["start"] is None]
    assert len(kept) < len(expected)


def test_seen_is_the_same_words_but_for_case_and_spaces():
    """If it failed, a text's entity would be said to stand in the picture where another one does."""
    text = read(line("José MÜLLER, Straße", (0, 0, 190, 10)), line("Jose", (0, 50, 40, 60), 0.5))
    assert [one["word"] for one in text.seen("josé\u2009Müller")] == ["José MÜLLER"]
    assert [one["word"] for one in text.seen("JOSE\u0301")] == ["José"]
    assert text.seen("STRASSE")[0]["word"] == "Straße"
    assert text.seen("jose") == [{"image": 0, "box": {"xmin": 0, "ymin": 50, "xmax": 40, "ymax": 60},
                                  "word": "Jose", "score": 0.5}]  # fmt: skip
    assert text.seen("Müll") == [] and text.seen("!") == []


def test_readers_see_equal_pixels_whatever_the_file():
    """If it failed, names would depend on a picture's format or palette, or on how the camera was held."""
    seen, rng = [], np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 4, (20, 30, 3), dtype=np.uint8) * 80)
    model, processor = small_parts(**SYSTEMS["mlmner"])
    ner = pipeline("multimodal-ner", model=model, processor=processor)

    def look(one: Image.Image) -> list[dict]:
        seen.append((one.mode, one.size, one.tobytes()))
        return []

    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right to be upright
    files = [(picture, "PNG", {}), (picture, "BMP", {}), (picture.convert("RGBA"), "PNG", {}),
             (picture.quantize(64), "PNG", {}), (picture.rotate(90, expand=True), "PNG", {"exif": exif}),
             (picture, "WEBP", {"lossless": True})]  # fmt: skip
    for one, form, options in files:
        one.save(file := io.BytesIO(), form, **options)
        ner({"text": "Paris", "image": file.getvalue()}, read_pictures=look)
    assert set(seen) == {("RGB", picture.size, picture.tobytes())} and len(seen) == len(files)


def test_strange_lines_are_bounded_and_refused():
    """If it failed, a picture could fill the memory, or a reader's mistake end in a bare error."""
    many = read_text(PICTURE, lambda _: (line("a" * 100, (0, y, 9, y + 1)) for y in range(10**9)))
    assert len(many.parts) <= 2 * picture_text_mmner.MOST_LINES
    assert len(many.text.replace(" ", "")) == picture_text_mmner.MOST_CHARACTERS
    assert read(line("  ", (0, 0, 9, 9))).entities({"": []}) == []
    beyond = found_in(read(line("Paris", (-50, -9, 10**9, 10**6))), ("Paris", "LOC", 1.0))
    assert beyond[0]["box"] == {"xmin": 0, "ymin": 0, "xmax": 200, "ymax": 120}
    for bad in ({"text": "a"}, line("a", (0, 0, 9, 9), 2.0), line("a", (0, float("nan"), 9, 9)),
                line("a", (1, 2)), line(None, (0, 0, 9, 9)), "line",
                line("a", (0, 0, 9, 9), words=[1])):  # fmt: skip
        with pytest.raises(ValueError, match=r"picture reader: expected lines \{'text': str, .* found "):
            read(bad)
    with pytest.raises(
        ValueError, match=r"read_pictures: expected a function picture -> lines .* found 'yes'"
    ):
        reader_of("yes")


def test_own_code_of_a_model_names_what_to_pass(monkeypatch):
    """If it failed, whoever uses a model without the package would not learn what to hand in."""
    monkeypatch.setattr(picture_text_mmner, "OWN_READERS", [])
    with pytest.raises(
        ValueError, match=r"expected a function .*RapidOCRReader\(\) of mmner\[ocr\].*found True"
    ):
        reader_of(True)


def test_marked_posts_show_entities_in_pictures_escaped(monkeypatch):
    """If it failed, what a picture says could be run by a notebook or a terminal."""
    monkeypatch.setattr(picture_text_mmner, "LEAST_SCORE", 0.0)
    model, processor = small_parts(**SYSTEMS["mlmner"])
    ner = pipeline("multimodal-ner", model=model, processor=processor)
    post = {"text": "Jordan", "image": PICTURE}
    hostile = [line("<script>\x1b[31mParis", (0, 0, 90, 9)), *POSTER]
    shown = ner.show(post, read_pictures=lambda _: hostile)
    assert any(entity["start"] is None for entity in shown.predictions[0].entities)
    assert (
        "<script>" not in shown._repr_html_()
        and "\x1b" not in repr(shown)
        and "in picture 1: " in repr(shown)
    )
    assert json.dumps(shown.predictions[0].entities)
