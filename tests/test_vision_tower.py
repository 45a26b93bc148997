"""Tests of the vision towers: which pictures they read, at what size, what they learn, and features made beforehand."""

import pytest
import timm
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from modeling_mmner import MMNERForTokenClassification, VisionTowerConfig
from modeling_mmner.vision_mmner import VisionTower
from tests.tiny import TOWER, stir, tiny_batch, tiny_config, tiny_model

SMALL = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}
# Each tower's settings and its number of regions of a picture of 64 x 64.
TOWERS = {
    "resnet": (TOWER, 4),
    "vit": ({"backbone": "vit_tiny_patch16_224", "backbone_args": SMALL, "image_size": 64}, 17),
    "swin": ({"backbone": "swin_tiny_patch4_window7_224", "backbone_args": SWIN, "image_size": 64}, 4),
}


def make_tower(**settings) -> VisionTower:
    torch.manual_seed(1)
    tower = VisionTower(VisionTowerConfig(**(TOWER | settings)))
    stir(tower)
    return tower.eval()


def features_of(model: MMNERForTokenClassification, batch: dict[str, Tensor]) -> Tensor:
    """(B, N, R, C): what a cache of the frozen tower's regions would hold."""
    regions, _ = model.vision_towers[0](batch["pixel_values"], image_mask=batch["image_mask"])
    return regions.unflatten(1, (batch["image_mask"].shape[1], -1))


def with_features(batch: dict[str, Tensor], features: Tensor) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "pixel_values"} | {"image_features": features}


