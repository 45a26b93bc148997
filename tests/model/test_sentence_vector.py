"""Tests of the sentence vector: what it is in each setting, and which one a checkpoint gets."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertForPreTraining, BertModel

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.context_mmner import TextStates
from modeling_mmner.model.text_mmner import TextTower
from modeling_mmner.training.assembly import build_model
from modeling_mmner.training.recipes import Recipe
from modeling_mmner.training.vocabulary import train_tokenizer
from tests.tiny import LABELS, TEXT, TOWER, VIT, close, stir, tiny_batch, tiny_config, tiny_model

SIZES = {name: value for name, value in TEXT.items() if name not in ("model_type", "max_position_embeddings")}


def make_tower(sentence_vector: str, **settings) -> TextTower:
    torch.manual_seed(1)
    config = tiny_config(fusion="text-only", text_config=TEXT | settings, sentence_vector=sentence_vector)
    tower = TextTower.named("transformer")(config).eval()
    stir(tower)
    return tower


def read(tower: TextTower, batch: dict[str, Tensor]) -> TextStates:
    ids = {name: batch[name][:, None] for name in ("input_ids", "attention_mask")}
    return tower(**ids, word_starts=batch["word_starts"], word_mask=batch["word_mask"])


def test_mean_is_that_of_the_words_of_each_text():
    """If it failed, special tokens, later sub-tokens or padding would count."""
    tower, batch = make_tower("mean"), tiny_batch((5, 0, 20, 1), (0, 0, 0, 0))
    states = read(tower, batch)
    for row, length in enumerate((5, 0, 20, 1)):
        total = sum(states.words[row, word] for word in range(length))
        expected = total / length if length else torch.zeros(32)
        torch.testing.assert_close(states.sentence[row], expected, atol=1e-6, rtol=1e-5)
    assert not any("pooler" in name for name, _ in tower.named_parameters())


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "xlm-roberta", "camembert", "albert", "mpnet", "longformer"]
)
def test_pooler_is_the_encoder_s_own(kind):
    """If it failed, the sentence vector would be another text's."""
    extra = {"albert": {"embedding_size": 16}, "longformer": {"attention_window": [8, 8]}}.get(kind, {})
    tower, batch = make_tower("pooler", model_type=kind, max_position_embeddings=70, **extra), tiny_batch()
    batch["input_ids"] = batch["input_ids"].masked_fill(
        batch["attention_mask"] == 0, tower.encoder.config.pad_token_id
    )
    states = read(tower, batch)
    assert states.sentence.shape == (3, 32)
    for row, length in enumerate(batch["attention_mask"].sum(1)):
        alone = tower.encoder(input_ids=batch["input_ids"][row : row + 1, :length])
        close(states.sentence[row], alone.pooler_output[0])
    mean = make_tower("mean", model_type=kind, max_position_embeddings=70, **extra)
    mean.encoder.load_state_dict(
        {name: tower.encoder.state_dict()[name] for name in mean.encoder.state_dict()}
    )
    close(read(mean, batch).words, states.words, tolerance=1e-6)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("distilbert", {"vocab_size": 100, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64}),
        ("electra", SIZES),
        ("deberta-v2", SIZES),
    ],
)
def test_pooler_of_an_encoder_without_one_is_refused(kind, settings):
    """If it failed, the error would be an attribute of None at the first batch."""
    message = f"sentence_vector: expected an encoder with a pooler, found none in {kind}; use 'mean'"
    with pytest.raises(ValueError, match=message):
        tiny_model(
            fusion="collaboration", sentence_vector="pooler", text_config={"model_type": kind, **settings}
        )


# Which sentence vector a checkpoint gets

ALIGNED, NOT_ALIGNED = {"crf": 1.6, "alignment": 0.4}, {"crf": 1.0}
CHECKPOINTS = {
    "encoder": (lambda config: BertModel(config), True),
    "encoder without pooler": (lambda config: BertModel(config, add_pooling_layer=False), False),
    "next sentence": (lambda config: BertForPreTraining(config), True),
    "masked words alone": (lambda config: BertForMaskedLM(config), False),
}


