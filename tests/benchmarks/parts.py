"""The parts of the benchmark: which contenders do which work, and what is compared."""

import copy
from collections.abc import Iterator

import torch

from modeling_mmner import MMNERForTokenClassification

from .crf_speed import crf_comparisons
from .mmner_runs import MMNERExtraction, MMNERTraining
from .plain_program import PlainProgram, PlainUMT, make_tensors
from .rounds import Comparison, Contender
from .setting import Setting
from .transformers_trainer import TransformersTrainer

READY, OURS, PLAIN = "mmner, features ready", "mmner", "plain program"
RATIOS = [(PLAIN, READY), (PLAIN, OURS)]
PLAIN_BATCHES = 2
"""Of the plain program in a round: padded as its batches are, they all take the same time."""


def crf(setting: Setting) -> Iterator[Comparison]:
    """Our CRF beside pytorch-crf, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield from crf_comparisons(setting.seed)
    torch.set_num_threads(threads)


def training(setting: Setting) -> Iterator[Comparison]:
    """Training beside the plain program, with pictures read at each step and with their features ready."""
    model = setting.model()
    plain, ours = plain_program(setting, model), MMNERTraining(setting, model)
    loader, ready = ours.loader(setting.posts), ours.loader(setting.with_features(model))
    contenders = {
        READY: Contender(lambda: ours.epoch(ready), setting.batches),
        OURS: Contender(lambda: ours.epoch(loader), setting.batches),
        PLAIN: Contender(plain.epoch, len(plain.shuffled)),
    }
    yield Comparison("a step of training", contenders, RATIOS)


def extraction(setting: Setting) -> Iterator[Comparison]:
    """Extraction beside the plain program, with pictures read and with their features ready."""
    model = setting.model()
    plain, ours = plain_program(setting, model), MMNERExtraction(setting, model, setting.posts)
    ready = MMNERExtraction(setting, model, setting.with_features(model))
    contenders = {
        READY: Contender(ready.extract, setting.batches),
        OURS: Contender(ours.extract, setting.batches),
        PLAIN: Contender(plain.extract, len(plain.in_order)),
    }
    yield Comparison("a batch of extraction", contenders, RATIOS)


def trainer(setting: Setting) -> Iterator[Comparison]:
    """An epoch of training on text alone beside transformers' Trainer."""
    recipe = setting.text_alone()
    model = setting.model(recipe)
    ours = MMNERTraining(setting, model, recipe=recipe)
    theirs = TransformersTrainer(setting, model.config.text_config)
    loader = ours.loader(setting.posts.remove_columns("image"))
    own, other = "mmner, encoder and CRF", "transformers' Trainer"
    contenders = {own: Contender(lambda: ours.epoch(loader)), other: Contender(theirs.epoch)}
    yield Comparison("an epoch of training, text alone", contenders, [(other, own)])


def plain_program(setting: Setting, model: MMNERForTokenClassification) -> PlainProgram:
    """The plain program with encoders of the model's sizes."""
    (tower,) = model.vision_towers
    text, picture = copy.deepcopy(model.text_tower.encoder), copy.deepcopy(tower.backbone.timm_model)
    umt = PlainUMT(text, picture, setting.processor.labels)
    posts = list(setting.posts.select(range(PLAIN_BATCHES * setting.batch_size)))
    tensors = make_tensors(umt, posts, setting.processor, tower=tower)
    return PlainProgram(umt, tensors, batch_size=setting.batch_size)


PARTS = {part.__name__: part for part in (crf, training, extraction, trainer)}
