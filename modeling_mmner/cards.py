"""Model cards: the metrics of a training run -> the README.md of the trained model on the Hub."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from .reports import percent

_PARTS = ("recipe", "seed", "versions", "corpus", "model", "selected_epoch", "timing", "splits")
# Left out of the table of settings; the paths are those of the author's own disk.
_TOLD_ELSEWHERE = ("name", "description", "license", "base_models", "languages", "seed")
_OWN_PATHS = ("data_dir", "image_dir", "output_dir")


class _Section(dict[str, Any]):
    """A part of the metrics that knows its place in them, to say what is missing from where."""

    def __init__(self, content: dict[str, Any], place: str = "") -> None:
        nested = {key: _Section(item, f"{place}{key}.") if isinstance(item, dict) else item for key, item in content.items()}
        super().__init__(nested)
        self._place = place

    def __missing__(self, key: str) -> Any:
        # Not a KeyError, which Jinja would turn into an undefined value that has forgotten its place.
        raise ValueError(
            f"metrics: expected {self._place + key!r}, found none; {self._place.rstrip('.') or 'the top level'} has "
            f"{sorted(self)}. Make the card from the metrics.json of a finished training run"
        )


def render_card(metrics: dict[str, Any], *, repo_id: str = "...") -> str:
    """The model card of a trained model: YAML front matter for the Hub, and Markdown.

    Args:
        metrics: what training writes as metrics.json; every figure of the card comes from it.
        repo_id: the model's name on the Hub, for the example of use.

    Raises:
        ValueError: a key is missing from the metrics (the text names its full place), or a score is no fraction in 0..1.
    """
    metrics = _Section(metrics)
    recipe = metrics["recipe"]
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"percent": percent, "as_setting": _as_setting}
    template = resources.files("model_cards").joinpath("template.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        {part: metrics[part] for part in _PARTS},
        front_matter=_front_matter(metrics).to_yaml(),
        repo_id=repo_id,
        test=metrics["splits"]["test"],
        settings={key: value for key, value in recipe.items() if key not in _TOLD_ELSEWHERE + _OWN_PATHS},
        reads_pictures=recipe["use_images"] and bool(recipe["vision_towers"]),
        is_synthetic=metrics["corpus"]["version_name"].startswith("generated"),
    )


def _front_matter(metrics: _Section) -> ModelCardData:
    recipe, corpus, test = metrics["recipe"], metrics["corpus"], metrics["splits"]["test"]
    labels = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
    results = [
        _result(corpus, metric, f"{label} (micro average, lenient)", test["overall"][metric]) for metric, label in labels.items()
    ]
    if len(test["by_language"]) > 1:
        results += [_result(corpus, "f1", f"F1 in {name} (lenient)", score["f1"]) for name, score in test["by_language"].items()]
    return ModelCardData(
        language=recipe["languages"] or None,
        license=recipe["license"],
        library_name="transformers",
        pipeline_tag="token-classification",
        tags=["multimodal", "ner", "mmner", "mner"],
        base_model=recipe["base_models"] or None,
        metrics=["precision", "recall", "f1"],
        model_name=recipe["name"],
        eval_results=results,
    )


def _result(corpus: _Section, metric: str, label: str, value: float) -> EvalResult:
    """A figure of the test split for the Hub's list of results."""
    return EvalResult(
        task_type="token-classification",
        task_name="Multimodal named entity recognition",
        dataset_type=corpus["name"],
        dataset_name=corpus["name"],
        dataset_split="test",
        dataset_revision=corpus["version"]["test"],
        metric_type=metric,
        metric_name=label,
        metric_value=round(value, 4),
    )


def _as_setting(value: Any) -> str:
    """A setting as JSON that fits a cell of a Markdown table; of a path on the author's disk only the last name."""
    return json.dumps(_without_folders(value), ensure_ascii=False).replace("|", "\\|")


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    is_path = isinstance(value, str) and (Path(value).is_absolute() or value.startswith(("./", "../", "~")))
    return Path(value).name if is_path else value
