"""Picture features that are kept: the same as computed ones, whoever filled them."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, List
from datasets import Image as ImageFeature

import train_accelerate
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.evaluation.scores import ShownRows
from modeling_mmner.model import images_mmner
from modeling_mmner.model.images_mmner import PictureError, load_picture, pictures_of, square_pixels
from modeling_mmner.model.ready_features_mmner import unpacked
from modeling_mmner.model.vision_mmner import VisionTower
from modeling_mmner.training import assembly
from modeling_mmner.training import features as module
from modeling_mmner.training.assembly import build_model, build_processor
from modeling_mmner.training.collator import MMNERCollator
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.features import run_features, with_features
from tests.interrupted import frozen_tower
from tests.small_posts import GRADIENT, RED, SPECKLED, encoded
from tests.tiny import parts_of
from tests.training.test_training import TOWER, small_recipe, write_corpus

ROOT = Path(__file__).parents[2]
WORDS = ["Jordan", "posts", "from", "Paris"]
PICTURES = [encoded(picture) for picture in (SPECKLED, GRADIENT, RED, RED.rotate(90, expand=True))]


def rows_of(posts: list[list[bytes]]) -> Dataset:
    """A data set of posts with these pictures."""
    texts = Dataset.from_list([{"tokens": WORDS, "ner_tags": [1, 0, 0, 3]}] * len(posts))
    images = [[{"bytes": one, "path": None} for one in post] for post in posts]
    return texts.add_column("images", images, feature=List(ImageFeature(decode=False)))


ROWS = rows_of([[PICTURES[0]], [], [PICTURES[1], PICTURES[2]], [PICTURES[3]], [PICTURES[0]]])
SYSTEMS = {"one frozen tower": {"fusion": "cross-modal"}, "beside a trained one": {"fusion": "collaboration"}}
each_system = pytest.mark.parametrize("settings", SYSTEMS.values(), ids=SYSTEMS)


def frozen_parts(**settings: Any) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
    """A tiny model, with a frozen tower at least, and its processor."""
    return parts_of({"fusion": "cross-modal"} | settings, posts=[WORDS])


@contextmanager
def counted(owner: Any, name: str) -> Iterator[list[Any]]:
    """The last arguments of the calls of a function while the block runs."""
    calls, function = [], getattr(owner, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, lambda *given: [calls.append(given[-1]), function(*given)][1])
        yield calls


def bits(content: bytes) -> torch.Tensor:
    return torch.from_numpy(unpacked(content).copy()).view(torch.bfloat16)


@each_system
def test_kept_features_are_computed_ones_rounded(settings, tmp_path):
    """If it failed, a row would be another picture's, or depend on which pictures were computed with it."""
    model, processor = frozen_parts(**settings)
    rows = with_features(ROWS, model, processor, folder=tmp_path)
    for number, tower in enumerate(model.vision_towers):
        column = rows[f"image_features_{number}"]
        if not tower.frozen:
            assert column[:] == [None] * len(ROWS)
            continue
        for row, kept in zip(ROWS, column, strict=True):
            assert len(kept) == len(row["images"])
            for picture, content in zip(row["images"], kept, strict=True):
                pixels = torch.from_numpy(square_pixels(load_picture(picture), processor.image_size).copy())
                with torch.inference_mode():
                    expected = tower.features(pixels[None])[0]
                expected = expected.mean(0, keepdim=True) if tower.pooled else expected
                assert torch.equal(bits(content), expected.bfloat16())


def rounded_features(tower: VisionTower, pictures: torch.Tensor) -> torch.Tensor:
    """What is kept of pictures, in place of all that a tower computes."""
    computed = VisionTower.features(tower, pictures)
    return (computed.mean(1, keepdim=True) if tower.pooled else computed).bfloat16().float()


@each_system
@pytest.mark.parametrize("mode", ["true", "shuffled", "none"])
@torch.inference_mode()
def test_model_on_kept_features_equals_model_on_pixels(mode, settings, tmp_path, monkeypatch):
    """If it failed, a post would be read with another's features, or with those of a withheld picture."""
    model, processor = frozen_parts(**settings)
    rows = with_features(ROWS, model, processor, folder=tmp_path)
    collate = MMNERCollator(processor)
    found = model(**collate([*ShownRows(rows, mode)]))
    for tower in model.vision_towers:
        if tower.frozen:
            monkeypatch.setattr(tower, "features", partial(rounded_features, tower))
    expected = model(**collate([*ShownRows(ROWS, mode)]))
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.loss, expected.loss)
    other = model(**collate([*ShownRows(ROWS, "true" if mode == "none" else "none")]))
    assert (found.logits - other.logits).abs().max() > 0.01, "the pictures make no difference"


