"""Train a multimodal NER system from a recipe: `python train_accelerate.py --recipe quickstart`.

Reads from top to bottom: corpus, processor and model, the loop over epochs with selection on the validation split, one reading of
the test split, and what is written for it. `--help` lists every setting; a recipe is nothing but settings.
"""

from modeling_mmner.recipes import Recipe, parse_arguments

if __name__ == "__main__":
    recipe = parse_arguments()  # before the imports below, which take seconds: --help and mistakes are answered at once

import json
import platform
import sys
import time
import warnings
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, broadcast_object_list, set_seed
from rich.console import Console
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_linear_schedule_with_warmup

from dataset_scripts.reader import CorpusError
from modeling_mmner.assembly import build_model, build_processor, check_model, pretrained_parts
from modeling_mmner.collator import MMNERCollator
from modeling_mmner.evaluation import Predictor, context_scores, evaluate_rows, gold_tags, picture_scores, raw_text_score
from modeling_mmner.features import PictureFeatures
from modeling_mmner.hub import save_hub_folder
from modeling_mmner.images_mmner import PICTURE_COLUMNS
from modeling_mmner.json_lines import json_line
from modeling_mmner.model_card import render_untrained_card
from modeling_mmner.reports import (
    context_worth,
    picture_worth,
    plot_confusion,
    plot_learning_curves,
    results_table,
    transfer_table,
)
from modeling_mmner.run_features import feature_folder, run_features
from modeling_mmner.run_metrics import RunMetrics, Score
from modeling_mmner.sharding import check_sharding, give_buffers, take_weights, trained_copy
from modeling_mmner.span_f1.span_f1 import SpanF1
from modeling_mmner.terms import derived_licence, terms_of
from modeling_mmner.training import (
    PostSampler,
    StepBatches,
    centres_due,
    loader_workers,
    parameter_groups,
    post_lengths,
    refresh_centres,
    resolve_precision,
    train_epoch,
    trained_state,
)
from modeling_mmner.training_corpus import TrainingCorpus, load_corpus

PACKAGES = ("mmner", "torch", "transformers", "timm", "datasets", "accelerate")
PATIENCE = timedelta(hours=2)
"""How long processes wait for another one: it may have a large corpus to build. One that dies ends the run at once."""


class RunError(ValueError):
    """A run that would fail after its training; the text says what to change."""


def main(recipe: Recipe) -> None:
    """Train as the recipe says, in as many processes as were started, and print how it went."""
    if not started_processes().is_main_process:
        keep_quiet()
    run(recipe)
    started_processes().wait_for_everyone()
    started_processes().destroy_process_group()


def started_processes() -> PartialState:
    """Those that train together, this one among them."""
    # Without being told of the CPU, Accelerate would take each process there for one by itself.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)


def keep_quiet() -> None:
    """Leave it to the main process to print, to warn and to show how far it is."""
    sys.stdout = StringIO()
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()


