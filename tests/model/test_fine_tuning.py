"""Fine-tuning as users of transformers know it: other labels, gradient checkpointing, half precision,
adapters of PEFT.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoProcessor, Trainer, TrainingArguments

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.crf_mmner import CRF
from modeling_mmner.model.labels_mmner import bio_labels
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.optimisation import refresh_centres
from modeling_mmner.training.trainer import EntityCentreCallback, span_f1
from modeling_mmner.training.vocabulary import train_tokenizer
from tests.elsewhere import run_elsewhere
from tests.tiny import LABELS, SYSTEMS, close, ready_model, set_random_centres, tiny_batch, tiny_model
from tests.tuning import differing, step, train, with_labels

TEXT_ONLY: dict[str, Any] = {"fusion": "text-only", "objectives": {"crf": 1.0, "boundary": 0.4}}
MODELS = SYSTEMS | {"text-only": TEXT_ONLY}
WORDS = ["Ibuprofen", "helps", "against", "headache", "and", "fever", "says", "Anna"]
NEW = bio_labels(["DRUG", "DISEASE"])  # as many as before
OTHERS = {
    "other names": NEW,
    "more": bio_labels(["DRUG", "DISEASE", "PER"]),
    "fewer": bio_labels(["LOC"]),
    "another order": bio_labels(["LOC", "PER"]),
}
LABEL_LAYERS = (
    "heads.crf.classifier.",
    "heads.crf.crf.",
    "heads.boundary.classifier.",
    "heads.boundary.crf.",
    "objectives.clustering.",
)
TOWERS = ("text_tower.", "vision_towers.")
# What an adapter saves beside LoRA's matrices; a name stands for every module whose path ends in it.
HEADS = ["fusion", "heads.crf", "heads.boundary", "clustering", "alignment"]
# With TOKEN_CLS PEFT adds the classifiers, and no module may stand inside another of the list.
LEAVES = ["fusion", "heads.crf.crf", "heads.boundary.crf", "heads.boundary.text_layer", "clustering"]

each_model = pytest.mark.parametrize("name", MODELS)
each_encoder = pytest.mark.parametrize("name", [name for name in MODELS if "text_tower" not in MODELS[name]])


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    """A saved model of each kind, whose tags vary from word to word, with a processor."""
    folders = {}
    for name, settings in MODELS.items():
        model, batch = ready_model(**settings), tiny_batch((9, 8, 7), (1, 0, 2))
        with torch.no_grad():
            mean = model(**batch).logits[batch["word_mask"]].mean(0)
            model.heads["crf"].classifier.bias.sub_(mean).mul_(10)
            model.heads["crf"].classifier.weight.mul_(10)
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
        processor = MMNERProcessor(train_tokenizer([WORDS], 100), labels=LABELS, image_size=64)
        processor.save_pretrained(folders[name])
    return folders


# Other labels


@pytest.mark.parametrize(
    ("name", "labels"), [(name, NEW) for name in MODELS] + [("mlmner", labels) for labels in OTHERS.values()]
)
def test_other_labels_make_the_label_layers_anew_and_nothing_else(saved, name, labels, caplog):
    """If it failed, what another tag set has learned would stay or what the towers have learned would go."""
    model = with_labels(saved[name], labels)
    state = model.state_dict()
    changed = differing(state, load_file(saved[name] / "model.safetensors"))
    assert changed == {name for name in state if name.startswith(LABEL_LAYERS)}
    assert model.config.labels == labels
    assert model.config.label2id == {label: index for index, label in enumerate(labels)}
    assert f"made classifiers, CRFs and entity centres anew, to be trained on {labels}" in caplog.text
    classifiers = [module for path, module in model.named_modules() if path.endswith("classifier")]
    crfs = [module for module in model.modules() if isinstance(module, CRF)]
    assert len(classifiers) == len(crfs) == len(model.heads)
    assert model.heads["crf"].classifier.out_features == model.crf.num_tags == len(labels)
    for classifier in classifiers:
        assert classifier.weight.std().item() == pytest.approx((3 * classifier.in_features) ** -0.5, rel=0.3)
        assert not classifier.bias.any()
    assert all(0 < parameter.abs().max() <= 0.1 for crf in crfs for parameter in crf.parameters())


@each_model
def test_same_labels_change_nothing(saved, name, caplog):
    """If it failed, a user who always passes the labels would lose the trained tagger."""
    model = with_labels(saved[name], LABELS)
    assert differing(model.state_dict(), load_file(saved[name] / "model.safetensors")) == set()
    assert "anew" not in caplog.text


LEAVE = {"ignore_mismatched_sizes": True}
WAYS: dict[str, Callable[[Path, dict[int, str]], Any]] = {
    "the class": lambda folder, names: MMNERForTokenClassification.from_pretrained(
        folder, id2label=names, **LEAVE
    ),
    "with loading info": lambda folder, names: AutoModel.from_pretrained(
        folder, id2label=names, output_loading_info=True, **LEAVE
    )[0],
    "config": lambda folder, names: AutoModel.from_pretrained(
        folder, config=AutoConfig.from_pretrained(folder, id2label=names), **LEAVE
    ),
    "label2id alone": lambda folder, names: AutoModel.from_pretrained(
        folder, label2id={label: index for index, label in names.items()}, **LEAVE
    ),
    "keys as in JSON": lambda folder, names: AutoModel.from_pretrained(
        folder, id2label={str(index): label for index, label in names.items()}, **LEAVE
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_ways_to_give_labels_agree_and_the_seed_decides(saved, way):
    """If it failed, one way would load other labels or weights than another."""
    labels = OTHERS["more"]
    torch.manual_seed(7)
    expected = with_labels(saved["mlmner"], labels)
    other = with_labels(saved["mlmner"], labels)
    torch.manual_seed(7)
    found = way(saved["mlmner"], dict(enumerate(labels)))
    assert differing(found.state_dict(), expected.state_dict()) == set()
    assert found.config.labels == labels and found.config.label2id == expected.config.label2id
    assert not torch.equal(other.heads["crf"].classifier.weight, expected.heads["crf"].classifier.weight)


def test_without_leave_labels_are_renamed_where_they_fit(saved):
    """If it failed, transformers' usual renaming would lose the weights."""
    renamed = AutoModel.from_pretrained(saved["mlmner"], id2label=dict(enumerate(NEW)))
    assert differing(renamed.state_dict(), load_file(saved["mlmner"] / "model.safetensors")) == set()
    assert renamed.config.labels == NEW
    with pytest.raises(RuntimeError, match="`ignore_mismatched_sizes` to `False`"):
        AutoModel.from_pretrained(saved["mlmner"], id2label=dict(enumerate(OTHERS["more"])))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no O": ({"id2label": {0: "B-A", 1: "I-A"}}, "expected 'O' among them"),
    "I without B": ({"id2label": {0: "O", 1: "I-A"}}, "'I-A' has no 'B-A'"),
    "label2id": ({"label2id": {"O": 0, "I-A": 1}}, "'I-A' has no 'B-A'"),
    "a gap": ({"id2label": {0: "O", 2: "B-A"}}, r"expected the ids 0\.\.1, found \[0, 2\]"),
    "number alone": ({"num_labels": 3}, "expected 'O' among them, found .*LABEL_0"),
    "objective": ({"objectives": {"crf": 1.0, "nerf": 1.0}}, "expected names among .* found 'nerf'"),
    "dropout": ({"dropout": 1.5}, r"dropout: expected a share >= 0 and < 1, found 1.5"),
}


