"""The text tower: any transformers encoder in, one vector per word and one per text out.

Notation: B batch, S sub-tokens, W words, D width.
"""

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from .configuration_mmner import SentenceVector


class TextStates(NamedTuple):
    """What the text tower gives: `words` (B, W, D), 0 where there is no word, and `sentence` (B, D)."""

    words: Tensor
    sentence: Tensor


class TextTower(nn.Module):
    """Word states from a transformers encoder (BERT, RoBERTa, XLM-R, DeBERTa, ...), and a vector of the whole text.

    A word's state is that of its first sub-token. Texts longer than the encoder's window are read in windows that overlap
    by half, and each word takes its state from the window in which it has most context; this is ours, the papers cut.

    Args:
        config: the encoder's config.
        window: longest input in sub-tokens, special tokens included; None asks the encoder.
        prefix_tokens, suffix_tokens: how many special tokens open and close a text.
        sentence_vector: ``mean`` of the word states; or ``pooler``, the encoder's pooled output, of a text in several windows
            that of the first.

    Raises:
        ValueError: the window leaves no room for at least two sub-tokens; or the encoder has no pooler and one is wanted.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        *,
        window: int | None = None,
        prefix_tokens: int = 1,
        suffix_tokens: int = 1,
        sentence_vector: SentenceVector = "mean",
    ) -> None:
        super().__init__()
        self.has_pooler = sentence_vector == "pooler"
        self.encoder = AutoModel.from_config(config, **({} if self.has_pooler else without_pooler(config)))
        if self.has_pooler and getattr(self.encoder, "pooler", None) is None:
            raise ValueError(f"sentence_vector: expected an encoder with a pooler, found none in {config.model_type}; use 'mean'")
        self.width: int = config.hidden_size
        self.prefix_tokens, self.suffix_tokens = prefix_tokens, suffix_tokens
        longest = encoder_window(self.encoder)
        self.window = min((size for size in (window, longest) if size is not None), default=None)
        if self.window is not None and self.window < prefix_tokens + suffix_tokens + 2:
            raise ValueError(
                f"text window: expected room for {prefix_tokens + suffix_tokens} special tokens and at least 2 more, "
                f"found {self.window}"
            )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *, word_starts: Tensor, word_mask: Tensor) -> TextStates:
        """States of the words and of the text.

        Args:
            input_ids: (B, S) the whole text with its special tokens, padded on the right.
            attention_mask: (B, S), 1 for the text's sub-tokens.
            word_starts: (B, W) index in 0..S-1 of each word's first sub-token.
            word_mask: (B, W) bool.

        Returns:
            words (B, W, D), 0 where `word_mask` is False, and sentence (B, D).
        """
        if self.window is None or input_ids.shape[1] <= self.window:
            outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
            states, pooled = outputs.last_hidden_state, outputs.get("pooler_output")
        else:
            states, pooled = self._windowed_states(input_ids, attention_mask)
        index = word_starts.masked_fill(~word_mask, 0)[..., None].expand(-1, -1, states.shape[-1])
        words = states.gather(1, index).masked_fill(~word_mask[..., None], 0.0)
        return TextStates(words, pooled if self.has_pooler else mean_over_words(words, word_mask))

    def _windowed_states(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """States (B, S, D) of texts of which some are longer than the window, and the pooled output (B, D) of their first."""
        lengths = attention_mask.sum(1).tolist()
        rows, positions, source = self._plan(lengths, input_ids.shape[1])
        positions = positions.to(input_ids.device)
        present = positions >= 0
        rows, index = rows.to(input_ids.device), positions.clamp(min=0)
        pad = getattr(self.encoder.config, "pad_token_id", None) or 0
        windows = torch.where(present, input_ids[rows[:, None], index], pad)
        outputs = self.encoder(input_ids=windows, attention_mask=present.to(attention_mask.dtype))
        pooled = outputs.get("pooler_output")
        if pooled is not None:
            pooled = pooled[torch.searchsorted(rows, torch.arange(len(lengths), device=rows.device))]
        return outputs.last_hidden_state.flatten(0, 1)[source.to(input_ids.device)], pooled

    def _plan(self, lengths: list[int], width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Which text and which positions each window reads, and where each sub-token's state is then found.

        Returns:
            rows (N,): text of each window. positions (N, window): sub-token read at each place, -1 for padding.
            source (B, width): index into the N * window states, for each sub-token of each text.
        """
        assert self.window is not None
        rows: list[int] = []
        positions: list[Tensor] = []
        source = torch.zeros(len(lengths), width, dtype=torch.long)
        for row, length in enumerate(lengths):
            best = torch.full((length,), -1)
            whole = length - self.prefix_tokens - self.suffix_tokens
            for first, last in window_bounds(whole, self._capacity()):
                content = torch.arange(first, last) + self.prefix_tokens
                opening, closing = torch.arange(self.prefix_tokens), torch.arange(length - self.suffix_tokens, length)
                read = torch.cat([opening, content, closing])
                # A text's own border costs no context, a window's does.
                left = torch.arange(last - first) + (length if first == 0 else 0)
                right = torch.arange(last - first).flip(0) + (length if last == whole else 0)
                context = torch.minimum(left, right)
                better = context > best[content]
                places = len(rows) * self.window + self.prefix_tokens + torch.arange(len(content))
                source[row, content[better]] = places[better]
                best[content[better]] = context[better]
                rows.append(row)
                positions.append(nn.functional.pad(read, (0, self.window - len(read)), value=-1))
        return torch.tensor(rows), torch.stack(positions), source

    def _capacity(self) -> int:
        assert self.window is not None
        return self.window - self.prefix_tokens - self.suffix_tokens


def mean_over_words(states: Tensor, word_mask: Tensor) -> Tensor:
    """(B, W, D) -> (B, D): mean over the words, 0 for an empty text."""
    mask = word_mask[..., None].to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1)


def window_bounds(length: int, capacity: int) -> list[tuple[int, int]]:
    """Begin and end of the windows over `length` sub-tokens, at most `capacity` each, overlapping by about half."""
    if length <= capacity:
        return [(0, length)]
    stride = max(1, capacity // 2)
    firsts = list(range(0, length - capacity, stride)) + [length - capacity]
    return [(first, first + capacity) for first in firsts]


def encoder_window(encoder: nn.Module) -> int | None:
    """Longest input of an encoder in sub-tokens; None where positions are relative or rotary and the config sets no limit.

    RoBERTa's kind counts positions from `padding_idx` + 1, so that 514 positions serve 512 sub-tokens.
    """
    limit: int | None = getattr(encoder.config, "max_position_embeddings", None)
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return limit if limit is not None and limit > 0 else None


def without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """The argument that leaves out BERT's pooler, for encoders that know it, where the pooled output is not read."""
    mapped: Any = MODEL_MAPPING[type(config)]  # a class, or several to choose from (Funnel)
    classes = mapped if isinstance(mapped, tuple) else (mapped,)
    knows = all("add_pooling_layer" in inspect.signature(encoder_class).parameters for encoder_class in classes)
    return {"add_pooling_layer": False} if knows else {}
