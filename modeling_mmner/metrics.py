"""What the package uses of its metric, which lies in a folder of its own, see `span_f1/`."""

from .span_f1.confidence import bootstrap_interval, calibration, paired_randomisation
from .span_f1.span_f1 import SpanF1, count_score, evaluate_tags, tag_score
from .span_f1.spans import span_counts, surface_groups, tag_counts, training_surfaces

__all__ = [
    "SpanF1",
    "bootstrap_interval",
    "calibration",
    "count_score",
    "evaluate_tags",
    "paired_randomisation",
    "span_counts",
    "surface_groups",
    "tag_counts",
    "tag_score",
    "training_surfaces",
]
