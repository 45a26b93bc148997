"""Multimodal named entity recognition for the Hugging Face Hub.

Importing the package registers its config, model and processor with transformers' Auto classes, and marks them as custom code, so
that a saved model carries the files it needs.
"""

from .configuration_mmner import MMNERConfig, VisionTowerConfig
from .labels_mmner import Span, split_words
from .modeling_mmner import MMNERForTokenClassification, MMNEROutput, MMNERPreTrainedModel
from .processing_mmner import MMNERProcessor

__version__ = "0.1.0"

__all__ = [
    "MMNERConfig",
    "MMNERForTokenClassification",
    "MMNEROutput",
    "MMNERPreTrainedModel",
    "MMNERProcessor",
    "Span",
    "VisionTowerConfig",
    "split_words",
]

MMNERConfig.register_for_auto_class()
MMNERForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
MMNERProcessor.register_for_auto_class()
