"""Tests of the demo page without a browser: its pieces of text, its answers, and what it lets visitors do."""

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request, urlopen

import gradio as gr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from modeling_mmner.hub.examples import Example
from modeling_mmner.inference import demo, demo_answers
from modeling_mmner.inference.demo import DemoPage, build_demo
from modeling_mmner.inference.demo_answers import PART_CHARACTERS, SAID, Answer, Answers
from modeling_mmner.inference.explain import draw_cells, explain
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from tests.demo_parts import HOSTILE, TEXT, encodable, free_port, marking_model, processor_of
from tests.shared_data import bpe_tokenizer, property_test
from tests.tiny import LABELS, tiny_model

CARDS = slice(2, 5)  # of what the page shows
JSON, PICTURES, SENTENCE = 6, 7, 8


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Posts with a picture each, the second with that of none other."""
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    return [Example(TEXT, [picture]) for picture in pictures]


@pytest.fixture(scope="module")
def page(examples) -> DemoPage:
    return DemoPage(Answers(marking_model(), processor_of(), examples))


@pytest.fixture
def picture(tmp_path) -> str:
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((90, 60)).save(path)
    return str(path)


def last(page, text, *pictures, others=(), context="", inside=False, threshold=0.0) -> list:
    """What the page shows in the end."""
    galleries = [[(path, None) for path in given] for given in (pictures, others)]
    *_, shown = page.find(text, *galleries, context, inside, threshold)
    return shown


def text_alone():
    """A model of text alone that takes every word for a person."""
    model = tiny_model(fusion="text-only", objectives={"crf": 1.0}, text={"vocab_size": len(bpe_tokenizer())})
    model.heads["crf"].classifier.bias.data[LABELS.index("B-PER")] += 50
    return model.eval()


def entity(first: int, end: int, kind: str = "PER", score: float = 0.9) -> dict:
    place = {"entity_group": kind, "score": score, "word": TEXT[first:end], "start": first, "end": end}
    return place | {"picture_effect": 0.25}


def answer(**readings) -> Answer:
    """One with a picture, in which each entity has cells of its own."""
    cells = np.arange(16.0 * len(readings["with"])).reshape(-1, 1, 4, 4) / 100
    return Answer(TEXT, readings, [Image.new("RGB", (64, 64))], cells, 1.0)


# The text and its marks


@property_test
@given(st.data())
def test_pieces_say_what_the_text_says(data):
    """If it failed, the page would lose a character, mark another word, or not be sent."""
    alphabet = st.one_of(st.sampled_from("<>&\"'`${} \n\r\0;/aJ"), st.characters(codec=None, categories=None))
    text = data.draw(st.one_of(st.text(alphabet, max_size=40), st.just(HOSTILE)))
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    found = [{"entity_group": "<b>&", "start": start, "end": end} for start, end in spans]
    pieces = Answer(text, {"with": found}, [], None, 1.0).marked("with")
    assert all(piece.encode() is not None for piece, _ in pieces)
    assert [(label is not None) for _, label in pieces] == [number % 2 == 1 for number in range(len(pieces))]
    assert len(pieces) == 2 * len(spans) + 1
    assert encodable("".join(piece for piece, _ in pieces)) == encodable(text)
    for (piece, _), (start, end) in zip(pieces[1::2], spans, strict=True):
        inside = encodable(text[start:end])
        assert piece.startswith(inside) and not piece[len(inside) :].strip()
    assert not any(piece.isspace() for piece, _ in pieces[2:-1:2])


def test_what_one_reading_has_alone_says_so():
    """If it failed, nobody would see which entities the picture made or took."""
    one, two, moved = entity(0, 6), entity(18, 27), entity(18, 27, "LOC")
    found = answer(**{"with": [one, two], "without": [one, moved], "other": [moved]})
    labels = {name: [label for _, label in found.marked(name)[1::2]] for name in found.readings}
    assert labels == {
        "with": ["PER", "PER \u2013 only with the picture"],
        "without": ["PER", "LOC \u2013 only without the picture"],
        "other": ["LOC \u2013 only with another picture"],
    }
    plain = Answer(TEXT, {"with": [one]}, [], None, 1.0)
    assert plain.marked("with")[1] == ("Jordan", "PER")


@property_test
@given(st.text(st.sampled_from("ab.!\n \u3002"), max_size=90), st.integers(1, 80))
def test_parts_are_the_text(text, times):
    """If it failed, a long text would lose words, or its parts not be shorter than it."""
    text *= times
    parts = list(demo_answers._PART.finditer(text))
    assert "".join(part[0] for part in parts) == text
    assert all(len(part[0]) <= PART_CHARACTERS for part in parts)
    assert len(parts) == 1 or len(text) > PART_CHARACTERS or not text


def test_parts_end_with_sentences():
    """If it failed, a name across two parts would be cut in two."""

    def parts_of(text):
        return [part[0] for part in demo_answers._PART.finditer(text)]

    parts = parts_of("One met San Marino there. " * 200)
    assert len(parts) > 2 and all(part.endswith(".") for part in parts[:-1])
    assert all(part.strip().split()[-1] == "word" for part in parts_of("word " * 1000))
    assert [len(part) for part in parts_of("a" * 4500)] == [2000, 2000, 500]


@pytest.mark.parametrize(
    ("text", "expected"), [("12 \u05e9\u05dc a", True), ("a \u05e9", False), ("\u0645", True), ("!", False)]
)
def test_direction_is_that_of_the_first_letter(text, expected):
    """If it failed, Hebrew and Arabic would be laid out from the left."""
    assert Answer(text, {"with": []}, [], None, 1.0).is_right_to_left is expected


# The answers


def test_page_shows_the_post_with_without_and_with_another_picture(page, picture, examples):
    """If it failed, one of the three texts would not be what the model says of that post."""
    kept, status, *_ = shown = last(page, TEXT, picture)
    image = Image.open(picture)
    expected = explain(page.answers.model, page.answers.processor, TEXT, images=image)
    predictor = BatchPredictor(page.answers.model, PostReader(page.answers.processor))
    (other,) = predictor.predict([{"text": TEXT, "image": examples[0].pictures[0]}])
    assert kept.readings == {
        "with": expected.entities, "without": expected.without_pictures, "other": other.entities,
    }  # fmt: skip
    assert np.array_equal(kept.cells, expected.cells) and status == "6 entities found."
    assert [card["visible"] for card in shown[CARDS]] == [True] * 3
    assert [card["value"] for card in shown[CARDS]] == [kept.marked(name) for name in kept.readings]
    assert shown[JSON] == expected.entities
    drawn = draw_cells(ImageOps.contain(image.convert("RGB"), (512, 512)), expected.cells[0, 0])
    assert np.array_equal(shown[PICTURES][0], np.asarray(ImageOps.pad(drawn, (512, 512), color="white")))
    effect = f"{expected.entities[0]['picture_effect']:+.2f}"
    assert shown[SENTENCE].startswith("\u201cJordan\u201d: person, score ")
    assert shown[SENTENCE].endswith(SAID["cells"].format(effect=effect))


def test_another_picture_is_another(page, picture, examples, tmp_path):
    """If it failed, a post would be compared with itself, or a visitor's picture be passed over."""
    red, blue = (str(tmp_path / name) for name in ("red.png", "blue.png"))
    for example, path in zip(examples, (red, blue), strict=True):
        example.pictures[0].save(path)
    predictor = BatchPredictor(page.answers.model, PostReader(page.answers.processor))
    for own, others, expected in ((red, [], blue), (blue, [], red), (blue, [picture], picture)):
        (found,) = predictor.predict([{"text": TEXT, "image": expected}])
        assert last(page, TEXT, own, others=others)[0].readings["other"] == found.entities


