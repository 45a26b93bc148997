"""What a model computes in when it is used: bfloat16 and float32, 8-bit integers, and what they cost."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dataset_scripts.opening import open_corpus
from modeling_mmner import MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.evaluation.scores import evaluate_rows
from modeling_mmner.inference.loading import computing_dtype, load_model
from modeling_mmner.inference.quantization import Int8Linear, quantize_linears
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from tests.small_corpora import write_posts
from tests.small_posts import POSTS, ROWS, by_hand, small_parts
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


# bfloat16


@pytest.mark.parametrize(("is_native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_where_the_processor_computes_in_it(folder, monkeypatch, is_native, dtype) -> None:
    """If it failed, a CPU without its instructions would emulate bfloat16, twenty times slower; or one with
    them not use them.
    """
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: is_native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    model, _ = load_model(folder, device="cpu", dtype="auto")
    assert model.dtype == dtype and {parameter.dtype for parameter in model.crf.parameters()} == {
        torch.float32
    }
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


@pytest.mark.parametrize(
    "options", [["--dtype", "float32"], ["--dtype", "bfloat16"], ["--quantize", "int8"]], ids=str
)
def test_command_line_computes_in_what_it_is_told(folder, tmp_path, options) -> None:
    """If it failed, an option would be ignored without a word."""
    source, target = tmp_path / "posts.jsonl", tmp_path / "entities.jsonl"
    source.write_text("\n".join(json.dumps({"text": row["text"]}) for row in ROWS), encoding="utf-8")
    assert (
        main(
            [
                "predict",
                "--model",
                folder,
                "--device",
                "cpu",
                "--input",
                str(source),
                "--output",
                str(target),
                *options,
            ]
        )
        == 0
    )
    found = [json.loads(line)["entities"] for line in target.read_text(encoding="utf-8").splitlines()]
    parts = load_model(folder, device="cpu", **{options[0][2:]: options[1]})
    predictor = BatchPredictor(parts[0], PostReader(parts[1]), batch_size=32, read_ahead=True)
    expected = [one.entities for one in predictor.predict([row["text"] for row in ROWS])]
    assert any(found) and found == expected


# 8-bit integers


def linear_of(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("has_vnni", "levels"), [(True, 127), (False, 64)])
def test_an_integer_layer_computes_what_whole_numbers_do(monkeypatch, has_vnni, levels, bias) -> None:
    """If it failed, a sum would overflow, or a scale belong to another row."""
    if has_vnni and not torch.cpu._is_vnni_supported():
        pytest.skip("without VNNI weights of 8 bits overflow")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: has_vnni)
    linear, inputs = linear_of(40, 24, bias=bias), torch.randn(3, 5, 40) * torch.logspace(-3, 3, 5)[:, None]
    inputs[1, 2] = 0
    weight, rows = linear.weight.detach().double().numpy(), inputs.double().numpy()
    weight_scale, row_scale = (
        abs(weight).max(1) / levels,
        np.maximum(abs(rows).max(-1, keepdims=True), 1e-30) / 127,
    )
    sums = np.rint(rows / row_scale).astype(np.int64) @ np.rint(weight.T / weight_scale).astype(np.int64)
    expected = sums * row_scale * weight_scale + (linear.bias.detach().numpy() if bias else 0)
    np.testing.assert_allclose(Int8Linear(linear)(inputs).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_an_integer_layer_is_close_to_its_own() -> None:
    """If it failed, what it computes would have little to do with what was trained."""
    linear, inputs = linear_of(64, 32), torch.randn(7, 64)
    found, expected = Int8Linear(linear)(inputs), linear(inputs)
    assert 0 < (found - expected).norm() < 0.02 * expected.norm()
    assert Int8Linear(linear)(inputs.bfloat16()).dtype == torch.bfloat16
    assert Int8Linear(linear)(inputs[:0]).shape == (0, 32)


def test_a_row_does_not_depend_on_the_others() -> None:
    """If it failed, a post's entities would change with the posts that it is read with."""
    layer, inputs = Int8Linear(linear_of(64, 32)), torch.randn(9, 64) * torch.logspace(-2, 2, 9)[:, None]
    assert torch.equal(layer(inputs), torch.cat([layer(row[None]) for row in inputs]))


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_sums_are_exact_without_instructions_for_bytes(instructions) -> None:
    """Regression: with weights of 8 bits oneDNN's sums of 16 bits overflow on CPUs without VNNI, and nothing
    tells of it.
    """
    code = """
import torch
from torch import nn
from modeling_mmner.inference.quantization import Int8Linear
torch.cpu._is_vnni_supported = lambda: False
linear = nn.Linear(384, 64, bias=False)
with torch.no_grad():
    linear.weight.fill_(1.0)
print(Int8Linear(linear)(torch.ones(64, 384)).unique().tolist())
"""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(run.stdout) == [pytest.approx(384, rel=1e-6)]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_quantized_system_finds_nearly_the_same(system) -> None:
    """If it failed, a system could not be quantized, or find other entities then."""
    model, _ = small_parts(**SYSTEMS[system])
    batch = tiny_batch()
    batch["input_ids"] %= model.get_input_embeddings().num_embeddings
    expected = emissions(model, batch)
    if system in ("adacan", "bilstm"):  # whose layers are LSTMs and a co-attention of its own
        with pytest.raises(
            ValueError,
            match=r"^quantize: expected a model with linear layers in its towers or fusion, found none$",
        ):
            quantize_linears(model)
        return
    quantize_linears(model)
    assert 0 < (emissions(model, batch) - expected).norm() < 0.05 * expected.norm()
    kinds = {name: type(module) for name, module in model.named_modules()}
    assert nn.Linear not in {
        kind for name, kind in kinds.items() if not name.startswith(("heads.", "objectives."))
    }
    assert Int8Linear not in {kind for name, kind in kinds.items() if name.startswith("heads.")}


