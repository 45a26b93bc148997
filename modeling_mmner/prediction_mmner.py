"""The one batch predictor: posts in any form in, their entities out, in order; the error of a bad post is its result."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .images_mmner import PictureError, load_picture, pictures_of
from .labels_mmner import IGNORED
from .posts_mmner import PostError, as_row, checked_post, context_of, fetched
from .processing_mmner import MMNERProcessor, Post

BrokenPictures = Literal["raise", "skip"]
_logger = logging.getLogger(__name__)


@dataclass
class Prediction:
    """What was found in one post.

    Attributes:
        id: the post's, if it has one.
        post: as it was read, its pictures as squares; None where it could not be read.
        error: why it could not be read.
        broken_pictures: why pictures of it were left out.
        entities: see `MMNERProcessor.post_process_entities`.
        tags: the BIO tag of each word.
    """

    id: Any = None
    post: Post | None = None
    error: PostError | PictureError | None = None
    broken_pictures: list[str] = field(default_factory=list)
    entities: list[dict[str, Any]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


@dataclass
class PostReader:
    """Reads a post in any of the forms that `MultimodalNERPipeline` lists; it can be sent to another process.

    Attributes:
        processor: splits texts and shrinks pictures.
        allow_urls: whether pictures are fetched from the web.
        timeout: seconds that fetching one may take.
        broken_pictures: ``raise`` makes a picture that cannot be read the post's error, ``skip`` leaves it out.
    """

    processor: MMNERProcessor
    allow_urls: bool = False
    timeout: float = 20.0
    broken_pictures: BrokenPictures = "raise"

    def __call__(self, given: Any, *, number: int = 1) -> Prediction:
        """A post without its entities yet; `number`, from 1, names it in errors. An error in its place stays one."""
        if isinstance(given, PostError):
            return Prediction(error=given)
        read = Prediction(id=given.get("id") if isinstance(given, Mapping) else None)
        try:
            row = checked_post(as_row(given, number), number)
            pictures = self._pictures(row, number, read.broken_pictures)
            text = row["text"] if row.get("text") is not None else row["tokens"]
            context = context_of(row, number) if self.processor.context_window is not None else None
            (read.post,) = self.processor.read([text], [pictures], context=[context], whole_pictures=False)
        except (PostError, PictureError) as error:
            read.error = error
        return read

    def _pictures(self, row: dict[str, Any], number: int, broken: list[str]) -> list[Any]:
        pictures = []
        for picture in pictures_of(row) if self.processor.image_size is not None else []:
            try:
                pictures.append(load_picture(fetched(picture, allow_urls=self.allow_urls, timeout=self.timeout)))
            except PictureError as error:
                if self.broken_pictures == "raise":
                    text = f"post {number}: {error}; broken_pictures='skip' goes on without it"
                    raise PictureError(text) from error
                _logger.warning("post %d read without its picture: %s", number, error)
                broken.append(str(error))
        return pictures


@dataclass
class BatchPredictor:
    """Finds the entities of posts in batches.

    Attributes:
        model: in evaluation mode, on its device.
        read: reads each post.
        batch_size: posts a batch.
        num_workers: processes that read posts; 0: this one. A stream is read by one at most.
        threshold: in 0..1; entities with a lower score are left out.
        sorted_batches: so many batches are read ahead and sorted by length, which saves padding; 1 reads a stream no further than
            a batch.
        autocast: makes the context in which the model runs.
    """

    model: Any
    read: PostReader
    batch_size: int = 1
    num_workers: int = 0
    threshold: float = 0.0
    sorted_batches: int = 1
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def predict(self, posts: Any) -> Iterator[Prediction]:
        """The predictions of posts in their order, each as soon as its batch is done.

        Args:
            posts: a data set, a list, or any iterable of posts.
        """
        if self.sorted_batches == 1:
            yield from self._predict(posts)
            return
        stream, first = _each(posts), 1
        while chunk := list(islice(stream, self.batch_size * self.sorted_batches)):
            order = sorted(range(len(chunk)), key=lambda index: _length(chunk[index]))
            numbers = [first + index for index in order]
            found = self._predict([chunk[index] for index in order], numbers)
            yield from (prediction for _, prediction in sorted(zip(order, found, strict=True), key=lambda pair: pair[0]))
            first += len(chunk)

    def _predict(self, posts: Any, numbers: Sequence[int] | None = None) -> Iterator[Prediction]:
        workers = self.num_workers
        if is_indexed(posts):
            dataset: Dataset[Prediction] = _IndexedPosts(posts, self.read, numbers)
        else:
            dataset, workers = _StreamedPosts(posts, self.read), min(workers, 1)  # each worker would read the whole stream
        loader = DataLoader(dataset, batch_size=self.batch_size, num_workers=workers, collate_fn=self.collate)
        for batch, inputs in loader:
            yield from self.complete(batch, self.run(inputs) if inputs else None)

    @property
    def collate(self) -> "_Collate":
        """Makes the model's inputs of posts that were read."""
        return _Collate(self.read.processor)

    def run(self, inputs: dict[str, Tensor]) -> Any:
        """The model's output for the inputs of a batch."""
        with torch.inference_mode(), self.autocast():
            return self.model(**{name: tensor.to(self.model.device) for name, tensor in inputs.items()})

    def complete(self, batch: list[Prediction], outputs: Any) -> list[Prediction]:
        """Put the tags and entities of a batch into its predictions; those with an error have none."""
        readable = [prediction for prediction in batch if prediction.post is not None]
        if readable:
            processor, posts = self.read.processor, [prediction.post for prediction in readable]
            entities = processor.post_process_entities(outputs, posts, threshold=self.threshold)
            for prediction, found, tags in zip(readable, entities, outputs["tags"].tolist(), strict=True):
                prediction.entities = found
                prediction.tags = [processor.labels[tag] for tag in tags if tag != IGNORED]
        return batch


