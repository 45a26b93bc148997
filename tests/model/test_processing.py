"""Tests of `MMNERProcessor`: from texts and pictures to a batch, and from tags and scores to entities."""

import logging
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, CanineTokenizer

from modeling_mmner import MMNERProcessor
from modeling_mmner.model.labels_mmner import Span, bio_labels, spans_to_tags
from modeling_mmner.training.collator import MMNERCollator
from tests.shared_data import TOKENIZERS, bpe_tokenizer, each_tokenizer, property_test, text_processor

LABELS = bio_labels(["PER", "LOC"])
TEXTS = ["Jordan posts from Paris!", "L'Italie gagne, #Santos @Amazon", "9.30", ""]
WORDS = [
    ["Jordan", "posts", "from", "Paris", "!"],
    ["L'", "Italie", "gagne", ",", "#", "Santos", "@", "Amazon"],
    ["9.30"],
    [],
]
RED, BLUE = Image.new("RGB", (30, 20), "red"), Image.new("L", (8, 8), 255)
NAMES = {"input_ids", "attention_mask", "word_starts", "word_mask", "pixel_values", "image_mask"}


@pytest.fixture(scope="module")
def processor():
    return MMNERProcessor(bpe_tokenizer(), labels=LABELS, image_size=16)


def assert_equal(batch, other):
    """Two batches hold the same arrays."""
    assert set(batch) == set(other)
    for name in batch:
        assert np.array_equal(np.asarray(batch[name]), np.asarray(other[name])), name


def trimmed(batch, row):
    """One post of a batch without padding, as a batch of its own; no text has more than one window."""
    assert batch["input_ids"].shape[1] == 1
    pieces = max(1, int(batch["attention_mask"][row].sum()))
    words = max(1, int(batch["word_mask"][row].sum()))
    pictures = int(batch["image_mask"][row].sum())
    ends = {"pixel_values": pictures, "image_mask": pictures}
    post = {name: values[row : row + 1, : ends.get(name, words)] for name, values in batch.items()}
    return post | {name: batch[name][row : row + 1, :, :pieces] for name in ("input_ids", "attention_mask")}


# Texts and words


def test_texts_and_their_words_are_the_same_in_every_form(processor):
    """If it failed, a text would be read otherwise than its words, a string be taken for one-letter texts, or
    a list of strings be guessed at: it is texts, words only on request.
    """
    assert_equal(processor(TEXTS), processor(WORDS))
    assert_equal(processor([TEXTS[0], WORDS[1]]), processor([WORDS[0], TEXTS[1]]))
    assert_equal(processor(TEXTS[1]), processor([TEXTS[1]]))
    assert_equal(processor(WORDS[0], is_split_into_words=True), processor([WORDS[0]]))
    assert_equal(processor(WORDS, is_split_into_words=True), processor(WORDS))
    assert processor(WORDS[0])["input_ids"].shape[0] == len(WORDS[0])


@each_tokenizer
def test_batch_equals_its_posts_one_by_one(kind):
    """If it failed, what a post's tensors hold would depend on the posts beside it."""
    processor = MMNERProcessor(TOKENIZERS[kind](), labels=LABELS, image_size=16)
    images = [RED, [BLUE, RED], None, []]
    labels = [["O"] * len(words) for words in WORDS]
    batch = processor(TEXTS, images=images, labels=labels, return_tensors="np")
    for row, text in enumerate(TEXTS):
        single = processor([text], images=[images[row]], labels=[labels[row]], return_tensors="np")
        assert_equal(trimmed(batch, row), single)