def test_post_without_a_picture_has_one_text(page):
    """If it failed, three equal texts would be shown, or an effect that a picture cannot have had."""
    kept, _, *cards, rows, _, drawn, sentence = last(page, TEXT)
    assert list(kept.readings) == ["with"] and [card["visible"] for card in cards] == [True, False, False]
    assert cards[0]["label"] == SAID["card_alone"] and drawn is None
    assert {row[3] for row in rows} == {"\u2013"} and SAID["no_picture"] in sentence


def test_threshold_hides_and_runs_no_model(page, monkeypatch):
    """If it failed, weak entities would stay, or each move of the slider cost a run of the model."""
    monkeypatch.setattr(demo_answers, "explain", None)
    weak, sure = entity(0, 6, score=0.4), entity(18, 27, score=0.8)
    found = answer(**{"with": [weak, sure], "without": [weak]})
    kept, status, *cards, rows, record, drawn, sentence = page.show(found, 0.5)
    assert kept is found and status == "1 entity found. 1 with a lower score are hidden."
    assert (rows, record) == ([["San Marino"[:9], "person", "0.80", "+0.25"]], [sure])
    assert [len(card["value"]) for card in cards] == [3, 1, 1] and "San Marin" in sentence
    expected = ImageOps.pad(draw_cells(found.pictures[0], found.cells[1, 0]), (512, 512))
    assert np.array_equal(drawn[0], np.asarray(expected))
    assert page.show(None, 0.5) == gr.skip()


