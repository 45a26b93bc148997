"""Train a multimodal NER system from a recipe: `python train_accelerate.py --recipe quickstart`.

Reads from top to bottom: corpus, processor and model, the loop over epochs with selection on the validation
split, one reading of the test split, and what is written for it. `--help` lists every setting; a recipe is
nothing but settings.
"""

from modeling_mmner.training.recipe_options import parse_arguments
from modeling_mmner.training.recipes import PACE, Recipe, differences, flat_settings

if __name__ == "__main__":
    recipe = (
        parse_arguments()
    )  # before the imports below, which take seconds: --help and mistakes are answered at once

import json
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    broadcast_object_list,
    set_seed,
)
from rich.console import Console
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_linear_schedule_with_warmup

from dataset_scripts.formats.reader import CorpusError
from modeling_mmner.escaping import one_line
from modeling_mmner.evaluation.metrics import RunMetrics, Score
from modeling_mmner.evaluation.reports import (
    context_worth,
    picture_worth,
    plot_confusion,
    plot_learning_curves,
    results_table,
    transfer_table,
)
from modeling_mmner.evaluation.scores import (
    Predictor,
    context_scores,
    evaluate_rows,
    gold_tags,
    picture_scores,
    raw_text_score,
)
from modeling_mmner.evaluation.span_f1.span_f1 import SpanF1
from modeling_mmner.files import json_line, write_text, write_whole
from modeling_mmner.hub.push import save_hub_folder
from modeling_mmner.model.images_mmner import is_picture_column
from modeling_mmner.training.assembly import build_model, build_processor, check_model, pretrained_parts
from modeling_mmner.training.checkpoints import AUTO, NEVER, Checkpoints, run_settings
from modeling_mmner.training.collator import LaidOutRows, MMNERCollator
from modeling_mmner.training.corpus import TrainingCorpus, load_corpus
from modeling_mmner.training.features import feature_folder, run_features
from modeling_mmner.training.processes import started_processes
from modeling_mmner.training.progress import Progress
from modeling_mmner.training.run_folder import (
    CHECKPOINTS,
    CONFUSION,
    CURVES,
    METRICS,
    MODEL,
    PREDICTIONS,
    RunError,
    begin_run,
    check_output,
    check_space,
    end_run,
    is_finished,
    is_unfinished,
)
from modeling_mmner.training.sharding import check_sharding, give_buffers, take_weights, trained_copy
from modeling_mmner.training.steps import (
    PostSampler,
    StepBatches,
    centres_due,
    compile_layers,
    loader_workers,
    parameter_groups,
    refresh_centres,
    resolve_precision,
    train_batches,
    trained_bytes,
)
from modeling_mmner.training.stopping import Stopped, StopSignals, command_to_go_on, stop_at_once
from modeling_mmner.training.terms import derived_licence, terms_of

PACKAGES = ("mmner", "torch", "transformers", "timm", "datasets", "accelerate")


def main(recipe: Recipe) -> None:
    """Train as the recipe says, in as many processes as were started, and print how it went."""
    if not started_processes().is_main_process:
        keep_quiet()
    run(recipe)
    started_processes().wait_for_everyone()
    started_processes().destroy_process_group()


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
    recipes = {recipe.name: recipe}
    if recipe.training.compare_without_pictures and recipe.corpus.use_images and recipe.model.towers:
        output = str(Path(recipe.training.output_dir) / "without_pictures")
        how = (
            recipe.training.resume if recipe.training.resume in (AUTO, NEVER) else AUTO
        )  # a path is the first one's
        recipes[f"{recipe.name}, no pictures"] = recipe.with_settings(
            use_images=False, output_dir=output, resume=how
        )
    runs = train_each(recipes)
    console.print(results_table(runs))
    if len(runs) == 2:
        console.print(picture_worth(*runs.values()), markup=False, emoji=False, highlight=False)
    if worth := context_worth(runs[recipe.name]):
        console.print(worth, markup=False, emoji=False, highlight=False)
    print(f"Model folder, metrics, predictions and plots are in {recipe.training.output_dir}/")


