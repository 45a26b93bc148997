"""Tests of the model card: its front matter, its figures, what it says of which model, and its errors."""

import ast
import copy
import itertools
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.hub.model_card import render_model_card, without_folders
from modeling_mmner.training.recipes import load_recipe, recipe_from_settings
from tests.outlines import outline, programs
from tests.small_metrics import card_of, make_metrics, run_metrics

CARDS = Path(__file__).parents[2] / "model_cards"
EQUATION_5, EQUATION_8 = "Eq. 5 (contrastive fusion)", "Eq. 8 (entity clustering)"


def changed(metrics: dict, place: str, value: object) -> dict:
    """Metrics with another value, or none (`...`), at a place as corpus.overlap."""
    *path, key = place.split(".")
    part = metrics
    for name in path:
        part = part[name]
    if value is ...:
        del part[key]
    else:
        part[key] = value
    return metrics


def test_front_matter_is_what_the_hub_reads():
    """If it failed, the Hub would list other tags, scores or base models than the run's."""
    metrics = make_metrics()
    data = ModelCard(card_of(metrics)).data
    assert (data.language, data.license) == (["en", "fr"], "apache-2.0")
    assert data.base_model == ["google-bert/bert-base-cased"]
    assert data.base_model_relation == "finetune"  # of several, the Hub would take it for a merge
    assert (data.library_name, data.pipeline_tag) == ("transformers", "token-classification")
    assert data.tags == ["multimodal", "ner", "mmner", "mner"]
    overall = metrics["splits"]["test"]["overall"]
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {key: overall[key] for key in ("precision", "recall", "f1")}
    read_on = {(result.dataset_name, result.dataset_revision) for result in data.eval_results}
    assert read_on == {("sample", "te0123456789")}
    assert not {"license_name", "license_link", "datasets"} & set(data.to_dict())
    bare = ModelCard(card_of(make_metrics(base_models=[], languages=["english"]))).data
    assert not {"base_model", "base_model_relation", "language"} & set(bare.to_dict())
    of_the_hub = ModelCard(card_of(make_metrics(dataset="org/posts"))).data
    assert of_the_hub.datasets == ["org/posts"] == [*{one.dataset_type for one in of_the_hub.eval_results}]


def test_every_score_of_the_test_split_is_on_the_card():
    """If it failed, a table would lack a row, or show another score than the measured one in its place."""
    metrics = make_metrics()
    test = metrics["splits"]["test"]
    lines = card_of(metrics).splitlines()
    scores = {"overall": test["overall"], "overall, strict": test["strict"]}
    scores["overall, raw text instead of words"] = test["raw_text"]
    for kind in ("type", "language", "source"):
        scores |= {f"{kind} {name}": score for name, score in test[f"by_{kind}"].items()}
    for name, score in scores.items():
        cells = [f"{100 * score[key]:.1f}" for key in ("precision", "recall", "f1")]
        interval = "-".join(f"{100 * bound:.1f}" for bound in score["confidence_interval"])
        assert f"| {name} | {' | '.join(cells)} | {interval} | {score['number']} |" in lines
    for mode, scored in test["picture"].items():
        parts = (scored["overall"], scored["strict"], scored["by_source"]["ambiguous"])
        cells = [f"{100 * part['f1']:.1f}" for part in parts]
        assert f"| {mode} | {' | '.join(cells)} |" in lines
    assert "right at best, percent: en 99.1, all 99.2." in lines


def test_tables_are_whole():
    """If it failed, a stray line break or column of the template would break a table on the Hub's page."""
    groups = itertools.groupby(card_of(make_metrics()).splitlines(), lambda line: line.startswith("|"))
    tables = [list(group) for is_table, group in groups if is_table]
    assert len(tables) == 5
    for table in tables:
        assert len(table) > 2 and set(table[1]) == {"|", "-"}
        assert {row.count("|") for row in table} == {table[0].count("|")}


