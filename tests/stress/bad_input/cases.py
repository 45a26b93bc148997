"""A row of the table, what it is tried on, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.pipeline_mmner import MultimodalNERPipeline
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader, Prediction
from tests.small_posts import WORDS, assert_same, small_parts
from tests.tiny import parts_of

Outcome = Literal["result", "own error", "caller's error", "foreign error"]
PACKAGES = [Path(__file__).parents[3] / name for name in ("modeling_mmner", "dataset_scripts")]
_FORMS = ("expected", "could not be opened", "could not be decoded", "cannot be read")
GOOD = {"text": "Jordan posts from Paris"}


class CallersError(Exception):
    """What a caller's own generator or file raises."""


class Bench:
    """What the rows are tried on.

    Args:
        tmp: an empty folder.
    """

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp

    @cached_property
    def parts(self) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
        """A tiny model that reads pictures, and its processor."""
        model, processor = small_parts()
        processor.tokenizer.model_max_length = 64  # the encoder's
        return model, processor

    @cached_property
    def context_parts(self) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
        """One whose processor reads contexts."""
        model, processor = parts_of({}, posts=[WORDS])
        processor.tokenizer.model_max_length = 64
        return model, MMNERProcessor(
            processor.tokenizer, labels=processor.labels, image_size=64, context_window=8
        )

    @cached_property
    def pipe(self) -> MultimodalNERPipeline:
        """The pipeline."""
        model, processor = self.parts
        return MultimodalNERPipeline(model=model, processor=processor)

    @cached_property
    def saved(self) -> Path:
        """A folder of the model."""
        folder = self.tmp / "saved"
        for part in self.parts:
            part.save_pretrained(folder)
        return folder

    @cached_property
    def good(self) -> list[dict[str, Any]]:
        """The entities of the post `GOOD`."""
        return self.predict([GOOD])[0].entities

    def file(self, name: str, content: bytes | str) -> Path:
        """A file in the folder."""
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    def predict(self, posts: Any, *, with_contexts: bool = False, **options: Any) -> list[Prediction]:
        """What the batch predictor makes of posts."""
        model, processor = self.context_parts if with_contexts else self.parts
        return list(
            BatchPredictor(model, PostReader(processor, **options), batch_size=4, read_ahead=True).predict(
                posts
            )
        )

    def among_others(self, post: Any, **options: Any) -> Prediction:
        """What it makes of a post between two good ones, which must not feel it.

        Raises:
            PostError, PictureError: the post's.
        """
        first, found, last = self.predict([GOOD, post, GOOD], **options)
        if not options.get("with_contexts"):
            assert_same([first.entities, last.entities], [self.good, self.good])
        if found.error is not None:
            raise found.error
        check_entities(found)
        return found


def check_entities(found: Prediction) -> None:
    """Entities are parts of the text that was given, with scores."""
    assert found.post is not None
    assert len(found.tags) == len(found.post.words)
    for entity in found.entities:
        assert entity["word"] == found.post.text[entity["start"] : entity["end"]]
        assert 0 <= entity["score"] <= 1


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        door: where the input comes in.
        name: what is wrong with it.
        run: gives it to the package.
        error: a part of the error's text; None: it must give a result.
        is_callers: whether the error is one that the caller's own code raises.
    """

    door: str
    name: str
    run: Callable[[Bench], Any]
    error: str | None = None
    is_callers: bool = False

    @property
    def expected(self) -> Outcome:
        """The outcome that it must have."""
        return "result" if self.error is None else "caller's error" if self.is_callers else "own error"


def is_own(error: BaseException) -> bool:
    """Whether an error is the package's own: raised in it, of a kind that says the input is wrong, in the
    house's form.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = Path(frame.tb_frame.f_code.co_filename) if frame is not None else Path()
    is_here = any(place.is_relative_to(package) for package in PACKAGES)
    return (
        is_here
        and isinstance(error, (ValueError, TypeError, OSError))
        and any(form in str(error) for form in _FORMS)
    )


def outcome(case: Case, bench: Bench) -> tuple[Outcome, str]:
    """What comes of a row, and the error's text."""
    try:
        case.run(bench)
    except CallersError as error:
        return "caller's error", str(error)
    except Exception as error:
        return ("own error" if is_own(error) else "foreign error"), f"{type(error).__name__}: {error}"
    return "result", ""
