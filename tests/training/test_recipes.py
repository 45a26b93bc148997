"""Tests of recipes and their command line: what wins over what, what is refused, and that the packaged ones
name parts that fit together.
"""

import re
from dataclasses import fields, replace

import pytest
import yaml

from modeling_mmner import MMNERConfig
from modeling_mmner.cli import main
from modeling_mmner.model.parts_mmner import FUSIONS, SETTINGS
from modeling_mmner.training.assembly import check_model
from modeling_mmner.training.recipe_options import parse_arguments
from modeling_mmner.training.recipes import (
    MODEL_KEYS,
    CorpusSettings,
    ModelSettings,
    Recipe,
    TowerSettings,
    TrainingSettings,
    load_recipe,
    recipe_from_settings,
    recipe_names,
    section_of,
)

MLMNER_OBJECTIVES = {"crf": 1.0, "boundary": 0.4, "contrastive": 0.5, "clustering": 0.01}


@pytest.fixture
def written(tmp_path):
    """A function that writes a recipe's file and gives its path as text."""

    def write(settings, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings), encoding="utf-8")
        return str(path)

    return write


def value_of(recipe, name):
    """A setting of a recipe, wherever it is."""
    part = getattr(recipe, section_of(name) or "", recipe)
    return part.config[name] if name in getattr(part, "config", ()) else getattr(part, name)


