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
PATTERNS = [
    "{} was here, really",
    "Did you see {} and {}?",
    "\U0001f600 from {}!",
    "nothing to see",
    "«{}» – {}, {}",
]


def annotated_texts(count: int, *, seed: int = 0) -> list[Annotated]:
    """Texts, each with its entities as (first character, one past the last, type); all fall on word
    borders.
    """
    draw, texts = random.Random(seed), []
    for number in range(count):
        text, spans = "", []
        for part in PATTERNS[number % len(PATTERNS)].split("{}"):
            text += part
            if text.count("\0") < PATTERNS[number % len(PATTERNS)].count("{}"):
                label = draw.choice(list(NAMES))
                name = draw.choice(NAMES[label])
                spans.append((len(text.replace("\0", "")), len(text.replace("\0", "")) + len(name), label))
                text += name + "\0"
        texts.append((f"{text.replace(chr(0), '')} {number}", spans))
    return texts


TEXTS = annotated_texts(40)


def units(text: str, place: int) -> int:
    """The place in UTF-16 units, as a browser counts."""
    return len(text[:place].encode("utf-16-le")) // 2


# Ten tools, each as its export looks


def json_lines(path: Path, records: list[Any]) -> Path:
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
    )
    return path


def plain(folder: Path) -> Path:
    records = [
        {"text": text, "spans": [{"start": start, "end": end, "label": label} for start, end, label in spans]}
        for text, spans in TEXTS
    ]
    return json_lines(folder / "plain.jsonl", records)


def doccano(folder: Path) -> Path:
    records = [
        {"id": 7 * number, "text": text, "label": [list(span) for span in spans]}
        for number, (text, spans) in enumerate(TEXTS)
    ]
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
        tokens = [
            {"text": word.text, "start": word.start, "end": word.end, "id": place}
            for place, word in enumerate(split_words(text))
        ]
        marked = [
            {"start": start, "end": end, "token_start": 0, "token_end": 0, "label": label}
            for start, end, label in spans
        ]
        records.append(
            {"text": text, "_input_hash": 1, "tokens": tokens, "spans": marked, "answer": "accept"}
        )
    return json_lines(
        folder / "prodigy.jsonl", [*records, {"text": "no Jordan", "spans": [], "answer": "reject"}]
    )


def spacy_training(folder: Path) -> Path:
    records = [[text, {"entities": [list(span) for span in spans]}] for text, spans in TEXTS]
    path = folder / "spacy.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def spacy_docs(folder: Path) -> Path:
    records = [
        {
            "text": text,
            "ents": [{"start": start, "end": end, "label": label} for start, end, label in spans],
            "tokens": [{"id": 0, "start": 0, "end": 1}],
        }
        for text, spans in TEXTS
    ]
    return json_lines(folder / "docs.jsonl", records)


def label_studio(folder: Path) -> Path:
    tasks = []
    for number, (text, spans) in enumerate(TEXTS):
        result = [
            {
                "value": {
                    "start": units(text, start),
                    "end": units(text, end),
                    "text": text[start:end],
                    "labels": [label],
                },
                "id": "x",
                "from_name": "label",
                "to_name": "text",
                "type": "labels",
            }
            for start, end, label in spans
        ]
        done = [
            {"id": 1, "was_cancelled": True, "result": []},
            {"id": 2, "was_cancelled": False, "result": result},
        ]
        tasks.append(
            {"id": number, "data": {"text": text, "image": "/data/upload/1/a.png"}, "annotations": done}
        )
    path = folder / "label_studio.json"
    path.write_text(
        json.dumps(
            [*tasks, {"id": 99, "data": {"text": "skipped"}, "annotations": [{"was_cancelled": True}]}]
        ),
        encoding="utf-8",
    )
    return path


def label_studio_min(folder: Path) -> Path:
    records = []
    for number, (text, spans) in enumerate(TEXTS):
        label = [
            {"start": units(text, start), "end": units(text, end), "text": text[start:end], "labels": [kind]}
            for start, end, kind in spans
        ]
        records.append({"text": text, "id": number, "label": label, "annotator": 1, "annotation_id": 3})
    path = folder / "label_studio_min.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def table_of_spans(folder: Path) -> Path:
    path = folder / "spans.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "entities"])
        writer.writeheader()
        for number, (text, spans) in enumerate(TEXTS):
            entities = [{"start": start, "end": end, "label": label} for start, end, label in spans]
            writer.writerow(
                {"text": text, "entities": json.dumps(entities) if number % 2 else repr(entities)}
            )
    return path


def parquet(folder: Path) -> Path:
    records = [
        {"text": text, "spans": [{"start": s, "end": e, "label": label} for s, e, label in spans]}
        for text, spans in TEXTS
    ]
    path = folder / "spans.parquet"
    datasets.Dataset.from_list(records).to_parquet(path)
    return path


TOOLS: dict[str, Callable[[Path], Path]] = {
    write.__name__: write
    for write in (
        plain,
        doccano,
        doccano_relations,
        prodigy,
        spacy_training,
        spacy_docs,
        label_studio,
        label_studio_min,
        table_of_spans,
        parquet,
    )
}
