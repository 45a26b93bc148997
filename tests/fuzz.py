"""Fuzzing of all that reads what others made: whatever comes, it is taken or refused by an error of the package's own.

`python -m tests.fuzz 20000` gives each door so many inputs, drawn by hypothesis, and prints how many were taken and refused.
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

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dataset_scripts.own_data import OwnPosts, add_posts, read_own
from dataset_scripts.reader import Reading, parse_posts
from dataset_scripts.reading_options import ReadingOptions
from modeling_mmner import MMNERConfig, MMNERProcessor
from modeling_mmner.json_lines import json_line, read_json_lines
from modeling_mmner.parts_mmner import part_settings
from modeling_mmner.prediction_mmner import PostReader
from modeling_mmner.recipes import SECTIONS, load_recipe, model_keys, recipe_from_settings
from tests.bad_input.cases import is_own
from tests.bad_input.settings import saved_config
from tests.small_posts import small_parts
from tests.test_reader_fuzz import SPECIAL, VALID, check_posts

Door = Callable[[st.DataObject], Any]

# What is drawn

CHARACTERS = st.characters(codec=None) | st.sampled_from("\ud83d\ude00\u200d\ufeff\u202e\0\t\n\u0301#@'l.1 BIO-{}[]\",:")
TEXTS = st.text(CHARACTERS, max_size=30) | st.sampled_from(
    ["Jordan posts from Paris", "O", "B-PER", "I-PER", "S-LOC", "x" * 3000]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, 2, 7, 10**30, 1e400])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
KEYS = TEXTS | st.sampled_from(
    ["id", "text", "tokens", "ner_tags", "image", "images", "context", "spans", "entities", "label", "start", "end", "split"]
    + ["bytes", "path", "data", "annotations", "result", "value", "labels", "answer", "role", "content", "type", "language"]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)
WORDS = st.lists(TEXTS, max_size=8)
PICTURES = st.none() | st.binary(max_size=40) | TEXTS | st.fixed_dictionaries({"path": TEXTS}) | VALUES
POSTS = st.fixed_dictionaries(
    {}, optional={"id": VALUES, "text": TEXTS | VALUES, "tokens": WORDS | VALUES, "image": PICTURES, "context": VALUES}
)
TAGS = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "S-X"]) | SCALARS, max_size=8)
SPANS = st.lists(st.fixed_dictionaries({"start": NUMBERS, "end": NUMBERS, "label": TEXTS}) | VALUES, max_size=4)
RECORDS = VALUES | st.fixed_dictionaries(
    {}, optional={"id": VALUES, "tokens": WORDS, "ner_tags": TAGS | VALUES, "text": TEXTS, "spans": SPANS, "image": PICTURES}
)


@st.composite
def broken(draw: st.DrawFn, parts: list[bytes]) -> bytes:
    """Bytes of some of the parts, pieces of them, and anything else."""
    cuts = st.sampled_from(parts).flatmap(
        lambda part: st.tuples(st.integers(0, len(part)), st.integers(0, len(part))).map(lambda cut: part[min(cut) : max(cut)])
    )
    return b"".join(draw(st.lists(cuts | st.sampled_from(parts) | st.binary(max_size=6) | st.sampled_from(SPECIAL), max_size=10)))


# The doors


@cache
def processor() -> MMNERProcessor:
    """Of a model that reads pictures and contexts."""
    own = small_parts()[1]
    return MMNERProcessor(own.tokenizer, labels=own.labels, image_size=16, context_window=8, word_bytes=9)


def processor_door(data: st.DataObject) -> None:
    texts = data.draw(st.lists(TEXTS | WORDS, min_size=1, max_size=3) | VALUES)
    beside = {"images": data.draw(st.none() | st.lists(PICTURES, max_size=3)), "context": data.draw(st.none() | VALUES)}
    labels = data.draw(st.none() | st.lists(TAGS, max_size=3))
    batch = processor()(texts, **beside, labels=labels, is_split_into_words=data.draw(st.sampled_from([None, False, True])))
    assert batch["word_starts"].shape == batch["word_mask"].shape
    assert int(batch["word_starts"].max()) < batch["input_ids"][0].numel()


def post_door(data: st.DataObject) -> None:
    read = PostReader(processor(), image_dir=Path("nowhere"))(data.draw(POSTS | VALUES))
    if read.error is not None:
        raise read.error
    assert read.post is not None
    read.post.text.encode("utf-8", "surrogatepass")


def reader_door(data: st.DataObject) -> None:
    content = data.draw(broken(VALID) | st.binary(max_size=60))
    options = data.draw(
        st.fixed_dictionaries({"scheme": st.sampled_from(["bio", "bioes", "iob1"]), "repair_orphans": st.booleans()})
    )
    check_posts(list(parse_posts(io.BytesIO(content), "train.txt", Reading(**options))), options["repair_orphans"])


def record_door(data: st.DataObject) -> None:
    read = OwnPosts()
    records = [("row", record) for record in data.draw(st.lists(RECORDS, min_size=1, max_size=3))]
    add_posts(records, read, ReadingOptions(), folder=None, source="fuzz")
    for post in read.posts:
        assert len(post["tokens"]) == len(post["ner_tags"])


FILES = {
    ".jsonl": [b'{"tokens": ["a", "b"], "ner_tags": ["B-X", "O"]}\n', b'{"text": "Jordan", "spans": [[0, 6, "PER"]]}\n'],
    ".json": [b'[["Jordan", {"entities": [[0, 6, "PER"]]}]', b',{"data": {"text": "a"}, "annotations": [{"result": []}]}', b"]"],
    ".csv": [b"tokens,ner_tags\n", b'"[""a"", ""b""]",B-X O\n', b"Jordan,\"['B-PER']\"\n", b'"a\nb",O O\n'],
    ".parquet": [b"PAR1\x15\x04\x15\x10\x15\x14L\x15\x02\x15\x00\x12\x00\x00", b"\x1a\x00\x00\x00PAR1"],
}


def file_door(data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from(list(FILES)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"posts{ending}"
        path.write_bytes(data.draw(broken(FILES[ending]) | st.binary(max_size=60)))
        read_own(path, ReadingOptions())


CONFIG = saved_config()
CONFIG_KEYS = [*part_settings(), *CONFIG]


def config_door(data: st.DataObject) -> None:
    config = copy.deepcopy(CONFIG)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from([config, CONFIG["text_config"], CONFIG["vision_towers"][0]]))
        keys = CONFIG_KEYS if place is config else list(place)
        changed = {data.draw(st.sampled_from(keys) | KEYS): data.draw(VALUES)}
        if place is config:
            config |= changed
        elif "hidden_size" in place:
            config["text_config"] = place | changed
        else:
            config["vision_towers"] = [place | changed]
    MMNERConfig.from_dict(config)


RECIPE_KEYS = [(section, key) for section, kind in SECTIONS.items() for key in kind.__dataclass_fields__]
RECIPE_KEYS += [("model", key) for key in model_keys()]


def recipe_door(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        parts = [
            b"model:\n",
            b"  fusion: text-only\n",
            b"training: {epochs: 3}\n",
            b"  - &a [*a]\n",
            b"? !!python/name:os.system\n",
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.yaml"
            path.write_bytes(data.draw(broken(parts)))
            load_recipe(str(path))
        return
    recipe: dict[str, Any] = data.draw(
        st.just({}) | st.dictionaries(st.sampled_from(["name", "terms", *SECTIONS]) | KEYS, VALUES)
    )
    for section, key in data.draw(st.lists(st.sampled_from(RECIPE_KEYS), max_size=3)):
        if isinstance(recipe.setdefault(section, {}), dict):
            recipe[section][key] = data.draw(VALUES)
    yaml.safe_dump(recipe_from_settings(recipe, source="recipe").to_settings())


def line_door(data: st.DataObject) -> None:
    parts = [b'{"text": "Jordan"}\n', b'{"id": 1, "tokens": ["a"]}', b'"image": "a.jpg"', b"\n", b"NaN", b"1e999", b"9" * 5000]
    parts += [json.dumps(data.draw(POSTS.filter(_is_json))).encode()]
    reader, refused = PostReader(processor(), image_dir=Path("nowhere")), None
    for number, post in enumerate(read_json_lines(io.BytesIO(data.draw(broken(parts))), "posts"), start=1):
        read = reader(post, number=number)
        json.loads(json_line({"id": read.id, "error": str(read.error)}))
        refused = refused or read.error
    if refused is not None:
        raise refused


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


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
    """Whether an error is the package's own; one that stands for a post is raised here, and has been made there."""
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
        counts = fuzz(name, count)
        print(f"{name:<16}{counts.total():>8} inputs: {counts['taken']:>7} taken, {counts['refused']:>7} refused", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
