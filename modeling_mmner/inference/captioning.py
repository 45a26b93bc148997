"""Captions of a corpus's pictures, by a model of transformers that writes text about pictures, as JSON lines
of contexts.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
from PIL import Image
from tqdm.auto import tqdm
from transformers import pipeline

from ..escaping import one_line
from ..files import json_line, parsed, picture_content
from ..model.images_mmner import PICTURE_COLUMNS, load_picture, pictures_of
from .loading import device_named

PROMPT = "Describe this picture in one sentence."
"""What a model that chats is asked, unless it is told otherwise."""
MOST_CHARACTERS = 1000
"""A caption of one picture is cut there, whatever its model does."""
_BEGINNING = b'{"id": '  # of every line that is written here


class Captioner:
    """The pipeline of transformers for a model that chats (LLaVA, Idefics, Qwen-VL), or that captions a
    picture (BLIP). No code that comes with a model is run.

    Args:
        model: a folder, or an id on the Hub.
        prompt: what a model that chats is asked (default `PROMPT`). Others get it as it is, for example the
            beginning of a caption; by default they get the picture alone.
        max_new_tokens: length of a caption.
        device: cpu, cuda, cuda:1, mps; None: an accelerator if there is one.

    Raises:
        ValueError: there is no such model, or it is of another kind.
    """

    def __init__(self, model: str, prompt: str | None, max_new_tokens: int, device: str | None) -> None:
        try:
            self.pipeline = pipeline(
                "image-text-to-text",
                model,
                device=device_named(device),
                trust_remote_code=False,  # else transformers asks at the terminal
                model_kwargs={"use_safetensors": True},
            )
            if self.pipeline.model.config.model_type == "git":
                raise ValueError("GIT, whose prompts the pipeline ends as if they were whole captions")
        except (OSError, ValueError, TypeError, ImportError, RuntimeError, AssertionError) as error:
            raise ValueError(
                f"--model {model}: expected the folder or Hub id of a model for transformers' pipeline"
                " image-text-to-text, such as BLIP, LLaVA or Qwen-VL, and a --device of this computer, found"
                f" {error}"
            ) from error
        self.chats = getattr(self.pipeline.processor, "chat_template", None) is not None
        self.prompt = prompt or (PROMPT if self.chats else "")
        greedy = {"max_new_tokens": max_new_tokens, "do_sample": False}
        self.how = {"return_full_text": False, "generate_kwargs": greedy}

    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        """A caption for each of some RGB pictures, always the same one (no sampling), without the prompt.

        Raises:
            ValueError: the model cannot do with the prompt.
        """
        try:
            if not self.chats:
                texts = [self.prompt] * len(pictures)
                found = self.pipeline(images=pictures, text=texts, **self.how)
            else:  # one by one: what the pipeline makes of a batch depends on its pictures' sizes
                found = [self.pipeline(self._chat(picture), **self.how)[0] for picture in pictures]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"--prompt {self.prompt!r}: expected one that the model can do with (some have a form of"
                f" their own, see its card); {error}"
            ) from error
        return [one["generated_text"] for one in found]

    def _chat(self, picture: Image.Image) -> list[dict[str, Any]]:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": self.prompt}]
        return [{"role": "user", "content": content}]


def caption(
    splits: Mapping[str, datasets.Dataset],
    *,
    model: str,
    output_file: str | Path,
    prompt: str | None = None,
    max_new_tokens: int = 40,
    batch_size: int = 8,
    device: str | None = None,
) -> str:
    """Write a line ``{"id", "caption", "model", "prompt", "max_new_tokens", "pictures"}`` for each post with
    pictures, each picture described once; says what became of the posts.

    A file that is there is gone on with; a last line that was cut off, as by a process that was killed, is
    taken out of it. A post with several pictures has their captions one after the other. One with a picture
    that cannot be read gets no line.

    Args:
        splits: with the columns of a corpus; pictures not decoded.
        model, prompt, max_new_tokens, device: see `Captioner`.
        batch_size: pictures that the model gets at a time, at most.

    Raises:
        ValueError: the file's folder does not exist, or the file is another one or made by another model or
            setting; two posts of one id, or a post and its line, have not the same pictures; see `Captioner`.
    """
    path, made_by = Path(output_file), {"model": model, "prompt": prompt, "max_new_tokens": max_new_tokens}
    posts = _posts_in(path, made_by)
    captions = {name: text for pictures in posts.values() for name, text in pictures.items()}
    captioner = Captioner(model, prompt, max_new_tokens, device)
    counts, broken = Counter[str](), list[str]()
    for rows in _batches(splits, batch_size):
        waiting: dict[str, list[str]] = {}
        new: dict[str, Image.Image] = {}
        for row in rows:
            post = str(row["id"])
            try:
                pictures = {_name(one): one for one in pictures_of(row)}
                new |= {name: load_picture(one) for name, one in pictures.items() if name not in captions}
            except (OSError, ValueError, TypeError) as error:  # a broken picture, a path of no file
                broken.append(one_line(f"{post}: {error}"))
                continue
            _check_same(post, list(pictures), posts.get(post) or waiting.get(post), path)
            counts["without"] += not pictures
            if pictures and post not in posts:
                waiting[post] = list(pictures)
        captions |= _described(captioner, new, batch_size)
        with path.open("ab") as file:
            for post, names in waiting.items():
                posts[post] = {name: captions[name] for name in names}
                entry = {"id": post, "caption": " ".join(posts[post].values()), **made_by}
                file.write(json_line(entry | {"pictures": posts[post]}).encode() + b"\n")
        counts.update(new=len(waiting), pictures=len(new))
    return "\n".join(
        [
            f"{path}: {len(posts)} posts with a caption, {counts['new']} of them new",
            f"{counts['pictures']} pictures described; without a caption: {counts['without']} posts that have"
            f" no picture, {len(broken)} whose picture is broken",
            *(f"the first broken one is that of {one}" for one in broken[:1]),
        ]
    )


def _described(
    captioner: Callable[[list[Image.Image]], list[str]], pictures: dict[str, Image.Image], size: int
) -> dict[str, str]:
    names, texts = list(pictures), list[str]()
    for start in range(0, len(names), size):  # posts may have many pictures
        texts += captioner([pictures[name] for name in names[start : start + size]])
    return {name: one_line(text)[:MOST_CHARACTERS].strip() for name, text in zip(names, texts, strict=True)}


def _batches(splits: Mapping[str, datasets.Dataset], size: int) -> Iterator[datasets.Dataset]:
    for split, rows in splits.items():
        rows = rows.select_columns([name for name in ("id", *PICTURE_COLUMNS) if name in rows.features])
        for start in tqdm(range(0, len(rows), size), f"captions of {split}"):
            yield rows.select(range(start, min(start + size, len(rows))))


def _check_same(post: str, pictures: list[str], known: Collection[str] | None, path: Path) -> None:
    """Raises: ValueError: another post of this id has other pictures."""
    if pictures and known and pictures != list(known):
        raise ValueError(
            f"post {post!r}: expected the pictures of other posts of this id and of its line in {path}, found"
            " others; contexts are found by id: give each post its own id, and each corpus its own file"
        )


def _posts_in(path: Path, made_by: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The captions of pictures by the ids of the posts in a file, after its last line was taken out if it was
    cut off.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise ValueError(
            f"--output_file {path}: expected a file in a folder that exists, found none; make the folder"
            " first"
        )
    content = path.read_bytes() if path.exists() else b""
    whole, rest = content[: content.rfind(b"\n") + 1], content[content.rfind(b"\n") + 1 :]
    if rest[: len(_BEGINNING)] != _BEGINNING[: len(rest)]:
        whole, rest = content, b""  # which is somebody else's
    posts = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        place = f"--output_file {path}, line {number}"
        try:
            entry = parsed(line.decode())
            posts[str(entry["id"])] = dict(entry["pictures"])
            theirs = {name: entry[name] for name in made_by}
        except (ValueError, TypeError, KeyError) as error:
            found = line.decode(errors="replace")
            raise ValueError(
                f"{place}: expected a line that this command wrote, found {found!r:.80}; give another file,"
                " or remove this one"
            ) from error
        for name in (name for name in made_by if theirs[name] != made_by[name]):
            raise ValueError(
                f"{place}: expected captions made with {name} {made_by[name]!r}, to go on with them, found"
                f" one with {name} {theirs[name]!r}; give another file, or the {name} of this one"
            )
    if rest:
        os.truncate(path, len(whole))
    return posts


def _name(picture: Mapping[str, Any]) -> str:
    """The beginning of the SHA-256 of a picture's bytes."""
    return hashlib.sha256(picture_content(picture)).hexdigest()[:16]
