"""Corpora for training: rows {id, tokens, ner_tags, image, language, source}, wherever they come from."""

import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset, Image

from dataset_scripts.conll import CorpusError, find_picture, find_splits, read_posts
from dataset_scripts.sample.languages import LANGUAGES
from dataset_scripts.sample.sample import Sample, chance_level, generate_posts

from .images_mmner import PictureError, load_picture
from .labels_mmner import OUTSIDE, bio_labels, check_labels
from .recipes import Recipe

SPLITS = ("train", "validation", "test")


@dataclass
class Corpus:
    """A corpus ready for training.

    Attributes:
        name: for reports.
        splits: train, validation and test with the columns id, tokens, ner_tags (ids), image (``{"bytes", "path"}`` or None),
            language and source.
        labels: the BIO label names in id order.
        version: first 12 hex digits of each split's SHA-256, which say which copy of the corpus this is.
        pictures: for each split the number of posts whose picture is present, missing or broken.
        chance: best F1 of text alone on the ambiguous posts by language and over ``all``, where that is known.
    """

    name: str
    splits: dict[str, Dataset]
    labels: list[str]
    version: dict[str, str]
    pictures: dict[str, dict[str, int]]
    chance: dict[str, float] | None = None

    def summary(self) -> dict[str, Any]:
        """What metrics.json says of the corpus."""
        return {
            "name": self.name,
            "version": self.version,
            "posts": {split: len(rows) for split, rows in self.splits.items()},
            "pictures": self.pictures,
            "chance": self.chance,
        }


def load_corpus(recipe: Recipe) -> Corpus:
    """The corpus that a recipe names.

    Raises:
        CorpusError: files are missing or malformed; a picture is missing or broken and the recipe requires them.
    """
    corpus = {"sample": _load_sample, "conll": _load_conll}[recipe.dataset](recipe)
    return corpus if recipe.use_images else _without_pictures(corpus)


def _without_pictures(corpus: Corpus) -> Corpus:
    """The corpus with every picture withheld."""
    splits, pictures = {}, {}
    for split, rows in corpus.splits.items():
        splits[split] = rows.remove_columns("image").add_column("image", [None] * len(rows))
        pictures[split] = {"present": 0, "missing": len(rows), "broken": 0}
    return replace(corpus, splits=splits, pictures=pictures)


def _load_sample(recipe: Recipe) -> Corpus:
    """The generated corpus in the recipe's languages (all of them if it names none)."""
    if unknown := sorted(set(recipe.languages) - set(LANGUAGES)):
        raise CorpusError(f"sample corpus: expected languages among {', '.join(LANGUAGES)}, found {', '.join(unknown)}")
    builder = Sample(config_name="all")
    builder.download_and_prepare()
    splits = {}
    for split in SPLITS:
        rows = builder.as_dataset(split=split)
        if recipe.languages:
            kept = [index for index, language in enumerate(rows["language"]) if language in recipe.languages]
            rows = rows.select(kept)
        splits[split] = rows.cast_column("image", Image(decode=False))
    pictures = {}
    for split, rows in splits.items():
        present = sum(image is not None for image in rows["image"])
        pictures[split] = {"present": present, "missing": len(rows) - present, "broken": 0}
    labels = builder.info.features["ner_tags"].feature.names
    version = {split: _row_hash(rows) for split, rows in splits.items()}
    chance = _chance(sorted(set(splits["test"]["language"])), builder.config.seed)
    return Corpus("sample", splits, labels, version, pictures, chance)


def _chance(languages: list[str], seed: int) -> dict[str, float]:
    """Chance level of text alone on the test split's ambiguous posts, by language and over all."""
    posts = {language: list(generate_posts(language, "test", seed)) for language in languages}
    return {language: chance_level(rows) for language, rows in posts.items()} | {"all": chance_level(chain(*posts.values()))}


def _row_hash(rows: Dataset) -> str:
    digest = hashlib.sha256()
    for row in rows:
        image = row.pop("image")
        digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode())
        digest.update(image["bytes"] if image is not None else b"-")
    return digest.hexdigest()[:12]


def _load_conll(recipe: Recipe) -> Corpus:
    """A corpus in files, with any BIO tag set: its types in order of frequency."""
    if recipe.data_dir is None:
        raise CorpusError("dataset conll: expected --data_dir, the folder with its train, valid and test files, found none")
    if recipe.image_dir is not None and not Path(recipe.image_dir).is_dir():
        raise CorpusError(f"--image_dir {recipe.image_dir}: expected a folder, found none")
    files = find_splits(recipe.data_dir)
    posts = {split: list(read_posts(path)) for split, path in files.items()}
    # Every type of any split: a small training split may lack one, which is then a type that the model will not find.
    types = Counter(tag[2:] for split in SPLITS for post in posts[split] for tag in post.tags if tag != OUTSIDE)
    labels = bio_labels(name for name, _ in sorted(types.items(), key=lambda item: (-item[1], item[0])))
    check_labels(labels)
    splits, pictures = {}, {}
    for split in SPLITS:
        found, counts = _pictures([post.id for post in posts[split]], recipe, split)
        pictures[split] = counts
        splits[split] = Dataset.from_list(
            [
                {
                    "id": post.id,
                    "tokens": post.tokens,
                    "ner_tags": [labels.index(tag) for tag in post.tags],
                    "image": {"bytes": None, "path": str(path)} if path is not None else None,
                    "language": recipe.languages[0] if len(recipe.languages) == 1 else "unknown",
                    "source": Path(recipe.data_dir).name,
                }
                for post, path in zip(posts[split], found, strict=True)
            ]
        )
    version = {split: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for split, path in files.items()}
    return Corpus(Path(recipe.data_dir).name, splits, labels, version, pictures)


def _pictures(post_ids: list[str], recipe: Recipe, split: str) -> tuple[list[Path | None], dict[str, int]]:
    """The readable picture of each post and the counts; each file is decoded once here, so that training cannot stumble."""
    if recipe.image_dir is None or not recipe.use_images:  # withheld pictures need no check
        return [None] * len(post_ids), {"present": 0, "missing": len(post_ids), "broken": 0}
    paths = [find_picture(recipe.image_dir, post_id) for post_id in post_ids]
    with ThreadPoolExecutor() as threads:
        problems = list(threads.map(_problem, paths))
    broken = [problem for problem in problems if problem]
    missing = sum(path is None for path in paths)
    if recipe.require_images and (broken or missing):
        first = broken[0] if broken else f"post {post_ids[paths.index(None)]!r}: no file <id>.jpg in {recipe.image_dir}"
        raise CorpusError(
            f"{split}: expected a readable picture for each post, found {missing} missing and {len(broken)} broken; first: "
            f"{first}; without --require_images such posts are kept without their picture"
        )
    for problem in broken:
        print(f"{split}: kept a post without its picture: {problem}")
    counts = {"present": len(paths) - missing - len(broken), "missing": missing, "broken": len(broken)}
    return [path if not problem else None for path, problem in zip(paths, problems, strict=True)], counts


def _problem(path: Path | None) -> str | None:
    """Why a picture cannot be read; None where it can or where there is none."""
    if path is None:
        return None
    try:
        load_picture(path)
    except PictureError as error:
        return str(error)
    return None
