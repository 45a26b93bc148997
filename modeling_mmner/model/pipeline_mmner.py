"""`pipeline("multimodal-ner")`: posts in many forms -> their entities."""

import os
from collections.abc import Iterator
from functools import partial
from numbers import Real
from typing import Any, cast

from transformers import AutoModelForTokenClassification
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from .labels_mmner import entity_types
from .marking_mmner import MarkedPosts
from .picture_text_mmner import reader_of
from .posts_mmner import is_one_post, is_words, with_beside
from .prediction_mmner import BatchPredictor, IndexedPosts, PostReader, Prediction, is_indexed, post_at

TASKS = ("multimodal-ner", "token-classification", "ner")
"""The names by which a saved model's pipeline is found: its own, and those that the Hub's snippets say."""

_READING = ("allow_urls", "broken_pictures", "image_dir", "read_pictures", "timeout")
_NAMING = ("broken_posts", "effects", "precision", "threshold")
_OF_CALLS = ("context", "batch_size", "num_workers")
_THUMBNAIL = 320  # pixels of the longest side


class MultimodalNERPipeline(Pipeline):
    """Finds the entities of posts: ``pipeline("multimodal-ner", model=..., trust_remote_code=True)``.

    A post is

    - a text;
    - ``{"text": ...}`` or ``{"tokens": [...]}``, with ``"image": ...`` or ``"images": [...]`` where it has
      pictures, and ``"context": ...``, a text or several about it, as the rows of a data set are;
    - a list of words, inside a list of posts;
    - a chat, as transformers' own multimodal pipelines take it: ``[{"role": "user", "content": [{"type":
      "image", "image": ...}, {"type": "text", "text": ...}]}]``. Its user's texts, joined by line ends, are
      the text.

    Rows may come as a pandas data frame, where NaN is no value. A post whose picture stands under another key
    (``photo``) is an error; columns of other things are not read. A picture is whatever `load_picture` takes,
    or a ``data:image/...;base64,...`` address. One post gives a list of ``{"entity_group", "score", "word",
    "start", "end"}``, see `MMNERProcessor.post_process_entities`; a list of posts gives a list of such lists;
    anything else that can be iterated over (a generator, a data set) gives an iterator that reads on as it is
    read from.
    """

    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_video_processor: Any = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.processor is None:
            hint = "pass the folder or id of a saved model, or pipeline(..., processor=processor)"
            raise ValueError(f"multimodal-ner: expected a processor, found none; {hint}")
        self.model.eval()

    def __call__(  # type: ignore[override]
        self,
        text: Any,
        images: Any = None,
        *,
        context: Any = None,
        is_split_into_words: bool = False,
        num_workers: int | None = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> Any:
        """Find entities.

        Args:
            text: a post, a list of posts, or an iterable of them.
            images: the pictures of one text; of many posts as many entries, each a picture, a list of them or
                None.
            context: the context of one text, a string or a list of strings; of many posts as many entries, or
                None. Only models that were trained with contexts read them.
            is_split_into_words: True takes a list of strings for the words of one post, False for as many
                texts.
            num_workers: processes that read posts and their pictures; default 0: threads of this one, which
                decode what a data set gives undecoded (``Image(decode=False)``). A stream is read no further
                than a batch and by no thread, with workers by threads that are a batch ahead.
            batch_size: posts a batch, at most; default 1. Posts are sorted by length, except in a stream.
            options: threshold, in 0..1, leaves out entities with a lower score (default 0). precision leaves
                out those below the thresholds that `mmner calibrate` has found for it, and types without one.
                effects=True adds to each entity its picture_effect and context_effect, in -1..1: its score
                less that of the same words and type without any picture, or without the context; None where
                there is none.
                aggregation_strategy, of transformers' NER pipeline, may be ``simple`` or ``first``, which is
                what is done: an entity's words take the tags that the CRF gives them together. allow_urls
                fetches pictures from the web (default False), timeout is the seconds that each may take
                (default 20). image_dir is a folder that the paths of pictures may not lead out of (default:
                any file is opened). broken_pictures: ``raise`` (default), or ``skip`` to take such a post
                without it. read_pictures, True or a `PictureReader`, adds the entities in the text that
                stands in pictures: their start and end are None, they have the number of their picture and
                the box in its pixels, and their score is the tagger's times the reader's; entities of the
                post's text that stand there, too, have ``seen``. broken_posts: ``raise`` (default) stops at a
                post that cannot be read, ``return`` gives its error in the place of its entities and goes on.

        Raises:
            PostError: a post is none of the above; the text names its number, from 1.
            PictureError: a picture cannot be read.
            TypeError, ValueError: an unknown option, or one out of its range.
        """
        options |= zip(_OF_CALLS, (context, batch_size, num_workers), strict=True)
        given = {"tokens": list(text)} if is_split_into_words and is_words(text) else text
        found = (one.error or one.entities for one in self._found(given, images, **options))
        if is_one_post(given):
            return next(found)
        # What holds its posts in memory gives a list: lists, and the arrays and columns of NumPy and pandas.
        holds = isinstance(text, (list, tuple)) or hasattr(text, "tolist") or hasattr(text, "iloc")
        return list(found) if holds else found

    def show(self, text: Any, images: Any = None, **options: Any) -> MarkedPosts:
        """A post, or several, with the entities marked: HTML in a notebook, in a terminal text in colours.

        Args:
            text, images, options: as of a call.

        Returns:
            what a notebook shows, in displaCy's look, with the pictures that the model reads beside the
            text; ``print`` writes it into a terminal. All posts are read first.

        Raises:
            PostError, PictureError, TypeError, ValueError: as a call.
        """
        if options.pop("is_split_into_words", False) and is_words(text):
            text = {"tokens": list(text)}
        found = self._found(text, images, thumbnails=_THUMBNAIL, **options)
        return MarkedPosts(list(found), entity_types(cast(Any, self.processor).labels))

    def _found(self, text: Any, images: Any, *, thumbnails: int = 0, **options: Any) -> Iterator[Prediction]:
        """What is found in each post; of one that cannot be read the error is raised, or is in its place."""
        context, batch_size, num_workers = (options.pop(name, None) for name in _OF_CALLS)
        reading, _, naming = self._sanitize_parameters(**options)
        reading, naming = self._preprocess_params | reading, self._postprocess_params | naming
        broken_posts = naming.pop("broken_posts", "raise")
        predictor = BatchPredictor(
            self.model,
            PostReader(cast(Any, self.processor), thumbnails=thumbnails, **reading),
            batch_size=(self._batch_size or 1) if batch_size is None else batch_size,
            num_workers=(self._num_workers or 0) if num_workers is None else num_workers,
            **naming,
        )
        if is_one_post(text):
            predictor.num_workers = 0
            posts = [with_beside(text, images=images, context=context, number=1)]
        else:
            posts = _paired(text, images=images, context=context)
            predictor.read_ahead = is_indexed(posts)
        return _checked(predictor.predict(posts), broken_posts=broken_posts)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write the model, its code and its processor, which transformers' own leaves out."""
        super().save_pretrained(save_directory, **kwargs)
        cast(Any, self.processor).save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The options of reading posts, of the model (none) and of its entities."""
        if (found := options.pop("aggregation_strategy", "simple")) not in ("simple", "first"):
            why = "words are tagged whole, together, so that no sub-token has a tag or a score of its own"
            raise ValueError(f"aggregation_strategy: expected 'simple' or 'first', found {found!r}; {why}")
        reading = {key: options.pop(key) for key in _READING if key in options}
        if "read_pictures" in reading:
            reading["picture_reader"] = reader_of(reading.pop("read_pictures"))
        entities = {key: options.pop(key) for key in _NAMING if key in options}
        if options:
            known = ", ".join(sorted([*_READING, *_NAMING, "batch_size", "num_workers"]))
            expected = f"expected some of {known}; in a call also context, images, is_split_into_words"
            raise TypeError(f"multimodal-ner: unknown options {sorted(options)}; {expected}")
        closed = {"broken_pictures": ("raise", "skip"), "broken_posts": ("raise", "return")}
        for name, values in closed.items():
            if (found := (reading | entities).get(name, "raise")) not in values:
                raise ValueError(f"{name}: expected {values[0]!r} or {values[1]!r}, found {found!r}")
        threshold = entities.get("threshold", 0.0)
        if not (isinstance(threshold, Real) and 0 <= float(threshold) <= 1):
            raise ValueError(f"threshold: expected a score in 0..1, found {threshold!r}")
        return reading, {}, entities

    # What transformers asks of a pipeline beside `__call__`, which reads, predicts and names in one go.

    def preprocess(self, input_: Any, **options: Any) -> Any:
        return input_

    def _forward(self, input_tensors: Any, **options: Any) -> Any:
        return self(input_tensors, **options)

    def postprocess(self, model_outputs: Any, **options: Any) -> Any:
        return model_outputs


def _checked(predictions: Iterator[Prediction], *, broken_posts: str) -> Iterator[Prediction]:
    """The predictions; raises the error of a post that could not be read, if it is to."""
    for prediction in predictions:
        if prediction.error is not None and broken_posts == "raise":
            raise prediction.error
        yield prediction


def _paired(posts: Any, **beside: Any) -> Any:
    """Posts with the pictures and contexts given beside them, if any are."""
    beside = {name: given for name, given in beside.items() if given is not None}
    for name, given in beside.items():
        if not (is_indexed(posts) and _length(given) == _length(posts)):
            found = f"{_length(given)} for {_length(posts)}"
            raise ValueError(f"{name}: expected an entry (or None) for each of the posts, found {found}")
    return IndexedPosts(posts, partial(_with_entries, beside)) if beside else posts


def _with_entries(beside: dict[str, Any], post: Any, *, number: int) -> Any:
    """The post with the entry of its number in what is given beside all."""
    entries = {name: post_at(given, number - 1) for name, given in beside.items()}
    return with_beside(post, number=number, **entries)


def _length(given: Any) -> int | str:
    """How many entries there are; of what has no length its kind."""
    return len(given) if is_indexed(given) else f"a {type(given).__name__}"


# A model's own code leaves it to the package, whichever of the two is imported first.
if __package__ == "modeling_mmner.model" or "multimodal-ner" not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.supported_tasks.pop("multimodal-ner", None)  # or transformers warns of another
    PIPELINE_REGISTRY.register_pipeline(
        "multimodal-ner", pipeline_class=MultimodalNERPipeline, pt_model=AutoModelForTokenClassification
    )
