"""YAML that cannot do more than say plain values."""

from typing import Any

import yaml


class _PlainLoader(yaml.SafeLoader):
    """YAML without references, by which a few lines would stand for more than there is memory, or for something within itself."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to another place by `*`; write the value out")
        return super().compose_node(parent, index)


def read_yaml(text: str) -> Any:
    """The value that YAML stands for: plain values alone.

    Raises:
        ValueError: it is no YAML, has references or tags of Python's, or is nested too deeply.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, RecursionError, LookupError, TypeError) as error:  # PyYAML raises the last two for odd keys
        raise ValueError(f"{error!s:.500}" or type(error).__name__) from error
