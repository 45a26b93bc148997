"""Sums over all tag sequences of a text: what a CRF's loss, its gradient and its posteriors are made of.

Notation: B batch, W words, L labels.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_WIDEST = 300.0
"""Scores farther apart than this, in logarithms, are summed as logarithms.

A label that is reached by way of one other, as an I- by its B-, is as improbable as both together: twice
this, and the moves between them, must be a number of float64, the least of which is e**-708.
"""


class TagScores(NamedTuple):
    """The scores of a label sequence's steps; illegal ones are -inf.

    Attributes:
        start: (L,) of beginning with a label.
        moves: (L, L) of moving from one label (first axis) to another.
        end: (L,) of ending with a label.
    """

    start: Tensor
    moves: Tensor
    end: Tensor


class Posterior(NamedTuple):
    """The tags of a text as a Markov chain, given its words.

    Attributes:
        marginals: (B, W, L) probability of each label at each word; anything where there is no word.
        ahead: (B, W, L) logarithm, up to a constant a word, of what a label's emission and all that may
            follow it weigh. So the probability to move from a label to the next word's labels is the softmax
            of its moves plus `ahead`.
    """

    marginals: Tensor
    ahead: Tensor


def posterior(emissions: Tensor, mask: Tensor, scores: TagScores) -> Posterior:
    """The posterior of texts' tags; as `negative_log_likelihood`, but for `scores`, illegal ones barred."""
    # Where moves are barred a word's best label may be out of reach: then it is the others that count,
    # however small they are.
    lowest, highest = emissions.aminmax(dim=-1)
    spread = float((highest - lowest).max()) + _spread(scores)
    if _has_float64(emissions) and spread < _WIDEST:
        return _by_probabilities(emissions, mask, scores, spread=spread)
    return _by_logarithms(*_precise(emissions, mask, scores))


def negative_log_likelihood(emissions: Tensor, tags: Tensor, mask: Tensor, scores: TagScores) -> Tensor:
    """(B,) ``log Z - score(tags)`` of each text, 0 of an empty one, in the emissions' type.

    Args:
        emissions: (B, W, L), 0 where there is no word.
        tags: (B, W) label ids, any of them where there is no word.
        mask: (B, W) bool, words first.
        scores: none of them barred.
    """
    if _has_float64(emissions) and (spread := _spread(scores)) < _WIDEST:
        return _NegativeLogLikelihood.apply(emissions, *scores, tags, mask, spread)
    precise = _precise(emissions, mask, scores)
    log_total = (_forward_logarithms(*precise)[:, -1] + precise[2].end).logsumexp(1)
    score = _path_score(emissions, tags, mask, scores, last=(mask.sum(1) - 1).clamp(min=0))
    return (log_total - score).where(mask[:, 0], 0.0).to(emissions.dtype)


def _has_float64(emissions: Tensor) -> bool:
    """Whether the device computes in it; Apple's accelerators do not."""
    return emissions.device.type != "mps"


def _precise(emissions: Tensor, mask: Tensor, scores: TagScores) -> tuple[Tensor, Tensor, TagScores]:
    """The same in float64 where the device has it."""
    wide = torch.float64 if _has_float64(emissions) else emissions.dtype
    return emissions.to(wide), mask, TagScores(*(given.to(wide) for given in scores))


class _Sums(NamedTuple):
    """Sums over the ways through a text, in float64; those of a word up to a factor of the word's own.

    Attributes:
        reaching: (W, B, L) over the ways up to a label, its own weight with them.
        ahead: (W, B, L) over the ways on from a label, its own weight with them.
        through: (W, B, L) over all ways by a label.
        total: (W, B) of `through`.
        moves: (L, L) the weights of the moves.
        last: (B,) the place of each text's last word; 0 in an empty text.
        log_total: (B,) logarithm of the sum over all ways.
    """

    reaching: Tensor
    ahead: Tensor
    through: Tensor
    total: Tensor
    moves: Tensor
    last: Tensor
    log_total: Tensor


def _scaled_sums(emissions: Tensor, mask: Tensor, scores: TagScores, *, spread: float) -> _Sums:
    """Sums of products, both directions in one loop, which reads a text forwards and, reversed, backwards.

    Args:
        spread: logarithms by which a sum may change from word to word; it is brought back to 1 in time.
    """
    # Words first, as they are read.
    emissions, mask, scores = _precise(emissions.transpose(0, 1), mask.T, scores)
    (length, batch, _), last = emissions.shape, mask.sum(0).sub_(1).clamp_(min=0)
    places, texts = torch.arange(length, device=mask.device)[:, None], torch.arange(batch, device=mask.device)
    # Row numbers in the tables below; shape: (W, B)
    opposite = torch.where(mask, last - places, places) * (2 * batch) + texts
    highest = emissions.amax(-1, keepdim=True)
    weights, before, after = emissions.new_empty(3, length, 2, batch, emissions.shape[2])
    torch.exp(emissions - highest, out=weights[:, 0])
    weights[:, 1] = _rows(weights, opposite)
    start, moves, end = (given.exp() for given in scores)
    # What comes before a word's own weight, which `after` has with it.
    before[0] = torch.stack([start, end])[:, None]
    both = torch.stack([moves, moves.T])  # shape: (2, L, L)
    totals = emissions.new_ones(length, 2, batch, 1)
    every, previous = max(1, int(min(8.0, _WIDEST / max(spread, 1.0)))), None
    steps = zip(before.unbind(), weights.unbind(), after.unbind(), strict=True)
    for place, (came, weight, here) in enumerate(steps):
        if previous is not None:
            torch.bmm(previous, both, out=came)
        torch.mul(came, weight, out=here)
        if place % every == 0:
            here.div_(torch.sum(here, -1, keepdim=True, out=totals[place]))
        previous = here
    reaching, following, ahead = after[:, 0], _rows(before, opposite + batch), _rows(after, opposite + batch)
    through = reaching * following
    total = through.sum(-1)
    taken_out = (totals[:, 0].log_() + highest)[..., 0].masked_fill_(~mask, 0.0).sum(0)
    return _Sums(reaching, ahead, through, total, moves, last, total[last, texts].log_() + taken_out)


