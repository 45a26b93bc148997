"""Tests of the demo page without a browser: its pieces of text, its answers, and what it lets visitors do."""

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request, urlopen

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modeling_mmner import split_words
from modeling_mmner.hub.examples import examples_of
from modeling_mmner.inference import demo
from modeling_mmner.inference.demo import DemoPage, build_demo, pieces_of, sentence_about
from modeling_mmner.inference.explain import Explanation, draw_cells, explain
from modeling_mmner.training.recipes import load_recipe
from tests.demo_parts import HOSTILE, TEXT, encodable, free_port, marking_model, processor_of
from tests.shared_data import bpe_tokenizer, property_test
from tests.tiny import tiny_model

EXAMPLES = examples_of(load_recipe("quickstart"))


def explanation_of(text: str, *, entities=(), pictures=(), cells=None) -> Explanation:
    """An explanation with entities given as (type, score, first word, last word)."""
    words = split_words(text)
    found = []
    for entity_type, score, first, last in entities:
        start, end = words[first].start, words[last].end
        place = {"word": text[start:end], "start": start, "end": end, "picture_effect": 0.25}
        found.append({"entity_group": entity_type, "score": score} | place)
    return Explanation(text, words, found, list(pictures), [], cells)


def pictured() -> Explanation:
    """One with a picture, whose cells did something for each of two entities."""
    cells = np.random.default_rng(0).uniform(-1, 1, (2, 1, 4, 4))
    entities = [("PER", 0.984, 0, 0), ("LOC", 0.5, 3, 4)]
    pictures = [Image.linear_gradient("L").convert("RGB")]
    return explanation_of(TEXT, entities=entities, pictures=pictures, cells=cells)


# The text and what is said of it


@property_test
@given(st.data())
def test_pieces_say_what_the_text_says(data):
    """If it failed, the page would lose a character, choose another word than was clicked, or not be sent."""
    alphabet = st.one_of(st.sampled_from("<>&\"'`${} \n\r\0;/aJ"), st.characters(codec=None, categories=None))
    text = data.draw(st.one_of(st.text(alphabet, max_size=40), st.just(HOSTILE)))
    words = split_words(text)
    entities = []
    if words:
        first = data.draw(st.integers(0, len(words) - 1))
        entities = [("<b>&", 0.5, first, data.draw(st.integers(first, len(words) - 1)))]
    pieces = pieces_of(explanation_of(text, entities=entities))
    assert all(piece.text.encode() or not piece.words for piece in pieces)
    assert encodable("".join(piece.text for piece in pieces)) == encodable(text)
    assert [number for piece in pieces for number in piece.words] == list(range(len(words)))
    for piece in pieces[1:]:
        inside = text[words[piece.words[0]].start : words[piece.words[-1]].end]
        assert piece.text.startswith(encodable(inside))
    marked = [piece.words for piece in pieces if piece.entity]
    assert marked == [range(first, last + 1) for _, _, first, last in entities]


def test_sentence_tells_word_entity_and_effect():
    """If it failed, the page would say something else of a word than the explanation does."""
    _, jordan, posts, _, marino, _ = pieces_of(pictured())
    said = [sentence_about(pictured(), piece) for piece in (jordan, posts, marino)]
    assert said[0] == "“Jordan” is an entity: PER 0.98. Without the picture its score is 0.73."
    assert said[1] == "“posts” belongs to no entity."
    assert said[2].endswith("Without the picture its score is 0.25.")
    alone = explanation_of(TEXT)
    assert sentence_about(alone, pieces_of(alone)[1]).endswith("There is no picture that was looked at.")


# The answers


@pytest.fixture(scope="module")
def page() -> DemoPage:
    return DemoPage(marking_model(), processor_of())


@pytest.fixture
def picture(tmp_path) -> str:
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((90, 60)).save(path)
    return str(path)


def tokens(marked) -> list[tuple[str, str | None]]:
    """The pieces of a HighlightedText with their labels."""
    return [(piece["token"], piece["class_or_confidence"]) for piece in marked.value]


def chosen(number) -> SimpleNamespace:
    return SimpleNamespace(index=number)


