"""A whole training run on a small corpus in files, and the pieces it is made of."""

import json
import random
import re
import stat
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_accelerate
from dataset_scripts.sample.sample import draw_picture, generate_posts
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.evaluation.reports import context_worth, results_table
from modeling_mmner.evaluation.scores import Predictor
from modeling_mmner.training import run_folder, sampling
from modeling_mmner.training.assembly import build_model, build_processor, pretrained_parts
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.optimisation import centres_due, parameter_groups, refresh_centres
from modeling_mmner.training.recipe_options import parse_arguments
from modeling_mmner.training.recipes import Recipe, load_recipe
from modeling_mmner.training.run_folder import RunError, is_finished
from modeling_mmner.training.sampling import loader_workers

TEXT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TOWER = {
    "backbone": "resnet10t",
    "backbone_args": {"channels": [8, 8, 16, 16]},
    "image_size": 32,
    "pretrained": False,
}


def write_corpus(folder: Path) -> None:
    """A corpus in the IMGID format: generated posts, their pictures, one picture broken."""
    (folder / "images").mkdir(parents=True)
    for split, name, count in (("train", "train", 24), ("validation", "valid", 12), ("test", "test", 12)):
        lines = []
        for post in list(generate_posts("en", split, 1))[:count]:
            lines += [
                f"IMGID:{post.id}",
                *(f"{token}\t{tag}" for token, tag in zip(post.tokens, post.tags, strict=True)),
                "",
            ]
            if (picture := draw_picture(post, 1)) is not None:
                (folder / "images" / f"{post.id}.jpg").write_bytes(picture)
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    next(iter(sorted((folder / "images").glob("en-train-*")))).write_bytes(b"no picture")


