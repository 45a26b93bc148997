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
        wait = 1.0 if sys.stderr.isatty() else 60.0
        look: Any = {"bar_format": _FORMAT, "dynamic_ncols": True, "leave": False, "smoothing": 0}
        silent = os.environ.get("LOCAL_RANK", "0") != "0"
        pace = {"delay": wait, "mininterval": wait / 10}
        super().__init__(desc=doing, total=total, initial=done, disable=silent, **pace, **look)

    def hide(self) -> None:
        """Make room for a line that is printed; the next step shows the bar again."""
        if not self.disable and self.last_print_t > self.start_t:
            self.clear()

    def left(self) -> str:
        """The time that is left, in words; empty where the phase is over or the bar is not shown."""
        if self.disable or not self.initial < self.n < self.total:
            return ""
        return in_words((self._time() - self.start_t) * (self.total - self.n) / (self.n - self.initial))


def in_words(seconds: float) -> str:
    """``about 40 s``, ``about 3 min`` or ``about 5 h``."""
    size, unit = next((pair for pair in ((3600, "h"), (60, "min")) if seconds >= 2 * pair[0]), (1, "s"))
    return f"about {seconds / size:.0f} {unit}"
