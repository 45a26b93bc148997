"""Tests of the vision towers: which pictures they read, at what size, what they learn, and features made
beforehand.
"""

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from modeling_mmner import MMNERForTokenClassification, VisionTowerConfig
from modeling_mmner.model.vision_mmner import VisionTower
from modeling_mmner.training.assembly import build_model, build_processor
from modeling_mmner.training.recipes import load_recipe
from tests.tiny import (
    LABELS,
    SYSTEMS,
    TOWER,
    VIT,
    close,
    see,
    stir,
    tiny_batch,
    tiny_config,
    tiny_model,
    without,
)

SMALL = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}
# Each tower's settings and its number of regions of a picture of 64 x 64.
TOWERS = {
    "resnet": (TOWER, 4),
    "vit": ({"backbone": "vit_tiny_patch16_224", "backbone_args": SMALL, "image_size": 64}, 17),
    "swin": ({"backbone": "swin_tiny_patch4_window7_224", "backbone_args": SWIN, "image_size": 64}, 4),
}

each_system = pytest.mark.parametrize("settings", SYSTEMS.values(), ids=SYSTEMS)


def make_tower(**settings) -> VisionTower:
    torch.manual_seed(1)
    tower = VisionTower(VisionTowerConfig(**(TOWER | settings)))
    stir(tower)
    return tower.eval()


def frozen_model(settings: dict[str, Any]) -> MMNERForTokenClassification:
    """A tiny model none of whose towers learns."""
    return tiny_model(tiny_config(**{"tower": {"frozen": True}} | settings))


def features_of(model: MMNERForTokenClassification, batch: dict[str, Tensor]) -> list[Tensor]:
    """(B, N, M, C) of each tower: what a cache of frozen towers' regions would hold, made picture by
    picture.
    """
    pixels, mask = batch["pixel_values"].flatten(0, 1)[:, None], batch["image_mask"].flatten(0, 1)[:, None]
    regions = [see(tower, pixels, image_mask=mask)[0] for tower in model.vision_towers]
    return [part.unflatten(0, tuple(batch["image_mask"].shape)) for part in regions]


def with_features(batch: dict[str, Tensor], features: Tensor | list[Tensor]) -> dict[str, Tensor]:
    return without(batch, "pixel_values") | {"image_features": features}


@pytest.mark.parametrize("kind", TOWERS)
def test_regions_are_the_places_of_timm_s_last_map(kind):
    """If it failed, regions would be channels or mixtures of places."""
    settings, count = TOWERS[kind]
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    tower = make_tower(**settings, mean=mean, std=std)
    pixels = tiny_batch()["pixel_values"][:, :1]
    regions, region_mask = see(tower, pixels, image_mask=torch.ones(3, 1, dtype=torch.bool))
    assert regions.shape == (3, count, tower.channels)
    assert region_mask.shape == (3, count)
    assert region_mask.all()
    reference = timm.create_model(settings["backbone"], num_classes=0, **settings["backbone_args"]).eval()
    reference.load_state_dict(tower.backbone.timm_model.state_dict())
    for row in range(3):
        channels = [(pixels[row, 0, c] / 255 - mean[c]) / std[c] for c in range(3)]
        found = reference.forward_features(torch.stack(channels)[None])[0]
        if kind == "resnet":
            found = torch.stack([found[:, y, x] for y in range(2) for x in range(2)])
        elif kind == "swin":
            found = torch.stack([found[y, x] for y in range(2) for x in range(2)])
        close(regions[row], found)


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("frozen", [True, False])
def test_any_tower_runs_in_the_model_and_is_the_same_after_saving(kind, frozen, tmp_path):
    """If it failed, a backbone's unsaved buffers would be garbage after loading."""
    model, batch = tiny_model(vision_towers=[TOWERS[kind][0] | {"frozen": frozen}]), tiny_batch()
    model.save_pretrained(tmp_path)
    loaded = MMNERForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_frozen_tower_stays_as_it_was_pretrained():
    """If it failed, `train()` would move a frozen tower's batch-norm statistics or weights."""
    model, batch = tiny_model(), tiny_batch()
    tower = model.vision_towers[0]
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    model.train()
    assert tower.training and not any(module.training for module in tower.backbone.modules())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model(**batch).loss.backward()
    assert all(parameter.grad is None for parameter in tower.parameters())
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.state_dict().items())


