"""The forms in which a post may be given -> a row ``{"text" or "tokens", "images", "context"}``."""

import base64
import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from .images_mmner import PictureError, fetch_picture, is_missing, is_url, listed, pictures_of

_KEYS = {"image": ("image", "images"), "context": ("context",)}
_CHAT_KEYS = {"text": ["text"], "image": ["image", "url", "path", "base64"], "image_url": ["image_url"]}
_LIKE_A_PICTURE = re.compile(
    r"(im(a?ge?|g)s?|pic(ture)?s?|photo(graph)?s?|fotos?|bild(er)?|jpe?g|png|webp)"
    r"(_?(path|file|url|uri|bytes|base64|data)s?)*"
)


class PostError(ValueError):
    """A post that cannot be read; the text says which, what was expected and what was found."""


def checked_post(post: Any, number: int) -> dict[str, Any]:
    """The post, which has a text or tokens, or PostError is raised; `number` (from 1) names it in errors."""
    if not isinstance(post, dict):
        found = type(post).__name__
        raise PostError(f"post {number}: expected an object with 'text' or 'tokens', found {found}")
    text, tokens = post.get("text"), post.get("tokens")
    if (text is None) == (tokens is None):
        found = "both" if text is not None else f"neither; its keys are {sorted(map(str, post))}"
        raise PostError(f"post {number}: expected either 'text' or 'tokens', found {found}")
    if text is not None and not isinstance(text, str):
        raise PostError(f"post {number}: expected 'text' to be a string, found {type(text).__name__}")
    if tokens is not None and not is_words(tokens):
        raise PostError(f"post {number}: expected 'tokens' to be a list of strings, found {tokens!r:.80}")
    return post


@lru_cache(maxsize=1024)
def meant_by(key: Any) -> str | None:
    """The key, image or context, that is meant by one like it; None: neither."""
    name = str(key).lower()
    known = [] if name.endswith("id") else [name for names in _KEYS.values() for name in names]
    close = get_close_matches(name, known, n=1, cutoff=0.8)
    return "image" if _LIKE_A_PICTURE.fullmatch(name) else close[0].removesuffix("s") if close else None


def check_key(post: Mapping[str, Any], wanted: str, number: int) -> None:
    """Check that a post has its picture, or its context, under a key that is read, where it has one.

    Beside the right key another is no matter: the rows of a data set have columns of their own.

    Raises:
        PostError: it has it under another key alone; the text names both.
    """
    if any(key in post for key in _KEYS[wanted]):
        return
    for key, value in post.items():
        is_picture = wanted == "image" and isinstance(value, Image.Image)
        if not is_missing(value) and (is_picture or meant_by(key) == wanted):
            keys = " or ".join(map(repr, _KEYS[wanted]))
            hint = f"which nobody reads; rename it, as --columns {wanted}={key} does for annotate"
            raise PostError(f"post {number}: expected the key {keys}, found {key!r}, {hint}")


def as_row(post: Any, number: int) -> Any:
    """A post in any of its forms as ``{"text" or "tokens", "images"}``."""
    post = dict(post.items()) if _is_series(post) else listed(post)
    if isinstance(post, str):
        return {"text": post}
    if is_chat(post):
        return _chat_row(post, number)
    if is_words(post):
        return {"tokens": list(post)}
    # The rows that `datasets.Dataset.map` passes are no dicts.
    if not isinstance(post, Mapping):
        return post
    return {key: None if is_missing(value) else listed(value) for key, value in post.items()}


def _is_series(given: Any) -> bool:
    """Whether it is a row of a pandas data frame, which is no Mapping."""
    keys = given.keys() if hasattr(given, "iloc") and given.ndim == 1 else ()
    return "text" in keys or "tokens" in keys


def _chat_row(messages: Sequence[Mapping[str, Any]], number: int) -> dict[str, Any]:
    """The texts and pictures that the user of a chat sends."""
    texts, pictures = [], []
    for content in (message["content"] for message in messages if message["role"] == "user"):
        for part in content if isinstance(content, (list, tuple)) else [{"type": "text", "text": content}]:
            kind = str(part.get("type")) if isinstance(part, Mapping) else ""
            given = [(key, part[key]) for key in _CHAT_KEYS.get(kind, ()) if part.get(key) is not None]
            match given:
                case [("text", str(text))]:
                    texts.append(text)
                case [("base64", str(encoded))]:
                    pictures.append("data:image/*;base64," + encoded.rpartition("base64,")[2])
                case [("image_url", {"url": picture})] | [(_, picture)] if kind != "text":
                    pictures.append(picture)
                case _:
                    expected = "parts {'type': 'text', 'text': ...} and {'type': 'image', 'image' (or 'url',"
                    expected += " 'path', 'base64'): ...} in a chat"
                    raise PostError(f"post {number}: expected {expected}, found {part!r:.80}")
    if not texts:
        roles = [message["role"] for message in messages]
        raise PostError(f"post {number}: expected a chat with a text of its user, found roles {roles}")
    return {"text": "\n".join(texts), "images": pictures}


