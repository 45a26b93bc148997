"""Tests of the exported folder: onnxruntime and numpy against torch, and a process that has no torch."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor, load
from modeling_mmner.inference import loading, onnx_decoding, onnx_export
from modeling_mmner.inference.loading import load_predictor
from modeling_mmner.inference.onnx_decoding import ExportedModel, existing_windows
from modeling_mmner.inference.onnx_export import export_onnx
from modeling_mmner.model.crf_mmner import CRF
from tests.elsewhere import run_elsewhere
from tests.shared_data import SENTENCES, bpe_tokenizer, property_test
from tests.small_posts import small_parts
from tests.tiny import LABELS, SYSTEMS, parts_of, ready_model, stir

# MLMNER reads short windows; 2M-NER is saved in half precision, and its ViT sees pictures of another size
# than the processor's. A model that reads contexts is MLMNER in longer windows. GVATT reads characters by a
# BiLSTM and has a second one over the words, AdaCAN reads characters by a CNN; neither has windows.
SETTINGS = {
    "mlmner": SYSTEMS["mlmner"],
    "2m-ner": SYSTEMS["2m-ner"],
    "text-only": {"fusion": "text-only"},
    "context": {"fusion": "cross-modal"},
    "gvatt": SYSTEMS["gvatt"],
    "adacan": SYSTEMS["adacan"],
}
HALF_PRECISION = "2m-ner"


def systems_by_name(*names: str) -> list:
    """Systems to test with; to export one with pictures takes seconds."""
    return [pytest.param(name, marks=[] if name == "text-only" else pytest.mark.slow) for name in names]


each_system = pytest.mark.parametrize("system", systems_by_name(*SETTINGS))
LABEL_SETS = {"typed": LABELS, "shuffled": ["B-LOC", "I-PER", "O", "I-LOC", "B-PER"], "bare": ["O", "B", "I"]}
TEXTS = ["Jordan posts from Paris !", "", "London . Santos @ Amazon in München", "El niño , Italie " * 30]


class Exported(NamedTuple):
    """A model in torch and its folder, its processor, the same exported and its folder, their difference."""

    model: MMNERForTokenClassification
    source: Path
    processor: MMNERProcessor
    exported: ExportedModel
    folder: Path
    difference: float


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    """A function that gives a system's model, exported once."""
    root, made = tmp_path_factory.mktemp("exported"), {}

    def export(system: str) -> Exported:
        if system not in made:
            source, folder = save_model(root / f"{system} in torch", system), root / system
            difference = export_onnx(str(source), folder)
            model = MMNERForTokenClassification.from_pretrained(source, dtype=torch.float32).eval()
            processor = MMNERProcessor.from_pretrained(folder)
            made[system] = Exported(model, source, processor, onnx_decoding.load(folder), folder, difference)
        return made[system]

    return export


def save_model(folder: Path, system: str) -> Path:
    if "text_tower" in SETTINGS[system]:
        for part in parts_of(SETTINGS[system], posts=SENTENCES, seed=1):
            part.save_pretrained(folder)
        return folder
    tokenizer = bpe_tokenizer()
    tokenizer.model_max_length = 16 if system == "mlmner" else 64
    model = ready_model(**SETTINGS[system], text={"vocab_size": len(tokenizer), "num_hidden_layers": 1})
    if system == HALF_PRECISION:
        model.bfloat16()
    model.save_pretrained(folder)
    size, window = 64 if model.vision_towers else None, 8 if system == "context" else None
    MMNERProcessor(tokenizer, labels=LABELS, image_size=size, context_window=window).save_pretrained(folder)
    return folder


