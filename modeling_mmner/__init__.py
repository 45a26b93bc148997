"""Multimodal named entity recognition for the Hugging Face Hub.

Importing the package loads nothing heavy. Its names are loaded when they are first used, and its classes enter transformers'
Auto classes and `pipeline` as soon as these are loaded themselves, in whatever order the two packages are imported: so
``import modeling_mmner`` is enough for ``AutoModel.from_pretrained(folder)`` and ``pipeline("multimodal-ner", model=folder)``.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from .configuration_mmner import MMNERConfig as MMNERConfig
    from .configuration_mmner import VisionTowerConfig as VisionTowerConfig
    from .labels_mmner import Span as Span
    from .labels_mmner import split_words as split_words
    from .modeling_mmner import MMNERForTokenClassification as MMNERForTokenClassification
    from .modeling_mmner import MMNEROutput as MMNEROutput
    from .modeling_mmner import MMNERPreTrainedModel as MMNERPreTrainedModel
    from .pipeline_mmner import MultimodalNERPipeline as MultimodalNERPipeline
    from .processing_mmner import MMNERProcessor as MMNERProcessor

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
# Each of these files registers its class when it is loaded, which is as soon as that part of transformers is there.
_REGISTERED_WITH = {
    "transformers.models.auto.configuration_auto": "configuration_mmner",
    "transformers.models.auto.modeling_auto": "modeling_mmner",
    "transformers.models.auto.processing_auto": "processing_mmner",
    "transformers.pipelines": "pipeline_mmner",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


_own = [f"{__name__}.{file.stem}" for file in Path(__file__).parent.glob("*_mmner.py")]
_loaded: set[str] = set()


def _register(module: ModuleType) -> None:
    """Load the files whose part of transformers is there; while one of ours is half loaded, wait for its end."""
    _loaded.add(module.__name__)
    if all(name in _loaded for name in _own if name in sys.modules):
        for partner, file in _REGISTERED_WITH.items():
            if partner in _loaded:
                import_module(f".{file}", __name__)


for _module in (*_REGISTERED_WITH, *_own):
    register_post_import_hook(_register, _module)