@pytest.mark.parametrize("loader", [AutoModel, MMNERForTokenClassification, AutoConfig])
@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_overrides_of_a_saved_config_are_checked(saved, loader, change, message):
    """Regression: transformers sets overrides where nothing checks them: a dropout of 1.5 came through."""
    leave = {} if loader is AutoConfig else {"ignore_mismatched_sizes": True}
    with pytest.raises(ValueError, match=message):
        loader.from_pretrained(saved["mlmner"], **change, **leave)


def test_overrides_of_a_saved_config_are_filled_in(saved):
    """Regression: a tower given by its name alone stayed without size and normalisation."""
    config = AutoConfig.from_pretrained(
        saved["mlmner"], vision_towers=[{"backbone": "resnet18"}], text_config={"num_labels": 7}
    )
    assert config.vision_towers[0]["image_size"] == 224 and len(config.vision_towers[0]["mean"]) == 3
    assert config.text_config.hidden_size == 32 and config.text_config.num_labels == 7


def test_weights_in_memory_load_with_leave_to_mismatch(saved):
    """Regression: looking for the saved labels of weights in memory asked the Hub for 'None'."""
    model = MMNERForTokenClassification.from_pretrained(saved["mlmner"])
    again = MMNERForTokenClassification.from_pretrained(
        None, config=model.config, state_dict=model.state_dict(), ignore_mismatched_sizes=True
    )
    assert differing(again.state_dict(), model.state_dict()) == set()


