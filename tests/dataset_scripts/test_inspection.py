"""Tests of the inspection of a corpus: its figures against naive counting, what the tables show of
them.
"""

import io
import json
import os
import random
import statistics as naive
from collections import Counter
from functools import partial

import datasets
import pyarrow as pa
import pytest
from rich.console import Console
from seqeval.metrics.sequence_labeling import get_entities

from dataset_scripts.inspection import describe_longest, inspect_corpus, picture_numbers, tables
from dataset_scripts.opening import Corpus
from modeling_mmner.model.images_mmner import pictures_of
from modeling_mmner.model.labels_mmner import bio_labels
from tests.small_corpora import row_features, tagged_row

TYPES = ["PER", "LOC", "product-software"]
LABELS = bio_labels(TYPES)
PICTURE = {"bytes": b"never opened", "path": "x.jpg"}
ONE, SEVERAL = row_features(LABELS), row_features(LABELS, "images")
post = partial(tagged_row, labels=LABELS)


def corpus_of(**splits: list[dict]) -> Corpus:
    columns = {
        split: {name: [row.get(name) for row in posts] for name in ONE} for split, posts in splits.items()
    }
    opened = {split: datasets.Dataset.from_dict(columns[split], features=ONE) for split in splits}
    return Corpus("small", opened, LABELS, "official", dict.fromkeys(splits, "0" * 12))


def random_posts(count: int, seed: int) -> list[dict]:
    """Posts of any tags, orphans among them, from few words so that splits share entities."""
    source = random.Random(seed)
    words, posts = ["Paris", "paris", "Straße", "STRASSE", "Jordan", "à"], []
    for number in range(count):
        length = source.choice([0, 1, 4, 5, 6, 10, 17, 41, 101, 501])
        tags = [source.choice([0, 0, *range(len(LABELS))]) for _ in range(length)]
        row = {"id": str(number), "tokens": source.choices(words, k=length), "ner_tags": tags}
        row |= {"language": source.choice(["en", "fr", None]), "source": source.choice(["tweet", "caption"])}
        posts.append(row | {"image": source.choice([PICTURE, None])})
    return posts