def test_choosing_shows_the_chosen_entity_s_cells(page):
    """If it failed, the page would show the cells of another entity."""
    found = answer(**{"with": [entity(0, 6), entity(18, 27)], "without": []})
    for number, index in enumerate((1, 3)):
        drawn, sentence = page.choose(found, 0, SimpleNamespace(index=index))
        expected = ImageOps.pad(draw_cells(found.pictures[0], found.cells[number, 0]), (512, 512))
        assert np.array_equal(drawn[0], np.asarray(expected))
        assert sentence.startswith(f"\u201c{found.entities[number]['word']}\u201d")
    assert page.choose(found, 0, SimpleNamespace(index=2)) == gr.skip()


@pytest.mark.parametrize("number", [-1, 7, 10**9, "0", None, 1.5])
def test_choosing_what_is_no_piece_is_answered_in_words(page, number):
    """If it failed, a request that the page itself never makes would end in an error."""
    found = answer(**{"with": [entity(0, 6)]})
    expected = [None, SAID["forgotten"]]
    assert page.choose(found, 0, SimpleNamespace(index=number)) == expected
    assert page.choose(None, 0, SimpleNamespace(index=0)) == expected


def test_what_is_said_of_an_entity_is_escaped(page):
    """If it failed, a word could run a script in the page of whoever chooses it."""
    sentence = last(page, "<img/onerror='x'>\ud83d")[SENTENCE]
    assert sentence.startswith("\u201c&lt;") and "<" not in sentence and sentence.encode()


