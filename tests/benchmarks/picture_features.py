"""Picture features that are ready before the clock starts."""

import weakref
from tempfile import TemporaryDirectory

from datasets import Dataset

from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.training.features import PictureFeatures

from .setting import Setting


def picture_features(setting: Setting, model: MMNERForTokenClassification) -> PictureFeatures:
    """The kept features of the setting's pictures, in a folder that lasts as long as they do."""
    folder = TemporaryDirectory()
    features = PictureFeatures.of_model(
        model, setting.processor, folder=folder.name, bf16=setting.precision == "bf16"
    )
    features.fill(Dataset.from_list([{"image": post["image"]} for post in setting.posts]))
    weakref.finalize(features, folder.cleanup)
    return features