@each_tokenizer
@pytest.mark.parametrize("window", [12, 10**30], ids=["windows", "no-window"])
def test_padding_to_a_multiple_adds_padding_alone(kind, window):
    """If it failed, padding to a multiple would change what is read, or be longer than the encoder takes."""
    tokenizer = TOKENIZERS[kind]()
    tokenizer.model_max_length = window
    processor = MMNERProcessor(tokenizer, labels=LABELS)
    plain, padded = (
        processor(WORDS, return_tensors="np", pad_to_multiple_of=multiple) for multiple in (None, 8)
    )
    length, longest = plain["input_ids"].shape[-1], padded["input_ids"].shape[-1]
    assert longest == min(window, -(-length // 8) * 8)
    assert (padded["attention_mask"][..., length:] == 0).all()
    for name in ("input_ids", "attention_mask"):
        assert (padded[name][..., :length] == plain[name]).all()
    for row, words in enumerate(WORDS):
        starts, moved = (batch["word_starts"][row, : len(words)] for batch in (plain, padded))
        assert [divmod(start, length) for start in starts] == [divmod(start, longest) for start in moved]


@each_tokenizer
def test_padding_is_marked_as_such(kind):
    """If it failed, padding would be read as words or text."""
    processor = MMNERProcessor(TOKENIZERS[kind](), labels=LABELS)
    batch = processor(WORDS, labels=[["B-PER"] * len(words) for words in WORDS])
    assert batch["word_mask"].sum(1).tolist() == [5, 8, 1, 0]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == processor.tokenizer.pad_token_id).all()
    assert (batch["labels"] == -100).equal(~batch["word_mask"])


def test_types_and_names_are_those_of_the_models_contract(processor):
    """If it failed, the model would not accept the batch, or compute in other types."""
    batch = processor(TEXTS, images=[RED, None, None, None], labels=[[0] * len(words) for words in WORDS])
    types = {name: str(values.dtype).removeprefix("torch.") for name, values in batch.items()}
    integers = dict.fromkeys(("input_ids", "attention_mask", "word_starts", "labels"), "int64")
    assert types == integers | {"word_mask": "bool", "pixel_values": "uint8", "image_mask": "bool"}
    assert set(processor.model_input_names) == NAMES


def test_what_generic_scripts_ask_for_is_done_or_refused(processor):
    """Regression: `padding=True` was an unknown argument, and a demand to cut texts must not pass unseen."""
    asked = processor(text=["a b", "c"], padding=True, truncation=False, return_tensors="pt")
    assert_equal(asked, processor(["a b", "c"]))
    for options in ({"truncation": True}, {"padding": "max_length"}, {"padding": False}):
        with pytest.raises(ValueError, match="texts are padded to the longest and never cut, found padding="):
            processor(["a b", "c"], **options)


def test_arrays_equal_tensors(processor):
    """If it failed, numpy or plain output would differ from torch's."""
    tensors = processor(TEXTS, images=[RED] * 4)
    arrays = processor(TEXTS, images=[RED] * 4, return_tensors="np")
    assert all(isinstance(values, torch.Tensor) for values in tensors.values())
    assert all(isinstance(values, np.ndarray) for values in arrays.values())
    assert_equal(tensors, arrays)
    assert_equal(arrays, processor(TEXTS, images=[RED] * 4, return_tensors=None))


def test_empty_text_is_a_post_without_words(processor):
    """If it failed, an empty post in a batch would be an error or get a word."""
    batch = processor("")
    assert batch["input_ids"].tolist() == [
        [[processor.tokenizer.cls_token_id, processor.tokenizer.sep_token_id]]
    ]
    assert batch["word_mask"].tolist() == [[False]]
    assert_equal(batch, processor([" \n\u00a0"]))


@each_tokenizer
def test_long_text_is_not_cut_and_gives_no_warning(kind, caplog):
    """If it failed, the end of a long post would get no tags, or users be told of a false limit."""
    processor = MMNERProcessor(TOKENIZERS[kind](), image_size=None)
    processor.tokenizer.model_max_length = 12
    transformers_logger = logging.getLogger("transformers")
    transformers_logger.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            batch = processor([["Paris"] * 2000])
    finally:
        transformers_logger.removeHandler(caplog.handler)
    pieces = processor.tokenizer(["Paris"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    firsts = batch["input_ids"].flatten(1).gather(1, batch["word_starts"])
    assert batch["input_ids"].shape[2] == 12 and firsts.tolist() == [[pieces[0]] * 2000]
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ([3], TypeError, "text 0: expected a string or a list of strings, found int"),
        (["a", None], TypeError, "text 1: expected a string or a list of strings, found NoneType"),
        ([["a", 3]], TypeError, "text 0: expected a string or a list of strings, found list"),
        ([], ValueError, "text: expected at least one text, found none"),
    ],
    ids=["number", "none", "list with a number", "nothing"],
)
def test_what_is_no_text_is_refused(processor, text, error, message):
    """If it failed, the error would come from the tokenizer and not say which text is wrong."""
    with pytest.raises(error, match=message):
        processor(text)


# Pictures


def test_pictures_stand_where_they_belong(processor):
    """If it failed, a post would get another post's picture, or one in another place."""
    batch = processor(["a"] * 4, images=[RED, [BLUE, RED], None, [None, BLUE]])
    assert batch["image_mask"].tolist() == [[True, False], [True, True], [False, False], [True, False]]
    red, white = torch.tensor([255, 0, 0]), torch.tensor([255, 255, 255])
    expected = {(0, 0): red, (1, 0): white, (1, 1): red, (3, 0): white}
    for place, colour in expected.items():
        assert batch["pixel_values"][place].equal(colour.to(torch.uint8)[:, None, None].expand(3, 16, 16))
    assert not batch["pixel_values"][~batch["image_mask"]].any()


def test_a_single_text_takes_its_picture_or_pictures_bare(processor):
    """If it failed, processor(text, image) would be refused, or two pictures taken for two texts."""
    assert_equal(processor("a", RED), processor(["a"], [RED]))
    assert_equal(processor("a", [RED, BLUE]), processor(["a"], [[RED, BLUE]]))
    assert_equal(
        processor(["a", "b"], [RED, BLUE], is_split_into_words=True), processor([["a", "b"]], [[RED, BLUE]])
    )


def test_no_pictures_is_a_batch_with_none(processor):
    """If it failed, text alone would need pictures, or get blank ones that count."""
    batch = processor(TEXTS)
    assert batch["pixel_values"].shape == (4, 0, 3, 16, 16)
    assert_equal(batch, processor(TEXTS, images=[None, [], [None], None]))


def test_a_model_of_text_alone_opens_no_picture():
    """If it failed, text-only models would need files that they never look at."""
    batch = text_processor()(["a"], images=["not/there.jpg"])
    assert batch["image_mask"].shape == (1, 0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([RED], r"images: expected a list with an entry \(or None\) for each of 2 texts, found 1"),
        ([RED, None, None], "for each of 2 texts, found 3"),
        (RED, "for each of 2 texts, found Image"),
        ([None, "not/there.jpg"], "text 1: picture not/there.jpg: expected a file, found none"),
        ([[RED, b"x"], None], "text 0: picture 1 bytes: expected one of the formats"),
    ],
    ids=["too few", "too many", "one for all", "missing", "broken"],
)
def test_wrong_pictures_are_refused(processor, images, message):
    """If it failed, pictures would be given to the wrong posts, or the error not name the post."""
    with pytest.raises(ValueError, match=message):
        processor(["a", "b"], images=images)


