"""Multimodal named entity recognition for the Hugging Face Hub.

Importing the package loads nothing heavy: its names are loaded when one of them is first used. Its classes
enter transformers' Auto classes and `pipeline` then, too; until then ``AutoModel.from_pretrained(folder)``
needs ``trust_remote_code=True``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model.configuration_mmner import MMNERConfig as MMNERConfig
    from .model.configuration_mmner import VisionTowerConfig as VisionTowerConfig
    from .model.labels_mmner import Span as Span
    from .model.labels_mmner import split_words as split_words
    from .model.modeling_mmner import MMNERForTokenClassification as MMNERForTokenClassification
    from .model.modeling_mmner import MMNEROutput as MMNEROutput
    from .model.modeling_mmner import MMNERPreTrainedModel as MMNERPreTrainedModel
    from .model.pipeline_mmner import MultimodalNERPipeline as MultimodalNERPipeline
    from .model.processing_mmner import MMNERProcessor as MMNERProcessor

__version__ = "0.2.0"

_HOMES = {
    "MMNERConfig": "configuration_mmner",
    "MMNERForTokenClassification": "modeling_mmner",
    "MMNEROutput": "modeling_mmner",
    "MMNERPreTrainedModel": "modeling_mmner",
    "MMNERProcessor": "processing_mmner",
    "MultimodalNERPipeline": "pipeline_mmner",
    "Span": "labels_mmner",
    "VisionTowerConfig": "configuration_mmner",
    "split_words": "labels_mmner",
}

__all__ = ["load", *_HOMES]


def load(model: str, **options: Any) -> "tuple[MMNERForTokenClassification, MMNERProcessor]":
    """A trained model, in evaluation mode on its device, and its processor, without running code of its own.

    Args:
        model: a folder, or an id on the Hub.
        options: device, dtype and more, see `inference.loading.load_model`, which also says what is raised.
    """
    _register()
    from .inference.loading import load_model

    return load_model(model, **options)


def _register() -> None:
    """Make transformers know the classes: each file registers its own."""
    for name in ("modeling_mmner", "processing_mmner", "pipeline_mmner"):
        import_module(f".model.{name}", __name__)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    _register()
    return getattr(import_module(f".model.{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
