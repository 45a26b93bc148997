"""The pipeline: every form of a post and of many posts, held against processor and model by hand."""

import base64
import pickle
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from modeling_mmner.model import prediction_mmner
from modeling_mmner.model.posts_mmner import PostError
from modeling_mmner.model.prediction_mmner import PostReader
from tests.small_posts import (
    PICTURES,
    POSTS,
    RED,
    ROWS,
    SPECKLED,
    TEXTS,
    assert_same,
    by_hand,
    encoded,
    small_parts,
)
from tests.tiny import SYSTEMS


@pytest.fixture(scope="module")
def parts():
    return small_parts(**SYSTEMS["mlmner"])


@pytest.fixture(scope="module")
def pipe(parts):
    model, processor = parts
    return pipeline("multimodal-ner", model=model, processor=processor)


@pytest.fixture(scope="module")
def expected(parts):
    """The entities of `POSTS`."""
    return [by_hand(parts, text, pictures) for text, pictures in POSTS]


def as_base64(picture: Image.Image) -> str:
    """In lines of 76 characters, as mail has it."""
    return base64.encodebytes(encoded(picture)).decode()


def as_chat(
    text: str, pictures: list[Any], part: Any = lambda picture: {"type": "image", "image": picture}
) -> list[dict]:
    """A chat in which the user sends a post, and others speak of something else."""
    return [
        {"role": "system", "content": [{"type": "text", "text": "Jordan in Paris"}]},
        {"role": "user", "content": [*map(part, pictures), {"type": "text", "text": text}]},
        {"role": "assistant", "content": "Paris tomorrow"},
    ]


def as_data_set() -> datasets.Dataset:
    """The posts as a data set with columns that the pipeline has no use for."""
    columns = {
        "id": range(len(POSTS)),
        "role": ["poster"] * len(POSTS),
        "text": TEXTS,
        "label": [1] * len(POSTS),
    }
    rows = {
        "images": [
            [{"bytes": encoded(picture), "path": None} for picture in pictures] for pictures in PICTURES
        ]
    }
    return datasets.Dataset.from_dict(columns | rows).cast_column("images", datasets.List(datasets.Image()))


def test_the_model_tells_these_posts_apart(parts, expected) -> None:
    """If it failed, the tests below could not notice entities of another post or another picture."""
    assert [bool(entities) for entities in expected] == [bool(text) for text in TEXTS]
    assert len({tuple(one["word"] for one in entities) for entities in expected}) == len(set(TEXTS))
    for (text, own), entities in zip(POSTS, expected, strict=True):
        for pictures in PICTURES if text else []:
            scores = [one["score"] for one in by_hand(parts, text, pictures)]
            assert (scores == pytest.approx([one["score"] for one in entities], abs=1e-4)) == (
                pictures == own
            )


@pytest.mark.parametrize("system", SYSTEMS)
def test_one_post_is_what_processor_and_model_give(system) -> None:
    """If it failed, the pipeline would answer otherwise than the model that it serves."""
    parts = small_parts(**SYSTEMS[system])
    pipe = pipeline("multimodal-ner", model=parts[0], processor=parts[1])
    for text, pictures in POSTS:
        expected = by_hand(parts, text, pictures)
        assert (
            pipe({"text": text, "images": pictures})
            == pipe(text, images=pictures)
            == pipe(text, pictures)
            == expected
        )
        assert pipe(as_chat(text, pictures)) == pipe(as_chat(text, []), images=pictures) == expected


def address(picture: Any) -> str:
    return "data:image/png;base64," + as_base64(picture)


PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "a chat with base64": lambda one: {"type": "image", "base64": as_base64(one)},
    "a chat with nulls": lambda one: {"type": "image", "image": one, "url": None},
    "a chat with a data: address": lambda one: {"type": "image", "url": address(one)},
    "a chat as of OpenAI": lambda one: {"type": "image_url", "image_url": {"url": address(one)}},
}
FIELDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "a row's image": lambda one: {"image": one},
    "images is null": lambda one: {"image": one, "images": None, "tokens": None},
    "a list with a null": lambda one: {"images": [None, one]},
    "as bytes": lambda one: {"image": encoded(one)},
    "a row of bytes": lambda one: {"image": {"bytes": encoded(one), "path": "not/there.png"}},
    "a data: address": lambda one: {"image": address(one)},
}


def two_messages(text: str, picture: Any) -> list[dict[str, Any]]:
    first, _, second = text.partition("\n")
    return [
        {"role": "user", "content": first},
        {"role": "assistant", "content": None},
        {"role": "user", "content": (*as_chat(second, [picture])[1]["content"],)},
    ]


ONE_PICTURE = (
    {name: lambda text, one, part=part: as_chat(text, [one], part) for name, part in PARTS.items()}
    | {name: lambda text, one, field=field: {"text": text} | field(one) for name, field in FIELDS.items()}
    | {"two messages": two_messages}
)


@pytest.mark.parametrize("form", ONE_PICTURE.values(), ids=ONE_PICTURE.keys())
def test_every_form_of_a_post_with_a_picture(pipe, parts, form) -> None:
    """If it failed, what transformers' own pipelines take would be refused, or a part of it be lost."""
    text = "Jordan posts\nfrom Paris"
    post = form(text, SPECKLED)
    assert pipe(post) == pipe([post])[0] == by_hand(parts, text, [SPECKLED])


@pytest.mark.parametrize("key", ["image", "url", "path"])
def test_chats_name_files(pipe, parts, tmp_path, key) -> None:
    """If it failed, a chat's picture on this machine would not be found."""
    path = tmp_path / "1.png"
    SPECKLED.save(path)
    chat = as_chat("from Paris", [str(path)], lambda picture: {"type": "image", key: picture})
    assert pipe(chat) == by_hand(parts, "from Paris", [SPECKLED])


def a_stream(posts: Any) -> Iterator[Any]:
    """The posts, one after the other and only once."""
    yield from posts


class SizedStream(IterableDataset[Any]):
    """A stream that knows how long it is, as some do for progress bars."""

    def __iter__(self) -> Iterator[Any]:
        return iter(ROWS)

    def __len__(self) -> int:
        return len(ROWS)


MANY = {
    "list of rows": lambda: (ROWS,),
    "tuple of rows": lambda: (tuple(ROWS),),
    "rows of a data set": lambda: (list(as_data_set()),),
    "rows that have the keys of messages": lambda: (
        [row | {"role": "user", "content": "Jordan"} for row in ROWS],
    ),
    "list of chats": lambda: ([as_chat(*post) for post in POSTS],),
    "all forms mixed": lambda: ([ROWS[0], TEXTS[1], *(as_chat(*post) for post in POSTS[2:5]), *ROWS[5:]],),
    "texts, pictures": lambda: (TEXTS, PICTURES),
    "texts, pictures as tuples": lambda: (tuple(TEXTS), tuple(map(tuple, PICTURES))),
    "texts, single pictures": lambda: (
        TEXTS,
        [each[0] if len(each) == 1 else each or None for each in PICTURES],
    ),
    "rows, pictures": lambda: ([{"text": text, "images": []} for text in TEXTS], PICTURES),
    "generator": lambda: (a_stream(ROWS),),
    "generator of chats": lambda: (a_stream(as_chat(*post) for post in POSTS),),
    "map": lambda: (map(dict, ROWS),),
    "data set": lambda: (as_data_set(),),
    "data set without decoding": lambda: (
        as_data_set().cast_column("images", datasets.List(datasets.Image(decode=False))),
    ),
    "streaming data set": lambda: (as_data_set().to_iterable_dataset(),),
    "columns of a data set": lambda: (as_data_set()["text"], as_data_set()["images"]),
    "KeyDataset of chats": lambda: (
        KeyDataset([{"messages": as_chat(*post)} for post in POSTS], "messages"),
    ),
    "KeyDataset, pictures": lambda: (KeyDataset(as_data_set(), "text"), KeyDataset(as_data_set(), "images")),
    "sized stream": lambda: (SizedStream(),),
    "array": lambda: (np.array(ROWS, dtype=object),),
    "array of texts, pictures": lambda: (np.array(TEXTS), PICTURES),
    "Series": lambda: (pd.Series(ROWS, index=range(100, 100 - len(ROWS), -1)),),
    "data frame": lambda: (pd.DataFrame(ROWS, index=range(100, 100 - len(ROWS), -1)),),
    "rows of a data frame": lambda: ([row for _, row in pd.DataFrame(ROWS).iterrows()],),
    "data frame as of Parquet": lambda: (
        pd.DataFrame(
            {
                "text": TEXTS,
                "images": [
                    np.array([{"bytes": encoded(one)} for one in each], dtype=object) for each in PICTURES
                ],
            }
        ),
    ),
    "data frame without pictures, pictures": lambda: (
        pd.DataFrame({"text": TEXTS, "image": float("nan")}),
        PICTURES,
    ),
    "Series, pictures": lambda: (
        pd.Series(TEXTS, index=[6, 5, 4, 3, 2, 1, 0]),
        pd.Series(PICTURES, index=[1, 2, 3, 4, 5, 6, 0]),
    ),
}


