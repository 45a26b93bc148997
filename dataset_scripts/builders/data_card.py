"""Data cards: the record of a built data set -> its README.md on the Hub, every count from the record."""

from itertools import chain
from typing import Any

import yaml
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from modeling_mmner.escaping import code_block, code_span, markdown_text, one_line
from modeling_mmner.model.labels_mmner import entity_types

from ..sample.texts import generate_posts
from .builder import corpus_features

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_data_card(record: dict[str, Any]) -> str:
    """The data card of a built data set: front matter with configs and columns for the Hub, and Markdown.

    Whatever the template puts into it is escaped as Markdown, but for what a filter has made safe in another
    way.
    """
    environment = Environment(
        loader=PackageLoader("dataset_scripts", "builders"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else markdown_text(value),
    )
    environment.filters |= {
        "code_span": lambda text: Markup(code_span(text)),
        "code_block": lambda text, language: Markup(code_block(text, language)),
    }
    return environment.get_template("card.md.jinja").render(
        front_matter=_front_matter(record).to_yaml().strip(),
        record=record,
        types=entity_types(record["labels"]),
        more=[name for name in record["columns"] if name not in corpus_features(record["labels"])],
        example=next(generate_posts("en", "test", 1)),  # no post of the corpus, which is its author's
    )


def render_benchmark(record: dict[str, Any]) -> str:
    """The eval.yaml of a built data set, by which the Hub lists models by their scores: a task for each test
    split.

    It names no ``evaluation_framework``: the Hub knows a closed list of them, none of which scores entities.
    """
    configs = record["configs"]
    tasks = [{"id": name, "config": name} for name in configs if "test" in configs[name]["splits"]]
    metric = "F1 of entities, micro average, lenient (the default of seqeval), as a fraction of 1"
    found = {"name": one_line(record["name"]), "description": f"{metric}. {one_line(record['description'])}"}
    return yaml.safe_dump(found | {"tasks": tasks}, sort_keys=False, allow_unicode=True)


def _front_matter(record: dict[str, Any]) -> DatasetCardData:
    configs = {name: config["splits"] for name, config in record["configs"].items()}
    counted = [counts for splits in configs.values() for counts in splits.values()]
    languages = dict.fromkeys(chain(*(counts["languages"] for counts in counted)))
    most = max(sum(counts["posts"] for counts in splits.values()) for splits in configs.values())
    data = DatasetCardData(
        language=[one_line(language) for language in languages if language != "unknown"] or None,
        license=one_line(record["license"]),
        task_categories=["token-classification"],
        task_ids=["named-entity-recognition"],
        size_categories=[next((size for limit, size in _SIZES if most < limit), "1M<n<10M")],
        tags=["multimodal", "ner", "mmner", "mner"],
        pretty_name=one_line(record["name"]),
    )
    places = MetadataConfigs()
    for name, splits in configs.items():
        files = [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in splits]
        places[name] = {"data_files": files} | ({} if places else {"default": True})
    places.to_dataset_card_data(data)
    return data
