"""Tests of the model card: its front matter, its figures, what it says of which model, and its errors."""

import copy
import itertools
import re

import pytest
from huggingface_hub import ModelCard

from modeling_mmner.cards import render_card
from modeling_mmner.recipes import load_recipe

SPLITS = ("train", "validation", "test")
SYNTHETIC = "no\n> evidence of quality on real posts"
EQUATION_5, EQUATION_8 = "Eq. 5 (contrastive fusion)", "Eq. 8 (entity clustering)"


def block(scores: "itertools.count[int]") -> dict:
    """A block in which no two figures are alike: 10.1 %, 10.2 %, ..."""

    def score() -> dict:
        precision, recall, f1, low, high = (next(scores) / 1000 for _ in range(5))
        interval = [low, high]
        return {"precision": precision, "recall": recall, "f1": f1, "number": next(scores), "confidence_interval": interval}

    kinds = {"by_type": ("PER", "LOC"), "by_language": ("en",), "by_source": ("ambiguous",), "by_language_and_source": ()}
    return {"overall": score(), "strict": score()} | {kind: {name: score() for name in names} for kind, names in kinds.items()}


def make_metrics(recipe: str = "quickstart", **settings) -> dict:
    scores = itertools.count(101)
    validation, test, shuffled, none = (block(scores) for _ in range(4))
    raw_text = block(scores)["overall"]
    modes = {"true": copy.deepcopy(test), "shuffled": shuffled, "none": none}
    derived = {"base_models": ["google-bert/bert-base-cased"], "languages": ["en", "fr"]}
    return {
        "recipe": load_recipe(recipe).to_dict() | derived | settings,
        "seed": 17,
        "versions": {"mmner": "0.1.0", "python": "3.11.7", "torch": "2.9.0"},
        "corpus": {
            "name": "sample",
            "version_name": "generated-1.0.0",
            "version": {split: f"{split[:2]}0123456789" for split in SPLITS},
            "overlap": {"validation": 31, "test": 32, "excluded": True},
            "posts": dict(zip(SPLITS, (1601, 301, 302), strict=True)),
            "pictures": {split: {"present": 1001, "missing": 602, "broken": 3} for split in SPLITS},
            "chance": {"en": 0.9911, "all": 0.9922},
        },
        "model": {"parameters": 1234567, "trained_parameters": 1200000},
        "history": [],
        "selected_epoch": 7,
        "timing": {"training_seconds": 96.0, "total_seconds": 132.0},
        "splits": {"validation": validation, "test": test | {"raw_text": raw_text, "picture": modes}},
    }