def batch_of(
    processor: MMNERProcessor, lengths: tuple[int, ...], pictures: tuple[int, ...], *, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random words and pictures: how many each post has."""
    random = np.random.default_rng(seed)
    known = sorted({word for words in SENTENCES for word in words})
    texts = [[known[number] for number in random.integers(0, len(known), length)] for length in lengths]
    images = [list(random.integers(256, size=(count, 64, 64, 3), dtype=np.uint8)) for count in pictures]
    contexts = [" ".join(known[: number % 9]) for number in range(len(lengths))]
    return dict(processor(texts, images=images, context=contexts))


def as_arrays(batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in batch.items()}


def in_torch(model: MMNERForTokenClassification, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        output = model(**batch)
    return {name: output[name].numpy() for name in ("logits", "tags", "span_scores")}


# The graph


BATCHES = {
    "one word": ((1,), (1,)),
    "no pictures": ((4, 2), (0, 0)),
    "many pictures": ((2, 0, 9, 3, 3), (3, 1, 0, 2, 1)),
    "empty with pictures": ((0,), (2,)),
    "empty": ((0,), (0,)),
    "longer than the window": ((60, 1, 8, 0), (0, 1, 1, 0)),
}


@each_system
@pytest.mark.parametrize(("lengths", "pictures"), BATCHES.values(), ids=BATCHES)
def test_outputs_equal_torch(systems, system, lengths, pictures):
    """If it failed, an axis of the graph would be stuck at its traced size, or the exported model say
    something else.
    """
    exported = systems(system)
    batch = batch_of(exported.processor, lengths, pictures)
    expected, found = in_torch(exported.model, batch), exported.exported(**as_arrays(batch))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4, rtol=0)
    np.testing.assert_array_equal(found["tags"], expected["tags"])
    np.testing.assert_allclose(found["span_scores"], expected["span_scores"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("system", systems_by_name("mlmner", "2m-ner", "gvatt", "adacan"))
def test_pixels_of_missing_pictures_change_nothing(systems, system):
    """If it failed, whatever stands in the place of a missing picture would be seen."""
    exported = systems(system)
    batch = as_arrays(batch_of(exported.processor, (3, 5, 2), (1, 0, 2)))
    missing = ~batch["image_mask"]
    other = batch["pixel_values"].copy()
    other[missing] = 255 - other[missing]
    assert not np.array_equal(other, batch["pixel_values"])
    found = exported.exported(**batch | {"pixel_values": other})
    np.testing.assert_array_equal(found["logits"], exported.exported(**batch)["logits"])


@pytest.mark.parametrize("system", systems_by_name("gvatt", "adacan"))
@pytest.mark.parametrize(
    "texts", [[["", "Paris", "😀" * 40, "El niño"], [], ["", ""]], [["", ""], []]], ids=["some", "none"]
)
def test_words_without_characters_equal_torch(systems, system, texts):
    """If it failed, a word without a byte would be read as the word before it, or be a number out of
    nowhere.
    """
    exported = systems(system)
    batch = dict(exported.processor(texts))
    assert batch["character_ids"].flatten(1).any() == any(map(any, texts))
    found, expected = exported.exported(**as_arrays(batch)), in_torch(exported.model, batch)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4, rtol=0)


@each_system
def test_graph_is_one_valid_file(systems, system):
    """If it failed, the folder could not be moved as its parts say, or other runtimes refuse the graph."""
    graph = systems(system).folder / "model.onnx"
    assert not list(graph.parent.glob("*.data"))
    onnx.checker.check_model(graph, full_check=True)


# Entities


@each_system
def test_entities_equal_torch(systems, system):
    """If it failed, users of the exported folder would get other entities, offsets or scores, by hand or by
    `predict`.
    """
    exported = systems(system)
    pictures = [Image.linear_gradient("L"), None, [Image.radial_gradient("L")] * 2, None]
    inputs = dict(exported.processor(TEXTS, images=pictures, return_tensors="np"))
    outputs = in_torch(exported.model, {name: torch.from_numpy(array) for name, array in inputs.items()})
    expected = exported.processor.post_process_entities(outputs, text=TEXTS)
    by_hand = exported.processor.post_process_entities(exported.exported(**inputs), text=TEXTS)
    posts = [{"text": text, "images": image} for text, image in zip(TEXTS, pictures, strict=True)]
    predictor = load_predictor(str(exported.folder), batch_size=2)
    predicted = [found.entities for found in predictor.predict(posts)]
    assert sum(map(len, expected)) > 5, "hardly any entities to compare"
    ner = load(str(exported.folder), batch_size=2)
    assert [str(ner.show(post)) for post in posts] == str(ner.show(posts)).split("\n")
    for found in (by_hand, predicted, ner(posts)):
        for post, reference in zip(found, expected, strict=True):
            for entity, other in zip(post, reference, strict=True):
                assert entity == other | {"score": pytest.approx(other["score"], abs=1e-5)}


@each_system
def test_effects_equal_torch(systems, system):
    """If it failed, an exported model, which makes whole passes, would tell of other effects."""
    exported = systems(system)
    pictures = [Image.linear_gradient("L"), None, [Image.radial_gradient("L")] * 2, None]
    contexts = ["London" if system == "context" else None, None, None, "Italie"]
    rows = zip(TEXTS, pictures, contexts, strict=True)
    posts = [{"text": text, "images": images, "context": context} for text, images, context in rows]
    found = [
        load_predictor(str(folder), dtype="float32", device="cpu", batch_size=4, effects=True).predict(posts)
        for folder in (exported.folder, exported.source)
    ]
    for own, reference in zip(*found, strict=True):
        for entity, other in zip(own.entities, reference.entities, strict=True):
            for name in ("picture_effect", "context_effect"):
                assert entity[name] == (other[name] and pytest.approx(other[name], abs=1e-5))


# 8-bit integers


@pytest.mark.slow
@pytest.mark.parametrize("system", systems_by_name("mlmner", "2m-ner", "text-only"))
def test_integers_find_nearly_the_same(systems, tmp_path, system):
    """If it failed, `--int8` would change nothing, or find other entities than the trained model."""
    exported = systems(system)
    difference = export_onnx(str(exported.source), tmp_path / "int8", int8=True)
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8" / "model.onnx").graph.node}
    assert "MatMulInteger" in kinds and exported.difference < difference
    batch = batch_of(exported.processor, (9, 0, 40), (1, 0, 2))
    expected, found = in_torch(exported.model, batch), onnx_decoding.load(tmp_path / "int8")(**batch)
    words = batch["word_mask"].numpy()
    assert np.linalg.norm((found["logits"] - expected["logits"])[words]) < 0.05 * np.linalg.norm(
        expected["logits"][words]
    )
    assert (found["tags"] == expected["tags"])[words].mean() > 0.9
    model = str(tmp_path / "int8")
    (one,) = load_predictor(model).predict(["Jordan posts from Paris !"])
    assert one.error is None and len(one.tags) == 5


@pytest.mark.parametrize("options", [{"device": "cuda"}, {"dtype": "bfloat16"}], ids=str)
def test_an_exported_model_runs_as_it_was_exported(systems, options):
    """If it failed, an option would be passed over without a word."""
    folder = str(systems("text-only").folder)
    with pytest.raises(ValueError, match="expected --device cpu and no --dtype, found"):
        load_predictor(folder, **options)
    with pytest.raises(ValueError, match="expected a model that was trained with contexts"):
        load_predictor(folder, reads_contexts=True)


def test_what_a_damaged_export_lacks_is_named(systems, tmp_path, monkeypatch):
    """If it failed, half an export or a missing onnxruntime would end in a traceback."""
    folder = shutil.copytree(systems("text-only").folder, tmp_path / "folder")
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"model .*folder: expected .*, found InvalidProtobuf"):
        load_predictor(str(folder))
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"found none; pip install 'mmner\[onnx\]'"):
        load_predictor(str(folder))


ALONE = """
import json, sys
import numpy as np
import onnx_decoding
inputs = dict(np.load(sys.argv[2]))
np.savez(sys.argv[3], **onnx_decoding.load(sys.argv[1])(**inputs))
found = {name.partition(".")[0] for name in sys.modules}
assert not found & {"torch", "transformers", "modeling_mmner"}
"""


@pytest.mark.slow
def test_decoding_needs_numpy_and_onnxruntime_alone(systems, tmp_path):
    """If it failed, a server without torch could not run the exported folder."""
    exported = systems("mlmner")
    batch = as_arrays(batch_of(exported.processor, (5, 0, 40), (1, 0, 2)))
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(exported.folder / "onnx_decoding.py", alone)
    np.savez(tmp_path / "inputs.npz", **batch)
    blocked = ("torch", "transformers", "modeling_mmner", "dataset_scripts", "onnx", "onnxscript")
    run_elsewhere(
        ALONE, exported.folder, tmp_path / "inputs.npz", tmp_path / "found.npz", folder=alone, blocked=blocked
    )
    found, expected = np.load(tmp_path / "found.npz"), exported.exported(**batch)
    assert set(found.files) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-6, rtol=0)


# Decoding in numpy


def both_crfs(labels: list[str]) -> tuple[CRF, onnx_decoding.CRF]:
    """The same CRF in torch and in numpy."""
    torch.manual_seed(1)
    crf = CRF(labels)
    stir(crf, scale=1.0)
    parts = {"start": crf.start_transitions, "transitions": crf.transitions, "end": crf.end_transitions}
    return crf, onnx_decoding.CRF(labels, **{name: part.tolist() for name, part in parts.items()})


@property_test
@given(
    labels=st.sampled_from(sorted(LABEL_SETS)),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    padding=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_crf_equals_torch(labels, lengths, padding, seed):
    """If it failed, the exported model's tags or scores would not be its CRF's, for empty texts or padding
    for example.
    """
    ours, exported = both_crfs(LABEL_SETS[labels])
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths) + padding) < torch.tensor(lengths)[:, None]
    emissions = 3 * torch.randn(*mask.shape, ours.num_tags, generator=generator)
    emissions[~mask] = torch.nan
    tags = ours.decode_batch(emissions, mask=mask)
    found = exported.decode_batch(emissions.numpy(), mask=mask.numpy())
    np.testing.assert_array_equal(found, tags.numpy())
    scores = ours.span_scores(emissions, tags, mask=mask)
    with np.errstate(all="raise", under="ignore"):
        found_scores = exported.span_scores(emissions.numpy(), found, mask=mask.numpy())
    assert found.dtype == np.int64 and found_scores.dtype == np.float32
    np.testing.assert_allclose(found_scores, scores.numpy(), atol=2e-5, rtol=0)


def test_scores_of_a_long_text_are_exact():
    """If it failed, scores would lose digits with each word, as sums in float32 do."""
    _, crf = both_crfs(LABELS)
    mask = np.ones((1, 300), dtype=bool)
    # A constant for all labels of a word changes no probability. Emissions in 64ths keep all their bits
    # beside it.
    whole = np.random.default_rng(0).integers(-300, 300, size=(1, 300, len(LABELS)))
    emissions = whole.astype(np.float32) / 64
    tags = crf.decode_batch(emissions, mask=mask)
    scores = crf.span_scores(emissions, tags, mask=mask)
    assert (scores > 0.1).sum() > 50
    np.testing.assert_allclose(crf.span_scores(emissions + 512, tags, mask=mask), scores, atol=1e-6, rtol=0)


def test_crf_refuses_what_does_not_fit():
    """If it failed, a mask with a hole, or of numbers, would silently give wrong tags."""
    _, crf = both_crfs(LABELS)
    emissions, mask = np.zeros((2, 3, 5), np.float32), np.ones((2, 3), dtype=bool)
    hole = mask.copy()
    hole[0, 1] = False
    for wrong in (hole, mask.astype(int)):
        with pytest.raises(ValueError, match="mask: expected bool, each text's words first, then the pad"):
            crf.decode_batch(emissions, mask=wrong)


# Windows


@property_test
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_windows_that_exist_are_picked_out(counts, size, seed):
    """If it failed, words would take the state of another text's window, or empty windows be computed."""
    random = np.random.default_rng(seed)
    exists = np.arange(max(counts)) < np.array(counts)[:, None]
    ids = np.arange(exists.size * size).reshape(*exists.shape, size)
    starts = np.stack([random.integers(0, count * size, 5) for count in counts])
    mask = np.repeat(exists[..., None], size, axis=2).astype(int)
    found = existing_windows({"input_ids": ids, "attention_mask": mask, "word_starts": starts})
    assert found["input_ids"].shape == (sum(counts), size) and found["attention_mask"].all()
    expected = np.stack([row.ravel()[places] for row, places in zip(ids, starts, strict=True)])
    np.testing.assert_array_equal(found["input_ids"][found["word_windows"], found["word_starts"]], expected)


# The folder


def test_export_says_how_exact_it_is(systems):
    """If it failed, a user would not learn whether the exported model can be trusted, or not run it."""
    exported = systems("text-only")
    assert 0 <= exported.difference <= onnx_export.TOLERANCE
    expected = ["model.onnx", "decoding.json", "onnx_decoding.py", "processor_config.json", "tokenizer.json"]
    code = ["processing_mmner.py", "windows_mmner.py", "labels_mmner.py", "images_mmner.py", "posts_mmner.py"]
    assert {*expected, *code} <= {path.name for path in exported.folder.iterdir()}
    with pytest.raises(FileExistsError, match="expected a new or an empty folder, found something"):
        export_onnx(str(exported.source), exported.folder)


def refusal(model: Path, folder: Path) -> str:
    """What is said when an export is refused, which leaves nothing behind."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(ValueError) as error:
        export_onnx(str(model), folder)
    assert sorted(folder.parent.iterdir()) == before
    return str(error.value)


def test_links_out_of_a_model_s_folder_are_not_exported(tmp_path):
    """Regression: a chat template of the processor that was a link to a file elsewhere was read, and written
    into the exported folder.
    """
    model, processor = small_parts()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "key").write_text("SECRET")
    (tmp_path / "model" / "chat_template.jinja").symlink_to(tmp_path / "key")
    with pytest.raises(
        ValueError, match=r"chat_template\.jinja: expected a file of the folder .*, found none or"
    ):
        export_onnx(str(tmp_path / "model"), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_models_that_cannot_be_traced_are_named(systems, tmp_path, monkeypatch):
    """If it failed, an encoder that torch cannot trace would end in a traceback, or leave half a folder."""

    def fail(*_, **__):
        raise RuntimeError("cannot trace this\nand more")

    monkeypatch.setattr(torch.export, "export", fail)
    message = refusal(systems("text-only").source, tmp_path / "out")
    assert message.endswith(
        "of which torch can make a graph, found one with TransformerTower: cannot trace this"
    )


@pytest.mark.parametrize("difference", [0.5, float("nan")])
def test_wrong_graphs_are_not_kept(systems, tmp_path, monkeypatch, difference):
    """If it failed, a graph that computes something else would be handed out as the model."""
    stub = SimpleNamespace(save=lambda path: path.touch())
    monkeypatch.setattr(onnx_export, "_graph", lambda *_: stub)
    monkeypatch.setattr(onnx_export, "_difference", lambda *_: difference)
    message = refusal(systems("text-only").source, tmp_path / "out")
    assert f"within 0.0001 of torch's, found a difference of {difference:.1e}; no folder was made" in message


WITH_PROCESSOR = """
import json, sys
from transformers import AutoProcessor
from onnx_decoding import load
processor = AutoProcessor.from_pretrained(".", trust_remote_code=True)
texts = json.loads(sys.argv[1])
outputs = load(".")(**processor(texts, return_tensors="np"))
print(json.dumps(processor.post_process_entities(outputs, text=texts)))
"""


@pytest.mark.slow
def test_folder_needs_no_package(systems, tmp_path):
    """If it failed, the processor's code or settings would be missing from the folder, or the README's
    example not run.
    """
    exported = systems("mlmner")
    folder = shutil.copytree(exported.folder, tmp_path / "folder")
    found = json.loads(run_elsewhere(WITH_PROCESSOR, json.dumps(TEXTS), folder=folder).stdout)
    outputs = exported.exported(**exported.processor(TEXTS, return_tensors="np"))
    expected = exported.processor.post_process_entities(outputs, text=TEXTS)
    assert found == [
        [one | {"score": pytest.approx(one["score"], abs=1e-6)} for one in post] for post in expected
    ]
