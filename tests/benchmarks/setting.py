"""What all contenders share: the posts, the processor, and models of the same sizes."""

import random
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset

from dataset_scripts.opening import open_corpus
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.images_mmner import pictures_of
from modeling_mmner.training.assembly import build_model, build_processor
from modeling_mmner.training.collator import LaidOutRows
from modeling_mmner.training.features import with_features
from modeling_mmner.training.optimisation import resolve_precision
from modeling_mmner.training.recipes import Recipe, load_recipe
from modeling_mmner.training.sampling import PostSampler

BERT_BASE = {"model_type": "bert", "vocab_size": 28996}  # bert-base-cased; all else is BertConfig's default
PIECES = 3000
"""Size of the vocabulary that is trained where no text encoder is given: with it Twitter-2017's posts have 25
sub-tokens on average, as with BERT's own. The table of embeddings keeps the size of the encoder's config."""


@dataclass
class Setting:
    """What all contenders share.

    Attributes:
        recipe: of our model; a cross-modal one with one frozen picture encoder.
        posts: each with one picture, batch after batch as training makes them.
        precision: ``bf16`` (mixed precision) or ``no`` (float32), of all but the plain program (float32).
        seed: of weights, orders and random tensors.
    """

    recipe: Recipe
    posts: Dataset
    processor: MMNERProcessor
    batch_size: int
    precision: str
    seed: int

    def model(self, recipe: Recipe | None = None) -> MMNERForTokenClassification:
        """Our model, of the recipe or of another one with the same text encoder."""
        recipe = recipe or self.recipe
        torch.manual_seed(self.seed)
        model = build_model(recipe, self.processor)
        size = recipe.model.config.get("text_config", {}).get("vocab_size")
        if recipe.model.text_encoder is None and size:
            model.resize_token_embeddings(size, mean_resizing=False)
        return model

    def with_features(self, model: MMNERForTokenClassification) -> Dataset:
        """The posts with the features of their pictures, made before the clock starts."""
        self._folder = TemporaryDirectory()  # as long as the setting is there
        bf16 = self.precision == "bf16"
        return with_features(self.posts, model, self.processor, folder=self._folder.name, bf16=bf16)

    def text_alone(self) -> Recipe:
        """The recipe without pictures: text encoder, linear layer, CRF."""
        return self.recipe.with_settings(
            fusion="text-only", vision_towers=[], objectives={"crf": 1.0}, boundary_share=0.0
        )

    @cached_property
    def sub_tokens(self) -> list[int]:
        """How many each post has, special ones included."""
        texts = self.processor.tokenizer(self.posts["tokens"][:], is_split_into_words=True)["input_ids"]
        return [len(text) for text in texts]

    @property
    def batches(self) -> int:
        return len(self.posts) // self.batch_size

    def facts(self) -> dict[str, Any]:
        """What the times depend on: how many posts, how long they are, and what training pads them to."""
        batches = [self.sub_tokens[n * self.batch_size :][: self.batch_size] for n in range(self.batches)]
        return {
            "posts": len(self.posts),
            "words_per_post": mean(map(len, self.posts["tokens"])),
            "sub_tokens_per_post": mean(self.sub_tokens),
            "padded_sub_tokens_per_post": mean(map(max, batches)),
        }


def make_setting(
    *,
    recipe: str,
    data_dir: str | None,
    image_dir: str | None,
    batches: int,
    batch_size: int,
    precision: str,
    seed: int,
    **encoders: str | None,
) -> Setting:
    """A setting of the command's options; encoders that are not given are random ones of the recipe's sizes:
    nothing is downloaded.

    Args:
        batches: how many of an epoch to draw; one of so few posts would have batches of less like lengths.
        encoders: `text_encoder`, `vision_backbone`, `vision_checkpoint`, as in `train_accelerate.py`.

    Raises:
        ValueError: the recipe is of another kind, or the corpus has fewer batches.
    """
    chosen = load_recipe(recipe, {name: value for name, value in encoders.items() if value is not None})
    is_frozen = [tower.frozen for tower in chosen.model.towers] == [True]
    if not is_frozen or chosen.model.config.get("fusion") != "cross-modal":
        expected = "a cross-modal one with one frozen picture encoder, as umt-bert-crf"
        raise ValueError(f"--recipe: expected {expected}, found {chosen.name}")
    if encoders.get("text_encoder") is None and chosen.model.text_encoder is not None:
        chosen = chosen.with_settings(text_encoder=None, text_config=BERT_BASE)
    if encoders.get("vision_checkpoint") is None:
        random_ones = [replace(tower, pretrained=False) for tower in chosen.model.towers]
        chosen = chosen.with_settings(vision_towers=random_ones)
    chosen = chosen.with_settings(vocabulary_size=PIECES)
    corpus = open_corpus(data_dir or "sample", image_dir=image_dir)
    rows = corpus.splits["train"]
    processor = build_processor(chosen, labels=corpus.labels, posts=rows["tokens"])
    places = _batches_of_an_epoch(rows, processor, batch_size=batch_size, count=batches, seed=seed)
    posts = _pictured([rows[index] for index in places])
    return Setting(chosen, posts, processor, batch_size, resolve_precision(precision), seed)


def _batches_of_an_epoch(
    rows: Dataset, processor: MMNERProcessor, *, batch_size: int, count: int, seed: int
) -> list[int]:
    """The posts of so many batches of an epoch, taken evenly from shortest to longest and shuffled."""
    lengths = LaidOutRows.of(processor, rows).lengths
    batches = PostSampler(lengths, batch_size=batch_size, processes=1, seed=seed)
    whole = [batch for batch in batches if len(batch) == batch_size]
    if not 0 < count <= len(whole):
        most = f"{len(whole)}, which an epoch has of {batch_size} posts"
        raise ValueError(f"--batches: expected 1 to {most}, found {count}")
    whole.sort(key=lambda batch: sum(lengths[index] for index in batch))
    chosen = [whole[(2 * number + 1) * len(whole) // (2 * count)] for number in range(count)]
    random.Random(seed).shuffle(chosen)
    return [index for batch in chosen for index in batch]


def _pictured(posts: list[dict[str, Any]]) -> Dataset:
    """The posts with one picture each; those without are given one of the sample corpus's."""
    drawn = cycle(image for image in open_corpus("sample").splits["train"]["image"] if image is not None)
    images = [next(iter(pictures_of(post)), None) or next(drawn) for post in posts]
    kept = ("id", "tokens", "ner_tags", "language")
    columns = {name: [post[name] for post in posts] for name in kept}
    return Dataset.from_dict(columns | {"image": images})
