"""The thresholds that `mmner calibrate` saves in a processor, which hold for one model's weights alone."""

import hashlib
from typing import Any

import torch
from transformers.utils import logging

from .labels_mmner import entity_types

_logger = logging.get_logger(__name__)


def weights_sha256(model: Any) -> str:
    """The SHA-256 of all of a model's weights, in hex digits, rounded to bfloat16, in which it may be loaded.

    Raises:
        ValueError: the model is an exported one, which has no weights of its own.
    """
    if not hasattr(model, "parameters"):
        found = "found an exported one, which may compute in 8-bit integers"
        raise ValueError(f"precision: expected a model in torch, as was calibrated, {found}")
    digest = hashlib.sha256()
    for weight in model.parameters():
        bits = weight.detach().to(torch.bfloat16).contiguous().view(torch.int16)
        digest.update(bits.cpu().numpy().data)
    return digest.hexdigest()


def saved_calibration(processor: Any, model: Any, *, precision: float) -> dict[str, Any]:
    """The calibration in a processor, which must be of this model and this precision.

    A processor goes along into every model that is fine-tuned with it, and so does what was found out of the
    model before. Types without a threshold are told of once.

    Returns:
        thresholds: by type, of those that have one; contexts: whether the posts had one.

    Raises:
        ValueError: there is none, or it is of another precision, other weights or other labels.
    """
    saved, expected, found = processor.calibration or {}, f"expected thresholds for {precision!r:.40}", ""
    if saved.get("precision") != precision:
        found = f"those for {saved['precision']!r:.40}" if "precision" in saved else "none"
    elif saved.get("weights") != weights_sha256(model):
        found = "some that were calibrated for other weights"
    if found:
        advice = f"run mmner calibrate --model FOLDER --dataset CORPUS --precision {precision!r:.40}"
        raise ValueError(f"precision: {expected} of this model, found {found}; {advice}")
    given = saved["thresholds"] if isinstance(saved.get("thresholds"), dict) else {}
    types = entity_types(processor.labels)
    least = {kind: given[kind] for kind in types if isinstance(given.get(kind), float)}
    if lacking := ", ".join(kind for kind in types if kind not in least):
        what = "expected a threshold for each type, found none for"
        _logger.warning_once(f"precision {precision}: {what} {lacking}, whose entities are left out")
    return {"thresholds": least, "contexts": bool(saved.get("contexts"))}
