"""A model that version 0.1 saved, and what it said then: it loads, says the same, and is saved in today's
form.
"""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from modeling_mmner import MMNERConfig, MMNERForTokenClassification, MMNERProcessor

SAVED = Path(__file__).parent / "version_0_1"
EXPECTED = json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))
PICTURE = Image.linear_gradient("L").convert("RGB")
PICTURES = [PICTURE, None, [PICTURE, PICTURE]]
TEXTS = EXPECTED["texts"]


def load(folder: Path = SAVED) -> MMNERForTokenClassification:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, info = MMNERForTokenClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return model.eval()


@torch.no_grad()
def check(model: MMNERForTokenClassification, processor: MMNERProcessor, count: int) -> None:
    """Check that the first texts have the tags, scores, logits and entities that they had."""
    texts = TEXTS[:count]
    outputs = model(**processor(texts, images=PICTURES[:count]))
    for row in range(count):
        words = sum(tag >= 0 for tag in EXPECTED["tags"][row])
        assert outputs.tags[row, :words].tolist() == EXPECTED["tags"][row][:words]
        for name in ("span_scores", "logits"):
            expected = torch.tensor(EXPECTED[name][row][:words])
            torch.testing.assert_close(getattr(outputs, name)[row, :words], expected, atol=1e-6, rtol=1e-6)
    for found, expected in zip(
        processor.post_process_entities(outputs, texts), EXPECTED["entities"], strict=False
    ):
        assert [entity | {"score": 0} for entity in found] == [entity | {"score": 0} for entity in expected]
        assert [entity["score"] for entity in found] == pytest.approx(
            [entity["score"] for entity in expected], abs=1e-6
        )


def test_saved_model_says_what_it_said():
    """If it failed, people's models of version 0.1 would be lost, or find other entities."""
    check(load(), MMNERProcessor.from_pretrained(SAVED), 2)


def test_long_texts_ask_for_their_window():
    """If it failed, a text beyond the encoder's window would end in an index error: the old processor knows
    no window.
    """
    model, processor = load(), MMNERProcessor.from_pretrained(SAVED)
    message = (
        r"expected windows of at most 24 sub-tokens, .* AutoProcessor\.from_pretrained\(\.\.\.,"
        r" model_max_length=24\)"
    )
    with pytest.raises(ValueError, match=message):
        model(**processor(TEXTS, images=PICTURES))
    check(model, MMNERProcessor.from_pretrained(SAVED, model_max_length=24), 3)


def test_saved_again_it_has_the_names_of_today(tmp_path):
    """If it failed, a model that was loaded once would be saved under names that no longer exist."""
    model = load()
    model.save_pretrained(tmp_path)
    MMNERProcessor.from_pretrained(SAVED, model_max_length=24).save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert names == model.state_dict().keys()
    assert {
        "heads.crf.classifier.weight",
        "heads.crf.crf.transitions",
        "heads.boundary.crf.transitions",
    } <= names
    again = load(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    check(again, MMNERProcessor.from_pretrained(tmp_path), 3)


def test_a_window_that_was_set_is_not_lost_in_silence(tmp_path):
    """If it failed, a model of version 0.1 with a shorter window would read longer ones from now on."""
    settings = json.loads((SAVED / "config.json").read_text(encoding="utf-8")) | {"text_window": 12}
    shutil.copytree(SAVED, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.warns(
        UserWarning,
        match="text_window 12 of version 0.1 is not read; .* model_max_length=12 and save it again",
    ):
        MMNERConfig.from_pretrained(tmp_path)
