"""Rows of a data set -> a batch of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from dataset_scripts.contexts import CONTEXT

from ..model.images_mmner import PICTURE_COLUMNS, pictures_of
from ..model.posts_mmner import check_key
from ..model.processing_mmner import MMNERProcessor
from ..model.ready_features_mmner import features_of, reads_pixels
from ..model.windows_mmner import LAID_OUT, TextWindows


@dataclass
class LaidOutRows:
    """Rows of a data set whose texts are laid out once, however often they are read.

    Attributes:
        windows: of each row, see `MMNERProcessor.lay_out`.
    """

    rows: Dataset
    windows: list[TextWindows]

    @classmethod
    def of(cls, processor: MMNERProcessor, rows: Dataset) -> "LaidOutRows":
        """A data set's rows, with their contexts in the column `context`, if any."""
        texts = rows.select_columns([name for name in ("tokens", CONTEXT) if name in rows.features])
        windows: list[TextWindows] = []
        for some in texts.iter(1000):
            windows += processor.lay_out(processor.read(some["tokens"], context=some.get(CONTEXT)))
        return cls(rows, windows)

    @property
    def lengths(self) -> list[int]:
        """What each post takes of a batch: all of its sub-tokens, or words where the tower reads words."""
        return [windows.size for windows in self.windows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | str) -> Any:
        row = self.rows[index]
        return row if isinstance(index, str) else row | {LAID_OUT: self.windows[index]}


@dataclass
class MMNERCollator:
    """Makes a batch of rows with `tokens`, and optionally `image` or `images`, `context` and `ner_tags`.

    Texts are padded to the longest. Features of pictures that the rows bring (`with_features`) stand in their
    place, texts that are laid out (`LaidOutRows`) are not laid out again.

    Attributes:
        processor: places the words, reads the pictures, and the contexts where it has a `context_window`.
        pad_to_multiple_of: see `MMNERProcessor.__call__`.
        label_names: of the numbers in `ner_tags`, as ``features["ner_tags"].feature.names`` has them; None:
            they are those of the processor.
    """

    processor: MMNERProcessor
    pad_to_multiple_of: int | None = None
    label_names: Sequence[str] | None = None

    def opens_pictures(self, rows: Dataset) -> bool:
        """Whether batches of a data set need its pictures, since no features stand for all of them."""
        has_pictures = any(name in rows.features for name in PICTURE_COLUMNS)
        return self.processor.image_size is not None and has_pictures and reads_pixels(features_of(rows[0]))

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """See `MMNERProcessor.encode` for the tensors and their shapes."""
        texts = [row["tokens"] for row in rows]
        context = [row.get(CONTEXT) for row in rows] if self.processor.context_window else None
        features = [features_of(row) for row in rows]
        read = zip(rows, features, strict=True)
        if self.processor.image_size is not None:
            for number, row in enumerate(rows, start=1):
                check_key(row, "image", number)
        images = [pictures_of(row) if reads_pixels(towers) else [] for row, towers in read]
        posts = self.processor.read(texts, images, context=context, whole_pictures=False)
        posts = [post._replace(features=towers) for post, towers in zip(posts, features, strict=True)]
        windows = [row[LAID_OUT] for row in rows] if LAID_OUT in rows[0] else None
        labels = [row["ner_tags"] for row in rows] if "ner_tags" in rows[0] else None
        if labels is not None and self.label_names is not None:
            names = dict(enumerate(self.label_names))  # names, and -1, stay for `encode` to take or refuse
            labels = [[names.get(tag, tag) for tag in tags] for tags in labels]
        multiple = self.pad_to_multiple_of
        return dict(self.processor.encode(posts, windows=windows, labels=labels, pad_to_multiple_of=multiple))
