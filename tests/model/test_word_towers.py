"""Tests of the text towers of words against loops over single words, steps, characters and filters."""

import pytest
import torch
from torch import Tensor, nn

from modeling_mmner import MMNERForTokenClassification
from modeling_mmner.model.context_mmner import TextStates
from modeling_mmner.model.text_mmner import (
    CHARACTER_IDS,
    BiLSTM,
    CharacterBiLSTM,
    CharacterCNN,
    TextTower,
    WordTower,
)
from tests.tiny import TOWER, VIT, WORDS, close, gradients, stir, tiny_batch, tiny_config

WIDTH, HIDDEN = 6, 5
LENGTHS = {"mixed": (4, 0, 1, 6, 6), "one": (3,), "full": (2, 2), "all empty": (0, 0)}
SPELT = [[72, 105], [], [1, 256, 7, 7, 9], [3]]
KINDS = ("bilstm", "cnn-bilstm", "hbilstm")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_length = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)


def naive_direction(lstm: nn.LSTM, steps: list[Tensor], way: str) -> list[Tensor]:
    """The hidden state after each step of one direction, gate by gate, in the order of the sequence."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    of_input, of_state, input_bias, state_bias = (getattr(lstm, f"{name}_l0{way}").chunk(4) for name in names)
    state, cell = torch.zeros(lstm.hidden_size), torch.zeros(lstm.hidden_size)
    states = []
    for step in reversed(steps) if way else steps:
        raw = [of_input[k] @ step + input_bias[k] + of_state[k] @ state + state_bias[k] for k in range(4)]
        into, forget, out = (torch.sigmoid(raw[k]) for k in (0, 1, 3))
        cell = forget * cell + into * torch.tanh(raw[2])
        state = out * torch.tanh(cell)
        states.append(state)
    return states[::-1] if way else states


def naive_bilstm(bilstm: BiLSTM, steps: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The states of one sequence, and the last forwards beside the last backwards."""
    if not steps:
        return [], torch.zeros(2 * bilstm.lstm.hidden_size)
    forwards, backwards = (naive_direction(bilstm.lstm, steps, way) for way in ("", "_reverse"))
    return [torch.cat(pair) for pair in zip(forwards, backwards, strict=True)], torch.cat(
        [forwards[-1], backwards[0]]
    )


def naive_cnn(part: CharacterCNN, ids: list[int]) -> Tensor:
    """Each filter's greatest answer at any character, a character of zeros before and after the word."""
    if not ids:
        return torch.zeros(part.width)
    nothing = torch.zeros(part.embeddings.embedding_dim)
    row = [nothing, *(part.embeddings.weight[number] for number in ids), nothing]
    weight, bias, answers = part.convolution.weight, part.convolution.bias, []
    for number in range(part.width):
        windows = [row[place : place + 3] for place in range(len(ids))]
        sums = [bias[number] + sum(weight[number, :, k] @ window[k] for k in range(3)) for window in windows]
        answers.append(torch.stack(sums).max())
    return torch.stack(answers)


def naive_characters(part: CharacterCNN | CharacterBiLSTM | None, ids: list[int]) -> Tensor:
    if part is None:
        return torch.zeros(0)
    if isinstance(part, CharacterCNN):
        return naive_cnn(part, ids)
    return naive_bilstm(part.bilstm, [part.embeddings.weight[number] for number in ids])[1]