# Labels


@pytest.mark.parametrize(
    "kind", [list, np.array, torch.tensor, tuple, lambda ids: [np.int64(one) for one in ids]]
)
def test_label_names_equal_their_ids(processor, kind):
    """If it failed, training on names and on ids would differ, or ids of NumPy or torch be refused."""
    texts = [["a", "b", "c"], ["d"]]
    batch = processor(texts, labels=[["B-PER", "I-PER", "O"], ["B-LOC"]])
    assert batch["labels"].tolist() == [[1, 2, 0], [3, -100, -100]]
    assert_equal(batch, processor(texts, labels=[kind([1, 2, 0]), kind([3])]))


def test_labels_of_one_text_are_nested(processor):
    """Regression: labels=["O"] for the text "a" passed, each letter of each name a label."""
    for text, labels in (("a", ["O"]), ("a b c d e", ["B-PER"]), (["a"], ["O"]), ("a", "O")):
        with pytest.raises(ValueError, match="labels of text 0: expected a list with a label for each"):
            processor(text, labels=labels)


NO_LIST = "labels of text 0: expected a list with a label for each of its 2 words, found"
WRONG_LABELS = {
    "unknown name": (
        [["O", "O"], ["B-ORG"]],
        r"text 1: expected one of \['O', .*\] or its id, found 'B-ORG'",
    ),
    "unknown id": ([["O", 5], ["O"]], "labels of text 0: expected one of .* found 5"),
    "padding": ([["O", -100], ["O"]], "found -100"),
    "id as text": ([["O", "0"], ["O"]], "found '0'"),
    "too few words": ([["O"], ["O"]], "labels of text 0: expected a list with a label .* found 1"),
    "a string for a list": (["OO", "O"], rf"{NO_LIST} 'OO'; .* \[\['O', \.\.\.\]\]"),
    "not nested": ([0, 0], f"{NO_LIST} 0; labels are a list for each text"),
    "truth values": ([[True, False], ["O"]], "labels of text 0: expected one of .* found True"),
    "floats": ([[0.0, 1.0], ["O"]], r"labels of text 0: expected one of .* found 0\.0"),
    "too few texts": ([["O", "O"]], "labels: expected a list for each of 2 texts, found 1"),
}


