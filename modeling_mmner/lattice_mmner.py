"""Sums over all tag sequences of a text: what a CRF's posteriors are made of.

Notation: B batch, W words, L labels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_WIDEST = 300.0
"""Scores of a word farther apart than this, in logarithms, are summed as logarithms.

A label that is reached by way of one other, as an I- by its B-, is as improbable as both together: twice this, and the moves
between them, must be a number of float64, the least of which is e**-708.
"""


class TagScores(NamedTuple):
    """The scores of beginning with a label (L,), of moving from one (first axis) to another (L, L), and of ending with it (L,);
    illegal ones are -inf."""

    start: Tensor
    moves: Tensor
    end: Tensor


class Posterior(NamedTuple):
    """The tags of a text as a Markov chain, given its words.

    Attributes:
        marginals: (B, W, L) probability of each label at each word; anything where there is no word.
        ahead: (B, W, L) logarithm, up to a constant a word, of what a label's emission and all that may follow it weigh. So the
            probability to move from a label to the next word's labels is the softmax of its moves plus `ahead`.
    """

    marginals: Tensor
    ahead: Tensor


def posterior(emissions: Tensor, mask: Tensor, scores: TagScores) -> Posterior:
    """The posterior of texts' tags.

    Args:
        emissions: (B, W, L), 0 where there is no word; in float64, but on devices that have none.
        mask: (B, W) bool, words first.
    """
    if emissions.dtype == torch.float64 and _spread(emissions, scores) < _WIDEST:
        return _by_probabilities(emissions, mask, scores)
    return _by_logarithms(emissions, mask, scores)


def _spread(emissions: Tensor, scores: TagScores) -> float:
    """How far apart the scores of a word's labels are at most, moves included."""
    widths = [(emissions.amax(-1) - emissions.amin(-1)).max()]
    for given in scores:
        finite = given.isfinite()
        widths.append(given.masked_fill(~finite, -torch.inf).max() - given.masked_fill(~finite, torch.inf).min())
    return float(torch.stack(widths).sum())


def _by_probabilities(emissions: Tensor, mask: Tensor, scores: TagScores) -> Posterior:
    """Sums of products, made to add up to 1 at each word; both directions in one loop, which reads the words of a text forwards
    and, reversed, backwards."""
    lengths, places = mask.sum(1, keepdim=True), torch.arange(mask.shape[1], device=mask.device)
    backwards = torch.where(mask, lengths - 1 - places, places)[..., None].expand_as(emissions)  # shape: (B, W, L)
    weights = (emissions - emissions.amax(-1, keepdim=True)).exp()
    words = torch.stack([weights, weights.gather(1, backwards)]).permute(2, 0, 1, 3).contiguous()  # shape: (W, 2, B, L)
    moves = (scores.moves - scores.moves.max()).exp()
    moves = torch.stack([moves, moves.T]).contiguous()  # shape: (2, L, L)
    before, after = torch.empty_like(words), torch.empty_like(words)  # a word's own weight, each way
    before[0] = torch.stack([scores.start, scores.end]).softmax(-1)[:, None]
    previous = None
    for came, weight, here in zip(before.unbind(), words.unbind(), after.unbind(), strict=True):
        if previous is not None:
            torch.bmm(previous, moves, out=came)
        torch.mul(came, weight, out=here)
        previous = here.div_(here.sum(-1, keepdim=True))
    following = before[:, 1].transpose(0, 1).gather(1, backwards)  # shape: (B, W, L)
    ahead = after[:, 1].transpose(0, 1).gather(1, backwards)
    marginals = after[:, 0].transpose(0, 1) * following
    return Posterior(marginals / marginals.sum(-1, keepdim=True), ahead.log())


def _by_logarithms(emissions: Tensor, mask: Tensor, scores: TagScores) -> Posterior:
    """The same by sums of logarithms: exact whatever the scores are, and several times as slow."""
    backward = [scores.end.expand(len(emissions), -1)]
    for word in reversed(range(1, emissions.shape[1])):
        step = (scores.moves + (emissions[:, word] + backward[-1])[:, None, :]).logsumexp(2)
        backward.append(torch.where(mask[:, word, None], step, backward[-1]))
    following = torch.stack(backward[::-1], dim=1)  # shape: (B, W, L)
    return Posterior((forward_logarithms(emissions, mask, scores) + following).softmax(-1), emissions + following)


def forward_logarithms(emissions: Tensor, mask: Tensor, scores: TagScores) -> Tensor:
    """(B, W, L): log sum over all paths that end with a label at a word; past a text's end its last word's."""
    forward = [scores.start + emissions[:, 0]]
    for word in range(1, emissions.shape[1]):
        step = (forward[-1][:, :, None] + scores.moves).logsumexp(1) + emissions[:, word]  # shape: (B, L)
        forward.append(torch.where(mask[:, word, None], step, forward[-1]))
    return torch.stack(forward, dim=1)
