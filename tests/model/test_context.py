"""Tests of contexts: their place in the windows against a loop, and that they are read where they should be
and nowhere else.
"""

import json

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.contexts import CONTEXT, read_contexts, with_contexts
from dataset_scripts.formats.reader import CorpusError
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.model.pipeline_mmner import MultimodalNERPipeline
from modeling_mmner.model.posts_mmner import PostError
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.recipes import load_recipe
from tests.shared_data import SENTENCES, TOKENIZERS, bpe_tokenizer, each_tokenizer, property_test
from tests.tiny import LABELS, tiny_model

WORDS = sorted({word for words in SENTENCES for word in words})
some_words = st.lists(st.sampled_from(WORDS), max_size=40)


def processor_of(context_window: int | None = 8, *, window: int = 24, kind: str = "bpe") -> MMNERProcessor:
    tokenizer = TOKENIZERS[kind]()
    tokenizer.model_max_length = window
    return MMNERProcessor(tokenizer, labels=LABELS, image_size=None, context_window=context_window)


@pytest.fixture(scope="module")
def model() -> MMNERForTokenClassification:
    return tiny_model(fusion="text-only", text={"vocab_size": len(bpe_tokenizer())})


def outputs_of(model: MMNERForTokenClassification, inputs) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        output = model(**inputs)
    return {name: output[name] for name in ("logits", "tags", "span_scores")}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


# The layout


SEPARATORS = {
    "bpe": "[SEP]",
    "wordpiece": "[SEP]",
    "byte-level": "</s> </s>",
    "unigram": "</s>",
    "me5-small-latin": "</s> </s>",
}
"""Between a text and its context, by each tokenizer's own pair; the first of them also after the context."""


@each_tokenizer
@pytest.mark.parametrize("window", [16, 24, 10**30])
def test_context_has_what_the_text_leaves_of_each_window(kind, window):
    """If it failed, a post would be cut for its context, or a context stand without its separator."""
    reading = processor_of(window=window, kind=kind)
    plain = MMNERProcessor(reading.tokenizer, labels=LABELS, image_size=None)
    between = [reading.tokenizer.convert_tokens_to_ids(token) for token in SEPARATORS[kind].split()]
    after, padding = between[:1], reading.tokenizer.pad_token_id
    for count, length in ((0, 3), (1, 30), (5, 4), (9, 9), (40, 5)):
        words, context = WORDS[:count], " ".join(WORDS[:length])
        ids = reading.tokenizer(context, add_special_tokens=False)["input_ids"]
        found, alone = (each([words], context=[context], return_tensors="np") for each in (reading, plain))
        names = (found["input_ids"][0], found["token_type_ids"][0], alone["input_ids"][0])
        for row, types, own in zip(*names, strict=True):
            text = own[own != padding].tolist()[:-1]
            seen = ids[: max(0, min(8, window - len(text) - len(between) - len(after)))]
            expected = [*text, *between, *seen, *after] if seen else [*text, after[0]]
            begin = len(text) + len(between) if seen else len(expected)
            assert row[: len(expected)].tolist() == expected and set(row[len(expected) :]) <= {padding}
            assert types.tolist() == [int(begin <= place < len(expected)) for place in range(len(types))]
        size, alone_size = found["input_ids"].shape[-1], alone["input_ids"].shape[-1]
        for start, other in zip(found["word_starts"][0][: len(words)], alone["word_starts"][0], strict=False):
            assert divmod(start, size) == divmod(other, alone_size)


@given(words=some_words, context=some_words, window=st.integers(8, 40), limit=st.integers(1, 50))
@property_test
def test_no_word_is_lost_for_a_context(words, context, window, limit):
    """If it failed, a long context would push words of the post out of the model's sight."""
    both = (processor_of(limit, window=window), processor_of(None, window=window))
    found, alone = (each([words], context=[" ".join(context)], return_tensors="np") for each in both)
    firsts = [
        batch["input_ids"][0].ravel()[batch["word_starts"][0][: len(words)]].tolist()
        for batch in (found, alone)
    ]
    assert firsts[0] == firsts[1] and found["input_ids"].shape[-1] <= window
    assert not found["token_type_ids"][0].ravel()[found["word_starts"][0]].any()
    own = found["token_type_ids"] == 0
    assert (found["attention_mask"] * own).sum() >= alone["attention_mask"].sum()


