"""The demo page: its layout, and what its events show of the answers of `demo_answers`.

What a visitor or a model's card says is escaped where it meets HTML or Markdown, and is plain text elsewhere.
"""

import html
import itertools
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import gradio as gr
import numpy as np
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse
from huggingface_hub.constants import ENDPOINT
from PIL import ImageOps
from starlette.middleware import Middleware

from ..escaping import markdown_text
from ..hub.examples import Example
from ..model.labels_mmner import entity_types
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.processing_mmner import MMNERProcessor
from .demo_answers import DRAWN_SIZE, NOTHING, SAID, Answer, Answers, label_only, mistake
from .demo_limits import MOST_PICTURE_BYTES, RequestLimits
from .explain import draw_cells
from .picture_reader import RapidOCRReader

MOST_WAITING = 50
"""Visitors that wait for an answer; more are told to come again."""
MOST_SESSIONS = 200
"""Visitors whose results are kept, for an hour at most."""

_KEPT_SECONDS = 3600
# Dark enough for white labels; the usual four types have the first four.
_COLOURS = ("#1d4ed8", "#15803d", "#b45309", "#7e22ce", "#be123c", "#0f766e", "#a21caf")
# `${value}`, never `{{value}}`: Gradio makes a program of what the latter fills in, and a text would run.
_LIVE = '<div role="status" aria-live="polite">${value}</div>'
_MONOSPACE = ("ui-monospace", "monospace")
# A paragraph is in the direction of its own language; Gradio's black on a dark page's marks is hard to read.
_STYLE = """
textarea, td { unicode-bidi: plaintext; text-align: start; }
.cell-wrap * { font-family: var(--font) !important; }
.textfield { max-height: 24em; overflow-y: auto; }
.textfield .label { text-transform: none !important; white-space: normal; }
.dark .token.highlighted { color: white !important; }
"""


class DemoPage:
    """What the page does: the handlers of its events, for a model in evaluation mode, on its device."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        types = entity_types(answers.processor.labels)
        self.names = {one: SAID["types"].get(one, one) for one in types}

    def find(
        self, text: str, pictures: Any, others: Any, context: str, inside: bool, threshold: float
    ) -> Iterator[list[Any]]:
        """What `show` shows, again and again while the parts of a text are read.

        Args:
            pictures, others: those of the post, and in their place, as galleries give them.
        """
        own, beside = ([path for path, _ in given or []] for given in (pictures, others))
        try:
            for answer in self.answers.compared(text, own, beside, context or "", inside=inside):
                yield self.show(answer, threshold)
        except gr.Error as error:
            yield [None, f"<strong>{error.message}</strong>", *self.show(NOTHING, 0)[2:]]

    def show(self, answer: Answer | None, threshold: float) -> Any:
        """The answer to keep, the status, the three marked texts, the entities as a table and in JSON, and
        the pictures and the sentence of the first.
        """
        if answer is None:
            return gr.skip()
        found = answer.above(threshold)
        count, hidden = len(found.entities), len(answer.entities) - len(found.entities)
        said = ["1 entity found." if count == 1 else f"{count or 'No'} entities found."]
        said += [f"{hidden} with a lower score are hidden."] if hidden else []
        said += [f"{answer.done:.0%} of the text is read."] if answer.done < 1 else []
        cards = [gr.update(**card) for card in _cards(found)]
        inside = found.readings.get("inside", [])
        said += [f"{len(inside)} in the text of the pictures."] if "inside" in found.readings else []
        record = [*found.entities, *inside]
        rows = [self._row(entity) for entity in record]
        return [answer, " ".join(said), *cards, rows, record, *self._detail(found, 0)]

    def choose(self, answer: Answer | None, threshold: float, event: gr.SelectData) -> Any:
        """The pictures and the sentence of the piece of the text as it is that the event names."""
        found, index = answer and answer.above(threshold), event.index
        if not found or not isinstance(index, int) or not 0 <= index <= 2 * len(found.entities):
            return [None, SAID["forgotten"]]
        return self._detail(found, index // 2) if index % 2 else gr.skip()

    def _row(self, entity: dict[str, Any]) -> list[str]:
        """An entity in words: itself, its type, its score and what the pictures did for that."""
        effect = entity.get("picture_effect")
        did = "\u2013" if effect is None else f"{effect:+.2f}"
        did = f"picture {entity['image'] + 1}" if "image" in entity else did
        return [entity["word"], self.names[entity["entity_group"]], f"{entity['score']:.2f}", did]

    def _detail(self, found: Answer, number: int) -> list[Any]:
        """The pictures, with the cells of an entity where they were tried, and a sentence about it."""
        drawn, sentence = found.pictures if len(found.readings) > 1 else [], ""
        if found.entities:
            word, name, score, effect = self._row(found.entities[number])
            tried = "no_cells" if found.cells is None else "cells"
            did = SAID[tried if "without" in found.readings else "no_picture"].format(effect=effect)
            sentence = f"\u201c{word}\u201d: {name}, score {score}. {did}"
        if found.entities and found.cells is not None:
            drawn = [draw_cells(*one) for one in zip(drawn, found.cells[number], strict=True)]
        squares = [np.asarray(ImageOps.pad(one, DRAWN_SIZE, color="white")) for one in drawn]
        return [(np.hstack(squares), _boxes(found)) if squares else None, html.escape(sentence)]


def _cards(found: Answer) -> Iterator[dict[str, Any]]:
    """The three marked texts, and how they look."""
    for name, label in SAID["cards"].items():
        own = label if "without" in found.readings else SAID["card_alone"]
        look = {"label": own, "visible": name in found.readings, "rtl": found.is_right_to_left}
        yield {"value": found.marked(name)} | look


def _boxes(found: Answer) -> list[tuple[tuple[int, ...], str]]:
    """Where the entities inside the pictures stand, when these are squares side by side."""
    boxes = []
    for one in found.readings.get("inside", []):
        picture, scale, side = found.pictures[one["image"]], found.scales[one["image"]], DRAWN_SIZE[0]
        left, top = side * one["image"] + (side - picture.width) // 2, (side - picture.height) // 2
        edges = zip(one["box"].values(), (left, top, left, top), strict=True)
        boxes.append((tuple(round(scale * edge + offset) for edge, offset in edges), one["entity_group"]))
    return boxes


class _Page(gr.Blocks):
    """Blocks that take files by upload alone: Gradio would fetch an address given in place of a file."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> Any:
        def refused(file: dict[str, Any]) -> None:
            raise mistake("upload_only")

        traverse(inputs, refused, lambda one: is_file_obj_with_meta(one) and is_http_url_like(one["path"]))
        return await super().preprocess_data(block_fn, inputs, *rest, **named)