def refused(arguments, capsys):
    """What the command line says when it refuses its arguments."""
    with pytest.raises(SystemExit) as stop:
        parse_arguments(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.split("error: ", 1)[1].strip()


# Precedence


def test_command_line_wins_over_recipe_and_recipe_over_default(written):
    """If it failed, a run would not be trained with what its user asked for, also where that is a default."""
    corpus, model = {"use_images": False, "languages": ["fr"]}, {"objectives": {"crf": 0.5}}
    path = written({"corpus": corpus, "model": model, "training": {"epochs": 3}})
    wanted = {"name": "mine", "model": ModelSettings(config=model)}
    recipe = Recipe(corpus=CorpusSettings(**corpus), training=TrainingSettings(epochs=3), **wanted)
    assert parse_arguments(["--recipe", path]) == recipe
    recipe = Recipe(corpus=CorpusSettings(languages=["fr"]), training=TrainingSettings(), **wanted)
    epochs = str(TrainingSettings().epochs)
    assert parse_arguments(["--recipe", path, "--epochs", epochs, "--use_images"]) == recipe


@pytest.mark.parametrize(
    ("fusion", "objectives"),
    [
        ("cross-modal", MLMNER_OBJECTIVES),
        ("collaboration", {"crf": 1.6, "alignment": 0.4}),
        ("text-only", {"crf": 1.0}),
    ],
)
def test_a_fusion_alone_is_its_system(fusion, objectives, written):
    """Regression: a recipe with `fusion: cross-modal` alone trained one of MLMNER's four objectives."""
    for model in ({"fusion": fusion}, {"fusion": fusion, "objectives": None}):
        path = written({"model": model})
        recipe, default = load_recipe(path), MMNERConfig(fusion=fusion)
        assert MMNERConfig(**recipe.model.config).objectives == recipe.model.objectives == objectives
        assert recipe.to_dict()["model"]["objectives"] == objectives
        assert len(recipe.model.towers) == len(default.vision_towers)
        changed = parse_arguments(["--recipe", path, "--objectives", "crf=2"]).model.objectives
        assert changed == objectives | {"crf": 2.0}


def test_what_a_recipe_says_of_the_model_reaches_the_config_unread(written):
    """If it failed, a new part's setting would have to be named in the recipe's code, too."""
    values = {name: setting.default for name, setting in SETTINGS.items()} | {"objectives": {"crf": 1.0}}
    values |= {"fusion_heads": 2, "dropout": 0.25}
    recipe = load_recipe(written({"model": values}))
    config = MMNERConfig(**recipe.model.config)
    assert recipe.model.config == values == {name: getattr(config, name) for name in values}


def test_settings_of_a_recipe_are_those_of_its_file():
    """If it failed, a recipe that was written down could not be read again."""
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe_from_settings(recipe.to_settings(), source="again") == recipe.with_settings() == recipe
        changed = recipe.with_settings(objectives={"crf": 2.0}, epochs=1)
        assert changed.to_settings()["model"]["objectives"] == {"crf": 2.0}


_TEXTS = (
    *("dataset", "dataset_config", "data_dir", "image_dir", "language", "test_dataset", "split_ratio"),
    *("text_encoder", "word_vectors", "output_dir", "feature_cache", "resume", "context", "context_writer"),
    "card_examples",
)
_LISTS = ("tag_names", "languages", "test_languages", "context_file")
_FIELDS = [item for section in (CorpusSettings, ModelSettings, TrainingSettings) for item in fields(section)]
_KEYS = MODEL_KEYS
OPTIONS: dict[str, tuple[str, object]] = {
    **{item.name: ("3", 3) for item in _FIELDS if item.type in (int, int | None)},
    **{item.name: ("0.25", 0.25) for item in _FIELDS if item.type is float},
    **{name: ("0.25", 0.25) for name, setting in _KEYS.items() if setting.type is float},
    **{name: ("6", 6) for name, setting in _KEYS.items() if setting.type is int},
    **dict.fromkeys(_TEXTS, ("a/b c", "a/b c")),
    **dict.fromkeys(_LISTS, ("fr,de", ["fr", "de"])),
    "tag_scheme": ("iob1", "iob1"),
    "word_rule": ("characters", "characters"),
    "terms": ("org/mine=mit,x=none", load_recipe("bert-crf").terms | {"org/mine": "mit", "x": "none"}),
    "rename_types": ("OTHER=MISC,x=y", {"OTHER": "MISC", "x": "y"}),
    "columns": ("tokens=words,image=photo", {"tokens": "words", "image": "photo"}),
    "split_slices": ("train=val[:20],test=test[::2]", {"train": "val[:20]", "test": "test[::2]"}),
    "text_config": ("{model_type: bert}", {"model_type": "bert"}),
    "text_tower": ("transformer", "transformer"),
    "vision_towers": ("[{backbone: a}]", [TowerSettings("a")]),
    "fusion": ("cross-modal", "cross-modal"),
    "fusion_heads": ("2", 2),
    "sentence_vector": ("pooler", "pooler"),
    "objectives": ("crf=2,boundary=0.5", {"crf": 2.0, "boundary": 0.5}),
    "mixed_precision": ("bf16", "bf16"),
    "report_to": ("wandb", "wandb"),
}
FLAGS = [item.name for item in _FIELDS if item.type is bool]


def test_options_here_are_all_settings():
    """If it failed, a setting was added and the next tests do not try its option."""
    assert {*OPTIONS, *FLAGS} == {item.name for item in _FIELDS} - {"config"} | set(_KEYS) | {"terms"}


@pytest.mark.parametrize(("name", "text", "value"), [(name, *pair) for name, pair in OPTIONS.items()])
def test_every_setting_is_an_option(name, text, value):
    """If it failed, a setting could not be changed from the command line, or would arrive as another type."""
    base = {"word_vectors": "bilstm-crf", "context_file": "bert-crf-context"}.get(name, "bert-crf")
    found = value_of(parse_arguments(["--recipe", base, f"--{name}", text]), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_has_its_opposite(name):
    """If it failed, a flag that a recipe sets could not be taken back; `no_verify` has `--verify`."""
    opposite = "verify" if name == "no_verify" else f"no_{name}"
    for option, value in ((name, True), (opposite, False)):
        recipe = parse_arguments(["--recipe", "bert-crf", f"--{option}"])
        assert value_of(recipe, name) is value, option


@pytest.mark.parametrize("name", ["text_encoder", "data_dir", "image_dir", "fusion_heads"])
def test_none_on_the_command_line_is_nothing(name, written):
    """If it failed, what a recipe sets could not be taken back; --fusion_heads none once was an error."""
    path = written({section_of(name): {name: 4 if name == "fusion_heads" else "x"}})
    assert value_of(parse_arguments(["--recipe", path, f"--{name}", "none"]), name) is None


def test_mappings_are_merged_by_key():
    """If it failed, switching one objective off would drop the others, the main task among them."""
    recipe = parse_arguments(["--recipe", "mlmner", "--objectives", "clustering=0,boundary=0.9"])
    assert recipe.model.config["objectives"] == MLMNER_OBJECTIVES | {"boundary": 0.9, "clustering": 0.0}
    assert load_recipe("mlmner", {"objectives": {"clustering": 0, "boundary": 0.9}}) == recipe
    quickstart = load_recipe("quickstart")
    assert parse_arguments([]) == quickstart
    smaller = parse_arguments(["--text_config", "{hidden_size: 64}"]).model.config["text_config"]
    assert smaller == quickstart.model.config["text_config"] | {"hidden_size": 64}


# Help


def test_help_shows_the_recipe_s_values_and_choices(capsys):
    """If it failed, the help would show defaults that a run with this recipe does not have."""
    for recipe, dataset, rate in (("quickstart", "sample", "0.001"), ("mlmner", "twitter2017", "0.0001")):
        with pytest.raises(SystemExit) as stop:
            parse_arguments(["--help", "--recipe", recipe])
        entries = re.split(r"\n  --", capsys.readouterr().out)
        said = {entry.split()[0]: " ".join(entry.split()) for entry in entries}
        assert not stop.value.code and said["mixed_precision"].startswith(
            "mixed_precision <auto|no|bf16|fp16>"
        )
        assert said["dataset"].endswith(f"[default: {dataset}]")
        assert said["head_learning_rate"].endswith(f"[default: {rate}]")
        assert said["use_images"].startswith("use_images / --no_use_images ")


def test_help_of_a_table_shows_no_recipe_s_values(capsys):
    """If it failed, the help of `reproduce`, whose rows have their own recipes, would show others."""
    assert main(["reproduce", "--help"]) == 0
    settings = capsys.readouterr().out.split("\ncorpus:")[1]
    assert "--head_learning_rate" in settings and "[default:" not in settings


# Towers


def test_vision_flags_change_one_key_of_each_tower(written):
    """If it failed, another backbone would lose the tower's other settings or two towers get each other's."""
    [tower] = load_recipe("mlmner").model.towers
    flags = ["--vision_backbone", "tf_efficientnet_lite0", "--vision_checkpoint", "w.safetensors"]
    changed = replace(tower, backbone="tf_efficientnet_lite0", checkpoint="w.safetensors")
    assert parse_arguments(["--recipe", "mlmner", *flags]).model.towers == [changed]
    two = written({"model": {"vision_towers": [{"backbone": "a", "image_size": 32}, {"backbone": "b"}]}})
    found = parse_arguments(["--recipe", two, "--vision_backbone", "c,d"]).model.towers
    assert found == [TowerSettings("c", image_size=32), TowerSettings("d")]
    sparse = written("model: {fusion: cross-modal, text_encoder: org/bert}")
    [default] = load_recipe(sparse).model.towers
    found = load_recipe(sparse, {"vision_backbone": "resnet50", "vision_checkpoint": ""}).model.towers
    assert found == [replace(default, backbone="resnet50")]


def test_towers_follow_the_fusion_until_they_are_given():
    """If it failed, another fusion on top of a recipe would be built with the towers of the first."""
    recipe = Recipe().with_settings(fusion="collaboration")
    names = [tower["backbone"] for tower in FUSIONS["collaboration"].default_towers]
    assert [tower.backbone for tower in recipe.model.towers] == names
    assert recipe.with_settings(fusion="text-only").model.towers == []
    assert len(recipe.to_dict()["model"]["vision_towers"]) == 2


# What is refused


def test_unknown_key_is_refused(written):
    """If it failed, a misspelt setting in a recipe or a program would do nothing."""
    unknown = r"unknown keys \['epoch'\]; expected some of .*'epochs'.*; did you mean 'epochs'"
    with pytest.raises(ValueError, match=rf"mine\.yaml', section 'training': {unknown}"):
        load_recipe(written({"training": {"epoch": 3}}))
    with pytest.raises(ValueError, match=f"recipe 'mlmner': {unknown}"):
        load_recipe("mlmner", {"epoch": 3})


WRONG_FILES = [
    ("", r"mine\.yaml': expected a mapping of settings, found None"),
    ("epochs: 3", r"\['epochs'\].*; 'epochs' belongs to the section 'training'"),
    ("epochs: [", r"mine\.yaml': expected a file of YAML; while parsing"),
    ("training: fast", "section 'training': expected a mapping of settings, found 'fast'"),
    ("training: {epochs: three}", "recipe epochs: expected int, found 'three'"),
    ("corpus: {use_images: 1}", "recipe use_images: expected bool, found 1"),
    ("corpus: {languages: en}", "recipe languages: expected list.*, found 'en'"),
    ("model: {objectives: {crf: high}}", "recipe objectives: expected dict.*, found {'crf': 'high'}"),
    ("model: {vision_towers: [resnet]}", r"recipe vision_towers: expected list.*, found \['resnet'\]"),
    ("model: {vision_towers: [{size: 3}]}", r"recipe vision_towers: unknown keys \['size'\]; .*'backbone'"),
    (
        "model: {vision_towers: [{pooled: true}]}",
        "vision_towers backbone: expected a timm model's name, found",
    ),
    ("corpus: {tag_scheme: iob2}", "recipe tag_scheme: expected one of 'auto', 'bio', .*, found 'iob2'"),
    ("model: {fusion: [umt]}", r"recipe fusion: expected one of .* found \['umt'\]"),
    ("model: {contrastive_temperature: 0}", "contrastive_temperature: expected > 0, found 0"),
    ("training: {learning_rate: .nan}", "recipe learning_rate: expected > 0, found nan"),
    ("corpus: {data_dir: 3}", "recipe data_dir: expected str or nothing, found 3"),
    ("terms: {org/mine: Apache 2}", "recipe terms, org/mine: expected a licence as the Hub .* 'Apache 2'"),
    ("training: {num_workers: -2}", "recipe num_workers: expected a number >= 0, found -2"),
    ("license: mit", r"unknown keys \['license'\]; expected some of .*'terms'"),
    ("corpus: {context_file: [a]}", "recipe context: expected the column, .* found None"),
    ("model: {text_tower: bilstm, text_encoder: a/b}", "text_encoder: expected none with a text .* 'a/b'"),
    ("model: {word_vectors: a.txt}", "word_vectors: expected none with a text tower of sub-tokens, found 'a"),
]


@pytest.mark.parametrize(("content", "message"), WRONG_FILES)
def test_wrong_values_in_a_file_are_refused(written, content, message):
    """If it failed, a wrong value would end the run hours later, with an error that does not name it."""
    with pytest.raises((TypeError, ValueError), match=message):
        load_recipe(written(content))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "2.5"], "Invalid value for '--epochs': "),
        (["--epohs", "2"], "No such option: --epohs (Possible options: --epochs, "),
        (["--name", "x"], "No such option: --name"),
        (["--use_images", "false"], "Got unexpected extra argument(s) (false)"),
        (["--objectives", "crf"], "Invalid value for '--objectives': expected NAME=WEIGHT,..., found 'crf'"),
        (["--text_config", "{a"], "Invalid value for '--text_config': expected YAML, found '{a'"),
        (["--mixed_precision", "fp8"], "Invalid value for '--mixed_precision': "),
        (["--epochs", "0"], "Invalid value for '--epochs': expected at least 1, found 0"),
        (["--recipe", "mlnmer"], f"recipe 'mlnmer': expected one of {recipe_names()} or the path of a .yaml"),
        (
            ["--recipe", "mlmner", "--vision_backbone", "a,b"],
            "recipe vision_backbone: expected 1 values, one per",
        ),
        (
            ["--recipe", "bert-crf", "--vision_backbone", "a"],
            "recipe vision_backbone: expected 0 values, one per",
        ),
        (["--recipe", "not/there.yaml"], "recipe 'not/there.yaml': expected a file of YAML; [Errno 2]"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, message, capsys):
    """If it failed, a slip on the command line would end in a trace, as a missing recipe file once did."""
    text = refused(arguments, capsys)
    assert text.startswith(message) and "\n" not in text
    assert "mlnmer" not in arguments or text.endswith("; did you mean 'mlmner'?")


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("3E5", 3e5), ("2.0e-3", 2e-3), ("1", 1)])
def test_numbers_as_people_write_them_are_numbers(written, text, value):
    """If it failed, 1e-4 in a recipe would be an error, since YAML takes it for a string."""
    recipe = load_recipe(
        written(f"training: {{weight_decay: {text}}}\nmodel: {{objectives: {{crf: {text}}}}}")
    )
    assert recipe.training.weight_decay == recipe.model.config["objectives"]["crf"] == value


