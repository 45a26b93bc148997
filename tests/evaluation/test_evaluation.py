"""Tests of predicting and scoring splits: the order of posts, whose picture is shown, and raw text."""

from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modeling_mmner.evaluation.scores import (
    Predictor,
    ShownRows,
    evaluate_rows,
    gold_tags,
    raw_text_score,
    score_test_split,
)
from modeling_mmner.model.labels_mmner import bio_labels
from modeling_mmner.model.processing_mmner import MMNERProcessor
from modeling_mmner.training.collator import MMNERCollator
from tests.shared_data import bpe_tokenizer, property_test
from tests.tiny import tiny_model

LABELS = bio_labels(["PER", "LOC"])
TAGS = {"Paris": "B-LOC", "Texas": "I-LOC", "Jordan": "B-PER"}


@cache
def processor() -> MMNERProcessor:
    """One whose tokenizer knows each name as a whole."""
    tokenizer = bpe_tokenizer()
    tokenizer.add_tokens(list(TAGS))
    return MMNERProcessor(tokenizer, labels=LABELS, image_size=64)


class LookupModel(torch.nn.Module):
    """Stands in for a model: knows each name's tag by its sub-token, and notes what it was shown.

    Args:
        needs_pictures: True finds nothing in posts without a picture.
    """

    def __init__(self, *, needs_pictures: bool = False) -> None:
        super().__init__()
        self.vision_towers: list[Any] = [None]
        self.needs_pictures = needs_pictures
        ids = processor().tokenizer.convert_tokens_to_ids(list(TAGS))
        self.tags = {piece: LABELS.index(tag) for piece, tag in zip(ids, TAGS.values(), strict=True)}
        self.lengths: list[int] = []
        self.shades: list[int | None] = []
        self.device = torch.device("cpu")

    def forward(self, input_ids, attention_mask, word_starts, word_mask, pixel_values, image_mask):
        assert not self.training
        self.lengths += attention_mask.sum((1, 2)).tolist()
        pictured = image_mask.any(1)
        shades = zip(pixel_values.flatten(1)[:, :1].tolist(), pictured.tolist(), strict=True)
        self.shades += [shade[0] if has else None for shade, has in shades]
        firsts = input_ids.flatten(1).gather(1, word_starts).tolist()
        tags = torch.tensor([[self.tags.get(piece, 0) for piece in row] for row in firsts])
        if self.needs_pictures:
            tags = tags * pictured[:, None]
        return {"tags": tags.masked_fill(~word_mask, -100), "span_scores": torch.zeros(word_mask.shape)}


def predictor_of(model: torch.nn.Module, batch_size: int = 3) -> Predictor:
    return Predictor(model, processor(), Accelerator(cpu=True), batch_size=batch_size)


def lookup(posts: list[list[str]]) -> list[list[str]]:
    return [[TAGS.get(word, "O") for word in post] for post in posts]


def rows_of(
    posts: list[list[str]], images: list | None = None, tags: list[list[str]] | None = None
) -> Dataset:
    """Rows of words, with the tags that the lookup gives them unless others are said to be gold."""
    ids = [[LABELS.index(tag) for tag in post] for post in tags or lookup(posts)]
    rows = {"tokens": posts, "ner_tags": ids, "image": images or [None] * len(posts)}
    return Dataset.from_dict(rows | {"language": ["en"] * len(posts), "source": ["plain"] * len(posts)})


@pytest.fixture
def grey(tmp_path):
    """A function that gives a row's picture of one grey."""

    def make(shade):
        path = tmp_path / f"{shade}.png"
        Image.new("L", (8, 8), shade).save(path)
        return {"bytes": None, "path": str(path)}

    return make


# Whose picture is shown


@property_test
@given(st.lists(st.booleans(), max_size=12), st.integers(0, 5))
def test_shuffled_pictures_are_all_there_and_none_at_home(pictured, seed):
    """If it failed, shuffling would drop or double pictures, leave some in place, or differ each time."""
    images = [f"{index}" if has else None for index, has in enumerate(pictured)]
    rows = Dataset.from_dict({"id": list(range(len(images))), "image": images})
    views = [ShownRows(rows, "shuffled", seed) for _ in range(2)]
    shown, again = ([view[index]["image"] for index in range(len(view))] for view in views)
    assert shown == again and Counter(shown) == Counter(images)
    assert [image is None for image in shown] == [image is None for image in images]
    if sum(pictured) > 1:
        assert all(image != own for image, own in zip(shown, images, strict=True) if own is not None)


# The order of posts


@property_test
@given(
    st.lists(st.lists(st.sampled_from([*TAGS, "nice", "!"]), max_size=9), min_size=1, max_size=10),
    st.integers(1, 4),
)
def test_tags_come_back_in_the_order_of_the_posts(posts, batch_size):
    """If it failed, sorting by length would give posts each other's tags, or an empty post another's."""
    model = LookupModel()
    assert predictor_of(model, batch_size).tags(rows_of(posts)) == lookup(posts)
    assert model.lengths == sorted(model.lengths) and len(model.lengths) == len(posts)


