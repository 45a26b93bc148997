"""Tests of the table of parts: its rows and the classes fit together, and heads run in order of need."""

import subprocess
import sys
from itertools import chain

import pytest
import torch
from torch import Tensor

from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.model.context_mmner import Context
from modeling_mmner.model.fusion_mmner import Fusion
from modeling_mmner.model.heads_mmner import BoundaryDetection, Head, Tagging
from modeling_mmner.model.objectives_mmner import Objective
from modeling_mmner.model.parts_mmner import FUSIONS, HEADS, LOSSES, SETTINGS, TEXT_TOWERS, objective_parts
from modeling_mmner.model.text_mmner import TextTower
from tests.tiny import close, stir, tiny_batch, tiny_config

TABLES = {
    "text tower": (TEXT_TOWERS, TextTower),
    "fusion": (FUSIONS, Fusion),
    "head": (HEADS, Head),
    "loss": (LOSSES, Objective),
}
ROWS = [*TEXT_TOWERS.values(), *FUSIONS.values(), *objective_parts().values()]


@pytest.mark.parametrize(("table", "base"), TABLES.values(), ids=TABLES)
def test_each_row_has_a_class_and_each_class_a_row(table, base):
    """If it failed, a part could be named in a recipe and not be built, or be written and never found."""
    assert set(table) == set(base.classes)
    assert all(base.named(name) is base.classes[name] for name in table)


def test_row_without_a_class_says_what_to_write():
    """If it failed, a forgotten class would end in a KeyError."""
    with pytest.raises(ValueError, match=r"Fusion 'mine': expected a class .* define one as `class"):
        Fusion.named("mine")


def test_what_a_part_needs_another_gives():
    """If it failed, a misspelt need would make a part that no model can have."""
    given = {*chain(*(row.gives for row in FUSIONS.values())), "regions", "sentence"}
    assert set(chain(*(row.needs for row in ROWS))) <= given


def test_settings_have_a_default_that_fits():
    """If it failed, a model of defaults would be refused."""
    for name, setting in SETTINGS.items():
        setting.check(name, setting.default)
        assert setting.help


def test_the_table_loads_nothing_heavy():
    """If it failed, `--help` would take seconds again."""
    check = (
        "import sys, modeling_mmner.model.parts_mmner as p; sys.exit(any(m in sys.modules for m in ('torch',"
        " 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


# Heads


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The names of the heads that run, as they run."""
    seen = []
    for name, kind in list(Head.classes.items()):

        def forward(self, context: Context, name: str = name, run=kind.forward) -> Tensor:
            seen.append(name)
            return run(self, context)

        monkeypatch.setattr(kind, "forward", forward)
    return seen


class BoundaryReader(Tagging):
    """A main head that adds to its emissions how surely a word begins an entity, as boundary detection has
    it.
    """

    reads = ("boundary",)

    def forward(self, context: Context) -> Tensor:
        return super().forward(context) + context.emissions["boundary"][..., 1:2]


@pytest.fixture
def reading(monkeypatch) -> None:
    monkeypatch.setitem(Head.classes, "crf", BoundaryReader)


def model_of(**objectives: float) -> MMNERForTokenClassification:
    torch.manual_seed(0)
    model = MMNERForTokenClassification(tiny_config(objectives=objectives))
    stir(model)
    return model.eval()


def test_prediction_runs_the_main_head_alone(calls):
    """If it failed, every prediction would pay for heads that nobody reads."""
    batch = tiny_batch()
    labels = batch.pop("labels")
    model_of(crf=1.0, boundary=0.4)(**batch)
    assert calls == ["crf"]
    model_of(crf=1.0, boundary=0.4)(**batch, labels=labels)
    model_of(crf=1.0, boundary=0.0)(**batch, labels=labels)
    assert calls == ["crf", "crf", "boundary", "crf"]


@pytest.mark.parametrize("weight", [0.4, 0.0])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_head_runs_after_those_that_it_reads(reading, calls, weight, labelled):
    """If it failed, a head could read another's emissions in training alone."""
    batch = tiny_batch()
    labels = batch.pop("labels")
    model = model_of(crf=1.0, boundary=weight)
    output = model(**batch, labels=labels if labelled else None)
    assert calls == ["boundary", "crf"]
    context = model.encode(**batch)
    plain = Tagging.states(model.heads["crf"], context)
    expected = (
        model.heads["crf"].classifier(plain)
        + BoundaryDetection.forward(model.heads["boundary"], context)[..., 1:2]
    )
    close(output.logits, expected, tolerance=1e-6)
    assert (
        output.losses is None
        if not labelled
        else output.losses.keys() == ({"crf", "boundary"} if weight else {"crf"})
    )


def test_heads_that_cannot_run_are_refused(reading):
    """If it failed, a head would end in a KeyError."""
    with pytest.raises(ValueError, match=r"head 'crf' reads the emissions of \['boundary'\], expected them"):
        model_of(crf=1.0)


def test_a_head_may_read_an_earlier_one(calls, monkeypatch):
    """If it failed, only the main head could read another's emissions."""
    monkeypatch.setattr(BoundaryDetection, "reads", ("crf",))
    model_of(crf=1.0, boundary=0.4)(**tiny_batch())
    assert calls == ["crf", "boundary"]


def test_a_head_that_another_reads_learns_from_its_loss(reading):
    """If it failed, the boundary head would not be trained through the emissions that it lends."""
    model = model_of(crf=1.0, boundary=0.0).train()
    model(**tiny_batch()).loss.backward()
    assert model.heads["boundary"].classifier.weight.grad.any()
