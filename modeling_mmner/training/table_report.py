"""What the runs of a paper's table say: results.json, the table in Markdown beside the paper's figures, and a
plot.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from ..escaping import markdown_text, one_line
from ..evaluation.metrics import RunMetrics
from ..evaluation.span_f1.confidence import paired_randomisation
from ..evaluation.span_f1.spans import tag_counts
from .paper_tables import PaperTable, Row
from .reproduce import Run

MODES = ("true", "shuffled", "none")
AMBIGUOUS = "ambiguous"
"""The source of the sample corpus's posts whose names only the picture can tell."""


def collect(table: PaperTable, runs: Sequence[Run], errors: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """The results of a table.

    Args:
        errors: by row and seed why a run is not there.

    Returns:
        What results.json holds: ``source``, ``versions``, ``corpus`` and ``rows``; each row has its ``runs``
            by seed, ``mean``
        and ``deviation`` (over seeds, of a sample; None of one) of precision, recall and F1 in 0..1,
        ``picture`` (mean F1 by what the posts were shown), ``ambiguous`` (the same over ambiguous names,
        where the corpus has them), ``context`` (mean F1 by the contexts that the posts were shown, where the
        system reads any), and ``p_value`` against the row above (None where the two have not the same posts
        and seeds).
    """
    rows, above = [], None
    some: RunMetrics | None = None
    for row in table.rows:
        own = [run for run in runs if run.row == row]
        found = {run.seed: metrics for run in own if (metrics := run.metrics()) is not None}
        some = next(iter(found.values()), some)
        there = {run.seed: run for run in own if run.seed in found}
        rows.append(
            _row(row, [run.seed for run in own], found, errors) | {"p_value": above and p_value(above, there)}
        )
        above = there or None
    return {
        "source": table.source,
        "versions": some and some.versions,
        "corpus": some and {name: getattr(some.corpus, name) for name in ("name", "version_name", "posts")},
        "rows": rows,
    }


def _row(
    row: Row, seeds: Sequence[int], found: Mapping[int, RunMetrics], errors: Mapping[tuple[str, int], str]
) -> dict[str, Any]:
    runs: list[dict[str, Any]] = [
        _run(seed, found[seed]) if seed in found else {"seed": seed, "error": errors.get((row.name, seed))}
        for seed in seeds
    ]
    whole = [run for run in runs if "f1" in run]
    names = ("precision", "recall", "f1")
    return {
        "name": row.name,
        "recipe": row.recipe,
        "reported": row.reported and row.reported._asdict(),
        "runs": runs,
        "mean": {name: mean(run[name] for run in whole) for name in names} if whole else None,
        "deviation": {name: stdev(run[name] for run in whole) for name in names} if len(whole) > 1 else None,
        **{kind: _means([run[kind] for run in whole]) for kind in ("picture", AMBIGUOUS, "context")},
    }


def _run(seed: int, metrics: RunMetrics) -> dict[str, Any]:
    test = metrics.splits.test
    return {
        "seed": seed,
        "precision": test.overall.precision,
        "recall": test.overall.recall,
        "f1": test.overall.f1,
        "validation_f1": metrics.splits.validation.overall.f1,
        "selected_epoch": metrics.selected_epoch,
        "minutes": metrics.timing.total_seconds / 60,
        "by_language": {name: score.f1 for name, score in test.by_language.items()},
        "picture": {mode: block.overall.f1 for mode, block in test.picture.items()},
        "context": {mode: block.overall.f1 for mode, block in test.context.items()},
        AMBIGUOUS: {
            mode: block.by_source[AMBIGUOUS].f1
            for mode, block in test.picture.items()
            if AMBIGUOUS in block.by_source
        },
    }


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over runs of each mode that all of them have."""
    return {
        mode: mean(score[mode] for score in scores)
        for mode in MODES
        if scores and all(mode in score for score in scores)
    }


def p_value(above: Mapping[int, Run], below: Mapping[int, Run]) -> float | None:
    """That of the difference of two rows' F1, by paired approximate randomisation over the posts of the seeds
    that both have.
    """
    counts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for seed in sorted(above.keys() & below.keys()):
        tags = [run.predictions() for run in (above[seed], below[seed])]
        if tags[0][0] != tags[1][0]:
            return None
        for side, (gold, predicted) in zip(counts, tags, strict=True):
            side.append(tag_counts(gold, predicted))
    return paired_randomisation(*map(np.concatenate, counts)) if counts[0] else None


def markdown(results: Mapping[str, Any]) -> str:
    """The table in Markdown, in percent, with a line for each row that failed and an explanation of the
    columns.
    """
    titles = {"picture": "pictures", AMBIGUOUS: "pictures, ambiguous names", "context": "contexts"}
    shown = {
        group
        for row in results["rows"]
        for group in titles
        if row[group].keys() - ({"none"} if group == "picture" else ())
    }
    groups = [group for group in titles if group in shown]
    headings = ["system", "paper P / R / F1", "P", "R", "F1", "p"]
    headings += [f"{titles[group]}: true / shuffled / none" for group in groups]
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    lines += ["| " + " | ".join(_cells(row, groups)) + " |" for row in results["rows"]]
    failed = [(row["name"], run) for row in results["rows"] for run in row["runs"] if run.get("error")]
    notes = [
        f"- {markdown_text(name)}, seed {run['seed']}: {markdown_text(run['error'])}" for name, run in failed
    ]
    return (
        "\n".join([*lines, "", _legend(results), *(["", "Without a result:", "", *notes] if notes else [])])
        + "\n"
    )


def _cells(row: Mapping[str, Any], groups: Sequence[str]) -> list[str]:
    reported = row["reported"] and " / ".join(
        "-" if value is None else f"{value:.2f}" for value in row["reported"].values()
    )
    scores = ["-"] * 3
    if row["mean"]:
        spread = row["deviation"] or {}
        scores = [
            f"{100 * value:.1f}" + (f" ± {100 * spread[name]:.1f}" if spread else "")
            for name, value in row["mean"].items()
        ]
    chance = (
        "-" if row["p_value"] is None else "< 0.001" if row["p_value"] < 0.001 else f"{row['p_value']:.3f}"
    )
    modes = [
        " / ".join(f"{100 * row[group][mode]:.1f}" if mode in row[group] else "-" for mode in MODES)
        for group in groups
    ]
    return [markdown_text(row["name"]), reported or "-", *scores, chance, *modes]


def _legend(results: Mapping[str, Any]) -> str:
    corpus = results["corpus"]
    where = (
        "no corpus"
        if corpus is None
        else f"{markdown_text(corpus['name'])} {markdown_text(corpus['version_name'])}"
    )
    counts = (
        ""
        if corpus is None
        else f" ({', '.join(f'{count:,} {split}' for split, count in corpus['posts'].items())} posts)"
    )
    seeds = sorted({run["seed"] for row in results["rows"] for run in row["runs"]})
    of_seeds = (
        f"seed {seeds[0]}"
        if len(seeds) == 1
        else f"mean and deviation over the seeds {', '.join(map(str, seeds))}"
    )
    return (
        f"Test split of {where}{counts}, in percent, {of_seeds}. Paper: what"
        f" {markdown_text(results['source'])} reports; the two compare only where corpus, encoders and"
        " pictures are the same. p: of the difference of F1 to the row above, paired approximate"
        " randomisation over posts. True, shuffled, none: F1 with the posts' own pictures (or contexts),"
        " with another post's, with none."
    )


def plot(results: Mapping[str, Any], path: str | Path) -> None:
    """Save a PNG: each row's F1 with its deviation, beside the paper's."""
    from matplotlib.figure import Figure  # slow to import

    rows = list(reversed(results["rows"]))
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for height, row in enumerate(rows):
        if row["reported"]:
            axes.plot(row["reported"]["f1"], height, "o", mfc="white", mec="#8a94a0")
        if row["mean"]:
            spread = 100 * (row["deviation"] or {"f1": 0.0})["f1"]
            axes.errorbar(100 * row["mean"]["f1"], height, xerr=spread, fmt="o", color="#1f2933", capsize=3)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    where = "no corpus" if results["corpus"] is None else one_line(results["corpus"]["name"])
    axes.set_xlabel(f"test F1 on {where:.40}; hollow: {results['source']}", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    figure.savefig(path, format="png", dpi=150)


def write_table(results: Mapping[str, Any], folder: Path) -> None:
    """Write results.json, results.md and results.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(results), encoding="utf-8")
    plot(results, folder / "results.png")
