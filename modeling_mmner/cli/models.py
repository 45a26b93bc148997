"""The commands for a trained model."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from ..escaping import say
from ..model.labels_mmner import entity_types, tags_to_spans
from ..model.marking_mmner import MarkedPosts
from .corpora import split_of
from .options import COMPUTING, INPUT, PREDICTING, READING, TASKS, Count, Port, Precision, command


@command(predicting=PREDICTING)
def predict(
    post: str | None = None,
    *,
    model: str,
    text: str | None = None,
    image: list[str] | None = None,
    context: list[str] | None = None,
    input: str | None = None,
    image_dir: str | None = None,
    output: str | None = None,
    predicting: dict[str, Any],
) -> int:
    """Find the entities of a text or of JSON lines.

    Reads one text (and --image), or JSON lines {id, text | tokens, image, context}; writes JSON lines {id,
    text, entities}, and {id, error} for what cannot be read. On a terminal it shows the texts, with their
    entities marked.

    Args:
        post: one text, as --text.
        model: folder or Hub id of a trained model, or a folder that export-onnx has made.
        text: one text.
        image: a picture of --text; for several say it again.
        context: a text about --text, for models that read contexts; for several say it again.
        input: file of JSON lines; default: standard input.
        image_dir: where the pictures of JSON lines lie, and nowhere else; default: in the folder of --input,
            or the working one.
        output: file to write; default: standard output.
    """
    if len({post, text, input} - {None}) > 1:
        raise ValueError("expected one text or --input, found several of them")
    if post is not None and os.path.isfile(post):
        raise ValueError(f"expected a text, found the file {post}; --input {post} reads its posts")
    text = post if text is None else text
    for name, values in (("image", image), ("context", context)):
        if text is None and values:
            raise ValueError(f"expected --text with --{name}; JSON lines have their own under {name!r}")
    from ..files import check_apart, read_json_lines, write_named
    from ..inference.loading import load_predictor

    posts_file = (input or "/dev/stdin") if text is None else None
    check_apart([output or "/dev/stdout"], [model, *(image or []), posts_file])
    # Others than who runs the command may have written the lines: what they name must lie here.
    folder = None if text is not None else image_dir or (Path(input).parent if input else Path())
    predictor = load_predictor(model, reads_contexts=bool(context), image_dir=folder, **predicting)
    if text is not None:
        predictor.read.broken_pictures = "raise"  # it was named by hand
    with open(input, "rb") if input else nullcontext() as file:
        posts: Any = [{"text": text, "images": image or [], "context": context or []}]
        if text is None:
            posts = read_json_lines(file or sys.stdin.buffer, input or "standard input")
        found = predictor.predict(posts)
        if output:
            return write_named(Path(output), partial(_write_found, found))
        types = entity_types(predictor.read.processor.labels)
        return _write_found(found, types=types if sys.stdout.isatty() else None)


def _write_found(found_in_posts: Iterator[Any], path: Path | None = None, *, types: Any = None) -> int:
    """Write a line for each post or, where types are given, show it in a terminal with its entities marked;
    the status is 1 where a post could not be read.
    """
    from rich.console import Console

    from ..files import json_line

    failed = broken = 0
    with path.open("w", encoding="utf-8") if path else nullcontext(sys.stdout) as target:
        for found in found_in_posts:
            broken += len(found.broken_pictures)
            if found.post is None:
                failed += 1
                record = {"id": found.id, "error": str(found.error)}
                say(f"predict: {found.error}", file=sys.stderr)
            else:
                record = {"id": found.id, "text": found.post.text, "entities": found.entities}
                record |= {"broken_pictures": found.broken_pictures} if found.broken_pictures else {}
            if types is None:
                print(json_line(record), file=target)
            elif found.post is not None:
                Console().print(MarkedPosts([found], types))
    if failed or broken:
        say(f"predict: {failed} posts and {broken} pictures could not be read", file=sys.stderr)
    return int(failed > 0)


@command(reading=READING, computing=COMPUTING)
def evaluate(
    dataset: str,
    *,
    model: str,
    split: str = "test",
    context: str | None = None,
    context_file: list[str] | None = None,
    reading: dict[str, Any],
    computing: dict[str, Any],
) -> None:
    """Score a trained model on a corpus, and time it.

    Prints precision, recall and F1 over entities of a split, and posts a second: so it tells what --dtype, an
    exported model or another corpus costs.

    Args:
        dataset: the corpus, named as for inspect.
        model: folder or Hub id of a trained model, or a folder that export-onnx has made.
        split: split to score.
        context: column of the corpus, or field of --context_file, for models that read contexts.
        context_file: JSON lines with the posts' id and that field; for several say it again.
    """
    from ..evaluation.scores import evaluate_rows, readable

    predictor, corpus, rows = _opened(model, dataset, split, context, context_file, reading, computing)
    started = perf_counter()
    tags = [found.tags for found in readable(predictor.predict(rows))]
    pace = len(rows) / (perf_counter() - started)
    scores = evaluate_rows(tags, rows, corpus.labels)
    overall, strict_f1 = scores["overall"], 100 * scores["strict"]["f1"]
    if not overall["number"]:
        raise ValueError(f"{corpus.name}, {split}: expected posts with entities to score, found none")
    precision, recall, f1 = (100 * overall[name] for name in ("precision", "recall", "f1"))
    low, high = (100 * bound for bound in overall["confidence_interval"])
    size = f"{len(rows)} posts, {overall['number']} entities"
    say(f"{corpus.name}, {split}: {size}; {pace:.1f} posts a second")
    say(f"precision {precision:.2f}, recall {recall:.2f}, strict F1 {strict_f1:.2f}")
    say(f"F1 {f1:.2f}, 95% interval {low:.2f} to {high:.2f}")


def _opened(
    model: str, dataset: str, split: str, context: str | None, context_file: Any, reading: Any, computing: Any
) -> tuple[Any, Any, Any]:
    """A model's predictor, and the corpus and rows that it is to be held against, with their contexts."""
    if context_file and context is None:
        raise ValueError("--context_file: expected --context, the field that holds the contexts, found none")
    from dataset_scripts.contexts import with_contexts
    from dataset_scripts.opening import open_corpus

    from ..inference.loading import load_predictor
    from ..model.labels_mmner import WORD_RULES

    predictor = load_predictor(model, reads_contexts=bool(context), **computing)
    by_saved_name = {saved: rule for rule, saved in WORD_RULES.items()}
    own = {"word_rule": by_saved_name[predictor.read.processor.word_rule]}
    corpus = open_corpus(dataset, **own | reading)
    rows = split_of(corpus, split)
    if context:
        rows = with_contexts({split: rows}, context, context_file or [])[split]
    if unknown := sorted(set(corpus.labels) - set(predictor.read.processor.labels)):
        expected = f"expected a model that knows the labels of {corpus.name}"
        raise ValueError(f"{model}: {expected}, found none for {unknown}")
    return predictor, corpus, rows