# The packaged recipes


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipe_names_parts_that_fit_together(name):
    """If it failed, a packaged recipe would fail when its model is made."""
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.description
    check_model(recipe)
    needs_encoder = recipe.model.text_tower.has_encoder
    assert ((recipe.model.text_encoder is not None) + ("text_config" in recipe.model.config)) == needs_encoder
    if "quickstart" in name:  # the first command that a user tries downloads nothing
        assert recipe.model.text_encoder is None and recipe.corpus.dataset == "sample"
        assert not any(tower.has_weights for tower in recipe.model.towers)


def test_recipes_have_the_papers_settings():
    """If it failed, the recipes of these names would not be the systems of the papers."""
    recipe = load_recipe("mlmner")
    config, (tower,) = recipe.model.config, recipe.model.towers
    assert config["objectives"] == MLMNER_OBJECTIVES
    assert (config["contrastive_temperature"], config["contrastive_image_share"]) == (0.1, 0.75)
    assert (recipe.training.batch_size, recipe.model.text_encoder) == (32, "google-bert/bert-base-cased")
    assert tower.backbone == "timm/resnet152.tv_in1k"

    recipe = load_recipe("2m-ner")
    config, training = recipe.model.config, recipe.training
    assert config["objectives"] == {"crf": pytest.approx(2 * 0.8), "alignment": pytest.approx(2 * (1 - 0.8))}
    assert (config["alignment_temperature"], training.batch_size, training.epochs) == (0.5, 32, 8)
    assert training.learning_rate == training.head_learning_rate == 5e-5  # Adam, linear decay, no warm-up
    assert (training.warmup_share, training.weight_decay) == (0.0, 0.0)
    assert recipe.model.text_encoder == "google-bert/bert-base-multilingual-cased"
    assert recipe.corpus.languages == ["en", "fr", "de", "es"]
    vit, resnet = recipe.model.towers
    assert (vit.backbone, vit.frozen) == ("timm/vit_base_patch32_clip_224.openai", False)
    assert (resnet.backbone, resnet.frozen, resnet.pooled) == ("timm/resnet152.tv_in1k", True, True)


