"""A trained model, ready to be used, from a folder or the Hub, in the precision that suits its device."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file

from ..files import parsed, reason
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.picture_text_mmner import PictureReader, reader_of
from ..model.prediction_mmner import BatchPredictor, PostReader, computes_in_bfloat16
from ..model.processing_mmner import MMNERProcessor
from ..names import path_or_hub
from ..training.recipes import recipe_names
from . import onnx_decoding
from . import picture_reader as picture_reader

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""What a model computes in; see `computing_dtype`."""


def load_model(
    model_id: str, *, device: str | None = None, dtype: Dtype | None = None, reads_contexts: bool = False
) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """A trained model, in evaluation mode on its device, and its processor. No code of the model's is run.

    Args:
        model_id: a folder, or an id on the Hub.
        device: cpu, cuda, cuda:1, mps; None: an accelerator if there is one.
        dtype: what it computes in, see `computing_dtype`; None: what it was saved in.
        reads_contexts: whether it must be a model that reads contexts.

    Raises:
        OSError: there is no such model.
        ValueError: its files are damaged, lack weights or do not belong together; the computer has no such
            device, or the model reads no contexts and must.
    """
    place = device_named(device)
    chosen = {} if dtype is None else {"dtype": computing_dtype(dtype, place)}
    with model_named(model_id):
        processor = _load_processor(model_id, reads_contexts=reads_contexts)
        with _reading(model_id):
            _check_index(model_id)
            model, found = MMNERForTokenClassification.from_pretrained(
                model_id, trust_remote_code=False, output_loading_info=True, **chosen
            )
    if missing := sorted(found["missing_keys"]):
        lacking = f"found none for {', '.join(missing[:5])} ({len(missing)} in all)"
        raise ValueError(f"model {model_id}: expected a trained model with all its weights, {lacking}")
    check_pair(model, processor, model_id)
    return model.eval().to(place), processor


def load_parts(
    model_id: str, *, device: str | None = None, dtype: Dtype | None = None, reads_contexts: bool = False
) -> tuple[Any, MMNERProcessor]:
    """What `load_model` gives; of a folder that `export_onnx` has made its model, which runs on the CPU.

    Raises:
        OSError, ValueError: as of `load_model`; an exported model is to run elsewhere or in another dtype, or
            onnxruntime is missing.
    """
    if not (Path(model_id) / "decoding.json").is_file():
        return load_model(model_id, device=device, dtype=dtype, reads_contexts=reads_contexts)
    if device not in (None, "cpu") or dtype not in (None, "auto", "float32"):
        wanted = "expected --device cpu and no --dtype"
        raise ValueError(f"model {model_id}: {wanted}, found {device or 'cpu'} and {dtype}")
    if find_spec("onnxruntime") is None:
        raise ValueError(f"model {model_id}: expected onnxruntime, found none; pip install 'mmner[onnx]'")
    processor = _load_processor(model_id, reads_contexts=reads_contexts)
    with _reading(model_id):
        return onnx_decoding.load(model_id), processor


def load_predictor(
    model_id: str,
    *,
    device: str | None = None,
    dtype: Dtype = "auto",
    reads_contexts: bool = False,
    batch_size: int = 32,
    read_pictures: bool | PictureReader = False,
    image_dir: str | Path | None = None,
    **options: Any,
) -> BatchPredictor:
    """What finds the entities of posts in batches; a picture that cannot be read is left out and told of.

    Args:
        model_id, device, dtype, reads_contexts: as of `load_parts`.
        read_pictures: as of the pipeline.
        image_dir: the folder that paths of pictures may not lead out of, see `PostReader`.
        batch_size, options: of `BatchPredictor`: num_workers, threshold, precision, effects.

    Raises:
        OSError, ValueError: as of `load_parts`.
    """
    found = reader_of(read_pictures)
    model, processor = load_parts(model_id, device=device, dtype=dtype, reads_contexts=reads_contexts)
    reader = PostReader(processor, broken_pictures="skip", image_dir=image_dir, picture_reader=found)
    return BatchPredictor(model, reader, read_ahead=True, batch_size=batch_size, **options)


