"""Tests of marked texts: what is marked, that everything of the text stays text, and that it can be read."""

import base64
import colorsys
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset_scripts.marks import DARK_COLOURS, STYLE, Mark, data_uri, escaped, hue, marked_words
from tests.marked_pages import marks_of, read_html
from tests.shared_data import property_test

any_text = (
    st.text(max_size=12)
    | st.text(st.characters(codec=None, categories=None), max_size=6)
    | st.just("</mark><script>")
)


@st.composite
def texts(draw):
    """Words and gaps of any characters, and entities apart from each other."""
    words = draw(st.lists(any_text, min_size=1, max_size=12))
    cuts = sorted(draw(st.sets(st.integers(0, len(words)), max_size=8)))
    marks = [
        Mark(start, end, draw(any_text), draw(any_text))
        for start, end in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    return words, marks, draw(st.lists(any_text, min_size=len(words) + 1, max_size=len(words) + 1))


def encodable(text: str) -> str:
    """As a browser reads it, which has its own view of line ends and of NUL."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@property_test
@given(texts())
def test_any_text_is_marked_where_its_entities_are(text):
    """If it failed, an entity would be unmarked or have another's type, or a text would become elements of
    the page.
    """
    words, marks, gaps = text
    page = read_html(marked_words(words, marks, gaps=gaps, wrap=lambda number, word: f"<b>{word}</b>"))
    assert {element.tag for element in page.everything()} <= {"", "mark", "b", "span"}
    assert [element.text for element in page.find("b")] == [encodable(word) for word in words]
    expected = []
    for mark in marks:
        inner = [encodable(words[mark.start])]
        for number in range(mark.start + 1, mark.end):
            inner += [encodable(gaps[number]), encodable(words[number])]
        expected.append(("".join(inner), encodable(mark.label)))
    assert marks_of(page) == expected
    assert page.text.startswith(encodable(gaps[0])) and page.text.endswith(encodable(gaps[-1]))


def test_words_stand_a_space_apart():
    """If it failed, tokens without a text of their own would run into one another."""
    html = marked_words(["New", "York", "!"], [Mark(0, 2, "LOC", "LOC 0.98")])
    assert html == f'<mark style="--hue:{hue("LOC")}">New York<span class="type">LOC 0.98</span></mark> !'
    assert marked_words([], []) == "" and marked_words(["a"], []) == "a"
    assert "span" not in marked_words(["LOC"], [Mark(0, 1, "LOC", "")])


def test_half_a_character_and_quotes_are_made_harmless():
    """If it failed, half an emoji would stop the page, or a quote end the attribute that it stands in."""
    assert escaped("\ud83d\"'<&>") == "\ufffd&quot;&#x27;&lt;&amp;&gt;"


def test_hues_are_those_of_the_type_everywhere():
    """If it failed, the usual types would look alike, or a type change its colour from page to page."""
    usual = [hue(name) for name in ("PER", "LOC", "ORG", "MISC")]
    assert min(abs(a - b) for a in usual for b in usual if a != b) > 60
    assert hue("product") == hue("product") != hue("event") and 0 <= hue("\ud83d") < 360


@pytest.mark.parametrize("colours", [STYLE, DARK_COLOURS], ids=["light", "dark"])
def test_marks_can_be_read(colours):
    """If it failed, text on some type's colour would have too little contrast, less than 4.5 by WCAG 2."""
    found = dict(re.findall(r"--([\w-]+): ([^;]+);", colours))

    def luminance(red: float, green: float, blue: float) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name in ("mark", "type"):
        saturation, lightness = (int(part) / 100 for part in re.findall(r"(\d+)%", found[name]))
        ink = luminance(*[int(digit, 16) / 15 for digit in found[f"{name}-ink"][1:]])
        grounds = [
            luminance(*colorsys.hls_to_rgb(degree / 360, lightness, saturation)) for degree in range(360)
        ]
        assert min((max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) for ground in grounds) > 4.5


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_address_holds_the_picture(file_format):
    """If it failed, a page would show another picture or none."""
    head, _, data = data_uri(Image.new("RGB", (6, 4), "red"), file_format).partition(",")
    assert head == f"data:image/{file_format.lower()};base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (picture.format, picture.size) == (file_format, (6, 4))
