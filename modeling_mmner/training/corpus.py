"""The corpus of a training run: opened, cut to its languages, its pictures checked, its splits kept apart."""

import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain, islice
from typing import Any

from datasets import Dataset

from dataset_scripts.builders.builder import FACTS, SPLITS, CorpusBuilder, read_ahead
from dataset_scripts.contexts import CONTEXT, with_contexts
from dataset_scripts.corpora import BUILDERS
from dataset_scripts.findings import PICTURES_LEFT_OUT
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.inspection import picture_numbers, picture_problem
from dataset_scripts.opening import Corpus, open_corpus, row_hash
from dataset_scripts.overlap import overlapping

from ..escaping import one_line, printable, say
from ..evaluation.metrics import ContextCounts, CorpusSummary, PictureCounts
from ..files import noted, picture_hash
from ..model.images_mmner import PICTURE_COLUMNS, pictures_of
from ..model.labels_mmner import OUTSIDE
from ..model.processing_mmner import MMNERProcessor
from .progress import ProgressBar
from .recipes import PEOPLE, CorpusSettings

_ROW = "row"
"""The column of each row's number in the whole split, while posts are left out."""


@dataclass
class TrainingCorpus(Corpus):
    """A corpus with all three splits, ready for training.

    Attributes:
        pictures, overlap, chance: as in `CorpusSummary`.
        facts: see `facts_of`.
        contexts: see `count_contexts`; empty where none are read.
        whole: the splits before any post is left out, for which picture features are kept.
        places: of each row of a split, in the whole one.
    """

    pictures: dict[str, PictureCounts] = field(default_factory=dict)
    overlap: dict[str, Any] = field(default_factory=dict)
    chance: dict[str, float] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    contexts: dict[str, ContextCounts] = field(default_factory=dict)
    whole: dict[str, Dataset] = field(default_factory=dict)
    places: dict[str, list[int]] = field(default_factory=dict)

    def summary(self) -> CorpusSummary:
        """What the run's metrics say of the corpus."""
        names = ("name", "version_name", "version", "overlap", "chance", "contexts", "pictures")
        return CorpusSummary(
            **{name: getattr(self, name) for name in names},
            posts={split: len(rows) for split, rows in self.splits.items()},
            languages=sorted({*self.splits["train"].unique("language")} - {"unknown"}),
            **self.facts,
        )

    def digest(self) -> str:
        """Tells corpora apart: a hash of each split's posts, their pictures and contexts included."""
        names = {"id", "tokens", "ner_tags", "language", CONTEXT, *PICTURE_COLUMNS}
        splits = [self.splits[split] for split in SPLITS]
        known = [rows.select_columns([*(names & rows.features.keys())]) for rows in splits]
        return " ".join(row_hash(rows, lambda picture: picture_hash(picture).encode()) for rows in known)

    def count_contexts(self, processor: MMNERProcessor) -> None:
        """Count the contexts of each split, and those of which a processor cuts the end off."""
        for split, rows in self.splits.items() if processor.context_window is not None else ():
            present, cut = 0, 0
            for chosen in rows.select_columns(["tokens", CONTEXT]).iter(1000):
                posts = processor.read(chosen["tokens"], context=chosen[CONTEXT])
                present += sum(bool(post.context) for post in posts)
                cut += sum(text.context_cut > 0 for text in processor.lay_out(posts))
            self.contexts[split] = ContextCounts(present, len(rows) - present, cut)


def facts_of(settings: CorpusSettings) -> dict[str, Any]:
    """What is known of a corpus without opening it: `citation`, `is_generated`, `context_writer`."""
    builder = BUILDERS.get(settings.dataset, CorpusBuilder)
    citation = FACTS.get(settings.dataset, {}).get("citation", "")
    writer = settings.context_writer or ""
    return {"citation": citation, "is_generated": builder.IS_GENERATED, "context_writer": writer}


