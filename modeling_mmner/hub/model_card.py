"""Model cards: the metrics of a training run -> the README.md of the trained model on the Hub."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from .. import __version__
from ..escaping import code_block, code_span, markdown_text, one_line
from ..evaluation.metrics import CorpusSummary, RunMetrics
from ..evaluation.reports import percent
from ..training.recipes import PACE, PLACES, Recipe, load_recipe, recipe_names
from ..training.terms import derived_licence, public_name, terms_of

# Not in the card's table of settings: what it says elsewhere, and folders of the author's own disk.
_NOT_IN_TABLE = {"languages", "seed", *PLACES, *PACE} - {"mixed_precision"}


def render_model_card(metrics: RunMetrics, *, repo_id: str | None = None, revision: str | None = None) -> str:
    """The model card of a trained model: YAML front matter for the Hub, and Markdown.

    Args:
        metrics: of its run; every figure of the card comes from them.
        repo_id: the model's name on the Hub, for the examples of use; None: ``org/`` and the recipe's name.
        revision: the tag that the examples pin; None: `default_revision`.

    Raises:
        ValueError: a score is no fraction in 0..1, or the licence is not the one that follows from the terms.
    """
    licence = derived_licence(row["terms"] for row in metrics.terms)
    if metrics.license != licence:
        raise ValueError(
            f"metrics: expected the license {licence!r}, which follows from the terms, found"
            f" {metrics.license!r}"
        )
    return _render(
        metrics.recipe,
        terms=metrics.terms,
        repo_id=repo_id,
        revision=revision or default_revision(metrics),
        corpus=metrics.corpus,
        results=_results(metrics),
        metrics=metrics,
        command="",
    )


def default_revision(metrics: RunMetrics) -> str:
    """The tag of a model: ``v`` and the version of mmner that it was trained with."""
    return f"v{metrics.versions['mmner']}"


def render_untrained_card(
    recipe: Recipe,
    *,
    corpus: CorpusSummary | None = None,
    repo_id: str | None = None,
    revision: str | None = None,
) -> str:
    """The card of a recipe that nobody has trained yet: the same sections without any figure, and the command
    that trains it.

    Args:
        corpus: what is known of it without opening it: citation and whether it is generated.
    """
    return _render(
        recipe.to_dict(),
        terms=terms_of(recipe),
        repo_id=repo_id,
        revision=revision or f"v{__version__}",
        corpus=corpus or CorpusSummary(recipe.corpus.dataset, "", {}, {}, {}, {}),
        results=None,
        metrics=None,
        command=_training_command(recipe, needs_files=not (corpus and corpus.is_generated)),
    )


def _render(
    recipe: dict[str, Any],
    *,
    terms: list[dict[str, str]],
    repo_id: str | None,
    revision: str,
    corpus: CorpusSummary,
    results: list[EvalResult] | None,
    metrics: RunMetrics | None,
    command: str,
) -> str:
    licence = derived_licence(row["terms"] for row in terms)
    is_placeholder = repo_id is None
    repo_id = repo_id or f"org/{recipe['name']}"
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "percent": percent,
        "as_setting": _as_setting,
        "text": markdown_text,
        "code": code_span,
        "block": code_block,
        "quoted": lambda value: json.dumps(one_line(value), ensure_ascii=False),
    }
    template = resources.files(__package__).joinpath("card.md.jinja").read_text(encoding="utf-8")
    sections = ("corpus", "model", "training")
    return environment.from_string(template).render(
        front_matter=_front_matter(recipe, licence, repo_id, corpus, results).to_yaml(),
        recipe=recipe,
        terms=terms,
        license=licence,
        repo_id=repo_id,
        revision=revision,
        is_placeholder=is_placeholder,
        settings={
            key: value for part in sections for key, value in recipe[part].items() if key not in _NOT_IN_TABLE
        },
        reads_pictures=recipe["corpus"]["use_images"] and bool(recipe["model"]["vision_towers"]),
        reads_context=recipe["corpus"].get("context") is not None,
        corpus=corpus,
        is_trained=metrics is not None,
        metrics=metrics,
        test=metrics and metrics.splits.test,
        command=command,
    )


def _front_matter(
    recipe: dict[str, Any],
    licence: str,
    repo_id: str,
    corpus: CorpusSummary,
    results: list[EvalResult] | None,
) -> ModelCardData:
    is_other = licence == "other"
    return ModelCardData(
        language=recipe["corpus"]["languages"] or None,
        license=licence,
        license_name="terms-of-its-parts" if is_other else None,
        license_link=f"https://huggingface.co/{repo_id}#terms" if is_other else None,
        library_name="transformers",
        pipeline_tag="token-classification",
        tags=["multimodal", "ner", "mmner", "mner"],
        base_model=recipe["base_models"] or None,
        metrics=["precision", "recall", "f1"] if results else None,
        widget=[dict(example) for example in corpus.examples] or None,
        model_name=one_line(recipe["name"]) if results else None,
        eval_results=results,
    )


def _results(metrics: RunMetrics) -> list[EvalResult]:
    """The figures for the Hub's list of results."""
    test = metrics.splits.test
    labels = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
    results = [
        _result(metrics.corpus, metric, f"{label} (micro average, lenient)", getattr(test.overall, metric))
        for metric, label in labels.items()
    ]
    if len(test.by_language) > 1:
        results += [
            _result(metrics.corpus, "f1", f"F1 in {name} (lenient)", score.f1)
            for name, score in test.by_language.items()
        ]
    return results


