"""Tests of the sample corpus: its posts, its pictures and its builder."""

import hashlib
import io
import itertools
import random
from collections import Counter, defaultdict

import datasets
import pytest
from PIL import Image

from dataset_scripts.sample import sample
from dataset_scripts.sample.drawing import SIDE, draw, encode_png
from dataset_scripts.sample.examples import examples
from dataset_scripts.sample.sample import Sample, draw_picture
from dataset_scripts.sample.subjects import SUBJECTS
from dataset_scripts.sample.texts import (
    LANGUAGES,
    ROUNDS,
    TAGS,
    GeneratedPost,
    ambiguous_groups,
    chance_level,
    generate_posts,
)

SEED = 1
POSTS = {part: list(generate_posts(*part, SEED)) for part in itertools.product(LANGUAGES, ROUNDS)}
each_part = pytest.mark.parametrize(("language", "split"), POSTS)
each_language = pytest.mark.parametrize("language", LANGUAGES)


def groups_of(posts: list[GeneratedPost]) -> dict[tuple[str, ...], list[GeneratedPost]]:
    groups = defaultdict(list)
    for post in (post for post in posts if post.source == "ambiguous"):
        groups[post.tokens].append(post)
    return groups


def entity_types(post: GeneratedPost) -> set[str]:
    return {tag[2:] for tag in post.tags if tag != "O"}


def test_posts_do_not_change_unnoticed():
    """If it failed, this platform or this change would give other posts for seed 1: the latter needs a new
    VERSION. Or the seed would do nothing.
    """
    assert all(list(generate_posts(*part, SEED + 1)) != posts for part, posts in POSTS.items())
    text = "\n".join(repr(post).removeprefix("Generated") for posts in POSTS.values() for post in posts)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "15cc3f7129d99e5c"


def test_each_post_and_seed_has_a_picture_of_its_own():
    """If it failed, pictures would not depend on the post or the seed."""
    posts = [post for post in POSTS["en", "test"] if post.picture is not None][:20]
    pictures = [draw_picture(post, SEED) for post in posts]
    assert all(draw_picture(post, SEED + 1) != picture for post, picture in zip(posts, pictures, strict=True))
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("kind", SUBJECTS)
def test_png_file_holds_the_drawing(kind):
    """If it failed, the hand-written PNG files would not be what was drawn."""
    image = draw(kind, random.Random(f"picture of {kind}"))
    read = Image.open(io.BytesIO(encode_png(image)))
    assert (read.format, read.mode, read.size) == ("PNG", "RGB", (SIDE, SIDE))
    assert read.tobytes() == image.tobytes()


@each_part
def test_counts_order_and_tags(language, split):
    """If it failed, a split would be too small, miss a source, have wrong ids, or show a group in a row; or a
    post have tags missing, unknown, or an entity continuing where none began.
    """
    posts, rounds = POSTS[language, split], {"train": 20, "validation": 2, "test": 4}[split]
    per_round = {"ambiguous": 24, "plain": 16, "no_picture": 5, "irrelevant": 5}
    assert Counter(post.source for post in posts) == {key: n * rounds for key, n in per_round.items()}
    ids = [f"{language}-{split}-{number:04d}" for number in range(1, len(posts) + 1)]
    assert [post.id for post in posts] == ids
    assert all(first.tokens != second.tokens for first, second in itertools.pairwise(posts))
    for post in posts:
        assert len(post.tokens) == len(post.tags) and set(post.tags) <= set(TAGS)
        assert all(token and not set(token) & set(" {}") for token in post.tokens)
        for before, tag in itertools.pairwise(("O", *post.tags)):
            assert not tag.startswith("I-") or before[1:] == tag[1:]


@each_part
def test_groups_can_only_be_told_apart_by_their_pictures(language, split):
    """If it failed, the text alone could do better on ambiguous posts than the chance level says, or the
    chance level not be the bound that the data card states.
    """
    groups = groups_of(POSTS[language, split]).values()
    for posts in groups:
        types = [post.picture for post in posts]
        assert len(set(types)) == len(types) >= 2
        assert all(entity_types(post) == {post.picture} for post in posts)
        assert len({tuple(tag[:1] for tag in post.tags) for post in posts}) == 1
    frequencies = Counter(post.picture for posts in groups for post in posts)
    assert len(set(frequencies.values())) == 1 and len(frequencies) == 4
    best = sum(Counter(post.tags for post in posts).most_common(1)[0][1] for posts in groups)
    level = best / sum(map(len, groups))
    assert chance_level(POSTS[language, split]) == pytest.approx(level) == pytest.approx(5 / 12)


