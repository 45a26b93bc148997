"""Builder of Twitter-2015 from its released files train.txt, valid.txt, test.txt and a folder of pictures."""

from pathlib import Path

from ..formats.reader import TaggedPost
from .builder import PostsBuilder, PostsConfig
from .official import FACTS


class Twitter2015(PostsBuilder):
    """English tweets of 2015 with their pictures.

    Tagged with persons, places, organisations and other names.
    """

    CONFIGS = {"default": PostsConfig(language="en", rename_types={"OTHER": "MISC"})}
    CITATION, KNOWN_PROBLEMS = FACTS["twitter2015"]["citation"], FACTS["twitter2015"]["known_problems"]

    def about(self, post: TaggedPost, path: Path) -> dict[str, str]:
        """All posts are tweets."""
        return super().about(post, path) | {"source": "tweet"}