def test_a_split_is_predicted_as_its_posts_one_by_one(grey):
    """If it failed, a post's tags would depend on the posts that it is batched with."""
    model = tiny_model(text={"vocab_size": len(processor().tokenizer)})
    posts = [["Paris", "!"] * length + ["Jordan"] for length in (6, 0, 3, 9, 1, 0, 4)]
    rows = rows_of(posts, [grey(10), None, grey(90), None, grey(200), grey(30), None])
    together = predictor_of(model).tags(rows)
    with torch.inference_mode():
        alone = [model(**without_labels(MMNERCollator(processor())([row]))).tags[0].tolist() for row in rows]
    assert together == [[LABELS[tag] for tag in post] for post in alone]
    assert len({tag for post in together for tag in post}) > 1


@pytest.mark.parametrize("num_workers", [0, 1])
def test_predicting_draws_no_random_number(num_workers):
    """If it failed, training would take another path when it is evaluated, or by other processes' help."""
    before = torch.get_rng_state()
    predictor = Predictor(LookupModel(), processor(), Accelerator(cpu=True), num_workers=num_workers)
    predictor.tags(rows_of([["Paris"], ["a"]]))
    assert torch.equal(torch.get_rng_state(), before)


def without_labels(batch):
    return {name: values for name, values in batch.items() if name != "labels"}


def test_predictor_shows_the_pictures_of_the_view(grey):
    """If it failed, the scores without or with shuffled pictures would be those with the posts' own."""
    rows = rows_of([["a"], ["b", "b"], ["c"] * 3], [grey(10), None, grey(90)])
    shown = {}
    for mode in ("true", "shuffled", "none"):
        model = LookupModel()
        predictor_of(model).tags(ShownRows(rows, mode))
        shown[mode] = model.shades
    assert shown == {"true": [10, None, 90], "shuffled": [90, None, 10], "none": [None] * 3}


# Scores


def test_scores_tell_what_the_pictures_were_worth(grey):
    """If it failed, the report would say that a model reads its pictures when it does not, or the reverse."""
    rows = rows_of([["Paris"], ["Jordan"], ["a"]], [grey(10), grey(20), None])
    model = LookupModel(needs_pictures=True)
    own = gold_tags(rows, LABELS)
    found = score_test_split(predictor_of(model), rows, own, seed=1)
    f1s = {mode: scores["overall"]["f1"] for mode, scores in found["picture"].items()}
    assert f1s == {"true": 1.0, "shuffled": 1.0, "none": 0.0}
    assert found["p_values"]["picture"]["shuffled"] == 1.0
    assert found["p_values"]["picture"].keys() == {"shuffled", "none"} and found["context"] == {}
    assert found.items() >= evaluate_rows(own, rows, LABELS).items()
    assert found["raw_text"] == raw_text_score(predictor_of(model), rows)


@pytest.mark.parametrize(
    ("pictures", "has_tower", "modes"),
    [(0, True, "none"), (1, True, "true none"), (2, True, "true shuffled none"), (2, False, "none")],
)
def test_picture_scores_are_those_that_rows_and_model_allow(grey, pictures, has_tower, modes):
    """If it failed, a corpus or a model without pictures would be reported as if it had some."""
    rows = rows_of([["a"]] * 3, [grey(10 * index) if index < pictures else None for index in range(3)])
    model = LookupModel()
    model.vision_towers = [None] * has_tower
    found = score_test_split(predictor_of(model), rows, gold_tags(rows, LABELS), seed=1)
    modes = modes.split()
    assert list(found["picture"]) == modes
    assert list(found["p_values"]["picture"]) == modes[1:] and found["p_values"]["context"] == {}
    assert len(model.lengths) == 3 * len(modes)  # raw text, and what is not the posts' own


# Raw text


def test_raw_text_counts_characters_not_words():
    """If it failed, entities after a split word would all be wrong, or a part of a word be right."""
    posts = [["I'm", "in", "Paris", "Texas"], ["Paris-Texas", "Jordan"]]
    rows = rows_of(posts, tags=[["O", "O", "B-LOC", "I-LOC"], ["B-LOC", "B-PER"]])
    score = raw_text_score(predictor_of(LookupModel()), rows)
    # Right are Paris Texas and Jordan; Paris and Texas are found in place of Paris-Texas.
    assert (score["precision"], score["recall"], score["number"]) == (2 / 4, 2 / 3, 3)


def test_raw_text_is_read_with_the_posts_own_pictures(grey):
    """If it failed, the raw-text figure would be one without pictures."""
    rows = rows_of([["Paris-Texas"] * 2, ["Jordan"], ["a", "a"]], [grey(10), None, grey(90)])
    model = LookupModel()
    raw_text_score(predictor_of(model), rows)
    assert model.shades == [None, 90, 10]
