"""Posts: texts, words, chats, contexts; and batches of posts."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.small_posts import assert_same

from .cases import GOOD, Bench, CallersError, Case

# Texts that are odd, and must give a result all the same.
ODD_TEXTS: dict[str, str] = {
    "lone high surrogate": "Jordan \ud83d today",
    "lone low surrogate": "\ude00",
    "surrogates the wrong way round": "\ude00\ud83d Paris",
    "NUL": "Jordan\0Paris",
    "only NULs": "\0" * 50,
    "every control character": "".join(map(chr, range(32))),
    "delete and C1 controls": "".join(map(chr, range(127, 160))),
    "terminal commands": "\x1b[2J\x1b]0;title\x07Jordan",
    "only emoji": "😀" * 200,
    "families of joined emoji": "👨‍👩‍👧‍👦" * 50,
    "flags, and half a flag": "🇫🇷🇩🇪🇪",
    "tag sequence without an end": "🏴\U000e0067\U000e0062",
    "only joiners": "\u200d" * 100,
    "only combining marks": "\u0301" * 300,
    "a letter under many marks": "Z" + "\u0335\u0321\u0317" * 500,
    "only zero-width": "\u200b\ufeff\u2060",
    "right-to-left override": "Jordan \u202eisiraP\u202c today",
    "unclosed isolates": "\u2066\u2067\u2068 Paris",
    "Arabic with marks": "مُحَمَّد من عَمّان",
    "empty": "",
    "spaces": "   ",
    "line ends alone": "\r\n\n\u2028\u2029",
    "white space of every kind": " \t\x0b\x0c\x1c\x85\xa0\u2003\u3000",
    "byte order mark": "\ufeffJordan",
    "private use": "\ue000\U000f0000",
    "no characters": "\uffff\ufffe\U0010ffff",
    "a word of 100,000 letters": "a" * 100_000,
    "a word of 20,000 letters of three bytes": "あ" * 20_000,
    "an address of 50,000 characters": "https://" + "x" * 50_000,
    "a number of 20,000 digits": "1." * 10_000,
    "apostrophes": "l'" * 2_000,
    "5,000 words": "Jordan posts from Paris " * 1_250,
    "the tokenizer's own tokens": "[CLS] [SEP] [PAD] [MASK] [UNK] <s> </s>",
    "HTML": "<script>alert(1)</script>&amp;",
    "a template": "{{ 7 * 7 }} {% for a in b %} ${x}",
    "a path": "../../../etc/passwd",
    "SQL": "'; DROP TABLE posts; --",
    "a string for printing": "%s %n {0.__class__}",
    "no language": "Ξεσκεπάζω Ⅷ ½ ﬁ ｆｕｌｌ ǆ İi ß",
}
ODD_WORDS: dict[str, Any] = {
    "no words": [],
    "an empty word": [""],
    "empty words among others": ["Jordan", "", "", "Paris"],
    "a word of spaces": ["  ", "Paris"],
    "words with spaces and line ends": ["New York", "a\nb\tc"],
    "words with NUL": ["\0", "a\0b"],
    "words of half emoji": ["\ud83d", "\ude00"],
    "a tuple of words": ("Jordan", "Paris"),
    "5,000 words": ["Jordan"] * 5_000,
    "strings of NumPy": [np.str_("Jordan")],
    "only marks": ["\u0301", "\u200d", "\ufe0f"],
}
ODD_IDS: dict[str, Any] = {
    "an object": {"a": [1]},
    "half an emoji": "\ud83d",
    "a path": "../../x",
    "a very long one": "x" * 10**6,
    "no number": float("nan"),
    "a huge number": 10**4000,
}
NO_POSTS: dict[str, tuple[Any, str]] = {
    "None": (None, "expected an object with 'text' or 'tokens', found NoneType"),
    "a number": (7, "found int"),
    "bytes": (b"Jordan", "found bytes"),
    "a set": ({"Jordan"}, "found set"),
    "numbers": ([1, 2], "found list"),
    "words and numbers": (["Jordan", 2], "found list"),
    "an object without keys": ({}, "found neither"),
    "an object with other keys": ({"txt": "Jordan", 7: 1}, "its keys are ['7', 'txt']"),
    "text and tokens": ({"text": "a", "tokens": ["a"]}, "found both"),
    "text None and tokens None": ({"text": None, "tokens": None}, "found neither"),
    "text a number": ({"text": 7}, "expected 'text' to be a string, found int"),
    "text bytes": ({"text": b"Jordan"}, "found bytes"),
    "text a list": ({"text": ["Jordan"]}, "found list"),
    "text True": ({"text": True}, "found bool"),
    "text no number": ({"text": float("nan")}, "found float"),
    "tokens a string": ({"tokens": "Jordan"}, "expected 'tokens' to be a list of strings"),
    "tokens numbers": ({"tokens": [1, 2]}, "expected 'tokens' to be a list of strings"),
    "tokens with None": ({"tokens": ["Jordan", None]}, "expected 'tokens' to be a list of strings"),
    "tokens in lists": ({"tokens": [["Jordan"]]}, "expected 'tokens' to be a list of strings"),
    "tokens an object": ({"tokens": {"a": 1}}, "expected 'tokens' to be a list of strings"),
    "a chat without a text": ([{"role": "user", "content": []}], "expected a chat with a text of its user"),
    "a chat of others alone": ([{"role": "system", "content": "Jordan"}], "found roles ['system']"),
    "a chat whose content is None": ([{"role": "user", "content": None}], "expected parts"),
    "a chat with a part of another type": (
        [{"role": "user", "content": [{"type": "video"}]}],
        "expected parts",
    ),
    "a chat with a part that is a string": ([{"role": "user", "content": ["Jordan"]}], "expected parts"),
    "a chat with a text that is a number": (
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        "expected parts",
    ),
    "a chat with two pictures in a part": (
        [{"role": "user", "content": [{"type": "image", "url": "a", "path": "b"}]}],
        "expected parts",
    ),
    "a message without a role": ([{"content": "Jordan"}], "found list"),
}
NO_CONTEXTS: dict[str, Any] = {
    "a number": 7,
    "bytes": b"x",
    "numbers": [1],
    "an object": {"a": 1},
    "True": True,
}
ODD_CONTEXTS: dict[str, Any] = {
    "half an emoji": "\ud83d",
    "empty": ["", " "],
    "NUL": "\0",
    "20,000 words": "Paris " * 20_000,
    "1,000 texts": ["Paris"] * 1_000,
}


def a_stream_that_ends_badly() -> Iterator[Any]:
    yield GOOD
    raise CallersError("the caller's own stream broke")


class RowsThatBreak:
    """A data set one of whose rows cannot be read, as one of `datasets` with a broken picture."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        if index == 1:
            raise OSError("image file is truncated")
        return GOOD


