"""Tests of data as people have it: each tool's file, from spans to word tags and back, against the spans that
were annotated.
"""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import train_accelerate
from dataset_scripts.findings import Findings
from dataset_scripts.formats.annotations import CharacterSpan, read_annotation
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.opening import Corpus, open_corpus
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.labels_mmner import split_words, tags_to_spans
from modeling_mmner.model.pipeline_mmner import MultimodalNERPipeline
from modeling_mmner.training.recipes import load_recipe
from tests.shared_data import property_test
from tests.tool_exports import NAMES, TEXTS, TOOLS, json_lines, plain
from tests.training.test_training import TEXT


def found_spans(corpus: Corpus) -> dict[str, list[tuple[int, int, str]]]:
    """The entities of a corpus's posts as characters of their texts, by the number that ends each text."""
    by_number = {text.rpartition(" ")[2]: text for text, _ in TEXTS}
    found = {}
    for rows in corpus.splits.values():
        for row in rows:
            text = by_number[row["tokens"][-1]]
            words = split_words(text)
            assert [word.text for word in words] == row["tokens"]
            spans = tags_to_spans([corpus.labels[tag] for tag in row["ner_tags"]])
            found[row["tokens"][-1]] = [
                (words[span.start].start, words[span.end - 1].end, span.type) for span in spans
            ]
    return found


@pytest.mark.parametrize("tool", TOOLS)
def test_spans_of_each_tool_come_back_exactly(tool, tmp_path):
    """If it failed, the entities of a tool's export would be lost or moved on their way into the corpus, or
    posts that an annotator has thrown out be trained on as posts without entities.
    """
    corpus = open_corpus(str(TOOLS[tool](tmp_path)))
    assert found_spans(corpus) == {text.rpartition(" ")[2]: spans for text, spans in TEXTS}
    assert corpus.left_out == [] and set(corpus.splits) == {"train", "validation", "test"}
    assert sorted(len(rows) for rows in corpus.splits.values()) == [4, 4, 32]
    assert set(corpus.labels) == {"O", *(f"{prefix}-{label}" for prefix in "BI" for label in NAMES)}
    rejected = corpus.findings.numbers().get("posts that their annotator rejected or skipped", 0)
    assert rejected == (tool in ("prodigy", "label_studio"))


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["label_studio", "parquet"])
def test_file_to_a_trained_model_and_back_to_offsets(tool, tmp_path):
    """If it failed, a user's file could be opened, but no model trained on it that says where in a text its
    entities are.
    """
    parts = {"fusion": "text-only", "vision_towers": [], "objectives": {"crf": 1.0}, "text_config": TEXT}
    budget = {"vocabulary_size": 300, "epochs": 60, "batch_size": 8, "head_learning_rate": 3e-3}
    corpus = {"dataset": str(TOOLS[tool](tmp_path)), "languages": [], "use_images": False}
    recipe = load_recipe("quickstart", parts | budget | corpus | {"output_dir": str(tmp_path / "run")})
    train_accelerate.train(recipe)
    folder = tmp_path / "run" / "model"
    model, processor = (
        part.from_pretrained(folder) for part in (MMNERForTokenClassification, MMNERProcessor)
    )
    pipe = MultimodalNERPipeline(model=model, processor=processor)
    wanted = [set(spans) for _, spans in TEXTS]
    found = [{(one["start"], one["end"], one["entity_group"]) for one in pipe(text)} for text, _ in TEXTS]
    right = sum(len(right & mine) for right, mine in zip(wanted, found, strict=True))
    assert right > 0.8 * sum(map(len, wanted))
    assert all(text[one["start"] : one["end"]] == one["word"] for text, _ in TEXTS for one in pipe(text))


# Spans that are no words


WITHIN = "is empty or not within the text"


