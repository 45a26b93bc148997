"""What transformers' `Trainer` needs for an MMNER model: metric, entity centres, lengths to group by."""

from collections.abc import Callable, Sequence
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..evaluation.span_f1.span_f1 import tag_score
from ..model.labels_mmner import IGNORED
from ..model.processing_mmner import MMNERProcessor
from .collator import LaidOutRows
from .optimisation import centres_due, refresh_centres


def span_f1(labels: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """The `compute_metrics` of a Trainer: precision, recall and F1 over entities, leniently and strictly.

    Returns:
        A function of predictions, of which the last is the tags (B, W), and label ids (B, W), both -100 where
        there is no word; it gives ``{"precision", "recall", "f1", "strict_f1"}``, each in 0..1.
    """

    def compute_metrics(predictions: EvalPrediction) -> dict[str, float]:
        ids = (predictions.label_ids, predictions.predictions[-1])
        gold, found = ([[labels[tag] for tag in row if tag != IGNORED] for row in tags] for tags in ids)
        lenient, strict = (tag_score(gold, found, strict=strict) for strict in (False, True))
        return {name: lenient[name] for name in ("precision", "recall", "f1")} | {"strict_f1": strict["f1"]}

    return compute_metrics


class EntityCentreCallback(TrainerCallback):
    """Computes the entity centres as `train_accelerate.py` does (Li et al. 2022, eq. 6-8).

    Does nothing for a model without the clustering objective. The pass over the data draws no random numbers:
    a run's dropout and order of posts are the same with it and without.

    Args:
        warmup_epochs: epochs before the first centres.
        refresh_epochs: epochs between refreshes.
    """

    def __init__(self, *, warmup_epochs: int = 2, refresh_epochs: int = 2) -> None:
        self.warmup_epochs, self.refresh_epochs = warmup_epochs, refresh_epochs

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refresh the centres where that is due, but not where a resumed run begins within an epoch."""
        done, when = state.epoch or 0.0, (self.warmup_epochs, self.refresh_epochs)
        if done % 1 or not centres_due(int(done) + 1, *when):
            return
        training = kwargs["train_dataloader"]
        refresh_centres(
            kwargs["model"],
            training.dataset,
            collate=training.collate_fn,
            batch_size=args.train_batch_size,
            accelerator=Accelerator(),  # shares the state of the Trainer's: its processes and its precision
        )


def with_lengths(rows: Dataset, processor: MMNERProcessor) -> Dataset:
    """The rows with a column ``length``, of sub-tokens, for ``train_sampling_strategy="group_by_length"``."""
    return rows.add_column("length", LaidOutRows.of(processor, rows).lengths)
