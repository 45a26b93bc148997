"""Tests of the text tower: one state per word from any encoder, whatever the text's length."""

import pytest
import torch
from torch import Tensor

from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.model.text_mmner import TransformerTower, encoder_window, window_of
from tests.tiny import TEXT, close, one_post, stir, tiny_batch, tiny_config, tiny_model

SIZES = {name: value for name, value in TEXT.items() if name not in ("model_type", "max_position_embeddings")}
DISTILBERT = {
    "vocab_size": 100,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": 64,
}
RELATIVE = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
XLNET = {"vocab_size": 100, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}

# Each encoder's config and the longest input that it must report.
ENCODERS = {
    "bert": ({**SIZES, "max_position_embeddings": 64}, 64),
    "roberta": ({**SIZES, "max_position_embeddings": 66}, 64),
    "xlm-roberta": ({**SIZES, "max_position_embeddings": 66}, 64),
    "camembert": ({**SIZES, "max_position_embeddings": 66}, 64),
    "mpnet": ({**SIZES, "max_position_embeddings": 66}, 64),
    "longformer": ({**SIZES, "max_position_embeddings": 66, "attention_window": [8, 8]}, 64),
    "deberta": ({**SIZES, "max_position_embeddings": 64}, 64),
    "deberta-v2": ({**SIZES, **RELATIVE, "max_position_embeddings": 64}, 64),
    "electra": ({**SIZES, "embedding_size": 16, "max_position_embeddings": 64}, 64),
    "albert": ({**SIZES, "embedding_size": 16, "max_position_embeddings": 64}, 64),
    "distilbert": (DISTILBERT, 64),
    "modernbert": ({**SIZES, **SPECIAL, "max_position_embeddings": 64, "local_attention": 16}, 64),
    "xlnet": (XLNET, None),
}
each_encoder = pytest.mark.parametrize("kind", ENCODERS)


def make_tower(**settings) -> TransformerTower:
    torch.manual_seed(1)
    tower = TransformerTower(tiny_config(fusion="text-only", text_config=TEXT | settings)).eval()
    stir(tower)
    return tower


def make_windows(counts: tuple[tuple[int, ...], ...]) -> dict[str, Tensor]:
    """Texts whose windows have that many sub-tokens each, every other sub-token a word's first."""
    generator = torch.Generator().manual_seed(2)
    shape = (len(counts), max(map(len, counts)), max(max(row) for row in counts))
    mask = torch.zeros(shape, dtype=torch.long)
    for row, sizes in enumerate(counts):
        for window, size in enumerate(sizes):
            mask[row, window, :size] = 1
    places = [part.flatten().nonzero()[:, 0][::2] for part in mask]
    longest = max(map(len, places))
    return {
        "input_ids": torch.randint(10, 100, shape, generator=generator) * mask,
        "attention_mask": mask,
        "word_starts": torch.stack(
            [torch.nn.functional.pad(part, (0, longest - len(part))) for part in places]
        ),
        "word_mask": torch.arange(longest) < torch.tensor([len(part) for part in places])[:, None],
    }


def test_states_of_words_are_those_of_their_windows():
    """If it failed, words of long texts would get the states of other words, or of other texts."""
    tower, counts = make_tower(), ((9, 7, 4), (5,), (8, 8))
    batch = make_windows(counts)
    states = tower(**batch)
    for row, sizes in enumerate(counts):
        naive = {}
        for window, size in enumerate(sizes):
            encoded = tower.encoder(batch["input_ids"][row, window, :size][None]).last_hidden_state[0]
            naive |= {
                window * batch["input_ids"].shape[2] + place: state for place, state in enumerate(encoded)
            }
        words = batch["word_mask"][row]
        expected = torch.stack([naive[place] for place in batch["word_starts"][row, words].tolist()])
        close(states.words[row, words], expected)
        assert states.words[row, ~words].eq(0).all()
        close(states.sentence[row], expected.mean(0))


def test_windows_that_a_text_does_not_have_are_not_read():
    """If it failed, one long text in a batch would cost as many windows for each text."""
    seen = []
    tower = make_tower()
    tower.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    assert tower(**make_windows(((9, 7, 4), (5,), (8, 8)))).words.isfinite().all()
    tower(**make_windows(((9,), (5,))))
    assert seen == [(6, 9), (2, 9)]


def test_pooled_output_is_that_of_the_first_window():
    """If it failed, a long text's vector would be another text's, or that of its end."""
    torch.manual_seed(1)
    tower = TransformerTower(
        tiny_config(fusion="text-only", text_config=TEXT, sentence_vector="pooler")
    ).eval()
    stir(tower)
    batch = make_windows(((9, 7, 4), (5,), (8, 8)))
    sentence = tower(**batch).sentence
    for row, size in enumerate((9, 5, 8)):
        expected = tower.encoder(batch["input_ids"][row, 0, :size][None]).pooler_output[0]
        close(sentence[row], expected)


def test_longer_windows_than_the_encoder_reads_are_refused():
    """If it failed, a processor of another encoder would index past the position table."""
    message = (
        r"expected windows of at most 64 sub-tokens, .* found 65; give the processor this window:"
        r" .*model_max_length=64"
    )
    make_tower()(**make_windows(((64,),)))
    with pytest.raises(ValueError, match=message):
        make_tower()(**make_windows(((65,),)))


@each_encoder
def test_window_is_what_the_encoder_can_read(kind):
    """If it failed, long texts would index past the position table."""
    settings, expected = ENCODERS[kind]
    tower = TransformerTower(
        tiny_config(fusion="text-only", text_config={"model_type": kind, **settings})
    ).eval()
    assert encoder_window(tower.encoder) == tower.window == window_of(tower.encoder.config) == expected
    longest = expected or 200
    states = tower(**make_windows(((longest,),))).words
    assert states.shape == (1, longest // 2, 32) and states.isfinite().all()


@each_encoder
def test_every_encoder_runs_in_the_model_post_by_post_and_batched(kind):
    """If it failed, padding, windows or special ids would be those of one encoder alone."""
    model = tiny_model(text_config={"model_type": kind, **ENCODERS[kind][0]})
    batch = tiny_batch((25, 4), (1, 0))
    padding = batch["attention_mask"] == 0
    batch["input_ids"] = batch["input_ids"].masked_fill(padding, model.config.text_config.pad_token_id or 0)
    together = model(**batch)
    for row in range(2):
        alone = model(**one_post(batch, row))
        words = alone.logits.shape[1]
        close(together.logits[row, :words], alone.logits[0])
        assert torch.equal(together.tags[row, :words], alone.tags[0])


@pytest.mark.parametrize("kind", ["roberta", "deberta-v2", "modernbert", "xlnet"])
def test_every_encoder_is_the_same_after_saving(kind, tmp_path):
    """If it failed, buffers that an encoder does not save would be garbage after loading."""
    model = tiny_model(text_config={"model_type": kind, **ENCODERS[kind][0]})
    model.save_pretrained(tmp_path)
    loaded = MMNERForTokenClassification.from_pretrained(tmp_path)
    batch = tiny_batch((25, 4), (1, 0))
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
