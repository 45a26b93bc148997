"""Tests of what the picture and the context did: differences of whole passes, for each system."""

import math

import pytest
import torch
from PIL import Image

from modeling_mmner.model.effects_mmner import EFFECTS, PICTURE_INPUTS, with_effects
from modeling_mmner.model.pipeline_mmner import MultimodalNERPipeline
from modeling_mmner.model.processing_mmner import MMNERProcessor
from tests.tiny import SYSTEMS, TOWER, close, parts_of, without

POSTS = [["Jordan", "posts", "from", "Paris", "today"], ["Paris"], ["Jordan", "and", "Paris", "tomorrow"]]
CONTEXTS = ["A man in a city", "", "Tomorrow today"]


def noise(seed: int) -> Image.Image:
    return Image.effect_noise((64, 64), 80 + seed).convert("RGB")


PICTURES = [[noise(0)], [], [noise(1), noise(2)]]


@pytest.fixture(params=SYSTEMS)
def parts(request):
    """A tiny model of each system that finds entities, and its processor, which reads contexts if it can."""
    model, processor = parts_of(SYSTEMS[request.param], posts=[*POSTS, *(one.split() for one in CONTEXTS)])
    if model.config.text_config is not None:
        sizes = {"labels": processor.labels, "image_size": processor.image_size}
        processor = MMNERProcessor(processor.tokenizer, **sizes, context_window=8)
    return model, processor


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@torch.inference_mode()
def test_effects_are_differences_of_whole_passes(parts, dtype, tolerance):
    """If it failed, an effect would be of something else: another entity, text or picture."""
    model, processor = parts[0].to(dtype), parts[1]
    contexts = CONTEXTS if processor.context_window else None
    posts = processor.read(POSTS, PICTURES, context=contexts, is_split_into_words=True)
    inputs = dict(processor.encode(posts))
    found = with_effects(model, processor, inputs, posts)
    plain = model(**inputs)
    assert torch.equal(found.tags, plain.tags) and torch.equal(found.span_scores, plain.span_scores)
    assert (found.span_scores > 0).any(1).all()

    def less(**changed):
        logits = model(**inputs | changed).logits
        return plain.span_scores - model.crf.span_scores(logits, plain.tags, mask=inputs["word_mask"])

    has_picture = inputs["image_mask"].any(1)
    bare = processor([list(words) for words in POSTS], is_split_into_words=True)
    has_context = torch.tensor([bool(contexts and one) for one in CONTEXTS])
    whole = (
        (found.picture_effects, has_picture, less(image_mask=torch.zeros_like(inputs["image_mask"]))),
        (found.context_effects, has_context, less(**without(bare, *PICTURE_INPUTS))),
    )
    for effects, there, expected in whole:
        close(effects[there], expected[there], tolerance=tolerance)
        assert effects[~there].isnan().all()
        assert not there.any() or effects[there].abs().max() > 1e-4


@torch.inference_mode()
def test_no_picture_is_what_a_post_without_one_is(parts):
    """If it failed, the effect would be against some picture, and not against none, to the last bit."""
    model, processor = parts
    inputs = processor(POSTS, images=PICTURES)
    read, alone = model.encode(**inputs), processor(POSTS)
    assert torch.equal(model.output(model.encode(text=read.text)).logits, model(**alone).logits)


@torch.inference_mode()
def test_ready_features_have_the_effects_of_their_pictures():
    """If it failed, a frozen encoder's features, made once, would not serve to tell what a picture did."""
    model, processor = parts_of({"vision_towers": [TOWER | {"frozen": True}]}, posts=POSTS)
    posts = processor.read(POSTS, PICTURES, is_split_into_words=True)
    inputs = dict(processor.encode(posts))
    tower, mask = model.vision_towers[0], inputs["image_mask"]
    features = torch.stack([tower.features(pictures) for pictures in inputs["pixel_values"]])
    ready = without(inputs, "pixel_values") | {"image_features": features}
    expected, found = (with_effects(model, processor, given, posts) for given in (inputs, ready))
    close(found.picture_effects[mask.any(1)], expected.picture_effects[mask.any(1)])


def test_entities_tell_their_effects(parts):
    """If it failed, an entity of the pipeline would have another's effect, or 0 where there is no picture."""
    model, processor = parts
    texts, contexts = [" ".join(words) for words in POSTS], CONTEXTS if processor.context_window else None
    find = MultimodalNERPipeline(model=model, processor=processor)
    plain = find(texts, PICTURES, context=contexts, batch_size=3)
    together = find(texts, PICTURES, context=contexts, batch_size=3, effects=True)
    for number, (entities, bare) in enumerate(zip(together, plain, strict=True)):
        assert [{key: one[key] for key in one if key not in EFFECTS} for one in entities] == bare
        is_there = (processor.image_size and PICTURES[number]), (contexts and contexts[number])
        for name, there in zip(EFFECTS, is_there, strict=True):
            assert all((one[name] is not None) == bool(there) for one in entities)
            assert all(-1 <= (one[name] or 0) <= 1 and math.isfinite(one[name] or 0) for one in entities)
