"""Generates the posts of the sample corpus: tokens, tags and the kind of picture; draws nothing."""

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal, NamedTuple, TypeVar, get_args

from modeling_mmner.files import read_yaml

from .subjects import PictureKind

EntityType = Literal["PER", "LOC", "ORG", "MISC"]

SLOT_TYPES: Mapping[str, EntityType] = {
    "PERSON": "PER",
    "PLACE": "LOC",
    "CLUB": "ORG",
    "COMPANY": "ORG",
    "PRODUCT": "MISC",
    "TITLE": "MISC",
}
"""The slots a sentence may hold, and the type of entity that each of them makes."""


@dataclass(frozen=True)
class Language:
    """Sentences and names, as tokens joined by spaces; a slot is a token such as {PERSON}.

    Attributes:
        sentences: with one to three slots; the words around a slot tell the entity's type.
        sentences_without_entities: without slots.
        neutral_sentences: with one slot {NAME}; no word tells a person, place, organisation or thing.
        ambiguous_names: of one or two tokens, by the types they may have; none of their tokens occurs in
            another name.
        names: the fillings of each slot; of PERSON, which mostly takes both, FIRST and LAST ones.
        hashtags: words after a '#', none of which hints at a type of entity.
    """

    sentences: list[str]
    sentences_without_entities: list[str]
    neutral_sentences: list[str]
    ambiguous_names: Mapping[tuple[EntityType, ...], list[str]]
    names: Mapping[str, list[str]]
    hashtags: list[str]


def _read(code: str) -> Language:
    path = resources.files(__package__) / "languages" / f"{code}.yaml"
    content = read_yaml(path.read_text(encoding="utf-8"))
    by_types = {tuple(types.split()): names for types, names in content["ambiguous_names"].items()}
    return Language(**content | {"ambiguous_names": by_types})


LANGUAGES: Mapping[str, Language] = {code: _read(code) for code in ("en", "fr", "de", "es")}

Split = Literal["train", "validation", "test"]
Source = Literal["ambiguous", "plain", "no_picture", "irrelevant"]
Choice = TypeVar("Choice")
_Draft = tuple[tuple[str, ...], tuple[str, ...], PictureKind | None, Source]

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC")

ROUNDS: Mapping[Split, range] = {"train": range(20), "validation": range(20, 22), "test": range(22, 26)}
"""The rounds of each split, 50 posts each: one group of ambiguous posts for every combination of types, 24 in
all, and `POSTS_PER_ROUND` others. Counting on through the splits keeps their groups apart."""

POSTS_PER_ROUND: Mapping[Source, int] = {"plain": 16, "no_picture": 5, "irrelevant": 5}

_SLOT = re.compile(r"\{(\w+)\}")
_SHARE_WITHOUT_ENTITIES = 0.12
_SHARE_OF_NAMES_IN_ALL_SPLITS = 0.6
_EMOJI = ("😍", "🔥", "👀", "😂", "🙌", "✨", "💯", "😎")
_USERS = ["nightowl", "lemon_tree", "blue_pixel", "its_me", "daily_bits", "cloudy", "mixtape", "sofa_critic"]


class GeneratedPost(NamedTuple):
    """One post: `tags` has one member of `TAGS` per token; `picture` is the kind to draw, or None."""

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    picture: PictureKind | None
    source: Source
    language: str


class Group(NamedTuple):
    """A neutral sentence about a name that may have any of `types`: one ambiguous post for each of them."""

    sentence: str
    name: str
    types: tuple[EntityType, ...]


def generate_posts(language: str, split: Split, seed: int) -> Iterator[GeneratedPost]:
    """The posts of a split in their final order, in which no post follows another one of the same tokens.

    Equal arguments give equal posts everywhere.

    Raises:
        ValueError: see `ambiguous_groups`.
    """
    rng = random.Random(f"{seed}:{language}:{split}:posts")
    drafts: list[_Draft] = []
    for group in ambiguous_groups(language, split, seed):
        sentence = _decorated(group.sentence, LANGUAGES[language], rng)
        drafts += [(*_fill(sentence, [(group.name, kind)]), kind, "ambiguous") for kind in group.types]
    names = _names_of_split(language, split, seed)
    for source, posts_per_round in POSTS_PER_ROUND.items():
        number = posts_per_round * len(ROUNDS[split])
        drafts += [_worded_post(source, LANGUAGES[language], names, rng) for _ in range(number)]
    rng.shuffle(drafts)
    while any(first[0] == second[0] for first, second in itertools.pairwise(drafts)):
        rng.shuffle(drafts)
    for number, draft in enumerate(drafts, start=1):
        yield GeneratedPost(f"{language}-{split}-{number:04d}", *draft, language)


