"""Tests of the bars of progress: one line of a terminal, and little in a log."""

import io
import sys

import pytest

from modeling_mmner.training.progress import ProgressBar
from modeling_mmner.training.run_folder import Progress


class Stream(io.StringIO):
    """What is written to the standard error, a terminal of 80 columns or a log."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def trained(monkeypatch, *, is_terminal: bool, seconds: float) -> str:
    """What two epochs of 10 batches show, each of which takes some seconds."""
    now, stream, progress = [1000.0], Stream(is_terminal), Progress()
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (80, 24))
    monkeypatch.setattr(sys, "stderr", stream)

    def losses():
        for _ in range(10):
            now[0] += seconds
            yield {"loss": 3.0, "loss_crf": 2.5}

    with progress.bar(10, epochs=2) as bar:
        for _ in range(2):
            for _ in progress.shown(losses(), bar, epochs=2):
                pass
            progress.end_epoch(progress.mean_losses() | {"validation_f1": 0.5})
            bar.hide()
            print(progress.describe_last(bar))
    return stream.getvalue()


def test_a_training_has_one_bar_of_80_columns_with_the_time_to_its_end(monkeypatch, capsys):
    """Regression: the losses of all parts left one column to the bar, which told its epoch's time alone."""
    shown = trained(monkeypatch, is_terminal=True, seconds=2)
    states = [state for state in shown.split("\r") if state.strip()]
    assert "\n" not in shown and max(map(len, states)) <= 80
    [half] = [state.rstrip() for state in states if " 10/20, " in state]
    assert half.startswith("epoch 1/2:  50%|") and half.endswith("| 10/20, 00:20 left, loss 3.00")
    assert len(half) - len(half.replace("#", "")) >= 15 and "crf" not in shown
    assert shown.split("\r")[-1] == "" and not shown.split("\r")[-2].strip()  # it vanishes
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1: loss 3.000, validation F1 50.0; 00:20 left",
        "epoch 2: loss 3.000, validation F1 50.0",
    ]


@pytest.mark.parametrize(("seconds", "bars"), [(0.5, 0), (30, 10), (3600, 20)])
def test_a_log_has_a_bar_once_a_minute_at_most(monkeypatch, seconds, bars):
    """If it failed, a log would have ten bars a second; or, of an epoch that takes hours, no word."""
    shown = trained(monkeypatch, is_terminal=False, seconds=seconds)
    assert shown.count("left, loss") == bars


def test_short_phases_show_no_bar(monkeypatch):
    """Regression: pictures that are checked in a blink had three bars."""
    stream = Stream(is_terminal=True)
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressBar("checking the pictures", 100) as bar:
        for _ in range(100):
            bar.update()
        bar.hide()
    assert stream.getvalue() == ""
