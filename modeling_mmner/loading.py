"""A trained model, ready to be used, from a folder or the Hub."""

from typing import Any

import torch

from .modeling_mmner import MMNERForTokenClassification
from .processing_mmner import MMNERProcessor


def load_model(
    model_id: str, *, device: str | None = None, reads_contexts: bool = False
) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """A trained model, in evaluation mode on its device, and its processor.

    Args:
        model_id: a folder, or an id on the Hub.
        device: cpu, cuda, cuda:1, mps; None: an accelerator if there is one.
        reads_contexts: whether it must be a model that reads contexts.

    Raises:
        OSError: there is no such model.
        ValueError: the computer has no such device, or the model reads no contexts and must.
    """
    processor = MMNERProcessor.from_pretrained(model_id)
    if reads_contexts and processor.context_window is None:
        raise ValueError(f"--context: expected a model that was trained with contexts, found {model_id}, which reads none")
    model = MMNERForTokenClassification.from_pretrained(model_id).eval()
    to_device(model, device)
    return model, processor


def to_device(model: Any, device: str | None) -> None:
    """Put a model on a device; None: an accelerator if there is one.

    Raises:
        ValueError: the computer has no such device.
    """
    try:
        model.to(device or (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:  # PyTorch raises both
        raise ValueError(f"device {device}: expected one that this computer has; {error}") from error