@pytest.mark.parametrize("many", MANY.values(), ids=MANY.keys())
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_form_of_many_posts(pipe, expected, many, batch_size) -> None:
    """If it failed, a form would be refused, a post be skewed by its batch, or entities go to another post.

    A pandas Series once came back in the order of its labels.
    """
    given = many()
    found = pipe(*given, batch_size=batch_size)
    assert isinstance(found, list) == isinstance(given[0], (list, tuple, np.ndarray, pd.Series, pd.DataFrame))
    assert_same(list(found), expected)


@pytest.mark.parametrize("nothing", [float("nan"), np.float64("nan"), pd.NA, pd.NaT, None], ids=repr)
@pytest.mark.parametrize("key", ["image", "images", "tokens", "context"])
def test_what_pandas_has_for_no_value_is_none(pipe, parts, key, nothing) -> None:
    """Regression: a missing picture of a data frame, NaN, was an error."""
    expected = by_hand(parts, "from Paris", [])
    assert pipe({"text": "from Paris", key: nothing}) == expected
    assert pipe("from Paris", images=[nothing, nothing], context=nothing) == expected
    processor = parts[1]
    inputs = processor(pd.Series(["from Paris"]), images=pd.Series([nothing], dtype=object))
    assert inputs["image_mask"].shape == (1, 0)


def test_columns_of_words_are_lists(pipe, parts) -> None:
    """Regression: lists of a Parquet file, which pandas gives as arrays, were no words."""
    words = np.array(["Jordan", "from", "Paris"], dtype=object)
    expected = by_hand(parts, list(words), [RED])
    pictures = np.array([{"bytes": encoded(RED), "path": None}], dtype=object)
    assert pipe({"tokens": words, "images": pictures}) == pipe({"tokens": words}, images=pictures) == expected
    row = pd.Series({"tokens": words.astype(str), "image": RED, "id": 7})
    assert pipe(row) == pipe(pd.DataFrame([row, row]))[1] == expected
    assert PostReader(parts[1])(row).id == 7
    inputs, others = (parts[1]([given], images=[[RED]]) for given in (words, list(words)))
    assert all(torch.equal(inputs[name], others[name]) for name in others)


WORD_LISTS = [["Jordan", "posts-from", "Paris!"], [], ["#today", "and", "tomorrow Paris"]]


