"""Tests of attention, Transformer layers and fusions against loops over single posts, heads and words."""

import pytest
import torch
from torch import Tensor, nn

from modeling_mmner.model.context_mmner import Widths
from modeling_mmner.model.fusion_mmner import Attention, CrossModalFusion, TextOnlyFusion, TransformerLayer
from tests.tiny import (
    close,
    fuse,
    gradients,
    heads_of,
    naive_attention,
    naive_layer,
    stir,
    tiny_config,
    tiny_model,
)

WIDTH, CHANNELS, WORDS, REGIONS = 32, 12, (5, 2, 4, 1), (3, 0, 4, 2)


def make_fusion(**settings) -> CrossModalFusion:
    torch.manual_seed(2)
    config = tiny_config(**settings)
    fusion = CrossModalFusion(config, Widths(WIDTH, (CHANNELS,), heads_of(config))).eval()
    stir(fusion)
    return fusion


def make_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Words, word_mask, regions and region_mask of four posts of which the second has no picture."""
    torch.manual_seed(3)
    word_mask = torch.arange(max(WORDS)) < torch.tensor(WORDS)[:, None]
    region_mask = torch.arange(max(REGIONS)) < torch.tensor(REGIONS)[:, None]
    words = torch.randn(*word_mask.shape, WIDTH).masked_fill(~word_mask[..., None], 0)
    regions = torch.randn(*region_mask.shape, CHANNELS).masked_fill(~region_mask[..., None], 0)
    return words, word_mask, regions, region_mask


def naive_fusion(fusion: CrossModalFusion, words: Tensor, regions: Tensor) -> dict[str, Tensor]:
    """The equations for one post, words (W, D) and regions (R, C) without padding."""
    pictured = len(regions) > 0
    visual = fusion.region_projection(regions) if pictured else fusion.no_picture[None]
    text = naive_layer(fusion.text_layer, words, words)
    image_guided = naive_layer(fusion.image_guided_by_text, visual, text)
    text_view = naive_layer(fusion.text_from_image, text, image_guided)
    guided_image = naive_layer(fusion.text_guided_image, text, visual)
    gates = [
        torch.sigmoid(fusion.gate(torch.cat(pair))) for pair in zip(text_view, guided_image, strict=True)
    ]
    image_view = torch.stack(gates) * pictured * guided_image
    features = torch.cat([text_view, image_view], dim=1)
    return {"features": features, "text_view": text_view, "image_view": image_view}


def test_cross_modal_fusion_equals_its_equations_post_by_post():
    """If it failed, the fusion would not be MLMNER's, or a post would depend on the padding of its batch."""
    fusion = make_fusion()
    words, word_mask, regions, region_mask = make_inputs()
    fused = fuse(fusion, words, word_mask=word_mask, regions=[(regions, region_mask)])
    for row, (length, count) in enumerate(zip(WORDS, REGIONS, strict=True)):
        expected = naive_fusion(fusion, words[row, :length], regions[row, :count])
        for name, values in expected.items():
            torch.testing.assert_close(
                getattr(fused, name)[row, :length], values, atol=1e-5, rtol=1e-5, msg=name
            )


@pytest.mark.parametrize("pictured", [True, False])
def test_learned_row_learns_from_posts_without_picture_alone(pictured):
    """If it failed, the row that stands for no picture would be trained by pictures, or never."""
    fusion = make_fusion()
    words, word_mask, regions, region_mask = (
        tensor[:1] if pictured else tensor[1:2] for tensor in make_inputs()
    )
    features = fuse(fusion, words, word_mask=word_mask, regions=[(regions, region_mask)]).features
    (gradient,) = gradients((features * torch.randn(features.shape))[word_mask].sum(), [fusion.no_picture])
    assert bool(gradient.any()) != pictured


