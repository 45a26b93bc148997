"""Tests of the two ways of summing over tag sequences, against each other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_mmner import lattice_mmner
from modeling_mmner.crf_mmner import CRF
from modeling_mmner.lattice_mmner import Posterior, _by_logarithms, _by_probabilities, posterior
from tests.shared_data import property_test
from tests.tiny import LABELS, stir


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
    moves = crf._scores(barred=True, dtype=torch.double).moves
    return (moves + found.ahead[:, 1:, None]).softmax(-1)


@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4), spread=st.floats(0, 285), seed=st.integers(0, 99))
@property_test
def test_probabilities_equal_logarithms(lengths, spread, seed):
    """If it failed, the fast sums would be other ones, for short texts in a batch or where a model is very sure."""
    crf = crf_of(seed)
    emissions, mask = texts(lengths, spread=spread, seed=seed)
    with torch.no_grad():
        scores = crf._scores(barred=True, dtype=torch.double)
    fast, exact = _by_probabilities(emissions, mask, scores), _by_logarithms(emissions, mask, scores)
    torch.testing.assert_close(fast.marginals[mask], exact.marginals[mask], atol=1e-10, rtol=1e-7)
    both = mask[:, 1:] & mask[:, :-1]
    reached = exact.marginals[:, :-1][both] > 1e-250  # from where nothing comes, no move is read
    for one, other in [[move_probabilities(found, crf)[both][reached] for found in (fast, exact)]]:
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize("spread", [290.0, 1000.0, 1e5])
def test_emissions_that_contradict_the_bar_are_exact(spread, monkeypatch):
    """If it failed, a model that is sure of an illegal tag would have scores that are no numbers, or wrong ones."""
    crf = crf_of(1)
    inside = torch.tensor([label.startswith("I") for label in LABELS])
    emissions = torch.zeros(2, 6, len(LABELS))
    emissions[0, :, inside] = spread  # nothing but I-, which may not even begin
    emissions[1, ::2, 0], emissions[1, 1::2, inside] = spread, spread  # O and I- by turns
    mask = torch.ones(2, 6, dtype=torch.bool)
    tags = crf.decode_batch(emissions, mask=mask)
    found = crf.posteriors(emissions, mask=mask), crf.span_scores(emissions, tags, mask=mask)
    monkeypatch.setattr(lattice_mmner, "_WIDEST", 0.0)
    expected = crf.posteriors(emissions, mask=mask), crf.span_scores(emissions, tags, mask=mask)
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found[0].sum(-1), torch.ones(2, 6))


def test_only_wide_scores_are_summed_as_logarithms(monkeypatch):
    """If it failed, every text would pay for the few that need logarithms, or these be summed as probabilities that are 0."""
    taken = []
    for name in ("_by_probabilities", "_by_logarithms"):
        monkeypatch.setattr(lattice_mmner, name, lambda *given, name=name: taken.append(name))
    for spread, dtype, scale in (
        (20, torch.double, 1.0),
        (600, torch.double, 1.0),
        (20, torch.double, 600.0),
        (20, torch.float, 1.0),
    ):
        emissions, mask = texts([3], spread=spread)
        with torch.no_grad():
            scores = crf_of(0, scale=scale)._scores(barred=True, dtype=torch.double)
        posterior(emissions.to(dtype), mask, scores)
    assert taken == ["_by_probabilities", *["_by_logarithms"] * 3]