@pytest.mark.parametrize("kind", TOWERS)
def test_regions_are_the_places_of_timm_s_last_map(kind):
    """If it failed, regions would be channels or mixtures of places; Swin's maps, channels last, once came out so."""
    settings, count = TOWERS[kind]
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    tower = make_tower(**settings, mean=mean, std=std)
    pixels = tiny_batch()["pixel_values"][:, :1]
    regions, region_mask = tower(pixels, image_mask=torch.ones(3, 1, dtype=torch.bool))
    assert regions.shape == (3, count, tower.channels) and region_mask.shape == (3, count) and region_mask.all()
    reference = timm.create_model(settings["backbone"], num_classes=0, **settings["backbone_args"]).eval()
    reference.load_state_dict(tower.backbone.timm_model.state_dict())
    for row in range(3):
        channels = [(pixels[row, 0, c] / 255 - mean[c]) / std[c] for c in range(3)]
        found = reference.forward_features(torch.stack(channels)[None])[0]
        if kind == "resnet":
            found = torch.stack([found[:, y, x] for y in range(2) for x in range(2)])
        elif kind == "swin":
            found = torch.stack([found[y, x] for y in range(2) for x in range(2)])
        torch.testing.assert_close(regions[row], found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("frozen", [True, False])
def test_any_tower_runs_in_the_model_and_is_the_same_after_saving(kind, frozen, tmp_path):
    """If it failed, a backbone's unsaved buffers would be garbage after loading, or its regions would not fit the fusion."""
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
    """Regression: loading made a frozen tower trainable: optimizers held it, and DDP waited for its gradients."""
    tiny_model(tower={"frozen": frozen}).save_pretrained(tmp_path)
    model = MMNERForTokenClassification.from_pretrained(tmp_path)
    assert {parameter.requires_grad for parameter in model.vision_towers.parameters()} == {not frozen}
    others = [parameter for name, parameter in model.named_parameters() if not name.startswith("vision_towers")]
    assert all(parameter.requires_grad for parameter in others)


@pytest.mark.parametrize("size", [(50, 90), (32, 32), (64, 65)])
def test_picture_of_another_size_is_resized_to_the_tower_s_square(size):
    """If it failed, a picture would be cropped, or read at a size that the tower was not trained on."""
    tower, mask = make_tower(), torch.ones(1, 1, dtype=torch.bool)
    picture = torch.randint(0, 256, (1, 1, 3, *size), dtype=torch.uint8)
    square = resize(picture[0] / 255, [64, 64], interpolation=InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
    expected = tower.backbone.timm_model.forward_features((square - tower.mean) / tower.std).flatten(2).transpose(1, 2)
    regions, _ = tower(picture, image_mask=mask)
    torch.testing.assert_close(regions, expected, atol=1e-4, rtol=1e-4)


def test_picture_of_the_tower_s_size_is_not_resampled():
    """If it failed, a picture that fits would be blurred."""
    tower, mask = make_tower(), torch.ones(1, 1, dtype=torch.bool)
    picture = torch.randint(0, 256, (1, 1, 3, 64, 64), dtype=torch.uint8)
    expected = tower.backbone.timm_model.forward_features((picture[0] / 255 - tower.mean) / tower.std)
    assert torch.equal(tower(picture, image_mask=mask)[0], expected.flatten(2).transpose(1, 2))


def test_each_picture_stands_in_its_own_place():
    """If it failed, a post would see its neighbour's picture, or a missing picture would not be 0."""
    tower, batch = make_tower(), tiny_batch(pictures=(1, 0, 3))
    batch["image_mask"][2] = torch.tensor([True, False, True])  # a hole: the second could not be read
    regions, region_mask = tower(batch["pixel_values"], image_mask=batch["image_mask"])
    assert regions.shape == (3, 12, 32)
    for row in range(3):
        for place in range(3):
            part = slice(4 * place, 4 * place + 4)
            if batch["image_mask"][row, place]:
                picture = batch["pixel_values"][row, place][None, None]
                alone, _ = tower(picture, image_mask=torch.ones(1, 1, dtype=torch.bool))
                torch.testing.assert_close(regions[row, part], alone[0], atol=1e-5, rtol=1e-5)
                assert region_mask[row, part].all()
            else:
                assert regions[row, part].eq(0).all() and not region_mask[row, part].any()


def test_backbone_runs_on_existing_pictures_alone():
    """If it failed, missing pictures would cost time and, in a trained tower, spoil the batch-norm statistics."""
    tower, batch, seen = make_tower(frozen=False), tiny_batch(), []
    tower.backbone.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    tower(batch["pixel_values"], image_mask=batch["image_mask"])
    regions, region_mask = tower(batch["pixel_values"], image_mask=torch.zeros(3, 2, dtype=torch.bool))
    assert seen == [3]
    assert regions.shape == (3, 0, 32) and region_mask.shape == (3, 0)


def test_ready_made_features_equal_pixels_bit_for_bit():
    """If it failed, training on cached picture features would not be training on the pictures."""
    model, batch = tiny_model(), tiny_batch()
    features = with_features(batch, features_of(model, batch))
    cached, computed = model(**features), model(**batch)
    assert cached.loss == computed.loss
    assert torch.equal(cached.logits, computed.logits) and torch.equal(cached.span_scores, computed.span_scores)
    assert torch.equal(model(**with_features(batch, [features["image_features"]])).logits, computed.logits)


def test_not_a_number_in_features_of_missing_pictures_is_harmless():
    """If it failed, uninitialised memory in a cache of features would reach the tags."""
    model, batch = tiny_model(), tiny_batch()
    features = features_of(model, batch)
    clean = model(**with_features(batch, features))
    dirty = features.masked_fill(~batch["image_mask"][..., None, None], float("nan"))
    output = model(**with_features(batch, dirty))
    assert torch.equal(output.logits, clean.logits)
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_stored_in_half_precision_are_read(dtype):
    """Regression: a cache in float16 ended in "mat1 and mat2 must have the same dtype"."""
    model, batch = tiny_model(), tiny_batch()
    features = features_of(model, batch).to(dtype)
    expected = model(**with_features(batch, features.float()))
    assert torch.equal(model(**with_features(batch, features)).logits, expected.logits)


def test_features_for_a_trained_tower_are_refused():
    """If it failed, a tower that the config trains would silently stay as it is."""
    model, batch = tiny_model(tower={"frozen": False}), tiny_batch()
    message = "image_features: expected pixel_values for a tower that is trained, found ready-made features"
    with pytest.raises(ValueError, match=message):
        model(**with_features(batch, features_of(model, batch)))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(3, 2, 4, 33), r"image_features: expected \(B, N, R, 32\), found \(3, 2, 4, 33\)"),
        (torch.zeros(3, 2, 32), r"image_features: expected \(B, N, R, 32\), found \(3, 2, 32\)"),
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


def test_normalisation_is_that_of_the_config():
    """If it failed, a tower would normalise pixels with another backbone's mean."""
    tower = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    model = tiny_model(tiny_config(tower=tower))
    for name, values in tower.items():
        assert getattr(model.vision_towers[0], name).shape == (1, 3, 1, 1)
        torch.testing.assert_close(getattr(model.vision_towers[0], name).flatten(), torch.tensor(values))
