"""Tests of the demo page without a browser: its HTML, its answers, and what it lets visitors do."""

import base64
import io
import json
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request, urlopen

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset_scripts.sample.examples import examples
from dataset_scripts.sample.languages import LANGUAGES
from modeling_mmner import split_words
from modeling_mmner.cli import main
from modeling_mmner.inference import demo
from modeling_mmner.inference.demo import (
    DemoPage,
    build_demo,
    marked_text,
    place,
    summary,
    word_detail,
    word_sentence,
)
from modeling_mmner.inference.explain import Explanation, draw_map, explain
from tests.demo_parts import HOSTILE, TEXT, encodable, free_port, marking_model, processor_of
from tests.shared_data import bpe_tokenizer, property_test
from tests.tiny import tiny_model


def explanation_of(text: str, *, entities=(), pictures=(), maps=None, gate=None) -> Explanation:
    """An explanation with entities given as (type, score, first word, last word)."""
    words = split_words(text)
    found = [
        {
            "entity_group": entity_type,
            "score": score,
            "word": text[words[first].start : words[last].end],
            "start": words[first].start,
            "end": words[last].end,
        }
        for entity_type, score, first, last in entities
    ]
    return Explanation(text=text, words=words, entities=found, pictures=list(pictures), maps=maps, gate=gate)


def pictured(*, maps=True, gate=True) -> Explanation:
    """One with a picture, in which word 0 looks at the lower right and word 1 everywhere."""
    weights = np.full((6, 1, 3, 3), 0.1)
    weights[0, 0, 2, 2] = 0.9
    return explanation_of(
        TEXT,
        entities=[("PER", 0.984, 0, 0), ("LOC", 0.5, 3, 4)],
        pictures=[Image.linear_gradient("L").convert("RGB")],
        maps=weights if maps else None,
        gate=np.linspace(0, 1, 6) if gate else None,
    )


