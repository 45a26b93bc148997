"""The table of parts: what each text tower, fusion, head and objective needs and gives, and its settings.

A part is a class and a row here under the same name. `MMNERConfig` reads the rows to check which parts fit
together and to know each setting; this file loads neither torch nor transformers, so that a command line can
list the settings at once.

What parts give and need, by name:

- ``sentence``: a vector of the whole text;
- ``regions``: the regions of the post's pictures;
- ``fused``: features of the words that pictures have entered;
- ``views``: those features in two halves, of the text and of the picture.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin


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
        range: the values that it may have; None: all of its type. A None that the type allows is in every
            range.
        table: the table whose names it may have.
        reads: the objective that must be listed where the setting is not 0.
    """

    type: Any
    default: Any
    help: str
    range: Range | None = None
    table: "Mapping[str, Part] | None" = None
    reads: str | None = None

    def check(self, name: str, value: Any, *, owner: str = "MMNERConfig") -> None:
        """Raises TypeError for a wrong type or a name not in the table, ValueError for one out of range."""
        if self.table is not None and value not in list(self.table):
            names = ", ".join(map(repr, self.table))
            raise TypeError(f"{owner} {name}: expected one of {names}, found {value!r:.200}")
        if not fits_type(value, self.type):
            raise TypeError(f"{owner} {name}: expected {describe_type(self.type)}, found {value!r:.200}")
        if self.range is not None and value is not None and not self.range.holds(value):
            raise ValueError(f"{owner} {name}: expected {self.range.words}, found {value!r:.200}")


@dataclass(frozen=True)
class Part:
    """A row of the table.

    Attributes:
        help: what the part is, in a few words.
        needs: what it reads of other parts, by the names above.
        gives: what others may read of it.
        settings: its own settings by their keys in the config.
    """

    help: str
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class TextTowerPart(Part):
    """The row of a text tower.

    Attributes:
        has_encoder: whether it holds the transformers encoder that `MMNERConfig.text_config` describes. One
            that has none reads words, by the vocabulary of `MMNERConfig.word_vocabulary`.
        reads_characters: whether the processor makes the bytes of each word for it.
    """

    has_encoder: bool = True
    reads_characters: bool = False


@dataclass(frozen=True)
class FusionPart(Part):
    """The row of a fusion.

    Attributes:
        fewest_towers, most_towers: how many picture encoders it reads; None: any number.
        default_objectives: the objectives with their weights where the config names none.
        default_towers: the picture encoders where the config names none, as `VisionTowerConfig` keys.
    """

    fewest_towers: int = 1
    most_towers: int | None = 1
    default_objectives: Mapping[str, float] = field(default_factory=lambda: {"crf": 1.0})
    default_towers: tuple[Mapping[str, Any], ...] = ()

    @property
    def offered(self) -> tuple[str, ...]:
        """What a model of this fusion has for other parts: what it gives, and the regions if it reads any."""
        return (*self.gives, *({"regions"} & set(self.needs)))


_WORD_SETTINGS: dict[str, Setting] = {
    "word_width": Setting(int, 100, "width of a word's embedding", POSITIVE),
    "word_lstm_width": Setting(int, 200, "width of a word's state, both directions together", EVEN),
}
_CNN_SETTINGS: dict[str, Setting] = {
    "character_cnn_width": Setting(int, 30, "width of a character in the character CNN", POSITIVE),
    "character_filters": Setting(int, 30, "filters of the character CNN", POSITIVE),
}
_LSTM_SETTINGS: dict[str, Setting] = {
    "character_lstm_width": Setting(int, 25, "width of a character and of its state, each way", POSITIVE)
}
_SENTENCE_VECTOR = Setting(
    Literal["mean", "pooler"], "mean", "vector of a text: mean of its word states, or the encoder's pooler"
)
_HEADS = Setting(int | None, None, "attention heads of the fusion; none takes the text encoder's", POSITIVE)
_RESNET: dict[str, Any] = {"backbone": "resnet152.tv_in1k"}
_VGG: dict[str, Any] = {"backbone": "vgg16.tv_in1k"}
_CLIP_VIT: dict[str, Any] = {
    "backbone": "vit_base_patch32_clip_224.openai",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "frozen": False,
}