def small_recipe(folder: Path, **settings) -> Recipe:
    """MLMNER in tiny on the corpus of `write_corpus`."""
    overrides = {
        "text_config": TEXT,
        "vocabulary_size": 300,
        "vision_towers": [TOWER],
        "dataset": "conll",
        "data_dir": str(folder),
        "image_dir": str(folder / "images"),
        "languages": ["en"],
        "epochs": 2,
        "batch_size": 8,
        "centre_warmup_epochs": 0,
        "compare_without_pictures": False,
        "mixed_precision": "no",
        "output_dir": str(folder / "output"),
    }
    return load_recipe("quickstart", overrides | settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The recipe and the metrics of a finished run, which has written its output folder."""
    folder = tmp_path_factory.mktemp("run")
    write_corpus(folder)
    recipe = small_recipe(folder)
    return recipe, train_accelerate.train(recipe).to_dict()


def test_run_writes_all_it_promises(finished) -> None:
    """If it failed, a run would end without one of its results."""
    recipe, metrics = finished
    output = Path(recipe.training.output_dir)
    for name in ("config.json", "model.safetensors", "README.md", "processor_config.json", "metrics.json"):
        assert (output / "model" / name).stat().st_size > 0
    for name in ("learning_curves.png", "confusion_matrix.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in output.rglob("*") if path.is_file()}
    (output / "mine").touch()
    assert modes == {stat.S_IMODE((output / "mine").stat().st_mode)}
    assert json.loads((output / "metrics.json").read_text("utf-8")) == json.loads(json.dumps(metrics))
    test = metrics["splits"]["test"]
    assert set(test) >= {"overall", "strict", "by_type", "by_language", "by_source", "raw_text", "picture"}
    assert set(test["picture"]) == {"true", "shuffled", "none"}
    assert test["picture"]["true"]["overall"] == test["overall"]
    assert metrics["corpus"]["pictures"]["train"]["broken"] == 1


def test_saved_model_gives_the_written_predictions(finished) -> None:
    """If it failed, the saved weights would not be those that were scored."""
    recipe, metrics = finished
    output = Path(recipe.training.output_dir)
    model = MMNERForTokenClassification.from_pretrained(output / "model").eval()
    processor = MMNERProcessor.from_pretrained(output / "model")
    rows = load_corpus(recipe.corpus).splits["test"]
    written = list(map(json.loads, (output / "predictions.jsonl").read_text("utf-8").splitlines()))
    predicted = Predictor(model, processor, Accelerator(), batch_size=5).tags(rows)
    assert [row["id"] for row in written] == rows["id"]
    assert [row["predicted"] for row in written] == predicted
    assert metrics["corpus"]["posts"]["test"] == len(written)
    assert model.objectives["clustering"].has_centre.all()  # training on begins with them
    assert (model.objectives["clustering"].centres.norm(dim=1) > 0).all()


def test_same_seed_same_weights(finished, tmp_path: Path) -> None:
    """If it failed, a run could not be repeated, or its results depend on how many cores prepare batches."""
    recipe, metrics = finished
    other = {"output_dir": str(tmp_path), "num_workers": 1, "report_to": "tensorboard"}
    again = train_accelerate.train(recipe.with_settings(**other))
    assert [epoch["loss"] for epoch in again.history] == [epoch["loss"] for epoch in metrics["history"]]
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("loss", "loss_crf", "validation_f1"):
        found = [(event.step, event.value) for event in curves.Scalars(name)]
        assert found == [(epoch["epoch"], pytest.approx(epoch[name])) for epoch in again.history]


@pytest.mark.parametrize(
    ("tracker", "package"),
    [("tensorboard", "mmner[tensorboard]"), ("trackio", "trackio"), ("wandb", "wandb")],
)
def test_tracker_that_is_missing_is_named_before_the_corpus_is_read(tmp_path, monkeypatch, tracker, package):
    """If it failed, a run would train without a word to the tracker that it was told of."""
    monkeypatch.setattr(run_folder, "get_available_trackers", list)
    monkeypatch.setattr(train_accelerate, "load_corpus", lambda settings: pytest.fail("the corpus was read"))
    message = f"--report_to {tracker}: expected a tracker that is installed, .*; pip install '{package}'"
    with pytest.raises(RunError, match=re.escape(message).replace(r"\.\*", ".*")):
        train_accelerate.train(small_recipe(tmp_path).with_settings(report_to=tracker))


def test_command_line_trains_and_compares(finished, tmp_path: Path, capsys) -> None:
    """If it failed, the script would not do from its options what `train` does."""
    recipe, _ = finished
    path, output = tmp_path / "small.yaml", tmp_path / "out"
    settings = {key: value for key, value in recipe.to_settings().items() if key != "name"}
    path.write_text(json.dumps(settings), encoding="utf-8")
    options = f"--recipe {path} --epochs 1 --output_dir {output} --compare_without_pictures"
    train_accelerate.main(parse_arguments(options.split()))
    printed, noise = capsys.readouterr()
    assert "Test split" in printed and "epoch 1: loss" in printed
    first, *others = printed.splitlines()
    assert first == "2 trainings follow; --no_compare_without_pictures leaves the second out"
    begun = [line for line in others if line.startswith("training ")]
    assert begun == [
        f"training 1 of 2: small; reading {recipe.corpus.dataset}",
        f"training 2 of 2: small, no pictures; reading {recipe.corpus.dataset}",
    ]
    assert noise == ""  # no library's bars and warnings
    alone = json.loads((output / "without_pictures" / "metrics.json").read_text(encoding="utf-8"))
    assert alone["recipe"]["corpus"]["use_images"] is False
    assert set(alone["splits"]["test"]["picture"]) == {"none"}


@pytest.fixture(scope="module")
def parts(finished) -> tuple:
    """The corpus, the processor and a new model of the run's recipe."""
    recipe, _ = finished
    corpus = load_corpus(recipe.corpus)
    processor = build_processor(recipe, labels=corpus.labels, posts=corpus.splits["train"]["tokens"])
    torch.manual_seed(0)
    return corpus, processor, build_model(recipe, processor)


def test_centres_equal_means_over_the_training_posts(parts) -> None:
    """If it failed, a centre would not be the mean of its type's gold words, also over a stream of posts."""
    corpus, processor, model = parts
    rows, collate, found = corpus.splits["train"], MMNERCollator(processor), []
    for posts in (rows, iter(rows)):
        model.train()
        refresh_centres(model, posts, collate=collate, batch_size=5, accelerator=Accelerator())
        assert model.training
        found.append(model.objectives["clustering"].centres.clone())
    assert torch.equal(*found)
    assert [epoch for epoch in range(1, 9) if centres_due(epoch, 2, 3)] == [3, 6]

    model.eval()
    features: dict[str, list[torch.Tensor]] = {}
    for row in rows:
        with torch.no_grad():
            words = model.encode(**collate([row])).fused.features[0]
        for position, label in enumerate(row["ner_tags"]):
            if label > 0:
                features.setdefault(corpus.labels[label][2:], []).append(words[position])
    types = list(dict.fromkeys(label[2:] for label in corpus.labels[1:]))
    expected = torch.stack([torch.stack(features[name]).mean(0) for name in types])
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-4)