def test_trained_tower_learns():
    """If it failed, fine-tuning a tower would leave it, or its batch-norm statistics, as they were."""
    model, batch = tiny_model(tower={"frozen": False}), tiny_batch()
    tower = model.vision_towers[0]
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    model.train()
    assert all(module.training for module in tower.modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**batch).loss.backward()
    assert all(parameter.grad.any() for parameter in tower.parameters())
    optimizer.step()
    same = {name for name, tensor in tower.state_dict().items() if torch.equal(tensor, before[name])}
    assert same == {"mean", "std"}


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_tower_is_still_frozen_after_loading(frozen, tmp_path):
    """Regression: loading made a frozen tower trainable, and DDP waited for its gradients."""
    tiny_model(tower={"frozen": frozen}).save_pretrained(tmp_path)
    model = MMNERForTokenClassification.from_pretrained(tmp_path)
    assert {parameter.requires_grad for parameter in model.vision_towers.parameters()} == {not frozen}
    others = [
        parameter for name, parameter in model.named_parameters() if not name.startswith("vision_towers")
    ]
    assert all(parameter.requires_grad for parameter in others)


def test_each_picture_stands_in_its_own_place():
    """If it failed, a post would see its neighbour's picture, or a missing picture would not be 0."""
    tower, batch = make_tower(), tiny_batch(pictures=(1, 0, 3))
    batch["image_mask"][2] = torch.tensor([True, False, True])  # a hole: the second could not be read
    regions, region_mask = see(tower, batch["pixel_values"], image_mask=batch["image_mask"])
    assert regions.shape == (3, 12, 32)
    for row in range(3):
        for place in range(3):
            part = slice(4 * place, 4 * place + 4)
            if batch["image_mask"][row, place]:
                picture = batch["pixel_values"][row, place][None, None]
                alone, _ = see(tower, picture, image_mask=torch.ones(1, 1, dtype=torch.bool))
                close(regions[row, part], alone[0])
                assert region_mask[row, part].all()
            else:
                assert regions[row, part].eq(0).all() and not region_mask[row, part].any()


def test_backbone_runs_on_existing_pictures_alone():
    """If it failed, missing pictures would cost time, or spoil the batch-norm statistics."""
    tower, batch, seen = make_tower(frozen=False), tiny_batch(), []
    tower.backbone.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    tower(batch["pixel_values"], image_mask=batch["image_mask"])
    regions, region_mask = see(tower, batch["pixel_values"], image_mask=torch.zeros(3, 2, dtype=torch.bool))
    assert seen == [3]
    assert regions.shape == (3, 0, 32) and region_mask.shape == (3, 0)


@each_system
def test_ready_made_features_equal_pixels_bit_for_bit(settings):
    """If it failed, training on cached picture features would not be training on the pictures."""
    model, batch = frozen_model(settings), tiny_batch()
    features = features_of(model, batch)
    cached, computed = model(**with_features(batch, features)), model(**batch)
    assert cached.loss == computed.loss
    assert torch.equal(cached.logits, computed.logits)
    assert torch.equal(cached.span_scores, computed.span_scores)
    if len(features) == 1:
        assert torch.equal(model(**with_features(batch, features[0])).logits, computed.logits)


@each_system
def test_not_a_number_in_features_of_missing_pictures_is_harmless(settings):
    """If it failed, uninitialised memory in a cache of features would reach the tags."""
    model, batch = frozen_model(settings), tiny_batch()
    features = features_of(model, batch)
    clean = model(**with_features(batch, features))
    missing = ~batch["image_mask"][..., None, None]
    output = model(**with_features(batch, [part.masked_fill(missing, float("nan")) for part in features]))
    assert torch.equal(output.logits, clean.logits) and torch.equal(output.loss, clean.loss)
    output.loss.backward()
    assert all(
        parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None
    )


