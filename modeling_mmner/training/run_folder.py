"""The output folder of a training run: what will be written there, whether it can be, and whether the run is
finished.
"""

import json
import shutil
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..files import recover, write_text

MODEL, METRICS, PREDICTIONS = "model", "metrics.json", "predictions.jsonl"
CURVES, CONFUSION = "learning_curves.png", "confusion_matrix.png"
CHECKPOINTS, STATUS = "checkpoints", "status.json"
FOLDERS, FILES = (MODEL, CHECKPOINTS, "tensorboard"), (METRICS, PREDICTIONS, CURVES, CONFUSION, STATUS)


class RunError(ValueError):
    """A run that cannot go on, or would fail after its training; the text says what to change."""


def check_output(output: Path) -> None:
    """Check that all results can be written.

    Raises:
        RunError: the folder cannot be made or written, something else has the name of a result, or plots
            cannot be drawn.
    """
    place = f"--output_dir {output!s:.300}"
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=output):
            pass
    except OSError as error:
        raise RunError(
            f"{place}: expected a folder that can be made and written, found {error}; name another one"
        ) from error
    for name in (*FOLDERS, *FILES):
        path, kind, other = output / name, *(("folder", "file") if name in FOLDERS else ("file", "folder"))
        if path.exists() and path.is_dir() != (name in FOLDERS):
            raise RunError(
                f"{place}: expected {name} to be a {kind}, found a {other}; move it away, or name another"
                " folder"
            )
    try:
        import_module("matplotlib.figure")
    except ImportError as error:
        raise RunError(
            f"plots: expected matplotlib, found {error}; install it: pip install matplotlib"
        ) from error


def check_space(output: Path, model: Any, *, trained_bytes: int, checkpoints: int) -> None:
    """Check that the disk has room for all that a run writes.

    Args:
        model: with all its parameters.
        trained_bytes: of the weights that training changes.
        checkpoints: how many are kept; there is one more while the next is written.

    Raises:
        RunError: it has not.
    """
    moments = sum(
        8 * parameter.numel() for parameter in model.parameters() if parameter.requires_grad
    )  # two in float32
    checkpoint = trained_bytes + moments
    needed = (checkpoints + 1) * checkpoint + 2 * trained_bytes + 4 * model.num_parameters()
    there = sum(path.stat().st_size for path in (output / CHECKPOINTS).rglob("*") if path.is_file())
    free = shutil.disk_usage(output).free + there  # those of a run that goes on are replaced
    if free < needed:
        raise RunError(
            f"--output_dir {output!s:.300}: expected {needed / 1e6:,.1f} MB of free disk ({checkpoints + 1}"
            f" checkpoints of {checkpoint / 1e6:,.1f} MB, the best epoch's weights and the model), found"
            f" {free / 1e6:,.1f} MB; make room, keep fewer (--checkpoints_kept 1), or name a folder on"
            " another disk"
        )


def begin_run(output: Path) -> None:
    """Say that the run in an output folder is not finished, and clear away what killed ones have left half
    written.
    """
    recover(output / MODEL)
    for path in (path for name in FILES for path in output.glob(f"{name}.*.partial")):
        path.unlink()
    _write_status(output, finished=False)


def end_run(output: Path) -> None:
    """Say that the run in an output folder is finished: all results are its own."""
    _write_status(output, finished=True)


def _write_status(output: Path, *, finished: bool) -> None:
    write_text(output / STATUS, json.dumps({"finished": finished}) + "\n")


def is_finished(output: Path) -> bool:
    """Whether the run in an output folder has written all its results."""
    return _status(output) is True


def is_unfinished(output: Path) -> bool:
    """Whether a run was begun in an output folder that has not written all its results."""
    return _status(output) is False


def _status(output: Path) -> bool | None:
    try:
        return json.loads((output / STATUS).read_text(encoding="utf-8"))["finished"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