class Reader(HTMLParser):
    """Reads marked text back: its text without labels, the words by number, the entities, and every tag that
    is used.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.labels, self.tags = "", [], set()
        self.words: dict[int, str] = {}
        self.pressed: list[int] = []
        self.entities: list[str] = []
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        found = dict(attributes)
        self.open.append((tag, found))
        if tag == "mark":
            self.entities.append("")
        if "data-index" in found:
            self.words[int(found["data-index"])] = ""
            if found["aria-pressed"] == "true":
                self.pressed.append(int(found["data-index"]))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][1].get("class") == "type":
            self.labels.append(data)
            return
        self.text += data
        if any(tag == "mark" for tag, _ in self.open):
            self.entities[-1] += data
        for _, found in self.open:
            if "data-index" in found:
                self.words[int(found["data-index"])] += data


# The text


@property_test
@given(st.data())
def test_marked_text_says_what_the_text_says(data):
    """If it failed, a text could bring its own HTML into the page, lose a character, or break the answer's
    encoding.
    """
    alphabet = st.one_of(st.sampled_from("<>&\"'`${} \n\r\0;/aJ"), st.characters())
    text = data.draw(st.one_of(st.text(alphabet, max_size=40), st.just(HOSTILE)))
    words = split_words(text)
    entities = []
    if words:
        first = data.draw(st.integers(0, len(words) - 1))
        entities = [("<b>&", 0.5, first, data.draw(st.integers(first, len(words) - 1)))]
    source = marked_text(explanation_of(text, entities=entities))
    source.encode()
    read = Reader(source)
    assert read.text == encodable(text)
    assert read.words == {number: encodable(word.text) for number, word in enumerate(words)}
    assert read.tags <= {"p", "span", "mark"}
    assert read.open == []
    assert read.labels == ["<b>& 0.50"] * len(entities)


def test_entities_are_marked_with_type_and_score():
    """If it failed, an entity would be marked at other words, or told by its colour alone."""
    read = Reader(marked_text(pictured()))
    assert read.entities == ["Jordan", "San Marino"]
    assert read.labels == ["PER 0.98", "LOC 0.50"]
    assert read.text == TEXT


def test_types_have_colours_of_their_own():
    """If it failed, types could not be told apart at a glance, or an unknown type would have no colour."""
    hues = [
        marked_text(explanation_of("a", entities=[(name, 1.0, 0, 0)]))
        .partition("--hue:")[2]
        .partition('"')[0]
        for name in ("PER", "LOC", "ORG", "MISC", "VEHICLE")
    ]
    assert len(set(hues)) == 5
    assert all(0 <= int(hue) < 360 for hue in hues)


def test_one_word_is_chosen():
    """If it failed, the page would not say which word the map belongs to."""
    assert Reader(marked_text(pictured())).pressed == []
    assert Reader(marked_text(pictured(), chosen=3)).pressed == [3]


def test_summary_names_the_entities():
    """If it failed, a screen reader would not be told the result."""
    assert summary(pictured()) == "2 entities found: Jordan (PER 0.98), San Marino (LOC 0.50)."
    assert (
        summary(explanation_of("<b>", entities=[("PER", 1.0, 0, 2)]))
        == "1 entity found: &lt;b&gt; (PER 1.00)."
    )
    assert summary(explanation_of(TEXT)) == "No entity found in this text."
    many = explanation_of("a " * 12, entities=[("PER", 1.0, number, number) for number in range(12)])
    assert summary(many).startswith("12 entities found: a (PER 1.00), a")
    assert summary(many).endswith("a (PER 1.00), and 2 more.")


# A word


def test_sentence_tells_word_entity_place_and_gate():
    """If it failed, the page would say something else of a word than the explanation does."""
    whole, part, none = (word_sentence(pictured(), number) for number in (0, 4, 1))
    assert whole.startswith("“Jordan” is an entity: PER 0.98.")
    assert "most at the lower right" in whole
    assert whole.endswith("The gate lets 0% of the picture through for it.")
    assert part.startswith("“Marino” is part of the entity “San Marino”: LOC 0.50.")
    assert part.endswith("80% of the picture through for it.")
    assert none.startswith("“posts” belongs to no entity.")
    assert "looks at all places about equally" in none


def test_sentence_says_why_there_is_no_map():
    """If it failed, a reader without a map would not know whether model, post or page is the reason."""
    without = explanation_of(TEXT, gate=np.zeros(6))
    assert word_sentence(without, 0) == "“Jordan” belongs to no entity. This post has no picture to look at."
    assert "reads the text alone" in word_sentence(without, 0, reads_pictures=False)
    assert "no map of where a word looks" in word_sentence(pictured(maps=False), 0)
    assert "gate" not in word_sentence(pictured(gate=False), 0)
    assert "<img" not in word_detail(without, 0) + word_detail(pictured(maps=False), 0)


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("column", range(5))
def test_place_is_where_the_most_is(row, column):
    """If it failed, the words would say another place than the map shows."""
    weights = np.full((4, 5), 0.01)
    weights[row, column] = 1
    down, across = (
        ("upper", "middle", "middle", "lower")[row],
        ("left", "left", "middle", "right", "right")[column],
    )
    expected = "the middle" if down == across else f"the {down} {across}"
    assert place(weights) == f"most at {expected}"
    assert place(np.full((4, 5), 0.05)) == place(np.zeros((4, 5))) == "at all places about equally"


def test_detail_shows_the_words_own_map():
    """If it failed, the page would show the map of another word, or none."""
    shown = [word_detail(pictured(), number) for number in (0, 1)]
    for number, source in enumerate(shown):
        encoded = source.partition("base64,")[2].partition('"')[0]
        picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
        drawn = draw_map(pictured().pictures[0], pictured().maps[number, 0])
        assert np.array_equal(np.asarray(picture), np.asarray(drawn.convert("RGB")))
    assert shown[0] != shown[1]


# Examples


def test_examples_are_pairs_that_only_the_picture_tells_apart():
    """If it failed, clicking two examples would not show what the picture is worth."""
    found = examples()
    assert [example.language for example in found] == [language for language in LANGUAGES for _ in range(2)]
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.text == second.text
        assert first.alt != second.alt
        assert first.picture.tobytes() != second.picture.tobytes()
    assert [one.picture.tobytes() for one in examples()] == [one.picture.tobytes() for one in found]


# The answers


@pytest.fixture(scope="module")
def page() -> DemoPage:
    return DemoPage(marking_model(), processor_of(), examples())


@pytest.fixture
def picture(tmp_path) -> str:
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((90, 60)).save(path)
    return str(path)


def chosen(number) -> SimpleNamespace:
    return SimpleNamespace(index=number)


def test_page_shows_what_the_model_says(page, picture):
    """If it failed, the page would show other entities or maps than the model gives for this text and
    picture.
    """
    kept, status, words, detail = page.find(TEXT, picture)
    expected = explain(page.model, page.processor, TEXT, images=Image.open(picture))
    assert (kept.entities, kept.words) == (expected.entities, expected.words)
    assert np.array_equal(kept.maps, expected.maps)
    assert words == marked_text(expected)
    assert summary(expected) in status
    assert detail == ""
    assert len(expected.entities) == 6


def test_page_of_a_model_that_reads_contexts_asks_for_one(page, picture):
    """If it failed, a visitor could not give a context, or it would not reach the model."""
    reading = DemoPage(page.model, processor_of(context_window=8), examples())
    kept, *_ = reading.find(TEXT, picture, "Paris in London")
    expected = explain(
        page.model, reading.processor, TEXT, images=Image.open(picture), context="Paris in London"
    )
    assert np.array_equal(kept.gate, expected.gate) and not np.allclose(
        kept.gate, page.find(TEXT, picture)[0].gate, atol=1e-6
    )
    boxes = [
        [
            part["props"]["label"]
            for part in build_demo(page.model, each, name="x").config["components"]
            if part["type"] == "textbox"
        ]
        for each in (page.processor, reading.processor)
    ]
    assert boxes == [["Text"], ["Text", "Context (optional)"]]


def test_choosing_a_word_does_not_run_the_model(page, picture, monkeypatch):
    """If it failed, each click on a word would cost a run of the model."""
    kept, *_ = page.find(TEXT, picture)
    monkeypatch.setattr(demo, "explain", None)
    words, detail = page.choose(kept, chosen(2))
    assert words == marked_text(kept, chosen=2)
    assert detail == word_detail(kept, 2)


@pytest.mark.parametrize("number", [-1, 6, 10**9, "0", None, 1.5])
def test_choosing_what_is_no_word_is_answered_in_words(page, number):
    """If it failed, a request that the page itself never makes would end in an error."""
    kept, *_ = page.find(TEXT, None)
    assert demo.FORGOTTEN in page.choose(kept, chosen(number))[1]
    assert demo.FORGOTTEN in page.choose(None, chosen(0))[1]


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_empty_text_is_answered_in_words(page, text):
    """If it failed, an empty text would be an error of the page, or an empty result."""
    kept, status, words, detail = page.find(text, None)
    assert demo.EMPTY_TEXT in status
    assert (kept, words, detail) == (None, "", "")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_broken_and_huge_pictures_are_answered_in_words(page, picture, tmp_path, monkeypatch):
    """If it failed, a broken file would look like an error of the page, or a huge one fill the memory."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(picture).read_bytes()[:60])
    (tmp_path / "text.png").write_text("no picture")
    for path in (broken, tmp_path / "text.png"):
        kept, status, *_ = page.find(TEXT, str(path))
        assert kept is None
        assert demo.BROKEN_PICTURE in status
        assert str(tmp_path) not in status
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 60 - 1)
    assert demo.LARGE_PICTURE in page.find(TEXT, picture)[1]


