"""The auxiliary objectives: each reads what it needs from one context and returns one scalar loss.

Notation: B batch, W words, D text width, F features, K entity types, R regions, C vision channels. Equations are those of
Li et al. 2022 (MLMNER); where their printed signs contradict their text, the docstring says what is read instead.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .configuration_mmner import MMNERConfig
from .crf_mmner import CRF
from .fusion_mmner import FusionOutput, TransformerLayer, Widths
from .labels_mmner import BOUNDARY_LABELS, IGNORED, boundary_label, entity_types
from .text_mmner import mean_over_words


@dataclass
class Context:
    """All that heads and objectives may read of a batch.

    Attributes:
        words, sentence: (B, W, D) and (B, D), the text tower's states.
        word_mask: (B, W) bool.
        has_picture: (B,) bool.
        regions: for each picture encoder (B, R, C) and its mask (B, R).
        fused: see `FusionOutput`.
        emissions: (B, W, L) float32, of the main CRF.
        labels: (B, W) label ids, -100 where there is no word; None at prediction.
    """

    words: Tensor
    sentence: Tensor
    word_mask: Tensor
    has_picture: Tensor
    regions: list[tuple[Tensor, Tensor]]
    fused: FusionOutput
    emissions: Tensor
    labels: Tensor | None = None

    def gold(self) -> Tensor:
        """The labels (B, W). Raises ValueError where the batch has none."""
        if self.labels is None:
            raise ValueError("objectives: expected labels (B, W), found none")
        return self.labels


class Objective(nn.Module):
    """An auxiliary objective: `forward` takes a `Context` and returns a scalar."""

    def label_layers(self) -> list[nn.Module]:
        """Its modules that depend on the labels, to be made anew for other ones."""
        return []


class BoundaryDetection(Objective):
    """Entity boundary detection: untyped B/I/O labels from a Transformer layer of its own with its own CRF (eq. 9-10)."""

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__()
        heads = config.fusion_heads or config.text_config.num_attention_heads
        self.text_layer = TransformerLayer(widths.text, heads, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(widths.text, len(BOUNDARY_LABELS))
        self.crf = CRF(BOUNDARY_LABELS)
        self._boundary_ids = [BOUNDARY_LABELS.index(boundary_label(label)) for label in config.labels]

    def forward(self, context: Context) -> Tensor:
        """Mean negative log-likelihood of the boundary labels over the texts of the batch."""
        labels = context.gold()
        states, _ = self.text_layer(context.words, context.words, mask=context.word_mask)
        emissions = self.classifier(self.dropout(states))  # shape: (B, W, 3)
        boundaries = torch.tensor(self._boundary_ids, device=labels.device)[labels.clamp(min=0)].masked_fill(labels < 0, IGNORED)
        return self.crf.negative_log_likelihood(emissions, boundaries, mask=context.word_mask).mean()

    def label_layers(self) -> list[nn.Module]:
        """Its classifier and CRF: untyped, but where entities of other types begin and end is another matter."""
        return [self.classifier, self.crf]


class ContrastiveFusion(Objective):
    """InfoNCE between the mean-pooled text view t_i and image view m_i of each post (eq. 3-5).

    ``loss = mean_i(lam * l_i(M->T) + (1 - lam) * l_i(T->M))`` over cosine similarities divided by the temperature. Eq. 5 prints
    a minus before what already is a negative log-likelihood: a sign slip; the loss is minimised. Posts without a picture take no
    part; with fewer than two pictured posts the loss is exactly 0.
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__()
        self.temperature = config.contrastive_temperature
        self.image_share = config.contrastive_image_share

    def forward(self, context: Context) -> Tensor:
        """Mean over the pictured posts of the batch."""
        assert context.fused.text_view is not None and context.fused.image_view is not None
        paired = context.has_picture & context.word_mask.any(1)
        text = mean_over_words(context.fused.text_view, context.word_mask)[paired].float()  # shape: (P, D)
        image = mean_over_words(context.fused.image_view, context.word_mask)[paired].float()
        if len(text) < 2:
            return torch.zeros((), device=context.fused.features.device)
        similarity = nn.functional.cosine_similarity(image[:, None], text[None], dim=-1) / self.temperature
        target = torch.arange(len(text), device=text.device)
        image_to_text = nn.functional.cross_entropy(similarity, target)
        text_to_image = nn.functional.cross_entropy(similarity.T, target)
        return self.image_share * image_to_text + (1 - self.image_share) * text_to_image


