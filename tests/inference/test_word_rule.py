"""A model of characters, for scripts without spaces: whatever uses it splits a text as it was trained."""

import json
from pathlib import Path

import pytest
from transformers import pipeline

from modeling_mmner import MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.inference.annotate import AnnotateStep, Annotator, annotate, open_posts
from modeling_mmner.inference.loading import load_predictor
from modeling_mmner.inference.onnx_export import export_onnx
from modeling_mmner.training.assembly import build_processor
from modeling_mmner.training.recipes import load_recipe
from tests.annotation_parts import rows_in
from tests.small_posts import small_parts

TEXT = "今天Jordan在北京看 雨"
WORDS = ["今", "天", "Jordan", "在", "北", "京", "看", "雨"]
STARTS = [0, 1, 2, 8, 9, 10, 11, 13]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved model whose processor splits by characters."""
    folder = tmp_path_factory.mktemp("characters")
    model, processor = small_parts(fusion="text-only")
    model.save_pretrained(folder)
    processor.tokenizer.model_max_length = 64
    own = MMNERProcessor(
        processor.tokenizer, labels=processor.labels, image_size=None, word_rule="characters"
    )
    own.save_pretrained(folder)
    return folder


def test_recipe_reaches_the_processor():
    """If it failed, a model would be trained on characters and then split texts by spaces."""
    recipe = load_recipe("bert-crf", {"word_rule": "characters", "text_encoder": None, "text_config": TINY})
    processor = build_processor(recipe, labels=["O", "B-X"], posts=[WORDS])
    assert processor.word_rule == "mmner-characters-1"


TINY = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_pipeline_and_annotate_split_alike(folder, tmp_path):
    """If it failed, one way to use a model would find other entities than another, or elsewhere."""
    predicted = next(iter(load_predictor(str(folder), device="cpu").predict([TEXT])))
    assert [word.text for word in predicted.post.words] == WORDS
    assert [word.start for word in predicted.post.words] == STARTS and predicted.entities
    assert all(TEXT[found["start"] : found["end"]] == found["word"] for found in predicted.entities)

    pipe = pipeline("multimodal-ner", model=str(folder), device="cpu", trust_remote_code=True)
    places = [(found["start"], found["end"]) for found in predicted.entities]
    assert [(found["start"], found["end"]) for found in pipe(TEXT)] == places

    (tmp_path / "posts.jsonl").write_text(json.dumps({"id": "1", "text": TEXT}), encoding="utf-8")
    step = AnnotateStep(
        Annotator(str(folder), device="cpu"), open_posts(str(tmp_path / "posts.jsonl")), tmp_path / "out"
    )
    annotate(step, tasks=1)
    [row] = rows_in(tmp_path / "out", tmp_path)
    assert row["tokens"] == WORDS and [(one["start"], one["end"]) for one in row["entities"]] == places


@pytest.mark.slow
def test_exported_model_splits_alike(folder, tmp_path):
    """If it failed, a model in ONNX would read other words than the one that it was made of."""
    predicted = next(iter(load_predictor(str(folder), device="cpu").predict([TEXT])))
    export_onnx(str(folder), tmp_path / "onnx")
    exported = next(iter(load_predictor(str(tmp_path / "onnx")).predict([TEXT])))
    assert exported.tags == predicted.tags and [word.text for word in exported.post.words] == WORDS


def test_evaluate_reads_spans_by_the_models_rule(folder, tmp_path, capsys):
    """If it failed, a model of characters would be scored on a corpus whose spans were all left out."""
    records = [{"text": f"在北京{number}", "spans": [[1, 3, "LOC"]]} for number in range(20)]
    path = tmp_path / "posts.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    assert main(["evaluate", str(path), "--model", str(folder), "--split_ratio", "10,10,80"]) == 0
    assert "posts, test: 16 posts, 16 entities" in capsys.readouterr().out
