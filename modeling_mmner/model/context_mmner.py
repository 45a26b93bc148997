"""What a batch is on its way through a model: text states, regions, fused features, and their context.

Notation: B batch, W words, D text width, R regions of a post (those of all its pictures, one picture after
the other), C vision channels, F features, L labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ModelPart(nn.Module):
    """A part with a row in `parts_mmner`, whose name its class gives: ``class Mine(Fusion, part="mine")``.

    A module whose own parameters or buffers PyTorch does not initialise as it wants has a method
    ``initialise()``, which writes them by `transformers.initialization`.
    """

    classes: ClassVar[dict[str, type[Any]]]

    def __init__(self, *made_for: Any) -> None:
        super().__init__()

    def __init_subclass__(cls, *, part: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if ModelPart in cls.__bases__:
            cls.classes = {}
        elif part is not None:
            cls.classes[part] = cls

    @classmethod
    def named(cls, name: str) -> type[Self]:
        """The class of a part; raises ValueError where the table has a row for it, but nobody a class."""
        if name not in cls.classes:
            raise ValueError(
                f"{cls.__name__} {name!r}: expected a class for this row of the table of parts, found those"
                f" of {list(cls.classes)}; define one as `class Mine({cls.__name__}, part={name!r})`"
            )
        return cls.classes[name]


@dataclass(frozen=True)
class Widths:
    """The sizes that parts are built for.

    Attributes:
        text: the text tower's D.
        channels: each picture encoder's C.
        heads: attention heads of the fusion.
        features: the fusion's F; 0 until the fusion is built.
    """

    text: int
    channels: tuple[int, ...]
    heads: int
    features: int = 0


@dataclass
class TextStates:
    """What a text tower gives.

    Attributes:
        words: (B, W, D), 0 where there is no word.
        mask: (B, W) bool, True for words: words first, padding after.
        sentence: (B, D) a vector of the whole text.
    """

    words: Tensor
    mask: Tensor
    sentence: Tensor


@dataclass
class Regions:
    """What a picture encoder gives.

    Attributes:
        states: (B, R, C), 0 where `mask` is False; R may be 0.
        mask: (B, R) bool, True for regions of pictures that are there.
    """

    states: Tensor
    mask: Tensor

    @property
    def has_picture(self) -> Tensor:
        """(B,) bool."""
        return self.mask.any(1)


@dataclass
class FusionOutput:
    """What a fusion hands to the heads and objectives.

    Attributes:
        features: (B, W, F) what the tagging head reads.
        text_view, image_view: (B, W, D) the two halves of the features, where the fusion has them.
    """

    features: Tensor
    text_view: Tensor | None = None
    image_view: Tensor | None = None


@dataclass
class Context:
    """All that heads and objectives may read of a batch.

    Attributes:
        text: the text tower's states.
        regions: those of each picture encoder.
        fused: see `FusionOutput`.
        labels: (B, W) label ids, -100 where there is no word; None at prediction.
        emissions: for each head that has run, by its name, (B, W, L) float32 in its own labels.
    """

    text: TextStates
    regions: Sequence[Regions]
    fused: FusionOutput
    labels: Tensor | None = None
    emissions: dict[str, Tensor] = field(default_factory=dict)

    @property
    def has_picture(self) -> Tensor:
        """(B,) bool: whether any picture encoder, of one at least, saw a picture of the post."""
        return torch.stack([regions.has_picture for regions in self.regions]).any(0)

    def gold(self) -> Tensor:
        """The labels (B, W). Raises ValueError where the batch has none."""
        if self.labels is None:
            raise ValueError("objectives: expected labels (B, W), found none")
        return self.labels

    def no_loss(self) -> Tensor:
        """A loss of exactly 0 with gradients of 0, for a batch that has nothing to compute it from."""
        return (self.fused.features.float() * 0).sum()


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """(B, K, D) -> (B, D): mean over those of the K states where `mask` (B, K) is True; 0 where none is."""
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def in_groups(read: Callable[..., Any], *inputs: Tensor, most: int, of: nn.Module) -> list[Any]:
    """What `read` makes of groups of at most `most` rows (one at least) of the inputs, group after group.

    Where gradients are recorded and there are more rows, nothing is kept of a group but what goes in and what
    comes out: each is computed again in the backward pass, with the same random numbers. So memory is that of
    one group, then of half as many rows, for beside it stands what other parts keep.

    Args:
        of: what `read` runs; where its layers are computed again by themselves (gradient checkpointing), that
            will do.
    """
    if len(inputs[0]) <= max(1, most):
        return [read(*inputs)]  # not of a part of them: gradients would be added up in another order
    layers = any(getattr(layer, "gradient_checkpointing", False) for layer in of.modules())
    recomputed = not layers and torch.is_grad_enabled()
    size = max(1, most // 2 if recomputed else most)
    parts = list(zip(*(tensor.split(size) for tensor in inputs), strict=True))
    return _recomputed(read, parts) if recomputed else [read(*part) for part in parts]


@torch.compiler.disable  # which cannot trace it; so layers that are compiled run uncompiled in groups
def _recomputed(read: Callable[..., Any], parts: list[tuple[Tensor, ...]]) -> list[Any]:
    return [checkpoint(read, *part, use_reentrant=False) for part in parts]
