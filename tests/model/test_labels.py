"""Tests of the BIO scheme: tags, spans and what may follow what."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from modeling_mmner.model.labels_mmner import (
    Span,
    bio_labels,
    boundary_label,
    check_labels,
    entity_types,
    may_follow,
    spans_to_tags,
    tags_to_spans,
)
from tests.shared_data import property_test

LABELS = bio_labels(["PER", "LOC", "ORG-SPORT"])
any_tags = st.lists(st.sampled_from(LABELS), max_size=12)


@st.composite
def spans_and_length(draw: st.DrawFn) -> tuple[list[Span], int]:
    """Spans in order, apart from each other, possibly side by side, and the number of words."""
    position, spans = 0, []
    for gap, width, entity_type in draw(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from(["PER", "LOC", "ORG-SPORT"])),
            max_size=5,
        )
    ):
        start = position + gap
        position = start + width
        spans.append(Span(entity_type, start, position))
    return spans, position + draw(st.integers(0, 2))


@property_test
@given(spans_and_length())
def test_spans_survive_the_way_through_tags(case):
    """If it failed, an entity would change its place or type between corpus and model."""
    spans, length = case
    assert tags_to_spans(spans_to_tags(spans, length)) == spans


@property_test
@given(any_tags)
def test_reading_and_writing_tags_only_repairs_orphans(tags):
    """If it failed, right tags would be changed or barred, or an orphan I- made anything but a B-."""
    repaired = [
        f"B-{tag[2:]}" if tag.startswith("I-") and not may_follow(before, tag) else tag
        for before, tag in itertools.pairwise([None, *tags])
    ]
    assert spans_to_tags(tags_to_spans(tags), len(tags)) == repaired


@property_test
@given(any_tags)
def test_tags_are_read_as_seqeval_reads_them(tags):
    """If it failed, our scores would not be those that the field reports."""
    assert [(span.type, span.start, span.end - 1) for span in tags_to_spans(tags)] == get_entities(tags)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["O", "I-PER", "I-PER"], [Span("PER", 1, 3)]),
        (["B-PER", "I-LOC"], [Span("PER", 0, 1), Span("LOC", 1, 2)]),
        (["B-PER", "O", "I-PER"], [Span("PER", 0, 1), Span("PER", 2, 3)]),
        (["B-PER", "B-PER"], [Span("PER", 0, 1), Span("PER", 1, 2)]),
        ([], []),
    ],
    ids=["at the start of an entity", "after another type", "after a gap", "two neighbours", "no words"],
)
def test_orphans_begin_an_entity(tags, spans):
    """If it failed, the orphan I- tags of Twitter-2015 would be lost or glued to other entities."""
    assert tags_to_spans(tags) == spans


def test_what_may_follow_bare_boundaries():
    """If it failed, boundary detection, whose labels have no types, would decode I after O."""
    bare = [(before, label) for before in (None, "O", "B", "I") for label in "OBI"]
    allowed = [pair for pair in bare if may_follow(*pair)]
    assert allowed == [pair for pair in bare if pair[1] != "I" or pair[0] in ("B", "I")]


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (Span("PER", 1, 1), r"Span\(type='PER', start=1, end=1\): expected 0 <= start < end <= 3"),
        (Span("PER", 2, 4), r"end=4\): expected 0 <= start < end <= 3, the number of words"),
        (Span("PER", -1, 1), r"start=-1, end=1\): expected 0 <= start"),
        (Span("LOC", 0, 2), r"Span\(type='LOC', start=0, end=2\): overlaps another span"),
    ],
    ids=["empty", "beyond the end", "before the start", "overlapping"],
)
def test_impossible_spans_are_refused(span, message):
    """If it failed, a wrong span would silently give wrong tags."""
    with pytest.raises(ValueError, match=message):
        spans_to_tags([Span("PER", 0, 1), span], 3)


def test_labels_of_types_are_a_tag_set_and_give_the_types_back():
    """If it failed, a corpus's types would change their order or name between its files and the model."""
    assert LABELS == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG-SPORT", "I-ORG-SPORT"]
    assert entity_types(LABELS) == ["PER", "LOC", "ORG-SPORT"]
    check_labels(LABELS)


def test_boundary_labels_drop_the_type_alone():
    """If it failed, boundary detection would learn types, or lose the difference of B and I."""
    assert [boundary_label(label) for label in LABELS] == ["O", "B", "I", "B", "I", "B", "I"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["O", "B-PER", "B-PER"], r"labels: expected each label once, found \['B-PER'\] more than once"),
        (["B-PER", "I-PER"], r"labels: expected 'O' among them, found \['B-PER', 'I-PER'\]"),
        ([], r"labels: expected 'O' among them, found \[\]"),
        (["O", "S-PER"], r"found 'S-PER'; convert the tags to BIO first"),
        (["O", "PER"], r"expected 'O', 'B-<type>' or 'I-<type>', .* found 'PER'"),
        (["O", "B-"], r"found 'B-'; convert"),
        (["O"], "labels: expected an entity type or more beside 'O', found none"),
        (["O", "B-a\nb"], r"no tab, line break or space at a type's ends, found 'B-a\\nb'"),
        (["O", "B-a\tb"], r"no tab, line break .* found 'B-a\\tb'"),
        (["O", "B- PER"], r"no tab, line break .* found 'B- PER'"),
        (["O", "I-PER"], r"'I-PER' has no 'B-PER'; a BIO entity begins with B-, so add that label"),
    ],
)
def test_label_lists_that_are_no_tag_set_are_refused(labels, message):
    """If it failed, a model would be built on labels that it cannot decode."""
    with pytest.raises(ValueError, match=message):
        check_labels(labels)


def test_a_type_without_its_inside_label_is_a_tag_set():
    """If it failed, a corpus whose entities of a type are all one word long could not be used."""
    check_labels(["O", "B-PER"])
