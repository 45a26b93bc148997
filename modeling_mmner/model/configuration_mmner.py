"""`MMNERConfig`: the parts of a model and their settings; `parts_mmner` has the table of all parts."""

import re
import warnings
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from inspect import get_annotations
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .labels_mmner import LABELS, check_labels
from .parts_mmner import (
    FUSIONS,
    MAIN_HEAD,
    SETTINGS,
    TEXT_TOWERS,
    PartSettings,
    Range,
    Setting,
    Settings,
    fits_type,
    objective_parts,
    option,
)

MOST_PIXELS_A_SIDE = 4096
"""Of the square that a model sees; a config of strangers could ask for more memory than there is."""
PIXELS = Range(f"pixels > 0 and <= {MOST_PIXELS_A_SIDE}", lambda pixels: 0 < pixels <= MOST_PIXELS_A_SIDE)
MOST_LAYERS = 1000
"""Of an encoder. Millions take hours to make, before they are found not to be those of the weights."""
_COUNTS_LAYERS = re.compile(r"(?:layers?|depths?|blocks?|block_sizes|groups)$")
# What would make timm read weights or configs that a model's folder does not hold.
_LOADING_ARGUMENTS = re.compile(r"checkpoint_path|pretrained\w*|cache_dir|features_only")
_NAME = Range("the name of a timm model", lambda name: re.fullmatch(r"[\w.-]+", name))
_READS_NO_FILE = Range(
    "none that makes timm read files",
    lambda given: not any(_LOADING_ARGUMENTS.fullmatch(str(name)) for name in given),
)


def _check_depth(settings: dict[str, Any], place: str) -> None:
    """Check that the settings of an encoder ask for no more than `MOST_LAYERS` layers."""
    for name, value in settings.items():
        if isinstance(value, dict):
            _check_depth(value, f"{place} {name}")
        stages = value if isinstance(value, (list, tuple)) else [value]
        layers = sum(number for number in stages if isinstance(number, int))
        if layers > MOST_LAYERS and _COUNTS_LAYERS.search(str(name)):
            expected = f"expected at most {MOST_LAYERS:,} layers"
            raise ValueError(f"{place} {name}: {expected}, found {value!r:.200}")


_MEAN = Range("3 values, one per RGB channel, all finite", lambda mean: _are_channels(mean, least=-1e6))
_STD = Range("3 values, one per RGB channel, all finite and > 0", lambda std: _are_channels(std, least=1e-6))


def _are_channels(values: list[float], *, least: float) -> bool:
    return len(values) == 3 and all(least < value < 1e6 for value in values)


@dataclass
class VisionTowerConfig(Settings):
    """One picture encoder, any timm model.

    Attributes:
        backbone: timm's name with its tag, which decides weights and normalisation (``resnet152.tv_in1k``).
        backbone_args: keyword arguments of `timm.create_model` (``{"channels": [16, 32, 64, 128]}``), none
            that reads files.
        image_size: height and width in pixels of the square that the tower sees, 1 to `MOST_PIXELS_A_SIDE`.
        mean, std: the tower's own normalisation of pixels in 0..1, one value per RGB channel.
        frozen: True keeps weights and batch-norm statistics as they are, even after `train()`.
        pooled: True makes one vector of a post's pictures, the mean over regions and pictures.
    """

    owner: ClassVar[str] = "vision tower"
    backbone: str = option("resnet152.tv_in1k", "timm's name", range=_NAME)
    backbone_args: dict[str, Any] | None = option(None, "timm's arguments", range=_READS_NO_FILE)
    image_size: int = option(224, "in pixels", range=PIXELS)
    mean: list[float] = option([0.485, 0.456, 0.406], "of pixels", range=_MEAN)
    std: list[float] = option([0.229, 0.224, 0.225], "of pixels", range=_STD)
    frozen: bool = option(True, "whether it stays as it is")
    pooled: bool = option(False, "whether it makes one vector")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_depth(self.backbone_args or {}, "vision tower backbone_args")


_TOWER_KEYS = {field.name for field in fields(VisionTowerConfig)}


