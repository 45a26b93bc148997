"""Whatever `open_corpus` opens, people's own files above all, as a corpus that can be built."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import datasets

from modeling_mmner.model.images_mmner import pictures_of
from modeling_mmner.model.labels_mmner import entity_types

from ..formats.reader import SPLITS, CorpusError
from ..opening import Corpus
from .builder import PostsBuilder, PostsConfig, SplitReport


class OpenedCorpus(PostsBuilder):
    """A corpus that is open, with its splits as they are.

    Args:
        options: of `PostsConfig`, those about building.
    """

    TERMS = (
        "Posts and pictures belong to their authors. Whoever publishes this data set must have the right to,"
        " and says by the licence field what others may do; `other` gives them no right."
    )

    def __init__(self, corpus: Corpus, **options: Any) -> None:
        self.corpus, self.name, self.labels = corpus, corpus.name, corpus.labels
        self.config_name, self.config = self.DEFAULT_CONFIG, PostsConfig(**options)
        self.reports, self.findings = defaultdict(SplitReport), corpus.findings

    @property
    def description(self) -> str:
        return f"Posts with named entities of the types {', '.join(entity_types(self.corpus.labels))}."

    @property
    def known_problems(self) -> list[str]:
        return [f"{what}: {number}" for what, number in self.corpus.findings.numbers().items()]

    def version_name(self) -> str:
        return self.corpus.version_name

    def file_hashes(self) -> dict[str, str]:
        return {}

    def check_files(self) -> None:
        pass

    def split_names(self) -> list[str]:
        return [split for split in SPLITS if split in self.corpus.splits]

    def features(self) -> datasets.Features:
        picture = {"image": datasets.Image(), "images": datasets.List(datasets.Image())}
        features = next(iter(self.corpus.splits.values())).features
        return datasets.Features({name: picture.get(name, kind) for name, kind in features.items()})

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        for row in self.corpus.splits[split]:
            if self.config.require_images and not pictures_of(row):
                hint = "without --require_images such posts are kept without a picture"
                raise CorpusError(f"post {row['id']!r}: expected a picture, found none; {hint}")
            yield row
