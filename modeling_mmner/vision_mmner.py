"""Vision towers: any timm model in, a map of picture regions out.

Notation: B batch, N pictures a post, P pictures of the batch, R regions of a picture, C channels.
"""

import torch
from torch import Tensor, nn
from transformers import TimmWrapperConfig, TimmWrapperModel

from .configuration_mmner import VisionTowerConfig


class VisionTower(nn.Module):
    """Regions of pictures from a timm model's last feature map; it holds its own normalisation and picture size.

    Only pictures that exist are read, so whatever pixels stand in place of a missing one can change nothing.

    Args:
        config: see `VisionTowerConfig`. A frozen tower has no gradients and stays in evaluation mode: its batch-norm
            statistics are those of its pretraining. A pooled one gives a post's pictures as one vector.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.frozen = config.frozen
        self.pooled = config.pooled
        self.image_size = config.image_size
        self.backbone = TimmWrapperModel(
            TimmWrapperConfig(architecture=config.backbone, do_pooling=False, model_args=config.backbone_args)
        )
        self.channels: int = self.backbone.timm_model.num_features
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1))
        if self.frozen:
            self.backbone.requires_grad_(False).eval()

    @property
    def prefix_tokens(self) -> int:
        """How many of a picture's regions come before its map: a ViT's class token and registers; 0 for other encoders."""
        return getattr(self.backbone.timm_model, "num_prefix_tokens", 0)

    def train(self, mode: bool = True) -> "VisionTower":
        """As PyTorch's, but a backbone of which nothing is trained stays in evaluation mode; a frozen one has no gradients."""
        super().train(mode)
        if self.frozen:
            # `from_pretrained` makes every parameter anew, with gradients, and then calls `eval`, which comes here.
            self.backbone.requires_grad_(False).eval()
        elif not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()  # as under an adapter: batch-norm must not move either, nobody would save it
        return self

    def forward(self, pixel_values: Tensor, *, image_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Regions of each post's pictures, one picture after the other.

        Args:
            pixel_values: (B, N, 3, H, W) uint8 in 0..255; another size than the tower's is resized, bicubic, no crop.
            image_mask: (B, N) bool, True where there is a picture.

        Returns:
            regions (B, N * R, C), 0 for missing pictures, and region_mask (B, N * R) bool; from a pooled tower (B, 1, C) and
            (B, 1). Where the whole batch has no picture, R is 0 and the backbone does not run.
        """
        pictures = pixel_values[image_mask]  # shape: (P, 3, H, W)
        if len(pictures) == 0:
            regions = torch.zeros(*image_mask.shape, 0, self.channels, dtype=self.backbone.dtype, device=image_mask.device)
        else:
            features = self.features(pictures)  # shape: (P, R, C)
            regions = features.new_zeros(*image_mask.shape, *features.shape[1:])
            regions[image_mask] = features
        return self.lay_out(regions, image_mask)

    def lay_out(self, regions: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the fusion reads of the regions (B, N, R, C) of each picture: see `flatten_pictures`, `average_pictures`."""
        return average_pictures(regions, image_mask) if self.pooled else flatten_pictures(regions, image_mask)

    def features(self, pictures: Tensor) -> Tensor:
        """(P, R, C) regions of P existing pictures."""
        pixels = pictures.float() / 255  # in half precision the CPU cannot resize
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            pixels = nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(((pixels - self.mean) / self.std).to(self.backbone.dtype)).last_hidden_state
        if features.dim() == 4:  # a map; (P, H, W, C) from Swin's kind, (P, C, H, W) from all others
            channels_last = getattr(self.backbone.timm_model, "output_fmt", "NCHW") == "NHWC"
            features = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
        return features


def flatten_pictures(regions: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Lay the regions of a post's pictures in one row.

    Args:
        regions: (B, N, R, C), anything (even NaN) where there is no picture.
        image_mask: (B, N) bool.

    Returns:
        (B, N * R, C), 0 where there is no picture, and (B, N * R) bool.
    """
    mask = image_mask[..., None].expand(regions.shape[:3])
    return torch.where(mask[..., None], regions, 0).flatten(1, 2), mask.flatten(1, 2)


def average_pictures(regions: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Make one vector of a post's pictures: the mean over each one's regions, then over the pictures.

    Args:
        regions: (B, N, R, C), anything (even NaN) where there is no picture.
        image_mask: (B, N) bool.

    Returns:
        (B, 1, C), 0 for a post without a picture, and (B, 1) bool.
    """
    present = image_mask[..., None]
    vectors = regions.sum(2) / max(regions.shape[2], 1)  # shape: (B, N, C); R is 0 where the whole batch has no picture
    total = torch.where(present, vectors, 0).sum(1, keepdim=True)
    return total / present.sum(1, keepdim=True).clamp(min=1), image_mask.any(1, keepdim=True)
