"""Shared by the tests: tiny configs, models and batches, and one attention layer written without batches."""

from typing import Any

import torch
from torch import Tensor, nn

from modeling_mmner import MMNERConfig, MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.context_mmner import FusionOutput, Regions, TextStates, masked_mean
from modeling_mmner.model.parts_mmner import TEXT_TOWERS
from modeling_mmner.training.vocabulary import make_word_tokenizer, train_tokenizer, word_vocabulary

VOCABULARY = 100
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TEXT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
TOWER: dict[str, Any] = {
    "backbone": "resnet10t",
    "backbone_args": {"channels": [8, 16, 24, 32]},
    "image_size": 64,
}
VIT: dict[str, Any] = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_args": {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2},
    "image_size": 32,
    "frozen": False,
}
TOWERS: dict[str, list[dict[str, Any]]] = {
    "text-only": [],
    "cross-modal": [TOWER],
    "collaboration": [VIT, TOWER | {"pooled": True}],
    "gvatt": [TOWER],
    "adacan": [TOWER],
}
# What stands in place of a text config for text towers of words.
WORDS: dict[str, Any] = {
    "text_config": None,
    "word_vocabulary": {"size": VOCABULARY, "unknown": 1, "rare": VOCABULARY},
    "word_width": 12,
    "word_lstm_width": 32,
}
# Settings of each system, for tests that all of them must pass.
SYSTEMS: dict[str, dict[str, Any]] = {
    "mlmner": {"fusion": "cross-modal"},
    "2m-ner": {"fusion": "collaboration", "sentence_vector": "pooler"},
    "umt": {"objectives": {"crf": 1.0, "boundary": 0.5}, "boundary_share": 0.5},
    "gvatt": {"fusion": "gvatt", "text_tower": "hbilstm"},
    "adacan": {"fusion": "adacan", "text_tower": "cnn-bilstm"},
    "bilstm": {"fusion": "text-only", "text_tower": "bilstm"},
}


def tiny_config(
    *, text: dict[str, Any] | None = None, tower: dict[str, Any] | None = None, **settings: Any
) -> MMNERConfig:
    """MLMNER's config in small, or another fusion's; `text` and `tower` (each one) change single keys."""
    settings.setdefault(
        "vision_towers", [one | (tower or {}) for one in TOWERS[settings.get("fusion", "cross-modal")]]
    )
    settings.setdefault("id2label", dict(enumerate(LABELS)))
    if not TEXT_TOWERS[settings.get("text_tower", "transformer")].has_encoder:
        settings = WORDS | settings
    settings.setdefault("text_config", TEXT | (text or {}))
    return MMNERConfig(**settings)


def tiny_model(
    config: MMNERConfig | None = None, *, seed: int = 0, **settings: Any
) -> MMNERForTokenClassification:
    """A model in evaluation mode whose weights are far enough from 0 that every part matters."""
    torch.manual_seed(seed)
    model = MMNERForTokenClassification(config or tiny_config(**settings))
    stir(model)
    return model.eval()


@torch.no_grad()
def stir(module: nn.Module, *, scale: float = 0.1) -> None:
    """Move every parameter at random: small initial weights would hide what a part contributes."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter) * scale)


def ready_model(**settings: Any) -> MMNERForTokenClassification:
    """A tiny model with all its tasks, of which none is 0 for want of centres."""
    model = tiny_model(**settings)
    if "clustering" in model.objectives:
        set_random_centres(model)
    return model


def set_random_centres(model: MMNERForTokenClassification) -> None:
    """Give every entity type a centre, so that the clustering loss is not 0."""
    centres = model.objectives["clustering"].centres
    model.objectives["clustering"].set_centres(torch.randn_like(centres), torch.ones(len(centres)))


def tiny_batch(
    lengths: tuple[int, ...] = (5, 3, 7),
    pictures: tuple[int, ...] = (1, 0, 2),
    *,
    seed: int = 0,
    size: int = 64,
) -> dict[str, Tensor]:
    """Random posts: the number of words and of pictures of each; words have one to three sub-tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    pieces = [draw(1, 4, length) for length in lengths]
    longest = max(int(row.sum()) for row in pieces) + 2
    batch = {
        "input_ids": torch.zeros(len(lengths), longest, dtype=torch.long),
        "attention_mask": torch.zeros(len(lengths), longest, dtype=torch.long),
        "word_starts": torch.zeros(len(lengths), max(1, *lengths), dtype=torch.long),
        "word_mask": torch.arange(max(1, *lengths)) < torch.tensor(lengths)[:, None],
        "image_mask": torch.arange(max(pictures)) < torch.tensor(pictures)[:, None],
        "pixel_values": draw(0, 256, len(lengths), max(pictures), 3, size, size).to(torch.uint8),
    }
    for row, counts in enumerate(pieces):
        total = int(counts.sum()) + 2
        batch["input_ids"][row, :total] = draw(5, VOCABULARY, total)
        batch["input_ids"][row, [0, total - 1]] = torch.tensor([2, 3])
        batch["attention_mask"][row, :total] = 1
        batch["word_starts"][row, : len(counts)] = 1 + counts.cumsum(0) - counts
    labels = draw(0, len(LABELS), *batch["word_mask"].shape)
    spelt = draw(1, 10, *batch["word_mask"].shape)[..., None] * batch["word_mask"][..., None] > torch.arange(
        9
    )
    batch["character_ids"] = draw(1, 257, *spelt.shape).masked_fill(~spelt, 0)
    batch["labels"] = labels.masked_fill(~batch["word_mask"], -100)
    return batch