def test_groups_hold_each_trained_parameter_once_at_its_rate(finished, parts) -> None:
    """If it failed, a parameter would learn twice, never, or at the wrong rate."""
    recipe, _ = finished
    *_, model = parts
    assert pretrained_parts(model, recipe) == []  # encoders from scratch learn as heads do
    model.vision_towers[0].frozen = True
    model.train()
    groups = parameter_groups(
        model, [model.text_tower.encoder], learning_rate=1.0, head_learning_rate=2.0, weight_decay=0.5
    )
    rates = {id(one): (group["lr"], group["weight_decay"]) for group in groups for one in group["params"]}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(trained) == len(rates)
    assert not any("vision_towers" in name for name in trained)
    for name, parameter in trained.items():
        rate = 1.0 if name.startswith("text_tower.encoder") else 2.0
        assert rates[id(parameter)] == (rate, 0.5 if parameter.dim() > 1 else 0.0), name


def test_card_that_cannot_be_made_costs_no_result(tmp_path, monkeypatch):
    """If it failed, a name that a card refuses would cost a run's metrics, or the run pass for finished."""

    def refuse(*arguments, **options) -> None:
        raise ValueError("no such licence")

    monkeypatch.setattr(train_accelerate, "save_hub_folder", refuse)
    write_corpus(tmp_path)
    message = f"{tmp_path}/output/model: expected settings that make a card; no such licence"
    with pytest.raises(RunError, match=message):
        train_accelerate.train(small_recipe(tmp_path, epochs=1))
    output = tmp_path / "output"
    assert RunMetrics.from_file(output / "metrics.json").selected_epoch == 1
    assert (output / "predictions.jsonl").stat().st_size and is_finished(output) is False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": {"crf": 1.0, "clusterin": 1.0}}, "clusterin"),
        (
            {"text_encoder": None, "text_config": {"hidden_size": 8}},
            "text_encoder: expected a model id, a folder or a text_config",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_training(tmp_path, monkeypatch, settings, message):
    """If it failed, a misspelt objective would be found out after the corpus was downloaded and read."""
    monkeypatch.setattr(train_accelerate, "load_corpus", lambda settings: pytest.fail("the corpus was read"))
    with pytest.raises(RunError, match=rf"^settings of {tmp_path.name}: .*{message}"):
        train_accelerate.train(small_recipe(tmp_path).with_settings(**settings))


def test_an_encoder_that_is_not_there_is_told_in_a_line(finished, tmp_path, capsys) -> None:
    """Regression: a mistyped id, or no network, ended in a hundred lines of traceback."""
    recipe, _ = finished
    none = str(tmp_path / "none")
    wanted = {"text_encoder": none, "text_config": {}, "output_dir": str(tmp_path / "output")}
    assert train_accelerate.run(recipe.with_settings(**wanted)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"train_accelerate.py: model of {recipe.name}, text_encoder {none}: ")


def test_what_changes_nothing_or_replaces_a_result_is_said(finished, tmp_path, capsys) -> None:
    """Regression: another run's model was replaced, a rate of no tower taken, F1 0 of no entity, silently."""
    recipe, _ = finished
    run_folder.begin_run(tmp_path)
    run_folder.end_run(tmp_path)
    assert "replaced" not in capsys.readouterr().out
    run_folder.begin_run(tmp_path)
    assert f"{tmp_path}: the results of an earlier run there are replaced" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        parse_arguments(["--learning_rate", "1"])
    assert "found none; all else learns at --head_learning_rate" in capsys.readouterr().err
    lines = (Path(recipe.corpus.data_dir) / "test.txt").read_text(encoding="utf-8")
    for name in ("train", "valid", "test"):
        text = (Path(recipe.corpus.data_dir) / f"{name}.txt").read_text(encoding="utf-8")
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "test.txt").write_text(re.sub(r"\t[BI]-\w+", "\tO", lines), encoding="utf-8")
    with pytest.warns(UserWarning, match="test split: no entity in its 12 posts, so its F1 is 0 whatever"):
        load_corpus(recipe.with_settings(data_dir=str(tmp_path)).corpus)


# Contexts