def test_page_shows_what_the_model_says(page, picture):
    """If it failed, the page would show other entities or cells than the model gives for this post."""
    kept, status, marked, drawn, sentence = page.find(TEXT, picture)
    expected = explain(page.model, page.processor, TEXT, images=Image.open(picture))
    assert (kept.entities, kept.words, len(kept.entities)) == (expected.entities, expected.words, 6)
    assert np.array_equal(kept.cells, expected.cells) and status == "6 entities found."
    labels = [f"{entity['entity_group']} {entity['score']:.2f}" for entity in expected.entities]
    assert [(text.strip(), label) for text, label in tokens(marked) if label] == [
        (entity["word"], label) for entity, label in zip(expected.entities, labels, strict=True)
    ]
    assert marked.color_map.keys() == set(labels)
    assert np.array_equal(np.asarray(drawn), np.asarray(draw_cells(kept.pictures[0], expected.cells[0, 0])))
    assert "“Jordan” is an entity" in sentence


def test_choosing_shows_the_chosen_cells_and_runs_no_model(page, picture, monkeypatch):
    """If it failed, the page would show the cells of another entity, or a click cost a run of the model."""
    monkeypatch.setattr(demo, "explain", None)
    explanation = pictured()
    for number, entity in ((1, 0), (4, 1), (2, None)):
        drawn, sentence = page.choose(explanation, chosen(number))
        if entity is None:
            assert drawn is None
        else:
            expected = draw_cells(explanation.pictures[0], explanation.cells[entity, 0])
            assert np.array_equal(np.asarray(drawn), np.asarray(expected))
        assert sentence.startswith(f"“{pieces_of(explanation)[number].text.strip()}”")
    assert page.choose(explanation_of(TEXT), chosen(1))[0] is None


def test_what_is_said_of_a_word_is_escaped(page):
    """If it failed, a word could run a script in the page of whoever chooses it."""
    sentence = page.choose(explanation_of("<img/onerror='x'>\ud83d"), chosen(1))[1]
    assert sentence.startswith("“&lt;") and "<" not in sentence
    assert "\ufffd" in page.choose(explanation_of("\ud83d"), chosen(1))[1]


def test_page_of_a_model_that_reads_contexts_asks_for_one(page, picture):
    """If it failed, a visitor could not give a context, or it would not reach the model."""
    reading = DemoPage(page.model, processor_of(context_window=8))
    kept, *_ = reading.find(TEXT, picture, "Paris in London")
    image = Image.open(picture)
    expected = explain(page.model, reading.processor, TEXT, images=image, context="Paris in London")
    assert kept.entities == expected.entities
    assert all(one["context_effect"] is not None for one in kept.entities)
    for one, labels in ((page, ["Text"]), (reading, ["Text", "Context (optional)"])):
        parts = build_demo(page.model, one.processor, name="x", examples=EXAMPLES).config["components"]
        assert [part["props"]["label"] for part in parts if part["type"] == "textbox"] == labels


@pytest.mark.parametrize("number", [-1, 7, 10**9, "0", None, 1.5])
def test_choosing_what_is_no_word_is_answered_in_words(page, number):
    """If it failed, a request that the page itself never makes would end in an error."""
    kept, *_ = page.find(TEXT, None)
    assert page.choose(kept, chosen(number)) == page.choose(None, chosen(0)) == [None, demo.SAID["forgotten"]]
    assert page.choose(kept, chosen(0)) == [None, ""]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_mistakes_are_answered_in_words(page, picture, tmp_path, monkeypatch):
    """If it failed, an empty text, or a broken or huge picture, would look like an error of the page."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(picture).read_bytes()[:60])
    (tmp_path / "text.png").write_text("no picture")
    given = [("  \n\t", None), (TEXT, str(broken)), (TEXT, f"{tmp_path}/text.png")]
    answers = [page.find(text, path) for text, path in given]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 60 - 1)
    answers.append(page.find(TEXT, picture))
    expected = [demo.SAID["empty_text"], *[demo.SAID["broken_picture"]] * 3]
    assert answers == [[None, f"<strong>{message}</strong>", [], None, ""] for message in expected]


def test_unexpected_error_is_logged_and_answered_in_words(page, monkeypatch, caplog):
    """If it failed, a bug would show as a blank page or a traceback, or nobody would learn of it."""

    def fail(*arguments, **settings):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(demo, "explain", fail)
    with caplog.at_level(logging.ERROR):
        status = page.find(TEXT, None)[1]
    assert demo.SAID["unexpected"] in status and "secret" not in status
    assert caplog.text.count("RuntimeError: secret detail") == 1


def test_long_texts_are_whole_and_too_long_ones_refused(page, monkeypatch):
    """If it failed, the end of a text would be lost, or one visitor's book keep the others for minutes."""
    long = " ".join(f"word{number}" for number in range(700))
    assert "".join(text for text, _ in tokens(page.find(long, None)[2])) == long
    monkeypatch.setattr(demo, "explain", lambda *_, **__: pytest.fail("the model was run"))
    assert demo.SAID["long_text"] in page.find("a " * demo.MOST_CHARACTERS, None)[1]
    assert demo.SAID["long_text"] in page.find("a", None, "b" * demo.MOST_CHARACTERS)[1]