def load_corpus(settings: CorpusSettings) -> TrainingCorpus:
    """The corpus that a recipe's settings name.

    Raises:
        CorpusError: it cannot be opened or lacks a split; no post is in the wanted languages; a picture is
            missing or broken and they are required; training posts occur in the test split of another corpus.
    """
    opened = open_corpus(settings.dataset, config=settings.dataset_config, **_reading_options(settings))
    corpus = TrainingCorpus(**vars(opened), facts=facts_of(settings))
    for line in corpus.findings.lines(f"{corpus.name}: "):
        say(one_line(line))
    lost = any(one.lost and one.what.startswith(PICTURES_LEFT_OUT) for one in corpus.findings.sorted())
    named = settings.use_images and lost
    if named and not any(picture_numbers(rows).any() for rows in corpus.splits.values()):
        expected = "expected pictures of those that posts name, found none, see above"
        raise CorpusError(f"{corpus.name}: {expected}; --no_use_images trains on the texts alone")
    if settings.test_dataset is not None:
        _take_test_split(corpus, settings.test_dataset)
    if missing := ", ".join(split for split in SPLITS if split not in corpus.splits):
        expected = f"expected the splits {', '.join(SPLITS)}; {missing} not found"
        raise CorpusError(f"dataset {settings.dataset!r}: {expected}")
    if not settings.use_images:
        corpus.splits = {split: _without_pictures(rows) for split, rows in corpus.splits.items()}
    corpus.whole = {split: corpus.splits[split] for split in SPLITS}
    numbered = {split: rows.add_column(_ROW, [*range(len(rows))]) for split, rows in corpus.whole.items()}
    corpus.splits = _in_languages(numbered, settings)
    if settings.context is not None:
        corpus.splits = with_contexts(corpus.splits, settings.context, settings.context_file)
        if (writer := settings.context_writer) != PEOPLE:  # a model may have learnt from the very test posts
            who = f"{writer:.80}, which" if writer else "somebody (--context_writer says who); a model"
            told = f"contexts were written by {who} may have seen the test posts' entities"
            warnings.warn(told, stacklevel=2)
    for split, rows in corpus.splits.items():
        if not any(corpus.labels[tag] != OUTSIDE for tag in chain.from_iterable(rows["ner_tags"])):
            found = f"no entity in its {len(rows)} posts"
            warnings.warn(f"{split} split: {found}, so its F1 is 0 whatever a model finds", stacklevel=2)
    _keep_apart(corpus, settings)
    with ProgressBar("checking the pictures", sum(map(len, corpus.splits.values()))) as bar:
        for split, rows in corpus.splits.items():
            corpus.places[split], corpus.splits[split] = rows[_ROW][:], rows.remove_columns(_ROW)
            _check_pictures(corpus, split, settings, bar)
    if settings.test_dataset is None:
        languages = sorted(set(corpus.splits["test"]["language"]))
        corpus.chance = BUILDERS.get(settings.dataset, CorpusBuilder).chance(languages)
    return corpus


def _reading_options(settings: CorpusSettings) -> dict[str, Any]:
    """How the recipe wants raw files read; a single language is that of posts which do not say theirs."""
    needs_language = BUILDERS.get(settings.dataset, CorpusBuilder).NEEDS_LANGUAGE
    only = {"language": settings.languages[0]} if needs_language and len(settings.languages) == 1 else {}
    return only | settings.given()


def _take_test_split(corpus: TrainingCorpus, name: str) -> None:
    """Replace the test split by that of another corpus, its tags by the ids of this one's labels."""
    other = open_corpus(name)
    if (rows := other.splits.get("test")) is None:
        raise CorpusError(f"test_dataset {name}: expected a test split, found {', '.join(other.splits)}")
    ids = {label: number for number, label in enumerate(corpus.labels)}
    if unknown := sorted({other.labels[tag] for tags in rows["ner_tags"] for tag in tags} - set(ids)):
        expected = f"expected tags among {corpus.labels}, found {unknown}; rename them in its files"
        raise CorpusError(f"test_dataset {other.name}: {expected}")
    if other.labels != corpus.labels:
        tags = [[ids[other.labels[tag]] for tag in tags] for tags in rows["ner_tags"]]
        kind = corpus.splits["train"].features["ner_tags"]
        rows = rows.remove_columns("ner_tags").add_column("ner_tags", tags, feature=kind)
    corpus.splits["test"], corpus.version["test"] = rows, other.version["test"]
    corpus.name += f", test {other.name}"
    corpus.version_name += f", test {other.version_name}"