@pytest.mark.parametrize(("labels", "message"), WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_wrong_labels_are_refused(processor, labels, message):
    """If it failed, labels would silently belong to other words or types."""
    with pytest.raises(ValueError, match=message):
        processor([["a", "b"], ["c"]], labels=labels)


# Making, saving and loading


def test_processors_refuse_what_they_cannot_work_with():
    """If it failed, a wrong tokenizer or label list would show itself only in wrong entities."""
    with pytest.raises(
        ValueError, match="tokenizer: expected a fast one, which places words, found CanineTokenizer"
    ):
        MMNERProcessor(CanineTokenizer())
    with pytest.raises(ValueError, match="labels: 'I-PER' has no 'B-PER'"):
        MMNERProcessor(bpe_tokenizer(), labels=["O", "I-PER"])


@each_tokenizer
@pytest.mark.parametrize("loader", [MMNERProcessor, AutoProcessor])
def test_saved_processor_is_the_same(kind, loader, tmp_path):
    """If it failed, a loaded model would meet other words, labels or picture sizes than it was trained on."""
    original = MMNERProcessor(TOKENIZERS[kind](), labels=LABELS, image_size=16)
    original.save_pretrained(tmp_path)
    restored = loader.from_pretrained(tmp_path)
    assert isinstance(restored, MMNERProcessor)
    assert (restored.labels, restored.image_size, restored.word_rule) == (LABELS, 16, "mmner-words-1")
    arguments = {"images": [RED, None, None, [BLUE, RED]], "labels": [["O"] * len(words) for words in WORDS]}
    assert_equal(restored(TEXTS, **arguments), original(TEXTS, **arguments))


# From tags to entities


def outputs_of(rows: list[list[str]], scores: float = 0.75) -> dict[str, torch.Tensor]:
    """What a model would return that decodes these tags."""
    width = max(1, *map(len, rows))
    tags = torch.full((len(rows), width), -100)
    for row, names in enumerate(rows):
        tags[row, : len(names)] = torch.tensor([LABELS.index(name) for name in names], dtype=torch.long)
    return {"tags": tags, "span_scores": torch.full((len(rows), width), scores)}


def test_entities_are_pieces_of_the_raw_text(processor):
    """If it failed, an application would highlight other characters than the entity's."""
    texts = ["Saw  Jordan\tHenderson,in Paris!", "", "l'Italie"]
    rows = [["O", "B-PER", "I-PER", "O", "O", "B-LOC", "O"], [], ["O", "B-LOC"]]
    found = processor.post_process_entities(outputs_of(rows), text=texts)
    assert found == [
        [
            {"entity_group": "PER", "score": 0.75, "word": "Jordan\tHenderson", "start": 5, "end": 21},
            {"entity_group": "LOC", "score": 0.75, "word": "Paris", "start": 25, "end": 30},
        ],
        [],
        [{"entity_group": "LOC", "score": 0.75, "word": "Italie", "start": 2, "end": 8}],
    ]


@property_test
@given(words=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8), data=st.data())
def test_entities_of_word_lists_are_pieces_of_the_joined_text(words, data):
    """If it failed, offsets would not be those of " ".join(words), or an entity's words would be others."""
    processor = MMNERProcessor(text_processor().tokenizer, labels=LABELS, image_size=None)
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    rows = [spans_to_tags([Span("LOC", start, end)], len(words))]
    [[entity]] = processor.post_process_entities(outputs_of(rows), text=[words])
    text = " ".join(words)
    assert text[entity["start"] : entity["end"]] == entity["word"] == " ".join(words[start:end])
    assert entity["start"] == len(" ".join([*words[:start], ""]))


