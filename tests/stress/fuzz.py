"""Random input to all that reads what others made: it is taken or refused by an error of the package's own.

`python -m tests.stress.fuzz 20000` gives each door so many inputs and counts what was taken and refused.
"""

import copy
import io
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
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
from modeling_mmner.model.parts_mmner import SETTINGS
from modeling_mmner.model.prediction_mmner import PostReader
from modeling_mmner.training.recipes import load_recipe, recipe_from_settings
from tests.dataset_scripts.test_reader_fuzz import SPECIAL, VALID, check_posts
from tests.small_posts import small_parts
from tests.stress.bad_input.cases import is_own
from tests.stress.bad_input.settings import saved_config

# What is drawn

CHARACTERS = st.characters(codec=None) | st.sampled_from(
    "\ud83d\ude00\u200d\ufeff\u202e\0\t\n\u0301'BIO-{}[]\",:"
)
TAGS = ["O", "B-PER", "I-PER", "S-LOC", "Jordan posts from Paris", "x" * 3000]
TEXTS = st.text(CHARACTERS, max_size=30) | st.sampled_from(TAGS)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, 2, 7, 10**30, 1e400])
OF_POSTS = ["id", "text", "tokens", "ner_tags", "image", "images", "context", "bytes", "path"]
OF_TOOLS = ["role", "content", "spans", "entities", "label", "start", "end", "split"]
OF_TOOLS += ["data", "annotations", "value", "answer"]
KEYS = TEXTS | st.sampled_from(OF_POSTS) | st.sampled_from(OF_TOOLS)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
POSTS: list[Any] = [
    {"id": 1, "text": "Jordan posts from Paris", "context": "a caption"},
    {"tokens": ["Jordan", "posts"], "images": [None], "context": ["a", "b"]},
    ["Jordan", "posts"],
    [{"role": "user", "content": [{"type": "text", "text": "Jordan"}]}],
]
RESULT = {"type": "labels", "value": {"start": 0, "end": 6, "labels": ["PER"]}}
RECORDS: list[Any] = [
    {"id": 1, "tokens": ["Jordan", "x"], "ner_tags": ["B-PER", "O"], "image": "a.jpg", "split": "train"},
    {"text": "Jordan x", "spans": [{"start": 0, "end": 6, "label": "PER"}], "answer": "accept"},
    {"text": "Jordan x", "label": [[0, 6, "PER"]]},
    ["Jordan x", {"entities": [[0, 6, "PER"]]}],
    {"data": {"text": "Jordan"}, "annotations": [{"result": [RESULT]}]},
]


@st.composite
def changed(draw: st.DrawFn, bases: list[Any], values: st.SearchStrategy[Any] = VALUES) -> Any:
    """One of some values, at most two places of which are another value."""
    root = [copy.deepcopy(draw(st.sampled_from(bases)))]
    for _ in range(draw(st.integers(0, 2))):
        place: Any = root
        while True:
            key = draw(st.sampled_from(range(len(place)) if isinstance(place, list) else list(place)))
            if not isinstance(place[key], (list, dict)) or not place[key] or draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        if isinstance(place, dict) and draw(st.booleans()):
            key = draw(KEYS)
        place[key] = draw(values)
    return root[0]