def row_of_a_data_set(bench: Bench) -> Any:
    first, broken, last = bench.predict(RowsThatBreak())
    assert_same([first.entities, last.entities], [bench.good, bench.good])
    assert broken.error is not None
    list(bench.pipe(RowsThatBreak()))


def counted(bench: Bench, posts: Any, count: int, **options: Any) -> None:
    """The pipeline gives so many lists of entities."""
    assert len(list(bench.pipe(posts, **options))) == count


def with_errors_returned(bench: Bench) -> None:
    """Bad posts of a list cost nothing but themselves."""
    first, second, third = bench.pipe([GOOD, {"text": 7}, GOOD], broken_posts="return", batch_size=2)
    assert_same([first, third], [bench.good, bench.good])
    assert "post 2: expected 'text' to be a string" in str(second)


BATCHES: list[tuple[str, Any, str | None]] = [
    ("an empty list", lambda bench: counted(bench, [], 0), None),
    ("a list with None", lambda bench: counted(bench, [GOOD, None], 2), "post 2: expected an object"),
    ("lists within lists", lambda bench: counted(bench, [[["Jordan"]]], 1), "post 1: expected an object"),
    (
        "all forms at once",
        lambda bench: counted(bench, ["Jordan", ["Jordan"], GOOD, {"tokens": []}], 4),
        None,
    ),
    (
        "lengths from 0 to 500",
        lambda bench: counted(bench, ["", "a " * 500, "", "a", "a " * 70], 5, batch_size=5),
        None,
    ),
    (
        "fewer pictures than posts",
        lambda bench: counted(bench, ["a", "b"], 2, images=[None]),
        "images: expected an entry",
    ),
    (
        "pictures that are a number",
        lambda bench: counted(bench, ["a"], 1, images=7),
        "images: expected an entry",
    ),
    ("contexts for none", lambda bench: counted(bench, ["a"], 1, context=[]), "context: expected an entry"),
    (
        "a batch size of 0",
        lambda bench: counted(bench, ["a"], 1, batch_size=0),
        "batch_size: expected a number of posts > 0",
    ),
    (
        "a threshold of 2",
        lambda bench: counted(bench, ["a"], 1, threshold=2),
        "threshold: expected a score in 0..1",
    ),
    (
        "a threshold of no number",
        lambda bench: counted(bench, ["a"], 1, threshold="x"),
        "threshold: expected a score",
    ),
    ("an unknown option", lambda bench: counted(bench, ["a"], 1, stride=7), "expected some of allow_urls"),
    (
        "an unknown way with pictures",
        lambda bench: counted(bench, ["a"], 1, broken_pictures="x"),
        "expected 'raise' or 'skip'",
    ),
    (
        "an unknown way with posts",
        lambda bench: counted(bench, ["a"], 1, broken_posts="x"),
        "expected 'raise' or 'return'",
    ),
    ("bad posts, returned", with_errors_returned, None),
    ("a generator of nothing", lambda bench: counted(bench, iter(()), 0), None),
    (
        "a generator with a bad post",
        lambda bench: counted(bench, iter([GOOD, 7]), 2),
        "post 2: expected an object",
    ),
    ("a number for posts", lambda bench: bench.pipe(7), "post 1: expected an object"),
    ("None for posts", lambda bench: bench.pipe(None), "post 1: expected an object"),
    ("bytes for a post", lambda bench: bench.pipe(b"Jordan"), "post 1: expected an object"),
    ("a row that the data set cannot read", row_of_a_data_set, "post 2: expected a row of the data set"),
    (
        "labels of another length",
        lambda bench: bench.parts[1](["Jordan"], labels=[["O", "O"]]),
        "labels of text 0: expected one",
    ),
    (
        "unknown labels",
        lambda bench: bench.parts[1](["Jordan"], labels=[["B-X"]]),
        "labels of text 0: expected one of",
    ),
    ("no texts", lambda bench: bench.parts[1]([]), "expected at least one"),
    (
        "a number for a text",
        lambda bench: bench.parts[1]([7]),
        "text 0: expected a string or a list of strings",
    ),
    ("None for texts", lambda bench: bench.parts[1](None), "expected a string or a list"),
    ("a number for texts", lambda bench: bench.parts[1](7), "expected a string or a list"),
    (
        "pictures for two texts",
        lambda bench: bench.parts[1](["a"], images=[None, None]),
        "images: expected a list with an entry",
    ),
    ("outputs of another text", lambda bench: outputs_of_another(bench), "expected tags of 2 words, found 1"),
]


