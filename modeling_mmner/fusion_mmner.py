"""Fusions: how pictures enter the words' features.

Notation: B batch, W words, R regions, D text width, C vision channels, Q queries, K keys, F features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mmner import MMNERConfig


@dataclass
class FusionOutput:
    """What a fusion hands to the heads and objectives.

    Attributes:
        features: (B, W, F) what the tag classifier reads.
        text_view, image_view: (B, W, D) the two halves of the features, where the fusion has them.
        gate: (B, W, D) in 0..1, how much of the picture each word lets through; 0 without a picture.
        attention: (B, W, R) in 0..1, each word's attention over the regions, mean over heads; 0 without a picture.
    """

    features: Tensor
    text_view: Tensor | None = None
    image_view: Tensor | None = None
    gate: Tensor | None = None
    attention: Tensor | None = None


class Attention(nn.Module):
    """Multi-head attention with an output projection (Li et al. 2022, eq. 1; its scale read as the root of the head width).

    Args:
        width: D, a multiple of `heads`.
        heads: number of heads.
        context_width: of the context where it is another than D.
        dropout: on the attention weights, in training.

    Raises:
        ValueError: `width` is no multiple of `heads`.
    """

    def __init__(self, width: int, heads: int, *, dropout: float, context_width: int | None = None) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"attention: expected a width that is a multiple of its {heads} heads, found {width}")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key, self.value = (nn.Linear(context_width or width, width) for _ in range(2))
        self.output = nn.Linear(width, width)

    def forward(
        self, query: Tensor, context: Tensor, *, mask: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `query` (B, Q, D) over `context` (B, K, D or `context_width`), K > 0, where `mask` (B, K) is True.

        Returns:
            (B, Q, D), and the weights (B, Q, K), mean over heads, where asked for. A row of `mask` that is all False gives
            finite values of no meaning, never NaN.
        """
        queries, keys, values = (
            self._split(self.query(query)),
            self._split(self.key(context)),
            self._split(self.value(context)),
        )
        # Half the lowest finite score rather than -inf: a masked key still weighs exactly 0 beside any other, and a row that is
        # masked throughout stays finite in each implementation, also when scores are added to it in half precision.
        bias = torch.zeros(mask.shape, dtype=queries.dtype, device=mask.device)
        bias = bias.masked_fill(~mask, torch.finfo(queries.dtype).min / 2)[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5 + bias
            weights = scores.softmax(-1)
            mixed = nn.functional.dropout(weights, dropout) @ values
            weights = weights.mean(1)
        else:
            mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2)), weights

    def _split(self, states: Tensor) -> Tensor:
        """(B, Q, D) -> (B, heads, Q, D / heads)."""
        return states.unflatten(2, (self.heads, -1)).transpose(1, 2)


class TransformerLayer(GradientCheckpointingLayer):
    """A BERT-style layer whose query may come from one modality and its key and value from another (eq. 1-2).

    Attention, residual from the query, LayerNorm; feed-forward of four times the width, residual, LayerNorm. With the query
    as context it is a standard Transformer layer, with another modality the paper's cross-modal layer CMT.
    """

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, context: Tensor, *, mask: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `Attention.forward`: (B, Q, D) and, where asked for, the attention weights (B, Q, K)."""
        attended, weights = self.attention(query, context, mask=mask, need_weights=need_weights)
        states = self.attention_norm(query + self.dropout(attended))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states))), weights


@dataclass(frozen=True)
class Widths:
    """Of the parts before the heads and objectives: the text tower's D, the fusion's F, and each picture encoder's C."""

    text: int
    features: int
    channels: tuple[int, ...]


class TextOnlyFusion(nn.Module):
    """No picture: the features are the text tower's words (BERT-CRF and the other text baselines)."""

    def __init__(self, config: MMNERConfig, *, text_width: int, channels: list[int]) -> None:
        super().__init__()
        self.width = text_width

    def forward(
        self, words: Tensor, *, word_mask: Tensor, regions: list[tuple[Tensor, Tensor]], need_weights: bool = False
    ) -> FusionOutput:
        """`words` (B, W, D) as they are; `regions` is empty."""
        return FusionOutput(features=words)


