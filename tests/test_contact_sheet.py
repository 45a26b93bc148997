"""Tests of the contact sheet: which posts it shows, how their text is wrapped, and, by pixels, what is drawn."""

import io
import random
import re
from itertools import pairwise

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from dataset_scripts.contact_sheet import (
    CARD_WIDTH,
    NO_PICTURE_HEIGHT,
    PICTURE_HEIGHT,
    choose_posts,
    contact_sheet,
    draw_card,
    shown,
    type_colours,
    wrap_words,
)
from dataset_scripts.opening import open_corpus
from modeling_mmner.labels_mmner import bio_labels

from .shared_data import DATA, needs_data, property_test

TYPES = ["PER", "LOC", "ORG", "MISC", "product-software-game"]
LABELS = bio_labels(TYPES)
COLOURS = type_colours(TYPES)
GREY, CARD, MARGIN, INSET = "#dde2e8", "#ffffff", 20, 12
FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=LABELS)),
        "image": datasets.Image(decode=False),
        "language": datasets.Value("string"),
        "source": datasets.Value("string"),
    }
)
any_text = st.text(max_size=12) | st.text(st.characters(codec=None, categories=None), max_size=6)
any_word = any_text | st.builds(lambda character, number: character * number, st.characters(), st.integers(0, 300))


def picture(colour: str, size: tuple[int, int] = (90, 60)) -> dict:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


BROKEN = {"bytes": b"no picture at all", "path": "0001.jpg"}


def post(text: str = "", **columns) -> dict:
    """A post from ``word/TAG word ...``; no tag is O."""
    pairs = [pair.partition("/") for pair in text.split()]
    tags = [LABELS.index(tag or "O") for _, _, tag in pairs]
    base = {"id": "0001", "tokens": [word for word, _, _ in pairs], "ner_tags": tags, "language": "en", "source": "tweet"}
    return base | {"image": None} | columns


def pixels(image: Image.Image, colour: str) -> np.ndarray:
    """Where an image has exactly this colour. *Shape:* (height, width)"""
    return (np.asarray(image.convert("RGB")) == np.array(ImageColor.getrgb(colour))).all(axis=-1)


def text_area(card: Image.Image) -> Image.Image:
    return card.crop((0, PICTURE_HEIGHT, card.width, card.height))


@pytest.mark.parametrize("entity_type", TYPES)
def test_an_entity_is_marked_by_the_colour_of_its_type(entity_type):
    """If it failed, an entity would be unmarked, or have the colour of another type."""
    card = draw_card(post(f"I saw New/B-{entity_type} York/I-{entity_type} today", image=picture("black")), LABELS)
    found = {name: int(pixels(card, colour).sum()) for name, colour in COLOURS.items()}
    assert found.pop(entity_type) > 500 and set(found.values()) == {0}


def test_words_outside_of_entities_are_not_marked():
    """If it failed, a reader would take a word for part of an entity."""
    plain = draw_card(post("I saw New York today"), LABELS)
    assert not any(pixels(plain, colour).any() for colour in COLOURS.values())
    marked = pixels(draw_card(post("aaaa New/B-LOC York/I-LOC aaaa"), LABELS), COLOURS["LOC"])
    (line,) = wrap_words(["aaaa", "New", "York", "aaaa"], [(1, 3, "LOC")], width=CARD_WIDTH - 2 * INSET)
    columns = np.flatnonzero(marked.any(axis=0))
    assert columns[0] >= INSET + line[0].x + line[0].width and columns[-1] < INSET + line[-1].x


def test_an_entity_is_one_stretch_and_two_that_touch_are_two():
    """If it failed, an entity of several words would look like several, or two neighbours like one."""
    for text, stretches in (("New/B-LOC York/I-LOC City/I-LOC", 1), ("Rome/B-LOC Oslo/B-LOC", 2), ("Rome/B-LOC Oslo/I-ORG", 1)):
        marked = pixels(draw_card(post(text), LABELS), COLOURS["LOC"])
        top = np.flatnonzero(marked.any(axis=1))[0] + 2  # above the letters, below the rounded corners
        starts = np.diff(np.concatenate([[0], marked[top].astype(int)])) == 1
        assert starts.sum() == stretches, text


