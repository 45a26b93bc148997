"""What a model or a reader says of a corpus's pictures, as JSON lines of contexts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
from PIL import Image
from tqdm.auto import tqdm
from transformers import pipeline

from ..escaping import one_line
from ..files import json_line, parsed, picture_content
from ..model.images_mmner import load_picture, pictures_of
from ..model.picture_text_mmner import read_text
from ..names import path_or_hub
from .loading import device_named
from .picture_reader import RapidOCRReader

PROMPT = "Describe this picture in one sentence."
"""What a model that chats is asked, unless it is told otherwise."""
MOST_CHARACTERS = 1000
"""A context of one picture is cut there, whatever its model does."""
_BEGINNING = b'{"id": '  # of every line that is written here


class Transcriber:
    """What stands in a picture, its lines in reading order, as the context ``ocr``; see `RapidOCRReader`."""

    model, context, settings = "rapidocr", "ocr", ("model",)

    def __init__(self) -> None:
        self.reader = RapidOCRReader()

    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        return [read_text(picture, self.reader).text for picture in pictures]


@dataclass
class Captioner:
    """A model that chats (LLaVA, Idefics, Qwen-VL), or that captions a picture (BLIP).

    It is loaded when it is first needed, and no code that comes with it is run.

    Attributes:
        model: a folder, or an id on the Hub.
        prompt: what a model that chats is asked (default `PROMPT`). Others get it as it is, for example the
            beginning of a caption; by default they get the picture alone.
        max_new_tokens: length of a caption.
        device: cpu, cuda, cuda:1, mps; None: an accelerator if there is one.
    """

    model: str
    prompt: str | None = None
    max_new_tokens: int = 40
    device: str | None = None
    context, settings = "caption", ("model", "prompt", "max_new_tokens")

    @cached_property
    def pipeline(self) -> Any:
        """The pipeline of transformers; ValueError where there is no such model, or it is of another kind."""
        safe: Any = {"trust_remote_code": False, "model_kwargs": {"use_safetensors": True}}
        try:
            with path_or_hub(self.model, kind="model"):
                found = pipeline("image-text-to-text", self.model, device=device_named(self.device), **safe)
            if found.model.config.model_type == "git":
                raise ValueError("GIT, whose prompts the pipeline ends as if they were whole captions")
        except (OSError, ValueError, TypeError, ImportError, RuntimeError, AssertionError) as error:
            expected = "a model for transformers' pipeline image-text-to-text and a --device of this computer"
            raise ValueError(f"--reader {self.model}: expected {expected}, found {error}") from error
        return found

    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        """A caption for each of some RGB pictures, always the same one (no sampling), without the prompt.

        Raises:
            ValueError: there is no such model, or it cannot do with the prompt.
        """
        run = self.pipeline
        chats = getattr(run.processor, "chat_template", None) is not None
        prompt = self.prompt or (PROMPT if chats else "")
        greedy = {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        how = {"return_full_text": False, "generate_kwargs": greedy}
        try:
            if not chats:
                found = run(images=pictures, text=[prompt] * len(pictures), **how)
            else:  # one by one: what the pipeline makes of a batch depends on its pictures' sizes
                ask = {"type": "text", "text": prompt}
                contents = [[{"type": "image", "image": picture}, ask] for picture in pictures]
                found = [run([{"role": "user", "content": one}], **how)[0] for one in contents]
        except (TypeError, ValueError) as error:
            expected = "one that the model can do with (some have a form of their own, see its card)"
            raise ValueError(f"--prompt {prompt!r}: expected {expected}; {error}") from error
        return [one["generated_text"] for one in found]


def write_contexts(
    splits: Mapping[str, datasets.Dataset],
    describer: Captioner | Transcriber,
    *,
    output_file: str | Path,
    batch_size: int = 8,
) -> str:
    """Describe the pictures of posts, each picture once; says what became of the posts.

    A post has a line ``{"id", "caption" or "ocr", "pictures"}`` and what made it; one with several pictures
    has their texts one after the other, one with a picture that cannot be read gets no line. A
    file that is there is gone on with; a last line that was cut off, as by a process that was killed, is
    taken out of it.

    Args:
        splits: with the columns of a corpus; pictures not decoded.
        batch_size: pictures that the model gets at a time, at most.

    Raises:
        ValueError: the file's folder does not exist, or the file is another one or made by another model or
            setting; two posts of one id, or a post and its line, have not the same pictures; see `Captioner`,
            `RapidOCRReader`.
    """
    path, made_by = Path(output_file), {name: getattr(describer, name) for name in describer.settings}
    posts = _posts_in(path, made_by)
    texts = {name: text for pictures in posts.values() for name, text in pictures.items()}
    known, described, without, broken = len(posts), len(texts), 0, list[str]()
    rows = iter(tqdm(chain.from_iterable(splits.values()), "pictures", sum(map(len, splits.values()))))
    while part := list(islice(rows, batch_size)):
        read, new = dict[str, list[str]](), dict[str, Image.Image]()
        for row in part:
            post = str(row["id"])
            try:
                pictures = {sha256(picture_content(one)).hexdigest()[:16]: one for one in pictures_of(row)}
                new |= {name: load_picture(one) for name, one in pictures.items() if name not in texts}
            except (OSError, ValueError, TypeError) as error:  # a broken picture, a path of no file
                broken.append(one_line(f"{post}: {error}"))
                continue
            without += not pictures
            names = list(pictures)
            if names and list(posts.get(post) or read.setdefault(post, names)) != names:
                expected = f"the pictures of other posts of this id and of its line in {path}, found others"
                raise ValueError(f"post {post!r}: expected {expected}; each post needs an id of its own")
        waiting = iter(new)
        while some := list(islice(waiting, batch_size)):  # posts may have many pictures
            said = describer([new[name] for name in some])
            texts |= zip(some, (one_line(text)[:MOST_CHARACTERS].strip() for text in said), strict=True)
        with path.open("ab") as file:
            for post, names in read.items():
                posts[post] = {name: texts[name] for name in names}
                entry = {"id": post, describer.context: " ".join(posts[post].values()), **made_by}
                file.write(json_line(entry | {"pictures": posts[post]}).encode() + b"\n")
    told = f"{path}: {len(posts)} posts with a context, {len(posts) - known} of them new"
    told += f"\n{len(texts) - described} pictures described; without a context: {without} posts that have"
    empty = sum(not any(pictures.values()) for pictures in posts.values())
    told += f" no picture, {len(broken)} whose picture is broken; {empty} contexts are empty"
    return f"{told}\nthe first broken one is that of {broken[0]}" if broken else told


def _posts_in(path: Path, made_by: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What a file says of pictures, by post; a last line that was cut off is taken out of it."""
    if not path.parent.is_dir() or path.is_dir():
        raise ValueError(f"--output_file {path}: expected a file in a folder that exists; make the folder")
    posts = dict[str, dict[str, str]]()
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith(b"\n") and _BEGINNING.startswith(lines[-1][: len(_BEGINNING)]):
        os.truncate(path, path.stat().st_size - len(lines.pop()))
    for number, line in enumerate(lines, start=1):
        place = f"--output_file {path}, line {number}: expected"
        try:
            entry = parsed(line.decode())
            posts[str(entry["id"])] = dict(entry["pictures"])
            theirs = {name: entry[name] for name in made_by}
        except (ValueError, TypeError, KeyError) as error:
            found = line.decode(errors="replace")[:80]
            raise ValueError(f"{place} a line of this command, found {found!r}; give another file") from error
        if theirs != made_by:
            raise ValueError(f"{place} contexts made with {made_by}, found {theirs}; give another file")
    return posts
