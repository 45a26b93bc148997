"""The processes that train together."""

import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from torch import distributed

PATIENCE = timedelta(hours=2)
"""How long processes wait for another one: it may have a large corpus to build. One that dies ends the run at
once.
"""


def started_processes() -> PartialState:
    """Those that were started, this one among them; the first call lets them meet."""
    # Without being told of the CPU, Accelerate would take each process there for one by itself.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE, **_meeting_place())


def _meeting_place() -> dict[str, Any]:
    """Where the processes meet that torchrun has started again.

    Its store keeps what the processes before them have said, who are dead, and whose addresses they would
    find.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or distributed.is_initialized():
        return {}
    store, rank, world_size = next(distributed.rendezvous("env://", timeout=PATIENCE))
    return {
        "store": distributed.PrefixStore(f"attempt {attempt}", store),
        "rank": rank,
        "world_size": world_size,
    }
