"""Annotated texts as tools export them, each form known by its shape -> words and their tags.

Known are rows with words and tags; and texts with spans in characters as Label Studio (JSON and JSON_MIN),
doccano, Prodigy and spaCy write them, or as plain ``{"text", "spans": [{"start", "end", "label"}]}``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from modeling_mmner.model.labels_mmner import Span, is_unspaced, spans_to_tags, split_words
from modeling_mmner.model.posts_mmner import is_words

from ..findings import Findings
from .reader import mismatch

_SPAN_KEYS = ("spans", "entities", "ents", "label", "labels")
_LABEL_KEYS = ("labels", "label", "hypertextlabels")  # also types of results
REASONS = {
    "is empty or not within the text": "count characters of the very text, from 0, the end one past the last",
    "has another text than the tool says": "count characters of the text as exported, not bytes or HTML",
    "does not begin and end where words do": "move its ends to those of whole words, in the tool",
    "ends one character before a word does": "where all do so, add 1 to each end, which is one past the last",
    "is one character behind whole words": "where all are so, count from 0: take 1 off each start and end",
    "begins one character behind a word's first": "where all do so, count from 0: take 1 off each start",
    "is in UTF-16 units, as of JavaScript": "count characters, and so the end:"
    " start = len(text.encode('utf-16-le')[: 2 * start].decode('utf-16-le'))",
    "is in bytes": "count characters, and so the end: start = len(text.encode()[:start].decode())",
    "cuts words of a script without spaces": "--word_rule characters makes each of its characters a word",
    "overlaps another span": "keep one span for each word, in the tool",
}
"""Why spans are left out, and what to do about it."""
_OUTSIDE, _OTHER_TEXT, _CUTS_WORD, *_SHIFTED, _UNITS, _BYTES, _UNSPACED, _OVERLAPS = REASONS
_SHIFTS = tuple(zip(_SHIFTED, (0, -1, -1), (1, -1, 0), strict=True))
_ENCODINGS = {_UNITS: "utf-16-le", _BYTES: "utf-8"}
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
        left_out: of a text with spans, whose tags are BIO; None: the record itself has words and tags.
        record: all that the tool has of it, by its own keys.
        form: what the record looks like, in words.
    """

    words: list[str]
    tags: list[Any]
    left_out: list[LeftOut] | None
    record: Mapping[str, Any]
    form: str = "words with tags"


def read_annotation(
    record: Any, place: str, findings: Findings, *, word_rule: str = "spaces"
) -> Annotation | None:
    """The annotation of a record, whatever tool it is from; None where the annotator rejected or skipped it.

    Args:
        place: file and row, for errors.
        findings: to which it is added what else is annotated in the record, and what was read otherwise.
        word_rule: by which texts are split.

    Raises:
        CorpusError: the record is of no form that is known.
    """
    form = "texts with spans"
    if isinstance(record, (list, tuple)) and len(record) == 2 and isinstance(record[1], Mapping):
        form, record = "spaCy's training data", {"text": record[0], **record[1]}
    if not isinstance(record, Mapping):
        raise mismatch(place, f"an object with {_FORMS}", f"{record!r:.80}")
    if record.get("answer") in ("reject", "ignore"):  # Prodigy
        return None
    if "answer" in record or "_input_hash" in record:
        form, record = form + ", as Prodigy writes them", {"spans": [], **record}
    words: Any = record.get("tokens")
    tags: Any = record.get("ner_tags")
    if isinstance(record.get("data"), Mapping) and isinstance(record.get("annotations"), list):
        form, words = "tasks of Label Studio", None
        if (record := _task(record, place, findings)) is None:
            return None
    used = [key for key in _SPAN_KEYS if isinstance(record.get(key, 0), (list, tuple, type(None)))]
    filled = [key for key in record if _number_of_spans(record[key])]
    used = [key for key in used if key in filled][:1] or used[:1]
    if is_min := "annotation_id" in record:  # Label Studio's, which has the spans of each control by its name
        form, used = "Label Studio's JSON_MIN", [key for key in record if key in filled or key in used]
    has_words = is_words(words) and tags is not None
    for key in filled if has_words else [key for key in filled if key not in used]:
        what, remedy = f"spans under {key!r:.40}, not read", f"--columns spans={key:.40} reads them"
        remedy = "take out 'ner_tags', which are read in their place" if has_words else remedy
        findings.add(what, place, remedy=remedy, number=_number_of_spans(record[key]))
    if has_words:
        count = len(tags) if isinstance(tags, (list, tuple)) else f"{tags!r:.80}"
        if count != len(words):
            raise mismatch(place, f"a tag for each of {len(words)} words in 'ner_tags'", count)
        return Annotation(list(words), list(tags), None, record)
    if not isinstance(record.get("text"), str) or not (used or is_min):
        keys = ", ".join(f"{key!s:.40}" for key in list(record)[:20])
        raise mismatch(place, _FORMS, f"{keys}; --columns OURS=THEIRS says what is called otherwise")
    spans = []
    for item in (item for key in used for item in record[key] or ()):
        if (span := _span(item)) is not None:
            spans.append(span)
        elif isinstance(item, Mapping) and isinstance(item.get("labels"), list):  # a region of Label Studio
            advice = "give each one label, in the tool"
            findings.add("spans without one label, left out", f"{place}: {item!r:.120}", remedy=advice)
        else:
            raise mismatch(place, "spans with 'start', 'end' and one 'label'", f"{item!r:.120}")
    return Annotation(*_tagged(record["text"], spans, place, findings, word_rule), record, form)


