"""Predicting whole splits and scoring them: with the posts' own pictures and contexts, with shuffled ones,
and with none.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset

from dataset_scripts.contexts import CONTEXT
from dataset_scripts.inspection import picture_numbers

from ..model.images_mmner import is_picture_column
from ..model.labels_mmner import tags_to_spans
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.prediction_mmner import BatchPredictor, PostReader
from ..model.processing_mmner import MMNERProcessor, Post
from .span_f1.confidence import paired_randomisation
from .span_f1.span_f1 import count_score, evaluate_tags
from .span_f1.spans import span_counts, tag_counts

Shown = Literal["picture", "context"]
Mode = Literal["true", "shuffled", "none"]


@dataclass
class ShownRows:
    """Rows of a data set with their own pictures or contexts, each with another post's, or with none.

    Ready-made features move with their pictures. Shuffling moves them round among the posts that have one, by
    a random cycle: none keeps its own.

    Attributes:
        rows: the data set, with a column `image` or `images`, or a column `context`.
        mode: which ones to show.
        seed: of the shuffling.
        what: pictures or contexts.
    """

    rows: Dataset
    mode: Mode
    seed: int = 0
    what: Shown = "picture"

    def __post_init__(self) -> None:
        self._donor: dict[int, int] = {}
        if self.mode == "shuffled":
            having = rows_with(self.what, self.rows)
            random.Random(self.seed).shuffle(having)
            self._donor = dict(zip(having, having[1:] + having[:1], strict=True))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | str) -> Any:
        if isinstance(index, str):
            return self.rows[index]
        row = self.rows[index]
        shown = self.rows[self._donor[index]] if index in self._donor else row
        is_moved = is_picture_column if self.what == "picture" else (lambda name: name == CONTEXT)
        return row | {name: None if self.mode == "none" else shown[name] for name in filter(is_moved, row)}


def rows_with(what: Shown, rows: Dataset) -> list[int]:
    """The indices of the rows that have a picture, or a context."""
    if what == "picture":
        return np.flatnonzero(picture_numbers(rows)).tolist()
    contexts = list(rows[CONTEXT]) if CONTEXT in rows.features else []
    return [index for index, context in enumerate(contexts) if context and "".join(context).strip()]


@dataclass
class Predictor:
    """Tags posts, in as many processes as the accelerator has, and keeps their order.

    Attributes:
        model: the bare model, on the accelerator's device.
        processor: its processor.
        accelerator: says which share of the posts is this process's, and gathers the results.
        batch_size: posts a batch.
        num_workers: processes that prepare batches.
    """

    model: MMNERForTokenClassification
    processor: MMNERProcessor
    accelerator: Accelerator
    batch_size: int = 32
    num_workers: int = 0

    def tags(self, rows: Dataset | ShownRows) -> list[list[str]]:
        """The predicted BIO tags of each row, one a word."""
        own = range(self.accelerator.process_index, len(rows), self.accelerator.num_processes)
        predictor = BatchPredictor(
            self.model.eval(),
            PostReader(self.processor),
            batch_size=self.batch_size,
            read_ahead=True,
            num_workers=self.num_workers,
            autocast=self.accelerator.autocast,
            with_entities=False,
        )
        found = {}
        predictions = predictor.predict(torch.utils.data.Subset(cast(Any, rows), own))
        for index, prediction in zip(own, predictions, strict=True):
            if prediction.error is not None:
                raise prediction.error
            found[index] = prediction.tags
        tags = dict(pair for pairs in gather_object([list(found.items())]) for pair in pairs)
        return [tags[index] for index in range(len(rows))]


def gold_tags(rows: Dataset, labels: Sequence[str]) -> list[list[str]]:
    """The gold BIO tags of each row."""
    return [[labels[tag] for tag in tags] for tags in rows["ner_tags"]]


def evaluate_rows(predicted: Sequence[Sequence[str]], rows: Dataset, labels: Sequence[str]) -> dict[str, Any]:
    """All scores of predicted tags, see `evaluate_tags`."""
    gold = gold_tags(rows, labels)
    return evaluate_tags(gold, predicted, languages=rows["language"], sources=rows["source"])


def picture_scores(
    predictor: Predictor, rows: Dataset, own: Sequence[Sequence[str]], *, seed: int
) -> dict[str, Any]:
    """What the pictures are worth, see `_scores_by_mode`: where rows or model have none, only ``none``, which
    is `own`.
    """
    if predictor.model.vision_towers and rows_with("picture", rows):
        return _scores_by_mode("picture", predictor, rows, own, seed=seed)
    return {"scores": {"none": evaluate_rows(own, rows, predictor.processor.labels)}, "p_values": {}}


def context_scores(
    predictor: Predictor, rows: Dataset, own: Sequence[Sequence[str]], *, seed: int
) -> dict[str, Any]:
    """What the contexts are worth, see `_scores_by_mode`: where rows or model have none, nothing."""
    if predictor.processor.context_window is not None and rows_with("context", rows):
        return _scores_by_mode("context", predictor, rows, own, seed=seed)
    return {"scores": {}, "p_values": {}}


def _scores_by_mode(
    what: Shown, predictor: Predictor, rows: Dataset, own: Sequence[Sequence[str]], *, seed: int
) -> dict[str, Any]:
    """Scores by what the posts were shown: their ``true`` pictures or contexts (`own` are the tags found
    then), ``shuffled`` ones (where more than one post has one), or ``none``; and for the latter two the
    p-value of the difference in F1 to the first.
    """
    labels = predictor.processor.labels
    gold = gold_tags(rows, labels)
    scores, p_values = {"true": evaluate_rows(own, rows, labels)}, {}
    modes: list[Mode] = ["shuffled", "none"] if len(rows_with(what, rows)) > 1 else ["none"]
    for mode in modes:
        predicted = predictor.tags(ShownRows(rows, mode, seed, what))
        scores[mode] = evaluate_rows(predicted, rows, labels)
        p_values[mode] = paired_randomisation(tag_counts(gold, own), tag_counts(gold, predicted))
    return {"scores": scores, "p_values": p_values}


def raw_text_score(predictor: Predictor, rows: Dataset) -> dict[str, Any]:
    """Score of entities when the gold words are joined to raw text and split again by the processor's rule.

    An entity is right if its type and its character offsets are.
    """
    posts = predictor.processor.read(list(rows["tokens"]))
    resplit = predictor.processor.read([post.text for post in posts])
    tokens = [[word.text for word in post.words] for post in resplit]
    raw_rows = rows.remove_columns(["tokens", "ner_tags"]).add_column("tokens", tokens)
    gold = _character_spans(posts, gold_tags(rows, predictor.processor.labels))
    return count_score(span_counts(gold, _character_spans(resplit, predictor.tags(raw_rows))))


def _character_spans(posts: Sequence[Post], tags: Sequence[Sequence[str]]) -> list[set[tuple[str, int, int]]]:
    """Type and character offsets of the entities of each post."""
    spans = [(post.words, tags_to_spans(row)) for post, row in zip(posts, tags, strict=True)]
    return [
        {(span.type, words[span.start].start, words[span.end - 1].end) for span in found}
        for words, found in spans
    ]