def _result(corpus: CorpusSummary, metric: str, label: str, value: float) -> EvalResult:
    """A figure of the test split for the Hub's list of results."""
    return EvalResult(
        task_type="token-classification",
        task_name="Multimodal named entity recognition",
        dataset_type=corpus.name,
        dataset_name=corpus.name,
        dataset_split="test",
        dataset_revision=corpus.version.get("test"),
        metric_type=metric,
        metric_name=one_line(label),
        metric_value=round(value, 4),
    )


def _training_command(recipe: Recipe, *, needs_files: bool) -> str:
    """The command line that trains a recipe of the package, with folders that the user has to bring."""
    dataset = recipe.corpus.dataset
    command = f"python train_accelerate.py --recipe {shlex.quote(one_line(recipe.name))}"
    if needs_files:
        command += f" --data_dir {shlex.quote(dataset)}"
        command += (
            f" --context_file {shlex.quote(f'{dataset}_contexts')}"
            if recipe.corpus.context is not None
            else ""
        )
        command += f" --image_dir {shlex.quote(f'{dataset}_images')}" if recipe.model.towers else ""
    return command


def _as_setting(value: Any) -> str:
    """A setting as JSON in a code span."""
    return code_span(json.dumps(value, ensure_ascii=False))


def without_folders(metrics: RunMetrics) -> RunMetrics:
    """The metrics as they may be published: of each path on the author's disk only the last name is left.

    What is a path is asked of the disk, so ask where the run was made.
    """
    corpus = replace(metrics.corpus, context_writer=public_name(metrics.corpus.context_writer))
    return replace(metrics, recipe=_without_paths(metrics.recipe), corpus=corpus)


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {public_name(key): _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return public_name(value) if isinstance(value, str) else value


def recipe_cards(folder: str | Path, corpora: dict[str, CorpusSummary]) -> dict[str, str]:
    """The card of each recipe of the package by its name; a trained one has its ``metrics/<recipe>.json`` in
    `folder`.

    Args:
        corpora: what the cards of untrained recipes say of their corpora, by name.
    """
    cards = {}
    for name in recipe_names():
        path, recipe = Path(folder) / "metrics" / f"{name}.json", load_recipe(name)
        if path.is_file():
            cards[name] = render_model_card(RunMetrics.from_file(path))
        else:
            cards[name] = render_untrained_card(recipe, corpus=corpora.get(recipe.corpus.dataset))
    return cards


def write_cards(
    folder: str | Path, corpora: dict[str, CorpusSummary], *, metrics: Sequence[str | Path] = ()
) -> list[Path]:
    """Write the card of each recipe of the package as ``<recipe>.md``; returns the paths.

    Args:
        folder: of the cards, ``model_cards`` in the repository.
        corpora: see `recipe_cards`.
        metrics: metrics.json of runs that are taken into the folder first, in the place of what their recipes
            have there.

    Raises:
        ValueError: the metrics are of no recipe of the package, or no card can be made of them; nothing is
            written then.
    """
    folder = Path(folder)
    taken = {}
    for path in metrics:
        run = without_folders(RunMetrics.from_file(path))
        render_model_card(run)
        if (name := run.recipe["name"]) not in recipe_names():
            raise ValueError(
                f"{path}: expected the metrics of one of {recipe_names()}, found those of {name!r}"
            )
        taken[name] = run
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    for name, run in taken.items():
        (folder / "metrics" / f"{name}.json").write_text(run.to_json(), encoding="utf-8")
    cards = {folder / f"{name}.md": card for name, card in recipe_cards(folder, corpora).items()}
    for path, card in cards.items():
        path.write_text(card, encoding="utf-8")
    return list(cards)
