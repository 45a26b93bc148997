"""Tests of GVATT's and AdaCAN's fusion, and of UMT's converted emissions, against loops over words, regions
and labels.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.model.context_mmner import Context, FusionOutput, Regions, TextStates, Widths
from modeling_mmner.model.fusion_mmner import AdaCANFusion, CoAttention, Fusion, GVATTFusion, masked_softmax
from modeling_mmner.model.heads_mmner import Tagging, boundary_conversion
from modeling_mmner.model.labels_mmner import bio_labels
from tests.tiny import LABELS, close, gradients, stir, tiny_batch, tiny_config, tiny_model

WIDTH, CHANNELS, WORDS, REGIONS = 8, 6, (5, 2, 4, 0, 1), (3, 0, 4, 2, 4)
FUSIONS = ("gvatt", "adacan")
each_fusion = pytest.mark.parametrize("name", FUSIONS)


def make_fusion(name: str) -> Fusion:
    torch.manual_seed(2)
    config = tiny_config(fusion=name, text_tower="bilstm")
    fusion = Fusion.named(name)(config, Widths(WIDTH, (CHANNELS,), 4)).eval()
    stir(fusion, scale=0.5)
    return fusion


def make_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Words, word_mask, sentence vectors, regions and region_mask of five posts: one is empty, one has no
    picture.

    The last post's regions are those of two pictures with a missing one between them.
    """
    torch.manual_seed(3)
    word_mask = torch.arange(max(WORDS)) < torch.tensor(WORDS)[:, None]
    region_mask = torch.arange(6) < torch.tensor(REGIONS)[:, None]
    region_mask[-1] = torch.tensor([True, True, False, False, True, True])
    words = torch.randn(*word_mask.shape, WIDTH).masked_fill(~word_mask[..., None], 0).requires_grad_()
    regions = (
        torch.randn(*region_mask.shape, CHANNELS).masked_fill(~region_mask[..., None], 0).requires_grad_()
    )
    return words, word_mask, torch.randn(len(WORDS), WIDTH, requires_grad=True), regions, region_mask


def fuse(fusion: Fusion, *inputs: Tensor) -> FusionOutput:
    words, word_mask, sentence, regions, region_mask = inputs
    return fusion(TextStates(words, word_mask, sentence), [Regions(regions, region_mask)])


def softmax(scores: list[Tensor]) -> list[Tensor]:
    total = sum(score.exp() for score in scores)
    return [score.exp() / total for score in scores]


def mean_under(weights: list[Tensor], vectors: list[Tensor]) -> Tensor:
    return sum(weight * vector for weight, vector in zip(weights, vectors, strict=True))


def naive_gvatt(fusion: GVATTFusion, words: Tensor, sentence: Tensor, regions: Tensor) -> list[Tensor]:
    """The equations for each word of one post, words (W, D) and regions (R, C) without padding."""
    if not len(regions):
        return [*words]
    visual = [fusion.region_projection.weight @ region + fusion.region_projection.bias for region in regions]
    of_text = torch.tanh(fusion.text_query.weight @ sentence)
    of_regions = [torch.tanh(fusion.region_key.weight @ region) for region in visual]
    scores = [
        fusion.region_score.weight[0] @ (of_text + one) + fusion.region_score.bias[0] for one in of_regions
    ]
    weights = softmax(scores)
    seen = mean_under(weights, visual)

    def linear(layer: torch.nn.Linear, word: Tensor) -> Tensor:
        return layer.weight[:, :WIDTH] @ word + layer.weight[:, WIDTH:] @ seen + layer.bias

    found = []
    for word in words:
        of_picture = torch.sigmoid(linear(fusion.picture_gate, word))
        of_word = torch.sigmoid(linear(fusion.word_gate, word))
        features = of_word * word + of_picture * torch.tanh(linear(fusion.mixture, word))
        found.append(features)
    return found