def test_nothing_stale_is_served(tmp_path):
    """If it failed, features of other weights, sizes or precisions would be read, or computed again."""
    model, processor = frozen_parts()

    def new_files(rows: Dataset = ROWS, **options: Any) -> int:
        before = {*tmp_path.glob("*.arrow")}
        with_features(rows, model, processor, folder=tmp_path, **options)
        return len({*tmp_path.glob("*.arrow")} - before)

    assert new_files() == 1 and new_files() == 0
    assert new_files(bf16=True) == 1
    assert new_files(ROWS.select([1, 0, 2, 3, 4])) == 1
    processor.image_size += 1
    assert new_files() == 1
    model.vision_towers[0].config.mean = [0.1, 0.2, 0.3]
    assert new_files() == 1
    with torch.no_grad():
        next(model.vision_towers[0].backbone.parameters()).view(-1)[0] += 1e-6
    assert new_files() == 1


def test_broken_picture_is_named(tmp_path):
    """If it failed, a post whose picture cannot be read would get another's features."""
    model, processor = frozen_parts()
    rows = with_features(rows_of([[b"no picture", PICTURES[0]]]), model, processor, folder=tmp_path)
    with pytest.raises(PictureError, match="expected those of 2 pictures in the row, found 1"):
        MMNERCollator(processor)([*rows])


def a_bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [a_bit_flipped, lambda content: content[:-7], lambda content: b""], ids=["bit", "end", "all"]
)
def test_damaged_file_is_said_and_made_again(tmp_path, capsys, damage):
    """Regression: features with a flipped bit were taken, and another model trained than before."""
    model, processor = frozen_parts()

    def features() -> list[list[bytes]]:
        return with_features(ROWS, model, processor, folder=tmp_path)["image_features_0"][:]

    expected = features()
    (path,) = tmp_path.glob("*.arrow")
    whole = path.read_bytes()
    said = f"{path}: expected the SHA-256 noted beside it, found another; made again\n"
    assert features() == expected and capsys.readouterr().out == ""
    path.write_bytes(damage(whole))
    assert features() == expected and capsys.readouterr().out == said
    assert path.read_bytes() == whole
    path.with_suffix(".sha256").unlink()  # as files are of which nobody knows who has made them
    assert features() == expected and capsys.readouterr().out == said
    assert features() == expected and capsys.readouterr().out == ""


def test_model_without_frozen_tower_is_refused():
    """If it failed, features of a tower that is trained would be kept."""
    model, processor = frozen_parts(tower={"frozen": False})
    with pytest.raises(ValueError, match="expected a model with a frozen picture encoder, found none"):
        with_features(ROWS, model, processor)


# Filled by several, and by processes that are killed


def fill(folder: str, count: int) -> list[list[bytes]]:
    """Fill with small files; the number of batches that were run is written at the end."""
    torch.set_num_threads(1)  # as in the tests' own process: with more the last bits of a row may be others
    model, processor = frozen_parts()
    small = SPECKLED.resize((20, 20))
    pictures = [encoded(small.rotate(7 * number, fillcolor=number % 256)) for number in range(count)]
    Path(folder).mkdir(exist_ok=True)
    with counted(VisionTower, "kept_features") as calls, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FILE_POSTS", 4)
        rows = with_features(rows_of([[one] for one in pictures]), model, processor, folder=folder)
    (Path(folder) / f"{time.monotonic_ns()}.calls").write_text(str(len(calls)))
    return rows["image_features_0"][:]


def filling(folder: Path, count: int) -> subprocess.Popen[bytes]:
    """A process that fills."""
    code = f"from tests.training.test_features import fill; fill({str(folder)!r}, {count})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_two_processes_fill_one_folder_without_doing_it_twice(tmp_path):
    """If it failed, two runs that start together would compute everything twice, or read half a file."""
    folder = tmp_path / "both"
    for process in [filling(folder, 40), filling(folder, 40)]:
        assert process.wait() == 0
    assert (
        sum(int(path.read_text()) for path in folder.glob("*.calls")) == 10 == len([*folder.glob("*.arrow")])
    )
    assert fill(str(folder), 40) == fill(str(tmp_path / "alone"), 40)


@pytest.mark.slow
def test_killed_fills_leave_no_wrong_row(tmp_path):
    """If it failed, a killed run would leave half rows, or lose more than the file that it was at."""
    folder, times, count = tmp_path / "killed", 8, 480
    whole = "[0-9a-f]*.arrow"  # a half one is called tmp...
    for _ in range(times):
        before = len([*folder.glob(whole)])
        process = filling(folder, count)
        while process.poll() is None and len([*folder.glob(whole)]) == before:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = len([*folder.glob(whole)])
    assert 0 < kept < count / 4 and not [*folder.glob("*.calls")]
    (folder / "tmphalf").write_bytes(b"half of it")
    assert fill(str(folder), count) == fill(str(tmp_path / "alone"), count)
    (calls,) = folder.glob("*.calls")
    assert int(calls.read_text()) == count / 4 - kept and not [*folder.glob("tmp*")]