@pytest.mark.parametrize(
    ("spans", "kept", "reasons"),
    [
        ([(0, 6, "PER")], "B-PER O O O O", []),
        ([(0, 4, "PER"), (2, 6, "PER")], "O O O O O", ["does not begin and end where words do"] * 2),
        ([(0, 5, "PER")], "O O O O O", ["ends one character before a word does"]),
        ([(1, 7, "PER"), (11, 21, "LOC")], "O O O O O", ["is one character behind whole words"] * 2),
        ([(1, 6, "PER")], "O O O O O", ["begins one character behind a word's first"]),
        ([(0, 7, "PER"), (9, 20, "LOC", " San Marino")], "B-PER O B-LOC I-LOC O", []),
        ([(6, 7, "PER"), (9, 20, "LOC", "San Marino")], "O O B-LOC I-LOC O", [WITHIN]),
        ([(10, 20, "LOC"), (14, 20, "ORG")], "O O B-LOC I-LOC O", ["overlaps another span"]),
        ([(3, 3, "PER"), (-6, 6, "PER"), (10, 99, "LOC")], "O O O O O", [WITHIN] * 3),
        ([(0, 6, "PER", "Jordon")], "O O O O O", ["has another text than the tool says"]),
    ],
)
def test_what_is_no_word_is_left_out_and_told(spans, kept, reasons):
    """If it failed, a span would be moved to the next word without a word, or lost."""
    record = {"text": "Jordan in San Marino.", "spans": [CharacterSpan(*span)._asdict() for span in spans]}
    words, tags, left_out = read_annotation(record, "file:3", Findings())[:3]
    assert words == ["Jordan", "in", "San", "Marino", "."] and tags == kept.split()
    assert [one.reason for one in left_out] == reasons and all(one.place == "file:3" for one in left_out)


@given(text=st.text(max_size=40), data=st.data())
@property_test
def test_every_span_is_a_tag_or_left_out(text, data):
    """If it failed, some text would make a span vanish."""
    place = st.integers(-2, len(text) + 2)
    spans = [(*data.draw(st.tuples(place, place)), "X") for _ in range(data.draw(st.integers(0, 4)))]
    _, tags, left_out = read_annotation({"text": text, "spans": spans}, "x", Findings())[:3]
    assert tags.count("B-X") + len(left_out) == len(spans)


_KEYS = [
    *("text", "tokens", "ner_tags", "spans", "label", "entities", "data"),
    *("annotations", "result", "type", "value", "start", "end"),
]
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_ANYTHING = st.recursive(
    _SCALARS | st.sampled_from(["labels", "B-X", "O"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=5),
    max_leaves=20,
)


@given(record=_ANYTHING)
@property_test
def test_any_record_is_a_post_or_an_error_in_words(record):
    """If it failed, a malformed row of a stranger's file would end in a traceback."""
    try:
        read_annotation(record, "file:1", Findings())
    except CorpusError as error:
        assert str(error).startswith("file:1: expected")


# Words with tags, columns, pictures


def tagged(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"words": ["Jordan", str(number)], "labels": ["B-PER", "O"]} | more for number in range(count)]


def test_columns_have_other_names(tmp_path):
    """If it failed, a file would have to be written anew because its columns are called otherwise."""
    path = json_lines(tmp_path / "posts.jsonl", tagged(20, photo=None, lang="de", about="a text"))
    columns = {"tokens": "words", "ner_tags": "labels", "image": "photo", "language": "lang"}
    corpus = open_corpus(str(path), columns=columns)
    row = corpus.splits["train"][0]
    found = [row["tokens"][0], row["language"], row["about"], row["image"]]
    assert found == ["Jordan", "de", "a text", None] and corpus.labels == ["O", "B-PER", "I-PER"]
    message = r"posts.jsonl: --columns: expected \['foto'\] among the columns, found them in no post"
    with pytest.raises(CorpusError, match=message):
        open_corpus(str(path), columns=columns | {"image": "foto"})


