"""Tests of the contact sheet: which posts it shows, and what its page says and shows of them."""

import base64
import colorsys
import io
import random
import re
from functools import partial
from pathlib import Path

import datasets
import pytest
from PIL import Image

from dataset_scripts.contact_sheet import THUMBNAIL_SIDE, choose_posts, contact_sheet
from modeling_mmner.model.labels_mmner import bio_labels
from tests.marked_pages import Element, marks_of, read_html
from tests.small_corpora import row_features, tagged_row

HOSTILE = "</p><script>alert(1)</script><img src=x>"
TYPES = ["PER", "LOC", "ORG", HOSTILE.replace(" ", "")]
LABELS = bio_labels(TYPES)
post = partial(tagged_row, labels=LABELS)


def picture(colour: str, size: tuple[int, int] = (90, 60)) -> dict:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


BROKEN = {"bytes": b"no picture at all", "path": "0001<b>.jpg"}


def rows_of(posts: list[dict], column: str = "image") -> datasets.Dataset:
    features = row_features(LABELS, column)
    columns = {name: [row.get(name) for row in posts] for name in features}
    return datasets.Dataset.from_dict(columns, features=features)


def cards_of(path) -> list[Element]:
    return read_html(path.read_text(encoding="utf-8")).find("article")


def card_of(row: dict, folder, **columns) -> Element:
    """The card of a single post."""
    contact_sheet(rows_of([row], **columns), LABELS, folder / "sheet.html")
    [card] = cards_of(folder / "sheet.html")
    return card


def shown(card: Element) -> list[Image.Image]:
    """The pictures of a card."""
    addresses = [
        image.attributes["src"].removeprefix("data:image/jpeg;base64,") for image in card.find("img")
    ]
    return [Image.open(io.BytesIO(base64.b64decode(address, validate=True))) for address in addresses]


def test_card_says_what_the_post_has(tmp_path):
    """If it failed, a reader would see another text, id, language, source or type than the corpus has."""
    row = post(
        "aaaa New/B-LOC York/I-LOC by/O Ann/B-PER Oslo/I-LOC", id="p-1", language="es", image=picture("red")
    )
    card = card_of(row, tmp_path)
    assert [heading.text for heading in card.find("h2")] == ["p-1"]
    assert [line.text for line in card.find("p", "about")] == ["es · tweet"]
    [text] = card.find("p", "text")
    assert marks_of(text) == [("New York", "LOC"), ("Ann", "PER"), ("Oslo", "LOC")]
    assert text.text == "aaaa New YorkLOC by AnnPER OsloLOC" and text.attributes["lang"] == "es"

    card = card_of(post("a", language="unknown"), tmp_path)  # no screen reader knows such a language
    assert card.find("p", "text")[0].attributes["lang"] == ""
    assert card.find("p", "about")[0].text == "unknown · tweet"


def test_whatever_the_corpus_says_stays_text(tmp_path):
    """If it failed, a corpus could run a program in the browser of whoever looks at it."""
    tags = [LABELS.index(f"B-{TYPES[3]}"), 0]
    row = post(id=HOSTILE, language=f'en" {HOSTILE}', source=HOSTILE, image=BROKEN) | {
        "tokens": [HOSTILE] * 2,
        "ner_tags": tags,
    }
    contact_sheet(rows_of([row]), LABELS, tmp_path / "sheet.html", title=HOSTILE)
    page = read_html((tmp_path / "sheet.html").read_text(encoding="utf-8"))
    assert not {"script", "img", "b", "link", "iframe"} & {element.tag for element in page.everything()}
    assert page.find("h1")[0].text == page.find("title")[0].text == HOSTILE
    [card] = page.find("article")
    assert (
        card.find("h2")[0].text == HOSTILE and card.find("p", "about")[0].text == f'en" {HOSTILE} · {HOSTILE}'
    )
    assert marks_of(card) == [(HOSTILE, TYPES[3])]


