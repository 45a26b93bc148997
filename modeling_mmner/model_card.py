"""Model cards: the metrics of a training run -> the README.md of the trained model on the Hub."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from dataset_scripts.opening import BUILDERS
from dataset_scripts.sample.languages import LANGUAGES
from dataset_scripts.sample.texts import generate_posts

from . import __version__
from .recipes import Recipe, load_recipe, recipe_names
from .reports import percent
from .terms import derived_licence, terms_of, told_name

_MEASURED = ("seed", "versions", "corpus", "model", "selected_epoch", "timing", "splits")
# Left out of the table of settings; the folders are those of the author's own disk.
_TOLD_ELSEWHERE = ("name", "description", "terms", "base_models", "languages", "seed", "data_dir", "image_dir", "output_dir")


class _Section(dict[str, Any]):
    """A part of the metrics that knows its place in them, to say what is missing from where."""

    def __init__(self, content: dict[str, Any], place: str = "") -> None:
        super().__init__({key: _in_place(item, f"{place}{key}") for key, item in content.items()})
        self._place = place

    def __missing__(self, key: str) -> Any:
        # Not a KeyError, which Jinja would turn into an undefined value that has forgotten its place.
        raise ValueError(
            f"metrics: expected {self._place + key!r}, found none; {self._place.rstrip('.') or 'the top level'} has "
            f"{sorted(self)}. Make the card from the metrics.json of a finished training run of mmner {__version__}"
        )


def _in_place(item: Any, place: str) -> Any:
    if isinstance(item, list):
        return [_in_place(member, f"{place}[{number}]") for number, member in enumerate(item)]
    return _Section(item, f"{place}.") if isinstance(item, dict) else item


def render_card(metrics: dict[str, Any], *, repo_id: str | None = None, revision: str | None = None) -> str:
    """The model card of a trained model: YAML front matter for the Hub, and Markdown.

    Args:
        metrics: what training writes as metrics.json; every figure of the card comes from it.
        repo_id: the model's name on the Hub, for the examples of use; None: ``org/`` and the recipe's name.
        revision: the tag that the examples pin; None: `default_revision`.

    Raises:
        ValueError: a key is missing from the metrics (the text names its full place), a score is no fraction in 0..1, or the
            licence is not the one that follows from the terms.
    """
    metrics = _Section(metrics)
    licence = derived_licence(row["terms"] for row in metrics["terms"])
    if (found := metrics["license"]) != licence:
        raise ValueError(f"metrics: expected the license {licence!r}, which follows from the terms, found {found!r}")
    return _render(
        metrics["recipe"],
        terms=metrics["terms"],
        repo_id=repo_id,
        revision=revision or default_revision(metrics),
        results=_results(metrics),
        is_trained=True,
        test=metrics["splits"]["test"],
        is_synthetic=metrics["corpus"]["version_name"].startswith("generated"),
        **{part: metrics[part] for part in _MEASURED},
    )


def default_revision(metrics: dict[str, Any]) -> str:
    """The tag of a model: ``v`` and the version of mmner that it was trained with."""
    return f"v{_Section(metrics)['versions']['mmner']}"


def render_untrained_card(recipe: Recipe, *, repo_id: str | None = None, revision: str | None = None) -> str:
    """The card of a recipe that nobody has trained yet: the same sections without any figure, and the command that trains it."""
    return _render(
        _Section(recipe.to_dict()),
        terms=terms_of(recipe),
        repo_id=repo_id,
        revision=revision or f"v{__version__}",
        results=None,
        is_trained=False,
        is_synthetic=recipe.corpus.dataset == "sample",
        command=_training_command(recipe),
    )


def _render(
    recipe: _Section,
    *,
    terms: list[dict[str, str]],
    repo_id: str | None,
    revision: str,
    results: list[EvalResult] | None,
    **parts: Any,
) -> str:
    licence = derived_licence(row["terms"] for row in terms)
    is_placeholder = repo_id is None
    repo_id = repo_id or f"org/{recipe['name']}"
    builder = BUILDERS.get(recipe["corpus"]["dataset"])
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"percent": percent, "as_setting": _as_setting}
    template = resources.files("model_cards").joinpath("template.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        front_matter=_front_matter(recipe, licence, repo_id, results).to_yaml(),
        recipe=recipe,
        terms=terms,
        license=licence,
        repo_id=repo_id,
        revision=revision,
        is_placeholder=is_placeholder,
        settings={
            key: value
            for section in ("corpus", "model", "training")
            for key, value in recipe[section].items()
            if key not in _TOLD_ELSEWHERE
        },
        reads_pictures=recipe["corpus"]["use_images"] and bool(recipe["model"]["vision_towers"]),
        corpus_citation=builder.CITATION if builder is not None else "",
        **parts,
    )


def _front_matter(recipe: _Section, licence: str, repo_id: str, results: list[EvalResult] | None) -> ModelCardData:
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
        widget=_widget(recipe["corpus"]["languages"]) or None,
        model_name=recipe["name"] if results else None,
        eval_results=results,
    )


def _results(metrics: _Section) -> list[EvalResult]:
    """The figures for the Hub's list of results."""
    corpus, test = metrics["corpus"], metrics["splits"]["test"]
    labels = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
    results = [
        _result(corpus, metric, f"{label} (micro average, lenient)", test["overall"][metric]) for metric, label in labels.items()
    ]
    if len(test["by_language"]) > 1:
        results += [_result(corpus, "f1", f"F1 in {name} (lenient)", score["f1"]) for name, score in test["by_language"].items()]
    return results


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