@dataclass
class _Collate:
    processor: MMNERProcessor

    def __call__(self, batch: list[Prediction]) -> tuple[list[Prediction], dict[str, Tensor]]:
        posts = [prediction.post for prediction in batch if prediction.post is not None]
        return batch, dict(self.processor.encode(posts)) if posts else {}


class _IndexedPosts(Dataset[Prediction]):
    """Posts that can be read in any order, and so by several processes."""

    def __init__(self, posts: Any, read: PostReader, numbers: Sequence[int] | None = None) -> None:
        self.posts, self.read, self.numbers = posts, read, numbers

    def __len__(self) -> int:
        return len(self.posts)

    def __getitem__(self, index: int) -> Prediction:
        given = post_at(self.posts, index)
        return self.read(given, number=self.numbers[index] if self.numbers else index + 1)


class _StreamedPosts(IterableDataset[Prediction]):
    """Posts that come one after the other."""

    def __init__(self, posts: Iterable[Any], read: PostReader) -> None:
        self.posts, self.read = posts, read

    def __iter__(self) -> Iterator[Prediction]:
        for number, post in enumerate(self.posts, start=1):
            yield self.read(post, number=number)


def is_indexed(posts: Any) -> bool:
    """Whether posts can be read in any order."""
    indexed = hasattr(posts, "__len__") and hasattr(posts, "__getitem__")
    return indexed and not isinstance(posts, (str, bytes, Mapping, IterableDataset))


def post_at(posts: Any, index: int) -> Any:
    """The post at a position, or its error; a pandas Series by itself is read by its labels."""
    try:
        return getattr(posts, "iloc", posts)[index]
    except PostError as error:  # of posts that are put together as they are asked for
        return error


def _each(posts: Any) -> Iterator[Any]:
    """Posts one after the other."""
    return (post_at(posts, index) for index in range(len(posts))) if is_indexed(posts) else iter(posts)


def _length(given: Any) -> int:
    """Rough length of a post in characters, to sort by; 0 of what is no post."""
    if not isinstance(given, Mapping):
        return len(given) if isinstance(given, str) else 0
    text, tokens = given.get("text"), given.get("tokens")
    if isinstance(text, str):
        return len(text)
    return sum(len(word) + 1 for word in tokens if isinstance(word, str)) if isinstance(tokens, (list, tuple)) else 0