def printed(found: dict, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    for table in tables(found):
        console.print(table)
    return console.export_text()


def test_counts_are_those_of_naive_counting():
    """If it failed, posts, tags, orphans, lengths, pictures, languages or sources would be miscounted."""
    posts = {"train": random_posts(700, 1), "test": random_posts(90, 2)}
    splits = inspect_corpus(corpus_of(**posts))["splits"]
    assert list(splits) == ["train", "test"]
    for split, rows in posts.items():
        found = splits[split]
        tags = [[LABELS[tag] for tag in row["ner_tags"]] for row in rows]
        pairs = [pair for own in tags for pair in zip(["O", *own], own, strict=False)]
        assert (found["posts"], found["tokens"]) == (len(rows), len(pairs))
        assert found["entities"] == {name: sum(tag == f"B-{name}" for _, tag in pairs) for name in TYPES}
        orphans = [tag[0] == "I" and before not in (f"B{tag[1:]}", tag) for before, tag in pairs]
        assert found["orphans"] == sum(orphans)
        assert found["posts_without_entity"] == sum(set(own) <= {"O"} for own in tags)
        missing = sum(row["image"] is None for row in rows)
        by_number = {"0": missing, "1": len(rows) - missing}
        share = missing / len(rows)
        pictures = {"posts_by_number": by_number, "missing": missing, "missing_share": share}
        assert found["pictures"] == pictures | {"broken": len(rows) - missing}  # bytes that are no picture
        languages = Counter(row["language"] or "unknown" for row in rows)
        assert list(found["languages"].items()) == languages.most_common()
        assert found["sources"] == Counter(row["source"] for row in rows)


def test_lengths_are_those_of_the_standard_library():
    """If it failed, the lengths of posts would be told wrong."""
    posts = random_posts(300, 3)
    lengths = [len(row["tokens"]) for row in posts]
    found = inspect_corpus(corpus_of(train=posts))["splits"]["train"]["tokens_per_post"]
    assert found == {
        "min": min(lengths),
        "median": naive.median(lengths),
        "mean": pytest.approx(naive.mean(lengths)),
        "percentile_95": pytest.approx(naive.quantiles(lengths, n=20, method="inclusive")[-1]),
        "max": max(lengths),
    }


def test_seen_entities_are_those_of_naive_comparison():
    """If it failed, the share of entities that a model could have learnt by heart would be wrong."""
    posts = {"train": random_posts(40, 4), "validation": random_posts(60, 5), "test": random_posts(60, 6)}
    entities = {
        split: [
            (" ".join(row["tokens"][start : end + 1]).casefold(), name)
            for row in rows
            for name, start, end in get_entities([LABELS[tag] for tag in row["ner_tags"]])
        ]
        for split, rows in posts.items()
    }
    found = inspect_corpus(corpus_of(**posts))["splits"]
    assert "seen_share" not in found["train"]
    for split in ("validation", "test"):
        seen = sum(entity in entities["train"] for entity in entities[split])
        assert found[split]["seen_share"] == seen / len(entities[split])
        assert 0 < found[split]["seen_share"] < 1


def test_seen_ignores_case_and_reads_orphans_as_entities():
    """If it failed, ``PARIS`` would be new after ``Paris``, or an orphan I- no entity though scoring takes it
    for one.
    """
    train = [post("Paris/B-LOC Hilton/B-PER"), post("Jordan/B-PER"), post("Jordan/B-LOC")]
    test = [post("PARIS/I-LOC said/O hilton/B-LOC"), post("jordan/B-LOC"), post("Paris/B-PER Hilton/I-PER")]
    found = inspect_corpus(corpus_of(train=train, test=test))
    assert found["splits"]["test"]["seen_share"] == 2 / 4
    assert "50.0%" in printed(found)


@pytest.mark.parametrize("way", ["whole", "selected", "sliced", "joined", "from Parquet"])
def test_pictures_are_counted_as_they_would_be_found(way, tmp_path):
    """If it failed, nulls, empty lists, a single picture beside a list, or a part of a table would make the
    numbers of pictures belong to other posts.
    """
    source = random.Random(7)
    kinds = [None, [], [None], [PICTURE], [PICTURE, None, PICTURE], [PICTURE] * 3]
    single = {"image": PICTURE} if way == "whole" else {}
    posts = [post("a", images=source.choice(kinds), **single) for _ in range(600)]
    features = datasets.Features(SEVERAL | {name: datasets.Image(decode=False) for name in single})
    rows = datasets.Dataset.from_list(posts, features=features)
    if way == "selected":
        rows = rows.shuffle(seed=1).select(range(50, 400))
    elif way == "sliced":
        rows = rows.select(range(37, 501))
    elif way == "joined":
        rows = datasets.concatenate_datasets([rows.select(range(3, 40)), rows.select(range(11, 12)), rows])
    elif way == "from Parquet":
        rows.to_parquet(path := str(tmp_path / "rows.parquet"))
        rows = datasets.Dataset.from_parquet(path, cache_dir=str(tmp_path), features=SEVERAL)
    assert picture_numbers(rows).tolist() == [len(pictures_of(row)) for row in rows]


@pytest.mark.parametrize("features", [ONE, SEVERAL], ids=["image", "images"])
def test_pictures_are_counted_without_being_read(features, tmp_path):
    """If it failed, inspecting a corpus of gigabytes would load all its pictures."""

    def posts():
        for _ in range(64):
            picture = {"bytes": os.urandom(500_000), "path": None}
            columns = {"image": picture} if "image" in features else {"images": [picture, None]}
            yield post("Paris/B-LOC", **columns)

    rows = datasets.Dataset.from_generator(posts, features=features, cache_dir=str(tmp_path))
    usual = pa.default_memory_pool()
    watched = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(watched)
    try:
        found = inspect_corpus(Corpus("large", {"train": rows}, LABELS, "official", {}))
    finally:
        pa.set_memory_pool(usual)
    assert found["splits"]["train"]["pictures"]["posts_by_number"] == {"1": 64}
    assert watched.max_memory() < 1_000_000


def test_statistics_are_json_also_of_empty_splits():
    """If it failed, the statistics could not be saved, or a split without posts would divide by zero."""
    found = inspect_corpus(corpus_of(train=[post("Paris/B-LOC")], test=[]))
    assert json.loads(json.dumps(found)) == found
    empty = found["splits"]["test"]
    assert empty["pictures"] == {"posts_by_number": {}, "missing": 0, "missing_share": None, "broken": 0}
    assert {*empty["tokens_per_post"].values()} == {None}
    assert empty["seen_share"] is None and "nan" not in printed(found) + printed(inspect_corpus(corpus_of()))


def test_without_train_nothing_is_compared():
    """If it failed, a corpus of a test split alone could not be inspected, or its entities would count as
    unseen.
    """
    found = inspect_corpus(corpus_of(test=[post("Paris/B-LOC")]))
    assert "seen_share" not in found["splits"]["test"]


def test_longest_post_and_its_cost_are_told():
    """If it failed, the first step of a training would be the first to tell of a post of 555 words."""
    few, many = [post("Paris/B-LOC")], [tagged_row(" ".join(["word"] * 555), labels=LABELS)]
    told = describe_longest(inspect_corpus(corpus_of(train=few, validation=many, test=[])))
    assert told.startswith("555 words; a training step of 16 such posts takes about 2.0 GB")
    assert "besides the weights (a plain estimate: BERT-base" in told
    assert describe_longest(inspect_corpus(corpus_of())).startswith("0 words")


def test_tables_fit_a_terminal_and_hold_the_figures():
    """If it failed, a heading, a type or a number would be cut off or missing at 120 columns."""
    posts = random_posts(1200, 8)
    for number, row in enumerate(posts):
        row["language"] = f"language-{number % 20:02}"
    found = inspect_corpus(corpus_of(train=posts, validation=posts[:100], test=random_posts(80, 9)))
    lines = (output := printed(found)).splitlines()
    assert max(map(len, lines)) <= 120 and not any("…" in line for line in lines)
    assert lines[0].strip() == "small, version official"
    [train] = [line.split("│") for line in lines if line.startswith("│ train ") and line.count("│") == 9]
    split = found["splits"]["train"]
    numbers = (1200, split["tokens"], sum(split["entities"].values()), split["orphans"])
    assert [cell.strip() for cell in train[2:6]] == [f"{number:,}" for number in numbers]
    assert train[7].strip() == f"{100 * split['pictures']['missing_share']:.1f}%"
    assert sum("product-software " in line for line in lines) == 1
    assert "┃ language, 12 of 23 ┃" in output  # those of test among them
    assert sum("│ language-" in line for line in lines) == 12


def test_names_are_not_markup():
    """If it failed, a type with a bracket would end the command in an error of rich, or be lost."""
    name = "[/red] [bold]x[/bold]"
    found = inspect_corpus(corpus_of(train=[post("Word/B-product-software", language=name)]))
    hostile = json.loads(json.dumps(found).replace('"product-software"', json.dumps(name))) | {"name": name}
    output = printed(hostile)
    assert output.startswith(f"{name}, version official") and output.count(name) == 3