@command(reading=READING, computing=COMPUTING)
def calibrate(
    *,
    model: str,
    dataset: str,
    precision: Precision = 0.95,
    split: str = "validation",
    context: str | None = None,
    context_file: list[str] | None = None,
    reading: dict[str, Any],
    computing: dict[str, Any],
) -> None:
    """Find the scores above which a model's entities are right as often as you want.

    For each type the lowest score at which that holds with 90% confidence. They are saved in the model's
    folder, and used where --precision is said to predict and annotate, and precision= to the pipeline.

    Args:
        model: folder of a trained model.
        dataset: the corpus, named as for inspect; its posts must be new to the model.
        precision: share of right ones among the entities that are kept, between 0 and 1.
        split: split to find them on.
        context: column of the corpus, or field of --context_file, for models that read contexts. Posts
            without one are left out then, and the scores hold for posts with one.
        context_file: JSON lines with the posts' id and that field; for several say it again.
    """
    from ..evaluation.calibration import calibrate
    from ..evaluation.scores import gold_tags, rows_with, scored_entities
    from ..hub.push import save_calibration
    from ..model.thresholds_mmner import weights_sha256

    if not Path(model, "processor_config.json").is_file():
        advice = f"`hf download {model} --local-dir FOLDER` makes one of a model on the Hub"
        raise ValueError(f"model {model}: expected a folder, which gets the scores, found none; {advice}")
    predictor, corpus, rows = _opened(model, dataset, split, context, context_file, reading, computing)
    rows = rows.select(rows_with("context", rows)) if context else rows
    gold = [tags_to_spans(tags) for tags in gold_tags(rows, corpus.labels)]
    types = entity_types(predictor.read.processor.labels)
    found = calibrate(gold, scored_entities(predictor, rows), types=types, precision=precision)
    about = {"weights": weights_sha256(predictor.model), "contexts": bool(context)}
    about |= {"corpus": corpus.name, "split": split, "posts": len(rows)}
    save_calibration(Path(model), about | found)
    say(f"{corpus.name}, {split}: {len(rows)} posts; precision {precision} with 90% confidence")
    for kind, least in found["thresholds"].items():
        wanted, right, kept = (found["numbers"][kind][name] for name in ("gold", "right", "kept_right"))
        score = "no score does" if least is None else f"score {least:.4f}"
        say(f"{kind}: {score}; of {wanted} entities it finds {right}, and keeps {kept}")
    say(f"saved in {model}")