def test_quantized_batches_equal_one_by_one(folder) -> None:
    """If it failed, integers would make a post's entities depend on its neighbours.

    Scores may differ by what it makes to round the last digit of a number up or down.
    """
    parts = load_model(folder, dtype="auto", quantize="int8")
    together = [
        found.entities for found in BatchPredictor(parts[0], PostReader(parts[1]), batch_size=4).predict(ROWS)
    ]
    assert any(together)
    for found, (text, pictures) in zip(together, POSTS, strict=True):
        expected = by_hand(parts, text, pictures)
        assert [one["word"] for one in found] == [one["word"] for one in expected]
        assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=0.02)


def test_only_the_cpu_quantizes(folder, capsys) -> None:
    """If it failed, the error would come from the first layer, and say nothing of what to do."""
    assert (
        main(["predict", "--model", folder, "--text", "Paris", "--device", "cuda", "--quantize", "int8"]) == 2
    )
    assert "predict: --quantize int8: expected --device cpu, found cuda" in capsys.readouterr().err


# What it costs


@pytest.fixture
def corpus(tmp_path):
    return str(write_posts(tmp_path / "corpus", TAGGED))


def test_evaluate_prints_the_scores_of_a_split(folder, corpus, capsys) -> None:
    """If it failed, users would choose a precision by figures that are not their model's."""
    assert (
        main(
            [
                "evaluate",
                corpus,
                "--model",
                folder,
                "--device",
                "cpu",
                "--dtype",
                "float32",
                "--batch_size",
                "2",
            ]
        )
        == 0
    )
    first, second, third = capsys.readouterr().out.splitlines()
    parts, opened = load_model(folder, device="cpu"), open_corpus(corpus)
    rows = opened.splits["test"]
    found = BatchPredictor(parts[0], PostReader(parts[1])).predict(rows)
    scores = evaluate_rows([one.tags for one in found], rows, opened.labels)
    overall, (low, high) = scores["overall"], scores["overall"]["confidence_interval"]
    assert re.fullmatch(r".*, test: 3 posts, 4 entities; [\d.]+ posts a second", first)
    assert second == "precision {precision:.2f}, recall {recall:.2f}, strict F1 {strict:.2f}".format(
        precision=100 * overall["precision"],
        recall=100 * overall["recall"],
        strict=100 * scores["strict"]["f1"],
    )
    assert third == f"F1 {100 * overall['f1']:.2f}, 95% interval {100 * low:.2f} to {100 * high:.2f}"


def test_evaluate_reads_contexts(tmp_path, corpus, capsys) -> None:
    """If it failed, a model that reads contexts would be scored without them."""
    model, processor = small_parts(**SYSTEMS["mlmner"])
    reading = MMNERProcessor(processor.tokenizer, labels=LABELS, image_size=64, context_window=8)
    model.save_pretrained(tmp_path / "model")
    reading.save_pretrained(tmp_path / "model")
    (tmp_path / "contexts.jsonl").write_text('{"id": "3", "caption": "tomorrow and today"}', encoding="utf-8")
    command = ["evaluate", corpus, "--model", str(tmp_path / "model"), "--device", "cpu", "--context_file"]
    seen, read = [], PostReader.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            PostReader, "__call__", lambda *args, **kwargs: seen.append(read(*args, **kwargs)) or seen[-1]
        )
        assert main([*command, str(tmp_path / "contexts.jsonl"), "--context", "caption"]) == 0
    assert sorted(one.post.context for one in seen) == ["", "", "tomorrow and today"]
    assert main([*command, str(tmp_path / "contexts.jsonl")]) == 2
    assert (
        "--context_file: expected --context, the field that holds the contexts, found none"
        in capsys.readouterr().err
    )


def test_evaluate_refuses_what_it_cannot_score(folder, corpus, tmp_path, capsys) -> None:
    """If it failed, a corpus of other types would just have a low score, and a misspelt split end in a
    traceback.
    """
    assert main(["evaluate", corpus, "--model", folder, "--split", "tset"]) == 2
    assert "evaluate: --split: expected one of train, validation, test, found tset" in capsys.readouterr().err
    other = write_posts(tmp_path / "other", TAGGED | {"test": [("6", "Amazon/B-ORG")]})
    assert main(["evaluate", str(other), "--model", folder]) == 2
    assert (
        "expected a model that knows the labels of other, found none for ['B-ORG', 'I-ORG']"
        in capsys.readouterr().err
    )
