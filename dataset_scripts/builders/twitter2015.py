"""Builder of Twitter-2015 from its released files train.txt, valid.txt, test.txt and a folder of pictures."""

from ..formats.reader import TaggedPost
from .builder import PostsBuilder, PostsConfig


class Twitter2015(PostsBuilder):
    """English tweets of 2015 with their pictures, tagged with persons, places, organisations and other
    names.
    """

    BUILDER_CONFIGS = [PostsConfig(name="default", language="en", rename_types={"OTHER": "MISC"})]
    CITATION = """@inproceedings{zhang2018adaptive,
  title     = {Adaptive co-attention network for named entity recognition in tweets},
  author    = {Zhang, Qi and Fu, Jinlan and Liu, Xiaoyu and Huang, Xuanjing},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2018}
}"""
    KNOWN_PROBLEMS = (
        (
            "Four test posts and two validation posts repeat the text of a training post, three test posts"
            " one of validation."
        ),
        (
            "The official files have 374 I- tags that continue nothing (186 train, 53 validation, 135 test):"
            " lenient scoring reads each as the beginning of an entity, strict scoring does not."
        ),
        (
            "Several copies are in circulation, among them a repaired one on which models score about two"
            " points higher: compare figures on the same version only."
        ),
        "The fourth type is called OTHER in the files and MISC here.",
        "One token is a no-break space; programs that strip lines lose it and shift the tags.",
    )

    def source_of(self, post: TaggedPost) -> str:
        """All posts are tweets."""
        return "tweet"
