"""Checkpoints of a training run, from which it goes on as if it had never stopped.

A checkpoint is a folder that appears when it is whole: what Accelerate writes of optimizer, schedule and
random states, the weights that training changes (`trained_state`), how far the run has come (`Progress`), and
a manifest with the settings, the corpus and the SHA-256 of each file. The best epoch's weights lie beside the
checkpoints; those that need them name them.

What is read is tensors and plain values. Accelerate would load objects that are registered with it by
unpickling whatever is there, and go on without a word where it cannot read random states; so `Progress`
travels as JSON, and the states are compared.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, load
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..escaping import one_line
from ..files import staged_folder, write_whole
from ..model.modeling_mmner import MMNERForTokenClassification
from .corpus import TrainingCorpus
from .features import OFF
from .progress import Progress
from .recipes import PACE, PLACES, Recipe, differences, flat_settings
from .run_folder import RunError
from .steps import trained_names, trained_state

AUTO, NEVER = "auto", "never"
MANIFEST, PROGRESS, WEIGHTS = "checkpoint.json", "progress.json", "model.safetensors"
_CANNOT_WRITE = (
    OSError,
    RuntimeError,
    SafetensorError,
)  # PyTorch's writer raises RuntimeError where the disk is full


def run_settings(recipe: Recipe, corpus: TrainingCorpus, accelerator: Accelerator) -> dict[str, Any]:
    """What must be equal for a run to go on from a checkpoint: all that its result depends on."""
    settings = flat_settings(
        recipe.to_dict(), without=(*PLACES, *PACE, "compare_without_pictures", "transfer")
    ) | {
        "corpus": f"{corpus.name} {corpus.version_name} {corpus.digest()}",
        "mixed_precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "processes": accelerator.num_processes,
        "keeps_features": recipe.training.feature_cache != OFF,  # in bfloat16
    }
    return json.loads(json.dumps(settings))


class Checkpoints:
    """Writes a run's checkpoints, keeps the last ones, and brings the run to where one of them is.

    Args:
        folder: of the checkpoints.
        accelerator: that has prepared all that is trained.
        model: the bare model.
        progress: of the run; `resume` changes it.
        settings: see `run_settings`.
        kept: how many checkpoints stay.
    """

    def __init__(
        self,
        folder: Path,
        *,
        accelerator: Accelerator,
        model: MMNERForTokenClassification,
        progress: Progress,
        settings: Mapping[str, Any],
        kept: int,
    ) -> None:
        self.folder, self.accelerator, self.model, self.progress = folder, accelerator, model, progress
        self.settings, self.kept = settings, kept
        self._best: dict[str, str] = {}  # the file of the best epoch's weights and its hash
        self.is_sharded = bool(accelerator.is_fsdp2)  # no process has the whole of what a checkpoint holds
        accelerator.register_save_state_pre_hook(self._save_own)
        accelerator.register_load_state_pre_hook(self._load_own)

    # Writing

    def save(self) -> Path | None:
        """Write a checkpoint of the run as it is, and remove those that are not kept; returns its folder,
        None with FSDP2.

        Raises:
            RunError: it cannot be written.
        """
        if self.is_sharded:
            return None
        target = self.folder / f"epoch-{self.progress.epoch:04d}-step-{self.progress.steps:08d}"
        try:
            self._write(target)
        except _CANNOT_WRITE as error:
            raise self._not_written(target, error) from error
        if self.accelerator.is_main_process:
            self._prune(target)
        return target

    def keep_best(self) -> None:
        """Write the weights as they are as the best epoch's.

        Raises:
            RunError: they cannot be written.
        """
        if not self.accelerator.is_main_process:
            return
        path = self._best_path()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, partial(save_file, trained_state(self.model)))
        except _CANNOT_WRITE as error:
            raise self._not_written(path, error) from error
        self._best = {path.name: _sha256(path)}

    def remove(self) -> None:
        """Remove all checkpoints, once they are no longer needed."""
        if self.accelerator.is_main_process:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, target: Path) -> None:
        is_main = self.accelerator.is_main_process
        if is_main:
            shutil.rmtree(target, ignore_errors=True)  # a broken one
        with staged_folder(target) if is_main else nullcontext(target) as staged:
            staged = Path(broadcast_object_list([str(staged)])[0])
            self.accelerator.save_state(str(staged))
            self.accelerator.wait_for_everyone()  # each writes its own random states
            if is_main:
                manifest = {"settings": self.settings, "best": self._best, "files": _hashes(staged)}
                (staged / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        self.accelerator.wait_for_everyone()

    def _save_own(self, models: list[Any], weights: list[Any], folder: str) -> None:
        """Write the weights in place of those that Accelerate would, which are wrapped and have frozen
        encoders among them.
        """
        weights.clear()
        if self.accelerator.is_main_process:
            save_file(trained_state(self.model), Path(folder) / WEIGHTS)
            (Path(folder) / PROGRESS).write_text(json.dumps(self.progress.state_dict()), encoding="utf-8")

    def _prune(self, newest: Path) -> None:
        """Remove what is not kept, and what is later than the newest: it is of a run that was given up."""
        there = self._all()
        kept = [path for path in there if path.name <= newest.name][-self.kept :]
        for path in (path for path in there if path not in kept):
            shutil.rmtree(path, ignore_errors=True)
        needed = {
            name for path in kept for name in (_manifest(path) or {"best": {}})["best"]
        } | self._best.keys()
        for path in self.folder.glob("best-*.safetensors"):
            if path.name not in needed:
                path.unlink()

    def _not_written(self, path: Path, error: Exception) -> RunError:
        return RunError(
            f"{path}: expected to write it, found {one_line(error):.300}; make room, or see who may write"
            f" there; {self.describe_last()}"
        )

    def describe_last(self) -> str:
        """In words, which checkpoint the run can go on from."""
        whole = [path for path in self._all() if _problem(path) is None]
        return f"the run can go on from {whole[-1]}" if whole else "there is no checkpoint yet to go on from"

    # Reading

    def resume(self, how: str) -> None:
        """Bring the run to where a checkpoint is, if there is one to go on from.

        Args:
            how: ``auto``: the newest one that is whole, if there are any; ``never``: all are removed; else a
                checkpoint's folder.

        Raises:
            RunError: it is another run's, none is whole, one holds more than tensors and plain values, or the
                model is sharded.
        """
        if self.is_sharded and how not in (AUTO, NEVER):
            raise RunError(
                f"--resume {how:.300}: expected auto or never with FSDP2, which writes no checkpoints; train"
                " with DDP"
            )
        found: list[Any] = [None]
        if self.accelerator.is_main_process:
            try:
                found = [self._find(how)]
            except RunError as error:
                found = [error]
        broadcast_object_list(found)  # so that no process waits for one that has given up
        if isinstance(found[0], RunError):
            raise found[0]
        if found[0] is not None:
            self._load(found[0])
            self.accelerator.print(
                f"going on from {found[0]}: epoch {self.progress.epoch}, {self.progress.batches} batches done"
            )

    def load_best(self) -> None:
        """Give the model the weights of the best epoch."""
        self.accelerator.wait_for_everyone()
        self._take(self._best_path())

    def _find(self, how: str) -> Path | None:
        """The checkpoint to go on from, with the best epoch's weights beside it in this run's folder."""
        for path in (
            *self.folder.glob(".*"),
            *self.folder.glob("*.partial"),
        ):  # what a killed run was writing
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if how == NEVER:
            shutil.rmtree(self.folder, ignore_errors=True)
            return None
        found = self._newest() if how == AUTO else self._named(Path(how))
        if found is None:
            return None
        manifest = _manifest(found)
        assert manifest is not None
        if different := differences(self.settings, manifest["settings"]):
            raise RunError(
                f"{found}: expected a checkpoint of the same recipe and corpus, found one that differs in"
                f" {different}. Give the settings that it was trained with, name another --output_dir, or"
                " begin anew: --resume never removes it"
            )
        self._best = manifest["best"]
        for name in self._best if found.parent.resolve() != self.folder.resolve() else ():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / name, partial(shutil.copyfile, found.parent / name))
        return found

    def _newest(self) -> Path | None:
        """The newest checkpoint that is whole."""
        problems = []
        for path in reversed(self._all()):
            if (problem := _problem(path)) is None:
                return path
            problems.append(f"{path}: {problem}")
            print(f"{problems[-1]}; passed over for the one before")
        if problems:
            raise RunError(
                f"{self.folder}: expected a whole checkpoint to go on from, found none:"
                f" {'; '.join(problems)}. Name one from elsewhere by --resume PATH, or begin anew with"
                " --resume never"
            )
        return None

    def _named(self, path: Path) -> Path:
        """A checkpoint by its path."""
        if (problem := _problem(path)) is not None:
            raise RunError(
                f"--resume {path!s:.300}: expected auto, never, or the folder of a whole checkpoint;"
                f" {problem}"
            )
        return path

    def _load(self, path: Path) -> None:
        try:
            # Accelerate passes over random states that it cannot load.
            states = load(path / f"random_states_{self.accelerator.process_index}.pkl", map_location="cpu")
            self.accelerator.load_state(str(path))
        except RunError:
            raise
        except (
            UnpicklingError,
            RuntimeError,
            SafetensorError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
        ) as error:
            raise RunError(
                f"{path}: expected tensors and plain values that fit this run, found what cannot be read as"
                f" such ({type(error).__name__}); nothing of it was run. Name another one by --resume PATH,"
                " or begin anew with --resume never"
            ) from error
        restored = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [torch.get_rng_state()]
        saved = states.get("torch_cuda_manual_seed", [states["torch_manual_seed"]])
        if len(saved) != len(restored) or not all(map(torch.equal, saved, restored)):
            raise RunError(
                f"{path}: expected random states of {len(restored)} devices, found those of {len(saved)}; let"
                " the run see as many devices as before"
            )

    def _load_own(self, models: list[Any], folder: str) -> None:
        """Read what `_save_own` has written."""
        models.clear()
        self._take(Path(folder) / WEIGHTS)
        self.progress.load_state_dict(json.loads((Path(folder) / PROGRESS).read_text(encoding="utf-8")))

    def _take(self, path: Path) -> None:
        """Give the model the weights of a file."""
        state = load_file(path)
        if different := state.keys() ^ trained_names(self.model):
            raise RunError(
                f"{path}: expected the weights that training changes, found a difference in"
                f" {sorted(different)!s:.300}"
            )
        self.model.load_state_dict(state, strict=False)

    def _all(self) -> list[Path]:
        """The folders of checkpoints, the newest last."""
        return sorted(self.folder.glob("epoch-*-step-*"))

    def _best_path(self) -> Path:
        return self.folder / f"best-epoch-{self.progress.best['epoch']:04d}.safetensors"


def _problem(path: Path) -> str | None:
    """Why a checkpoint is not whole; None where it is."""
    if (manifest := _manifest(path)) is None:
        return f"expected {MANIFEST} with the SHA-256 of its files, found none that can be read"
    expected = {path / name: digest for name, digest in manifest["files"].items()}
    expected |= {path.parent / name: digest for name, digest in manifest["best"].items()}
    if unknown := sorted(
        file.name for file in path.iterdir() if file not in expected and file.name != MANIFEST
    ):
        return f"expected the files that {MANIFEST} names, found {unknown!s:.200} too"
    for file, digest in expected.items():
        found = _sha256(file) if file.is_file() else "no file"
        if found != digest:
            return f"expected {file.name} with SHA-256 {digest:.12}, found {found:.12}"
    return None


def _manifest(path: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None where that cannot be read."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        names = [*manifest["files"], *manifest["best"]]
        digests = [*manifest["files"].values(), *manifest["best"].values()]
        plain = all(Path(name).name == name for name in names) and all(
            isinstance(digest, str) for digest in digests
        )
        return manifest if plain and isinstance(manifest["settings"], dict) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: _sha256(path) for path in sorted(folder.iterdir())}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
