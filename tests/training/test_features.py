"""Picture features that are kept: the same as computed ones, whoever filled them, and never anybody
else's.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from accelerate import Accelerator
from datasets import Dataset, Features, List
from datasets import Image as ImageFeature
from safetensors.torch import save_file
from torch.utils.data import DataLoader

import train_accelerate
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.model.images_mmner import load_picture, pictures_of, square_pixels
from modeling_mmner.training import run_features
from modeling_mmner.training.assembly import build_model, build_processor
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.features import FeatureError, FeatureStore, PictureFeatures, picture_key
from modeling_mmner.training.recipes import Recipe
from tests.small_posts import GRADIENT, RED, SPECKLED, encoded
from tests.tiny import parts_of
from tests.training.test_training import TOWER, small_recipe, write_corpus

WORDS = ["Jordan", "posts", "from", "Paris"]
PICTURES = [encoded(picture) for picture in (SPECKLED, GRADIENT, RED, RED.rotate(90, expand=True))]


def rows_of(posts: list[list[bytes]]) -> Dataset:
    """A data set of posts with these pictures."""
    rows = [
        {"tokens": WORDS, "ner_tags": [1, 0, 0, 3], "images": [{"bytes": one, "path": None} for one in post]}
        for post in posts
    ]
    columns = Dataset.from_list([{key: row[key] for key in ("tokens", "ner_tags")} for row in rows])
    pictures = Features({"images": List(ImageFeature(decode=False))})
    return columns.add_column("images", [row["images"] for row in rows], feature=pictures["images"])


ROWS = rows_of([[PICTURES[0]], [], [PICTURES[1], PICTURES[2]], [PICTURES[3]], [PICTURES[0]]])


def frozen_parts(**settings: Any) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """A tiny model, with a frozen tower at least, and its processor."""
    return parts_of({"fusion": "cross-modal"} | settings, posts=[WORDS])


SYSTEMS = {"one frozen tower": {"fusion": "cross-modal"}, "beside a trained one": {"fusion": "collaboration"}}


@pytest.mark.parametrize("settings", SYSTEMS.values(), ids=SYSTEMS)
def test_kept_features_are_computed_ones_rounded(settings, tmp_path):
    """If it failed, a row would be another picture's, or depend on which pictures were computed with it."""
    model, processor = frozen_parts(**settings)
    features = PictureFeatures.of_model(model, processor, folder=tmp_path)
    features.fill(ROWS)
    assert features.computed == len(PICTURES)
    for frozen in features.frozen:
        for picture in PICTURES:
            pixels = torch.from_numpy(square_pixels(load_picture(picture), processor.image_size).copy())
            with torch.inference_mode():
                expected = frozen.tower.features(pixels[None])[0]
            expected = expected.mean(0, keepdim=True) if frozen.tower.pooled else expected
            assert torch.equal(frozen.store[picture_key(picture)], expected.bfloat16())


