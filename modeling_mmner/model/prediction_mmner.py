"""The batch predictor: posts in any form in, their entities out in order, or the error of a bad one."""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, cast

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .batching_mmner import CORES, ahead, begin_worker, of_like_size
from .effects_mmner import with_effects
from .images_mmner import PictureError, load_picture, pictures_of, square
from .labels_mmner import IGNORED
from .picture_text_mmner import PictureReader, PictureText, read_text
from .posts_mmner import PostError, as_row, check_key, checked_post, context_of, fetched, within
from .processing_mmner import MMNERProcessor, Post
from .ready_features_mmner import features_of, reads_pixels
from .thresholds_mmner import saved_calibration
from .windows_mmner import LAID_OUT, TextWindows

MAX_TOKENS = 8192
"""Sub-tokens of a batch with its padding: 16 windows of 512."""
SORTED_BATCHES, SORTED_POSTS = 16, 1024
"""How many batches, and how many posts at most, are sorted by length together: it saves most padding."""
READING_THREADS = min(8, CORES) if CORES > 1 else 0
"""Threads that read posts while the model runs; Pillow lets them decode pictures side by side."""
_logger = logging.getLogger(__name__)


@dataclass
class Prediction:
    """What was found in one post.

    Attributes:
        post: as it was read, its pictures as squares; None where it could not be read.
        windows: its text, once it is laid out for the model.
        error: why it could not be read.
        broken_pictures: why pictures of it were left out.
        thumbnails: its pictures to be shown, where the reader was asked for them.
        picture_texts: what stands in its pictures, where the reader was asked for it.
        entities: see `MMNERProcessor.post_process_entities`; after them those in its pictures.
        tags: the BIO tag of each word.
    """

    id: Any = None
    post: Post | None = None
    windows: TextWindows | None = None
    error: PostError | PictureError | None = None
    broken_pictures: list[str] = field(default_factory=list)
    thumbnails: list[Image.Image] = field(default_factory=list)
    picture_texts: list[PictureText] = field(default_factory=list)
    entities: list[dict[str, Any]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


@dataclass
class PostReader:
    """Reads a post in any of the forms that `MultimodalNERPipeline` lists; it can be sent to another process.

    Attributes:
        processor: splits texts and shrinks pictures.
        allow_urls: whether pictures are fetched from the web.
        timeout: seconds that fetching one may take.
        broken_pictures: ``raise`` makes an unreadable picture the post's error, ``skip`` leaves it out.
        image_dir: folder that paths of pictures may not lead out of; None: any file is opened.
        thumbnails: longest side of the small pictures that it keeps to be shown; 0: none.
        contexts: whether each post must have a context, or none may; None: as they come.
        picture_reader: reads the text that stands in pictures; None: nobody does.
    """

    processor: MMNERProcessor
    allow_urls: bool = False
    timeout: float = 20.0
    broken_pictures: Literal["raise", "skip"] = "raise"
    image_dir: str | Path | None = None
    thumbnails: int = 0
    contexts: bool | None = None
    picture_reader: PictureReader | None = None

    def __call__(self, given: Any, *, number: int = 1) -> Prediction:
        """A post without its entities yet; `number`, from 1, names it in errors. An error stays one."""
        if isinstance(given, PostError):
            return Prediction(error=given)
        read = Prediction(id=given.get("id") if hasattr(given, "get") else None)
        try:
            row = checked_post(as_row(given, number), number)
            features = features_of(row)
            has_pixels = self.processor.image_size is not None and reads_pixels(features)
            is_read = has_pixels or self.picture_reader is not None
            pictures = self._pictures(row, number, read) if is_read else []
            text = row["text"] if row.get("text") is not None else row["tokens"]
            context = context_of(row, number) if self.processor.context_window else row.get("context")
            (post,) = self.processor.read([text], context=[context])
            if self.contexts not in (None, bool(post.context)):
                expected, found = ("none", "one") if post.context else ("one", "none")
                hint = f"as when calibrated, found {found}; run mmner calibrate on such posts"
                raise PostError(f"post {number}: context: expected {expected} {hint}")
            read.post = post._replace(pictures=pictures, features=features)
            read.windows = windows if isinstance(windows := row.get(LAID_OUT), TextWindows) else None
        except (PostError, PictureError) as error:
            read.error = error
        return read

    def _pictures(self, row: dict[str, Any], number: int, read: Prediction) -> list[Image.Image]:
        """The pictures of a row as squares, none for a model of text alone, after their text is read."""
        pictures: list[Image.Image] = []
        check_key(row, "image", number)
        for image, picture in enumerate(pictures_of(row)):
            try:
                given = fetched(picture, allow_urls=self.allow_urls, timeout=self.timeout)
                if self.image_dir is not None:
                    given = within(given, Path(self.image_dir))
                loaded = load_picture(given)
                if self.processor.image_size is not None:
                    pictures.append(square(loaded, self.processor.image_size))
                if self.picture_reader is not None:
                    read.picture_texts.append(read_text(loaded, self.picture_reader, image=image))
                if self.thumbnails:
                    read.thumbnails.append(small := loaded.copy())  # it may be the caller's own
                    small.thumbnail((self.thumbnails, self.thumbnails))
            except PictureError as error:
                if self.broken_pictures == "raise":
                    hint = "broken_pictures='skip' goes on without it"
                    raise PictureError(f"post {number}: {error}; {hint}") from error
                _logger.warning("post %d read without its picture: %s", number, error)
                read.broken_pictures.append(str(error))
        return pictures


@dataclass
class BatchPredictor:
    """Finds the entities of posts in batches of like length.

    Attributes:
        model: on its device.
        read: reads each post.
        batch_size: posts a batch, at most.
        max_tokens: sub-tokens a batch with padding, at most; a post that has more is a batch by itself.
        read_ahead: whether the posts of several batches are sorted by length, which saves padding, while
            threads read as many more; False reads a stream no further than a batch.
        num_workers: processes that read posts in place of this one; of a stream threads of this one.
        threshold: in 0..1; entities with a lower score are left out.
        precision: leave out those below the thresholds that were calibrated for it, and of the types without;
            None: none.
        with_entities: whether entities are named; False leaves it at the tags.
        effects: whether entities tell what the picture and the context did, see `with_effects`.
        autocast: makes the context in which the model runs.

    Raises:
        ValueError: `batch_size` is not a number > 0, or see `saved_calibration`.
    """

    model: Any
    read: PostReader
    batch_size: int = 1
    max_tokens: int = MAX_TOKENS
    read_ahead: bool = False
    num_workers: int = 0
    threshold: float = 0.0
    precision: float | None = None
    with_entities: bool = True
    effects: bool = False
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected a number of posts > 0, found {self.batch_size}")
        self._least: dict[str, float] = defaultdict(float)  # score of a type's entities
        if self.precision is not None:
            saved = saved_calibration(self.read.processor, self.model, precision=self.precision)
            self._least = defaultdict(lambda: math.inf, saved["thresholds"])
            self.read = replace(self.read, contexts=saved["contexts"])

    def predict(self, posts: Any, *, first: int = 1) -> Iterator[Prediction]:
        """The predictions of posts in their order, each when all that are sorted with it are done.

        Args:
            posts: a data set, a list, or any iterable of posts; this thread alone asks it for posts.
            first: the number by which errors name the first of them.
        """
        sorted_posts = min(SORTED_BATCHES * self.batch_size, SORTED_POSTS) if self.read_ahead else 0
        most = max(self.batch_size, sorted_posts)
        with closing(self._each_read(posts, first, most)) as read:
            while window := list(islice(read, most)):
                self._find(window)
                if self.with_entities:
                    self._find_in_pictures(window)
                yield from window

    def _each_read(self, posts: Any, first: int, most: int) -> Generator[Prediction, None, None]:
        """The posts, read, in their order, by threads that are at most so many ahead, or by processes."""
        indexed = is_indexed(posts)
        if indexed and self.num_workers:
            loader: DataLoader[Prediction] = DataLoader(
                IndexedPosts(posts, self.read, first=first),
                batch_size=self.batch_size,
                num_workers=self.num_workers,
                collate_fn=list,
                worker_init_fn=begin_worker,
                generator=torch.Generator(),  # or it draws a number that training, which is evaluated, misses
            )
            yield from chain.from_iterable(loader)
            return
        if indexed:
            posts = map(partial(post_at, posts), range(len(posts)))
        threads = READING_THREADS if self.read_ahead or self.num_workers else 0
        numbered = enumerate(posts, start=first)
        yield from ahead(lambda one: self.read(one[1], number=one[0]), numbered, threads=threads, most=most)

    def _find(self, predictions: Sequence[Prediction]) -> None:
        """Put what the model finds into predictions, in batches of like length.

        Their texts are laid out by one call of the tokenizer. No thread does it, for the model would wait for
        Python while it makes sub-tokens.
        """
        readable = [prediction for prediction in predictions if prediction.post is not None]
        missing = [prediction for prediction in readable if prediction.windows is None]
        found = self.read.processor.lay_out([cast(Post, prediction.post) for prediction in missing])
        for prediction, windows in zip(missing, found, strict=True):
            prediction.windows = windows
        size = attrgetter("windows.size")
        for batch in of_like_size(readable, size=size, most=self.batch_size, bound=self.max_tokens):
            self._complete(batch)

    def _find_in_pictures(self, predictions: Sequence[Prediction]) -> None:
        """Add the entities in the pictures of posts, whose texts are read as posts without a picture."""
        inside = [text for prediction in predictions for text in prediction.picture_texts]
        texts = list(dict.fromkeys(reading for text in inside for _, reading in text.readings()))
        readings = [Prediction(post=post) for post in self.read.processor.read(texts)] if texts else []
        replace(self, threshold=0.0, precision=None, effects=False)._find(readings)
        found = {text: reading.entities for text, reading in zip(texts, readings, strict=True)}
        for prediction in predictions:
            own = list(prediction.entities)
            for text in prediction.picture_texts:
                for entity in own:
                    if seen := text.seen(entity["word"]):
                        entity["seen"] = [*entity.get("seen", ()), *seen]
                prediction.entities += self._kept(text.entities(found))

    def _kept(self, entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of which the model is as sure as they must be."""
        return [
            one for one in entities if one["score"] >= max(self.threshold, self._least[one["entity_group"]])
        ]

    def _complete(self, batch: Sequence[Prediction]) -> None:
        """Put the tags and entities that the model finds into the predictions of a batch."""
        processor = self.read.processor
        posts, windows = zip(*((prediction.post, prediction.windows) for prediction in batch), strict=True)
        inputs = processor.encode(posts, windows=windows).to(self.model.device)
        # A model that is being trained goes on as it was.
        training = [module for module in getattr(self.model, "modules", list)() if module.training]
        if training:
            self.model.eval()
        try:
            with torch.inference_mode(), self.autocast():
                if self.effects:
                    outputs = with_effects(self.model, processor, inputs, posts)
                else:
                    outputs = self.model(**inputs)
        finally:
            for module in training:
                module.training = True
        for prediction, tags in zip(batch, outputs["tags"].tolist(), strict=True):
            prediction.tags = [processor.labels[tag] for tag in tags if tag != IGNORED]
        if self.with_entities:
            entities = processor.post_process_entities(outputs, list(posts))
            for prediction, found in zip(batch, entities, strict=True):
                prediction.entities = self._kept(found)


class IndexedPosts(Dataset[Any]):
    """What `make` makes of each post and its number, when it is asked for; several processes may ask."""

    def __init__(self, posts: Any, make: Callable[..., Any], *, first: int = 1) -> None:
        self.posts, self.make, self.first = posts, make, first

    def __len__(self) -> int:
        return len(self.posts)

    def __getitem__(self, index: int) -> Any:
        return self.make(post_at(self.posts, index), number=index + self.first)


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
    except Exception as error:  # a data set that decodes pictures raises whatever Pillow does
        found = f"found that it cannot be read; {error}"
        failed = PostError(f"post {index + 1}: expected a row of the data set, {found}")
        failed.__cause__ = error
        return failed


def computes_in_bfloat16(device_type: str) -> bool:
    """Whether devices of a type (cpu, cuda, mps) compute in bfloat16 natively.

    A CPU without its instructions emulates them, some twenty times slower than float32.
    """
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    has_instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device_type == "cpu" and has_instructions
