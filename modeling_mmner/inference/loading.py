"""A trained model, ready to be used, from a folder or the Hub, in the precision that suits its device."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.prediction_mmner import computes_in_bfloat16
from ..model.processing_mmner import MMNERProcessor
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
        ValueError: its files are damaged, lack weights or do not belong together; the computer has no such
            device, the model reads no contexts and must, or it is to be quantized for another device than the
            CPU.
    """
    with _reading(model_id):
        processor = MMNERProcessor.from_pretrained(model_id, trust_remote_code=False)
    if reads_contexts and processor.context_window is None:
        raise ValueError(
            f"--context: expected a model that was trained with contexts, found {model_id}, which reads none"
        )
    place = device_named("cpu" if quantize and device is None else device)
    if quantize and place.type != "cpu":
        raise ValueError(f"--quantize {quantize}: expected --device cpu, found {place}")
    if quantize and dtype == "auto":
        dtype = "float32"  # bfloat16 between the integers gains next to nothing, and costs more than they do
    chosen = {} if dtype is None else {"dtype": computing_dtype(dtype, place)}
    with _reading(model_id):
        model, found = MMNERForTokenClassification.from_pretrained(
            model_id, trust_remote_code=False, output_loading_info=True, **chosen
        )
    if found["missing_keys"]:
        raise ValueError(
            f"model {model_id}: expected a trained model with all its weights, found none for"
            f" {_some(found['missing_keys'])}, which would be random"
        )
    check_pair(model, processor, model_id)
    to_device(model.eval(), str(place))
    if quantize:
        quantize_linears(model)
    return model, processor


@contextmanager
def _reading(model_id: str) -> Iterator[None]:
    """Whatever the readers of a model's files raise becomes an error that names the model."""
    try:
        yield
    except (
        Exception
    ) as error:  # a damaged file leads to anything: JSON, tokenizers and safetensors have errors of their own
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(
            f"model {model_id}: expected the folder or Hub id of a trained model, with weights in safetensors"
            f" and a processor, found {type(error).__name__}: {error!s:.500}"
        ) from error


def check_pair(model: MMNERForTokenClassification, processor: MMNERProcessor, model_id: str) -> None:
    """Check that a model and a processor belong together.

    Raises:
        ValueError: they have other labels, the processor makes ids that the model does not know, windows that
            it cannot read, or not the inputs that it reads.
    """
    embeddings: Any = model.get_input_embeddings().num_embeddings
    window: Any = getattr(model.text_tower, "window", None)
    pairs = {
        "labels": (processor.labels, model.config.labels, processor.labels == model.config.labels),
        "sub-tokens": (len(processor.tokenizer), embeddings, len(processor.tokenizer) <= embeddings),
        "window": (processor.window, window, window is None or (processor.window or 0) <= window),
        "pictures": (
            processor.image_size,
            len(model.vision_towers),
            bool(processor.image_size) or not model.vision_towers,
        ),
    }
    for name, (theirs, ours, fits) in pairs.items():
        if not fits:
            raise ValueError(
                f"model {model_id}: expected the processor that was saved with the model, found one with"
                f" other {name}: {theirs!r:.200}, the model's {ours!r:.200}"
            )


def _some(names: Collection[str]) -> str:
    """The first few of some names."""
    return ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


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
