"""Posts: texts, words, ids, contexts, chats; and batches of posts."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.small_posts import assert_same

from .cases import GOOD, Bench, Case, refused, taken

ODD_TEXTS: dict[str, str] = {
    "lone surrogates": "\ude00 Jordan \ud83d today",
    "NUL": "Jordan\0Paris",
    "every control character": "".join(map(chr, [*range(32), *range(127, 160)])),
    "terminal commands": "\x1b[2J\x1b]0;title\x07Jordan",
    "families of joined emoji": "👨‍👩‍👧‍👦" * 50,
    "only combining marks": "\u0301" * 300,
    "a letter under many marks": "Z" + "\u0335\u0321\u0317" * 500,
    "right-to-left override": "Jordan \u202eisiraP\u202c \u2066\u2067 today",
    "empty": "",
    "white space of every kind": " \t\r\n\x0b\x0c\x1c\x85\xa0\u2003\u2028\u2029\u3000",
    "no characters": "\ue000\uffff\ufffe\U0010ffff",
    "a word of 100,000 letters": "a" * 100_000,
    "a word of 20,000 letters of three bytes": "あ" * 20_000,
    "5,000 words": "Jordan posts from Paris " * 1_250,
    "the tokenizer's own tokens": "[CLS] [SEP] [PAD] [MASK] [UNK] <s> </s>",
    "HTML and templates": "<script>alert(1)</script>&amp; {{ 7 * 7 }} ${x} %s %n {0.__class__}",
    "no language": "Ξεσκεπάζω Ⅷ ½ ﬁ ｆｕｌｌ ǆ İi ß",
}
ODD_WORDS: dict[str, Any] = {
    "no words": [],
    "empty words among others": ["Jordan", "", "  ", "Paris"],
    "words with spaces and line ends": ["New York", "a\nb\tc", "\0", "\ud83d"],
    "a tuple of NumPy's words": (np.str_("Jordan"), "Paris"),
    "5,000 words": ["Jordan"] * 5_000,
}
ODD_IDS: dict[str, Any] = {
    "an object": {"a": [1]},
    "half an emoji": "\ud83d",
    "a path": "../../x",
    "no number": float("nan"),
    "a huge number": 10**4000,
}
IMAGE = {"type": "image"}
NO_POSTS: dict[str, Any] = {
    "None": None,
    "a set": {"Jordan"},
    "words and numbers": ["Jordan", 2],
    "an object with other keys": {"txt": "Jordan", 7: 1},
    "text and tokens": {"text": "a", "tokens": ["a"]},
    "tokens that are a string": {"tokens": "Jordan"},
    "tokens in lists": {"tokens": [["Jordan"]]},
    "a chat without a text": [{"role": "user", "content": []}],
    "a chat with a part that is a string": [{"role": "user", "content": ["Jordan"]}],
    "a chat with two pictures in a part": [{"role": "user", "content": [IMAGE | {"url": "a", "path": "b"}]}],
    "a message without a role": [{"content": "Jordan"}],
}
NO_CONTEXTS: dict[str, Any] = {"a number": 7, "bytes": b"x", "numbers": [1], "an object": {"a": 1}}
ODD_CONTEXTS: dict[str, Any] = {
    "half an emoji": "\ud83d",
    "empty": ["", " "],
    "20,000 words": "Paris " * 20_000,
    "1,000 texts": ["Paris"] * 1_000,
}


def with_context(bench: Bench, context: Any) -> None:
    bench.among_others(GOOD | {"context": context}, with_contexts=True)


class RowsThatBreak:
    """A data set one of whose rows cannot be read, as one of `datasets` with a broken picture."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        if index == 1:
            raise OSError("image file is truncated")
        return GOOD


def bad_posts_returned(bench: Bench, bad: Any) -> None:
    """With `broken_posts="return"`, bad posts cost nothing but themselves."""
    first, second, third = bench.pipe([GOOD, bad, GOOD], broken_posts="return", batch_size=2)
    assert_same([first, third], [bench.good, bench.good])
    assert "post 2: expected 'text' to be a string" in str(second)


BATCHES: dict[str, Any] = {
    "a list with None": lambda: [GOOD, None],
    "a generator with a bad post": lambda: iter([GOOD, 7]),
    "lists within lists": lambda: ["Jordan", [["Jordan"]]],
    "a row that the data set cannot read": RowsThatBreak,
}


def cases() -> Iterator[Case]:
    yield from taken("text", ODD_TEXTS, lambda bench, text: bench.among_others({"text": text}))
    yield from taken("words", ODD_WORDS, lambda bench, words: bench.among_others({"tokens": words}))
    yield from taken("id", ODD_IDS, lambda bench, value: bench.among_others(GOOD | {"id": value}))
    yield from refused("post", "^post 2: expected", NO_POSTS, lambda bench, post: bench.among_others(post))
    yield from refused("context", "^post 2: expected 'context' to be", NO_CONTEXTS, with_context)
    yield from taken("context", ODD_CONTEXTS, with_context)
    yield from taken("batch", {"bad posts, returned": {"text": 7}}, bad_posts_returned)
    lengths = {"no posts": [], "lengths from 0 to 500": ["", "a " * 500, "a " * 70, ["Jordan"], GOOD]}
    yield from taken("batch", lengths, lambda bench, posts: list(bench.pipe(posts, batch_size=5)))
    yield from refused("batch", "^post 2: expected", BATCHES, lambda bench, make: list(bench.pipe(make())))
