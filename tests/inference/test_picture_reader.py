"""Our reader of pictures, and what the commands make of one."""

import json
import threading

import datasets
import pytest
from PIL import Image, ImageDraw, ImageFont

from modeling_mmner.inference import picture_reader
from modeling_mmner.inference.annotate import AnnotateStep, Annotator, annotate, open_posts
from modeling_mmner.inference.explain import explain, save_explanation, table_lines
from modeling_mmner.inference.picture_contexts import Transcriber, write_contexts
from modeling_mmner.inference.picture_reader import RapidOCRReader
from modeling_mmner.model import picture_text_mmner
from modeling_mmner.model.picture_text_mmner import read_text, reader_of
from tests.annotation_parts import rows_in
from tests.model.test_picture_text import PICTURE, poster
from tests.small_posts import encoded, small_parts
from tests.tiny import SYSTEMS


def drawn(*lines: str) -> Image.Image:
    picture = Image.new("RGB", (640, 60 + 80 * len(lines)), "navy")
    for row, text in enumerate(lines):
        ImageDraw.Draw(picture).text((40, 40 + 80 * row), text, "white", ImageFont.load_default(44))
    return picture


@pytest.mark.slow  # loads the models
def test_rapidocr_reads_a_drawn_picture_in_threads():
    """If it failed, pictures would not be read, boxes lie elsewhere, or one thread's lines go to another."""
    pytest.importorskip("rapidocr")
    reader, pictures = RapidOCRReader(), [drawn("LAURA MARLING", "London Forum"), drawn("Rick Wakeman")]
    expected = ["LAURA MARLING London Forum", "Rick Wakeman"]
    texts = {}

    def run(number: int) -> None:
        texts[number] = read_text(pictures[number % 2], reader)

    threads = [threading.Thread(target=run, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [texts[number].text for number in range(6)] == expected * 3
    (place,) = texts[0].seen("london forum")
    assert place["score"] > 0.9 and 25 <= place["box"]["xmin"] <= 50 and 105 <= place["box"]["ymin"] <= 140
    assert Transcriber()(pictures) == expected


def test_missing_reader_and_recogniser_are_named(monkeypatch):
    """If it failed, whoever lacks the extra would meet an import error."""
    monkeypatch.setattr(picture_reader, "find_spec", lambda name: name)
    assert reader_of(True) == RapidOCRReader(), "what True means where the package is"
    with pytest.raises(ValueError, match=r"recogniser nowhere\.onnx: expected an ONNX file, found none"):
        RapidOCRReader("nowhere.onnx")
    monkeypatch.setattr(picture_reader, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"expected rapidocr, found none; pip install 'mmner\[ocr\]'"):
        RapidOCRReader()


def test_annotation_has_entities_in_pictures(tmp_path, monkeypatch):
    """If it failed, an annotation would lose them, or begin with pictures read and go on without."""
    monkeypatch.setattr(picture_text_mmner, "LEAST_SCORE", 0.0)
    for part in small_parts(**SYSTEMS["mlmner"]):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "a.png").write_bytes(encoded(PICTURE))
    posts = [{"text": "Laura Marling in Paris", "image": "a.png"}, {"text": "Jordan"}]
    (tmp_path / "posts.jsonl").write_text("\n".join(map(json.dumps, posts)), encoding="utf-8")
    source = open_posts(str(tmp_path / "posts.jsonl"))
    model = str(tmp_path / "model")
    annotator = Annotator(model, device="cpu", dtype="float32", read_pictures=poster)
    assert not annotate(AnnotateStep(annotator, source, tmp_path / "out")).flaws
    first, second = rows_in(tmp_path / "out", tmp_path)
    inside = [entity for entity in first["entities"] if entity["start"] is None]
    assert inside and all(
        e["image"] == 0 and e["box"]["xmax"] > 0 and e["first_word"] is None for e in inside
    )
    assert all(entity["box"] is None for entity in second["entities"])
    plain = AnnotateStep(Annotator(model, device="cpu", dtype="float32"), source, tmp_path / "out")
    with pytest.raises(ValueError, match="read_pictures: expected poster, found False"):
        plain.begin(1)


def test_explanation_has_entities_in_pictures(tmp_path, monkeypatch):
    """If it failed, the files of explain would say nothing of the names that a picture shows."""
    monkeypatch.setattr(picture_text_mmner, "LEAST_SCORE", 0.0)
    explained = explain(*small_parts(**SYSTEMS["mlmner"]), "Jordan", PICTURE, read_pictures=poster)
    save_explanation(explained, tmp_path)
    written = json.loads((tmp_path / "explanation.json").read_text(encoding="utf-8"))
    assert written["in_pictures"] == list(explained.in_pictures) and written["in_pictures"][0]["box"]
    assert [entity["start"] for entity in explained.entities] == [0], "the text's alone"
    assert any(line.startswith("in picture 1: ") for line in table_lines(explained))


def test_contexts_of_a_reader_are_training_s(tmp_path, monkeypatch):
    """If it failed, training would not find what stands in the pictures under --context ocr."""
    monkeypatch.setattr(RapidOCRReader, "__call__", lambda self, picture: poster(picture))
    monkeypatch.setattr(picture_reader, "find_spec", lambda name: name)
    rows = datasets.Dataset.from_list(
        [{"id": "1", "image": {"bytes": encoded(PICTURE), "path": None}}],
        features=datasets.Features({"id": datasets.Value("string"), "image": datasets.Image(decode=False)}),
    )
    path = tmp_path / "ocr.jsonl"
    for _ in range(2):
        said = write_contexts({"train": rows}, Transcriber(), output_file=path)
    assert "1 posts with a context, 0 of them new" in said
    (entry,) = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert entry["ocr"] == "LAURA MARLING LONDON FORUM www.marling.com" and entry["model"] == "rapidocr"
