"""Linear-chain CRF on top of pytorch-crf: same parameters, batched, with exact posteriors and BIO-legal decoding.

Notation: B batch, W words, L labels. A state dict of `torchcrf.CRF` loads into `CRF` unchanged and back.
"""

from collections.abc import Sequence

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


class CRF(TorchCRF):
    """Conditional random field over the words of a text (Lafferty et al. 2001; Li et al. 2022, eq. 11-12).

    Maxima run in float32 whatever the emissions are, and sums in float64 where the device has it: in bfloat16 the loss is off by
    a fifth at 256 words, and in float32 the posteriors of long texts lose their digits.
    Illegal BIO transitions are barred in decoding and posteriors, never in the loss, since gold tags may hold orphans.

    Args:
        labels: the L label names in id order; typed (``B-PER``) or bare (``B``).
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(len(labels), batch_first=True)
        # Plain lists, not buffers: pytorch-crf's state dict must load, and a buffer that is not in it is garbage after
        # from_pretrained.
        self._illegal = [[not may_follow(previous, label) for label in labels] for previous in (None, *labels)]
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
        tags = tags.masked_fill(~mask, 0)
        least, greatest = torch.stack(tags.aminmax()).tolist()
        if least < 0 or greatest >= self.num_tags:
            found = least if least < 0 else greatest
            raise ValueError(f"tags: expected 0..{self.num_tags - 1} for every word of the mask, got {found}")
        return negative_log_likelihood(emissions, tags, mask, self._scores(barred=False))

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
    def posteriors(self, emissions: Tensor, *, mask: Tensor) -> Tensor:
        """Probability of each label at each word, over the BIO-legal tag sequences.

        Args:
            emissions: (B, W, L).
            mask: (B, W) bool without holes.

        Returns:
            (B, W, L) float32 in 0..1, rows of words sum to 1; 0 where `mask` is False.
        """
        emissions = self._checked(emissions, mask)
        found = posterior(emissions, mask, self._scores(barred=True))
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
        emissions = self._checked(emissions, mask)
        scores = self._scores(barred=True)
        found = posterior(emissions, mask, scores)
        begins, inside = torch.tensor([self._begins, self._illegal[0]], device=tags.device)  # what may not start is an I- label
        tags = tags.masked_fill(~mask, 0)
        texts, words = ((begins | inside)[tags] & mask).nonzero(as_tuple=True)  # shape: (N,) each, of the words in spans
        following = (words + 1).clamp(max=mask.shape[1] - 1)
        own, following_tags = tags[texts, words], tags[texts, following]
        # How probable it is to move on as the span does: to the next word's tag where that belongs to the span, else to any label
        # that continues nothing.
        onwards = (scores.moves[own] + found.ahead[texts, following]).softmax(-1)  # shape: (N, L)
        is_next = torch.arange(self.num_tags, device=tags.device) == following_tags[:, None]
        onwards = onwards.where(torch.where(inside[following_tags, None], is_next, ~inside), 0.0).sum(-1)
        onwards = onwards.log().where((words < following) & mask[texts, following], 0.0)  # 0 from a text's last word
        first = begins[own]
        path = onwards.new_zeros(1 + len(own)).index_add_(0, first.cumsum(0), onwards)[1:][: int(first.sum())]
        texts, words = texts[first], words[first]
        of_spans = onwards.new_zeros(mask.shape)
        of_spans[texts, words] = found.marginals[texts, words, own[first]] * path.exp()
        return of_spans.clamp_(max=1.0).float()

    def _scores(self, *, barred: bool) -> TagScores:
        """The scores of labels and moves in float32, illegal ones at -inf when `barred`."""
        start, transitions = self.start_transitions.float(), self.transitions.float()
        if barred:
            illegal = torch.tensor(self._illegal, device=start.device)  # shape: (1 + L, L)
            start, transitions = start.masked_fill(illegal[0], -torch.inf), transitions.masked_fill(illegal[1:], -torch.inf)
        return TagScores(start, transitions, self.end_transitions.float())

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