def test_page_of_a_model_that_reads_contexts_asks_for_one(page, picture):
    """If it failed, a visitor could not give a context, or it would not reach the model."""
    reading = DemoPage(Answers(page.answers.model, processor_of(context_window=8)))
    found = last(reading, TEXT, picture, context="Paris in London")[0].entities
    expected = explain(
        page.answers.model, reading.answers.processor, TEXT, Image.open(picture), context="Paris in London"
    )
    assert found == expected.entities and found[0]["context_effect"] is not None
    for one, is_shown in ((page, False), (reading, True)):
        parts = build_demo(page.answers.model, one.answers.processor, name="x").config["components"]
        (box,) = [part for part in parts if part["props"].get("label") == "Context (optional)"]
        assert box["props"]["visible"] is is_shown


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_mistakes_are_answered_in_words(page, picture, tmp_path, monkeypatch):
    """If it failed, an empty text, or a broken or huge picture, would look like an error of the page."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(picture).read_bytes()[:60])
    (tmp_path / "text.png").write_text("no picture")
    given = [("  \n\t",), (TEXT, str(broken)), (TEXT, f"{tmp_path}/text.png"), (TEXT, *[picture] * 5)]
    given.append(("a " * demo_answers.MOST_CHARACTERS,))
    answers = [last(page, *one) for one in given]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 60 - 1)
    answers.append(last(page, TEXT, picture))
    names = ("empty_text", "broken_picture", "broken_picture", "many_pictures", "long_text", "broken_picture")
    assert [shown[1] for shown in answers] == [f"<strong>{SAID[name]}</strong>" for name in names]
    for kept, _, *cards, rows, record, drawn, sentence in answers:
        assert (kept, rows, record, drawn, sentence) == (None, [], [], None, "")
        assert [card["value"] for card in cards] == [[("", None)]] * 3
    assert SAID["long_text"] in last(page, "a", context="b" * demo_answers.MOST_CHARACTERS)[1]


def test_unexpected_error_is_logged_and_answered_in_words(page, monkeypatch, caplog):
    """If it failed, a bug would show as a blank page or a traceback, or nobody would learn of it."""

    def fail(*arguments, **settings):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(demo_answers, "explain", fail)
    with caplog.at_level(logging.ERROR):
        status = last(page, TEXT)[1]
    assert SAID["unexpected"] in status and "secret" not in status
    assert caplog.text.count("RuntimeError: secret detail") == 1


def test_long_texts_are_answered_in_parts(page, picture):
    """If it failed, somebody would wait for all of a long text, or its end be lost or marked elsewhere."""
    long = " ".join(f"word{number}." for number in range(700))
    galleries = ([(picture, None)], [], "", False, 0.0)
    shown = list(page.find(long, *galleries))
    shares = [one[0].done for one in shown]
    assert len(shown) == 4 and shares[-1] == 1 and shares == sorted(shares)
    said = [
        one[1].endswith(f"{share:.0%} of the text is read.") for share, one in zip(shares, shown, strict=True)
    ]
    assert said == [True, True, True, False]
    kept = shown[-1][0]
    assert "".join(text for text, _ in kept.marked("with")) == long
    assert all(long[one["start"] : one["end"]] == one["word"] for one in kept.entities)
    assert (
        kept.entities[-1]["end"] == len(long) and "texts of at most 2,000 characters" in shown[-1][SENTENCE]
    )


def test_model_of_text_alone_says_so(picture):
    """If it failed, somebody who gave a picture would believe that it was read."""
    model = text_alone()
    kept, *_, drawn, sentence = last(
        DemoPage(Answers(model.eval(), processor_of(image_size=None))), TEXT, picture
    )
    assert list(kept.readings) == ["with"] and drawn is None and SAID["no_picture"] in sentence


def test_entities_inside_pictures_are_shown_where_they_stand(page, tmp_path):
    """If it failed, the page would not read pictures, or draw a box elsewhere than the text stands."""

    def read(picture):
        return [{"text": "Jordan", "score": 0.5, "box": (0, 0, picture.width, picture.height / 2)}]

    sizes = {"wide.png": (256, 128), "high.png": (100, 1024)}
    paths = [str(tmp_path / name) for name in sizes]
    for path, size in zip(paths, sizes.values(), strict=True):
        Image.new("RGB", size).save(path)
    for processor in (processor_of(), processor_of(image_size=None)):
        model = page.answers.model if processor.image_size else text_alone()
        reading = DemoPage(Answers(model, processor, picture_reader=read))
        shown = last(reading, TEXT, *paths, inside=True)
        kept, status, *_, rows, record, (strip, boxes), _ = shown
        assert status == "6 entities found. 2 in the text of the pictures."
        assert [row[0] for row in rows[-2:]] == ["Jordan"] * 2 and [row[3] for row in rows[-2:]] == [
            "picture 1",
            "picture 2",
        ]
        assert record[-1]["box"] == {"xmin": 0, "ymin": 0, "xmax": 100, "ymax": 512} and strip.shape == (
            512,
            1024,
            3,
        )
        # 256 x 128 is drawn twice as large, 128 from the top; 100 x 1024 half as large, in the second square
        assert boxes == [((0, 128, 512, 256), "PER"), ((512 + 231, 0, 512 + 281, 256), "PER")]
        assert kept.above(0.6).readings["inside"] == [] and status.startswith("6")
        assert "inside" not in last(reading, TEXT, *paths)[0].readings


# The function for programs


def test_function_finds_what_the_predictor_finds(page, picture):
    """If it failed, a program would be told other entities than the pipeline gives."""
    answers, post = page.answers, {"text": TEXT, "image": picture}
    predictor = BatchPredictor(answers.model, PostReader(answers.processor), effects=True)
    (expected,) = predictor.predict([post])
    sent = {"path": picture, "meta": {"_type": "gradio.FileData"}}  # as Gradio passes an upload
    assert answers.find_entities(TEXT, [sent]) == expected.entities
    least = max(one["score"] for one in expected.entities)
    found = answers.find_entities(TEXT, [sent], threshold=least)
    assert found == [one for one in expected.entities if one["score"] >= least]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": 7}, "unreadable"),
        ({"context": None}, "unreadable"),
        ({"threshold": "0.5"}, "unreadable"),
        ({"threshold": float("nan")}, "unreadable"),
        ({"pictures": "x"}, "unreadable"),
        ({"pictures": ["/etc/hostname"]}, "upload_only"),
        ({"pictures": ["file:///etc/hostname"]}, "upload_only"),
        ({"pictures": ["http://127.0.0.1/a.png"]}, "upload_only"),
        ({"pictures": [{"path": "/etc/hostname"}]}, "upload_only"),
        ({"pictures": ["data:image/png;base64,####"]}, "broken_picture"),
        ({"pictures": ["data:image/png;base64,aaaa"] * 5}, "many_pictures"),
    ],
)
def test_function_refuses_in_words(page, given, said):
    """If it failed, a program could read a file of the server, or have it fetch an address."""
    with pytest.raises(gr.Error) as raised:
        page.answers.find_entities(**{"text": TEXT} | given)
    assert raised.value.message == SAID[said]


# The served page


@pytest.fixture(scope="module")
def served(examples):
    """The address of a page that this process serves."""
    blocks = build_demo(marking_model(), processor_of(), name="tiny", examples=examples)
    blocks.launch(server_name="127.0.0.1", server_port=free_port(), prevent_thread_lock=True, quiet=True)
    yield blocks.local_url
    blocks.close()


def ask(address: str, text: str, picture: str | None, *, session: str) -> dict:
    """What the button "Find entities" gives, asked for as the page does."""
    file = {"path": picture, "meta": {"_type": "gradio.FileData"}}
    data = [text, picture and [{"image": file, "caption": None}], None, "", False, 0]
    body = {"data": data, "fn_index": 0, "session_hash": session, "event_data": None, "trigger_id": None}
    headers = {"Content-Type": "application/json"}
    urlopen(Request(f"{address}gradio_api/queue/join", json.dumps(body).encode(), headers), timeout=30).read()
    for line in urlopen(f"{address}gradio_api/queue/data?session_hash={session}", timeout=30):
        message = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
        if message.get("msg") in ("process_generating", "process_completed") and (
            not message["success"] or message["output"].get("data")
        ):
            return message
    raise AssertionError("the page gave no answer")


def test_only_uploaded_pictures_are_read(served, picture):
    """If it failed, a visitor could name any file of the server and be shown the picture in it, or have it
    fetch an address.
    """
    assert ask(served, TEXT, None, session="none")["success"]
    for session, place in {"foreign": picture, "web": "http://127.0.0.1:1/a.png"}.items():
        answered = ask(served, TEXT, place, session=session)
        assert not answered["success"] and "data" not in answered["output"]
    assert answered["output"]["error"] == SAID["upload_only"]


def test_page_opens_answered(served, page, examples):
    """If it failed, a visitor would meet an empty page, or each one's coming cost a run of the model."""
    parts = json.loads(urlopen(f"{served}config", timeout=30).read())["components"]
    values = {part["props"].get("label"): part["props"].get("value") for part in parts}
    expected = list(page.answers.compared(TEXT, examples[0].pictures, [], ""))[-1]
    assert values["Text"] == TEXT and len(values["Pictures (optional)"]) == 1
    for name, label in SAID["cards"].items():
        marked = [(piece["token"], piece["class_or_confidence"]) for piece in values[label]]
        assert marked == expected.marked(name)
    assert len(values["Entities"]) == 6 and values["What the picture did"]["image"]["url"]