def test_one_post_of_words_is_read_as_it_was_made(processor):
    """If it failed, is_split_into_words would mean another thing to the outputs than to the inputs."""
    words, outputs = ["Jordan", "Henderson"], outputs_of([["B-PER", "I-PER"]])
    flat = processor.post_process_entities(outputs, text=words, is_split_into_words=True)
    assert flat == processor.post_process_entities(outputs, text=[words])
    assert flat == processor.post_process_entities(outputs, text="Jordan Henderson")


def test_scores_are_those_of_the_first_word_and_the_threshold_keeps_equals(processor):
    """If it failed, entities would carry another entity's score, or be filtered by it."""
    outputs = outputs_of([["B-PER", "I-PER", "B-LOC"]])
    outputs["span_scores"] = torch.tensor([[0.5, 0.1, 0.25]])
    scores = {}
    for threshold in (0.0, 0.25, 0.3, 0.9):
        [entities] = processor.post_process_entities(outputs, ["a b c"], threshold=threshold)
        scores[threshold] = [entity["score"] for entity in entities]
    assert scores == {0.0: [0.5, 0.25], 0.25: [0.5, 0.25], 0.3: [0.5], 0.9: []}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (["a b"], "outputs: expected those of 1 texts, found 2"),
        (["a b c", "d"], "outputs: expected tags of 3 words, found 2; is this the same text?"),
    ],
    ids=["fewer texts", "another text"],
)
def test_outputs_of_other_texts_are_refused(processor, text, message):
    """If it failed, entities would be cut out of a text that the model never saw."""
    with pytest.raises(ValueError, match=message):
        processor.post_process_entities(outputs_of([["O", "O"], ["O"]]), text=text)


# Collator


def test_collator_takes_several_pictures_and_rows_without_tags(processor):
    """If it failed, training would see another batch than prediction."""
    rows = [{"tokens": ["a"], "images": [RED, BLUE]}, {"tokens": ["b"], "images": []}]
    assert_equal(MMNERCollator(processor)(rows), processor([["a"], ["b"]], images=[[RED, BLUE], []]))


def test_collator_reads_numbers_of_tags_by_the_names_that_are_theirs(processor):
    """Regression: a data set that lists its types in another order was trained on with the types swapped."""
    names = [*processor.labels[:1], *reversed(processor.labels[1:])]
    rows = [{"tokens": ["a", "b"], "ner_tags": [0, 1]}]
    expected = processor([["a", "b"]], labels=[[names[0], names[1]]])
    assert_equal(MMNERCollator(processor, label_names=names)(rows), expected)
    assert MMNERCollator(processor)(rows)["labels"].tolist() == [[0, 1]] != expected["labels"].tolist()
    named = [{"tokens": ["a", "b"], "ner_tags": names[:2]}]
    assert_equal(MMNERCollator(processor, label_names=names)(named), expected)
    with pytest.raises(ValueError, match=r"expected one of .* or its id, found -1"):
        MMNERCollator(processor, label_names=names)([{"tokens": ["a", "b"], "ner_tags": [0, -1]}])