def naive_tower(tower: WordTower, batch: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The states of all words of all posts one after the other, and each post's sentence vector."""
    words, sentences = [], []
    for row, length in enumerate(batch["word_mask"].sum(1).tolist()):
        inputs = []
        for place in range(length):
            number = batch["input_ids"][row].flatten()[batch["word_starts"][row, place]]
            spelt = [one for one in batch["character_ids"][row, place].tolist() if one]
            inputs.append(
                torch.cat([tower.encoder.weight[number], naive_characters(tower.characters, spelt)])
            )
        states, _ = naive_bilstm(tower.bilstm, inputs)
        words += states
        mean = sum(states) / length if length else torch.zeros(tower.width)
        sentences.append(mean if tower.sentence is None else naive_bilstm(tower.sentence, inputs)[1])
    return words, sentences


def make_tower(kind: str, **settings) -> WordTower:
    torch.manual_seed(1)
    config = tiny_config(
        **{"fusion": "text-only", "text_tower": kind, "character_cnn_width": 4, "character_filters": 6}
        | settings
    )
    tower = TextTower.named(kind)(config).eval()
    stir(tower, scale=0.3)
    return tower


def make_batch(lengths: tuple[int, ...] = (5, 0, 3, 1)) -> dict[str, Tensor]:
    """Texts of which one is empty, and a word without a character."""
    batch = tiny_batch(lengths, (0,) * len(lengths))
    batch["character_ids"][0, 1] = 0
    return batch


def read(tower: WordTower, batch: dict[str, Tensor]) -> TextStates:
    ids = {
        name: batch[name].reshape(len(batch[name]), -1, batch[name].shape[-1])
        for name in ("input_ids", "attention_mask")
    }
    rest = {name: batch[name] for name in ("word_starts", "word_mask")}
    return tower(
        **ids, **rest, character_ids=batch["character_ids"] if tower.characters is not None else None
    )


def same(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """Both are equal, and so are the gradients of a random sum of them."""
    close(found, expected)
    assert found.requires_grad == expected.requires_grad
    if not found.requires_grad:  # as where there is nothing to read
        return
    share = torch.randn(found.shape)
    found_gradients, expected_gradients = (
        gradients((tensor * share).sum(), inputs) for tensor in (found, expected)
    )
    close(found_gradients, expected_gradients)


def seen_by(module: nn.Module) -> list[Tensor]:
    """A list that grows by the first input of each call of a module."""
    found: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, given: found.append(given[0].detach().clone()))
    return found


# The parts


@each_length
def test_bilstm_equals_its_gates_step_by_step(lengths):
    """If it failed, a sequence would be read with its padding or its neighbours, or the gates be mixed up."""
    torch.manual_seed(2)
    bilstm = BiLSTM(WIDTH, HIDDEN)
    stir(bilstm, scale=0.3)
    mask = torch.arange(max(1, *lengths) + 1) < torch.tensor(lengths)[:, None]
    inputs = torch.randn(*mask.shape, WIDTH, requires_grad=True)
    states, last = bilstm(inputs, mask)
    assert states.shape == (*mask.shape, 2 * HIDDEN) and states[~mask].eq(0).all()
    rows, lasts = zip(
        *(naive_bilstm(bilstm, [*inputs[row, :length]]) for row, length in enumerate(lengths)), strict=True
    )
    expected = torch.stack([*lasts, *(state for row in rows for state in row)])
    same(torch.cat([last, states[mask]]), expected, [inputs, *bilstm.parameters()])


def spelt_ids(padding: int = 0) -> Tensor:
    ids = torch.zeros(len(SPELT), max(map(len, SPELT)) + padding, dtype=torch.long)
    for row, numbers in enumerate(SPELT):
        ids[row, : len(numbers)] = torch.tensor(numbers)
    return ids


def character_part(kind: str) -> CharacterCNN | CharacterBiLSTM:
    torch.manual_seed(3)
    part = CharacterCNN(4, 7, dropout=0.3) if kind == "cnn" else CharacterBiLSTM(4)
    stir(part, scale=0.3)
    return part.eval()


@pytest.mark.parametrize("kind", ["cnn", "bilstm"])
def test_character_part_equals_its_equations_word_by_word(kind):
    """If it failed, a word's padding or its neighbours would be read."""
    part, ids = character_part(kind), spelt_ids()
    found = part(ids)
    assert found.shape == (len(SPELT), part.width) and found[1].eq(0).all()
    same(found, torch.stack([naive_characters(part, numbers) for numbers in SPELT]), list(part.parameters()))


def test_characters_are_dropped_in_training_alone():
    """If it failed, the CNN would be trained without the dropout of its paper, or predictions be random."""
    part, ids = character_part("cnn"), spelt_ids()
    for training in (True, False):
        part.train(training)
        assert torch.equal(part(ids), part(ids)) != training


# The towers


@each_kind
@pytest.mark.parametrize("fusion", ["text-only", "gvatt"], ids=["mean", "second BiLSTM"])
@pytest.mark.parametrize("windows", [1, 2])
def test_tower_equals_its_parts_put_together_by_hand(kind, fusion, windows):
    """If it failed, words would be read from other ids or joined to other words' characters."""
    tower, batch = make_tower(kind, fusion=fusion), make_batch()
    longest = batch["input_ids"].shape[1]
    for name in ("input_ids", "attention_mask"):
        batch[name] = nn.functional.pad(batch[name], (0, longest % windows)).unflatten(1, (windows, -1))
    states, (words, sentences) = read(tower, batch), naive_tower(tower, batch)
    assert (tower.sentence is not None) == (fusion == "gvatt")
    assert states.words.shape == (*batch["word_mask"].shape, 32) and tower.width == 32
    assert torch.equal(states.mask, batch["word_mask"]) and states.words[~states.mask].eq(0).all()
    same(
        torch.cat([states.words[states.mask], states.sentence]),
        torch.stack([*words, *sentences]),
        list(tower.parameters()),
    )


@pytest.mark.parametrize("training", [True, False])
def test_rare_words_are_unknown_half_of_the_time_in_training(training):
    """If it failed, the unknown word's vector would learn nothing."""
    rare = 60
    tower = make_tower(
        "bilstm", word_vocabulary=WORDS["word_vocabulary"] | {"unknown": 4, "rare": rare}
    ).train(training)
    ids = torch.arange(5, 100).expand(400, -1)
    seen, mask = seen_by(tower.encoder), torch.ones(ids.shape, dtype=torch.bool)
    torch.manual_seed(5)
    for _ in range(2):
        tower.read_words(ids, word_mask=mask, character_ids=None)
    assert not training or not torch.equal(*seen)
    for found in seen:
        changed = found != ids
        assert found[changed].eq(4).all()
        counts = dict(zip(range(5, 100), changed.sum(0).tolist(), strict=True))
        assert all(counts[word] == 0 for word in range(5, rare))
        # Of 400 draws of one half: 200, give or take 10 at one deviation.
        assert all(140 < counts[word] < 260 if training else counts[word] == 0 for word in range(rare, 100))
        assert abs(changed[:, rare - 5 :].float().mean() - training / 2) < 0.02


@each_kind
def test_inputs_are_dropped_in_training_alone_and_the_same_for_both_bilstms(kind):
    """If it failed, the sentence vector would be of other words than the word states."""
    tower, batch = make_tower(kind, fusion="gvatt", dropout=0.5), make_batch()
    words, sentence = seen_by(tower.bilstm), seen_by(tower.sentence)
    for training in (True, False):
        tower.train(training)
        first, second = (read(tower, batch) for _ in range(2))
        assert torch.equal(first.words, second.words) != training
        assert torch.equal(first.sentence, second.sentence) != training
    assert all(torch.equal(*pair) for pair in zip(words, sentence, strict=True)) and len(words) == 4


@pytest.mark.parametrize(
    ("fusion", "objectives", "towers", "read_by"),
    [
        ("gvatt", {"crf": 1.0}, [TOWER], True),
        ("adacan", {"crf": 1.0}, [TOWER], False),
        ("adacan", {"crf": 1.0, "alignment": 0.4}, [TOWER], True),
        ("collaboration", {"crf": 1.6, "alignment": 0.4}, [VIT], True),
        ("collaboration", {"crf": 1.0}, [VIT], False),
        ("cross-modal", {"crf": 1.0, "boundary": 0.4}, [TOWER], False),
        ("text-only", {"crf": 1.0}, [], False),
    ],
)
def test_second_bilstm_is_built_where_the_sentence_is_read(fusion, objectives, towers, read_by):
    """If it failed, a model would carry weights that nothing reads, or the sentence vector not be GVATT's."""
    settings = {"fusion": fusion, "objectives": objectives, "vision_towers": towers}
    model = MMNERForTokenClassification(tiny_config(text_tower="bilstm", **settings))
    names = [name for name, _ in model.text_tower.named_parameters() if name.startswith("sentence.")]
    assert len(names) == (8 if read_by else 0)
    assert any("sentence" in name for name in model.state_dict()) == read_by


@each_kind
def test_embeddings_are_drawn_as_their_papers_say(kind):
    """Regression: words and characters began five times smaller, as a Transformer's."""
    torch.manual_seed(6)
    sizes = {"word_width": 50, "character_lstm_width": 20, "character_cnn_width": 30, "character_filters": 40}
    settings = {"word_vocabulary": {"size": 400, "unknown": 1, "rare": 400}} | sizes
    tower = MMNERForTokenClassification(
        tiny_config(text_tower=kind, fusion="text-only", **settings)
    ).text_tower
    tables = [tower.encoder] if tower.characters is None else [tower.encoder, tower.characters.embeddings]
    assert [table.num_embeddings for table in tables] == [400, CHARACTER_IDS][: len(tables)]
    for table in tables:
        limit = (3 / table.embedding_dim) ** 0.5
        assert 0.99 * limit < table.weight.abs().max() <= limit
        assert table.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.03)
    if kind == "cnn-bilstm":  # as the linear layers, by the number of inputs: three characters
        assert tower.characters.convolution.weight.std().item() == pytest.approx(
            (3 * 3 * 30) ** -0.5, rel=0.05
        )
