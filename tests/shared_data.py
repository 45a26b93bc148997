"""Shared by the tests of the input side: the real corpora where they are present, and small tokenizers of
each kind.
"""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from modeling_mmner import MMNERProcessor
from modeling_mmner.training.vocabulary import train_tokenizer

SHARED = Path(__file__).parents[2] / "shared"
DATA = SHARED / "data"
ENCODER = SHARED / "models" / "me5-small-latin"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the real corpora, which are not ours to ship, are not at {DATA}"
)
needs_encoder = pytest.mark.skipif(not ENCODER.is_dir(), reason=f"the real text encoder is not at {ENCODER}")

# No time limit for a single example: a slow computer would fail tests that are right.
property_test = settings(deadline=None, max_examples=150)

SPLITS = ("train", "valid", "test")
_TWEETS = [f"{corpus}/{split}.txt" for corpus in ("twitter2015", "twitter2017") for split in SPLITS]
_WIKI = [
    f"wikineural/{name}/{split}.conllu" for name in ("en", "fr", "de", "es") for split in ("val", "test")
]
_MMNERD = [f"mmnerd_en/{split}_conll_format.txt" for split in SPLITS]
PICTURED_FILES = [f"tweets_with_pictures/{name}" for name in _TWEETS]
CORPUS_FILES = [*_TWEETS, *_MMNERD, *PICTURED_FILES, *_WIKI]

SENTENCES = [
    ["Jordan", "posts", "from", "Paris", "!"],
    ["L'", "Italie", "gagne", "9.30", "à", "2"],
    ["#", "Santos", "@", "Amazon", "in", "London", "."],
    ["Die", "Straße", "nach", "München", ",", "El", "niño"],
] * 5
_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def bpe_tokenizer() -> PreTrainedTokenizerBase:
    """The kind of our encoders from scratch."""
    return train_tokenizer(SENTENCES, 200)


def wordpiece_tokenizer() -> PreTrainedTokenizerBase:
    """The kind of BERT, which `mlmner` has; its vocabulary is written down, since training it breaks ties at
    random.
    """
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({letter for words in SENTENCES for word in words for letter in word})
    whole = sorted({word for words in SENTENCES[:2] for word in words} - set(letters))
    vocabulary = [*specials, *letters, *(f"##{letter}" for letter in letters), *whole]
    tokenizer = Tokenizer(
        models.WordPiece({piece: number for number, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, specials, strict=True)))


def byte_level_tokenizer() -> PreTrainedTokenizerBase:
    """The kind of RoBERTa, with ``add_prefix_space``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": 400, "special_tokens": _SPECIALS, "initial_alphabet": alphabet}
    _train(tokenizer, trainers.BpeTrainer(**options))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return _wrapped(tokenizer)


def unigram_tokenizer() -> PreTrainedTokenizerBase:
    """The kind of XLM-R, whose normaliser drops characters or turns them into spaces."""
    tokenizer = Tokenizer(models.Unigram())
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    _train(tokenizer, trainers.UnigramTrainer(vocab_size=80, special_tokens=_SPECIALS, unk_token="<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _wrapped(tokenizer)


def encoder_tokenizer() -> PreTrainedTokenizerBase:
    """That of a real multilingual encoder."""
    return AutoTokenizer.from_pretrained(ENCODER)


TOKENIZERS = {
    "bpe": bpe_tokenizer,
    "wordpiece": wordpiece_tokenizer,
    "byte-level": byte_level_tokenizer,
    "unigram": unigram_tokenizer,
    "me5-small-latin": encoder_tokenizer,
}
each_tokenizer = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=needs_encoder) if kind == "me5-small-latin" else kind for kind in TOKENIZERS],
)


@cache
def text_processor(kind: str = "bpe") -> MMNERProcessor:
    """A processor of text alone without a window; made once for each kind, so leave it as it is."""
    tokenizer = TOKENIZERS[kind]()
    tokenizer.model_max_length = 10**30
    return MMNERProcessor(tokenizer, image_size=None)


def _train(tokenizer: Tokenizer, trainer: trainers.Trainer) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator([" ".join(words) for words in SENTENCES], trainer)


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerBase:
    roles = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    names = dict(zip(roles, _SPECIALS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", **names)
