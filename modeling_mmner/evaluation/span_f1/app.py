"""The page of the metric's Space: the tags of two sides in, their scores out.

evaluate's own `launch_gradio_widget` needs a Gradio of before version 4.
"""

from pathlib import Path
from typing import Any

import evaluate
import gradio as gr

_FOLDER = Path(__file__).parent
_EXAMPLES = [
    ["B-PER I-PER O B-LOC\nO O B-ORG", "B-PER I-PER O B-PER\nO O B-ORG", "lenient"],
    ["B-PER I-PER O", "I-PER I-PER O", "strict"],
]

metric = evaluate.load(str(_FOLDER / "span_f1.py"), keep_in_memory=True)


def score(references: str, predictions: str, mode: str) -> dict[str, Any]:
    """The scores of predicted tags, see the metric's `compute`.

    Args:
        references, predictions: a post a line, its BIO tags with spaces between them.
        mode: ``lenient`` or ``strict``.

    Raises:
        gradio.Error: the two are not of the same posts, or a tag is not BIO; the page shows its text.
    """
    gold, found = ([line.split() for line in text.strip().splitlines()] for text in (references, predictions))
    if not gold:
        raise gr.Error("gold tags: expected a post or more, found none; write a line of tags for each")
    try:
        return metric.compute(references=gold, predictions=found, mode=mode)
    except ValueError as error:
        raise gr.Error(str(error)) from error


def build_page() -> gr.Interface:
    """The page, not yet served."""
    readme = (_FOLDER / "README.md").read_text(encoding="utf-8")
    return gr.Interface(
        score,
        inputs=[
            gr.Textbox(label="Gold tags, a post a line", lines=4),
            gr.Textbox(label="Predicted tags, a post a line", lines=4),
            gr.Radio(["lenient", "strict"], value="lenient", label="Mode"),
        ],
        outputs=gr.JSON(label="Scores"),
        examples=_EXAMPLES,
        title="Span F1",
        description=metric.description,
        article=readme.split("---\n", 2)[2],
        flagging_mode="never",
        analytics_enabled=False,
    )


if __name__ == "__main__":
    build_page().launch()
