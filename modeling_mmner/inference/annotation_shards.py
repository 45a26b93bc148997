"""A corpus annotated by many machines, in shards: nothing is lost or doubled, whoever is killed and whatever
is run again.

The folder of an annotation has a file for each shard, a range of rows of the input. Under `ABOUT` it has the
plan, which says what is annotated by what and where each shard begins, and for each shard that is done its
manifest. A shard is done where its manifest is of this plan and has the hash of its file's bytes. Files and
manifests appear under their names when they are whole and on the disk, the manifest last: at any moment a
shard is done or it is not, and what is not is done again. Workers need not know of each other: two that do
the same shard leave one of the two results, or none that counts as done.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..files import own_room, staged_file
from .annotation_records import Form, row_numbers, write_records

if TYPE_CHECKING:
    from dataset_scripts.row_ranges import Rows

ABOUT = ".annotation"
"""Hidden, so that `datasets.load_dataset(folder)` sees the shards alone."""
_ROUNDS = 3
Find = Callable[[Iterator[Any], int], Iterator[dict[str, Any]]]
"""What is found in posts: a record for each, in their order. It is also given the row number of the first."""


class AnnotationError(ValueError):
    """An annotation that cannot be gone on with; the text says what was expected and what was found."""


class Shard(NamedTuple):
    """A range of rows.

    Attributes:
        number: of the shard, from 0.
        file: of the input, from 0.
        start: where in the file it begins, see `dataset_scripts.row_ranges.Survey`.
        first: its first row in the whole input, from 0.
        rows: how many.
    """

    number: int
    file: int
    start: int
    first: int
    rows: int

    def __str__(self) -> str:
        return f"shard {self.number} (rows {self.first} to {self.first + self.rows - 1})"


@dataclass(frozen=True)
class Plan:
    """What is annotated by what.

    Attributes:
        made_by: the model and the options that the rows depend on.
        form: of the shards' files.
        rows_per_shard: at most; no shard has rows of two files.
        files: of the input, each ``{"name", "size", "sha256", "rows", "starts", "modified"}``.
    """

    made_by: dict[str, Any]
    form: Form
    rows_per_shard: int
    files: list[dict[str, Any]]

    @classmethod
    def of(cls, rows: "Rows", *, made_by: dict[str, Any], form: Form, rows_per_shard: int) -> "Plan":
        """Reads the input once, from end to end."""
        files = []
        for file in rows.files:
            survey = asdict(file.survey(rows_per_shard))
            files.append({"name": file.name, **survey, "modified": file.first_stamp[1]})
        return cls(made_by, form, rows_per_shard, files)

    @cached_property
    def shards(self) -> list[Shard]:
        shards: list[Shard] = []
        first = 0
        for number, file in enumerate(self.files):
            for before, start in zip(
                range(0, file["rows"], self.rows_per_shard), file["starts"], strict=True
            ):
                rows = min(self.rows_per_shard, file["rows"] - before)
                shards.append(Shard(len(shards), number, start, first + before, rows))
            first += file["rows"]
        return shards

    @property
    def rows(self) -> int:
        return sum(file["rows"] for file in self.files)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all that two plans of the same annotation have in common, wherever their files
        lie.
        """
        files = [{key: value for key, value in file.items() if key != "modified"} for file in self.files]
        return _seal(asdict(self) | {"files": files})

    def check_options(self, given: Mapping[str, Any]) -> None:
        """Raises: AnnotationError: the model or an option is another one than the plan's."""
        planned = self.made_by | {"form": self.form, "rows_per_shard": self.rows_per_shard}
        names = sorted(name for name in planned.keys() | given.keys() if planned.get(name) != given.get(name))
        if names:
            raise AnnotationError(
                "; ".join(f"{name}: expected {planned.get(name)}, found {given.get(name)}" for name in names)
                + ". Go on with what the annotation was begun with, or begin another one in a new folder"
            )

    def check_input(self, rows: "Rows", numbers: Iterable[int]) -> None:
        """Check that files of the input are those of the plan; one that was not changed since is not read for
        it.

        Raises:
            AnnotationError: one has other bytes, or there are others.
        """
        names, planned = [file.name for file in rows.files], [file["name"] for file in self.files]
        if names != planned:
            raise AnnotationError(f"input: expected the files {', '.join(planned)}, found {', '.join(names)}")
        for number in numbers:
            file, known = rows.files[number], self.files[number]
            size, modified = file.first_stamp
            if size != known["size"]:
                raise _other_file(file.name, f"{size:,} bytes in place of {known['size']:,}")
            if modified != known["modified"] and (sha256 := file.sha256()) != known["sha256"]:
                raise _other_file(file.name, f"SHA-256 {sha256} in place of {known['sha256']}")


def _other_file(name: str, found: str) -> AnnotationError:
    return AnnotationError(
        f"input {name}: expected the file that the annotation was begun with, found {found}. Put that file"
        " back, or begin another annotation in a new folder"
    )


