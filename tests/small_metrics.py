"""Metrics as training writes them, in which no two scores are alike."""

import copy
import itertools
from typing import Any

from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.hub.model_card import render_model_card
from modeling_mmner.training.corpus import facts_of
from modeling_mmner.training.recipes import load_recipe
from modeling_mmner.training.terms import derived_licence, terms_of

SPLITS = ("train", "validation", "test")


def score_block(scores: "itertools.count[int]") -> dict[str, Any]:
    """A block in which no two figures are alike: 10.1 %, 10.2 %, ..."""

    def score() -> dict[str, Any]:
        figures = {name: next(scores) / 1000 for name in ("precision", "recall", "f1")}
        interval = [next(scores) / 1000, next(scores) / 1000]
        return figures | {"number": next(scores), "confidence_interval": interval}

    kinds: dict[str, tuple[str, ...]] = {"by_type": ("PER", "LOC"), "by_language": ("en",)}
    kinds |= {"by_source": ("ambiguous",), "by_language_and_source": ()}
    return {"overall": score(), "strict": score()} | {
        kind: {name: score() for name in names} for kind, names in kinds.items()
    }


def run_metrics(recipe: str = "quickstart", **settings: Any) -> RunMetrics:
    """`make_metrics`, typed."""
    return RunMetrics.from_dict(make_metrics(recipe, **settings))


def card_of(metrics: dict[str, Any], **options: Any) -> str:
    """The model card of metrics."""
    return render_model_card(RunMetrics.from_dict(metrics), **options)


def make_metrics(recipe: str = "quickstart", **settings: Any) -> dict[str, Any]:
    """What a run of a recipe writes as metrics.json; `settings` replace some of its recipe's."""
    scores = itertools.count(101)
    validation, test, shuffled, none = (score_block(scores) for _ in range(4))
    raw_text = score_block(scores)["overall"]
    modes = {"true": copy.deepcopy(test), "shuffled": shuffled, "none": none}
    base_models = settings.pop("base_models", ["google-bert/bert-base-cased"])
    wanted = load_recipe(recipe).with_settings(**{"languages": ["en", "fr"]} | settings)
    terms = terms_of(load_recipe(recipe))
    return {
        "recipe": wanted.to_dict() | {"base_models": base_models},
        "terms": terms,
        "license": derived_licence(row["terms"] for row in terms),
        "seed": 17,
        "versions": {"mmner": "0.1.0", "python": "3.11.7", "torch": "2.9.0"},
        "corpus": {
            "name": "sample",
            "version_name": "generated-1.0.0",
            "version": {split: f"{split[:2]}0123456789" for split in SPLITS},
            "overlap": {"validation": 31, "test": 32, "excluded": True},
            "posts": dict(zip(SPLITS, (1601, 301, 302), strict=True)),
            "pictures": {split: {"present": 1001, "missing": 602, "broken": 3} for split in SPLITS},
            "chance": {"en": 0.9911, "all": 0.9922},
            **facts_of(wanted.corpus),
        },
        "model": {"parameters": 1234567, "trained_parameters": 1200000},
        "history": [],
        "selected_epoch": 7,
        "timing": {"training_seconds": 96.0, "total_seconds": 132.0},
        "splits": {"validation": validation, "test": test | {"raw_text": raw_text, "picture": modes}},
    }
