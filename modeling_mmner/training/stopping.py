"""SIGTERM and Ctrl-C as a training run hears them: between two steps, so that what it has is saved first."""

import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate import Accelerator

from .checkpoints import AUTO

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A signal has ended the run; the text says what was saved.

    Attributes:
        code: the process's exit code, as a shell tells it: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, number: int, saved: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {saved}")
        self.code = 128 + number


class StopSignals:
    """While this context is entered, signals wait for the end of a step.

    A second signal does what it does without it.
    """

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
