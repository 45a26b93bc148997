"""Annotated texts as tools export them, each form known by its shape -> words and their tags.

Known are rows with words and tags; and texts with spans in characters as Label Studio (JSON and JSON_MIN),
doccano, Prodigy and spaCy write them, or as plain ``{"text", "spans": [{"start", "end", "label"}]}``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from modeling_mmner.model.labels_mmner import Span, is_unspaced, spans_to_tags, split_words
from modeling_mmner.model.posts_mmner import is_words

from ..findings import Finding
from .reader import CorpusError

_SPAN_KEYS = ("spans", "entities", "ents", "label", "labels")
_LABEL_KEYS = ("labels", "label", "hypertextlabels")  # also types of results
REASONS = {
    "is empty or not within the text": "count characters of the very text, from 0, the end one past the last",
    "has another text than the tool says": "count characters of the text as exported, not bytes or HTML",
    "does not begin and end where words do": "move its ends to those of whole words, in the tool",
    "ends one character before a word does": "where all do so, add 1 to each end, which is one past the last",
    "is one character behind whole words": "where all are so, count from 0: take 1 off each start and end",
    "begins one character behind a word's first": "where all do so, count from 0: take 1 off each start",
    "cuts words of a script without spaces": "--word_rule characters makes each of its characters a word",
    "overlaps another span": "keep one span for each word, in the tool",
}
"""Why spans are left out, and what to do about it."""
_OUTSIDE, _OTHER_TEXT, _CUTS_WORD, *_SHIFTED, _UNSPACED, _OVERLAPS = REASONS
_SHIFTS = tuple(zip(_SHIFTED, (0, -1, -1), (1, -1, 0), strict=True))
_FORMS = "'tokens' and 'ner_tags', or 'text' and 'spans' (or 'entities', 'ents', 'label')"


class CharacterSpan(NamedTuple):
    """An entity of a text: its first character, one past its last, its type; what the tool says it reads."""

    start: int
    end: int
    label: str
    text: str | None = None


class LeftOut(NamedTuple):
    """A span that is no entity of the corpus, and why, by `REASONS`: its file and row, and what stands there,
    cut at 80 characters.
    """

    place: str
    start: int
    end: int
    label: str
    text: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.label} {self.start}-{self.end} {self.text!r}{self.detail}"


class Annotation(NamedTuple):
    """An annotated post.

    Attributes:
        words, tags: its words with a tag for each, names or ids.
        record: all that the tool has of it, by its own keys.
        left_out: of a text with spans, whose tags are BIO; None: the record itself has words and tags.
        unread: what else is annotated in the record, and what was read otherwise.
    """

    words: list[str]
    tags: list[Any]
    record: Mapping[str, Any]
    left_out: list[LeftOut] | None = None
    unread: Sequence[Finding] = ()


def read_annotation(record: Any, place: str, *, word_rule: str = "spaces") -> Annotation | None:
    """The annotation of a record, whatever tool it is from; None where the annotator rejected or skipped it.

    Args:
        place: file and row, for errors.
        word_rule: by which texts are split.

    Raises:
        CorpusError: the record is of no form that is known.
    """
    if isinstance(record, (list, tuple)) and len(record) == 2 and isinstance(record[1], Mapping):
        record = {"text": record[0], **record[1]}  # spaCy's training data
    if not isinstance(record, Mapping):
        raise CorpusError(f"{place}: expected an object with {_FORMS}, found {record!r:.80}")
    if record.get("answer") in ("reject", "ignore"):  # Prodigy
        return None
    if isinstance(record.get("data"), Mapping) and isinstance(record.get("annotations"), list):
        return _label_studio(record, place, word_rule)
    words: Any = record.get("tokens")
    tags: Any = record.get("ner_tags")
    if is_words(words) and tags is not None:
        count = len(tags) if isinstance(tags, (list, tuple)) else f"{tags!r:.80}"
        if count != len(words):
            expected = f"a tag for each of {len(words)} words in 'ner_tags'"
            raise CorpusError(f"{place}: expected {expected}, found {count}")
        return Annotation(list(words), list(tags), record, unread=_unread(record, []))
    filled, is_min = [key for key in record if _number_of_spans(record[key])], "annotation_id" in record
    lists = [key for key in _SPAN_KEYS if isinstance(record.get(key), (list, tuple))]
    used = [key for key in lists if key in filled][:1] or lists[:1]
    if is_min:  # Label Studio's, which has the spans of each control under its name
        used = [key for key in record if key in filled or key in used]
    if not isinstance(record.get("text"), str) or not (used or is_min):
        keys = ", ".join(f"{key!s:.40}" for key in list(record)[:20])
        hint = "--columns OURS=THEIRS says what is called otherwise"
        raise CorpusError(f"{place}: expected {_FORMS}, found {keys}; {hint}")
    spans = [_span(item, place) for key in used for item in record[key]]
    found = tagged(record["text"], spans, record, place, word_rule)
    return found._replace(unread=[*found.unread, *_unread(record, used)])


def _number_of_spans(value: Any) -> int:
    """How many items of a list look like spans; of groups of spans in all."""
    lists = value.values() if isinstance(value, Mapping) else [value]
    return sum(_is_like_span(item) for one in lists if isinstance(one, (list, tuple)) for item in one)


def _is_like_span(item: Any) -> bool:
    if isinstance(item, Mapping):
        is_placed = _is_place(item.get("start", item.get("start_offset"))) or "hypertextlabels" in item
        return is_placed and not item.keys().isdisjoint(_LABEL_KEYS)
    return isinstance(item, (list, tuple)) and len(item) == 3 and all(map(_is_place, item[:2]))


def _unread(record: Mapping[str, Any], used: list[str]) -> list[Finding]:
    numbers = {key: _number_of_spans(value) for key, value in record.items() if key not in used}
    return [
        Finding(f"spans under {key!r:.40}, not read", f"--columns spans={key:.40} reads them", number=number)
        for key, number in numbers.items()
        if number
    ]


def _label_studio(record: Mapping[str, Any], place: str, word_rule: str) -> Annotation | None:
    """The first annotation that was not cancelled of a task of Label Studio."""
    data = record["data"]
    texts = [data["text"]] if "text" in data else [value for value in data.values() if isinstance(value, str)]
    if len(texts) != 1 or not isinstance(texts[0], str):
        found = f"{sorted(map(str, data))!s:.200}; --columns text=KEY says which it is"
        raise CorpusError(f"{place}: expected one text in 'data', found {found}")
    done = [one for one in record["annotations"] if isinstance(one, Mapping) and not one.get("was_cancelled")]
    if not done:
        return None
    result = done[0].get("result")
    if not isinstance(result, list) or not all(isinstance(item, Mapping) for item in result):
        expected = "a list of objects as the annotation's 'result'"
        raise CorpusError(f"{place}: expected {expected}, found {result!r:.80}")
    spans = [_span(item.get("value"), place) for item in result if item.get("type") in _LABEL_KEYS]
    advice = "the first that was not cancelled is read; take others out before the export"
    more = Finding("further annotations of a task, not read", advice, False, len(done[1:]))
    kinds = [item.get("type") for item in result if item.get("type") not in _LABEL_KEYS]
    unread = [Finding(f"results of type {kind!r:.40}, not read", lost=False, number=1) for kind in kinds]
    unread += [more] if more.number else []
    annotation = tagged(texts[0], spans, {"id": record.get("id"), **data}, place, word_rule)
    return annotation._replace(unread=[*annotation.unread, *unread])


def _span(item: Any, place: str) -> CharacterSpan:
    is_triple = isinstance(item, (list, tuple)) and len(item) == 3  # doccano, spaCy
    given = dict(zip(("start", "end", "label"), item, strict=True)) if is_triple else item
    if isinstance(given, Mapping):
        text, offsets = given.get("text"), given.get("globalOffsets")  # of Label Studio's HyperText
        given = {**given, **offsets} if isinstance(text, str) and isinstance(offsets, Mapping) else given
        start, end = (given.get(key, given.get(f"{key}_offset")) for key in ("start", "end"))
        label: Any = next((given[key] for key in _LABEL_KEYS if key in given), None)
        if isinstance(label, list) and len(label) == 1:
            label = label[0]
        if _is_place(start) and _is_place(end) and isinstance(label, str) and label.strip():
            return CharacterSpan(int(start), int(end), label.strip(), text if isinstance(text, str) else None)
    raise CorpusError(f"{place}: expected spans with 'start', 'end' and one 'label', found {item!r:.120}")


def _is_place(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1


def tagged(
    text: str,
    spans: Sequence[CharacterSpan],
    record: Mapping[str, Any],
    place: str,
    word_rule: str = "spaces",
) -> Annotation:
    """The words of a text by a rule, which a model keeps, their BIO tags, and the spans that are no whole
    words.

    Offsets are of characters; where a tool counted UTF-16 units, as browsers do, and says what text a span
    has, they are put right, and blanks at a span's ends are left off. Nothing is moved to the next word
    border: a span that cuts a word is left out, and so is one that overlaps a span before it in the list.
    """
    words = split_words(text, word_rule)
    starts = {word.start: number for number, word in enumerate(words)}
    ends = {word.end: number + 1 for number, word in enumerate(words)}
    taken: list[Span] = []
    left_out, trimmed = [], 0
    for given in spans:
        span = counted = _in_characters(text, given)
        if (said := text[max(0, span.start) : max(0, span.end)]) != said.strip():
            start = span.start + len(said) - len(said.lstrip())
            span = span._replace(start=start, end=span.end - len(said) + len(said.rstrip()))
        first, last = starts.get(span.start), ends.get(span.end)
        if not 0 <= counted.start < counted.end <= len(text) or not said.strip():
            reason, detail = _OUTSIDE, f", of {len(text)} characters"
        elif span.text is not None and text[span.start : span.end] != span.text.strip():
            reason, detail = _OTHER_TEXT, f", for the tool {span.text[:80]!r}"
        elif first is None or last is None:
            moved = {why: (counted.start + a in starts, counted.end + b in ends) for why, a, b in _SHIFTS}
            reason, detail = next((why for why, both in moved.items() if all(both)), _CUTS_WORD), ""
            if word_rule == "spaces" and is_unspaced(text[max(0, span.start - 1) : span.end + 1]):
                reason = _UNSPACED
        elif any(first < other.end and other.start < last for other in taken):
            reason, detail = _OVERLAPS, ""
        else:
            taken.append(Span(span.label, first, last))
            trimmed += span != counted
            continue
        left_out.append(LeftOut(place, given.start, given.end, given.label, said[:80], reason, detail))
    tags = spans_to_tags(taken, len(words))
    blanks = Finding("spans with blanks at their ends, which are left off", lost=False, number=trimmed)
    return Annotation([word.text for word in words], tags, record, left_out, [blanks] * bool(trimmed))


def _in_characters(text: str, span: CharacterSpan) -> CharacterSpan:
    """The span with its offsets in characters, where UTF-16 units give the text that the tool says."""
    if span.text is None or text[span.start : span.end] == span.text or min(span.start, span.end) < 0:
        return span
    units = text.encode("utf-16-le", "surrogatepass")
    start, end = (len(units[: 2 * place].decode("utf-16-le", "replace")) for place in (span.start, span.end))
    return span._replace(start=start, end=end) if text[start:end] == span.text else span
