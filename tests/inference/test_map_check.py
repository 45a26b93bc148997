"""Tests of the check that maps mean something: models whose answer is known, blanking by hand, words, and the
command.
"""

import random
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from torch import nn

from modeling_mmner import MMNEROutput, MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.inference.explain import explain
from modeling_mmner.inference.map_check import (
    ATTENDED_ALONE,
    EVERYTHING,
    LEAST,
    MOST,
    NOTHING,
    OTHER_POST,
    OTHER_WORDS,
    RANDOM,
    Costs,
    MapCheck,
    blank_regions,
    check_maps,
    cost_table,
    interval,
    verdict,
)
from modeling_mmner.model.crf_mmner import CRF
from modeling_mmner.model.images_mmner import PictureError
from modeling_mmner.training.assembly import train_tokenizer
from tests.shared_data import property_test
from tests.tiny import LABELS, TOWER, VIT, tiny_model

WORDS = ["Jordan", "posts", "from", "San", "Marino", "today"]
COUNTS = (2, 4, 8)
SIDE, PIXELS = 4, 32


@pytest.fixture(scope="module")
def processor():
    return MMNERProcessor(train_tokenizer([WORDS], 100), labels=LABELS, image_size=PIXELS)


def row_of(picture, tokens="Jordan posts today", tags="B-PER O O") -> dict:
    return {
        "tokens": tokens.split(),
        "ner_tags": [LABELS.index(tag) for tag in tags.split()],
        "image": picture,
    }


