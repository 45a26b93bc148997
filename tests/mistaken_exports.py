"""Shared by the tests of `inspect`: files of tools, each with a mistake, and how that is mended."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from tests.tool_exports import json_array, json_lines, units

NAMES = ("Jordan", "Lima", "Anna Lee", "Oslo", "Marie", "Rome")
COUNT = 40

Record = dict[str, Any]


def records(**changes: Callable[[int, Record], Any]) -> list[Record]:
    """Texts with a span each, on a person or a place; changed as wanted."""
    made = []
    for number in range(COUNT):
        name = NAMES[number % len(NAMES)]
        span = {"start": 0, "end": len(name), "label": ("PER", "LOC")[number % 2]}
        record = {"text": f"{name} was seen, number {number}", "spans": [span]}
        made.append(record | {key: change(number, record) for key, change in changes.items()})
    return made


def tagged(scheme: str) -> list[tuple[list[str], list[str]]]:
    """The same in words, with the tags of a scheme."""
    tags = {
        "bio": ("B-", "B-", "I-"),
        "iob1": ("I-", "I-", "I-"),
        "bilou": ("U-", "B-", "L-"),
        "bare": ("",) * 3,
    }
    single, first, last = tags[scheme]
    posts = []
    for number in range(COUNT):
        name, kind = NAMES[number % len(NAMES)].split(), ("PER", "LOC")[number % 2]
        own = [single + kind] if len(name) == 1 else [first + kind, last + kind]
        posts.append(([*name, "was", "seen", str(number)], [*own, "O", "O", "O"]))
    return posts


def pictures(folder: Path, *, broken: bool = False) -> Path:
    folder.mkdir(parents=True)
    for number in range(COUNT):
        path = folder / f"p{number:03}.jpg"
        Image.new("RGB", (16, 16), (6 * number, 40, 80)).save(path)
        if broken and number % 10 == 0:
            path.write_bytes(path.read_bytes()[:40])
    return folder


def pictured(folder: Path, name: str, path: str) -> Path:
    image = lambda number, _: path.format(f"p{number:03}.jpg")  # noqa: E731
    return json_lines(folder / name, records(image=image))


def label_studio_tasks(folder: Path) -> Path:
    """Pictures in a folder that nobody has named."""
    pictures(folder / "elsewhere")
    tasks = []
    for number, record in enumerate(records()):
        span = record["spans"][0]
        value = {"start": span["start"], "end": span["end"], "labels": [span["label"]]}
        value["text"] = record["text"][: units(record["text"], span["end"])]
        data = {"text": record["text"], "image": f"/data/local-files/?d=photos/p{number:03}.jpg"}
        done = [{"was_cancelled": False, "result": [{"type": "labels", "value": value}]}]
        tasks.append({"id": number, "data": data, "annotations": done})
    return json_array(folder / "label_studio.json", tasks)


def json_min(folder: Path) -> Path:
    """Ends that are the last character's own place."""
    made = []
    for record in records():
        span = record["spans"][0]
        marked = {"start": 0, "end": span["end"] - 1, "labels": [span["label"]]}
        made.append({"annotation_id": 1, "text": record["text"], "label": [marked]})
    return json_array(folder / "json_min.json", made)


def mended_json_min(folder: Path) -> Path:
    path = json_min(folder)
    made = json.loads(path.read_text())
    for record in made:
        record["label"][0]["end"] += 1
    return json_array(path, made)


def doccano(folder: Path) -> Path:
    """Offsets of a text that was shortened later."""
    made = [
        {
            "id": number,
            "text": record["text"],
            "label": [[100, 106, "PER"], list(record["spans"][0].values())],
        }
        for number, record in enumerate(records())
    ]
    return json_lines(folder / "doccano.jsonl", made)


def mended_doccano(folder: Path) -> Path:
    made = [json.loads(line) for line in doccano(folder).read_text().splitlines()]
    return json_lines(folder / "doccano.jsonl", [record | {"label": record["label"][1:]} for record in made])


def prodigy(folder: Path) -> Path:
    """The same entity marked twice."""
    twice = lambda _, record: record["spans"] * 2  # noqa: E731
    return json_lines(folder / "prodigy.jsonl", [one | {"answer": "accept"} for one in records(spans=twice)])


def mended_prodigy(folder: Path) -> Path:
    return json_lines(folder / "prodigy.jsonl", [one | {"answer": "accept"} for one in records()])


def spacy(folder: Path) -> Path:
    """Each entity under two keys, of which one is read."""
    made = []
    for record in records():
        span = record["spans"][0]
        more = [[record["text"].index("number"), record["text"].index("number") + 6, "MISC"]]
        entities = [[span["start"], span["end"], span["label"]]]
        made.append([record["text"], {"entities": entities, "ents": more}])
    return json_array(folder / "spacy.json", made)


