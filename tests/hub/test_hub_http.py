"""The real Hub client over HTTP, in processes without the package: what is pushed, and what is loaded."""

import json
import re
import shutil
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from fnmatch import fnmatch
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard, hf_hub_download, parse_eval_result_entries
from transformers import Trainer, TrainingArguments

from dataset_scripts.builders.built_corpus import PUBLISHED, check_may_publish, publish
from dataset_scripts.formats.reader import CorpusError
from modeling_mmner.cli import main
from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.hub.push import plan_upload, save_hub_folder
from modeling_mmner.hub.push import push as push_planned
from modeling_mmner.training.collator import MMNERCollator
from tests.built_corpora import build_small, built_sample, files_of
from tests.dataset_scripts.test_built_data_sets import LOADED as LOADED_ROWS
from tests.elsewhere import PACKAGES, TEXTS, assert_says_as, load_elsewhere, run_elsewhere, small_system
from tests.hub.served import ROOT, Hub, serving
from tests.small_metrics import run_metrics
from tests.small_posts import assert_same
from tests.tiny import SYSTEMS

pytestmark = pytest.mark.slow  # three processes that load transformers anew

CODE = {path.name for path in (ROOT / "modeling_mmner" / "model").glob("*_mmner.py")}
PUSH = "import sys; from tests.hub.test_hub_http import push; push(*sys.argv[1:])"


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[Hub]:
    """A Hub that has a model of each system, and a public data set."""
    folder = tmp_path_factory.mktemp("hub")
    for name in SYSTEMS:
        served = folder / "served" / "models" / "org" / name
        save_hub_folder(*small_system(name), folder=served, metrics=run_metrics())
    (folder / "small").mkdir()
    build_small(folder / "small")
    shutil.copytree(built_sample(), folder / "sample")
    shutil.copytree(folder / "small" / "built", folder / "served" / "datasets" / "org" / "public")
    with serving(folder) as hub:
        yield hub


# Pushing, in a process of its own that has the package.


def push_model(hub: Hub) -> str | None:
    """A model with its processor, and then another model, each tagged; returns the hash of the first."""
    for seed, name in ((1, "first"), (2, "second")):
        parts: tuple[Any, ...] = small_system("mlmner", seed=seed)
        for part in parts:
            part.save_pretrained(hub.folder / name)
            part.push_to_hub("org/pushed")
        HfApi().create_tag("org/pushed", tag=name)
    return HfApi().model_info("org/pushed", revision="first").sha


def push_trained(hub: Hub) -> None:
    """What transformers' own Trainer trains, with a push at each checkpoint and one at the end."""
    model, processor = small_system("2m-ner")
    rows = [
        {"tokens": text.split(), "ner_tags": [0] * len(text.split()), "image": hub.picture} for text in TEXTS
    ]
    arguments = TrainingArguments(
        str(hub.folder / "trained"),
        push_to_hub=True,
        hub_model_id="org/trained",
        num_train_epochs=1,
        save_strategy="epoch",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=True,
    )
    collator = MMNERCollator(processor)
    trainer = Trainer(model, arguments, collator, train_dataset=rows, processing_class=processor)
    trainer.train()
    trainer.push_to_hub()


def push_by_command(hub: Hub) -> list[tuple[int, str]]:
    """``push``, when the tag cannot be set, again, and once more; returns status and output of each."""
    folder = shutil.copytree(hub.model_folder("mlmner"), hub.folder / "command")
    (folder / "notes.txt").write_text("private")

    def command() -> tuple[int, str]:
        with redirect_stdout(StringIO()) as printed, redirect_stderr(printed):
            return main(["push", "--model", str(folder), "--repo_id", "org/command"]), printed.getvalue()

    with patch.object(HfApi, "create_tag", side_effect=OSError("the network is gone")):
        failed = command()
    return [failed, command(), command()]


def push_with_benchmark(hub: Hub) -> list[str]:
    """A model trained on a data set of the Hub that has an eval.yaml; returns its score's file and card."""
    folder = shutil.copytree(hub.model_folder("2m-ner"), hub.folder / "benchmark")
    metrics = RunMetrics.from_file(folder / "metrics.json")
    metrics.recipe["corpus"] |= {"dataset": "org/public", "languages": []}
    (folder / "metrics.json").write_text(metrics.to_json(), encoding="utf-8")
    push_planned(plan_upload(folder, repo_id="org/benchmark"))
    names = (".eval_results/public.yaml", "README.md")
    return [Path(hf_hub_download("org/benchmark", name)).read_text("utf-8") for name in names]


def push_data_sets(hub: Hub) -> str:
    """A data set, another in its place, and that again; returns why it may not go to a public repository."""
    for folder in (hub.folder / "small" / "built", hub.folder / "sample", hub.folder / "sample"):
        check_may_publish("org/posts", generated=True, has_rights=False, public=False)
        publish(folder, "org/posts")
    try:
        check_may_publish("org/public", generated=True, has_rights=False, public=False)
    except CorpusError as error:
        return str(error)
    return ""


PUSHES = (push_model, push_trained, push_by_command, push_with_benchmark, push_data_sets)


