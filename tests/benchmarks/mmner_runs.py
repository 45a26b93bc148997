"""Ours: training as `train_accelerate.py` does it, and extraction by the batch predictor."""

from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import DataLoader

from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from modeling_mmner.training.collator import LaidOutRows, MMNERCollator
from modeling_mmner.training.optimisation import optimizer_and_scheduler, refresh_centres, train_batches
from modeling_mmner.training.recipes import Recipe

from .setting import Setting

MANY_BATCHES = 10**6
"""Of the schedule: the learning rate matters to no clock, but must not reach 0."""


class MMNERTraining:
    """A model, its optimizer and its loop, as `train_accelerate.py` makes them."""

    def __init__(
        self, setting: Setting, model: MMNERForTokenClassification, *, recipe: Recipe | None = None
    ) -> None:
        recipe = recipe or setting.recipe
        self.setting, self.max_grad_norm = setting, recipe.training.max_grad_norm
        self.accelerator = Accelerator(cpu=True, mixed_precision=setting.precision)
        made = optimizer_and_scheduler(recipe, model, batches=MANY_BATCHES, processes=1)
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(model, *made)
        # A step of a system that clusters entities is one after the warm-up.
        options: dict[str, Any] = {"batch_size": setting.batch_size, "accelerator": self.accelerator}
        refresh_centres(model, setting.posts, collate=MMNERCollator(setting.processor), **options)

    def loader(self, posts: Dataset) -> Any:
        """The batches. Texts are laid out once, as in training; posts with features open no picture."""
        rows: Any = LaidOutRows.of(self.setting.processor, posts)
        collate: Any = MMNERCollator(self.setting.processor)
        return self.accelerator.prepare(DataLoader(rows, self.setting.batch_size, collate_fn=collate))

    def epoch(self, batches: Any) -> None:
        """Train on the batches."""
        parts: dict[str, Any] = {"accelerator": self.accelerator, "max_grad_norm": self.max_grad_norm}
        parts |= {"optimizer": self.optimizer, "scheduler": self.scheduler}
        for _ in train_batches(self.model, batches, **parts):
            pass


class MMNERExtraction:
    """A model and its batch predictor, for the entities of some posts."""

    def __init__(self, setting: Setting, model: MMNERForTokenClassification, posts: Dataset) -> None:
        self.posts = posts
        autocast = Accelerator(cpu=True, mixed_precision=setting.precision).autocast
        options: dict[str, Any] = {"batch_size": setting.batch_size, "read_ahead": True}
        reader = PostReader(setting.processor)
        self.predictor = BatchPredictor(model.eval(), reader, autocast=autocast, **options)

    def extract(self) -> list[list[dict[str, Any]]]:
        """The entities of each post."""
        return [prediction.entities for prediction in self.predictor.predict(self.posts)]
