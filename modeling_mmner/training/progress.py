"""How far the work is: one bar a phase, on one line."""

import os
import sys
from typing import Any

from tqdm import tqdm

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"


class ProgressBar(tqdm):
    """The bar of a phase, with the time that is left: on a terminal from the first second on, in a log once a
    minute. It vanishes with the phase. Of a machine's processes the first shows it.
    """

    def __init__(self, doing: str, total: int, *, done: int = 0) -> None:
        delay, pause = (1.0, 0.1) if sys.stderr.isatty() else (60.0, 60.0)
        look: Any = {"bar_format": _FORMAT, "dynamic_ncols": True, "leave": False, "smoothing": 0}
        look |= {"delay": delay, "mininterval": pause, "disable": os.environ.get("LOCAL_RANK", "0") != "0"}
        super().__init__(desc=doing, total=total, initial=done, **look)

    def hide(self) -> None:
        """Make room for a line that is printed; the next step shows the bar again."""
        if not self.disable and self.last_print_t > self.start_t:
            self.clear()
