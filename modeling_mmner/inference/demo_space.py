"""A folder that is ready to be a Hugging Face Space: the demo page of a model."""

import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, SpaceCardData
from huggingface_hub.constants import ENDPOINT
from yaml import YAMLError

from ..escaping import markdown_text, one_line, rendered
from ..evaluation.metrics import RunMetrics
from ..files import check_own_files, staged_folder
from ..hub.examples import Example
from ..hub.push import METRICS, is_of_a_model, with_examples
from .loading import model_named

_ROOT = Path(__file__).resolve().parents[2]


def write_space(model: str, folder: str | Path, *, examples: Sequence[Example] | None = None) -> Path:
    """Write app.py, requirements.txt, README.md, the code that they need, and a model that is a folder.

    Args:
        model: folder of a trained model, whose own files are copied, or its Hub id, which the Space loads.
        folder: made if it is not there.
        examples: posts that the page shows in place of those in the model's folder; None: those.

    Raises:
        FileExistsError: `folder` has something in it.
        OSError: `model` is neither.
        ValueError: `folder` lies inside it; a file of the model is a link that leads out; the package is not
            installed.
    """
    is_local = Path(model).is_dir()
    hub_id = None if is_local else model
    with model_named(model):
        name, licence = model_name(model), card_data(model).license
    if is_local and Path(model).resolve() in Path(folder).resolve().parents:
        raise ValueError(f"{folder}: expected a folder outside of the model's, {model}, which is copied")
    if examples is not None and not is_local:
        raise ValueError(f"--card_examples: expected a model's folder, found {model}; push it with them")
    title = one_line(f"Entities of posts: {name}")
    front_matter = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        license=licence or "other",
        models=[hub_id] if hub_id else None,
        tags=["ner", "multimodal", "mmner", "mcp-server"],
    ).to_yaml()
    source = 'str(Path(__file__).parent / "model")' if is_local else repr(model)
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    with staged_folder(folder) as staged:
        for package in ("modeling_mmner", "dataset_scripts"):
            shutil.copytree(_ROOT / package, staged / package, ignore=ignored)
        if is_local:
            check_own_files(model, is_of_a_model)
            others = {path.name for path in Path(model).rglob("*") if not is_of_a_model(path.name)}
            shutil.copytree(model, staged / "model", ignore=lambda _, names: others.intersection(names))
        if examples is not None:
            metrics = RunMetrics.from_file(staged / "model" / METRICS)
            for changed, content in with_examples(staged / "model", metrics, examples).items():
                (staged / "model" / changed).write_bytes(content)
        said = {"name": repr(name), "model": source, "hub_id": repr(hub_id), "front_matter": front_matter}
        said |= {"title": markdown_text(title), "address": f"{ENDPOINT}/{hub_id}" if hub_id else ""}
        for target, template in (("app.py", "space_app.py"), ("README.md", "space_card.md")):
            page = rendered(Path(__file__).with_name(f"{template}.jinja"), said)
            (staged / target).write_text(page, encoding="utf-8")
        (staged / "requirements.txt").write_text("\n".join([*space_requirements(), ""]), encoding="utf-8")
    return Path(folder)


def model_name(model: str) -> str:
    """What to call a model: a Hub id is its own name, a folder has that of its card or else of the folder."""
    folder = Path(model)
    return str(card_data(model).model_name or folder.resolve().name) if folder.is_dir() else model


def card_data(model: str) -> ModelCardData:
    """The front matter of a model's card, empty where there is no card or it cannot be fetched.

    Raises:
        ValueError: its card is broken.
    """
    card = Path(model) / "README.md"
    if Path(model).is_dir() and not card.is_file():
        return ModelCardData()
    try:
        return ModelCard.load(card if card.is_file() else model).data
    except OSError:
        return ModelCardData()
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, YAMLError) as error:
        place = f"{model}, README.md: expected a card with YAML at its beginning"
        raise ValueError(f"{place}, found none that can be read ({error!s:.300})") from error


def space_requirements() -> list[str]:
    """Lines for requirements.txt: what the package requires without extras, and this very Gradio with
    what its tools for agents need."""
    try:
        declared = requires("mmner") or []
    except PackageNotFoundError as error:
        raise ValueError("mmner: expected it installed, found a bare checkout; pip install -e .") from error
    return [f"gradio[mcp]=={version('gradio')}", *(line for line in declared if "extra ==" not in line)]
