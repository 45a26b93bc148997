"""`pipeline("multimodal-ner")`: posts in many forms -> their entities."""

import base64
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, Literal, cast, get_args

from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import AutoModelForTokenClassification
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from .images_mmner import PictureError, fetch_picture, is_url, load_picture, pictures_of

BrokenPictures = Literal["raise", "skip"]
_logger = logging.getLogger(__name__)


class PostError(ValueError):
    """A post that cannot be read; the text says which, what was expected and what was found."""


class MultimodalNERPipeline(Pipeline):
    """Finds the entities of posts: ``pipeline("multimodal-ner", model=..., trust_remote_code=True)``.

    A post is

    - a text;
    - ``{"text": ...}`` or ``{"tokens": [...]}``, with ``"image": ...`` or ``"images": [...]`` where it has pictures, as the rows
      of a data set are;
    - a list of words, inside a list of posts;
    - a chat, as transformers' own multimodal pipelines take it: ``[{"role": "user", "content": [{"type": "image", "image": ...},
      {"type": "text", "text": ...}]}]``. Its user's texts, joined by line ends, are the text.

    A picture is whatever `load_picture` takes, or a ``data:image/...;base64,...`` address. One post gives a list of
    ``{"entity_group", "score", "word", "start", "end"}``, see `MMNERProcessor.post_process_entities`; a list of posts gives a
    list of such lists; anything else that can be iterated over (a generator, a data set) gives an iterator that reads on as it
    is read from.
    """

    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_video_processor: Any = False
    _pipeline_calls_generate = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError(
                "multimodal-ner: expected a processor, found none; pass the folder or id of a saved model, or "
                "pipeline(..., model=model, processor=processor)"
            )
        self.model.eval()

    def __call__(  # type: ignore[override]
        self,
        text: Any,
        images: Any = None,
        *,
        is_split_into_words: bool = False,
        num_workers: int | None = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> list[Any] | Iterator[list[dict[str, Any]]]:
        """Find entities.

        Args:
            text: a post, a list of posts, or an iterable of them.
            images: the pictures of one text; of many posts as many entries, each a picture, a list of them or None.
            is_split_into_words: True takes a list of strings for the words of one post, False for as many texts.
            num_workers: processes that read pictures; default 0, this one. A stream is read by one at most.
            batch_size: posts a batch; default 1.
            options: threshold, in 0..1, leaves out entities with a lower score (default 0). allow_urls fetches pictures from
                the web (default False), timeout is the seconds that each may take (default 20). broken_pictures: ``raise``
                (default), or ``skip`` to take such a post without it.

        Raises:
            PostError: a post is none of the above; the text names its number, from 1.
            PictureError: a picture cannot be read.
            TypeError, ValueError: an unknown option, or one out of its range.
        """
        parameters = self._sanitize_parameters(**options)
        preprocess, forward, postprocess = (
            own | given
            for own, given in zip(
                (self._preprocess_params, self._forward_params, self._postprocess_params), parameters, strict=True
            )
        )
        if is_split_into_words and _is_words(text):
            text = {"tokens": list(text)}
        if _is_one_post(text):
            return self.run_single(_with_images(text, images), preprocess, forward, postprocess)
        posts = text if images is None else _PairedPosts(text, images)
        workers = (self._num_workers or 0) if num_workers is None else num_workers
        size = (self._batch_size or 1) if batch_size is None else batch_size
        entities = self.get_iterator(posts, workers, size, preprocess, forward, postprocess)
        return list(entities) if isinstance(text, (list, tuple)) else entities

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write the model, its code and its processor, which transformers' own leaves out."""
        super().save_pretrained(save_directory, **kwargs)
        cast(Any, self.processor).save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The options of reading posts, of the model (none) and of its entities."""
        reading: dict[str, Any] = {
            key: options.pop(key) for key in ("allow_urls", "broken_pictures", "timeout") if key in options
        }
        entities: dict[str, Any] = {key: options.pop(key) for key in ("threshold",) if key in options}
        if options:
            raise TypeError(
                f"multimodal-ner: unknown options {sorted(options)}; expected some of allow_urls, batch_size, broken_pictures, "
                "num_workers, threshold, timeout; in a call also images, is_split_into_words"
            )
        if reading.get("broken_pictures", "raise") not in get_args(BrokenPictures):
            raise ValueError(f"broken_pictures: expected 'raise' or 'skip', found {reading['broken_pictures']!r}")
        threshold = entities.get("threshold", 0.0)
        if not (isinstance(threshold, Real) and 0 <= float(threshold) <= 1):
            raise ValueError(f"threshold: expected a score in 0..1, found {threshold!r}")
        return reading, {}, entities

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[list[dict[str, Any]]]:
        """The entities of each of many posts, in their order."""
        read = partial(self.preprocess, **preprocess_params)
        if _is_indexed(inputs):
            posts: Dataset[dict[str, Any]] = _IndexedPosts(inputs, read)
        else:
            posts, num_workers = _StreamedPosts(inputs, read), min(num_workers, 1)  # each worker would read the whole stream
        loader = DataLoader(posts, batch_size=batch_size, num_workers=num_workers, collate_fn=self._collate)
        for batch in loader:
            yield from self.postprocess(self.forward(batch, **forward_params), **postprocess_params)

    def run_single(
        self, inputs: Any, preprocess_params: dict[str, Any], forward_params: dict[str, Any], postprocess_params: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The entities of one post."""
        batch = self._collate([self.preprocess(inputs, **preprocess_params)])
        return self.postprocess(self.forward(batch, **forward_params), **postprocess_params)[0]

    def preprocess(  # type: ignore[override]
        self,
        input_: Any,
        *,
        number: int = 1,
        allow_urls: bool = False,
        timeout: float = 20.0,
        broken_pictures: BrokenPictures = "raise",
    ) -> dict[str, Any]:
        """A post with its text or words, and its pictures opened; `number` names it in errors."""
        post = checked_post(_as_row(input_, number), number)
        pictures = []
        for picture in pictures_of(post) if cast(Any, self.processor).image_size is not None else []:
            try:
                pictures.append(load_picture(_fetched(picture, allow_urls=allow_urls, timeout=timeout)))
            except PictureError as error:
                if broken_pictures == "raise":
                    raise PictureError(f"post {number}: {error}; broken_pictures='skip' goes on without it") from error
                _logger.warning("post %d read without its picture: %s", number, error)
        return {"text": post["text"] if post.get("text") is not None else post["tokens"], "pictures": pictures}

    def _collate(self, posts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The model's inputs for a batch, and its texts."""
        texts = [post["text"] for post in posts]
        return {"texts": texts, "inputs": dict(cast(Any, self.processor)(texts, images=[post["pictures"] for post in posts]))}

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        outputs = self.model(**input_tensors["inputs"])
        return {"texts": input_tensors["texts"], "tags": outputs.tags, "span_scores": outputs.span_scores}

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], *, threshold: float = 0.0
    ) -> list[list[dict[str, Any]]]:
        """The entities of each post of a batch."""
        return cast(Any, self.processor).post_process_entities(model_outputs, text=model_outputs["texts"], threshold=threshold)