def test_posts_say_their_split(tmp_path):
    """If it failed, a column with the split would be passed over, and posts be drawn into other ones."""
    names = ["train", "train", "valid", "test"]
    posts = [{"tokens": [name], "ner_tags": ["B-X"], "split": name} for name in names]
    path = str(json_lines(tmp_path / "a.jsonl", posts))
    corpus = open_corpus(path)
    assert re.fullmatch("copy-[0-9a-f]{12}", corpus.version_name)
    with pytest.raises(CorpusError, match=r"a\.jsonl, which has its own splits': expected no --split_ratio"):
        open_corpus(path, split_ratio="50,25,25")
    found = {split: [row["tokens"][0] for row in rows] for split, rows in corpus.splits.items()}
    assert found == {"train": ["train", "train"], "validation": ["valid"], "test": ["test"]}


def test_pictures_are_found_and_none_outside(tmp_path):
    """If it failed, pictures would be lost, a file from a stranger could name any file of the computer, or a
    corpus have another version for where it lies.
    """
    inside, elsewhere, secret = tmp_path / "data", tmp_path / "pictures", tmp_path / "secret.png"
    for path in (inside / "img" / "a.png", elsewhere / "b.png", secret):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), len(path.name)).save(path)
    given = ["img/a.png", "/data/upload/7/b.png", "../secret.png", str(secret), "https://x.org/b.png", None]
    posts = [{"tokens": [f"w{n % 6}x{n}"], "ner_tags": ["B-X"], "image": given[n % 6]} for n in range(60)]
    corpus = open_corpus(str(json_lines(inside / "posts.jsonl", posts)), image_dir=str(elsewhere))
    rows = [row for rows in corpus.splits.values() for row in rows]
    found = {(int(row["tokens"][0][1]), row["image"] and Path(row["image"]["path"]).name) for row in rows}
    assert found == set(enumerate(["a.png", "b.png", None, None, "b.png", None]))
    assert sum(one.number for one in corpus.findings.sorted() if one.lost) == 20
    inside.rename(tmp_path / "moved")
    again = open_corpus(str(tmp_path / "moved" / "posts.jsonl"), image_dir=str(elsewhere))
    assert (again.version_name, again.version) == (corpus.version_name, corpus.version)


def test_data_set_with_tags_by_name(tmp_path):
    """If it failed, a data set of the Hub whose tags are strings would be refused."""
    rows = datasets.Dataset.from_list(
        [{"words": ["Jordan", str(n)], "tags": ["B-PER", "O"]} for n in range(8)]
    )
    for split in ("train", "validation", "test"):
        rows.to_parquet(tmp_path / f"{split}.parquet")
    corpus = open_corpus(str(tmp_path), columns={"tokens": "words", "ner_tags": "tags"})
    assert corpus.labels == ["O", "B-PER", "I-PER"] and len(corpus.splits["test"]) == 8


def test_options_that_a_corpus_does_not_read_are_refused(tmp_path):
    """If it failed, somebody's --split_ratio or --tag_scheme would be passed over without a word."""
    path = plain(tmp_path)
    with pytest.raises(CorpusError, match="expected no --split_slices, which say how raw files are read"):
        open_corpus(str(path), split_slices={"train": "train[:3]"})
    with pytest.raises(CorpusError, match="expected no --split_ratio, which say how other files are read"):
        open_corpus("twitter2017", data_dir=tmp_path, split_ratio="60,20,20")
    built = tmp_path / "built"
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-X"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags})
    built.mkdir()
    datasets.Dataset.from_list([{"tokens": ["a"], "ner_tags": [1]}], features=features).to_parquet(
        built / "train-00000-of-00001.parquet"
    )
    with pytest.raises(CorpusError, match="expected no --tag_scheme, which say how raw files are read"):
        open_corpus(str(built), tag_scheme="bioes")


