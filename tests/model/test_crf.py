"""Tests of the CRF against two others: an enumeration of every tag sequence, and pytorch-crf."""

import itertools

import pytest
import torch
import torchcrf
from torch import Tensor

from modeling_mmner.inference import onnx_decoding
from modeling_mmner.model.crf_mmner import CRF
from modeling_mmner.model.lattice_mmner import posterior
from tests.tiny import LABELS, close, gradients, stir

SHUFFLED = ["B-LOC", "I-PER", "O", "I-LOC", "B-PER"]
BARE = ["O", "B", "I"]
each_label_set = pytest.mark.parametrize(
    "labels", [LABELS, SHUFFLED, BARE], ids=["typed", "shuffled", "bare"]
)


def make_crf(labels: list[str]) -> CRF:
    torch.manual_seed(1)
    crf = CRF(labels)
    stir(crf, scale=1.0)
    return crf


def make_batch(labels: list[str], *, seed: int = 0, copies: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Emissions, any tags at all (with orphan I-) and the mask of texts of 1 to 5 words."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5) < torch.arange(1, 6).repeat(copies)[:, None]
    emissions = 2 * torch.randn(*mask.shape, len(labels), generator=generator)
    tags = torch.randint(len(labels), mask.shape, generator=generator).masked_fill(~mask, -100)
    return emissions, tags, mask


def is_legal(tags: list[str]) -> bool:
    """Each I- stands right after a B- or I- of its own type."""
    before = ["O", *tags[:-1]]
    return all(
        not tag.startswith("I") or previous in ("B" + tag[1:], "I" + tag[1:])
        for previous, tag in zip(before, tags, strict=True)
    )


def all_paths(crf: CRF, emissions: Tensor, labels: list[str], *, legal: bool) -> tuple[Tensor, Tensor]:
    """Every tag sequence of one text (N, n) and its score (N,) in double precision."""
    sequences = itertools.product(range(len(labels)), repeat=len(emissions))
    paths = torch.tensor([path for path in sequences if not legal or is_legal([labels[tag] for tag in path])])
    start, moves, end = crf.start_transitions.double(), crf.transitions.double(), crf.end_transitions.double()
    scores = start[paths[:, 0]] + end[paths[:, -1]]
    for word in range(len(emissions)):
        scores = scores + emissions[word].double()[paths[:, word]]
        if word:
            scores = scores + moves[paths[:, word - 1], paths[:, word]]
    return paths, scores.detach()


@each_label_set
def test_loss_equals_enumeration(labels):
    """If it failed, the loss would not be the negative log-likelihood over all tag sequences."""
    crf, (emissions, tags, mask) = make_crf(labels), make_batch(labels)
    expected = []
    for row, length in enumerate(mask.sum(1)):
        paths, scores = all_paths(crf, emissions[row, :length], labels, legal=False)
        gold = scores[(paths == tags[row, :length]).all(1)]
        expected.append(scores.logsumexp(0) - gold[0])
    loss = crf.negative_log_likelihood(emissions, tags, mask=mask)
    close(loss.double(), torch.stack(expected))


@each_label_set
def test_decoding_equals_enumeration_of_legal_sequences(labels):
    """If it failed, the tags would not be the best ones that BIO allows."""
    crf, (emissions, _, mask) = make_crf(labels), make_batch(labels, seed=1, copies=4)
    expected, tempted = torch.full(mask.shape, -100), 0
    for row, length in enumerate(mask.sum(1)):
        paths, scores = all_paths(crf, emissions[row, :length], labels, legal=True)
        expected[row, :length] = paths[scores.argmax()]
        tempted += all_paths(crf, emissions[row, :length], labels, legal=False)[1].max() > scores.max()
    assert tempted > 5, "hardly any text whose best tags are illegal: the bar would not be tested"
    assert torch.equal(crf.decode_batch(emissions, mask=mask), expected)


@torch.no_grad()
def posteriors(crf: CRF, emissions: Tensor, *, mask: Tensor) -> Tensor:
    """(B, W, L) probability of each label at each word; 0 where there is no word."""
    found = posterior(crf._checked(emissions, mask), mask, crf._scores(barred=True))
    return found.marginals.masked_fill(~mask[..., None], 0.0).float()


@each_label_set
def test_posteriors_equal_enumeration_of_legal_sequences(labels):
    """If it failed, the probabilities of labels would be wrong at texts' ends or beside illegal ones."""
    crf, (emissions, _, mask) = make_crf(labels), make_batch(labels)
    expected = torch.zeros(*mask.shape, len(labels), dtype=torch.double)
    for row, length in enumerate(mask.sum(1)):
        paths, scores = all_paths(crf, emissions[row, :length], labels, legal=True)
        for word, label in itertools.product(range(length), range(len(labels))):
            expected[row, word, label] = scores.softmax(0)[paths[:, word] == label].sum()
    close(posteriors(crf, emissions, mask=mask).double(), expected)


@each_label_set
def test_span_scores_equal_enumeration_of_legal_sequences(labels):
    """If it failed, an entity's score would not be the probability of exactly that entity."""
    crf, (emissions, _, mask) = make_crf(labels), make_batch(labels, copies=4)
    tags = crf.decode_batch(emissions, mask=mask)
    expected, longest = torch.zeros(mask.shape, dtype=torch.double), 0
    for row, length in enumerate(mask.sum(1).tolist()):
        paths, scores = all_paths(crf, emissions[row, :length], labels, legal=True)
        names = [labels[tag] for tag in tags[row, :length]]
        inside = torch.tensor([label.startswith("I") for label in labels])
        for start in (word for word in range(length) if names[word].startswith("B")):
            end = next((word for word in range(start + 1, length) if not names[word].startswith("I")), length)
            same = (paths[:, start:end] == tags[row, start:end]).all(1)
            closed = ~inside[paths[:, end]] if end < length else torch.ones_like(same)
            expected[row, start], longest = scores.softmax(0)[same & closed].sum(), max(longest, end - start)
    assert longest > 1, "the batch has no entity of several words: it would not test their borders"
    close(crf.span_scores(emissions, tags, mask=mask).double(), expected)


@pytest.mark.parametrize("direction", ["theirs into ours", "ours into theirs"])
def test_loss_and_gradient_equal_pytorch_crf(direction):
    """If it failed, weights trained with pytorch-crf would mean something else here."""
    ours, theirs = make_crf(LABELS), torchcrf.CRF(len(LABELS), batch_first=True)
    stir(theirs, scale=1.0)
    source, target = (theirs, ours) if direction == "theirs into ours" else (ours, theirs)
    target.load_state_dict(source.state_dict())
    emissions, tags, mask = make_batch(LABELS)
    emissions.requires_grad_()
    loss = ours.negative_log_likelihood(emissions, tags, mask=mask)
    reference = -theirs(emissions, tags.clamp(min=0), mask=mask, reduction="none")
    close(loss, reference)
    weights = torch.arange(
        1.0, 1 + len(loss)
    )  # another share for each text, so that none hides behind another
    names = [name for name, _ in ours.named_parameters()]
    found = gradients((weights * loss).sum(), [emissions, *(ours.get_parameter(name) for name in names)])
    expected = gradients(
        (weights * reference).sum(), [emissions, *(theirs.get_parameter(name) for name in names)]
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_not_a_number_in_padding_reaches_no_gradient():
    """If it failed, one overflow in a padded position, or in an empty text, would destroy the weights."""
    crf, (emissions, tags, mask) = make_crf(LABELS), make_batch(LABELS)
    mask[2] = False
    clean = gradients(crf.negative_log_likelihood(emissions, tags, mask=mask).sum(), list(crf.parameters()))
    dirty = emissions.masked_fill(~mask[..., None], float("nan")).requires_grad_()
    loss = crf.negative_log_likelihood(dirty, tags, mask=mask).sum()
    *found, reaching = gradients(loss, [*crf.parameters(), dirty])
    assert reaching[~mask].eq(0).all()
    close(found, clean, tolerance=0)


def test_empty_text_has_no_loss_no_tags_and_no_spans():
    """If it failed, an empty text would count in the loss, or get tags (pytorch-crf refuses it)."""
    crf, (emissions, tags, mask) = make_crf(LABELS), make_batch(LABELS)
    mask[2], tags[2] = False, -100
    loss = crf.negative_log_likelihood(emissions, tags, mask=mask)
    assert loss[2] == 0 and loss[[0, 1, 3, 4]].gt(0).all()
    assert all(gradient.eq(0).all() for gradient in gradients(loss[2], list(crf.parameters())))
    best = crf.decode_batch(emissions, mask=mask)
    assert best[2].eq(-100).all()
    assert crf.span_scores(emissions, best, mask=mask)[2].eq(0).all()


def test_bfloat16_emissions_are_summed_in_float32():
    """If it failed, mixed precision would put the loss off by a fifth at 256 words."""
    crf = make_crf(LABELS)
    mask = torch.ones(1, 256, dtype=torch.bool)
    emissions = torch.randn(1, 256, len(LABELS)).bfloat16()
    tags = torch.randint(len(LABELS), (1, 256))
    exact = crf.negative_log_likelihood(emissions.float(), tags, mask=mask)
    half = crf.negative_log_likelihood(emissions, tags, mask=mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = crf.negative_log_likelihood(emissions, tags, mask=mask)
    assert half.dtype == mixed.dtype == torch.float32
    assert half == exact and mixed == exact


def test_posteriors_of_a_long_text_keep_their_digits() -> None:
    """Regression: summed in float32, the scores of long texts lost their digits."""
    torch.manual_seed(0)
    crf = CRF(LABELS)
    stir(crf)
    emissions, mask = 5 * torch.randn(2, 400, len(LABELS)), torch.ones(2, 400, dtype=torch.bool)
    tags = crf.decode_batch(emissions, mask=mask)
    scores = {"start": crf.start_transitions, "transitions": crf.transitions, "end": crf.end_transitions}
    other = onnx_decoding.CRF(LABELS, **{name: score.detach().numpy() for name, score in scores.items()})
    expected = torch.from_numpy(other.span_scores(emissions.numpy(), tags.numpy(), mask=mask.numpy()))
    assert torch.allclose(crf.span_scores(emissions, tags, mask=mask), expected, rtol=0, atol=1e-6)
    assert torch.allclose(posteriors(crf, emissions, mask=mask).sum(2), torch.ones(2, 400), rtol=0, atol=1e-6)


def test_loss_is_not_negative_where_the_model_is_sure():
    """If it failed, a well trained model would show a negative loss."""
    crf, tags = make_crf(LABELS), torch.randint(len(LABELS), (64, 128))
    emissions = 37.1 * torch.nn.functional.one_hot(tags, len(LABELS))
    loss = crf.negative_log_likelihood(emissions, tags, mask=torch.ones(64, 128, dtype=torch.bool))
    assert loss.min() >= 0


HOLE = torch.tensor([[True, False, True]])
FULL = torch.ones(1, 3, dtype=torch.bool)
SCORES = torch.zeros(1, 3, 5)
BAD_INPUTS = {
    "hole": (SCORES, HOLE, "mask: expected each text's words first and the padding after, got a mask with"),
    "padded on the left": (SCORES, torch.tensor([[False, True, True]]), "got a mask with a hole"),
    "not boolean": (SCORES, FULL.long(), r"mask: expected dtype torch.bool, got torch.int64"),
    "mask too long": (SCORES, torch.ones(1, 4, dtype=torch.bool), r"mask: expected shape \(1, 3\), got \(1"),
    "no columns": (SCORES[:, :0], FULL[:, :0], "mask: expected at least one column, got none"),
    "too few labels": (SCORES[..., :4], FULL, r"emissions: expected shape \(B, W, 5\), got \(1, 3, 4\)"),
    "two dimensions": (SCORES[0], FULL, r"emissions: expected shape \(B, W, 5\), got \(3, 5\)"),
}


@pytest.mark.parametrize(("emissions", "mask", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
@pytest.mark.parametrize("method", ["negative_log_likelihood", "decode_batch", "span_scores"])
def test_unfit_inputs_are_refused(method, emissions, mask, message):
    """If it failed, a mask with a hole would give silently wrong figures, as in pytorch-crf."""
    others = (
        [torch.zeros(1, 3, dtype=torch.long)] if method in ("negative_log_likelihood", "span_scores") else []
    )
    with pytest.raises(ValueError, match=message):
        getattr(CRF(LABELS), method)(emissions, *others, mask=mask)


@pytest.mark.parametrize("tag", [-100, -1, 5])
def test_tag_out_of_range_is_refused(tag):
    """If it failed, a word without a label would be learned as another one."""
    with pytest.raises(ValueError, match=rf"tags: expected 0\.\.4 for every word of the mask, got {tag}"):
        CRF(LABELS).negative_log_likelihood(SCORES, torch.tensor([[0, tag, 1]]), mask=FULL)


def test_tags_of_another_shape_are_refused():
    """If it failed, tags of another batch would be broadcast against these emissions."""
    with pytest.raises(ValueError, match=r"tags: expected shape \(1, 3\), got \(1, 2\)"):
        CRF(LABELS).negative_log_likelihood(SCORES, torch.zeros(1, 2, dtype=torch.long), mask=FULL)
