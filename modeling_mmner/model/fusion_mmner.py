"""Fusions: how pictures enter the words' features.

Notation: B batch, W words, R regions of a post, D text width, C vision channels, Q queries, K keys, F
features.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from transformers import initialization
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mmner import MMNERConfig
from .context_mmner import FusionOutput, ModelPart, Regions, TextStates, Widths, in_groups
from .windows_mmner import MOST_SCORES, best_windows, window_starts

MOST_WORDS = 2048
"""Words of a text that attend over one another; a longer one is read in windows that overlap by half."""


class Attention(nn.Module):
    """Multi-head attention with an output projection (Li et al. 2022, eq. 1; its scale read as the root of
    the head width).

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
            raise ValueError(f"attention: expected a width that {heads} heads divide evenly, found {width}")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key, self.value = (nn.Linear(context_width or width, width) for _ in range(2))
        self.output = nn.Linear(width, width)

    def forward(self, query: Tensor, context: Tensor, *, mask: Tensor) -> Tensor:
        """Attend from `query` (B, Q, D) over `context` (B, K, D or `context_width`), K > 0, where `mask`
        (B, K) is True.

        Returns:
            (B, Q, D); of a row of `mask` that is all False finite values of no meaning, never NaN.
        """
        queries = self._split(self.query(query))
        keys, values = self._split(self.key(context)), self._split(self.value(context))
        # Half the lowest finite score rather than -inf: a masked key still weighs exactly 0 beside any other,
        # and a row that is masked throughout stays finite in each implementation, also when scores are added
        # to it in half precision.
        bias = torch.zeros(mask.shape, dtype=queries.dtype, device=mask.device)
        bias = bias.masked_fill(~mask, torch.finfo(queries.dtype).min / 2)[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        attend = nn.functional.scaled_dot_product_attention
        mixed = attend(queries, keys, values, attn_mask=bias, dropout_p=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, states: Tensor) -> Tensor:
        """(B, Q, D) -> (B, heads, Q, D / heads)."""
        return states.unflatten(2, (self.heads, -1)).transpose(1, 2)


class TransformerLayer(GradientCheckpointingLayer):
    """A BERT-style layer whose query may come from one modality and its key and value from another (eq. 1-2).

    Attention, residual from the query, LayerNorm; feed-forward of four times the width, residual, LayerNorm.
    With the query as context it is a standard Transformer layer, with another modality the paper's
    cross-modal layer CMT.
    """

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, context: Tensor, *, mask: Tensor) -> Tensor:
        """As `Attention.forward`: (B, Q, D)."""
        states = self.attention_norm(query + self.dropout(self.attention(query, context, mask=mask)))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states)))

    def over_words(self, words: Tensor, *, mask: Tensor) -> Tensor:
        """The words (B, W, D) of texts after attending over one another, where `mask` (B, W) is True.

        All of a text's words, up to `MOST_WORDS`; those of a longer one in windows of so many, each word read
        where the nearer border is farthest, so that a text costs no more than in proportion to its length. In
        training as many texts are read at a time as memory has room for. An exported graph has no windows.
        """
        if torch.compiler.is_exporting():
            return self._attend(words, mask)
        if words.shape[1] > MOST_WORDS:
            return torch.cat(in_groups(self._in_windows, words, mask, most=1, of=self))
        most = MOST_SCORES // words.shape[1] ** 2 if self.training else len(words)
        read = in_groups(self._attend, words, mask, most=most, of=self)
        return torch.cat(read) if len(read) > 1 else read[0]

    def _attend(self, words: Tensor, mask: Tensor) -> Tensor:
        return self(words, words, mask=mask)

    def _in_windows(self, words: Tensor, mask: Tensor) -> Tensor:
        """(1, W, D) `over_words` of one text that may be very long."""
        text = words[mask][None]
        length, capacity = text.shape[1], min(text.shape[1], MOST_WORDS)
        if length == 0:
            return torch.zeros_like(words)
        firsts = window_starts(length, capacity)
        parts = torch.cat([text[:, first : first + capacity] for first in firsts.tolist()])
        everywhere = torch.ones_like(parts[..., 0], dtype=torch.bool)
        # shape: (K, N, D)
        windows = torch.cat(in_groups(self._attend, parts, everywhere, most=1, of=self))
        best = best_windows(np.arange(length), firsts, length=length, capacity=capacity)
        places = np.arange(length) - firsts[best]
        rows, columns = (torch.from_numpy(index).to(words.device) for index in (best, places))
        return nn.functional.pad(windows[rows, columns][None], (0, 0, 0, words.shape[1] - length))