TAGS_AND_SPANS = [
    ([{"words": ["a"]}], "posts.jsonl:1: expected 'tokens' and 'ner_tags', or 'text' and 'spans'"),
    ([{"tokens": ["a"], "ner_tags": ["O", "O"]}], "a tag for each of 1 words in 'ner_tags', found 2"),
    (
        [{"tokens": ["a"], "ner_tags": [3]}],
        "tags by their names, found 3; --tag_names O,B-PER,I-PER,... says",
    ),
    (
        [{"tokens": ["a", "b"], "ner_tags": ["B-X", "X"]}],
        "found 'X'; if the other tags are wrong, and this is right, say --tag_scheme bare",
    ),
    (
        [{"text": "a", "spans": [{"start": 0, "label": "X"}]}],
        "expected spans with 'start', 'end' and one 'label'",
    ),
    (
        [{"tokens": ["a"], "ner_tags": ["B-X"], "split": "other"}],
        "post 'posts-1', column split: expected one of train, validation, test, found 'other'",
    ),
    (["text"], "posts.jsonl:1: expected an object with"),
    (
        [{"tokens": ["a"], "ner_tags": ["O"]}] * 20,
        "--split_ratio: expected posts for each split, found none for",
    ),
    ([{"tokens": [str(n)], "ner_tags": ["O"]} for n in range(20)], "with entities, found none in 20 posts"),
    ([], "posts.jsonl: expected annotated posts, found none"),
]


@pytest.mark.parametrize(("records", "message"), TAGS_AND_SPANS)
def test_errors_name_file_and_row(tmp_path, records, message):
    """If it failed, somebody would look for a mistake in a file of thousands of rows."""
    path = json_lines(tmp_path / "posts.jsonl", records)
    with pytest.raises(CorpusError) as caught:
        open_corpus(str(path))
    assert message in str(caught.value)


def test_task_with_several_texts_says_so(tmp_path):
    """If it failed, the name of a picture could be taken for the text of its post."""
    result = [{"type": "labels", "value": {"start": 0, "end": 6, "labels": ["PER"]}}]
    tasks = [
        {"data": {"image": "a.jpg", "tweet": f"Jordan {n}"}, "annotations": [{"result": result}]}
        for n in range(10)
    ]
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    message = r"expected one text in 'data', found .*'image', 'tweet'.*--columns text=KEY"
    with pytest.raises(CorpusError, match=message):
        open_corpus(str(path))
    assert open_corpus(str(path), columns={"text": "tweet"}).splits["train"][0]["tokens"][0] == "Jordan"


def test_json_min_leaves_out_what_nobody_marked(tmp_path):
    """If it failed, one post without an entity would make a whole export of Label Studio unreadable."""
    records = [{"text": f"Jordan {n}", "id": n, "annotation_id": n} for n in range(10)]
    for record in records[1:]:
        record["label"] = [{"start": 0, "end": 6, "text": "Jordan", "labels": ["PER"]}]
    corpus = open_corpus(str(json_lines(tmp_path / "min.jsonl", records)))
    assert sum(any(row["ner_tags"]) for rows in corpus.splits.values() for row in rows) == 9


LIMA = {"start": 0, "end": 4, "text": "Lima", "labels": ["LOC"]}
JORDAN = {"start": 5, "end": 11, "text": "Jordan", "labels": ["PER"]}
BOTH = ["B-LOC", "B-PER"]
HYPER = {"start": "/text()[1]", "end": "/text()[1]", "startOffset": 5, "endOffset": 11, "text": "Jordan"}
HYPER |= {"globalOffsets": {"start": 5, "end": 11}, "hypertextlabels": ["PER"]}


def a_task(*results: dict[str, Any], more: int = 0) -> dict[str, Any]:
    """A task of Label Studio; `more`: so many further annotations."""
    return {
        "data": {"text": "Lima Jordan"},
        "annotations": [{"result": list(results)}, *[{"result": []}] * more],
    }


def a_result(value: dict[str, Any], kind: str = "labels") -> dict[str, Any]:
    return {"type": kind, "value": value}