def mended_spacy(folder: Path) -> Path:
    made = json.loads(spacy(folder).read_text())
    return json_array(folder / "spacy.json", [[text, {"entities": own["entities"]}] for text, own in made])


def words(folder: Path, scheme: str) -> Path:
    made = [{"tokens": tokens, "ner_tags": tags} for tokens, tags in tagged(scheme)]
    return json_lines(folder / "words.jsonl", made)


def numbered(folder: Path) -> Path:
    """Ids of tags, with nothing that says what they mean."""
    ids = {name: number for number, name in enumerate(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))}
    made = [{"tokens": tokens, "ner_tags": [ids[tag] for tag in tags]} for tokens, tags in tagged("bio")]
    return json_lines(folder / "numbered.jsonl", made)


def conll(folder: Path, *, tab: str = "\t") -> Path:
    posts = (
        "".join(f"{word}{tab}{tag}\n" for word, tag in zip(*post, strict=True)) for post in tagged("bio")
    )
    path = folder / "posts.conll"
    path.write_text("\n".join(posts))
    return path


def table(folder: Path, *, heading: str) -> Path:
    path = folder / "posts.csv"
    rows = (
        f'"{record["text"]}";"{json.dumps(record["spans"]).replace(chr(34), chr(34) * 2)}"'
        for record in records()
    )
    path.write_text("\n".join([heading, *rows]) + "\n", encoding="utf-8")
    return path


def in_latin_1(folder: Path) -> Path:
    path = json_lines(folder / "latin.jsonl", records(text=lambda _, record: record["text"] + " à Genève"))
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    return path


def mended_latin_1(folder: Path) -> Path:
    path = in_latin_1(folder)
    path.write_text(path.read_bytes().decode("latin-1"), encoding="utf-8")
    return path


def labelled(folder: Path, call: Callable[[int, str], str]) -> Path:
    """Spans whose labels are called otherwise."""
    made = records(
        spans=lambda number, one: [one["spans"][0] | {"label": call(number, one["spans"][0]["label"])}]
    )
    return json_lines(folder / "labelled.jsonl", made)


def counted_in(folder: Path, encoding: str) -> Path:
    """Offsets in units of an encoding, in texts that begin with an emoji."""
    size = len("a".encode(encoding))
    made = records(text=lambda _, record: f"\U0001f600 {record['text']}")
    for record in made:
        span = record["spans"][0]
        places = {
            name: len(record["text"][: span[name] + 2].encode(encoding)) // size for name in ("start", "end")
        }
        record["spans"] = [span | places]
    return json_lines(folder / "counted.jsonl", made)


def rows_of_words(folder: Path, border: str) -> Path:
    """A table with a word in each row, and a border between posts."""
    rows = ("".join(f"{word},{tag}\n" for word, tag in zip(*post, strict=True)) for post in tagged("bio"))
    path = folder / "words.csv"
    path.write_text("Word,Tag\n" + border.join(rows))
    return path


def split_files(folder: Path, *, is_labelled: bool) -> Path:
    """Files of the splits, of which that of test may have no entity."""
    for split, numbers in {"train": slice(20), "valid": slice(20, 30), "test": slice(30, None)}.items():
        made = records()[numbers]
        changes = {} if is_labelled or split != "test" else {"spans": []}
        json_lines(folder / f"{split}.jsonl", [record | changes for record in made])
    return folder


def with_pictures(
    write: Callable[[Path], Path], name: str = "pics", **options: bool
) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        pictures(folder / name, **options)
        return write(folder)

    return written


@dataclass
class Mistake:
    """A file with a mistake.

    Attributes:
        write: makes it in a folder, and gives its path.
        named, remedy: what `inspect` says of it.
        status: of `inspect`.
        options: of reading, that mend it, with ``{}`` for the folder; or `mended` makes the file without it.
    """

    write: Callable[[Path], Path]
    named: str
    remedy: str
    status: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    mended: Callable[[Path], Path] | None = None