def ambiguous_groups(language: str, split: Split, seed: int) -> Iterator[Group]:
    """The groups of a split, one per round and combination of types; no sentence meets a name in two groups.

    Raises:
        ValueError: if `language` is none of LANGUAGES, or `split` none of ROUNDS.
    """
    if language not in LANGUAGES or split not in ROUNDS:
        expected = f"a language out of {sorted(LANGUAGES)} and a split out of {sorted(ROUNDS)}"
        raise ValueError(f"sample corpus: expected {expected}, found {language!r} and {split!r}")
    for types, names in LANGUAGES[language].ambiguous_names.items():
        shuffled = _shuffled(names, f"{seed}:{language}:{'/'.join(types)}")
        for round_number in ROUNDS[split]:
            turn, position = divmod(round_number, len(shuffled))
            name = shuffled[position]
            sentences = _shuffled(LANGUAGES[language].neutral_sentences, f"{seed}:{language}:{name}")
            yield Group(sentences[turn], name, types)


def chance_level(posts: Iterable[GeneratedPost]) -> float:
    """The share of ambiguous posts, 0 to 1, that a reader of the text alone gets right at best.

    Posts of a group have the same tokens and different tags: any answer is right for exactly one of them.
    """
    ambiguous = [(post.language, post.tokens) for post in posts if post.source == "ambiguous"]
    return len(set(ambiguous)) / len(ambiguous)


def _worded_post(
    source: Source, texts: Language, names: Mapping[str, Sequence[str]], rng: random.Random
) -> _Draft:
    without_entities = rng.random() < _SHARE_WITHOUT_ENTITIES
    sentence = rng.choice(texts.sentences_without_entities if without_entities else texts.sentences)
    entities: dict[str, EntityType] = {}
    for slot in _SLOT.findall(sentence):
        while (name := _draw_name(slot, names, rng)) in entities:
            pass
        entities[name] = SLOT_TYPES[slot]
    tokens, tags = _fill(_decorated(sentence, texts, rng), entities.items())
    return tokens, tags, _draw_kind(source, set(entities.values()), rng), source


def _decorated(sentence: str, texts: Language, rng: random.Random) -> str:
    """`sentence` with what posts carry before and after it, often nothing."""
    before = rng.choice(("", "", "", f"RT @ {rng.choice(_USERS)} : "))
    link = "".join(rng.choices("abcdefghijkmnpqrstuvwxyz23456789", k=6))
    endings = (f" {rng.choice(_EMOJI)}", f" # {rng.choice(texts.hashtags)}", f" https://example.org/{link}")
    return before + sentence + rng.choice(("", "", "", *endings))


def _fill(
    sentence: str, entities: Iterable[tuple[str, EntityType]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tokens and tags of `sentence` with `entities` in its slots; after a '#' a name is one word."""
    remaining = iter(entities)
    tokens: list[str] = []
    tags: list[str] = []
    for token in sentence.split(" "):
        words, own = [token], ["O"]
        if _SLOT.fullmatch(token):
            name, entity_type = next(remaining)
            words = [name.replace(" ", "")] if tokens[-1:] == ["#"] else name.split(" ")
            own = [f"B-{entity_type}"] + [f"I-{entity_type}"] * (len(words) - 1)
        tokens, tags = tokens + words, tags + own
    return tuple(tokens), tuple(tags)


def _draw_kind(source: Source, fitting: set[EntityType], rng: random.Random) -> PictureKind | None:
    if source == "no_picture":
        return None
    if source == "plain":
        return rng.choice(sorted(fitting) or ["OTHER"])
    unfitting = [kind for kind in get_args(EntityType) if kind not in fitting]
    return rng.choice(unfitting) if unfitting and rng.random() < 0.5 else "OTHER"


def _names_of_split(language: str, split: Split, seed: int) -> dict[str, list[str]]:
    """The names of all splits, and some only validation or only test has, to be told by context."""
    names = {}
    for slot, fillings in LANGUAGES[language].names.items():
        values = _shuffled(fillings, f"{seed}:{language}:{slot}")
        shared = round(_SHARE_OF_NAMES_IN_ALL_SPLITS * len(values))
        middle = (shared + len(values)) // 2
        own = {"train": slice(0), "validation": slice(shared, middle), "test": slice(middle, None)}
        names[slot] = values[:shared] + values[own[split]]
    return names


def _draw_name(slot: str, names: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    if slot != "PERSON":
        return rng.choice(names[slot])
    first = rng.choice(names["FIRST"])
    return first if rng.random() < 0.2 else f"{first} {rng.choice(names['LAST'])}"


def _shuffled(values: Sequence[Choice], seed: str) -> list[Choice]:
    return random.Random(seed).sample(values, len(values))
