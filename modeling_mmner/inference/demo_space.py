"""A folder that is ready to be a Hugging Face Space: the demo page of a model."""

import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, SpaceCardData
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..escaping import markdown_text, one_line
from ..files import staged_folder

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("modeling_mmner", "dataset_scripts")
_APP = '''"""The demo page of a model; README.md says of which."""

from pathlib import Path

from dataset_scripts.sample.examples import examples
from modeling_mmner.inference.demo import build_demo, launch
from modeling_mmner.inference.loading import load_model

demo = build_demo(*load_model({model}), name={name!r}, examples=examples())

if __name__ == "__main__":
    launch(demo)
'''
_README = """---
{front_matter}
---

# {title}

A text and a picture in, the text with its entities marked out, and for each word a map of where in the
picture it looks. Made by `mmner demo --space`. What the page finds are suggestions, each with a score. Not
for surveillance, and not for finding out who somebody in a picture is.
"""


def write_space(model: str, folder: str | Path) -> Path:
    """Write app.py, requirements.txt, README.md, the code that they need, and a model that is a folder.

    Args:
        model: folder of a trained model, which is copied, or its Hub id, which the Space loads.
        folder: made if it is not there.

    Raises:
        FileExistsError: `folder` has something in it.
        ValueError: `model` is neither, or `folder` lies inside it; the package is not installed.
    """
    is_local = Path(model).is_dir()
    if is_local and not (Path(model) / "config.json").is_file():
        raise ValueError(f"{model}: expected the folder of a trained model, found no config.json in it")
    if is_local and Path(model).resolve() in Path(folder).resolve().parents:
        raise ValueError(
            f"{folder}: expected a folder outside of the model's, {model}, which is copied into the Space"
        )
    if not is_local:
        validate_repo_id(model)
    name, requirements = model_name(model), "\n".join(space_requirements())
    title = one_line(f"Entities of posts: {name}")
    front_matter = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        license=card_data(model).license or "other",
        models=None if is_local else [model],
        tags=["ner", "multimodal", "mmner"],
    ).to_yaml()
    source = 'str(Path(__file__).parent / "model")' if is_local else repr(model)
    texts = {
        "app.py": _APP.format(name=name, model=source),
        "requirements.txt": requirements + "\n",
        "README.md": _README.format(front_matter=front_matter, title=markdown_text(title)),
    }
    copied = {package: _ROOT / package for package in _PACKAGES} | (
        {"model": Path(model)} if is_local else {}
    )
    with staged_folder(folder) as staged:
        for target, files in copied.items():
            shutil.copytree(files, staged / target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for target, text in texts.items():
            (staged / target).write_text(text, encoding="utf-8")
    return Path(folder)


def model_name(model: str) -> str:
    """What to call a model: a Hub id is its own name, a folder has that of its card or else of the folder."""
    folder = Path(model)
    return str(card_data(model).model_name or folder.resolve().name) if folder.is_dir() else model


def card_data(model: str) -> ModelCardData:
    """The front matter of a model's card, empty where there is no card or it cannot be fetched.

    Raises:
        ValueError: `model` is no folder, and the Hub has none of that name that we may see.
    """
    card = Path(model) / "README.md"
    if Path(model).is_dir() and not card.is_file():
        return ModelCardData()
    try:
        return ModelCard.load(card if card.is_file() else model).data
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"{model}: expected a folder or a model of the Hub, found neither; log in if it is private"
        ) from error
    except OSError:
        return ModelCardData()


def space_requirements() -> list[str]:
    """Lines for requirements.txt: what the installed package requires without extras, and this very Gradio.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        declared = requires("mmner") or []
    except PackageNotFoundError as error:
        raise ValueError(
            "mmner: expected the package to be installed, found a bare checkout; `pip install -e .`"
        ) from error
    return [f"gradio=={version('gradio')}", *(line for line in declared if "extra ==" not in line)]
