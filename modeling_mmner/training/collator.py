"""Rows of a data set -> a batch of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..model.images_mmner import pictures_of
from ..model.processing_mmner import MMNERProcessor
from .features import PictureFeatures


@dataclass
class MMNERCollator:
    """Makes a batch of rows with `tokens`, and optionally `image` or `images`, a context and `ner_tags`; pads
    to the longest.

    Attributes:
        processor: places the words, reads the pictures, and the contexts where it has a `context_window`.
        use_images: False leaves every picture out.
        context_column: the column of the contexts; None leaves every context out.
        pad_to_multiple_of: see `MMNERProcessor.__call__`.
        features: those of the frozen picture encoders, which then need not run; see `PictureFeatures`.
    """

    processor: MMNERProcessor
    use_images: bool = True
    context_column: str | None = "context"
    pad_to_multiple_of: int | None = None
    features: PictureFeatures | None = None

    @property
    def opens_pictures(self) -> bool:
        """Whether pictures are opened to make a batch, for no feature of theirs stands for all of them."""
        wanted = self.use_images and self.processor.image_size is not None
        return wanted and (self.features is None or self.features.needs_pixels)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """See `MMNERProcessor.__call__` and `PictureFeatures.inputs` for the tensors and their shapes."""
        images = [pictures_of(row) for row in rows] if self.use_images else None
        labels = [row["ner_tags"] for row in rows] if "ner_tags" in rows[0] else None
        context = [row.get(self.context_column) for row in rows] if self.context_column is not None else None
        opened = images if self.opens_pictures else None
        texts, padding = [row["tokens"] for row in rows], self.pad_to_multiple_of
        batch = dict(
            self.processor(texts, images=opened, context=context, labels=labels, pad_to_multiple_of=padding)
        )
        if self.features is None:
            return batch
        return self.features.in_place_of_pixels(batch, images or [[]] * len(rows))
