"""The tables of parts, what each text tower, fusion, head and objective needs and gives; and of settings.

A part is a class and a row here under the same name. `MMNERConfig` reads the rows to check which parts fit
together, and `SETTINGS` to know each setting; this file loads neither torch nor transformers, so that a
command line can list the settings at once.

What parts give and need, by name:

- ``sentence``: a vector of the whole text, which every text tower gives;
- ``regions``: the regions of the post's pictures;
- ``fused``: features of the words that pictures have entered;
- ``views``: those features in two halves, of the text and of the picture.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints


class Range(NamedTuple):
    """The values that a setting may have: in words, and as a test."""

    words: str
    holds: Callable[[Any], Any]


POSITIVE = Range("> 0", lambda value: value > 0)
EVEN = Range("an even number > 0", lambda value: value > 0 and value % 2 == 0)
SHARE = Range("0..1", lambda value: 0 <= value <= 1)
DROPOUT = Range("a share >= 0 and < 1", lambda value: 0 <= value < 1)


@dataclass(frozen=True)
class Setting:
    """A key of `MMNERConfig` and an option of the command line.

    Attributes:
        type: its annotation.
        default: its value where nobody gives one.
        help: what it is, in a few words.
        range: the values that it may have; None: all of its type. An allowed None is in every range.
        table: the table whose names it may have.
    """

    type: Any
    default: Any
    help: str
    range: Range | None = None
    table: "Mapping[str, Part] | None" = None

    def check(self, name: str, value: Any, *, owner: str = "MMNERConfig") -> None:
        """Raises TypeError for a wrong type or a name not in the table, ValueError for one out of range."""
        if self.table is not None and value not in list(self.table):
            names = ", ".join(map(repr, self.table))
            raise TypeError(f"{owner} {name}: expected one of {names}, found {value!r:.200}")
        if not fits_type(value, self.type):
            raise TypeError(f"{owner} {name}: expected {describe_type(self.type)}, found {value!r:.200}")
        if self.range is not None and value is not None and not self.range.holds(value):
            raise ValueError(f"{owner} {name}: expected {self.range.words}, found {value!r:.200}")


def option(default: Any, help_text: str, **more: Any) -> Any:
    """A dataclass's field that is a setting, with its help and `more` of `Setting`."""
    metadata = {"default": default, "help": help_text, **more}
    if isinstance(default, (dict, list)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def settings_in(kind: type) -> dict[str, Setting]:
    """The settings of a dataclass, its fields made by `option`, by their names."""
    hints = get_type_hints(kind)
    return {item.name: Setting(hints[item.name], **item.metadata) for item in fields(kind) if item.metadata}


class Settings:
    """A dataclass of settings, which are checked when it is made.

    Raises:
        TypeError: a value of another type.
        ValueError: a value out of its range.
    """

    owner: ClassVar[str] = "recipe"

    def __post_init__(self) -> None:
        for name, setting in settings_in(type(self)).items():
            setting.check(name, getattr(self, name), owner=self.owner)


@dataclass(frozen=True)
class Part:
    """A row of the table.

    Attributes:
        help: what the part is, in a few words.
        needs: what it reads of other parts, by the names above.
    """

    help: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextTowerPart(Part):
    """The row of a text tower.

    Attributes:
        has_encoder: whether it holds the encoder that `MMNERConfig.text_config` describes, or reads words, by
            the vocabulary of `MMNERConfig.word_vocabulary`.
        reads_characters: whether the processor makes the bytes of each word for it.
    """

    has_encoder: bool = True
    reads_characters: bool = False


@dataclass(frozen=True)
class FusionPart(Part):
    """The row of a fusion.

    Attributes:
        gives: what others may read of it.
        fewest_towers, most_towers: how many picture encoders it reads; None: any number.
        default_objectives: the objectives with their weights where the config names none.
        default_towers: the picture encoders where the config names none, as `VisionTowerConfig` keys.
    """

    gives: tuple[str, ...] = ()
    fewest_towers: int = 1
    most_towers: int | None = 1
    default_objectives: Mapping[str, float] = field(default_factory=lambda: {"crf": 1.0})
    default_towers: tuple[Mapping[str, Any], ...] = ()

    @property
    def offered(self) -> tuple[str, ...]:
        """What other parts may read of a model of this fusion, the regions if it reads any."""
        return (*self.gives, *({"regions"} & set(self.needs)))


_RESNET: dict[str, Any] = {"backbone": "resnet152.tv_in1k"}
_VGG: dict[str, Any] = {"backbone": "vgg16.tv_in1k"}
_CLIP_VIT: dict[str, Any] = {
    "backbone": "vit_base_patch32_clip_224.openai",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "frozen": False,
}

TEXT_TOWERS: dict[str, TextTowerPart] = {
    "transformer": TextTowerPart("any transformers encoder"),
    "bilstm": TextTowerPart("word embeddings and a BiLSTM", has_encoder=False),
    "cnn-bilstm": TextTowerPart(
        "word embeddings, each joined by a CNN over the word's characters, and a BiLSTM",
        has_encoder=False,
        reads_characters=True,
    ),
    "hbilstm": TextTowerPart(
        "word embeddings, each joined by a BiLSTM over the word's characters, and a BiLSTM",
        has_encoder=False,
        reads_characters=True,
    ),
}

FUSIONS: dict[str, FusionPart] = {
    "cross-modal": FusionPart(
        "MLMNER's cross-modal Transformer with a visual gate",
        needs=("regions",),
        gives=("fused", "views"),
        default_objectives={"crf": 1.0, "boundary": 0.4, "contrastive": 0.5, "clustering": 0.01},
        default_towers=(_RESNET,),
    ),
    "collaboration": FusionPart(
        "2M-NER's multimodal collaboration",
        needs=("regions",),
        gives=("fused",),
        most_towers=None,
        default_objectives={"crf": 1.6, "alignment": 0.4},
        default_towers=(_CLIP_VIT, _RESNET | {"pooled": True}),
    ),
    "gvatt": FusionPart(
        "GVATT's attention of the whole text over the picture, with a gate for words and picture",
        needs=("sentence", "regions"),
        gives=("fused",),
        default_towers=(_RESNET,),
    ),
    "adacan": FusionPart(
        "AdaCAN's co-attention of each word and the picture, with fusion and filtration gates",
        needs=("regions",),
        gives=("fused",),
        default_towers=(_VGG,),
    ),
    "text-only": FusionPart("no picture", fewest_towers=0, most_towers=0),
}

MAIN_HEAD = "crf"
"""The head whose emissions are the model's logits, and whose tags it gives."""

HEADS: dict[str, Part] = {
    MAIN_HEAD: Part("tagging by a CRF"),
    "boundary": Part("entity boundary detection by a CRF of its own"),
}

LOSSES: dict[str, Part] = {
    "contrastive": Part("contrastive fusion of text and picture view", needs=("views",)),
    "clustering": Part("clustering of entity words around the centres of their types", needs=("fused",)),
    "alignment": Part("contrastive alignment of a text with its picture", needs=("sentence", "regions")),
}


@dataclass(kw_only=True)
class PartSettings(Settings):
    """The settings of a model, which are keys of `MMNERConfig`: those that every model has, then the parts'
    own.
    """

    text_tower: str = option("transformer", "how words are read", table=TEXT_TOWERS)
    fusion: str = option("cross-modal", "how pictures enter the words' features", table=FUSIONS)
    dropout: float = option(0.1, "share >= 0 and < 1", range=DROPOUT)
    objectives: dict[str, float] | None = option(None, "loss weights by name; others are kept")
    # of text towers
    sentence_vector: Literal["mean", "pooler"] = option(
        "mean", "vector of a text: mean of its word states, or the encoder's pooler"
    )
    word_width: int = option(100, "width of a word's embedding", range=POSITIVE)
    word_lstm_width: int = option(200, "width of a word's state, both directions together", range=EVEN)
    character_cnn_width: int = option(30, "width of a character in the character CNN", range=POSITIVE)
    character_filters: int = option(30, "filters of the character CNN", range=POSITIVE)
    character_lstm_width: int = option(25, "width of a character and of its state, each way", range=POSITIVE)
    # of fusions
    fusion_heads: int | None = option(
        None, "attention heads of the fusion; none takes the text encoder's", range=POSITIVE
    )
    # of objectives
    boundary_share: float = option(
        0.0, "share of the converted boundary emissions in the tagging's", range=SHARE
    )
    contrastive_temperature: float = option(0.1, "temperature of the contrastive loss", range=POSITIVE)
    contrastive_image_share: float = option(0.75, "share of image-to-text in that loss", range=SHARE)
    alignment_temperature: float = option(0.5, "temperature of the alignment", range=POSITIVE)


SETTINGS = settings_in(PartSettings)
"""The settings of a model by their names."""


def objective_parts() -> dict[str, Part]:
    """All that may have a weight in `MMNERConfig.objectives`, in the order of their sum."""
    return HEADS | LOSSES


def needs_of(fusion: str, objectives: Iterable[str]) -> set[str]:
    """What the fusion and the objectives of these names read of other parts; unknown names need nothing."""
    known = objective_parts()
    rows = [FUSIONS[fusion], *(known[name] for name in objectives if name in known)]
    return {need for row in rows for need in row.needs}


def describe_type(hint: Any) -> str:
    """A type annotation in words, for error texts."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(describe_type, get_args(hint)))
    return "nothing" if hint is type(None) else hint.__name__ if isinstance(hint, type) else str(hint)


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
