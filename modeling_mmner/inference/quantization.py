"""Linear layers that compute in 8-bit integers on the CPU, for a trained model that is in use."""

import torch
from torch import Tensor, nn

from ..model.modeling_mmner import MMNERForTokenClassification

_LEVELS = 127
_LEVELS_IN_16_BITS = 64
"""Of weights, where a CPU has no instructions for products of bytes (VNNI): oneDNN adds two of them in 16
bits then, with inputs of 0..255, and larger weights would overflow without a word."""


def quantize_linears(model: MMNERForTokenClassification) -> None:
    """Put `Int8Linear` in place of every linear layer of a model's towers and fusion; its heads stay as they
    are.

    Raises:
        ValueError: they have none.
    """
    linears = [
        (module, name)
        for part in (model.text_tower, *model.vision_towers, model.fusion)
        for module in part.modules()
        for name, child in module.named_children()
        if type(child) is nn.Linear  # a layer of a class of its own may be read otherwise than by calling it
    ]
    if not linears:
        raise ValueError("quantize: expected a model with linear layers in its towers or fusion, found none")
    for module, name in linears:
        setattr(module, name, Int8Linear(getattr(module, name)))


class Int8Linear(nn.Module):
    """A linear layer of trained weights in integers: weights rounded once, by output, inputs as they come, by
    row.

    With scales by row, a post's results do not depend on the others of its batch.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()  # shape: (out, in)
        scale = _scale(weight, _LEVELS if torch.cpu._is_vnni_supported() else _LEVELS_IN_16_BITS)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8).t())  # shape: (in, out)
        self.register_buffer("scale", scale.flatten())
        self.register_buffer(
            "bias", torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach().float()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = inputs.flatten(0, -2)
        scale = _scale(rows, _LEVELS)
        sums = torch._int_mm((rows / scale).round_().to(torch.int8), self.weight)
        outputs = sums.float().mul_(scale).mul_(self.scale).add_(self.bias)
        return outputs.to(inputs.dtype).unflatten(0, inputs.shape[:-1])


def _scale(rows: Tensor, levels: int) -> Tensor:
    """(N, 1) float32 by which a row is divided to lie in -levels..levels."""
    return (rows.abs().amax(1, keepdim=True).float() / levels).clamp(min=torch.finfo(torch.float32).tiny)
