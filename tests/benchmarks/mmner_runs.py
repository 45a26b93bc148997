"""Ours: training as `train_accelerate.py` does it, and extraction by the batch predictor."""

from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from modeling_mmner.training.assembly import pretrained_parts
from modeling_mmner.training.centres import refresh_centres
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.features import PictureFeatures
from modeling_mmner.training.optimisation import parameter_groups, train_batches
from modeling_mmner.training.recipes import Recipe

from .setting import Setting

MANY_STEPS = 10**6
"""Of the schedule: the learning rate matters to no clock, but must not reach 0."""


class MMNERTraining:
    """A model, its optimizer and its loop, as `train_accelerate.py` makes them.

    Args:
        recipe: another one than the setting's.
    """

    def __init__(
        self, setting: Setting, model: MMNERForTokenClassification, *, recipe: Recipe | None = None
    ) -> None:
        recipe = recipe or setting.recipe
        self.setting, self.settings = setting, recipe.training
        self.accelerator = Accelerator(cpu=True, mixed_precision=setting.precision)
        groups = parameter_groups(
            model,
            pretrained_parts(model, recipe),
            learning_rate=self.settings.learning_rate,
            head_learning_rate=self.settings.head_learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        optimizer = torch.optim.AdamW(groups, fused=True)
        scheduler = get_linear_schedule_with_warmup(optimizer, 0, MANY_STEPS)
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(model, optimizer, scheduler)
        # A step of a system that clusters entities is one after the warm-up.
        collate = MMNERCollator(setting.processor)
        refresh_centres(
            model, setting.posts, collate=collate, batch_size=setting.batch_size, accelerator=self.accelerator
        )

    def loader(self, *, features: PictureFeatures | None = None, use_images: bool = True) -> Any:
        """The batches, made of the posts as they stand in the corpus; with `features`, no picture is
        opened.
        """
        posts: Any = self.setting.posts
        collate: Any = MMNERCollator(self.setting.processor, use_images=use_images, features=features)
        return self.accelerator.prepare(DataLoader(posts, self.setting.batch_size, collate_fn=collate))

    def epoch(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Train on the batches."""
        for _ in train_batches(
            self.model,
            batches,
            accelerator=self.accelerator,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            max_grad_norm=self.settings.max_grad_norm,
        ):
            pass


class MMNERExtraction:
    """A model and its batch predictor.

    Args:
        features: of the pictures; with them, no picture is opened.
    """

    def __init__(
        self, setting: Setting, model: MMNERForTokenClassification, *, features: PictureFeatures | None = None
    ) -> None:
        self.posts = setting.posts
        self.predictor = BatchPredictor(
            model.eval(),
            PostReader(setting.processor, features=features),
            batch_size=setting.batch_size,
            read_ahead=True,
            autocast=Accelerator(cpu=True, mixed_precision=setting.precision).autocast,
        )

    def extract(self) -> list[list[dict[str, Any]]]:
        """The entities of each post, from the posts as they stand in the corpus."""
        return [prediction.entities for prediction in self.predictor.predict(self.posts)]
