"""What data say of files: nothing outside of a data set's own folder is read, and nothing is fetched, because
of it.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from modeling_mmner.model.posts_mmner import file_within

from .formats.reader import mismatch


def data_set_builder(
    dataset: str, config: str | None = None, *, revision: str | None = None
) -> datasets.DatasetBuilder:
    """`datasets.load_dataset_builder` of a folder or an id on the Hub, whose files are all its own.

    Raises:
        CorpusError: the card names an address, an absolute path or one with `..`, or its front matter is no
            YAML; or a file leads elsewhere.
    """
    folder = Path(dataset)
    for card in _cards(dataset, revision):
        for named in _named_files(card):
            if "://" in named or PurePath(named).is_absolute() or ".." in PurePath(named).parts:
                raise mismatch(card, "files of the data set's own folder under 'configs'", f"{named!r:.200}")
    builder = datasets.load_dataset_builder(dataset, config, revision=revision)
    for file in (file for files in (builder.config.data_files or {}).values() for file in map(str, files)):
        if not (file_within(file, folder) if folder.is_dir() else file.startswith("hf://")):
            found = f"{file!r:.200}, which leads out of it"
            raise mismatch(f"dataset {dataset!r}", "files of the data set's own folder", found)
    return builder


def _cards(dataset: str, revision: str | None) -> Iterator[Path]:
    """The files in which a data set says what its files are."""
    for name in ("README.md", ".huggingface.yaml"):
        path = Path(dataset) / name
        if not Path(dataset).is_dir():
            try:
                path = Path(hf_hub_download(dataset, name, repo_type="dataset", revision=revision))
            except (OSError, ValueError):  # `datasets` says what is wrong
                continue
        if path.is_file():
            yield path


def _named_files(path: Path) -> list[str]:
    """Every text under ``configs`` in a card's front matter."""
    text = path.read_bytes().decode("utf-8", "replace")
    if path.suffix == ".md":  # where it ends is the library's to say, for another rule could be led astray
        text = block[2] if (block := REGEX_YAML_BLOCK.search(text)) else ""
    try:
        content = yaml.safe_load(text)
        configs = content.get("configs") if isinstance(content, dict) else None
        # Written out again, a value that YAML refers to many times stands there once.
        tokens = yaml.scan(yaml.safe_dump(configs, sort_keys=False))
        return [token.value for token in tokens if isinstance(token, yaml.ScalarToken)]
    except (yaml.YAMLError, RecursionError, TypeError, LookupError) as error:
        raise mismatch(path, "YAML at its beginning", f"{error!s:.300}") from error


def check_pictures(rows: datasets.Dataset, column: str, *, dataset: str, place: str) -> None:
    """Check that pictures which rows have as paths lie where the data set does.

    Args:
        rows: fresh from `load_dataset`, pictures not decoded.
        column: of pictures, or of lists of them.
        dataset: its folder, or its id on the Hub, whose files are in Hugging Face's caches.
        place: for errors.

    Raises:
        CorpusError: one is a file that lies elsewhere.
    """
    roots = [Path(constants.HF_HUB_CACHE), Path(datasets.config.HF_DATASETS_CACHE)]
    roots += [Path(dataset)] if Path(dataset).is_dir() else []
    for chunk in rows.data.column(column).chunks:
        pictures = chunk if pa.types.is_struct(chunk.type) else pc.list_flatten(chunk)
        content, paths = (pc.struct_field(pictures, name) for name in ("bytes", "path"))
        for path in pc.unique(paths.filter(content.is_null())).drop_null().to_pylist():
            if os.path.isfile(path) and not any(file_within(os.path.abspath(path), root) for root in roots):
                found = f"{path!r:.200}, which leads out of it; put the pictures' bytes into the rows"
                raise mismatch(f"{place}, column {column}", "pictures in the data set", found)