def test_features_for_a_trained_tower_are_refused():
    """If it failed, a tower that the config trains would silently stay as it is."""
    model, batch = tiny_model(tower={"frozen": False}), tiny_batch()
    message = "image_features: expected pixel_values for a tower that is trained, found ready-made features"
    with pytest.raises(ValueError, match=message):
        model(**with_features(batch, features_of(model, batch)))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(3, 2, 4, 33), r"image_features: expected \(B, N, M, 32\), found \(3, 2, 4, 33\)"),
        (torch.zeros(3, 2, 32), r"image_features: expected \(B, N, M, 32\), found \(3, 2, 32\)"),
        ([torch.zeros(3, 2, 4, 32)] * 2, "image_features: expected one tensor for each of 1 towers, found 2"),
    ],
)
def test_features_of_another_tower_are_refused(features, message):
    """If it failed, a cache made with another backbone would end in a shape error deep in the fusion."""
    with pytest.raises(ValueError, match=message):
        tiny_model()(**with_features(tiny_batch(), features))


def test_pixels_and_features_at_once_are_refused():
    """If it failed, one of the two would be ignored in silence."""
    model, batch = tiny_model(), tiny_batch()
    with pytest.raises(ValueError, match="expected pixel_values or image_features, found both"):
        model(**batch, image_features=features_of(model, batch))


# Pooled towers, and several


@pytest.mark.parametrize("kind", TOWERS)
def test_pooled_tower_averages_the_pictures_that_are_there(kind):
    """If it failed, a missing picture would count as black, or only the first of several be read."""
    settings, count = TOWERS[kind]
    tower, batch = make_tower(**settings, pooled=True), tiny_batch((5, 3, 7, 2), (1, 0, 3, 2))
    batch["image_mask"][2] = torch.tensor([True, False, True])  # a hole: the second could not be read
    vectors, mask = see(tower, batch["pixel_values"], image_mask=batch["image_mask"])
    whole = make_tower(**settings)
    regions, _ = see(whole, batch["pixel_values"], image_mask=batch["image_mask"])
    for row, places in enumerate([[0], [], [0, 2], [0, 1]]):
        assert mask[row].item() == bool(places)
        if places:
            maps = [regions[row, place * count : (place + 1) * count] for place in places]
            expected = sum(part.mean(0) for part in maps) / len(maps)
            close(vectors[row, 0], expected)
        else:
            assert vectors[row].eq(0).all()


def test_pooled_tower_of_a_batch_without_pictures_gives_zeros_and_does_not_run():
    """If it failed, a batch of text alone would be the mean of no region, NaN."""
    tower, seen = make_tower(pooled=True), []
    tower.backbone.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    for number in (0, 2):
        pixels = torch.zeros(3, number, 3, 64, 64, dtype=torch.uint8)
        vectors, mask = see(tower, pixels, image_mask=torch.zeros(3, number, dtype=torch.bool))
        assert vectors.shape == (3, 1, 32) and vectors.eq(0).all() and mask.tolist() == [[False]] * 3
    assert seen == []


