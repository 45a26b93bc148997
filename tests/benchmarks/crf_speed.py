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
        yield _loss(ours, theirs, emissions, tags, mask)
        yield _decoding(ours, theirs, emissions.detach(), mask)


def _loss(
    ours: CRF, theirs: TorchCRF, emissions: torch.Tensor, tags: torch.Tensor, mask: torch.Tensor
) -> Comparison:
    return Comparison(
        f"CRF, {_size(mask)}, loss and backward",
        {
            "mmner": Contender(
                lambda: ours.negative_log_likelihood(emissions, tags, mask=mask).mean().backward()
            ),
            "pytorch-crf": Contender(lambda: (-theirs(emissions, tags, mask, reduction="mean")).backward()),
        },
        [("pytorch-crf", "mmner")],
    )


def _decoding(ours: CRF, theirs: TorchCRF, emissions: torch.Tensor, mask: torch.Tensor) -> Comparison:
    def with_scores() -> torch.Tensor:
        return ours.span_scores(emissions, ours.decode_batch(emissions, mask=mask), mask=mask)

    def theirs_without_gradients() -> list[list[int]]:
        with torch.no_grad():
            return theirs.decode(emissions, mask)

    return Comparison(
        f"CRF, {_size(mask)}, decoding",
        {
            "mmner": Contender(lambda: ours.decode_batch(emissions, mask=mask)),
            "mmner with span scores": Contender(with_scores),
            "pytorch-crf": Contender(theirs_without_gradients),
        },
        [("pytorch-crf", "mmner"), ("pytorch-crf", "mmner with span scores")],
    )


def _size(mask: torch.Tensor) -> str:
    return "{} x {} (texts x words)".format(*mask.shape)
