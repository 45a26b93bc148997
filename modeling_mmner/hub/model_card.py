"""Model cards: the metrics of a training run -> the README.md of the trained model on the Hub."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..escaping import code_span, one_line, rendered
from ..evaluation.metrics import CardExample, RunMetrics
from ..evaluation.reports import percent
from ..training.recipes import PACE, PLACES
from ..training.terms import derived_licence, public_name
from .eval_results import hub_dataset

# Not in the card's table of settings: what it says elsewhere, and folders of the author's own disk.
_NOT_IN_TABLE = {"languages", "seed", *PLACES, *PACE} - {"mixed_precision"}
_FILTERS = {
    "percent": percent,
    "as_setting": lambda value: code_span(json.dumps(value, ensure_ascii=False)),
    "quoted": lambda value: json.dumps(one_line(value), ensure_ascii=False),
}


def render_model_card(
    metrics: RunMetrics,
    *,
    repo_id: str | None = None,
    revision: str | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> str:
    """The model card of a trained model: YAML front matter for the Hub, and Markdown.

    Args:
        metrics: of its run; every figure of the card comes from them.
        repo_id: the model's name on the Hub, for the examples of use; None: ``org/`` and the recipe's name.
        revision: the tag that the examples pin; None: `default_revision`.
        calibration: that of the processor, whose figures are the card's only others.

    Raises:
        ValueError: a score is no fraction in 0..1, or the licence is not the one that follows from the terms.
    """
    licence, recipe = derived_licence(row["terms"] for row in metrics.terms), metrics.recipe
    if metrics.license != licence:
        found = f"found {metrics.license!r}"
        raise ValueError(f"metrics: expected the license {licence!r}, which follows from the terms, {found}")
    name = repo_id or f"org/{recipe['name']}"
    examples = [one for one in metrics.corpus.examples if one.entities is not None]
    settings = recipe["corpus"] | recipe["model"] | recipe["training"]
    here = resources.files(__package__)
    values = {
        "front_matter": _front_matter(metrics, name).to_yaml(),
        "metrics": metrics,
        "recipe": recipe,
        "corpus": metrics.corpus,
        "test": metrics.splits.test,
        "repo_id": name,
        "revision": revision or default_revision(metrics),
        "is_placeholder": repo_id is None,
        "requirements": here.joinpath("requirements.txt").read_text(encoding="utf-8").split(),
        "examples": examples,
        "shows_pictures": any(one.pictures for one in examples),
        "curve": _curve(metrics),
        "settings": {key: value for key, value in settings.items() if key not in _NOT_IN_TABLE},
        "reads_pictures": recipe["corpus"]["use_images"] and bool(recipe["model"]["vision_towers"]),
        "calibration": calibration,
        "reads_context": recipe["corpus"].get("context") is not None,
    }
    return rendered(here.joinpath("card.md.jinja"), values, **_FILTERS)


def default_revision(metrics: RunMetrics) -> str:
    """The tag of a model: ``v`` and the version of mmner that it was trained with."""
    return f"v{metrics.versions['mmner']}"


def _front_matter(metrics: RunMetrics, repo_id: str) -> ModelCardData:
    corpus = metrics.corpus
    is_other = metrics.license == "other"
    widget = {one.text: _widget_example(one) for one in corpus.examples}  # which shows no pictures
    base_models, dataset = metrics.recipe["base_models"] or None, hub_dataset(metrics)
    languages = metrics.recipe["corpus"]["languages"] or corpus.languages
    return ModelCardData(
        language=[name for name in languages if re.fullmatch("[a-z]{2,3}", name)] or None,
        license=metrics.license,
        library_name="transformers",
        pipeline_tag="token-classification",
        tags=["multimodal", "ner", "mmner", "mner"],
        base_model=base_models,
        base_model_relation="finetune" if base_models else None,  # or the Hub takes several for a merge
        datasets=[dataset] if dataset else None,
        metrics=["precision", "recall", "f1"],
        widget=[*widget.values()] or None,
        model_name=one_line(metrics.recipe["name"]),
        eval_results=_results(metrics),
        license_name="terms-of-its-parts" if is_other else None,
        license_link=f"https://huggingface.co/{repo_id}#terms" if is_other else None,
    )


def _widget_example(example: CardExample) -> dict[str, Any]:
    """With its output, which the Hub shows in place of a run: no provider runs a model's own code."""
    title = example.example_title + (", read with its picture" if example.pictures else "")
    found = [one | {"score": round(one["score"], 4)} for one in example.entities or []]
    output = {} if example.entities is None else {"output": found}
    return {"text": example.text, "example_title": title} | output


def _curve(metrics: RunMetrics) -> list[dict[str, Any]]:
    """Some ten epochs of the history, the first, the chosen and the last among them."""
    epochs, step = metrics.history, max(1, len(metrics.history) // 10)
    kept = {0, *range(step - 1, len(epochs), step), len(epochs) - 1, metrics.selected_epoch - 1}
    return [epoch for number, epoch in enumerate(epochs) if number in kept]


def _results(metrics: RunMetrics) -> list[EvalResult]:
    test, corpus = metrics.splits.test, metrics.corpus
    overall = {name: getattr(test.overall, name) for name in ("precision", "recall", "f1")}
    figures = [(name, f"{name.capitalize()} (micro average, lenient)", one) for name, one in overall.items()]
    if len(test.by_language) > 1:
        figures += [("f1", f"F1 in {name} (lenient)", score.f1) for name, score in test.by_language.items()]
    return [
        EvalResult(
            task_type="token-classification",
            task_name="Multimodal named entity recognition",
            dataset_type=hub_dataset(metrics) or corpus.name,
            dataset_name=corpus.name,
            dataset_split="test",
            dataset_revision=corpus.version.get("test"),
            metric_type=metric,
            metric_name=one_line(label),
            metric_value=round(value, 4),
        )
        for metric, label, value in figures
    ]


def without_folders(metrics: RunMetrics) -> RunMetrics:
    """The metrics as they may be published: of a path on this machine's disk only the last name is left."""
    corpus = replace(metrics.corpus, context_writer=public_name(metrics.corpus.context_writer))
    return replace(metrics, recipe=_without_paths(metrics.recipe), corpus=corpus)


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {public_name(key): _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return public_name(value) if isinstance(value, str) else value
