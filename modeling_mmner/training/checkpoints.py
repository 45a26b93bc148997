"""Checkpoints of a training run, from which it goes on as if it had never stopped.

A checkpoint is a folder that appears when it is whole: what Accelerate writes of optimizer, schedule and
random states, the weights that training changes, those of the best epoch so far, how far the run has come
(`Progress`), and a manifest with the settings and the SHA-256 of each file.

What is read is tensors and plain values: Accelerate would unpickle objects that are registered with it, so
`Progress` travels as JSON.
"""

import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, load
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..escaping import one_line, say
from ..files import link, sha256, staged_folder
from ..model.modeling_mmner import MMNERForTokenClassification
from .assembly import content_of_names
from .corpus import TrainingCorpus
from .features import OFF
from .recipes import PACE, PLACES, Recipe, differences, flat_settings
from .run_folder import CHECKPOINTS, Progress, RunError

AUTO, NEVER = "auto", "never"
MANIFEST, PROGRESS = "checkpoint.json", "progress.json"
WEIGHTS, BEST = "model.safetensors", "best.safetensors"
_CANNOT_WRITE = (OSError, RuntimeError, SafetensorError)  # RuntimeError: PyTorch's writer, on a full disk
_CANNOT_READ = (*_CANNOT_WRITE, UnpicklingError, ValueError, LookupError, TypeError)


def trained_state(model: MMNERForTokenClassification) -> dict[str, Tensor]:
    """The weights and buffers by name, without those of frozen picture encoders, which stay as they are."""
    towers = enumerate(model.vision_towers)
    frozen = tuple(f"vision_towers.{number}.backbone." for number, tower in towers if tower.frozen)
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(frozen)}