def outputs_of_another(bench: Bench) -> None:
    model, processor = bench.parts
    processor.post_process_entities(model(**processor(["Jordan"])), text=["Jordan Paris"])


def cases() -> Iterator[Case]:
    """The rows."""
    for name, text in ODD_TEXTS.items():
        yield Case("text", name, lambda bench, text=text: bench.among_others({"text": text}))
    for name, words in ODD_WORDS.items():
        yield Case("words", name, lambda bench, words=words: bench.among_others({"tokens": words}))
    for name, value in ODD_IDS.items():
        yield Case("id", name, lambda bench, value=value: bench.among_others(GOOD | {"id": value}))
    for name, (post, error) in NO_POSTS.items():
        yield Case("post", name, lambda bench, post=post: bench.among_others(post), error)
    for name, context in NO_CONTEXTS.items():
        run = lambda bench, context=context: bench.among_others(
            GOOD | {"context": context}, with_contexts=True
        )
        yield Case("context", name, run, "expected 'context' to be a string or a list of strings")
    for name, context in ODD_CONTEXTS.items():
        run = lambda bench, context=context: bench.among_others(
            GOOD | {"context": context}, with_contexts=True
        )
        yield Case("context", name, run)
    for name, run, error in BATCHES:
        yield Case("batch", name, run, error)
    broken = "the caller's own stream broke"
    yield Case(
        "batch",
        "a generator that raises",
        lambda bench: list(bench.pipe(a_stream_that_ends_badly())),
        broken,
        True,
    )