class MMNERConfig(PreTrainedConfig, PartSettings):
    """Configuration of `MMNERForTokenClassification`.

    Its defaults are MLMNER's (Li et al. 2022, tables 1 and 2), with the fusion ``collaboration`` those of
    2M-NER (Wang et al. 2024). The attributes below are beside those of `PartSettings`.

    Attributes:
        text_config: config (or its dict) of any transformers text encoder; None for a tower without one.
        word_vocabulary: for text towers of words, the ids of their tokenizer: ``size``, how many;
            ``unknown``, the unknown one; ``rare``, from which on words are rare ones, which training makes
            unknown at random.
        vision_towers: a `VisionTowerConfig` dict for each picture encoder; empty for models of text alone.
        objectives: loss weights >= 0 by name. A part is built when listed; of weight 0 it has no loss.
        id2label: the BIO tag set.

    Raises:
        TypeError: an unknown key, or a value of another type.
        ValueError: a value out of its range, or parts that do not fit together.
    """

    model_type = "mmner"
    sub_configs_defaults = {"text_config": SubConfigSpec(AutoConfig, "bert", optional=True)}
    keys_to_ignore_at_inference = ["losses", "span_scores"]

    # None asks for the default, which depends on other keys; `__post_init__` fills it in.
    text_config: PreTrainedConfig | None = None
    word_vocabulary: dict[str, int] | None = None
    vision_towers: list[dict[str, Any]] = None  # type: ignore[assignment]
    objectives: dict[str, float] = None  # type: ignore[assignment]
    id2label: dict[int, str] = None  # type: ignore[assignment]

    def __post_init__(self, **kwargs: Any) -> None:
        for name, setting in SETTINGS.items():
            if name not in vars(self):  # of a part that others have added, with a row of its own
                setattr(self, name, kwargs.pop(name, setting.default))
            setting.check(name, getattr(self, name))
        Setting(dict | PreTrainedConfig | None, None, "").check("text_config", self.text_config)
        Setting(dict | None, None, "").check("id2label", self.id2label)
        fusion = FUSIONS[self.fusion]
        if self.text_config is None and TEXT_TOWERS[self.text_tower].has_encoder:
            self.text_config = {"model_type": "bert", "vocab_size": 28996}  # type: ignore[assignment]
        if self.vision_towers is None:
            self.vision_towers = [dict(tower) for tower in fusion.default_towers]
        if self.objectives is None:
            self.objectives = dict(fusion.default_objectives)
        try:
            if self.id2label is None and "num_labels" not in kwargs:
                label2id = self.label2id or {label: number for number, label in enumerate(LABELS)}
                self.id2label = {number: label for label, number in label2id.items()}
            if isinstance(self.text_config, dict):
                self.text_config = AutoConfig.for_model(**self.text_config)
            super().__post_init__(**kwargs)
        # A saved config may hold anything under the keys of transformers, which then raises anything.
        except Exception as error:
            expected = "keys as transformers saves them, found some that it refuses"
            raise ValueError(f"MMNERConfig: expected {expected}; {error!s:.300}") from error
        own = get_annotations(MMNERConfig)
        # Transformers has made an attribute of a key that nobody knows.
        unknown = kwargs.keys() & vars(self).keys() - _KNOWN_KEYS
        _refuse_unknown(type(self), {key for key in unknown if not key.startswith("_")}, {*own, *SETTINGS})
        for name, hint in own.items():
            Setting(hint, None, "").check(name, getattr(self, name))
        self.vision_towers = [asdict(tower) for tower in self.vision_tower_configs()]
        if self.text_config is not None:
            # The model's dtype counts, not that of the weights that the encoder came from.
            self.text_config.dtype = None
            self.text_config._name_or_path = ""  # may be a path on the author's disk
            _check_depth(self.text_config.to_dict(), "text_config")
            if self.text_config.is_encoder_decoder:
                found = f"found {self.text_config.model_type}, whose states are its decoder's"
                raise ValueError(f"text_config: expected an encoder, as BERT is one, {found}")
        if (ids := sorted(self.id2label)) != list(range(len(ids))):
            raise ValueError(f"id2label: expected the ids 0..{len(ids) - 1}, found {ids}")
        check_labels(self.labels)
        self.label2id = {label: index for index, label in self.id2label.items()}
        self._check_text_tower()
        self._check_parts()

    @property
    def labels(self) -> list[str]:
        """The L label names in id order."""
        return [self.id2label[index] for index in range(len(self.id2label))]

    def vision_tower_configs(self) -> list[VisionTowerConfig]:
        """The picture encoders' configs, typed."""
        for tower in self.vision_towers:
            _refuse_unknown(VisionTowerConfig, tower.keys() - _TOWER_KEYS, _TOWER_KEYS)
        return [VisionTowerConfig(**tower) for tower in self.vision_towers]

    def _check_text_tower(self) -> None:
        """Check that the text tower has what it is made of: an encoder's config or a vocabulary of words."""
        place, words = f"with the text tower {self.text_tower!r}", self.word_vocabulary
        if TEXT_TOWERS[self.text_tower].has_encoder:
            if words is not None:
                found = f"which reads sub-tokens, found {words}"
                raise ValueError(f"word_vocabulary: expected none {place}, {found}")
        elif self.text_config is not None:
            found = f"which has no transformers encoder, found {type(self.text_config).__name__}"
            raise ValueError(f"text_config: expected none {place}, {found}")
        elif set(words or {}) != {"size", "unknown", "rare"}:
            raise ValueError(f"word_vocabulary: expected size, unknown and rare {place}, found {words}")

    def _check_parts(self) -> None:
        """Check the objectives, and whether all that the parts need is there."""
        fusion, known = FUSIONS[self.fusion], objective_parts()
        given = {"sentence", *fusion.offered}
        for name, weight in self.objectives.items():
            if name not in known:
                raise ValueError(f"objectives: expected names among {list(known)}, found {name!r}")
            if not weight >= 0:
                raise ValueError(f"objectives: expected a weight >= 0 for {name!r}, found {weight!r}")
            if missing := set(known[name].needs) - given:
                serving = [repr(other) for other, row in FUSIONS.items() if missing <= set(row.offered)]
                needed = f"the fusion {' or '.join(serving)}"
                raise ValueError(f"objectives: {name!r} needs {needed}, found {self.fusion!r}")
        # A saved config comes back with its keys sorted: one order, so that losses sum up to the last bit.
        listed = [name for name in known if name in self.objectives]
        self.objectives = {name: self.objectives[name] for name in listed}
        if MAIN_HEAD not in listed:
            raise ValueError(f"objectives: expected {MAIN_HEAD!r}, the main task, found {listed}")
        if self.boundary_share and "boundary" not in listed:
            wanted = "'boundary', which it reads, among the objectives"
            raise ValueError(f"boundary_share: expected {wanted}, found {listed}")
        if not any(self.objectives.values()):
            raise ValueError(f"objectives: expected a weight > 0 for at least one, found {self.objectives}")
        fewest, most, found = fusion.fewest_towers, fusion.most_towers, len(self.vision_towers)
        if found < fewest or (most is not None and found > most):
            wanted = f"{fewest} of them" if most == fewest else f"{fewest} or more"
            place = f"with the fusion {self.fusion!r}"
            raise ValueError(f"vision_towers: expected {wanted} {place}, found {found}")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers'; a misspelt override is an error, an unknown key of a saved config a warning."""
        if not isinstance(config_dict, dict):
            raise TypeError(f"config: expected a mapping of settings, found {type(config_dict).__name__}")
        own = {*get_annotations(MMNERConfig), *SETTINGS, "label2id"}
        config_dict = _known_part(config_dict, _KNOWN_KEYS | own, "config")
        towers: Any = config_dict.get("vision_towers")
        if fits_type(towers, list[dict[str, Any]]):
            place = "config vision_towers"
            config_dict["vision_towers"] = [_known_part(tower, _TOWER_KEYS, place) for tower in towers]
        dtype = config_dict.get("dtype")
        if not (dtype is None or isinstance(dtype, str) or str(dtype).startswith("torch.")):
            raise TypeError(f"config dtype: expected the name of one of torch's, found {dtype!r:.80}")
        # Options of loading come here, too, and are no business of ours; a near miss of our own keys is.
        for key in kwargs.keys() - own:
            if close := get_close_matches(key, own, n=1, cutoff=0.8):
                hint = f"did you mean {close[0]!r}? Its own keys are {sorted(own)}"
                raise TypeError(f"config: unknown key {key!r}; {hint}")
        # Transformers sets overrides on the finished config, where nothing checks them. A part of text_config
        # it merges in.
        overrides = {key: kwargs.pop(key) for key in (own - {"text_config"}) & kwargs.keys()}
        if overrides.keys() & {"id2label", "label2id"}:
            config_dict |= {"id2label": None, "label2id": None}
        return super().from_dict(config_dict | overrides, **kwargs)


def _known_part(settings: dict[str, Any], known: set[str], place: str) -> dict[str, Any]:
    """The settings with known keys; a warning names the others."""
    if unknown := sorted(str(key) for key in settings.keys() - known if not str(key).startswith("_")):
        reason = "a newer version of mmner may have written them"
        warnings.warn(f"{place}: ignored the unknown keys {unknown}; {reason}", stacklevel=4)
    return {key: value for key, value in settings.items() if str(key) not in unknown}


def _refuse_unknown(kind: type, unknown: set[str], own: set[str]) -> None:
    if unknown:
        raise TypeError(f"{kind.__name__}: unknown keys {sorted(unknown)}; its own keys are {sorted(own)}")


# With what transformers keeps in a config beyond the fields of its dataclass.
_KNOWN_KEYS = {field.name for field in fields(MMNERConfig)} | {
    *("model_type", "auto_map", "custom_pipelines", "quantization_config"),
    *("output_attentions", "tie_word_embeddings", "use_cache"),
}
MMNERConfig.register_for_auto_class()
if __package__ == "modeling_mmner.model":  # as remote code it is found by the auto_map of a saved config
    AutoConfig.register(MMNERConfig.model_type, MMNERConfig, exist_ok=True)
