"""What bad inputs are tried on, and what counts as the package's own answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.model.pipeline_mmner import MultimodalNERPipeline
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader, Prediction
from tests.small_posts import WORDS, assert_same, small_parts
from tests.tiny import parts_of

PACKAGES = [Path(__file__).parents[3] / name for name in ("modeling_mmner", "dataset_scripts")]
_FORMS = ("expected", "could not be opened", "could not be decoded", "cannot be read")
GOOD = {"text": "Jordan posts from Paris"}


class Bench:
    """A tiny model that reads pictures, and a folder to write in."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp

    @cached_property
    def parts(self) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
        model, processor = small_parts()
        processor.tokenizer.model_max_length = 64  # the encoder's
        return model, processor

    @cached_property
    def context_parts(self) -> tuple[MMNERForTokenClassification, MMNERProcessor]:
        model, processor = parts_of({}, posts=[WORDS])
        processor.tokenizer.model_max_length = 64
        labels = processor.labels
        return model, MMNERProcessor(processor.tokenizer, labels=labels, image_size=64, context_window=8)

    @cached_property
    def pipe(self) -> MultimodalNERPipeline:
        model, processor = self.parts
        return MultimodalNERPipeline(model=model, processor=processor)

    @cached_property
    def good(self) -> list[dict[str, Any]]:
        """The entities of the post `GOOD`."""
        return self.predict([GOOD])[0].entities

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    def predict(self, posts: Any, *, with_contexts: bool = False, **options: Any) -> list[Prediction]:
        model, processor = self.context_parts if with_contexts else self.parts
        reader = PostReader(processor, **options)
        return list(BatchPredictor(model, reader, batch_size=4, read_ahead=True).predict(posts))

    def among_others(self, post: Any, **options: Any) -> Prediction:
        """What comes of a post between two good ones, which must not feel it. Raises the post's error."""
        first, found, last = self.predict([GOOD, post, GOOD], **options)
        if not options.get("with_contexts"):
            assert_same([first.entities, last.entities], [self.good, self.good])
        if found.error is not None:
            raise found.error
        assert found.post is not None and len(found.tags) == len(found.post.words)
        for entity in found.entities:
            assert entity["word"] == found.post.text[entity["start"] : entity["end"]]
            assert 0 <= entity["score"] <= 1
        return found


@dataclass(frozen=True)
class Case:
    """An input at a door; `place` is what its error must say (a regular expression), None: it is taken."""

    door: str
    name: str
    run: Callable[[Bench], Any]
    place: str | None = None


def taken(door: str, inputs: Mapping[str, Any], run: Callable[[Bench, Any], Any]) -> list[Case]:
    """Inputs that must give a result."""
    return [Case(door, name, lambda bench, given=given: run(bench, given)) for name, given in inputs.items()]


def refused(door: str, place: str, inputs: Mapping[str, Any], run: Callable[[Bench, Any], Any]) -> list[Case]:
    """Inputs that must be refused by an error that names the place."""
    return [Case(one.door, one.name, one.run, place) for one in taken(door, inputs, run)]


def is_own(error: BaseException) -> bool:
    """Whether an error is raised in the package and says in the house's form what is wrong with the input."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = Path(frame.tb_frame.f_code.co_filename) if frame is not None else Path()
    is_here = any(place.is_relative_to(package) for package in PACKAGES)
    is_kind = isinstance(error, (ValueError, TypeError, OSError))
    return is_here and is_kind and any(form in str(error) for form in _FORMS)
