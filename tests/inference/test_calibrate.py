"""Tests of `mmner calibrate` and `precision=`: thresholds that are used, and those that are refused."""

import json
from types import SimpleNamespace

import pytest
import torch

from modeling_mmner import MMNERForTokenClassification, load
from modeling_mmner.cli import main
from modeling_mmner.hub.push import plan_upload, save_calibration
from modeling_mmner.model.posts_mmner import PostError
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader
from modeling_mmner.model.thresholds_mmner import weights_sha256
from tests.saved import save_small

TEXT = "Jordan posts from Paris posts Jordan from from Paris Paris"


def calibration(model, **thresholds):
    """What is saved for a model, in which thirty entities of each type were kept."""
    counts = dict.fromkeys(("gold", "found", "right", "kept", "kept_right"), 30)
    about = {"contexts": False, "corpus": "mine", "split": "validation", "posts": 30, "precision": 0.9}
    about |= {"confidence": 0.9, "numbers": dict.fromkeys(thresholds, counts), "thresholds": thresholds}
    return about | {"weights": weights_sha256(model)}


@pytest.fixture
def folder(tmp_path):
    return save_small(tmp_path / "model", recipe="bert-crf")


def test_thresholds_leave_out_what_is_below_them(folder, caplog):
    """If it failed, entities of a type would be held to another one's threshold, or to none."""
    entities = load(str(folder))(TEXT)
    types = [one["entity_group"] for one in entities]
    kind = max(types, key=types.count)
    scores = sorted(one["score"] for one in entities if one["entity_group"] == kind)
    least, others = scores[len(scores) // 2], {"PER", "LOC"} - {kind}
    save_calibration(folder, calibration(load(str(folder)).model, **{kind: least}, **dict.fromkeys(others)))
    expected = [one for one in entities if one["entity_group"] == kind and one["score"] >= least]
    assert 0 < len(expected) < len(entities)
    ner = load(str(folder))
    assert ner(TEXT, precision=0.9) == expected and ner(TEXT) == entities
    assert load(str(folder), precision=0.9)(TEXT) == expected
    assert caplog.text.count(f"found none for {min(others)}, whose entities are left out") == 1


@pytest.mark.parametrize(
    "changed", ["heads.crf.classifier.weight", "heads.crf.crf.transitions", "text_tower"]
)
def test_thresholds_of_other_weights_are_refused(folder, tmp_path, changed):
    """Regression: the Trainer saves `processing_class`, and its thresholds, with every model it makes, also
    where an adapter has changed the encoder alone.
    """
    save_calibration(folder, calibration(load(str(folder)).model, PER=0.1, LOC=0.1))
    ner = load(str(folder))
    ner.save_pretrained(str(tmp_path / "same"))
    assert load(str(tmp_path / "same"))(TEXT, precision=0.9) == ner(TEXT, threshold=0.1)
    assert load(str(folder), dtype="bfloat16")(TEXT, precision=0.9) is not None
    with torch.no_grad():
        tuned = [value for name, value in ner.model.named_parameters() if name.startswith(changed)]
        tuned[-1].add_(0.01)
    ner.save_pretrained(str(tmp_path / "tuned"))
    with pytest.raises(ValueError, match=r"for other weights; run mmner calibrate .* --precision 0\.9"):
        load(str(tmp_path / "tuned"))(TEXT, precision=0.9)


def test_what_was_not_calibrated_is_refused(folder):
    """If it failed, another precision, or none that was ever measured, would be promised."""
    ner = load(str(folder))
    with pytest.raises(
        ValueError, match=r"expected thresholds for 0\.9 of this model, found none; run mmner cal"
    ):
        ner(TEXT, precision=0.9)
    ner.processor.calibration = calibration(ner.model, PER=0.5)
    with pytest.raises(
        ValueError, match=r"expected thresholds for 0\.95 of this model, found those for 0\.9"
    ):
        ner(TEXT, precision=0.95)
    with pytest.raises(
        ValueError, match="expected a model in torch, as was calibrated, found an exported one"
    ):
        BatchPredictor(SimpleNamespace(), PostReader(ner.processor), precision=0.9)
    ner.processor.calibration["contexts"] = True
    with pytest.raises(
        PostError, match="context: expected one as when calibrated, found none; run mmner calib"
    ):
        ner(TEXT, precision=0.9)


def test_command_saves_thresholds_and_card_and_nothing_else(folder, tmp_path, capsys):
    """If it failed, calibrating would change the model, or the card say nothing of it, pushed or not."""
    tags = ["B-PER", "O", "O", "B-LOC", *["O"] * 6]
    posts = [
        {"id": split, "tokens": [split, *TEXT.split()[1:]], "ner_tags": tags, "split": split}
        for split in ("train", "validation", "test")
    ]
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(f"{json.dumps(post)}\n" for post in posts), "utf-8")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    places = ["--model", str(folder), "--dataset", str(data)]
    assert main(["calibrate", *places, "--precision", "0.9"]) == 0
    out = capsys.readouterr().out
    assert "PER: no score does; of 1 entities it finds" in out and f"saved in {folder}" in out
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {
        "README.md",
        "processor_config.json",
    }
    saved = load(str(folder)).processor.calibration
    assert (saved["posts"], saved["thresholds"]) == (1, {"PER": None, "LOC": None})
    assert saved["weights"] == weights_sha256(MMNERForTokenClassification.from_pretrained(folder))
    pushed = next(
        file for file in plan_upload(folder, repo_id="org/m").files if file.path_in_repo == "README.md"
    )
    for card in (after["README.md"].decode(), pushed.path_or_fileobj.decode()):
        assert "### Scores to act on" in card and "| PER | none | 0 of" in card
    assert main(["calibrate", "--model", "org/none", "--dataset", str(data)]) == 2
    assert (
        "expected a folder, which gets the scores, found none; `hf download org/none"
        in capsys.readouterr().err
    )
