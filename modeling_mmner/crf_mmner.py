"""Linear-chain CRF on top of pytorch-crf: same parameters, batched, with exact posteriors and BIO-legal decoding.

Notation: B batch, W words, L labels. A state dict of `torchcrf.CRF` loads into `CRF` unchanged and back.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import initialization

from .labels_mmner import IGNORED, boundary_label, may_follow
from .lattice_mmner import TagScores, forward_logarithms, posterior

try:
    from torchcrf import CRF as TorchCRF
except ImportError as error:
    raise ImportError(
        "mmner needs the package that provides the module 'torchcrf': run `pip install pytorch-crf` "
        "(the package called 'torchcrf' is another one)"
    ) from error


_NEVER = -1e4
"""The logarithm that stands for a probability of 0, so that sums of it can be subtracted."""


class CRF(TorchCRF):
    """Conditional random field over the words of a text (Lafferty et al. 2001; Li et al. 2022, eq. 11-12).

    Sums and maxima run in float32 whatever the emissions are: in bfloat16 the loss is off by a fifth at 256 words. Posteriors are
    differences of large sums, and run in float64 where the device has it: in float32 those of long texts lose their digits.
    Illegal BIO transitions are barred in decoding and posteriors, never in the loss, since gold tags may hold orphans.

    Args:
        labels: the L label names in id order; typed (``B-PER``) or bare (``B``).
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(len(labels), batch_first=True)
        # Plain lists, not buffers: pytorch-crf's state dict must load, and a buffer that is not in it is garbage after
        # from_pretrained.
        self._start_allowed = [may_follow(None, label) for label in labels]
        self._allowed = [[may_follow(previous, label) for label in labels] for previous in labels]
        self._begins = [boundary_label(label) == "B" for label in labels]

    def initialise(self) -> None:
        """Draw all scores from -0.1..0.1, as pytorch-crf does."""
        for parameter in self.parameters():
            initialization.uniform_(parameter, -0.1, 0.1)

    def negative_log_likelihood(self, emissions: Tensor, tags: Tensor, *, mask: Tensor) -> Tensor:
        """``log Z - score(tags)`` per text.

        Args:
            emissions: (B, W, L) scores.
            tags: (B, W) label ids; anything where `mask` is False.
            mask: (B, W) bool, True for the words, without holes. A row of False is an empty text, whose loss is 0.

        Returns:
            (B,) float32, >= 0.

        Raises:
            ValueError: wrong shape, mask not boolean or with holes, a tag of a word outside 0..L-1.
        """
        emissions = self._checked(emissions, mask)
        if tags.shape != mask.shape:
            raise ValueError(f"tags: expected shape {tuple(mask.shape)}, got {tuple(tags.shape)}")
        valid = (tags >= 0) & (tags < self.num_tags)
        if not bool((valid | ~mask).all()):
            found = tags[mask & ~valid][0].item()
            raise ValueError(f"tags: expected 0..{self.num_tags - 1} for every word of the mask, got {found}")
        with torch.autocast(emissions.device.type, enabled=False):
            parameters = self._scores(barred=False)
            log_partition = (forward_logarithms(emissions, mask, parameters)[:, -1] + parameters.end).logsumexp(1)
            loss = log_partition - self._path_score(emissions, tags.masked_fill(~mask, 0), mask, parameters)
        return torch.where(mask.any(1), loss, torch.zeros_like(loss))

    @torch.no_grad()
    def decode_batch(self, emissions: Tensor, *, mask: Tensor) -> Tensor:
        """The best BIO-legal tags of each text (Viterbi).

        Args:
            emissions: (B, W, L).
            mask: (B, W) bool without holes.

        Returns:
            (B, W) label ids, -100 where `mask` is False.

        Raises:
            ValueError: as `negative_log_likelihood`.
        """
        emissions = self._checked(emissions, mask)
        start, transitions, end = self._scores(barred=True)
        stay = torch.arange(self.num_tags, device=emissions.device).expand(len(emissions), -1)
        score = start + emissions[:, 0]  # shape: (B, L)
        pointers = []
        for emitted, present in zip(emissions.unbind(1)[1:], mask[..., None].unbind(1)[1:], strict=True):
            best, pointer = (score[:, :, None] + transitions).max(1)  # shape: (B, L) each
            score = torch.where(present, best + emitted, score)
            pointers.append(torch.where(present, pointer, stay))
        tags = [(score + end).argmax(1, keepdim=True)]  # shape: (B, 1)
        for pointer in reversed(pointers):
            tags.append(pointer.gather(1, tags[-1]))
        return torch.cat(tags[::-1], dim=1).masked_fill(~mask, IGNORED)

    @torch.no_grad()
    def posteriors(self, emissions: Tensor, *, mask: Tensor) -> Tensor:
        """Probability of each label at each word, over the BIO-legal tag sequences.

        Args:
            emissions: (B, W, L).
            mask: (B, W) bool without holes.

        Returns:
            (B, W, L) float32 in 0..1, rows of words sum to 1; 0 where `mask` is False.
        """
        emissions = _precise(self._checked(emissions, mask))
        found = posterior(emissions, mask, self._scores(barred=True, dtype=emissions.dtype))
        return found.marginals.masked_fill(~mask[..., None], 0.0).float()

    @torch.no_grad()
    def span_scores(self, emissions: Tensor, tags: Tensor, *, mask: Tensor) -> Tensor:
        """Posterior of each span of `tags`: exactly its tags and no continuation after it.

        Args:
            emissions: (B, W, L).
            tags: (B, W) BIO-legal label ids, as from `decode_batch`.
            mask: (B, W) bool without holes.

        Returns:
            (B, W) float32 in 0..1 at the first word of each span, 0 elsewhere.
        """
        emissions = _precise(self._checked(emissions, mask))
        scores = self._scores(barred=True, dtype=emissions.dtype)
        found = posterior(emissions, mask, scores)
        tags = tags.masked_fill(~mask, 0)
        inside = ~torch.tensor(self._start_allowed, device=emissions.device)  # the I- labels; shape: (L,)
        continues = inside[tags] & mask  # (B, W): the word goes on with the span of the word before it
        # The probabilities to move on from each word but the last: to the next one's tag, and to a label that continues nothing.
        moves = (scores.moves[tags[:, :-1]] + found.ahead[:, 1:]).log_softmax(-1)  # shape: (B, W - 1, L)
        to_next = moves.gather(2, tags[:, 1:, None])[..., 0]
        closing = moves.masked_fill(inside, -torch.inf).logsumexp(-1).masked_fill(~mask[:, 1:], 0.0)
        onwards = torch.where(continues[:, 1:], to_next, closing)
        # A span has those from its first word up to the next word that does not continue it, where `stops` is.
        summed = nn.functional.pad(onwards.clamp(min=_NEVER).cumsum(1), (1, 1), mode="constant")
        summed[:, -1] = summed[:, -2]  # nothing follows the last word
        places = torch.arange(mask.shape[1], device=mask.device)
        stops = torch.where(continues, mask.shape[1], places)[:, 1:]
        stops = nn.functional.pad(stops, (0, 1), value=mask.shape[1]).flip(1).cummin(1).values.flip(1)  # shape: (B, W)
        path = summed.gather(1, stops) - summed[:, :-1]
        first = found.marginals.gather(2, tags[..., None])[..., 0]
        starts = mask & torch.tensor(self._begins, device=tags.device)[tags]
        return (first * path.exp()).clamp(max=1.0).masked_fill(~starts, 0.0).float()

    def _scores(self, *, barred: bool, dtype: torch.dtype = torch.float32) -> TagScores:
        """The scores of labels and moves, illegal ones at -inf when `barred`."""
        start, transitions = self.start_transitions.to(dtype), self.transitions.to(dtype)
        if barred:
            start = start.masked_fill(~torch.tensor(self._start_allowed, device=start.device), -torch.inf)
            transitions = transitions.masked_fill(~torch.tensor(self._allowed, device=start.device), -torch.inf)
        return TagScores(start, transitions, self.end_transitions.to(dtype))

    def _path_score(self, emissions: Tensor, tags: Tensor, mask: Tensor, parameters: TagScores) -> Tensor:
        """(B,): the score of the given tags."""
        start, transitions, end = parameters
        emitted = emissions.gather(2, tags[..., None])[..., 0].masked_fill(~mask, 0.0).sum(1)
        moved = transitions[tags[:, :-1], tags[:, 1:]].masked_fill(~mask[:, 1:], 0.0).sum(1)
        last = tags.gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0))[:, 0]
        return start[tags[:, 0]] + emitted + moved + end[last]

    def _checked(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Emissions in float32, 0 where there is no word, after checking that they and the mask fit together."""
        if emissions.dim() != 3 or emissions.shape[2] != self.num_tags:
            raise ValueError(f"emissions: expected shape (B, W, {self.num_tags}), got {tuple(emissions.shape)}")
        if mask.dtype != torch.bool:
            raise ValueError(f"mask: expected dtype torch.bool, got {mask.dtype}")
        if mask.shape != emissions.shape[:2]:
            raise ValueError(f"mask: expected shape {tuple(emissions.shape[:2])}, got {tuple(mask.shape)}")
        if mask.shape[1] == 0:
            raise ValueError("mask: expected at least one column, got none; pad an empty text to one masked word")
        if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise ValueError("mask: expected each text's words first and the padding after, got a mask with a hole")
        return emissions.float().masked_fill(~mask[..., None], 0.0)


def _precise(emissions: Tensor) -> Tensor:
    """In float64, which Apple's accelerators do not have."""
    return emissions if emissions.device.type == "mps" else emissions.double()
