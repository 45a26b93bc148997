"""Marked posts: in a notebook, where they are printed, on a terminal; and what starts without timm."""

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image
from rich.console import Console

from modeling_mmner import load
from modeling_mmner.cli import main
from modeling_mmner.model.images_mmner import PictureError
from modeling_mmner.model.marking_mmner import MarkedPosts
from modeling_mmner.model.posts_mmner import PostError
from modeling_mmner.model.prediction_mmner import Prediction
from modeling_mmner.model.processing_mmner import Post
from tests.elsewhere import PACKAGES, run_elsewhere
from tests.saved import save_small

HOSTILE = '<img src=x onerror="alert(1)">\x1b[2J'
TEXT = "Jordan posts from Paris"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Saved models by what they read: ``pictures``, or ``text`` alone."""
    root = tmp_path_factory.mktemp("models")
    made = {"pictures": "quickstart", "text": "bert-crf"}
    return {name: str(save_small(root / name, recipe=recipe)) for name, recipe in made.items()}


def marked(text: str, *entities: tuple[int, int, str, float], **about) -> Prediction:
    found = [
        {"entity_group": kind, "score": score, "start": start, "end": end}
        for start, end, kind, score in entities
    ]
    return Prediction(post=Post(text, []), entities=found, **about)


class Page(HTMLParser):
    """The elements of a page, its text, and the values of its pictures' `src`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text, self.pictures = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.pictures += [value for name, value in attributes if name == "src"]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data) -> None:
        self.text += data


def test_a_printed_post_has_its_types_and_scores_of_two_digits() -> None:
    """If it failed, an entity would stand in another place, or a score say more than is known."""
    one = marked(
        "Jordan posts from Paris", (18, 23, "LOC", 0.9975492358207703), (0, 6, "PER", 0.8223887085914612)
    )
    both = MarkedPosts([one, marked("")], ["PER", "LOC"])
    assert str(both) == "Jordan [PER 0.82] posts from Paris [LOC >0.99]\n"


def test_rich_prints_a_post_in_colours() -> None:
    """If it failed, two types would look alike, or markup and emoji names of a text be obeyed."""
    post = MarkedPosts([marked("[red]a :cat: b", (5, 6, "PER", 0.5), (13, 14, "LOC", 0.5))], ["PER", "LOC"])
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=200)
    console.print(post)
    coloured = console.file.getvalue()
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == "[red]a [PER 0.50] :cat: b [LOC 0.50]\n"
    assert len(set(re.findall(r"\x1b\[([\d;]+)m", coloured)) - {"0"}) == 2


def test_what_others_wrote_is_escaped() -> None:
    """If it failed, a text, type or file name could run a script in a notebook or clear the screen."""
    post = marked(
        HOSTILE, (0, 4, HOSTILE, 0.5), broken_pictures=[HOSTILE], thumbnails=[Image.new("RGB", (4, 2))]
    )
    unread = Prediction(error=PostError(HOSTILE))
    both = MarkedPosts([post, unread], [HOSTILE])
    page = Page(both._repr_html_())
    assert page.tags.count("img") == 1 and set(page.tags) == {"div", "img", "mark", "span", "p", "small"}
    assert page.text.count(HOSTILE) == 3  # the type, the broken picture and the error; the text is in two
    assert "\x1b" not in str(both) and "\\x1b[2J" in str(both)


def test_show_has_each_post_with_its_pictures(folders) -> None:
    """If it failed, a picture would stand beside another post, or squeezed into the model's square."""
    ner = load(folders["pictures"])
    wide = Image.new("RGB", (640, 160), "red")
    posts = [{"text": TEXT, "images": [wide, wide]}, "nothing to see", {"text": TEXT, "image": wide}]
    pages = [ner.show(post)._repr_html_() for post in posts]
    scores = r'title="[\d.]+"'  # which padding changes in the last digit
    together = ner.show(posts, batch_size=2)._repr_html_()
    assert re.sub(scores, "", together) == re.sub(scores, "", "\n".join(pages))
    assert [len(Page(page).pictures) for page in pages] == [2, 0, 1]
    data = Page(pages[2]).pictures[0].removeprefix("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (320, 80)
    assert wide.size == (640, 160)


def test_show_takes_what_a_call_takes(folders) -> None:
    """If it failed, `show` would mark other entities than a call finds, or hide a broken post."""
    ner = load(folders["text"])
    (entities,) = ner([TEXT.split()])
    assert entities and str(ner.show([TEXT.split()])) == str(ner.show(TEXT)) == str(ner.show([TEXT]))
    assert str(ner.show(TEXT.split(), is_split_into_words=True)) == str(ner.show(TEXT))
    assert str(ner.show(TEXT, threshold=1.0)) == TEXT
    with pytest.raises(PostError, match="post 2: expected either 'text' or 'tokens', found neither"):
        ner.show([TEXT, {}])
    lines = str(ner.show([{}, TEXT], broken_posts="return")).split("\n")
    assert lines[0].startswith("post 1: expected either") and lines[1:] == [str(ner.show(TEXT))]
    with pytest.raises(PictureError, match="expected a file, found none"):
        load(folders["pictures"]).show(TEXT, "nowhere.png")


def test_predict_marks_on_a_terminal_and_writes_json_elsewhere(folders, monkeypatch, capsys) -> None:
    """Regression: a terminal was shown raw JSON with 16 digits; a pipe must have it still, whole."""
    command = ["predict", TEXT, "--model", folders["text"], "--device", "cpu", "--dtype", "float32"]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    ner = load(folders["text"], device="cpu")
    assert record == {"id": None, "text": TEXT, "entities": ner(TEXT)} and len(ner(TEXT)) > 0
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(command) == 0
    assert re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out) == f"{ner.show(TEXT)}\n"


def test_predict_says_that_a_file_is_no_text(tmp_path, capsys) -> None:
    """If it failed, the name of a file would be read as a post."""
    path = tmp_path / "posts.jsonl"
    path.write_text("{}")
    assert main(["predict", str(path), "--model", "none"]) == 2
    said = f"predict: expected a text, found the file {path}; --input {path} reads its posts\n"
    assert capsys.readouterr().err == said


STARTED = """
import sys
sys.argv = ["mmner", "predict", "--device", "cpu", "--model", sys.argv[1], "Jordan posts"]
from modeling_mmner.cli import main
assert main() == 0
assert "torch" in sys.modules
print(sorted({"timm", "datasets", "pandas", "pyarrow", "matplotlib"} & sys.modules.keys()))
"""
REMOTE = """
import sys
from transformers import pipeline
ner = pipeline("multimodal-ner", model=sys.argv[1], trust_remote_code=True, device="cpu")
shown = ner.show([sys.argv[2], sys.argv[2]])
print(shown)
print(sorted({"datasets", "pandas"} & sys.modules.keys()))
print(shown._repr_html_())
"""


@pytest.mark.slow
def test_a_model_of_text_alone_starts_without_timm(folders, tmp_path) -> None:
    """Regression: `predict` of one text loaded timm, which takes part of a second, for any model."""
    done = run_elsewhere(
        STARTED, folders["text"], folder=tmp_path, blocked=("timm",), PYTHONPATH=":".join(sys.path)
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_show_travels_with_a_model(folders, tmp_path) -> None:
    """If it failed, a model from the Hub could not show its entities without this package, timm and rich."""
    done = run_elsewhere(REMOTE, folders["text"], TEXT, folder=tmp_path, blocked=(*PACKAGES, "timm", "rich"))
    here = load(folders["text"], device="cpu").show([TEXT, TEXT])
    assert done.stdout == f"{here}\n[]\n{here._repr_html_()}\n"
