"""What `mmner inspect` says first of a corpus: what was understood, what would be lost, and what mends it."""

import shlex
from collections.abc import Sequence

from modeling_mmner.escaping import one_line

from .findings import NO_FILE, PICTURES_LEFT_OUT
from .formats.reader import SPLITS
from .inspection import Statistics, describe_longest
from .opening import TAGGED_POSTS, Corpus

_NOTHING = {"o", "none", "null", "nil", "nan", "outside", "no entity", "-", "_"}  # what tools call no entity


def add_hints(corpus: Corpus, statistics: Statistics) -> None:
    """Add to a corpus's findings what only its statistics show."""
    splits, add = statistics["splits"], corpus.findings.add
    if corpus.form == TAGGED_POSTS and any(f["pictures"]["missing"] < f["posts"] for f in splits.values()):
        for one in corpus.findings.sorted():  # an id is no promise of a picture
            one.lost &= one.what != NO_FILE[0]
    if missing := [split for split in SPLITS if split not in splits]:
        advice = "name files so, or put all posts into one, which training splits; parts of a data set's"
        advice += " split are taken by --split_slices test=train[:100],train=train[100:]"
        what = f"splits that training needs: no {', '.join(missing)}"
        add(what, remedy=advice, lost="train" in splits)  # a test split alone may be for evaluation
    for split in (name for name, found in splits.items() if found["posts_without_entity"] == found["posts"]):
        advice = "label its posts, or leave them out: a score on them is 0, whatever a model finds"
        add("splits without an entity", split, remedy=advice)
    _add_types(corpus, statistics["types"])
    posts = sum(found["posts"] for found in splits.values())
    if posts >= 50 and all(f["tokens_per_post"]["percentile_95"] in (1, None) for f in splits.values()):
        advice = "an empty line between posts; or --columns id=COLUMN, where a column numbers them"
        add("posts of a single word", remedy=advice, number=posts)
    elif orphans := sum(found["orphans"] for found in splits.values()):
        advice = "--repair_orphans makes each a B-; --tag_scheme says in which scheme the tags are"
        add("I- tags that continue no entity", remedy=advice, lost=False, number=orphans)
    for kind in statistics["types"] if "train" in splits else ():
        if not splits["train"]["entities"][kind]:
            advice = "--rename_types OLD=NEW, if it is another's name; --split_seed, for another choice"
            add("types without an entity to learn from in train", kind, remedy=advice, lost=False)


def _add_types(corpus: Corpus, types: Sequence[str]) -> None:
    """Add types that are there in several spellings, and those that are none; they are the most frequent
    first.
    """
    kept = {kind.casefold(): kind for kind in reversed(types)}
    pairs = ",".join(f"{kind}={kept[kind.casefold()]}" for kind in types if kind not in kept.values())
    if pairs:
        advice = f"--rename_types {shlex.quote(pairs)} makes them one"
        corpus.findings.add("types that differ in upper and lower case alone", pairs, remedy=advice)
    for kind in types:
        if kind.casefold() in _NOTHING or kind.startswith(("B-", "I-")):
            advice = "label entities with their type alone; --rename_types LABEL=O takes out what means none"
            corpus.findings.add("types that are tags, or mean none", kind, remedy=advice)


def diagnosis(corpus: Corpus, statistics: Statistics) -> list[str]:
    """The lines: what was understood; then what was found, the most harmful first, with examples and what to
    type.
    """
    lines = [f"{corpus.name}: what was understood"]
    lines += [f"  {key:<10}{one_line(value)}" for key, value in _understood(corpus, statistics).items()]
    findings = corpus.findings.sorted()
    for is_lost, heading in ((True, "What would be lost in training"), (False, "What else was found")):
        if own := [one for one in findings if one.lost == is_lost]:
            lines += ["", f"{heading}, the most frequent first"]
        for number, one in enumerate(own, start=1):
            lines.append(f"{number:>3}. {one_line(one.what)}: {one.number}")
            lines += [f"       {one_line(example)}" for example in one.examples]
            lines += [f"     -> {one_line(one.remedy)}"] if one.remedy else []
    return lines if any(one.lost for one in findings) else [*lines, "", "Nothing would be lost in training."]


def _understood(corpus: Corpus, statistics: Statistics) -> dict[str, str]:
    splits = statistics["splits"]
    columns = next(iter(corpus.splits.values())).column_names
    languages = {name: number for found in splits.values() for name, number in found["languages"].items()}
    types = {kind: sum(found["entities"][kind] for found in splits.values()) for kind in statistics["types"]}
    with_pictures = [found["pictures"] for found in splits.values()]
    pictures = sum(int(size) * n for one in with_pictures for size, n in one["posts_by_number"].items())
    broken = sum(one["broken"] for one in with_pictures)
    missing = sum(n for what, n in corpus.findings.numbers().items() if what.startswith(PICTURES_LEFT_OUT))
    without = sum(one["missing"] for one in with_pictures)
    counts = f"{pictures - broken} found, {missing} missing, {broken} broken; posts without one: {without}"
    return {
        "form": corpus.form,
        "columns": ", ".join(columns),
        "types": ", ".join(f"{kind} {number:,}" for kind, number in types.items()),
        "splits": ", ".join(f"{split} {found['posts']:,}" for split, found in splits.items()),
        "languages": ", ".join(languages),
        "pictures": counts,
        "longest": describe_longest(statistics),
    }
