"""Tests of the terms: what a run uses, under which licences, and the licence that they leave for the
model.
"""

import pytest
import timm

from dataset_scripts.corpora import BUILDERS
from modeling_mmner.training.recipe_options import parse_arguments
from modeling_mmner.training.recipes import load_recipe, recipe_names
from modeling_mmner.training.terms import derived_licence, terms_of


def declared(recipe) -> dict[str, str]:
    """The terms of what a run uses, by the names that are told."""
    return {row["name"]: row["terms"] for row in terms_of(recipe)}


@pytest.mark.parametrize(
    ("terms", "licence"),
    [
        (["mit", "mit", "mit"], "mit"),
        (["apache-2.0", "bsd-3-clause", "apache-2.0"], "other"),
        (["cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"], "other"),
        (["openrail"], "other"),
        (["none", "none"], "other"),
        (["apache-2.0", "unknown"], "other"),
        ([], "other"),
    ],
)
def test_licence_follows_from_the_terms(terms, licence):
    """If it failed, a model would be offered under a licence that some part of it does not allow."""
    assert derived_licence(terms) == licence
    assert derived_licence(reversed(terms)) == licence


# What a run uses.


def test_recipes_declare_the_terms_of_all_that_they_use():
    """If it failed, a packaged recipe's card would call a well-known corpus or encoder unknown."""
    licences = {}
    for name in recipe_names():
        recipe = load_recipe(name)
        assert "unknown" not in declared(recipe).values(), name
        licences[name] = derived_licence(declared(recipe).values())
    generated = {"2m-ner-quickstart", "quickstart"}
    assert licences == {name: "apache-2.0" if name in generated else "other" for name in recipe_names()}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--text_encoder", "org/other"], "org/other"),
        (["--vision_backbone", "timm/resnet50.a1_in1k"], "timm/resnet50.a1_in1k"),
        (["--dataset", "org/posts"], "org/posts"),
    ],
)
def test_what_nobody_declared_is_unknown_and_can_be_declared(arguments, name):
    """If it failed, another encoder would inherit the terms of the one that it replaces."""
    arguments = ["--recipe", "mlmner", *arguments]
    without = declared(parse_arguments(arguments))
    assert without[name] == "unknown" and len(without) == 3
    assert declared(parse_arguments([*arguments, "--terms", f"{name}=mit"])) == without | {name: "mit"}


def test_paths_are_declared_as_given_and_told_by_their_last_name(tmp_path):
    """If it failed, a card would publish folder names."""
    encoder, checkpoint = tmp_path / "somebody" / "encoder", tmp_path / "somebody" / "weights.safetensors"
    arguments = ["--recipe", "mlmner", "--text_encoder", str(encoder), "--vision_checkpoint", str(checkpoint)]
    rows = terms_of(parse_arguments([*arguments, "--terms", f"{encoder}=mit"]))
    found = [(row["name"], row["terms"]) for row in rows[1:]]
    assert found == [("encoder", "mit"), ("weights.safetensors", "unknown")]
    assert rows[2]["remark"] == "weights of timm/resnet152.tv_in1k from a file"


def test_files_are_declared_as_conll_and_told_by_their_folder(tmp_path, monkeypatch):
    """If it failed, files in a folder called 'sample' would have the generated corpus's licence."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").mkdir()
    arguments = ["--dataset", "conll", "--data_dir", "sample"]
    [row] = terms_of(parse_arguments(arguments))
    assert (row["name"], row["terms"]) == ("sample", "unknown")
    assert declared(parse_arguments([*arguments, "--terms", "conll=cc-by-4.0"])) == {"sample": "cc-by-4.0"}


@pytest.mark.parametrize(
    ("backbone", "is_imagenet"),
    [
        ("timm/resnet152.tv_in1k", True),
        ("hf-hub:timm/vit_base_patch16_224.augreg_in21k", True),
        ("timm/vit_base_patch32_clip_224.openai", False),
        ("timm/vit_base_patch32_clip_224.openai_ft_in12k_in1k", True),
        ("tf_efficientnet_lite0", True),
        ("org/unheard-of", False),
    ],
)
def test_weights_from_imagenet_are_remarked(backbone, is_imagenet):
    """If it failed, the terms of ImageNet's pictures would be kept from who uses the model."""
    recipe = load_recipe("mlmner", {"vision_backbone": backbone})
    assert ("ImageNet" in terms_of(recipe)[-1]["remark"]) == is_imagenet


@pytest.mark.parametrize("name", recipe_names())
def test_licences_are_those_that_builders_and_timm_say(name):
    """If it failed, a model's card would contradict the data card of its corpus."""
    for used, licence in load_recipe(name).terms.items():
        if used in BUILDERS:
            builder = BUILDERS[used]
            own = builder.LICENSE
            assert licence == {"other": "none"}.get(own, own)
            assert ("without a licence" in builder.TERMS) == (licence == "none")
        if used.startswith("timm/"):
            assert timm.get_pretrained_cfg(used.removeprefix("timm/")).license == licence