def make_recipe(objectives: dict[str, float], **settings) -> Recipe:
    towers = [tower | {"pretrained": False} for tower in (VIT, TOWER | {"pooled": True})]
    return Recipe().with_settings(
        fusion="collaboration", objectives=objectives, vision_towers=towers, **settings
    )


def make_processor() -> MMNERProcessor:
    return MMNERProcessor(train_tokenizer([["Jordan", "posts"]], 60), labels=LABELS, image_size=64)


@pytest.mark.parametrize(
    ("objectives", "alignment"), [(ALIGNED, True), (NOT_ALIGNED, False)], ids=["aligned", "not aligned"]
)
@pytest.mark.parametrize(("make", "has_pooler"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoint_with_a_trained_pooler_gives_it_to_the_alignment(
    make, has_pooler, objectives, alignment, tmp_path: Path
):
    """If it failed, the alignment would read a pooler with random weights, or leave a trained one unread."""
    torch.manual_seed(3)
    checkpoint = make(BertConfig(**{name: value for name, value in TEXT.items() if name != "model_type"}))
    checkpoint.save_pretrained(tmp_path)
    model = build_model(make_recipe(objectives, text_encoder=str(tmp_path)), make_processor())
    expected = "pooler" if has_pooler and alignment else "mean"
    assert model.config.sentence_vector == expected
    saved = {
        name.removeprefix("bert."): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    encoder = dict(model.text_tower.encoder.named_parameters())
    assert any("pooler" in name for name in encoder) == (expected == "pooler")
    assert [name for name, parameter in encoder.items() if not torch.equal(parameter, saved[name])] == []


def test_pooler_that_a_recipe_asks_for_is_loaded_or_refused(tmp_path: Path):
    """If it failed, `sentence_vector: pooler` would be a mean, or a pooler that nothing trained."""
    torch.manual_seed(3)
    config = BertConfig(**{name: value for name, value in TEXT.items() if name != "model_type"})
    BertModel(config).save_pretrained(tmp_path / "with")
    BertForMaskedLM(config).save_pretrained(tmp_path / "without")

    def build(name: str) -> MMNERForTokenClassification:
        asked = make_recipe(NOT_ALIGNED, text_encoder=str(tmp_path / name), sentence_vector="pooler")
        return build_model(asked, make_processor())

    saved = load_file(tmp_path / "with" / "model.safetensors")
    torch.testing.assert_close(
        build("with").text_tower.encoder.pooler.dense.weight, saved["pooler.dense.weight"]
    )
    with pytest.raises(ValueError, match=r"sentence_vector: .* with a trained pooler, found none in"):
        build("without")


def test_encoder_is_loaded_once(tmp_path: Path, monkeypatch):
    """Regression: 2M-NER loaded its text encoder once to look for a pooler, and again for its weights."""
    BertModel(
        BertConfig(**{name: value for name, value in TEXT.items() if name != "model_type"})
    ).save_pretrained(tmp_path)
    load, loaded = AutoModel.from_pretrained, []
    monkeypatch.setattr(
        AutoModel, "from_pretrained", lambda name, **options: loaded.append(name) or load(name, **options)
    )
    build_model(make_recipe(ALIGNED, text_encoder=str(tmp_path)), make_processor())
    assert loaded == [str(tmp_path)]


@pytest.mark.parametrize("objectives", [ALIGNED, NOT_ALIGNED], ids=["aligned", "not aligned"])
def test_encoder_from_scratch_has_the_mean(objectives):
    """If it failed, an encoder without pretraining would be given a pooler that nothing trained."""
    settings = {name: value for name, value in TEXT.items() if name != "vocab_size"}
    model = build_model(make_recipe(objectives, text_config=settings), make_processor())
    assert model.config.sentence_vector == "mean" and not model.text_tower.has_pooler