class Fusion(ModelPart):
    """A fusion: `forward` reads the text's states and the regions of each picture encoder, and returns
    `FusionOutput`.

    Attributes:
        width: F.
    """

    width: int


class TextOnlyFusion(Fusion, part="text-only"):
    """No picture: the features are the text tower's words (BERT-CRF and the other text baselines)."""

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        self.width = widths.text

    def forward(self, text: TextStates, regions: list[Regions]) -> FusionOutput:
        """The words (B, W, D) as they are; `regions` is empty."""
        return FusionOutput(features=text.words)


class CrossModalFusion(Fusion, part="cross-modal"):
    """MLMNER's cross-modal Transformer with its visual gate (Li et al. 2022, eq. 1-2; the gate as in Yu et
    al. 2020).

    R_txt = Transformer(X);  P = CMT(query=V, context=R_txt);  T = CMT(query=R_txt, context=P);
    A = CMT(query=R_txt, context=V);  g = sigmoid(W_g [T; A] + b);  M = g * A;  F = [T; M].

    Ours, where the paper is silent: a post without a picture has one learned row as V, and M = 0.
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        width = widths.text
        layer = partial(TransformerLayer, width, widths.heads, dropout=config.dropout)
        self.width = 2 * width
        self.region_projection = nn.Linear(widths.channels[0], width)
        self.no_picture = nn.Parameter(torch.zeros(width))
        self.text_layer, self.image_guided_by_text = layer(), layer()
        self.text_from_image, self.text_guided_image = layer(), layer()
        self.gate = nn.Linear(2 * width, width)

    def initialise(self) -> None:
        """Draw the row that stands for no picture."""
        initialization.normal_(self.no_picture, std=0.02)

    def forward(self, text: TextStates, regions: list[Regions]) -> FusionOutput:
        """Fuse words (called X in the paper) and the regions of one picture encoder."""
        (picture,) = regions
        has_picture = picture.has_picture[:, None, None]
        rows = self.no_picture.expand(text.words.shape[0], 1, -1)
        # V, shape: (B, 1 + R, D)
        visual = torch.cat([rows, self.region_projection(picture.states).to(rows.dtype)], dim=1)
        visual_mask = torch.cat([~has_picture[:, 0], picture.mask], dim=1)

        words = self.text_layer.over_words(text.words, mask=text.mask)
        image_guided = self.image_guided_by_text(visual, words, mask=text.mask)
        text_view = self.text_from_image(words, image_guided, mask=visual_mask)
        guided_image = self.text_guided_image(words, visual, mask=visual_mask)
        gate = torch.sigmoid(self.gate(torch.cat([text_view, guided_image], dim=-1)))
        gate = torch.where(has_picture, gate, 0)
        image_view = torch.where(has_picture, gate * guided_image, 0)
        return FusionOutput(torch.cat([text_view, image_view], dim=-1), text_view, image_view)


class CollaborationFusion(Fusion, part="collaboration"):
    """2M-NER's multimodal collaboration module (Wang et al. 2024): for each picture encoder the words attend
    over its output, residual, LayerNorm, no feed-forward; the results are concatenated and projected: F =
    Linear([H_1; H_2; ...]), width D.

    Of a pooled tower there is one vector v to attend over, whose weight is 1 whatever the word: its attention
    is W_o(W_v(W_p v)), three linear maps in a row, and is computed as the one linear map that they are.

    Ours, where the paper is silent: a word of a post without a picture is attended to by nothing, H =
    LayerNorm(words).
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        width, channels = widths.text, widths.channels
        self.width = width
        self.pooled = [tower.pooled for tower in config.vision_tower_configs()]
        self.readers = nn.ModuleList(
            nn.Linear(channel, width)
            if pooled
            else Attention(width, widths.heads, dropout=config.dropout, context_width=channel)
            for channel, pooled in zip(channels, self.pooled, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in channels)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(len(channels) * width, width)

    def forward(self, text: TextStates, regions: list[Regions]) -> FusionOutput:
        """Fuse words and the regions of each picture encoder."""
        words, views = text.words, []
        for reader, norm, pooled, picture in zip(self.readers, self.norms, self.pooled, regions, strict=True):
            has_picture = picture.has_picture[:, None, None]
            if pooled:
                attended = reader(picture.states.to(words.dtype))  # shape: (B, 1, D)
            else:
                # A row to attend over for posts without a picture, whose result is not used.
                padded = nn.functional.pad(picture.states.to(words.dtype), (0, 0, 1, 0))
                mask = torch.cat([~has_picture[:, 0], picture.mask], dim=1)
                attended = reader(words, padded, mask=mask)
            views.append(norm(words + torch.where(has_picture, self.dropout(attended), 0)))
        return FusionOutput(self.output(torch.cat(views, dim=-1)))


class GVATTFusion(Fusion, part="gvatt"):
    """GVATT's attention and modulation (Lu et al. 2018): the whole text attends over the picture, once a
    post.

    Q the text's sentence vector: P = tanh(W_t Q);  P_i = tanh(W_v v_i);  a = softmax_i(w . (P + P_i) + b);  c
    = sum_i a_i v_i. For each word h: b_v = sigmoid(W h + U c + b);  b_w = sigmoid(W' h + U' c + b');  m =
    tanh(W" h + U" c + b"); F = b_w * h + b_v * m. Without a picture F = h.

    The paper joins the matrix of the P_i and the vector P by a sum, read as one of each P_i and P. As
    printed, P is the same for each i and the softmax cancels it. The v_i are the picture encoder's regions
    after a linear layer to the words' width, ours.
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        width = self.width = widths.text
        self.region_projection = nn.Linear(widths.channels[0], width)
        self.text_query = nn.Linear(width, width, bias=False)
        self.region_key = nn.Linear(width, width, bias=False)
        self.region_score = nn.Linear(width, 1)
        self.word_gate, self.picture_gate, self.mixture = (nn.Linear(2 * width, width) for _ in range(3))

    def forward(self, text: TextStates, regions: list[Regions]) -> FusionOutput:
        """Fuse words and the regions of one picture encoder."""
        (picture,) = regions
        words, has_picture = text.words, picture.has_picture[:, None, None]
        visual = self.region_projection(picture.states.to(words.dtype))  # v, shape: (B, R, D)
        query = torch.tanh(self.text_query(text.sentence))[:, None]  # P, shape: (B, 1, D)
        scores = self.region_score(query + torch.tanh(self.region_key(visual)))  # shape: (B, R, 1)
        weights = masked_softmax(scores.mT, picture.mask[:, None])  # a, shape: (B, 1, R)
        seen = (weights.to(visual.dtype) @ visual).expand_as(words)  # c, shape: (B, W, D)
        both = torch.cat([words, seen], dim=-1)
        gate = torch.sigmoid(self.picture_gate(both))  # b_v, shape: (B, W, D)
        modulated = torch.sigmoid(self.word_gate(both)) * words + gate * torch.tanh(self.mixture(both))
        return FusionOutput(torch.where(has_picture, modulated.to(words.dtype), words))


class AdaCANFusion(Fusion, part="adacan"):
    """AdaCAN's co-attention, fusion gate and filtration gate (Zhang et al. 2018); [h; 0] without a picture.

    V = tanh(W_I v + b), of width D.
    Visual attention of word t: z_i = tanh([W_v V_i; W_h h_t + b]);  a = softmax_i(w . z_i + b);  u_t = sum_i
    a_i V_i. Textual attention: z'_j = tanh([W_x h_j; W_u u_t + b]);  b = softmax_j(w' . z'_j + b');  x_t =
    sum_j b_j h_j. Fusion: p = tanh(W_p u_t + b);  q = tanh(W_q x_t + b);  g = sigmoid(w_g . [p; q]);  m = g p
    + (1 - g) q. Filtration: s = sigmoid(w_s . [W_sh h_t; W_sm m + b]);  r = s tanh(W_r m + b);  F = [h_t; r].

    Both gates are scalars, as printed; the authors' program departs from the printed formulas. All maps are D
    wide, which the paper leaves open. As printed, a and b are the same for each word, see `CoAttention`; the
    filtration gate tells words apart. The maps start as `GlorotLinear`: the picture reaches F through four of
    them, one after the other.
    """

    def __init__(self, config: MMNERConfig, widths: Widths) -> None:
        super().__init__(config, widths)
        width, self.width = widths.text, 2 * widths.text
        self.region_projection = GlorotLinear(widths.channels[0], width)
        self.visual_attention, self.textual_attention = CoAttention(width), CoAttention(width)
        self.picture_map, self.text_map, self.filtered_map = (GlorotLinear(width, width) for _ in range(3))
        self.fusion_gate = GlorotLinear(2 * width, 1, bias=False)
        self.word_filter = GlorotLinear(width, width, bias=False)
        self.mixture_filter = GlorotLinear(width, width)
        self.filtration_gate = GlorotLinear(2 * width, 1, bias=False)

    def forward(self, text: TextStates, regions: list[Regions]) -> FusionOutput:
        """Fuse words and the regions of one picture encoder."""
        (picture,) = regions
        words, has_picture = text.words, picture.has_picture[:, None, None]
        visual = torch.tanh(self.region_projection(picture.states.to(words.dtype)))  # V, shape: (B, R, D)
        seen = self.visual_attention(words, visual, mask=picture.mask)  # u, shape: (B, W, D)
        read = self.textual_attention(seen, words, mask=text.mask)  # x, shape: (B, W, D)
        # p and q
        picture_view, text_view = torch.tanh(self.picture_map(seen)), torch.tanh(self.text_map(read))
        # g, shape: (B, W, 1)
        gate = torch.sigmoid(self.fusion_gate(torch.cat([picture_view, text_view], dim=-1)))
        mixed = gate * picture_view + (1 - gate) * text_view  # m
        filtered = torch.cat([self.word_filter(words), self.mixture_filter(mixed)], dim=-1)
        let_through = torch.sigmoid(self.filtration_gate(filtered))  # s, shape: (B, W, 1)
        # r
        kept = torch.where(has_picture, let_through * torch.tanh(self.filtered_map(mixed)), 0).to(words.dtype)
        return FusionOutput(torch.cat([words, kept], dim=-1))


class CoAttention(nn.Module):
    """AdaCAN's attention: ``a = softmax_k(w . tanh([W c_k; W' q + b]) + b')``, and the mean of the context
    under a.

    Since tanh works on each half alone, w . tanh([x; y]) is w_1 . tanh(x) + w_2 . tanh(y). So the query's
    half is the same for each k and the softmax cancels it: as printed, each query has the same attention.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.context_map, self.query_map = GlorotLinear(width, width, bias=False), GlorotLinear(width, width)
        self.context_score, self.query_score = GlorotLinear(width, 1, bias=False), GlorotLinear(width, 1)

    def forward(self, query: Tensor, context: Tensor, *, mask: Tensor) -> Tensor:
        """Attend from `query` (B, Q, D) over `context` (B, K, D), K >= 0, where `mask` (B, K) is True.

        Returns:
            (B, Q, D); 0 where `mask` is True nowhere. With more than `MOST_WORDS` in the context all queries
            share one row of weights: as many rows as queries would not fit into memory.
        """
        of_context = self.context_score(torch.tanh(self.context_map(context))).mT  # shape: (B, 1, K)
        is_shared = not torch.compiler.is_exporting() and context.shape[1] > MOST_WORDS
        scores = of_context if is_shared else self.query_score(torch.tanh(self.query_map(query))) + of_context
        weights = masked_softmax(scores, mask[:, None])
        read = weights.to(context.dtype) @ context
        return read.expand(-1, query.shape[1], -1)


class GlorotLinear(nn.Linear):
    """Linear, drawn as before tanh in Glorot and Bengio (2010): variance 2 / (inputs + outputs)."""

    def initialise(self) -> None:
        """Draw its weights, and set its bias to 0."""
        initialization.xavier_uniform_(self.weight)
        if self.bias is not None:
            initialization.zeros_(self.bias)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax in float32 over the last axis where `mask` is True, and 0 elsewhere: of no True, throughout."""
    scores = scores.float().masked_fill(~mask, torch.finfo(torch.float32).min)
    return torch.where(mask, scores.softmax(-1), 0)
