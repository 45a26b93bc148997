"""What all contenders share: the posts, the processor, and models of the same sizes."""

import random
from dataclasses import dataclass, replace
from itertools import cycle
from statistics import mean
from typing import Any

import torch

from dataset_scripts.opening import open_corpus
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.assembly import build_model, build_processor
from modeling_mmner.images_mmner import pictures_of
from modeling_mmner.recipes import Recipe, load_recipe

BERT_BASE = {"model_type": "bert", "vocab_size": 28996}  # bert-base-cased; all else is the default of BertConfig
PIECES = 3000
"""Size of the vocabulary that is trained where no text encoder is given: with it Twitter-2017's posts have 25 sub-tokens on
average, as with BERT's own. The table of embeddings keeps the size of the encoder's config."""


@dataclass
class Setting:
    """What all contenders share.

    Attributes:
        recipe: of our model; a cross-modal one with one frozen picture encoder.
        posts: rows of a corpus, each with one picture.
        processor: ours.
        batch_size: posts a batch.
        precision: ``bf16`` (mixed precision) or ``no`` (float32), of all but the plain program, which is in float32.
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
        if recipe.model.text_encoder is None and (size := recipe.model.config["text_config"].get("vocab_size")):
            model.resize_token_embeddings(size, mean_resizing=False)
        return model

    def text_alone(self) -> Recipe:
        """The recipe without pictures: text encoder, linear layer, CRF."""
        return self.recipe.with_settings(fusion="text-only", vision_towers=[], objectives={"crf": 1.0}, boundary_share=0.0)

    def facts(self) -> dict[str, Any]:
        """What the times depend on: how many posts, and how long they are."""
        pieces = self.processor.tokenizer([post["tokens"] for post in self.posts], is_split_into_words=True)["input_ids"]
        return {
            "posts": len(self.posts),
            "words_per_post": mean(len(post["tokens"]) for post in self.posts),
            "sub_tokens_per_post": mean(map(len, pieces)),
        }


def make_setting(
    recipe_name: str,
    *,
    data_dir: str | None,
    image_dir: str | None,
    posts: int,
    batch_size: int,
    precision: str,
    seed: int,
    text_encoder: str | None = None,
    vision_backbone: str | None = None,
    vision_checkpoint: str | None = None,
) -> Setting:
    """A setting with the encoders that are given, or else with random ones of the recipe's sizes: nothing is downloaded.

    Args:
        recipe_name: of a recipe, or the path of its file.
        data_dir: folder of a corpus; None takes the generated sample corpus.
        image_dir: folder of its pictures; None takes its subfolder ``images``, if it has one.
        posts: how many of its training posts to draw.
        text_encoder, vision_backbone, vision_checkpoint: as in `train_accelerate.py`.

    Raises:
        ValueError: the corpus has fewer posts.
    """
    given = {"text_encoder": text_encoder, "vision_backbone": vision_backbone, "vision_checkpoint": vision_checkpoint}
    recipe = load_recipe(recipe_name, {name: value for name, value in given.items() if value is not None})
    if text_encoder is None and recipe.model.text_encoder is not None:
        recipe = recipe.with_settings(text_encoder=None, text_config=BERT_BASE)
    if vision_checkpoint is None:
        recipe = recipe.with_settings(vision_towers=[replace(tower, pretrained=False) for tower in recipe.model.towers])
    recipe = recipe.with_settings(vocabulary_size=PIECES)
    corpus = open_corpus(data_dir or "sample", image_dir=image_dir)
    rows = corpus.splits["train"]
    processor = build_processor(recipe, labels=corpus.labels, posts=rows["tokens"])
    if posts > len(rows):
        raise ValueError(f"--posts: expected at most the {len(rows)} training posts of {corpus.name}, found {posts}")
    chosen = random.Random(seed).sample(range(len(rows)), posts)
    return Setting(recipe, _pictured([rows[index] for index in chosen]), processor, batch_size, precision, seed)


def _pictured(posts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The posts with one picture each; those without are given one of the sample corpus's."""
    drawn = cycle(image for image in open_corpus("sample").splits["train"]["image"] if image is not None)
    return [
        {name: post[name] for name in ("id", "tokens", "ner_tags", "language")} | {"image": (pictures_of(post) or [next(drawn)])[0]}
        for post in posts
    ]
