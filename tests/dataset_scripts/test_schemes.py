"""Tests of tag schemes: IOB1, BIO and BIOES of the same entities, and orphan tags, against plainly written
oracles.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.formats.schemes import PREFIXES, orphans, repaired, to_bio
from modeling_mmner.model.labels_mmner import Span, spans_to_tags, tags_to_spans
from tests.shared_data import property_test

TYPES = ["PER", "LOC", "x-y"]
BIO_TAGS = ["O", *(f"{prefix}-{name}" for prefix in "BI" for name in TYPES)]
any_bio_tags = st.lists(st.sampled_from(BIO_TAGS), max_size=12)


@st.composite
def texts(draw: st.DrawFn) -> tuple[int, list[Span]]:
    """A number of words and the entities over them, which often touch and often are of one word."""
    spans, position = [], 0
    for _ in range(draw(st.integers(0, 6))):
        start = position + draw(st.integers(0, 2))
        position = start + draw(st.integers(1, 4))
        spans.append(Span(draw(st.sampled_from(TYPES)), start, position))
    return position + draw(st.integers(0, 2)), spans


def written(scheme: str, length: int, spans: list[Span]) -> list[str]:
    """The tags of a text, entity by entity, as the scheme is defined."""
    tags = ["O"] * length
    for before, span in zip([None, *spans], spans, strict=False):
        prefixes = ["I"] * (span.end - span.start)
        touches = before is not None and before.end == span.start and before.type == span.type
        if scheme != "iob1" or touches:
            prefixes[0] = "B"
        if scheme == "bioes":
            prefixes[-1] = "S" if len(prefixes) == 1 else "E"
        tags[span.start : span.end] = [f"{prefix}-{span.type}" for prefix in prefixes]
    return tags


def naive_orphans(tags: list[str]) -> list[bool]:
    """A loop that remembers the type of the entity it is in."""
    found, inside = [], None
    for tag in tags:
        found.append(tag[0] == "I" and tag[2:] != inside)
        inside = None if tag == "O" else tag[2:]
    return found


@pytest.mark.parametrize("scheme", PREFIXES)
@property_test
@given(text=texts())
def test_every_scheme_becomes_the_same_bio(scheme, text):
    """If it failed, a corpus in this scheme would be trained on with other entities than its annotators
    marked, or a valid tag of it be refused.
    """
    length, spans = text
    tags = written(scheme, length, spans)
    assert to_bio(tags, scheme) == written("bio", length, spans)
    assert tags_to_spans(to_bio(tags, scheme)) == spans
    assert {tag[0] for tag in tags if tag != "O"} <= set(PREFIXES[scheme])


@property_test
@given(tags=any_bio_tags)
def test_bio_stays_as_it_is_but_for_its_orphans_if_asked(tags):
    """If it failed, reading BIO would repair it unasked, orphans be miscounted in data cards, or repairing
    merge, cut or lose entities that lenient scoring reads.
    """
    assert to_bio(tags, "bio") == tags and orphans(tags) == naive_orphans(tags)
    once = repaired(tags)
    assert once == spans_to_tags(tags_to_spans(tags), len(tags)) == repaired(once) and not any(orphans(once))
    assert [old != new for old, new in zip(tags, once, strict=True)] == orphans(tags)


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("iob1", "I-A I-A B-A O I-A", "B-A I-A B-A O B-A"),
        ("iob1", "I-A I-B B-B", "B-A B-B B-B"),
        ("iob1", "B-A I-A", "B-A I-A"),
        ("iob1", "", ""),
        ("bioes", "S-A B-A I-A E-A S-A", "B-A B-A I-A I-A B-A"),
        ("bioes", "B-x-y E-x-y O", "B-x-y I-x-y O"),
        ("bioes", "O E-A", "O I-A"),
        ("bioes", "I-A E-A", "I-A I-A"),
        ("bioes", "B-A E-B", "B-A I-B"),
        ("bioes", "B-A B-A", "B-A B-A"),
    ],
)
def test_schemes_by_hand(scheme, tags, expected):
    """If it failed, both the code and the oracle above would misread Ramshaw and Marcus's scheme, or
    malformed BIOES be made well-formed unasked, instead of showing as orphans.
    """
    assert to_bio(tags.split(), scheme) == expected.split()


@pytest.mark.parametrize("tags", ["S-A I-A", "S-A E-A", "B-A E-A I-A", "B-A E-A E-A"])
def test_bioes_entities_do_not_go_on_behind_their_end(tags):
    """If it failed, a tag behind S- or E-, which continues nothing, would lengthen the entity that is closed
    already.
    """
    names = tags.split()
    closed = next(position for position, tag in enumerate(names) if tag[0] in "ES") + 1
    assert tags_to_spans(to_bio(names, "bioes"))[0].end == closed