def naive_attention(part: CoAttention, query: Tensor, context: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """softmax_k(w . tanh([W c_k; W' q + b]) + b') with its concatenation, and the mean of the context under
    it.
    """
    weight = torch.cat([part.context_score.weight[0], part.query_score.weight[0]])
    halves = [
        torch.cat([part.context_map.weight @ one, part.query_map.weight @ query + part.query_map.bias])
        for one in context
    ]
    weights = softmax([weight @ torch.tanh(both) + part.query_score.bias[0] for both in halves])
    return weights, mean_under(weights, context)


def naive_adacan(fusion: AdaCANFusion, words: Tensor, regions: Tensor) -> list[Tensor]:
    """The equations for each word of one post, words (W, D) and regions (R, C) without padding."""
    visual = [
        torch.tanh(fusion.region_projection.weight @ one + fusion.region_projection.bias) for one in regions
    ]
    found = []
    for word in words:
        if not visual:
            found.append(torch.cat([word, torch.zeros(WIDTH)]))
            continue
        _, seen = naive_attention(fusion.visual_attention, word, visual)
        _, read = naive_attention(fusion.textual_attention, seen, [*words])
        picture = torch.tanh(fusion.picture_map.weight @ seen + fusion.picture_map.bias)
        text = torch.tanh(fusion.text_map.weight @ read + fusion.text_map.bias)
        gate = torch.sigmoid(fusion.fusion_gate.weight[0] @ torch.cat([picture, text]))
        mixed = gate * picture + (1 - gate) * text
        of_mixed = fusion.mixture_filter.weight @ mixed + fusion.mixture_filter.bias
        filtration = torch.sigmoid(
            fusion.filtration_gate.weight[0] @ torch.cat([fusion.word_filter.weight @ word, of_mixed])
        )
        kept = filtration * torch.tanh(fusion.filtered_map.weight @ mixed + fusion.filtered_map.bias)
        found.append(torch.cat([word, kept]))
    return found


def naive_posts(fusion: Fusion, *inputs: Tensor) -> list[list[Tensor]]:
    words, word_mask, sentence, regions, region_mask = inputs
    posts = []
    for row in range(len(words)):
        own_words, own_regions = words[row, word_mask[row]], regions[row, region_mask[row]]
        if isinstance(fusion, GVATTFusion):
            posts.append(naive_gvatt(fusion, own_words, sentence[row], own_regions))
        else:
            posts.append(naive_adacan(fusion, own_words, own_regions))
    return posts


@each_fusion
def test_fusion_equals_its_equations_word_by_word(name):
    """If it failed, the fusion would not be its paper's."""
    fusion, inputs = make_fusion(name), make_inputs()
    fused = fuse(fusion, *inputs)
    assert fused.features.shape == (len(WORDS), max(WORDS), fusion.width) and fused.text_view is None
    for row, post in enumerate(naive_posts(fusion, *inputs)):
        for place, expected in enumerate(post):
            close(fused.features[row, place], expected)


@each_fusion
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite(name, dtype):
    """If it failed, an empty text or a missing picture would turn a whole batch into NaN."""
    fusion, (words, word_mask, sentence, regions, region_mask) = make_fusion(name).to(dtype), make_inputs()
    halves = [tensor.detach().to(dtype).requires_grad_() for tensor in (words, sentence, regions)]
    features = fuse(fusion, halves[0], word_mask, halves[1], halves[2], region_mask).features
    assert features.dtype == dtype and features.isfinite().all()
    found = gradients(features.float().square().sum(), [*halves, *fusion.parameters()])
    assert all(gradient.isfinite().all() for gradient in found)


# As printed, the query does not guide the attention


def test_sentence_does_not_change_gvatt_s_attention():
    """If it failed, the attention would not be the printed one."""
    fusion, (words, word_mask, sentence, *rest) = make_fusion("gvatt"), make_inputs()
    plain, other = (
        fuse(fusion, words, word_mask, vectors, *rest)
        for vectors in (sentence, 3 * torch.randn(sentence.shape))
    )
    close(other.features, plain.features)
    found = gradients(
        (plain.features * torch.randn(plain.features.shape)).sum(), [sentence, fusion.text_query.weight]
    )
    assert all(gradient.abs().max() < 1e-5 for gradient in found)


def test_query_does_not_change_adacan_s_attentions():
    """If it failed, the attentions would not be the printed ones, whose query the softmax cancels."""
    fusion, inputs = make_fusion("adacan"), make_inputs()
    words, word_mask = inputs[:2]
    for part in (fusion.visual_attention, fusion.textual_attention):
        one, other = (part(3 * torch.randn(len(words), 2, WIDTH), words, mask=word_mask) for _ in range(2))
        close(one, other)
        silent = gradients(
            (one[0] * torch.randn(one[0].shape)).sum(),
            [*part.query_map.parameters(), *part.query_score.parameters()],
        )
        assert all(gradient.abs().max() < 1e-5 for gradient in silent)


def test_masked_softmax_is_that_of_the_scores_that_count():
    """If it failed, scores beyond the range of half precision, or a row without any, would give NaN."""
    scores = torch.tensor([[1.0, -2.0, 3.0], [500.0, -500.0, 7.0], [1.0, 2.0, 3.0]])
    mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    for dtype in (torch.float32, torch.bfloat16):
        found = masked_softmax(scores.to(dtype), mask)
        assert found.dtype == torch.float32 and found[2].eq(0).all() and found[0, 2] == 0
        for row in range(2):
            torch.testing.assert_close(found[row, mask[row]], scores[row, mask[row]].softmax(0))


# UMT: boundary emissions in those of the tagging

LABEL_SETS = {
    "usual": LABELS,
    "other order": ["I-LOC", "B-PER", "O", "B-LOC", "I-PER"],
    "four types": bio_labels(["PER", "LOC", "ORG", "MISC"]),
    "type without I-": ["B-TIME", "O", "I-PER", "B-LOC", "B-PER"],
    "no I- at all": ["O", "B-A", "B-B", "B-C"],
}
each_label_set = pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
UMT: dict[str, Any] = {"objectives": {"crf": 1.0, "boundary": 0.5}, "boundary_share": 0.5}


def naive_conversion(labels: list[str]) -> Tensor:
    conversion = torch.zeros(3, len(labels))
    for column, label in enumerate(labels):
        kind = label[0]
        alike = [other for other in labels if other[0] == kind]
        conversion["OBI".index(kind), column] = 1 / len(alike)
    return conversion


@each_label_set
def test_conversion_spreads_each_boundary_label_evenly_over_its_typed_ones(labels):
    """If it failed, boundary emissions would count for labels of another kind."""
    found = boundary_conversion(labels)
    assert found.dtype == torch.float32 and torch.equal(found, naive_conversion(labels))
    has_label = torch.tensor([float(any(label[0] == kind for label in labels)) for kind in "OBI"])
    torch.testing.assert_close(found.sum(1), has_label)


def make_head(labels: list[str], share: float) -> tuple[Tagging, Context]:
    """The head, and a context with features and boundary emissions."""
    torch.manual_seed(4)
    settings = {"id2label": dict(enumerate(labels)), "objectives": UMT["objectives"], "boundary_share": share}
    head = Tagging(tiny_config(**settings), Widths(WIDTH, (), 4, 2 * WIDTH)).eval()
    stir(head)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    text = TextStates(torch.randn(2, 3, WIDTH), mask, torch.zeros(2, WIDTH))
    fused = FusionOutput(torch.randn(2, 3, 2 * WIDTH, requires_grad=True))
    return head, Context(text, [], fused, emissions={"boundary": torch.randn(2, 3, 3, requires_grad=True)})


@each_label_set
@pytest.mark.parametrize("share", [0.5, 0.2, 1.0])
def test_emissions_are_the_shares_of_both(labels, share):
    """If it failed, the emissions would not be UMT's, or one of the two heads not learn from them."""
    head, context = make_head(labels, share)
    found, rows = head(context), []
    for row in range(2):
        for place in range(3):
            own = head.classifier.weight @ context.fused.features[row, place] + head.classifier.bias
            boundary = context.emissions["boundary"][row, place]
            converted = []
            for label in labels:
                alike = sum(other[0] == label[0] for other in labels)
                converted.append(boundary["OBI".index(label[0])] / alike)
            rows.append((1 - share) * own + share * torch.stack(converted))
    expected = torch.stack(rows).unflatten(0, (2, 3))
    close(found, expected)
    weights = torch.randn(found.shape)
    inputs = [context.fused.features, context.emissions["boundary"], *head.classifier.parameters()]
    pair = [gradients((tensor * weights).sum(), inputs) for tensor in (found, expected)]
    close(*pair)
    assert head.reads == ("boundary",)


def test_share_of_0_is_the_head_without_it():
    """If it failed, MLMNER would be changed by a setting of UMT, or text baselines need a boundary head."""
    head, context = make_head(LABELS, 0.0)
    del context.emissions["boundary"]
    assert torch.equal(head(context), head.classifier(context.fused.features)) and head.reads == ()
    model = tiny_model(fusion="text-only", boundary_share=0.0)
    assert set(model.heads) == {"crf"} and model(**tiny_batch()).loss.isfinite()


def test_model_adds_the_boundary_head_s_own_emissions():
    """If it failed, the tagging would read other boundary emissions than those that are trained."""
    model, batch = tiny_model(**UMT), tiny_batch()
    context = model.encode(**batch)
    features, boundary = context.fused.features, model.heads["boundary"](context)
    expected = 0.5 * model.heads["crf"].classifier(features) + 0.5 * boundary @ naive_conversion(LABELS)
    close(model(**batch).logits, expected)
    model.train()
    model(**batch).losses["crf"].backward()
    assert model.heads["boundary"].classifier.weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conversion_survives_saving(dtype, tmp_path):
    """If it failed, a loaded model would multiply by whatever was in memory."""
    labels = LABEL_SETS["four types"]
    model, batch = tiny_model(**UMT, id2label=dict(enumerate(labels))), tiny_batch()
    model.to(dtype).save_pretrained(tmp_path)
    assert not any("conversion" in name for name in model.state_dict())
    loaded = MMNERForTokenClassification.from_pretrained(tmp_path, dtype=dtype).eval()
    assert torch.equal(loaded.heads["crf"].conversion.float(), naive_conversion(labels)), (
        "halves and quarters are exact"
    )
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_conversion_is_that_of_the_labels_a_model_is_fine_tuned_to(tmp_path):
    """If it failed, a fine-tuned model would add boundary emissions to the wrong labels."""
    labels = LABEL_SETS["type without I-"]
    tiny_model(**UMT).save_pretrained(tmp_path)
    named = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    model = MMNERForTokenClassification.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **named)
    assert torch.equal(model.heads["crf"].conversion, naive_conversion(labels))


def test_share_without_a_boundary_head_is_refused():
    """If it failed, the first batch would end in a KeyError."""
    message = r"boundary_share: expected 'boundary', which it reads, among the objectives, found \['crf'\]"
    with pytest.raises(ValueError, match=message):
        tiny_model(objectives={"crf": 1.0}, boundary_share=0.5)
