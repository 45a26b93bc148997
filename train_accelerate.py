"""Train a multimodal NER system from a recipe: `python train_accelerate.py --recipe quickstart`.

`train` reads from top to bottom; `--help` lists every setting.
"""

from modeling_mmner.training.recipe_options import parse_arguments
from modeling_mmner.training.recipes import Recipe

if __name__ == "__main__":
    recipe = parse_arguments()  # before the imports below, which take seconds: --help answers at once

import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch.distributed.elastic.multiprocessing.errors import record

from dataset_scripts.formats.reader import CorpusError
from modeling_mmner.escaping import print_in_any_encoding, printable, say
from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.evaluation.scores import Predictor, evaluate_rows, gold_tags, score_test_split
from modeling_mmner.evaluation.span_f1.span_f1 import tag_score
from modeling_mmner.hub.examples import examples_of
from modeling_mmner.hub.push import save_hub_folder
from modeling_mmner.training import optimisation, processes, run_folder
from modeling_mmner.training.assembly import build_model, build_processor
from modeling_mmner.training.checkpoints import Checkpoints
from modeling_mmner.training.collator import LaidOutRows, MMNERCollator
from modeling_mmner.training.corpus import TrainingCorpus, load_corpus
from modeling_mmner.training.features import feature_folder, run_features
from modeling_mmner.training.optimisation import centres_due, refresh_centres, train_batches
from modeling_mmner.training.run_folder import Progress, RunError
from modeling_mmner.training.runner import own_folders, report_runs, run_each, runs_of
from modeling_mmner.training.sampling import ids_of_batch, make_room, training_loader


def main(recipe: Recipe) -> None:
    """Train as the recipe says, in as many processes as were started, and print how it went."""
    group = processes.started_processes()
    if not group.is_main_process:
        processes.keep_quiet()
    processes.quiet_libraries()
    runs = runs_of(recipe)
    with own_folders(recipe, *runs.values()):
        report_runs(recipe, run_each(runs, train=train))
    group.wait_for_everyone()
    group.destroy_process_group()


def train(recipe: Recipe) -> RunMetrics:
    """Train and test one model; returns what metrics.json holds.

    Raises:
        CorpusError: the corpus cannot be read, or has fewer training posts than there are processes.
        RunError: the run would fail later, or cannot go on.
        Stopped: by SIGTERM or Ctrl-C.
    """
    settings, output, progress = recipe.training, Path(recipe.training.output_dir), Progress()
    run_folder.check_run(recipe)
    examples = examples_of(recipe)
    accelerator = processes.run_accelerator(recipe)
    set_seed(settings.seed)
    corpus, processor, model = build(recipe, accelerator)
    parameters, trained = (model.num_parameters(only_trainable=only) for only in (False, True))
    if accelerator.is_main_process:
        run_folder.begin_run(output)
        corpus.write_left_out(output)
    accelerator.print(printable(f"{recipe.name}: {parameters:,} parameters; {corpus.summary().describe()}"))
    kept = run_features(recipe, processor, model, accelerator)
    with accelerator.local_main_process_first():
        kept.add_to(corpus)
    if accelerator.num_processes > 1:
        set_seed(settings.seed, device_specific=True)  # each drops other units of its posts
    predictor = Predictor(model, processor, accelerator, settings.batch_size, settings.num_workers or 0)
    checkpoints = fit(recipe, corpus, predictor, progress)
    checkpoints.load_best()
    training_seconds = progress.elapsed
    accelerator.print(f"epoch {progress.best['epoch']} is kept, the best on validation; testing it")
    validation, test = corpus.splits["validation"], corpus.splits["test"]
    predicted = predictor.tags(test)
    found = {
        "validation": evaluate_rows(predictor.tags(validation), validation, corpus.labels),
        "test": score_test_split(predictor, test, predicted, seed=settings.seed),
    }
    metrics = run_folder.run_metrics(
        recipe.with_settings(mixed_precision=accelerator.mixed_precision),
        corpus,
        progress,
        model={"parameters": parameters, "trained_parameters": trained},
        processes=accelerator.num_processes,
        timing={"training_seconds": training_seconds, "total_seconds": progress.elapsed},
        splits=found,
    )
    if accelerator.is_main_process:
        kept.put_encoders_back()
        gold = gold_tags(test, corpus.labels)
        folder = output / run_folder.MODEL
        try:
            save_hub_folder(model, processor, folder=folder, metrics=metrics, examples=examples)
        except ValueError as error:
            raise RunError(f"{folder}: expected settings that make a card; {error}") from error
        finally:  # a card that cannot be made costs no other result
            run_folder.write_results(output, metrics, test, gold=gold, predicted=predicted)
        run_folder.end_run(output)
        checkpoints.remove()
    for tracker in accelerator.trackers:
        tracker.finish()  # `end_training` would end the processes' group as well, which the next run needs
    return metrics


