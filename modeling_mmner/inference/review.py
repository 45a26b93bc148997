"""The posts most worth a human's look, as tasks of Label Studio, with what the model finds filled in."""

from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest
from itertools import tee
from typing import Any
from xml.sax.saxutils import quoteattr

from ..model.images_mmner import is_url, pictures_of
from ..model.labels_mmner import entity_types
from ..model.prediction_mmner import BatchPredictor, Prediction
from ..model.processing_mmner import MMNERProcessor

_KEPT = ("id", "context", "language", "source")
_LARGE = 0.5
"""A picture that changes the probability of an entity by so much decides it."""


def doubts(found: Prediction) -> dict[str, float]:
    """How many mistakes are to be expected in a post, by what speaks for them, each >= 0.

    Returns:
        wrong: the expected number of entities of the text that are none, the sum of 1 - score. disagreeing:
        those that a picture names with another type. decided_by_picture: the effects, in 0..1, of pictures
        that decide one.
    """
    in_text = [one for one in found.entities if one["start"] is not None]
    in_pictures = {_surface(one): one["entity_group"] for one in found.entities if one["start"] is None}
    kinds = [(one["entity_group"], in_pictures.get(_surface(one), one["entity_group"])) for one in in_text]
    effects = [abs(one.get("picture_effect") or 0.0) for one in in_text]
    return {
        "wrong": sum(1 - one["score"] for one in in_text),
        "disagreeing": sum(own != pictured for own, pictured in kinds),
        "decided_by_picture": sum(effect for effect in effects if effect >= _LARGE),
    }


def _surface(entity: Mapping[str, Any]) -> str:
    return " ".join(entity["word"].casefold().split())


def review(
    predictor: BatchPredictor, posts: Iterable[Any], *, count: int, name: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """The posts with the greatest sum of `doubts`, the greatest first, of any number of posts.

    Args:
        posts: as `MultimodalNERPipeline` takes them.
        count: posts, at most.
        name: that the entities which are filled in are said to be of.

    Returns:
        tasks, see `task_of`, and the errors of posts that could not be read.
    """
    errors: list[str] = []
    given, again = tee(posts)

    def tasks() -> Iterator[dict[str, Any]]:
        for post, found in zip(again, predictor.predict(given), strict=True):
            if found.post is None:
                errors.append(str(found.error))
            else:
                yield task_of(post, found, name=name)

    return nlargest(count, tasks(), key=lambda task: sum(task["meta"].values())), errors


def task_of(post: Any, found: Prediction, *, name: str) -> dict[str, Any]:
    """A task of Label Studio: its data, the doubts as ``meta``, and the entities of the text as prediction.

    Offsets count characters, as Label Studio's do, and each entity has its text. Pictures on the web are left
    out: to show one would tell its owner who looks.
    """
    row: Mapping[str, Any] = post if isinstance(post, Mapping) else {}
    data = {key: row[key] for key in _KEPT if row.get(key) is not None}
    data["text"] = found.post.text if found.post else ""
    data["images"] = [one for one in pictures_of(row) if isinstance(one, str) and not is_url(one)]
    control = {"from_name": "label", "to_name": "text", "type": "labels"}
    result: list[dict[str, Any]] = []
    for one in (one for one in found.entities if one["start"] is not None):
        value = {"start": one["start"], "end": one["end"], "text": one["word"]}
        value["labels"] = [one["entity_group"]]
        result.append(control | {"id": f"entity-{len(result)}", "score": one["score"], "value": value})
    prediction = {"model_version": name, "result": result}
    return {"data": data, "meta": doubts(found), "predictions": [prediction]}


def labelling_interface(processor: MMNERProcessor) -> str:
    """The interface of Label Studio in which the tasks of a model are shown."""
    types = "".join(f"<Label value={quoteattr(kind)}/>" for kind in entity_types(processor.labels))
    image = '<Image name="image" valueList="$images"/>' if processor.image_size else ""
    text = f'<Labels name="label" toName="text">{types}</Labels><Text name="text" value="$text"/>'
    return f"<View>{image}{text}</View>"
