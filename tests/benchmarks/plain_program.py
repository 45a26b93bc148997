"""A plain PyTorch program for UMT, in the way in which such programs are released with papers.

It is written anew from the equations of Yu et al. (2020), and works as the program released with them does:
all posts are made tensors before training, each padded to 128 sub-tokens; both encoders run at every step, in
float32; attention is written out; the CRFs, pytorch-crf's, run over sub-tokens, and so have labels for [CLS],
[SEP] and further pieces of a word, too. Where it differs it is the faster for it: today's text encoder, the
picture encoder in evaluation mode, PyTorch's own AdamW.

Notation: B batch, S sub-tokens (128), R regions, D width, L labels, U boundary labels.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchcrf import CRF

from modeling_mmner import MMNERProcessor

LENGTH = 128
BOUNDARY_WEIGHT = BOUNDARY_SHARE = 0.5


class Attention(nn.Module):
    """Multi-head attention over a context, written out."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, Q, D) over (B, K, D) where `mask` (B, K) is 1."""
        query, key, value = (
            part.view(*part.shape[:2], self.heads, -1).transpose(1, 2)
            for part in (self.query(states), self.key(context), self.value(context))
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        scores = scores + (1.0 - mask[:, None, None, :].float()) * -10000.0
        mixed = self.dropout(scores.softmax(-1)) @ value
        return self.output(mixed.transpose(1, 2).reshape(states.shape))


class Layer(nn.Module):
    """A BERT layer whose keys and values may come from another modality."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, Q, D), from a context (B, K, D) where `mask` (B, K) is 1."""
        states = self.attention_norm(states + self.dropout(self.attention(states, context, mask)))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states)))


class PlainUMT(nn.Module):
    """UMT-BERT-CRF.

    Args:
        text_encoder: a transformers encoder.
        picture_encoder: a timm model; frozen.
        labels: the BIO label names in the order of the corpus.
    """

    def __init__(
        self, text_encoder: Any, picture_encoder: Any, labels: Sequence[str], *, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.labels = ["PAD", *labels, "X", "[CLS]", "[SEP]"]
        self.boundary_labels = ["PAD", "O", "B", "I", "X", "[CLS]", "[SEP]"]
        self.text_encoder, self.picture_encoder = text_encoder, picture_encoder.requires_grad_(False).eval()
        width, heads = text_encoder.config.hidden_size, text_encoder.config.num_attention_heads
        self.region_projection = nn.Linear(picture_encoder.num_features, width)
        self.text_layer, self.boundary_layer = (Layer(width, heads, dropout) for _ in range(2))
        self.image_guided_by_text, self.text_from_image, self.text_guided_image = (
            Layer(width, heads, dropout) for _ in range(3)
        )
        self.gate = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * width, len(self.labels))
        self.boundary_classifier = nn.Linear(width, len(self.boundary_labels))
        self.crf = CRF(len(self.labels), batch_first=True)
        self.boundary_crf = CRF(len(self.boundary_labels), batch_first=True)
        untyped = [label.partition("-")[0] for label in self.labels]
        names = self.boundary_labels
        shares = [[(name == other) / untyped.count(name) for other in untyped] for name in names]
        self.register_buffer("conversion", torch.tensor(shares))  # shape: (U, L)

    def train(self, mode: bool = True) -> "PlainUMT":
        """As PyTorch's, but for the frozen encoder."""
        super().train(mode)
        self.picture_encoder.eval()
        return self

    def emissions(self, input_ids: Tensor, mask: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, L) and (B, S, U) of texts and mask (B, S) and normalised pictures (B, 3, H, W)."""
        with torch.no_grad():
            features = self.picture_encoder.forward_features(pictures)
        regions = features.flatten(2).transpose(1, 2)  # shape: (B, R, C)
        states = self.dropout(self.text_encoder(input_ids, attention_mask=mask).last_hidden_state)
        boundary = self.boundary_classifier(self.boundary_layer(states, states, mask))
        main = self.classifier(self.fused(states, regions, mask))
        return BOUNDARY_SHARE * (boundary @ self.conversion) + (1 - BOUNDARY_SHARE) * main, boundary

    def fused(self, states: Tensor, regions: Tensor, mask: Tensor) -> Tensor:
        """(B, S, 2 * D) of states (B, S, D) and regions (B, R, C)."""
        visual = self.region_projection(regions)
        everywhere = torch.ones(visual.shape[:2])
        words = self.text_layer(states, states, mask)
        image_guided = self.image_guided_by_text(visual, words, mask)
        text_view = self.text_from_image(words, image_guided, everywhere)
        guided_image = self.text_guided_image(words, visual, everywhere)
        gate = torch.sigmoid(self.gate(torch.cat([text_view, guided_image], dim=-1)))
        return torch.cat([text_view, gate * guided_image], dim=-1)

    def loss(
        self, emissions: Tensor, boundary: Tensor, labels: Tensor, boundary_labels: Tensor, mask: Tensor
    ) -> Tensor:
        """Mean over the texts of both CRFs' negative log-likelihoods, weighted."""
        options: dict[str, Any] = {"mask": mask.bool(), "reduction": "mean"}
        main = -self.crf(emissions, labels, **options)
        return main + BOUNDARY_WEIGHT * -self.boundary_crf(boundary, boundary_labels, **options)

    def tags(self, emissions: Tensor, mask: Tensor, labels: Tensor) -> list[list[str]]:
        """The tags of each text's words; `labels` (B, S) tell which sub-tokens are a word's first."""
        decoded = self.crf.decode(emissions, mask=mask.bool())
        others = [self.labels.index(name) for name in ("PAD", "X", "[CLS]", "[SEP]")]
        return [
            [self.labels[tag] for tag, label in zip(text, given, strict=False) if label not in others]
            for text, given in zip(decoded, labels.tolist(), strict=True)
        ]


