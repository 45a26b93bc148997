"""The corpora that have a builder, by name; only asking for a builder loads `datasets`."""

from collections import UserDict
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .builders.builder import CorpusBuilder

FOLDER_CORPUS = "conll"
"""The corpus that a folder of files is taken for, which need not be named."""


class _Builders(UserDict[str, Any]):
    """The builder's class of each corpus, imported on access."""

    def __getitem__(self, name: str) -> "type[CorpusBuilder]":
        module, class_name = self.data[name]
        return getattr(import_module(f".{module}", __package__), class_name)


BUILDERS = _Builders(
    sample=("sample.sample", "Sample"),
    twitter2015=("builders.folders", "Twitter2015"),
    twitter2017=("builders.folders", "Twitter2017"),
    mmner=("builders.folders", "MMNER"),
    conll=("builders.folders", "Conll"),
)
