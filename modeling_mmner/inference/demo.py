"""The demo page: a text and a picture in, the text with its entities marked out, and where in the picture
each word looks.

Needs the extra `demo`. `build_demo` makes the page, `launch` serves it; what the page shows is made by
functions of an `Explanation` alone, which know nothing of the page.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageOps

from dataset_scripts.marks import DARK_COLOURS, STYLE, Mark, data_uri, escaped, marked_words

from ..model.images_mmner import PictureError
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.processing_mmner import MMNERProcessor
from .explain import Explanation, draw_map, explain

EMPTY_TEXT = "There is no text yet. Write or paste one in the box, then press \u201cFind entities\u201d."
BROKEN_PICTURE = (
    "This picture cannot be read: the file is broken or of an unknown kind. Choose a JPEG or PNG file, or"
    " take it out."
)
LONG_TEXT = (
    "This text is too long for the page. Take a part of it, or use the command line, which takes texts of any"
    " length."
)
LARGE_PICTURE = "This picture has too many pixels. Choose a smaller one, or take it out."
UNEXPECTED = (
    "Something went wrong with this post, which is our fault, not yours. It has been logged; please try"
    " another text."
)
FORGOTTEN = "This result is no longer kept. Press \u201cFind entities\u201d again."

MAX_FILE_SIZE = "20mb"
"""Of an uploaded picture; larger ones are refused before they are sent."""

MOST_CHARACTERS = 20_000
"""Of a text with its context: some 4,000 words, which take seconds. Others wait for as long."""
MOST_WAITING = 50
"""Visitors that wait for an answer; more are told to come again."""

_DRAWN_SIDE = 512
_MOST_SESSIONS = 500  # whose results are kept
_KEPT_SECONDS = 3600
_NAMED = 10
_logger = logging.getLogger(__name__)


# What the page shows


def marked_text(explanation: Explanation, *, chosen: int | None = None) -> str:
    """The text as HTML: entities marked with their type and score, each word a button with its number in
    `data-index`.

    Everything of the text is escaped, and what cannot be encoded (half an emoji) stands as U+FFFD.

    Args:
        chosen: number of the word that is chosen.
    """
    words, text = explanation.words, explanation.text
    starts = {word.start: number for number, word in enumerate(words)}
    ends = {word.end: number + 1 for number, word in enumerate(words)}
    marks = [
        Mark(starts[entity["start"]], ends[entity["end"]], entity["entity_group"], _type_and_score(entity))
        for entity in explanation.entities
    ]
    edges = [0, *(edge for word in words for edge in (word.start, word.end)), len(text)]
    gaps = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]

    def button(number: int, word: str) -> str:
        pressed = "true" if number == chosen else "false"
        return (
            f'<span role="button" tabindex="0" data-index="{number}" aria-pressed="{pressed}">{word}</span>'
        )

    marked = marked_words([word.text for word in words], marks, gaps=gaps, wrap=button)
    # The language of a user's text is not known, which an empty `lang` says.
    return f'<p class="text" dir="auto" lang="">{marked}</p>'


def summary(explanation: Explanation) -> str:
    """The result as one sentence of HTML, which names the first entities."""
    entities = explanation.entities
    if not entities:
        return "No entity found in this text."
    named = [
        f"{escaped(entity['word'])} ({escaped(_type_and_score(entity))})" for entity in entities[:_NAMED]
    ]
    more = [f"and {len(entities) - _NAMED} more"] if len(entities) > _NAMED else []
    return (
        f"{len(entities)} {'entity' if len(entities) == 1 else 'entities'} found: {', '.join(named + more)}."
    )


def word_detail(explanation: Explanation, number: int, *, reads_pictures: bool = True) -> str:
    """What is known of one word as HTML: its heat map over the picture, where there is one, and
    `word_sentence`.
    """
    sentence = escaped(word_sentence(explanation, number, reads_pictures=reads_pictures))
    if explanation.maps is None or not explanation.pictures:
        return f"<p>{sentence}</p>"
    drawn = draw_map(explanation.pictures[0], explanation.maps[number, 0])
    alt = f"Heat map over the picture for the word {escaped(explanation.words[number].text)}"
    return f'<figure><img src="{data_uri(drawn)}" alt="{alt}"><figcaption>{sentence}</figcaption></figure>'


def word_sentence(explanation: Explanation, number: int, *, reads_pictures: bool = True) -> str:
    """In plain words: the word, its entity, where in the picture it looks, and how much of the picture its
    gate lets through.

    Args:
        reads_pictures: whether the model is one that does.
    """
    word = explanation.words[number]
    entity = next(
        (one for one in explanation.entities if one["start"] <= word.start and word.end <= one["end"]), None
    )
    if entity is None:
        sentences = [f"\u201c{word.text}\u201d belongs to no entity."]
    elif entity["word"] == word.text:
        sentences = [f"\u201c{word.text}\u201d is an entity: {_type_and_score(entity)}."]
    else:
        sentences = [
            f"\u201c{word.text}\u201d is part of the entity \u201c{entity['word']}\u201d:"
            f" {_type_and_score(entity)}."
        ]
    if not reads_pictures:
        sentences.append("This model reads the text alone, so no word looks at a picture.")
    elif not explanation.pictures:
        sentences.append("This post has no picture to look at.")
    elif explanation.maps is None:
        sentences.append("This model reads the picture as a whole, so there is no map of where a word looks.")
    else:
        where = place(explanation.maps[number, 0])
        sentences.append(f"The brighter a place, the more this word looks at it; here it looks {where}.")
    if explanation.pictures and explanation.gate is not None:
        sentences.append(f"The gate lets {explanation.gate[number]:.0%} of the picture through for it.")
    return " ".join(sentences)


def place(weights: np.ndarray) -> str:
    """In words, where in the picture the most of `weights` (h, w), at least 0, lies."""
    total = weights.sum()
    if total <= 0 or weights.max() * weights.size < 1.5 * total:
        return "at all places about equally"
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    down = ("upper", "middle", "lower")[int(3 * (row + 0.5) / weights.shape[0])]
    across = ("left", "middle", "right")[int(3 * (column + 0.5) / weights.shape[1])]
    where = "the middle" if down == across else f"the {down} {across}"
    return f"most at {where}"


def _type_and_score(entity: dict[str, Any]) -> str:
    return f"{entity['entity_group']} {entity['score']:.2f}"


# The page


# `${value}`, never `{{value}}`: Gradio makes a program of what the latter fills in, and a visitor's text
# would run.
_STATUS = '<div role="status" aria-live="polite">${value}</div>'
_WORDS = (
    '<div role="group" aria-label="The text word by word; choose a word to see where in the picture it'
    ' looks">${value}</div>'
)
_ABOUT = "What somebody wrote about the post or its picture"
_NOTHING_YET = "<p>The text will stand here with its entities marked.</p>"
_CHOOSE = """
const choose = (event, selector) => {
    const chosen = event.target.closest(selector);
    if (!chosen) return;
    event.preventDefault();
    trigger('select', {index: Number(chosen.dataset.index), value: chosen.textContent});
};
element.addEventListener('click', event => choose(event, '[data-index]'));
element.addEventListener('keydown', event => {
    if (event.key === 'Enter' || event.key === ' ') choose(event, '[role=button][data-index]');
});
"""
# On a narrow screen the examples are far below the result.
_SHOW_TEXT = "() => document.querySelector('.text')?.scrollIntoView({block: 'nearest'})"
_STYLE = (
    f"{STYLE}.dark .mmner {{ {DARK_COLOURS} }}\n"
    + """
