"""Fusions: how pictures enter the words' features.

Notation: B batch, W words, R regions of a post, D text width, C vision channels, Q queries, K keys, F features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import initialization
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mmner import MMNERConfig
from .context_mmner import FusionOutput, ModelPart, Regions, TextStates, Widths


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


class Fusion(ModelPart):
    """A fusion: `forward` reads the text's states and the regions of each picture encoder, and returns `FusionOutput`.

    Attributes:
        width: F.
    """

    width: int

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__()


class TextOnlyFusion(Fusion, part="text-only"):
    """No picture: the features are the text tower's words (BERT-CRF and the other text baselines)."""

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        self.width = widths.text

    def forward(self, text: TextStates, regions: Sequence[Regions], *, need_weights: bool = False) -> FusionOutput:
        """The words (B, W, D) as they are; `regions` is empty."""
        return FusionOutput(features=text.words)


class CrossModalFusion(Fusion, part="cross-modal"):
    """MLMNER's cross-modal Transformer with its visual gate (Li et al. 2022, eq. 1-2; the gate as in Yu et al. 2020).

    R_txt = Transformer(X);  P = CMT(query=V, context=R_txt);  T = CMT(query=R_txt, context=P);
    A = CMT(query=R_txt, context=V);  g = sigmoid(W_g [T; A] + b);  M = g * A;  F = [T; M].

    Ours, where the paper is silent: a post without a picture has one learned row as V, and M = 0.
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        width, heads = widths.text, widths.heads
        self.width = 2 * width
        self.region_projection = nn.Linear(widths.channels[0], width)
        self.no_picture = nn.Parameter(torch.zeros(width))
        self.text_layer = TransformerLayer(width, heads, dropout=config.dropout)
        self.image_guided_by_text = TransformerLayer(width, heads, dropout=config.dropout)
        self.text_from_image = TransformerLayer(width, heads, dropout=config.dropout)
        self.text_guided_image = TransformerLayer(width, heads, dropout=config.dropout)
        self.gate = nn.Linear(2 * width, width)

    def initialise(self) -> None:
        """Draw the row that stands for no picture."""
        initialization.normal_(self.no_picture, std=0.02)

    def forward(self, text: TextStates, regions: Sequence[Regions], *, need_weights: bool = False) -> FusionOutput:
        """Fuse words (called X in the paper) and the regions of one picture encoder.

        Args:
            need_weights: whether to return each word's attention over the regions.
        """
        (picture,) = regions
        has_picture = picture.has_picture[:, None, None]
        rows = self.no_picture.expand(text.words.shape[0], 1, -1)
        visual = torch.cat([rows, self.region_projection(picture.states).to(rows.dtype)], dim=1)  # V, shape: (B, 1 + R, D)
        visual_mask = torch.cat([~has_picture[:, 0], picture.mask], dim=1)

        words, _ = self.text_layer(text.words, text.words, mask=text.mask)
        image_guided, _ = self.image_guided_by_text(visual, words, mask=text.mask)
        text_view, _ = self.text_from_image(words, image_guided, mask=visual_mask)
        guided_image, weights = self.text_guided_image(words, visual, mask=visual_mask, need_weights=need_weights)
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


class CollaborationFusion(Fusion, part="collaboration"):
    """2M-NER's multimodal collaboration module (Wang et al. 2024): for each picture encoder the words attend over its output,
    residual, LayerNorm, no feed-forward; the results are concatenated and projected: F = Linear([H_1; H_2; ...]), width D.

    Of a pooled tower there is one vector v to attend over, whose weight is 1 whatever the word: its attention is
    W_o(W_v(W_p v)), three linear maps in a row, and is computed as the one linear map that they are.

    Ours, where the paper is silent: a word of a post without a picture is attended to by nothing, H = LayerNorm(words).
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        width, channels = widths.text, widths.channels
        self.width = width
        self.pooled = [tower.pooled for tower in config.vision_tower_configs()]
        self.readers = nn.ModuleList(
            nn.Linear(channel, width) if pooled else Attention(width, widths.heads, dropout=config.dropout, context_width=channel)
            for channel, pooled in zip(channels, self.pooled, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in channels)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(len(channels) * width, width)

    def forward(self, text: TextStates, regions: Sequence[Regions], *, need_weights: bool = False) -> FusionOutput:
        """Fuse words and the regions of each picture encoder.

        Args:
            need_weights: whether to return each word's attention over the regions, of the first tower that is not pooled.
        """
        words, views, weights = text.words, [], None
        for reader, norm, pooled, picture in zip(self.readers, self.norms, self.pooled, regions, strict=True):
            has_picture = picture.has_picture[:, None, None]
            if pooled:
                attended = reader(picture.states.to(words.dtype))  # shape: (B, 1, D)
            else:
                # A row to attend over for posts without a picture, whose result is not used.
                padded = nn.functional.pad(picture.states.to(words.dtype), (0, 0, 1, 0))
                mask = torch.cat([~has_picture[:, 0], picture.mask], dim=1)
                need = need_weights and weights is None
                attended, found = reader(words, padded, mask=mask, need_weights=need)
                weights = torch.where(has_picture, found[..., 1:], 0) if need else weights
            views.append(norm(words + torch.where(has_picture, self.dropout(attended), 0)))
        return FusionOutput(features=self.output(torch.cat(views, dim=-1)), attention=weights)
