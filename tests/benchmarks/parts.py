"""The parts of the benchmark: which contenders do which work, and what is compared."""

import copy
from collections.abc import Iterator

import torch

from modeling_mmner import MMNERForTokenClassification

from .annotation import annotation_comparison
from .crf_speed import crf_comparisons
from .floors import ExtractionFloor, TrainingFloor
from .mmner_runs import MMNERExtraction, MMNERTraining
from .picture_features import picture_features
from .plain_program import PlainProgram, PlainUMT, make_tensors
from .rounds import Comparison, Contender
from .setting import Setting
from .step_shares import Profile, Stopwatch, watch_training
from .transformers_trainer import TransformersTrainer

READY, OURS, PLAIN = "mmner, features ready", "mmner", "plain program"
PLAIN_BATCHES = 2
"""Of the plain program in a round: padded as its batches are, they all take the same time."""


def crf(setting: Setting) -> Iterator[Comparison]:
    """Our CRF beside pytorch-crf, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield from crf_comparisons(setting.seed)
    torch.set_num_threads(threads)


def training(setting: Setting) -> Iterator[Comparison]:
    """Training beside the plain program and the floor, with the pictures read at each step and with their
    features ready.
    """
    model = setting.model()
    floor, plain = TrainingFloor(setting, model), plain_program(setting, model)
    ours = MMNERTraining(setting, model)
    loader, ready = ours.loader(), ours.loader(features=picture_features(setting, model))
    layers, step, batches = "text encoder and fusion", "text encoder, fusion, optimizer", len(floor.batches)
    yield Comparison(
        "a step of training",
        {
            READY: Contender(lambda: ours.epoch(ready), batches),
            OURS: Contender(lambda: ours.epoch(loader), batches),
            PLAIN: Contender(plain.epoch, len(plain.shuffled)),
            layers: Contender(floor.epoch, batches),
            step: Contender(lambda: floor.epoch(ours.optimizer), batches),
        },
        [(PLAIN, READY), (PLAIN, OURS), (READY, layers), (READY, step)],
    )


def extraction(setting: Setting) -> Iterator[Comparison]:
    """Extraction beside the plain program and the floor, with the pictures read and with their features
    ready.
    """
    model = setting.model()
    floor, plain = ExtractionFloor(setting, model), plain_program(setting, model)
    ours, ready = (
        MMNERExtraction(setting, model),
        MMNERExtraction(setting, model, features=picture_features(setting, model)),
    )
    layers, encoders, batches = "text encoder and fusion", "both encoders", len(floor.batches)
    yield Comparison(
        "a batch of extraction",
        {
            READY: Contender(ready.extract, batches),
            OURS: Contender(ours.extract, batches),
            PLAIN: Contender(plain.extract, len(plain.in_order)),
            layers: Contender(floor.fuse, batches),
            encoders: Contender(floor.encode, batches),
        },
        [(PLAIN, READY), (PLAIN, OURS), (READY, layers), (OURS, encoders)],
    )


def trainer(setting: Setting) -> Iterator[Comparison]:
    """An epoch of training on text alone beside transformers' Trainer."""
    recipe = setting.text_alone()
    model = setting.model(recipe)
    ours, theirs = (
        MMNERTraining(setting, model, recipe=recipe),
        TransformersTrainer(setting, model.config.text_config),
    )
    loader = ours.loader(use_images=False)
    yield Comparison(
        "an epoch of training, text alone",
        {
            "mmner, encoder and CRF": Contender(lambda: ours.epoch(loader)),
            "transformers' Trainer": Contender(theirs.epoch),
        },
        [("transformers' Trainer", "mmner, encoder and CRF")],
    )


def profile(setting: Setting) -> Iterator[Profile]:
    """The parts' shares of our training step, with the pictures read at each step and with their features
    ready.
    """
    model = setting.model()
    features = picture_features(setting, model)
    ours, stopwatch = MMNERTraining(setting, model), Stopwatch()
    watch_training(stopwatch, ours)
    yield Profile("shares of a training step", ours, ours.loader(), stopwatch)
    yield Profile(
        "shares of a training step, features ready", ours, ours.loader(features=features), stopwatch
    )


def annotation(setting: Setting) -> Iterator[Comparison]:
    """The command `annotate` beside `predict`."""
    yield from annotation_comparison(setting)


def plain_program(setting: Setting, model: MMNERForTokenClassification) -> PlainProgram:
    """The plain program with encoders of the model's sizes."""
    (tower,) = model.vision_towers
    umt = PlainUMT(
        copy.deepcopy(model.text_tower.encoder),
        copy.deepcopy(tower.backbone.timm_model),
        setting.processor.labels,
    )
    posts = setting.posts[: PLAIN_BATCHES * setting.batch_size]
    return PlainProgram(
        umt, make_tensors(umt, posts, setting.processor, tower=tower), batch_size=setting.batch_size
    )


PARTS = {part.__name__: part for part in (crf, training, extraction, trainer, profile, annotation)}
