"""Builder of MMNERD from its released folders ``train_valid_test_{en,fr,de,es,all_lang,en_plus_de,...}``."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from itertools import combinations
from pathlib import Path

from ..formats.reader import CorpusError, TaggedPost, find_splits, read_posts
from .builder import PostsBuilder, PostsConfig
from .official import OFFICIAL, Official

LANGUAGES = ("en", "fr", "de", "es")
PAIRS = {f"{first}_plus_{second}": (first, second) for first, second in combinations(LANGUAGES, 2)}
_FOLDER = "train_valid_test_"


class MMNER(PostsBuilder):
    """Tweets and web captions with their pictures in English, French, German and Spanish.

    Tagged with persons, places, organisations and other names. One config for each language, one for all, and
    one for each pair.
    """

    BUILDER_CONFIGS = [
        *(PostsConfig(name=language, language=language) for language in LANGUAGES),
        PostsConfig(name="all"),
        *(PostsConfig(name=pair) for pair in PAIRS),
    ]
    CITATION = """@article{wang2024mmner,
  title   = {2M-NER: contrastive learning for multilingual and multimodal NER with language and modal fusion},
  author  = {Wang, Dongsheng and Feng, Xiaoqin and Liu, Zeming and Wang, Chuan},
  journal = {Applied Intelligence},
  year    = {2024}
}"""
    KNOWN_PROBLEMS = (
        (
            "The English part holds most posts of Twitter-2017, spread over its own splits, some with other"
            " tokens or tags: do not test there what was trained here."
        ),
        "In English, web captions carry no PER at all, only tweets do: look at scores by source.",
        "Some tokens are characters that tokenizers drop (U+FFFD, U+0080, U+00AD, U+200B, private use).",
        (
            "French, German, Spanish and all pictures are given by the authors on request only, so there are"
            " no published figures to hold those files against."
        ),
    )

    @classmethod
    def configs_in(cls, data_dir: Path) -> list[str]:
        """The configs whose folders are in `data_dir`, or whose folder it is; none where its files do not say
        whose they are.
        """
        found = {path.name for path in (data_dir, *data_dir.iterdir()) if path.is_dir()}
        names = [config.name for config in cls.BUILDER_CONFIGS]
        return [
            name for name in names if any(f"{_FOLDER}{folder}" in found for folder in _folder_names(name))
        ]

    def folders(self) -> list[Path]:
        """The config's released folder in `data_dir`, or that folder itself; for one language also another
        with split files.
        """
        [root] = super().folders()
        names = [f"{_FOLDER}{name}" for name in _folder_names(self.config.name)]
        for name in names:
            if (root / name).is_dir():
                return [root / name]
        found = sorted(path.name for path in (root, *root.glob("*")) if path.name.startswith(_FOLDER))
        if root.name in names or (self.config.name in LANGUAGES and not found):
            return [root]
        raise CorpusError(
            f"mmner {self.config.name}: expected the folder {' or '.join(names)} in {root}, found {found}"
        )

    def official(self) -> Mapping[str, Official]:
        """Known for English alone."""
        return OFFICIAL.get(f"mmner/{self.config.name}", {})

    def language_of(self, post: TaggedPost, path: Path) -> str:
        """The config's language; in a mixture, that of the language folder which holds the same post, else
        ``unknown``.
        """
        if self.config.name in LANGUAGES:
            return self.config.language
        return self._languages_of_posts.get(_fingerprint(post), "unknown")

    def source_of(self, post: TaggedPost) -> str:
        """``caption`` (of a picture on the web) if the id holds ``---``, else ``tweet``."""
        return "caption" if "---" in post.id else "tweet"

    def source_files(self) -> list[Path]:
        """The split files, and those that tell the languages of a mixture's posts."""
        return [
            *super().source_files(),
            *(path for paths in self._language_files().values() for path in paths),
        ]

    def _language_files(self) -> dict[str, list[Path]]:
        """For each language of a mixture the files of its own folder, if it is there."""
        if self.config.name in LANGUAGES:
            return {}
        folders = {
            language: Path(self.config.data_dir) / f"{_FOLDER}{language}"
            for language in PAIRS.get(self.config.name, LANGUAGES)
        }
        return {
            language: list(find_splits(folder).values())
            for language, folder in folders.items()
            if folder.is_dir()
        }

    @cached_property
    def _languages_of_posts(self) -> dict[bytes, str]:
        """The language of each post of the single languages' folders that are there."""
        return {
            _fingerprint(post): language
            for language, paths in self._language_files().items()
            for path in paths
            for post in read_posts(path, self.reading())
        }


def _folder_names(config: str) -> list[str]:
    """What the released folder of a config may be called after the common beginning; a pair in either
    order.
    """
    if config == "all":
        return ["all_lang"]
    return [config, "_plus_".join(reversed(PAIRS[config]))] if config in PAIRS else [config]


def _fingerprint(post: TaggedPost) -> bytes:
    """Of a post's id and tokens; an id alone may occur in several languages."""
    return hashlib.blake2b(
        repr((post.id, post.tokens)).encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()
