"""A component of spaCy's: `nlp.add_pipe("mmner", config={"model": folder})` sets `doc.ents`.

spaCy finds it by the entry point of the installed package. The model reads the text by its own words, so any
tokenizer will do. Nothing is written on disk but the config, which names the model.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from spacy.language import Language
from spacy.pipeline import Pipe
from spacy.tokens import Doc, SpanGroup
from spacy.util import filter_spans, minibatch

from .. import load

_BESIDE = ("image", "images", "context")


@Language.factory("mmner", assigns=["doc.ents", "doc.spans"], default_score_weights={"ents_f": 1.0})
class MMNERComponent(Pipe):
    """Finds the entities of Docs; what `doc.user_data` holds under ``image``, ``images`` and ``context`` is
    read with the text, as of a post.

    ``doc.spans[name]`` holds what the model found, and the scores beside in ``.attrs["scores"]``, as spaCy's
    own span categorizer writes them. An entity takes in whole tokens of spaCy: those that it touches. Where
    two then share a token, ``doc.ents`` has the longer one, or else the first; it has no entities of others.

    Args:
        nlp, name: given by spaCy; `name` is also the key in ``doc.spans``.
        model: folder or Hub id of a trained model; see `modeling_mmner.load`, also for what is raised.
        device: cpu, cuda, cuda:1, mps; None: an accelerator if there is one.
        batch_size: posts that the model reads at once, at most; of `nlp.pipe` it is the Docs of one call.
        threshold, image_dir, broken_pictures: see `MultimodalNERPipeline`.

    A Doc that cannot be read raises `PostError` or `PictureError`, whose number counts from the first Doc of
    its batch, or goes to the handler of `nlp.set_error_handler`.
    """

    def __init__(
        self,
        nlp: Language,
        name: str,
        model: str,
        device: str | None = None,
        batch_size: int = 32,
        threshold: float = 0.0,
        image_dir: str | None = None,
        broken_pictures: Literal["raise", "skip"] = "raise",
    ) -> None:
        self.name = name
        reading: dict[str, Any] = {"image_dir": image_dir, "broken_pictures": broken_pictures}
        self.ner = load(model, device=device, batch_size=batch_size, threshold=threshold, **reading)

    def __call__(self, doc: Doc) -> Doc:
        return _with_entities(doc, self.ner(_post(doc)), self.name)

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """The Docs with their entities, in order; one call of the pipeline for each `batch_size` of them."""
        handle_error = self.get_error_handler()
        for docs in minibatch(stream, batch_size):
            for doc, found in zip(docs, self.ner([*map(_post, docs)], broken_posts="return"), strict=True):
                if isinstance(found, Exception):
                    handle_error(self.name, self, [doc], found)
                else:
                    yield _with_entities(doc, found, self.name)


def _post(doc: Doc) -> dict[str, Any]:
    return {"text": doc.text} | {key: doc.user_data[key] for key in _BESIDE if key in doc.user_data}


def _with_entities(doc: Doc, found: list[dict[str, Any]], name: str) -> Doc:
    spans: list[Any] = [  # none is None: the text is the Doc's own
        doc.char_span(one["start"], one["end"], label=one["entity_group"], alignment_mode="expand")
        for one in found
    ]
    scores = [one["score"] for one in found]
    doc.spans[name] = SpanGroup(doc, name=name, attrs={"scores": scores}, spans=spans)
    doc.set_ents(filter_spans(spans))
    return doc