def make_tensors(
    model: PlainUMT, posts: Sequence[dict[str, Any]], processor: MMNERProcessor, *, tower: Any
) -> TensorDataset:
    """All posts as tensors: sub-tokens, mask, pictures, labels, boundary labels.

    Args:
        processor: has the tokenizer, the labels and the reading of pictures.
        tower: tells size and normalisation of the pictures.
    """
    words = [post["tokens"] for post in posts]
    sizes: Any = {"padding": "max_length", "truncation": True, "max_length": LENGTH, "return_tensors": "pt"}
    texts = processor.tokenizer(words, is_split_into_words=True, **sizes)
    names = [
        _labels(texts.word_ids(row), [processor.labels[tag] for tag in post["ner_tags"]])
        for row, post in enumerate(posts)
    ]
    pixels = processor(words, images=[post["image"] for post in posts])["pixel_values"][:, 0].float() / 255
    return TensorDataset(
        texts["input_ids"],
        texts["attention_mask"],
        (pixels - tower.mean) / tower.std,
        torch.tensor([[model.labels.index(name) for name in row] for row in names]),
        torch.tensor([[model.boundary_labels.index(one.partition("-")[0]) for one in row] for row in names]),
    )


def _labels(word_ids: list[int | None], tags: list[str]) -> list[str]:
    """The label of each sub-token of a text."""
    words = [word for word in word_ids if word is not None]
    pieces = ["X" if word == before else tags[word] for before, word in pairwise([None, *words])]
    return ["[CLS]", *pieces, "[SEP]", *["PAD"] * (len(word_ids) - len(words) - 2)]


class PlainProgram:
    """Training and extraction with `PlainUMT`, of `make_tensors`; ours goes on from tags to entities."""

    def __init__(
        self, model: PlainUMT, posts: TensorDataset, *, batch_size: int, learning_rate: float = 5e-5
    ) -> None:
        self.model = model
        self.shuffled = DataLoader(posts, batch_size, shuffle=True)
        self.in_order = DataLoader(posts, batch_size)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01)

    def epoch(self) -> float:
        """Train on all posts; the mean loss."""
        self.model.train()
        losses = []
        for input_ids, mask, pictures, labels, boundary_labels in self.shuffled:
            emissions, boundary = self.model.emissions(input_ids, mask, pictures)
            loss = self.model.loss(emissions, boundary, labels, boundary_labels, mask)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    @torch.no_grad()
    def extract(self) -> list[list[str]]:
        """The tags of each post's words."""
        self.model.eval()
        found = []
        for input_ids, mask, pictures, labels, _ in self.in_order:
            emissions, _ = self.model.emissions(input_ids, mask, pictures)
            found += self.model.tags(emissions, mask, labels)
        return found