def test_two_towers_see_one_picture_each_at_its_size_and_in_its_normalisation():
    """If it failed, the second tower would see the first one's pixels."""
    small = VIT | {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    large = TOWER | {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "pooled": True}
    model = tiny_model(fusion="collaboration", vision_towers=[small, large])
    batch = tiny_batch(pictures=(1, 1, 1))
    batch["pixel_values"] = torch.randint(0, 256, (3, 1, 3, 48, 80), dtype=torch.uint8)
    before = batch["pixel_values"].clone()
    regions = model.encode(**batch).regions
    assert torch.equal(batch["pixel_values"], before)
    assert [tuple(part.states.shape) for part in regions] == [(3, 5, 32), (3, 1, 32)]
    for tower, settings, part in zip(model.vision_towers, (small, large), regions, strict=True):
        found, mask = part.states, part.mask
        size = [settings["image_size"]] * 2
        square = resize(
            before[:, 0] / 255, size, interpolation=InterpolationMode.BICUBIC, antialias=True
        ).clamp(0, 1)
        channels = [(square[:, c] - settings["mean"][c]) / settings["std"][c] for c in range(3)]
        features = tower.backbone.timm_model.forward_features(torch.stack(channels, dim=1))
        expected = features.mean((2, 3))[:, None] if features.dim() == 4 else features
        close(found, expected, tolerance=1e-4)
        assert mask.all()


def test_picture_of_another_size_is_read_in_half_precision(tmp_path):
    """Regression: a model in bfloat16 stopped at the first picture to be resized."""
    tiny_model().save_pretrained(tmp_path)
    half = MMNERForTokenClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    batch = tiny_batch(size=48)
    expected = MMNERForTokenClassification.from_pretrained(tmp_path)(**batch).logits
    close(half(**batch).logits, expected, tolerance=0.05)


# VGG, whose layers after the last map hold most of its weights; `mlp_ratio` makes them small here

VGG: dict[str, Any] = {"backbone": "vgg11", "backbone_args": {"mlp_ratio": 0.001}, "image_size": 64}


@pytest.mark.parametrize("size", [64, 96])
def test_tower_of_vgg_ends_with_its_last_map(size):
    """If it failed, AdaCAN's picture encoder would carry 400 MB that nothing reads."""
    torch.manual_seed(1)
    tower = VisionTower(VisionTowerConfig(**VGG | {"image_size": size})).eval()
    timm_model = tower.backbone.timm_model
    assert isinstance(timm_model.pre_logits, nn.Identity)
    assert isinstance(timm_model.features[-1], nn.MaxPool2d)
    assert all(name.startswith("features.") for name in timm_model.state_dict())
    pixels = torch.randint(0, 256, (2, 1, 3, size, size), dtype=torch.uint8)
    regions, mask = see(tower, pixels, image_mask=torch.tensor([[True], [False]]))
    side = size // 32
    assert regions.shape == (2, side * side, 512)
    assert tower.channels == 512
    assert mask.tolist() == [[True] * side**2, [False] * side**2]
    expected = timm_model.features((pixels[0] / 255 - tower.mean) / tower.std)[0]
    for place in range(side * side):
        close(regions[0, place], expected[:, place // side, place % side])
    assert regions[0].std() > 0.01


def test_weights_of_a_whole_vgg_are_loaded_into_its_tower(tmp_path):
    """If it failed, pretrained weights with the layers that the tower leaves out would be refused."""
    torch.manual_seed(2)
    whole = timm.create_model("vgg11", num_classes=1000, **VGG["backbone_args"]).eval()
    saved = whole.state_dict()
    assert {"pre_logits.fc1.weight", "head.fc.weight"} < saved.keys()
    save_file(saved, tmp_path / "vgg.safetensors")
    settings = {"vision_towers": [VGG], "vision_checkpoint": str(tmp_path / "vgg.safetensors")}
    recipe = load_recipe("adacan-cnn-bilstm-crf", settings)
    processor = build_processor(recipe, labels=LABELS, posts=[["Jordan", "posts"]])
    model = build_model(recipe, processor).eval()
    (tower,) = model.vision_towers
    found = tower.backbone.timm_model.state_dict()
    assert found.keys() == {name for name in saved if name.startswith("features.")}
    assert all(torch.equal(tensor, saved[name]) for name, tensor in found.items())
    assert tower.config.backbone == "vgg11.tv_in1k" and processor.image_size == 64
    batch = tiny_batch(pictures=(1, 0, 1)) | {"input_ids": torch.ones(3, 20, dtype=torch.long)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    states = model.encode(**batch).regions[0].states
    expected = whole.forward_features((batch["pixel_values"][2] / 255 - tower.mean) / tower.std)
    close(states[2], expected[0].flatten(1).T, tolerance=1e-4)
    model.save_pretrained(tmp_path / "model")
    loaded = MMNERForTokenClassification.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, atol=1e-6, rtol=1e-5)


def test_whole_map_may_be_given_to_a_pooled_tower():
    """If it failed, a cache of regions would have to be made anew for a system that pools them."""
    model = frozen_model({"fusion": "collaboration", "vision_towers": [TOWER | {"pooled": True}]})
    batch = tiny_batch()
    features = features_of(frozen_model({"fusion": "cross-modal"}), batch)
    model.vision_towers[0].load_state_dict(
        frozen_model({"fusion": "cross-modal"}).vision_towers[0].state_dict()
    )
    assert features[0].shape == (3, 2, 4, 32)
    assert torch.equal(model(**with_features(batch, features)).logits, model(**batch).logits)


@each_system
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_stored_in_half_precision_are_read(settings, dtype):
    """Regression: a cache in float16 ended in "mat1 and mat2 must have the same dtype"."""
    model, batch = frozen_model(settings), tiny_batch()
    features = [part.to(dtype) for part in features_of(model, batch)]
    expected = model(**with_features(batch, [part.float() for part in features]))
    assert torch.equal(model(**with_features(batch, features)).logits, expected.logits)
