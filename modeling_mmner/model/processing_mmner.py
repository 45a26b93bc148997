"""`MMNERProcessor`: texts, contexts and pictures -> tensors, and the model's outputs -> entities.

Notation: B batch, K windows of a text, S sub-tokens of a window, W words, Y bytes of a word, N pictures of a
post.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from itertools import accumulate, chain
from math import isnan
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import logging

from .configuration_mmner import PIXELS, MMNERConfig
from .effects_mmner import EFFECTS
from .images_mmner import PictureError, is_missing, listed, load_picture, pictures_of, square, square_pixels
from .labels_mmner import IGNORED, LABELS, Word, check_labels, saved_word_rule, split_words, tags_to_spans
from .marking_mmner import encodable
from .parts_mmner import Range, Setting
from .posts_mmner import is_words
from .ready_features_mmner import TowerFeatures, image_features, reads_pixels
from .windows_mmner import TextWindows, WindowLayout

_logger = logging.get_logger(__name__)
_NUMBERS = {
    "word_bytes": Range("a number > 0, or None for no characters", lambda value: value > 0),
    "context_window": Range("a number > 0, or None for no contexts", lambda value: value > 0),
    "image_size": PIXELS,
}
_SETTINGS = frozenset(["labels", "word_rule", "calibration", *_NUMBERS])


class Post(NamedTuple):
    """A post as the model reads it.

    Attributes:
        words: those that its tags belong to.
        pictures: opened, as RGB.
        context: what somebody wrote about it.
        features: ready-made features of its pictures, for each vision tower.
    """

    text: str
    words: list[Word]
    pictures: Sequence[Image.Image] = ()
    context: str = ""
    features: Sequence[TowerFeatures] = ()


class MMNERProcessor(ProcessorMixin):
    """Makes the inputs of `MMNERForTokenClassification` and reads its outputs.

    Every word gets a place: one that the tokenizer drops (zero-width, private use, a control character)
    stands as the unknown token. Texts are never cut: one that is longer than the encoder's window, the
    tokenizer's `model_max_length`, is laid out in windows that overlap by half, see `WindowLayout`. This is
    ours; the papers cut. A context, what somebody wrote about the post or its picture, follows the text in
    the same window; it is read, never tagged. Pictures leave as uint8, since each vision tower normalises its
    own.

    Args:
        tokenizer: a fast tokenizer; byte-level ones (RoBERTa) loaded with ``add_prefix_space=True``.
        labels: the BIO label names in id order.
        image_size: height and width in pixels of the square the pictures leave in; None for a model of text
            alone, whose pictures are not even opened.
        word_rule: that splits raw text, ``spaces`` or ``characters``, see `split_words`; it is kept under the
            name under which it is saved.
        word_bytes: for text towers that read characters, how many bytes of a word at most, > 0; a longer word
            is cut at its end for them, and for them alone. None makes no characters.
        context_window: for models that read contexts, how many sub-tokens of one at most, > 0. None reads no
            contexts.
        calibration: the thresholds that `mmner calibrate` has found, see `saved_calibration`; None: none.

    Raises:
        TypeError: a setting is of another type.
        ValueError: the tokenizer is not a fast one, or its window has no room for two sub-tokens; the labels
            are no BIO tag set; the rule is unknown; `word_bytes` or `context_window` is out of its range.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str] = LABELS,
        image_size: int | None = 224,
        word_rule: str = "spaces",
        word_bytes: int | None = None,
        context_window: int | None = None,
        calibration: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tokenizer)
        if not tokenizer.is_fast:
            found = type(tokenizer).__name__
            raise ValueError(f"tokenizer: expected a fast one, which places words, found {found}")
        special = {*tokenizer.all_special_tokens, "\u2581"}  # the last begins a word of SentencePiece
        if len(tokenizer) < 1000 and special.issuperset(tokenizer.get_vocab()):
            found = f"none but {len(tokenizer)} special ones; is the model's tokenizer.json missing?"
            raise ValueError(f"tokenizer: expected sub-tokens, found {found}")
        check_labels(labels)
        self.labels = list(labels)
        self.image_size = image_size
        self.word_bytes = word_bytes
        self.context_window = context_window
        self.calibration = calibration
        for name, numbers in _NUMBERS.items():
            Setting(int | None, None, "", numbers).check(name, getattr(self, name), owner="MMNERProcessor")
        Setting(dict[str, Any] | None, None, "").check("calibration", calibration, owner="MMNERProcessor")
        self.word_rule = saved_word_rule(word_rule)
        self._layout = WindowLayout(tokenizer)
        if context_window is not None:
            _ = self._layout.separators  # raises now, not at the first context, where there are none

    @property
    def window(self) -> int | None:
        """Longest input of the text encoder in sub-tokens, special tokens included; None: no limit."""
        return self._layout.window

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers'; ``labels=...``, ``context_window=...`` and the like replace what was saved."""
        # Apart from the others, which transformers hands on to the tokenizer and that to the model's config.
        settings = {name: kwargs.pop(name) for name in _SETTINGS & kwargs.keys()}
        for key in kwargs:  # options of loading come here, too, and of the tokenizer
            if close := get_close_matches(key, _SETTINGS, n=1, cutoff=0.8):
                raise TypeError(f"processor: unknown key {key!r}; did you mean {close[0]!r}?")
        # Otherwise a folder whose tokenizer has code of its own asks at the terminal.
        kwargs.setdefault("trust_remote_code", False)
        saved = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if not settings:
            return saved
        return cls(saved.tokenizer, **{name: getattr(saved, name) for name in _SETTINGS} | settings)

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns."""
        types = [] if self.context_window is None else ["token_type_ids"]
        characters = [] if self.word_bytes is None else ["character_ids"]
        text = ["input_ids", "attention_mask", *types, "word_starts", "word_mask", *characters]
        return [*text, "pixel_values", "image_mask"]

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        images: Any = None,
        *,
        context: Any = None,
        is_split_into_words: bool | None = None,
        padding: bool | str = True,
        truncation: bool | str | None = False,
        **options: Any,
    ) -> BatchFeature:
        """Make a batch.

        Args:
            text: a raw text, a list of raw texts, or a list of word lists. With ``is_split_into_words=True``
                a flat list of strings is the words of one post.
            images: for each text a picture, a list of them, or None (see `load_picture` for the kinds); None:
                no pictures.
            context: for each text a string, a list of strings, which are joined by spaces, or None; None: no
                contexts. Read where the processor has a `context_window`.
            padding, truncation: there for scripts that give them, as they are.
            options: labels, pad_to_multiple_of and return_tensors, see `encode`.

        Returns:
            see `encode`.

        Raises:
            TypeError: `text` or `context` is none of the above.
            ValueError: another padding or truncation; numbers of texts, pictures, contexts or labels differ;
                labels that are not a list for each text, or an unknown one; a picture that cannot be read.
        """
        if padding not in (True, "longest") or truncation not in (False, None, "do_not_truncate"):
            expected = "padding=True and truncation=False, for texts are padded to the longest and never cut"
            found = f"padding={padding!r:.40} and truncation={truncation!r:.40}"
            raise ValueError(f"processor: expected {expected}, found {found}; see also pad_to_multiple_of")
        reading = {"context": context, "is_split_into_words": is_split_into_words}
        return self.encode(self.read(text, images, **reading, whole_pictures=False), **options)

    def read(
        self,
        text: Any,
        images: Any = None,
        *,
        context: Any = None,
        is_split_into_words: bool | None = None,
        whole_pictures: bool = True,
    ) -> list[Post]:
        """Posts from texts, pictures and contexts, as `__call__` takes them: raw texts split into words by
        the processor's rule, pictures opened (not those of a model of text alone).

        Args:
            whole_pictures: False keeps only the square that the model sees, which saves memory.
        """
        if not hasattr(text, "__iter__"):
            raise TypeError(f"text: expected a string or a list of texts, found {type(text).__name__}")
        is_words_of_one = is_split_into_words and all(isinstance(word, str) for word in text)
        if is_single := isinstance(text, str) or is_words_of_one:
            text, images, context = [text], [images], [context]
        images, context = listed(images), listed(context)
        posts = [self._read_text(listed(one), number) for number, one in enumerate(text)]
        if not posts:
            raise ValueError("text: expected at least one text, found none")
        places = ["" if is_single else f"text {number}: " for number in range(len(posts))]
        if self.context_window is None:
            if any(isinstance(listed(one), (str, list, tuple)) and len(one) for one in context or ()):
                found = "expected none, for this model reads none, found some, which changes nothing"
                _logger.warning_once(f"context: {found}. Use a model trained with --context, or leave it out")
        elif context is not None:
            _check_entries("context", context, len(posts))
            texts = map(_read_context, context, places)
            posts = [post._replace(context=one) for post, one in zip(posts, texts, strict=True)]
        if self.image_size is not None and images is not None:
            _check_entries("images", images, len(posts))
            size = None if whole_pictures else self.image_size
            pictures = map(partial(_read_pictures, size=size), images, places)
            posts = [post._replace(pictures=opened) for post, opened in zip(posts, pictures, strict=True)]
        return posts

    def _read_text(self, text: Any, number: int) -> Post:
        """A text, or the words of a post, whose text is these with a space between."""
        if isinstance(text, str):
            return Post(text, split_words(text, self.word_rule))
        if not is_words(text):
            found = type(text).__name__
            raise TypeError(f"text {number}: expected a string or a list of strings, found {found}")
        starts = accumulate((len(word) + 1 for word in text), initial=0)
        words = [Word(word, start, start + len(word)) for word, start in zip(text, starts, strict=False)]
        return Post(" ".join(text), words)

    def encode(
        self,
        posts: Sequence[Post],
        *,
        windows: Sequence[TextWindows] | None = None,
        labels: Sequence[Sequence[str | int]] | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Make a batch of posts.

        Args:
            windows: what `lay_out` has made of them; None: it is called.
            labels: for each text its words' labels, as names or ids.
            pad_to_multiple_of: pad the windows to a multiple of so many sub-tokens, but to no more than the
                encoder reads; None: to the longest.
            return_tensors: "pt", "np", or None for arrays as they are.

        Returns:
            input_ids, attention_mask (B, K, S) int64, the windows of each text; of a text with fewer than K
            the last ones are empty. With `context_window`, token_type_ids (B, K, S) int64, 1 for the context,
            0 for the text. word_starts (B, W) int64, the index in 0..K*S-1 of each word's first sub-token in
            its text's windows laid side by side, and word_mask (B, W) bool. With `word_bytes`, character_ids
            (B, W, Y) int64, each word's bytes in UTF-8, plus 1, padded with 0. pixel_values (B, N, 3, H, W)
            uint8 and image_mask (B, N) bool. With ready-made features, image_features, for each tower
            (B, N, M, C) bfloat16 or None, and no pixel_values where no tower reads them. With labels, labels
            (B, W) int64 padded with -100.

        Raises:
            ValueError: labels that do not fit the posts.
        """
        words = [[word.text for word in post.words] for post in posts]
        texts = self.lay_out(posts) if windows is None else windows
        data = self._placed(words, texts, pad_to_multiple_of or 1)
        if self.word_bytes is not None:
            data["character_ids"] = _character_array(words, data["word_mask"], most=self.word_bytes)
        if labels is not None:
            data["labels"] = self._label_array(labels, words)
        features = image_features([post.features for post in posts])
        data |= self._picture_arrays(posts, with_pixels=reads_pixels(features))
        batch = BatchFeature(data, tensor_type=return_tensors)
        if features:
            batch["image_features"] = features
        return batch

    def post_process_entities(
        self, outputs: Any, text: Any, *, is_split_into_words: bool | None = None, threshold: float = 0.0
    ) -> list[list[dict[str, Any]]]:
        """Entities of each text, in the keys of transformers' own NER pipeline.

        Args:
            outputs: the model's output with `tags` (B, W) and `span_scores` (B, W).
            text: the texts or word lists that the inputs were made of, or the posts that `read` made of them.
            threshold: in 0..1; entities with a lower score are left out.

        Returns:
            For each text a list of ``{"entity_group", "score", "word", "start", "end"}``; offsets are into
            the raw text, or into ``" ".join(words)`` for word lists. Of outputs of `with_effects` also
            ``"picture_effect"`` and ``"context_effect"`` in -1..1, or None where there is none.

        Raises:
            ValueError: the outputs are of another number of texts or words.
        """
        is_read = isinstance(text, list) and all(isinstance(post, Post) for post in text)
        posts = text if is_read else self.read(text, is_split_into_words=is_split_into_words)
        if outputs.get("tags") is None:
            raise ValueError("outputs: expected tags and span_scores, found none; call model.eval() first")
        tags = outputs["tags"].tolist()
        if len(tags) != len(posts):
            raise ValueError(f"outputs: expected those of {len(posts)} texts, found {len(tags)}")
        found = {name: outputs.get(field) for name, field in ({"score": "span_scores"} | EFFECTS).items()}
        values = {name: of_all.tolist() for name, of_all in found.items() if of_all is not None}
        rows = [{name: of_all[number] for name, of_all in values.items()} for number in range(len(posts))]
        entities = [self._entities(*row) for row in zip(posts, tags, rows, strict=True)]
        return [[entity for entity in of_text if entity["score"] >= threshold] for of_text in entities]

    def _entities(self, post: Post, tags: list[int], values: dict[str, list[float]]) -> list[dict[str, Any]]:
        """The entities of one post from its padded rows of tags, scores and effects."""
        tags = [tag for tag in tags if tag != IGNORED]
        if len(tags) != len(post.words):
            expected = f"tags of {len(post.words)} words"
            raise ValueError(f"outputs: expected {expected}, found {len(tags)}; is this the same text?")
        entities = []
        for span in tags_to_spans([self.labels[tag] for tag in tags]):
            start, end = post.words[span.start].start, post.words[span.end - 1].end
            own = {name: row[span.start] for name, row in values.items()}
            entity = {"entity_group": span.type, "score": own.pop("score"), "word": post.text[start:end]}
            effects = {name: None if isnan(effect) else effect for name, effect in own.items()}
            entities.append(entity | {"start": start, "end": end} | effects)
        return entities

    def lay_out(self, posts: Sequence[Post]) -> list[TextWindows]:
        """The windows of each post."""
        if not posts:
            return []
        substitutes = (self.tokenizer.unk_token_id, self.tokenizer.mask_token_id, 0)
        unknown = next(token for token in substitutes if token is not None)
        texts_as_words = [[encodable(word.text) for word in post.words] for post in posts]
        words = self._tokenized(texts_as_words, is_split_into_words=True)
        contexts: list[tuple[list[int], Any]] = [([], None)] * len(posts)
        if self.context_window is not None:
            contexts = self._tokenized([encodable(post.context) for post in posts])
        texts = []
        for post, (pieces, owners), (context, _) in zip(posts, words, contexts, strict=True):
            by_word: list[list[int]] = [[] for _ in post.words]
            for piece, owner in zip(pieces, owners, strict=True):
                if owner is not None:
                    by_word[owner].append(piece)
            by_word = [found or [unknown] for found in by_word]  # a word that the tokenizer drops
            starts = np.cumsum([0, *map(len, by_word)], dtype=np.int64)[:-1]
            ids = list(chain.from_iterable(by_word))
            if not (ids or self._layout.before or self._layout.after):
                ids = [unknown]  # an empty text is there, too
            window = self.context_window
            texts.append(self._layout.lay_out(ids, starts, context=context, context_window=window))
        return texts

    def _tokenized(self, texts: Sequence[Any], **options: Any) -> list[tuple[list[int], list[int | None]]]:
        """The sub-token ids of each text, and the word that each is of."""
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False, **options)
        return [(ids, encoded.word_ids(row)) for row, ids in enumerate(encoded["input_ids"])]

    def _placed(
        self, posts: list[list[str]], texts: Sequence[TextWindows], multiple: int
    ) -> dict[str, np.ndarray]:
        """The arrays of posts given as words and as windows."""
        longest = max(len(row) for text in texts for row in text.rows)
        padded = -(-longest // multiple) * multiple
        longest = padded if self.window is None else max(longest, min(padded, self.window))
        shape = (len(texts), max(len(text.rows) for text in texts), longest)
        input_ids = np.full(shape, self.tokenizer.pad_token_id or 0, np.int64)
        attention_mask, token_type_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for number, text in enumerate(texts):
            for window, (row, start) in enumerate(zip(text.rows, text.context_starts, strict=True)):
                input_ids[number, window, : len(row)] = row
                attention_mask[number, window, : len(row)] = 1
                token_type_ids[number, window, start : len(row)] = 1
        starts = [text.word_windows * longest + text.word_places for text in texts]
        data = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.context_window is not None:
            data["token_type_ids"] = token_type_ids
        mask = _padded([[1] * len(words) for words in posts], 0).astype(bool)
        return data | {"word_starts": _padded(starts, 0), "word_mask": mask}

    def _picture_arrays(self, posts: Sequence[Post], *, with_pixels: bool) -> dict[str, np.ndarray]:
        """image_mask and, where they are read, pixel_values of posts."""
        features = [next((found for found in post.features if found), ()) for post in posts]
        counts = [len(post.pictures or found) for post, found in zip(posts, features, strict=True)]
        size, most = self.image_size or 1, max(counts) if self.image_size is not None else 0
        mask = np.arange(most) < np.array(counts)[:, None]
        if not with_pixels:
            return {"image_mask": mask}
        pixels = np.zeros((len(posts), most, 3, size, size), dtype=np.uint8)
        for row, post in enumerate(posts):
            for column, picture in enumerate(post.pictures[:most]):
                pixels[row, column] = square_pixels(picture, size)
        return {"pixel_values": pixels, "image_mask": mask}

    def _label_array(self, labels: Sequence[Sequence[str | int]], posts: list[list[str]]) -> np.ndarray:
        """(B, W) label ids padded with -100."""
        if len(labels) != len(posts):
            raise ValueError(f"labels: expected a list for each of {len(posts)} texts, found {len(labels)}")
        rows = []
        for index, (row, words) in enumerate(zip(labels, posts, strict=True)):
            row = row.tolist() if hasattr(row, "tolist") else row
            is_list = hasattr(row, "__len__") and not isinstance(row, (str, bytes))
            if not is_list or len(row) != len(words):
                raise ValueError(
                    f"labels of text {index}: expected a list with a label for each of its {len(words)}"
                    f" words, found {len(row) if is_list else repr(row)}; labels are a list for each text,"
                    " also for a single one: [['O', ...]]"
                )
            rows.append([self._label_id(label, index) for label in row])
        return _padded(rows, IGNORED)

    def _label_id(self, label: Any, index: int) -> int:
        number = self.labels.index(label) if isinstance(label, str) and label in self.labels else label
        is_id = isinstance(number, Integral) and not isinstance(number, bool)
        if not is_id or not 0 <= number < len(self.labels):
            expected = f"one of {self.labels} or its id"
            raise ValueError(f"labels of text {index}: expected {expected}, found {label!r}")
        return int(number)


def _check_entries(name: str, given: Any, count: int) -> None:
    """Raises ValueError where it is no list with an entry for each text."""
    if not isinstance(given, (list, tuple)) or len(given) != count:
        found = len(given) if isinstance(given, (list, tuple)) else type(given).__name__
        expected = f"a list with an entry (or None) for each of {count} texts"
        raise ValueError(f"{name}: expected {expected}, found {found}")


def _read_context(entry: Any, place: str) -> str:
    """The context of a post, given as None, a string or a list of strings."""
    texts = [] if is_missing(entry) else [entry] if isinstance(entry, str) else listed(entry)
    if not is_words(texts):
        expected = "a string, a list of strings or None"
        raise TypeError(f"{place}context: expected {expected}, found {entry!r:.80}")
    return " ".join(stripped for text in texts if (stripped := text.strip()))


def _read_pictures(entry: Any, place: str, *, size: int | None) -> list[Image.Image]:
    """The pictures of a post, given as None, one picture or a list; as squares where there is a size."""
    try:
        opened = [load_picture(picture) for picture in pictures_of({"images": entry})]
    except PictureError as error:
        raise PictureError(f"{place}{error}") from error
    return opened if size is None else [square(picture, size) for picture in opened]


def _character_array(posts: list[list[str]], word_mask: np.ndarray, *, most: int) -> np.ndarray:
    """(B, W, Y) character ids of posts given as words, at most so many a word."""
    # One character more than bytes: the last may be a surrogate that belongs to the next.
    spelt = [list(encodable(word[: most + 1]).encode()[:most]) for words in posts for word in words]
    ids = _padded(spelt, -1) + 1  # of all words, shape: (number of words, Y)
    array = np.zeros((*word_mask.shape, ids.shape[1]), np.int64)
    array[word_mask] = ids
    return array


def _padded(rows: Sequence[Any], value: int) -> np.ndarray:
    """(B, longest) int64, with one column at least: a batch of empty texts has a shape, too."""
    array = np.full((len(rows), max(1, *map(len, rows)) if rows else 1), value, dtype=np.int64)
    for index, row in enumerate(rows):
        array[index, : len(row)] = row
    return array


MMNERProcessor.register_for_auto_class()
if __package__ == "modeling_mmner.model":  # as remote code it is found by the auto_map of a saved processor
    AutoProcessor.register(MMNERConfig, MMNERProcessor, exist_ok=True)