@dataclass
class Outcome:
    """What a worker did.

    Attributes:
        shards: how many are its own.
        errors: of each shard that it annotated now, how many rows have an error.
        failures: why shards are not done.
    """

    shards: int
    errors: dict[int, int] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


class AnnotationFolder:
    """The folder of an annotation."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.about = self.path / ABOUT
        self.rooms = self.about / "incomplete"

    def plan(self) -> Plan | None:
        """Raises: AnnotationError: what should be the plan is none."""
        path = self.about / "plan.json"
        try:
            return Plan(**_unsealed(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise AnnotationError(
                f"{path}: expected the plan of an annotation, found it damaged ({error}). Remove it and start"
                " a worker with the same input, model and options, which writes the same plan again; shards"
                " that are done stay"
            ) from error

    def check_free(self) -> None:
        """Raises: FileExistsError: something else than an annotation is in the folder."""
        if (
            self.path.exists()
            and not self.about.exists()
            and (found := sorted(path.name for path in self.path.iterdir()))
        ):
            raise FileExistsError(
                f"{self.path}: expected a new or an empty folder, or an annotation, found {found[0]}"
            )

    def begin(self, plan: Plan, *, room: Path) -> Plan:
        """Write the plan; returns that of the worker that was the last to write its own, which all that begin
        together take.
        """
        with staged_file(self.about / "plan.json", room=room) as file:
            file.write(_sealed(asdict(plan)))
        return self.required_plan()

    def required_plan(self) -> Plan:
        """Raises: AnnotationError: there is none."""
        plan = self.plan()
        if plan is None:
            raise AnnotationError(f"{self.path}: expected the folder of an annotation, found none")
        return plan

    def file_of(self, plan: Plan, shard: Shard) -> Path:
        return self.path / f"annotated-{shard.number:05d}-of-{len(plan.shards):05d}.{plan.form}"

    def manifest_of(self, shard: Shard) -> Path:
        return self.about / f"shard-{shard.number:05d}.json"

    def manifest(self, shard: Shard) -> dict[str, Any] | None:
        """What the manifest of a shard says; None where there is none, or it is damaged."""
        try:
            return _unsealed(self.manifest_of(shard).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def flaw(self, plan: Plan, shard: Shard) -> str | None:
        """Why a shard is not done; None: it is."""
        manifest, file = self.manifest(shard), self.file_of(plan, shard)
        if manifest is None:
            return "is missing"
        if manifest.get("plan") != plan.digest or manifest.get("number") != shard.number:
            return "is of another annotation"
        if not file.is_file():
            return f"has lost its file {file.name}"
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != manifest.get("sha256"):
                return f"is corrupt: {file.name} has not the bytes that were written"
        return None

    def write(self, plan: Plan, shard: Shard, records: Iterator[dict[str, Any]], *, room: Path) -> int:
        """Write a shard and then its manifest; returns how many of its rows have an error.

        Raises:
            AnnotationError: there are more records than rows, or fewer; or somebody has begun another
                annotation here.
        """
        counts: Counter[str] = Counter()
        with staged_file(self.file_of(plan, shard), room=room) as file:
            write_records(file, _numbered(records, shard, counts), plan.form)
            if counts["rows"] != shard.rows:
                raise AnnotationError(f"{shard}: expected {shard.rows} records, found {counts['rows']}")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if self.required_plan().digest != plan.digest:
                raise AnnotationError(
                    f"{self.path}: expected the plan to stay, found that another annotation was begun here"
                )
        about = shard._asdict() | {"errors": counts["errors"], "sha256": digest, "plan": plan.digest}
        with staged_file(self.manifest_of(shard), room=room) as file:
            file.write(_sealed(about))
        return counts["errors"]


def _sealed(content: dict[str, Any]) -> bytes:
    """As JSON that tells whether it was changed."""
    return json.dumps(content | {"seal": _seal(content)}).encode()


def _unsealed(written: bytes) -> dict[str, Any]:
    """Raises: ValueError: it is not as it was written."""
    content = json.loads(written)
    if not isinstance(content, dict) or content.pop("seal", None) != _seal(content):
        raise ValueError("its seal is broken")
    return content


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _numbered(
    records: Iterator[dict[str, Any]], shard: Shard, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """The records with the numbers of their rows; one more than there are rows, so that too many are
    noticed.
    """
    for number, record in enumerate(islice(records, shard.rows + 1), start=shard.first):
        counts["rows"] += 1
        counts["errors"] += record["error"] is not None
        yield {"row": number} | record


def annotate(
    folder: str | Path,
    rows: "Rows",
    find: Find,
    *,
    made_by: dict[str, Any],
    form: Form,
    rows_per_shard: int,
    rank: int = 0,
    world_size: int = 1,
    say: Callable[[str], object] = print,
) -> Outcome:
    """Annotate those shards of one of many workers that are not done.

    Args:
        folder: of the annotation, the same for all workers; the first makes it.
        rows: the input.
        find: see `Find`.
        made_by: names model and options; whoever goes on with the annotation must have the same.
        form: of the files of the shards.
        rows_per_shard: at most.
        rank, world_size: this worker's number, from 0, and how many there are. Any number of workers may go
            on.
        say: is told of each shard.

    Raises:
        AnnotationError: the annotation was begun with another model, input or option.
        FileExistsError: something else is in the folder.
    """
    if not 0 <= rank < world_size:
        raise AnnotationError(f"rank: expected 0 to {world_size - 1} of {world_size} workers, found {rank}")
    target = AnnotationFolder(folder)
    target.check_free()
    new_plan = partial(Plan.of, rows, made_by=made_by, form=form, rows_per_shard=rows_per_shard)
    with own_room(target.rooms) as room:
        plan = target.plan() or target.begin(new_plan(), room=room)
        plan.check_options(made_by | {"form": form, "rows_per_shard": rows_per_shard})
        mine = plan.shards[rank::world_size]
        plan.check_input(rows, sorted({shard.file for shard in mine}))
        outcome = Outcome(len(mine))
        for _ in range(
            _ROUNDS
        ):  # what was written is looked at again: disks fail, and others may have done the same shard
            waiting = [
                shard for shard in mine if shard.number not in outcome.failures and target.flaw(plan, shard)
            ]
            if not waiting:
                break
            for shard in waiting:
                try:
                    posts = rows.read(shard.file, shard.start, shard.rows, first=shard.first)
                    errors = target.write(plan, shard, find(posts, shard.first), room=room)
                except AnnotationError:
                    raise
                except Exception as error:  # one shard's trouble is not the others'
                    outcome.failures[shard.number] = f"{shard} failed: {type(error).__name__}: {error}"
                    say(outcome.failures[shard.number])
                else:
                    outcome.errors[shard.number] = errors
                    say(f"{shard} of {len(plan.shards)} shards is done, {errors} of its rows have an error")
        else:
            flaws = {
                shard: target.flaw(plan, shard) for shard in waiting if shard.number not in outcome.failures
            }
            outcome.failures |= {shard.number: f"{shard} {flaw}" for shard, flaw in flaws.items() if flaw}
        return outcome


@dataclass
class Verification:
    """What is in the folder of an annotation.

    Attributes:
        rows: of the input.
        done: how many of them are there exactly once.
        errors: how many of these have an error.
        flaws: what is missing, doubled, corrupt or should not be there; empty: nothing.
    """

    rows: int
    done: int = 0
    errors: int = 0
    flaws: list[str] = field(default_factory=list)


def verify(folder: str | Path, rows: "Rows | None" = None) -> Verification:
    """Read all files of an annotation, and count each row of the input.

    Args:
        rows: the input, to be read, too, and held against the plan; None: the plan's counts of it are
            believed.

    Raises:
        AnnotationError: there is no annotation in the folder, or the input is another one.
    """
    target = AnnotationFolder(folder)
    plan = target.required_plan()
    if rows is not None:
        plan.check_input(rows, [])
        found = Plan.of(rows, made_by=plan.made_by, form=plan.form, rows_per_shard=plan.rows_per_shard)
        for known, file in zip(plan.files, found.files, strict=True):
            if file["sha256"] != known["sha256"]:
                raise _other_file(file["name"], f"SHA-256 {file['sha256']} in place of {known['sha256']}")
        if found.digest != plan.digest:
            raise AnnotationError(
                f"{target.path}: expected shards as this input is cut now, found others in the plan"
            )
    report = Verification(plan.rows)
    for shard in plan.shards:
        expected = range(shard.first, shard.first + shard.rows)
        flaw, found_rows = target.flaw(plan, shard), Counter[int]()
        if flaw is None:
            found_rows.update(row_numbers(target.file_of(plan, shard), plan.form))
            flaw = _miscounted(found_rows, expected)
            report.errors += (target.manifest(shard) or {})["errors"]
        report.done += sum(found_rows[row] == 1 for row in expected)
        if flaw is not None:
            report.flaws.append(f"{shard} {flaw}")
    names = {ABOUT, *(target.file_of(plan, shard).name for shard in plan.shards)}
    others = sorted(path.name for path in target.path.iterdir() if path.name not in names)
    report.flaws += [f"{name} is no file of this annotation" for name in others]
    return report


def _miscounted(found: Counter[int], expected: range) -> str | None:
    """What is wrong with the rows of a file; None: each is there once."""
    counts = {
        "missing": sum(row not in found for row in expected),
        "doubled": sum(number > 1 for number in found.values()),
        "of other shards": sum(row not in expected for row in found),
    }
    told = [f"{number} rows {kind}" for kind, number in counts.items() if number]
    return f"has {', '.join(told)}" if told else None