@pytest.fixture(scope="module")
def with_contexts(tmp_path_factory):
    """A finished run on posts whose one name only their context tells to be a person or a place."""
    folder = tmp_path_factory.mktemp("contexts")
    contexts = []
    for split, numbers in (("train", range(160)), ("valid", range(160, 184)), ("test", range(184, 208))):
        lines = []
        for number in numbers:
            kind = random.Random(number).choice(("PER", "LOC"))
            words = ["Jordan", "is", "great", *str(number)]
            tagged = [f"{word}\t{'O' if place else f'B-{kind}'}" for place, word in enumerate(words)]
            lines += [f"IMGID:{split}{number}", *tagged, ""]
            about = {"PER": "a man who plays", "LOC": "the river at night"}[kind]
            contexts.append({"id": f"{split}{number}", "about": about if number % 12 > 1 else None})
        (folder / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    text = "".join(json.dumps(context) + "\n" for context in contexts)
    (folder / "contexts.jsonl").write_text(text, encoding="utf-8")
    recipe = small_recipe(
        folder,
        fusion="text-only",
        vision_towers=[],
        objectives={"crf": 1.0},
        image_dir=None,
        context="about",
        context_file=[str(folder / "contexts.jsonl")],
        context_writer="people",
        context_window=3,
        epochs=12,
        head_learning_rate=3e-3,
        exclude_overlap=False,
    )
    return recipe, train_accelerate.train(recipe)


@pytest.mark.slow
def test_run_tells_what_the_contexts_are_worth(with_contexts) -> None:
    """If it failed, a model would not learn from contexts, or its gain be shown without its cause."""
    _, metrics = with_contexts
    test = metrics.splits.test
    scores = {mode: block.overall.f1 for mode, block in test.context.items()}
    assert list(scores) == ["true", "shuffled", "none"] and scores["true"] == test.overall.f1
    others = max(scores["shuffled"], scores["none"])
    assert scores["true"] >= 20 / 24 > 0.7 > others  # 20 posts have a context
    p_values = test.p_values["context"]
    assert p_values.keys() == {"shuffled", "none"} and max(p_values.values()) < 0.05
    assert test.p_values["picture"] == {} and list(test.picture) == ["none"]
    counts = metrics.corpus.contexts["test"]
    assert (counts.present, counts.missing) == (20, 4) and counts.cut == 20
    assert "(0 with a picture, 20 with a context, of which 20 are cut)" in metrics.corpus.describe()


def test_context_results_are_in_table_words_and_card(with_contexts) -> None:
    """If it failed, a reader of the results would have to take the contexts' gain on trust."""
    recipe, metrics = with_contexts
    table = results_table({"run": metrics})
    assert [column.header for column in table.columns][:3] == ["run", "picture", "context"]
    assert list(table.columns[2].cells) == ["true", "shuffled", "none"]
    assert set(table.columns[1].cells) == {"none"}
    figures = [f"{100 * block.overall.f1:.1f}" for block in metrics.splits.test.context.values()]
    chances = [f"(p = {p:.4f})" for p in metrics.splits.test.p_values["context"].values()]
    assert context_worth(metrics).startswith(
        f"With each post's own context the model reaches {figures[0]} F1, with another post's {figures[1]}"
        f" {chances[0]}, with none {figures[2]} {chances[1]}. What"
    )
    card = (Path(recipe.training.output_dir) / "model" / "README.md").read_text(encoding="utf-8")
    assert "Contexts, written by people:" in card and "| test | 20 | 4 | 20 |" in card
    rows = [line for line in card.splitlines() if line.startswith(("| true |", "| shuffled |", "| none |"))]
    assert len(rows) == 3 and rows[0].endswith("| - |")
    assert "| contexts | `people` |" in card


def test_contexts_of_an_unnamed_writer_are_warned_of(with_contexts) -> None:
    """If it failed, a model that has seen the test posts could write the contexts unnoticed."""
    recipe, _ = with_contexts
    for writer, words in (
        ("", "by somebody (--context_writer says who); a model may have"),
        ("m/x", "by m/x, which may have"),
    ):
        with pytest.warns(UserWarning, match=re.escape(f"contexts were written {words} seen the test posts")):
            load_corpus(recipe.with_settings(context_writer=writer).corpus)


@pytest.mark.parametrize(
    "setting, opens_pictures, cores, processes, expected",
    [
        (None, True, 2, 1, 1),
        (None, True, 64, 1, 4),
        (None, True, 8, 4, 1),
        (None, True, 1, 1, 0),
        (None, False, 8, 1, 0),
        (3, False, 1, 1, 3),
    ],
)
def test_batches_are_prepared_by_processes_where_cores_are_free(
    setting, opens_pictures, cores, processes, expected, monkeypatch
):
    """If it failed, the model would wait for pictures, or more processes run than there are cores."""
    monkeypatch.setattr(sampling, "CORES", cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert loader_workers(setting, opens_pictures=opens_pictures) == expected