def push(address: str, folder: str) -> None:
    """Run all of `PUSHES` and keep what each returns, or its error."""
    hub, results = Hub(address, Path(folder)), {}
    for function in PUSHES:
        try:
            results[function.__name__] = {"returned": function(hub)}
        except Exception:
            results[function.__name__] = {"error": traceback.format_exc()}
    (hub.folder / "pushes.json").write_text(json.dumps(results), encoding="utf-8")


@pytest.fixture(scope="module")
def pushes(hub):
    """What each of `PUSHES` returned, or its error."""
    environment = hub.environment() | {"PYTHONPATH": ROOT}
    run_elsewhere(PUSH, hub.address, hub.folder, folder=hub.folder, blocked=(), **environment)
    return json.loads((hub.folder / "pushes.json").read_text(encoding="utf-8"))


def returned(pushes: dict[str, Any], name: str) -> Any:
    assert "error" not in pushes[name], pushes[name]["error"]
    return pushes[name]["returned"]


# Loading, in processes without the package.


@pytest.fixture(scope="module")
def loaded(hub, pushes):
    """What each model says, by a key, in a process that has the Hub alone; one is pushed on first."""
    revisions = {
        "mlmner": ("mlmner", "main"),
        "2m-ner": ("2m-ner", hub.repository("models/org/2m-ner")["commits"][0]["oid"]),
        "first": ("pushed", pushes["push_model"].get("returned")),
        "second": ("pushed", "second"),
        "trained": ("trained", "main"),
        "command": ("command", "v0.1.0"),
        "again": ("again", "main"),
        "benchmark": ("benchmark", "v0.1.0"),
    }
    models = {"pushed on": {"pretrained_model_name_or_path": "org/mlmner", "push_to": "org/again"}}
    models |= {
        key: {"pretrained_model_name_or_path": f"org/{name}", "revision": revision}
        for key, (name, revision) in revisions.items()
    }
    return load_elsewhere(models, picture=hub.picture, folder=hub.folder, **hub.environment())


@pytest.mark.parametrize("system", ["mlmner", "2m-ner"])
def test_models_and_pipelines_over_http_are_those_of_the_folder(hub, loaded, system):
    """If it failed, a user of the Hub would get another model or pipeline than was saved."""
    assert_says_as(loaded[system], hub.model_folder(system), picture=hub.picture)


def test_model_of_the_hub_that_is_pushed_on_is_whole(hub, loaded):
    """If it failed, a user without the package could not share a fine-tuned model."""
    assert "error" not in loaded["pushed on"], loaded["pushed on"]["error"]
    assert not CODE.difference(hub.commits("models/org/again")[-1]["files"])
    assert_says_as(loaded["again"], hub.model_folder("mlmner"), picture=hub.picture)


def test_pushed_model_is_whole_and_loaded_by_hash_and_by_tag(hub, pushes, loaded):
    """If it failed, `push_to_hub` would leave code behind, or `revision` give other weights."""
    returned(pushes, "push_model")
    for revision in ("first", "second"):
        assert_says_as(loaded[revision], hub.folder / revision, picture=hub.picture)
    commits = hub.commits("models/org/pushed")
    code = [{name for name in commit["written"] if name.endswith(".py")} for commit in commits]
    assert code == [CODE, set(), set()]  # the model's pipeline reads posts by the processor's file


def test_trained_model_is_on_the_hub_when_the_trainer_is_done(hub, pushes, loaded):
    """If it failed, `Trainer(..., push_to_hub=True)` would make a repository that nobody can load."""
    returned(pushes, "push_trained")
    assert hub.commits("models/org/trained")[-1]["title"] == "End of training"
    assert_says_as(loaded["trained"], hub.folder / "trained", picture=hub.picture)


def test_command_pushes_the_files_of_the_model_in_one_commit(hub, pushes, loaded):
    """If it failed, `push` would leave half a repository, send other files, or move a tag."""
    (failed, why), (done, printed), (again, refused) = returned(pushes, "push_by_command")
    assert (failed, done, again) == (2, 0, 2)
    assert "org/command: expected no tag or branch 'v0.1.0' yet, found one" in refused
    assert "the network is gone" in why and "the same command again only sets the tag" in why
    repository, [commit] = hub.repository("models/org/command"), hub.commits("models/org/command")
    assert repository["private"] and repository["tags"] == {"v0.1.0": commit["oid"]}
    assert set(commit["written"]) == files_of(hub.model_folder("mlmner")).keys()
    assert "left out: notes.txt" in printed and commit["oid"] in printed
    assert_says_as(loaded["command"], hub.model_folder("mlmner"), picture=hub.picture)


def test_score_of_a_benchmark_is_beside_the_model_as_the_hub_reads_it(hub, pushes, loaded):
    """If it failed, a benchmark's page would not list the model, or with another score than the card's."""
    results, card = returned(pushes, "push_with_benchmark")
    [entry] = parse_eval_result_entries(yaml.safe_load(results))
    overall = run_metrics().splits.test.overall.f1
    assert (entry.dataset_id, entry.task_id, entry.value) == ("org/public", "default", round(overall, 4))
    assert entry.source_url == "https://huggingface.co/org/benchmark/blob/v0.1.0/metrics.json"
    assert (entry.verify_token, entry.notes) == (None, "own pictures")
    assert ModelCard(card).data.datasets == ["org/public"]
    assert not [name for name in hub.commits("models/org/command")[-1]["files"] if "eval_results" in name]
    assert_says_as(loaded["benchmark"], hub.model_folder("2m-ner"), picture=hub.picture)