def test_front_matter_is_what_the_hub_reads():
    """If it failed, the Hub would list the model under other tags, or with scores that are not its own."""
    metrics = make_metrics()
    data = ModelCard(render_card(metrics)).data
    assert (data.language, data.license, data.base_model) == (["en", "fr"], "apache-2.0", ["google-bert/bert-base-cased"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "token-classification")
    assert data.tags == ["multimodal", "ner", "mmner", "mner"]
    overall = metrics["splits"]["test"]["overall"]
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {key: overall[key] for key in ("precision", "recall", "f1")}
    assert {(result.dataset_name, result.dataset_revision) for result in data.eval_results} == {("sample", "te0123456789")}


def test_front_matter_leaves_out_what_the_model_has_not():
    """If it failed, a model from scratch would be listed as derived from an empty name."""
    data = ModelCard(render_card(make_metrics(base_models=[], languages=[]))).data.to_dict()
    assert data["license"] == "apache-2.0"
    assert not {"base_model", "language"} & set(data)


def test_every_score_of_the_test_split_is_on_the_card():
    """If it failed, a table would lack a row, or show another score than the measured one in its place."""
    metrics = make_metrics()
    test = metrics["splits"]["test"]
    lines = render_card(metrics).splitlines()
    scores = {"**overall**": test["overall"], "overall, strict": test["strict"]}
    scores["overall, raw text instead of words"] = test["raw_text"]
    for kind in ("type", "language", "source"):
        scores |= {f"{kind} {name}": score for name, score in test[f"by_{kind}"].items()}
    for name, score in scores.items():
        cells = [f"{100 * score[key]:.1f}" for key in ("precision", "recall", "f1")]
        interval = "-".join(f"{100 * bound:.1f}" for bound in score["confidence_interval"])
        assert f"| {name} | {' | '.join(cells)} | {interval} | {score['number']} |" in lines
    for mode, scored in test["picture"].items():
        cells = [f"{100 * part['f1']:.1f}" for part in (scored["overall"], scored["strict"], scored["by_source"]["ambiguous"])]
        assert f"| {mode} | {' | '.join(cells)} |" in lines
    assert "right at best, percent: en 99.1, all 99.2." in lines


def test_tables_are_whole():
    """If it failed, a stray line break or column of the template would break a table on the Hub's page."""
    lines = render_card(make_metrics()).splitlines()
    tables = [list(group) for is_table, group in itertools.groupby(lines, lambda line: line.startswith("|")) if is_table]
    assert len(tables) == 4
    for table in tables:
        assert len(table) > 2 and set(table[1]) == {"|", "-"}
        assert {row.count("|") for row in table} == {table[0].count("|")}


def test_training_data_and_settings_are_told():
    """If it failed, nobody could tell with which data and settings the model was trained."""
    metrics = make_metrics()
    validation, card = metrics["splits"]["validation"]["overall"], render_card(metrics)
    assert "| train | `tr0123456789` | 1601 | 1001 | 602 | 3 |" in card
    assert '| objectives | `{"crf": 1.0, "boundary": 0.4, "contrastive": 0.5, "clustering": 0.01}` |' in card
    assert "| batch_size | `32` |" in card
    assert f"epoch 7 of {metrics['recipe']['epochs']}," in card and f"{100 * validation['f1']:.1f} F1 there" in card
    assert "Training took 1.6\nminutes, with evaluation 2.2. Seed: 17." in card
    assert "Versions: mmner 0.1.0, python 3.11.7, torch 2.9.0." in card


def test_paths_of_the_author_stay_private():
    """If it failed, the card would publish folder names of whoever trained the model."""
    card = render_card(make_metrics(data_dir="/home/somebody/a", image_dir="/home/somebody/b", output_dir="/home/somebody/c"))
    assert "| epochs |" in card
    assert "/home/somebody" not in card


@pytest.mark.parametrize("recipe", ["quickstart", "bert-crf"])
def test_example_is_python_and_names_the_model(recipe):
    """If it failed, the first thing that a user copies from the card would not run."""
    card = render_card(make_metrics(recipe), repo_id="someone/model")
    (example,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    compile(example, "card", "exec")
    assert example.count('from_pretrained("someone/model", trust_remote_code=True, revision="main")') == 2
    assert ("picture.jpg" in example) == (recipe == "quickstart")
    assert 'from_pretrained("...", ' in render_card(make_metrics(recipe))


def test_synthetic_scores_are_called_so():
    """If it failed, scores on generated posts would pass for quality on real ones, or real ones for generated."""
    assert SYNTHETIC in render_card(make_metrics())
    metrics = make_metrics()
    metrics["corpus"]["version_name"] = "official"
    real = render_card(metrics)
    assert "## Evaluation" in real
    assert "synthetic" not in real and "generated posts." not in real


def test_card_speaks_of_the_objectives_and_pictures_that_the_model_has():
    """If it failed, a text-only model would be credited with the paper's losses and pictures."""
    whole, text_only = render_card(make_metrics()), render_card(make_metrics("bert-crf"))
    without_clustering = render_card(make_metrics(objectives={"crf": 1.0, "contrastive": 0.5, "clustering": 0.0}))
    assert EQUATION_5 in whole and EQUATION_8 in whole and "M = 0" in whole and "| shuffled |" in whole
    assert EQUATION_5 in without_clustering and EQUATION_8 not in without_clustering
    assert not any(part in text_only for part in (EQUATION_5, EQUATION_8, "M = 0", "| shuffled |"))
    assert "this model was trained without pictures" in text_only and "trained on the words alone" in text_only


def test_withheld_pictures_are_told():
    """If it failed, a model that never saw a picture would be offered as one that reads them."""
    metrics = make_metrics(use_images=False)
    modes = metrics["splits"]["test"]["picture"]
    metrics["splits"]["test"]["picture"] = {"none": modes["none"]}
    card = render_card(metrics)
    assert "Every picture was withheld" in card and "give it no pictures" in card
    assert "| true |" not in card


def test_corpus_without_pictures_or_chance_level_has_a_card():
    """If it failed, only the sample corpus could be used."""
    metrics = make_metrics(dataset="conll")
    metrics["corpus"]["chance"] = None
    for mode in ("shuffled", "none"):
        del metrics["splits"]["test"]["picture"][mode]
    card = render_card(metrics)
    assert "| true |" in card
    assert "| shuffled |" not in card and "right at best" not in card


def test_terms_follow_the_licence_field():
    """If it failed, a model from data without a licence would look free to use."""
    assert "Licence field: `apache-2.0`." in render_card(make_metrics())
    other = render_card(make_metrics(license="other"))
    assert "Licence field: `other`." in other and "comes with no licence" in other
    assert ModelCard(other).data.license == "other"


@pytest.mark.parametrize(
    "place",
    [
        "model",
        "seed",
        "selected_epoch",
        "recipe.license",
        "recipe.objectives",
        "corpus.chance",
        "corpus.version.test",
        "corpus.pictures.train.broken",
        "timing.total_seconds",
        "splits.validation.overall.f1",
        "splits.test.overall.f1",
        "splits.test.strict.confidence_interval",
        "splits.test.raw_text",
        "splits.test.picture",
        "splits.test.picture.shuffled.strict.f1",
    ],
)
def test_missing_metrics_are_named(place):
    """If it failed, a card would be made with a hole, or the error would not say which key is missing from where."""
    metrics = make_metrics()
    *path, key = place.split(".")
    part = metrics
    for name in path:
        part = part[name]
    del part[key]
    with pytest.raises(ValueError, match=rf"^metrics: expected '{re.escape(place)}', found none; .*metrics.json"):
        render_card(metrics)


def test_scores_that_are_no_fractions_are_refused():
    """If it failed, a card would say 9710.0 F1, or print a score that was never computed."""
    metrics = make_metrics()
    metrics["splits"]["test"]["strict"]["f1"] = 97.1
    with pytest.raises(ValueError, match=r"score: expected a fraction in 0\.\.1, found 97\.1"):
        render_card(metrics)


def test_card_of_several_languages_has_their_scores():
    """If it failed, the Hub would show one figure for four languages."""
    metrics = make_metrics("2m-ner-quickstart")
    test = metrics["splits"]["test"]
    test["by_language"]["fr"] = copy.deepcopy(test["by_language"]["en"]) | {"f1": 0.4321}
    test["language_macro_f1"] = 0.5432
    card = render_card(metrics)
    figures = {result.metric_name: result.metric_value for result in ModelCard(card).data.eval_results}
    assert figures["F1 in fr (lenient)"] == 0.4321
    assert "Mean of the languages' F1 (macro over languages): 54.3." in card


def test_card_cites_the_paper_whose_parts_the_model_has():
    """If it failed, 2M-NER's authors would not be credited, or those of another system."""
    mlmner, collaboration = render_card(make_metrics()), render_card(make_metrics("2m-ner-quickstart"))
    assert "li2022multimodal" in mlmner and "wang2024mmner" not in mlmner
    assert "wang2024mmner" in collaboration and "li2022multimodal" not in collaboration
    assert "flattens them" in collaboration and "flattens them" not in mlmner
