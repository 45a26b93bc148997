"""Work in several processes that train together, as torchrun starts them: gloo, on this machine's CPU."""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from tests.demo_parts import free_port

SECONDS = 120


def together(work: Callable[..., Any], *arguments: Any, folder: Path, processes: int = 2) -> list[Any]:
    """What `work` returns in each of some processes. What each prints is in a file of its own, `0.out` and so
    on.
    """
    codes = exit_codes(work, *arguments, folder=folder, processes=processes)
    assert codes == [0] * processes, f"expected an end within {SECONDS} s, found exit codes {codes}"
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(processes)]


def exit_codes(
    work: Callable[..., Any], *arguments: Any, folder: Path, processes: int = 2
) -> list[int | None]:
    """How such processes end; None of one that did not, and was killed."""
    # Not from this process, whose threads (of earlier tests) may hold a lock that a fork would wait for.
    context, port = multiprocessing.get_context("forkserver"), free_port()
    context.set_forkserver_preload([work.__module__])
    started = [
        context.Process(target=_work, args=(work, arguments, folder, rank, processes, port))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    return codes


def _work(
    work: Callable[..., Any], arguments: tuple[Any, ...], folder: Path, rank: int, processes: int, port: int
) -> None:
    os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
    os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    with (folder / f"{rank}.out").open("w", encoding="utf-8") as printed, redirect_stdout(printed):
        torch.save(work(*arguments), folder / f"{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
