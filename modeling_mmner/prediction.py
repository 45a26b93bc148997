"""Entities of many posts: a stream of posts in, the same stream with its entities out."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from .images_mmner import PictureError, load_picture, pictures_of
from .modeling_mmner import MMNERForTokenClassification
from .pipeline_mmner import PostError, checked_post
from .processing_mmner import MMNERProcessor

_WINDOW_BATCHES = 32
_logger = logging.getLogger(__name__)


@dataclass
class Annotator:
    """Finds the entities of posts.

    Posts are read in windows, sorted by length inside each so that batches need little padding, and given back in the order in
    which they came. A picture that cannot be read is reported and counted, and its post is annotated without it.

    Attributes:
        model: in evaluation mode, on its device.
        processor: its processor.
        batch_size: posts a batch.
        num_workers: processes that read pictures and prepare batches.
        threshold: in 0..1; entities with a lower score are left out.
        broken_pictures: how many pictures could not be read so far.
    """

    model: MMNERForTokenClassification
    processor: MMNERProcessor
    batch_size: int = 32
    num_workers: int = 0
    threshold: float = 0.0
    broken_pictures: int = 0

    def annotate(self, posts: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Annotate posts.

        Args:
            posts: ``{"id", "text" or "tokens", "image" or "images"}``; the id and pictures may be missing. A picture is whatever
                `load_picture` takes.

        Yields:
            ``{"id", "text", "entities"}`` in the order of the posts; the entities are those of
            `MMNERProcessor.post_process_entities`.

        Raises:
            PostError: a post has neither or both of text and tokens, or they are of another type.
        """
        window: list[dict[str, Any]] = []
        try:
            for number, post in enumerate(posts, start=1):
                window.append(checked_post(post, number))
                if len(window) == self.batch_size * _WINDOW_BATCHES:
                    full, window = window, []
                    yield from self._annotate_window(full)
        except PostError:
            # What came before the bad post is not lost with it.
            yield from self._annotate_window(window)
            raise
        yield from self._annotate_window(window)

    def _annotate_window(self, window: list[dict[str, Any]]) -> list[dict[str, Any]]:
        order = sorted(range(len(window)), key=lambda index: _length(window[index]))
        loader = DataLoader(
            cast(Dataset[dict[str, Any]], [window[index] for index in order]),  # a list serves as one
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=self._prepare,
        )
        entities: list[list[dict[str, Any]]] = []
        for texts, inputs, problems in loader:
            for problem in problems:
                _logger.warning("annotated without its picture: %s", problem)
            self.broken_pictures += len(problems)
            with torch.inference_mode():
                outputs = self.model(**{name: tensor.to(self.model.device) for name, tensor in inputs.items()})
            entities += self.processor.post_process_entities(outputs, text=texts, threshold=self.threshold)
        results: list[dict[str, Any]] = [{}] * len(window)
        for index, found in zip(order, entities, strict=True):
            text = window[index].get("text")
            text = " ".join(window[index]["tokens"]) if text is None else text
            results[index] = {"id": window[index].get("id"), "text": text, "entities": found}
        return results

    def _prepare(self, posts: Sequence[dict[str, Any]]) -> tuple[list[Any], dict[str, torch.Tensor], list[str]]:
        """Texts, the model's inputs, and what is wrong with the pictures that were left out."""
        texts = [post["text"] if post.get("text") is not None else post["tokens"] for post in posts]
        images, problems = [], []
        for post in posts:
            pictures = []
            for picture in pictures_of(post) if self.processor.image_size is not None else []:
                try:
                    pictures.append(load_picture(picture))
                except PictureError as error:
                    problems.append(f"post {post.get('id')!r}: {error}")
            images.append(pictures)
        return texts, dict(self.processor(texts, images=images)), problems


def load_model(model_id: str, *, device: str | None = None) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """A trained model, in evaluation mode on its device, and its processor.

    Args:
        model_id: a folder, or an id on the Hub.
        device: cpu, cuda, cuda:1, mps; None: an accelerator if there is one.

    Raises:
        OSError: there is no such model.
        ValueError: the computer has no such device.
    """
    model = MMNERForTokenClassification.from_pretrained(model_id).eval()
    try:
        model.to(device or (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:  # PyTorch raises both
        raise ValueError(f"device {device}: expected one that this computer has; {error}") from error
    return model, MMNERProcessor.from_pretrained(model_id)


def json_line(record: dict[str, Any]) -> str:
    """The record as one line of JSON, readable where it can be; half an emoji, which UTF-8 cannot hold, is escaped."""
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(record)
    return line


def _length(post: dict[str, Any]) -> int:
    """Rough length in characters, to sort by."""
    text = post.get("text")
    return len(text) if text is not None else sum(map(len, post["tokens"])) + len(post["tokens"])
