"""Fuzzing of all that reads what others made: whatever comes, it is taken or refused by an error of the
package's own.

`python -m tests.fuzz 20000` gives each door so many inputs, drawn by hypothesis, and prints how many were
taken and refused.
"""

import copy
import io
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dataset_scripts.formats.own_data import OwnPosts, add_posts
from dataset_scripts.formats.reader import Reading, parse_posts
from dataset_scripts.formats.records import read_records
from dataset_scripts.reading_options import ReadingOptions
from modeling_mmner import MMNERConfig, MMNERProcessor
from modeling_mmner.files import json_line, read_json_lines
from modeling_mmner.model.parts_mmner import part_settings
from modeling_mmner.model.prediction_mmner import PostReader
from modeling_mmner.training.recipes import SECTIONS, load_recipe, model_keys, recipe_from_settings
from tests.dataset_scripts.test_reader_fuzz import SPECIAL, VALID, check_posts
from tests.small_posts import small_parts
from tests.stress.bad_input.cases import is_own
from tests.stress.bad_input.settings import saved_config

Door = Callable[[st.DataObject], Any]

# What is drawn

CHARACTERS = st.characters(codec=None) | st.sampled_from(
    "\ud83d\ude00\u200d\ufeff\u202e\0\t\n\u0301#@'l.1 BIO-{}[]\",:"
)
TEXTS = st.text(CHARACTERS, max_size=30) | st.sampled_from(
    ["Jordan posts from Paris", "O", "B-PER", "I-PER", "S-LOC", "x" * 3000]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, 2, 7, 10**30, 1e400])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
