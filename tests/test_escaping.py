"""Tests of escaping: whatever a stranger says stays text in Markdown."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_mmner.escaping import code_block, code_span, markdown_text, one_line
from tests.shared_data import property_test

HOSTILE = [
    "</td><script>alert(1)</script>",
    "a | b\n| --- | --- |\n| c | d |",
    "x\n---\nlicense: mit\n---",
    "`code` ``` ```` end`",
    "[link](javascript:alert(1)) ![image](http://x)",
    "# heading",
    "- item",
    "1. item",
    "a\\|b",
    "\u2028line\x85next\x0b",
    "",
]
texts = st.one_of(st.sampled_from(HOSTILE), st.text())


def rendered_cells(row: str) -> int:
    """How many cells a row of a GitHub table has: pipes count unless a backslash stands before them."""
    return len(re.split(r"(?<!\\)\|", re.sub(r"\\\\", "", row))) - 2


@pytest.mark.parametrize("escape", [markdown_text, code_span])
@given(text=texts)
@property_test
def test_a_cell_stays_a_cell(escape, text):
    """If it failed, a name would add columns, rows or blocks to a card."""
    cell = escape(text)
    assert len(cell.splitlines()) <= 1
    if escape is markdown_text:
        assert rendered_cells(f"| a | {cell} | b |") == 3
        assert "<" not in cell and not re.match(r"[#+>=-]|\d+[.)](\s|$)", cell)


@given(text=texts)
@property_test
def test_code_span_ends_at_its_end(text):
    """If it failed, what follows the backtick inside a name would be read as Markdown or HTML."""
    span = code_span(text)
    if "|" in text:  # an HTML element, which says the same
        assert re.fullmatch(r"<code>[^<>|`\\]*</code>", span) and html.unescape(span[6:-7]) == one_line(text)
        return
    fence = re.match("`+", span).group()
    inner = span[len(fence) : -len(fence)]
    assert span.endswith(fence) and fence not in re.findall("`+", inner)
    assert inner.strip() == one_line(text).strip()


@given(text=texts)
@property_test
def test_code_block_ends_at_its_end(text):
    """If it failed, a citation with a fence in it would end its block and go on as Markdown."""
    block = code_block(text, "bibtex")
    fence = re.match("`+", block).group()
    assert block == f"{fence}bibtex\n{text}\n{fence}" and fence not in text


def test_ordinary_names_are_as_they_were():
    """If it failed, every card would look odd for the sake of hostile ones."""
    assert markdown_text("0.1.0") == "0.1.0" and markdown_text("1. item") == r"1\. item"
    assert markdown_text("MLMNER (Li et al. 2022), 4 types") == "MLMNER (Li et al. 2022), 4 types"
    assert code_span("google-bert/bert-base-cased") == "`google-bert/bert-base-cased`"
    assert code_block("@article{x}", "bibtex") == "```bibtex\n@article{x}\n```"
