"""Shared by the tests of own data: annotated texts, and the files in which ten tools export them."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from modeling_mmner.model.labels_mmner import split_words

Annotated = tuple[str, list[tuple[int, int, str]]]

NAMES = {
    "PER": ["Jordan", "Anna Müller", "José"],
    "LOC": ["San Marino", "Zürich", "l'Aquila"],
    "ORG": ["Café 9.30"],
}
PATTERNS = ["{} was here, really", "Did you see {} and {}?", "\U0001f600 from {}!", "nothing to see"]
PATTERNS += ["«{}» – {}, {}"]


def annotated_texts(count: int, *, seed: int = 0) -> list[Annotated]:
    """Texts, each with its entities as (first character, one past the last, type); all fall on word
    borders.
    """
    draw, texts = random.Random(seed), []
    for number in range(count):
        text, *parts = PATTERNS[number % len(PATTERNS)].split("{}")
        spans = []
        for part in parts:
            label = draw.choice(list(NAMES))
            name = draw.choice(NAMES[label])
            spans.append((len(text), len(text) + len(name), label))
            text += name + part
        texts.append((f"{text} {number}", spans))
    return texts


TEXTS = annotated_texts(40)


def units(text: str, place: int) -> int:
    """The place in UTF-16 units, as a browser counts."""
    return len(text[:place].encode("utf-16-le")) // 2


# Ten tools, each as its export looks


def json_lines(path: Path, records: list[Any]) -> Path:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def json_array(path: Path, records: list[Any]) -> Path:
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def objects(spans: list[tuple[int, int, str]]) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "label": label} for start, end, label in spans]


def plain(folder: Path) -> Path:
    records = [{"text": text, "spans": objects(spans)} for text, spans in TEXTS]
    return json_lines(folder / "plain.jsonl", records)


def doccano(folder: Path) -> Path:
    rows = enumerate(TEXTS)
    records = [{"id": 7 * n, "text": text, "label": list(map(list, spans))} for n, (text, spans) in rows]
    return json_lines(folder / "doccano.jsonl", records)


def doccano_relations(folder: Path) -> Path:
    records = []
    for number, (text, spans) in enumerate(TEXTS):
        entities = [
            {"id": place, "label": label, "start_offset": start, "end_offset": end}
            for place, (start, end, label) in enumerate(spans)
        ]
        records.append({"id": number, "text": text, "entities": entities, "relations": [], "Comments": []})
    return json_lines(folder / "doccano_relations.jsonl", records)


def prodigy(folder: Path) -> Path:
    records = []
    for text, spans in TEXTS:
        words = enumerate(split_words(text))
        tokens = [{"text": word.text, "start": word.start, "end": word.end, "id": n} for n, word in words]
        marked = [span | {"token_start": 0, "token_end": 0} for span in objects(spans)]
        records.append({"text": text, "tokens": tokens, "spans": marked, "answer": "accept"})
    records.append({"text": "no Jordan", "spans": [], "answer": "reject"})
    return json_lines(folder / "prodigy.jsonl", records)


def spacy_training(folder: Path) -> Path:
    records = [[text, {"entities": list(map(list, spans))}] for text, spans in TEXTS]
    return json_array(folder / "spacy.json", records)


def spacy_docs(folder: Path) -> Path:
    tokens = [{"id": 0, "start": 0, "end": 1}]
    records = [{"text": text, "ents": objects(spans), "tokens": tokens} for text, spans in TEXTS]
    return json_lines(folder / "docs.jsonl", records)


def in_units(text: str, start: int, end: int, label: str) -> dict[str, Any]:
    """A span as Label Studio has it."""
    places = {"start": units(text, start), "end": units(text, end)}
    return places | {"text": text[start:end], "labels": [label]}


def label_studio(folder: Path) -> Path:
    tasks: list[dict[str, Any]] = []
    about = {"id": "x", "from_name": "label", "to_name": "text", "type": "labels"}
    for number, (text, spans) in enumerate(TEXTS):
        result = [about | {"value": in_units(text, *span)} for span in spans]
        done = [{"was_cancelled": True, "result": []}, {"was_cancelled": False, "result": result}]
        data = {"text": text, "image": "/data/upload/1/a.png"}
        tasks.append({"id": number, "data": data, "annotations": done})
    tasks.append({"id": 99, "data": {"text": "skipped"}, "annotations": [{"was_cancelled": True}]})
    return json_array(folder / "label_studio.json", tasks)


def label_studio_min(folder: Path) -> Path:
    about = {"annotator": 1, "annotation_id": 3}
    records = [
        about | {"text": text, "id": number, "label": [in_units(text, *span) for span in spans]}
        for number, (text, spans) in enumerate(TEXTS)
    ]
    return json_array(folder / "label_studio_min.json", records)


def table_of_spans(folder: Path) -> Path:
    path = folder / "spans.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "entities"])
        for number, (text, spans) in enumerate(TEXTS):
            writer.writerow([text, json.dumps(objects(spans)) if number % 2 else repr(objects(spans))])
    return path


def parquet(folder: Path) -> Path:
    path = folder / "spans.parquet"
    rows = datasets.Dataset.from_list([{"text": text, "spans": objects(spans)} for text, spans in TEXTS])
    rows.to_parquet(path)
    return path


_WRITERS = (
    *(plain, doccano, doccano_relations, prodigy, spacy_training, spacy_docs),
    *(label_studio, label_studio_min, table_of_spans, parquet),
)
TOOLS: dict[str, Callable[[Path], Path]] = {write.__name__: write for write in _WRITERS}
