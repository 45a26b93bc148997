"""A trained model as a folder that the Hub serves, and its way there.

Its card is rendered from its ``metrics.json``, when it is saved and again when it is pushed, so no figure
gets to the Hub that a run has not measured. Only the files of a model are pushed.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_imports

from dataset_scripts.builders.built_corpus import BENCHMARK

from ..evaluation.metrics import RunMetrics
from ..files import check_own_files, parsed, reason, renewed_folder, write_text
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.processing_mmner import MMNERProcessor
from ..names import names_like
from .eval_results import eval_results, hub_dataset
from .examples import PICTURES, Example, answered
from .model_card import default_revision, render_model_card, without_folders

CARD, METRICS, CONFIG, WEIGHTS = "README.md", "metrics.json", "config.json", "model.safetensors"
ENDPOINT = ("handler.py", "requirements.txt")
"""Files by which an Inference Endpoint runs the model; they lie here, and are copied."""
PROCESSOR = "processor_config.json"
_NO_POSTS = " none; --card_examples FILE shows some, with their pictures and what is found in them"
_PARTS = (PROCESSOR, "tokenizer*.json", "*.safetensors", "*.safetensors.index.json")
_OF_A_MODEL = (CARD, METRICS, CONFIG, PICTURES, *ENDPOINT, *_PARTS, "*_mmner.py")


def save_hub_folder(
    model: MMNERForTokenClassification,
    processor: MMNERProcessor,
    *,
    folder: str | Path,
    metrics: RunMetrics,
    examples: Sequence[Example] = (),
) -> None:
    """Write config, weights, code, processor, metrics, model card and the files of `ENDPOINT`.

    `from_pretrained(folder, trust_remote_code=True)` needs no more. The folder is made beside the old one and
    then takes its place: whoever is killed on the way leaves the old model or the new one. Files of others in
    it are taken along.

    Args:
        metrics: of the run; they go into the folder without the paths on the author's disk.
        examples: posts that card and page show, with what the model finds in them.

    Raises:
        FileExistsError: `folder` is a file.
        ValueError: no card can be made of the metrics, see `render_model_card`; the model is saved all the
            same.
    """
    metrics, files, mistake = without_folders(metrics), endpoint_files(), None
    try:
        metrics.corpus.examples, pictures = answered(model, processor, examples)
        files |= pictures | {CARD: render_model_card(metrics).encode(), METRICS: metrics.to_json().encode()}
    except ValueError as error:  # no mistake in a card loses the weights
        mistake = error
    with renewed_folder(folder, is_ours=is_of_a_model) as staged:
        model.save_pretrained(staged)
        processor.save_pretrained(staged)
        for name, content in files.items():
            (staged / name).write_bytes(content)
    if mistake is not None:
        raise mistake


def endpoint_files() -> dict[str, bytes]:
    """What `ENDPOINT` names."""
    return {name: resources.files(__package__).joinpath(name).read_bytes() for name in ENDPOINT}


def is_of_a_model(name: str) -> bool:
    """Whether a file of a folder, named with slashes, belongs to a model that was saved there."""
    return "/" not in name and any(fnmatch(name, pattern) for pattern in _OF_A_MODEL)


@dataclass
class Upload:
    """What a push sends where.

    Attributes:
        revision: the tag that its commit gets.
        left_out: files of the folder that are none of the model's.
        metrics: what the card is rendered from.
    """

    repo_id: str
    revision: str
    files: list[CommitOperationAdd]
    left_out: list[str]
    metrics: RunMetrics

    def describe(self, *, public: bool) -> str:
        """What goes where, under which terms, for reading."""
        sizes = {file.path_in_repo: file.upload_info.size for file in self.files}
        dataset, shown = hub_dataset(self.metrics), self.metrics.corpus.examples
        posts = [f"  {' '.join([repr(one.text), *one.pictures, one.context])}".rstrip() for one in shown]
        lines = [
            f"repository: {self.repo_id} ({'public' if public else 'private'})",
            f"revision: main, tag {self.revision}",
            f"licence: {self.metrics.license}, from the terms of",
            *("  {part} {name}: {terms}  {remark}".format(**row).rstrip() for row in self.metrics.terms),
            "files:",
            *(f"  {name}: {size:,} bytes" for name, size in sizes.items()),
            f"  {len(sizes)} files, {sum(sizes.values()):,} bytes",
            *(f"left out: {name}" for name in self.left_out),
            *([f".eval_results: the score, if {dataset} has an {BENCHMARK}"] if dataset else []),
            f"posts that become readable for whoever sees the repository:{'' if posts else _NO_POSTS}",
            *posts,
        ]
        return "\n".join(lines)


def plan_upload(
    folder: str | Path,
    *,
    repo_id: str,
    revision: str | None = None,
    examples: Sequence[Example] | None = None,
) -> Upload:
    """Check that a folder holds a whole model, and render its card; asks nothing of the Hub.

    Args:
        folder: made by `save_hub_folder`.
        repo_id: ``org/name``.
        revision: the tag; None: `default_revision`.
        examples: posts for the card in place of those in the folder, where they stay; None: those.

    Raises:
        ValueError: a file of the model is missing or cannot be read, no card can be made of the metrics, or
            the repository or tag has an impossible name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        hint = f"found none{names_like(str(folder), map(str, Path().glob('outputs/*/model')))}"
        raise ValueError(f"{folder}: expected the folder of a trained model, {hint}")
    check_own_files(folder, is_of_a_model)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    _check_whole(folder, found)
    metrics = RunMetrics.from_file(found[METRICS])
    revision = revision or default_revision(metrics)
    # What the Hub would refuse when half of the work is done.
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"--repo_id: expected org/name, found {repo_id!r}")
    if not re.fullmatch(r"\w[\w-]*(\.[\w-]+)*", revision, re.ASCII) or revision.endswith(".lock"):
        raise ValueError(f"--revision: expected the name of a tag, as v0.1.0, found {revision!r}")
    changed = {} if examples is None else with_examples(folder, metrics, examples)
    own: dict[str, Any] = {name: path for name, path in found.items() if is_of_a_model(name)}
    files = endpoint_files() | own | changed
    shown = {name for example in metrics.corpus.examples for name in example.pictures}
    files = {name: part for name, part in files.items() if name in shown or not fnmatch(name, PICTURES)}
    calibration = parsed(found[PROCESSOR].read_text(encoding="utf-8")).get("calibration")
    named = {"repo_id": repo_id, "revision": revision, "calibration": calibration}
    files[CARD] = render_model_card(metrics, **named).encode()
    left_out = [name for name in found if name not in files]
    added = [CommitOperationAdd(name, part) for name, part in sorted(files.items())]
    return Upload(repo_id, revision, added, left_out, metrics)