def build_demo(
    model: MMNERForTokenClassification,
    processor: MMNERProcessor,
    *,
    name: str,
    examples: Sequence[Example] = (),
    hub_id: str | None = None,
) -> gr.Blocks:
    """The page of a model.

    Args:
        model, processor: in evaluation mode, on its device.
        name: of the model, as the page shall call it.
        examples: posts to try, the first of which is answered when the page opens.
        hub_id: where the Hub has the model, to which the page then links.
    """
    reader = RapidOCRReader() if find_spec("rapidocr") else None
    page, first, answer = DemoPage(Answers(model, processor, examples, reader)), Example(""), NOTHING
    if examples:
        first = examples[0]
        *_, answer = page.answers.compared(first.text, first.pictures, [], first.context)
    # Without analytics Gradio asks no server for anything; uploaded pictures are deleted after an hour.
    private: Any = {"analytics_enabled": False, "delete_cache": (600, _KEPT_SECONDS)}
    with _Page(title=f"{name}: entities of posts", **private) as demo:
        links = f" ([card]({ENDPOINT}/{hub_id}), [code]({ENDPOINT}/{hub_id}/tree/main))" if hub_id else ""
        gr.Markdown(f"{SAID['about']} The model is **{markdown_text(name)}**{links}.")
        *inputs, button = _inputs(first, page.answers)
        *post, _, threshold = inputs
        kept = gr.State(answer, time_to_live=_KEPT_SECONDS)
        outputs = [kept, *_results(page, answer)]
        hidden: Any = {"api_visibility": "private"}
        one_at_a_time: Any = {"concurrency_id": "model", "concurrency_limit": 1}
        finding: Any = hidden | one_at_a_time | {"show_progress_on": [outputs[1]]}
        gr.on([button.click, post[0].submit], page.find, inputs, outputs, **finding)
        quick: Any = hidden | {"trigger_mode": "always_last", "show_progress": "hidden"}
        threshold.change(page.show, [kept, threshold], outputs, **quick)
        outputs[2].select(page.choose, [kept, threshold], outputs[-2:], **quick)
        gr.api(page.answers.find_entities, **one_at_a_time)
        if examples:
            posts: Any = [[one.text, one.pictures, None, one.context] for one in examples]
            listed = gr.Examples(posts, post, examples_per_page=4, visible_columns=[0, 1], **hidden)
            listed.load_input_event.then(page.find, inputs, outputs, **finding)
        gr.Markdown(SAID["foot"])
    return demo.queue(max_size=MOST_WAITING)


