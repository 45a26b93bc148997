"""Text towers: sub-tokens or words in, one vector per word and one per text out.

Notation: B batch, K windows of a text, S sub-tokens of a window, W words, Y bytes of a word, D width.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoModel, PreTrainedConfig, initialization
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from .configuration_mmner import MMNERConfig
from .context_mmner import ModelPart, TextStates, in_groups, masked_mean
from .parts_mmner import needs_of
from .windows_mmner import MOST_SCORES

CHARACTER_IDS = 257  # the bytes, and 0 for padding
MOST_TOKENS = 65536
"""Sub-tokens with their padding that an encoder reads at a time: 128 windows of 512."""


class TextTower(ModelPart):
    """A text tower: `forward` takes what the processor makes of texts and returns `TextStates`.

    Attributes:
        encoder: the module whose embeddings are the model's, and which may come with pretrained weights.
        width: D.
        heads: attention heads that suit the width, the default of the fusion's.
    """

    encoder: Any
    width: int
    heads: int


class TransformerTower(TextTower, part="transformer"):
    """Word states from a transformers encoder (BERT, RoBERTa, XLM-R, ...), and a vector of the whole text.

    A word's state is that of its first sub-token. A text longer than the encoder's window comes in several
    windows, which the processor lays out; this is ours, the papers cut.

    Raises:
        ValueError: the encoder has no pooler, and the config wants one.
    """

    def __init__(self, config: MMNERConfig) -> None:
        super().__init__(config)
        text = config.text_config
        assert text is not None  # the config sees to it
        self.has_pooler = config.sentence_vector == "pooler"
        self.encoder = AutoModel.from_config(text, **({} if self.has_pooler else without_pooler(text)))
        if self.has_pooler and getattr(self.encoder, "pooler", None) is None:
            found = f"none in {text.model_type}; use 'mean'"
            raise ValueError(f"sentence_vector: expected an encoder with a pooler, found {found}")
        self.width, self.heads = text.hidden_size, text.num_attention_heads
        self.window = encoder_window(self.encoder)
        types = getattr(text, "type_vocab_size", None) or 0
        self.has_types = types > 1 and "token_type_ids" in inspect.signature(self.encoder.forward).parameters

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        word_starts: Tensor,
        word_mask: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> TextStates:
        """States of the words and of the text. A context is read with it, and none of it is a word.

        Args:
            input_ids: (B, K, S) each text's windows with their special tokens, padded on the right.
            attention_mask: (B, K, S), 1 for sub-tokens; a text with fewer than K windows has rows of 0.
            word_starts: (B, W) index in 0..K*S-1 of each word's first sub-token, windows side by side.
            word_mask: (B, W) bool.
            token_type_ids: (B, K, S) 1 for sub-tokens of the context; for encoders that know types.

        Raises:
            ValueError: a window is longer than the encoder can read.
        """
        if self.window is not None and input_ids.shape[-1] > self.window:
            raise ValueError(
                f"input_ids: expected windows of at most {self.window} sub-tokens, which is what the text"
                f" encoder reads, found {input_ids.shape[-1]}; give the processor this window:"
                f" AutoProcessor.from_pretrained(..., model_max_length={self.window}), and save it again"
            )
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and self.has_types:
            inputs["token_type_ids"] = token_type_ids
        exists = attention_mask.any(-1)  # shape: (B, K)
        encoded, pooled = self._encoded({name: tensor[exists] for name, tensor in inputs.items()})
        states = encoded.new_zeros(*input_ids.shape, self.width)
        states[exists] = encoded
        words = words_of(states.flatten(1, 2), word_starts=word_starts, word_mask=word_mask)
        if pooled is None:
            return TextStates(words, word_mask, masked_mean(words, word_mask))
        # The first of each text's windows among all that exist; shape: (B,)
        first = exists.sum(1).cumsum(0) - exists.sum(1)
        return TextStates(words, word_mask, pooled[first])

    def _encoded(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The states (V, S, D) of V windows, and their pooled vectors (V, D) where there is a pooler.

        The windows are read in groups where all at once would not fit into memory: those of a very long text,
        and in training, when the scores of attention are kept for the backward pass, those of long posts.
        """
        length = inputs["input_ids"].shape[1]
        most = min(MOST_TOKENS // length, MOST_SCORES // length**2 if self.training else MOST_TOKENS)

        def states(*part: Tensor) -> tuple[Tensor, Tensor | None]:
            read = self.encoder(**dict(zip(inputs, part, strict=True)))
            return read.last_hidden_state, read.pooler_output if self.has_pooler else None

        groups = in_groups(states, *inputs.values(), most=most, of=self.encoder)
        encoded, pooled = zip(*groups, strict=True)
        return torch.cat(encoded), torch.cat(pooled) if self.has_pooler else None


class Embeddings(nn.Embedding):
    """Embeddings that start as those of Ma and Hovy (2016): uniform, of variance 1 / width."""

    def initialise(self) -> None:
        """Draw them."""
        limit = (3 / self.embedding_dim) ** 0.5
        initialization.uniform_(self.weight, -limit, limit)


class BiLSTM(nn.Module):
    """A bidirectional LSTM over sequences of different lengths, each read as if it were alone.

    Args:
        width: of the inputs.
        hidden: of the states, each way.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States of all steps, and the last ones.

        Args:
            inputs: (N, T, width), T > 0.
            mask: (N, T) bool, steps first and padding after.

        Returns:
            (N, T, 2 * hidden), 0 where `mask` is False; and (N, 2 * hidden) the last state forwards and the
            last backwards, 0 of an empty sequence.
        """
        exists = mask.any(1)
        states = inputs.new_zeros(*mask.shape, 2 * self.lstm.hidden_size)
        last = inputs.new_zeros(len(mask), 2 * self.lstm.hidden_size)
        if bool(exists.any()):
            lengths = mask[exists].sum(1).cpu()
            packed = pack_padded_sequence(inputs[exists], lengths, batch_first=True, enforce_sorted=False)
            packed_states, (hidden, _) = self.lstm(packed)
            padded, _ = pad_packed_sequence(packed_states, batch_first=True, total_length=mask.shape[1])
            states[exists] = padded.to(states.dtype)
            last[exists] = hidden.transpose(0, 1).flatten(1).to(last.dtype)
        return states, last


class WordTower(TextTower, part="bilstm"):
    """Word embeddings -> dropout -> BiLSTM (Huang et al. 2015); dropout after it is the tagging head's.

    In training a rare word is read as the unknown word with probability 0.5, which is how the unknown word
    learns its vector (Lample et al. 2016). The vector of a text is the last state forwards and the last
    backwards of a second BiLSTM over the same inputs (Lu et al. 2018), made where a part reads it; elsewhere
    it is the mean of the word states.
    """

    rare_dropout = 0.5

    def __init__(self, config: MMNERConfig) -> None:
        super().__init__(config)
        vocabulary: dict[str, int] = config.word_vocabulary or {}
        self.unknown, self.rare = vocabulary["unknown"], vocabulary["rare"]
        self.encoder = Embeddings(vocabulary["size"], config.word_width)
        self.characters = self.character_part(config)
        self.dropout = nn.Dropout(config.dropout)
        width = config.word_width + (0 if self.characters is None else self.characters.width)
        self.bilstm = BiLSTM(width, config.word_lstm_width // 2)
        is_read = "sentence" in needs_of(config.fusion, config.objectives)
        self.sentence = BiLSTM(width, config.word_lstm_width // 2) if is_read else None
        self.width = config.word_lstm_width
        self.heads = max(heads for heads in range(1, 9) if self.width % heads == 0)

    def character_part(self, config: MMNERConfig) -> "CharacterCNN | CharacterBiLSTM | None":
        """What reads the characters of each word."""
        return None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        word_starts: Tensor,
        word_mask: Tensor,
        character_ids: Tensor | None = None,
    ) -> TextStates:
        """As `TransformerTower.forward`, each word a sub-token.

        Args:
            character_ids: (B, W, Y) the bytes of each word, plus 1, padded with 0.
        """
        ids = input_ids.flatten(1).gather(1, word_starts.masked_fill(~word_mask, 0))
        return self.read_words(ids, word_mask=word_mask, character_ids=character_ids)

    def read_words(self, ids: Tensor, *, word_mask: Tensor, character_ids: Tensor | None) -> TextStates:
        """As `forward`, of the words' ids (B, W)."""
        if self.training:
            forgotten = (ids >= self.rare) & (torch.rand(ids.shape, device=ids.device) < self.rare_dropout)
            ids = ids.masked_fill(forgotten, self.unknown)
        inputs = self.encoder(ids)
        if self.characters is not None and character_ids is not None:
            spelt = self.characters(character_ids.flatten(0, 1)).unflatten(0, ids.shape)
            inputs = torch.cat([inputs, spelt.to(inputs.dtype)], dim=-1)
        inputs = self.dropout(inputs).masked_fill(~word_mask[..., None], 0.0)
        words, _ = self.bilstm(inputs, word_mask)
        if self.sentence is None:
            return TextStates(words, word_mask, masked_mean(words, word_mask))
        return TextStates(words, word_mask, self.sentence(inputs, word_mask)[1])


class CNNWordTower(WordTower, part="cnn-bilstm"):
    """`WordTower` whose word embeddings are joined by a character CNN (Ma and Hovy 2016)."""

    def character_part(self, config: MMNERConfig) -> "CharacterCNN":
        return CharacterCNN(config.character_cnn_width, config.character_filters, dropout=config.dropout)


class HierarchicalWordTower(WordTower, part="hbilstm"):
    """`WordTower` whose word embeddings are joined by a character BiLSTM (Lample et al. 2016)."""

    def character_part(self, config: MMNERConfig) -> "CharacterBiLSTM":
        return CharacterBiLSTM(config.character_lstm_width)


class CharacterCNN(nn.Module):
    """Character embeddings -> dropout -> convolution over three -> maximum over the word (Ma and Hovy 2016).

    A character is a byte of UTF-8.
    """

    def __init__(self, width: int, filters: int, *, dropout: float) -> None:
        super().__init__()
        self.width = filters
        self.embeddings = Embeddings(CHARACTER_IDS, width)
        self.dropout = nn.Dropout(dropout)
        self.convolution = nn.Conv1d(width, filters, 3, padding=1)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, Y) ids, 0 after a word's end -> (N, filters); 0 of a word without characters."""
        mask = (ids > 0)[:, None]  # shape: (N, 1, Y)
        embedded = self.dropout(self.embeddings(ids)).mT.masked_fill(~mask, 0.0)
        filtered = self.convolution(embedded)  # shape: (N, filters, Y)
        greatest = filtered.masked_fill(~mask, torch.finfo(filtered.dtype).min).amax(-1)
        return greatest.masked_fill(~mask.any(-1), 0.0)


class CharacterBiLSTM(nn.Module):
    """Character embeddings -> BiLSTM: the last state of each direction (Lample et al. 2016).

    A character is a byte of UTF-8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 2 * width
        self.embeddings = Embeddings(CHARACTER_IDS, width)
        self.bilstm = BiLSTM(width, width)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, Y) ids, 0 after a word's end -> (N, 2 * width); 0 of a word without characters."""
        _, last = self.bilstm(self.embeddings(ids), ids > 0)
        return last


def words_of(states: Tensor, *, word_starts: Tensor, word_mask: Tensor) -> Tensor:
    """(B, K*S, D) -> (B, W, D): the state of each word's first sub-token, 0 where there is no word."""
    index = word_starts.masked_fill(~word_mask, 0)[..., None].expand(-1, -1, states.shape[-1])
    return states.gather(1, index).masked_fill(~word_mask[..., None], 0.0)


def encoder_window(encoder: nn.Module) -> int | None:
    """Longest input of an encoder in sub-tokens; None where its config sets no limit.

    RoBERTa's kind counts positions from `padding_idx` + 1, so that 514 positions serve 512 sub-tokens.
    """
    limit: int | None = getattr(encoder.config, "max_position_embeddings", None)
    for name, module in encoder.named_modules():
        is_table = name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        if is_table and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return limit if limit is not None and limit > 0 else None


def window_of(config: PreTrainedConfig) -> int | None:
    """`encoder_window` of the encoder that a config describes; no weights are made for it."""
    with torch.device("meta"):
        return encoder_window(AutoModel.from_config(config))


def without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """The argument that leaves out the pooler, whose output is not read, of encoders that know it."""
    mapped: Any = MODEL_MAPPING[type(config)]  # a class, or several to choose from (Funnel)
    classes = mapped if isinstance(mapped, tuple) else (mapped,)
    knows = all("add_pooling_layer" in inspect.signature(one).parameters for one in classes)
    return {"add_pooling_layer": False} if knows else {}