def test_contexts_that_are_cut_are_counted():
    """If it failed, a run would not tell that the models saw no more than the beginning of its contexts."""
    processor = processor_of(4, window=16)
    long = processor.tokenizer.decode(
        processor.tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"][:6]
    )
    posts = processor.read([["a"], ["a"], ["a"] * 12, ["a"]], context=["a", long, "a b", None])
    lengths = [
        len(processor.tokenizer(post.context, add_special_tokens=False)["input_ids"]) for post in posts
    ]
    cuts = [text.context_cut for text in processor.lay_out(posts)]
    assert cuts == [0, lengths[1] - 4, max(0, lengths[2] - 1), 0] and lengths[1] > 4


# What is read


@pytest.mark.parametrize("nothing", [None, "", "  \n", [], ["", " "]])
def test_empty_context_is_none(model, nothing):
    """If it failed, a post without a context would be read otherwise than before contexts were known."""
    posts = [SENTENCES[0], SENTENCES[1]]
    own = outputs_of(model, processor_of(None)(posts))
    assert equal(own, outputs_of(model, processor_of()(posts)))
    assert equal(own, outputs_of(model, processor_of()(posts, context=[nothing, nothing])))


def test_context_is_seen(model):
    """If it failed, contexts would be laid out and never read, or their type be lost on the way."""
    processor = processor_of()
    inputs = processor([SENTENCES[0]], context=["Paris in London"])
    alone, own = outputs_of(model, processor([SENTENCES[0]])), outputs_of(model, inputs)
    untyped = outputs_of(model, inputs | {"token_type_ids": torch.zeros_like(inputs["token_type_ids"])})
    assert not torch.allclose(alone["logits"], own["logits"], atol=1e-3)
    assert not torch.allclose(untyped["logits"], own["logits"], atol=1e-3)


def test_processor_without_a_context_window_reads_none(model):
    """If it failed, a column called context would change the results of models that know none."""
    processor = processor_of(None)
    assert "token_type_ids" not in processor([SENTENCES[0]], context=["Paris"])
    assert equal(
        outputs_of(model, processor([SENTENCES[0]], context=["Paris"])),
        outputs_of(model, processor([SENTENCES[0]])),
    )


def test_batch_equals_one_by_one(model):
    """If it failed, a post's tags would depend on its neighbours' contexts, as padding that is seen does."""
    processor = processor_of(64, window=64)
    posts = [WORDS * 80, ["Paris"], SENTENCES[1], [], SENTENCES[2]]
    assert len(posts[0]) >= 2000
    contexts = [" ".join(WORDS * 20), " ".join(WORDS * 2), None, "London", "a"]
    batch = outputs_of(model, processor(posts, context=contexts))
    for row, (words, context) in enumerate(zip(posts, contexts, strict=True)):
        single = outputs_of(model, processor([words], context=[context]))
        torch.testing.assert_close(
            single["logits"][0, : len(words)], batch["logits"][row, : len(words)], atol=1e-5, rtol=1e-5
        )
        assert torch.equal(single["tags"][0, : len(words)], batch["tags"][row, : len(words)])


@pytest.mark.parametrize(("types", "sees"), [(2, True), (1, False)])
def test_encoder_without_types_takes_a_context(types, sees):
    """If it failed, RoBERTa's kind could not read contexts."""
    model = tiny_model(
        fusion="text-only", text={"vocab_size": len(bpe_tokenizer()), "type_vocab_size": types}
    )
    assert model.text_tower.has_types is sees
    processor = processor_of()
    alone, own = (
        outputs_of(model, processor([["Paris"]], context=[context]))["logits"]
        for context in (None, "in London")
    )
    assert not torch.allclose(alone, own, atol=1e-3)