def transfer(recipe: Recipe) -> dict[str, dict[str, Score]]:
    """Train on each language alone and test on each; returns, and writes to transfer.json, the scores by
    both.
    """
    if len(recipe.corpus.languages) < 2:
        raise CorpusError(f"--transfer: expected two --languages or more, found {recipe.corpus.languages}")
    if recipe.training.resume not in (AUTO, NEVER):
        raise RunError(
            f"--resume {recipe.training.resume:.300}: expected auto or never with --transfer, which is"
            " several runs"
        )
    recipes = {
        language: recipe.with_settings(
            languages=[language],
            test_languages=recipe.corpus.languages,
            output_dir=f"{recipe.training.output_dir}/{language}",
        )
        for language in recipe.corpus.languages
    }
    scores = {language: run.splits.test.by_language for language, run in train_each(recipes).items()}
    if started_processes().is_main_process:
        plain = {
            trained: {tested: asdict(score) for tested, score in row.items()}
            for trained, row in scores.items()
        }
        write_text(Path(recipe.training.output_dir) / "transfer.json", json.dumps(plain, indent=2))
    return scores


def train_each(recipes: dict[str, Recipe]) -> dict[str, RunMetrics]:
    """The metrics of several runs; where an earlier process was stopped among them, those that it finished
    are not run again.
    """
    outputs = [Path(recipe.training.output_dir) for recipe in recipes.values()]
    for recipe in recipes.values():
        check_run(recipe)
    never = all(recipe.training.resume == NEVER for recipe in recipes.values())
    goes_on = not never and any(map(is_unfinished, outputs))
    finished = {name: finished_run(recipe) if goes_on else None for name, recipe in recipes.items()}
    finished, goes_on = broadcast_object_list(
        [finished, goes_on]
    )  # what the main process has found, before it writes
    if not goes_on and started_processes().is_main_process:
        for output in outputs:
            begin_run(output)
    return {name: finished[name] or train(recipe) for name, recipe in recipes.items()}


def finished_run(recipe: Recipe) -> RunMetrics | None:
    """The metrics of a recipe's run, where it is finished."""
    output = Path(recipe.training.output_dir)
    if not is_finished(output):
        return None
    metrics = RunMetrics.from_file(output / METRICS)
    wanted, found = (flat_settings(settings, without=PACE) for settings in (recipe.to_dict(), metrics.recipe))
    return metrics if not differences(wanted, found) else None


def train(recipe: Recipe) -> RunMetrics:
    """Train and test one model; returns what metrics.json holds.

    Raises:
        RunError: the run would fail later, or cannot go on.
        Stopped: by SIGTERM or Ctrl-C.
    """
    progress, output = Progress(), Path(recipe.training.output_dir)
    check_run(recipe)
    started_processes()  # before Accelerate looks for them its own way
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
    sizes = {
        "parameters": model.num_parameters(),
        "trained_parameters": model.num_parameters(only_trainable=True),
    }
    check_space(
        output, model, trained_bytes=trained_bytes(model), checkpoints=recipe.training.checkpoints_kept
    )
    if accelerator.is_main_process:
        begin_run(output)
    accelerator.print(f"{recipe.name}: {sizes['parameters']:,} parameters; {corpus.summary().describe()}")
    kept = run_features(recipe, processor, model, accelerator)
    with accelerator.local_main_process_first():
        if told := kept.add_to(corpus):
            accelerator.print(told)
    if accelerator.num_processes > 1:
        set_seed(recipe.training.seed, device_specific=True)  # each drops other units of its posts

    checkpoints = fit(recipe, corpus, processor, model, accelerator, progress)
    checkpoints.load_best()
    training_seconds = progress.elapsed

    readers = recipe.training.num_workers or 0  # 0: threads
    predictor = Predictor(model, processor, accelerator, recipe.training.batch_size, readers)
    splits, predicted = score_splits(recipe, corpus, predictor)
    metrics = run_metrics(recipe, corpus, accelerator, sizes, progress, splits, training_seconds)
    if accelerator.is_main_process:
        kept.put_encoders_back()
        write_results(recipe, corpus, predictor, metrics, predicted)
        end_run(output)
        checkpoints.remove()
    for (
        tracker
    ) in accelerator.trackers:  # `end_training` would end the processes' group, too, of which there is one
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
            f"training split: expected a post for each of {accelerator.num_processes} processes, found"
            f" {len(posts)}; start fewer"
        )
    first = accelerator.is_main_process
    (processor,) = broadcast_object_list(
        [build_processor(recipe, labels=corpus.labels, posts=posts) if first else None]
    )
    corpus.count_contexts(processor)
    keeps_features = feature_folder(recipe.training.feature_cache) is not None
    with accelerator.local_main_process_first():
        model = build_model(recipe, processor, with_frozen=not keeps_features)
    return corpus, processor, model.to(accelerator.device)