def _place_of(picture: Any) -> Any:
    """The path or address that a picture is given by; any other picture as it is."""
    is_path = isinstance(picture, Mapping) and picture.get("bytes") is None
    return picture.get("path") if is_path else picture


def fetched(picture: Any, *, allow_urls: bool, timeout: float) -> Any:
    """The bytes of a picture that is given by an address; any other picture as it is."""
    address = _place_of(picture)
    if not isinstance(address, str):
        return picture
    if is_url(address):
        if not allow_urls:
            found = "found one on the web; allow_urls=True fetches it"
            raise PictureError(f"picture {address:.300}: expected one at hand, {found}")
        return fetch_picture(address, timeout=timeout)
    if address.startswith("data:image/"):
        try:
            return base64.b64decode(address.partition(",")[2])
        except ValueError as error:
            raise PictureError(f"picture {address:.40}...: expected base64, found {error}") from error
    return picture


def file_within(path: str | os.PathLike[str], folder: Path, *, follow_links: bool = False) -> Path | None:
    """A file by its path, which may begin in the folder.

    None where there is none, or where the path, or a link on it, leads out of the folder. The files of a
    snapshot in the Hub's cache are links to the blobs of their repository, and so belong to it.

    Args:
        follow_links: take a link that itself lies in the folder, wherever it leads.
    """
    try:
        root = folder.resolve()
        if root.parent.name == "snapshots" and "--" in root.parents[1].name:
            root = root.parents[1]
        for found in (folder / path, Path(path).absolute()):
            places = [found, found.parent] if follow_links else [found]
            if found.is_file() and any(place.resolve().is_relative_to(root) for place in places):
                return found
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, links in a circle
        pass
    return None


def within(picture: Any, folder: Path) -> Any:
    """A picture given by a path as that of a file in a folder, or in ``images`` there, see `file_within`, or
    PictureError is raised; any other as it is."""
    given = _place_of(picture)
    if not isinstance(given, (str, os.PathLike)):
        return picture
    if (found := file_within(given, folder) or file_within(given, folder / "images")) is None:
        expected = f"a file in {folder}, found none; --image_dir names another"
        raise PictureError(f"picture {os.fspath(given)!s:.300}: expected {expected}")
    return str(found)


def is_chat(post: Any) -> bool:
    """Whether a post is the messages of a chat; rows, which have texts of their own, are none."""
    return isinstance(post, (list, tuple)) and len(post) > 0 and all(map(_is_message, post))


def _is_message(given: Any) -> bool:
    is_row = isinstance(given, Mapping)
    return is_row and {"role", "content"} <= given.keys() and not {"text", "tokens"} & given.keys()


def is_words(post: Any) -> bool:
    return isinstance(post, (list, tuple)) and all(isinstance(word, str) for word in post)


def with_beside(post: Any, *, number: int, images: Any = None, context: Any = None) -> Any:
    """A post with the pictures and the context given beside it."""
    images, context = (None if is_missing(given) else listed(given) for given in (images, context))
    if images is None and context is None:
        return post
    row = as_row(post, number)
    if not isinstance(row, dict) or not {"text", "tokens"} & row.keys():
        return row  # whoever reads it says what is wrong
    if images is not None:
        if pictures_of(row):
            raise PostError(f"post {number}: expected its pictures in the post or in images, found both")
        row["images"] = images
    if context is not None:
        if row.get("context"):
            raise PostError(f"post {number}: expected its context in the post or in context, found both")
        row["context"] = context
    return row


def context_of(post: Mapping[str, Any], number: int) -> Any:
    """The context of a post: a string, a list of strings, or None; of anything else PostError is raised."""
    check_key(post, "context", number)
    context = post.get("context")
    if context is None or isinstance(context, str) or is_words(context):
        return context
    expected = "'context' to be a string or a list of strings"
    raise PostError(f"post {number}: expected {expected}, found {context!r:.80}")


def is_one_post(given: Any) -> bool:
    """Whether it is one post, or nothing that could be many."""
    many = hasattr(given, "__iter__") or hasattr(given, "__getitem__")
    return isinstance(given, (str, bytes, Mapping)) or is_chat(given) or _is_series(given) or not many