def test_unexpected_error_is_logged_and_answered_in_words(page, picture, monkeypatch, caplog):
    """If it failed, a bug would show as a blank page or a traceback, or nobody would learn of it."""
    kept, *_ = page.find(TEXT, picture)

    def fail(*arguments, **settings):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(demo, "explain", fail)
    monkeypatch.setattr(demo, "draw_map", fail)
    with caplog.at_level(logging.ERROR):
        answers = [page.find(TEXT, None)[1], page.choose(kept, chosen(0))[1]]
    for answer in answers:
        assert demo.UNEXPECTED in answer
        assert "secret" not in answer
    assert caplog.text.count("RuntimeError: secret detail") == 2


def test_long_and_hostile_texts_are_not_cut(page):
    """If it failed, the end of a long text, or a text with half an emoji, would be lost."""
    long = " ".join(f"word{number}" for number in range(700))
    assert len(Reader(page.find(long, None)[2]).words) == 700
    assert Reader(page.find(HOSTILE, None)[2]).text == encodable(HOSTILE)


def test_model_of_text_alone_says_so(picture):
    """If it failed, somebody who gave a picture would believe that it was read."""
    model = tiny_model(fusion="text-only", objectives={"crf": 1.0}, text={"vocab_size": len(bpe_tokenizer())})
    text_page = DemoPage(model, processor_of(image_size=None))
    kept, status, *_ = text_page.find(TEXT, picture)
    assert "the picture was not looked at" in status
    assert "reads the text alone" in text_page.choose(kept, chosen(0))[1]