@pytest.mark.parametrize("loader", [AutoProcessor, MMNERProcessor])
def test_processor_takes_the_new_labels(saved, loader, tmp_path):
    """Regression: AutoProcessor.from_pretrained(..., labels=...) stopped: the tokenizer took them."""
    old = AutoProcessor.from_pretrained(saved["mlmner"])
    processor = loader.from_pretrained(saved["mlmner"], labels=NEW, use_fast=True)
    kept = [(one.image_size, one.word_rule) for one in (processor, old)]
    assert processor.labels == NEW and kept[0] == kept[1]
    ours, theirs = processor(" ".join(WORDS)), old(" ".join(WORDS))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    processor.save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).labels == NEW
    assert loader.from_pretrained(saved["mlmner"], image_size=32).image_size == 32
    with pytest.raises(ValueError, match="'I-A' has no 'B-A'"):
        loader.from_pretrained(saved["mlmner"], labels=["O", "I-A"])


@pytest.mark.slow
@each_model
def test_model_learns_its_new_labels_and_keeps_them(saved, name, tmp_path):
    """If it failed, the new layers would not be trained or old centres would pull."""
    torch.manual_seed(0)
    model, batch = with_labels(saved[name], NEW), tiny_batch()
    clusters = "clustering" in model.objectives
    assert not clusters or model(**batch).losses["clustering"] == 0
    losses = train(model, batch, steps=12, rate=3e-3 if model.config.text_config is not None else 3e-2)
    assert losses[-1] < losses[0] / 2
    refresh_centres(
        model, [batch], collate=lambda rows: rows[0], batch_size=1, accelerator=Accelerator(cpu=True)
    )
    assert not clusters or model(**batch).losses["clustering"] != 0
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert again.config.labels == NEW and differing(again.state_dict(), model.state_dict()) == set()


ELSEWHERE = """
import sys, torch
from transformers import AutoModelForTokenClassification, AutoProcessor
source, labels, words = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
options = {"trust_remote_code": True}
processor = AutoProcessor.from_pretrained(source, labels=labels, **options)
model = AutoModelForTokenClassification.from_pretrained(
    source, id2label=dict(enumerate(labels)), ignore_mismatched_sizes=True, **options
)
model.activation_checkpointing_enable()
batch = processor([words], labels=[["B-DRUG", "O", "O", "B-DISEASE", "O", "B-DISEASE", "O", "O"]])
optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
before = model(**batch).loss
before.backward()
optimizer.step()
assert model.eval()(**batch).loss < before
model.save_pretrained("tuned")
processor.save_pretrained("tuned")
torch.save(model(**batch).logits, "logits.pt")
"""


@pytest.mark.slow
def test_fine_tunes_without_the_package(saved, tmp_path):
    """If it failed, only those who install the package could fine-tune a model of the Hub."""
    run_elsewhere(ELSEWHERE, saved["mlmner"], " ".join(NEW), " ".join(WORDS), folder=tmp_path)
    model, processor = (loader.from_pretrained(tmp_path / "tuned") for loader in (AutoModel, AutoProcessor))
    assert model.config.labels == processor.labels == NEW
    close(model(**processor([WORDS])).logits, torch.load(tmp_path / "logits.pt"))


def test_a_model_on_several_devices_is_refused(saved, tmp_path):
    """Regression: a part on the disk or another device failed in the middle of a batch, by torch's text."""
    placed = dict.fromkeys(("text_tower", "vision_towers", "heads", "objectives"), "cpu") | {"fusion": "disk"}
    with pytest.raises(ValueError, match=r"expected the whole model on one device, found \['cpu', 'disk'\]"):
        MMNERForTokenClassification.from_pretrained(
            saved["mlmner"], device_map=placed, offload_folder=str(tmp_path)
        )
    assert MMNERForTokenClassification.from_pretrained(saved["mlmner"], device_map="cpu").device.type == "cpu"


def test_training_without_labels_is_refused():
    """If it failed, label smoothing would train with cross-entropy in the CRF's place."""
    model, batch = tiny_model(dropout=0.5), tiny_batch()
    labels = batch.pop("labels")
    assert model(**batch).tags.shape == labels.shape
    model.train()
    with pytest.raises(ValueError, match=r"expected labels \(B, W\) in training, found"):
        model(**batch)
    with torch.no_grad():
        assert not torch.equal(model(**batch).logits, model(**batch).logits)