def close(found: Any, expected: Any, *, tolerance: float = 1e-5) -> None:
    """Check that tensors, or collections of them, are the same but for rounding."""
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def without(batch: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    """A batch without some of its tensors."""
    return {name: tensor for name, tensor in batch.items() if name not in names}


def one_post(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One post of a batch without any padding."""
    words, pieces = int(batch["word_mask"][row].sum()), int(batch["attention_mask"][row].sum())
    pictures = batch["image_mask"][row]
    post = {name: batch[name][row : row + 1, :pieces] for name in ("input_ids", "attention_mask")}
    post |= {
        name: batch[name][row : row + 1, :words]
        for name in ("word_starts", "word_mask", "labels", "character_ids")
    }
    return post | {
        "pixel_values": batch["pixel_values"][row : row + 1, pictures],
        "image_mask": pictures[None, pictures],
    }


def heads_of(config: MMNERConfig) -> int:
    """The attention heads of a model's fusion."""
    assert config.text_config is not None
    return config.fusion_heads or config.text_config.num_attention_heads


def fuse(
    fusion: nn.Module, words: Tensor, *, word_mask: Tensor, regions: list[tuple[Tensor, Tensor]]
) -> FusionOutput:
    """What a fusion makes of words and of pairs of regions and their mask."""
    text = TextStates(words, word_mask, masked_mean(words, word_mask))
    return fusion(text, [Regions(*pair) for pair in regions])


def see(tower: nn.Module, pixels: Tensor, *, image_mask: Tensor) -> tuple[Tensor, Tensor]:
    """A vision tower's regions and their mask."""
    regions = tower(pixels, image_mask=image_mask)
    return regions.states, regions.mask


def naive_attention(attention: nn.Module, query: Tensor, context: Tensor) -> Tensor:
    """Attention of one text, head by head: (Q, D)."""
    width = query.shape[1] // attention.heads
    queries, keys, values = attention.query(query), attention.key(context), attention.value(context)
    mixed = []
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        weights = ((queries[:, part] @ keys[:, part].T) / width**0.5).softmax(1)
        mixed.append(weights @ values[:, part])
    return attention.output(torch.cat(mixed, dim=1))


def naive_layer(layer: nn.Module, query: Tensor, context: Tensor) -> Tensor:
    """`TransformerLayer` of one text: attention, residual from the query, norm, feed-forward, norm."""
    states = layer.attention_norm(query + naive_attention(layer.attention, query, context))
    return layer.feed_forward_norm(states + layer.feed_forward(states))


def gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The gradient of `loss` for each input, 0 where it does not depend on it."""
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(inputs, found, strict=True)
    ]


def parts_of(
    settings: dict[str, Any], *, posts: list[list[str]], seed: int = 0
) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """A tiny model of some settings with a processor whose vocabulary is that of posts."""
    row = TEXT_TOWERS[settings.get("text_tower", "transformer")]
    tokenizer = train_tokenizer(posts, 100) if row.has_encoder else make_word_tokenizer(posts, size=100)
    sizes = (
        {"text": {"vocab_size": len(tokenizer)}}
        if row.has_encoder
        else {"word_vocabulary": word_vocabulary(tokenizer)}
    )
    model = ready_model(**settings, **sizes, seed=seed)
    image_size, word_bytes = 64 if model.config.vision_towers else None, 12 if row.reads_characters else None
    return model, MMNERProcessor(tokenizer, labels=LABELS, image_size=image_size, word_bytes=word_bytes)
