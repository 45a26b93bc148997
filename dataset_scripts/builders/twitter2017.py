"""Builder of Twitter-2017 from its released files train.txt, valid.txt, test.txt and a folder of pictures."""

from .builder import PostsConfig
from .official import FACTS
from .twitter2015 import Twitter2015


class Twitter2017(Twitter2015):
    """English tweets of 2016 and 2017 with their pictures.

    Tagged with persons, places, organisations and other names.
    """

    CONFIGS = {"default": PostsConfig(language="en")}
    CITATION, KNOWN_PROBLEMS = FACTS["twitter2017"]["citation"], FACTS["twitter2017"]["known_problems"]