# Half precision


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [("mlmner", "float16", 0.02)] + [(name, torch.bfloat16, 0.1) for name in MODELS],
)
def test_half_precision_finds_nearly_the_same_entities(saved, name, dtype, tolerance, tmp_path):
    """If it failed, half precision would spoil the CRFs, find other entities, or not survive saving."""
    batch = tiny_batch((9, 8, 7, 12, 3), (1, 0, 2, 0, 1))
    precise, half = (AutoModel.from_pretrained(saved[name], dtype=one) for one in ("auto", dtype))
    assert precise.dtype == torch.float32 and str(half.dtype).endswith(str(dtype).removeprefix("torch."))
    with torch.no_grad():
        expected, found = precise(**batch), half(**batch)
    assert expected.span_scores.gt(0).sum() >= 3
    same = found.tags == expected.tags
    assert same[batch["word_mask"]].float().mean() > 0.9
    # Posts with the same entities: a score is that of a whole entity, whose end may have moved.
    alike = same.all(1)
    assert alike.any()
    torch.testing.assert_close(found.span_scores[alike], expected.span_scores[alike], atol=tolerance, rtol=0)
    parameters = half.named_parameters()
    crfs = [one for path, one in parameters if ".crf." in path.removeprefix("heads.crf")]
    assert crfs and all(parameter.dtype == torch.float32 for parameter in crfs)
    half.save_pretrained(tmp_path)
    for again in (AutoModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path, dtype="auto")):
        assert again.dtype == half.dtype and differing(again.state_dict(), half.state_dict()) == set()
        assert torch.equal(again(**batch).logits, found.logits)


@each_encoder
def test_bfloat16_learns_other_labels(saved, name):
    """If it failed, fresh layers would be of another type than the rest."""
    torch.manual_seed(0)
    model = with_labels(saved[name], NEW, dtype=torch.bfloat16)
    assert model.heads["crf"].classifier.weight.dtype == torch.bfloat16
    losses = train(model, tiny_batch(), steps=6)
    assert losses[-1] < 0.7 * losses[0]
    assert model.crf.transitions.dtype == torch.float32


# Adapters


def with_lora(model: nn.Module, modules_to_save: list[str] = HEADS, **options: Any) -> PeftModel:
    """LoRA on the text tower's attention; the heads are trained and saved whole."""
    target = r"text_tower\..*\.(query|value)"
    options |= {"target_modules": target, "modules_to_save": list(modules_to_save)}
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, **options))


def tuned_with_lora(folder: Path) -> PeftModel:
    """A saved model tuned to other labels for a few steps, with centres where it has some, in evaluation
    mode.
    """
    torch.manual_seed(0)
    tuned = with_lora(with_labels(folder, NEW))
    train(tuned, tiny_batch(), steps=3)
    if "clustering" in tuned.objectives:
        set_random_centres(tuned)
    return tuned.eval()


def assert_same_output(found: Any, expected: Any, *, tolerance: float = 0.0) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        close(found[name], expected[name], tolerance=tolerance)


