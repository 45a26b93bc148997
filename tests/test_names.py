"""Tests of names that are mistyped: of corpora, models and recipes, at every door."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import config
from huggingface_hub import HfApi, constants

from dataset_scripts.opening import open_corpus
from modeling_mmner.hub.push import plan_upload
from modeling_mmner.inference.annotator import Annotator
from modeling_mmner.inference.demo_space import write_space
from modeling_mmner.inference.loading import load_model, load_predictor
from modeling_mmner.inference.picture_contexts import Captioner
from modeling_mmner.inference.posts_input import open_posts
from modeling_mmner.names import path_or_hub
from modeling_mmner.training.recipes import load_recipe

MODELS: dict[str, Callable[[str], object]] = {
    "load": load_model,
    "predict": load_predictor,
    "annotate": Annotator,
    "push": lambda name: plan_upload(name, repo_id="a/b"),
    "space": lambda name: write_space(name, "space"),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a file of posts and a run; whoever asks the Hub fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "quickstart" / "model").mkdir(parents=True)
    (tmp_path / "outputs" / "quickstart" / "model" / "config.json").write_text("{}")
    (tmp_path / "posts.jsonl").write_text("")
    for library in (constants, config):
        monkeypatch.setattr(library, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: pytest.fail("the Hub was asked"))
    return tmp_path


@pytest.mark.parametrize("open_it", MODELS.values(), ids=MODELS)
def test_mistyped_model_fails_at_once_with_the_one_that_is_meant(open_it):
    """If it failed, a slip in a path would cost minutes of retries, and an answer that does not help."""
    with pytest.raises((OSError, ValueError), match="did you mean outputs/quickstart/model"):
        open_it("outputs/quikstart/model")


def test_mistyped_captioner_fails_at_once():
    """If it failed, its name would be asked for file by file."""
    with pytest.raises(
        ValueError, match=r"found none; there is no 'blip' in the working folder, which holds"
    ):
        Captioner("blip").pipeline  # noqa: B018


@pytest.mark.parametrize("open_it", (load_model, load_predictor, Annotator))
def test_recipe_in_the_place_of_a_model_is_told_apart(open_it):
    """If it failed, whoever gives --model mlmner would not learn that a model must be trained first."""
    with pytest.raises(OSError, match="name of a recipe; mmner train --recipe mlmner --output_dir outputs/m"):
        open_it("mlmner")


def test_folder_of_a_run_leads_to_its_model():
    """If it failed, outputs/quickstart would be answered by the name of a file that it lacks."""
    with pytest.raises(OSError, match="found model; did you mean outputs/quickstart/model"):
        load_model("outputs/quickstart")


def test_path_whose_folder_is_empty_says_what_is_there():
    """If it failed, nothing would say where the path ends to be right."""
    with pytest.raises(
        OSError, match=r"there is no 'best' in outputs/quickstart/model, which holds config.j"
    ):
        load_model("outputs/quickstart/model/best/that/there/ever/was/of/all/of/them")


@pytest.mark.parametrize("name", ["post.jsonl", "./post.jsonl", "mine/posts.csv", "../posts.txt"])
@pytest.mark.parametrize("open_it", (open_corpus, open_posts))
def test_mistyped_file_is_not_looked_for_on_the_hub(open_it, name):
    """If it failed, the name of a private file would be sent out, and half a minute be lost."""
    hint = "did you mean posts.jsonl" if "/" not in name else "there is no|did you mean"
    with pytest.raises(ValueError, match=rf"expected a file or folder that is there.*found none; ({hint})"):
        open_it(name)


def test_mistyped_builder_and_recipe_are_answered_by_the_nearest(here):
    """If it failed, sampel would be a data set of the Hub, and own.yml a riddle."""
    with pytest.raises(ValueError, match="found none; did you mean sample"):
        open_corpus("sampel")
    (here / "own.yaml").write_text("")
    with pytest.raises(ValueError, match=r"did you mean own\.yaml"):
        load_recipe("own.yml")


def test_hub_that_does_not_answer_is_asked_once(monkeypatch):
    """If it failed, each file of an id would be asked for six times, 8 s apart."""
    monkeypatch.undo()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    calls = []

    def unreachable(*_: object, **__: object) -> None:
        calls.append(1)
        raise ConnectionError("no network")

    monkeypatch.setattr(HfApi, "repo_info", unreachable)
    started = time.monotonic()
    with pytest.raises(OSError, match=r"model 'org/nosuch': .*the Hub does not answer, and nothing of that"):
        load_model("org/nosuch")
    assert (len(calls), time.monotonic() - started < 5) == (1, True)
    assert not constants.HF_HUB_OFFLINE


def test_error_of_the_reader_stays_where_the_hub_answers(monkeypatch):
    """If it failed, a damaged model of the Hub would be called unknown."""
    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: None)
    with pytest.raises(OSError, match=r"^damaged$"), path_or_hub("org/there", kind="model"):
        raise OSError("damaged")
