"""The score of a model for the page of a benchmark: when there is one, and what it is."""

from typing import Any

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from dataset_scripts.builders.data_card import render_benchmark
from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.hub.eval_results import eval_results, hub_dataset
from tests.built_corpora import build_small, record_of
from tests.small_metrics import make_metrics

PLACE = {"repo_id": "org/model", "revision": "v1"}
ONE = yaml.safe_dump({"name": "posts", "tasks": [{"id": "ner"}]})
TWO = yaml.safe_dump({"tasks": [{"id": name, "config": name, "split": "test"} for name in ("en", "all")]})


def metrics_of(recipe: str = "quickstart", **settings: Any) -> RunMetrics:
    """Metrics of a run on a data set of the Hub, or on what `settings` say."""
    return RunMetrics.from_dict(make_metrics(recipe, **{"dataset": "org/posts", "languages": []} | settings))


def test_entry_is_the_lenient_score_of_the_whole_test_split():
    """If it failed, the benchmark would list another score than the card's, or a proof of ours."""
    found = eval_results(metrics_of(), ONE, **PLACE)
    assert found.keys() == {".eval_results/posts.yaml"}
    [entry] = parse_eval_result_entries(yaml.safe_load(found[".eval_results/posts.yaml"]))
    written = {name: value for name, value in vars(entry).items() if value is not None}
    assert written == {
        "dataset_id": "org/posts",
        "task_id": "ner",
        "value": round(metrics_of().splits.test.overall.f1, 4),
        "source_url": "https://huggingface.co/org/model/blob/v1/metrics.json",
        "source_name": "metrics.json of the run",
        "notes": "own pictures",
    }
    [text] = eval_results(metrics_of("bert-crf"), ONE, **PLACE).values()
    assert yaml.safe_load(text)[0]["notes"] == "text"


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": "sample"},
        {"dataset": "org/posts/more"},
        {"test_dataset": "org/other"},
        {"languages": ["en"]},
        {"test_languages": ["fr"]},
        {"split_slices": {"test": "test[:50]"}},
        {"rename_types": {"ORG": "MISC"}},
        {"dataset_config": "fr"},
    ],
)
def test_run_on_other_posts_gives_no_score(settings):
    """If it failed, a benchmark's page would compare scores on different posts."""
    assert eval_results(metrics_of(**settings), ONE, **PLACE) == {}


def test_task_is_that_of_the_run_s_config():
    """If it failed, the score of one language would stand among those of another."""
    for config, expected in (("en", ["en"]), ("fr", []), (None, [])):
        files = eval_results(metrics_of(dataset_config=config), TWO, **PLACE).values()
        assert [entry["dataset"]["task_id"] for text in files for entry in yaml.safe_load(text)] == expected


@pytest.mark.parametrize(
    "content",
    ["", "- 1", "tasks: 3", "tasks: [3, {id: [1]}]", "a: &a 1\nb: *a", "{", "!!python/name:os.system x"],
)
def test_what_is_no_benchmark_keeps_no_model_from_the_hub(content):
    """If it failed, a stranger's slip in eval.yaml would stop every push of a model of that data set."""
    assert eval_results(metrics_of(), content, **PLACE) == {}


def test_built_data_set_is_a_benchmark_for_its_models(tmp_path):
    """If it failed, the eval.yaml that is written would name other tasks than the scores that are pushed."""
    built = build_small(tmp_path)
    content = (built / "eval.yaml").read_text("utf-8")
    assert content == render_benchmark(record_of(built))
    found = yaml.safe_load(content)
    assert found.keys() == {"name", "description", "tasks"} and "F1 of entities" in found["description"]
    assert found["tasks"] == [{"id": "default", "config": "default"}]
    for config in (None, "default"):
        [text] = eval_results(metrics_of(dataset_config=config), content, **PLACE).values()
        assert yaml.safe_load(text)[0]["dataset"] == {"id": "org/posts", "task_id": "default"}


def test_folders_and_builders_are_no_data_sets_of_the_hub():
    """If it failed, a card would link a data set that is none, or a folder's name."""
    names = ["twitter2017", "org/posts", "org/posts/x", "-org/posts", "/home/posts", "../posts", "org/po sts"]
    found = [metrics_of() for _ in names]
    for metrics, name in zip(found, names, strict=True):
        metrics.recipe["corpus"]["dataset"] = name
    assert [name for name in map(hub_dataset, found) if name] == ["org/posts"]