def _inputs(first: Example, answers: Answers) -> list[Any]:
    """What a visitor gives, at first an example: see `DemoPage.find`; and the button."""
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            hint = "The text of a post; Shift+Enter finds its entities"
            text = gr.Textbox(first.text, label="Text", lines=4, max_lines=12, placeholder=hint)
            about = "What somebody wrote about the post or its picture"
            optional: Any = {"placeholder": about, "visible": answers.processor.context_window is not None}
            context = gr.Textbox(first.context, label="Context (optional)", max_lines=6, **optional)
            threshold = gr.Slider(0, 1, 0, step=0.05, label="Hide entities with a lower score")
            button = gr.Button("Find entities", variant="primary")
        upload: Any = {"sources": ["upload"], "file_types": ["image"], "format": "png", "interactive": True}
        upload |= {"columns": 2, "fit_columns": False, "height": 230, "object_fit": "contain", "buttons": []}
        with gr.Column(scale=2, min_width=250):
            pictures = gr.Gallery(first.pictures or None, label="Pictures (optional)", **upload)
        with gr.Column(scale=2, min_width=250):
            others = gr.Gallery(label="Other pictures, to compare with", **upload)
            has_reader = answers.picture_reader is not None
            inside = gr.Checkbox(label="Read the text in the pictures", visible=has_reader)
    return [text, pictures, others, context, inside, threshold, button]


def _results(page: DemoPage, answer: Answer) -> list[Any]:
    """What the page answers with, at first this: see `DemoPage.show`."""
    _, said, *_, rows, entities, picture, about = page.show(answer, 0)
    live: Any = {"html_template": _LIVE, "js_on_load": None, "padding": False}
    status = gr.HTML(said if answer.text else "", **live)
    colours: dict[str, str] = {}
    for one, colour in zip(page.names, itertools.cycle(_COLOURS), strict=False):
        colours |= dict.fromkeys([one, *(label_only(one, name) for name in SAID["cards"])], colour)
    look: Any = {"color_map": colours, "min_width": 280}
    legend: Any = [(name, one) for one, name in page.names.items()]
    gr.HighlightedText(legend, show_label=False, container=False, **look)
    with gr.Row():
        cards = [gr.HighlightedText(**look | card) for card in _cards(answer)]
    with gr.Row():
        with gr.Column(min_width=300):
            with gr.Tab("Table"):
                wide: Any = {"column_widths": ["28%", "27%", "22%", "23%"], "wrap": True, "buttons": []}
                headers = ["Entity", "Type", "Score", "Effect"]
                table = gr.Dataframe(rows, headers=headers, interactive=False, **wide)
            with gr.Tab("JSON"):
                record = gr.JSON(entities, label="Entities", buttons=["copy"])
        with gr.Column(min_width=300):
            sentence = gr.HTML(about, **live)
            shown: Any = {"color_map": colours, "height": 420, "show_legend": False}
            drawn = gr.AnnotatedImage(picture, label="What the picture did", **shown)
    return [status, *cards, table, record, drawn, sentence]


def launch(
    demo: gr.Blocks, *, host: str | None = None, port: int | None = None, wait: bool = True, mcp: bool = False
) -> None:
    """Serve a page; without arguments as Gradio's environment variables say, which is what a Space sets.

    Args:
        wait: until it is stopped; False returns once it is there.
        mcp: whether its function is a tool for agents, too, by the Model Context Protocol.

    Raises:
        OSError: the port is taken, or the host no address of this computer.
        ModuleNotFoundError: the package mcp is not there.
    """
    if mcp:  # without the version that it knows Gradio would serve the page alone
        import_module("mcp.server.fastmcp")
    demo.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=not wait,
        mcp_server=mcp,
        # With fonts of the reader's system, none is fetched; white on the theme's own blue is hard to read.
        theme=gr.themes.Default(primary_hue="blue", font="system-ui", font_mono=_MONOSPACE).set(
            button_primary_background_fill="*primary_700", button_primary_background_fill_dark="*primary_700"
        ),
        css=_STYLE,
        max_file_size=MOST_PICTURE_BYTES,
        app_kwargs={"middleware": [Middleware(RequestLimits, kept_seconds=_KEPT_SECONDS)]},
        state_session_capacity=MOST_SESSIONS,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
    )
