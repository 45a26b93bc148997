"""The corpora that have a builder, by name. Names load nothing, a builder loads `datasets` when it is asked
for.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builders.builder import CorpusBuilder

FOLDER_CORPUS = "conll"
"""The corpus that a folder of files is taken for, which need not be named."""

_CLASSES = {
    "sample": ("sample.sample", "Sample"),
    "twitter2015": ("builders.twitter2015", "Twitter2015"),
    "twitter2017": ("builders.twitter2017", "Twitter2017"),
    "mmner": ("builders.mmner", "MMNER"),
    "conll": ("builders.conll", "Conll"),
}


class _Builders(Mapping[str, "type[CorpusBuilder]"]):
    """The builder's class of each corpus, imported on access."""

    def __getitem__(self, name: str) -> "type[CorpusBuilder]":
        module, class_name = _CLASSES[name]
        return getattr(import_module(f".{module}", __package__), class_name)

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


BUILDERS = _Builders()