def test_model_of_text_alone_says_so(picture):
    """If it failed, somebody who gave a picture would believe that it was read."""
    model = tiny_model(fusion="text-only", objectives={"crf": 1.0}, text={"vocab_size": len(bpe_tokenizer())})
    status = DemoPage(model, processor_of(image_size=None)).find(TEXT, picture)[1]
    assert "the picture was not looked at" in status


# The served page


@pytest.fixture(scope="module")
def served():
    """The address of a page that this process serves."""
    blocks = build_demo(marking_model(), processor_of(), name="tiny", examples=EXAMPLES)
    blocks.launch(server_name="127.0.0.1", server_port=free_port(), prevent_thread_lock=True, quiet=True)
    yield blocks.local_url
    blocks.close()


def ask(address: str, text: str, picture: str | None, *, session: str) -> dict:
    """What the button "Find entities" gives, asked for as the page does."""
    data = [text, picture and {"path": picture, "meta": {"_type": "gradio.FileData"}}]
    body = {"data": data, "fn_index": 0, "session_hash": session, "event_data": None, "trigger_id": None}
    headers = {"Content-Type": "application/json"}
    urlopen(Request(f"{address}gradio_api/queue/join", json.dumps(body).encode(), headers), timeout=30).read()
    for line in urlopen(f"{address}gradio_api/queue/data?session_hash={session}", timeout=30):
        message = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
        if message.get("msg") == "process_completed":
            return message
    raise AssertionError("the page gave no answer")


def test_only_uploaded_pictures_are_read(served, picture):
    """If it failed, a visitor could name any file of the server and be shown the picture in it."""
    assert ask(served, TEXT, None, session="none")["success"]
    answered = ask(served, TEXT, picture, session="foreign")
    assert not answered["success"] and "data" not in answered["output"]


def test_posts_are_read_one_at_a_time_and_answered_apart(served, monkeypatch):
    """If it failed, visitors at the same time would fill the memory, or be given each other's result."""
    running, at_a_time = [], []

    def slow(*arguments, **settings):
        running.append(arguments)
        at_a_time.append(len(running))
        time.sleep(0.1)
        running.pop()
        return explain(*arguments, **settings)

    monkeypatch.setattr(demo, "explain", slow)
    texts = [f"visitor{number}" for number in range(5)]
    with ThreadPoolExecutor(len(texts)) as pool:
        answers = list(pool.map(lambda text: ask(served, text, None, session=text), texts))
    assert at_a_time == [1] * 5
    for text, message in zip(texts, answers, strict=True):
        assert text in "".join(piece["token"] for piece in message["output"]["data"][2]["value"])


def test_no_more_visitors_wait_or_are_kept_than_there_is_room_for(monkeypatch):
    """If it failed, requests or results would be kept until there is no memory left."""
    blocks = build_demo(marking_model(), processor_of(), name="tiny", examples=EXAMPLES)
    assert blocks._queue.max_size == demo.MOST_WAITING == 50
    runs = [function for function in blocks.fns.values() if function.concurrency_id == "model"]
    assert [function.concurrency_limit for function in runs] == [1, 1]
    (choosing,) = [function for function in blocks.fns.values() if function.name == "choose"]
    assert [type(one).__name__ for one in choosing.inputs] == ["State"], (
        "each visitor has a result of their own"
    )
    settings: dict = {}
    monkeypatch.setattr(blocks, "launch", lambda **given: settings.update(given))
    demo.launch(blocks)
    assert (settings["state_session_capacity"], settings["max_file_size"]) == (500, 20 * 2**20)