:focus-visible { outline: 3px solid #1d4ed8 !important; outline-offset: 2px; }
.dark :focus-visible { outline-color: #93c5fd !important; }
.mmner p, .mmner figcaption { margin: 0.5rem 0; }
.mmner .error { border-left: 4px solid #c62828; padding-left: 0.75rem; font-weight: 600; }
.dark .mmner .error { border-left-color: #ff8a80; }
.mmner .text { font-size: 1.25rem; line-height: 2.2; max-height: 24rem; padding: 0 5px; scroll-margin: 8rem; }
.mmner .text [role=button] { cursor: pointer; border-radius: 4px; padding: 2px 1px; text-decoration: underline dotted 1px;
    text-underline-offset: 5px; }
.mmner .text [role=button]:hover { text-decoration-style: solid; }
.mmner .text [aria-pressed=true] { outline: 2px solid currentColor; outline-offset: 1px; text-decoration: none; }
.mmner figure { margin: 0; }
.mmner figure img { width: 100%; max-width: 20rem; border-radius: 8px; }
.mmner ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 0.5rem; margin: 0; padding: 0;
    list-style: none; }
.mmner ul button { display: flex; width: 100%; align-items: center; gap: 0.6rem; padding: 4px 10px 4px 4px; text-align: left;
    cursor: pointer; color: inherit; background: none; border: 1px solid currentColor; border-radius: 8px; }
.mmner ul button:hover { text-decoration: underline; }
.mmner ul img { width: 56px; height: 56px; border-radius: 5px; }
"""
)


class DemoPage:
    """What the page does: the handlers of its events.

    Args:
        model: in evaluation mode, on its device.
        processor: its processor.
        examples: see `build_demo`.
    """

    def __init__(
        self, model: MMNERForTokenClassification, processor: MMNERProcessor, examples: Sequence[Any] = ()
    ) -> None:
        self.model = model
        self.processor = processor
        self.reads_pictures = processor.image_size is not None
        self.examples = examples

    def find(
        self, text: str, picture: str | None, context: str = ""
    ) -> tuple[Explanation | None, str, str, str]:
        """The explanation to keep for the session, and the HTML of status, text and detail."""
        if not text.strip():
            return _failed(EMPTY_TEXT)
        if len(text) + len(context) > MOST_CHARACTERS:
            return _failed(LONG_TEXT)
        try:
            explanation = explain(
                self.model, self.processor, text, images=picture or None, context=context or None
            )
            # The model has seen the picture in full; to draw maps over it, a copy of the size shown will do.
            side = (_DRAWN_SIDE, _DRAWN_SIDE)
            explanation = replace(
                explanation, pictures=[ImageOps.contain(one, side) for one in explanation.pictures]
            )
            hint = "" if explanation.maps is None else "Choose a word to see where in the picture it looks."
            if picture and not self.reads_pictures:
                hint = "This model reads the text alone; the picture was not looked at."
            return explanation, f"<p>{summary(explanation)} {hint}</p>", marked_text(explanation), ""
        except PictureError as error:
            _logger.warning("%s", error)
            return _failed(LARGE_PICTURE if _is_too_large(error) else BROKEN_PICTURE)
        except Exception:  # whatever it is, the page says so in words
            _logger.exception("the demo page could not find the entities of a text")
            return _failed(UNEXPECTED)

    def choose(self, explanation: Explanation | None, event: gr.SelectData) -> tuple[Any, str]:
        """The HTML of the text, with the word chosen that the event names, and of the word's detail."""
        number = event.index
        if explanation is None or not isinstance(number, int) or not 0 <= number < len(explanation.words):
            return gr.skip(), _error(FORGOTTEN)
        try:
            detail = word_detail(explanation, number, reads_pictures=self.reads_pictures)
            return marked_text(explanation, chosen=number), detail
        except Exception:  # as above
            _logger.exception("the demo page could not draw the map of a word")
            return gr.skip(), _error(UNEXPECTED)

    def show_example(self, event: gr.SelectData) -> tuple[Any, ...]:
        """The text and the picture of the example that the event names, and, where the page asks for one, no
        context.
        """
        example = self.examples[int(event.index) % len(self.examples)]
        return (example.text, example.picture, *([""] if self.processor.context_window is not None else []))


def build_demo(
    model: MMNERForTokenClassification, processor: MMNERProcessor, *, name: str, examples: Sequence[Any] = ()
) -> gr.Blocks:
    """The page of a model.

    Args:
        model: in evaluation mode, on its device.
        processor: its processor.
        name: of the model, as the page shall call it.
        examples: posts to try, each with its `language` (a code), `text`, `picture`, and `alt`, which says
            what is drawn.
    """
    page = DemoPage(model, processor, examples)
    # Without analytics Gradio asks no server for anything; uploaded pictures are deleted after an hour.
    with gr.Blocks(
        title=f"{name}: entities of posts", analytics_enabled=False, delete_cache=(600, _KEPT_SECONDS)
    ) as demo:
        gr.HTML(_introduction(name), elem_classes="mmner")
        with gr.Row():
            with gr.Column():
                text = gr.Textbox(label="Text", lines=1, max_lines=12, placeholder="Look at this: Jordan!")
                picture = gr.Image(
                    label="Picture (optional)",
                    type="filepath",
                    format="png",
                    sources=["upload"],
                    buttons=[],
                    height=200,
                    alt_text="The picture of the post",
                )
                # Gradio would open the file before a handler sees it, and show its own error, with a path,
                # for a broken one.
                picture.preprocess = _file_of  # type: ignore[method-assign]
                inputs: list[Any] = [text, picture]
                if processor.context_window is not None:
                    inputs.append(
                        gr.Textbox(label="Context (optional)", lines=1, max_lines=6, placeholder=_ABOUT)
                    )
                button = gr.Button("Find entities", variant="primary")
            with gr.Column():
                explanation = gr.State(time_to_live=_KEPT_SECONDS)
                status = gr.HTML(_NOTHING_YET, html_template=_STATUS, js_on_load=None, elem_classes="mmner")
                words = gr.HTML("", html_template=_WORDS, js_on_load=_CHOOSE, elem_classes="mmner")
                detail = gr.HTML("", html_template=_STATUS, js_on_load=None, elem_classes="mmner")
        chooser = gr.HTML(_example_list(page.examples), js_on_load=_CHOOSE, elem_classes="mmner")

        finding: dict[str, Any] = {
            "fn": page.find,
            "inputs": inputs,
            "outputs": [explanation, status, words, detail],
            "concurrency_id": "model",
            "concurrency_limit": 1,
            "api_visibility": "private",
        }
        gr.on([button.click, text.submit], **finding)
        shown = chooser.select(
            page.show_example, None, inputs, api_visibility="private", show_progress="hidden"
        )
        shown.then(**finding).then(None, js=_SHOW_TEXT, api_visibility="private")
        words.select(
            page.choose,
            explanation,
            [words, detail],
            trigger_mode="always_last",
            api_visibility="private",
            show_progress="hidden",
        )
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
        theme=_theme(),
        css=_STYLE,
        max_file_size=MAX_FILE_SIZE,
        state_session_capacity=_MOST_SESSIONS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
    )


def _theme() -> gr.themes.Base:
    """Gradio's own with fonts of the reader's system, so that none is fetched, and colours dark enough to
    read text on.
    """
    return gr.themes.Default(primary_hue="blue", font="system-ui", font_mono="ui-monospace").set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        input_border_color_focus="*primary_700",
        input_border_color_focus_dark="*primary_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


def _is_too_large(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, is that a picture has too many pixels."""
    return error is not None and (
        isinstance(error, Image.DecompressionBombError) or _is_too_large(error.__cause__)
    )


def _failed(message: str) -> tuple[None, str, str, str]:
    """What `DemoPage.find` gives in place of a result."""
    return None, _error(message), "", ""


def _error(message: str) -> str:
    return f'<p class="error">{message}</p>'


def _file_of(payload: Any) -> str | None:
    """The uploaded file of a picture component, or None."""
    return payload.path if payload is not None else None


def _introduction(name: str) -> str:
    return (
        "<h1>Named entities of posts with pictures</h1><p>Marks the people, places, organisations and other"
        " named things in a text, and reads its picture to tell what a name stands for. The model is"
        f" <strong>{escaped(name)}</strong>. What it finds are suggestions, each with a score between 0 and"
        " 1: they can be wrong, and the map of where a word looks need not show what decided. Not for"
        " surveillance, and not for finding out who somebody in a picture is.</p>"
    )


def _example_list(shown: Sequence[Any]) -> str:
    items = [
        f'<li><button type="button" data-index="{number}"><img src="{data_uri(example.picture)}"'
        f' alt="{escaped(example.alt)}"><span'
        f' lang="{escaped(example.language)}">{escaped(example.text)}</span></button></li>'
        for number, example in enumerate(shown)
    ]
    return (
        "<h2>Examples</h2><p>Each text comes with two generated pictures, which give its name another"
        f" meaning.</p><ul>{''.join(items)}</ul>"
    )