def test_page_loads_nothing(tmp_path):
    """If it failed, opening a sheet would tell a server of it."""
    posts = [post("a", image=picture("red")) | {"tokens": ["https://example.org/a.png"]} for _ in range(3)]
    contact_sheet(rows_of(posts), LABELS, tmp_path / "sheet.html")
    page = read_html((tmp_path / "sheet.html").read_text(encoding="utf-8"))
    loading = [
        value
        for one in page.everything()
        for name, value in one.attributes.items()
        if name in ("src", "href", "srcset")
    ]
    assert len(loading) == 3 and all(value.startswith("data:image/jpeg;base64,") for value in loading)
    assert not re.search(r"url\(|@import", "".join(style.text for style in page.find("style")))
    [policy] = [meta.attributes["content"] for meta in page.find("meta") if "http-equiv" in meta.attributes]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.parametrize("size", [(90, 60), (2000, 1000), (3000, 1)])
def test_pictures_are_small_copies_of_the_whole(tmp_path, size):
    """If it failed, a sheet would take the room of its photos, or show a part of them."""
    [found] = shown(card_of(post("a", image=picture("red", size)), tmp_path))
    scale = min(1, THUMBNAIL_SIDE / size[0])
    assert found.size == (round(size[0] * scale), max(1, round(size[1] * scale)))
    assert found.convert("RGB").getpixel((0, 0))[0] > 240


@pytest.mark.parametrize(
    ("count", "said"), [(1, ""), (2, " · 2 pictures"), (4, " · 4 pictures"), (6, " · 6 pictures, 4 shown")]
)
def test_several_pictures_stand_side_by_side(tmp_path, count, said):
    """If it failed, a post of several pictures would show one only, or not say that there are more."""
    colours = ["red", "lime", "blue", "yellow", "cyan", "magenta"][:count]
    card = card_of(post("a", images=[picture(colour) for colour in colours]), tmp_path, column="images")
    expected = [Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in colours[:4]]
    for found, colour in zip(shown(card), expected, strict=True):
        assert max(abs(a - b) for a, b in zip(found.getpixel((0, 0)), colour, strict=True)) < 8
    assert card.find("p", "about")[0].text == f"en · tweet{said}"


def test_missing_and_broken_pictures_are_said_to_be_so(tmp_path):
    """If it failed, a broken picture would stop the sheet, or not differ from a missing one."""
    columns = ({"image": None}, {"image": BROKEN}, {"image": {"bytes": None, "path": "nowhere.jpg"}})
    rooms = [card_of(post("a", **one), tmp_path).find("div", "pictures")[0].text.strip() for one in columns]
    assert rooms[0] == "no picture" and rooms[1].startswith(
        "broken picture: row with path '0001<b>.jpg': expected one of"
    )
    assert rooms[2].startswith("broken picture: ") and "nowhere.jpg" in rooms[2]
    assert (
        card_of(post("a", images=[]), tmp_path, column="images").find("div", "pictures")[0].text.strip()
        == "no picture"
    )


def test_any_text_can_be_written(tmp_path):
    """If it failed, one emoji or empty word would stop the sheet of a whole corpus."""
    words = ["", "\U0001f3ff\U0001faf6", "e\u0301", "\u200f\u0661", "\x07", "中", "a b", "\u2028"]
    row = post() | {"tokens": words, "ner_tags": [1, *[0] * (len(words) - 1)]}
    assert card_of(row, tmp_path).find("p", "text")[0].text == " ".join(["PER", *words[1:]])


def mixed_posts(count: int) -> list[dict]:
    """The first tenth has pictures and entities, the second entities, the third pictures, the rest neither;
    shuffled.
    """
    kinds = [post("Ann/B-PER", image=picture("red")), post("Ann/B-PER"), post("a", image=picture("red"))] + [
        post("a")
    ] * 7
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
        merits = [
            (posts[number].get("image") is not None) + any(posts[number]["ner_tags"]) for number in chosen
        ]
        assert min(merits) == least


