"""The parts of the benchmark: which contenders do which work, and what is compared."""

import copy
from collections.abc import Iterator

from .crf_speed import crf_comparisons
from .floors import ExtractionFloor, TrainingFloor
from .mmner_runs import MMNERTraining, extract
from .picture_features import picture_features
from .plain_program import PlainProgram, PlainUMT, make_tensors
from .rounds import Comparison
from .setting import Setting
from .transformers_trainer import TransformersTrainer

READY, OURS, PLAIN = "mmner, features ready", "mmner", "plain program"


def crf(setting: Setting) -> Iterator[Comparison]:
    """Our CRF beside pytorch-crf."""
    yield from crf_comparisons(seed=setting.seed)


def training(setting: Setting) -> Iterator[Comparison]:
    """An epoch of training, with the pictures read at each step or their features ready, beside the plain program and the floor."""
    model = setting.model()
    floor, plain = TrainingFloor(setting, model), plain_program(setting, model)
    ours = MMNERTraining(setting, model)
    loader, ready = ours.loader(), ours.loader(features=picture_features(setting, model))
    layers, step = "text encoder and fusion", "text encoder, fusion, optimizer"
    yield Comparison(
        "an epoch of training",
        {
            READY: lambda: ours.epoch(ready),
            OURS: lambda: ours.epoch(loader),
            PLAIN: plain.epoch,
            layers: floor.epoch,
            step: lambda: floor.epoch(ours.optimizer),
        },
        [(PLAIN, READY), (PLAIN, OURS), (READY, layers), (READY, step)],
    )


def extraction(setting: Setting) -> Iterator[Comparison]:
    """Extraction of all posts' entities, with the pictures read or their features ready, beside the plain program and the floor."""
    model = setting.model()
    floor, plain = ExtractionFloor(setting, model), plain_program(setting, model)
    features = picture_features(setting, model)
    layers, encoders = "text encoder and fusion", "both encoders"
    yield Comparison(
        "extraction",
        {
            READY: lambda: extract(setting, model, features=features),
            OURS: lambda: extract(setting, model),
            PLAIN: plain.extract,
            layers: floor.fuse,
            encoders: floor.encode,
        },
        [(PLAIN, READY), (PLAIN, OURS), (READY, layers), (OURS, encoders)],
    )


def trainer(setting: Setting) -> Iterator[Comparison]:
    """An epoch of training on text alone, beside transformers' Trainer."""
    recipe = setting.text_alone()
    model = setting.model(recipe)
    ours, theirs = MMNERTraining(setting, model, recipe=recipe), TransformersTrainer(setting, model.config.text_config)
    loader = ours.loader(use_images=False)
    yield Comparison(
        "an epoch of training, text alone",
        {"mmner, encoder and CRF": lambda: ours.epoch(loader), "transformers' Trainer": theirs.epoch},
        [("transformers' Trainer", "mmner, encoder and CRF")],
    )


def plain_program(setting: Setting, model) -> PlainProgram:
    """The plain program with encoders of the model's sizes."""
    (tower,) = model.vision_towers
    encoders = copy.deepcopy(model.text_tower.encoder), copy.deepcopy(tower.backbone.timm_model)
    umt = PlainUMT(*encoders, setting.processor.labels)
    return PlainProgram(umt, make_tensors(umt, setting.posts, setting.processor, tower=tower), batch_size=setting.batch_size)


PARTS = {part.__name__: part for part in (crf, training, extraction, trainer)}
