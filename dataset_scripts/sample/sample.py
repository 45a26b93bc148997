"""Builder of the sample corpus, the package's embedded default data: see the data card in README.md."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import datasets

from ..builders.builder import CorpusBuilder, corpus_features
from .drawing import draw, encode_png
from .languages import LANGUAGES
from .texts import TAGS, GeneratedPost, chance_level, generate_posts

__all__ = ["GeneratedPost", "Sample", "SampleConfig", "chance_level", "draw_picture", "generate_posts"]

VERSION = datasets.Version("1.0.0")
"""Part of the cache key: a change of the corpus needs a new version, or old caches go on being read."""


@dataclass
class SampleConfig(datasets.BuilderConfig):
    """Languages to generate, and the seed on which everything else depends; both belong to the cache key."""

    version: datasets.Version = VERSION
    languages: tuple[str, ...] = tuple(LANGUAGES)
    seed: int = 1


def draw_picture(post: GeneratedPost, seed: int) -> bytes | None:
    """The picture of `post` as a PNG file, or None if it has none; equal arguments give equal bytes."""
    if post.picture is None:
        return None
    return encode_png(draw(post.picture, random.Random(f"{seed}:{post.id}:picture")))


class Sample(CorpusBuilder):
    """Synthetic posts with drawings in English, French, German and Spanish, for named entity recognition."""

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = SampleConfig
    BUILDER_CONFIGS = [
        SampleConfig(name="all"),
        *(SampleConfig(name=code, languages=(code,)) for code in LANGUAGES),
    ]
    DEFAULT_CONFIG_NAME = "all"
    IS_GENERATED = True
    TERMS = "Everything in it is generated, under the Apache License 2.0."
    KNOWN_PROBLEMS = (
        (
            "Synthetic and small: a score on it shows that a system works and uses its pictures, and is no"
            " evidence of quality on real posts."
        ),
    )

    @classmethod
    def chance(cls, languages: Iterable[str]) -> dict[str, float]:
        """Chance level of text alone on the ambiguous test posts, by language and over ``all``."""
        posts = {
            language: list(generate_posts(language, "test", SampleConfig.seed)) for language in languages
        }
        return {name: chance_level(of_one) for name, of_one in posts.items()} | {
            "all": chance_level(chain(*posts.values()))
        }

    def version_name(self) -> str:
        """The builder's version and the seed, which decide everything."""
        return f"generated-{VERSION}-seed-{self.config.seed}"

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.__doc__, license="apache-2.0", features=corpus_features(list(TAGS))
        )

    def checked_rows(self, split: Any) -> Iterator[dict[str, Any]]:
        """The generated posts of a split, language by language, each with its drawing."""
        seed = self.config.seed
        for post in chain(*(generate_posts(code, split, seed) for code in self.config.languages)):
            picture = draw_picture(post, seed)
            yield {
                "id": post.id,
                "tokens": list(post.tokens),
                "ner_tags": list(post.tags),
                "image": None if picture is None else {"bytes": picture, "path": None},
                "language": post.language,
                "source": post.source,
            }
