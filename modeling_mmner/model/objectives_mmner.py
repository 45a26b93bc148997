"""The auxiliary objectives: each reads what it needs from one context and returns one scalar loss.

Notation: B batch, W words, D text width, F features, K entity types. Equations are those of Li et al. 2022
(MLMNER); where their printed signs contradict their text, the docstring says what is read instead.
"""

import torch
from torch import Tensor, nn
from transformers import initialization

from .configuration_mmner import MMNERConfig
from .context_mmner import Context, ModelPart, Widths, in_groups, masked_mean
from .gathering_mmner import gathered, mean_over_processes, whole_batch
from .labels_mmner import entity_types

MOST_OFFSETS = 2**24
"""Numbers of the offsets of entity words from the centres that are held at a time: 64 MB."""


class Objective(ModelPart):
    """An auxiliary objective: `forward` takes a `Context` and returns a scalar."""

    def label_layers(self) -> list[nn.Module]:
        """Its modules that depend on the labels, to be made anew for other ones."""
        return []


class ContrastiveFusion(Objective, part="contrastive"):
    """InfoNCE between the mean-pooled text view t_i and image view m_i of each post (eq. 3-5).

    ``loss = mean_i(lam * l_i(M->T) + (1 - lam) * l_i(T->M))`` over cosine similarities divided by the
    temperature. Eq. 5 prints a minus before what already is a negative log-likelihood: a sign slip; the loss
    is minimised. Posts without a picture take no part; with fewer than two pictured posts the loss is exactly
    0.
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        self.temperature = config.contrastive_temperature
        self.image_share = config.contrastive_image_share

    def forward(self, context: Context) -> Tensor:
        """Mean over the pictured posts of the batch."""
        assert context.fused.text_view is not None and context.fused.image_view is not None
        paired = context.has_picture & context.text.mask.any(1)
        views = (context.fused.text_view, context.fused.image_view)
        own = torch.stack([masked_mean(view, context.text.mask)[paired].float() for view in views], dim=1)
        text, image = gathered(own).unbind(1)  # shape: (P, D) each
        if len(text) < 2:
            return context.no_loss()
        similarity = nn.functional.cosine_similarity(image[:, None], text[None], dim=-1) / self.temperature
        target = torch.arange(len(text), device=text.device)
        image_to_text = nn.functional.cross_entropy(similarity, target)
        text_to_image = nn.functional.cross_entropy(similarity.T, target)
        return whole_batch(self.image_share * image_to_text + (1 - self.image_share) * text_to_image)


class EntityClustering(Objective, part="clustering"):
    """Pull each gold entity word to its type's centre and away from the others' directions (eq. 6-8).

    ``loss = mean_j(||f_j - c_k|| + mean over k' != k of cos(f_j - c_k, f_j - c_k'))`` over the gold entity
    words of the batch. Eq. 8 prints a leading minus, which would push words from their own centre against the
    paper's own text; this is the reading of that text. The centres are constants: they come from a pass over
    the training data (`entity_sums`, `set_centres`), are kept in the checkpoint, and until then the loss is
    0. A type without a centre is skipped.
    """

    centres: Tensor
    has_centre: Tensor
    # The cosine's gradient grows without bound near a centre.
    smallest_distance = 1e-4

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        types = entity_types(config.labels)
        names = [label.partition("-")[2] for label in config.labels]
        self._type_ids = [types.index(name) if name else -1 for name in names]
        self.register_buffer("centres", torch.zeros(len(types), widths.features))
        self.register_buffer("has_centre", torch.zeros(len(types), dtype=torch.bool))

    def initialise(self) -> None:
        """No centre yet."""
        initialization.zeros_(self.centres)
        initialization.zeros_(self.has_centre)

    def forward(self, context: Context) -> Tensor:
        """Mean over the gold entity words whose type has a centre; exactly 0 where there are none."""
        types = self._word_types(context)
        counted = (types >= 0) & self.has_centre[types.clamp(min=0)]
        features, most = context.fused.features[counted].float(), MOST_OFFSETS // self.centres.numel()
        losses = in_groups(self._losses, features, types[counted], most=most, of=self)
        return mean_over_processes(torch.cat(losses))

    def _losses(self, features: Tensor, types: Tensor) -> Tensor:
        """The losses (E,) of entity words' features (E, F) and types (E,)."""
        offsets = features[:, None] - self.centres  # shape: (E, K, F)
        own = offsets[torch.arange(len(types), device=types.device), types]  # shape: (E, F)
        cosines = nn.functional.cosine_similarity(own[:, None], offsets, dim=-1, eps=self.smallest_distance)
        others = self.has_centre & (torch.arange(len(self.centres), device=types.device) != types[:, None])
        repulsion = (cosines * others).sum(1) / others.sum(1).clamp(min=1)
        return torch.linalg.vector_norm(own, dim=1) + repulsion

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
        return types.masked_fill(~context.text.mask | (labels < 0), -1)


class ContrastiveAlignment(Objective, part="alignment"):
    """NT-Xent between each text and its picture, as each picture encoder sees it (Wang et al. 2024).

    ``L_cl = sum over picture encoders of NT-Xent(text, picture)``; text and picture go through
    Linear-ReLU-Linear heads, and the text's is shared. The paper flattens the 50 x 768 tokens of its ViT
    before the head, 29 million weights that fix the number of tokens; here their mean is read, which serves
    any number of regions and pictures. Posts without a picture take no part.
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        self.temperature = config.alignment_temperature
        self.text_head = _head(widths.text, widths.text)
        self.picture_heads = nn.ModuleList(_head(width, widths.text) for width in widths.channels)

    def forward(self, context: Context) -> Tensor:
        """Mean over the pictured posts of the batch; exactly 0 with fewer than two."""
        paired = context.has_picture & context.text.mask.any(1)
        sentences = context.text.sentence[paired]
        vectors = [self.text_head(sentences)]
        for head, regions in zip(self.picture_heads, context.regions, strict=True):
            picture = masked_mean(regions.states[paired], regions.mask[paired])
            vectors.append(head(picture.to(sentences.dtype)))
        text, *pictures = gathered(torch.stack(vectors, dim=1)).unbind(1)  # shape: (P, D) each
        if len(text) < 2:
            return context.no_loss()
        losses = [nt_xent(text, picture, temperature=self.temperature) for picture in pictures]
        return whole_batch(torch.stack(losses).sum())


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy (Chen et al. 2020) of P pairs, both (P, D), P > 0.

    Among all 2P vectors each one's positive is its partner, its negatives are the other 2P - 2; the mean over
    2P of ``-log softmax(cos / temperature)``.
    """
    vectors = nn.functional.normalize(torch.cat([first, second]).float(), dim=-1)
    with torch.autocast(vectors.device.type, enabled=False):  # or the product would be of half precision
        similarity = vectors @ vectors.T / temperature  # shape: (2P, 2P)
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    partner = torch.arange(len(vectors), device=vectors.device).roll(len(first))
    return nn.functional.cross_entropy(similarity, partner)


def _head(width: int, output: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, output), nn.ReLU(), nn.Linear(output, output))
