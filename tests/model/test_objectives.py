"""Tests of the auxiliary objectives against their equations written as loops over posts and words."""

import math

import pytest
import torch
import torchcrf
from torch import Tensor

from modeling_mmner.model.context_mmner import Context, FusionOutput, Regions, TextStates, Widths
from modeling_mmner.model.heads_mmner import BoundaryDetection
from modeling_mmner.model.labels_mmner import bio_labels
from modeling_mmner.model.objectives_mmner import ContrastiveFusion, EntityClustering
from modeling_mmner.model.parts_mmner import objective_parts
from tests.tiny import LABELS, close, gradients, naive_layer, stir, tiny_batch, tiny_config, tiny_model

WIDTH = 8
LENGTHS = (4, 1, 6, 3, 5)


def make_context(labels: list[str] = LABELS, *, width: int = WIDTH, seed: int = 0) -> Context:
    """Five posts with random states, views and labels; the second and the last have no picture."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    words, text_view, image_view = (torch.randn(*mask.shape, width, generator=generator) for _ in range(3))
    for tensor in (words, text_view, image_view):
        tensor.requires_grad_()
    fused = FusionOutput(
        torch.cat([text_view, image_view], dim=2), text_view=text_view, image_view=image_view
    )
    gold = torch.randint(len(labels), mask.shape, generator=generator).masked_fill(~mask, -100)
    has_picture = torch.tensor([True, False, True, True, False])
    regions = Regions(torch.zeros(len(mask), 1, 1), has_picture[:, None])
    return Context(TextStates(words, mask, words.sum(1)), [regions], fused, gold)


def make_boundary() -> BoundaryDetection:
    torch.manual_seed(1)
    boundary = BoundaryDetection(tiny_config(dropout=0.3), Widths(32, (), 4, 64)).eval()
    stir(boundary)
    return boundary


def make_contrastive(**settings: float) -> ContrastiveFusion:
    return ContrastiveFusion(tiny_config(**settings), Widths(WIDTH, (), 4, 2 * WIDTH))


def make_clustering(
    types: list[str], *, present: list[bool] | None = None, width: int = WIDTH
) -> EntityClustering:
    """Random centres for the types that are `present`, at a distance of the features."""
    torch.manual_seed(2)
    config = tiny_config(id2label=dict(enumerate(bio_labels(types))))
    clustering = EntityClustering(config, Widths(width, (), 4, 2 * width))
    counts = torch.tensor([7.0 if there else 0.0 for there in present or [True] * len(types)])
    clustering.set_centres(counts[:, None] * torch.randn(len(types), 2 * width), counts)
    return clustering


def naive_boundary(boundary: BoundaryDetection, context: Context) -> Tensor:
    """Eq. 9-10: a Transformer layer over the words of one post, Linear, the likelihood by pytorch-crf."""
    crf = torchcrf.CRF(3, batch_first=True)
    crf.start_transitions, crf.end_transitions = boundary.crf.start_transitions, boundary.crf.end_transitions
    crf.transitions = boundary.crf.transitions
    losses = []
    for row, length in enumerate(context.text.mask.sum(1)):
        states = naive_layer(boundary.text_layer, *[context.text.words[row, :length]] * 2)
        gold = torch.tensor([["OBI".index(LABELS[label][0]) for label in context.labels[row, :length]]])
        losses.append(
            -crf(boundary.classifier(states)[None], gold, mask=torch.ones_like(gold, dtype=torch.bool))
        )
    return torch.stack(losses).mean()


def naive_contrastive(context: Context, *, share: float, temperature: float) -> Tensor:
    """Eq. 3-5 as printed, but for the leading minus of eq. 5."""
    texts, images = [], []
    for row, length in enumerate(context.text.mask.sum(1)):
        if context.has_picture[row]:
            texts.append(context.fused.text_view[row, :length].mean(0))
            images.append(context.fused.image_view[row, :length].mean(0))

    def similarity(one: Tensor, other: Tensor) -> Tensor:
        return one @ other / one.norm() / other.norm() / temperature

    losses = []
    for text, image in zip(texts, images, strict=True):
        match = similarity(image, text).exp()
        image_to_text = -(match / sum(similarity(image, other).exp() for other in texts)).log()
        text_to_image = -(match / sum(similarity(other, text).exp() for other in images)).log()
        losses.append(share * image_to_text + (1 - share) * text_to_image)
    return torch.stack(losses).mean()


def naive_clustering(context: Context, labels: list[str], centres: dict[str, Tensor]) -> Tensor:
    """Eq. 6-8 in the reading of their text: to the own centre, away from the others' direction."""
    losses = []
    for features, gold, mask in zip(context.fused.features, context.labels, context.text.mask, strict=True):
        for feature, label in zip(features[mask], gold[mask], strict=True):
            kind = labels[label][2:]
            if kind not in centres:
                continue
            intra = feature - centres[kind]
            inter = [feature - centre for other, centre in centres.items() if other != kind]
            cosines = [intra @ offset / intra.norm() / offset.norm() for offset in inter]
            losses.append(intra.norm() + (sum(cosines) / len(cosines) if cosines else 0.0))
    return torch.stack(losses).mean()


