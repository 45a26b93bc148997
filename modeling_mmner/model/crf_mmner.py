"""Linear-chain CRF on top of pytorch-crf: batched, with exact posteriors and BIO-legal decoding.

Notation: B batch, W words, L labels. A state dict of `torchcrf.CRF` loads into `CRF` unchanged and back.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import initialization

from .labels_mmner import IGNORED, boundary_label, may_follow
from .lattice_mmner import TagScores, negative_log_likelihood, posterior

try:
    from torchcrf import CRF as TorchCRF
except ImportError as error:
    raise ImportError(
        "mmner needs the package that provides the module 'torchcrf': run `pip install pytorch-crf` "
        "(the package called 'torchcrf' is another one)"
    ) from error


class _Rules(NamedTuple):
    """What BIO says of L labels.

    Attributes:
        illegal: (1 + L, L) whether a label may not come first, or after each of the labels.
        begins: (L,) whether a label begins an entity.
        in_entity: (L,) whether it is of an entity.
        goes_on_as: (L, L) whether what follows an entity's word goes on as the label of the first axis does:
            is that label, where it continues an entity, and else continues none.
    """

    illegal: Tensor
    begins: Tensor
    in_entity: Tensor
    goes_on_as: Tensor


def _bio_rules(labels: Sequence[str], device: torch.device) -> _Rules:
    rows = [[not may_follow(previous, label) for label in labels] for previous in (None, *labels)]
    illegal = torch.tensor(rows)
    continues, begins = illegal[0], torch.tensor([boundary_label(label) == "B" for label in labels])
    goes_on_as = torch.where(continues[:, None], torch.eye(len(labels), dtype=torch.bool), ~continues)
    return _Rules(*(rule.to(device) for rule in (illegal, begins, begins | continues, goes_on_as)))


class CRF(TorchCRF):
    """Conditional random field over the words of a text (Lafferty et al. 2001; Li et al. 2022, eq. 11-12).

    Maxima run in float32 whatever the emissions are, and sums in float64 where the device has it: in bfloat16
    the loss is off by a fifth at 256 words, and in float32 the posteriors of long texts lose their digits.
    Illegal BIO transitions are barred in decoding and posteriors, never in the loss, since gold tags may hold
    orphans.

    Args:
        labels: the L label names in id order; typed (``B-PER``) or bare (``B``).
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(len(labels), batch_first=True)
        # No buffers: pytorch-crf's state dict must load, and a buffer that is not in it is garbage after
        # from_pretrained.
        self._labels, self._rules_on = list(labels), dict[torch.device, _Rules]()

    def initialise(self) -> None:
        """Draw all scores from -0.1..0.1, as pytorch-crf does."""
        for parameter in self.parameters():
            initialization.uniform_(parameter, -0.1, 0.1)

    @torch.compiler.disable  # a loop over words, which would be compiled for each number of them
    def negative_log_likelihood(self, emissions: Tensor, tags: Tensor, *, mask: Tensor) -> Tensor:
        """``log Z - score(tags)`` per text.

        Args:
            emissions: (B, W, L) scores.
            tags: (B, W) label ids; anything where `mask` is False.
            mask: (B, W) bool, True for the words, without holes. A row of False is an empty text, whose loss
                is 0.

        Returns:
            (B,) float32, >= 0.

        Raises:
            ValueError: wrong shape, mask not boolean or with holes, a tag of a word outside 0..L-1.
        """
        emissions = self._checked(emissions, mask)
        if tags.shape != mask.shape:
            raise ValueError(f"tags: expected shape {tuple(mask.shape)}, got {tuple(tags.shape)}")
        tags = tags.masked_fill(~mask, 0)
        least, greatest = torch.stack(tags.aminmax()).tolist()
        if least < 0 or greatest >= self.num_tags:
            found = least if least < 0 else greatest
            raise ValueError(f"tags: expected 0..{self.num_tags - 1} for every word of the mask, got {found}")
        return negative_log_likelihood(emissions, tags, mask, self._scores(barred=False))

    @torch.no_grad()
    @torch.compiler.disable
    def decode_batch(self, emissions: Tensor, *, mask: Tensor) -> Tensor:
        """The best BIO-legal tags of each text (Viterbi): (B, W) label ids, -100 where `mask` is False.

        Arguments and errors are those of `negative_log_likelihood`.
        """
        emissions = self._checked(emissions, mask)
        start, transitions, end = self._scores(barred=True)
        stay = torch.arange(self.num_tags, device=emissions.device).expand(len(emissions), -1)
        score = start + emissions[:, 0]  # shape: (B, L)
        pointers = []
        in_all_texts = mask.all(0).tolist()
        for word, emitted in enumerate(emissions.unbind(1)[1:], start=1):
            best, pointer = (score[:, :, None] + transitions).max(1)  # shape: (B, L) each
            reached = best + emitted
            if not in_all_texts[word]:
                present = mask[:, word, None]
                reached, pointer = torch.where(present, reached, score), torch.where(present, pointer, stay)
            score = reached
            pointers.append(pointer)
        tags = [(score + end).argmax(1, keepdim=True)]  # shape: (B, 1)
        for pointer in reversed(pointers):
            tags.append(pointer.gather(1, tags[-1]))
        return torch.cat(tags[::-1], dim=1).masked_fill(~mask, IGNORED)

    @torch.no_grad()
    @torch.compiler.disable
    def span_scores(self, emissions: Tensor, tags: Tensor, *, mask: Tensor) -> Tensor:
        """Posterior of each span of `tags`: exactly its tags and no continuation after it.

        Args:
            emissions, mask: as in `negative_log_likelihood`.
            tags: (B, W) BIO-legal label ids, as from `decode_batch`.

        Returns:
            (B, W) float32 in 0..1 at the first word of each span, 0 elsewhere.
        """
        emissions = self._checked(emissions, mask)
        scores, rules = self._scores(barred=True), self._rules(mask.device)
        found = posterior(emissions, mask, scores)
        flat_tags, flat_mask = tags.masked_fill(~mask, 0).flatten(), mask.flatten()
        # shape: (N,), of the words in spans, text after text
        places = (rules.in_entity[flat_tags] & flat_mask).nonzero()[:, 0]
        following = (places + 1).clamp(max=len(flat_mask) - 1)
        own = flat_tags.index_select(0, places)
        # How probable it is to move on as the span does; 1 from a text's last word.
        # shape: (N, L)
        onwards = scores.moves.index_select(0, own) + found.ahead.flatten(0, 1).index_select(0, following)
        as_span = rules.goes_on_as.index_select(0, flat_tags.index_select(0, following))
        goes_on = flat_mask.index_select(0, following) & ((places + 1) % mask.shape[1] != 0)
        onwards = (onwards.softmax(-1) * as_span).sum(-1).where(goes_on, 1.0).log()
        first = rules.begins.index_select(0, own)
        span = first.cumsum(0)
        path = onwards.new_zeros(1 + len(places)).index_add_(0, span, onwards).index_select(0, span)
        start = found.marginals.flatten().index_select(0, places * self.num_tags + own)
        of_spans = path.new_zeros(len(flat_mask)).index_copy_(0, places, start * path.exp() * first)
        return of_spans.view(mask.shape).clamp_(max=1.0).float()

    def _rules(self, device: torch.device) -> _Rules:
        """BIO's rules for the labels on a device."""
        if device not in self._rules_on:
            with torch.inference_mode(False):  # what is kept may be wanted in training, too
                self._rules_on[device] = _bio_rules(self._labels, device)
        return self._rules_on[device]

    def _scores(self, *, barred: bool) -> TagScores:
        """The scores of labels and moves in float32, illegal ones at -inf when `barred`."""
        start, transitions = self.start_transitions.float(), self.transitions.float()
        if barred:
            illegal = self._rules(start.device).illegal
            start = start.masked_fill(illegal[0], -torch.inf)
            transitions = transitions.masked_fill(illegal[1:], -torch.inf)
        return TagScores(start, transitions, self.end_transitions.float())

    def _checked(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Emissions in float32, 0 where there is no word, after checking that they fit the mask."""
        if emissions.dim() != 3 or emissions.shape[2] != self.num_tags:
            found = tuple(emissions.shape)
            raise ValueError(f"emissions: expected shape (B, W, {self.num_tags}), got {found}")
        if mask.dtype != torch.bool:
            raise ValueError(f"mask: expected dtype torch.bool, got {mask.dtype}")
        if mask.shape != emissions.shape[:2]:
            raise ValueError(f"mask: expected shape {tuple(emissions.shape[:2])}, got {tuple(mask.shape)}")
        if mask.shape[1] == 0:
            raise ValueError(
                "mask: expected at least one column, got none; pad empty texts to one masked word"
            )
        if bool(mask.all()):  # as of a text alone: no hole, and nothing to hide
            return emissions.float()
        if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            expected = "each text's words first and the padding after"
            raise ValueError(f"mask: expected {expected}, got a mask with a hole")
        return emissions.float().masked_fill(~mask[..., None], 0.0)
