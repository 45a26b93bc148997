"""FSDP2: each process keeps its share of the weights, their gradients and the optimizer's state.

A sharded model runs in all processes at once or not at all. So what one process does by itself (its share of
an evaluation, the entity centres, saving) is done with a whole model beside it, which takes the weights after
each epoch and needs no optimizer.
"""

from copy import deepcopy

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy

from ..model.modeling_mmner import MMNERForTokenClassification


def check_sharding(accelerator: Accelerator, *, trains_pictures: bool) -> None:
    """Check that a model can be trained in the way in which the processes share it.

    Args:
        trains_pictures: whether a picture encoder is trained.

    Raises:
        ValueError: they do it neither by DDP nor by FSDP2; or by FSDP2, and a picture encoder is trained: a
            process without a picture in its batch would not run it, and the others would wait for it.
    """
    kind = accelerator.distributed_type
    if kind != DistributedType.NO and not kind.startswith("MULTI_") and not accelerator.is_fsdp2:
        raise ValueError(
            "distributed_type: expected MULTI_GPU or MULTI_CPU, or FSDP with fsdp_version: 2, found"
            f" {kind.value}"
        )
    if accelerator.is_fsdp2 and trains_pictures:
        raise ValueError(
            "distributed_type FSDP: expected frozen picture encoders, found one that is trained"
            " (vision_towers); take MULTI_GPU"
        )


def trained_copy(model: MMNERForTokenClassification, accelerator: Accelerator) -> MMNERForTokenClassification:
    """What is to be prepared and trained: the model itself, or with FSDP2 a copy of it."""
    if not accelerator.is_fsdp2:
        return model
    # Autocast decides what is computed in half precision, as without sharding: the CRF is not.
    accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
    return deepcopy(model)


@torch.no_grad()
def take_weights(model: MMNERForTokenClassification, trained: MMNERForTokenClassification) -> None:
    """Give a whole model the weights of the one that is trained; all processes must call it."""
    if trained is not model:
        model.load_state_dict(get_model_state_dict(trained, options=StateDictOptions(full_state_dict=True)))


@torch.no_grad()
def give_buffers(model: MMNERForTokenClassification, trained: MMNERForTokenClassification) -> None:
    """Give the model that is trained the buffers of a whole one, which are not sharded: the entity
    centres.
    """
    for name, buffer in model.named_buffers():
        trained.get_buffer(name).copy_(buffer)