def test_words_stay_the_words_that_they_are(pipe, parts) -> None:
    """If it failed, words would be split by the rule for raw text, or offsets belong to another text."""
    expected = [by_hand(parts, words, [RED]) for words in WORD_LISTS]
    assert all(bool(entities) == bool(words) for entities, words in zip(expected, WORD_LISTS, strict=True))
    assert expected[0] != by_hand(parts, " ".join(WORD_LISTS[0]), [RED])
    for words, entities in zip(WORD_LISTS, expected, strict=True):
        assert (
            pipe({"tokens": words, "image": RED})
            == pipe({"tokens": tuple(words), "text": None, "image": RED})
            == entities
        )
        assert pipe(words, images=RED, is_split_into_words=True) == entities
        for entity in entities:
            assert " ".join(words)[entity["start"] : entity["end"]] == entity["word"]
    assert_same(pipe(WORD_LISTS, images=[RED] * 3, batch_size=3), expected)
    assert_same(pipe(WORD_LISTS, images=[RED] * 3, batch_size=3, is_split_into_words=True), expected)


def test_a_list_of_strings_is_texts_unless_it_is_said_to_be_words(pipe, parts) -> None:
    """If it failed, several texts would be taken for the words of one, or the other way round."""
    texts = ["Paris", "Jordan posts"]
    assert pipe(texts) == [by_hand(parts, text, []) for text in texts]
    assert pipe(texts, is_split_into_words=True) == by_hand(parts, texts, [])
    assert pipe("Jordan posts", is_split_into_words=True) == by_hand(parts, "Jordan posts", [])


def test_nothing_gives_nothing(pipe) -> None:
    """If it failed, an empty text, an empty list or a batch of both would be an error."""
    for nothing in ("", " \n", [], ()):
        assert pipe(nothing) == pipe(nothing, batch_size=4) == []
    assert pipe([], is_split_into_words=True) == []
    posts = ["", [], {"tokens": []}, {"text": " "}]
    assert pipe(posts, batch_size=4) == pipe([[]] * 4, images=[RED] * 4) == [[]] * 4
    assert list(pipe(iter([]))) == list(pipe(as_data_set().select([]), batch_size=2)) == []


