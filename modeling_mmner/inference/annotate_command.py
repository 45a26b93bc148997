"""The command `annotate`, and the same for whoever starts workers otherwise."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from dataset_scripts.commands import mapping_reader

from ..model_commands import add_predictor_options, positive

if TYPE_CHECKING:
    from dataset_scripts.row_ranges import Rows

    from .annotation_shards import Outcome

_MOST_FLAWS = 20


@dataclass
class AnnotationJob:
    """A corpus to annotate; the options of the command.

    Attributes:
        model: a folder, or an id on the Hub.
        input, config, split, revision, columns, image_dir: see `dataset_scripts.row_ranges.open_rows`.
        output_dir: folder of the annotation, the same for all workers.
        form: of the files there, ``parquet`` or ``jsonl``.
        rows_per_shard: at most.
        device, dtype, quantize, threshold, batch_size, num_workers: see `Annotator`.
    """

    model: str
    input: str
    output_dir: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    image_dir: str | None = None
    form: Any = "parquet"
    rows_per_shard: int = 10_000
    device: str | None = None
    dtype: Any = "auto"
    quantize: Any = None
    threshold: float = 0.0
    batch_size: int = 32
    num_workers: int = 0

    def rows(self) -> "Rows":
        from dataset_scripts.row_ranges import open_rows

        named = {
            name: getattr(self, name) for name in ("config", "split", "revision", "columns", "image_dir")
        }
        return open_rows(self.input, **named)

    def run(self, *, rank: int = 0, world_size: int = 1, say: Callable[[str], object] = print) -> "Outcome":
        """Do one worker's share, see `annotation_shards.annotate`."""
        from .annotation_shards import annotate
        from .annotator import Annotator

        names = ("model", "device", "dtype", "quantize", "threshold", "batch_size", "num_workers")
        annotator = Annotator(**{name: getattr(self, name) for name in names})
        return annotate(
            self.output_dir,
            self.rows(),
            annotator.find,
            made_by=annotator.made_by() | {"columns": self.columns},
            form=self.form,
            rows_per_shard=self.rows_per_shard,
            rank=rank,
            world_size=world_size,
            say=say,
        )


def worker_of(
    environment: Mapping[str, str], rank: int | None = None, world_size: int | None = None
) -> tuple[int, int]:
    """This worker's number, from 0, and how many there are: as given, else by the environment, else 0 of 1.

    The environment has RANK and WORLD_SIZE, as torchrun sets them, or SLURM_ARRAY_TASK_ID and
    SLURM_ARRAY_TASK_COUNT, of an array that may begin at any number and take any step.

    Raises:
        ValueError: one of a pair is there without the other, one is no number, or the rank is not below the
            number of workers.
    """
    pairs = {
        "--rank, --world_size": (rank, world_size),
        "RANK, WORLD_SIZE": (environment.get("RANK"), environment.get("WORLD_SIZE")),
        "SLURM_ARRAY_TASK_ID, SLURM_ARRAY_TASK_COUNT": (
            _slurm_rank(environment),
            environment.get("SLURM_ARRAY_TASK_COUNT"),
        ),
    }
    for names, pair in pairs.items():
        if pair == (None, None):
            continue
        try:
            own, all_workers = (int(number) for number in pair if number is not None)
        except ValueError:
            raise ValueError(f"{names}: expected two numbers, found {pair[0]} and {pair[1]}") from None
        if not 0 <= own < all_workers:
            raise ValueError(
                f"{names}: expected a worker from 0 to {all_workers - 1}, found {own} of {all_workers}"
            )
        return own, all_workers
    return 0, 1


