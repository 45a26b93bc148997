"""Tests of data cards: front matter that the Hub reads, counts of the data, and nothing of the corpus or its
maker's disk.
"""

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, RepoCard

from dataset_scripts.builders.built_corpus import build_dataset
from dataset_scripts.builders.data_card import render_data_card
from dataset_scripts.sample.texts import generate_posts
from tests.built_corpora import build_small, built_sample, files_of, record_of
from tests.outlines import outline
from tests.small_corpora import write_mmner, write_pictures, write_posts

# Tokens that no text of a card would hold by chance.
SECRET = {
    "train": [("qx1", "Zqvorna/B-LOC zqisto/O"), ("qx2", "Zqjordu/B-PER")],
    "valid": [("qx3", "Zqamazu/B-ORG")],
    "test": [("qx4", "Zqeuru/B-MISC zqmeo/O")],
}
NOTES = "What was changed in reading the files"
EXPECTED_TABLE = """\
Config `default`, version `{version}`:

| split | SHA-256 | posts | tokens | LOC | MISC | PER | ORG | orphan I- | pictures | missing | broken |
|---|---|---|---|---|---|---|---|---|---|---|---|
| train | {train} | 3 | 6 | 1 | 0 | 1 | 0 | 1 | 2 | 1 | 0 |
| validation | {validation} | 2 | 3 | 1 | 0 | 0 | 1 | 0 | 1 | 1 | 0 |
| test | {test} | 3 | 4 | 1 | 1 | 0 | 0 | 0 | 1 | 2 | 0 |

| split | languages | sources |
|---|---|---|
| train | fr: 3 | conll: 3 |
| validation | fr: 2 | conll: 2 |
| test | fr: 3 | conll: 3 |
"""

pytestmark = pytest.mark.filterwarnings("ignore:.*expected the official file")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return build_small(tmp_path_factory.mktemp("small"), language="fr")


@pytest.fixture(scope="module")
def mmner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mmner")
    write_mmner(
        folder / "released", en=[("1", "so/O")], fr=[("2", "oui/O")], all_lang=[("1", "so/O"), ("3", "?/O")]
    )
    build_dataset("mmner", folder / "built", data_dir=folder / "released", no_verify=True)
    return folder / "built"


def card_of(folder: Path) -> DatasetCard:
    return DatasetCard.load(folder / "README.md")


def test_front_matter_is_read_by_the_hub(small, mmner, tmp_path):
    """If it failed, the Hub would show no licence, language, task or viewer for the data set, or list it
    under a language that it has not.
    """
    data = card_of(small).data
    assert (data.license, data.language, data.pretty_name) == ("other", ["fr"], "conll")
    assert data.task_categories == ["token-classification"] and data.task_ids == ["named-entity-recognition"]
    assert data.size_categories == ["n<1K"] and "multimodal" in data.tags
    assert card_of(mmner).data.language == ["en", "fr"]
    assert card_of(build_small(tmp_path)).data.language is None


def test_front_matter_has_each_configs_files(mmner):
    """If it failed, the Hub's viewer would mix configs, or open another one than the first by default."""
    configs = card_of(mmner).data.configs
    assert {config["config_name"] for config in configs} == {"en", "fr", "all"}
    for config in configs:
        name, splits = config["config_name"], ("train", "validation", "test")
        files = [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in splits]
        assert config["data_files"] == files and config.get("default", False) == (name == "en")


@pytest.mark.parametrize(
    ("limit", "size"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (10_000, "10K<n<100K"), (100_000, "100K<n<1M"), (10**6, "1M<n<10M")],
)
def test_size_is_that_of_the_largest_config(mmner, limit, size):
    """If it failed, the Hub would list the data set under a wrong size."""
    record = record_of(mmner)
    record["configs"]["all"]["splits"]["train"]["posts"] = limit - 4
    assert f"size_categories:\n- {size}\n" in render_data_card(record)


@pytest.mark.parametrize(
    ("name", "license"), [("conll", "other"), ("conll", "cc-by-4.0"), ("twitter2017", "other")]
)
def test_licence_is_that_of_the_corpus(tmp_path, name, license):
    """If it failed, tweets would go to the Hub under a licence that their authors never gave."""
    options = {"no_verify": True} | ({} if license == "other" else {"license": license})
    build_dataset(name, tmp_path / "built", data_dir=write_posts(tmp_path / "corpus"), **options)
    card = card_of(tmp_path / "built")
    assert card.data.license == license
    assert f"Licence field: `{license}`. " in card.text and "must have the right to" in card.text


def test_card_of_the_sample():
    """If it failed, the one data set that anybody may publish would not say so, or not how many pictures it
    has.
    """
    card = card_of(built_sample())
    found = (card.data.license, card.data.language, card.data.size_categories)
    assert found == ("apache-2.0", ["en"], ["1K<n<10K"])
    assert "| train | 5a891d72e98d | 1000 | 9088 | 336 | 300 | 307 | 270 | 0 | 900 | 100 | 0 |" in card.text


def test_tables_have_the_counts_of_the_record(small, mmner):
    """If it failed, the card would state other figures than the data has, its tables not show as tables, or a
    reader not tell which version and counts belong to the config that they load.
    """
    config = record_of(small)["configs"]["default"]
    hashes = {split: details["sha256"] for split, details in config["splits"].items()}
    assert EXPECTED_TABLE.format(version=config["version"], **hashes) in card_of(small).text
    text = card_of(mmner).text
    for name, config in record_of(mmner)["configs"].items():
        assert f"Config `{name}`, version `{config['version']}`:\n\n| split |" in text
    assert "| train | en: 1, unknown: 1 | tweet: 2 |" in text
    assert 'load_dataset("...", "en")' in text and 'load_dataset("...")' in card_of(small).text