def marked(region: int) -> Image.Image:
    """A black picture of 4 x 4 regions, of which one is white."""
    picture = Image.new("RGB", (PIXELS, PIXELS))
    top, left = (PIXELS // SIDE * part for part in divmod(region, SIDE))
    picture.paste("white", (left, top, left + PIXELS // SIDE, top + PIXELS // SIDE))
    return picture


class Window(nn.Module):
    """Stands in for a picture encoder: gives the pixels that it is shown."""

    prefix_tokens = 0

    def __init__(self, *, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled

    def forward(self, pixel_values, *, image_mask):
        return pixel_values


class Watcher(nn.Module):
    """Stands in for a model: finds Jordan to be a person where it sees a white region, and a place where it
    sees none.

    Args:
        looks_at: the region that Jordan attends to most, ``mark`` (the white one), or ``rest`` (all but that
            one); the other words attend to all others than Jordan does.
        decides: the number of the picture encoder whose pixels decide; Jordan attends over the first one's.
        encoders: how many there are.
    """

    def __init__(self, *, looks_at: str = "mark", decides: int = 0, encoders: int = 1) -> None:
        super().__init__()
        self.vision_towers = nn.ModuleList(Window(pooled=number > 0) for number in range(encoders))
        self.looks_at, self.decides = looks_at, decides
        self.crf = CRF(LABELS)
        for parameter in self.crf.parameters():
            nn.init.zeros_(parameter)
        self.device = torch.device("cpu")
        self.eval()

    def forward(self, word_mask, pixel_values, image_mask, output_attentions=False, output_gate=False, **_):
        views = [
            tower(pixel_values, image_mask=image_mask)[:, 0].float().mean(1) for tower in self.vision_towers
        ]
        light = [nn.functional.avg_pool2d(view[:, None], PIXELS // SIDE).flatten(1) for view in views]
        sees = (light[self.decides] > 200).any(1)
        logits = torch.zeros(*word_mask.shape, len(LABELS))
        logits[:, 1:, LABELS.index("O")] = 30
        logits[:, 0, LABELS.index("B-PER")] = torch.where(sees, 30.0, 0)
        logits[:, 0, LABELS.index("B-LOC")] = torch.where(sees, 0, 30.0)
        tags = self.crf.decode_batch(logits, mask=word_mask)
        at_mark = (light[0] > 200).float()
        own = at_mark if self.looks_at == "mark" else 1 - at_mark
        attentions = torch.stack([own] + [1 - own] * (word_mask.shape[1] - 1), dim=1)
        scores = self.crf.span_scores(logits, tags, mask=word_mask)
        return MMNEROutput(logits=logits, tags=tags, span_scores=scores, attentions=attentions)


def checked(processor, marks=range(16), *, draws=10, **settings) -> MapCheck:
    return check_maps(
        Watcher(**settings), processor, [row_of(marked(mark)) for mark in marks], LABELS, draws=draws
    )


def falls(check: MapCheck, choice: str) -> list[float]:
    """The mean fall at each number of regions, of which each post's wrong names must tell the same."""
    for count in check.counts:
        np.testing.assert_allclose(
            check.costs[choice, count].fall, check.costs[choice, count].wrong, atol=1e-6
        )
    return [float(check.costs[choice, count].fall.mean()) for count in check.counts]


# What blanking does to a picture


@property_test
@given(st.integers(1, 23), st.integers(1, 23), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_exactly_the_pixels_of_the_regions_are_blanked(width, height, rows, columns, seed):
    """If it failed, pixels of other regions would be blanked, too, or some of the region be left: its cost
    would be another's.
    """
    rng = random.Random(seed)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    regions = rng.sample(range(rows * columns), rng.randint(0, rows * columns))
    picture = Image.fromarray(pixels)
    blanked = np.asarray(blank_regions(picture, regions, grid=(rows, columns)))
    mean = [round(float(pixels[..., channel].mean())) for channel in range(3)]
    for y in range(height):
        for x in range(width):
            region = int((y + 0.5) / height * rows) * columns + int((x + 0.5) / width * columns)
            assert blanked[y, x].tolist() == (mean if region in regions else pixels[y, x].tolist())
    np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_blanked_region_is_that_of_the_square_that_the_model_reads():
    """If it failed, what is blanked would not be what the encoder calls that region: rows for columns, or the
    picture cropped.
    """
    wide = marked(6).resize((4 * PIXELS, PIXELS), Image.Resampling.NEAREST)
    square = np.asarray(blank_regions(wide, [6], grid=(SIDE, SIDE)).resize((PIXELS, PIXELS)))
    assert square.max() < 20
    np.testing.assert_array_equal(square > 8, np.asarray(marked(6)) > 0)


# Models whose answer is known


def test_map_that_points_at_what_decides_is_found_to(processor):
    """If it failed, maps that hold would be said not to, or the costs not be those of the regions that are
    named.
    """
    check = checked(processor, draws=40)
    assert (check.regions, tuple(check.counts)) == (16, COUNTS)
    assert falls(check, MOST) == pytest.approx([1, 1, 1], abs=1e-5)
    for choice in (LEAST, OTHER_WORDS):
        assert falls(check, choice) == pytest.approx([0, 0, 0], abs=1e-5)
    assert falls(check, RANDOM) == pytest.approx([count / 16 for count in COUNTS], abs=0.06)
    assert (
        check.costs[NOTHING, 0].fall.tolist() == [0] * 16
        and check.costs[NOTHING, 0].wrong.tolist() == [0] * 16
    )
    assert (
        check.costs[EVERYTHING, 16].fall == pytest.approx(np.ones(16))
        and (ATTENDED_ALONE, 16) not in check.costs
    )
    lines = verdict(check).splitlines()
    assert (
        lines[0]
        == "Blanking the whole picture takes 100.0 (100.0 to 100.0) points from the probability of a name."
    )
    assert lines[1] == "Against random regions, the most attended cost clearly more at 2, 4, 8 of 16 regions."
    assert lines[-1] == "The maps point at what decides in the picture at hand."


def test_map_that_points_anywhere_else_is_found_out(processor):
    """If it failed, the check would pass whatever the maps show."""
    check = checked(processor, looks_at="rest")
    assert falls(check, MOST) == pytest.approx([0, 0, 0], abs=1e-5)
    for choice in (LEAST, OTHER_WORDS):
        assert falls(check, choice) == pytest.approx([1, 1, 1], abs=1e-5)
    lines = verdict(check).splitlines()
    assert (
        lines[1].startswith("Against random regions, the most attended cost ")
        and "clearly less at" in lines[1]
    )
    assert "clearly more" not in lines[1].replace("neither clearly more", "")
    assert lines[-1] == "Nothing shows that the maps point at what decides."


def test_map_that_always_points_at_one_place_is_found_out(processor):
    """If it failed, a model that looks at the middle of each picture would be said to look at what is in
    it.
    """
    check = checked(processor, marks=[5] * 16)
    for choice in (MOST, OTHER_POST):
        assert falls(check, choice) == pytest.approx([1, 1, 1], abs=1e-5)
    assert (
        verdict(check).splitlines()[-1]
        == "The maps point at places that often matter, but not clearly at what decides in the picture at"
        " hand."
    )


def test_map_of_an_encoder_that_does_not_decide_is_found_out(processor):
    """Regression: a model that decides by its pooled encoder passed against random regions, since both see
    the same object.
    """
    for decides in (0, 1):
        check = checked(processor, encoders=2, decides=decides)
        assert falls(check, MOST) == pytest.approx([1, 1, 1], abs=1e-5)
        assert check.costs[ATTENDED_ALONE, 16].fall == pytest.approx(np.full(16, 1 - decides), abs=1e-5)
        assert check.costs[ATTENDED_ALONE, 16].wrong.tolist() == [1 - decides] * 16
        explains = verdict(check).splitlines()[-1] == "The maps point at what decides in the picture at hand."
        assert explains == (decides == 0)
    assert (
        verdict(check).splitlines()[1]
        == "Blanking it for that encoder alone to which the maps belong takes 0.0 (0.0 to 0.0)."
    )
    assert (
        verdict(check).splitlines()[-1].startswith("The maps explain nothing: the model loses nothing when")
    )


# A real model, picture by picture


def noisy(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8))


ROWS = [
    row_of(noisy(0)),
    row_of(noisy(1), "today from San Marino", "O O B-LOC I-LOC"),
    row_of(noisy(2), "posts Marino", "O B-PER"),
    row_of(noisy(3), "San Marino posts from Jordan today", "O O O O B-PER O"),
]


@pytest.fixture(scope="module", params=["cross-modal", "collaboration"])
def real(request, processor):
    """A tiny model whose encoders are frozen, so that each can be given its own picture."""
    towers = (
        [VIT | {"frozen": True}, TOWER | {"pooled": True}] if request.param == "collaboration" else [TOWER]
    )
    return tiny_model(
        text={"vocab_size": len(processor.tokenizer)}, fusion=request.param, vision_towers=towers
    )


@torch.inference_mode()
def probability(model, processor, row, pictures) -> float:
    """The posterior of the gold name where each encoder is shown its own picture."""
    inputs = processor([row["tokens"]], images=[pictures[0]], labels=[row["ner_tags"]])
    pixels = [processor([row["tokens"]], images=[picture])["pixel_values"] for picture in pictures]
    towers = zip(model.vision_towers, pixels, strict=True)
    features = [tower(shown, image_mask=inputs["image_mask"]).states[:, None] for tower, shown in towers]
    labels = inputs.pop("labels")
    del inputs["pixel_values"]
    outputs = model(**inputs, image_features=features)
    return float(model.crf.span_scores(outputs.logits, labels, mask=inputs["word_mask"]).max())


def means(maps: np.ndarray, row: dict, *, inside: bool) -> list[float]:
    """The mean map (4,) of the words inside the name, or of those outside."""
    words = [number for number, tag in enumerate(row["ner_tags"]) if (tag > 0) == inside]
    return [sum(maps[word, region] for word in words) / len(words) for region in range(4)]


def test_costs_are_those_of_one_picture_at_a_time(real, processor):
    """If it failed, a name would be charged with the cost of another's picture, word or choice of regions."""
    check = check_maps(real, processor, ROWS, LABELS)
    maps = [explain(real, processor, row["tokens"], row["image"]).maps[:, 0].reshape(-1, 4) for row in ROWS]
    own = [means(found, row, inside=True) for found, row in zip(maps, ROWS, strict=True)]
    expected: dict[tuple[str, int], list[float]] = {(NOTHING, 0): [0.0] * 4}
    for number, row in enumerate(ROWS):

        def cost(regions, *, alone=False, row=row):
            blanked = blank_regions(row["image"], regions, grid=(2, 2))
            others = [row["image"] if alone else blanked] * (len(real.vision_towers) - 1)
            unblanked = [row["image"]] * len(real.vision_towers)
            return probability(real, processor, row, unblanked) - probability(
                real, processor, row, [blanked, *others]
            )

        for count in (1, 2):

            def top(weights, count=count):
                return sorted(range(4), key=lambda region: -weights[region])[:count]

            sets = {
                MOST: [top(own[number])],
                RANDOM: list(combinations(range(4), count)),
                LEAST: [top([-weight for weight in own[number]])],
                OTHER_POST: [top(weights) for other, weights in enumerate(own) if other != number],
                OTHER_WORDS: [top(means(maps[number], row, inside=False))],
            }
            for choice, chosen in sets.items():
                expected.setdefault((choice, count), []).append(sum(map(cost, chosen)) / len(chosen))
        expected.setdefault((EVERYTHING, 4), []).append(cost(range(4)))
        if len(real.vision_towers) > 1:
            expected.setdefault((ATTENDED_ALONE, 4), []).append(cost(range(4), alone=True))
    assert set(check.costs) == set(expected)
    for key, costs in expected.items():
        np.testing.assert_allclose(sorted(check.costs[key].fall), sorted(costs), atol=1e-5)
    assert np.abs(expected[EVERYTHING, 4]).max() > 1e-3


def test_check_leaves_the_model_as_it_was(real, processor):
    """If it failed, the second encoder would go on seeing the last picture of the check."""
    inputs = processor(ROWS[0]["tokens"], images=noisy(9), is_split_into_words=True)
    before = real(**inputs).logits
    check_maps(real, processor, ROWS, LABELS, posts=2)
    assert torch.equal(real(**inputs).logits, before)


def test_equal_seeds_give_equal_checks(processor):
    """If it failed, the figure would change from run to run, or the seed do nothing."""
    rows = [row_of(marked(mark)) for mark in range(16)]
    runs = [
        np.concatenate(
            [
                cost.fall
                for cost in check_maps(Watcher(), processor, rows, LABELS, posts=6, seed=seed).costs.values()
            ]
        )
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


# Which posts


def test_only_posts_of_one_picture_and_one_name_among_other_words_are_used(processor):
    """If it failed, a cost could not be laid to one picture and one name."""
    unused = [
        row_of(None),
        row_of(marked(1), "Jordan from Marino", "B-PER O B-LOC"),
        row_of(marked(1), "posts today", "O O"),
        row_of(marked(1), "Jordan", "B-PER"),
        row_of(None) | {"images": [marked(1), marked(2)]},
    ]
    used = [
        row_of(marked(1)),
        row_of(None) | {"images": [marked(2)]},
        row_of({"bytes": None, "path": None}) | {"image": marked(3)},
    ]
    assert len(check_maps(Watcher(), processor, unused + used, LABELS).costs[NOTHING, 0].fall) == 3
    with pytest.raises(
        ValueError,
        match=r"expected at least 2, each with one picture, .* and another word; found 1 of them, 200",
    ):
        check_maps(Watcher(), processor, unused + used[:1], LABELS)


@pytest.mark.parametrize("posts", [1, 0, -3])
def test_too_few_posts_are_refused(processor, posts):
    """If it failed, an interval would be given of a single post, or of none."""
    with pytest.raises(
        ValueError, match=f"expected at least 2, each with one picture, .* found 4 of them, {posts} wanted"
    ):
        check_maps(Watcher(), processor, ROWS, LABELS, posts=posts)


def test_label_that_the_model_does_not_know_is_named(processor):
    """If it failed, a model of other types would be checked on names that it can only get wrong."""
    labels = [label.replace("PER", "ARTIST") for label in LABELS]
    with pytest.raises(
        ValueError,
        match=r"labels of text 0: expected one of \['O', 'B-PER', .*\] or its id, found 'B-ARTIST'",
    ):
        check_maps(Watcher(), processor, [row_of(marked(1))] * 2, labels)


def test_model_without_maps_is_refused(processor):
    """If it failed, a model of text alone would end the check in an error of numpy."""
    model = tiny_model(
        text={"vocab_size": len(processor.tokenizer)},
        fusion="text-only",
        vision_towers=[],
        objectives={"crf": 1.0},
    )
    with pytest.raises(
        ValueError,
        match="maps: expected a post with a picture and a model whose words attend over its regions",
    ):
        check_maps(model, processor, ROWS, LABELS)


def test_map_of_one_region_is_refused(processor):
    """If it failed, every choice would be the whole picture, and the check say nothing at length."""
    tower = TOWER | {"image_size": 32}
    model = tiny_model(text={"vocab_size": len(processor.tokenizer)}, vision_towers=[tower])
    with pytest.raises(
        ValueError, match="maps: expected several regions to choose from, found maps of one region"
    ):
        check_maps(model, processor, ROWS, LABELS)


def test_broken_picture_is_named(processor):
    """If it failed, a broken picture would end the check without a word which."""
    with pytest.raises(PictureError, match=r"picture /not/there.png: expected a file, found none"):
        check_maps(Watcher(), processor, [row_of("/not/there.png")] * 2, LABELS)


# In words


def made_up(
    differences: dict[str, float], *, whole: float = 0.5, alone: float | None = None, posts: int = 50
) -> MapCheck:
    """A check in which the most attended regions cost 0.4 with some noise, and other choices less by a
    difference.
    """
    rng = np.random.default_rng(0)

    def costs(mean: float) -> Costs:
        return Costs(mean + 0.01 * rng.standard_normal(posts), np.full(posts, 0.25))

    check = {(NOTHING, 0): Costs(np.zeros(posts), np.zeros(posts)), (EVERYTHING, 8): costs(whole)}
    for count in (1, 4):
        for choice in (MOST, RANDOM, LEAST, OTHER_POST, OTHER_WORDS):
            check[choice, count] = costs(
                0.4 - differences.get(choice, 0) * (count if choice == RANDOM else 1)
            )
    if alone is not None:
        check[ATTENDED_ALONE, 8] = costs(alone)
    return MapCheck(8, [1, 4], check)


POINTING = {RANDOM: 0.1, OTHER_POST: 0.1}
VERDICTS = {
    "all of it": (made_up(POINTING), "The maps point at what decides in the picture at hand."),
    "encoder decides in part": (
        made_up(POINTING, alone=0.2),
        "The maps point at what decides in the picture at hand.",
    ),
    "at some numbers": (
        made_up({RANDOM: 0.0012, OTHER_POST: 0.1}),
        "In part, the maps point at what decides in the picture",
    ),
    "not this picture": (
        made_up({RANDOM: 0.1}),
        "The maps point at places that often matter, but not clearly at what decides",
    ),
    "not at all": (made_up({OTHER_POST: 0.1}), "Nothing shows that the maps point at what decides."),
    "worse": (made_up({RANDOM: -0.1}), "Nothing shows that the maps point at what decides."),
    "no picture": (
        made_up(POINTING, whole=0.0),
        "The picture does not clearly count for these names, so its maps explain",
    ),
    "harmful picture": (
        made_up(POINTING, whole=-0.2),
        "The picture does not clearly count for these names, so its maps",
    ),
    "another encoder": (
        made_up(POINTING, alone=0.0),
        "The maps explain nothing: the model loses nothing when the",
    ),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict_is_honest(case):
    """If it failed, the sentence would claim more, or less, than the figures show."""
    check, expected = VERDICTS[case]
    assert verdict(check).splitlines()[-1].startswith(expected)


def test_each_comparison_is_said():
    """If it failed, a reader of the sentences would miss a number of regions at which maps fail."""
    lines = verdict(made_up({RANDOM: -0.1, OTHER_POST: 0.1})).splitlines()
    assert lines[1:4] == [
        "Against random regions, the most attended cost clearly less at 1, 4 of 8 regions.",
        "Against another post's regions, the most attended cost clearly more at 1, 4 of 8 regions.",
        (
            "Against other words' regions, the most attended cost neither clearly more nor less at 1, 4 of 8"
            " regions."
        ),
    ]


def test_interval_is_that_of_resampled_posts():
    """If it failed, "clearly" would mean something else than 95% of resampled sets of posts."""
    values = np.random.default_rng(3).normal(0.2, 1.0, 80)
    mean, low, high = interval(values)
    rng = np.random.default_rng(4)
    resampled = sorted(rng.choice(values, len(values)).mean() for _ in range(4000))
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((resampled[100], resampled[3900]), abs=0.03)


def test_difference_is_paired_by_post():
    """If it failed, posts that differ among themselves would hide a difference that each of them shows."""
    spread = np.linspace(0, 1, 50)
    costs = {(MOST, 1): Costs(spread + 0.01, spread), (RANDOM, 1): Costs(spread, spread)}
    assert MapCheck(4, [1], costs).difference(RANDOM, 1) == pytest.approx((0.01, 0.01, 0.01))


def printed(check: MapCheck) -> list[list[str]]:
    """The cells of the table, row by row."""
    console = Console(width=160)
    with console.capture() as capture:
        console.print(cost_table(check))
    lines = capture.get().splitlines()
    assert (
        f"Cost of blanking regions of the picture, {len(check.costs[NOTHING, 0].fall)} posts, percent points"
        in lines[0]
    )
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_table_holds_every_cost(processor):
    """If it failed, the table would show other figures than were measured, or leave some out."""
    check = checked(processor, encoders=2)
    rows = printed(check)
    assert [row[:2] for row in rows] == [[choice, f"{count} of 16"] for choice, count in check.costs]
    by_place = {(row[0], row[1]): row[2:] for row in rows}
    assert by_place[MOST, "4 of 16"] == ["100.0 (100.0 to 100.0)", "", "100.0"]
    assert by_place[LEAST, "4 of 16"] == ["0.0 (0.0 to 0.0)", "100.0 (100.0 to 100.0)", "0.0"]
    assert by_place[EVERYTHING, "16 of 16"] == ["100.0 (100.0 to 100.0)", "", "100.0"]
    mean, low, high = (100 * value for value in check.difference(RANDOM, 4))
    assert by_place[RANDOM, "4 of 16"][1] == f"{mean:.1f} ({low:.1f} to {high:.1f})"


# The command


@pytest.fixture
def sample(monkeypatch):
    """A sample corpus of a few posts, of which those that are not ambiguous would break the check."""
    rows = [row | {"source": "ambiguous"} for row in ROWS] + [row_of("/not/there.png") | {"source": "plain"}]
    corpus = SimpleNamespace(splits={"test": rows}, labels=LABELS)
    monkeypatch.setattr("dataset_scripts.opening.open_corpus", {"sample": corpus}.__getitem__)


@pytest.fixture
def folder(processor, tmp_path):
    model = tiny_model(text={"vocab_size": len(processor.tokenizer)})
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_command_prints_the_table_and_what_it_means(sample, folder, processor, capsys):
    """If it failed, the README's command would not give the README's figures."""
    assert main(["check-maps", "--model", str(folder), "--posts", "3", "--seed", "2"]) == 0
    shown = capsys.readouterr().out
    check = check_maps(
        tiny_model(text={"vocab_size": len(processor.tokenizer)}), processor, ROWS, LABELS, posts=3, seed=2
    )
    assert shown.endswith(f"\n{verdict(check)}\n")
    assert "Cost of blanking regions of the picture, 3 posts, percent points" in shown
    assert f"{100 * check.costs[MOST, 2].fall.mean():.1f} (" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--posts", "1"], "check-maps: posts to check maps on: expected at least 2"),
        (["--seed", "-1"], "check-maps: expected non-negative integer"),
    ],
)
def test_what_cannot_be_checked_is_named_in_a_line(sample, folder, capsys, options, message):
    """If it failed, a slip would end in a traceback, or in a table of nothing."""
    assert main(["check-maps", "--model", str(folder), *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(message)
