"""Corpora in files: the IMGID format of Twitter-2015, Twitter-2017 and MMNERD, and the indexed format of WikiNEuRal."""

from .reader import CorpusError, Post, find_picture, find_splits, read_posts

__all__ = ["CorpusError", "Post", "find_picture", "find_splits", "read_posts"]