def test_missing_gradio_is_named_with_its_remedy(monkeypatch, capsys):
    """If it failed, users without the extra would be shown a traceback."""
    monkeypatch.delitem(sys.modules, "modeling_mmner.inference.demo")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--model", "x"]) == 2
    assert "pip install 'mmner[demo]'" in capsys.readouterr().err


# The served page


@pytest.fixture(scope="module")
def served():
    """The address of a page that this process serves."""
    blocks = build_demo(marking_model(), processor_of(), name="tiny", examples=examples())
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
    assert not answered["success"]
    assert "data" not in answered["output"]


def test_posts_are_read_one_at_a_time_and_answered_apart(served, monkeypatch):
    """If it failed, visitors at the same time would fill the memory, or be given each other's result."""
    running, most, lock = 0, 0, threading.Lock()

    def slow(*arguments, **settings):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.1)
        with lock:
            running -= 1
        return explain(*arguments, **settings)

    monkeypatch.setattr(demo, "explain", slow)
    texts = [f"visitor{number}" for number in range(5)]
    with ThreadPoolExecutor(len(texts)) as pool:
        answers = list(pool.map(lambda text: ask(served, text, None, session=text), texts))
    assert most == 1
    for text, message in zip(texts, answers, strict=True):
        assert Reader(message["output"]["data"][2]).text == text


def test_a_text_that_would_keep_others_waiting_is_answered_in_words(page, monkeypatch):
    """If it failed, one visitor's book would keep the page from all others for minutes."""
    monkeypatch.setattr(demo, "explain", lambda *_, **__: pytest.fail("the model was run"))
    kept, status, *_ = page.find("a " * demo.MOST_CHARACTERS, None)
    assert kept is None
    assert demo.LONG_TEXT in status
    assert demo.LONG_TEXT in page.find("a", None, "b" * demo.MOST_CHARACTERS)[1]


def test_no_more_visitors_wait_than_can_be_answered():
    """If it failed, requests would be kept until there is no memory left."""
    blocks = build_demo(marking_model(), processor_of(), name="tiny", examples=examples())
    assert blocks._queue.max_size == demo.MOST_WAITING
    assert [
        function.concurrency_limit for function in blocks.fns.values() if function.concurrency_id == "model"
    ] == [1, 1]