def with_examples(folder: Path, metrics: RunMetrics, examples: Sequence[Example]) -> dict[str, bytes]:
    """Put posts, with what a saved model finds in them, into its metrics; the files that this changes."""
    model = MMNERForTokenClassification.from_pretrained(folder)
    processor = MMNERProcessor.from_pretrained(folder)
    metrics.corpus.examples, pictures = answered(model, processor, examples)
    return pictures | {METRICS: metrics.to_json().encode()}


def save_calibration(folder: Path, calibration: dict[str, Any]) -> None:
    """Put a calibration into a model's processor and, where training has written one, into its card.

    Each is whole at any time; a card that a kill has left behind is rendered by `push`.

    Raises:
        ValueError: the processor's settings are damaged, or no card can be made of the metrics.
    """
    settings = parsed((folder / PROCESSOR).read_text(encoding="utf-8")) | {"calibration": calibration}
    write_text(folder / PROCESSOR, json.dumps(settings, indent=2) + "\n")
    if (folder / METRICS).is_file():
        metrics = RunMetrics.from_file(folder / METRICS)
        write_text(folder / CARD, render_model_card(metrics, calibration=calibration))


def _check_whole(folder: Path, found: dict[str, Path]) -> None:
    """Check that a folder has all that loading a model takes, and the card's metrics."""
    needed = {METRICS, CONFIG, WEIGHTS, PROCESSOR, "tokenizer.json", "tokenizer_config.json"}
    advice = "Save the model with save_hub_folder, as training does"
    try:
        if CONFIG in found:
            named = json.loads(found[CONFIG].read_text(encoding="utf-8"))["auto_map"].values()
            needed |= {f"{name.partition('.')[0]}.py" for name in named}
        for code in (path for name, path in found.items() if fnmatch(name, "*_mmner.py")):
            needed |= {f"{module}.py" for module in get_relative_imports(code)}
        if WEIGHTS in found:
            with safe_open(found[WEIGHTS], framework="numpy"):  # fails where the file was cut off
                pass
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        there = f"found some that cannot be read ({reason(error, folder)})"
        expected = "expected the settings, code and weights of a trained model"
        raise ValueError(f"{folder}: {expected}, {there}. {advice}") from error
    if missing := ", ".join(sorted(needed - found.keys())):
        raise ValueError(f"{folder}: expected all files of a trained model, found no {missing}. {advice}")