def test_notes_are_there_where_something_was_read_otherwise(tmp_path, small):
    """If it failed, the card would hide that a file was not read as it stands, or show an empty table."""
    folder = write_posts(tmp_path / "corpus", SECRET)
    (folder / "test.txt").write_bytes((folder / "test.txt").read_bytes().replace(b"\n", b"\r\n"))
    build_dataset("conll", tmp_path / "built", data_dir=folder)
    text = card_of(tmp_path / "built").text
    table = f"{NOTES}:\n\n| config | split | what | times |\n|---|---|---|---|\n"
    assert f"{table}| default | test | line ends of CR LF read as LF | 4 |\n\n## Columns" in text
    assert NOTES not in card_of(small).text


def test_text_is_well_formed_markdown(small, mmner):
    """If it failed, the Hub would show parts of the card as code, or run paragraphs into one another."""
    for folder in (small, mmner, built_sample()):
        text = card_of(folder).text
        assert not re.search(r"\n{4}", text) and "{{" not in text and "{%" not in text
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        assert not [line for line in prose.splitlines() if line.startswith(" ")]
        assert re.findall(r"\n(#+ .*)\n(?!\n)", prose) == []


def test_card_and_record_hold_no_post(tmp_path):
    """If it failed, a tweet could be read in the card although its author has it taken out of the data."""
    built = tmp_path / "built"
    folder = write_posts(tmp_path / "corpus", SECRET)
    build_dataset("conll", built, data_dir=folder, image_dir=write_pictures(tmp_path / "images"))
    tokens = {
        token.split("/")[0] for posts in SECRET.values() for _, text in posts for token in text.split(" ")
    }
    for name in ("README.md", "corpus.json", "eval.yaml"):
        text = (built / name).read_text(encoding="utf-8")
        assert not [token for token in tokens if token in text] and "qx" not in text
    assert next(generate_posts("en", "test", 1)).id in card_of(built).text


def test_nothing_that_is_published_tells_a_local_path(tmp_path):
    """If it failed, the folders of whoever builds a data set, and so mostly their name, would go to the
    Hub.
    """
    home = tmp_path / "home-of-somebody"
    built = build_small(home)
    (home / "images" / "2.jpg").write_bytes(b"broken")
    build_dataset("conll", built, data_dir=home / "corpus", image_dir=home / "images", overwrite=True)
    published = {
        name: content for name, content in files_of(built).items() if name != "broken_pictures.jsonl"
    }
    assert not [
        name for name, content in published.items() if b"home-of-somebody" in content or b"scratch" in content
    ]
    images = pq.read_table(built / "default" / "train-00000-of-00001.parquet")["image"].to_pylist()
    assert [image and image["path"] for image in images] == ["1.jpg", None, None]


HOSTILE = (
    "</td><script>alert(1)</script>",
    "en\n---\nlicense: mit",
    "```\n| a | b |\n\n# Free to use\n\n<img src=x>",
    "[here](javascript:alert(1)) ![](http://example.org/seen.png)",
    "*a*_b_ `c` {{ 7 * 7 }} {% raw %} &lt;b&gt;",
)


def hostile(value: Any, text: str) -> Any:
    """A record in which every text that a corpus or a user can decide is another one."""
    if isinstance(value, dict):
        names = {key: text if key in ("fr", "conll") else key for key in value}
        return {
            names[key]: item if key in ("labels", "columns") else hostile(item, text)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [hostile(item, text) for item in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_corpus_says_stays_text(small, text):
    """If it failed, a corpus's names could put a licence, a script or a picture that counts readers on its
    page on the Hub.
    """
    record = record_of(small)
    record["configs"]["default"]["splits"]["train"]["notes"] = {"conll": 1}
    record |= {"citation": "conll", "known_problems": ["conll"]}
    other = hostile(record, text) | {"description": text.replace("\n\n", "\n")}
    plain, found = (RepoCard(render_data_card(one)) for one in (record, other))
    assert outline(found.text) == outline(plain.text)
    assert "html_block" not in dict(outline(found.text)) and [
        number for _, number in outline(found.text)[-3:]
    ] == [0, 0, 0]
    data = found.data.to_dict()
    assert list(data) == list(plain.data.to_dict())
    one_line = re.sub(r"\s+", " ", text)
    assert (data["license"], data["language"], data["pretty_name"]) == (one_line, [one_line], one_line)


def test_hostile_corpus_is_built_and_loads(tmp_path):
    """If it failed, a type's name could break the card's table, or the data set's features."""
    posts = {split: [(split, "Paris/B-<td><script>alert(1)")] for split in ("train", "valid", "test")}
    build_dataset(
        "conll", tmp_path / "built", data_dir=write_posts(tmp_path / "corpus", posts), language=HOSTILE[1]
    )
    card = card_of(tmp_path / "built")
    assert "html_block" not in dict(outline(card.text)) and dict(outline(card.text))["html_inline"] == 0
    names = (
        load_dataset(str(tmp_path / "built"), cache_dir=str(tmp_path / "cache"), split="test")
        .features["ner_tags"]
        .feature.names
    )
    assert names == record_of(tmp_path / "built")["labels"] and "<script>" in names[1]