def test_boundary_loss_equals_its_equation():
    """If it failed, boundary detection would not be a layer, classifier and CRF of its own."""
    boundary, context = make_boundary(), make_context(width=32)
    loss, expected = boundary.loss(boundary(context), context), naive_boundary(boundary, context)
    close(loss, expected)
    inputs = [context.text.words, *boundary.parameters()]
    torch.testing.assert_close(gradients(loss, inputs), gradients(expected, inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("share", "temperature"), [(0.75, 0.1), (1.0, 0.5), (0.0, 0.5)])
def test_contrastive_loss_equals_its_equation(share, temperature):
    """If it failed, the directions would be swapped or the temperature misplaced."""
    contrastive = make_contrastive(contrastive_image_share=share, contrastive_temperature=temperature)
    context = make_context()
    loss, expected = contrastive(context), naive_contrastive(context, share=share, temperature=temperature)
    close(loss, expected)
    inputs = [context.fused.text_view, context.fused.image_view]
    close(gradients(loss, inputs), gradients(expected, inputs))


@pytest.mark.parametrize("pictured", [0, 1])
def test_contrastive_loss_of_fewer_than_two_pictures_is_exactly_zero(pictured):
    """If it failed, a batch with one picture would add a loss with nothing to contrast with, or NaN."""
    context = make_context()
    context.regions[0].mask[:, 0] = torch.arange(len(LENGTHS)) < pictured
    loss = make_contrastive()(context)
    assert loss.shape == () and loss == 0


def test_empty_text_with_a_picture_takes_no_part_in_the_contrastive_loss():
    """If it failed, a picture posted without a word would be contrasted with a text vector of zeros."""
    contrastive, context = make_contrastive(), make_context()
    context.text.mask[0] = False
    loss = contrastive(context)
    context.regions[0].mask[0] = False
    assert loss == contrastive(context) and loss > 0


@pytest.mark.parametrize("types", [["PER"], ["PER", "LOC"], ["A", "B", "C", "D", "E", "F"]])
def test_clustering_loss_equals_its_equation(types):
    """If it failed, words would be pushed from their own centre."""
    labels, clustering = bio_labels(types), make_clustering(types)
    context = make_context(labels)
    centres = dict(zip(types, clustering.centres, strict=True))
    loss, expected = clustering(context), naive_clustering(context, labels, centres)
    close(loss, expected)
    inputs = [context.fused.features]
    close(gradients(loss, inputs), gradients(expected, inputs))


def test_type_without_centre_is_skipped():
    """If it failed, a type that training lacks would pull its words to the origin."""
    types = ["PER", "LOC", "ORG"]
    labels, clustering = bio_labels(types), make_clustering(types, present=[True, False, True])
    context = make_context(labels)
    assert {label[2:] for row in context.labels for label in (labels[tag] for tag in row if tag > 0)} == set(
        types
    )
    centres = {"PER": clustering.centres[0], "ORG": clustering.centres[2]}
    expected = naive_clustering(context, labels, centres)
    close(clustering(context), expected)


@pytest.mark.parametrize("distance", [0.0, 1e-30, 1e-12, 1e-6, 1e-4])
def test_gradient_is_finite_at_a_centre(distance):
    """If it failed, a word that reaches its centre, or another's, would turn the weights into NaN."""
    clustering, context = make_clustering(["PER", "LOC"]), make_context()
    features = context.fused.features.detach().clone()
    features[0, :2], features[0, 2:4] = clustering.centres[0] + distance, clustering.centres[1] + distance
    context.fused.features = features.requires_grad_()
    context.labels[0, :4] = torch.tensor([1, 2, 1, 2])
    (gradient,) = gradients(clustering(context), [features])
    assert gradient.isfinite().all()
    assert gradient.norm(dim=2).max() * context.labels.gt(0).sum() < 3e4  # a few times 1 / eps


def test_clustering_loss_of_nothing_is_exactly_zero():
    """If it failed, warm-up would pull entities to the origin, or a batch without any give NaN."""
    without_centres = EntityClustering(tiny_config(), Widths(WIDTH, (), 4, 2 * WIDTH))
    assert without_centres(make_context()) == 0
    clustering, context = make_clustering(["PER", "LOC"]), make_context()
    context.labels = context.labels.clamp(max=0)
    loss = clustering(context)
    loss.backward()
    assert loss == 0 and context.fused.text_view.grad.eq(0).all()


def test_centres_are_the_mean_features_of_the_entity_words_of_all_batches():
    """If it failed, centres would be means of batch means, count padding or O, or mix the types up."""
    types = ["PER", "LOC", "ORG"]
    labels, clustering = bio_labels(types), make_clustering(types)
    contexts = [make_context(labels, seed=seed) for seed in range(3)]
    contexts[1].labels[contexts[1].labels == 1] = 0  # batches with unlike numbers of a type
    for context in contexts:
        context.labels[context.labels >= 5] = 0  # ORG occurs nowhere
    sums, counts = (sum(parts) for parts in zip(*map(clustering.entity_sums, contexts), strict=True))
    clustering.set_centres(sums, counts)
    members: dict[str, list[Tensor]] = {kind: [] for kind in types}
    for context in contexts:
        for features, gold in zip(context.fused.features, context.labels, strict=True):
            for feature, label in zip(features, gold.tolist(), strict=True):
                if label > 0:
                    members[labels[label][2:]].append(feature)
    assert counts.tolist() == [len(members["PER"]), len(members["LOC"]), 0]
    assert clustering.has_centre.tolist() == [True, True, False]
    expected = torch.stack([torch.stack(members["PER"]).mean(0), torch.stack(members["LOC"]).mean(0)])
    torch.testing.assert_close(clustering.centres[:2], expected, atol=1e-6, rtol=1e-5)


def test_order_of_labels_does_not_matter_to_the_objectives():
    """If it failed, the objectives would read B, I and types from the ids of one label order."""
    losses = []
    for labels in (LABELS, ["B-LOC", "I-PER", "O", "I-LOC", "B-PER"]):
        torch.manual_seed(3)
        config, context = tiny_config(id2label=dict(enumerate(labels))), make_context(width=32)
        ids = torch.tensor([labels.index(label) for label in LABELS])
        context.labels = ids[context.labels.clamp(min=0)].masked_fill(~context.text.mask, -100)
        boundary = BoundaryDetection(config, Widths(32, (), 4, 64)).eval()
        clustering = EntityClustering(config, Widths(32, (), 4, 64))
        types = list(dict.fromkeys(label[2:] for label in labels if label != "O"))
        sums = torch.stack(
            [{"PER": torch.full((64,), 0.5), "LOC": torch.arange(64.0)}[kind] for kind in types]
        )
        clustering.set_centres(sums, torch.ones(2))
        losses.append((boundary.loss(boundary(context), context).item(), clustering(context).item()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_objectives_without_labels_are_refused():
    """If it failed, `encode` without labels would end in an attribute error of None."""
    context = make_context()
    context.labels = None
    with pytest.raises(ValueError, match=r"objectives: expected labels \(B, W\), found none"):
        make_clustering(["PER", "LOC"]).entity_sums(context)


def test_total_is_the_weighted_sum_of_the_tasks():
    """If it failed, a weight of the recipe would reach another task or none (eq. 13)."""
    weights = {"crf": 1.5, "boundary": 0.4, "contrastive": 0.25, "clustering": 0.01, "alignment": 0.3}
    model, batch = tiny_model(objectives=weights), tiny_batch(pictures=(1, 1, 2))
    model.objectives["clustering"].set_centres(torch.randn(2, 64), torch.ones(2))
    output = model(**batch)
    context = model.encode(**batch)
    heads = {name: head.loss(head(context), context).item() for name, head in model.heads.items()}
    parts = heads | {"crf": output.losses["crf"].item()}
    parts |= {name: objective(context).item() for name, objective in model.objectives.items()}
    assert all(part != 0 for part in parts.values())
    assert {name: loss.item() for name, loss in output.losses.items()} == pytest.approx(parts)
    assert output.loss.item() == pytest.approx(math.fsum(weights[name] * parts[name] for name in weights))


@pytest.mark.parametrize("name", [name for name in objective_parts() if name != "crf"])
def test_task_of_weight_zero_is_built_but_not_computed(name):
    """If it failed, a task that is switched off would cost time."""
    model = tiny_model(objectives=dict.fromkeys(objective_parts(), 0.5) | {name: 0.0})
    part = {**model.heads, **model.objectives}[name]
    part.forward = None  # calling it would raise
    assert model(**tiny_batch()).losses.keys() == objective_parts().keys() - {name}


def test_task_that_is_not_listed_is_not_built():
    """If it failed, a text baseline would carry the weights of tasks that it never does."""
    model = tiny_model(objectives={"crf": 1.0, "boundary": 0.4})
    assert list(model.heads) == ["crf", "boundary"] and not model.objectives
    assert model(**tiny_batch()).losses.keys() == {"crf", "boundary"}
