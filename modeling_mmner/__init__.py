"""Multimodal named entity recognition for the Hugging Face Hub.

Importing the package registers its config, model and processor with transformers' Auto classes and its pipeline with `pipeline`,
and marks them as custom code, so that a saved model carries the files it needs.
"""

from transformers import AutoModelForTokenClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_mmner import MMNERConfig, VisionTowerConfig
from .labels_mmner import Span, split_words
from .modeling_mmner import MMNERForTokenClassification, MMNEROutput, MMNERPreTrainedModel
from .pipeline_mmner import MultimodalNERPipeline
from .processing_mmner import MMNERProcessor

__version__ = "0.1.0"

__all__ = [
    "MMNERConfig",
    "MMNERForTokenClassification",
    "MMNEROutput",
    "MMNERPreTrainedModel",
    "MMNERProcessor",
    "MultimodalNERPipeline",
    "Span",
    "VisionTowerConfig",
    "split_words",
]

MMNERConfig.register_for_auto_class()
MMNERForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
MMNERProcessor.register_for_auto_class()
PIPELINE_REGISTRY.register_pipeline(
    "multimodal-ner", pipeline_class=MultimodalNERPipeline, pt_model=AutoModelForTokenClassification
)
