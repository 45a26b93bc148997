"""Runs a model that `export-onnx` has made: emissions by onnxruntime, tags and span scores in numpy.

A copy of this file lies in each exported folder, beside the graph `model.onnx`, and needs neither torch nor
the package:

    from onnx_decoding import load

    model = load("folder")
    outputs = model(**processor(texts, images=pictures, return_tensors="np"))
    entities = processor.post_process_entities(outputs, text=texts)

The graph itself takes what the processor returns, but that it reads the windows of all texts one after the
other: see `existing_windows`.

Notation: B texts, W words, L labels, K windows of a text, S sub-tokens of a window, V windows of all texts, N
pictures a post.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IGNORED = -100
WINDOWS = ("input_ids", "attention_mask", "token_type_ids")


class CRF:
    """The decoding half of the model's CRF; see `crf_mmner.CRF`, whose results these are.

    Maxima run in float32, as there, so that equal emissions have equal tags. Sums run in float64: in float32
    the scores of long texts lose their digits.

    Args:
        labels: the L label names in id order; typed (``B-PER``) or bare (``B``).
        start: (L,) score of each label at the first word.
        transitions: (L, L) score of each label (column) after each other (row).
        end: (L,) score of each label at the last word.

    Raises:
        ValueError: of its methods: the mask is not boolean, or has holes.
    """

    def __init__(self, labels: Sequence[str], *, start: Any, transitions: Any, end: Any) -> None:
        self.labels = list(labels)
        self._inside = np.array([label.startswith("I") for label in labels])
        self._begins = np.array([label.startswith("B") for label in labels])
        allowed = [[_may_follow(previous, label) for label in labels] for previous in labels]
        self._start = np.where(self._inside, -np.inf, np.asarray(start, np.float32))
        self._transitions = np.where(allowed, np.asarray(transitions, np.float32), -np.inf)
        self._end = np.asarray(end, np.float32)

    def decode_batch(self, emissions: np.ndarray, *, mask: np.ndarray) -> np.ndarray:
        """The best BIO-legal tags of each text (Viterbi).

        Args:
            emissions: (B, W, L).
            mask: (B, W) bool, True for the words, without holes. A row of False is an empty text.

        Returns:
            (B, W) int64 label ids, -100 where `mask` is False.
        """
        emissions = self._of_words(emissions, mask)
        scores = self._forward_scores(emissions, mask, np.maximum)
        tags = [(scores[:, -1] + self._end).argmax(1)]  # shape: (B,)
        for word in reversed(range(1, mask.shape[1])):
            moves = scores[:, word - 1] + self._transitions.T[tags[-1]]  # shape: (B, L)
            tags.append(np.where(mask[:, word], moves.argmax(1), tags[-1]))
        return np.where(mask, np.stack(tags[::-1], axis=1), IGNORED)

    def span_scores(self, emissions: np.ndarray, tags: np.ndarray, *, mask: np.ndarray) -> np.ndarray:
        """Posterior of each span of `tags`: exactly its tags and no continuation after it.

        Args:
            emissions: (B, W, L).
            tags: (B, W) BIO-legal label ids, as from `decode_batch`.
            mask: (B, W) bool without holes.

        Returns:
            (B, W) float32 in 0..1 at the first word of each span, 0 elsewhere.
        """
        emissions = self._of_words(emissions, mask).astype(np.float64)
        forward = self._forward_scores(emissions, mask, np.logaddexp)
        log_partition = np.logaddexp.reduce(forward[:, -1] + self._end, axis=1)
        leaving = np.where(self._inside, -np.inf, self._transitions)  # to labels that continue nothing
        texts, tags = np.arange(len(tags)), np.where(mask, tags, 0)
        is_last = mask & ~np.pad(mask[:, 1:], ((0, 0), (0, 1)))
        # Log sum over all that may follow a label.
        backward = np.broadcast_to(self._end, emissions[:, 0].shape)
        rests = [self._end[tags[:, -1]]]  # the same of each word, its span's tags fixed; the last word first
        for word in reversed(range(mask.shape[1] - 1)):
            tag, following = tags[:, word], tags[:, word + 1]
            after = emissions[:, word + 1] + backward  # shape: (B, L)
            closes = np.logaddexp.reduce(leaving[tag] + after, axis=1)
            continues = self._transitions[tag, following] + emissions[texts, word + 1, following] + rests[-1]
            rest = np.where(self._inside[following], continues, closes)
            rests.append(np.where(is_last[:, word], self._end[tag], rest))
            step = np.logaddexp.reduce(self._transitions + after[:, None], axis=2)
            backward = np.where(mask[:, word + 1, None], step, backward)
        own = np.take_along_axis(forward, tags[..., None], axis=2)[..., 0]
        scores = own + np.stack(rests[::-1], axis=1) - log_partition[:, None]
        return np.where(mask & self._begins[tags], np.exp(np.minimum(scores, 0)), 0).astype(np.float32)

    def _forward_scores(self, emissions: np.ndarray, mask: np.ndarray, over_paths: np.ufunc) -> np.ndarray:
        """(B, W, L): maximum or log sum over the paths to a label at a word; past the end the last word's."""
        scores = [self._start + emissions[:, 0]]
        for word in range(1, emissions.shape[1]):
            moves = over_paths.reduce(scores[-1][:, :, None] + self._transitions, axis=1)
            scores.append(np.where(mask[:, word, None], moves + emissions[:, word], scores[-1]))
        return np.stack(scores, axis=1)

    @staticmethod
    def _of_words(emissions: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Emissions in float32, 0 where there is no word."""
        if mask.dtype != bool or (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ValueError(f"mask: expected bool, each text's words first, then the padding, got {mask!r}")
        return np.where(mask[..., None], emissions, 0).astype(np.float32)


def existing_windows(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The windows of a batch without the empty ones, as the graph reads them.

    Args:
        inputs: input_ids, attention_mask and, of models that read contexts, token_type_ids, (B, K, S);
            word_starts (B, W), the index in 0..K*S-1 in each text's windows laid side by side.

    Returns:
        the windows as (V, S); word_windows in 0..V-1 and word_starts in 0..S-1, (B, W), the row and column of
        each word's first sub-token.
    """
    exists = inputs["attention_mask"].any(-1)  # shape: (B, K)
    numbers = exists.cumsum().reshape(exists.shape) - 1
    columns, places = np.divmod(inputs["word_starts"], inputs["attention_mask"].shape[-1])
    rows = np.take_along_axis(numbers, columns, axis=1)
    starts = {"word_windows": rows.astype(np.int64), "word_starts": places.astype(np.int64)}
    return {name: inputs[name][exists] for name in WINDOWS if name in inputs} | starts


@dataclass(frozen=True)
class ExportedModel:
    """An exported model, ready to run: onnxruntime's session of its graph, and its CRF."""

    session: Any
    crf: CRF
    device = "cpu"  # where its inputs lie, which a model in torch says, too

    def to(self, device: str = device) -> "ExportedModel":
        """Itself, which stays on the CPU, as it says in transformers' pipelines."""
        return self

    eval = to

    def __call__(self, **inputs: Any) -> dict[str, np.ndarray]:
        """Emissions, tags and span scores, as the model's output in torch.

        Args:
            inputs: arrays, or tensors on the CPU, as the processor makes them. ``input_ids`` and
                ``attention_mask`` (B, K, S) are the windows of each text, and so is ``token_type_ids`` for
                models that read contexts. ``word_starts`` (B, W) is the index in 0..K*S-1 of each word's
                first sub-token, ``word_mask`` (B, W) bool has words first and padding after, W > 0.
                ``pixel_values`` (B, N, 3, H, W) uint8 and ``image_mask`` (B, N) bool: N may be 0, and models
                of text alone pass over them. ``character_ids`` (B, W, Y) is for those that read characters.

        Returns:
            ``logits`` (B, W, L) float32, ``tags`` (B, W) int64 and ``span_scores`` (B, W) float32.
        """
        arrays = {name: np.asarray(values) for name, values in inputs.items()}
        mask = arrays["word_mask"]
        arrays |= existing_windows(arrays)
        wanted = [node.name for node in self.session.get_inputs()]
        (logits,) = self.session.run(None, {name: arrays[name] for name in wanted})
        tags = self.crf.decode_batch(logits, mask=mask)
        return {"logits": logits, "tags": tags, "span_scores": self.crf.span_scores(logits, tags, mask=mask)}


def load(folder: str | Path, *, providers: Sequence[str] = ("CPUExecutionProvider",)) -> ExportedModel:
    """The model of an exported folder; `providers` say where onnxruntime runs it, in order of preference."""
    import onnxruntime

    settings = json.loads((Path(folder) / "decoding.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"), providers=list(providers))
    return ExportedModel(session, CRF(settings["labels"], **settings["crf"]))


def _may_follow(previous: str, label: str) -> bool:
    """Whether BIO lets a label follow: an I- tag must continue the B- or I- tag of its own type."""
    prefix, _, entity_type = label.partition("-")
    return prefix != "I" or (previous != "O" and previous.partition("-")[2] == entity_type)
