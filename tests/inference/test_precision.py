"""What a model computes in when it is used: bfloat16 or float32, and what that costs."""

import re
from typing import Any

import pytest
import torch

from dataset_scripts.opening import open_corpus
from modeling_mmner import MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.evaluation.scores import evaluate_rows
from modeling_mmner.inference.loading import computing_dtype, load_model, load_predictor
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from tests.small_corpora import write_posts
from tests.small_posts import ROWS, small_parts
from tests.tiny import LABELS, SYSTEMS, tiny_batch

TAGGED = {
    "train": [("1", "Paris/B-LOC today/O")],
    "valid": [("2", "Jordan/B-PER posts/O")],
    "test": [
        ("3", "Jordan/B-PER posts/O from/O Paris/B-LOC"),
        ("4", "Paris/B-LOC"),
        ("5", "tomorrow/O and/O Jordan/B-PER"),
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with pictures."""
    path = tmp_path_factory.mktemp("model")
    for part in small_parts(**SYSTEMS["mlmner"]):
        part.save_pretrained(path)
    return str(path)


def emissions(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model(**{name: values for name, values in batch.items() if name != "labels"}).logits.float()


@pytest.mark.parametrize(("is_native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_where_the_processor_computes_in_it(folder, monkeypatch, is_native, dtype) -> None:
    """If it failed, a CPU without its instructions would emulate bfloat16, twenty times slower; or one with
    them not use them.
    """
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: is_native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    model, _ = load_model(folder, device="cpu", dtype="auto")
    assert model.dtype == dtype
    assert {parameter.dtype for parameter in model.crf.parameters()} == {torch.float32}
    assert computing_dtype("auto", torch.device("mps")) == torch.float32
    assert computing_dtype("float16", torch.device("cpu")) == torch.float16


@pytest.mark.parametrize("system", SYSTEMS)
def test_bfloat16_finds_nearly_the_same(system) -> None:
    """If it failed, a system could not be used where `auto` means bfloat16, or find other entities there."""
    model, _ = small_parts(**SYSTEMS[system])
    batch = tiny_batch()
    batch["input_ids"] %= model.get_input_embeddings().num_embeddings
    expected, found = emissions(model, batch), emissions(model.bfloat16(), batch)
    assert 0 < (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_predictor_computes_in_what_it_is_told(folder, dtype) -> None:
    """If it failed, an option would be ignored without a word."""
    posts = [row["text"] for row in ROWS]
    predictor = load_predictor(folder, device="cpu", dtype=dtype, batch_size=4, threshold=0.1)
    assert predictor.model.dtype == getattr(torch, dtype)
    assert (predictor.batch_size, predictor.threshold, predictor.read.broken_pictures) == (4, 0.1, "skip")
    model, processor = load_model(folder, device="cpu", dtype=dtype)
    expected = BatchPredictor(model, PostReader(processor), batch_size=4, read_ahead=True, threshold=0.1)
    found = [one.entities for one in predictor.predict(posts)]
    assert any(found) and found == [one.entities for one in expected.predict(posts)]


def test_what_cannot_be_loaded_is_named(folder) -> None:
    """If it failed, a slip would end in a traceback, or contexts be passed over without a word."""
    with pytest.raises(ValueError, match="device nowhere: expected one that this computer has"):
        load_model(folder, device="nowhere")
    with pytest.raises(ValueError, match="--context: expected a model that was trained with contexts, found"):
        load_predictor(folder, reads_contexts=True)
    with pytest.raises(
        OSError, match="model '/not/there': expected a file or folder that is there, or the ORG"
    ):
        load_predictor("/not/there")


# What it costs


@pytest.fixture
def corpus(tmp_path):
    return str(write_posts(tmp_path / "corpus", TAGGED))


def test_evaluate_prints_the_scores_of_a_split(folder, corpus, capsys) -> None:
    """If it failed, users would choose a precision by figures that are not their model's."""
    how = ["--device", "cpu", "--dtype", "float32", "--batch_size", "2"]
    command = ["evaluate", corpus, "--model", folder, *how]
    assert main(command) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    parts, opened = load_model(folder, device="cpu"), open_corpus(corpus)
    rows = opened.splits["test"]
    found = BatchPredictor(parts[0], PostReader(parts[1])).predict(rows)
    scores = evaluate_rows([one.tags for one in found], rows, opened.labels)
    overall, (low, high) = scores["overall"], scores["overall"]["confidence_interval"]
    assert re.fullmatch(r".*, test: 3 posts, 4 entities; [\d.]+ posts a second", first)
    precision, recall, strict = overall["precision"], overall["recall"], scores["strict"]["f1"]
    expected = f"precision {100 * precision:.2f}, recall {100 * recall:.2f}, strict F1 {100 * strict:.2f}"
    assert second == expected
    assert third == f"F1 {100 * overall['f1']:.2f}, 95% interval {100 * low:.2f} to {100 * high:.2f}"


def test_evaluate_reads_contexts(tmp_path, corpus, capsys, monkeypatch) -> None:
    """If it failed, a model that reads contexts would be scored without them."""
    model, processor = small_parts(**SYSTEMS["mlmner"])
    reading = MMNERProcessor(processor.tokenizer, labels=LABELS, image_size=64, context_window=8)
    model.save_pretrained(tmp_path / "model")
    reading.save_pretrained(tmp_path / "model")
    (tmp_path / "contexts.jsonl").write_text('{"id": "3", "caption": "tomorrow and today"}', encoding="utf-8")
    command = ["evaluate", corpus, "--model", str(tmp_path / "model"), "--device", "cpu", "--context_file"]
    seen, read = [], PostReader.__call__
    keep = lambda *args, **kwargs: seen.append(read(*args, **kwargs)) or seen[-1]  # noqa: E731
    monkeypatch.setattr(PostReader, "__call__", keep)
    assert main([*command, str(tmp_path / "contexts.jsonl"), "--context", "caption"]) == 0
    assert sorted(one.post.context for one in seen) == ["", "", "tomorrow and today"]
    assert main([*command, str(tmp_path / "contexts.jsonl")]) == 2
    expected = "--context_file: expected --context, the field that holds the contexts, found none"
    assert expected in capsys.readouterr().err


def test_evaluate_refuses_what_it_cannot_score(folder, corpus, tmp_path, capsys) -> None:
    """If it failed, a corpus of other types would just have a low score, and a misspelt split end in a
    traceback.
    """
    assert main(["evaluate", corpus, "--model", folder, "--split", "tset"]) == 2
    assert "--split: expected one of train, validation, test, found 'tset'" in capsys.readouterr().err
    other = write_posts(tmp_path / "other", TAGGED | {"test": [("6", "Amazon/B-ORG")]})
    assert main(["evaluate", str(other), "--model", folder]) == 2
    expected = "expected a model that knows the labels of other, found none for ['B-ORG', 'I-ORG']"
    assert expected in capsys.readouterr().err
    bare = write_posts(tmp_path / "bare", TAGGED | {"test": [("6", "nothing/O")]})
    assert main(["evaluate", str(bare), "--model", folder]) == 2
    assert "bare, test: expected posts with entities to score, found none" in capsys.readouterr().err