MISTAKES = {
    "Label Studio, pictures elsewhere": Mistake(
        label_studio_tasks,
        "pictures left out: no such file: 40",
        "--image_dir FOLDER, where the files are",
        options={"image_dir": "{}/elsewhere"},
    ),
    "JSON_MIN, ends one short": Mistake(
        json_min, "spans left out: ends one character before a word does: 40", "add 1 to each end", 2,
        mended=mended_json_min,
    ),
    "doccano, offsets past the text": Mistake(
        doccano, "spans left out: is empty or not within the text: 40", "count characters of the very text",
        mended=mended_doccano,
    ),
    "Prodigy, marked twice": Mistake(
        prodigy,
        "spans left out: overlaps another span: 40",
        "keep one span for each word",
        mended=mended_prodigy,
    ),
    "spaCy, two lists of spans": Mistake(
        spacy, "spans under 'ents', not read: 40", "--columns spans=ents reads them", mended=mended_spacy
    ),
    "words, integers for tags": Mistake(
        numbered, "expected tags by their names, found 1", "--tag_names O,B-PER,I-PER", 2,
        {"tag_names": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]},
    ),
    "words, IOB1 called BIO": Mistake(
        lambda folder: words(folder, "iob1"), "tags read as IOB1", "say --tag_scheme", 0,
        {"tag_scheme": "iob1"},
    ),
    "words, BILOU": Mistake(
        lambda folder: words(folder, "bilou"), "tags read as BILOU", "say --tag_scheme", 0,
        {"tag_scheme": "bilou"},
    ),
    "CSV, semicolons and other columns": Mistake(
        lambda folder: table(folder, heading="post;marks"), "found marks, text", "--columns OURS=THEIRS", 2,
        {"columns": {"text": "post", "spans": "marks"}},
    ),
    "JSON lines, not in UTF-8": Mistake(
        in_latin_1, "can't decode byte 0xe0", "convert the file to UTF-8", 2, mended=mended_latin_1
    ),
    "JSON lines, broken pictures": Mistake(
        with_pictures(lambda folder: pictured(folder, "posts.jsonl", "pics/{}"), broken=True),
        "pictures that cannot be read: 4", "repair or take out the files",
        mended=with_pictures(lambda folder: pictured(folder, "posts.jsonl", "pics/{}")),
    ),
    "JSON lines, pictures in a column of another name": Mistake(
        with_pictures(lambda folder: json_lines(
            folder / "posts.jsonl", records(attached=lambda number, _: f"pics/p{number:03}.jpg")
        )),
        "names of pictures in the column 'attached', not read: 40", "--columns image=attached",
        options={"columns": {"image": "attached"}},
    ),
    "JSON lines, an id twice": Mistake(
        lambda folder: json_lines(folder / "posts.jsonl", records(id=lambda number, _: number // 2)),
        "ids that an earlier post has: 20", "--columns id=COLUMN", 0,
        mended=lambda folder: json_lines(folder / "posts.jsonl", records(id=lambda number, _: number)),
    ),
    "offsets in UTF-16 units": Mistake(
        lambda folder: counted_in(folder, "utf-16-le"), "is in UTF-16 units, as of JavaScript: 40",
        "start = len(text.encode('utf-16-le')[: 2 * start].decode('utf-16-le'))", 2,
        mended=lambda folder: counted_in(folder, "utf-32-le"),
    ),
    "offsets in bytes": Mistake(
        lambda folder: counted_in(folder, "utf-8"), "is in bytes: 40",
        "start = len(text.encode()[:start].decode())", 2,
        mended=lambda folder: counted_in(folder, "utf-32-le"),
    ),
    "types in several spellings": Mistake(
        lambda folder: labelled(folder, lambda number, kind: kind if number % 3 else kind.title()),
        "types that differ in upper and lower case alone: 1",
        "--rename_types Loc=LOC,Per=PER makes them one",
        options={"rename_types": {"Per": "PER", "Loc": "LOC"}},
    ),
    "a label for what is no entity": Mistake(
        lambda folder: labelled(folder, lambda number, kind: kind if number % 3 else "None"),
        "types that are tags, or mean none: 1", "--rename_types LABEL=O takes out",
        options={"rename_types": {"None": "O"}},
    ),
    "tags for labels": Mistake(
        lambda folder: labelled(folder, lambda _, kind: f"B-{kind}"),
        "types that are tags, or mean none: 2", "label entities with their type alone",
        mended=lambda folder: labelled(folder, lambda _, kind: kind),
    ),
    "a split without entities": Mistake(
        lambda folder: split_files(folder, is_labelled=False), "splits without an entity: 1",
        "label its posts, or leave them out", mended=lambda folder: split_files(folder, is_labelled=True),
    ),
    "texts labelled twice": Mistake(
        lambda folder: json_lines(folder / "two.jsonl", [*records(), *records(spans=lambda *_: [])]),
        "posts that are there before with other entities: 40", "make them agree, or keep one of them",
        mended=lambda folder: json_lines(folder / "two.jsonl", records() * 2),
    ),
    "CSV, words without borders": Mistake(
        lambda folder: rows_of_words(folder, ""), "posts of a single word: ",
        "an empty line between posts; or --columns id=COLUMN",
        mended=lambda folder: rows_of_words(folder, ",\n"),
    ),
    "CoNLL, a line without a tag": Mistake(
        lambda folder: _cut(conll(folder)), "posts.conll:8", "columns", 2, mended=conll
    ),
}  # fmt: skip


def _cut(path: Path) -> Path:
    lines = path.read_text().splitlines()
    lines[7] = lines[7].partition("\t")[0]
    path.write_text("\n".join(lines) + "\n")
    return path
