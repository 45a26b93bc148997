"""Data cards: the record of a built data set -> its README.md on the Hub. Every count in it comes from the
record.
"""

import re
from importlib import resources
from typing import Any

from datasets import ClassLabel, DatasetInfo
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from jinja2 import Environment, StrictUndefined

from modeling_mmner.escaping import code_block, code_span, markdown_text, one_line

from ..sample.texts import generate_posts
from .builder import corpus_features

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_data_card(record: dict[str, Any]) -> str:
    """The data card of a built data set: YAML front matter with configs and columns for the Hub, and
    Markdown.
    """
    template = resources.files(__package__).joinpath("card.md.jinja").read_text(encoding="utf-8")
    example = next(
        generate_posts("en", "test", 1)
    )  # never one of a real corpus, whose posts are their authors'
    return (
        _environment()
        .from_string(template)
        .render(
            front_matter=_front_matter(record).to_yaml().strip(),
            record=record,
            types=list(dict.fromkeys(label[2:] for label in record["labels"] if label != "O")),
            labels=ClassLabel(names=record["labels"]).names,
            example=example,
        )
    )


class _Verbatim(str):
    """What stands in the card as it is."""


def _environment() -> Environment:
    """Whatever a template puts into a card is escaped as Markdown, but for what a filter has made safe in
    another way.
    """
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, _Verbatim) else markdown_text(value),
    )
    environment.filters |= {
        "verbatim": _Verbatim,
        "code_span": lambda text: _Verbatim(code_span(text)),
        "code_block": lambda text, language: _Verbatim(code_block(text, language)),
        "paragraphs": lambda text: _Verbatim(
            "\n\n".join(map(markdown_text, re.split(r"\n\s*\n", text.strip())))
        ),
    }
    return environment


def _front_matter(record: dict[str, Any]) -> DatasetCardData:
    splits = [details for config in record["configs"].values() for details in config["splits"].values()]
    languages = dict.fromkeys(language for details in splits for language in details["languages"])
    most = max(
        sum(details["posts"] for details in config["splits"].values())
        for config in record["configs"].values()
    )
    data = DatasetCardData(
        language=[one_line(language) for language in languages if language != "unknown"] or None,
        license=one_line(record["license"]),
        task_categories=["token-classification"],
        task_ids=["named-entity-recognition"],
        size_categories=[next((size for limit, size in _SIZES if most < limit), "1M<n<10M")],
        tags=["multimodal", "ner", "mmner", "mner"],
        pretty_name=one_line(record["name"]),
    )
    features = corpus_features(record["labels"])
    infos, configs = DatasetInfosDict(), MetadataConfigs()
    for name, config in record["configs"].items():
        details = config["splits"]
        infos[name] = DatasetInfo(
            features=features,
            config_name=name,
            splits=[  # made a SplitDict by DatasetInfo
                {"name": split, "num_bytes": counts["num_bytes"], "num_examples": counts["posts"]}
                for split, counts in details.items()
            ],
            download_size=sum(counts["download_bytes"] for counts in details.values()),
            dataset_size=sum(counts["num_bytes"] for counts in details.values()),
        )
        files = [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in details]
        configs[name] = {"data_files": files} | ({"default": True} if not configs else {})
    infos.to_dataset_card_data(data)
    configs.to_dataset_card_data(data)
    return data