@dataclass
class Checkpoints:
    """Writes a run's checkpoints, keeps the last ones, and brings the run to where one of them is.

    Attributes:
        accelerator: that has prepared all that is trained.
        model: the bare model.
        progress: of the run; `resume` changes it.
    """

    recipe: Recipe
    corpus: TrainingCorpus
    accelerator: Accelerator
    model: MMNERForTokenClassification
    progress: Progress

    def __post_init__(self) -> None:
        self.folder = Path(self.recipe.training.output_dir) / CHECKPOINTS
        self._last: Path | None = None
        # Accelerate would write and read wrapped weights, those of frozen encoders among them.
        self.accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear())
        self.accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What must be equal for a run to go on from a checkpoint: all that its result depends on.

        The main process alone asks.
        """
        recipe, corpus, accelerator = self.recipe, self.corpus, self.accelerator
        without = (*PLACES, *PACE, "compare_without_pictures")
        return flat_settings(recipe.to_dict(), without=without) | {
            **content_of_names(recipe),
            "corpus": f"{corpus.name} {corpus.version_name} {corpus.digest()}",
            "labels": corpus.labels,
            "mixed_precision": accelerator.mixed_precision,
            "device": accelerator.device.type,
            "visible GPUs": torch.cuda.device_count(),  # each has a random state
            "processes": accelerator.num_processes,
            "keeps_features": recipe.training.feature_cache != OFF,  # in bfloat16
        }

    def save(self) -> Path:
        """Write a checkpoint and remove those not kept; returns its folder.

        Raises:
            RunError: it cannot be written.
        """
        target = self.folder / f"epoch-{self.progress.epoch:04d}-step-{self.progress.steps:08d}"
        is_main = self.accelerator.is_main_process
        if is_main:
            shutil.rmtree(target, ignore_errors=True)  # a broken one
        try:
            with staged_folder(target) if is_main else nullcontext(target) as staged:
                staged = Path(broadcast_object_list([str(staged)])[0])
                if is_main:
                    state = trained_state(self.model)
                    weights = {name: one.cpu().contiguous().clone() for name, one in state.items()}
                    save_file(weights, staged / WEIGHTS)
                    if self.progress.has_just_been_best:
                        link(staged / WEIGHTS, staged / BEST)
                    elif self.progress.history and self._last is not None:
                        link(self._last / BEST, staged / BEST)
                    (staged / PROGRESS).write_text(json.dumps(self.progress.state_dict()), encoding="utf-8")
                self.accelerator.save_state(str(staged))
                self.accelerator.wait_for_everyone()  # each writes its own random states
                if is_main:
                    files = {path.name: sha256(path) for path in sorted(staged.iterdir())}
                    manifest = {"settings": self.settings, "files": files}
                    (staged / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        except _CANNOT_WRITE as error:
            found = f"found {one_line(error):.300}; make room, or see who may write there"
            raise RunError(f"{target}: expected to write it, {found}; {self.describe_last()}") from error
        self.accelerator.wait_for_everyone()
        self._last = target
        if is_main:
            self._prune(target)
        return target

    def remove(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _prune(self, newest: Path) -> None:
        """Remove what is not kept, and what is later than the newest: it is of a run that was given up."""
        there, kept = self._all(), self.recipe.training.checkpoints_kept
        for path in set(there) - {*[path for path in there if path.name <= newest.name][-kept:]}:
            shutil.rmtree(path, ignore_errors=True)

    def describe_last(self) -> str:
        """In words, which checkpoint the run can go on from."""
        whole = [path for path in self._all() if _problem(path) is None]
        return f"the run can go on from {whole[-1]}" if whole else "there is no checkpoint yet to go on from"

    def resume(self, how: str) -> None:
        """Bring the run to where a checkpoint is, if there is one to go on from.

        Args:
            how: ``auto``: the newest one that is whole, if there are any; ``never``: all are removed; else a
                checkpoint's folder.

        Raises:
            RunError: it is another run's, none is whole, or one holds more than tensors and plain values.
        """
        found: Path | RunError | None = None
        if self.accelerator.is_main_process:
            try:
                found = self._find(how)
            except RunError as error:
                found = error
        (found,) = broadcast_object_list([found])  # so that no process waits for one that has given up
        if isinstance(found, RunError):
            raise found
        if found is not None:
            self._load(found)
            self._last = found
            done = f"epoch {self.progress.epoch}, {self.progress.batches} batches done"
            self.accelerator.print(f"going on from {found}: {done}")

    def load_best(self) -> None:
        """Give the model the weights of the best epoch."""
        self.accelerator.wait_for_everyone()
        if self._last is not None:
            self._take(self._last / BEST)

    def _find(self, how: str) -> Path | None:
        for path in self.folder.glob(".*"):  # half written by a killed run
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if how == NEVER:
            self.remove()
            return None
        if (found := self._whole(how)) is None:
            return None
        manifest: Any = _manifest(found)
        if different := differences(self.settings, manifest["settings"]):
            advice = "Give its settings, name another --output_dir, or begin anew: --resume never removes it"
            expected = "expected a checkpoint of the same recipe and corpus, found one that differs in"
            raise RunError(f"{found}: {expected} {different}. {advice}")
        return found

    def _whole(self, how: str) -> Path | None:
        """The checkpoint that is named, or the newest one that is whole; None where there is none at all."""
        problems = []
        for path in reversed(self._all()) if how == AUTO else [Path(how)]:
            if (problem := _problem(path)) is None:
                return path
            problems.append(f"{path}: {problem}")
            if how == AUTO:
                say(f"{problems[-1]}; passed over for the one before")
        if not problems:
            return None
        raise RunError(
            f"--resume {how:.300}: expected a whole checkpoint to go on from, found none:"
            f" {'; '.join(problems)}. Name one by --resume PATH, or begin anew with --resume never"
        )

    def _load(self, path: Path) -> None:
        try:
            # Accelerate passes over random states that it cannot load.
            load(path / f"random_states_{self.accelerator.process_index}.pkl", map_location="cpu")
            self.accelerator.load_state(str(path))
            self._take(path / WEIGHTS)
            self.progress.load_state_dict(json.loads((path / PROGRESS).read_text(encoding="utf-8")))
        except RunError:
            raise
        except _CANNOT_READ as error:
            raise RunError(
                f"{path}: expected tensors and plain values that fit this run, found what cannot be read as"
                f" such ({type(error).__name__}); nothing of it was run. Name another one, or --resume never"
            ) from error

    def _take(self, path: Path) -> None:
        """Give the model the weights of a file."""
        state = load_file(path)
        if different := state.keys() ^ trained_state(self.model).keys():
            found = f"found a difference in {sorted(different)!s:.300}"
            raise RunError(f"{path}: expected the weights that training changes, {found}")
        self.model.load_state_dict(state, strict=False)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*-step-*"))


def _problem(path: Path) -> str | None:
    """Why a checkpoint is not whole; None where it is."""
    if (manifest := _manifest(path)) is None:
        return f"expected {MANIFEST} with the SHA-256 of its files, found none that can be read"
    for name, digest in manifest["files"].items():
        file = path / name
        if file.is_file() and not os.access(file, os.R_OK):
            return f"expected to read {name}, found that permission is denied"
        found = sha256(file) if file.is_file() else "no file"
        if found != digest:
            return f"expected {name} with SHA-256 {digest:.12}, found {found:.12}"
    return None


def _manifest(path: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself, None where that cannot be read."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        named = manifest["files"].items()
        plain = all(Path(name).name == name and isinstance(digest, str) for name, digest in named)
        return manifest if plain and isinstance(manifest["settings"], dict) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
