"""The processes that train together."""

import os
import sys
import warnings
from datetime import timedelta
from io import StringIO
from typing import Any

import datasets
import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, DistributedType
from torch import distributed

from .optimisation import resolve_precision
from .recipes import TrainingSettings
from .run_folder import RunError

PATIENCE = timedelta(hours=2)
"""How long processes wait for another one: it may have a large corpus to build. One that dies ends the run at
once.
"""
_REFUSED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
"""Ways to share out one model, as Accelerate's launcher calls them; this one would not be trained rightly."""


def started_processes() -> PartialState:
    """Those that were started, this one among them; the first call lets them meet.

    Raises:
        RunError: they were started to share out the model itself, as by FSDP.
    """
    asked = {name: os.environ.get(f"ACCELERATE_USE_{name}", "").lower() for name in _REFUSED}
    found = [name for name, value in asked.items() if value in ("1", "true")]
    if not found:
        # Without being told of the CPU, Accelerate would take each process there for one by itself.
        is_cpu = not torch.accelerator.is_available()
        state = PartialState(cpu=is_cpu, timeout=PATIENCE, **_meeting_place())
        kind = state.distributed_type
        if kind == DistributedType.NO or kind.startswith("MULTI_"):
            return state
        found = [kind.value]
    raise RunError(
        f"processes: expected each to have the whole model (DDP), found {' and '.join(found)}; start them by"
        " torchrun, or by accelerate launch with distributed_type: MULTI_GPU or MULTI_CPU"
    )


def _meeting_place() -> dict[str, Any]:
    """Where the processes meet that torchrun has started again.

    Its store keeps what the processes before them have said, who are dead, and whose addresses they would
    find.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or distributed.is_initialized():
        return {}
    store, rank, world_size = next(distributed.rendezvous("env://", timeout=PATIENCE))
    place = distributed.PrefixStore(f"attempt {attempt}", store)
    return {"store": place, "rank": rank, "world_size": world_size}


def run_accelerator(settings: TrainingSettings) -> Accelerator:
    """The Accelerator of a run, which logs to TensorBoard.

    Raises:
        RunError: as `started_processes`.
    """
    started_processes()  # before Accelerate looks for them its own way
    accelerator = Accelerator(
        mixed_precision=resolve_precision(settings.mixed_precision),
        gradient_accumulation_steps=settings.accumulation,
        log_with="tensorboard",
        project_dir=settings.output_dir,
        dataloader_config=DataLoaderConfiguration(even_batches=False),  # no post twice
        # A batch without pictures gives a trained picture encoder no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    accelerator.init_trackers("tensorboard")
    return accelerator


def keep_quiet() -> None:
    """Leave it to the main process to print, to warn and to show how far it is."""
    sys.stdout = StringIO()
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
