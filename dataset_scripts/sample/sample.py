"""Builder of the sample corpus, the package's embedded default data: see the data card in README.md."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import datasets

from ..builders.builder import CorpusBuilder, corpus_features, short_hash
from ..formats.reader import SPLITS
from ..formats.records import undecoded
from .drawing import draw, encode_png
from .texts import LANGUAGES, TAGS, GeneratedPost, chance_level, generate_posts


@dataclass
class SampleConfig:
    """Languages to generate, and the seed on which everything else depends."""

    languages: tuple[str, ...] = tuple(LANGUAGES)
    seed: int = 1


def draw_picture(post: GeneratedPost, seed: int) -> bytes | None:
    """The picture of `post` as a PNG file, or None if it has none; equal arguments give equal bytes."""
    if post.picture is None:
        return None
    return encode_png(draw(post.picture, random.Random(f"{seed}:{post.id}:picture")))


class Sample(CorpusBuilder):
    """Synthetic posts with drawings in English, French, German and Spanish, for named entity recognition."""

    VERSION = "1.0.0"
    """Part of what its cache is known by: a change of the corpus needs another, or old caches are read on."""

    CONFIGS = {"all": SampleConfig()} | {code: SampleConfig((code,)) for code in LANGUAGES}
    DEFAULT_CONFIG = "all"
    IS_GENERATED = True
    LICENSE = "apache-2.0"
    TERMS = "Everything in it is generated, under the Apache License 2.0."
    labels = list(TAGS)

    @classmethod
    def chance(cls, languages: Iterable[str]) -> dict[str, float]:
        """Chance level of text alone on the ambiguous test posts, by language and over ``all``."""
        posts = {code: list(generate_posts(code, "test", SampleConfig.seed)) for code in languages}
        levels = {code: chance_level(found) for code, found in posts.items()}
        return levels | {"all": chance_level(chain(*posts.values()))}

    def version_name(self) -> str:
        """The builder's version and the seed, which decide everything."""
        return f"generated-{self.VERSION}-seed-{self.config.seed}"

    def splits(self) -> dict[str, datasets.Dataset]:
        """All splits, pictures not decoded; `datasets` keeps them: they are drawn once for all runs."""
        return {split: undecoded(self.split(split)) for split in SPLITS}

    def split(self, name: str) -> datasets.Dataset:
        """One of them."""
        return datasets.Dataset.from_generator(
            self.rows,
            features=corpus_features(self.labels),
            gen_kwargs={"split": name},
            split=datasets.NamedSplit(name),
            fingerprint=short_hash((self.name, self.config_name, self.version_name(), name)),
        )

    def rows(self, split: Any) -> Iterator[dict[str, Any]]:
        """The generated posts of a split, language by language, each with its drawing."""
        for post in chain(*(generate_posts(code, split, self.config.seed) for code in self.config.languages)):
            picture = draw_picture(post, self.config.seed)
            yield {
                "id": post.id,
                "tokens": list(post.tokens),
                "ner_tags": list(post.tags),
                "image": None if picture is None else {"bytes": picture, "path": None},
                "language": post.language,
                "source": post.source,
            }