def build(recipe: Recipe, accelerator: Accelerator) -> tuple[TrainingCorpus, Any, Any]:
    """The corpus, the processor and the model, the same in all processes."""
    with accelerator.local_main_process_first():  # which builds what the others find in caches
        corpus = load_corpus(recipe.corpus)
    posts = corpus.splits["train"]["tokens"]
    if len(posts) < accelerator.num_processes:
        expected = f"expected a post for each of {accelerator.num_processes} processes"
        raise CorpusError(f"training split: {expected}, found {len(posts)}; start fewer")
    is_first = accelerator.is_main_process
    keeps_features = feature_folder(recipe.training.feature_cache) is not None
    try:
        made = build_processor(recipe, labels=corpus.labels, posts=posts) if is_first else None
        (processor,) = broadcast_object_list([made])
        corpus.count_contexts(processor)
        with accelerator.local_main_process_first():
            model = build_model(recipe, processor, with_frozen=not keeps_features)
    except (OSError, ValueError) as error:  # an encoder that is not there, or does not fit
        name = recipe.model.text_encoder
        raise RunError(f"model of {recipe.name:.80}, text_encoder {name}: {error}") from error
    return corpus, processor, model.to(accelerator.device)


def fit(recipe: Recipe, corpus: TrainingCorpus, predictor: Predictor, progress: Progress) -> Checkpoints:
    """Train for the recipe's epochs, from the last checkpoint on.

    The checkpoints that are returned have the weights of the epoch that is best on the validation split.
    """
    settings, model, accelerator = recipe.training, predictor.model, predictor.accelerator
    collate = MMNERCollator(predictor.processor)
    posts = LaidOutRows.of(predictor.processor, corpus.splits["train"])
    accelerator.print(make_room(posts, model, batch_size=settings.batch_size))
    validation = LaidOutRows.of(predictor.processor, corpus.splits["validation"])
    loader: Any = training_loader(recipe, posts, collate, processes=accelerator.num_processes)
    sampler = loader.batch_sampler
    epoch_size = {"batches": len(loader), "processes": accelerator.num_processes}
    optimizer, scheduler = optimisation.optimizer_and_scheduler(recipe, model, **epoch_size)
    prepared, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    steps = {"optimizer": optimizer, "scheduler": scheduler, "max_grad_norm": settings.max_grad_norm}
    centres_when = settings.centre_warmup_epochs, settings.centre_refresh_epochs
    checkpoints = Checkpoints(recipe, corpus, accelerator, model, progress)
    checkpoints.resume(settings.resume)
    bar = progress.bar(len(loader), epochs=settings.epochs)
    with processes.StopSignals(accelerator) as signals, bar:
        while not progress.is_over(epochs=settings.epochs, patience=settings.patience):
            epoch, size = progress.epoch, settings.batch_size
            if progress.batches == 0 and centres_due(epoch, *centres_when):
                refresh_centres(model, posts, collate=collate, batch_size=size, accelerator=accelerator)
            sampler.set_epoch(epoch)
            loader.set_epoch(epoch)
            rest = accelerator.skip_first_batches(loader, progress.batches) if progress.batches else loader
            try:
                losses = train_batches(prepared, rest, accelerator=accelerator, **steps)
                for _ in progress.shown(losses, bar, epochs=settings.epochs):
                    if accelerator.sync_gradients:
                        progress.steps += 1
                        every = settings.checkpoint_steps
                        save(checkpoints, signals, due=every > 0 and progress.steps % every == 0)
            except FloatingPointError as error:
                raise RunError(
                    f"epoch {epoch}, batch {progress.batches + 1}: {error}, with the posts"
                    f" {ids_of_batch(loader, progress.batches)}. Look at them, or begin anew (--resume never)"
                    f" with a lower learning rate; {checkpoints.describe_last()}"
                ) from error
            validate(validation, predictor, checkpoints)
            bar.hide()
            accelerator.print(progress.describe_last(bar))
            save(checkpoints, signals)
    return checkpoints


def validate(rows: LaidOutRows, predictor: Predictor, checkpoints: Checkpoints) -> None:
    """Score the validation split, and go to the next epoch."""
    progress, epoch, accelerator = checkpoints.progress, checkpoints.progress.epoch, predictor.accelerator
    gold, predicted = gold_tags(rows, predictor.processor.labels), predictor.tags(rows)
    lenient, strict = (tag_score(gold, predicted, strict=strict)["f1"] for strict in (False, True))
    results = progress.mean_losses() | {"validation_f1": lenient, "validation_strict_f1": strict}
    accelerator.log(results, step=epoch)
    progress.end_epoch(results)


def save(checkpoints: Checkpoints, signals: processes.StopSignals, *, due: bool = True) -> None:
    """Write a checkpoint if one is due or the run is to stop, which it then does."""
    stopping = signals.heard()
    if due or stopping:
        saved = checkpoints.save()
    if stopping:
        raise processes.Stopped(signals.number, f"saved {saved}")


def run(recipe: Recipe) -> int:
    """`main` as a command, which tells a mistake or a signal in a line; returns the exit code."""
    print_in_any_encoding()
    processes.stop_at_once()
    try:
        record(main)(recipe)
    except (CorpusError, RunError) as error:
        say(f"train_accelerate.py: {error}", file=sys.stderr)
        return 1
    except processes.Stopped as stopped:
        command = processes.command_to_go_on(recipe.training.resume)
        say(f"train_accelerate.py: {stopped}. Go on with: {command}", file=sys.stderr)
        return stopped.code
    return 0


if __name__ == "__main__":
    sys.exit(run(recipe))
