"""`MMNERProcessor`: texts and pictures -> tensors, and the model's outputs -> entities.

Notation: B batch, S sub-tokens, W words, N pictures a post.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from .configuration_mmner import MMNERConfig
from .images_mmner import PictureError, load_picture, square_pixels
from .labels_mmner import IGNORED, Word, check_labels, check_word_rule, split_words, tags_to_spans

_SETTINGS = frozenset(["labels", "image_size", "word_rule"])


class Post(NamedTuple):
    """A post's text and the words that its tags belong to."""

    text: str
    words: list[Word]


class MMNERProcessor(ProcessorMixin):
    """Makes the inputs of `MMNERForTokenClassification` and reads its outputs.

    Every word gets a place: one that the tokenizer drops (zero-width, private use, a control character) stands as the unknown
    token. Texts are never cut. Pictures leave as uint8, since each vision tower normalises its own.

    Args:
        tokenizer: a fast tokenizer; byte-level ones (RoBERTa) loaded with ``add_prefix_space=True``.
        labels: the BIO label names in id order.
        image_size: height and width in pixels of the square the pictures leave in; None for a model of text alone, whose
            pictures are not even opened.
        word_rule: name of the rule that splits raw text, see `split_words`.

    Raises:
        ValueError: the tokenizer is not a fast one, the labels are no BIO tag set, the rule is unknown.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str] = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC"),
        image_size: int | None = 224,
        word_rule: str = "mmner-words-1",
    ) -> None:
        super().__init__(tokenizer)
        if not tokenizer.is_fast:
            raise ValueError(f"tokenizer: expected a fast one, which places words, found {type(tokenizer).__name__}")
        check_labels(labels)
        check_word_rule(word_rule)
        self.labels = list(labels)
        self.image_size = image_size
        self.word_rule = word_rule
        self._prefix, self._suffix = special_tokens(tokenizer)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers'; ``labels=...``, ``image_size=...`` or ``word_rule=...`` take the place of what was saved."""
        # Apart from the others, which transformers hands on to the tokenizer and that to the model's config.
        settings = {name: kwargs.pop(name) for name in _SETTINGS & kwargs.keys()}
        saved = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        return cls(saved.tokenizer, **{name: getattr(saved, name) for name in _SETTINGS} | settings) if settings else saved

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns."""
        return ["input_ids", "attention_mask", "word_starts", "word_mask", "pixel_values", "image_mask"]

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        images: Any = None,
        *,
        labels: Sequence[Sequence[str | int]] | None = None,
        is_split_into_words: bool | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Make a batch.

        Args:
            text: a raw text, a list of raw texts, or a list of word lists. With ``is_split_into_words=True`` a flat list of
                strings is the words of one post.
            images: for each text a picture, a list of them, or None (see `load_picture` for the kinds); None: no pictures.
            labels: for each text its words' labels, as names or ids.
            return_tensors: "pt", "np", or None for arrays as they are.

        Returns:
            input_ids, attention_mask (B, S) int64; word_starts (B, W) int64 and word_mask (B, W) bool; pixel_values
            (B, N, 3, H, W) uint8 and image_mask (B, N) bool; with labels, labels (B, W) int64 padded with -100.

        Raises:
            TypeError: `text` is none of the above.
            ValueError: numbers of texts, pictures or labels differ; an unknown label; a picture that cannot be read.
        """
        posts = self.posts_of(text, is_split_into_words=is_split_into_words)
        words = [[word.text for word in post.words] for post in posts]
        single = isinstance(text, str) or _is_one_post(text, is_split_into_words)
        data = self._place_words(words) | self._picture_arrays([images] if single else images, len(words))
        if labels is not None:
            data["labels"] = self._label_array(labels, words)
        return BatchFeature(data, tensor_type=return_tensors)

    def posts_of(self, text: Any, *, is_split_into_words: bool | None = None) -> list[Post]:
        """The posts of a `text` argument, split into words by the processor's rule where they are raw."""
        if isinstance(text, str):
            return [Post(text, split_words(text, self.word_rule))]
        if _is_one_post(text, is_split_into_words):
            return [_joined(text)]
        posts = []
        for index, post in enumerate(text):
            if isinstance(post, str):
                posts.append(Post(post, split_words(post, self.word_rule)))
            elif isinstance(post, Sequence) and all(isinstance(word, str) for word in post):
                posts.append(_joined(post))
            else:
                raise TypeError(f"text {index}: expected a string or a list of strings, found {type(post).__name__}")
        if not posts:
            raise ValueError("text: expected at least one text, found none")
        return posts

    def post_process_entities(
        self, outputs: Any, text: Any, *, is_split_into_words: bool | None = None, threshold: float = 0.0
    ) -> list[list[dict[str, Any]]]:
        """Entities of each text, in the keys of transformers' own NER pipeline.

        Args:
            outputs: the model's output with `tags` (B, W) and `span_scores` (B, W).
            text: the texts or word lists that the inputs were made of.
            threshold: in 0..1; entities with a lower score are left out.

        Returns:
            For each text a list of ``{"entity_group", "score", "word", "start", "end"}``; offsets are into the raw text, or into
            ``" ".join(words)`` for word lists.

        Raises:
            ValueError: the outputs are of another number of texts or words.
        """
        posts = self.posts_of(text, is_split_into_words=is_split_into_words)
        tags, scores = outputs["tags"].tolist(), outputs["span_scores"].tolist()
        if len(tags) != len(posts):
            raise ValueError(f"outputs: expected those of {len(posts)} texts, found {len(tags)}")
        return [
            [entity for entity in self._entities(*row) if entity["score"] >= threshold]
            for row in zip(posts, tags, scores, strict=True)
        ]

    def _entities(self, post: Post, tags: list[int], scores: list[float]) -> list[dict[str, Any]]:
        """The entities of one post from its padded rows of tags and scores."""
        tags = [tag for tag in tags if tag != IGNORED]
        if len(tags) != len(post.words):
            raise ValueError(f"outputs: expected tags of {len(post.words)} words, found {len(tags)}; is this the same text?")
        entities = []
        for span in tags_to_spans([self.labels[tag] for tag in tags]):
            start, end = post.words[span.start].start, post.words[span.end - 1].end
            entities.append(
                {
                    "entity_group": span.type,
                    "score": scores[span.start],
                    "word": post.text[start:end],
                    "start": start,
                    "end": end,
                }
            )
        return entities

    def _place_words(self, posts: list[list[str]]) -> dict[str, np.ndarray]:
        """input_ids, attention_mask, word_starts and word_mask of posts given as words."""
        unknown = self.tokenizer.unk_token_id
        if unknown is None:
            unknown = self.tokenizer.mask_token_id if self.tokenizer.mask_token_id is not None else 0
        ids, starts = [], []
        for words, pieces in zip(posts, self._pieces(posts), strict=True):
            row, firsts = list(self._prefix), []
            for word in range(len(words)):
                firsts.append(len(row))
                row += pieces.get(word) or [unknown]
            ids.append(row + self._suffix)
            starts.append(firsts)
        pad = self.tokenizer.pad_token_id or 0
        return {
            "input_ids": _padded(ids, pad),
            "attention_mask": _padded([[1] * len(row) for row in ids], 0),
            "word_starts": _padded(starts, 0),
            "word_mask": _padded([[1] * len(row) for row in starts], 0).astype(bool),
        }

    def _pieces(self, posts: list[list[str]]) -> list[dict[int, list[int]]]:
        """For each post, the sub-token ids of each word by its index; a word that the tokenizer drops is missing."""
        pieces: list[dict[int, list[int]]] = [{} for _ in posts]
        filled = [index for index, words in enumerate(posts) if words]
        if not filled:
            return pieces
        encoded = self.tokenizer(
            [[_encodable(word) for word in posts[index]] for index in filled],
            is_split_into_words=True,
            add_special_tokens=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        for row, index in enumerate(filled):
            for piece, word in zip(encoded["input_ids"][row], encoded.word_ids(row), strict=True):
                if word is not None:
                    pieces[index].setdefault(word, []).append(piece)
        return pieces

    def _picture_arrays(self, images: Any, count: int) -> dict[str, np.ndarray]:
        """pixel_values and image_mask of `count` posts."""
        if self.image_size is None or images is None:
            images = [None] * count
        if not isinstance(images, (list, tuple)) or len(images) != count:
            found = len(images) if isinstance(images, (list, tuple)) else type(images).__name__
            raise ValueError(f"images: expected a list with an entry (or None) for each of {count} texts, found {found}")
        size = self.image_size or 1
        posts = [_picture_list(entry) for entry in images]
        most = max(len(pictures) for pictures in posts)
        pixels = np.zeros((count, most, 3, size, size), dtype=np.uint8)
        mask = np.zeros((count, most), dtype=bool)
        for row, pictures in enumerate(posts):
            for column, picture in enumerate(pictures):
                try:
                    pixels[row, column] = square_pixels(load_picture(picture), size)
                except PictureError as error:
                    raise PictureError(f"text {row}: {error}") from error
                mask[row, column] = True
        return {"pixel_values": pixels, "image_mask": mask}

    def _label_array(self, labels: Sequence[Sequence[str | int]], posts: list[list[str]]) -> np.ndarray:
        """(B, W) label ids padded with -100."""
        if len(labels) != len(posts):
            raise ValueError(f"labels: expected a list for each of {len(posts)} texts, found {len(labels)}")
        rows = []
        for index, (row, words) in enumerate(zip(labels, posts, strict=True)):
            if len(row) != len(words):
                raise ValueError(f"labels of text {index}: expected one for each of {len(words)} words, found {len(row)}")
            rows.append([self._label_id(label, index) for label in row])
        return _padded(rows, IGNORED)

    def _label_id(self, label: str | int, index: int) -> int:
        if isinstance(label, str) and label in self.labels:
            return self.labels.index(label)
        if not isinstance(label, str) and 0 <= label < len(self.labels):
            return int(label)
        raise ValueError(f"labels of text {index}: expected one of {self.labels} or its id, found {label!r}")


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    encoded = tokenizer(["a"], is_split_into_words=True)
    ids, words = encoded["input_ids"], encoded.word_ids()
    content = [place for place, word in enumerate(words) if word is not None]
    if not content:
        raise ValueError(f"tokenizer {tokenizer.name_or_path!r}: expected it to give 'a' a token, found {ids}")
    return list(ids[: content[0]]), list(ids[content[-1] + 1 :])


def _is_one_post(text: Any, is_split_into_words: bool | None) -> bool:
    """Whether `text` is the words of one post."""
    return bool(is_split_into_words) and not isinstance(text, str) and all(isinstance(word, str) for word in text)


def _encodable(word: str) -> str:
    """The word with U+FFFD for each lone surrogate (half an emoji, as cut JSON holds it), which no tokenizer takes."""
    return word.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _joined(words: Sequence[str]) -> Post:
    """A post given as words: its text is the words with a space between."""
    placed, position = [], 0
    for word in words:
        placed.append(Word(word, position, position + len(word)))
        position += len(word) + 1
    return Post(" ".join(words), placed)


def _picture_list(entry: Any) -> list[Any]:
    """The pictures of a post, given as None, one picture or a list of them (in which None is no picture)."""
    if entry is None:
        return []
    if isinstance(entry, (list, tuple)):
        return [picture for picture in entry if picture is not None]
    return [entry]


def _padded(rows: Sequence[Sequence[int]], value: int) -> np.ndarray:
    """(B, longest) int64, with at least one column so that a batch of empty texts has a shape to compute with."""
    array = np.full((len(rows), max(1, *map(len, rows)) if rows else 1), value, dtype=np.int64)
    for index, row in enumerate(rows):
        array[index, : len(row)] = row
    return array


MMNERProcessor.register_for_auto_class()
if __package__ == "modeling_mmner":  # as remote code it is found by the auto_map of a saved processor
    AutoProcessor.register(MMNERConfig, MMNERProcessor, exist_ok=True)