@contextmanager
def model_named(name: str) -> Iterator[None]:
    """Load a model under it; what can be none fails at once, see `path_or_hub`.

    Raises:
        OSError: there is none of that name; the text says what is there.
    """
    folder, place = Path(name), f"model {name!r:.200}"
    if folder.is_dir() and not any((folder / own).exists() for own in ("config.json", "decoding.json")):
        holds = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        hint = f"; did you mean {folder / 'model'}?" if (folder / "model" / "config.json").is_file() else ""
        expected = "expected the folder of a trained model, with a config.json"
        raise OSError(f"{place}: {expected}, found {holds}{hint}")
    if name in recipe_names() and not folder.exists():
        advice = f"mmner train --recipe {name} --output_dir outputs/{name}"
        expected = "expected a trained model, found the name of a recipe"
        raise OSError(f"{place}: {expected}; {advice} trains one, which is then outputs/{name}/model")
    with path_or_hub(name, kind="model", known=sorted(map(str, Path().glob("outputs/*/model")))):
        yield


def check_files(folder: str | Path) -> None:
    """Check that what is in a model's folder can be read as files: a pipe or a device may never end.

    Raises:
        ValueError: one of them is none; the text names it.
    """
    for path in (*Path(folder).glob("*"), *Path(folder).glob("*/*")):
        if path.exists() and not (path.is_file() or path.is_dir()):
            expected = "expected ordinary files in a model's folder, found a pipe or a device"
            raise ValueError(f"{path}: {expected}; remove it")


def _check_index(model_id: str) -> None:
    """Check that the index of a model's weights, where it has one, names files of the model's own."""
    if path := cached_file(model_id, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False):
        for name in parsed(Path(path).read_text(encoding="utf-8"))["weight_map"].values():
            if Path(name).name != name:
                raise ValueError(f"{SAFE_WEIGHTS_INDEX_NAME} that names {name!r:.200}, outside of the model")


def _load_processor(model_id: str, *, reads_contexts: bool) -> MMNERProcessor:
    check_files(model_id)
    with _reading(model_id):
        processor = MMNERProcessor.from_pretrained(model_id, trust_remote_code=False)
    if reads_contexts and processor.context_window is None:
        expected = "expected a model that was trained with contexts"
        raise ValueError(f"--context: {expected}, found {model_id}, which reads none")
    return processor


@contextmanager
def _reading(model_id: str) -> Iterator[None]:
    """Whatever the readers of a model's files raise becomes an error that names the model."""
    try:
        yield
    # A damaged file leads to anything: JSON, tokenizers and safetensors have errors of their own.
    except Exception as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        expected = "expected the folder or Hub id of a trained model, its weights in safetensors"
        raise kind(f"model {model_id}: {expected}, found {reason(error, model_id)}") from error


def check_pair(model: MMNERForTokenClassification, processor: MMNERProcessor, model_id: str) -> None:
    """Check that a model and a processor belong together.

    Raises:
        ValueError: they have other labels, the processor makes ids that the model does not know, windows that
            it cannot read, or not the inputs that it reads.
    """
    embeddings: Any = model.get_input_embeddings().num_embeddings
    window: Any = getattr(model.text_tower, "window", None)
    size, own, towers = processor.image_size, processor.window, len(model.vision_towers)
    pairs = {
        "labels": (processor.labels, model.config.labels, processor.labels == model.config.labels),
        "sub-tokens": (len(processor.tokenizer), embeddings, len(processor.tokenizer) <= embeddings),
        "window": (own, window, window is None or (own or 0) <= window),
        "pictures": (size, towers, bool(size) or not towers),
    }
    for name, (theirs, ours, fits) in pairs.items():
        if not fits:
            found = f"one with other {name}: {theirs!r:.200}, the model's {ours!r:.200}"
            expected = "expected the processor that was saved with the model"
            raise ValueError(f"model {model_id}: {expected}, found {found}")


def device_named(device: str | None) -> torch.device:
    """A device by its name; None: an accelerator if there is one. ValueError where there is none such."""
    try:
        place = torch.device(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # PyTorch raises both
        raise ValueError(f"device {device}: expected one that this computer has; {error}") from error
    return place


def computing_dtype(name: Dtype, device: torch.device) -> torch.dtype:
    """The dtype of a name; ``auto`` is bfloat16 where the device computes in it natively, else float32.

    A model is loaded in it, all but its CRF, which stays in float32.
    """
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if computes_in_bfloat16(device.type) else torch.float32
