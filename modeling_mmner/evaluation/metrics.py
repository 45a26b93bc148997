"""The metrics of a training run, typed: what metrics.json holds, for cards, pushes and reports."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError


@dataclass
class Score:
    """Micro precision, recall and F1 in 0..1, with a 95% bootstrap interval of F1, and the gold entities."""

    precision: float
    recall: float
    f1: float
    number: int
    confidence_interval: list[float]


@dataclass
class SplitScores:
    """Scores of a split; all but `strict` are lenient, see `evaluate_tags`."""

    overall: Score
    strict: Score
    by_type: dict[str, Score]
    by_language: dict[str, Score]
    by_source: dict[str, Score]
    by_language_and_source: dict[str, Score]
    language_macro_f1: float = 0.0


@dataclass
class TestScores(SplitScores):
    """Scores of the test split.

    Attributes:
        raw_text: of entities found when the words are joined and split again.
        picture: by what the posts were shown: ``true``, ``shuffled`` or ``none``.
        context: the same of their contexts; empty where the model reads none.
        p_values: of the difference in F1 to ``true``, for ``picture`` and ``context`` by mode; by paired
            approximate randomisation over the posts.
    """

    raw_text: Score = field(kw_only=True)
    picture: dict[str, SplitScores] = field(kw_only=True)
    context: dict[str, SplitScores] = field(kw_only=True, default_factory=dict)
    p_values: dict[str, dict[str, float]] = field(kw_only=True, default_factory=dict)


@dataclass
class Splits:
    validation: SplitScores
    test: TestScores


@dataclass
class PictureCounts:
    """How many posts of a split have a picture, have none, or have one that is broken."""

    present: int
    missing: int
    broken: int


@dataclass
class ContextCounts:
    """How many posts of a split have a context, how many have none, and how many contexts had to be cut."""

    present: int
    missing: int
    cut: int


@dataclass
class CardExample:
    """A post that card, widget and page of a model show to everybody.

    Attributes:
        pictures: names of files in the model's folder.
        entities: what the model finds, see `MMNERProcessor.post_process_entities`; None: nobody has asked it.
    """

    text: str
    example_title: str
    pictures: list[str] = field(default_factory=list)
    context: str = ""
    entities: list[dict[str, Any]] | None = None


@dataclass
class CorpusSummary:
    """What the run's corpus was.

    Attributes:
        version: for each split 12 hex digits of a SHA-256.
        posts, pictures, contexts: of each split; no contexts where the model reads none.
        overlap: how many training posts occur in the ``validation`` and the ``test`` split, and whether they
            were ``excluded``.
        chance: best F1 of text alone on the ambiguous posts by language and over ``all``, where that is
            known.
        citation: BibTeX.
        examples: posts that may be published: generated ones, or those of ``--card_examples``.
        languages: those that its training posts say they are in.
        context_writer: who wrote them, people or a model; empty where nobody has said.
    """

    name: str
    version_name: str
    version: dict[str, str]
    posts: dict[str, int]
    pictures: dict[str, PictureCounts]
    overlap: dict[str, int | bool]
    chance: dict[str, float] | None = None
    citation: str = ""
    is_generated: bool = False
    examples: list[CardExample] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    contexts: dict[str, ContextCounts] = field(default_factory=dict)
    context_writer: str = ""

    def describe(self) -> str:
        """In a line: name, version and the posts of each split, with how many of them have a picture."""
        splits = []
        for split, count in self.posts.items():
            having = f"{self.pictures[split].present:,} with a picture"
            if contexts := self.contexts.get(split):
                having += f", {contexts.present:,} with a context, of which {contexts.cut:,} are cut"
            splits.append(f"{count:,} {split} posts ({having})")
        return f"corpus {self.name} {self.version_name}: {', '.join(splits)}"


@dataclass
class ModelSize:
    """How many parameters the model has, and how many of them were trained."""

    parameters: int
    trained_parameters: int


@dataclass
class Timing:
    """Seconds of training, and of the whole run."""

    training_seconds: float
    total_seconds: float


@dataclass
class RunMetrics:
    """Everything that metrics.json holds.

    Attributes:
        recipe, terms, license: see `Recipe.to_dict`, `terms_of` and `derived_licence`.
        versions: of Python and the packages.
        history: for each epoch its number, losses (``loss``, ``loss_<part>``), validation F1 and seconds.
        selected_epoch: the one with the best validation F1.
        processes: that trained together, each with the recipe's batch size.
    """

    recipe: dict[str, Any]
    terms: list[dict[str, str]]
    license: str
    seed: int
    versions: dict[str, str]
    corpus: CorpusSummary
    model: ModelSize
    history: list[dict[str, Any]]
    selected_epoch: int
    timing: Timing
    splits: Splits
    processes: int = 1

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "RunMetrics":
        """The metrics that a dict holds. Raises ValueError with the full place of one that is missing."""
        try:
            return TypeAdapter(cls).validate_json(json.dumps(content), strict=True)
        except ValidationError as error:
            wrong = error.errors()[0]
            place = ".".join(map(str, wrong["loc"]))
            found = "found none" if wrong["type"] == "missing" else f"found {wrong['input']!r:.80}"
            expected = f"expected {place!r}, as in the metrics.json of a finished run of this mmner"
            raise ValueError(f"metrics: {expected}, {found} ({wrong['msg']})") from error

    @classmethod
    def from_file(cls, path: str | Path) -> "RunMetrics":
        """The metrics of a metrics.json. Raises ValueError where it is none."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: expected the metrics.json of a training run; {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def to_json(self) -> str:
        """What metrics.json says."""
        return json.dumps(self.to_dict(), indent=2) + "\n"
