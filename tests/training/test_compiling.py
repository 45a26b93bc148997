"""Training through `torch.compile` against training without."""

import shutil
from pathlib import Path

import pytest
from torch._dynamo.utils import counters

import train_accelerate
from modeling_mmner import MMNERForTokenClassification
from tests.interrupted import TRAINED_TOWER
from tests.training.test_training import TEXT, small_recipe, write_corpus

QUIET = {
    "text_config": TEXT | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "dropout": 0.0,
}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_layers_train_as_they_do_otherwise(tmp_path: Path) -> None:
    """If it failed, `compile` would change results, do nothing, or leave a model that does not load."""
    write_corpus(tmp_path)
    losses, names = [], []
    for compiled in (False, True):
        counters.clear()
        output = tmp_path / f"compiled-{compiled}"
        recipe = small_recipe(
            tmp_path,
            compile=compiled,
            output_dir=str(output),
            epochs=1,
            vision_towers=[TRAINED_TOWER],
            **QUIET,
        )
        losses.append([epoch["loss"] for epoch in train_accelerate.train(recipe).history])
        names.append(list(MMNERForTokenClassification.from_pretrained(output / "model").state_dict()))
        assert (counters["stats"]["unique_graphs"] > 0) == compiled
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert names[0] == names[1]
