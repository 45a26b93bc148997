"""What `mmner inspect` says first of a corpus: what was understood, what would be lost, and what mends it."""

import re
import shlex
from collections.abc import Sequence

from modeling_mmner.escaping import one_line

from .findings import NO_FILE, PICTURES_LEFT_OUT
from .formats.reader import SPLITS
from .inspection import Statistics, describe_longest
from .opening import TAGGED_POSTS, Corpus

_NOTHING = {"o", "none", "null", "nil", "nan", "outside", "no entity", "-", "_"}  # what tools call no entity
_MANY = 50  # posts


def add_hints(corpus: Corpus, statistics: Statistics) -> None:
    """Add to a corpus's findings what only its statistics show."""
    splits, add = statistics["splits"], corpus.findings.add
    if corpus.form == TAGGED_POSTS and any(f["pictures"]["missing"] < f["posts"] for f in splits.values()):
        for one in corpus.findings.sorted():  # an id is no promise of a picture
            one.lost &= one.what != NO_FILE[0]
    if missing := [split for split in SPLITS if split not in splits]:
        advice = "name files so, or put all posts into one, which training splits; parts of a data set's"
        advice += " split are taken by --split_slices test=train[:100],train=train[100:]"
        add(f"splits that training needs: no {', '.join(missing)}", remedy=advice)
    for split in (name for name, found in splits.items() if found["posts_without_entity"] == found["posts"]):
        advice = "label its posts, or leave them out: a score on them is 0, whatever a model finds"
        add("splits without an entity", split, remedy=advice)
    _add_names(corpus, statistics)
    posts = sum(found["posts"] for found in splits.values())
    if posts >= _MANY and all(f["tokens_per_post"]["percentile_95"] in (1, None) for f in splits.values()):
        advice = "an empty line between posts; or --columns id=COLUMN, where a column numbers them"
        add("posts of a single word", remedy=advice, number=posts)
    elif orphans := sum(found["orphans"] for found in splits.values()):
        advice = "--repair_orphans makes each a B-; --tag_scheme says in which scheme the tags are"
        add("I- tags that continue no entity", remedy=advice, lost=False, number=orphans)
    for kind in statistics["types"] if "train" in splits else ():
        if not splits["train"]["entities"][kind]:
            advice = "--rename_types OLD=NEW, if it is another's name; --split_seed, for another choice"
            add("types without an entity to learn from in train", kind, remedy=advice, lost=False)


def _add_names(corpus: Corpus, statistics: Statistics) -> None:
    """Add types and languages that are there in several spellings, and types that are none."""
    add, types = corpus.findings.add, _types(statistics)
    languages = {name for found in statistics["splits"].values() for name in found["languages"]}
    if pairs := _respelt(sorted(types, key=types.__getitem__)):
        advice = f"--rename_types {shlex.quote(pairs)} makes them one"
        add("types that differ in upper and lower case alone", pairs, remedy=advice)
    if pairs := _respelt(sorted(languages)):
        advice = "write each in one way, in the column 'language'"
        add("languages that differ in upper and lower case alone", pairs, remedy=advice, lost=False)
    for kind, number in types.items():
        if kind.casefold() in _NOTHING:
            advice = f"--rename_types {shlex.quote(kind)}=O reads them as no entities"
            add(f"entities of a type that means none, {kind!r}", remedy=advice, number=number)
        elif re.fullmatch("[BI]-.+", kind):
            advice = "mark each entity as one span, whose label is the type alone, without B- or I-"
            add("spans labelled with tags in place of types", kind, remedy=advice, number=number)


def _respelt(names: Sequence[str]) -> str:
    """``per=PER,...`` for names that the last such one is but for its case."""
    last = {name.casefold().strip(): name for name in names}
    pairs = ((name, last[name.casefold().strip()]) for name in names)
    return ",".join(f"{name}={kept}" for name, kept in pairs if name != kept)


def _types(statistics: Statistics) -> dict[str, int]:
    """How many entities each type has."""
    found = [split["entities"] for split in statistics["splits"].values()]
    return {kind: sum(entities[kind] for entities in found) for kind in statistics["types"]}


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
    with_pictures = [found["pictures"] for found in splits.values()]
    pictures = sum(int(size) * n for one in with_pictures for size, n in one["posts_by_number"].items())
    broken = sum(one["broken"] for one in with_pictures)
    missing = sum(n for what, n in corpus.findings.numbers().items() if what.startswith(PICTURES_LEFT_OUT))
    without = sum(one["missing"] for one in with_pictures)
    counts = f"{pictures - broken} found, {missing} missing, {broken} broken; posts without one: {without}"
    return {
        "form": corpus.form,
        "columns": ", ".join(columns),
        "types": ", ".join(f"{kind} {number:,}" for kind, number in _types(statistics).items()),
        "splits": ", ".join(f"{split} {found['posts']:,}" for split, found in splits.items()),
        "languages": ", ".join(languages),
        "pictures": counts,
        "longest": describe_longest(statistics),
    }
