"""Tests of the configs: their defaults, what they refuse and in which words, and that saving changes
nothing.
"""

import inspect
import json
import warnings
from dataclasses import fields
from inspect import get_annotations

import pytest
import timm
import torch
from transformers import AutoConfig, BertConfig, PreTrainedConfig

from modeling_mmner import MMNERConfig, MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.parts_mmner import SETTINGS as TABLE
from modeling_mmner.model.parts_mmner import fits_type
from modeling_mmner.training.assembly import build_config
from modeling_mmner.training.recipes import load_recipe
from modeling_mmner.training.vocabulary import train_tokenizer
from tests.tiny import LABELS, TEXT, TOWER, WORDS, tiny_config, tiny_model

TYPES = ["PER", "LOC", "ORG", "MISC"]
OWN_KEYS = (
    "['alignment_temperature', 'boundary_share', 'character_cnn_width', 'character_filters',"
    " 'character_lstm_width', 'contrastive_image_share', 'contrastive_temperature', 'dropout', 'fusion',"
    " 'fusion_heads', 'id2label', 'objectives', 'sentence_vector', 'text_config', 'text_tower',"
    " 'vision_towers', 'word_lstm_width', 'word_vocabulary', 'word_width']"
)
SETTINGS = {*get_annotations(MMNERConfig), *TABLE}


def test_defaults_are_those_of_mlmner():
    """If it failed, `MMNERConfig()` would not be the paper's model: tables 1 and 2, BERT and ResNet-152."""
    config = MMNERConfig()
    assert config.labels == ["O"] + [f"{prefix}-{kind}" for kind in TYPES for prefix in "BI"]
    assert config.objectives == {"crf": 1.0, "boundary": 0.4, "contrastive": 0.5, "clustering": 0.01}
    assert (config.contrastive_temperature, config.contrastive_image_share) == (0.1, 0.75)
    assert (config.fusion, config.text_tower) == ("cross-modal", "transformer")
    text = config.text_config
    sizes = (text.hidden_size, text.num_hidden_layers, text.vocab_size)
    assert (text.model_type, *sizes) == ("bert", 768, 12, 28996)
    (tower,) = config.vision_tower_configs()
    assert (tower.backbone, tower.image_size, tower.frozen) == ("resnet152.tv_in1k", 224, True)
    assert (tower.mean, tower.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert config.label2id == {label: index for index, label in enumerate(config.labels)}


def test_defaults_of_collaboration_are_those_of_2m_ner():
    """If it failed, the fusion alone would not make the paper's model."""
    config = MMNERConfig(fusion="collaboration")
    assert config.objectives == {"crf": 1.6, "alignment": 0.4}
    assert (config.alignment_temperature, config.sentence_vector) == (0.5, "mean")
    towers = config.vision_tower_configs()
    assert [(tower.backbone, tower.image_size, tower.frozen, tower.pooled) for tower in towers] == [
        ("vit_base_patch32_clip_224.openai", 224, False, False),
        ("resnet152.tv_in1k", 224, True, True),
    ]
    assert MMNERConfig().fusion == "cross-modal" and "alignment" not in MMNERConfig().objectives


@pytest.mark.parametrize("name", ["mlmner", "2m-ner"])
def test_defaults_equal_the_recipe(name):
    """If it failed, the recipe and the config's defaults would be two different systems."""
    recipe = load_recipe(name, {"text_encoder": None, "text_config": {"model_type": "bert"}})
    config = MMNERConfig(fusion=recipe.model.config["fusion"])
    built = build_config(
        recipe, MMNERProcessor(train_tokenizer([["a"]], 60), labels=config.labels, image_size=224)
    )
    for key in SETTINGS - {"text_config"}:
        assert getattr(built, key) == getattr(config, key), key


@pytest.mark.parametrize("key", ["dropuot", "loss_weights", "image_size"])
def test_unknown_key_is_refused_with_the_known_ones(key):
    """If it failed, a misspelt setting would be kept as an attribute that nobody reads."""
    with pytest.raises(TypeError) as error:
        MMNERConfig(**{key: 1})
    assert str(error.value) == f"MMNERConfig: unknown keys ['{key}']; its own keys are {OWN_KEYS}"


def test_unknown_key_of_a_tower_is_refused_with_the_known_ones():
    """If it failed, a misspelt setting of a vision tower would do nothing."""
    with pytest.raises(TypeError) as error:
        tiny_config(tower={"freeze": True})
    own = ["backbone", "backbone_args", "frozen", "image_size", "mean", "pooled", "std"]
    assert str(error.value) == f"VisionTowerConfig: unknown keys ['freeze']; its own keys are {own}"


def test_unknown_key_of_a_saved_config_is_dropped_with_a_warning(tmp_path):
    """If it failed, a config of a newer version could not be loaded, or would be taken for understood."""
    tiny_config(dropout=0.3).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(saved | {"of_tomorrow": 1}), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"config: ignored the unknown keys \['of_tomorrow'\]; a newer"):
        config = MMNERConfig.from_pretrained(tmp_path)
    assert not hasattr(config, "of_tomorrow") and config.dropout == 0.3


