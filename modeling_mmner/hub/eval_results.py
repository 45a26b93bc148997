"""The score of a model on a benchmark of the Hub: a file below `.eval_results/` of its repository.

A benchmark is a data set with an ``eval.yaml``, whose tasks name a config and a split. Its page lists the
scores of all models that say so, see https://huggingface.co/docs/hub/eval-results.
"""

import re
from contextlib import suppress
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from ..evaluation.metrics import RunMetrics
from ..files import read_yaml

_OTHER_POSTS = ("test_dataset", "languages", "test_languages", "split_slices", "rename_types", "columns")
"""Settings of a corpus with which a run is tested on other posts or tags than the data set's test split."""


def hub_dataset(metrics: RunMetrics) -> str | None:
    """The id on the Hub of the data set that a model was trained on; None: it comes from elsewhere.

    Metrics name what lay on the author's disk without its folders, see `without_folders`.
    """
    name = str(metrics.recipe["corpus"].get("dataset"))
    return name if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name, re.ASCII) else None


def eval_results(metrics: RunMetrics, benchmark: str, *, repo_id: str, revision: str) -> dict[str, bytes]:
    """The file with the lenient F1 on the whole test split, each post with its own picture, by its name.

    Args:
        benchmark: the eval.yaml of `hub_dataset`.
        repo_id, revision: of the model, whose metrics.json is the score's source.

    Returns:
        no file where the run was tested on something else, or not exactly one task of the file fits.
    """
    dataset, corpus, fits = hub_dataset(metrics), metrics.recipe["corpus"], list[str]()
    config = corpus.get("dataset_config")
    with suppress(ValueError, LookupError, TypeError, AttributeError):  # what others wrote stops no push
        fits = [
            str(task["id"])
            for task in read_yaml(benchmark)["tasks"]
            if task.get("split", "test") == "test" and config in (None, task.get("config", "default"))
        ]
    if dataset is None or len(fits) != 1 or any(corpus.get(key) for key in _OTHER_POSTS):
        return {}
    entry = EvalResultEntry(
        dataset_id=dataset,
        task_id=fits[0],
        value=round(metrics.splits.test.overall.f1, 4),
        source_url=f"https://huggingface.co/{repo_id}/blob/{revision}/metrics.json",
        source_name="metrics.json of the run",
        notes="own pictures" if corpus["use_images"] and metrics.recipe["model"]["vision_towers"] else "text",
    )
    text: Any = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
    return {f".eval_results/{dataset.partition('/')[2]}.yaml": text.encode()}