def _rows(table: Tensor, numbers: Tensor) -> Tensor:
    """(W, B, L) the rows of a table (..., L) with these numbers (W, B), counted over its other axes."""
    return table.view(-1, table.shape[-1]).index_select(0, numbers.flatten()).view(*numbers.shape, -1)


class _NegativeLogLikelihood(torch.autograd.Function):
    """The loss by scaled sums; its gradient is each score's expectation less what the tags have of it."""

    @staticmethod
    def forward(ctx: Any, emissions: Tensor, *given: Any) -> Tensor:
        scores, (tags, mask, spread) = TagScores(*given[:3]), given[3:]
        ctx.dtypes = emissions.dtype, scores.start.dtype
        sums = _scaled_sums(emissions, mask, scores, spread=spread)
        ctx.save_for_backward(tags, mask, *sums[:-1])
        loss = sums.log_total - _path_score(emissions, tags, mask, scores, last=sums.last)
        # It is below 0 by rounding alone.
        return loss.clamp_(min=0.0).masked_fill_(~mask[:, 0], 0.0).to(emissions.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        tags, mask, reaching, ahead, through, total, moves, last = ctx.saved_tensors
        tags, weights = tags.T, gradient * mask.T.to(total.dtype)  # shape: (W, B)
        of_emissions = through * (weights / total)[..., None]
        of_emissions.scatter_add_(2, tags[..., None], -weights[..., None])
        of_end = of_emissions[last, torch.arange(len(last), device=last.device)].sum(0)
        arriving = weights[1:]  # of the moves to each word but the first
        leaving = reaching[:-1] * (arriving / total[:-1])[..., None]
        of_moves = moves * (leaving.flatten(0, 1).T @ ahead[1:].flatten(0, 1))
        made = tags[:-1] * len(moves) + tags[1:]
        of_moves.view(-1).index_add_(0, made.flatten(), arriving.flatten(), alpha=-1)
        of_scores = [given.to(ctx.dtypes[1]) for given in (of_emissions[0].sum(0), of_moves, of_end)]
        return of_emissions.transpose(0, 1).to(ctx.dtypes[0]), *of_scores, None, None, None


def _path_score(emissions: Tensor, tags: Tensor, mask: Tensor, scores: TagScores, *, last: Tensor) -> Tensor:
    """(B,) the score of the given tags, summed in float64 where the device has it."""
    start, moves, end = scores
    wide = torch.float64 if _has_float64(emissions) else emissions.dtype
    emitted = emissions.gather(2, tags[..., None])[..., 0].masked_fill(~mask, 0.0).sum(1, dtype=wide)
    moved = moves[tags[:, :-1], tags[:, 1:]].masked_fill(~mask[:, 1:], 0.0).sum(1, dtype=wide)
    return emitted + moved + start[tags[:, 0]] + end[tags.gather(1, last[:, None])[:, 0]]


def _spread(scores: TagScores) -> float:
    """By how much a start, a move and an end together may change a sum, at most; barred ones do not count."""
    every = torch.cat([given.detach().flatten() for given in scores])
    least, greatest = every.nan_to_num(neginf=0.0).aminmax()
    return 3 * (max(float(greatest), 0.0) - min(float(least), 0.0))


def _by_probabilities(emissions: Tensor, mask: Tensor, scores: TagScores, *, spread: float) -> Posterior:
    sums = _scaled_sums(emissions, mask, scores, spread=spread)
    return Posterior((sums.through / sums.total[..., None]).transpose(0, 1), sums.ahead.log().transpose(0, 1))


def _by_logarithms(emissions: Tensor, mask: Tensor, scores: TagScores) -> Posterior:
    """The same by sums of logarithms: exact whatever the scores are, and several times as slow."""
    backward = [scores.end.expand(len(emissions), -1)]
    for word in reversed(range(1, emissions.shape[1])):
        step = (scores.moves + (emissions[:, word] + backward[-1])[:, None, :]).logsumexp(2)
        backward.append(torch.where(mask[:, word, None], step, backward[-1]))
    following = torch.stack(backward[::-1], dim=1)  # shape: (B, W, L)
    marginals = (_forward_logarithms(emissions, mask, scores) + following).softmax(-1)
    return Posterior(marginals, emissions + following)


def _forward_logarithms(emissions: Tensor, mask: Tensor, scores: TagScores) -> Tensor:
    """(B, W, L) log sum over all paths that end with a label at a word; past a text's end its last word's."""
    forward = [scores.start + emissions[:, 0]]
    for word in range(1, emissions.shape[1]):
        step = (forward[-1][:, :, None] + scores.moves).logsumexp(1) + emissions[:, word]  # shape: (B, L)
        forward.append(torch.where(mask[:, word, None], step, forward[-1]))
    return torch.stack(forward, dim=1)
