"""Vision towers: any timm model in, a map of picture regions out.

Notation: B batch, N pictures a post, P pictures of the batch, M regions of a picture, R = N * M regions of a
post, C channels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization

from .configuration_mmner import VisionTowerConfig
from .context_mmner import Regions, in_groups

LEAST_PICTURES = 16
"""Pictures that an encoder may read at a time; in a larger batch as many as there are posts."""


class VisionTower(nn.Module):
    """Regions of pictures from a timm model's last feature map, with its own normalisation and size.

    Only pictures that exist are read, so whatever pixels stand in place of a missing one can change nothing.

    Args:
        config: a frozen tower has no gradients and stays in evaluation mode, so that its batch-norm
            statistics are those of its pretraining; a pooled one gives a post's pictures as one vector.
    """

    mean: Tensor
    std: Tensor
    backbone: Any

    def __init__(self, config: VisionTowerConfig) -> None:
        # They load timm, of which a model of text alone has no need.
        from transformers import TimmWrapperConfig, TimmWrapperModel

        super().__init__()
        self.config = config
        self.frozen = config.frozen
        self.pooled = config.pooled
        self.image_size = config.image_size
        self.backbone = TimmWrapperModel(
            TimmWrapperConfig(architecture=config.backbone, do_pooling=False, model_args=config.backbone_args)
        )
        # VGG has layers after its last map, which hold most of its weights.
        if hasattr(self.backbone.timm_model, "pre_logits"):
            self.backbone.timm_model.pre_logits = nn.Identity()
        self.channels: int = self.backbone.timm_model.num_features
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1))
        self.train()

    def release(self) -> None:
        """Let go of the encoder: until it has a new one, the tower reads ready-made features alone."""
        self.backbone = None

    def initialise(self) -> None:
        """Write the normalisation, which a model that is loaded does not take from here."""
        initialization.copy_(self.mean, torch.tensor(self.config.mean).view(1, 3, 1, 1))
        initialization.copy_(self.std, torch.tensor(self.config.std).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> "VisionTower":
        """As PyTorch's; a backbone of which nothing is trained stays in evaluation mode."""
        super().train(mode)
        if self.backbone is not None:
            if self.frozen:
                # `from_pretrained` makes every parameter anew, with gradients, then calls `eval`, so this.
                self.backbone.requires_grad_(False)
            if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
                self.backbone.eval()  # under an adapter, too: nobody would save batch-norm that moves
        return self

    def forward(self, pixel_values: Tensor, *, image_mask: Tensor) -> Regions:
        """Regions of each post's pictures, one picture after the other.

        Args:
            pixel_values: (B, N, 3, H, W) uint8 in 0..255; another size than the tower's is resized, bicubic,
                no crop.
            image_mask: (B, N) bool, True where there is a picture.

        Returns:
            see `regions_of_posts`; where the whole batch has no picture, M is 0 and no backbone runs.
        """
        pictures = pixel_values[image_mask]  # shape: (P, 3, H, W)
        if len(pictures) == 0:
            dtype = self.mean.dtype if self.backbone is None else self.backbone.dtype
            states = torch.zeros(*image_mask.shape, 0, self.channels, dtype=dtype, device=image_mask.device)
        else:
            most = len(pictures) if self._mixes_pictures else max(LEAST_PICTURES, len(image_mask))
            # shape: (P, M, C)
            features = torch.cat(in_groups(self.features, pictures, most=most, of=self))
            states = features.new_zeros(*image_mask.shape, *features.shape[1:])
            states[image_mask] = features
        return self.regions_of_posts(states, image_mask)

    def regions_of_posts(self, states: Tensor, image_mask: Tensor) -> Regions:
        """What the fusion reads of each picture's regions.

        Args:
            states: (B, N, M, C), anything (even NaN) where there is no picture.
            image_mask: (B, N) bool.

        Returns:
            R = N * M regions a post, picture after picture; of a pooled tower R = 1, the mean over each
            picture's regions, then over the pictures. 0 where there is no picture.
        """
        if not self.pooled:
            mask = image_mask[..., None].expand(states.shape[:3])
            return Regions(torch.where(mask[..., None], states, 0).flatten(1, 2), mask.flatten(1, 2))
        present = image_mask[..., None]
        # shape: (B, N, C); M is 0 where the whole batch has no picture
        vectors = states.sum(2) / max(states.shape[2], 1)
        total = torch.where(present, vectors, 0).sum(1, keepdim=True)
        return Regions(total / present.sum(1, keepdim=True).clamp(min=1), image_mask.any(1, keepdim=True))

    @property
    def _mixes_pictures(self) -> bool:
        """Whether a picture's features depend on those beside it, by a batch-norm that is trained."""
        batch_norm = nn.modules.batchnorm._BatchNorm
        return any(isinstance(layer, batch_norm) and layer.training for layer in self.modules())

    def kept_features(self, pictures: Tensor) -> Tensor:
        """(P, M, C) the ready-made features of P pictures (P, 3, H, W); M is 1 of a pooled tower."""
        features = self.features(pictures)
        return features.mean(1, keepdim=True) if self.pooled else features

    def features(self, pictures: Tensor) -> Tensor:
        """(P, M, C) regions of P existing pictures; raises ValueError where the encoder was let go of."""
        if self.backbone is None:
            raise ValueError(
                f"vision tower {self.config.backbone}: expected ready-made features, since its encoder was"
                " let go of (`release`), found pixels; give image_features, or put an encoder in its place"
            )
        pixels, size = pictures.float() / 255, (self.image_size, self.image_size)
        if pixels.shape[-2:] != size:  # in float32: in half precision the CPU cannot resize
            pixels = nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        # Channels last convolves faster.
        pixels = ((pixels - self.mean) / self.std).to(self.backbone.dtype, memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(pixels).last_hidden_state
        if features.dim() == 4:  # a map; (P, H, W, C) from Swin's kind, (P, C, H, W) from all others
            channels_last = getattr(self.backbone.timm_model, "output_fmt", "NCHW") == "NHWC"
            features = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
        return features
