"""Tests of words: the rule that splits raw text, and that every word gets its place among the sub-tokens."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.formats.reader import read_posts
from modeling_mmner import MMNERProcessor
from modeling_mmner.model.labels_mmner import WORD_RULES, split_words
from tests.shared_data import (
    CORPUS_FILES,
    DATA,
    bpe_tokenizer,
    each_tokenizer,
    needs_data,
    property_test,
    text_processor,
)

# What the corpora and the web hold: characters that tokenizers drop, sequences that must stay whole,
# look-alikes of markup.
ODD_WORDS = [
    *["", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u00a0", "\u2003", "\x80", "\x85", "\x00", "\x1f", "\n"],
    *["\t", "  ", "\ufffd", "\ue000", "\U000f0000", "\uffff", "\u0301", "e\u0301", "e" + "\u0301" * 40],
    *["\ud83d", "a\udc00b", "👨‍👩‍👧‍👦", "👍🏽", "🇫🇷", "🇫", "❤️", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🙂‍↔️", "\ufe0f", "🏽"],
    *["[SEP]", "[PAD]", "[UNK]", "[MASK]", "[CLS]x", "</s>", "<s>", "<pad>", "<mask>", "a</s>", "##a"],
    *["▁", "▁▁", "Ġ", "Ċ", "x" * 3000, "\u200b" * 3000, "🙂" * 500, "a b", " a", "a "],
    *["中文", "नमस्ते", "ﷺ", "ŉ", "İ", "ß", "コーヒー", "ｶﾞ", "กำลัง", "한국은", "\u1112\u1161\u11ab", "〇々"],
]
any_word = st.one_of(
    st.sampled_from(ODD_WORDS), st.text(max_size=6), st.text(st.characters(categories=["Cf", "Mn", "Co"]))
)
any_text = st.lists(
    st.one_of(
        st.sampled_from(
            [*"'’.,:;_#@-&1a³٣éßİ 🏽♂↔🇫", "l'", "L’", "qu’", "'n'", "9.30", "http://", "www.", "d' a"]
        ),
        st.sampled_from(ODD_WORDS),
        st.text(max_size=4),
    ).filter(lambda text: len(text) < 1000),
    max_size=12,
).map("".join)


def words_of(text: str, rule: str = "spaces") -> list[str]:
    return [word.text for word in split_words(text, rule)]


each_rule = pytest.mark.parametrize("rule", WORD_RULES)


@each_rule
@property_test
@given(text=any_text)
def test_words_are_where_they_say_and_cover_all_but_white_space(rule, text):
    """If it failed, entities would be cut out at the wrong place, or characters be in no word or in two."""
    words = split_words(text, rule)
    covered = [position for word in words for position in range(word.start, word.end)]
    assert [text[word.start : word.end] for word in words] == [word.text for word in words]
    assert all(word.text for word in words)
    assert covered == [position for position, character in enumerate(text) if not character.isspace()]


@each_rule
@property_test
@given(text=any_text)
def test_words_joined_by_spaces_split_into_themselves(rule, text):
    """If it failed, a text would be split otherwise when it comes as words, as elisions once were."""
    words = words_of(text, rule)
    assert words_of(" ".join(words), rule) == words


RULE = {
    "white space": ("so  nice\tto\nsee\u00a0you\u2003", "so nice to see you"),
    "URLs": (
        "see http://t.co/a.b,c?d=e. WWW.x.org/#y! httpx",
        "see http://t.co/a.b,c?d=e. WWW.x.org/#y! httpx",
    ),
    "URL up to white space": ("(https://t.co/x)", "( https://t.co/x)"),
    "numbers": ("at 9.30, 80,000 of 1:0. No 5.", "at 9.30 , 80,000 of 1:0 . No 5 ."),
    "dots and commas without digits around": ("2.a a.2 1..2 ,5 5,", "2 . a a . 2 1 . . 2 , 5 5 ,"),
    "letters and digits": ("B2B 2nd H2O x³ 1️⃣", "B2B 2nd H2O x³ 1️⃣"),
    "underscore": ("@Letchworth_TIC _x_", "@ Letchworth_TIC _x_"),
    "marks": (
        "Cafe\u0301 za\u0308he नमस्ते co\u00adop a\u200bb",
        "Cafe\u0301 za\u0308he नमस्ते co\u00adop a\u200bb",
    ),
    "English apostrophes": ("don't Jordan's rock'n'roll", "don ' t Jordan ' s rock ' n' roll"),
    "quoted letter": ("rock 'n' roll", "rock ' n ' roll"),
    "symbols": ("#London @Paris a-b w/ $5 &amp; [x]…", "# London @ Paris a - b w / $ 5 & amp ; [ x ] …"),
    "German": ("Straße, Fußball-EM „gut“ 3. Mai", "Straße , Fußball - EM „ gut “ 3 . Mai"),
    "Spanish": ("¿Dónde está el niño? ¡Olé!", "¿ Dónde está el niño ? ¡ Olé !"),
    "article": ("l'Italie L’Italie", "l' Italie L’ Italie"),
    "longer ones": ("qu'il jusqu'à lorsqu’on d'un c'est", "qu' il jusqu' à lorsqu’ on d' un c' est"),
    "pronouns": ("n'est s'il j'ai m'a t'es", "n' est s' il j' ai m' a t' es"),
    "with a space": ("l' Italie d' un", "l' Italie d' un"),
    "quoted": ("'l'Italie'", "' l' Italie '"),
    "no elisions": ("aujourd'hui presqu'île", "aujourd ' hui presqu ' île"),
    "symbol": ("l'«Italie»", "l ' « Italie »"),
    "end": ("la lettre l'", "la lettre l '"),
    "decomposed": ("d'e\u0301t\u00e9", "d' e\u0301t\u00e9"),
}


@pytest.mark.parametrize(("text", "words"), RULE.values(), ids=RULE)
def test_rule_splits_as_it_says(text, words):
    """If it failed, the named clause of the rule would not hold, and models would meet other words than they
    learnt; French articles would stick to names.
    """
    assert words_of(text) == words.split(" ")


CHARACTERS = {
    "Chinese": ("在北京看iPhone 15手机，好", "在 北 京 看 iPhone 15 手 机 ， 好"),
    "URL": ("见https://t.co/a1看", "见 https://t.co/a1 看"),
    "Japanese": ("東京でコーヒーを〇々", "東 京 で コ ー ヒ ー を 〇 々"),
    "half width with its mark": ("ｶﾞﾗｽ", "ｶﾞ ﾗ ｽ"),
    "Thai with its vowels": ("กรุงเทพนำ", "ก รุ ง เ ท พ นำ"),
    "Korean with its particle": ("삼성은 9.30에", "삼 성 은 9.30 에"),
    "decomposed Korean": ("\u1112\u1161\u11ab국", "\u1112\u1161\u11ab 국"),
    "all else as by spaces": ("l'Italie don't @a_b नमस्ते 9.30 🏴‍☠️", "l' Italie don ' t @ a_b नमस्ते 9.30 🏴‍☠️"),
}


@pytest.mark.parametrize(("text", "words"), CHARACTERS.values(), ids=CHARACTERS)
def test_rule_of_characters_splits_as_it_says(text, words):
    """If it failed, entities of a text without spaces could not be found, since they would cut a word."""
    assert words_of(text, "characters") == words.split(" ")


EMOJI = ["🙂", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🏴‍☠️", "👩🏽‍⚕️", "🙂‍↔️", "❤️", "❤️‍🔥", "#️⃣", "🇫🇷", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "™️"]


@pytest.mark.parametrize("emoji", EMOJI)
def test_emoji_sequences_are_one_word_each(emoji):
    """If it failed, one sign to the eye would be several words; the head shaking (🙂‍↔️, with an arrow in it)
    once was.
    """
    assert words_of(f"a{emoji}{emoji}b {emoji}") == ["a", emoji, emoji, "b", emoji]


def test_flags_pair_from_the_left():
    """If it failed, two flags would be one word, or a flag be cut in the middle."""
    assert words_of("🇫🇷🇩🇪🇪 🇸") == ["🇫🇷", "🇩🇪", "🇪", "🇸"]


def test_unknown_rule_is_refused():
    """If it failed, a processor of a newer package would silently split by the old rule."""
    message = (
        r"word rule: expected one of \['spaces', 'characters', 'mmner-words-1', 'mmner-characters-1'\], found"
        " 'mmner-words-2'; a newer package may know it"
    )
    with pytest.raises(ValueError, match=message):
        split_words("a", "mmner-words-2")
    with pytest.raises(ValueError, match=message):
        MMNERProcessor(bpe_tokenizer(), word_rule="mmner-words-2")


def share_kept(path: Path) -> float:
    """Share of a corpus's words that are words again after joining them by spaces and splitting the text."""
    kept = total = 0
    for post in read_posts(path):
        found = {(word.start, word.end) for word in split_words(" ".join(post.tokens))}
        start = 0
        for token in post.tokens:
            kept += (start, start + len(token)) in found
            start += len(token) + 1
        total += len(post.tokens)
    return kept / total


