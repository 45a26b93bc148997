"""What the pictures and the context of a post did: the scores of its entities, less those without them.

Notation: B batch, W words, L labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .parts_mmner import MAIN_HEAD

EFFECTS = {"picture_effect": "picture_effects", "context_effect": "context_effects"}
"""The keys of an entity, and the fields of the outputs that have them."""
PICTURE_INPUTS = ("pixel_values", "image_mask", "image_features")


def with_effects(model: Any, processor: Any, inputs: Any, posts: Sequence[Any], *, read: Any = None) -> Any:
    """The outputs of a batch with `picture_effects` and `context_effects` (B, W) beside their span scores.

    The picture's effect on an entity is the posterior of exactly its words and type, less the posterior of
    the same without any picture, the context kept; the context's is without the context, the pictures kept.
    Both are exact, for the CRF scores any tags. The text is read once for the picture's. A context stands in
    the text's windows, so its effect costs another pass of the text encoder.

    Args:
        model: in evaluation mode, or an exported one, which makes whole passes.
        processor: the model's.
        inputs: what its `encode` has made of `posts`.
        read: what ``model.encode(**inputs)`` has read, where that was done before.

    Returns:
        the outputs; effects are in -1..1 at an entity's first word, 0 elsewhere, NaN in posts that have no
        picture, or no context that was read.
    """
    if is_whole := not hasattr(model, "encode"):
        inputs = {name: np.asarray(values) for name, values in inputs.items()}
        outputs = model(**inputs)
    else:
        read = model.encode(**inputs) if read is None else read
        outputs = model.output(read)
    tags, scores, mask = outputs["tags"], outputs["span_scores"], inputs["word_mask"]

    def without_pictures() -> Any:
        if is_whole:
            none = {name: inputs[name][:, :0] for name in PICTURE_INPUTS if name in inputs}
            return model(**inputs | none)["logits"]
        return model.run_head(MAIN_HEAD, model.encode(text=read.text))

    def without_context() -> Any:
        bare = [post._replace(context="", pictures=(), features=()) for post in posts]
        encoded = processor.encode(bare).to(model.device)
        text = {name: values for name, values in encoded.items() if name not in PICTURE_INPUTS}
        if is_whole:
            return model(**inputs | text)["logits"]
        return model.run_head(MAIN_HEAD, model.encode(**text, regions=read.regions))

    types = inputs.get("token_type_ids")  # 1 where a context is read
    has_context = mask[:, 0] & False if types is None else types.reshape(len(mask), -1).any(1)
    less = (inputs["image_mask"].any(1), without_pictures), (has_context, without_context)
    for name, (is_there, run) in zip(EFFECTS.values(), less, strict=True):
        effects = scores * float("nan")
        if is_there.any():
            effects = scores - model.crf.span_scores(run(), tags, mask=mask)
            effects[~is_there] = float("nan")
        outputs[name] = effects
    return outputs