@pytest.mark.parametrize("loader", [MMNERConfig, MMNERForTokenClassification])
def test_misspelt_override_is_refused(loader, tmp_path):
    """If it failed, `from_pretrained(..., dropuot=0.2)` would load the saved dropout without a word."""
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="config: unknown key 'dropuot'; did you mean 'dropout'"):
        loader.from_pretrained(tmp_path, dropuot=0.2)


REFUSED_TYPES = {
    "fusion": ("late", "MMNERConfig fusion: expected one of 'cross-modal', .* 'text-only', found 'late'"),
    "sentence_vector": ("first", "MMNERConfig sentence_vector: expected one of 'mean', 'pooler', found"),
    "alignment_temperature": (None, "MMNERConfig alignment_temperature: expected float, found None"),
    "dropout": ("0.1", "MMNERConfig dropout: expected float, found '0.1'"),
    "text_tower": ("words", "MMNERConfig text_tower: expected one of 'transformer', 'bilstm', .*, found"),
    "fusion_heads": (True, "MMNERConfig fusion_heads: expected int or nothing, found True"),
    "vision_towers": ("resnet10t", "MMNERConfig vision_towers: expected list.*, found 'resnet10t'"),
    "objectives": (["crf"], r"MMNERConfig objectives: expected dict.*, found \['crf'\]"),
    "text_config": (3, "MMNERConfig text_config: expected .*, found 3"),
    "id2label": (["O"], r"MMNERConfig id2label: expected dict or nothing, found \['O'\]"),
}


@pytest.mark.parametrize(
    ("key", "value", "message"), [(key, *row) for key, row in REFUSED_TYPES.items()], ids=REFUSED_TYPES
)
def test_value_of_another_type_is_refused(key, value, message):
    """If it failed, a value from a JSON file would fail much later, or be read as another."""
    with pytest.raises(TypeError, match=message):
        MMNERConfig(**{key: value})


REFUSED_VALUES = {
    "negative weight": ({"objectives": {"crf": 1, "boundary": -1}}, "expected a weight >= 0 for"),
    "weight NaN": ({"objectives": {"crf": float("nan")}}, "expected a weight >= 0 for 'crf', found nan"),
    "no weight": ({"objectives": {"crf": 0.0}}, "objectives: expected a weight > 0 for at least one, found"),
    "unknown task": ({"objectives": {"crf": 1, "nerf": 1}}, r"expected names among \['crf'"),
    "no main task": ({"objectives": {"boundary": 1}}, r"expected 'crf', the main task, found \['boundary'\]"),
    "pictures missing": (
        {"fusion": "text-only", "objectives": {"crf": 1, "contrastive": 1}},
        "objectives: 'contrastive' needs the fusion 'cross-modal', found 'text-only'",
    ),
    "nothing to align": (
        {"fusion": "text-only", "objectives": {"crf": 1, "alignment": 1}},
        (
            "objectives: 'alignment' needs the fusion 'cross-modal' or 'collaboration' or 'gvatt' or"
            " 'adacan', found 'text-only'"
        ),
    ),
    "tower too many": ({"fusion": "text-only", "vision_towers": [TOWER]}, "vision_towers: expected 0 of"),
    "no tower": ({"fusion": "collaboration", "vision_towers": []}, "vision_towers: expected 1 or more"),
    "dropout": ({"dropout": 1.0}, r"dropout: expected a share >= 0 and < 1, found 1.0"),
    "temperature": ({"contrastive_temperature": 0.0}, "contrastive_temperature: expected > 0, found 0.0"),
    "share": ({"contrastive_image_share": 1.5}, r"contrastive_image_share: expected 0\.\.1, found 1.5"),
    "image size": ({"vision_towers": [TOWER | {"image_size": 0}]}, "vision tower image_size: expected"),
    "odd width": ({"text_tower": "bilstm", "word_lstm_width": 31}, "word_lstm_width: expected an even"),
    "no vocabulary": ({"text_tower": "bilstm", "word_vocabulary": {"size": 5}}, "word_vocabulary: expected"),
    "an encoder too many": ({"text_tower": "hbilstm", "text_config": TEXT}, "text_config: expected none"),
    "a vocabulary too many": ({"word_vocabulary": WORDS["word_vocabulary"]}, "word_vocabulary: expected"),
    "boundaries too many": ({"boundary_share": 1.5}, r"boundary_share: expected 0\.\.1, found 1.5"),
    "a decoder": (
        {"text_config": {"model_type": "bart"}},
        "expected an encoder, .* found bart, whose states",
    ),
    "mean": ({"vision_towers": [TOWER | {"mean": [0.5]}]}, "vision tower mean: expected 3 values, one per"),
}


def test_settings_are_arguments_that_editors_know():
    """If it failed, completion and type checkers would know none of the settings of a model."""
    arguments = inspect.signature(MMNERConfig).parameters
    assert arguments.keys() >= SETTINGS
    assert {name: arguments[name].default for name in TABLE} == {
        name: setting.default for name, setting in TABLE.items()
    }