# What a recipe says of its own corpus


@pytest.mark.parametrize("name", recipe_names())
def test_what_a_recipe_says_of_its_corpus_does_not_outlive_another(name, tmp_path):
    """Regression: a model of somebody's own posts was published as the recipe's, in its languages, its
    contexts written by another model than the user's; and a config of the old corpus stopped the run.
    """
    (tmp_path / "my.posts.jsonl").touch()
    before = load_recipe(name)
    for dataset, title in (("org/posts.v2", "posts.v2"), (str(tmp_path / "my.posts.jsonl"), "my.posts")):
        recipe = load_recipe(name, {"dataset": dataset})
        assert (recipe.name, recipe.description) == (title, "")
        assert (recipe.corpus.languages, recipe.corpus.dataset_config) == ([], None)
        assert recipe.corpus.context_writer is None and before.corpus.dataset not in recipe.terms
        assert (recipe.model, recipe.training) == (before.model, before.training)
    given = {"languages": ["nl"], "dataset_config": "small", "context_writer": "people"}
    recipe = load_recipe(name, given | {"dataset": "org/posts"})
    assert {key: getattr(recipe.corpus, key) for key in given} == given
    same = load_recipe(name, {"dataset": before.corpus.dataset, "data_dir": "elsewhere"})
    assert (same.name, same.corpus.languages) == (name, before.corpus.languages)