@command(predicting=PREDICTING)
def review(
    *,
    model: str,
    input: str,
    output: str,
    count: Count = 100,
    image_dir: str | None = None,
    predicting: dict[str, Any],
) -> int:
    """Choose the posts most worth a human's look, as tasks of Label Studio.

    First come the posts with most mistakes to be expected. What the model finds is filled in; corrected and
    exported as JSON, the file trains as it is.

    Args:
        model: folder or Hub id of a trained model.
        input: file of JSON lines, as predict reads them.
        output: JSON file to write.
        count: posts to choose.
        image_dir: where pictures lie, and nowhere else; default: in the folder of --input.
    """
    from ..files import check_apart, read_json_lines, write_named
    from ..inference.demo_space import model_name
    from ..inference.loading import load_predictor
    from ..inference.review import labelling_interface, review

    check_apart([output], [model, input])
    predictor = load_predictor(model, image_dir=image_dir or Path(input).parent, **predicting)
    with open(input, "rb") as file:
        tasks, errors = review(predictor, read_json_lines(file, input), count=count, name=model_name(model))
    write_named(Path(output), lambda path: path.write_text(json.dumps(tasks, indent=1), encoding="utf-8"))
    for error in errors:
        say(f"review: {error}", file=sys.stderr)
    say(f"wrote {len(tasks)} tasks to {output}; their labelling interface in Label Studio is")
    say(labelling_interface(predictor.read.processor))
    return int(bool(errors))


@command(reading=INPUT, sharing=TASKS, predicting=PREDICTING)
def annotate(
    *,
    output_dir: str,
    model: str | None = None,
    input: str | None = None,
    verify: bool = False,
    reading: dict[str, Any],
    sharing: dict[str, Any],
    predicting: dict[str, Any],
) -> int:
    """Find the entities of a corpus of any size, on one machine or many.

    The same command again goes on with the tasks that are not done. Several machines share the tasks by
    --local_tasks and --local_rank_offset. Needs the extra: pip install 'mmner[datatrove]'.

    Args:
        output_dir: folder of the annotation, the same for all machines.
        model: folder or Hub id of a trained model.
        input: file of JSON lines or Parquet, folder or Hub id of a data set.
        verify: only check that the annotation has each row of its input once.
    """
    from ..inference import annotate as annotation

    if verify:
        outcome = annotation.verify(output_dir)
    elif model is None or input is None:
        raise ValueError("expected --model and --input, or --verify; found one of them missing")
    else:
        annotator, posts = annotation.Annotator(model, **predicting), annotation.open_posts(input, **reading)
        step = annotation.AnnotateStep(annotator, posts, output_dir)
        outcome = annotation.annotate(step, **sharing)
    say(outcome)
    return int(bool(outcome.flaws))


@command()
def explain(
    *,
    model: str,
    text: str,
    image: list[str] | None = None,
    context: list[str] | None = None,
    output_dir: str,
    read_pictures: bool = False,
) -> None:
    """Say what the picture and the context of a post did for each of its entities.

    Prints each entity's score with and without them, and writes it all in numbers (explanation.json) with a
    drawing for each entity of what each part of the picture did.

    Args:
        model: folder or Hub id of a trained model.
        text: the post's text.
        image: its picture; for several, which are drawn side by side, say it again.
        context: a text about the post, for models that read contexts; for several say it again.
        output_dir: folder for explanation.json and <number>_<entity>.png.
        read_pictures: find entities in the text of pictures, too.
    """
    from ..files import check_apart
    from ..inference.explain import explain, save_explanation, table_lines
    from ..inference.loading import load_model

    check_apart([output_dir, *Path(output_dir).glob("[0-9]*_*.png")], [model, *(image or [])])
    parts = load_model(model, reads_contexts=bool(context))
    explanation = explain(*parts, text, image, context=context, read_pictures=read_pictures)
    save_explanation(explanation, output_dir)
    for line in table_lines(explanation):
        say(line)


