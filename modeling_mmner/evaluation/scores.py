"""Predicting and scoring whole splits, with the posts' own pictures and contexts, others', and none."""

import random
from collections.abc import Iterable, Iterator, Sequence
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
from ..model.labels_mmner import Span, tags_to_spans
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.prediction_mmner import BatchPredictor, PostReader, Prediction
from ..model.processing_mmner import MMNERProcessor, Post
from .span_f1.confidence import paired_randomisation
from .span_f1.span_f1 import count_score, evaluate_tags
from .span_f1.spans import span_counts, tag_counts

Shown = Literal["picture", "context"]


@dataclass
class ShownRows:
    """Rows of a data set with their own pictures or contexts, with another post's, or with none.

    Ready-made features move with their pictures. Shuffling moves them round among the posts that have one, by
    a random cycle: none keeps its own.

    Attributes:
        rows: the data set, with a column `image` or `images`, or a column `context`.
        seed: of the shuffling.
    """

    rows: Dataset
    mode: Literal["true", "shuffled", "none"]
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

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        shown = self.rows[self._donor[index]] if index in self._donor else row
        moved = filter(is_picture_column, row) if self.what == "picture" else {CONTEXT} & row.keys()
        return row | {name: None if self.mode == "none" else shown[name] for name in moved}


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
        found = readable(predictor.predict(torch.utils.data.Subset(cast(Any, rows), own)))
        # Process p has predicted every n-th row from the p-th on.
        gathered = gather_object([[post.tags for post in found]])
        return [gathered[index % len(gathered)][index // len(gathered)] for index in range(len(rows))]


def readable(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """The predictions, unless one is of a post that could not be read: then its error is raised."""
    for prediction in predictions:
        if prediction.error is not None:
            raise prediction.error
        yield prediction


def scored_entities(predictor: BatchPredictor, rows: Any) -> list[dict[Span, float]]:
    """The predicted entities of each row with their scores. Raises as `readable`."""
    found = readable(predictor.predict(rows))
    pairs = (zip(tags_to_spans(post.tags), post.entities, strict=True) for post in found)
    return [{span: entity["score"] for span, entity in spans} for spans in pairs]


def gold_tags(rows: Dataset, labels: Sequence[str]) -> list[list[str]]:
    """The gold BIO tags of each row."""
    return [[labels[tag] for tag in tags] for tags in rows["ner_tags"]]


def evaluate_rows(predicted: Sequence[Sequence[str]], rows: Dataset, labels: Sequence[str]) -> dict[str, Any]:
    """All scores of predicted tags, see `evaluate_tags`."""
    gold = gold_tags(rows, labels)
    return evaluate_tags(gold, predicted, languages=rows["language"], sources=rows["source"])


def score_test_split(
    predictor: Predictor, rows: Dataset, own: Sequence[Sequence[str]], *, seed: int
) -> dict[str, Any]:
    """What metrics.json says of the test split, see `TestScores`.

    Shuffled pictures or contexts are tried where more than one post has one. Where rows or model have no
    pictures, the one score is that of ``none``; where they have no contexts, there is none.

    Args:
        own: the predicted tags of each row with its own picture and context.
        seed: of the shuffling.
    """
    labels = predictor.processor.labels
    gold, scores = gold_tags(rows, labels), evaluate_rows(own, rows, labels)
    result = scores | {"raw_text": raw_text_score(predictor, rows), "p_values": {}}
    has_window = predictor.processor.context_window is not None
    reads: dict[Shown, bool] = {"picture": bool(predictor.model.vision_towers), "context": has_window}
    for what, is_read in reads.items():
        having = len(rows_with(what, rows)) if is_read else 0
        result[what] = {"true": scores} if having else {"none": scores} if what == "picture" else {}
        p_values = result["p_values"][what] = {}
        for mode in ("shuffled", "none") if having > 1 else ("none",) if having else ():
            predicted = predictor.tags(ShownRows(rows, mode, seed, what))
            result[what][mode] = evaluate_rows(predicted, rows, labels)
            p_values[mode] = paired_randomisation(tag_counts(gold, own), tag_counts(gold, predicted))
    return result


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
    return [
        {(kind, post.words[first].start, post.words[end - 1].end) for kind, first, end in tags_to_spans(row)}
        for post, row in zip(posts, tags, strict=True)
    ]