class EntityClustering(Objective):
    """Pull each gold entity word to its type's centre and away from the others' directions (eq. 6-8).

    ``loss = mean_j(||f_j - c_k|| + mean over k' != k of cos(f_j - c_k, f_j - c_k'))`` over the gold entity words of the batch.
    Eq. 8 prints a leading minus, which would push words from their own centre against the paper's own text; this is the
    reading of that text. The centres are constants: they come from a pass over the training data (`entity_sums`,
    `set_centres`), are kept in the checkpoint, and until then the loss is 0. A type without a centre is skipped.
    """

    centres: Tensor
    has_centre: Tensor
    # The cosine's gradient grows without bound near a centre.
    smallest_distance = 1e-4

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__()
        types = entity_types(config.labels)
        self._type_ids = [types.index(label.partition("-")[2]) if "-" in label else -1 for label in config.labels]
        self.register_buffer("centres", torch.zeros(len(types), widths.features))
        self.register_buffer("has_centre", torch.zeros(len(types), dtype=torch.bool))

    def forward(self, context: Context) -> Tensor:
        """Mean over the gold entity words whose type has a centre; exactly 0 where there are none."""
        types = self._word_types(context)
        counted = (types >= 0) & self.has_centre[types.clamp(min=0)]
        if not bool(counted.any()):
            return torch.zeros((), device=context.fused.features.device)
        types = types[counted]  # shape: (E,)
        offsets = context.fused.features[counted].float()[:, None] - self.centres  # shape: (E, K, F)
        own = offsets[torch.arange(len(types), device=types.device), types]  # shape: (E, F)
        cosines = nn.functional.cosine_similarity(own[:, None], offsets, dim=-1, eps=self.smallest_distance)
        others = self.has_centre.expand(len(types), -1).clone()
        others[torch.arange(len(types), device=types.device), types] = False
        repulsion = (cosines * others).sum(1) / others.sum(1).clamp(min=1)
        return (torch.linalg.vector_norm(own, dim=1) + repulsion).mean()

    @torch.no_grad()
    def entity_sums(self, context: Context) -> tuple[Tensor, Tensor]:
        """Sum of the features (K, F) and number (K,) of the gold entity words of each type in a batch."""
        types = self._word_types(context)
        features = context.fused.features[types >= 0].float()
        sums = torch.zeros_like(self.centres, dtype=torch.float32).index_add_(0, types[types >= 0], features)
        return sums, torch.bincount(types[types >= 0], minlength=len(self.centres)).to(sums.dtype)

    @torch.no_grad()
    def set_centres(self, sums: Tensor, counts: Tensor) -> None:
        """Make the means the centres: `sums` (K, F) and `counts` (K,) over the whole training set."""
        self.centres.copy_(sums / counts.clamp(min=1)[:, None])
        self.has_centre.copy_(counts > 0)

    def label_layers(self) -> list[nn.Module]:
        """All of it: the centres."""
        return [self]

    def _word_types(self, context: Context) -> Tensor:
        """(B, W): index of each gold word's entity type, -1 outside entities."""
        labels = context.gold()
        types = torch.tensor(self._type_ids, device=labels.device)[labels.clamp(min=0)]
        return types.masked_fill(~context.word_mask | (labels < 0), -1)


class ContrastiveAlignment(Objective):
    """NT-Xent between each text and its picture, as each picture encoder sees it (Wang et al. 2024).

    ``L_cl = sum over picture encoders of NT-Xent(text, picture)``; text and picture go through Linear-ReLU-Linear heads, and the
    text's is shared. The paper flattens the 50 x 768 tokens of its ViT before the head, 29 million weights that fix the number
    of tokens; here their mean is read, which serves any number of regions and pictures. Posts without a picture take no part.
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__()
        self.temperature = config.alignment_temperature
        self.text_head = _head(widths.text, widths.text)
        self.picture_heads = nn.ModuleList(_head(width, widths.text) for width in widths.channels)

    def forward(self, context: Context) -> Tensor:
        """Mean over the pictured posts of the batch; exactly 0 with fewer than two."""
        paired = context.has_picture & context.word_mask.any(1)
        if int(paired.sum()) < 2:
            return torch.zeros((), device=context.emissions.device)
        text = self.text_head(context.sentence[paired])
        losses = []
        for head, (regions, region_mask) in zip(self.picture_heads, context.regions, strict=True):
            picture = mean_over_words(regions[paired], region_mask[paired]).to(text.dtype)
            losses.append(nt_xent(text, head(picture), temperature=self.temperature))
        return torch.stack(losses).sum()


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy (Chen et al. 2020) of P pairs, both (P, D), P > 0.

    Among all 2P vectors each one's positive is its partner, its negatives are the other 2P - 2; the mean over 2P of
    ``-log softmax(cos / temperature)``.
    """
    vectors = nn.functional.normalize(torch.cat([first, second]).float(), dim=-1)
    with torch.autocast(vectors.device.type, enabled=False):  # or the product would be of half precision
        similarity = vectors @ vectors.T / temperature  # shape: (2P, 2P)
    similarity = similarity.masked_fill(torch.eye(len(vectors), dtype=torch.bool, device=vectors.device), -torch.inf)
    partner = torch.arange(len(vectors), device=vectors.device).roll(len(first))
    return nn.functional.cross_entropy(similarity, partner)


def _head(width: int, output: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, output), nn.ReLU(), nn.Linear(output, output))


OBJECTIVES: dict[str, Any] = {
    "boundary": BoundaryDetection,
    "contrastive": ContrastiveFusion,
    "clustering": EntityClustering,
    "alignment": ContrastiveAlignment,
}
