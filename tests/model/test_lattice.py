"""Tests of the two ways of summing over tag sequences, against each other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_mmner.model import lattice_mmner
from modeling_mmner.model.crf_mmner import CRF
from modeling_mmner.model.lattice_mmner import (
    Posterior,
    TagScores,
    _by_logarithms,
    _by_probabilities,
    _spread,
    negative_log_likelihood,
    posterior,
)
from tests.model.test_crf import posteriors
from tests.shared_data import property_test
from tests.tiny import LABELS, close, stir


def crf_of(seed: int, *, scale: float = 1.0) -> CRF:
    torch.manual_seed(seed)
    crf = CRF(LABELS)
    stir(crf, scale=scale)
    return crf


def texts(lengths: list[int], *, spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Emissions in float64, of each word's labels as far apart as `spread`, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(1, *lengths)) < torch.tensor(lengths)[:, None]
    emissions = spread * torch.rand(*mask.shape, len(LABELS), generator=generator, dtype=torch.double)
    return emissions.masked_fill(~mask[..., None], 0.0), mask


def move_probabilities(found: Posterior, crf: CRF) -> torch.Tensor:
    """(B, W - 1, L, L): that of each move, which is all that is read of `ahead`."""
    moves = crf._scores(barred=True).moves
    return (moves + found.ahead[:, 1:, None]).softmax(-1)


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    spread=st.floats(0, 285),
    seed=st.integers(0, 99),
)
@property_test
def test_probabilities_equal_logarithms(lengths, spread, seed):
    """If it failed, the fast sums would be wrong for short texts in a batch, or for a sure model."""
    crf = crf_of(seed)
    emissions, mask = texts(lengths, spread=spread, seed=seed)
    with torch.no_grad():
        scores = TagScores(*(given.double() for given in crf._scores(barred=True)))
    fast = _by_probabilities(emissions, mask, scores, spread=spread + _spread(scores))
    exact = _by_logarithms(emissions, mask, scores)
    torch.testing.assert_close(fast.marginals[mask], exact.marginals[mask], atol=1e-10, rtol=1e-7)
    both = mask[:, 1:] & mask[:, :-1]
    reached = exact.marginals[:, :-1][both] > 1e-250  # from where nothing comes, no move is read
    for one, other in [[move_probabilities(found, crf)[both][reached] for found in (fast, exact)]]:
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize("spread", [290.0, 1000.0, 1e5])
def test_emissions_that_contradict_the_bar_are_exact(spread, monkeypatch):
    """If it failed, a model that is sure of an illegal tag would have scores that are no numbers."""
    crf = crf_of(1)
    inside = torch.tensor([label.startswith("I") for label in LABELS])
    emissions = torch.zeros(2, 6, len(LABELS))
    emissions[0, :, inside] = spread  # nothing but I-, which may not even begin
    emissions[1, ::2, 0], emissions[1, 1::2, inside] = spread, spread  # O and I- by turns
    mask = torch.ones(2, 6, dtype=torch.bool)
    tags = crf.decode_batch(emissions, mask=mask)
    found = posteriors(crf, emissions, mask=mask), crf.span_scores(emissions, tags, mask=mask)
    monkeypatch.setattr(lattice_mmner, "_WIDEST", 0.0)
    expected = posteriors(crf, emissions, mask=mask), crf.span_scores(emissions, tags, mask=mask)
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        close(one, other, tolerance=1e-6)
    torch.testing.assert_close(found[0].sum(-1), torch.ones(2, 6))


def test_only_wide_scores_are_summed_as_logarithms(monkeypatch):
    """If it failed, every text would pay for the few that need logarithms."""
    taken = []
    for name in ("_by_probabilities", "_by_logarithms"):
        monkeypatch.setattr(lattice_mmner, name, lambda *given, name=name, **options: taken.append(name))
    for spread, scale, has_float64 in (
        (20, 1.0, True),
        (600, 1.0, True),
        (20, 600.0, True),
        (20, 1.0, False),
    ):
        monkeypatch.setattr(lattice_mmner, "_has_float64", lambda emissions, answer=has_float64: answer)
        emissions, mask = texts([3], spread=spread)
        with torch.no_grad():
            posterior(emissions, mask, crf_of(0, scale=scale)._scores(barred=True))
    assert taken == ["_by_probabilities", *["_by_logarithms"] * 3]


def losses(
    lengths: list[int], *, spread: float, seed: int, scale: float = 1.0
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The losses of texts with made-up tags, and the gradients of emissions and scores, each text with a
    weight of its own.
    """
    (emissions, mask), crf = texts(lengths, spread=spread, seed=seed), crf_of(seed, scale=scale)
    tags = torch.randint(len(LABELS), mask.shape, generator=torch.Generator().manual_seed(seed))
    scores = [given.detach().double() for given in crf._scores(barred=False)]
    leaves = [tensor.requires_grad_() for tensor in (emissions, *scores)]
    loss = negative_log_likelihood(emissions, tags, mask, TagScores(*scores))
    return loss.detach(), list(torch.autograd.grad((loss * torch.arange(1, len(loss) + 1)).sum(), leaves))


@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    spread=st.floats(0, 2000),
    seed=st.integers(0, 99),
)
@property_test
def test_loss_by_probabilities_equals_that_by_logarithms(lengths, spread, seed):
    """If it failed, models would learn something else than the likelihood."""
    loss, gradients = losses(lengths, spread=spread, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lattice_mmner, "_WIDEST", 0.0)
        expected, expected_gradients = losses(lengths, spread=spread, seed=seed)
    close(loss, expected, tolerance=1e-9)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-8, rtol=1e-7)


def test_loss_by_probabilities_of_a_long_text_with_wide_moves():
    """If it failed, sums would run over or under between the words at which they are brought back to 1."""
    loss, gradients = losses([400, 3], spread=50.0, seed=1, scale=15.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lattice_mmner, "_WIDEST", 0.0)
        expected, expected_gradients = losses([400, 3], spread=50.0, seed=1, scale=15.0)
    torch.testing.assert_close(loss, expected, atol=0, rtol=1e-10)
    close(gradients, expected_gradients, tolerance=1e-7)
