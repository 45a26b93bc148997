"""Tests on the real corpora: the copies that the figures belong to, and the posts in them."""

import hashlib

import pytest

from dataset_scripts.formats.reader import SPLITS, find_split, read_posts
from modeling_mmner.model.labels_mmner import entity_types, may_follow, tags_to_spans
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.recipes import CorpusSettings
from tests.shared_data import DATA, needs_data

pytestmark = needs_data

# Posts, tokens, PER, LOC, ORG, MISC, orphan I- tags and the first 12 hex digits of the SHA-256 of each
# published file.
PUBLISHED = {
    "twitter2015/train.txt": (4000, 64439, 2217, 2091, 927, 931, 186, "a6246e37aa1c"),
    "twitter2015/valid.txt": (1000, 16178, 552, 522, 247, 220, 53, "9dcc7f9df733"),
    "twitter2015/test.txt": (3257, 52822, 1816, 1697, 839, 720, 135, "edb2665b89bf"),
    "twitter2017/train.txt": (3373, 53007, 2943, 731, 1674, 701, 0, "801e149e8635"),
    "twitter2017/valid.txt": (723, 11309, 626, 173, 375, 150, 0, "41b5db90cb32"),
    "twitter2017/test.txt": (723, 11330, 621, 178, 395, 157, 0, "a7d9e172ae85"),
    "mmnerd_en/train_conll_format.txt": (19968, 328043, 3344, 4742, 7764, 25322, 0, "09460256b558"),
    "mmnerd_en/valid_conll_format.txt": (2463, 40584, 419, 552, 972, 3166, 0, "58185cc1f77e"),
    "mmnerd_en/test_conll_format.txt": (2533, 41889, 431, 517, 1019, 3214, 0, "187de233e976"),
}
each_published = pytest.mark.parametrize("path", PUBLISHED)


@pytest.mark.slow
@each_published
def test_counts_and_spans_are_the_published_ones(path):
    """If it failed, the reader would lose or invent posts, tokens or tags of a real corpus, or lenient
    reading merge or lose entities: each B- and each orphan I- is exactly one.
    """
    posts = list(read_posts(DATA / path))
    tags = [tag.replace("OTHER", "MISC") for post in posts for tag in post.tags]
    begun = [tags.count(f"B-{name}") for name in ("PER", "LOC", "ORG", "MISC")]
    pairs = (pair for post in posts for pair in zip([None, *post.tags], post.tags, strict=False))
    orphans = sum(not may_follow(before, tag) for before, tag in pairs)
    assert (len(posts), len(tags), *begun, orphans) == PUBLISHED[path][:-1]
    assert sum(tag.startswith("B-") for tag in tags) == sum(begun)
    assert sum(len(tags_to_spans(post.tags)) for post in posts) == sum(begun) + orphans
    assert hashlib.sha256((DATA / path).read_bytes()).hexdigest()[:12] == PUBLISHED[path][-1]


@pytest.mark.parametrize(
    "corpus", ["twitter2015", "twitter2017", pytest.param("mmnerd_en", marks=pytest.mark.slow)]
)
def test_corpus_reports_the_published_versions(corpus):
    """If it failed, metrics.json would not say which copy of a corpus a figure belongs to."""
    loaded = load_corpus(CorpusSettings(dataset="conll", data_dir=str(DATA / corpus), languages=["en"]))
    rows = [
        PUBLISHED[str(path.relative_to(DATA))]
        for path in (find_split(DATA / corpus, split) for split in SPLITS)
    ]
    assert list(loaded.version.values()) == [row[-1] for row in rows]
    assert list(loaded.summary().posts.values()) == [row[0] for row in rows]
    miscellaneous = "OTHER" if corpus == "twitter2015" else "MISC"
    assert set(entity_types(loaded.labels)) == {"PER", "LOC", "ORG", miscellaneous}


def test_token_of_a_no_break_space_is_kept():
    """If it failed, one post of Twitter-2015 would have a tag too many, as programs that strip lines have
    it.
    """
    tokens = {token for post in read_posts(DATA / "twitter2015" / "valid.txt") for token in post.tokens}
    assert "\u00a0" in tokens