def test_same_from_processor_collator_and_pipeline(model):
    """If it failed, a model would be trained on contexts that its users cannot give it."""
    processor, words, context = processor_of(), SENTENCES[0], "Paris in London"
    expected = processor.post_process_entities(
        outputs_of(model, processor([words], context=[context])), [words]
    )[0]
    collated = MMNERCollator(processor)([{"tokens": words, "context": context}])
    assert processor.post_process_entities(outputs_of(model, collated), [words])[0] == expected
    pipe = MultimodalNERPipeline(model=model, processor=processor)
    assert pipe({"tokens": words, "context": context}) == pipe({"tokens": words}, context=context) == expected
    assert pipe([{"tokens": words}] * 2, context=[context, None]) == [expected, pipe({"tokens": words})]
    assert pipe({"tokens": words, "context": [context]}, batch_size=2) == expected


def test_predict_reads_contexts(model, tmp_path, capsys):
    """If it failed, the command line could not give a model the contexts that it was trained with."""
    model.save_pretrained(tmp_path)
    processor_of().save_pretrained(tmp_path)
    posts = [
        {"tokens": SENTENCES[0], "context": "Paris in London"},
        {"tokens": SENTENCES[0]},
        {"text": "a", "context": 7},
    ]
    write_lines(tmp_path / "posts.jsonl", posts)
    files = ["--input", str(tmp_path / "posts.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    predict = ["predict", "--model", str(tmp_path)]
    main([*predict, *files])
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    pipe = MultimodalNERPipeline(model=model, processor=processor_of())
    for line, post in zip(found[:2], posts, strict=False):
        assert [entity["word"] for entity in line["entities"]] == [entity["word"] for entity in pipe(post)]
    assert "post 3: expected 'context' to be a string or a list of strings, found 7" in found[2]["error"]
    capsys.readouterr()
    contexts = ["--context", "Paris", "--context", "in London"]
    assert main([*predict, "--text", " ".join(SENTENCES[0]), *contexts]) == 0
    assert json.loads(capsys.readouterr().out)["entities"] == found[0]["entities"]
    assert main([*predict, "--context", "Paris"]) == 2
    assert "expected --text with --context; JSON lines have their own" in capsys.readouterr().err
    processor_of(None).save_pretrained(tmp_path)
    assert main([*predict, "--text", "a", "--context", "Paris"]) == 2
    assert "--context: expected a model that was trained with contexts" in capsys.readouterr().err


# What cannot be read


EXPECTED = "text 1: context: expected a string, a list of strings or None, found"


@pytest.mark.parametrize(
    ("context", "error", "message"),
    [
        ("Paris", ValueError, "expected a list with an entry (or None) for each of 2 texts, found str"),
        (["Paris"], ValueError, "expected a list with an entry (or None) for each of 2 texts, found 1"),
        (["Paris", 3], TypeError, f"{EXPECTED} 3"),
        ([None, ["a", None]], TypeError, f"{EXPECTED} ['a', None]"),
    ],
)
def test_errors_of_the_processor_name_the_text(context, error, message):
    """If it failed, a bad context would not tell which it is."""
    with pytest.raises(error) as caught:
        processor_of()([["a"], ["b"]], context=context)
    assert message in str(caught.value)


def test_errors_of_the_pipeline_name_the_post(model):
    """If it failed, one bad context among many posts could not be found."""
    pipe = MultimodalNERPipeline(model=model, processor=processor_of())
    with pytest.raises(
        PostError, match="post 2: expected 'context' to be a string or a list of strings, found 7"
    ):
        pipe([{"text": "a"}, {"text": "b", "context": 7}])
    with pytest.raises(PostError, match="post 1: expected its context in the post or in context, found both"):
        pipe({"text": "a", "context": "b"}, context="c")
    with pytest.raises(ValueError, match=r"context: expected an entry .* found 1 for 2"):
        pipe(["a", "b"], context=["c"])


def test_word_tower_refuses_contexts():
    """If it failed, a system of words would be trained as if it read contexts."""
    with pytest.raises(ValueError, match="recipe context: expected none with a text tower of words"):
        load_recipe("bilstm-crf", {"context": "context"})
    with pytest.raises(
        ValueError,
        match="recipe context: expected the column, or field of context_file, that is read, found None",
    ):
        load_recipe("bert-crf", {"context_file": ["contexts.jsonl"]})


# Contexts of a corpus


def rows_of(**columns) -> Dataset:
    return Dataset.from_dict({"id": ["1", "2", "3"], "tokens": [["a"], ["b"], ["c"]]} | columns)


def write_lines(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_contexts_come_from_files_by_id(tmp_path):
    """If it failed, a post would be read beside another one's context."""
    write_lines(tmp_path / "a.jsonl", [{"id": "2", "caption": "two", "other": 1}, {"id": 3, "caption": None}])
    write_lines(tmp_path / "b.jsonl", [{"id": "9", "caption": "nine"}, {"id": "2", "caption": "two"}])
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    assert read_contexts([write_lines(tmp_path / "lists.txt", [{"id": 1, "x": ["a", "b"]}])], "x") == {
        "1": ["a", "b"]
    }
    for named in (files, [str(tmp_path)]):
        found = with_contexts(
            {"train": rows_of(), "test": rows_of(context=["x", "y", "z"])}, "caption", named
        )
        assert [list(rows[CONTEXT]) for rows in found.values()] == [[None, "two", ""]] * 2


def test_ids_of_several_posts_are_refused(tmp_path):
    """If it failed, posts that tools have numbered from 1 in each file would share the contexts of others."""
    files = [write_lines(tmp_path / "a.jsonl", [{"id": 1, "caption": "about 1"}])]
    other = Dataset.from_dict({"id": ["1"], "tokens": [["another"]]})
    message = "expected an id of its own for each post, found '1' for several, one of them in the test"
    with pytest.raises(CorpusError, match=message):
        with_contexts({"train": rows_of(), "test": other}, "caption", files)
    numbered = rows_of().remove_columns("id").add_column("id", [1, 2, 3])
    found = with_contexts({"train": numbered}, "caption", files)["train"]
    assert list(found[CONTEXT]) == ["about 1", None, None]


def test_contexts_come_from_a_column():
    """If it failed, a data set that has contexts would need a file of them."""
    found = with_contexts({"train": rows_of(about=["x", None, "z"])}, "about")
    assert list(found["train"][CONTEXT]) == ["x", None, "z"]
    several = with_contexts({"train": rows_of(context=[["x", "y"], None, []])}, "context")
    assert list(several["train"][CONTEXT]) == [["x", "y"], None, []]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            '{"id": "1", "caption": "a"}\n[]',
            "line 2: expected an object with 'id' and a text 'caption' (--context names it), or a list of"
            " texts, found list",
        ),
        ('{"id": "1"}', "line 1: expected an object with 'id' and a text 'caption'"),
        ("{", "contexts.jsonl:1: expected a JSON object, found '{'"),
        ('{"id": "1", "caption": 3}', "line 1: expected an object with 'id' and a text 'caption'"),
        (
            '{"id": "1", "caption": "a"}\n{"id": "1", "caption": "b"}',
            "line 2: expected one context for a post, found another",
        ),
        (
            '{"id": "77", "caption": "a"}',
            "expected contexts of the corpus's posts by their ids, such as '1', found none of them",
        ),
    ],
)
def test_errors_of_files_name_the_line(tmp_path, lines, message):
    """If it failed, a broken file of contexts would not tell where."""
    path = tmp_path / "contexts.jsonl"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(CorpusError) as caught:
        with_contexts({"train": rows_of()}, "caption", [str(path)])
    assert message in str(caught.value)


def test_errors_of_columns_and_folders(tmp_path):
    """If it failed, a misspelt column or folder would train a model without contexts."""
    with pytest.raises(
        CorpusError, match="--context: expected a column 'about' in the train split, found id, tokens"
    ):
        with_contexts({"train": rows_of()}, "about")
    with pytest.raises(CorpusError, match="expected texts, or lists of them, in the column 'about', found 1"):
        with_contexts({"train": rows_of(about=[1, 2, 3])}, "about")
    with pytest.raises(
        CorpusError,
        match=r"--context_file .*: expected a file of JSON lines, or a folder with \*.jsonl files",
    ):
        read_contexts([str(tmp_path)], "about")


def test_several_texts_are_one_context():
    """If it failed, the second text about a picture would be lost."""
    processor = processor_of()
    several, one = (
        processor([["a"]], context=[given]) for given in (["Paris", " in London "], "Paris in London")
    )
    assert torch.equal(several["input_ids"], one["input_ids"])
    single = processor("a", context=["Paris", "in London"])
    assert torch.equal(single["input_ids"], one["input_ids"])