# An endpoint, which loads handler.py by its path, with the model's folder before all other packages.

ENDPOINT = """
import base64, importlib.util, json, sys
from huggingface_hub import snapshot_download
if sys.argv[3:]:
    import modeling_mmner
    assert modeling_mmner.__version__ == sys.argv[3] and modeling_mmner.MMNERConfig
folder = snapshot_download("org/mlmner")
sys.path.insert(0, folder)
spec = importlib.util.spec_from_file_location("handler", f"{folder}/handler.py")
sys.modules["handler"] = handler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handler)
request = json.loads(sys.argv[1])
request["inputs"][0]["image"] = base64.b64encode(open(sys.argv[2], "rb").read()).decode()
print(json.dumps(handler.EndpointHandler(folder)(request)))
"""


@pytest.mark.parametrize("other", [None, "9.9.9"], ids=["no package", "another version"])
def test_endpoint_of_a_pushed_model_answers_as_its_pipeline(hub, loaded, tmp_path, other):
    """If it failed, an Inference Endpoint would not start, or find other entities than the card says."""
    environment: dict[str, Any] = hub.environment()
    if other:
        environment["PYTHONPATH"] = other_version(tmp_path / "site", other)
    request = {"inputs": [{"text": TEXTS[0]}, TEXTS[1]], "parameters": {"aggregation_strategy": "first"}}
    arguments = [json.dumps(request), hub.picture, *filter(None, [other])]
    blocked = () if other else PACKAGES
    done = run_elsewhere(ENDPOINT, *arguments, folder=tmp_path, blocked=blocked, **environment)
    assert_same(json.loads(done.stdout.splitlines()[-1]), loaded["mlmner"]["pipeline"])


def test_models_and_pipelines_over_http_are_the_same_beside_another_version(hub, tmp_path):
    """If it failed, who has an older or newer package could not load what others push."""
    environment = hub.environment() | {"PYTHONPATH": other_version(tmp_path / "site", "9.9.9")}
    models = {"mlmner": {"pretrained_model_name_or_path": "org/mlmner"}}
    found = load_elsewhere(models, picture=hub.picture, folder=tmp_path, blocked=(), **environment)
    assert_says_as(found["mlmner"], hub.model_folder("mlmner"), picture=hub.picture)


def other_version(site: Path, version: str) -> Path:
    """The package in another version, whose own classes are other ones by name and by an option."""
    copied = shutil.copytree(ROOT / "modeling_mmner", site / "modeling_mmner")
    shutil.copytree(ROOT / "dataset_scripts", site / "dataset_scripts")
    for file, old, new in (
        ("__init__.py", re.compile("^__version__ = .*$", re.M), f'__version__ = "{version}"'),
        ("model/pipeline_mmner.py", re.compile('"threshold"\\)'), '"least")'),
    ):
        text, number = old.subn(new, (copied / file).read_text("utf-8"))
        assert number == 1
        (copied / file).write_text(text, encoding="utf-8")
    return site


# Data sets.


def published(folder: Path) -> list[str]:
    """The files of a built data set that belong on the Hub."""
    return sorted(name for name in files_of(folder) if any(fnmatch(name, pattern) for pattern in PUBLISHED))


def test_data_set_is_pushed_in_one_commit_and_private(hub, pushes):
    """If it failed, the Hub would show half a data set, an older one's files, or private posts."""
    returned(pushes, "push_data_sets")
    small, sample = published(hub.folder / "small" / "built"), published(hub.folder / "sample")
    before, after = hub.commits("datasets/org/posts")
    assert (before["written"], before["deleted"]) == (small, [])
    assert after["written"] == sample
    assert after["deleted"] == [name for name in small if name.endswith(".parquet")]
    assert after["files"] == [".gitattributes", *sample]
    assert after["title"] == "sample generated-1.0.0-seed-1"
    message = "--push org/public: expected a new or a private repository, found a public one"
    assert returned(pushes, "push_data_sets").startswith(message)
    assert hub.repository("datasets/org/posts")["private"]


def test_rows_over_http_are_those_of_the_folder(hub, pushes):
    """If it failed, a data set from the Hub would have other posts or pictures than were built."""
    returned(pushes, "push_data_sets")
    places = [["local", str(hub.folder / "sample"), [None]], ["hub", "org/posts", [None]]]
    target = hub.folder / "rows.json"
    run_elsewhere(LOADED_ROWS, json.dumps(places), target, folder=hub.folder, **hub.environment())
    rows = json.loads(target.read_text(encoding="utf-8"))
    assert len(rows["local None False"]["rows"]["test"]) == 200
    assert rows["hub None False"] == rows["local None False"]
    assert rows["hub None True"] == rows["local None False"]