def push(upload: Upload, *, public: bool = False) -> str:
    """Put a model on the Hub: one commit, then the tag that its card pins. Returns the commit's address.

    Raises:
        ValueError: the repository is public and not meant to be or the other way round, it has such a tag
            already, or the Hub refuses or does not answer. Until the commit nothing is changed there but that
            a new repository is made.
    """
    api, target = HfApi(), upload.repo_id
    _make_or_check_repository(upload, api, public=public)
    version = upload.metrics.versions["mmner"]
    message = f"{upload.metrics.recipe['name']} {upload.revision}, trained with mmner {version}"
    results = _benchmark_results(upload, api)
    with _step(target, "uploading the files"):
        commit = api.create_commit(target, upload.files + results, commit_message=message)
    with _step(target, "setting the tag (the files are there: the same command again only sets the tag)"):
        api.create_tag(target, tag=upload.revision, revision=commit.oid)
    return str(commit.commit_url)


def _benchmark_results(upload: Upload, api: HfApi) -> list[CommitOperationAdd]:
    """The score for the page of the data set that the model was trained on, where that is a benchmark."""
    if (dataset := hub_dataset(upload.metrics)) is None:
        return []
    with _step(upload.repo_id, f"looking for {BENCHMARK} of {dataset}"):
        if not api.file_exists(dataset, BENCHMARK, repo_type="dataset"):
            return []
        file = Path(api.hf_hub_download(dataset, BENCHMARK, repo_type="dataset"))
    benchmark = file.read_bytes()[:1_000_000].decode("utf-8", "replace")
    files = eval_results(upload.metrics, benchmark, repo_id=upload.repo_id, revision=upload.revision)
    return [CommitOperationAdd(name, content) for name, content in files.items()]


def _make_or_check_repository(upload: Upload, api: HfApi, *, public: bool) -> None:
    target, tag = upload.repo_id, upload.revision
    with _step(target, "making the repository, or looking at it"):
        api.create_repo(target, private=not public, exist_ok=True)
        is_private, refs = api.repo_info(target).private, api.list_repo_refs(target)
    if public == is_private:
        wanted, found = ("public", "private") if public else ("private", "public")
        advice = (
            "leave --public out, or make it public on the Hub" if public else "--public says that is meant"
        )
        raise ValueError(f"{target}: expected a {wanted} repository, found a {found} one; {advice}")
    if tag in [ref.name for ref in (*refs.tags, *refs.branches)]:
        found = "found one, which others may have pinned; choose another tag with --revision"
        raise ValueError(f"{target}: expected no tag or branch {tag!r} yet, {found}")


@contextmanager
def _step(target: str, doing: str) -> Iterator[None]:
    """Whatever goes wrong at the Hub in a step of a push is an error of one line."""
    try:
        yield
    except Exception as error:  # the HTTP client's own errors are no part of huggingface_hub's interface
        raise ValueError(f"{target}: {doing} failed: {' '.join(str(error).split())}") from error
