"""2M-NER at the size of its recipe, with random weights: nothing is downloaded."""

import pytest
import torch

from modeling_mmner import MMNERConfig, MMNERForTokenClassification
from modeling_mmner.training.optimisation import parameter_groups

VOCABULARY = 119547  # of bert-base-multilingual-cased


@pytest.mark.slow
def test_2m_ner_of_real_size_trains_a_step() -> None:
    """If it failed, multilingual BERT with CLIP's ViT and ResNet-152 would not train."""
    torch.manual_seed(0)
    text = {"model_type": "bert", "vocab_size": VOCABULARY}
    model = MMNERForTokenClassification(
        MMNERConfig(fusion="collaboration", text_config=text, sentence_vector="pooler")
    ).train()
    before = {name: tensor.clone() for name, tensor in model.vision_towers.state_dict().items()}
    batch = {
        "input_ids": torch.randint(5, VOCABULARY, (2, 12)),
        "attention_mask": torch.ones(2, 12, dtype=torch.long),
        "word_starts": torch.arange(1, 11).expand(2, -1),
        "word_mask": torch.ones(2, 10, dtype=torch.bool),
        "pixel_values": torch.randint(0, 256, (2, 1, 3, 224, 224), dtype=torch.uint8),
        "labels": torch.randint(0, 9, (2, 10)),
    }
    groups = parameter_groups(model, [], learning_rate=5e-5, head_learning_rate=5e-5, weight_decay=0.0)
    optimizer = torch.optim.AdamW(groups, fused=True)
    first = model(**batch)
    first.loss.backward()
    optimizer.step()
    assert first.loss.isfinite() and first.losses["alignment"] > 0
    torch.testing.assert_close(first.loss, 1.6 * first.losses["crf"] + 0.4 * first.losses["alignment"])
    same = {
        name for name, tensor in model.vision_towers.state_dict().items() if torch.equal(tensor, before[name])
    }
    assert {name for name in before if name.startswith("1.")} <= same
    assert {name for name in same if name.startswith("0.")} == {"0.mean", "0.std"}
