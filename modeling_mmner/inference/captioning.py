"""Captions of a corpus's pictures, by a model of transformers that writes text about pictures, as JSON lines
of contexts.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationMixin,
    PreTrainedTokenizerBase,
)

from ..escaping import one_line
from ..files import json_line
from ..model.images_mmner import PICTURE_COLUMNS, PictureError, load_picture, pictures_of
from .loading import to_device

PROMPT = "Describe this picture in one sentence."
"""What a model that chats is asked, unless it is told otherwise."""

MOST_CHARACTERS = 1000
"""A caption of one picture is cut there, whatever its model does."""

_BEGINNING = b'{"id": '  # of every line that is written here


class Captioner:
    """A model that describes pictures.

    Whatever `AutoModelForImageTextToText` loads: a model that only captions (BLIP, GIT, an encoder-decoder)
    or one that chats (LLaVA, Idefics, Qwen-VL). No code that comes with a model is run.

    Args:
        model_id: a folder, or an id on the Hub.
        prompt: what a model that chats is asked (default `PROMPT`). Others get it as it is, for example the
            beginning of a caption; by default they get the picture alone.
        max_new_tokens: length of a caption.
        device: cpu, cuda, cuda:1, mps; None: an accelerator if there is one.

    Raises:
        ValueError: there is no such model, it is of another kind, takes no prompt, or the computer has no
            such device.
    """

    def __init__(
        self, model_id: str, *, prompt: str | None = None, max_new_tokens: int = 40, device: str | None = None
    ) -> None:
        self.model_id, self.prompt, self.max_new_tokens = model_id, prompt, max_new_tokens
        # Said outright: where it is not, transformers asks at the terminal whether a model's own code may
        # run.
        own_code = {"trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(model_id, **own_code)
            if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
                raise ValueError(f"one of type {config.model_type!r}")
            self.processor = AutoProcessor.from_pretrained(model_id, **own_code)
            tokenizer = getattr(self.processor, "tokenizer", self.processor)
            if not isinstance(tokenizer, PreTrainedTokenizerBase):
                raise ValueError("one without a tokenizer")
            # Encoder-decoders have no processor, only its two halves, of which AutoProcessor gives the
            # tokenizer.
            is_half = tokenizer is self.processor
            self.image_processor = (
                AutoImageProcessor.from_pretrained(model_id, **own_code) if is_half else None
            )
            self.model = AutoModelForImageTextToText.from_pretrained(
                model_id, use_safetensors=True, **own_code
            ).eval()
        except (OSError, ValueError, ImportError) as error:  # some processors need a package of their own
            raise ValueError(
                f"--model {model_id}: expected the folder or Hub id of a model that transformers itself can"
                " load and that writes text about pictures (image-to-text or image-text-to-text, such as"
                f" BLIP, GIT, LLaVA), found {error}"
            ) from error
        if is_half and prompt is not None:
            raise ValueError(
                f"--prompt: expected none with {model_id}, which reads nothing but the picture, found"
                f" {prompt!r}"
            )
        # A batch is padded before the prompts, for a decoder goes on where they end.
        tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.pad_token or tokenizer.eos_token
        to_device(self.model, device)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        """A caption for each of some RGB pictures, always the same one (no sampling), without the prompt.

        Raises:
            ValueError: the model cannot do with the prompt, or there is not enough memory.
        """
        try:
            inputs = self._inputs(list(pictures)).to(self.model.device, dtype=self.model.dtype)
            self._check_sees(inputs)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"--model {self.model_id}: expected a model that captions a picture with the prompt"
                f" {self.prompt!r} (--prompt; some models have a form of their own for it, see its card);"
                f" {error}"
            ) from error
        # Decoded first, since some models write into their inputs.
        prompts = self._decoded(inputs["input_ids"]) if "input_ids" in inputs else [""] * len(pictures)
        try:
            texts = self._decoded(
                self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
            )
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"--batch_size: expected a batch that fits into memory, found {len(pictures)}; {error}"
            ) from error
        return [text.removeprefix(prompt) for text, prompt in zip(texts, prompts, strict=True)]

    def _check_sees(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Models that read a picture where a token stands for it caption without it, if it stands nowhere,
        and say nothing.
        """
        token = getattr(self.model.config, "image_token_id", None)
        # BLIP-2 and its kin put the token there themselves, in a `generate` of their own.
        if token is not None and type(self.model).generate is GenerationMixin.generate:
            ids = inputs.get("input_ids")
            if ids is None or not (ids == token).any(dim=1).all():
                raise ValueError("found nothing in it that stands for the picture")

    def _decoded(self, ids: torch.Tensor) -> list[str]:
        return [text.strip() for text in self.processor.batch_decode(ids, skip_special_tokens=True)]

    def _inputs(self, pictures: list[Image.Image]) -> Any:
        if self.image_processor is not None:
            return self.image_processor(pictures, return_tensors="pt")
        if getattr(self.processor, "chat_template", None) is None:
            text = None if self.prompt is None else [self.prompt] * len(pictures)
            inputs = self.processor(images=pictures, text=text, padding=True, return_tensors="pt")
            if text is not None and self.model.config.model_type == "git":
                # Its processor ends a prompt as if it were the whole caption. BLIP's does, too, but BLIP
                # takes that off itself.
                inputs |= {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
            return inputs
        question = {"type": "text", "text": self.prompt or PROMPT}
        chats = [
            [{"role": "user", "content": [{"type": "image", "image": picture}, question]}]
            for picture in pictures
        ]
        form = {
            "tokenize": True,
            "return_dict": True,
            "return_tensors": "pt",
            "processor_kwargs": {"padding": True},
        }
        return self.processor.apply_chat_template(chats, add_generation_prompt=True, **form)


class CaptionFile:
    """A file of captions, to go on with or to begin: a line ``{"id", "caption", **made_by, "pictures"}`` for
    each post.

    A last line that was cut off, as by a process that was killed, is taken out of the file.

    Args:
        path: of the file.
        made_by: what all its captions have in common: the model and its settings.

    Attributes:
        posts: the names of the pictures of the posts in the file, by the posts' ids.
        captions: by the pictures' names, which are hashes of their bytes.

    Raises:
        ValueError: its folder does not exist, it is no such file, or it is `made_by` something else.
    """

    def __init__(self, path: str | Path, made_by: Mapping[str, Any]) -> None:
        self.path, self.made_by = Path(path), dict(made_by)
        self.posts: dict[str, list[str]] = {}
        self.captions: dict[str, str] = {}
        if not self.path.parent.is_dir() or self.path.is_dir():
            raise ValueError(
                f"--output_file {path}: expected a file in a folder that exists, found none; make the folder"
                " first"
            )
        *lines, rest = (self.path.read_bytes() if self.path.exists() else b"").split(b"\n")
        for number, line in enumerate(lines, start=1):
            self._read(line, number)
        if not rest:
            return
        with self.path.open("ab") as file:
            if _is_json(rest):  # all but its line feed is there
                self._read(rest, len(lines) + 1)
                file.write(b"\n")
            elif rest[: len(_BEGINNING)] == _BEGINNING[: len(rest)]:
                file.truncate(file.tell() - len(rest))
            else:
                raise self._foreign(rest, len(lines) + 1)

    def _read(self, line: bytes, number: int) -> None:
        try:
            entry = json.loads(line)
            post, pictures, made_by = (
                str(entry["id"]),
                dict(entry["pictures"]),
                {name: entry[name] for name in self.made_by},
            )
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._foreign(line, number) from error
        for name, ours in self.made_by.items():
            if made_by[name] != ours:
                raise ValueError(
                    f"--output_file {self.path}, line {number}: expected captions made with {name} {ours!r},"
                    f" to go on with them, found one with {name} {made_by[name]!r}; give another file, or the"
                    f" {name} of this one"
                )
        self.posts[post] = list(pictures)
        self.captions |= pictures

    def _foreign(self, line: bytes, number: int) -> ValueError:
        found = line.decode(errors="replace")
        return ValueError(
            f"--output_file {self.path}, line {number}: expected a line that this command wrote, found"
            f" {found!r:.80}; give another file, or remove this one"
        )

    def write(self, posts: Mapping[str, list[str]]) -> None:
        """Add lines for posts whose pictures have captions; when it returns they are in the file."""
        lines = []
        for post, names in posts.items():
            pictures = {name: self.captions[name] for name in names}
            entry = (
                {"id": post, "caption": " ".join(pictures.values())} | self.made_by | {"pictures": pictures}
            )
            lines.append(json_line(entry) + "\n")
        with self.path.open("ab") as file:
            file.write("".join(lines).encode())
        self.posts |= posts


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass
class CaptionCounts:
    """What became of a corpus's posts.

    Attributes:
        new: posts that have got a line now.
        pictures: pictures that were described for it.
        without: posts without a picture.
        broken: of each post with a picture that cannot be read its id and what is wrong.
    """

    new: int = 0
    pictures: int = 0
    without: int = 0
    broken: list[str] = field(default_factory=list)


def caption_corpus(
    splits: Mapping[str, datasets.Dataset],
    captioner: Callable[[list[Image.Image]], list[str]],
    file: CaptionFile,
    *,
    batch_size: int = 8,
) -> CaptionCounts:
    """Caption the pictures of posts that are not in a file yet, each picture once, and write the posts' lines
    batch by batch.

    A post with several pictures has their captions one after the other. One without a picture, or with one
    that cannot be read, gets no line.

    Args:
        splits: with the columns of a corpus; pictures not decoded.
        captioner: gives a caption for each of some RGB pictures; `Captioner`.
        batch_size: pictures that the captioner gets at a time, at most.

    Raises:
        ValueError: two posts of one id, or a post and its line in the file, have not the same pictures.
    """
    counts = CaptionCounts()
    places = _places(splits, file, counts)
    for posts, pictures in _batches(splits, places, file.captions, counts, batch_size):
        names = list(pictures)
        for start in range(
            0, len(names), batch_size
        ):  # a post with many pictures can make more of it than a batch
            part = names[start : start + batch_size]
            texts = captioner([pictures[name] for name in part])
            file.captions.update(
                (name, one_line(text)[:MOST_CHARACTERS].strip())
                for name, text in zip(part, texts, strict=True)
            )
        file.write(posts)
        counts.new, counts.pictures = counts.new + len(posts), counts.pictures + len(names)
    return counts


@dataclass
class _Place:
    """Where a post stands in the corpus, and the names of its pictures."""

    split: str
    index: int
    pictures: list[str]


def _places(
    splits: Mapping[str, datasets.Dataset], file: CaptionFile, counts: CaptionCounts
) -> dict[str, _Place]:
    """The posts to be captioned, by id. All posts are read for it, so that ids that are no good are found
    before the work.
    """
    places: dict[str, _Place] = {}
    for split, rows in splits.items():
        columns = [name for name in ("id", *PICTURE_COLUMNS) if name in rows.features]
        for index, row in enumerate(tqdm(rows.select_columns(columns), f"reading {split}", delay=5)):
            post = str(row["id"])
            try:
                names = list(dict.fromkeys(_name(picture) for picture in pictures_of(row)))
            except PictureError as error:
                counts.broken.append(one_line(f"{post}: {error}"))
                continue
            known = file.posts.get(post) or (places[post].pictures if post in places else names)
            if not names:
                counts.without += 1
            elif known != names:
                raise ValueError(
                    f"post {post!r} of {split}: expected the pictures of other posts of this id and of its"
                    f" line in {file.path}, found others; contexts are found by id: give each post its own"
                    " id, and each corpus its own file"
                )
            elif post not in file.posts:
                places.setdefault(post, _Place(split, index, names))
    return places


def _name(picture: Mapping[str, Any]) -> str:
    """The beginning of the SHA-256 of a picture's bytes."""
    content, path = picture.get("bytes"), picture.get("path")
    with suppress(OSError, ValueError):  # a file that may not be read, a name that no file can have
        if content is None and path is not None and Path(path).is_file():
            content = Path(path).read_bytes()
    if content is None:
        raise PictureError(f"picture {path}: expected a file that can be read, found none")
    return hashlib.sha256(content).hexdigest()[:16]


def _batches(
    splits: Mapping[str, datasets.Dataset],
    places: Mapping[str, _Place],
    known: Mapping[str, str],
    counts: CaptionCounts,
    size: int,
) -> Iterator[tuple[dict[str, list[str]], dict[str, Image.Image]]]:
    """Posts with their pictures' names, and with them those of the pictures that have no caption yet, `size`
    or a few more.
    """
    posts: dict[str, list[str]] = {}
    pictures: dict[str, Image.Image] = {}
    for post, place in tqdm(places.items(), "captions", unit="post"):
        new: dict[str, Image.Image] = {}
        try:
            for picture in pictures_of(splits[place.split][place.index]):
                if (name := _name(picture)) not in known:
                    new[name] = load_picture(picture)
        except PictureError as error:
            counts.broken.append(one_line(f"{post}: {error}"))
            continue
        posts[post], pictures = place.pictures, pictures | new
        if len(pictures) >= size:
            yield posts, pictures
            posts, pictures = {}, {}
    if posts:
        yield posts, pictures