def test_training_data_and_settings_are_told():
    """If it failed, nobody could tell with which data and settings the model was trained."""
    metrics = make_metrics()
    validation, card = metrics["splits"]["validation"]["overall"], card_of(metrics)
    assert "| train | `tr0123456789` | 1601 | 1001 | 602 | 3 |" in card
    assert '| objectives | `{"crf": 1.0, "boundary": 0.4, "contrastive": 0.5, "clustering": 0.01}` |' in card
    assert "| batch_size | `32` |" in card
    assert f"epoch 7 of {metrics['recipe']['training']['epochs']}," in card
    assert f"{100 * validation['f1']:.1f} F1 there" in card
    assert "Training took 1.6\nminutes, with evaluation 2.2. Seed: 17." in card
    assert "Versions: mmner 0.1.0, python 3.11.7, torch 2.9.0." in card


def test_paths_of_the_author_stay_private(tmp_path, monkeypatch):
    """If it failed, card or metrics on the Hub would have folder names of whoever trained the model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret" / "posts").mkdir(parents=True)
    folders = dict.fromkeys(("data_dir", "image_dir", "output_dir", "text_encoder"), "/home/secret/a")
    metrics = make_metrics(
        **folders,
        dataset="secret/posts",
        context="caption",
        context_file=["./secret/b", "org/posts"],
        terms={"/home/secret/a": "mit"},
        vision_towers=[{"backbone": "timm/resnet152.tv_in1k", "checkpoint": "~/secret/weights.safetensors"}],
    )
    told = without_folders(RunMetrics.from_dict(metrics)).to_dict()
    card = card_of(told)
    assert "secret" not in card and "secret" not in json.dumps(told)
    assert metrics["recipe"]["corpus"]["data_dir"] == "/home/secret/a"
    assert told["recipe"]["corpus"]["context_file"] == ["b", "org/posts"]
    assert '"checkpoint": "weights.safetensors"' in card
    assert without_folders(RunMetrics.from_dict(told)).to_dict() == told
    untouched = run_metrics()
    untouched.recipe.pop("terms")
    assert without_folders(untouched) == untouched


@pytest.mark.parametrize("recipe", ["quickstart", "bert-crf"])
def test_examples_pin_a_tag_of_the_model(recipe):
    """If it failed, code would run that nobody has read, as with the branch main, which pinned nothing."""
    default = card_of(make_metrics(recipe))
    pushed = card_of(make_metrics(recipe), repo_id="someone/model", revision="v7")
    for card, name, tag in ((default, f"org/{recipe}", "v0.1.0"), (pushed, "someone/model", "v7")):
        assert card.count(f'"{name}", trust_remote_code=True, revision="{tag}")') == 5
        assert card.count("trust_remote_code=True") == card.count("revision=") == 5
        assert f"`{tag}` is a tag" in card and "put the hash of the commit" in card
        assert ("picture.jpg" in card) == (recipe == "quickstart")
    assert "stands for the model's folder" in default and "stands for" not in pushed


def test_card_says_what_kind_of_model_it_is_of():
    """If it failed, generated posts would pass for real ones, or a model of text for one of pictures."""
    whole, text_only = card_of(make_metrics()), card_of(make_metrics("bert-crf"))
    assert "no\n> evidence of quality on real posts" in whole
    real = make_metrics()
    real["corpus"] |= {"version_name": "official", "is_generated": False, "chance": None}
    del real["splits"]["test"]["picture"]["shuffled"]
    absent = ("synthetic", "generated posts.", "| shuffled |", "right at best")
    assert "| true |" in card_of(real) and not any(words in card_of(real) for words in absent)
    assert all(part in whole for part in (EQUATION_5, EQUATION_8, "M = 0", "| shuffled |"))
    assert not any(part in text_only for part in (EQUATION_5, EQUATION_8, "M = 0", "| shuffled |"))
    assert "this model was trained without pictures" in text_only
    assert "trained on the words alone" in text_only
    without_clustering = card_of(make_metrics(objectives={"crf": 1.0, "contrastive": 0.5, "clustering": 0.0}))
    assert EQUATION_5 in without_clustering and EQUATION_8 not in without_clustering
    metrics = make_metrics(use_images=False)
    metrics["splits"]["test"]["picture"] = {"none": metrics["splits"]["test"]["picture"]["none"]}
    withheld = card_of(metrics)
    assert "Every picture was withheld" in withheld and "give it no pictures" in withheld
    assert "| true |" not in withheld


def test_terms_are_told_part_by_part():
    """If it failed, a model from data without a licence would look free to use."""
    card = card_of(make_metrics("mlmner"), repo_id="someone/model")
    assert "Licence field: `other`." in card
    assert "| corpus | `twitter2017` | none |  |" in card
    assert "| text encoder | `google-bert/bert-base-cased` | apache-2.0 |  |" in card
    imagenet = "| picture encoder | `timm/resnet152.tv_in1k` | bsd-3-clause | pretrained on ImageNet, whose"
    assert imagenet in card
    data = ModelCard(card).data
    assert (data.license, data.license_name) == ("other", "terms-of-its-parts")
    assert data.license_link == "https://huggingface.co/someone/model#terms" and "\n## Terms\n" in card
    sample = card_of(make_metrics())
    assert "Licence field: `apache-2.0`." in sample and "| corpus | `sample` | apache-2.0 |  |" in sample


MISSING = (
    "model seed terms license corpus.overlap corpus.pictures.train.broken timing.total_seconds"
    " splits.validation.overall.f1 splits.test.strict.confidence_interval splits.test.raw_text"
    " splits.test.picture.shuffled.strict.f1"
)


@pytest.mark.parametrize("place", MISSING.split())
def test_missing_metrics_are_named(place):
    """If it failed, a card would be made with a hole, or the error not say which key is missing."""
    message = rf"^metrics: expected '{re.escape(place)}', as in the metrics.json .*, found none "
    with pytest.raises(ValueError, match=message):
        card_of(changed(make_metrics(), place, ...))


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        ("corpus.overlap", ["<img>"], r"^metrics: expected .corpus\.overlap., as .*<img>.*object"),
        ("versions", "<script>", "^metrics: expected 'versions', as .*, found '<script>'.*object"),
        ("seed", "1", "^metrics: expected 'seed', as .*, found '1'.*integer"),
        ("corpus.posts", {"test": "many"}, r"^metrics: expected 'corpus\.posts\.test', as .*, found 'many'"),
        ("license", "mit", "expected the license 'apache-2.0', which follows from the terms, found 'mit'"),
        ("splits.test.strict.f1", 97.1, r"score: expected a fraction in 0\.\.1, found 97\.1"),
    ],
)
def test_metrics_of_another_type_are_refused(place, wrong, message):
    """If it failed, a hand-made metrics.json could bring anything into a card, as 9710.0 F1."""
    with pytest.raises(ValueError, match=message):
        card_of(changed(make_metrics(), place, wrong))


def test_contexts_are_told_with_what_they_do():
    """If it failed, a model that reads contexts would be shown without its scores with others' and none."""
    metrics = make_metrics("bert-crf-context")
    test = metrics["splits"]["test"]
    test["context"] = copy.deepcopy(make_metrics()["splits"]["test"]["picture"])
    test["p_values"] = {"context": {"shuffled": 0.0123, "none": 0.5}}
    card = card_of(metrics)
    assert "### What the context does" in card and "0.0123" in card
    assert '"context": "What somebody wrote about it"' in card
    assert "### What the context does" not in card_of(make_metrics())


