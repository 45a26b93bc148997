"""Our CRF beside pytorch-crf, from which it derives."""

from collections.abc import Iterator

import torch
from torchcrf import CRF as TorchCRF

from modeling_mmner.model.crf_mmner import CRF
from modeling_mmner.model.labels_mmner import bio_labels

from .rounds import Comparison, Contender

SIZES = [(1, 16), (32, 32), (32, 128), (256, 128), (32, 512)]
"""Texts and words."""
LABELS = bio_labels(["PER", "LOC", "ORG", "MISC"])


def crf_comparisons(seed: int) -> Iterator[Comparison]:
    """Loss and decoding at each of the sizes, with nine labels; no text is shorter than the others.

    Our decoding bars tags that are no BIO, and span scores are exact posteriors; pytorch-crf has neither.
    """
    torch.manual_seed(seed)
    ours, theirs = CRF(LABELS), TorchCRF(len(LABELS), batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    for texts, words in SIZES:
        emissions = torch.randn(texts, words, len(LABELS), requires_grad=True)
        tags, mask = torch.randint(len(LABELS), (texts, words)), torch.ones(texts, words, dtype=torch.bool)
        yield from _of_a_size(ours, theirs, emissions, tags, mask)


def _of_a_size(
    ours: CRF, theirs: TorchCRF, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor
) -> Iterator[Comparison]:
    read, size = emissions.detach(), "{} x {} (texts x words)".format(*mask.shape)

    def our_loss() -> None:
        ours.negative_log_likelihood(emissions, tags, mask=mask).mean().backward()

    def their_loss() -> None:
        (-theirs(emissions, tags, mask, reduction="mean")).backward()

    def with_scores() -> torch.Tensor:
        return ours.span_scores(read, ours.decode_batch(read, mask=mask), mask=mask)

    losses = {"mmner": Contender(our_loss), "pytorch-crf": Contender(their_loss)}
    yield Comparison(f"CRF, {size}, loss and backward", losses, [("pytorch-crf", "mmner")])
    contenders = {
        "mmner": Contender(lambda: ours.decode_batch(read, mask=mask)),
        "mmner with span scores": Contender(with_scores),
        "pytorch-crf": Contender(torch.no_grad()(lambda: theirs.decode(read, mask))),
    }
    ratios = [("pytorch-crf", "mmner"), ("pytorch-crf", "mmner with span scores")]
    yield Comparison(f"CRF, {size}, decoding", contenders, ratios)
