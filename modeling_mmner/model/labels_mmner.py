"""Tag schemes, spans and words: everything about labels that needs no tensor.

Tags are BIO: ``O``, ``B-<type>``, ``I-<type>``. Words come either from the user or from `split_words`, whose
rule has a name that is saved with the processor, so that a model splits text tomorrow as it did when it was
trained.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import regex

OUTSIDE = "O"
BOUNDARY_LABELS = (OUTSIDE, "B", "I")
LABELS = (OUTSIDE, "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC")
"""The labels where nobody names others."""
IGNORED = -100
"""The label id where there is no word."""
WordRule = Literal["spaces", "characters"]
WORD_RULES = {"spaces": "mmner-words-1", "characters": "mmner-characters-1"}
"""How text is split, by the name for options: the name that is saved, which another way of splitting changes.
"""

_SPACE = r"[\s\x1c-\x1f]"
_DIGIT = r"[\p{Numeric_Type=Decimal}\p{Numeric_Type=Digit}]"
_ATTACHED = r"\p{M}\p{Cf}"  # marks and format characters: joiners, soft hyphen, the tags of flags
# IGNORECASE would take the long s for an s.
_URL = r"(?:[Hh][Tt][Tt][Pp][Ss]?://|[Ww]{3}\.)"
_BEFORE_QU = "(?:[Jj][Uu][Ss]|[Ll][Oo][Rr][Ss]|[Pp][Uu][Ii][Ss]|[Qq][Uu][Oo][Ii])"
_ELISION = f"(?:[cdjlmnstCDJLMNST]|{_BEFORE_QU}?[Qq][Uu])['\u2019]"
# Letters of which many make a word, or that, as Hangul, are followed by a particle without a space.
_UNSPACED = (
    r"(?: (?= [\p{L}\p{Nl}] ) [\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{scx=Hang}\p{LB=SA}"
    r"\p{scx=Tibt}\p{scx=Yiii}] )"
)


def _words(apart: str) -> regex.Pattern[str]:
    """The pattern of a word, where letters that match `apart` are words each.

    The numbers are those of the lists in `split_words`.
    """
    return regex.compile(
        rf"""
          {_URL} (?: (?! {_SPACE} | {apart} ) . )*  # 2
        | (?= {apart} ) \X [{_ATTACHED}]*  # 8
        | {_ELISION} (?= \p{{L}} ) | (?<! ['\u2019] ) {_ELISION} (?= {_SPACE} \p{{L}} )  # 5, no quoted 'n'
        | (?! {apart} ) [\p{{L}}\p{{N}}_]
          (?: (?! {apart} ) [\p{{L}}\p{{N}}_{_ATTACHED}] | (?<= {_DIGIT} ) [.,:] {_DIGIT} )*  # 3, 4
        | (?: [\U0001f1e6-\U0001f1ff]{{2}} | (?! {_SPACE} ) . )  # 6, 7
          (?: [{_ATTACHED}\U0001f3fb-\U0001f3ff] | (?<= \u200d ) [\p{{So}}\p{{Sm}}] )*
        """,
        regex.VERBOSE | regex.DOTALL,
    )


_APART = regex.compile(_UNSPACED, regex.VERBOSE)
_WORDS = {WORD_RULES["spaces"]: _words("(?!)"), WORD_RULES["characters"]: _words(_UNSPACED)}


class Span(NamedTuple):
    """An entity over words: `type`, first word `start`, and `end`, one past the last word."""

    type: str
    start: int
    end: int


class Word(NamedTuple):
    """A word of a text and its character offsets: ``text[start:end] == word.text``."""

    text: str
    start: int
    end: int


_LABEL = regex.compile(rf"O|[BI]-(?!{_SPACE})(?: |(?!{_SPACE}).)+(?<!{_SPACE})", regex.DOTALL)
MOST_LABELS = 10_000
"""A CRF's tables grow with their square: of ten times as many, one alone would fill the memory."""


def check_labels(labels: Sequence[str]) -> None:
    """Check that `labels` is a BIO tag set.

    Raises:
        TypeError: it is no list of strings.
        ValueError: a label occurs twice, has no B-/I- prefix, a tab, a line break or a space at its end;
            ``O`` is missing, or all there is; an ``I-x`` has no ``B-x``.
    """
    is_list = isinstance(labels, Sequence) and not isinstance(labels, str)
    if not is_list or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"labels: expected a list of strings, found {labels!r:.200}")
    if len(labels) > MOST_LABELS:
        raise ValueError(f"labels: expected at most {MOST_LABELS:,}, found {len(labels):,}")
    counts = Counter(labels)
    if twice := [label for label, number in counts.items() if number > 1]:
        raise ValueError(f"labels: expected each label once, found {twice} more than once")
    if OUTSIDE not in labels:
        raise ValueError(f"labels: expected {OUTSIDE!r} among them, found {list(labels)}")
    for label in labels:
        if not _LABEL.fullmatch(label):
            expected = "'O', 'B-<type>' or 'I-<type>', no tab, line break or space at a type's ends"
            raise ValueError(f"labels: expected {expected}, found {label!r}; convert the tags to BIO first")
        if label[0] == "I" and f"B{label[1:]}" not in counts:
            reason = "a BIO entity begins with B-, so add that label"
            raise ValueError(f"labels: {label!r} has no 'B{label[1:]}'; {reason}")
    if len(labels) == 1:
        raise ValueError(f"labels: expected an entity type or more beside {OUTSIDE!r}, found none")


def bio_labels(types: Iterable[str]) -> list[str]:
    """``O`` and the B-/I- pair of each entity type, in the order given."""
    return [OUTSIDE] + [f"{prefix}-{entity_type}" for entity_type in types for prefix in "BI"]


def entity_types(labels: Sequence[str]) -> list[str]:
    """The entity types of a tag set, in order of first appearance."""
    return list(dict.fromkeys(label.partition("-")[2] for label in labels if label != OUTSIDE))


def boundary_label(label: str) -> str:
    """The label without its type: ``B-PER`` -> ``B`` (Li et al. 2022, section on boundary detection)."""
    return label.partition("-")[0]


def may_follow(previous: str | None, label: str) -> bool:
    """Whether BIO lets `label` come after `previous` (None: at the start of a text).

    An I- tag must continue the B- or I- tag of its own type. Works for typed and for bare (``B``/``I``/``O``)
    labels.
    """
    prefix, _, entity_type = label.partition("-")
    if prefix != "I":
        return True
    return previous is not None and previous != OUTSIDE and previous.partition("-")[2] == entity_type


def tags_to_spans(tags: Sequence[str]) -> list[Span]:
    """Entities of a tag sequence, read leniently as seqeval's default does: an orphan I- begins an entity."""
    spans: list[Span] = []
    for position, tag in enumerate(tags):
        prefix, _, entity_type = tag.partition("-")
        if prefix == OUTSIDE:
            continue
        if prefix == "I" and spans and spans[-1].end == position and spans[-1].type == entity_type:
            spans[-1] = spans[-1]._replace(end=position + 1)
        else:
            spans.append(Span(entity_type, position, position + 1))
    return spans


def spans_to_tags(spans: Iterable[Span], length: int) -> list[str]:
    """BIO tags of `length` words in which the (non-overlapping) `spans` are entities.

    Raises:
        ValueError: a span is empty, reaches beyond the words, or overlaps another.
    """
    tags = [OUTSIDE] * length
    for span in spans:
        if not 0 <= span.start < span.end <= length:
            raise ValueError(f"{span}: expected 0 <= start < end <= {length}, the number of words")
        if any(tag != OUTSIDE for tag in tags[span.start : span.end]):
            raise ValueError(f"{span}: overlaps another span; expected spans apart from each other")
        tags[span.start : span.end] = [f"B-{span.type}"] + [f"I-{span.type}"] * (span.end - span.start - 1)
    return tags


def saved_word_rule(rule: str) -> str:
    """The name under which a rule is saved; ValueError for one that this version does not have."""
    if (name := WORD_RULES.get(rule, rule)) not in _WORDS:
        expected = f"one of {[*WORD_RULES, *WORD_RULES.values()]}"
        raise ValueError(f"word rule: expected {expected}, found {rule!r}; a newer package may know it")
    return name


def split_words(text: str, rule: str = "spaces") -> list[Word]:
    """Split raw text into words with exact offsets; no character but white space is lost.

    Rule ``spaces``, saved as ``mmner-words-1``, the habit of the Twitter-2017 files, from left to right:

    1. white space separates;
    2. a URL (``http://``, ``https://``, ``www.``) is one word up to the next white space;
    3. a number keeps its inner ``.``, ``,`` and ``:`` when digits follow (``9.30``, ``80,000``);
    4. letters, digits and ``_`` are one word, with the marks and zero-width characters on them;
    5. a French elision keeps its apostrophe (``l'`` | ``Italie``, ``qu'`` | ``il``), also before a space;
    6. an emoji is one word with its skin tone, joined parts or second flag letter;
    7. any other character (``#``, ``@``, apostrophe, hyphen, punctuation) is a word of its own.

    Rule ``characters``, saved as ``mmner-characters-1``, is the same, but

    8. each character of Chinese, Japanese, Thai, Lao, Khmer, Burmese and other scripts without spaces, and of
       Korean, whose particles have none before them, is a word, with the marks on it; a URL ends before it.

    Raises:
        ValueError: `rule` is unknown.
    """
    found = _WORDS[saved_word_rule(rule)].finditer(text)
    return [Word(match.group(), *match.span()) for match in found]


def is_unspaced(text: str) -> bool:
    """Whether a text has a character that rule ``characters`` makes a word."""
    return _APART.search(text) is not None