def check_run(recipe: Recipe) -> None:
    """Check before the first step what would fail later: the parts and the output folder.

    Raises:
        RunError: the parts do not fit together, or the output folder cannot be written.
    """
    try:
        check_model(recipe)
    except (TypeError, ValueError) as error:
        raise RunError(f"recipe {recipe.name:.80}: {error}") from error
    check_output(Path(recipe.training.output_dir))


def fit(
    recipe: Recipe,
    corpus: TrainingCorpus,
    processor: Any,
    model: Any,
    accelerator: Accelerator,
    progress: Progress,
) -> Checkpoints:
    """Train for the recipe's epochs, from the last checkpoint on; returns what has the weights of the best
    one.
    """
    training, rows, processes = recipe.training, corpus.splits["train"], accelerator.num_processes
    loader: Any = training_loader(recipe, processor, rows, processes=processes)
    sampler, collate = loader.batch_sampler.sampler, loader.collate_fn
    trained = trained_copy(model, accelerator)
    if training.compile:
        compile_layers(trained)
    groups = parameter_groups(
        trained,
        pretrained_parts(trained, recipe),
        learning_rate=training.learning_rate,
        head_learning_rate=training.head_learning_rate,
        weight_decay=training.weight_decay,
    )
    optimizer = torch.optim.AdamW(groups, fused=True)
    steps = training.epochs * -(-len(loader) // (processes * training.accumulation))
    warmup = int(training.warmup_share * steps)
    # Accelerate moves it on once a step and process.
    scheduler = get_linear_schedule_with_warmup(optimizer, warmup * processes, steps * processes)
    wrapped, optimizer, loader, scheduler = accelerator.prepare(trained, optimizer, loader, scheduler)
    train = partial(
        train_batches,
        wrapped,
        accelerator=accelerator,
        optimizer=optimizer,
        scheduler=scheduler,
        max_grad_norm=training.max_grad_norm,
    )
    readers = training.num_workers or 0  # 0: threads
    predictor = Predictor(model, processor, accelerator, training.batch_size, readers)
    settings = run_settings(recipe, corpus, accelerator)
    folder, kept = Path(training.output_dir) / CHECKPOINTS, training.checkpoints_kept
    checkpoints = Checkpoints(
        folder, accelerator=accelerator, model=model, progress=progress, settings=settings, kept=kept
    )
    checkpoints.resume(training.resume)
    with StopSignals(accelerator) as signals:
        while not progress.is_over(epochs=training.epochs, patience=training.patience):
            warmup, refresh = training.centre_warmup_epochs, training.centre_refresh_epochs
            if progress.batches == 0 and centres_due(
                progress.epoch, warmup_epochs=warmup, refresh_epochs=refresh
            ):
                refresh_centres(
                    model, rows, collate=collate, batch_size=training.batch_size, accelerator=accelerator
                )
                give_buffers(model, trained)
            sampler.set_epoch(progress.epoch)
            train_rest_of_epoch(recipe, loader, train, checkpoints, signals)
            take_weights(model, trained)
            finish_epoch(corpus, predictor, checkpoints)
            save(checkpoints, signals)
    return checkpoints


def training_loader(recipe: Recipe, processor: Any, rows: Any, *, processes: int) -> DataLoader[Any]:
    """The training split in batches of posts of like length, those of each step for some processes in
    turn.
    """
    posts = LaidOutRows.of(processor, rows)
    sampler = PostSampler(
        posts.lengths,
        rows["language"],
        temperature=recipe.corpus.language_temperature,
        batch_size=recipe.training.batch_size * processes,
        seed=recipe.training.seed,
    )
    collate = MMNERCollator(processor)
    workers = loader_workers(recipe.training.num_workers, opens_pictures=collate.opens_pictures(rows))
    return DataLoader(
        posts,
        batch_sampler=StepBatches(sampler, batch_size=recipe.training.batch_size, processes=processes),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        # what it draws depends on the workers and on each start; dropout shall not miss it
        generator=torch.Generator(),
    )


def train_rest_of_epoch(
    recipe: Recipe,
    loader: Any,
    train: Callable[[Any], Iterator[dict[str, float]]],
    checkpoints: Checkpoints,
    signals: StopSignals,
) -> None:
    """Train on those batches of an epoch that are not done, with a progress bar that shows each task's
    loss.
    """
    progress, accelerator, every = (
        checkpoints.progress,
        checkpoints.accelerator,
        recipe.training.checkpoint_steps,
    )
    bar = tqdm(
        total=len(loader),
        initial=progress.batches,
        desc=f"epoch {progress.epoch}/{recipe.training.epochs}",
        disable=not accelerator.is_local_main_process,
    )
    loader.set_epoch(progress.epoch)
    rest = accelerator.skip_first_batches(loader, progress.batches) if progress.batches else loader
    try:
        with bar:
            for losses in train(rest):
                progress.add(losses)
                bar.update()
                bar.set_postfix(
                    {name.removeprefix("loss_"): f"{loss:.2f}" for name, loss in losses.items()},
                    refresh=False,
                )
                if accelerator.sync_gradients:
                    progress.steps += 1
                    save(checkpoints, signals, due=every > 0 and progress.steps % every == 0)
    except FloatingPointError as error:
        posts = next(islice(loader.batch_sampler, progress.batches, None))
        ids = ", ".join(loader.dataset.rows[posts]["id"])
        raise RunError(
            f"epoch {progress.epoch}, batch {progress.batches + 1}: {error}, with the posts"
            f" {one_line(ids):.2000}. Look at them, or begin anew (--resume never) with a lower learning"
            f" rate; {checkpoints.describe_last()}"
        ) from error


def finish_epoch(corpus: TrainingCorpus, predictor: Predictor, checkpoints: Checkpoints) -> None:
    """Score the validation split, put the epoch's results into the history, and keep its weights if it is the
    best so far.
    """
    progress, accelerator, validation = (
        checkpoints.progress,
        checkpoints.accelerator,
        corpus.splits["validation"],
    )
    predicted, gold = predictor.tags(validation), gold_tags(validation, corpus.labels)
    scores = {
        mode: SpanF1().compute(predictions=predicted, references=gold, mode=mode)["f1"]
        for mode in ("lenient", "strict")
    }
    results = progress.mean_losses() | {
        "validation_f1": scores["lenient"],
        "validation_strict_f1": scores["strict"],
    }
    accelerator.log(results, step=progress.epoch)
    accelerator.print(
        f"epoch {progress.epoch}: loss {results['loss']:.3f}, validation F1 {100 * scores['lenient']:.1f}"
    )
    progress.end_epoch(results)
    if progress.best is progress.history[-1]:
        checkpoints.keep_best()


def save(checkpoints: Checkpoints, signals: StopSignals, *, due: bool = True) -> None:
    """Write a checkpoint if one is due or the run is to stop, which it then does."""
    stopping = signals.heard()
    if due or stopping:
        saved = checkpoints.save()
    if stopping:
        raise Stopped(
            signals.number,
            f"saved {saved}" if saved is not None else "nothing saved: FSDP2 writes no checkpoints",
        )


def score_splits(
    recipe: Recipe, corpus: TrainingCorpus, predictor: Predictor
) -> tuple[dict[str, Any], list[list[str]]]:
    """Scores of the validation and the test split, and the test split's predicted tags."""
    validation, test = corpus.splits["validation"], corpus.splits["test"]
    predicted = predictor.tags(test)
    worth = {
        "picture": picture_scores(predictor, test, predicted, seed=recipe.training.seed),
        "context": context_scores(predictor, test, predicted, seed=recipe.training.seed),
    }
    scores = {
        "validation": evaluate_rows(predictor.tags(validation), validation, corpus.labels),
        "test": (
            evaluate_rows(predicted, test, corpus.labels)
            | {"raw_text": raw_text_score(predictor, test)}
            | {what: found["scores"] for what, found in worth.items()}
            | {"p_values": {what: found["p_values"] for what, found in worth.items()}}
        ),
    }
    return scores, predicted


def run_metrics(
    recipe: Recipe,
    corpus: TrainingCorpus,
    accelerator: Accelerator,
    sizes: dict[str, int],
    progress: Progress,
    splits: dict[str, Any],
    training_seconds: float,
) -> RunMetrics:
    """What metrics.json holds."""
    terms = terms_of(recipe)
    return RunMetrics.from_dict(
        {
            "recipe": recipe.with_settings(mixed_precision=accelerator.mixed_precision).to_dict(),
            "terms": terms,
            "license": derived_licence(row["terms"] for row in terms),
            "seed": recipe.training.seed,
            "processes": accelerator.num_processes,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "corpus": asdict(corpus.summary()),
            "model": sizes,
            "history": progress.history,
            "selected_epoch": progress.best["epoch"],
            "timing": {"training_seconds": training_seconds, "total_seconds": progress.elapsed},
            "splits": splits,
        }
    )


def write_results(
    recipe: Recipe,
    corpus: TrainingCorpus,
    predictor: Predictor,
    metrics: RunMetrics,
    predicted: list[list[str]],
) -> None:
    """Write the model folder, metrics.json, predictions.jsonl and the plots to the output folder, dearest
    first.
    """
    output = Path(recipe.training.output_dir)
    save_hub_folder(predictor.model, predictor.processor, folder=output / MODEL, metrics=metrics)
    rows = corpus.splits["test"]
    rows = rows.remove_columns(
        [column for column in rows.features if column == "ner_tags" or is_picture_column(column)]
    )
    gold = gold_tags(corpus.splits["test"], corpus.labels)
    lines = [
        json_line(row | {"gold": right, "predicted": found})
        for row, right, found in zip(rows, gold, predicted, strict=True)
    ]
    write_text(output / METRICS, metrics.to_json())
    write_text(output / PREDICTIONS, "".join(f"{line}\n" for line in lines))
    curves = partial(plot_learning_curves, metrics.history, selected_epoch=metrics.selected_epoch)
    write_whole(output / CURVES, curves)
    write_whole(output / CONFUSION, partial(plot_confusion, gold, predicted))


if __name__ == "__main__":
    stop_at_once()
    try:
        record(main)(recipe)
    except (CorpusError, RunError) as error:
        raise SystemExit(f"train_accelerate.py: {error}") from None
    except Stopped as stopped:
        print(
            f"train_accelerate.py: {stopped}. Go on with: {command_to_go_on(recipe.training.resume)}",
            file=sys.stderr,
        )
        raise SystemExit(stopped.code) from None
