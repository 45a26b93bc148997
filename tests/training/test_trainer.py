"""transformers' Trainer: the same training as `train_accelerate.py`, and all that its users expect of it."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import (
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from dataset_scripts.opening import open_corpus
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.evaluation.span_f1.span_f1 import tag_score
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.optimisation import centres_due, parameter_groups, refresh_centres, train_batches
from modeling_mmner.training.trainer import EntityCentreCallback, span_f1, with_lengths
from modeling_mmner.training.vocabulary import make_word_tokenizer, train_tokenizer, word_vocabulary
from tests.tiny import tiny_model

SETTINGS = {"learning_rate": 1e-3, "head_learning_rate": 3e-3, "weight_decay": 0.01}
EPOCHS, BATCH, WARMUP_STEPS = 4, 4, 2
SEQUENTIAL = {"train_sampling_strategy": "sequential"}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def posts() -> Any:
    """Twelve posts of the sample corpus for training and as many for evaluation."""
    splits = open_corpus("sample").splits
    return {name: splits[name].select(range(12)) for name in ("train", "validation")}


@pytest.fixture(scope="module")
def processor(posts) -> MMNERProcessor:
    labels = posts["train"].features["ner_tags"].feature.names
    return MMNERProcessor(train_tokenizer(posts["train"]["tokens"], 300), labels=labels, image_size=64)


def new_model(
    processor: MMNERProcessor, *, dropout: bool = False, **settings: Any
) -> MMNERForTokenClassification:
    text = {"vocab_size": len(processor.tokenizer)} | ({} if dropout else NO_DROPOUT)
    labels = dict(enumerate(processor.labels))
    return tiny_model(text=text, id2label=labels, dropout=0.1 if dropout else 0.0, **settings)


def optimizer_for(model: MMNERForTokenClassification) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameter_groups(model, [model.text_tower.encoder], **SETTINGS))


def make_trainer(model, processor, posts, folder: Path, *, centres: bool = True, **options: Any) -> Trainer:
    settings: dict[str, Any] = {
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": BATCH,
        "warmup_steps": WARMUP_STEPS,
        "remove_unused_columns": False,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(str(folder), **settings | options),
        train_dataset=posts["train"],
        eval_dataset=posts["validation"],
        data_collator=MMNERCollator(processor),
        compute_metrics=span_f1(processor.labels),
        processing_class=processor,
        callbacks=[EntityCentreCallback(warmup_epochs=1, refresh_epochs=2)] if centres else [],
        optimizers=(optimizer_for(model), None),
    )


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module, tolerance: float = 0.0) -> None:
    for (name, tensor), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.allclose(tensor.float(), expected.float(), rtol=0, atol=tolerance), f"{name} differs"


def train_by_our_loop(
    model: MMNERForTokenClassification, processor: MMNERProcessor, posts: Any
) -> list[float]:
    """What `train_accelerate.py` does, with the posts in their order; returns the loss of each step."""
    accelerator = Accelerator(cpu=True)
    collate = MMNERCollator(processor)
    loader = DataLoader(posts["train"], batch_size=BATCH, collate_fn=collate)
    optimizer = optimizer_for(model)
    scheduler = get_linear_schedule_with_warmup(optimizer, WARMUP_STEPS, EPOCHS * len(loader))
    wrapped, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    losses: list[float] = []
    for epoch in range(1, EPOCHS + 1):
        if centres_due(epoch, warmup_epochs=1, refresh_epochs=2):
            refresh_centres(model, posts["train"], collate=collate, batch_size=BATCH, accelerator=accelerator)
        made = {"accelerator": accelerator, "optimizer": optimizer, "scheduler": scheduler}
        losses += [parts["loss"] for parts in train_batches(wrapped, loader, **made, max_grad_norm=1.0)]
    return losses


def logged_losses(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["cross-modal", "collaboration"])
def test_trainer_and_script_train_alike(posts, processor, tmp_path: Path, fusion: str) -> None:
    """If it failed, the Trainer would have another loss, schedule, clipping or centres than the script."""
    ours, theirs = new_model(processor, fusion=fusion), new_model(processor, fusion=fusion)
    losses = train_by_our_loop(ours, processor, posts)
    trainer = make_trainer(theirs, processor, posts, tmp_path, **SEQUENTIAL)
    trainer.train()
    assert logged_losses(trainer) == pytest.approx(losses, rel=1e-5)
    assert losses[-1] < 0.8 * losses[0]
    assert_same_weights(ours, theirs, tolerance=1e-5)
    if fusion == "cross-modal":
        assert theirs.objectives["clustering"].has_centre.any()  # the callback's work


@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch(posts, processor, tmp_path: Path) -> None:
    """If it failed, the loss would be scaled by the number of accumulated batches."""
    objectives = {"crf": 1.0, "boundary": 0.4}  # means over texts; contrast and clusters are of one batch
    trainers = []
    for options in ({}, {"per_device_train_batch_size": BATCH // 2, "gradient_accumulation_steps": 2}):
        model = new_model(processor, objectives=objectives)
        trainers.append(make_trainer(model, processor, posts, tmp_path, **SEQUENTIAL, **options))
        trainers[-1].train()
    # Not the weights: Adam makes a full step of the rounding errors in a gradient that should be 0.
    assert logged_losses(trainers[1]) == pytest.approx(logged_losses(trainers[0]), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("save_steps", [6, 4])
def test_resumed_run_is_one_never_interrupted(posts, processor, tmp_path: Path, save_steps: int) -> None:
    """If it failed, resuming would change dropout, the order of posts, or the entity centres."""
    options = {"save_strategy": "steps", "save_steps": save_steps, "seed": 3}
    through, resumed = (new_model(processor, dropout=True) for _ in range(2))
    first = make_trainer(through, processor, posts, tmp_path / "through", **options)
    first.train()
    second = make_trainer(resumed, processor, posts, tmp_path / "resumed", **options)
    second.train(resume_from_checkpoint=str(tmp_path / "through" / f"checkpoint-{save_steps}"))
    assert second.state.global_step == first.state.global_step == 12
    assert_same_weights(through, resumed)


def test_the_pass_for_the_centres_draws_no_random_numbers(posts, processor, tmp_path: Path) -> None:
    """If it failed, a run with centres would have another dropout and order of posts than one without."""
    model = new_model(processor)
    trainer = make_trainer(model, processor, posts, tmp_path)
    before = torch.get_rng_state()
    given = {"model": model, "train_dataloader": trainer.get_train_dataloader()}
    state = TrainerState(epoch=0.0)
    EntityCentreCallback(warmup_epochs=0).on_epoch_begin(trainer.args, state, TrainerControl(), **given)
    assert model.objectives["clustering"].has_centre.any()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_posts_are_grouped_by_length(posts, processor, tmp_path: Path) -> None:
    """Regression: train_sampling_strategy="group_by_length" looked for input_ids in the rows and stopped."""
    rows = {name: with_lengths(part, processor) for name, part in posts.items()}
    inputs = [processor([tokens])["input_ids"] for tokens in posts["train"]["tokens"]]
    assert list(rows["train"]["length"]) == [windows.numel() for windows in inputs]
    options = {"train_sampling_strategy": "group_by_length", "num_train_epochs": 1}
    trainer = make_trainer(new_model(processor), processor, rows, tmp_path, **options)
    batches = [batch["attention_mask"].sum((1, 2)).tolist() for batch in trainer.get_train_dataloader()]
    lengths = sorted(rows["train"]["length"])
    assert sorted(chain(*batches)) == lengths
    assert sum(max(batch) * len(batch) for batch in batches) < len(lengths) * lengths[-1]
    trainer.train()
    with pytest.raises(ValueError, match="input_ids"):
        make_trainer(new_model(processor), processor, posts, tmp_path, **options).train()


@pytest.mark.slow
def test_best_checkpoint_is_loaded_at_the_end(posts, processor, tmp_path: Path) -> None:
    """If it failed, the last epoch's weights or centres would pass for the best one's."""
    model = new_model(processor)
    each_epoch = {"save_strategy": "epoch", "eval_strategy": "epoch", "metric_for_best_model": "f1"}
    trainer = make_trainer(model, processor, posts, tmp_path, **each_epoch, load_best_model_at_end=True)
    trainer.train()
    f1 = [entry["eval_f1"] for entry in trainer.state.log_history if "eval_f1" in entry]
    assert trainer.state.best_metric == max(f1)
    assert len(f1) == EPOCHS
    folder = Path(trainer.state.best_model_checkpoint)
    package = Path(__file__).parents[2] / "modeling_mmner" / "model"
    # A checkpoint is a whole model folder, which loads from the Hub by itself.
    assert {path.name for path in folder.glob("*.py")} == {path.name for path in package.glob("*_mmner.py")}
    assert MMNERProcessor.from_pretrained(folder).labels == processor.labels
    best = MMNERForTokenClassification.from_pretrained(folder)
    assert_same_weights(model, best)
    assert trainer.evaluate()["eval_f1"] == pytest.approx(max(f1))


def test_evaluation_gives_the_processors_entities(posts, processor, tmp_path: Path) -> None:
    """If it failed, padding between batches of other lengths would enter the score."""
    model = new_model(processor)
    rows = posts["validation"]
    predicted = []
    for row in rows:
        with torch.no_grad():
            predicted.append(model(**processor([row["tokens"]], images=[row["image"]])).tags[0].tolist())
    # Half of the posts say what the model says, so that an untrained model has a score.
    pairs = enumerate(zip(predicted, rows["ner_tags"], strict=True))
    tags = [found if index % 2 else right for index, (found, right) in pairs]
    rows = rows.remove_columns("ner_tags").add_column("ner_tags", tags)
    rows = posts | {"validation": rows}
    trainer = make_trainer(model, processor, rows, tmp_path, per_device_eval_batch_size=5)
    scores = trainer.evaluate()
    gold, found = ([[processor.labels[tag] for tag in row] for row in part] for part in (tags, predicted))
    expected = tag_score(gold, found)
    assert 0 < expected["f1"] < 1
    for name in ("precision", "recall", "f1"):
        assert scores[f"eval_{name}"] == pytest.approx(expected[name])
    assert scores["eval_strict_f1"] == pytest.approx(tag_score(gold, found, strict=True)["f1"])


@pytest.mark.parametrize("how", ["label_smoothing_factor", "compute_loss_func"])
def test_what_would_replace_the_crf_loss_is_refused(posts, processor, tmp_path: Path, how: str) -> None:
    """If it failed, the Trainer would train with cross-entropy over words, and nobody would notice."""
    options = {how: 0.1} if how == "label_smoothing_factor" else {}
    trainer = make_trainer(new_model(processor), processor, posts, tmp_path, **options)
    if how == "compute_loss_func":
        trainer.compute_loss_func = lambda outputs, labels, num_items_in_batch: outputs.logits.sum()
    with pytest.raises(ValueError, match=f"expected labels .* in training, found none.*{how}"):
        trainer.train()


@pytest.mark.slow
def test_model_of_words_trains_and_is_saved_whole(posts, tmp_path: Path) -> None:
    """If it failed, the Trainer's users could not train a system of words, or its characters get lost."""
    labels = posts["train"].features["ner_tags"].feature.names
    tokenizer = make_word_tokenizer(posts["train"]["tokens"], size=200)
    processor = MMNERProcessor(tokenizer, labels=labels, image_size=64, word_bytes=12)
    settings = {"word_vocabulary": word_vocabulary(tokenizer), "id2label": dict(enumerate(labels))}
    model = tiny_model(text_tower="hbilstm", fusion="gvatt", dropout=0.0, **settings)
    trainer = make_trainer(model, processor, posts, tmp_path, centres=False, save_strategy="epoch")
    trainer.train()
    losses = logged_losses(trainer)
    assert losses[-1] < 0.9 * losses[0]
    checkpoint = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    again = MMNERForTokenClassification.from_pretrained(checkpoint).eval()
    read = MMNERProcessor.from_pretrained(checkpoint)
    inputs = read([list(posts["train"][0]["tokens"])])
    torch.testing.assert_close(again(**inputs).logits, model.eval()(**inputs).logits, atol=1e-6, rtol=1e-6)