class CrossModalFusion(nn.Module):
    """MLMNER's cross-modal Transformer with its visual gate (Li et al. 2022, eq. 1-2; the gate as in Yu et al. 2020).

    R_txt = Transformer(X);  P = CMT(query=V, context=R_txt);  T = CMT(query=R_txt, context=P);
    A = CMT(query=R_txt, context=V);  g = sigmoid(W_g [T; A] + b);  M = g * A;  F = [T; M].

    Ours, where the paper is silent: a post without a picture has one learned row as V, and M = 0.
    """

    def __init__(self, config: MMNERConfig, *, text_width: int, channels: list[int]) -> None:
        super().__init__()
        heads = config.fusion_heads or config.text_config.num_attention_heads
        self.width = 2 * text_width
        self.region_projection = nn.Linear(channels[0], text_width)
        self.no_picture = nn.Parameter(torch.zeros(text_width))
        self.text_layer = TransformerLayer(text_width, heads, dropout=config.dropout)
        self.image_guided_by_text = TransformerLayer(text_width, heads, dropout=config.dropout)
        self.text_from_image = TransformerLayer(text_width, heads, dropout=config.dropout)
        self.text_guided_image = TransformerLayer(text_width, heads, dropout=config.dropout)
        self.gate = nn.Linear(2 * text_width, text_width)

    def forward(
        self, words: Tensor, *, word_mask: Tensor, regions: list[tuple[Tensor, Tensor]], need_weights: bool = False
    ) -> FusionOutput:
        """Fuse words and regions.

        Args:
            words: (B, W, D) from the text tower, called X in the paper.
            word_mask: (B, W) bool.
            regions: one pair of (B, R, C) and its mask (B, R); R may be 0.
            need_weights: whether to return each word's attention over the regions.
        """
        ((picture, region_mask),) = regions
        has_picture = region_mask.any(1)[:, None, None]
        rows = self.no_picture.expand(words.shape[0], 1, -1)
        visual = torch.cat([rows, self.region_projection(picture).to(rows.dtype)], dim=1)  # V, shape: (B, 1 + R, D)
        visual_mask = torch.cat([~has_picture[:, 0], region_mask], dim=1)

        text, _ = self.text_layer(words, words, mask=word_mask)
        image_guided, _ = self.image_guided_by_text(visual, text, mask=word_mask)
        text_view, _ = self.text_from_image(text, image_guided, mask=visual_mask)
        guided_image, weights = self.text_guided_image(text, visual, mask=visual_mask, need_weights=need_weights)
        gate = torch.sigmoid(self.gate(torch.cat([text_view, guided_image], dim=-1)))
        gate = torch.where(has_picture, gate, 0)
        image_view = torch.where(has_picture, gate * guided_image, 0)
        return FusionOutput(
            features=torch.cat([text_view, image_view], dim=-1),
            text_view=text_view,
            image_view=image_view,
            gate=gate,
            attention=None if weights is None else torch.where(has_picture, weights[..., 1:], 0),
        )


class CollaborationFusion(nn.Module):
    """2M-NER's multimodal collaboration module (Wang et al. 2024): for each picture encoder the words attend over its output,
    residual, LayerNorm, no feed-forward; the results are concatenated and projected: F = Linear([H_1; H_2; ...]), width D.

    Of a pooled tower there is one vector v to attend over, whose weight is 1 whatever the word: its attention is
    W_o(W_v(W_p v)), three linear maps in a row, and is computed as the one linear map that they are.

    Ours, where the paper is silent: a word of a post without a picture is attended to by nothing, H = LayerNorm(words).
    """

    def __init__(self, config: MMNERConfig, *, text_width: int, channels: list[int]) -> None:
        super().__init__()
        heads = config.fusion_heads or config.text_config.num_attention_heads
        self.width = text_width
        self.pooled = [tower.pooled for tower in config.vision_tower_configs()]
        self.readers = nn.ModuleList(
            nn.Linear(width, text_width) if pooled else Attention(text_width, heads, dropout=config.dropout, context_width=width)
            for width, pooled in zip(channels, self.pooled, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(text_width) for _ in channels)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(len(channels) * text_width, text_width)

    def forward(
        self, words: Tensor, *, word_mask: Tensor, regions: list[tuple[Tensor, Tensor]], need_weights: bool = False
    ) -> FusionOutput:
        """Fuse words and regions.

        Args:
            words: (B, W, D) from the text tower.
            word_mask: (B, W) bool.
            regions: for each tower (B, R, C) and its mask (B, R); R may be 0.
            need_weights: whether to return each word's attention over the regions, of the first tower that is not pooled.
        """
        views, weights = [], None
        for reader, norm, pooled, (picture, region_mask) in zip(self.readers, self.norms, self.pooled, regions, strict=True):
            has_picture = region_mask.any(1)[:, None, None]
            if pooled:
                attended = reader(picture.to(words.dtype))  # shape: (B, 1, D)
            else:
                # A row to attend over for posts without a picture, whose result is not used.
                padded = nn.functional.pad(picture.to(words.dtype), (0, 0, 1, 0))
                mask = torch.cat([~has_picture[:, 0], region_mask], dim=1)
                need = need_weights and weights is None
                attended, found = reader(words, padded, mask=mask, need_weights=need)
                weights = torch.where(has_picture, found[..., 1:], 0) if need else weights
            views.append(norm(words + torch.where(has_picture, self.dropout(attended), 0)))
        return FusionOutput(features=self.output(torch.cat(views, dim=-1)), attention=weights)


FUSIONS: dict[str, type[TextOnlyFusion | CrossModalFusion | CollaborationFusion]] = {
    "text-only": TextOnlyFusion,
    "cross-modal": CrossModalFusion,
    "collaboration": CollaborationFusion,
}
