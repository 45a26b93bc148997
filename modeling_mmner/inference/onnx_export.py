"""Trained model -> a folder that onnxruntime serves: emissions as an ONNX graph, CRF decoding beside it.

Notation: B texts, W words, L labels, S sub-tokens, V windows of texts, N pictures a post, M regions of a
picture, C channels.
"""

import copy
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxscript as onnxscript  # by which torch makes a graph
import torch
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from torch import Tensor, nn
from torch.export import Dim

from ..files import check_own_files, staged_folder
from ..model.context_mmner import Context, Regions, TextStates, masked_mean
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.parts_mmner import MAIN_HEAD
from ..model.processing_mmner import MMNERProcessor
from ..model.text_mmner import BiLSTM, WordTower
from ..model.vision_mmner import VisionTower
from . import onnx_decoding
from .loading import load_model
from .onnx_decoding import WINDOWS, existing_windows

_CRF = {"start": "start_transitions", "transitions": "transitions", "end": "end_transitions"}
TOLERANCE = 1e-4
"""Greatest difference between the emissions of the graph and of torch."""

# Posts to trace with, and posts of other numbers of texts, words and pictures to check with: text and number
# of pictures.
_TRACED = [("Look at this : Jordan !", 2), ("Greetings from Florence", 0), ("nothing to see", 1)]
_CHECKED = [
    [("Jordan", 1)],
    [("", 0), ("a picture of Paris and of the Seine at night", 0)],
    [("one , two", 3), ("", 1), ("Jordan posts from San Marino today", 0), ("!", 1)],
]


class Emissions(nn.Module):
    """A model's emissions, computed without shapes that depend on values, of which a graph cannot be made.

    The model picks out the windows and the pictures that exist as it goes. Here the windows come in picked
    out, and pictures that are missing are read, too, and what comes of them is masked.
    """

    def __init__(self, model: MMNERForTokenClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """The emissions (B, W, L).

        Args:
            input_ids, attention_mask: (V, S) the windows of all texts, S at most the encoder's window.
            word_windows, word_starts: (B, W) row and column of each word's first sub-token in `input_ids`.
            word_mask: (B, W) bool.
            token_type_ids: (V, S), for encoders that know types and processors that read contexts.
            character_ids: (B, W, Y), for text towers that read characters.
            pixel_values, image_mask: (B, N, 3, H, W) uint8 and (B, N) bool, for models with vision towers; N
                may be 0.
        """
        model, word_mask = self.model, inputs["word_mask"]
        firsts = inputs["word_windows"], inputs["word_starts"]
        if isinstance(model.text_tower, WordTower):
            ids, characters = inputs["input_ids"][firsts], inputs.get("character_ids")
            text = model.text_tower.read_words(ids, word_mask=word_mask, character_ids=characters)
        else:
            names = WINDOWS if model.text_tower.has_types else WINDOWS[:2]
            windows = {name: inputs[name] for name in names if name in inputs}
            words = model.text_tower.encoder(**windows).last_hidden_state[firsts]
            words = words.masked_fill(~word_mask[..., None], 0.0)
            text = TextStates(words, word_mask, masked_mean(words, word_mask))
        towers = model.vision_towers
        regions = [_regions(tower, inputs["pixel_values"], inputs["image_mask"]) for tower in towers]
        context = Context(text, regions, model.fusion(text, regions))
        return model.run_head(MAIN_HEAD, context)


class _GraphBiLSTM(nn.Module):
    """`BiLSTM` as the one operator that ONNX has for it, which torch's exporter would unroll."""

    def __init__(self, bilstm: BiLSTM) -> None:
        super().__init__()
        self.lstm = bilstm.lstm

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden, (batch, steps, _) = self.lstm.hidden_size, inputs.shape
        weights = [[_gates(values) for values in way] for way in self.lstm.all_weights]  # of both ways
        biases = [torch.cat([of_inputs, of_states]) for _, _, of_inputs, of_states in weights]
        of_inputs, of_states = (torch.stack([way[kind] for way in weights]) for kind in (0, 1))
        lengths = mask.sum(1).to(torch.int32)
        states, last, _ = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (inputs.transpose(0, 1), of_inputs, of_states, torch.stack(biases), lengths),
            {"hidden_size": hidden, "direction": "bidirectional"},
            dtypes=(inputs.dtype,) * 3,
            shapes=((steps, 2, batch, hidden), (2, batch, hidden), (2, batch, hidden)),
            version=14,
        )
        return states.permute(2, 0, 1, 3).flatten(2), last.transpose(0, 1).flatten(1)


def _gates(weight: Tensor) -> Tensor:
    """The gates of an LSTM in ONNX's order: input, output, forget, cell; torch has output last."""
    into, forget, cell, out = weight.chunk(4)
    return torch.cat([into, out, forget, cell])


def _regions(tower: VisionTower, pixel_values: Tensor, image_mask: Tensor) -> Regions:
    """As `VisionTower.forward`, of all places for pictures and one more that is always empty: without it,
    whether a post has a picture would be asked of no places at all where N is 0, and
    onnxruntime, for which `any` is a maximum of integers, would answer yes.
    """
    features = tower.features(pixel_values.flatten(0, 1))
    features = features.unflatten(0, image_mask.shape)  # shape: (B, N, M, C)
    padded = nn.functional.pad(features, (0, 0, 0, 0, 0, 1))
    return tower.regions_of_posts(padded, nn.functional.pad(image_mask, (0, 1)))