@each_language
def test_splits_share_no_ambiguous_sentence_but_training_has_every_name_and_type(language):
    """If it failed, ambiguous posts of the test split could be known by heart, or a name be unknown."""
    groups = {split: list(ambiguous_groups(language, split, SEED)) for split in ROUNDS}
    pairs = [(group.sentence, group.name) for split in ROUNDS for group in groups[split]]
    assert len(set(pairs)) == len(pairs)
    tokens = [set(groups_of(POSTS[language, split])) for split in ROUNDS]
    assert all(not first & second for first, second in itertools.combinations(tokens, 2))
    trained = {(group.name, group.types) for group in groups["train"]}
    assert {(group.name, group.types) for split in ROUNDS for group in groups[split]} == trained


@each_language
def test_ambiguous_names_occur_in_ambiguous_posts_only(language):
    """If it failed, another post could teach which type an ambiguous name mostly has."""
    names = [name for names in LANGUAGES[language].ambiguous_names.values() for name in names]
    assert len(set(names)) == len(names)
    words = {word for name in names for word in name.split(" ")}
    others = [post for split in ROUNDS for post in POSTS[language, split] if post.source != "ambiguous"]
    assert not [post for post in others if words & set(post.tokens)]


def test_pictures_are_what_the_source_says():
    """If it failed, a plain post would have a misleading picture, or an irrelevant one a helpful one."""
    for post in itertools.chain(*POSTS.values()):
        if post.source == "no_picture":
            assert post.picture is None
        elif post.source == "plain":
            assert post.picture in (entity_types(post) or {"OTHER"})
        elif post.source == "irrelevant":
            assert post.picture is not None and post.picture not in entity_types(post)


@each_language
def test_some_names_are_unseen_in_training(language):
    """If it failed, tagging the test split would need no context, or its names would all be unknown."""

    def names(split: str) -> set[str]:
        posts = (post for post in POSTS[language, split] if post.source != "ambiguous")
        pairs = (pair for post in posts for pair in zip(post.tokens, post.tags, strict=True))
        return {token for token, tag in pairs if tag.startswith("B-")}

    assert 0.1 < len(names("test") - names("train")) / len(names("test")) < 0.6


@pytest.mark.slow
def test_builder_gives_the_generated_posts(tmp_path, monkeypatch):
    """If it failed, the data set that is trained on would not be the one that is tested here."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    corpus = Sample("en").splits()
    assert set(corpus) == set(ROUNDS)
    assert tuple(corpus["train"].features["ner_tags"].feature.names) == TAGS
    for split in ROUNDS:
        for row, post in zip(corpus[split], POSTS["en", split], strict=True):
            tags = tuple(TAGS[tag] for tag in row["ner_tags"])
            found = (row["id"], tuple(row["tokens"]), tags, row["source"], row["language"])
            assert found == (post.id, post.tokens, post.tags, post.source, post.language)
            assert (row["image"] and row["image"]["bytes"]) == draw_picture(post, SEED)


def test_corpus_is_drawn_once_and_anew_for_another_seed(tmp_path, monkeypatch):
    """If it failed, each run would draw it again, or one with another seed read the first one's pictures."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    assert (Sample().config_name, Sample().config.languages) == ("all", tuple(LANGUAGES))
    drawn = []
    monkeypatch.setattr(sample, "draw_picture", lambda post, seed: drawn.append(seed))
    rows = [Sample("de", seed=seed).split("test") for seed in (1, 1, 2)]
    assert drawn == [1] * len(POSTS["de", "test"]) + [2] * len(POSTS["de", "test"])
    assert rows[0]["tokens"][:] == rows[1]["tokens"][:] != rows[2]["tokens"][:]


def test_wrong_arguments_are_named():
    """If it failed, a wrong argument would go unnoticed, or the message would not say which one."""
    with pytest.raises(ValueError, match=r"a language out of .* found 'it'"):
        list(generate_posts("it", "train", SEED))
    with pytest.raises(ValueError, match=r"a split out of .* found 'en' and 'dev'"):
        list(generate_posts("en", "dev", SEED))


def test_examples_are_pairs_that_only_the_picture_tells_apart():
    """If it failed, two examples to try would not show what the picture is worth."""
    found = examples()
    assert [example.language for example in found] == [language for language in LANGUAGES for _ in range(2)]
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.text == second.text and "{" not in first.text
        assert first.picture.tobytes() != second.picture.tobytes()
    assert [one.picture.tobytes() for one in examples()] == [one.picture.tobytes() for one in found]
