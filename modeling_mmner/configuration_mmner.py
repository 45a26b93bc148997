"""`MMNERConfig`: everything that decides which parts an MMNER model is made of."""

import warnings
from dataclasses import fields
from inspect import get_annotations
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .labels_mmner import check_labels

FusionName = Literal["cross-modal", "collaboration", "text-only"]
ObjectiveName = Literal["crf", "boundary", "contrastive", "clustering", "alignment"]
SentenceVector = Literal["mean", "pooler"]

# Keys that transformers itself reads or writes beyond the dataclass fields of a config.
_TRANSFORMERS_KEYS = frozenset(
    [
        "model_type",
        "transformers_version",
        "auto_map",
        "custom_pipelines",
        "quantization_config",
        "architectures",
        "dtype",
        "torch_dtype",
        "name_or_path",
        "_name_or_path",
        "_commit_hash",
        "num_labels",
        "attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation_internal",
        "output_attentions",
        "tie_word_embeddings",
        "use_cache",
    ]
)
# Options of loading a model, which `pipeline` hands on to its config and to its processor's, too.
_LOADING_OPTIONS = frozenset(
    [
        "device_map",
        "ignore_mismatched_sizes",
        "low_cpu_mem_usage",
        "max_memory",
        "offload_buffers",
        "offload_folder",
        "offload_state_dict",
        "return_unused_kwargs",
        "use_safetensors",
        "variant",
    ]
)
# Boundary detection reads the text tower alone, so any fusion serves it, as it does the main task.
_FUSIONS_FOR: dict[str, tuple[str, ...]] = {
    "contrastive": ("cross-modal",),
    "clustering": ("cross-modal", "collaboration"),
    "alignment": ("cross-modal", "collaboration"),
}
_MLMNER = {"crf": 1.0, "boundary": 0.4, "contrastive": 0.5, "clustering": 0.01}
_DEFAULT_OBJECTIVES = {"cross-modal": _MLMNER, "collaboration": {"crf": 1.6, "alignment": 0.4}, "text-only": {"crf": 1.0}}
_DEFAULT_TOWERS: dict[str, list[dict[str, Any]]] = {
    "cross-modal": [{}],
    "collaboration": [
        {
            "backbone": "vit_base_patch32_clip_224.openai",
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
            "frozen": False,
        },
        {"pooled": True},
    ],
    "text-only": [],
}