# In training


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Any]:
    """Four runs on a corpus: one fills the features, one reads them, one has another seed and those
    training posts that are test posts too, one keeps none; and what was counted in each."""
    folder = tmp_path_factory.mktemp("kept")
    write_corpus(folder)
    test_posts = (folder / "test.txt").read_text(encoding="utf-8").split("\n\n")
    train = (folder / "train.txt").read_text(encoding="utf-8")
    (folder / "train.txt").write_text("\n\n".join([*test_posts[:3], train]), encoding="utf-8")
    same = {"vision_towers": [frozen_tower(folder)], "feature_cache": str(folder / "features")}
    settings = [same, same, same | {"seed": 2, "exclude_overlap": False}, same | {"feature_cache": "off"}]
    recipes = [
        small_recipe(folder, output_dir=str(folder / f"output-{number}"), **own)
        for number, own in enumerate(settings)
    ]
    metrics, loads, computed, opened = [], [], [], []
    fit = train_accelerate.fit

    def counted_fit(*given: Any, **named: Any) -> Any:
        with counted(images_mmner, "_decoded") as calls:
            found = fit(*given, **named)
        opened.append(len(calls))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_accelerate, "fit", counted_fit)
        for recipe in recipes:
            with counted(module, "load_tower") as reads, counted(VisionTower, "kept_features") as runs:
                metrics.append(train_accelerate.train(recipe).to_dict())
            loads.append(len(reads))
            computed.append(len(runs))
    counts = {"loads": loads, "computed": computed, "opened": opened}
    return {"folder": folder, "recipes": recipes, "metrics": metrics} | counts


def test_run_that_reads_equals_the_run_that_filled(trained):
    """If it failed, a run's result would depend on whether somebody had run it before."""
    filled, read = trained["metrics"][:2]
    for metrics in (filled, read):
        metrics["history"] = [
            {key: value for key, value in epoch.items() if key != "seconds"} for epoch in metrics["history"]
        ]
    assert filled["history"] == read["history"] and filled["splits"] == read["splits"]


def test_second_run_and_second_seed_compute_nothing_again(trained):
    """If it failed, an encoder whose features are all there would take memory and time for nothing."""
    assert trained["loads"] == [2, 1, 1, 0]  # to fill and to save; to save; and not by way of the features
    assert trained["computed"][0] > 0 and trained["computed"][1:] == [0, 0, 0]
    assert trained["opened"][:3] == [0, 0, 0] and trained["opened"][3] > 0


def test_posts_left_out_leave_the_others_their_features(trained):
    """If it failed, leaving posts out would shift features to other posts."""
    whole, cut = (load_corpus(trained["recipes"][number].corpus) for number in (2, 0))
    recipe, rows = trained["recipes"][0], cut.splits["train"]
    assert 0 < len(rows) < len(whole.splits["train"])
    processor = build_processor(recipe, labels=cut.labels, posts=rows["tokens"])
    model = build_model(recipe, processor)
    expected = with_features(rows, model, processor, folder=trained["folder"] / "other")
    kept = run_features(recipe, processor, model, Accelerator(cpu=True))
    kept.add_to(cut)
    assert cut.splits["train"]["image_features_0"][:] == expected["image_features_0"][:]


def test_saved_model_computes_from_pixels(trained):
    """If it failed, a model would be saved without its picture encoder, or with a random one."""
    folder = trained["folder"]
    kept, off = (
        MMNERForTokenClassification.from_pretrained(folder / f"output-{number}" / "model").eval()
        for number in (1, 3)
    )
    states = [model.vision_towers[0].backbone.state_dict() for model in (kept, off)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    processor = MMNERProcessor.from_pretrained(folder / "output-1" / "model")
    rows = load_corpus(trained["recipes"][0].corpus).splits["test"]
    with counted(VisionTower, "kept_features") as calls:
        ready = with_features(rows, kept, processor, folder=folder / "features")
    assert not calls, "the features of a saved model and of the run that made it are not shared"
    chosen = [place for place, row in enumerate(rows) if pictures_of(row)][:4]
    collate = MMNERCollator(processor)
    with torch.inference_mode():
        expected, found = (kept(**collate([*some.select(chosen)])).logits for some in (rows, ready))
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


def test_recipe_does_not_learn_where_a_file_of_the_hub_is(trained, monkeypatch):
    """Regression: a file in the Hub's cache became the recipe's checkpoint, and went into metrics."""
    folder = trained["folder"]
    monkeypatch.setattr(assembly, "try_to_load_from_cache", lambda *given: str(folder / "tower.safetensors"))
    settings = {"vision_towers": [TOWER | {"pretrained": True}], "feature_cache": str(folder / "features")}
    recipe = small_recipe(folder, **settings)
    processor = build_processor(recipe, labels=["O", "B-PER"], posts=[WORDS])
    kept = run_features(recipe, processor, build_model(recipe, processor, with_frozen=False), Accelerator())
    rows = load_corpus(recipe.corpus).splits["test"]
    kept.columns(rows, kept.bar(rows))
    kept.put_encoders_back()
    assert recipe == small_recipe(folder, **settings)
