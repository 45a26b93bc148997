"""What all contenders share: the posts, the processor, and models of the same sizes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from statistics import mean
from typing import Any

import torch

from dataset_scripts.opening import open_corpus
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.images_mmner import pictures_of
from modeling_mmner.training.assembly import build_model, build_processor
from modeling_mmner.training.recipes import Recipe, load_recipe
from modeling_mmner.training.sampling import PostSampler, post_lengths

BERT_BASE = {
    "model_type": "bert",
    "vocab_size": 28996,
}  # bert-base-cased; all else is the default of BertConfig
PIECES = 3000
"""Size of the vocabulary that is trained where no text encoder is given: with it Twitter-2017's posts have 25
sub-tokens on average, as with BERT's own. The table of embeddings keeps the size of the encoder's config."""


@dataclass
class Setting:
    """What all contenders share.

    Attributes:
        recipe: of our model; a cross-modal one with one frozen picture encoder.
        posts: rows of a corpus, each with one picture, batch after batch as training makes them.
        processor: ours.
        batch_size: posts a batch.
        precision: ``bf16`` (mixed precision) or ``no`` (float32), of all but the plain program, which is in
            float32.
        seed: of weights, orders and random tensors.
    """

    recipe: Recipe
    posts: list[dict[str, Any]]
    processor: MMNERProcessor
    batch_size: int
    precision: str
    seed: int

    def model(self, recipe: Recipe | None = None) -> MMNERForTokenClassification:
        """Our model, of the recipe or of another one with the same text encoder."""
        recipe = recipe or self.recipe
        torch.manual_seed(self.seed)
        model = build_model(recipe, self.processor)
        if recipe.model.text_encoder is None and (
            size := recipe.model.config["text_config"].get("vocab_size")
        ):
            model.resize_token_embeddings(size, mean_resizing=False)
        return model

    def text_alone(self) -> Recipe:
        """The recipe without pictures: text encoder, linear layer, CRF."""
        return self.recipe.with_settings(
            fusion="text-only", vision_towers=[], objectives={"crf": 1.0}, boundary_share=0.0
        )

    def sub_tokens(self) -> list[int]:
        """How many each post has, special ones included."""
        tokens = [post["tokens"] for post in self.posts]
        return [len(text) for text in self.processor.tokenizer(tokens, is_split_into_words=True)["input_ids"]]

    def in_batches(self, values: Sequence[Any]) -> list[Any]:
        """What belongs to the posts, as it belongs to their batches."""
        return [values[first : first + self.batch_size] for first in range(0, len(values), self.batch_size)]

    def facts(self) -> dict[str, Any]:
        """What the times depend on: how many posts, how long they are, and how long training pads them to
        be.
        """
        lengths = self.sub_tokens()
        return {
            "posts": len(self.posts),
            "words_per_post": mean(len(post["tokens"]) for post in self.posts),
            "sub_tokens_per_post": mean(lengths),
            "padded_sub_tokens_per_post": mean(max(batch) for batch in self.in_batches(lengths)),
        }


def make_setting(
    recipe_name: str,
    *,
    data_dir: str | None,
    image_dir: str | None,
    batches: int,
    batch_size: int,
    precision: str,
    seed: int,
    text_encoder: str | None = None,
    vision_backbone: str | None = None,
    vision_checkpoint: str | None = None,
) -> Setting:
    """A setting with the encoders that are given, or else with random ones of the recipe's sizes: nothing is
    downloaded.

    Args:
        recipe_name: of a recipe, or the path of its file.
        data_dir: folder of a corpus; None takes the generated sample corpus.
        image_dir: folder of its pictures; None takes its subfolder ``images``, if it has one.
        batches: how many batches of an epoch to draw. An epoch of so few posts would have batches of less
            like lengths.
        text_encoder, vision_backbone, vision_checkpoint: as in `train_accelerate.py`.

    Raises:
        ValueError: the recipe is of another kind, or the corpus has fewer batches.
    """
    given = {
        "text_encoder": text_encoder,
        "vision_backbone": vision_backbone,
        "vision_checkpoint": vision_checkpoint,
    }
    recipe = load_recipe(recipe_name, {name: value for name, value in given.items() if value is not None})
    if [tower.frozen for tower in recipe.model.towers] != [True] or recipe.model.config.get(
        "fusion"
    ) != "cross-modal":
        raise ValueError(
            "--recipe: expected a cross-modal one with one frozen picture encoder, as umt-bert-crf, found"
            f" {recipe.name}"
        )
    if text_encoder is None and recipe.model.text_encoder is not None:
        recipe = recipe.with_settings(text_encoder=None, text_config=BERT_BASE)
    if vision_checkpoint is None:
        recipe = recipe.with_settings(
            vision_towers=[replace(tower, pretrained=False) for tower in recipe.model.towers]
        )
    recipe = recipe.with_settings(vocabulary_size=PIECES)
    corpus = open_corpus(data_dir or "sample", image_dir=image_dir)
    rows = corpus.splits["train"]
    processor = build_processor(recipe, labels=corpus.labels, posts=rows["tokens"])
    chosen = _batches_of_an_epoch(rows, processor, batch_size=batch_size, count=batches, seed=seed)
    return Setting(
        recipe, _pictured([rows[index] for index in chosen]), processor, batch_size, precision, seed
    )


def _batches_of_an_epoch(
    rows: Any, processor: MMNERProcessor, *, batch_size: int, count: int, seed: int
) -> list[int]:
    """The posts of so many batches of an epoch over all rows, taken evenly from the shortest to the longest,
    in random order.
    """
    lengths = post_lengths(processor, rows)
    order = list(PostSampler(lengths, rows["language"], temperature=1.0, batch_size=batch_size, seed=seed))
    whole = [order[first : first + batch_size] for first in range(0, len(order) - batch_size + 1, batch_size)]
    if not 0 < count <= len(whole):
        raise ValueError(
            f"--batches: expected 1 to {len(whole)}, which an epoch has of {batch_size} posts, found {count}"
        )
    whole.sort(key=lambda batch: sum(lengths[index] for index in batch))
    chosen = [whole[(2 * number + 1) * len(whole) // (2 * count)] for number in range(count)]
    random.Random(seed).shuffle(chosen)
    return [index for batch in chosen for index in batch]


def _pictured(posts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The posts with one picture each; those without are given one of the sample corpus's."""
    drawn = cycle(image for image in open_corpus("sample").splits["train"]["image"] if image is not None)
    kept = ("id", "tokens", "ner_tags", "language")
    return [
        {name: post[name] for name in kept} | {"image": next(iter(pictures_of(post)), None) or next(drawn)}
        for post in posts
    ]