def test_posts_are_read_one_at_a_time_and_answered_apart(served, monkeypatch):
    """If it failed, visitors at the same time would fill the memory, or be given each other's result."""
    running, at_a_time = [], []

    def slow(*arguments, **settings):
        running.append(arguments)
        at_a_time.append(len(running))
        time.sleep(0.1)
        running.pop()
        return explain(*arguments, **settings)

    monkeypatch.setattr(demo_answers, "explain", slow)
    texts = [f"visitor{number}" for number in range(5)]
    with ThreadPoolExecutor(len(texts)) as pool:
        answers = list(pool.map(lambda text: ask(served, text, None, session=text), texts))
    assert at_a_time == [1] * 5
    for text, message in zip(texts, answers, strict=True):
        assert text in "".join(piece["token"] for piece in message["output"]["data"][2]["value"])


def test_no_more_visitors_wait_or_are_kept_than_there_is_room_for(monkeypatch, examples):
    """If it failed, requests or results would be kept until there is no memory left."""
    blocks = build_demo(marking_model(), processor_of(), name="tiny", examples=examples)
    assert blocks._queue.max_size == demo.MOST_WAITING == 50
    runs = [function for function in blocks.fns.values() if function.concurrency_id == "model"]
    assert [(function.name, function.concurrency_limit) for function in runs] == [
        ("find", 1), ("find_entities", 1), ("find", 1),
    ]  # fmt: skip
    (choosing,) = [function for function in blocks.fns.values() if function.name == "choose"]
    assert [type(one).__name__ for one in choosing.inputs] == ["State", "Slider"]
    public = [one.name for one in blocks.fns.values() if one.api_visibility == "public"]
    assert public == ["find_entities"]
    settings: dict = {}
    monkeypatch.setattr(blocks, "launch", lambda **given: settings.update(given))
    demo.launch(blocks)
    assert (settings["state_session_capacity"], settings["max_file_size"]) == (200, 20 * 2**20)
