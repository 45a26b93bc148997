"""Posts of a corpus on one HTML page: each a card with its pictures and its text, the entities marked."""

import base64
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from modeling_mmner.model.images_mmner import PictureError, load_picture, pictures_of
from modeling_mmner.model.labels_mmner import OUTSIDE, entity_types, tags_to_spans

from .inspection import picture_numbers

THUMBNAIL_SIDE = 480
"""Of the pictures on the page, in pixels at most: they are stored in it."""

_MAX_PICTURES = 4


def contact_sheet(
    rows: datasets.Dataset,
    labels: Sequence[str],
    path: str | Path,
    *,
    count: int = 12,
    seed: int = 1,
    title: str = "Posts",
) -> list[str]:
    """Save an HTML page with cards of some posts, chosen by `choose_posts` and in the order of the corpus.

    The page holds its pictures, has no script and asks no server for anything; whatever the corpus says is
    escaped.

    Args:
        rows: with the columns of a `Corpus`; pictures that are missing or broken are said to be so on their
            card.
        labels: the BIO label names in id order.
        count: of posts, at least 1; all if there are fewer.
        seed: random seed for the choice of posts.
        title: of the page.

    Returns:
        The ids of the posts shown.

    Raises:
        ValueError: there is no post.
    """
    if not len(rows):
        raise ValueError("rows: expected at least one post, found none; there is nothing to show")
    posts = [rows[number] for number in choose_posts(rows, labels, count=count, seed=seed)]
    types = entity_types(labels)
    pages = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.loader = PackageLoader("dataset_scripts", "")
    page = pages.get_template("contact_sheet.html.jinja").render(
        title=title,
        total=len(rows),
        hues={name: 360 * number // len(types) for number, name in enumerate(types)},
        posts=[_card(post, labels) for post in posts],
        has_pictures=any(map(pictures_of, posts)),
        most_pictures=_MAX_PICTURES,
    )
    # What UTF-8 cannot encode, halves of surrogate pairs, becomes a question mark.
    Path(path).write_text(page, encoding="utf-8", errors="replace")
    return [str(post["id"]) for post in posts]


def choose_posts(rows: datasets.Dataset, labels: Sequence[str], *, count: int, seed: int) -> list[int]:
    """Which posts to show, a sample at random: their positions, ascending.

    Posts with both a picture and an entity are taken first, then those with either, then the rest.
    """
    tags = rows.select_columns(["ner_tags"]).with_format("arrow")[:]["ner_tags"].to_pylist()
    outside = labels.index(OUTSIDE)
    has_entity = np.array([any(tag != outside for tag in post) for post in tags], int)
    merits = has_entity + (picture_numbers(rows) > 0)
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    return sorted(sorted(order, key=lambda position: -merits[position])[:count])


def _card(row: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """What the page's template shows of a post; `runs` are its words, those of an entity with its type."""
    runs: list[tuple[str, str | None]] = []
    end = 0
    for span in tags_to_spans([labels[tag] for tag in row["ner_tags"]]):
        runs += [(word, None) for word in row["tokens"][end : span.start]]
        runs.append((" ".join(row["tokens"][span.start : span.end]), span.type))
        end = span.end
    runs += [(word, None) for word in row["tokens"][end:]]
    pictures = pictures_of(row)
    shown = [_thumbnail(picture) for picture in pictures[:_MAX_PICTURES]]
    return row | {"number": len(pictures), "pictures": shown, "runs": runs}


def _thumbnail(picture: Any) -> dict[str, str]:
    """The address that holds a small copy, or what is wrong with the picture."""
    try:
        image = load_picture(picture)
    except PictureError as error:
        return {"address": "", "problem": str(error).removeprefix("picture ")}
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return {"address": f"data:image/jpeg;base64,{encoded}", "problem": ""}