def test_card_cites_the_paper_whose_parts_the_model_has():
    """If it failed, 2M-NER's authors would not be credited, or those of another system."""
    mlmner, collaboration = card_of(make_metrics()), card_of(make_metrics("2m-ner-quickstart"))
    for word, other in (("li2022multimodal", False), ("wang2024mmner", True), ("flattens them", True)):
        assert (word in mlmner, word in collaboration) == (not other, other)


HOSTILE = [
    "</td><script>alert(1)</script>",
    "a | b\n| --- | --- |\n# heading\n- item",
    'x"); import os; os.system("true") #\n---\nlicense: mit\n---\n',
    "`code` ``` ```` [link](javascript:alert(1))",
    "x" * 300,
    "a\0b",
]


def named(text: str) -> str:
    """A card in which all that a user or a corpus can name has one name."""
    named_in_recipe = {"dataset": text, "languages": [text], "data_dir": text, "rename_types": {text: text}}
    metrics = make_metrics("quickstart", **named_in_recipe)
    metrics["recipe"] |= {"name": text, "description": text, "base_models": []}
    metrics["corpus"] |= {"name": text, "version_name": text, "citation": text}
    metrics["corpus"] |= {"version": {"train": text, "test": text}, "posts": {"train": 1, "test": 1}}
    entity = {"entity_group": text, "score": 0.5, "word": text}
    example = {"text": text, "example_title": text, "context": text, "pictures": [text], "entities": [entity]}
    metrics["corpus"]["examples"] = [example]
    metrics["versions"][text] = text
    metrics["terms"] = [{"part": text, "name": text, "terms": "apache-2.0", "remark": text}]
    test = metrics["splits"]["test"]
    for part in (test["by_type"], test["by_language"], test["by_source"]):
        part[text] = test["overall"]
    for scored in test["picture"].values():
        scored["by_source"][text] = test["overall"]
    return card_of(metrics)


