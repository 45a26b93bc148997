"""Tests of recipes: what wins over what, what is refused, and that the packaged ones name parts that fit together."""

from dataclasses import fields

import pytest
import yaml

import modeling_mmner.recipes
from modeling_mmner import MMNERConfig
from modeling_mmner.recipes import Recipe, load_recipe, parse_arguments, recipe_from_settings, recipe_names


@pytest.fixture
def written(tmp_path):
    """A function that writes a recipe's file and gives its path as text."""

    def write(settings, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings), encoding="utf-8")
        return str(path)

    return write


def refused(arguments, capsys):
    """What the command line says when it refuses its arguments."""
    with pytest.raises(SystemExit) as stop:
        parse_arguments(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.split("error: ", 1)[1].strip()


# Precedence


def test_command_line_wins_over_recipe_and_recipe_over_default(written):
    """If it failed, a run would not be trained with what its user asked for."""
    path = written({"epochs": 3, "seed": 5})
    recipe = parse_arguments(["--recipe", path, "--epochs", "7"])
    assert (recipe.epochs, recipe.seed, recipe.batch_size) == (7, 5, Recipe().batch_size)


def test_an_option_that_is_not_given_changes_nothing(written):
    """If it failed, the command line's own defaults would override the recipe."""
    settings = {"name": "mine", "epochs": 3, "use_images": False, "languages": ["fr"], "objectives": {"crf": 0.5}}
    assert parse_arguments(["--recipe", written(settings)]) == Recipe(**settings)


def test_quickstart_is_the_default_recipe():
    """If it failed, the one command of the README would train something else."""
    assert parse_arguments([]) == load_recipe("quickstart")


_TEXTS = ("dataset", "dataset_config", "data_dir", "image_dir", "test_dataset", "text_encoder", "output_dir")
OPTIONS: dict[str, tuple[str, object]] = {
    **{item.name: ("3", 3) for item in fields(Recipe) if item.type is int},
    **{item.name: ("0.25", 0.25) for item in fields(Recipe) if item.type is float},
    **{item.name: (str(not item.default).lower(), not item.default) for item in fields(Recipe) if item.type is bool},
    **dict.fromkeys(_TEXTS, ("a/b c", "a/b c")),
    "tag_scheme": ("iob1", "iob1"),
    "terms": ("org/mine=mit,x=none", load_recipe("bert-crf").terms | {"org/mine": "mit", "x": "none"}),
    "rename_types": ("OTHER=MISC,x=y", {"OTHER": "MISC", "x": "y"}),
    **dict.fromkeys(("languages", "test_languages", "exclude_test_of"), ("fr,de", ["fr", "de"])),
    "split_slices": ("train=val[:20],test=test[::2]", {"train": "val[:20]", "test": "test[::2]"}),
    "text_config": ("{model_type: bert}", {"model_type": "bert"}),
    "vision_towers": ("[{backbone: a}]", [{"backbone": "a"}]),
    "fusion": ("cross-modal", "cross-modal"),
    "fusion_heads": ("2", 2),
    "objectives": ("crf=2,boundary=0.5", {"crf": 2.0, "boundary": 0.5}),
    "mixed_precision": ("bf16", "bf16"),
}


def test_options_here_are_all_settings():
    """If it failed, a setting was added and the next test does not try its option."""
    assert set(OPTIONS) == {item.name for item in fields(Recipe)} - {"name", "description"}


@pytest.mark.parametrize(("name", "text", "value"), [(name, *pair) for name, pair in OPTIONS.items()])
def test_every_setting_is_an_option(name, text, value):
    """If it failed, a setting could not be changed from the command line, or would arrive as another type."""
    found = getattr(parse_arguments(["--recipe", "bert-crf", f"--{name}", text]), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("name", ["text_encoder", "data_dir", "image_dir", "fusion_heads"])
def test_none_on_the_command_line_is_nothing(name, written):
    """If it failed, what a recipe sets could not be taken back; --fusion_heads none, as its help says, once was an error."""
    path = written({name: 4 if name == "fusion_heads" else "x"})
    assert getattr(parse_arguments(["--recipe", path, f"--{name}", "none"]), name) is None


def test_objectives_are_merged_by_name():
    """If it failed, switching one objective off would drop the others, the main task among them."""
    recipe = parse_arguments(["--recipe", "mlmner", "--objectives", "clustering=0,boundary=0.9"])
    assert recipe.objectives == {"crf": 1.0, "boundary": 0.9, "contrastive": 0.5, "clustering": 0.0}
    assert load_recipe("mlmner", {"objectives": {"clustering": 0, "boundary": 0.9}}) == recipe


def test_text_config_is_merged_by_key():
    """If it failed, a smaller encoder from scratch would lose its type."""
    recipe = parse_arguments(["--text_config", "{hidden_size: 64}"])
    assert recipe.text_config == load_recipe("quickstart").text_config | {"hidden_size": 64}


def test_recipes_share_nothing():
    """If it failed, changing one recipe would change the next that is made."""
    Recipe().objectives["crf"] = 9.0
    load_recipe("mlmner").vision_towers[0]["frozen"] = False
    assert Recipe().objectives == {"crf": 1.0}
    assert load_recipe("mlmner").vision_towers[0]["frozen"] is True


# Towers


def test_vision_flags_change_one_key_of_each_tower():
    """If it failed, another backbone would lose the tower's other settings, or a checkpoint be ignored."""
    [tower] = load_recipe("mlmner").vision_towers
    arguments = ["--recipe", "mlmner", "--vision_backbone", "tf_efficientnet_lite0", "--vision_checkpoint", "w.safetensors"]
    changed = {"backbone": "tf_efficientnet_lite0", "checkpoint": "w.safetensors"}
    assert parse_arguments(arguments).vision_towers == [tower | changed]


def test_vision_flags_of_two_towers_are_in_order(written):
    """If it failed, two towers would get each other's backbones."""
    path = written({"vision_towers": [{"backbone": "a", "image_size": 32}, {"backbone": "b"}]})
    recipe = parse_arguments(["--recipe", path, "--vision_backbone", "c,d"])
    assert recipe.vision_towers == [{"backbone": "c", "image_size": 32}, {"backbone": "d"}]


@pytest.mark.parametrize(("recipe", "value", "number"), [("mlmner", "a,b", 1), ("bert-crf", "a", 0)])
def test_vision_flags_of_another_number_of_towers_are_refused(recipe, value, number, capsys):
    """If it failed, a backbone would be dropped in silence, as for a system without pictures."""
    text = refused(["--recipe", recipe, "--vision_backbone", value], capsys)
    expected = f"expected {number} values of vision_backbone, one per vision tower, found '{value}'"
    assert text == f"recipe '{recipe}': {expected}"


# What is refused


def test_unknown_key_in_a_file_is_refused(written):
    """If it failed, a misspelt setting in a recipe would do nothing."""
    with pytest.raises(ValueError, match=r"mine\.yaml': unknown keys \['epoch'\]; expected some of \['name', .*'epochs'"):
        load_recipe(written({"epoch": 3}))


def test_unknown_key_in_code_is_refused():
    """If it failed, a misspelt override in a program would do nothing."""
    with pytest.raises(ValueError, match=r"recipe 'mlmner': unknown keys \['epoch'\]; expected some of"):
        load_recipe("mlmner", {"epoch": 3})
    with pytest.raises(ValueError, match=r"^mine: unknown keys \['epoch'\]"):
        recipe_from_settings({"epoch": 3}, source="mine")


@pytest.mark.parametrize("option", ["--epoch", "--epochss", "--recip", "--name"])
def test_unknown_option_is_refused(option, capsys):
    """If it failed, a misspelt or shortened option would do nothing, or something else."""
    assert refused([option, "3"], capsys) == f"unrecognized arguments: {option} 3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"mine\.yaml: expected a mapping of settings, found NoneType"),
        ("- epochs\n", r"mine\.yaml: expected a mapping of settings, found list"),
        ("epochs: [", r"mine\.yaml: expected YAML; while parsing"),
        ("epochs: three", "recipe epochs: expected int, found 'three'"),
        ("epochs: true", "recipe epochs: expected int, found True"),
        ("use_images: 1", "recipe use_images: expected bool, found 1"),
        ("learning_rate: fast", "recipe learning_rate: expected float, found 'fast'"),
        ("languages: en", "recipe languages: expected list.*, found 'en'"),
        ("objectives: {crf: high}", "recipe objectives: expected dict.*, found {'crf': 'high'}"),
        ("vision_towers: null", "recipe vision_towers: expected list.*, found None"),
        ("vision_towers: [resnet]", r"recipe vision_towers: expected list.*, found \['resnet'\]"),
        ("vision_towers: [{size: 3}]", r"recipe vision_towers: unknown keys \['size'\]; expected some of \['backbone'"),
        ("tag_scheme: iob2", "recipe tag_scheme: expected one of 'bio', 'iob1', 'bioes', found 'iob2'"),
        ("fusion: [umt]", r"recipe fusion: expected one of .* found \['umt'\]"),
        ("epochs: 0", "recipe epochs: expected at least 1, found 0"),
        ("batch_size: -1", "recipe batch_size: expected at least 1, found -1"),
        ("data_dir: 3", "recipe data_dir: expected str or nothing, found 3"),
        ("terms: {org/mine: Apache 2}", "recipe terms, org/mine: expected a licence as the Hub spells it .* found 'Apache 2'"),
        ("license: mit", r"unknown keys \['license'\]; expected some of .*'terms'"),
    ],
)
def test_wrong_values_in_a_file_are_refused(written, content, message):
    """If it failed, a wrong value would end the run later, after hours, with an error that does not name it."""
    with pytest.raises((TypeError, ValueError), match=message):
        load_recipe(written(content))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "2.5"], "argument --epochs: invalid int value: '2.5'"),
        (["--use_images", "maybe"], "recipe use_images: expected bool, found 'maybe'"),
        (["--objectives", "crf"], "argument --objectives: expected name=weight,name=weight, found 'crf'"),
        (["--objectives", "crf=a"], "argument --objectives: expected name=weight,name=weight, found 'crf=a'"),
        (["--text_config", "{a"], "argument --text_config: expected a value in YAML, found '{a'"),
        (["--mixed_precision", "fp8"], "recipe mixed_precision: expected one of 'auto', 'no', 'bf16', 'fp16', found 'fp8'"),
        (["--recipe", "nerf"], f"recipe 'nerf': expected one of {recipe_names()} or the path of a .yaml file"),
        (["--recipe", "not/there.yaml"], "recipe not/there.yaml: expected a YAML file, found none"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, message, capsys):
    """If it failed, a slip on the command line would end in a trace, as a missing recipe file once did."""
    text = refused(arguments, capsys)
    assert text.startswith(message)
    assert "\n" not in text


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("3E5", 3e5), ("-2e+1", -20.0), ("2.0e-3", 2e-3), ("1", 1)])
def test_numbers_as_people_write_them_are_numbers(written, text, value):
    """If it failed, 1e-4 in a recipe would be an error, since YAML takes it for a string."""
    assert load_recipe(written(f"weight_decay: {text}")).weight_decay == value