@pytest.mark.parametrize("settings", SYSTEMS.values(), ids=SYSTEMS)
def test_model_on_kept_features_equals_model_on_pixels(settings, tmp_path):
    """If it failed, a post would be read with another post's picture, or a trained tower with features in
    place of its pixels.
    """
    model, processor = frozen_parts(**settings)
    features = PictureFeatures.of_model(model, processor, folder=tmp_path)
    features.fill(ROWS)
    shuffled = ROWS.select([3, 2, 1, 0, 2])
    with torch.inference_mode():
        expected = model(**MMNERCollator(processor)([*shuffled]))
        found = model(**MMNERCollator(processor, features=features)([*shuffled]))
        other = model(**MMNERCollator(processor, features=features)([*ROWS]))
    torch.testing.assert_close(found.logits, expected.logits, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(found.loss, expected.loss, atol=5e-3, rtol=5e-3)
    assert (other.logits[:2] - expected.logits[:2]).abs().max() > 0.01, (
        "the pictures make no difference: this tests nothing"
    )


def test_worker_processes_read_the_same_rows(tmp_path):
    """If it failed, a data loader with workers could not read kept features, or would read other ones."""
    model, processor = frozen_parts()
    features = PictureFeatures.of_model(model, processor, folder=tmp_path)
    features.fill(ROWS)
    collate = MMNERCollator(processor, features=features)
    loader = DataLoader(ROWS, batch_size=5, collate_fn=collate, num_workers=1, multiprocessing_context="fork")  # type: ignore[arg-type]
    (batch,) = loader
    assert torch.equal(batch["image_features"][0], collate([*ROWS])["image_features"][0])


def test_nothing_stale_is_served(tmp_path):
    """If it failed, a model would be trained on the features of other weights, of pictures of another size,
    or in another precision."""
    model, processor = frozen_parts()
    places = set()

    def place(**options: Any) -> Path:
        return PictureFeatures.of_model(model, processor, folder=tmp_path, **options).frozen[0].store.folder

    places.add(place())
    assert place() in places
    places.add(place(bf16=True))
    processor.image_size += 1
    places.add(place())
    model.vision_towers[0].config.mean = [0.1, 0.2, 0.3]
    places.add(place())
    with torch.no_grad():
        next(model.vision_towers[0].backbone.parameters()).view(-1)[0] += 1e-6
    places.add(place())
    assert len(places) == 5


def test_unknown_picture_and_broken_file_are_named(tmp_path):
    """If it failed, a missing or damaged file would end in an error from deep inside, or in somebody else's
    features.
    """
    model, processor = frozen_parts()
    features = PictureFeatures.of_model(model, processor, folder=tmp_path)
    with pytest.raises(
        FeatureError,
        match=r"expected features of picture [0-9a-f]{32}, found none; call fill with its post first",
    ):
        MMNERCollator(processor, features=features)([*ROWS])
    features.fill(ROWS)
    (path,) = features.frozen[0].store.folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(
        FeatureError, match=rf"{path.name}: expected a file of picture features, found .*; remove it"
    ):
        FeatureStore(path.parent)


def test_model_without_frozen_tower_is_refused():
    """If it failed, features of a tower that is trained would be kept."""
    model, processor = frozen_parts(tower={"frozen": False})
    with pytest.raises(ValueError, match="expected a model with a frozen picture encoder, found none"):
        PictureFeatures.of_model(model, processor)


# Filled by several, and by processes that are killed


def many_pictures(count: int) -> Dataset:
    small = SPECKLED.resize((20, 20))
    return rows_of([[encoded(small.rotate(7 * number, fillcolor=number % 256))] for number in range(count)])


def fill_slowly(folder: str, count: int) -> None:
    """Fill, with a file for each batch and a pause before it, in a process that may be killed."""
    from modeling_mmner.training import features as module

    torch.set_num_threads(1)  # as in the tests' own process: with more the last bits of a row may be others
    module._FILE_BYTES = 1  # type: ignore[misc]
    model, processor = frozen_parts()
    features = PictureFeatures.of_model(model, processor, folder=folder)
    add = FeatureStore.add

    def slow_add(store: FeatureStore, rows: Any) -> None:
        add(store, rows)
        (Path(folder) / f"computed-{os.getpid()}-{time.monotonic_ns()}").write_text(str(len(rows)))

    FeatureStore.add = slow_add  # type: ignore[method-assign]
    features.fill(many_pictures(count))


def all_rows(folder: Path) -> dict[str, torch.Tensor]:
    (place,) = [path for path in folder.iterdir() if path.is_dir()]
    store = FeatureStore(place)
    return {key: store[key] for key in store._file_of}


def test_two_processes_fill_one_folder_without_doing_it_twice(tmp_path):
    """If it failed, two runs that start together would compute everything twice, or read half a file."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill_slowly, args=(str(tmp_path / "both"), 40)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    computed = [int(path.read_text()) for path in (tmp_path / "both").glob("computed-*")]
    fill_slowly(str(tmp_path / "alone"), 40)
    both, alone = all_rows(tmp_path / "both"), all_rows(tmp_path / "alone")
    assert sum(computed) == len(alone) == 40
    assert both.keys() == alone.keys() and all(torch.equal(both[key], alone[key]) for key in alone)


def killed_while_filling(folder: Path, times: int, count: int) -> int:
    """Kill a filling process as often, each time when it has added a file; returns how many rows were there
    then at last.
    """
    rows = 0
    for _ in range(times):
        code = f"from tests.training.test_features import fill_slowly; fill_slowly({str(folder)!r}, {count})"
        before = len(list(folder.glob("computed-*")))
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(folder.glob("computed-*"))) == before:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        rows = len(all_rows(folder))
    return rows


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_fills_leave_no_wrong_row(times, tmp_path):
    """If it failed, a run that was killed would leave half rows, or rows that another run reads as other
    pictures'.
    """
    count = 40 * times
    assert 0 < killed_while_filling(tmp_path / "killed", times, count) < count
    (place,) = [path for path in (tmp_path / "killed").iterdir() if path.is_dir()]
    (place / "half.safetensors.1.partial").write_bytes(b"half of it")
    fill_slowly(str(tmp_path / "killed"), count)
    fill_slowly(str(tmp_path / "alone"), count)
    killed, alone = all_rows(tmp_path / "killed"), all_rows(tmp_path / "alone")
    assert killed.keys() == alone.keys() and all(torch.equal(killed[key], alone[key]) for key in alone)
    assert not list(place.glob("*.partial"))


# In training


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Recipe, list[dict[str, Any]], list[int]]:
    """Three runs on the same corpus: one fills the features, one reads them, one keeps none. Returns the
    folder, the second's recipe, the runs' metrics, and how often weights were read in each."""
    folder = tmp_path_factory.mktemp("kept")
    write_corpus(folder)
    torch.manual_seed(0)
    backbone = timm.create_model(TOWER["backbone"], num_classes=0, **TOWER["backbone_args"])
    save_file(backbone.state_dict(), folder / "tower.safetensors")
    tower = TOWER | {"pretrained": True, "checkpoint": str(folder / "tower.safetensors")}
    metrics, reads = [], []
    load_tower = run_features.load_tower
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            run_features, "load_tower", lambda *given: [reads.append(len(metrics)), load_tower(*given)]
        )
        for number, cache in enumerate([str(folder / "features"), str(folder / "features"), "off"]):
            output = str(folder / f"output-{number}")
            recipe = small_recipe(folder, vision_towers=[tower], feature_cache=cache, output_dir=output)
            metrics.append(train_accelerate.train(recipe).to_dict())
    recipe = small_recipe(folder, vision_towers=[tower], feature_cache=str(folder / "features"))
    return folder, recipe, metrics, [reads.count(number) for number in range(3)]


def test_run_that_reads_equals_the_run_that_filled(trained):
    """If it failed, a run's result would depend on whether somebody had run it before."""
    _, _, (filled, read, _), _ = trained

    for metrics in (filled, read):
        metrics["history"] = [
            {key: value for key, value in epoch.items() if key != "seconds"} for epoch in metrics["history"]
        ]
    assert filled["history"] == read["history"] and filled["splits"] == read["splits"]


def test_run_with_kept_features_is_close_to_one_without(trained):
    """If it failed, more than the rounding of features would have changed."""
    _, _, (filled, _, off), _ = trained
    kept, computed = ([epoch["loss"] for epoch in metrics["history"]] for metrics in (filled, off))
    assert kept == pytest.approx(computed, rel=0.02)
    assert filled["model"] == off["model"]


def test_encoder_is_read_once_more_for_the_save_alone(trained):
    """If it failed, an encoder whose features are all there would take memory and time for nothing."""
    _, _, _, reads = trained
    assert reads == [2, 1, 0]  # to fill and to save; to save; and not by way of the features


def test_saved_model_computes_from_pixels(trained):
    """If it failed, a model trained on kept features would be saved without its picture encoder, or with a
    random one.
    """
    folder, _, _, _ = trained
    saved = [
        MMNERForTokenClassification.from_pretrained(folder / f"output-{number}" / "model")
        for number in (1, 2)
    ]
    states = [model.vision_towers[0].backbone.state_dict() for model in saved]
    assert states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )
    processor = MMNERProcessor.from_pretrained(folder / "output-1" / "model")
    features = PictureFeatures.of_model(saved[0].eval(), processor, folder=folder / "features")
    rows = load_corpus(small_recipe(folder).corpus).splits["test"]
    features.fill(rows)
    assert features.computed == 0, "the features of a saved model and of the run that made it are not shared"
    chosen = [row for row in rows if pictures_of(row)][:4]
    with torch.inference_mode():
        expected = saved[0](**MMNERCollator(processor)(chosen)).logits
        found = saved[0](**MMNERCollator(processor, features=features)(chosen)).logits
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