class _IndexedPosts(Dataset[dict[str, Any]]):
    """Posts that can be read in any order, and so by several processes."""

    def __init__(self, posts: Any, read: Any) -> None:
        self.posts, self.read = posts, read

    def __len__(self) -> int:
        return len(self.posts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(_at(self.posts, index), number=index + 1)


class _StreamedPosts(IterableDataset[dict[str, Any]]):
    """Posts that come one after the other."""

    def __init__(self, posts: Iterable[Any], read: Any) -> None:
        self.posts, self.read = posts, read

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, post in enumerate(self.posts, start=1):
            yield self.read(post, number=number)


class _PairedPosts(Dataset[Any]):
    """Posts with the pictures given beside them."""

    def __init__(self, posts: Any, images: Any) -> None:
        if not (_is_indexed(posts) and _is_indexed(images) and len(posts) == len(images)):
            found = [len(each) if _is_indexed(each) else f"a {type(each).__name__}" for each in (images, posts)]
            raise ValueError(f"images: expected an entry (or None) for each of the posts, found {found[0]} for {found[1]}")
        self.posts, self.images = posts, images

    def __len__(self) -> int:
        return len(self.posts)

    def __getitem__(self, index: int) -> Any:
        return _with_images(_at(self.posts, index), _at(self.images, index), number=index + 1)


def checked_post(post: Any, number: int) -> dict[str, Any]:
    """The post, after checking that it has a text or tokens; `number` (from 1) names it in errors.

    Raises:
        PostError: it has neither or both, or they are of another type.
    """
    if not isinstance(post, dict):
        raise PostError(f"post {number}: expected an object with 'text' or 'tokens', found {type(post).__name__}")
    text, tokens = post.get("text"), post.get("tokens")
    if (text is None) == (tokens is None):
        found = "both" if text is not None else f"neither; its keys are {sorted(post)}"
        raise PostError(f"post {number}: expected either 'text' or 'tokens', found {found}")
    if text is not None and not isinstance(text, str):
        raise PostError(f"post {number}: expected 'text' to be a string, found {type(text).__name__}")
    if tokens is not None and not _is_words(tokens):
        raise PostError(f"post {number}: expected 'tokens' to be a list of strings, found {tokens!r:.80}")
    return post


def _as_row(post: Any, number: int) -> Any:
    """A post in any of its forms as ``{"text" or "tokens", "images"}``."""
    if isinstance(post, str):
        return {"text": post}
    if _is_chat(post):
        return _chat_row(post, number)
    if _is_words(post):
        return {"tokens": list(post)}
    # The rows that `datasets.Dataset.map` passes are no dicts.
    return dict(post) if isinstance(post, Mapping) else post


def _chat_row(messages: Sequence[Mapping[str, Any]], number: int) -> dict[str, Any]:
    """The texts and pictures that the user of a chat sends."""
    texts, pictures = [], []
    for message in messages:
        content = message["content"] if message["role"] == "user" else []
        for part in content if isinstance(content, (list, tuple)) else [{"type": "text", "text": content}]:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind == "text" and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif kind in ("image", "image_url") and len(sources := _chat_pictures(part)) == 1:
                pictures += sources
            else:
                raise PostError(
                    f"post {number}: expected parts {{'type': 'text', 'text': ...}} and {{'type': 'image', 'image' (or 'url', "
                    f"'path', 'base64'): ...}} in a chat, found {part!r:.80}"
                )
    if not texts:
        raise PostError(f"post {number}: expected a chat with a text of its user, found roles {[m['role'] for m in messages]}")
    return {"text": "\n".join(texts), "images": pictures}


def _chat_pictures(part: Mapping[str, Any]) -> list[Any]:
    """What a chat's part names as its picture; more than one is an error."""
    sources = {key: part[key] for key in ("image", "url", "path", "base64", "image_url") if part.get(key) is not None}
    if isinstance(sources.get("image_url"), Mapping):
        sources["image_url"] = sources["image_url"].get("url")
    if "base64" in sources:
        sources["base64"] = "data:image/*;base64," + str(sources["base64"]).rpartition("base64,")[2]
    return list(sources.values())


def _fetched(picture: Any, *, allow_urls: bool, timeout: float) -> Any:
    """The bytes of a picture that is given by an address; any other picture as it is."""
    address = picture.get("path") if isinstance(picture, Mapping) and picture.get("bytes") is None else picture
    if not isinstance(address, str):
        return picture
    if is_url(address):
        if not allow_urls:
            raise PictureError(f"picture {address}: expected one at hand, found one on the web; allow_urls=True fetches it")
        return fetch_picture(address, timeout=timeout)
    if address.startswith("data:image/"):
        try:
            return base64.b64decode(address.partition(",")[2])
        except ValueError as error:
            raise PictureError(f"picture {address:.40}...: expected base64, found {error}") from error
    return picture


def _is_chat(post: Any) -> bool:
    """Whether a post is the messages of a chat; many rows, which have texts of their own, may also have roles and contents."""
    return (
        isinstance(post, (list, tuple))
        and len(post) > 0
        and all(
            isinstance(message, Mapping) and {"role", "content"} <= message.keys() and not {"text", "tokens"} & message.keys()
            for message in post
        )
    )


def _is_words(post: Any) -> bool:
    return isinstance(post, (list, tuple)) and all(isinstance(word, str) for word in post)


def _is_one_post(text: Any) -> bool:
    """Whether it is one post, or nothing that could be many."""
    many = hasattr(text, "__iter__") or hasattr(text, "__getitem__")
    return isinstance(text, (str, bytes, Mapping)) or _is_chat(text) or not many


def _is_indexed(posts: Any) -> bool:
    """Whether posts can be read in any order."""
    indexed = hasattr(posts, "__len__") and hasattr(posts, "__getitem__")
    return indexed and not isinstance(posts, (str, bytes, Mapping, IterableDataset))


def _at(posts: Any, index: int) -> Any:
    """The post at a position; a pandas Series by itself is read by its labels."""
    return getattr(posts, "iloc", posts)[index]


def _with_images(post: Any, images: Any, number: int = 1) -> Any:
    """A post with the pictures given beside it."""
    if images is None:
        return post
    row = checked_post(_as_row(post, number), number)
    if pictures_of(row):
        raise PostError(f"post {number}: expected its pictures in the post or in images, found both")
    return row | {"image": None, "images": images if isinstance(images, (list, tuple)) else [images]}


if __package__ == "modeling_mmner":  # as remote code it is found by the custom_pipelines of a saved config
    PIPELINE_REGISTRY.register_pipeline(
        "multimodal-ner", pipeline_class=MultimodalNERPipeline, pt_model=AutoModelForTokenClassification
    )
