"""Answers the requests of an Inference Endpoint; stands in a model's folder, where it needs no `mmner`.

A request is ``{"inputs": post or list of posts, "parameters": {"threshold": 0.5}}``. A post is a text, or
an object with ``text`` or ``tokens``, and where it has them ``image`` or ``images``, and ``context``. A
picture is bytes, or their base64, with or without ``data:image/...;base64,`` before it: nothing is opened or
fetched.
"""

import base64
from typing import Any

from transformers import pipeline

KEYS = ("text", "tokens", "image", "images", "context")
PARAMETERS = ("threshold", "precision", "effects", "aggregation_strategy")
MOST_POSTS, MOST_PICTURES, MOST_CHARACTERS, MOST_BYTES = 64, 128, 100_000, 50_000_000
"""Of one request, all its posts together; bytes are those of its pictures."""


class EndpointHandler:
    """What an endpoint makes once and then calls for each request.

    Args:
        path: the model's folder.
    """

    def __init__(self, path: str = "") -> None:
        task: Any = "multimodal-ner"  # which transformers knows by the model's config
        self.ner = pipeline(task, model=path or ".", trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> Any:
        """The entities of a post, or a list of those of each post; ``{"error": ...}`` in place of what cannot
        be answered: of the whole request, or of one post that cannot be read.
        """
        try:
            inputs, parameters = data.get("inputs"), data.get("parameters") or {}
            if not isinstance(parameters, dict) or not set(parameters) <= set(PARAMETERS):
                expected = f"an object with some of {', '.join(PARAMETERS)}"
                raise ValueError(f"parameters: expected {expected}; found {parameters!r:.80}")
            posts = _bounded(inputs if isinstance(inputs, list) else [inputs])
            found = self.ner(posts, batch_size=8, broken_posts="return", **parameters)
            answers = [{"error": str(one)} if isinstance(one, Exception) else one for one in found]
            return answers if isinstance(inputs, list) else answers[0]
        except (TypeError, ValueError) as error:
            return {"error": str(error)}


def _bounded(inputs: list[Any]) -> list[dict[str, Any]]:
    """The posts as rows that hold their pictures' bytes; of a request that asks too much, ValueError."""
    if len(inputs) > MOST_POSTS:
        raise ValueError(f"inputs: expected at most {MOST_POSTS} posts, found {len(inputs)}")
    rows = [_row(post, number) for number, post in enumerate(inputs, start=1)]
    pictures = [picture for row in rows for picture in row["images"]]
    texts = [text for row in rows for key in ("text", "tokens", "context") for text in _listed(row.get(key))]
    for what, most, found in (
        ("pictures", MOST_PICTURES, len(pictures)),
        ("bytes of pictures", MOST_BYTES, sum(map(len, pictures))),
        ("characters", MOST_CHARACTERS, sum(len(str(text)) for text in texts)),
    ):
        if found > most:
            raise ValueError(f"inputs: expected at most {most:,} {what}, found {found:,}")
    return rows


def _row(post: Any, number: int) -> dict[str, Any]:
    row = {"text": post} if isinstance(post, str) else post
    if not isinstance(row, dict) or not set(row) <= set(KEYS):
        found = f"the keys {sorted(map(str, row))}" if isinstance(row, dict) else type(row).__name__
        expected = f"a text, or an object with some of the keys {', '.join(KEYS)}"
        raise ValueError(f"post {number}: expected {expected}; found {found}")
    given = [*_listed(row.get("image")), *_listed(row.get("images"))]
    return row | {"image": None, "images": [_content(picture, number) for picture in given]}


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _content(picture: Any, number: int) -> bytes:
    """The bytes of a picture, which is never opened by a name."""
    if isinstance(picture, (bytes, bytearray)):
        return bytes(picture)
    try:
        text = picture.partition(";base64,")[2] if picture.startswith("data:image/") else picture
        return base64.b64decode("".join(text.split()), validate=True)  # some encoders break lines
    except (AttributeError, TypeError, ValueError) as error:
        expected = "a picture as base64 or as a data: address; paths and other addresses are not opened"
        raise ValueError(f"post {number}: expected {expected}; found {str(picture)!r:.60}") from error