def test_recipe_does_not_learn_where_a_file_of_the_hub_is(trained, monkeypatch):
    """Regression: the file of weights in the Hub's cache became the recipe's checkpoint, and so went into
    metrics and cards, and `reproduce` took its own run for another one's."""
    folder, _, _, _ = trained
    monkeypatch.setattr(
        run_features, "try_to_load_from_cache", lambda *given: str(folder / "tower.safetensors")
    )
    tower = TOWER | {"pretrained": True}
    recipe = small_recipe(folder, vision_towers=[tower], feature_cache=str(folder / "features"))
    processor = build_processor(recipe, labels=["O", "B-PER"], posts=[WORDS])
    model = build_model(recipe, processor, with_frozen=False)
    kept = run_features.run_features(recipe, processor, model, Accelerator(cpu=True))
    assert len(kept.features.frozen[0].store) > 0 and not kept.encoders[0].is_loaded
    assert recipe == small_recipe(folder, vision_towers=[tower], feature_cache=str(folder / "features"))


def test_command_shows_and_clears(trained, capsys):
    """If it failed, nobody would know what is kept, or could be rid of it."""
    folder, _, _, _ = trained
    copy = folder / "copy"
    subprocess.run(["cp", "-r", folder / "features", copy], check=True)
    (copy / "mine.txt").write_text("not a feature")
    assert main(["features", "--feature_cache", str(copy)]) == 0
    shown = capsys.readouterr().out
    assert "resnet10t.c3_in1k, no: " in shown and " pictures, " in shown and f"MB in {copy}" in shown
    assert main(["features", "--feature_cache", str(copy), "--clear"]) == 0
    assert [path.name for path in copy.iterdir()] == ["mine.txt"]
    assert main(["features", "--feature_cache", "off"]) == 2
    assert "--feature_cache: expected a folder or auto, found off" in capsys.readouterr().err
