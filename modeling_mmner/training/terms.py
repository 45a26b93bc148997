"""Terms: the licences of a run's corpus and encoders, and the licence that they leave for its model.

A licence is written as the Hub spells it (``apache-2.0``). ``none``: published without a licence.
``unknown``: nobody has said.
"""

import os
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from ..files import read_yaml
from .recipes import Recipe

_LICENCES = resources.files(__package__).joinpath("open_licences.yaml")
OPEN_LICENCES = frozenset(read_yaml(_LICENCES.read_text(encoding="utf-8")))
"""Licences of the Hub that allow any use: no non-commercial, no-derivatives or behavioural ones."""

_IMAGENET = re.compile(r"(?<![a-z0-9])inw?(1|12|21|22)k(?![a-z0-9])")


def derived_licence(terms: Iterable[str]) -> str:
    """The Hub's licence of a model: the one open licence of all that it was made from, else ``other``."""
    found = set(terms)
    return found.pop() if len(found) == 1 and found <= OPEN_LICENCES else "other"


def terms_of(recipe: Recipe) -> list[dict[str, str]]:
    """The terms of what a run uses: for each thing a row ``{"part", "name", "terms", "remark"}``.

    Each is looked up in the recipe's `terms` under the value of its own setting: a corpus's name
    (``conll`` for files), the contexts' writer (``contexts`` where nobody has said), a Hub id, or the path as
    it was given, of which the rows show only the last name.
    """
    corpus, encoder = recipe.corpus, recipe.model.text_encoder
    used = {corpus.dataset: ("corpus", corpus.source, "")}
    if encoder is not None:
        used[encoder] = ("text encoder", encoder, "")
    if corpus.context is not None:
        writer = corpus.context_writer or "contexts"
        used[writer] = ("contexts", writer, "")
    for tower in (tower for tower in recipe.model.towers if tower.has_weights):
        name = tower.checkpoint or tower.backbone
        remark = f"weights of {tower.backbone} from a file" if tower.checkpoint else _remark(tower.model_name)
        used[name] = ("picture encoder", name, remark)
    return [
        {"part": part, "name": public_name(name), "terms": recipe.terms.get(key, "unknown"), "remark": remark}
        for key, (part, name, remark) in used.items()
    ]


def public_name(name: str) -> str:
    """A Hub id or another name as it is; of a path on the author's disk only the last name."""
    is_path = name.startswith(("/", "./", "../", "~")) or Path(name).is_absolute() or os.path.exists(name)
    return Path(name).absolute().name if is_path else name


def _remark(backbone: str) -> str:
    """What a timm model's licence does not say: timm's names tell what the weights were trained on."""
    import timm  # takes seconds, and the command line reads this file for its options

    cfg = timm.get_pretrained_cfg(backbone)
    if _IMAGENET.search((cfg.tag if cfg is not None else None) or backbone):
        return "pretrained on ImageNet, whose pictures are for non-commercial research and education only"
    return ""
