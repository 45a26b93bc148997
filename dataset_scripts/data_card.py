"""Data cards: the record of a built data set -> its README.md on the Hub. Every count in it comes from the record."""

from importlib import resources
from typing import Any

from datasets import ClassLabel, DatasetInfo
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from jinja2 import Environment, StrictUndefined

from .builder import corpus_features
from .sample.texts import generate_posts

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_data_card(record: dict[str, Any]) -> str:
    """The data card of a built data set: YAML front matter with configs and columns for the Hub, and Markdown."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template = resources.files("dataset_scripts").joinpath("card.md.jinja").read_text(encoding="utf-8")
    example = next(generate_posts("en", "test", 1))  # never one of a real corpus, whose posts are their authors'
    return environment.from_string(template).render(
        front_matter=_front_matter(record).to_yaml(),
        record=record,
        types=list(dict.fromkeys(label[2:] for label in record["labels"] if label != "O")),
        labels=ClassLabel(names=record["labels"]).names,
        example=example,
    )


def _front_matter(record: dict[str, Any]) -> DatasetCardData:
    splits = [details for config in record["configs"].values() for details in config["splits"].values()]
    languages = dict.fromkeys(language for details in splits for language in details["languages"])
    most = max(sum(details["posts"] for details in config["splits"].values()) for config in record["configs"].values())
    data = DatasetCardData(
        language=[language for language in languages if language != "unknown"] or None,
        license=record["license"],
        task_categories=["token-classification"],
        task_ids=["named-entity-recognition"],
        size_categories=[next((size for limit, size in _SIZES if most < limit), "1M<n<10M")],
        tags=["multimodal", "ner", "mmner", "mner"],
        pretty_name=record["name"],
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
