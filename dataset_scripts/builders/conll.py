"""Builder of any corpus in the IMGID or the indexed format, with the entity types that its files have."""

from functools import cached_property
from pathlib import Path

from ..formats.reader import TaggedPost, holds_splits
from .builder import PostsBuilder


class Conll(PostsBuilder):
    """Tagged posts from files, with or without pictures; in one folder, or in one for each language."""

    TYPES = ()
    NAMED_BY_FOLDER = NEEDS_LANGUAGE = True
    TERMS = (
        "The terms are those of the corpus that this data set was built from. Whoever publishes it must have"
        " the right to."
    )

    def folders(self) -> list[Path]:
        """The folder with the split files, or those of its subfolders that have some where it has none."""
        return self._language_folders or super().folders()

    def about(self, post: TaggedPost, path: Path) -> dict[str, str]:
        """The language is the name of the post's folder, else the config's.

        The numbers of posts without an id, which each language's file has, get the language before them.
        """
        found = super().about(post, path)
        if self._language_folders:
            found["language"] = path.parent.name
            found["id"] = f"{path.parent.name}-{post.id}" if post.is_numbered else post.id
        return found

    @cached_property
    def _language_folders(self) -> list[Path]:
        [root] = super().folders()
        if holds_splits(root) or not root.is_dir():
            return []
        return sorted(folder for folder in root.iterdir() if folder.is_dir() and holds_splits(folder))