@pytest.mark.parametrize("text", HOSTILE, ids=["HTML", "table", "code and YAML", "backticks", "long", "NUL"])
def test_what_strangers_say_stays_text(text):
    """Regression: names were written as they came, and one of 300 characters stopped a run at its end."""
    plain, found = ModelCard(named("plain")), ModelCard(named(text))
    assert outline(found.text) == outline(plain.text)
    assert found.data.to_dict().keys() == plain.data.to_dict().keys() and found.data.license == "apache-2.0"
    kinds = [
        [type(node) for node in ast.walk(ast.parse(program))]
        for card in (plain, found)
        for program in programs(card.text)
    ]
    assert len(kinds) == 6 and kinds[:3] == kinds[3:]


# What a card may say.


def numbers_of(text: str) -> list[str]:
    return re.findall(r"(?<![\w.])\d+(?:\.\d+)?", text)


def leaves(part) -> list:
    if isinstance(part, dict):
        part = list(part.values())
    return [leaf for item in part for leaf in leaves(item)] if isinstance(part, list) else [part]


def figures_of(metrics: dict) -> set[str]:
    """All ways in which a card may print a number of the metrics."""
    numbers = [leaf for leaf in leaves(metrics) if type(leaf) in (int, float)]
    percents = {f"{100 * number:.1f}" for number in numbers if 0 <= number <= 1}
    return percents | {str(round(number, 4)) for number in numbers} | {"95"}  # the 95 % interval


@pytest.mark.parametrize("recipe", ["quickstart", "2m-ner-quickstart", "bert-crf"])
def test_every_figure_is_one_of_the_metrics(recipe):
    """If it failed, a card would have a figure that was never measured, or not that of each language."""
    metrics = make_metrics(recipe)
    test = metrics["splits"]["test"]
    test["by_language"]["fr"] = test["overall"] | {"f1": 0.4321}
    test["language_macro_f1"] = 0.5432
    card = card_of(metrics)
    evaluation = card[card.index("## Evaluation") : card.index("## How to use it")]
    shown = numbers_of(evaluation.replace("F1", "F"))
    results = {result.metric_name: result.metric_value for result in ModelCard(card).data.eval_results}
    assert len(shown) > 50 and len(results) == 5 and results["F1 in fr (lenient)"] == 0.4321
    assert "Mean of the languages' F1 (macro over languages): 54.3." in card
    assert set(shown) | set(map(str, results.values())) <= figures_of(metrics)
    assert not set(shown) <= figures_of(make_metrics(recipe) | {"splits": {}})


