"""The demo page: a text with its entities marked, and where in its picture a word or an entity looks.

What a visitor or a model's card says is escaped where it meets HTML or Markdown, and is plain text elsewhere.
"""

import html
import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from typing import Any, NamedTuple

import gradio as gr
from PIL import ImageOps
from starlette.middleware import Middleware

from ..escaping import encodable, markdown_text
from ..files import read_yaml
from ..hub.examples import Example
from ..model.images_mmner import PictureError
from ..model.labels_mmner import entity_types
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.processing_mmner import MMNERProcessor
from .demo_limits import MOST_PICTURE_BYTES, RequestLimits
from .explain import Explanation, draw_cells, explain

SAID = read_yaml(resources.files(__package__).joinpath("demo.yaml").read_text("utf-8"))
MOST_CHARACTERS = 20_000
"""Of a text with its context: some 4,000 words, which take seconds. Others wait for as long."""
MOST_WAITING = 50
"""Visitors that wait for an answer; more are told to come again."""
MOST_SESSIONS = 500
"""Visitors whose results are kept, for an hour at most."""

_KEPT_SECONDS = 3600
_DRAWN_SIZE = (512, 512)
# Dark enough for white labels; the usual four types have the first four.
_COLOURS = ("#1d4ed8", "#15803d", "#b45309", "#7e22ce", "#be123c", "#0f766e", "#a21caf")
# `${value}`, never `{{value}}`: Gradio makes a program of what the latter fills in, and a text would run.
_LIVE = '<div role="status" aria-live="polite">${value}</div>'
# Each paragraph in the direction of its own language; Gradio's black on a dark page's marks is hard to read.
_STYLE = ".textfield { unicode-bidi: plaintext; } .dark .token.highlighted { color: white !important; }"
_logger = logging.getLogger(__name__)


class Piece(NamedTuple):
    """A piece of a text: what it says, its entity if it is one, and the numbers of its words."""

    text: str
    entity: dict[str, Any] | None
    words: range


def pieces_of(explanation: Explanation) -> list[Piece]:
    """The whole text in pieces: what stands before its words, then each entity, and each word outside of one.

    What UTF-8 cannot encode is U+FFFD.
    """
    ends = {word.end: number + 1 for number, word in enumerate(explanation.words)}
    entities = {entity["start"]: entity for entity in explanation.entities}
    starts = [*(word.start for word in explanation.words), len(explanation.text)]
    pieces = [Piece(encodable(explanation.text[: starts[0]]), None, range(0))]
    while (first := pieces[-1].words.stop) < len(explanation.words):
        entity = entities.get(starts[first])
        end = ends[entity["end"]] if entity else first + 1
        text = encodable(explanation.text[starts[first] : starts[end]])
        pieces.append(Piece(text, entity, range(first, end)))
    return pieces


def sentence_about(explanation: Explanation, piece: Piece) -> str:
    """In plain words: an entity or a word, and what the picture did for it."""
    what = f"is an entity: {_label(piece.entity)}" if piece.entity else "belongs to no entity"
    sentences = [f"“{piece.text.strip()}” {what}."]
    if not explanation.pictures:
        sentences.append("There is no picture that was looked at.")
    elif piece.entity:
        without = piece.entity["score"] - piece.entity["picture_effect"]
        sentences.append(f"Without the picture its score is {without:.2f}.")
    return " ".join(sentences)


def _label(entity: dict[str, Any]) -> str:
    return f"{entity['entity_group']} {entity['score']:.2f}"


class DemoPage:
    """What the page does: the handlers of its events, for a model in evaluation mode, on its device."""

    def __init__(self, model: MMNERForTokenClassification, processor: MMNERProcessor) -> None:
        self.model, self.processor = model, processor
        self.colours = dict(zip(entity_types(processor.labels), itertools.cycle(_COLOURS), strict=False))

    def find(self, text: str, picture: str | None, context: str = "") -> list[Any]:
        """The explanation to keep, the status, the marked text, the first entity's map and its sentence."""
        if not text.strip():
            return _failed("empty_text")
        if len(text) + len(context) > MOST_CHARACTERS:
            return _failed("long_text")
        try:
            found = explain(self.model, self.processor, text, images=picture or None, context=context or None)
        except PictureError as error:
            _logger.warning("%s", error)
            return _failed("broken_picture")
        except Exception:  # whatever it is, the page says so in words
            _logger.exception("the demo page could not find the entities of a text")
            return _failed("unexpected")
        # The model has seen the picture in full; to draw maps over it, a copy of the size shown will do.
        found = replace(found, pictures=[ImageOps.contain(one, _DRAWN_SIZE) for one in found.pictures])
        count = len(found.entities)
        status = "1 entity found." if count == 1 else f"{count or 'No'} entities found."
        if picture and self.processor.image_size is None:
            status += " This model reads the text alone; the picture was not looked at."
        pieces = pieces_of(found)
        labels: Any = [(piece.text, piece.entity and _label(piece.entity)) for piece in pieces]
        colours = {_label(entity): self.colours[entity["entity_group"]] for entity in found.entities}
        marked = gr.HighlightedText(labels, color_map=colours)
        first = next((piece for piece in pieces if piece.entity), pieces[0])
        return [found, status, marked, *_detail(found, first)]

    def choose(self, explanation: Explanation | None, event: gr.SelectData) -> list[Any]:
        """The map of the piece of the text that the event names, or None, and the sentence about it."""
        if explanation is None or event.index not in range(len(pieces := pieces_of(explanation))):
            return [None, SAID["forgotten"]]
        return _detail(explanation, pieces[event.index])


