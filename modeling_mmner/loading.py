"""A trained model, ready to be used, from a folder or the Hub, in the precision that suits its device."""

from typing import Any, Literal

import torch

from .modeling_mmner import MMNERForTokenClassification
from .processing_mmner import MMNERProcessor
from .quantization import quantize_linears

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""What a model computes in; see `computing_dtype`."""
Quantization = Literal["int8"]
"""What linear layers may compute in besides."""


def load_model(
    model_id: str,
    *,
    device: str | None = None,
    dtype: Dtype | None = None,
    quantize: Quantization | None = None,
    reads_contexts: bool = False,
) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """A trained model, in evaluation mode on its device, and its processor.

    Args:
        model_id: a folder, or an id on the Hub.
        device: cpu, cuda, cuda:1, mps; None: an accelerator if there is one, but with `quantize` the CPU.
        dtype: what it computes in, see `computing_dtype`; None: what it was saved in.
        quantize: what its linear layers compute in, see `quantize_linears`; None: in `dtype`, as the rest.
        reads_contexts: whether it must be a model that reads contexts.

    Raises:
        OSError: there is no such model.
        ValueError: the computer has no such device, the model reads no contexts and must, or it is to be quantized for another
            device than the CPU.
    """
    processor = MMNERProcessor.from_pretrained(model_id)
    if reads_contexts and processor.context_window is None:
        raise ValueError(f"--context: expected a model that was trained with contexts, found {model_id}, which reads none")
    place = device_named("cpu" if quantize and device is None else device)
    if quantize and place.type != "cpu":
        raise ValueError(f"--quantize {quantize}: expected --device cpu, found {place}")
    if quantize and dtype == "auto":
        dtype = "float32"  # bfloat16 between the integers gains next to nothing, and costs more than they do
    chosen = {} if dtype is None else {"dtype": computing_dtype(dtype, place)}
    model = MMNERForTokenClassification.from_pretrained(model_id, **chosen).eval()
    to_device(model, str(place))
    if quantize:
        quantize_linears(model)
    return model, processor


def device_named(device: str | None) -> torch.device:
    """A device by its name; None: an accelerator if there is one.

    Raises:
        ValueError: no device has such a name.
    """
    try:
        return torch.device(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    except RuntimeError as error:
        raise ValueError(f"device {device}: expected one that this computer has; {error}") from error


def to_device(model: Any, device: str | None) -> None:
    """Put a model on a device; None: an accelerator if there is one.

    Raises:
        ValueError: the computer has no such device.
    """
    try:
        model.to(device_named(device))
    except (RuntimeError, AssertionError) as error:  # PyTorch raises both
        raise ValueError(f"device {device}: expected one that this computer has; {error}") from error


def computing_dtype(name: Dtype, device: torch.device) -> torch.dtype:
    """The dtype of a name; ``auto`` is bfloat16 where the device computes in it natively, else float32.

    A model is loaded in it, all but its CRF, which stays in float32.
    """
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if computes_in_bfloat16(device.type) else torch.float32


def computes_in_bfloat16(device_type: str) -> bool:
    """Whether devices of a type (cpu, cuda, mps) compute in bfloat16 natively.

    A CPU without its instructions emulates them, some twenty times slower than float32.
    """
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return device_type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