def test_attention_equals_one_head_at_a_time():
    """If it failed, heads would mix or the scale would not be the root of the head width."""
    torch.manual_seed(4)
    attention = Attention(WIDTH, 4, dropout=0.0)
    stir(attention)
    query, context = 3 * torch.randn(2, 5, WIDTH), 3 * torch.randn(2, 6, WIDTH)
    mask = torch.tensor([[True, False, True, True, False, True], [False, True, False, False, False, False]])
    states = attention(query, context, mask=mask)
    for row in range(2):
        close(states[row], naive_attention(attention, query[row], context[row, mask[row]]))


def test_self_attention_layer_equals_that_of_pytorch():
    """If it failed, "a standard Transformer layer" would have other norms or another activation."""
    torch.manual_seed(5)
    ours = TransformerLayer(WIDTH, 4, dropout=0.0)
    stir(ours)
    theirs = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True)
    names = {"attention.output": "self_attn.out_proj", "attention_norm": "norm1"}
    names |= {"feed_forward.0": "linear1", "feed_forward.2": "linear2", "feed_forward_norm": "norm2"}
    state = {}
    for kind in ("weight", "bias"):
        parts = [ours.get_parameter(f"attention.{part}.{kind}") for part in ("query", "key", "value")]
        state[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
        state |= {
            f"{theirs_}.{kind}": ours.get_parameter(f"{ours_}.{kind}") for ours_, theirs_ in names.items()
        }
    theirs.load_state_dict(state)
    words, mask = make_inputs()[:2]
    states = ours(words, words, mask=mask)
    close(states[mask], theirs(words, src_key_padding_mask=~mask)[mask])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_row_masked_throughout_is_finite(dtype):
    """If it failed, one empty text would turn a whole batch, or its gradient, into NaN."""
    torch.manual_seed(6)
    layer = TransformerLayer(WIDTH, 4, dropout=0.0).to(dtype)
    nn.init.constant_(layer.attention.query.bias, 20)  # in float16 scores below -16 once gave NaN
    nn.init.constant_(layer.attention.key.bias, -20)
    query, context = (torch.randn(2, 3, WIDTH, dtype=dtype, requires_grad=True) for _ in range(2))
    mask = torch.tensor([[False, False, False], [True, True, False]])
    states = layer(query, context, mask=mask)
    assert states.isfinite().all()
    inputs = [query, context, *layer.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients(states.float().square().sum(), inputs))


@pytest.mark.parametrize("part", [Attention, TransformerLayer])
def test_dropout_acts_in_training_alone(part):
    """If it failed, predictions would be random, or the layers would be trained without dropout."""
    torch.manual_seed(7)
    module, (words, mask) = part(WIDTH, 4, dropout=0.5), make_inputs()[:2]
    for training in (True, False):
        module.train(training)
        first, second = (module(words, words, mask=mask) for _ in range(2))
        assert torch.equal(first, second) != training


def test_width_that_the_heads_do_not_divide_is_refused():
    """If it failed, the error would come from a reshape deep inside, naming neither heads nor width."""
    with pytest.raises(ValueError, match="expected a width that 5 heads divide evenly, found 32"):
        Attention(WIDTH, 5, dropout=0.0)


def test_text_only_fusion_leaves_the_words_alone():
    """If it failed, the text baselines would not be an encoder and a classifier."""
    fusion = TextOnlyFusion(tiny_config(fusion="text-only"), Widths(WIDTH, (), 4))
    words, word_mask = make_inputs()[:2]
    fused = fuse(fusion, words, word_mask=word_mask, regions=[])
    assert fusion.width == WIDTH and torch.equal(fused.features, words)
    assert fused.text_view is None and fused.image_view is None


@pytest.mark.parametrize("fusion", ["cross-modal", "collaboration"])
def test_number_of_heads_comes_from_the_text_encoder_unless_set(fusion):
    """If it failed, the setting `fusion_heads` would do nothing."""
    for settings, heads in (({}, 4), ({"fusion_heads": 8}, 8), ({"text": {"num_attention_heads": 2}}, 2)):
        model = tiny_model(fusion=fusion, **settings)
        assert {part.heads for part in model.fusion.modules() if isinstance(part, Attention)} == {heads}
