"""Tests of the contrastive alignment against loops over single pairs, and of 2M-NER's total loss."""

import math

import pytest
import torch
from torch import Tensor, nn

from modeling_mmner.model.context_mmner import Context, FusionOutput, Regions, TextStates, Widths
from modeling_mmner.model.objectives_mmner import ContrastiveAlignment, nt_xent
from tests.tiny import SYSTEMS, close, gradients, stir, tiny_batch, tiny_config, tiny_model

WIDTH, CHANNELS = 8, (12, 6)
REGIONS = (3, 0, 4, 2, 1)


def make_context() -> Context:
    """Five posts with random vectors, seen by two picture encoders, the second pooled; the second post has no
    picture.
    """
    generator = torch.Generator().manual_seed(0)
    region_mask = torch.arange(max(REGIONS)) < torch.tensor(REGIONS)[:, None]
    pooled_mask = region_mask[:, :1]
    states = [
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((5, WIDTH), (*region_mask.shape, CHANNELS[0]), (5, 1, CHANNELS[1]))
    ]
    sentence, regions, vectors = (tensor.requires_grad_() for tensor in states)
    text = TextStates(torch.empty(0), torch.ones(5, 3, dtype=torch.bool), sentence)
    return Context(
        text, [Regions(regions, region_mask), Regions(vectors, pooled_mask)], FusionOutput(torch.empty(0))
    )


def make_alignment(channels: tuple[int, ...] = CHANNELS, **settings: float) -> ContrastiveAlignment:
    torch.manual_seed(1)
    config = tiny_config(fusion="collaboration", **settings)
    alignment = ContrastiveAlignment(
        config, Widths(text=WIDTH, channels=channels, heads=4, features=WIDTH)
    ).double()
    stir(alignment, scale=0.3)
    return alignment


def make_pairs(count: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    first, second = (3 * torch.randn(count, WIDTH, dtype=torch.float64) for _ in range(2))
    return first.requires_grad_(), second.requires_grad_()


def naive_nt_xent(first: list[Tensor], second: list[Tensor], temperature: float) -> Tensor:
    """Chen et al. 2020, eq. 1: of all 2P vectors each one's own term, as a quotient of sums."""
    vectors, losses = [*first, *second], []
    for index, anchor in enumerate(vectors):

        def match(other: Tensor, anchor: Tensor = anchor) -> Tensor:
            return (anchor @ other / anchor.norm() / other.norm() / temperature).exp()

        partner = vectors[index - len(first)]  # of a first one its second, from the end
        losses.append(
            -(
                match(partner) / sum(match(other) for place, other in enumerate(vectors) if place != index)
            ).log()
        )
    return torch.stack(losses).mean()


def naive_head(head: nn.Sequential, vector: Tensor) -> Tensor:
    first, _, last = head
    return last.weight @ (first.weight @ vector + first.bias).clamp(min=0) + last.bias


def naive_alignment(alignment: ContrastiveAlignment, context: Context, temperature: float) -> Tensor:
    """The sum over picture encoders, with one text head for all."""
    sentence, has_picture = context.text.sentence, context.has_picture
    rows = [row for row in range(len(sentence)) if has_picture[row] and context.text.mask[row].any()]
    losses = []
    for head, regions in zip(alignment.picture_heads, context.regions, strict=True):
        texts = [naive_head(alignment.text_head, sentence[row]) for row in rows]
        pictures = [naive_head(head, regions.states[row, regions.mask[row]].mean(0)) for row in rows]
        losses.append(naive_nt_xent(texts, pictures, temperature))
    return torch.stack(losses).sum()


@pytest.mark.parametrize("temperature", [0.5, 0.1, 2.0])
@pytest.mark.parametrize("count", [2, 5])
def test_nt_xent_equals_its_equation(count, temperature):
    """If it failed, a vector would be its own negative or the partner another post's."""
    pairs = make_pairs(count)
    loss, expected = nt_xent(*pairs, temperature=temperature), naive_nt_xent(*map(list, pairs), temperature)
    close(loss.double(), expected)
    close(gradients(loss, list(pairs)), gradients(expected, list(pairs)))


def test_nt_xent_of_orthogonal_pairs_is_known():
    """If it failed, the loss and the loops of this file would share a mistake."""
    vectors = 5 * torch.eye(3)
    expected = -math.log(math.exp(2) / (math.exp(2) + 4))
    assert nt_xent(vectors, vectors, temperature=0.5).item() == pytest.approx(expected, abs=1e-6)


def test_nt_xent_of_one_pair_is_zero_and_has_no_gradient():
    """If it failed, a pair without negatives would give NaN, as a softmax over nothing does."""
    pairs = make_pairs(1)
    loss = nt_xent(*pairs, temperature=0.5)
    assert loss == 0 and all(gradient.eq(0).all() for gradient in gradients(loss, list(pairs)))


def test_nt_xent_is_of_full_precision_under_autocast():
    """Regression: mixed precision computed the cosines in bfloat16."""
    first, second = (tensor.detach().float() for tensor in make_pairs(5))
    expected = nt_xent(first, second, temperature=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nt_xent(first, second, temperature=0.05), expected)


@pytest.mark.parametrize("temperature", [0.5, 0.1])
def test_alignment_equals_its_equation(temperature):
    """If it failed, the heads, the mean over regions or the sum over encoders would be others."""
    alignment, context = make_alignment(alignment_temperature=temperature), make_context()
    loss, expected = alignment(context), naive_alignment(alignment, context, temperature)
    close(loss.double(), expected)
    inputs = [
        context.text.sentence,
        *(regions.states for regions in context.regions),
        *alignment.parameters(),
    ]
    close(gradients(loss, inputs), gradients(expected, inputs))


def test_empty_text_with_a_picture_takes_no_part_in_the_alignment():
    """If it failed, a picture posted without a word would be aligned with a text vector of zeros."""
    alignment, context = make_alignment(), make_context()
    context.text.mask[0] = False
    loss = alignment(context)
    for regions in context.regions:
        regions.mask[0] = False
    assert loss == alignment(context) and loss > 0


@pytest.mark.parametrize("pictured", [0, 1])
def test_alignment_of_fewer_than_two_pictures_is_exactly_zero(pictured):
    """If it failed, a batch with one picture would add a loss with nothing to contrast with, or NaN."""
    context = make_context()
    for regions in context.regions:
        regions.mask &= (torch.arange(5) < pictured)[:, None]
    loss = make_alignment()(context)
    assert loss.shape == () and loss == 0


@pytest.mark.parametrize("pictures", [(0, 0, 0), (0, 1, 0), (0, 2, 0)])
def test_batch_with_fewer_than_two_pictured_posts_still_learns_its_main_task(pictures):
    """If it failed, such a batch would stop the training, or its loss would not be that of the CRF alone."""
    model = tiny_model(**SYSTEMS["2m-ner"]).train()
    output = model(**tiny_batch(pictures=(*pictures, 0), lengths=(5, 3, 7, 2)))
    assert output.losses["alignment"] == 0 and output.loss == 1.6 * output.losses["crf"]
    output.loss.backward()
    learning = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert all(
        any(name.startswith(part) for name in learning)
        for part in ("text_tower", "fusion", "heads.crf.classifier", "heads.crf.crf")
    )
    assert not any(name.startswith("objectives") for name in learning)
