"""Builders of corpora in folders of tagged posts: Twitter-2015, Twitter-2017, MMNERD, and any other."""

from collections.abc import Hashable
from functools import cached_property
from itertools import combinations
from pathlib import Path

from ..formats.reader import SPLITS, TaggedPost, holds_splits, mismatch, read_posts
from ..reading_options import ReadingOptions
from .builder import CorpusBuilder, PostsBuilder

LANGUAGES = ("en", "fr", "de", "es")
PAIRS = {f"{first}_plus_{second}": (first, second) for first, second in combinations(LANGUAGES, 2)}
_FOLDER = "train_valid_test_"


class Twitter2015(PostsBuilder):
    """English tweets of 2015 with their pictures.

    Tagged with persons, places, organisations and other names.
    """

    CONFIGS = {"default": ReadingOptions(language="en", rename_types={"OTHER": "MISC"})}

    def columns_of(self, post: TaggedPost, path: Path) -> dict[str, str]:
        return super().columns_of(post, path) | {"source": "tweet"}


class Twitter2017(Twitter2015):
    """English tweets of 2016 and 2017 with their pictures.

    Tagged with persons, places, organisations and other names.
    """

    CONFIGS = {"default": ReadingOptions(language="en")}


class MMNER(PostsBuilder):
    """Tweets and web captions with their pictures in English, French, German and Spanish.

    Tagged with persons, places, organisations and other names. One config for each language, one for all, and
    one for each pair.
    """

    CONFIGS = {language: ReadingOptions(language=language) for language in LANGUAGES} | {
        name: ReadingOptions() for name in ("all", *PAIRS)
    }
    DEFAULT_CONFIG = ""

    @classmethod
    def configs_in(cls, data_dir: Path) -> list[str]:
        """The configs whose folders are in `data_dir`, or whose folder it is; none where no name says so."""
        found = {path.name for path in (data_dir, *data_dir.glob("*")) if path.is_dir()}
        return [name for name in cls.CONFIGS if not found.isdisjoint(_folder_names(name))]

    def folders(self) -> list[Path]:
        """The config's released folder in `data_dir`, or itself; for one language any with split files."""
        [root] = super().folders()
        names = _folder_names(self.config_name)
        if inside := [root / name for name in names if (root / name).is_dir()]:
            return inside[:1]
        found = sorted(path.name for path in (root, *root.glob("*")) if path.name.startswith(_FOLDER))
        if root.name in names or (self.config_name in LANGUAGES and not found):
            return [root]
        raise mismatch(f"mmner {self.config_name}", f"the folder {' or '.join(names)} in {root}", found)

    def columns_of(self, post: TaggedPost, path: Path) -> dict[str, str]:
        """The source is ``caption`` (of a picture on the web) where the id holds ``---``, else ``tweet``.

        The language of a mixture's post is that of the language folder which holds the same post, else
        ``unknown``.
        """
        found = super().columns_of(post, path) | {"source": "caption" if "---" in post.id else "tweet"}
        if self.config_name not in LANGUAGES:
            found["language"] = self._languages_of_posts.get(_key(post), "unknown")
        return found

    @cached_property
    def _languages_of_posts(self) -> dict[Hashable, str]:
        """The language of each post of a mixture's languages that have their own folders there."""
        found: dict[Hashable, str] = {}
        for language in PAIRS.get(self.config_name, LANGUAGES):
            folder = Path(self.config.data_dir) / f"{_FOLDER}{language}"
            for split in SPLITS if folder.is_dir() else ():
                posts = read_posts(self.file(folder, split), self.reading())
                found |= {_key(post): language for post in posts}
        return found


def _folder_names(config: str) -> list[str]:
    """What the released folder of a config may be called; a pair in either order."""
    name = "all_lang" if config == "all" else config
    other_way = "_plus_".join(reversed(name.split("_plus_")))
    return [f"{_FOLDER}{one}" for one in dict.fromkeys((name, other_way))]


def _key(post: TaggedPost) -> Hashable:
    """An id alone may occur in several languages."""
    return post.id, tuple(post.tokens)


class Conll(PostsBuilder):
    """Tagged posts from files, with or without pictures; in one folder, or in one for each language."""

    TYPES = ()
    NEEDS_LANGUAGE = True
    TERMS = CorpusBuilder.TERMS

    def folders(self) -> list[Path]:
        return self._language_folders or super().folders()

    def columns_of(self, post: TaggedPost, path: Path) -> dict[str, str]:
        """The language is the folder's name, which also goes before a number in place of an id."""
        found = super().columns_of(post, path)
        if self._language_folders:
            found["language"] = path.parent.name
            found["id"] = f"{path.parent.name}-{post.id}" if post.is_numbered else post.id
        return found

    @cached_property
    def _language_folders(self) -> list[Path]:
        [root] = super().folders()
        return [] if holds_splits(root) else sorted(filter(holds_splits, root.glob("*")))
