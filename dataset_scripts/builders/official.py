"""What is known of the published corpora."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from modeling_mmner.files import read_yaml

FACTS: Mapping[str, Any] = read_yaml(
    resources.files(__package__).joinpath("facts.yaml").read_text(encoding="utf-8")
)
"""By name: citation, known problems, and under ``official``, by config and split, the first 12 hex digits of
the SHA-256 of the official files.
"""
