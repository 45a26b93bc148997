"""Builder of Twitter-2017 from its released files train.txt, valid.txt, test.txt and a folder of pictures."""

from ..formats.reader import TaggedPost
from .builder import PostsBuilder, PostsConfig


class Twitter2017(PostsBuilder):
    """English tweets of 2016 and 2017 with their pictures, tagged with persons, places, organisations and
    other names.
    """

    BUILDER_CONFIGS = [PostsConfig(name="default", language="en")]
    CITATION = """@inproceedings{lu2018visual,
  title     = {Visual attention model for name tagging in multimodal social media},
  author    = {Lu, Di and Neves, Leonardo and Carvalho, Vitor and Zhang, Ning and Ji, Heng},
  booktitle = {Proceedings of the 56th Annual Meeting of the Association for Computational Linguistics},
  year      = {2018}
}"""
    KNOWN_PROBLEMS = (
        "Three test posts and one validation post repeat the text of a training post.",
        (
            "English MMNERD holds most of these posts, spread over its own splits (350 of this test split's"
            " 723 are in its train split, by id), some with other tokens or tags: do not test here what was"
            " trained there."
        ),
    )

    def source_of(self, post: TaggedPost) -> str:
        """All posts are tweets."""
        return "tweet"