def _widget(languages: Sequence[str]) -> list[dict[str, str]]:
    """A generated sentence in each language that the sample corpus has: real posts belong to their authors."""
    examples = []
    for language in languages:
        if language in LANGUAGES:
            posts = (post.tokens for post in generate_posts(language, "test", 1) if len(set(post.tags)) > 3)
            tokens = next(tokens for tokens in posts if all(token.isalpha() for token in tokens))
            examples.append({"text": " ".join(tokens), "example_title": f"generated post ({language})"})
    return examples


def _training_command(recipe: Recipe) -> str:
    """The command line that trains a recipe of the package, with folders that the user has to bring."""
    command = f"python train_accelerate.py --recipe {recipe.name}"
    if (dataset := recipe.corpus.dataset) != "sample":
        command += f" --data_dir {dataset}"
        command += f" --image_dir {dataset}_images" if recipe.model.towers else ""
    return command


def _as_setting(value: Any) -> str:
    """A setting as JSON that fits a cell of a Markdown table."""
    return json.dumps(value, ensure_ascii=False).replace("|", "\\|")


def without_folders(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics as they may be published: of each path on the author's disk only the last name is left.

    What is a path is asked of the disk, so ask where the run was made.
    """
    recipe = {key: _told(value) for key, value in _Section(metrics)["recipe"].items() if key != "terms"}
    return metrics | {"recipe": recipe}


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _told(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_told(item) for item in value]
    return told_name(value) if isinstance(value, str) else value


def recipe_cards(folder: str | Path) -> dict[str, str]:
    """The card of each recipe of the package by its name; a trained one has its ``metrics/<recipe>.json`` in `folder`."""
    cards = {}
    for name in recipe_names():
        metrics = Path(folder) / "metrics" / f"{name}.json"
        cards[name] = render_card(_read(metrics)) if metrics.is_file() else render_untrained_card(load_recipe(name))
    return cards


def write_cards(folder: str | Path, *, metrics: Sequence[str | Path] = ()) -> list[Path]:
    """Write the card of each recipe of the package as ``<recipe>.md``; returns the paths.

    Args:
        folder: of the cards, ``model_cards`` in the repository.
        metrics: metrics.json of runs that are taken into the folder first, in the place of what their recipes have there.

    Raises:
        ValueError: the metrics are of no recipe of the package, or no card can be made of them; nothing is written then.
    """
    folder = Path(folder)
    taken = {}
    for path in metrics:
        run = without_folders(_read(path))
        render_card(run)
        if (name := run["recipe"]["name"]) not in recipe_names():
            raise ValueError(f"{path}: expected the metrics of one of {recipe_names()}, found those of {name!r}")
        taken[name] = run
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    for name, run in taken.items():
        (folder / "metrics" / f"{name}.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    cards = {folder / f"{name}.md": card for name, card in recipe_cards(folder).items()}
    for path, card in cards.items():
        path.write_text(card, encoding="utf-8")
    return list(cards)


def _read(path: str | Path) -> dict[str, Any]:
    try:
        metrics = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected the metrics.json of a training run, found no JSON ({error})") from error
    if not isinstance(metrics, dict):
        raise ValueError(f"{path}: expected the metrics.json of a training run, found a {type(metrics).__name__}")
    return metrics