@pytest.mark.parametrize(
    ("record", "tags", "unread"),
    [
        ({"label": [LIMA], "persons": [JORDAN], "annotation_id": 1}, BOTH, []),
        ({"persons": [JORDAN], "annotation_id": 1}, ["O", "B-PER"], []),
        ({"label": [LIMA], "hyper": [HYPER], "annotation_id": 1}, BOTH, []),
        ({"spans": [], "entities": [LIMA, JORDAN]}, BOTH, []),
        (
            {"spans": [LIMA], "entities": [LIMA, JORDAN]},
            ["B-LOC", "O"],
            [("spans under 'entities', not read", 2)],
        ),
        ({"label": "news", "entities": [[0, 4, "LOC"]]}, ["B-LOC", "O"], []),
        (
            {"spans": [LIMA], "places": [[0, 4, "LOC"]]},
            ["B-LOC", "O"],
            [("spans under 'places', not read", 1)],
        ),
        ({"ents": [LIMA], "spans": {"a": [LIMA]}}, ["B-LOC", "O"], [("spans under 'spans', not read", 1)]),
        (
            {"tokens": ["a"], "ner_tags": ["O"], "spans": [LIMA]},
            ["O"],
            [("spans under 'spans', not read", 1)],
        ),
        ({"spans": None}, ["O", "O"], []),
        ({"label": None, "entities": [LIMA]}, ["B-LOC", "O"], []),
        ({"_input_hash": 1}, ["O", "O"], []),
        (a_task(a_result(LIMA), a_result(HYPER, "hypertextlabels")), BOTH, []),
        (
            a_task(a_result(LIMA), a_result({}, "choices")),
            ["B-LOC", "O"],
            [("results of type 'choices', not read", 1)],
        ),
        (
            a_task(a_result(LIMA), a_result({"start": 5, "end": 11, "labels": ["PER", "ORG"]})),
            ["B-LOC", "O"],
            [("spans without one label, left out", 1)],
        ),
        (a_task(a_result(LIMA), more=2), ["B-LOC", "O"], [("further annotations of a task, not read", 2)]),
    ],
)
def test_no_entity_is_dropped_without_a_word(record, tags, unread):
    """Regression: entities of a second control, of Label Studio's HyperText, or under a key after an empty
    one were lost, and nothing said so.
    """
    findings = Findings()
    found = read_annotation({"text": "Lima Jordan"} | record, "a:1", findings)
    assert found.tags == tags and not found.left_out
    assert list(findings.numbers().items()) == unread


def test_empty_spans_are_no_entities(tmp_path):
    """If it failed, a file would be refused for a post in which nobody has marked anything."""
    records = [{"text": f"Lima {n}", "spans": ([LIMA], "", None)[n % 3]} for n in range(9)]
    found = open_corpus(str(json_lines(tmp_path / "posts.jsonl", records))).splits
    assert sum(map(len, found.values())) == 9


def test_remedy_of_words_with_spans_is_right():
    """Regression: an option was named that changes nothing where words with tags go before spans."""
    findings = Findings()
    read_annotation({"tokens": ["a"], "ner_tags": ["O"], "text": "a", "spans": [LIMA]}, "a:1", findings)
    assert findings.sorted()[0].remedy == "take out 'ner_tags', which are read in their place"