def test_the_type_follows_the_last_word_of_its_entity():
    """If it failed, an entity's type would be missing or stand behind another word."""
    lines = wrap_words(["in", "New", "York", "by", "Ann"], [(1, 3, "LOC"), (4, 5, "PER")], width=300)
    pieces = [(piece.text, piece.word, piece.entity) for line in lines for piece in line]
    assert pieces == [
        ("in", 0, None),
        ("New", 1, 0),
        ("York", 2, 0),
        ("LOC", None, 0),
        ("by", 3, None),
        ("Ann", 4, 1),
        ("PER", None, 1),
    ]
    _, new, york, *_ = lines[0]
    assert york.x < new.x + new.width  # no double padding between words of one entity


def test_a_word_wider_than_a_line_fills_its_lines():
    """If it failed, a long link would take more lines than it needs, or one character would stand alone."""
    per_line = max(number for number in range(1, 100) if len(wrap_words(["x" * number], [], width=200)) == 1)
    for number in (per_line, per_line + 1, 2 * per_line, 3 * per_line - 1, 3 * per_line + 1):
        lines = wrap_words(["x" * number], [], width=200)
        expected = [per_line] * (number // per_line) + [number % per_line] * (number % per_line > 0)
        assert [len(piece.text) for (piece,) in lines] == expected


def test_the_type_stays_on_the_line_of_its_word():
    """If it failed, a line would begin with a type whose entity is on the line above."""
    for number in range(1, 40):
        lines = wrap_words(["i" * number, "Paris"], [(1, 2, "product-software-game")], width=300)
        (at,) = [at for at, line in enumerate(lines) if any(piece.word == 1 for piece in line)]
        assert lines[at][-1].text == "product-software-game"


@st.composite
def texts(draw):
    """Words of any characters, and entities apart from each other."""
    words = draw(st.lists(any_word, max_size=25))
    cuts = sorted(draw(st.sets(st.integers(0, len(words)), max_size=8)))
    spans = [(start, end, draw(any_text)) for start, end in zip(cuts[::2], cuts[1::2], strict=False)]
    return words, spans


@property_test
@given(texts(), st.integers(150, 500), st.integers(1, 6))
def test_wrapped_words_fit_and_none_is_lost(text, width, max_lines):
    """If it failed, text would run over the card's edge or over itself, or words would vanish without a note saying so."""
    words, spans = text
    lines = wrap_words(words, spans, width=width, max_lines=max_lines)
    assert 1 <= len(lines) <= max_lines
    for line in lines:
        assert all(piece.x >= 0 and piece.x + piece.width <= width + 1e-6 for piece in line)
        # Inside an entity the paddings overlap, 4 pixels of each.
        for before, after in pairwise(line):
            is_same = before.entity is not None and before.entity == after.entity
            assert before.x + before.width <= after.x + 8 * is_same
    pieces = [piece for line in lines for piece in line]
    note = pieces.pop() if pieces and pieces[-1].word is None and pieces[-1].entity is None else None
    found = [""] * len(words)
    for piece in pieces:
        if piece.word is not None:
            found[piece.word] += piece.text
    order = [piece.word for piece in pieces if piece.word is not None]
    assert order == sorted(order)
    expected = [shown(word) for word in words]
    if note is None:
        assert found == expected
        whole = wrap_words(words, spans, width=width, max_lines=10**6)
        assert lines == whole
    else:
        missing = int(re.fullmatch(r"… (\d+) more words?", note.text).group(1)) if note.text != "…" else 0
        shown_whole = len(words) - missing
        assert found[:shown_whole] == expected[:shown_whole]
        assert all(word.startswith(part) for part, word in zip(found, expected, strict=True))
        assert not any(found[shown_whole + 1 :])


def test_a_cut_text_says_how_much_is_missing():
    """If it failed, a post of 500 words would fill the sheet, or look complete though it is not."""
    words = [f"word{number}" for number in range(500)]
    lines = wrap_words(words, [], width=300, max_lines=5)
    shown_words = [piece.word for line in lines for piece in line[: -1 if line is lines[-1] else None]]
    assert shown_words == list(range(len(shown_words))) and len(shown_words) > 10
    assert lines[-1][-1].text == f"… {500 - len(shown_words)} more words"
    short = draw_card(post(" ".join(words[:3])), LABELS)
    assert draw_card(post(" ".join(words)), LABELS).height == draw_card(post(" ".join(words * 2)), LABELS).height
    assert short.height < draw_card(post(" ".join(words)), LABELS).height < 3 * short.height


@property_test
@given(texts(), any_text, any_text)
def test_any_text_can_be_drawn(text, name, source):
    """If it failed, one emoji, surrogate, line break or empty word would stop the sheet of a whole corpus."""
    words, spans = text
    tags = [0] * len(words)
    for start, end, _ in spans:
        tags[start:end] = [1] + [2] * (end - start - 1)
    card = draw_card({"id": name, "tokens": words, "ner_tags": tags, "source": source}, LABELS)
    assert card.width == CARD_WIDTH
    beyond = np.asarray(text_area(card))[:, CARD_WIDTH - INSET + 3 :]
    assert (beyond == 255).all()


def test_letters_show_with_their_accents_and_others_as_boxes():
    """If it failed, accents written as separate marks would be lost, or what the font lacks would leave no trace."""

    def ink(text: str) -> int:
        return int((np.asarray(text_area(draw_card(post(text), LABELS)).convert("L")) < 128).sum())

    def same(text: str, other: str) -> bool:
        return draw_card(post(text), LABELS).tobytes() == draw_card(post(other), LABELS).tobytes()

    assert same("e\u0301te\u0301", "été") and not same("été", "ete") and not same("Größe", "Grosse")
    for character in ("中", "\U0001f3ff\U0001faf6", "\x07", "\ud83d"):
        assert ink(character) > ink("") + 10, character


def test_pictures_show_whole_in_their_cells():
    """If it failed, a picture would be cropped, distorted, or lie over the text or over another picture."""
    wide, tall = (draw_card(post("a", image=picture("red", size)), LABELS) for size in ((300, 100), (100, 300)))
    for card, expected in ((wide, (CARD_WIDTH, CARD_WIDTH // 3)), (tall, (PICTURE_HEIGHT // 3, PICTURE_HEIGHT))):
        red = pixels(card, "red")
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        assert (len(columns), len(rows)) == expected and red.sum() == expected[0] * expected[1]
        assert (columns[0] + columns[-1] + 1, rows[0] + rows[-1] + 1) == pytest.approx((CARD_WIDTH, PICTURE_HEIGHT), abs=1)
    assert pixels(draw_card(post("a", image=picture("red", (3000, 1))), LABELS), "red").sum() == CARD_WIDTH


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_several_pictures_share_the_room(count):
    """If it failed, a post of several pictures would show one only, or one over the other."""
    colours = ["red", "lime", "blue", "yellow", "cyan", "magenta"][:count]
    card = draw_card(post("a", images=[picture(colour, (120, 80)) for colour in colours]), LABELS)
    areas = [int(pixels(card, colour).sum()) for colour in colours]
    assert len(set(areas[:4])) == 1 and areas[0] > 10_000
    assert areas[4:] == [0] * len(areas[4:])
    assert not any(pixels(text_area(card), colour).any() for colour in colours)


def test_missing_and_broken_pictures_are_said_to_be_so():
    """If it failed, a broken picture would stop the sheet, or not differ from a missing one."""
    rooms = [
        np.asarray(draw_card(post("a", **columns), LABELS).crop((0, 0, CARD_WIDTH, PICTURE_HEIGHT)))
        for columns in ({"image": None}, {"images": []}, {"image": BROKEN}, {"image": {"bytes": None, "path": "nowhere.jpg"}})
    ]
    missing, empty, broken, nowhere = rooms
    assert (missing == empty).all() and (missing != broken).any() and (broken != nowhere).any()
    for room in rooms:
        is_grey = (room == np.array(ImageColor.getrgb(GREY))).all(axis=-1)
        assert 0.7 < is_grey.mean() < 1 and is_grey[:3].all() and is_grey[:, :3].all()


@pytest.mark.parametrize("count", [1, 4, 8, 9, 30, 200])
def test_colours_are_light_and_differ(count):
    """If it failed, two types would look the same, or dark letters would not be readable on a type's colour."""
    types = [f"type-{number}" for number in range(count)]
    colours = type_colours(types)
    assert len(set(colours.values())) == count and list(colours) == types
    assert not {GREY, CARD} & set(colours.values())
    assert colours.items() <= type_colours([*types, "another"]).items()

    def luminance(colour: str) -> float:
        """Of WCAG 2, relative."""
        channels = np.array(ImageColor.getrgb(colour)) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    contrasts = [(luminance(colour) + 0.05) / (luminance("#1f2933") + 0.05) for colour in colours.values()]
    assert min(contrasts) > 4.5


def rows_of(posts: list[dict]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({name: [row[name] for row in posts] for name in FEATURES}, features=FEATURES)


def mixed_posts(count: int) -> list[dict]:
    """The first tenth has pictures and entities, the second entities, the third pictures, the rest neither; shuffled."""
    kinds = [post("Ann/B-PER", image=picture("red")), post("Ann/B-PER"), post("a", image=picture("red"))] + [post("a")] * 7
    posts = [kinds[10 * number // count] | {"id": str(number)} for number in range(count)]
    random.Random(3).shuffle(posts)
    return posts


def test_posts_with_pictures_and_entities_come_first():
    """If it failed, a sheet could show twelve posts without anything to look at."""
    posts = mixed_posts(200)
    rows = rows_of(posts)
    for count, least in ((20, 2), (60, 1), (200, 0)):
        chosen = choose_posts(rows, LABELS, count=count, seed=1)
        assert chosen == sorted(set(chosen)) and len(chosen) == count
        merits = [(posts[number]["image"] is not None) + any(posts[number]["ner_tags"]) for number in chosen]
        assert min(merits) == least


def test_the_sample_is_drawn_by_its_seed():
    """If it failed, a sheet could not be made again, or always show the first posts."""
    rows = rows_of([post("Ann/B-PER") for _ in range(300)])
    draws = [choose_posts(rows, LABELS, count=100, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert max(draws[0]) > 250 and len(choose_posts(rows, LABELS, count=999, seed=1)) == 300


def test_a_sheet_holds_the_cards_side_by_side(tmp_path):
    """If it failed, cards would overlap, be cut off, out of order or of other posts than the ids returned."""
    colours = ["red", "lime", "blue", "yellow", "cyan"]
    posts = [post("Ann/B-PER went " * (3 * n + 1), id=f"post-{n}", image=picture(c)) for n, c in enumerate(colours)]
    posts[3]["image"] = BROKEN
    ids = contact_sheet(rows_of(posts), LABELS, tmp_path / "sheet.png", columns=2, title="small, train:")
    assert ids == [f"post-{number}" for number in range(5)]
    cards = [draw_card(row, LABELS) for row in posts]
    heights = [max(cards[0].height, cards[1].height), max(cards[2].height, cards[3].height), cards[4].height]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width == 2 * CARD_WIDTH + 3 * MARGIN
        top = sheet.height - sum(heights) - 3 * MARGIN
        assert 40 < top < 100
        for number, card in enumerate(cards):
            x = MARGIN + number % 2 * (CARD_WIDTH + MARGIN)
            y = top + sum(heights[: number // 2]) + number // 2 * MARGIN
            assert sheet.crop((x, y, x + card.width, y + card.height)).tobytes() == card.tobytes()
        head = sheet.crop((0, 0, sheet.width, top - 1))
        assert all(pixels(head, colour).any() for colour in COLOURS.values())


def test_without_any_picture_the_cards_are_short(tmp_path):
    """If it failed, the sheet of a corpus of text alone would consist of grey boxes."""
    contact_sheet(rows_of([post("a")] * 3), LABELS, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height < PICTURE_HEIGHT
        assert int(pixels(sheet, GREY).sum()) < 3 * CARD_WIDTH * NO_PICTURE_HEIGHT


def test_what_cannot_be_shown_is_refused(tmp_path):
    """If it failed, an empty sheet would be saved, or an error would not say what to change."""
    with pytest.raises(ValueError, match="expected at least one post, found none"):
        contact_sheet(rows_of([]), LABELS, tmp_path / "sheet.png")
    for settings in ({"count": 0}, {"columns": 0}):
        with pytest.raises(ValueError, match="expected count and columns of at least 1, found count"):
            contact_sheet(rows_of([post("a")]), LABELS, tmp_path / "sheet.png", **settings)


def test_the_sample_corpus_has_its_sheet(tmp_path):
    """If it failed, the columns of an opened corpus would not be those that the sheet reads."""
    corpus = open_corpus("sample")
    ids = contact_sheet(corpus.splits["test"], corpus.labels, tmp_path / "sheet.png", count=8)
    assert len(ids) == 8 and set(ids) < set(corpus.splits["test"]["id"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert any(pixels(sheet.crop((0, 60, *sheet.size)), colour).any() for colour in type_colours(["PER", "LOC"]).values())


@needs_data
def test_real_posts_have_their_sheet(tmp_path):
    """If it failed, the pictures of a folder of raw files would not be found by their paths."""
    corpus = open_corpus(str(DATA / "tweets_with_pictures" / "twitter2017"))
    rows = corpus.splits["train"]
    assert contact_sheet(rows, corpus.labels, tmp_path / "sheet.png") == list(rows["id"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        room = sheet.crop((MARGIN, 70, sheet.width - MARGIN, 70 + PICTURE_HEIGHT // 2))
        assert pixels(room, GREY).mean() < 0.5
