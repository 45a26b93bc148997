"""Tests of tag schemes: the same entities in each of them, how a corpus's scheme is found, and orphan tags,
against plainly written oracles.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.findings import Findings
from dataset_scripts.formats.schemes import PREFIXES, orphans, repaired, scheme_of, to_bio
from modeling_mmner.model.labels_mmner import Span, spans_to_tags, tags_to_spans
from tests.shared_data import property_test

TYPES = ["PER", "LOC", "x-y"]
BIO_TAGS = ["O", *(f"{prefix}-{name}" for prefix in "BI" for name in TYPES)]
any_bio_tags = st.lists(st.sampled_from(BIO_TAGS), max_size=12)


LETTERS = {"bioes": "BIES", "bilou": "BILU", "bmes": "BMES"}


@st.composite
def texts(draw: st.DrawFn) -> tuple[int, list[Span]]:
    """A number of words and the entities over them, which often touch and often are of one word."""
    spans, position = [], 0
    for _ in range(draw(st.integers(0, 6))):
        start = position + draw(st.integers(0, 2))
        position = start + draw(st.integers(1, 4))
        spans.append(Span(draw(st.sampled_from(TYPES)), start, position))
    return position + draw(st.integers(0, 2)), spans


def touch(before: Span | None, span: Span) -> bool:
    return before is not None and before.end == span.start and before.type == span.type


def written(scheme: str, length: int, spans: list[Span]) -> list[str]:
    """The tags of a text, entity by entity, as the scheme is defined."""
    tags = ["O"] * length
    for before, span in zip([None, *spans], spans, strict=False):
        prefixes = ["I"] * (span.end - span.start)
        if scheme != "iob1" or touch(before, span):
            prefixes[0] = "B"
        begin, inside, end, single = LETTERS.get(scheme, "BIII")
        if scheme in LETTERS:
            prefixes = [begin, *inside * (len(prefixes) - 2), end] if len(prefixes) > 1 else [single]
        tags[span.start : span.end] = [
            span.type if scheme == "bare" else f"{prefix}-{span.type}" for prefix in prefixes
        ]
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
    if scheme == "bare":  # in which two entities of a type cannot touch
        spans = [span for before, span in zip([None, *spans], spans, strict=False) if not touch(before, span)]
    tags = written(scheme, length, spans)
    assert to_bio(tags, scheme) == written("bio", length, spans)
    assert tags_to_spans(to_bio(tags, scheme)) == spans
    assert scheme == "bare" or {tag[0] for tag in tags if tag != "O"} <= set(PREFIXES[scheme])


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
        ("bare", "A A B O A o", "B-A I-A B-B O B-A O"),
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


FOUND = {
    "bio": ("B-PER I-PER O B-LOC | O B-PER", "BIO (3 entities begin with B-, 0 with I-)"),
    "bio with orphans": ("B-PER I-PER O I-LOC | O B-PER", "BIO (2 entities begin with B-, 1 with I-)"),
    "iob1": ("I-PER I-PER O I-LOC | I-PER B-PER", "IOB1 (0 entities begin with B-, 3 with I-)"),
    "io": ("I-PER I-PER O | I-LOC", "IOB1 (0 entities begin with B-, 2 with I-)"),
    "bioes": ("B-PER E-PER O S-LOC", "BIOES (1 B-, 1 E-, 1 S-)"),
    "bilou": ("B-PER I-PER L-PER U-LOC", "BILOU (1 B-, 1 I-, 1 L-, 1 U-)"),
    "bmes": ("B-PER M-PER E-PER | S-LOC", "BMES (1 B-, 1 M-, 1 E-, 1 S-)"),
    "bare": ("PER PER O LOC", "BARE (no prefixes)"),
    "bare with hyphens": ("x-y PER O LOC", "BARE (no prefixes)"),
    "lower case": ("b-per i-per o | b-loc", "BIO (2 entities begin with B-, 0 with I-)"),
    "underscores": ("B_PER I_PER O B_LOC", "BIO (2 entities begin with B-, 0 with I-)"),
    "prefix behind": ("PER-B PER-I O LOC_B", "BIO (2 entities begin with B-, 0 with I-)"),
    "nothing": ("O O | O", "BIO (0 entities begin with B-, 0 with I-)"),
}


@pytest.mark.parametrize(("text", "expected"), FOUND.values(), ids=FOUND)
def test_scheme_is_found_by_counting_and_said(text, expected):
    """If it failed, a corpus would be read in another scheme, without entities or with orphans."""
    posts, findings = [post.split() for post in text.split(" | ")], Findings()
    scheme = scheme_of(posts, findings)
    number = sum(tag not in "Oo" for post in posts for tag in post)
    assert findings.numbers() == {f"tags read as {expected}": number}
    [one] = findings.sorted()
    assert scheme == expected.split()[0].lower() and not one.lost and f"({scheme}" not in one.remedy


def test_tags_written_otherwise_are_the_same():
    """If it failed, tags in lower case or with an underscore would be types of their own, or refused."""
    for tags in ("b-PER i-PER o B-LOC", "B_PER I_PER O B_LOC", "PER-B PER-I O LOC-b"):
        assert to_bio(tags.split(), "bio") == ["B-PER", "I-PER", "O", "B-LOC"]