@needs_data
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_rule_keeps_the_words_of_twitter_2017(split):
    """If it failed, raw text would be split otherwise than the corpus, as Harry_Styles once was."""
    assert share_kept(DATA / "twitter2017" / f"{split}.txt") > 0.998


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(("language", "share"), [("en", 0.98), ("fr", 0.985), ("de", 0.985), ("es", 0.995)])
def test_rule_keeps_most_words_of_four_languages(language, share):
    """If it failed, tokenised text of a language would be split anew; of French 5% once was, its elisions."""
    assert share_kept(DATA / "wikineural" / language / "val.conllu") > share


def row_word_by_word(processor: MMNERProcessor, words: list[str]) -> tuple[list[int], list[int]]:
    """Sub-tokens and word starts of a post, from tokenizing each word on its own."""
    tokenizer = processor.tokenizer
    ids, starts = [tokenizer.cls_token_id], []
    for word in words:
        starts.append(len(ids))
        whole = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in word)
        pieces = tokenizer([whole], is_split_into_words=True, add_special_tokens=False)["input_ids"]
        ids += pieces or [tokenizer.unk_token_id]
    return [*ids, tokenizer.sep_token_id], starts


def check_places(processor: MMNERProcessor, posts: list[list[str]]) -> None:
    """Each word has a place of its own, in order, between the special tokens."""
    batch = processor(posts, return_tensors="np")
    for row, words in enumerate(posts):
        starts = batch["word_starts"][row, : len(words)]
        length = batch["attention_mask"][row].sum()
        assert batch["word_mask"][row].tolist() == [True] * len(words) + [False] * (
            batch["word_mask"].shape[1] - len(words)
        )
        assert (np.diff(starts) > 0).all()
        assert not words or (starts[0] == 1 and starts[-1] < length - 1)


@each_tokenizer
@property_test
@given(words=st.lists(any_word, max_size=8))
def test_no_word_is_lost(kind, words):
    """If it failed, a word that the tokenizer drops would have no place, and later tags would shift."""
    processor = text_processor(kind)
    check_places(processor, [words])
    batch = processor([words], return_tensors="np")
    ids, starts = row_word_by_word(processor, words)
    assert batch["input_ids"].tolist() == [[ids]]
    assert batch["word_starts"][batch["word_mask"]].tolist() == starts


@each_tokenizer
def test_every_odd_word_has_a_place_beside_the_others(kind):
    """If it failed, one odd word would take or shift the place of another in the same batch."""
    check_places(text_processor(kind), [ODD_WORDS, ODD_WORDS[::-1], ["plain"], []])


@needs_data
@pytest.mark.slow
@each_tokenizer
@pytest.mark.parametrize("path", CORPUS_FILES)
def test_no_word_of_the_real_corpora_is_lost(kind, path):
    """If it failed, a real post would have fewer places than words."""
    posts = [post.tokens for post in read_posts(DATA / path)]
    processor = text_processor(kind)
    for first in range(0, len(posts), 200):
        check_places(processor, posts[first : first + 200])