@pytest.mark.parametrize(("settings", "message"), REFUSED_VALUES.values(), ids=REFUSED_VALUES)
def test_value_out_of_range_is_refused(settings, message):
    """If it failed, a model would be built that cannot be trained, or with parts that do not fit together."""
    with pytest.raises(ValueError, match=message):
        tiny_config(**settings)


CONFIGS = {
    "default": {},
    "tiny": {"text_config": TEXT, "vision_towers": [TOWER | {"frozen": False}], "dropout": 0.25},
    "text only": {"fusion": "text-only", "fusion_heads": 2},
    "another encoder": {
        "text_config": {"model_type": "roberta", "hidden_size": 48, "num_attention_heads": 4}
    },
    "labels": {"id2label": dict(enumerate(LABELS))},
    "2m-ner": {"fusion": "collaboration", "sentence_vector": "pooler", "alignment_temperature": 0.25},
    "three towers": {"fusion": "collaboration", "vision_towers": [TOWER, TOWER | {"pooled": True}, TOWER]},
    "objectives": {"objectives": {"crf": 2, "clustering": 0.5, "boundary": 0}},
}


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("loader", [MMNERConfig, AutoConfig])
def test_config_is_the_same_after_saving(settings, loader, tmp_path):
    """If it failed, a saved model would come back as another one, or with warnings about its own keys."""
    config = MMNERConfig(**settings)
    config.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is MMNERConfig and type(loaded.text_config) is type(config.text_config)
    own = [*SETTINGS, *(field.name for field in fields(MMNERConfig))]
    ours, theirs = config.to_dict(), loaded.to_dict()
    assert {name: ours.get(name) for name in own} == {name: theirs.get(name) for name in own}
    assert loaded.labels == config.labels and loaded.label2id == config.label2id
    assert all(
        theirs["text_config"][name] == value for name, value in settings.get("text_config", {}).items()
    )


def test_order_of_tasks_is_the_same_after_saving(tmp_path):
    """Regression: JSON's sorted keys changed the order in which losses are summed, so their last bit."""
    config = tiny_config(objectives={"clustering": 0.5, "boundary": 0.1, "crf": 2.0})
    config.save_pretrained(tmp_path)
    loaded = MMNERConfig.from_pretrained(tmp_path)
    assert list(loaded.objectives) == list(config.objectives) == ["crf", "boundary", "clustering"]


def test_defaults_of_two_configs_are_apart():
    """If it failed, changing one model's towers would change the defaults of all made after it."""
    one = MMNERConfig(fusion="collaboration")
    one.vision_towers[0]["mean"][0], one.objectives["crf"] = 9.0, 9.0
    other = MMNERConfig(fusion="collaboration")
    assert other.vision_towers[0]["mean"][0] != 9.0 and other.objectives["crf"] == 1.6


def test_default_towers_have_the_normalisation_of_their_weights():
    """If it failed, a backbone would see pixels unlike those of its pretraining."""
    for fusion in ("cross-modal", "collaboration"):
        for tower in MMNERConfig(fusion=fusion).vision_tower_configs():
            weights = timm.get_pretrained_cfg(tower.backbone)
            assert (tuple(tower.mean), tuple(tower.std)) == (weights.mean, weights.std), tower.backbone
            assert weights.input_size == (3, tower.image_size, tower.image_size)


def test_dtype_of_the_text_encoder_s_checkpoint_does_not_count():
    """If it failed, an encoder published in bfloat16 would be trained in it while all else is in float32."""
    model = tiny_model(text={"dtype": "bfloat16"})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_towers_are_filled_in_and_apart():
    """If it failed, the defaults of a tower would change saved models when they change."""
    tower = {"backbone": "resnet10t"}
    one, other = tiny_config(vision_towers=[tower]), tiny_config(vision_towers=[tower])
    normalisation = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    others = {"backbone_args": None, "image_size": 224, "frozen": True, "pooled": False}
    assert one.vision_towers == [tower | normalisation | others]
    assert tower == {"backbone": "resnet10t"}
    one.vision_towers[0]["frozen"] = False
    assert other.vision_towers[0]["frozen"] is True


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, float, True),
        (1.5, int, False),
        (True, int, False),
        (True, float, False),
        (True, bool, True),
        (1, bool, False),
        (None, int | None, True),
        ([1, 2.5], list[float], True),
        ([1, "a"], list[float], False),
        ({"a": 1}, dict[str, float], True),
        ({"a": "b"}, dict[str, float], False),
        (BertConfig(), dict | PreTrainedConfig, True),
    ],
)
def test_types_are_checked_as_a_reader_expects(value, hint, fits):
    """If it failed, 1 would be refused as a float, or True be taken for a number."""
    assert fits_type(value, hint) is fits


def test_text_config_may_be_a_config_or_its_dict():
    """If it failed, `text_config=AutoConfig.from_pretrained(...)` would be another encoder than its dict."""
    settings = {name: value for name, value in TEXT.items() if name != "model_type"}
    one, other = tiny_config(text_config=BertConfig(**settings)), tiny_config(text_config=TEXT)
    assert one.text_config.to_dict() == other.text_config.to_dict()