KEYS = TEXTS | st.sampled_from(
    [
        "id",
        "text",
        "tokens",
        "ner_tags",
        "image",
        "images",
        "context",
        "spans",
        "entities",
        "label",
        "start",
        "end",
        "split",
    ]
    + [
        "bytes",
        "path",
        "data",
        "annotations",
        "result",
        "value",
        "labels",
        "answer",
        "role",
        "content",
        "type",
        "language",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
PICTURES = st.none() | st.binary(max_size=40) | TEXTS | VALUES
POSTS: list[Any] = [
    {"id": 1, "text": "Jordan posts from Paris", "context": "a caption"},
    {"tokens": ["Jordan", "posts"], "images": [None], "context": ["a", "b"]},
    {"text": "", "image": None},
    ["Jordan", "posts"],
    "Jordan",
    [{"role": "user", "content": [{"type": "text", "text": "Jordan"}]}],
]
RECORDS: list[Any] = [
    {"id": 1, "tokens": ["Jordan", "x"], "ner_tags": ["B-PER", "O"], "image": "a.jpg", "split": "train"},
    {
        "text": "Jordan x",
        "spans": [{"start": 0, "end": 6, "label": "PER", "text": "Jordan"}],
        "answer": "accept",
    },
    {"text": "Jordan x", "label": [[0, 6, "PER"]]},
    ["Jordan x", {"entities": [[0, 6, "PER"]]}],
    {
        "data": {"text": "Jordan"},
        "annotations": [{"result": [{"type": "labels", "value": {"start": 0, "end": 6, "labels": ["PER"]}}]}],
    },
]


@st.composite
def changed(
    draw: st.DrawFn, bases: list[Any], values: st.SearchStrategy[Any] = PICTURES, most: int = 2
) -> Any:
    """One of some values, at most so many places of which are another one of `values`."""
    root = [copy.deepcopy(draw(st.sampled_from(bases)))]
    for _ in range(draw(st.integers(0, most))):
        place: Any = root
        while True:
            key = draw(st.sampled_from(range(len(place)) if isinstance(place, list) else list(place)))
            if not isinstance(place[key], (list, dict)) or not place[key] or draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        if isinstance(place, dict) and draw(st.booleans()):
            place[draw(KEYS)] = draw(VALUES)
        else:
            place[key] = draw(values)
    return root[0]


@st.composite
def damaged(draw: st.DrawFn, files: list[bytes], pieces: list[bytes], most: int = 2) -> bytes:
    """One of some files, at most so many places of which are something else."""
    content = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(0, most))):
        first, last = sorted(draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
        last = draw(st.sampled_from([first, min(last, first + 6), last]))
        content = content[:first] + draw(st.sampled_from(pieces) | st.binary(max_size=4)) + content[last:]
    return content


# The doors


@cache
def processor() -> MMNERProcessor:
    """Of a model that reads pictures and contexts."""
    own = small_parts()[1]
    return MMNERProcessor(own.tokenizer, labels=own.labels, image_size=16, context_window=8, word_bytes=9)


def processor_door(data: st.DataObject) -> None:
    texts = data.draw(changed([["Jordan posts", "Paris"], [["Jordan"], "", ["a", "b"]], "Jordan"], most=1))
    count = len(texts) if isinstance(texts, list) else 1
    images = data.draw(st.none() | changed([[None] * count], most=1))
    context = data.draw(st.none() | changed([["a"] * count], most=1))
    batch = processor()(
        texts,
        images=images,
        context=context,
        is_split_into_words=data.draw(st.sampled_from([None, False, True])),
    )
    assert batch["word_starts"].shape == batch["word_mask"].shape
    assert int(batch["word_starts"].max()) < batch["input_ids"][0].numel()


def post_door(data: st.DataObject) -> None:
    read = PostReader(processor(), image_dir=Path("nowhere"))(data.draw(changed(POSTS)))
    if read.error is not None:
        raise read.error
    assert read.post is not None
    assert all(read.post.text[word.start : word.end] == word.text for word in read.post.words)


def reader_door(data: st.DataObject) -> None:
    content = data.draw(damaged(VALID, SPECIAL))
    options = {
        "scheme": data.draw(st.sampled_from(["bioes", "bio", "iob1"])),
        "repair_orphans": data.draw(st.booleans()),
    }
    check_posts(
        list(parse_posts(io.BytesIO(content), "train.txt", Reading(**options))), options["repair_orphans"]
    )


def check_records(records: Iterable[tuple[str, Any]]) -> None:
    """Records are posts with a tag for each word."""
    read = OwnPosts()
    add_posts(records, read, ReadingOptions(), folder=None, source="fuzz")
    for post in read.posts:
        assert len(post["tokens"]) == len(post["ner_tags"])
        json.dumps({key: value for key, value in post.items() if key != "images"}).encode()


def record_door(data: st.DataObject) -> None:
    check_records([("row", data.draw(changed(RECORDS)))])


@cache
def files_of_posts() -> dict[str, list[bytes]]:
    """Whole files of each kind."""
    table = io.BytesIO()
    rows = RECORDS[:1]
    pq.write_table(
        pa.table({"tokens": [row["tokens"] for row in rows], "ner_tags": [row["ner_tags"] for row in rows]}),
        table,
    )
    return {
        ".jsonl": ["\n".join(map(json.dumps, RECORDS)).encode(), json.dumps(RECORDS[0]).encode()],
        ".json": [json.dumps([record]).encode() for record in RECORDS],
        ".csv": [
            b'tokens,ner_tags\n"[""a"", ""b""]",B-X O\nJordan,"[\'B-PER\']"\n',
            b'text,spans\nJordan,"[[0, 6, ""PER""]]"\n',
        ],
        ".tsv": [b"tokens\tner_tags\na b\tO B-X\n"],
        ".parquet": [table.getvalue()],
    }


def file_door(data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from(list(files_of_posts())))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"posts{ending}"
        path.write_bytes(data.draw(damaged(files_of_posts()[ending], SPECIAL)))
        check_records(read_records(path, {}))


CONFIG = saved_config()
CONFIG_KEYS = [*part_settings(), *CONFIG]


def config_door(data: st.DataObject) -> None:
    more = {data.draw(st.sampled_from(CONFIG_KEYS)): data.draw(VALUES)}
    MMNERConfig.from_dict(data.draw(changed([CONFIG, CONFIG | more], VALUES)))


RECIPES = [load_recipe(name).to_settings() for name in ("quickstart", "bilstm-crf", "2m-ner")]
RECIPE_FILES = [yaml.safe_dump(recipe).encode() for recipe in RECIPES]
SETTINGS = [(section, key) for section, kind in SECTIONS.items() for key in kind.__dataclass_fields__]
SETTINGS += [("model", key) for key in model_keys()]


def recipe_door(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        pieces = [
            b"&a [*a]",
            b"? !!python/name:os.system",
            b"- ",
            b": ",
            b"{",
            b"\n",
            b"\t",
            b"1e400",
            b"null",
            *SPECIAL,
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.yaml"
            path.write_bytes(data.draw(damaged(RECIPE_FILES, pieces)))
            recipe = load_recipe(str(path))
    else:
        drawn, (section, key) = data.draw(changed(RECIPES)), data.draw(st.sampled_from(SETTINGS))
        if isinstance(drawn, dict) and isinstance(drawn.get(section), dict) and data.draw(st.booleans()):
            drawn[section][key] = data.draw(VALUES)
        recipe = recipe_from_settings(drawn, source="recipe")
    yaml.safe_dump(recipe.to_settings())


def line_door(data: st.DataObject) -> None:
    files = [
        b"\n".join([json.dumps(post).encode() for post in POSTS[:count]]) for count in (1, 2, len(POSTS))
    ]
    pieces = [
        b"NaN",
        b"1e999",
        b"9" * 5000,
        b"[" * 5000,
        b'"image": "a.jpg",',
        b"\n",
        b"\\ud83d",
        b"\\u0000",
        *SPECIAL,
    ]
    reader, refused = PostReader(processor(), image_dir=Path("nowhere")), None
    for number, post in enumerate(
        read_json_lines(io.BytesIO(data.draw(damaged(files, pieces))), "posts"), start=1
    ):
        read = reader(post, number=number)
        json.loads(json_line({"id": read.id, "error": str(read.error)}))
        refused = refused or read.error
    if refused is not None:
        raise refused


DOORS: dict[str, Door] = {
    "processor": processor_door,
    "posts": post_door,
    "tagged files": reader_door,
    "records": record_door,
    "files of posts": file_door,
    "configs": config_door,
    "recipes": recipe_door,
    "JSON lines": line_door,
}


def is_refusal(error: Exception) -> bool:
    """Whether an error is the package's own; one that stands for a post is raised here, and has been made
    there.
    """
    return is_own(error) or type(error).__name__ in ("PostError", "PictureError")


def fuzz(name: str, count: int, *, first: int = 1) -> Counter[str]:
    """How many of so many inputs were taken and refused at a door.

    Args:
        first: seed of the draws.

    Raises:
        Exception: what else came of one; hypothesis prints the smallest input that leads to it.
    """
    counts: Counter[str] = Counter()

    @seed(first)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.data())
    def one(data: st.DataObject) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                DOORS[name](data)
                counts["taken"] += 1
            except Exception as error:
                if not is_refusal(error):
                    raise
                counts["refused"] += 1

    one()
    return counts


def main(count: int, doors: list[str]) -> None:
    for name in doors or DOORS:
        counts = fuzz(name, count, first=count)
        print(
            f"{name:<16}{counts.total():>8} inputs: {counts['taken']:>7} taken, {counts['refused']:>7}"
            " refused",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
