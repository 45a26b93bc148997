"""Builder of MMNERD from its released folders ``train_valid_test_{en,fr,de,es,all_lang,en_plus_de,...}``."""

from collections.abc import Hashable
from functools import cached_property
from itertools import combinations
from pathlib import Path

from ..formats.reader import CorpusError, TaggedPost, find_splits, read_posts
from .builder import PostsBuilder, PostsConfig
from .official import FACTS

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
    CITATION, KNOWN_PROBLEMS = FACTS["mmner"]["citation"], FACTS["mmner"]["known_problems"]

    @classmethod
    def configs_in(cls, data_dir: Path) -> list[str]:
        """The configs whose folders are in `data_dir`, or whose folder it is; none where its files do not say
        whose they are.
        """
        found = {path.name for path in (data_dir, *data_dir.iterdir()) if path.is_dir()}
        names = [config.name for config in cls.BUILDER_CONFIGS]
        return [name for name in names if not found.isdisjoint(_folder_names(name))]

    def folders(self) -> list[Path]:
        """The config's released folder in `data_dir`, or that folder itself; for one language also another
        with split files.
        """
        [root] = super().folders()
        names = _folder_names(self.config.name)
        if inside := [root / name for name in names if (root / name).is_dir()]:
            return inside[:1]
        found = sorted(path.name for path in (root, *root.glob("*")) if path.name.startswith(_FOLDER))
        if root.name in names or (self.config.name in LANGUAGES and not found):
            return [root]
        expected = f"the folder {' or '.join(names)} in {root}"
        raise CorpusError(f"mmner {self.config.name}: expected {expected}, found {found}")

    def about(self, post: TaggedPost, path: Path) -> dict[str, str]:
        """The language of a mixture's post is that of the language folder which holds the same post, else
        ``unknown``; the source is ``caption`` (of a picture on the web) if the id holds ``---``, else
        ``tweet``.
        """
        found = super().about(post, path) | {"source": "caption" if "---" in post.id else "tweet"}
        if self.config.name not in LANGUAGES:
            found["language"] = self._languages_of_posts.get(_key(post), "unknown")
        return found

    @cached_property
    def _languages_of_posts(self) -> dict[Hashable, str]:
        """The language of each post of a mixture's languages that have their own folders there."""
        languages = PAIRS.get(self.config.name, LANGUAGES)
        folders = {language: Path(self.config.data_dir) / f"{_FOLDER}{language}" for language in languages}
        return {
            _key(post): language
            for language, folder in folders.items()
            if folder.is_dir()
            for path in find_splits(folder).values()
            for post in read_posts(path, self.reading())
        }


def _folder_names(config: str) -> list[str]:
    """What the released folder of a config may be called; a pair in either order."""
    names = {"all": ["all_lang"]}.get(config, [config])
    if config in PAIRS:
        names.append("_plus_".join(reversed(PAIRS[config])))
    return [f"{_FOLDER}{name}" for name in names]


def _key(post: TaggedPost) -> Hashable:
    """An id alone may occur in several languages."""
    return post.id, tuple(post.tokens)