def _task(record: Mapping[str, Any], place: str, findings: Findings) -> dict[str, Any] | None:
    """Text and spans of a task of Label Studio, by the first annotation that was not cancelled, if any."""
    data = record["data"]
    texts = [data["text"]] if "text" in data else [value for value in data.values() if isinstance(value, str)]
    if len(texts) != 1 or not isinstance(texts[0], str):
        keys = f"{sorted(map(str, data))!s:.200}"
        raise mismatch(place, "one text in 'data'", f"{keys}; --columns text=KEY says which it is")
    done = [one for one in record["annotations"] if isinstance(one, Mapping) and not one.get("was_cancelled")]
    if not done:
        return None
    result = done[0].get("result")
    if not isinstance(result, list) or not all(isinstance(item, Mapping) for item in result):
        raise mismatch(place, "a list of objects as the annotation's 'result'", f"{result!r:.80}")
    for kind in (item.get("type") for item in result if item.get("type") not in _LABEL_KEYS):
        findings.add(f"results of type {kind!r:.40}, not read", place, lost=False)
    if done[1:]:
        what = "further annotations of a task, not read"
        advice = "the first that was not cancelled is read; take others out before the export"
        findings.add(what, place, remedy=advice, lost=False, number=len(done[1:]))
    spans = [item.get("value") for item in result if item.get("type") in _LABEL_KEYS]
    return {"id": record.get("id"), **data, "text": texts[0], "spans": spans}


def _number_of_spans(value: Any) -> int:
    """How many items of a list are spans; of groups of spans in all."""
    lists = value.values() if isinstance(value, Mapping) else [value]
    return sum(_span(item) is not None for one in lists if isinstance(one, (list, tuple)) for item in one)


def _span(item: Any) -> CharacterSpan | None:
    """An item of a list as a span, in whatever form a tool has it; None: it is none."""
    if isinstance(item, (list, tuple)) and len(item) == 3:  # doccano, spaCy
        item = dict(zip(("start", "end", "label"), item, strict=True))
    if not isinstance(item, Mapping):
        return None
    text, offsets = item.get("text"), item.get("globalOffsets")  # of Label Studio's HyperText
    places = offsets if isinstance(offsets, Mapping) else item
    start, end = (places.get(key, places.get(f"{key}_offset")) for key in ("start", "end"))
    label: Any = next((item[key] for key in _LABEL_KEYS if key in item), None)
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if not (_is_place(start) and _is_place(end) and isinstance(label, str) and label.strip()):
        return None
    return CharacterSpan(int(start), int(end), label.strip(), text if isinstance(text, str) else None)


def _is_place(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1


def _tagged(
    text: str, spans: Sequence[CharacterSpan], place: str, findings: Findings, word_rule: str
) -> tuple[list[str], list[str], list[LeftOut]]:
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
    left_out = []
    for given in spans:
        span = counted = given if given.text is None else _in_characters(text, given)
        if (said := text[max(0, span.start) : max(0, span.end)]) != said.strip():
            start = span.start + len(said) - len(said.lstrip())
            span = span._replace(start=start, end=span.end - len(said) + len(said.rstrip()))
        first, last = starts.get(span.start), ends.get(span.end)
        detail = ""
        if not 0 <= counted.start < counted.end <= len(text) or not said.strip():
            reason, detail = _OUTSIDE, f", of {len(text)} characters"
        elif span.text is not None and text[span.start : span.end] != span.text.strip():
            reason, detail = _OTHER_TEXT, f", for the tool {span.text[:80]!r}"
        elif first is None or last is None:
            is_one_word = word_rule == "spaces" and is_unspaced(text[max(0, span.start - 1) : span.end + 1])
            reason = _UNSPACED if is_one_word else _CUTS_WORD
        elif any(first < other.end and other.start < last for other in taken):
            reason = _OVERLAPS
        else:
            taken.append(Span(span.label, first, last))
            if span != counted:
                findings.add("spans with blanks at their ends, which are left off", place, lost=False)
            continue
        if reason in (_OUTSIDE, _CUTS_WORD):
            moved = {why: _in_characters(text, counted, encoding) for why, encoding in _ENCODINGS.items()}
            moved |= {why: CharacterSpan(counted.start + a, counted.end + b, "") for why, a, b in _SHIFTS}
            fitting = [why for why, one in moved.items() if one.start in starts and one.end in ends]
            known = [why for why in fitting if f"spans left out: {why}" in findings.numbers()]
            reason = next(iter(known + fitting), reason)
        left_out.append(LeftOut(place, given.start, given.end, given.label, said[:80], reason, detail))
        findings.add(f"spans left out: {reason}", str(left_out[-1]), remedy=REASONS[reason])
    return [word.text for word in words], spans_to_tags(taken, len(words)), left_out


def _in_characters(text: str, span: CharacterSpan, encoding: str = "utf-16-le") -> CharacterSpan:
    """The span with its offsets in characters, if they count an encoding's units, by the text that it says to
    have; without one, wherever the text has so many.
    """
    units, size = text.encode(encoding, "surrogatepass"), 2 if encoding == "utf-16-le" else 1
    places = span.start, span.end
    if text[span.start : span.end] == span.text or min(places) < 0 or size * max(places) > len(units):
        return span
    start, end = (len(units[: size * place].decode(encoding, "replace")) for place in places)
    return span._replace(start=start, end=end) if span.text in (None, text[start:end]) else span