def _in_languages(splits: dict[str, Dataset], settings: CorpusSettings) -> dict[str, Dataset]:
    """The rows in the recipe's languages (none named: all), and those whose language is unknown."""
    known = set(chain(*(rows["language"] for rows in splits.values()))) - {"unknown"}
    if not known:
        return splits
    if absent := ", ".join(sorted({*settings.languages, *settings.test_languages} - known)):
        raise CorpusError(f"--languages: expected some of {', '.join(sorted(known))}, found {absent} too")
    cut = {}
    for split, rows in splits.items():
        wanted = (split == "test" and settings.test_languages) or settings.languages or sorted(known)
        kept = [index for index, one in enumerate(rows["language"]) if one in {*wanted, "unknown"}]
        if not kept:
            expected = f"expected posts in {', '.join(wanted)} in the {split} split"
            raise CorpusError(f"--languages: {expected}, found none")
        cut[split] = rows.select(kept)
    return cut


def _keep_apart(corpus: TrainingCorpus, settings: CorpusSettings) -> None:
    """See to the training posts that occur in the validation or the test split."""
    train = corpus.splits["train"]
    found = {split: overlapping(train, corpus.splits[split]) for split in ("validation", "test")}
    counts = {split: len(indices) for split, indices in found.items()}
    corpus.overlap |= counts | {"excluded": settings.exclude_overlap}
    left_out = set(chain(*found.values()))
    if not left_out:
        return
    where = ", ".join(f"{number} in the {split} split" for split, number in counts.items())
    what = f"{corpus.name}: of {len(train)} training posts, by id or by text, {where}"
    advice = f"{what}; --exclude_overlap leaves them out of training"
    if settings.exclude_overlap:
        if len(left_out) == len(train):
            found_all = f"all of its {len(train)} posts are held-out posts; none is left"
            raise CorpusError(f"training split: {found_all}")
        corpus.splits["train"] = train.select(sorted({*range(len(train))} - left_out))
        say(f"{what}; left out of training: {len(left_out)}")
    elif settings.test_dataset is not None and found["test"]:
        raise CorpusError(advice)
    else:
        warnings.warn(printable(advice), stacklevel=3)


def _picture_columns(rows: Dataset) -> list[str]:
    return [column for column in PICTURE_COLUMNS if column in rows.features]


def _without_pictures(rows: Dataset) -> Dataset:
    return rows.remove_columns(_picture_columns(rows)).add_column("image", [None] * len(rows))


def _check_pictures(corpus: TrainingCorpus, split: str, settings: CorpusSettings, bar: ProgressBar) -> None:
    """Count a split's pictures, and leave those out that are broken; each is reported.

    All are decoded, so that training cannot stumble; each only once by a version of the reader.
    """
    rows = corpus.splits[split]
    columns = _picture_columns(rows)
    pictures = chain.from_iterable(map(pictures_of, rows.select_columns(columns)))
    found = read_ahead(_problem, pictures)
    problems = []
    for number in picture_numbers(rows):
        problems.append([*islice(found, number)])
        bar.update()
    missing = {index: "no picture" for index, found in enumerate(problems) if not found}
    broken = {index: found for index, found in enumerate(problems) if any(found)}
    told = missing | {index: next(filter(None, found)) for index, found in broken.items()}
    corpus.pictures[split] = PictureCounts(len(rows) - len(told), len(missing), len(broken))
    if told and settings.require_images and settings.use_images:
        first, counted = min(told), f"{len(missing)} missing and {len(broken)} broken"
        raise CorpusError(
            f"{split}: expected a readable picture for each post, found {counted}; first: post"
            f" {rows[first]['id']!r}: {told[first]}; without --require_images such posts are kept"
        )

    def stripped(row: dict[str, Any], index: int) -> dict[str, Any]:
        if index in broken:
            say(f"kept without its broken picture: post {row['id']!r}: {told[index]}")
            checked = zip(pictures_of(row), broken[index], strict=True)
            good = [picture for picture, problem in checked if not problem]
            row = {"image": good[0] if good else None, "images": good}
        return {column: row[column] for column in columns}

    if broken:
        bar.hide()
        corpus.splits[split] = rows.map(stripped, with_indices=True, features=rows.features)


def _problem(picture: dict[str, Any]) -> str:
    """In words why a picture cannot be read; empty where it can."""
    reader = f"mmner {version('mmner')}, Pillow {version('pillow')}"
    try:
        key = f"{reader}: {picture['path']} {picture_hash(picture)}"
    except (OSError, TypeError):  # there is none
        return picture_problem(picture)
    return noted(key, lambda: picture_problem(picture))