@pytest.mark.slow
@each_encoder
def test_lora_trains_the_adapters_and_all_heads(saved, name):
    """If it failed, a head would stay random (PEFT freezes one inside a listed part)."""
    torch.manual_seed(0)
    base = with_labels(saved[name], NEW)
    heads = {path for path, _ in base.named_parameters() if not path.startswith(TOWERS)}
    model = with_lora(base)
    trained = {
        path.removeprefix("base_model.model.")
        for path, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    adapters = {path for path in trained if ".lora_" in path}
    assert {path.replace("modules_to_save.default.", "") for path in trained - adapters} == heads
    assert adapters and all(path.startswith("text_tower.") for path in adapters)
    before = {path: tensor.clone() for path, tensor in base.state_dict().items() if path not in trained}
    losses = train(model, tiny_batch(), steps=12, rate=1e-2)
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    assert differing({path: base.state_dict()[path] for path in before}, before) == set()


@pytest.mark.slow
@each_encoder
def test_adapter_gives_the_tuned_model_back(saved, name, tmp_path):
    """If it failed, an adapter's folder would lack heads or centres, which fresh layers once overwrote."""
    tuned, batch = tuned_with_lora(saved[name]), tiny_batch()
    tuned.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(with_labels(saved[name], NEW), tmp_path / "adapter").eval()
    assert_same_output(again(**batch), tuned(**batch))
    assert_same_output(with_labels(tmp_path / "adapter", NEW)(**batch), tuned(**batch))
    merged = tuned.merge_and_unload()
    assert type(merged) is MMNERForTokenClassification
    assert_same_output(merged(**batch), again(**batch), tolerance=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModel.from_pretrained(tmp_path / "merged")
    assert plain.config.labels == NEW and differing(plain.state_dict(), merged.state_dict()) == set()
    assert plain.state_dict().keys() == load_file(saved[name] / "model.safetensors").keys()


@pytest.mark.parametrize("name", ["mlmner", "text-only"])
@pytest.mark.parametrize("task", ["TOKEN_CLS", "FEATURE_EXTRACTION"])
def test_task_types_of_peft_train_and_come_back(saved, name, task, tmp_path):
    """Regression: with a task type PEFT passes inputs_embeds, which stopped the first step."""
    torch.manual_seed(0)
    batch, base = tiny_batch(), with_labels(saved[name], NEW)
    heads = {path for path, _ in base.named_parameters() if not path.startswith(TOWERS)}
    tuned = with_lora(base, LEAVES if task == "TOKEN_CLS" else HEADS, task_type=task)
    whole = {path for path, one in tuned.named_parameters() if one.requires_grad and ".lora_" not in path}
    prefix, wrapper = "base_model.model.", "modules_to_save.default."
    assert {path.removeprefix(prefix).replace(wrapper, "") for path in whole} == heads
    losses = train(tuned, batch, steps=4, rate=1e-2)
    assert losses[-1] < losses[0]
    tuned.eval().save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(with_labels(saved[name], NEW), tmp_path).eval()
    assert_same_output(again(**batch), tuned(**batch))


@pytest.mark.parametrize("given", [{"inputs_embeds": torch.zeros(1, 2, 3)}, {"output_attentions": True}])
def test_what_no_task_type_may_ask_is_refused(given):
    """If it failed, vectors in the place of sub-tokens, or hidden states, would be ignored without a word."""
    with pytest.raises(ValueError, match="expected no inputs_embeds, output_attentions or output_hidden"):
        tiny_model()(**tiny_batch(), **given)


def test_picture_encoder_stands_still_under_an_adapter():
    """If it failed, batch-norm, which no adapter saves, would move in training."""
    model = tiny_model(tower={"frozen": False})
    (tower,) = model.vision_towers
    before = copy.deepcopy(tower.state_dict())
    adapted = copy.deepcopy(model)
    train(with_lora(adapted), tiny_batch(), steps=2)
    assert differing(adapted.vision_towers[0].state_dict(), before) == set()
    train(model, tiny_batch(), steps=2)
    assert any("running_mean" in path for path in differing(tower.state_dict(), before))


@each_encoder
def test_adapter_trains_alike_with_checkpointing(saved, name):
    """If it failed, LoRA with gradient checkpointing would train nothing."""
    plain, batch = tuned_with_lora(saved[name]).train(), tiny_batch()
    model = copy.deepcopy(plain)
    model.activation_checkpointing_enable()
    (loss, gradients, kept), (expected, others, most) = step(model, batch), step(plain, batch)
    assert torch.equal(loss, expected) and differing(gradients, others) == set() and kept < most
    assert any(".lora_A." in path and gradient.any() for path, gradient in gradients.items())


@pytest.mark.slow
def test_trainer_tunes_an_adapter_with_centres(saved, tmp_path):
    """If it failed, the callback would not find the objectives inside PEFT's wrapper."""
    torch.manual_seed(0)
    model = with_lora(with_labels(saved["mlmner"], NEW))
    processor = AutoProcessor.from_pretrained(saved["mlmner"], labels=NEW)
    rows = [{"tokens": WORDS, "ner_tags": [1, 0, 0, 3, 0, 3, 0, 0], "image": Image.new("RGB", (64, 64))}] * 4
    arguments = TrainingArguments(
        str(tmp_path),
        num_train_epochs=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        activation_checkpointing=True,
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        metric_for_best_model="f1",
        load_best_model_at_end=True,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=MMNERCollator(processor),
        compute_metrics=span_f1(NEW),
        processing_class=processor,
        callbacks=[EntityCentreCallback(warmup_epochs=0, refresh_epochs=1)],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] and "eval_f1" in trainer.evaluate()
    clustering = model.objectives["clustering"]
    assert clustering.has_centre.all() and not clustering.original_module.has_centre.any()
    best = PeftModel.from_pretrained(
        with_labels(saved["mlmner"], NEW), trainer.state.best_model_checkpoint
    ).eval()
    batch = MMNERCollator(processor)(rows)
    found = best(**batch)
    assert found.losses["clustering"] != 0
    assert_same_output(found, model.eval()(**batch))