def test_learning_curve_is_a_small_table_with_the_chosen_epoch():
    """If it failed, a card would have a row for each of fifty epochs, or none for the one that was kept."""
    metrics = make_metrics(epochs=50)
    kept = {"epoch": 7, "loss": 1.2345, "validation_f1": 0.8765, "validation_strict_f1": 0.5, "seconds": 1.0}
    metrics["history"] = [kept | {"epoch": epoch} for epoch in range(1, 51)]
    rows = re.findall(r"^\| (\d+.*) \| 1\.234 \| 87\.6 \|$|^\| (\d+.*) \| 1\.235 \|", card_of(metrics), re.M)
    shown = ["".join(row) for row in rows]
    assert shown == ["1", "5", "7 (kept)", *map(str, range(10, 51, 5))]


def test_scores_come_before_the_settings_which_are_folded():
    """If it failed, who opens a card would scroll through fifty settings to its scores."""
    card = card_of(make_metrics())
    heading = "## Evaluation ## Training procedure <details> <summary>Settings | setting | </details>"
    found = [card.index(part) for part in re.findall(r"## \w+ \w+(?= <)|## \w+|<.*?>\w*|\| \w+ \|", heading)]
    assert found == sorted(found)


def test_widget_shows_each_text_once():
    """If it failed, a text with two pictures would stand twice among the examples of the Hub's page."""
    metrics = make_metrics()
    example = {"text": "Jordan posts", "example_title": "generated post (en)"}
    metrics["corpus"]["examples"] = [example, example]
    assert ModelCard(card_of(metrics)).data.to_dict()["widget"] == [example]
    entity = {"entity_group": "PER", "score": 0.123456789, "word": "Jordan", "start": 0, "end": 6}
    metrics["corpus"]["examples"] = [example | {"entities": [entity], "pictures": ["example_1_1.jpg"]}]
    [answered] = ModelCard(card_of(metrics)).data.widget
    title = {"example_title": "generated post (en), read with its picture"}
    assert answered == example | title | {"output": [entity | {"score": 0.1235}]}


# The cards in the repository.


@pytest.mark.parametrize("path", sorted((CARDS / "metrics").glob("*.json")), ids=lambda path: path.stem)
def test_card_in_the_repository_is_that_of_its_recipe(path):
    """If it failed, a card would have other scores, words or settings than the code and the recipe."""
    card, text = (CARDS / f"{path.stem}.md").read_text("utf-8"), path.read_text("utf-8")
    assert card == render_model_card(RunMetrics.from_file(path))
    settings, now = json.loads(text)["recipe"], load_recipe(path.stem)
    assert settings.pop("base_models") == now.base_models()
    settings["training"] |= {name: getattr(now.training, name) for name in ("output_dir", "num_workers")}
    settings["corpus"]["tag_scheme"] = now.corpus.tag_scheme  # of files, which a generated corpus has not
    # A setting that came after the run has its default.
    assert recipe_from_settings(settings, source=path.name).to_dict() == now.to_dict()
    assert not re.search(r'"(/|~|\.\.?/)', text)
    data = ModelCard(card).data.to_dict()
    assert ModelCard(card).content == card and data["pipeline_tag"] == "token-classification"
    assert all(re.fullmatch("[a-z]{2,3}", language) for language in data["language"])
    [model] = data["model-index"]
    for result in model["results"]:
        assert {"type", "name"} <= set(result["task"]) and {"type", "name"} <= set(result["dataset"])
        assert all({"type", "value"} <= set(metric) for metric in result["metrics"])


def test_every_card_in_the_repository_is_of_a_trained_model():
    """If it failed, a card would stand there without metrics that anybody could hold it against."""
    cards = {path.stem for path in CARDS.glob("*.md")} - {"README"}
    assert cards == {path.stem for path in (CARDS / "metrics").glob("*.json")} != set()