def test_streams_are_read_no_further_than_a_batch(pipe, expected) -> None:
    """If it failed, an endless stream would fill the memory, or its first results be late."""
    read = []

    def endless() -> Iterator[dict[str, Any]]:
        for number in count():
            read.append(number)
            yield ROWS[number % len(ROWS)]

    results = pipe(endless(), batch_size=3)
    assert read == []
    found = []
    for number in range(len(ROWS)):
        found.append(next(results))
        assert len(read) == (number // 3 + 1) * 3
    assert_same(found, expected)
    assert_same(list(islice(pipe(endless()), len(ROWS))), expected)


def test_a_pipeline_maps_over_a_data_set(pipe, expected) -> None:
    """If it failed, `Dataset.map`, whose rows are no dicts, would store generators; it once did."""
    rows = as_data_set()
    one_by_one = rows.map(lambda row: {"entities": pipe(row)})
    batches = rows.map(
        lambda batch: {"entities": pipe(batch["text"], batch["images"], batch_size=3)}, batched=True
    )
    assert_same(one_by_one["entities"][:], expected)
    assert_same(batches["entities"][:], expected)


@pytest.mark.parametrize(
    "many", [lambda: ROWS, as_data_set, lambda: a_stream(ROWS)], ids=["list", "data set", "generator"]
)
def test_workers_change_nothing(pipe, expected, many) -> None:
    """If it failed, other processes would reorder posts, or each read the whole of a stream."""
    assert_same(list(pipe(many(), num_workers=2, batch_size=2)), expected)


def test_workers_that_are_started_afresh_can_be_sent_their_work(pipe, expected, monkeypatch) -> None:
    """If it failed, num_workers would fail where processes are not forked, as on macOS and Windows."""

    class Sent(DataLoader):
        def __init__(self, dataset: Any, **options: Any) -> None:
            super().__init__(pickle.loads(pickle.dumps(dataset)), **pickle.loads(pickle.dumps(options)))

    monkeypatch.setattr(prediction_mmner, "DataLoader", Sent)
    assert_same(pipe(ROWS, batch_size=2, num_workers=2), expected)
    assert_same(pipe(TEXTS, PICTURES, batch_size=2, num_workers=2), expected)


NO_POST = "expected an object with 'text' or 'tokens', found"
NEITHER = "expected either 'text' or 'tokens', found neither; its keys are"
NO_PART = "expected parts .* in a chat, found"
BAD_POSTS = [
    (3, f"{NO_POST} int"),
    (None, f"{NO_POST} NoneType"),
    (b"Paris", f"{NO_POST} bytes"),
    (RED, f"{NO_POST} Image"),
    ({"id": 1}, rf"{NEITHER} \['id'\]"),
    ({"role": "user", "content": "Paris"}, rf"{NEITHER} \['content', 'role'\]"),
    ({"text": "Paris", "tokens": ["Paris"]}, "expected either 'text' or 'tokens', found both"),
    ({"text": ["Paris", "Jordan"]}, "expected 'text' to be a string, found list"),
    ({"tokens": [["Paris"]]}, r"expected 'tokens' to be a list of strings, found \[\['Paris'\]\]"),
    ([{"role": "system", "content": "Paris"}], r"expected a chat with a text of its user, found roles"),
    ([{"role": "user", "content": None}], f"{NO_PART} {{'type': 'text', 'text': None}}"),
    ([{"role": "user", "content": ["Paris"]}], f"{NO_PART} 'Paris'"),
    (as_chat("Paris", [RED], lambda picture: {"type": "image"}), f"{NO_PART} {{'type': 'image'}}"),
    (as_chat("Paris", [RED], lambda picture: {"type": "image", "url": "a", "path": "b"}), NO_PART),
    (as_chat("Paris", [RED], lambda picture: {"type": "video", "path": "b"}), f"{NO_PART} {{'type': 'video'"),
]


@pytest.mark.parametrize(("post", "message"), BAD_POSTS)
def test_bad_posts_are_named_by_their_number(pipe, post, message) -> None:
    """If it failed, users would have to search thousands of posts for the one that cannot be read."""
    with pytest.raises(PostError, match=f"^post 1: {message}"):
        pipe(post)
    for options in ({}, {"batch_size": 8}, {"images": [None, None, RED]}):
        with pytest.raises(PostError, match=f"^post 3: {message}"):
            pipe(["Paris", "Jordan", post], **options)
    stream = pipe(iter(["Paris", "Jordan", post]))
    assert next(stream) and next(stream)
    with pytest.raises(PostError, match=f"^post 3: {message}"):
        next(stream)


@pytest.mark.parametrize(
    ("texts", "images", "message"),
    [
        (["a", "b"], [RED], "images: expected an entry .or None. for each of the posts, found 1 for 2"),
        (["a", "b"], RED, "found a Image for 2"),
        (["a", "b"], "xy", "found a str for 2"),
        (iter(["a"]), [RED], "found 1 for a list_iterator"),
    ],
)
def test_pictures_beside_posts_are_one_for_each(pipe, texts, images, message) -> None:
    """If it failed, pictures would be given to other posts than their own."""
    with pytest.raises(ValueError, match=message):
        pipe(texts, images=images)


def test_pictures_come_from_one_place(pipe) -> None:
    """If it failed, of two pictures one would be ignored without a word."""
    found = "expected its pictures in the post or in images, found both"
    with pytest.raises(PostError, match=f"^post 1: {found}"):
        pipe(ROWS[0], images=RED)
    with pytest.raises(PostError, match=f"^post 3: {found}"):
        pipe(["a", "b", ROWS[0]], images=[RED, None, RED])
