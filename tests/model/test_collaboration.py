"""Tests of 2M-NER's collaboration fusion against loops over single posts, heads and towers."""

import pytest
import torch
from torch import Tensor, nn

from modeling_mmner.model.context_mmner import Widths
from modeling_mmner.model.fusion_mmner import Attention, CollaborationFusion
from tests.tiny import TOWER, close, fuse, heads_of, naive_attention, stir, tiny_config

WIDTH, CHANNELS, WORDS, REGIONS = 32, (12, 20), (5, 2, 4, 1), (3, 0, 4, 2)
# Which of the towers are pooled.
TOWERS = {
    "2M-NER": (False, True),
    "pooled first": (True, False),
    "maps": (False, False),
    "vectors": (True, True),
    "one map": (False,),
    "one vector": (True,),
}
each_set_of_towers = pytest.mark.parametrize("pooled", TOWERS.values(), ids=TOWERS)

Regions = list[tuple[Tensor, Tensor]]


def make_fusion(pooled: tuple[bool, ...], **settings) -> CollaborationFusion:
    torch.manual_seed(2)
    towers = [TOWER | {"pooled": flag} for flag in pooled]
    config = tiny_config(fusion="collaboration", vision_towers=towers, **settings)
    fusion = CollaborationFusion(config, Widths(WIDTH, CHANNELS[: len(pooled)], heads_of(config))).eval()
    stir(fusion)
    return fusion


def make_inputs(pooled: tuple[bool, ...]) -> tuple[Tensor, Tensor, Regions]:
    """Words, word_mask and each tower's regions of four posts of which the second has no picture."""
    torch.manual_seed(3)
    word_mask = torch.arange(max(WORDS)) < torch.tensor(WORDS)[:, None]
    words = torch.randn(*word_mask.shape, WIDTH).masked_fill(~word_mask[..., None], 0)
    regions = []
    for place, flag in enumerate(pooled):
        counts = torch.tensor([min(count, 1) if flag else (1 + place) * count for count in REGIONS])
        mask = torch.arange(int(counts.max())) < counts[:, None]
        picture = torch.randn(*mask.shape, CHANNELS[place])
        regions.append((picture.masked_fill(~mask[..., None], 0), mask))
    return words, word_mask, regions


def naive_fusion(fusion: CollaborationFusion, words: Tensor, pictures: list[Tensor]) -> Tensor:
    """Features (W, D) of one post: words (W, D) and each tower's regions (R, C) without padding."""
    views = []
    for reader, norm, picture in zip(fusion.readers, fusion.norms, pictures, strict=True):
        attended = torch.zeros_like(words)
        if len(picture) and isinstance(reader, Attention):
            attended = naive_attention(reader, words, picture)
        elif len(picture):
            (vector,) = picture
            attended = torch.stack([reader.weight @ vector + reader.bias for _ in words])
        views.append(torch.stack([norm(word + change) for word, change in zip(words, attended, strict=True)]))
    return torch.stack([fusion.output(torch.cat(parts)) for parts in zip(*views, strict=True)])


def one_post(words: Tensor, word_mask: Tensor, regions: Regions, row: int) -> tuple[Tensor, list[Tensor]]:
    """What `naive_fusion` takes, of one post of a batch."""
    return words[row, word_mask[row]], [picture[row, mask[row]] for picture, mask in regions]


@each_set_of_towers
def test_collaboration_equals_its_equations_post_by_post(pooled):
    """If it failed, the fusion would not be 2M-NER's, or a post would depend on the padding of its batch."""
    fusion, (words, word_mask, regions) = make_fusion(pooled), make_inputs(pooled)
    fused = fuse(fusion, words, word_mask=word_mask, regions=regions)
    assert fused.features.shape == (*word_mask.shape, fusion.width) and fusion.width == WIDTH
    for row, length in enumerate(WORDS):
        expected = naive_fusion(fusion, *one_post(words, word_mask, regions, row))
        close(fused.features[row, :length], expected)


@torch.no_grad()
def test_linear_map_of_a_pooled_tower_is_attention_over_one_vector():
    """If it failed, the one linear map would not be the paper's W_o(W_v(W_p v))."""
    fusion, (words, word_mask, regions) = make_fusion((True,)), make_inputs((True,))
    project, attention = nn.Linear(CHANNELS[0], WIDTH), Attention(WIDTH, 4, dropout=0.1).eval()
    stir(project)
    stir(attention)
    value, output, reader = attention.value, attention.output, fusion.readers[0]
    reader.weight.copy_(output.weight @ value.weight @ project.weight)
    reader.bias.copy_(output.weight @ (value.weight @ project.bias + value.bias) + output.bias)
    fused = fuse(fusion, words, word_mask=word_mask, regions=regions)
    ((picture, mask),) = regions
    attended = attention(words, project(picture), mask=mask)
    expected = fusion.output(fusion.norms[0](words + attended))
    close(fused.features[mask[:, 0]], expected[mask[:, 0]])


@each_set_of_towers
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_acts_in_training_alone(pooled, dropout):
    """If it failed, predictions would be random, or the module would be trained without dropout."""
    fusion, (words, word_mask, regions) = make_fusion(pooled, dropout=dropout), make_inputs(pooled)
    for training in (True, False):
        fusion.train(training)
        first, second = (fuse(fusion, words, word_mask=word_mask, regions=regions).features for _ in range(2))
        assert torch.equal(first, second) != (training and dropout > 0)