# The packaged recipes


def test_packaged_recipes_are_the_files_of_the_folder():
    """If it failed, a recipe would be in the folder and not be offered."""
    folder = modeling_mmner.recipes.resources.files("modeling_mmner").joinpath("recipes")
    assert recipe_names() == sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())
    assert {"2m-ner", "2m-ner-quickstart", "bert-crf", "mlmner", "quickstart"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipe_names_parts_that_fit_together(name):
    """If it failed, a packaged recipe would fail when its model is made."""
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.description
    known = ("backbone", "backbone_args", "frozen", "image_size", "pooled")
    towers = [{key: tower[key] for key in known if key in tower} for tower in recipe.vision_towers]
    config = MMNERConfig(fusion=recipe.fusion, objectives=recipe.objectives, vision_towers=towers, dropout=recipe.dropout)
    assert config.objectives == recipe.objectives
    assert (recipe.text_encoder is None) == bool(recipe.text_config)


def test_mlmner_recipe_has_the_papers_settings():
    """If it failed, the recipe of this name would not be the system of the paper (tables 1 and 2)."""
    recipe = load_recipe("mlmner")
    assert recipe.objectives == {"crf": 1.0, "boundary": 0.4, "contrastive": 0.5, "clustering": 0.01}
    assert (recipe.contrastive_temperature, recipe.contrastive_image_share, recipe.batch_size) == (0.1, 0.75, 32)
    assert recipe.text_encoder == "google-bert/bert-base-cased"
    assert recipe.vision_towers[0]["backbone"] == "timm/resnet152.tv_in1k"


def test_2m_ner_recipe_has_the_papers_settings():
    """If it failed, the recipe of this name would not be the system of the paper."""
    recipe = load_recipe("2m-ner")
    assert recipe.objectives == {"crf": pytest.approx(2 * 0.8), "alignment": pytest.approx(2 * (1 - 0.8))}
    assert (recipe.alignment_temperature, recipe.batch_size, recipe.epochs) == (0.5, 32, 8)
    assert recipe.learning_rate == recipe.head_learning_rate == 5e-5  # Adam, linear decay, no warm-up
    assert (recipe.warmup_share, recipe.weight_decay) == (0.0, 0.0)
    assert recipe.text_encoder == "google-bert/bert-base-multilingual-cased"
    assert recipe.languages == ["en", "fr", "de", "es"]
    vit, resnet = recipe.vision_towers
    assert (vit["backbone"], vit["frozen"]) == ("timm/vit_base_patch32_clip_224.openai", False)
    assert (resnet["backbone"], resnet["frozen"], resnet["pooled"]) == ("timm/resnet152.tv_in1k", True, True)


@pytest.mark.parametrize("name", ["quickstart", "2m-ner-quickstart"])
def test_quickstarts_need_no_download(name):
    """If it failed, the first command that a user tries would need a network."""
    recipe = load_recipe(name)
    assert recipe.text_encoder is None and recipe.dataset == "sample"
    assert all(tower["pretrained"] is False for tower in recipe.vision_towers)
