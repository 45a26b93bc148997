"""A trained model as a function of tables, for `datasets` and Ray."""

import datasets
import pyarrow as pa
import pytest
from datasets.fingerprint import Hasher

from modeling_mmner.inference.annotator import Annotator
from tests.small_posts import WORDS, small_parts
from tests.tiny import SYSTEMS


def test_columns_that_are_there_stay(tmp_path) -> None:
    """If it failed, what the user gave would be written over."""
    for part in small_parts(**SYSTEMS["bilstm"]):
        part.save_pretrained(tmp_path)
    annotator = Annotator(str(tmp_path))
    table = pa.table({"text": ["Jordan in Paris", None], "more": [1, 2]})
    found = annotator(table)
    assert found.column_names == ["text", "more", "tokens", "tags", "entities", "error"]
    assert found.select(["text", "more"]) == table
    assert found["tokens"].to_pylist() == [["Jordan", "in", "Paris"], []]
    said = "post 1: expected either 'text' or 'tokens', found neither; its keys are ['text']"
    assert found["error"].to_pylist() == [None, said]
    with pytest.raises(ValueError, match="rows: expected no columns tags, which are added; rename them"):
        annotator(table.append_column("tags", [["a", "b"]]))


@pytest.mark.slow
def test_map_annotates_by_several_processes(tmp_path) -> None:
    """If it failed, the model would not reach the other processes, or rows come back at another place."""
    for part in small_parts(**SYSTEMS["bilstm"]):
        part.save_pretrained(tmp_path)
    texts = [" ".join(WORDS[row % 7 :] + WORDS[: row % 5]) for row in range(40)]
    rows = datasets.Dataset.from_dict({"text": texts}).with_format("arrow")
    annotator = Annotator(str(tmp_path), device="cpu", dtype="float32")
    found = rows.map(annotator, batched=True, batch_size=8, num_proc=2).with_format(None)
    assert found["text"][:] == texts and found["tags"][:] == annotator(rows[:])["tags"].to_pylist()


def test_another_model_in_the_same_folder_is_another_function(tmp_path) -> None:
    """If it failed, `datasets` would take the rows of the old model from its cache, or processes that keep a
    loaded model use it on.
    """
    hashes = []
    for dropout in (0.1, 0.1, 0.2):
        for part in small_parts(**SYSTEMS["bilstm"], dropout=dropout):
            part.save_pretrained(tmp_path)
        hashes.append(Hasher.hash(Annotator(str(tmp_path))))
    assert hashes[0] == hashes[1] != hashes[2]