def test_what_is_not_read_is_counted(tmp_path):
    """If it failed, a corpus could lose its entities, and its report would not show it."""
    records = [{"text": f"Lima Jordan {n}", "places": [LIMA, JORDAN], "entities": []} for n in range(10)]
    path = json_lines(tmp_path / "posts.jsonl", records)
    with pytest.raises(
        CorpusError, match="found none in 10 posts\nspans under 'places', not read: 20; --columns "
    ):
        open_corpus(str(path))
    corpus = open_corpus(str(path), columns={"entities": "places"})
    assert not corpus.findings.sorted() and corpus.labels[1:] == ["B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_seed_0_and_share_0_are_taken(tmp_path):
    """If it failed, a seed of 0 would be another one, or a share of 0 a crash."""
    path = str(
        json_lines(tmp_path / "posts.jsonl", [{"tokens": [str(n)], "ner_tags": ["B-X"]} for n in range(40)])
    )
    found = [open_corpus(path, split_seed=seed).splits["test"]["tokens"][:] for seed in (0, 1)]
    assert found[0] != found[1] and "seed 0" in open_corpus(path, split_seed=0).version_name
    assert set(open_corpus(path, split_ratio="90,10,0").splits) == {"train", "validation"}


def test_columns_of_texts_and_lists_are_kept(tmp_path):
    """If it failed, contexts that are a text here and a list there would vanish without a word."""
    about = ["x", ["y", "z"], [], "half \ud83d"]
    records = [{"tokens": [f"\ud83d{n}"], "ner_tags": ["B-X"], "context": about[n % 4]} for n in range(20)]
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    rows = [row for split in open_corpus(str(path)).splits.values() for row in split]
    assert {tuple(row["context"]) for row in rows} == {("x",), ("y", "z"), (), ("half \ufffd",)}
    assert all(row["tokens"][0].startswith("\ufffd") for row in rows)


def test_folder_with_parquet_is_read_as_files(tmp_path):
    """If it failed, pictures beside somebody's Parquet file would not be found, or JSON lines be passed over
    for a stray file.
    """
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    posts = [{"tokens": [str(n)], "ner_tags": ["B-X"], "image": "a.png"} for n in range(10)]
    datasets.Dataset.from_list(posts).to_parquet(tmp_path / "posts.parquet")
    rows = open_corpus(str(tmp_path), split_ratio="100,0,0").splits["train"]
    assert len(rows) == 10 and all(Path(row["image"]["path"]).name == "a.png" for row in rows)
    (tmp_path / "cache").mkdir()
    (tmp_path / "posts.parquet").rename(tmp_path / "cache" / "x.parquet")
    json_lines(tmp_path / "posts.jsonl", [post | {"tokens": ["lines"]} for post in posts])
    rows = open_corpus(str(tmp_path), split_ratio="100,0,0").splits["train"]
    assert {tokens for row in rows for tokens in row["tokens"]} == {"lines"}


@pytest.mark.parametrize("name", ["posts.jsonl", "posts.json", "posts.csv", "posts.parquet", "posts.zip"])
def test_broken_files_are_errors_in_words(tmp_path, name):
    """If it failed, a broken file would end in a traceback, or an archive not be asked to be unpacked."""
    (tmp_path / name).write_bytes(b"\xff\xfe{broken")
    with pytest.raises(CorpusError, match="unpack an archive first" if name == "posts.zip" else name):
        open_corpus(str(tmp_path / name))


def test_unknown_record_is_bounded():
    """If it failed, an error would print a whole book."""
    with pytest.raises(CorpusError) as caught:
        record = {"x" * 10**6: 1} | {str(number): "y" * 1000 for number in range(1000)}
        read_annotation(record, "place", Findings())
    assert len(str(caught.value)) < 1000


# The READMEs' files


def readme_files() -> dict[str, str]:
    """The files that the READMEs show, by their names."""
    root = Path(__file__).parents[2]
    pages = [(root / name).read_text(encoding="utf-8") for name in ("README.md", "dataset_scripts/README.md")]
    shown = re.compile(r"`([a-z_]+\.\w+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return dict(shown.findall("\n".join(pages)))


FORMS = ("words.jsonl", "spans.jsonl", "table.csv", "doccano.jsonl", "prodigy.jsonl", "spacy.json")


@pytest.mark.parametrize("name", [*FORMS, "label_studio.json"])
def test_file_of_the_readmes_is_a_corpus(tmp_path, name):
    """If it failed, a README would show a form that the package does not read, or would have lost it."""
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.{name.partition('.')[2]}").write_text(readme_files()[name], encoding="utf-8")
    columns = {"tokens": "words", "ner_tags": "labels"} if name == "table.csv" else {}
    corpus = open_corpus(str(tmp_path), columns=columns)
    for rows in corpus.splits.values():
        assert rows["tokens"][:] == [["Jordan", "scored"], ["Greetings", "from", "Lima"]]
        tags = [[corpus.labels[tag] for tag in row] for row in rows["ner_tags"]]
        assert tags == [["B-PER", "O"], ["O", "O", "B-LOC"]]
    assert len(corpus.splits) == 3 and corpus.left_out == []