def run(recipe: Recipe) -> None:
    """Train one model or several, and print their scores side by side."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    if recipe.training.transfer:
        console.print(transfer_table(transfer(recipe)))
        return
    runs = {recipe.name: train(recipe)}
    if recipe.training.compare_without_pictures and recipe.corpus.use_images and recipe.model.towers:
        alone = recipe.with_settings(use_images=False, output_dir=str(Path(recipe.training.output_dir) / "without_pictures"))
        runs[f"{recipe.name}, no pictures"] = train(alone)
    console.print(results_table(runs))
    if len(runs) == 2:
        console.print(picture_worth(*runs.values()), markup=False, emoji=False, highlight=False)
    if worth := context_worth(runs[recipe.name]):
        console.print(worth, markup=False, emoji=False, highlight=False)
    print(f"Model folder, metrics, predictions and plots are in {recipe.training.output_dir}/")


def transfer(recipe: Recipe) -> dict[str, dict[str, Score]]:
    """Train on each language alone and test on each; returns, and writes to transfer.json, the scores by both."""
    if len(recipe.corpus.languages) < 2:
        raise CorpusError(f"--transfer: expected two --languages or more, found {recipe.corpus.languages}")
    scores = {}
    for language in recipe.corpus.languages:
        alone = recipe.with_settings(
            languages=[language], test_languages=recipe.corpus.languages, output_dir=f"{recipe.training.output_dir}/{language}"
        )
        scores[language] = train(alone).splits.test.by_language
    if started_processes().is_main_process:
        plain = {trained: {tested: asdict(score) for tested, score in row.items()} for trained, row in scores.items()}
        (Path(recipe.training.output_dir) / "transfer.json").write_text(json.dumps(plain, indent=2), encoding="utf-8")
    return scores


def train(recipe: Recipe) -> RunMetrics:
    """Train and test one model; returns what metrics.json holds."""
    started = time.perf_counter()
    check_run(recipe)
    started_processes()
    accelerator = Accelerator(
        mixed_precision=resolve_precision(recipe.training.mixed_precision),
        gradient_accumulation_steps=recipe.training.accumulation,
        log_with="tensorboard",
        project_dir=recipe.training.output_dir,
        dataloader_config=DataLoaderConfiguration(even_batches=False),  # no post twice
        # A batch without pictures gives a trained picture encoder no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    accelerator.init_trackers("tensorboard")
    set_seed(recipe.training.seed)
    corpus, processor, model = build(recipe, accelerator)
    sizes = {"parameters": model.num_parameters(), "trained_parameters": model.num_parameters(only_trainable=True)}
    accelerator.print(f"{recipe.name}: {sizes['parameters']:,} parameters; {corpus.summary().describe()}")
    kept = run_features(recipe, processor, model, accelerator)
    with accelerator.local_main_process_first():
        if told := kept.fill(corpus.splits):
            accelerator.print(told)
    if accelerator.num_processes > 1:
        set_seed(recipe.training.seed, device_specific=True)  # each drops other units of its posts

    history, best_state = fit(recipe, corpus, processor, model, accelerator, kept.features)
    model.load_state_dict(best_state, strict=False)  # without what is frozen
    selected = max(history, key=lambda epoch: epoch["validation_f1"])
    training_seconds = time.perf_counter() - started

    readers = recipe.training.num_workers or 0  # 0: threads
    predictor = Predictor(model, processor, accelerator, recipe.training.batch_size, readers, features=kept.features)
    splits, predicted = score_splits(recipe, corpus, predictor)
    terms = terms_of(recipe)
    metrics = RunMetrics.from_dict(
        {
            "recipe": recipe.with_settings(mixed_precision=accelerator.mixed_precision).to_dict(),
            "terms": terms,
            "license": derived_licence(row["terms"] for row in terms),
            "seed": recipe.training.seed,
            "processes": accelerator.num_processes,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "corpus": asdict(corpus.summary()),
            "model": sizes,
            "history": history,
            "selected_epoch": selected["epoch"],
            "timing": {"training_seconds": training_seconds, "total_seconds": time.perf_counter() - started},
            "splits": splits,
        }
    )
    if accelerator.is_main_process:
        kept.put_encoders_back()
        write_results(recipe, corpus, predictor, metrics, predicted)
    for tracker in accelerator.trackers:  # `end_training` would end the processes' group, too, of which there is one
        tracker.finish()
    return metrics


def build(recipe: Recipe, accelerator: Accelerator) -> tuple[TrainingCorpus, Any, Any]:
    """The corpus, the processor and the model, the same in all processes.

    Raises:
        CorpusError: as `load_corpus`, or there are fewer training posts than processes.
        RunError: the processes share the model in a way in which it cannot be trained.
    """
    try:
        check_sharding(accelerator, trains_pictures=not all(tower.frozen for tower in recipe.model.towers))
    except ValueError as error:
        raise RunError(f"recipe {recipe.name:.80}: {error}") from error
    with accelerator.local_main_process_first():  # which builds what the others find in caches
        corpus = load_corpus(recipe.corpus)
    posts = corpus.splits["train"]["tokens"]
    if len(posts) < accelerator.num_processes:
        raise CorpusError(
            f"training split: expected a post for each of {accelerator.num_processes} processes, found {len(posts)}; start fewer"
        )
    first = accelerator.is_main_process
    (processor,) = broadcast_object_list([build_processor(recipe, labels=corpus.labels, posts=posts) if first else None])
    corpus.count_contexts(processor)
    keeps_features = feature_folder(recipe.training.feature_cache) is not None
    with accelerator.local_main_process_first():
        model = build_model(recipe, processor, with_frozen=not keeps_features)
    return corpus, processor, model.to(accelerator.device)


def check_run(recipe: Recipe) -> None:
    """Check before the first step what would fail later: the parts, the card's fields and the output folder.

    Raises:
        RunError: the parts do not fit together, no card can be made of the recipe, or its output folder cannot be written.
    """
    try:
        check_model(recipe)
    except (TypeError, ValueError) as error:
        raise RunError(f"recipe {recipe.name:.80}: {error}") from error
    try:
        render_untrained_card(recipe).encode()
    except Exception as error:  # whatever it is, after training it would cost more
        raise RunError(f"recipe {recipe.name:.80}: expected settings that a card can be made of; {error}") from error
    output = Path(recipe.training.output_dir)
    try:
        for folder in (output, output / "model"):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder):
                pass
    except OSError as error:
        raise RunError(f"--output_dir {output!s:.300}: expected a folder that can be made and written, found {error}") from error


def fit(
    recipe: Recipe, corpus: TrainingCorpus, processor: Any, model: Any, accelerator: Accelerator, features: PictureFeatures | None
) -> tuple[list[Any], Any]:
    """Train for the recipe's epochs; returns the history and the trained weights of the best epoch on the validation split."""
    rows, validation = corpus.splits["train"], corpus.splits["validation"]
    batch_size, processes = recipe.training.batch_size, accelerator.num_processes
    loader: Any = training_loader(recipe, processor, rows, features, processes=processes)
    collate = loader.collate_fn
    trained = trained_copy(model, accelerator)
    groups = parameter_groups(
        trained,
        pretrained_parts(trained, recipe),
        learning_rate=recipe.training.learning_rate,
        head_learning_rate=recipe.training.head_learning_rate,
        weight_decay=recipe.training.weight_decay,
    )
    optimizer = torch.optim.AdamW(groups, fused=True)
    steps = recipe.training.epochs * -(-len(loader) // (processes * recipe.training.accumulation))
    warmup = int(recipe.training.warmup_share * steps)
    # Accelerate moves it on once a step and process.
    scheduler = get_linear_schedule_with_warmup(optimizer, warmup * processes, steps * processes)
    wrapped, optimizer, loader, scheduler = accelerator.prepare(trained, optimizer, loader, scheduler)
    readers = recipe.training.num_workers or 0  # 0: threads
    predictor = Predictor(model, processor, accelerator, batch_size, readers, features=features)
    gold = gold_tags(validation, corpus.labels)

    history: list[dict[str, float]] = []
    best_f1, best_state = -1.0, {}
    for epoch in range(1, recipe.training.epochs + 1):
        started = time.perf_counter()
        warmup, refresh = recipe.training.centre_warmup_epochs, recipe.training.centre_refresh_epochs
        if centres_due(epoch, warmup_epochs=warmup, refresh_epochs=refresh):
            refresh_centres(model, rows, collate=collate, batch_size=batch_size, accelerator=accelerator)
            give_buffers(model, trained)
        losses = train_with_progress(recipe, wrapped, loader, optimizer, scheduler, accelerator, epoch)
        take_weights(model, trained)
        predicted = predictor.tags(validation)
        scores = {
            mode: SpanF1().compute(predictions=predicted, references=gold, mode=mode)["f1"] for mode in ("lenient", "strict")
        }
        results = losses | {"validation_f1": scores["lenient"], "validation_strict_f1": scores["strict"]}
        accelerator.log(results, step=epoch)
        history.append({"epoch": epoch} | results | {"seconds": time.perf_counter() - started})
        accelerator.print(f"epoch {epoch}: loss {losses['loss']:.3f}, validation F1 {100 * scores['lenient']:.1f}")
        if scores["lenient"] > best_f1:
            best_f1 = scores["lenient"]
            best_state = trained_state(model)
    return history, best_state


def training_loader(
    recipe: Recipe, processor: Any, rows: Any, features: PictureFeatures | None, *, processes: int
) -> DataLoader[Any]:
    """The training split in batches of posts of like length, those of each step for some processes in turn."""
    sampler = PostSampler(
        post_lengths(processor, rows),
        rows["language"],
        temperature=recipe.corpus.language_temperature,
        batch_size=recipe.training.batch_size * processes,
        generator=torch.Generator().manual_seed(recipe.training.seed),
    )
    collate = MMNERCollator(processor, features=features)
    opens_pictures = collate.opens_pictures and any(column in rows.features for column in PICTURE_COLUMNS)
    workers = loader_workers(recipe.training.num_workers, opens_pictures=opens_pictures)
    return DataLoader(
        rows,
        batch_sampler=StepBatches(sampler, batch_size=recipe.training.batch_size, processes=processes),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # what it draws depends on the workers, and dropout shall not miss it
    )


def train_with_progress(
    recipe: Recipe, model: Any, loader: Any, optimizer: Any, scheduler: Any, accelerator: Accelerator, epoch: int
) -> dict[str, float]:
    """One epoch with a progress bar that shows each task's loss."""
    bar = tqdm(total=len(loader), desc=f"epoch {epoch}/{recipe.training.epochs}", disable=not accelerator.is_local_main_process)

    def report(losses: dict[str, float]) -> None:
        bar.update()
        bar.set_postfix({name.removeprefix("loss_"): f"{value:.2f}" for name, value in losses.items()}, refresh=False)

    with bar:
        return train_epoch(
            model,
            loader,
            accelerator=accelerator,
            optimizer=optimizer,
            scheduler=scheduler,
            max_grad_norm=recipe.training.max_grad_norm,
            report=report,
        )


def score_splits(recipe: Recipe, corpus: TrainingCorpus, predictor: Predictor) -> tuple[dict[str, Any], list[list[str]]]:
    """Scores of the validation and the test split, and the test split's predicted tags."""
    validation, test = corpus.splits["validation"], corpus.splits["test"]
    predicted = predictor.tags(test)
    worth = {
        "picture": picture_scores(predictor, test, predicted, seed=recipe.training.seed),
        "context": context_scores(predictor, test, predicted, seed=recipe.training.seed),
    }
    scores = {
        "validation": evaluate_rows(predictor.tags(validation), validation, corpus.labels),
        "test": evaluate_rows(predicted, test, corpus.labels)
        | {"raw_text": raw_text_score(predictor, test)}
        | {what: found["scores"] for what, found in worth.items()}
        | {"p_values": {what: found["p_values"] for what, found in worth.items()}},
    }
    return scores, predicted


def write_results(
    recipe: Recipe, corpus: TrainingCorpus, predictor: Predictor, metrics: RunMetrics, predicted: list[list[str]]
) -> None:
    """Write the model folder, metrics.json, predictions.jsonl and the plots to the output folder, dearest first."""
    output = Path(recipe.training.output_dir)
    save_hub_folder(predictor.model, predictor.processor, folder=output / "model", metrics=metrics)
    (output / "metrics.json").write_text(metrics.to_json(), encoding="utf-8")
    rows = corpus.splits["test"]
    rows = rows.remove_columns([column for column in ("ner_tags", *PICTURE_COLUMNS) if column in rows.features])
    gold = gold_tags(corpus.splits["test"], corpus.labels)
    with (output / "predictions.jsonl").open("w", encoding="utf-8") as file:
        for row, right, found in zip(rows, gold, predicted, strict=True):
            file.write(json_line(row | {"gold": right, "predicted": found}) + "\n")
    plot_learning_curves(metrics.history, output / "learning_curves.png", selected_epoch=metrics.selected_epoch)
    plot_confusion(gold, predicted, output / "confusion_matrix.png")


if __name__ == "__main__":
    try:
        record(main)(recipe)
    except (CorpusError, RunError) as error:
        raise SystemExit(f"train_accelerate.py: {error}") from None
