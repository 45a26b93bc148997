"""Whether the cells that `explain` names decide: `python -m tests.benchmarks.deletion MODEL [MODEL ...]`.

Ambiguous names of the generated sample. The cells of a post's picture are put in order by a ranking, and the
first, or all but the first, are hidden. What `explain` ranks by, the mean colour, is another filling than
what judges, a blurred picture: a ranking that only knows its own filling gains nothing.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from dataset_scripts.opening import open_corpus
from modeling_mmner.inference.explain import SIDE, cell_effects, filled, scores_of_variants
from modeling_mmner.inference.loading import load_model
from modeling_mmner.model.effects_mmner import with_effects
from modeling_mmner.model.fusion_mmner import Attention

COUNTS = (2, 4, 8)
CELLS = SIDE * SIDE
RANKINGS = ("cells", "another post's", "attention", "random")


class Looked:
    """A post as a model read it, and how its first entity's picture may be ranked.

    Attributes:
        score, effect: of the entity, with the picture; without it less.
        ranks: for "cells" and "attention" a value for each cell, (16,).
    """

    def __init__(self, model, processor, row) -> None:
        self.model, posts = model, processor.read([row["tokens"]], [row["image"]])
        inputs = processor.encode(posts)
        self.pixels = inputs["pixel_values"][0]
        # The last attention of a fusion is that over the picture, with a row before it for no picture.
        over_picture = [part for part in model.fusion.modules() if isinstance(part, Attention)][-1]
        hook = over_picture.register_forward_pre_hook(self._attend, with_kwargs=True)
        self.read = model.encode(**inputs)
        hook.remove()
        self.outputs = with_effects(model, processor, inputs, posts, read=self.read)
        names = [processor.labels[tag] for tag in self.outputs.tags[0]]
        gold = next(place for place, tag in enumerate(row["ner_tags"]) if tag)
        self.word, self.is_right = gold, names[gold] == processor.labels[row["ner_tags"][gold]]
        self.score, self.effect = (
            self.outputs[name][0, gold].item() for name in ("span_scores", "picture_effects")
        )
        cells = cell_effects(model, self.read, self.pixels, self.outputs)[gold, 0]
        self.ranks = {"cells": cells.ravel(), "attention": self._attention()}

    def _attend(self, attention: Attention, given: tuple[Tensor, Tensor], options: dict[str, Tensor]) -> None:
        """Keep the weights (B, W, R) that an attention computes of what it is given, mean over its heads."""
        queries, keys = (
            layer(states).unflatten(2, (attention.heads, -1)).transpose(1, 2)
            for layer, states in zip((attention.query, attention.key), given, strict=True)
        )
        scores = (queries @ keys.mT / queries.shape[-1] ** 0.5).masked_fill(
            ~options["mask"][:, None, None], -torch.inf
        )
        self.weights = scores.softmax(-1).mean(1)[..., 1:]

    def _attention(self) -> np.ndarray:
        """(16,) the share of the word's attention that falls on each cell's area."""
        tower = next(tower for tower in self.model.vision_towers if not tower.pooled)
        prefix = getattr(tower.backbone.timm_model, "num_prefix_tokens", 0)  # a ViT's class token
        weights = self.weights[0, self.word, prefix:]
        side = round(len(weights) ** 0.5)
        fine = weights.view(side, side).repeat_interleave(SIDE, 0).repeat_interleave(SIDE, 1)
        return fine.view(SIDE, side, SIDE, side).sum((1, 3)).numpy().ravel()

    def scores(self, hidden: Tensor) -> Tensor:
        """(P,) the entity's scores when a blurred picture stands in the cells (P, 4, 4) that are hidden."""
        picture = Image.fromarray(self.pixels[0].permute(1, 2, 0).numpy())
        blurred = picture.filter(ImageFilter.GaussianBlur(picture.width / 6))
        filling = torch.from_numpy(np.array(blurred)).permute(2, 0, 1)
        variants = filled(self.pixels[0], hidden, filling=filling)
        given = {"number": 0, "tags": self.outputs.tags}
        return scores_of_variants(self.model, self.read, self.pixels, variants, **given)[:, self.word]


def looked(name: str, posts: int) -> Iterator[Looked]:
    """Ambiguous posts of the test split in which the model finds an entity at the name."""
    model, processor = load_model(name, device="cpu", dtype="float32")
    rows = (row for row in open_corpus("sample").splits["test"] if row["source"] == "ambiguous")
    found = (Looked(model, processor, row) for row in rows)
    for number, one in enumerate(one for one in found if one.score > 0):
        if number == posts:
            return
        yield one


def table(posts: list[Looked], seed: int = 1) -> Iterator[str]:
    """What is left of the score, in the mean over posts, for each ranking."""
    random = np.random.default_rng(seed)
    counts = [f"{count:>6}" for count in (*COUNTS, *COUNTS)]
    yield f"{'score left':<16}{'deleted':>{6 * len(COUNTS)}}{'only kept':>{6 * len(COUNTS)}}"
    yield f"{'cells':<16}{''.join(counts)}"
    for ranking in RANKINGS:
        left = []
        for number, post in enumerate(posts):
            noise = random.random(CELLS)  # breaks ties, and is the random order
            other = posts[(number + 1) % len(posts)]
            ranks = {**post.ranks, "another post's": other.ranks["cells"], "random": noise}[ranking]
            places = np.empty(CELLS, int)
            places[np.lexsort((noise, -ranks))] = np.arange(CELLS)
            order = torch.from_numpy(places).view(SIDE, SIDE)
            hidden = [order < count for count in COUNTS] + [order >= count for count in COUNTS]
            left.append(post.scores(torch.stack(hidden)).tolist())
        yield f"{ranking:<16}" + "".join(f"{mean:6.2f}" for mean in np.mean(left, axis=0))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.deletion", description=__doc__)
    parser.add_argument("model", nargs="+", help="folder of a model that was trained on the sample")
    parser.add_argument("--posts", type=int, default=200, help="how many (default 200)")
    options = parser.parse_args()
    for name in options.model:
        posts = list(looked(name, options.posts))
        effects, scores = (
            np.array([getattr(post, which) for post in posts]) for which in ("effect", "score")
        )
        everything = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
        blurred = np.mean([post.scores(everything).item() for post in posts])
        right = np.mean([post.is_right for post in posts])
        print(f"\n{name}: {len(posts)} posts, {right:.0%} of the types right")
        print(f"picture_effect: mean {effects.mean():+.2f}, above 0 in {(effects > 0).mean():.0%}")
        without = (scores - effects).mean()
        print(f"score {scores.mean():.2f}, with the picture blurred {blurred:.2f}, without it {without:.2f}")
        print(*table(posts), sep="\n")


if __name__ == "__main__":
    main()