class VisionTowerConfig(PreTrainedConfig):
    """One picture encoder, any timm model.

    Attributes:
        backbone: timm's name with its tag (``resnet152.tv_in1k``): the tag decides the weights and their normalisation.
        backbone_args: keyword arguments of `timm.create_model` (``{"channels": [16, 32, 64, 128]}``).
        image_size: height and width in pixels of the square that the tower sees, > 0.
        mean, std: the tower's own normalisation of pixels in 0..1, one value per RGB channel.
        frozen: True keeps weights and batch-norm statistics as they are, even after `train()`.
        pooled: True makes one vector of a post's pictures, the mean over regions and pictures; False keeps all regions.
    """

    model_type = "mmner_vision_tower"

    backbone: str = "resnet152.tv_in1k"
    backbone_args: dict[str, Any] | None = None
    image_size: int = 224
    mean: list[float] | None = None
    std: list[float] | None = None
    frozen: bool = True
    pooled: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.mean = list(self.mean or (0.485, 0.456, 0.406))
        self.std = list(self.std or (0.229, 0.224, 0.225))
        check_fields(self, VisionTowerConfig, kwargs)
        if self.image_size <= 0:
            raise ValueError(f"vision tower image_size: expected pixels > 0, found {self.image_size}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise ValueError(f"vision tower {name}: expected 3 values, one per RGB channel, found {values}")
        super().__post_init__(**kwargs)


class MMNERConfig(PreTrainedConfig):
    """Configuration of `MMNERForTokenClassification`.

    Its defaults are MLMNER's (Li et al. 2022, tables 1 and 2), with the fusion ``collaboration`` those of 2M-NER (Wang et al.
    2024).

    Attributes:
        text_config: config (or its dict) of any transformers text encoder.
        text_window: longest input of the text encoder in sub-tokens; None asks the encoder. Longer texts are read in
            overlapping windows.
        text_prefix_tokens, text_suffix_tokens: special tokens that the tokenizer puts before and after a text; each
            window gets them again.
        vision_towers: a `VisionTowerConfig` dict for each picture encoder; empty for models of text alone.
        fusion: how pictures enter the words' features.
        fusion_heads: attention heads of the fusion's layers; None takes the text encoder's.
        dropout: in 0..1, on the features and inside the fusion's layers.
        objectives: loss weights >= 0 by name. A part is built when listed and not computed when its weight is 0.
        contrastive_temperature: temperature of the contrastive loss, > 0 (eq. 3-4).
        contrastive_image_share: lam in 0..1, the share of image-to-text in the contrastive loss (eq. 5).
        alignment_temperature: temperature of the alignment loss, > 0 (Wang et al. 2024).
        sentence_vector: what the alignment reads of a text: the ``mean`` of its word states, or the encoder's ``pooler``, for
            checkpoints that have a trained one.
        id2label: the BIO tag set.

    Raises:
        TypeError: an unknown key, or a value of another type.
        ValueError: a value out of its range, or parts that do not fit together.
    """

    model_type = "mmner"
    sub_configs_defaults = {"text_config": SubConfigSpec(AutoConfig, "bert", {"vocab_size": 28996})}
    keys_to_ignore_at_inference = [
        "loss_crf",
        "loss_boundary",
        "loss_contrastive",
        "loss_clustering",
        "loss_alignment",
        "span_scores",
        "gate",
        "attentions",
    ]

    # None asks for the default, which depends on other keys; `__post_init__` fills it in.
    text_config: PreTrainedConfig = None  # type: ignore[assignment]
    text_window: int | None = None
    text_prefix_tokens: int = 1
    text_suffix_tokens: int = 1
    vision_towers: list[dict[str, Any]] = None  # type: ignore[assignment]
    fusion: FusionName = "cross-modal"
    fusion_heads: int | None = None
    dropout: float = 0.1
    objectives: dict[str, float] = None  # type: ignore[assignment]
    contrastive_temperature: float = 0.1
    contrastive_image_share: float = 0.75
    alignment_temperature: float = 0.5
    sentence_vector: SentenceVector = "mean"
    id2label: dict[int, str] = None  # type: ignore[assignment]

    def __post_init__(self, **kwargs: Any) -> None:
        if self.id2label is None and "num_labels" not in kwargs:
            labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC"]
            self.id2label = {index: label for label, index in (self.label2id or {}).items()} or dict(enumerate(labels))
        if self.vision_towers is None:
            self.vision_towers = _DEFAULT_TOWERS.get(str(self.fusion), [])
        if self.objectives is None:
            self.objectives = dict(_DEFAULT_OBJECTIVES.get(str(self.fusion), {"crf": 1.0}))
        if not isinstance(self.text_config, (dict, PreTrainedConfig, type(None))):
            raise TypeError(f"MMNERConfig text_config: expected a config or its dict, found {self.text_config!r}")
        super().__post_init__(**kwargs)
        check_fields(self, MMNERConfig, kwargs)
        self.vision_towers = [_tower_dict(tower) for tower in self.vision_towers]
        self.text_config.dtype = None  # the model's dtype counts, not that of the weights the encoder came from
        self.text_config._name_or_path = ""  # may be a path on the author's disk
        self.label2id = {label: index for index, label in self.id2label.items()}
        self._check_values()

    @property
    def labels(self) -> list[str]:
        """The L label names in id order."""
        return [self.id2label[index] for index in range(len(self.id2label))]

    def vision_tower_configs(self) -> list[VisionTowerConfig]:
        """The picture encoders' configs, typed."""
        return [VisionTowerConfig(**tower) for tower in self.vision_towers]

    def _check_values(self) -> None:
        if sorted(self.id2label) != list(range(len(self.id2label))):
            raise ValueError(f"id2label: expected the ids 0..{len(self.id2label) - 1}, found {sorted(self.id2label)}")
        check_labels(self.labels)
        known = get_args(ObjectiveName)
        for name, weight in self.objectives.items():
            if name not in known:
                raise ValueError(f"objectives: expected names among {list(known)}, found {name!r}")
            if not isinstance(weight, (int, float)) or not weight >= 0:
                raise ValueError(f"objectives: expected a weight >= 0 for {name!r}, found {weight!r}")
            if self.fusion not in _FUSIONS_FOR.get(name, get_args(FusionName)):
                needed = " or ".join(repr(fusion) for fusion in _FUSIONS_FOR[name])
                raise ValueError(f"objectives: {name!r} needs the fusion {needed}, found {self.fusion!r}")
        # A saved config comes back with its keys sorted: one order, so that sums of losses are the same to the last bit.
        self.objectives = {name: self.objectives[name] for name in known if name in self.objectives}
        if "crf" not in self.objectives:
            raise ValueError(f"objectives: expected 'crf', the main task, found {list(self.objectives)}")
        if not any(self.objectives.values()):
            raise ValueError(f"objectives: expected a weight > 0 for at least one, found {self.objectives}")
        fewest, most = {"cross-modal": (1, 1), "collaboration": (1, None), "text-only": (0, 0)}[self.fusion]
        if len(self.vision_towers) < fewest or (most is not None and len(self.vision_towers) > most):
            wanted = f"{fewest} of them" if most == fewest else f"{fewest} or more"
            raise ValueError(f"vision_towers: fusion {self.fusion!r} reads {wanted}, found {len(self.vision_towers)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a share in 0..1, found {self.dropout}")
        for name in ("contrastive_temperature", "alignment_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected > 0, found {getattr(self, name)}")
        if not 0 <= self.contrastive_image_share <= 1:
            raise ValueError(f"contrastive_image_share: expected 0..1, found {self.contrastive_image_share}")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers', but a misspelt override is an error, and an unknown key of a saved config a warning."""
        known = known_keys(cls)
        config_dict = _known_part(config_dict, known, "config")
        if towers := config_dict.get("vision_towers"):
            own = known_keys(VisionTowerConfig)
            config_dict["vision_towers"] = [_known_part(tower, own, "config vision_towers") for tower in towers]
        misspelt = sorted(key for key in set(kwargs) - known - _LOADING_OPTIONS if not key.startswith("_"))
        if misspelt and not kwargs.get("return_unused_kwargs"):
            raise TypeError(f"config: unknown keys {misspelt}; expected some of {sorted(known)}")
        # Transformers sets overrides on the finished config, where nothing checks them. A part of text_config it merges in.
        own = {*get_annotations(MMNERConfig), "label2id"} - {"text_config"}
        overrides = {key: kwargs.pop(key) for key in own & kwargs.keys()}
        if overrides.keys() & {"id2label", "label2id"}:
            config_dict |= {"id2label": None, "label2id": None}
        return super().from_dict(config_dict | overrides, **kwargs)


def _known_part(settings: dict[str, Any], known: set[str], place: str) -> dict[str, Any]:
    """The settings with known keys; a warning names the others."""
    if unknown := sorted(set(settings) - known):
        warnings.warn(
            f"{place}: ignored the unknown keys {unknown}; a newer version of mmner may have written them", stacklevel=4
        )
    return {key: value for key, value in settings.items() if key in known}


def known_keys(config_class: type[PreTrainedConfig]) -> set[str]:
    """The keys that a config class reads."""
    return {field.name for field in fields(config_class)} | _TRANSFORMERS_KEYS


def check_fields(config: PreTrainedConfig, config_class: type[PreTrainedConfig], others: dict[str, Any]) -> None:
    """Check each of the class's own fields against its annotation, and `others` for keys that nobody knows.

    Raises:
        TypeError: naming the field, the expected type or choices, and what was found.
    """
    hints = get_annotations(config_class)
    unknown = sorted(set(others) - known_keys(config_class))
    if unknown:
        raise TypeError(f"{config_class.__name__}: unknown keys {unknown}; its own keys are {sorted(hints)}")
    for name, hint in hints.items():
        value = getattr(config, name)
        if not fits_type(value, hint):
            raise TypeError(f"{config_class.__name__} {name}: expected {describe_type(hint)}, found {value!r}")


def describe_type(hint: Any) -> str:
    """A type annotation in words, for error texts."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(describe_type(choice) for choice in get_args(hint))
    if get_origin(hint) is not None:
        return str(hint).replace("typing.", "")
    return "nothing" if hint is type(None) else getattr(hint, "__name__", str(hint))


def fits_type(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; an int passes for a float, a bool for neither number."""
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in get_args(hint)
    if origin in (Union, UnionType):
        return any(fits_type(value, choice) for choice in get_args(hint))
    if origin is list:
        return isinstance(value, (list, tuple)) and all(fits_type(item, get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits_type(item, get_args(hint)[1]) for item in value.values())
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def _tower_dict(tower: dict[str, Any]) -> dict[str, Any]:
    """A tower's settings with its defaults filled in, checked."""
    config = VisionTowerConfig(**tower)
    return {name: getattr(config, name) for name in get_annotations(VisionTowerConfig)}
