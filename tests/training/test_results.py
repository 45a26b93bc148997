"""What a run writes at its end."""

import json

import datasets
import pytest

from modeling_mmner.training import run_folder
from modeling_mmner.training.recipes import load_recipe
from tests.small_metrics import run_metrics


def test_no_plot_keeps_a_run_from_being_finished(tmp_path, monkeypatch) -> None:
    """If it failed, a trained model would never be finished, and the same command end in the same plot."""

    def out_of_memory(*arguments, **options):
        raise MemoryError("for a picture of 400 inches")

    for name in (run_folder.CURVES, run_folder.CONFUSION):
        (tmp_path / name).write_text("of an earlier run")
    monkeypatch.setattr(run_folder, "plot_learning_curves", out_of_memory)
    rows = datasets.Dataset.from_dict({"id": ["a", "b"], "tokens": [["Paris"], ["today"]]})
    with pytest.warns(UserWarning, match="could not be drawn") as warned:
        run_folder.write_results(
            tmp_path, run_metrics("quickstart"), rows, gold=[["O"]] * 2, predicted=[["O"]] * 2
        )
    assert [str(one.message) for one in warned] == [
        "learning_curves.png could not be drawn: MemoryError: for a picture of 400 inches",
        "confusion_matrix.png could not be drawn: ValueError: tags: expected an entity in gold or predicted,"
        " found none to plot",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "predictions.jsonl"]
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["predicted"] for line in lines] == [["O"], ["O"]]


def test_training_does_not_write_over_what_it_reads(tmp_path) -> None:
    """If it failed, the predictions of one run, with which another trains, would be lost."""
    posts = tmp_path / "predictions.jsonl"
    posts.write_text("posts")
    found = f"found that it is {posts}; name another"
    for given in ({"dataset": str(posts)}, {"context": "caption", "context_file": [str(posts)]}):
        recipe = load_recipe("quickstart", given | {"output_dir": str(tmp_path)})
        with pytest.raises(run_folder.RunError, match=found):
            run_folder.check_run(recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