@st.composite
def damaged(draw: st.DrawFn, files: list[bytes], pieces: list[bytes]) -> bytes:
    """One of some files, at most two places of which are something else."""
    content = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(0, 2))):
        first, last = sorted(draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
        last = draw(st.sampled_from([first, min(last, first + 6), last]))
        content = content[:first] + draw(st.sampled_from(pieces) | st.binary(max_size=4)) + content[last:]
    return content


# The doors


@cache
def reader() -> PostReader:
    own = small_parts()[1]
    processor = MMNERProcessor(
        own.tokenizer, labels=own.labels, image_size=16, context_window=8, word_bytes=9
    )
    return PostReader(processor, image_dir=Path("nowhere"))


def post_door(data: st.DataObject) -> None:
    read = reader()(data.draw(changed(POSTS, VALUES | st.binary(max_size=40))))
    if read.error is not None:
        raise read.error
    assert read.post is not None
    assert all(read.post.text[word.start : word.end] == word.text for word in read.post.words)
    batch = reader().processor([[word.text for word in read.post.words]])
    assert int(batch["word_starts"].max()) < batch["input_ids"][0].numel()


def line_door(data: st.DataObject) -> None:
    files = [b"\n".join(json.dumps(post).encode() for post in POSTS[:count]) for count in (1, 2, 4)]
    pieces = [b"NaN", b"1e999", b"9" * 5000, b"[" * 5000, b'"image": "a.jpg",', b"\n", b"\\ud83d", *SPECIAL]
    lines = io.BytesIO(data.draw(damaged(files, pieces)))
    found = [reader()(post, number=number) for number, post in enumerate(read_json_lines(lines, "posts"), 1)]
    for read in found:
        json.loads(json_line({"id": read.id, "error": str(read.error)}))
    for error in filter(None, (read.error for read in found)):
        raise error


def imgid_door(data: st.DataObject) -> None:
    content, repair = data.draw(damaged(VALID, SPECIAL)), data.draw(st.booleans())
    reading = Reading(scheme=data.draw(st.sampled_from(["bioes", "bio", "iob1"])), repair_orphans=repair)
    check_posts(list(parse_posts(io.BytesIO(content), "train.txt", reading)), repair)


@cache
def files_of_posts() -> dict[str, list[bytes]]:
    """Whole files of each kind."""
    table = io.BytesIO()
    pq.write_table(pa.table({name: [RECORDS[0][name]] for name in ("tokens", "ner_tags")}), table)
    cells = b'tokens,ner_tags\n"[""a"", ""b""]",B-X O\nJordan,"[\'B-PER\']"\n'
    return {
        ".jsonl": ["\n".join(map(json.dumps, RECORDS)).encode(), json.dumps(RECORDS[0]).encode()],
        ".json": [json.dumps([record]).encode() for record in RECORDS],
        ".csv": [cells, b'text,spans\nJordan,"[[0, 6, ""PER""]]"\n'],
        ".tsv": [b"tokens\tner_tags\na b\tO B-X\n"],
        ".parquet": [table.getvalue()],
    }


def file_door(data: st.DataObject) -> None:
    read, ending = OwnPosts(), data.draw(st.sampled_from(["", *files_of_posts()]))
    with tempfile.TemporaryDirectory() as folder:
        if ending:
            path = Path(folder) / f"posts{ending}"
            path.write_bytes(data.draw(damaged(files_of_posts()[ending], SPECIAL)))
            records = read_records(path, {}, read.findings)
        else:
            records = iter([("row", data.draw(changed(RECORDS)))])
        add_posts(records, read, ReadingOptions(), folder=None, source="fuzz")
    for post in read.posts:
        assert len(post["tokens"]) == len(post["ner_tags"])
        json.dumps({key: value for key, value in post.items() if key != "images"}).encode()


def config_door(data: st.DataObject) -> None:
    config = saved_config()
    more = {data.draw(st.sampled_from([*SETTINGS, *config])): data.draw(VALUES)}
    MMNERConfig.from_dict(data.draw(changed([config, config | more])))


RECIPES = [load_recipe(name).to_settings() for name in ("quickstart", "bilstm-crf", "2m-ner")]


def recipe_door(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        of_yaml = b"&a [*a]|? !!python/name:os.system|- |: |{|\t|1e400|null".split(b"|")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.yaml"
            path.write_bytes(
                data.draw(damaged([yaml.safe_dump(one).encode() for one in RECIPES], [*of_yaml, *SPECIAL]))
            )
            recipe = load_recipe(str(path))
    else:
        recipe = recipe_from_settings(data.draw(changed(RECIPES)), source="recipe")
    yaml.safe_dump(recipe.to_settings())


DOORS: dict[str, Callable[[st.DataObject], Any]] = {
    "posts": post_door,
    "JSON lines": line_door,
    "IMGID files": imgid_door,
    "files of posts": file_door,
    "configs": config_door,
    "recipes": recipe_door,
}


def fuzz(name: str, count: int, *, first: int = 1) -> Counter[str]:
    """How many of so many inputs were taken and refused at a door; `first` is the seed of the draws.

    Raises whatever else came of one; hypothesis prints the smallest input that leads to it.
    """
    counts: Counter[str] = Counter()
    phases, checks = [Phase.generate, Phase.shrink], list(HealthCheck)

    @seed(first)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=checks, phases=phases)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                DOORS[name](data)
                counts["taken"] += 1
            except Exception as error:
                # A post's error is made in the package and raised here.
                if not is_own(error) and type(error).__name__ not in ("PostError", "PictureError"):
                    raise
                counts["refused"] += 1

    one()
    return counts


if __name__ == "__main__":
    for door in sys.argv[2:] or DOORS:
        told = fuzz(door, int(sys.argv[1]), first=int(sys.argv[1]))
        print(f"{door}: {told.total()} inputs, {told['taken']} taken, {told['refused']} refused", flush=True)