TEXT_TOWERS: dict[str, TextTowerPart] = {
    "transformer": TextTowerPart(
        "any transformers encoder", gives=("sentence",), settings={"sentence_vector": _SENTENCE_VECTOR}
    ),
    "bilstm": TextTowerPart(
        "word embeddings and a BiLSTM", gives=("sentence",), settings=_WORD_SETTINGS, has_encoder=False
    ),
    "cnn-bilstm": TextTowerPart(
        "word embeddings, each joined by a CNN over the word's characters, and a BiLSTM",
        gives=("sentence",),
        settings=_WORD_SETTINGS | _CNN_SETTINGS,
        has_encoder=False,
        reads_characters=True,
    ),
    "hbilstm": TextTowerPart(
        "word embeddings, each joined by a BiLSTM over the word's characters, and a BiLSTM",
        gives=("sentence",),
        settings=_WORD_SETTINGS | _LSTM_SETTINGS,
        has_encoder=False,
        reads_characters=True,
    ),
}

FUSIONS: dict[str, FusionPart] = {
    "cross-modal": FusionPart(
        "MLMNER's cross-modal Transformer with a visual gate",
        needs=("regions",),
        gives=("fused", "views"),
        settings={"fusion_heads": _HEADS},
        default_objectives={"crf": 1.0, "boundary": 0.4, "contrastive": 0.5, "clustering": 0.01},
        default_towers=(_RESNET,),
    ),
    "collaboration": FusionPart(
        "2M-NER's multimodal collaboration",
        needs=("regions",),
        gives=("fused",),
        settings={"fusion_heads": _HEADS},
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

_BOUNDARY_SHARE = Setting(
    float, 0.0, "share of the converted boundary emissions in the tagging's", SHARE, reads="boundary"
)
HEADS: dict[str, Part] = {
    MAIN_HEAD: Part("tagging by a CRF", settings={"boundary_share": _BOUNDARY_SHARE}),
    "boundary": Part("entity boundary detection by a CRF of its own"),
}

LOSSES: dict[str, Part] = {
    "contrastive": Part(
        "contrastive fusion of text and picture view",
        needs=("views",),
        settings={
            "contrastive_temperature": Setting(float, 0.1, "temperature of the contrastive loss", POSITIVE),
            "contrastive_image_share": Setting(float, 0.75, "share of image-to-text in that loss", SHARE),
        },
    ),
    "clustering": Part("clustering of entity words around the centres of their types", needs=("fused",)),
    "alignment": Part(
        "contrastive alignment of a text with its picture",
        needs=("sentence", "regions"),
        settings={"alignment_temperature": Setting(float, 0.5, "temperature of the alignment", POSITIVE)},
    ),
}

COMMON_SETTINGS: dict[str, Setting] = {
    "text_tower": Setting(str, "transformer", "how words are read", table=TEXT_TOWERS),
    "fusion": Setting(str, "cross-modal", "how pictures enter the words' features", table=FUSIONS),
    "dropout": Setting(float, 0.1, "share >= 0 and < 1", DROPOUT),
    "objectives": Setting(dict[str, float] | None, None, "loss weights by name; others are kept"),
}


def objective_parts() -> dict[str, Part]:
    """All that may have a weight in `MMNERConfig.objectives`, in the order of their sum."""
    return HEADS | LOSSES


def needs_of(fusion: str, objectives: Iterable[str]) -> set[str]:
    """What the fusion and the objectives of these names read of other parts; unknown names need nothing."""
    known = objective_parts()
    rows = [FUSIONS[fusion], *(known[name] for name in objectives if name in known)]
    return {need for row in rows for need in row.needs}


def part_settings() -> dict[str, Setting]:
    """The parts' own settings by their keys."""
    rows = (row for table in (TEXT_TOWERS, FUSIONS, HEADS, LOSSES) for row in table.values())
    return {name: setting for row in rows for name, setting in row.settings.items()}


def describe_type(hint: Any) -> str:
    """A type annotation in words, for error texts."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(describe_type(choice) for choice in get_args(hint))
    if get_origin(hint) is not None:
        return f"{get_origin(hint).__name__}[{', '.join(map(describe_type, get_args(hint)))}]"
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