def _slurm_rank(environment: Mapping[str, str]) -> str | None:
    """Where in its array a task stands, from 0."""
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")
    task, first, step = (
        environment.get(name, default) for name, default in zip(names, ("", "0", "1"), strict=True)
    )
    if not task:
        return None
    return (
        str((int(task) - int(first)) // int(step))
        if all(part.isdecimal() for part in (task, first, step))
        else task
    )


def add_annotate_command(commands: Any) -> None:
    """Add `annotate`."""
    annotate = commands.add_parser(
        "annotate",
        help="find the entities of a corpus of any size, by one worker or many",
        description=(
            "Annotates JSON lines, Parquet or a data set in shards. Start as many workers as you like, on as"
            " many machines, with the same options; start them again after anything. What is done is not done"
            " again."
        ),
        allow_abbrev=False,
    )
    annotate.set_defaults(command=_annotate)
    annotate.add_argument(
        "--verify",
        metavar="OUT",
        help="count the rows of an annotation, check its files and, if given, --input",
    )
    annotate.add_argument("--input", help="file of JSON lines or Parquet, folder or Hub id of a data set")
    annotate.add_argument(
        "--output_dir", metavar="OUT", help="folder of the annotation, the same for all workers"
    )
    add_predictor_options(annotate, model_required=False)
    annotate.add_argument(
        "--threshold", type=float, default=0.0, help="leave out entities with a lower score, in 0..1"
    )
    annotate.add_argument(
        "--form",
        choices=("parquet", "jsonl"),
        default=AnnotationJob.form,
        help="of the files (default parquet)",
    )
    annotate.add_argument(
        "--rows_per_shard",
        type=positive,
        default=AnnotationJob.rows_per_shard,
        help="rows a shard, at most (default 10000)",
    )
    annotate.add_argument(
        "--rank", type=int, help="number of this worker, from 0; default: RANK, or its place in Slurm's array"
    )
    annotate.add_argument(
        "--world_size",
        type=int,
        help="number of workers; default: WORLD_SIZE, or the length of Slurm's array",
    )
    annotate.add_argument("--config", help="config of a data set that has several")
    annotate.add_argument("--split", help="split of a data set that has several")
    annotate.add_argument("--revision", help="branch, tag or commit of a data set on the Hub")
    renaming = {"type": mapping_reader("OURS=THEIRS"), "metavar": "OURS=THEIRS,...", "default": {}}
    annotate.add_argument(
        "--columns", **renaming, help="what our columns are called in the files, as text=body"
    )
    annotate.add_argument(
        "--image_dir", help="folder with the pictures; default: the folder of the file that names them"
    )


def _annotate(options: argparse.Namespace) -> int:
    """Do a worker's share, or look at all that was done; the status is 1 where something of it is missing."""
    if options.verify:
        return _verify(options)
    if missing := [name for name in ("model", "input", "output_dir") if getattr(options, name) is None]:
        raise ValueError(
            "expected --model, --input and --output_dir, or --verify OUT; found no"
            f" --{' and no --'.join(missing)}"
        )
    job = AnnotationJob(**{item.name: getattr(options, item.name) for item in fields(AnnotationJob)})
    rank, world_size = worker_of(os.environ, options.rank, options.world_size)

    def say(line: str) -> None:
        print(line, flush=True)

    outcome = job.run(rank=rank, world_size=world_size, say=say)
    done, there = (
        len(outcome.errors.keys() - outcome.failures),
        outcome.shards - len(outcome.errors | outcome.failures),
    )
    print(f"{job.output_dir}, worker {rank} of {world_size}: {done} shards annotated, {there} were there")
    for failure in outcome.failures.values():
        print(f"annotate: {failure}", file=sys.stderr)
    if errors := sum(outcome.errors.values()):
        print(
            f"annotate: {errors} rows have an 'error', a post or a picture that could not be read",
            file=sys.stderr,
        )
    return int(bool(outcome.failures))


def _verify(options: argparse.Namespace) -> int:
    from dataset_scripts.row_ranges import open_rows

    from .annotation_shards import verify

    named = {name: getattr(options, name) for name in ("config", "split", "revision")}
    report = verify(options.verify, open_rows(options.input, **named) if options.input else None)
    for flaw in report.flaws[:_MOST_FLAWS]:
        print(flaw)
    if len(report.flaws) > _MOST_FLAWS:
        print(f"... and {len(report.flaws) - _MOST_FLAWS} more")
    counts = f"{report.done:,} of {report.rows:,} rows are there exactly once"
    print(f"{options.verify}: {counts}, {report.errors:,} of them with an error")
    return int(bool(report.flaws))