def _detail(explanation: Explanation, piece: Piece) -> list[Any]:
    """What the page shows of a piece: its map, or None, and the sentence about it."""
    if not piece.words:
        return [None, ""]
    drawn = None
    if explanation.cells is not None and piece.entity:
        cells = explanation.cells[explanation.entities.index(piece.entity), 0]
        drawn = draw_cells(explanation.pictures[0], cells)
    return [drawn, html.escape(encodable(sentence_about(explanation, piece)))]


def build_demo(
    model: MMNERForTokenClassification,
    processor: MMNERProcessor,
    *,
    name: str,
    examples: Sequence[Example] = (),
) -> gr.Blocks:
    """The page of a model.

    Args:
        model, processor: in evaluation mode, on its device.
        name: of the model, as the page shall call it.
        examples: posts to try, each with its `text`, `picture` and `context`.
    """
    page = DemoPage(model, processor)
    # Without analytics Gradio asks no server for anything; uploaded pictures are deleted after an hour.
    private: Any = {"analytics_enabled": False, "delete_cache": (600, _KEPT_SECONDS)}
    with gr.Blocks(title=f"{name}: entities of posts", **private) as demo:
        gr.Markdown(f"{SAID['about']} The model is **{markdown_text(name)}**.")
        with gr.Row():
            with gr.Column():
                text = gr.Textbox(label="Text", lines=1, max_lines=12, placeholder="The text of a post")
                upload: Any = {"type": "filepath", "sources": ["upload"], "buttons": [], "height": 200}
                picture = gr.Image(label="Picture (optional)", alt_text="The picture of the post", **upload)
                inputs: list[Any] = [text, picture]
                # Gradio would open the file before a handler sees it, and show its own error, with a path,
                # for a broken one.
                inputs[1].preprocess = lambda upload: upload and upload.path
                if processor.context_window is not None:
                    about = "What somebody wrote about the post or its picture"
                    inputs.append(gr.Textbox(label="Context (optional)", max_lines=6, placeholder=about))
                button = gr.Button("Find entities", variant="primary")
            with gr.Column():
                explanation = gr.State(time_to_live=_KEPT_SECONDS)
                status = gr.HTML(html_template=_LIVE, js_on_load=None)
                marked = gr.HighlightedText(label="Entities: choose one, or a word, to see where it looks")
                shown: Any = {"interactive": False, "buttons": [], "height": 300}
                drawn = gr.Image(label="Map", alt_text="The map over the picture", **shown)
                sentence = gr.HTML(html_template=_LIVE, js_on_load=None)
        outputs: list[Any] = [explanation, status, marked, drawn, sentence]
        hidden: Any = {"api_visibility": "private"}
        one_at_a_time: Any = {"concurrency_id": "model", "concurrency_limit": 1} | hidden
        gr.on([button.click, text.submit], page.find, inputs, outputs, **one_at_a_time)
        choosing = hidden | {"trigger_mode": "always_last", "show_progress": "hidden"}
        marked.select(page.choose, explanation, [drawn, sentence], **choosing)
        if examples:
            posts = [[example.text, example.picture, example.context][: len(inputs)] for example in examples]
            listed = gr.Examples(posts, inputs, visible_columns=[0, 1], **hidden)
            listed.load_input_event.then(page.find, inputs, outputs, **one_at_a_time)
    return demo.queue(max_size=MOST_WAITING)


def launch(demo: gr.Blocks, *, host: str | None = None, port: int | None = None, wait: bool = True) -> None:
    """Serve a page; without arguments as Gradio's environment variables say, which is what a Space sets.

    Args:
        wait: until it is stopped; False returns once it is there.

    Raises:
        OSError: the port is taken, or the host no address of this computer.
    """
    demo.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=not wait,
        # With fonts of the reader's system, none is fetched; white on the theme's own blue is hard to read.
        theme=gr.themes.Default(primary_hue="blue", font="system-ui", font_mono="ui-monospace").set(
            button_primary_background_fill="*primary_700", button_primary_background_fill_dark="*primary_700"
        ),
        css=_STYLE,
        max_file_size=MOST_PICTURE_BYTES,
        app_kwargs={"middleware": [Middleware(RequestLimits, kept_seconds=_KEPT_SECONDS)]},
        state_session_capacity=MOST_SESSIONS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
    )


def _failed(message: str) -> list[Any]:
    return [None, f"<strong>{SAID[message]}</strong>", [], None, ""]
