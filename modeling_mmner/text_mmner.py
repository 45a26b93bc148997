"""Text towers: sub-tokens in, one vector per word and one per text out.

Notation: B batch, K windows of a text, S sub-tokens of a window, W words, D width.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from .configuration_mmner import MMNERConfig
from .context_mmner import ModelPart, TextStates, masked_mean


class TextTower(ModelPart):
    """A text tower: `forward` takes what the processor makes of texts and returns `TextStates`.

    Attributes:
        encoder: the module that may come with pretrained weights.
        width: D.
        heads: attention heads that suit the width, the default of the fusion's.
    """

    encoder: Any
    width: int
    heads: int

    def __init__(self, config: MMNERConfig) -> None:
        super().__init__()


class TransformerTower(TextTower, part="transformer"):
    """Word states from a transformers encoder (BERT, RoBERTa, XLM-R, DeBERTa, ...), and a vector of the whole text.

    A word's state is that of its first sub-token. A text longer than the encoder's window comes in several windows, which the
    processor lays out; this is ours, the papers cut.

    Raises:
        ValueError: the encoder has no pooler, and the config wants one.
    """

    def __init__(self, config: MMNERConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.has_pooler = config.sentence_vector == "pooler"
        self.encoder = AutoModel.from_config(text, **({} if self.has_pooler else without_pooler(text)))
        if self.has_pooler and getattr(self.encoder, "pooler", None) is None:
            raise ValueError(f"sentence_vector: expected an encoder with a pooler, found none in {text.model_type}; use 'mean'")
        self.width, self.heads = text.hidden_size, text.num_attention_heads
        self.window = encoder_window(self.encoder)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *, word_starts: Tensor, word_mask: Tensor) -> TextStates:
        """States of the words and of the text.

        Args:
            input_ids: (B, K, S) each text's windows with their special tokens, padded on the right.
            attention_mask: (B, K, S), 1 for sub-tokens; a text with fewer than K windows has rows of 0.
            word_starts: (B, W) index in 0..K*S-1 of each word's first sub-token, in the windows laid side by side.
            word_mask: (B, W) bool.

        Raises:
            ValueError: a window is longer than the encoder can read.
        """
        if self.window is not None and input_ids.shape[-1] > self.window:
            raise ValueError(
                f"input_ids: expected windows of at most {self.window} sub-tokens, which is what the text encoder reads, found "
                f"{input_ids.shape[-1]}; give the processor this window: "
                f"AutoProcessor.from_pretrained(..., model_max_length={self.window}), and save it again"
            )
        exists = attention_mask.any(-1)  # shape: (B, K)
        if bool(exists.all()):
            encoded = self.encoder(input_ids=input_ids.flatten(0, 1), attention_mask=attention_mask.flatten(0, 1))
            states = encoded.last_hidden_state.unflatten(0, exists.shape)  # shape: (B, K, S, D)
        else:
            encoded = self.encoder(input_ids=input_ids[exists], attention_mask=attention_mask[exists])
            states = encoded.last_hidden_state.new_zeros(*input_ids.shape, self.width)
            states[exists] = encoded.last_hidden_state
        words = words_of(states.flatten(1, 2), word_starts=word_starts, word_mask=word_mask)
        if not self.has_pooler:
            return TextStates(words, word_mask, masked_mean(words, word_mask))
        first = exists.sum(1).cumsum(0) - exists.sum(1)  # of each text's windows among all that exist; shape: (B,)
        return TextStates(words, word_mask, encoded.pooler_output[first])


def words_of(states: Tensor, *, word_starts: Tensor, word_mask: Tensor) -> Tensor:
    """(B, K*S, D) -> (B, W, D): the state of each word's first sub-token, 0 where there is no word."""
    index = word_starts.masked_fill(~word_mask, 0)[..., None].expand(-1, -1, states.shape[-1])
    return states.gather(1, index).masked_fill(~word_mask[..., None], 0.0)


def encoder_window(encoder: nn.Module) -> int | None:
    """Longest input of an encoder in sub-tokens; None where positions are relative or rotary and the config sets no limit.

    RoBERTa's kind counts positions from `padding_idx` + 1, so that 514 positions serve 512 sub-tokens.
    """
    limit: int | None = getattr(encoder.config, "max_position_embeddings", None)
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return limit if limit is not None and limit > 0 else None


def window_of(config: PreTrainedConfig) -> int | None:
    """`encoder_window` of the encoder that a config describes; no weights are made for it."""
    with torch.device("meta"):
        return encoder_window(AutoModel.from_config(config))


def without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """The argument that leaves out BERT's pooler, for encoders that know it, where the pooled output is not read."""
    mapped: Any = MODEL_MAPPING[type(config)]  # a class, or several to choose from (Funnel)
    classes = mapped if isinstance(mapped, tuple) else (mapped,)
    knows = all("add_pooling_layer" in inspect.signature(encoder_class).parameters for encoder_class in classes)
    return {"add_pooling_layer": False} if knows else {}