@command()
def demo(
    *,
    model: str,
    device: str | None = None,
    host: str = "127.0.0.1",
    port: Port = 7860,
    mcp: bool = False,
    space: str | None = None,
    card_examples: str | None = None,
    image_dir: str | None = None,
) -> None:
    """Try a model on a web page, or write the page as a Space.

    Needs the extra: pip install 'mmner[demo]', for --mcp 'mmner[mcp]'. Its function find_entities can be
    called by gradio_client, too.

    Args:
        model: folder or Hub id of a trained model.
        device: cpu, cuda, cuda:1, mps; default: an accelerator if there is one.
        host: address to serve on; 127.0.0.1 is this computer alone.
        port: port to serve on.
        mcp: serve the function as a tool for agents, too, by the Model Context Protocol.
        space: folder to make that is ready to be a Space; nothing is served then.
        card_examples: JSON lines of posts that may be published, which the page shows; default: those of the
            model's card, if any.
        image_dir: where the pictures of --card_examples lie; or else beside the file.
    """
    from ..hub.examples import published_examples, read_examples
    from ..inference.demo import build_demo, launch
    from ..inference.demo_space import model_name, write_space

    examples = read_examples(card_examples, image_dir) if card_examples else None
    if space:
        folder = write_space(model, space, examples=examples)
        for one in published_examples(str(folder / "model") if Path(model).is_dir() else model):
            say(f"it shows everybody: {one.text!r} with {len(one.pictures)} pictures")
        say(f"wrote {folder}; `hf upload ORG/NAME {folder} --repo-type space` puts it on the Hub")
        return
    from ..inference.loading import load_model

    shown = published_examples(model) if examples is None else examples
    hub_id = None if Path(model).is_dir() else model
    name, parts = model_name(model), load_model(model, device=device)
    page = build_demo(*parts, name=name, examples=shown, hub_id=hub_id)
    try:
        launch(page, host=host, port=port, mcp=mcp)
    except OSError as error:
        wanted = "expected an address of this computer and a port that is free on it"
        raise ValueError(f"--host {host} --port {port}: {wanted}; {error}") from error


@command()
def export_onnx(*, model: str, output_dir: str, int8: bool = False) -> None:
    """Export a trained model for onnxruntime.

    Writes a folder from which a model runs without torch: its graph, checked against the model, and CRF
    decoding in numpy. Needs the extra: pip install 'mmner[onnx]'.

    Args:
        model: folder or Hub id of a trained model.
        output_dir: folder to make.
        int8: compute linear layers in 8-bit integers, which is smaller, and faster on many CPUs.
    """
    from ..inference.onnx_export import export_onnx

    difference = export_onnx(model, output_dir, int8=int8)
    say(f"wrote {output_dir}: model.onnx, decoding.json, onnx_decoding.py and the processor")
    say(f"greatest difference of the emissions from torch's: {difference:.1e}, over made-up posts")


@command()
def push(
    *,
    model: str,
    repo_id: str,
    revision: str | None = None,
    public: bool = False,
    dry_run: bool = False,
    card_examples: str | None = None,
    image_dir: str | None = None,
) -> None:
    """Put a trained model on the Hub.

    Args:
        model: folder of a trained model, made by training.
        repo_id: ORG/NAME of the repository.
        revision: tag for its commit; default: v and the version of mmner that trained the model, as v0.2.0.
        public: for everybody to see; otherwise the repository is private.
        dry_run: only print what would go where, and each post that would be shown; asks nothing of the Hub.
        card_examples: JSON lines of posts that may be published, which the card shows with what the model
            finds; default: those of training, if any.
        image_dir: where the pictures of --card_examples lie; or else beside the file.
    """
    from ..hub import push as hub
    from ..hub.examples import read_examples

    examples = read_examples(card_examples, image_dir) if card_examples else None
    upload = hub.plan_upload(model, repo_id=repo_id, revision=revision, examples=examples)
    say(upload.describe(public=public))
    say("dry run: nothing was sent" if dry_run else f"pushed to {hub.push(upload, public=public)}")
