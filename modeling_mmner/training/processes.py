"""The processes that train together, and the signals that stop them between two steps."""

import ctypes
import os
import shlex
import signal
import sys
import threading
import warnings
from contextlib import suppress
from datetime import timedelta
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

import datasets
import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs
from torch import distributed

from ..escaping import printable
from .checkpoints import AUTO
from .optimisation import resolve_precision
from .recipes import Recipe
from .run_folder import RunError

PATIENCE = timedelta(hours=2)
"""How long processes wait for another one: it may have a large corpus to build."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LIBRARIES = ("accelerate", "datasets", "huggingface_hub", "timm", "torch", "torchvision", "transformers")
_M_MMAP_THRESHOLD, _LEAST_MAPPED = -3, 4 * 2**20  # of glibc's malloc.h; bytes
_REFUSED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
"""Ways to share out one model, as Accelerate's launcher calls them; this one would not be trained rightly."""


def started_processes() -> PartialState:
    """Those that were started, this one among them; the first call lets them meet.

    Raises:
        RunError: they were started to share out the model itself, as by FSDP.
    """
    asked = {name: os.environ.get(f"ACCELERATE_USE_{name}", "").lower() for name in _REFUSED}
    if found := [name for name, value in asked.items() if value in ("1", "true")]:
        raise RunError(
            f"processes: expected each to have the whole model (DDP), found {' and '.join(found)}; start them"
            " by torchrun, or by accelerate launch with distributed_type: MULTI_GPU or MULTI_CPU"
        )
    # Without being told of the CPU, Accelerate would take each process there for one by itself.
    is_cpu = not torch.accelerator.is_available()
    return PartialState(cpu=is_cpu, timeout=PATIENCE, **_meeting_place())


def _meeting_place() -> dict[str, Any]:
    """Where processes meet that torchrun has started again: its store keeps the addresses of the dead."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or distributed.is_initialized():
        return {}
    store, rank, world_size = next(distributed.rendezvous("env://", timeout=PATIENCE))
    place = distributed.PrefixStore(f"attempt {attempt}", store)
    return {"store": place, "rank": rank, "world_size": world_size}


def run_accelerator(recipe: Recipe) -> Accelerator:
    """The Accelerator of a run, with its tracker. Raises as `started_processes`."""
    started_processes()  # before Accelerate looks for them its own way
    settings, tracker = recipe.training, recipe.training.report_to
    output = Path(settings.output_dir)
    accelerator = Accelerator(
        mixed_precision=resolve_precision(settings.mixed_precision),
        gradient_accumulation_steps=settings.accumulation,
        log_with=None if tracker == "none" else tracker,
        project_dir=output,
        dataloader_config=DataLoaderConfiguration(even_batches=False),  # no post twice
        # A batch without pictures gives a trained picture encoder no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if tracker == "tensorboard":  # writes into a folder of this name; of settings it takes numbers alone
        accelerator.init_trackers(tracker)
    else:
        name = {"name": output.absolute().name}
        about = {"trackio": name, "wandb": name | {"dir": settings.output_dir}}
        accelerator.init_trackers("mmner", config=recipe.to_settings(), init_kwargs=about)
    return accelerator


def quiet_libraries() -> None:
    """Keep bars and warnings off that libraries mean for their callers, unless Python's -W asks for them;
    bars of downloads stay. This program's warnings are a line each.
    """
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    warnings.formatwarning = lambda message, *_: f"warning: {printable(message)}\n"
    if not sys.warnoptions:
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", module=rf"({'|'.join(_LIBRARIES)})(\.|$)")


def give_memory_back() -> None:
    """Let Linux's C library return the memory of large tensors when they are freed.

    By itself it keeps what has less than 32 MB for later, in pieces that the next aligned one does not fit:
    one step on long posts, which needs 4 GB, had 18 in the end. It costs some time, 3% where posts are short.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library has no such thing
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LEAST_MAPPED)


def keep_quiet() -> None:
    """Leave it to the main process to print, to warn and to show how far it is."""
    sys.stdout = StringIO()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()


class Stopped(Exception):
    """A signal has ended the run; the text says what was saved.

    Attributes:
        code: the process's exit code, as a shell tells it: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, number: int, saved: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {saved}")
        self.code = 128 + number


class StopSignals:
    """While this context is entered, a signal waits for the end of a step; a second one does not."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.number: int = signal.SIGTERM  # where another process has heard it
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.accelerator.set_trigger()
        self.__exit__()

    def heard(self) -> bool:
        """Whether this process or another one of the run has heard a signal. All of them must ask."""
        return self.accelerator.check_trigger()


def stop_at_once() -> None:
    """Make SIGTERM and Ctrl-C end the process with `Stopped`, where nothing waits for the end of a step."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, "nothing new to save")

    for number in SIGNALS:
        signal.signal(number, stop)


def command_to_go_on(resume: str) -> str:
    """The command that goes on with this process's run, which was started with a setting of `resume`."""
    processes, (program, *arguments) = os.environ.get("WORLD_SIZE", "1"), sys.argv
    launcher = ["python"] if processes == "1" else ["torchrun", "--nproc_per_node", processes]
    is_script = Path(program).name == "train_accelerate.py"
    start = [program] if is_script else ["-m", "modeling_mmner"]  # the command `mmner`
    return shlex.join([*launcher, *start, *arguments, *([] if resume == AUTO else ["--resume", AUTO])])