def test_the_sample_is_drawn_by_its_seed():
    """If it failed, a sheet could not be made again, or always show the first posts."""
    rows = rows_of([post("Ann/B-PER") for _ in range(300)])
    draws = [choose_posts(rows, LABELS, count=100, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert max(draws[0]) > 250 and len(choose_posts(rows, LABELS, count=999, seed=1)) == 300


def test_a_sheet_holds_its_cards_in_order(tmp_path):
    """If it failed, cards would be missing, out of order or of other posts than the ids returned."""
    posts = [post("Ann/B-PER went " * (3 * n + 1), id=f"post-{n}", image=picture("red")) for n in range(5)]
    posts[3]["image"] = BROKEN
    ids = contact_sheet(
        rows_of(posts), LABELS, tmp_path / "sheet.html", title="small, train", count=4, seed=2
    )
    assert len(ids) == 4 and ids == sorted(ids)
    assert [card.find("h2")[0].text for card in cards_of(tmp_path / "sheet.html")] == ids
    page = read_html((tmp_path / "sheet.html").read_text(encoding="utf-8"))
    [header] = page.find("header")
    assert header.find("h1")[0].text == "small, train" and "4 of 5 posts" in header.text
    assert [name for name, _ in marks_of(header)] == TYPES


@pytest.mark.parametrize("number", [0, 1], ids=["light", "dark"])
def test_marks_can_be_read(number):
    """If it failed, text on some type's colour would have too little contrast, less than 4.5 by WCAG 2."""
    template = (Path(contact_sheet.__code__.co_filename).parent / "contact_sheet.html.jinja").read_text()
    found = {
        name: values
        for name, *values in re.findall(r"--(mark|type): (\d+)% (\d+)%", template)[2 * number :][:2]
    }
    inks = dict(re.findall(r"--(mark|type)-ink: #(\w{3});", template)[2 * number :][:2])

    def luminance(red: float, green: float, blue: float) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name in ("mark", "type"):
        saturation, lightness = (int(part) / 100 for part in found[name])
        ink = luminance(*[int(digit, 16) / 15 for digit in inks[name]])
        grounds = [luminance(*colorsys.hls_to_rgb(hue / 360, lightness, saturation)) for hue in range(360)]
        assert min((max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) for ground in grounds) > 4.5


def test_types_have_colours_of_their_own(tmp_path):
    """If it failed, types would look alike, or a type have one colour in the header and another on a card."""
    contact_sheet(rows_of([post("Ann/B-PER Oslo/B-LOC")]), LABELS, tmp_path / "sheet.html")
    marks = read_html((tmp_path / "sheet.html").read_text(encoding="utf-8")).find("mark")
    hues = [int(mark.attributes["style"].removeprefix("--hue:")) for mark in marks]
    assert len(set(hues[: len(TYPES)])) == len(TYPES) and hues[len(TYPES) :] == hues[:2]


def test_without_any_picture_the_cards_are_short(tmp_path):
    """If it failed, the sheet of a corpus of text alone would consist of grey boxes."""
    heights = []
    for image in (None, picture("red")):
        contact_sheet(rows_of([post("a")] * 3 + [post("a", image=image)]), LABELS, tmp_path / "sheet.html")
        style = read_html((tmp_path / "sheet.html").read_text(encoding="utf-8")).find("style")[0].text
        heights.append(float(re.search(r"\.pictures {[^}]*[^-]height: (\d+)rem", style)[1]))
    assert heights == [3, 15]


def test_what_cannot_be_shown_is_refused(tmp_path):
    """If it failed, an empty sheet would be saved, or an error would not say what to change."""
    with pytest.raises(ValueError, match="expected at least one post, found none"):
        contact_sheet(rows_of([]), LABELS, tmp_path / "sheet.html")
