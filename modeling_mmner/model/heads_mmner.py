"""Heads: each gives every word a score for each of its labels, and learns them by a CRF.

The model runs the heads that are wanted before any loss, in order of need: a head finds the emissions of
those that it `reads` in the context, in training and in prediction alike.

Notation: B batch, W words, L labels of a head, D text width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import initialization

from .configuration_mmner import MMNERConfig
from .context_mmner import Context, ModelPart, Widths
from .crf_mmner import CRF
from .fusion_mmner import TransformerLayer
from .gathering_mmner import mean_over_processes
from .labels_mmner import BOUNDARY_LABELS, IGNORED, boundary_label


class Head(ModelPart):
    """A head with a classifier and a CRF of its own, made by `add_classifier`.

    Attributes:
        reads: names of the heads whose emissions this one reads.
    """

    reads: tuple[str, ...] = ()

    def add_classifier(self, labels: Sequence[str], *, width: int, dropout: float) -> None:
        """Make the classifier of states of a width, and the CRF, for the head's L label names in id order."""
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, len(labels))
        self.crf = CRF(labels)

    def forward(self, context: Context) -> Tensor:
        """Emissions (B, W, L) float32."""
        return self.classifier(self.dropout(self.states(context))).float()

    def states(self, context: Context) -> Tensor:
        """What the classifier reads (B, W, width): the fused features."""
        return context.fused.features

    def gold(self, context: Context) -> Tensor:
        """The gold labels (B, W) as ids of the head's own labels, -100 where there is no word."""
        return context.gold()

    def loss(self, emissions: Tensor, context: Context) -> Tensor:
        """Mean negative log-likelihood of the gold labels over the texts of the batch."""
        gold, mask = self.gold(context), context.text.mask
        return mean_over_processes(self.crf.negative_log_likelihood(emissions, gold, mask=mask))

    def label_layers(self) -> list[nn.Module]:
        """Its modules that depend on the labels, to be made anew for other ones."""
        return [self.classifier, self.crf]


def check_reading(heads: Mapping[str, Head]) -> None:
    """Check that there are the heads that each head reads; raises ValueError where one is missing."""
    for name, head in heads.items():
        if missing := [other for other in head.reads if other not in heads]:
            raise ValueError(
                f"objectives: head {name!r} reads the emissions of {missing}, expected them among the"
                f" objectives (with a weight of 0 if need be), found {list(heads)}"
            )


class Tagging(Head, part="crf"):
    """The main task: typed labels from the fused features (Li et al. 2022, eq. 11-12).

    With a ``boundary_share`` s > 0 its emissions are ``(1 - s) * e + s * e_boundary @ C``, where C converts
    those of boundary detection, see `boundary_conversion` (Yu et al. 2020, UMT, where s = 0.5).
    """

    conversion: Tensor

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        self.add_classifier(config.labels, width=widths.features, dropout=config.dropout)
        self.labels, self.boundary_share = config.labels, config.boundary_share
        if self.boundary_share:
            self.reads = ("boundary",)
        self.register_buffer("conversion", boundary_conversion(self.labels), persistent=False)

    def initialise(self) -> None:
        """Write the conversion, which is no weight and not saved."""
        initialization.copy_(self.conversion, boundary_conversion(self.labels))

    def forward(self, context: Context) -> Tensor:
        """Emissions (B, W, L) float32."""
        emissions = super().forward(context)
        if not self.boundary_share:
            return emissions
        converted = context.emissions["boundary"] @ self.conversion.float()  # a bfloat16 model's is bfloat16
        return (1 - self.boundary_share) * emissions + self.boundary_share * converted


def boundary_conversion(labels: Sequence[str]) -> Tensor:
    """(3, L) the share of each boundary label's emission (O, B, I) in each typed one's (Yu et al. 2020).

    O's goes to O, B's and I's evenly to the typed B- and I- labels.
    """
    untyped = [boundary_label(label) for label in labels]
    shares = {name: 1 / max(untyped.count(name), 1) for name in BOUNDARY_LABELS}
    return torch.tensor([[(name == other) * shares[name] for other in untyped] for name in BOUNDARY_LABELS])


class BoundaryDetection(Head, part="boundary"):
    """Boundary detection: untyped labels from an own Transformer layer (Li et al. 2022, eq. 9-10).

    Untyped as they are, its labels depend on the types: where entities of other types begin and end is
    another matter.
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        self.text_layer = TransformerLayer(widths.text, widths.heads, dropout=config.dropout)
        self.add_classifier(BOUNDARY_LABELS, width=widths.text, dropout=config.dropout)
        self._boundary_ids = [BOUNDARY_LABELS.index(boundary_label(label)) for label in config.labels]

    def states(self, context: Context) -> Tensor:
        """The text tower's words after a Transformer layer."""
        return self.text_layer.over_words(context.text.words, mask=context.text.mask)

    def gold(self, context: Context) -> Tensor:
        """The labels without their types."""
        labels = context.gold()
        boundaries = torch.tensor(self._boundary_ids, device=labels.device)[labels.clamp(min=0)]
        return boundaries.masked_fill(labels < 0, IGNORED)
