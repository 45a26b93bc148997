"""Multimodal named entity recognition for the Hugging Face Hub.

Importing the package loads nothing heavy: its names are loaded when one of them is first used. Its classes
enter transformers' Auto classes and `pipeline` then, too; until then ``AutoModel.from_pretrained(folder)``
needs ``trust_remote_code=True``.

Threads of PyTorch that wait for others give their core away, after the moment in which the next work comes
on a quiet machine (`OMP_WAIT_POLICY` and GNU's `GOMP_SPINCOUNT`, unless the former is set): on a busy machine
they would cost several times the work's own time.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference.loading import Dtype
    from .model.configuration_mmner import MMNERConfig, VisionTowerConfig
    from .model.labels_mmner import Span, split_words
    from .model.modeling_mmner import MMNERForTokenClassification, MMNEROutput, MMNERPreTrainedModel
    from .model.pipeline_mmner import MultimodalNERPipeline
    from .model.processing_mmner import MMNERProcessor

if "OMP_WAIT_POLICY" not in os.environ:  # both are read when torch is loaded
    os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000")}
__version__ = "0.2.0"

__all__ = [
    "MMNERConfig",
    "MMNERForTokenClassification",
    "MMNEROutput",
    "MMNERPreTrainedModel",
    "MMNERProcessor",
    "MultimodalNERPipeline",
    "Span",
    "VisionTowerConfig",
    "load",
    "split_words",
]
_FILES = ("modeling_mmner", "processing_mmner", "pipeline_mmner", "configuration_mmner", "labels_mmner")


def load(
    model: str, *, device: str | None = None, dtype: "Dtype | None" = None, **options: Any
) -> "MultimodalNERPipeline":
    """A trained model, ready to be asked: ``ner = load(folder)``, ``ner("Greetings from Lima")``.

    ``ner.show(post)`` marks the entities, and ``ner.model`` and ``ner.processor`` are its parts. No code of
    the model's is run.

    Args:
        model: a folder, or an id on the Hub; a folder that `mmner export-onnx` has made runs by onnxruntime.
        device, dtype: see `inference.loading.load_parts`, also for what is raised.
        options: defaults of `MultimodalNERPipeline`'s calls: batch_size, threshold, image_dir and more.
    """
    pipeline_class = __getattr__("MultimodalNERPipeline")
    from .inference.loading import load_parts

    loaded, processor = load_parts(model, device=device, dtype=dtype)
    options |= {"task": "multimodal-ner", "device": loaded.device}
    return pipeline_class(model=loaded, processor=processor, **options)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    files = [import_module(f".model.{file}", __name__) for file in _FILES]  # which register their classes
    return next(getattr(file, name) for file in files if hasattr(file, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
