"""The posts that a model's card, widget, page and Space show to everybody, and no others.

They are the generated ones of a generated corpus, or those of a file that whoever trains, pushes or shows the
model names (``--card_examples``), since posts and pictures belong to their authors. Their home is the model's
folder: metrics.json has the texts and what the model finds, and the pictures lie beside it.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import snapshot_download
from PIL import Image

from dataset_scripts.corpora import BUILDERS
from dataset_scripts.findings import Finding
from dataset_scripts.formats.pictures import PictureFiles
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.reading_options import ReadingOptions
from dataset_scripts.sample.examples import examples as sample_examples

from ..evaluation.metrics import CardExample, RunMetrics
from ..files import read_json_lines
from ..model.images_mmner import load_picture, pictures_of
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.posts_mmner import PostError, as_row, check_key, checked_post, context_of, within
from ..model.prediction_mmner import BatchPredictor, PostReader
from ..model.processing_mmner import MMNERProcessor
from ..training.recipes import Recipe
from ..training.run_folder import METRICS

PICTURES = "example_*.jpg"
"""The files of a model's folder that are pictures of examples."""
MOST_EXAMPLES = 20
_LARGEST = (1024, 1024)


@dataclass
class Example:
    """A post that may be published."""

    text: str
    pictures: list[Image.Image] = field(default_factory=list)
    context: str = ""
    title: str = ""


def examples_of(recipe: Recipe) -> list[Example]:
    """The posts for the card of a run: those that its user names, or of a generated corpus generated ones.

    Raises:
        CorpusError: as `read_examples`.
    """
    corpus = recipe.corpus
    if recipe.training.card_examples is not None:
        return read_examples(recipe.training.card_examples, corpus.image_dir)
    if corpus.dataset not in BUILDERS or not BUILDERS[corpus.dataset].IS_GENERATED:
        return []
    found = [one for one in sample_examples() if one.language in (corpus.languages or [one.language])]
    return [Example(one.text, [one.picture], title=f"generated post ({one.language})") for one in found]


def read_examples(file: str | Path, image_dir: str | None = None) -> list[Example]:
    """Posts that may be published, from JSON lines as `predict` reads them.

    Args:
        image_dir: where their pictures lie, or else beside the file.

    Raises:
        CorpusError: the file, a post or a picture cannot be read, or the posts are none or too many.
    """
    found, files = [], PictureFiles(Path(file).parent, ReadingOptions(image_dir=image_dir))
    place = f"--card_examples {file}"
    try:
        with Path(file).open("rb") as source:
            for number, post in enumerate(read_json_lines(source, str(file)), start=1):
                if isinstance(post, PostError):
                    raise post
                row = checked_post(as_row(post, number), number)
                check_key(row, "image", number)
                pictures = [files.picture(one) for one in pictures_of(row)]
                for lost in (one for one in pictures if isinstance(one, Finding)):
                    raise PostError(f"post {number}: {lost.what}: {lost.examples[0]}; {lost.remedy}")
                text = row["text"] if row.get("text") is not None else " ".join(row["tokens"])
                context = context_of(row, number) or ""
                whole = context if isinstance(context, str) else " ".join(context)
                found.append(Example(text, [*map(load_picture, pictures)], whole, f"example {number}"))
    except (OSError, ValueError) as error:
        expected = "expected a file with a line {text or tokens, image} for each post that may be published"
        raise CorpusError(f"{place}: {expected}; {error}") from error
    if not 0 < len(found) <= MOST_EXAMPLES:
        raise CorpusError(f"{place}: expected 1 to {MOST_EXAMPLES} posts, found {len(found)}")
    return found


def answered(
    model: MMNERForTokenClassification, processor: MMNERProcessor, examples: Sequence[Example]
) -> tuple[list[CardExample], dict[str, bytes]]:
    """The examples with what a model finds in them, and their pictures as files: of at most 1024 pixels a
    side, and without what cameras write into theirs, as the place.
    """
    shown: list[CardExample] = []
    files: dict[str, bytes] = {}
    predictor = BatchPredictor(model, PostReader(processor))
    for number, example in enumerate(examples, start=1):
        card = CardExample(example.text, example.title, context=example.context)
        for picture in example.pictures if processor.image_size is not None else ():
            card.pictures.append(f"example_{number}_{len(card.pictures) + 1}.jpg")
            picture.thumbnail(_LARGEST)
            picture.save(file := io.BytesIO(), "JPEG", quality=95, comment=b"")
            files[card.pictures[-1]] = file.getvalue()
        pictures = [files[name] for name in card.pictures]
        post = {"text": card.text, "images": pictures, "context": card.context or None}
        [card.entities] = [found.entities for found in predictor.predict([post])]
        shown.append(card)
    return shown, files


def published_examples(model: str) -> list[Example]:
    """The examples in a model's folder or on the Hub; none where it has none, or they cannot be read."""
    try:
        folder = Path(model)
        if not folder.is_dir():
            folder = Path(snapshot_download(model, allow_patterns=[METRICS, PICTURES]))
        found = []
        for one in RunMetrics.from_file(folder / METRICS).corpus.examples:
            # Whoever made the model has written the names.
            names = [name for name in one.pictures if fnmatch(name, PICTURES) and Path(name).name == name]
            pictures = [load_picture(within(name, folder)) for name in names]
            found.append(Example(one.text, pictures, one.context))
        return found
    except (OSError, ValueError):
        return []