def export_onnx(model_id: str, output_dir: str | Path, *, int8: bool = False) -> float:
    """Export a trained model, in float32, and check the graph in onnxruntime against torch.

    Args:
        model_id: folder or Hub id of a trained model.
        output_dir: new folder, which gets ``model.onnx``, ``decoding.json`` (labels, CRF),
            ``onnx_decoding.py`` and the processor's files. It is made only if the graph computes the same.
        int8: then let linear layers compute in 8-bit integers: smaller, faster on most CPUs, and no longer
            the same to the last digit. Inputs are rounded by batch, so scores depend a little on the others.

    Returns:
        how far the graph's emissions are from torch's at most, over made-up posts.

    Raises:
        ValueError: the model cannot be traced, its folder has links that lead out, or the graph's emissions
            are not torch's.
        FileExistsError: the folder is there already.
        OSError: there is no such model.
    """
    check_own_files(model_id)  # the processor's files are written again, whatever was in them
    with staged_folder(output_dir) as folder:
        model, processor = load_model(model_id, device="cpu", dtype="float32")
        _graph(model, processor).save(folder / "model.onnx")
        crf = {name: getattr(model.crf, own).tolist() for name, own in _CRF.items()}
        decoding = json.dumps({"labels": model.config.labels, "crf": crf}, indent=1)
        (folder / "decoding.json").write_text(decoding, encoding="utf-8")
        shutil.copyfile(onnx_decoding.__file__, folder / "onnx_decoding.py")
        processor.save_pretrained(folder)
        difference = _difference(model, processor, folder)
        if not difference <= TOLERANCE:
            expected = f"expected emissions of the exported graph within {TOLERANCE} of torch's"
            found = f"found a difference of {difference:.1e}; no folder was made"
            raise ValueError(f"{model_id}: {expected}, {found}")
        if int8:
            _quantize(folder / "model.onnx")
            difference = _difference(model, processor, folder)
    return difference


def _quantize(graph: Path) -> None:
    """Let products with a graph's own weights compute in 8-bit integers.

    Weights have 7 bits: CPUs without instructions for products of bytes (VNNI) add two of them in 16 bits,
    which larger ones would overflow without a word.
    """
    model = onnx.load(graph)
    add_pre_process_metadata(model)  # or it logs advice that nobody here can act on
    linear = ["MatMul", "Gemm"]
    quantize_dynamic(model, graph, op_types_to_quantize=linear, per_channel=True, reduce_range=True)


def _graph(model: MMNERForTokenClassification, processor: MMNERProcessor) -> torch.onnx.ONNXProgram:
    """The graph of the emissions, whose every axis but those of a picture may be of any size."""
    posts = _inputs(processor, _TRACED)
    inputs = posts | existing_windows(posts)
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items() if values.size}
    axes = {name: range(2 if name == "pixel_values" else tensor.ndim) for name, tensor in tensors.items()}
    shapes = {name: dict.fromkeys(own, Dim.DYNAMIC) for name, own in axes.items()}
    try:
        # What the exporter has to say, of names of axes for example, nobody here can act on.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # Not in one step: `torch.onnx.export` itself would silently fix an axis whose length the model
            # takes by `len`.
            traced = Emissions(copy.deepcopy(model))
            for name, part in [*traced.named_modules()]:
                if isinstance(part, BiLSTM):
                    traced.set_submodule(name, _GraphBiLSTM(part))
            program = torch.export.export(traced, (tensors,), dynamic_shapes=(shapes,))
            graph = torch.onnx.export(program, input_names=[*axes], output_names=["emissions"], verbose=False)
    except Exception as error:  # torch raises errors of many kinds that have no base of their own
        backbones = [tower["backbone"] for tower in model.config.vision_towers]
        found = f"found one with {', '.join([type(model.text_tower).__name__, *backbones])}"
        reason = str(error).partition("\n")[0]
        raise ValueError(f"expected a model of which torch can make a graph, {found}: {reason}") from error
    assert graph is not None  # as it is only where a file is named
    return graph


@torch.inference_mode()
def _difference(model: MMNERForTokenClassification, processor: MMNERProcessor, folder: Path) -> float:
    """Greatest difference of the exported emissions from torch's, over batches of other sizes."""
    exported, found = onnx_decoding.load(folder), []
    for posts in _CHECKED:
        inputs = _inputs(processor, posts)
        expected = model(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits.numpy()
        found.append(np.abs(exported(**inputs)["logits"] - expected).max())
    return float(np.max(found))


def _inputs(processor: MMNERProcessor, posts: list[tuple[str, int]]) -> dict[str, np.ndarray]:
    """The model's inputs for texts with a number of made-up pictures each."""
    random, size = np.random.default_rng(0), processor.image_size or 1
    pictures = [list(random.integers(256, size=(count, size, size, 3), dtype=np.uint8)) for _, count in posts]
    texts = [text for text, _ in posts]
    reads_contexts = processor.context_window is not None
    contexts = [text if count % 2 else None for text, count in posts] if reads_contexts else None
    return dict(processor(texts, images=pictures, context=contexts, return_tensors="np"))
