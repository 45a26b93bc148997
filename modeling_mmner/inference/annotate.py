"""A corpus of any size, annotated in tasks that datatrove runs.

No row is lost or doubled, whichever process is killed and whatever is run again: the folder of an annotation
has a file for each task, a range of the input's rows. A file appears under its name when it is whole and on
the disk, and after that datatrove marks its task as done; a task without a mark starts over. The hidden
folder `ABOUT` holds the marks, datatrove's logs, and the record of the run.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from .. import __version__
from ..claims import claimed
from ..escaping import say
from ..files import parsed, write_text, write_whole
from .annotator import FOUND, Annotator, table_of
from .loading import computing_dtype, device_named
from .posts_input import PostsInput
from .posts_input import open_posts as open_posts

ABOUT = ".annotation"
SCHEMA = pa.schema([pa.field("row", pa.int64()), pa.field("id", pa.string()), *FOUND])
"""A row of an annotation: the position of a post in the input, from 0, its id, and what is found in it."""
_ROWS = 1000  # of a table that is written at a time
_CARD = """
Entities found by mmner, a row for each post. `row` is its position in the input; `start` and `end` of an
entity count characters of `text`, `first_word` and `last_word` its `tokens`, from 0. An entity in a picture
has the picture's number `image`, from 0, and the `box` in its pixels.
"""


class AnnotateStep(PipelineStep):
    """One task of an annotation, the only step of its pipeline, for any executor of datatrove.

    Give the executor ``logging_dir=f"{output_dir}/.annotation"``, which is where `annotate` keeps its marks.

    Args:
        annotator: finds the entities.
        posts: the input; paths of pictures do not lead out of its `image_dir`.
        output_dir: folder of the annotation, the same for all tasks.
    """

    type, name = "annotation", "mmner"

    def __init__(self, annotator: Annotator, posts: PostsInput, output_dir: str | Path) -> None:
        super().__init__()
        self.annotator = replace(annotator, image_dir=posts.image_dir)
        self.posts, self.folder = posts, Path(output_dir)

    def begin(self, tasks: int) -> None:
        """Write the record of the run, or hold this run against it.

        Raises:
            ValueError: the annotation was begun with another model, input, option or number of tasks.
            FileExistsError: something else is in the folder.
        """
        annotator, folder, posts = self.annotator, self.folder, self.posts
        # Machines that compute in another dtype would give other scores.
        dtype = str(computing_dtype(annotator.dtype, device_named(annotator.device)))
        record: dict[str, Any] = {"mmner": __version__, "model": annotator.sha256, "dtype": dtype}
        record |= {name: getattr(annotator, name) for name in ("threshold", "precision", "effects")}
        reader = annotator.read_pictures
        record["read_pictures"] = getattr(reader, "__qualname__", None) or repr(reader)
        record |= {"input": posts.sha256, "rows": len(posts.rows)}
        record |= {"columns": dict(posts.columns), "tasks": tasks}
        if _record_in(folder) is None:
            if others := {path.name for path in folder.glob("*")} - {ABOUT}:
                expected = "expected a new folder, or an annotation"
                raise FileExistsError(f"{folder}: {expected}, found {min(others)}")
            (folder / ABOUT).mkdir(parents=True, exist_ok=True)
            write_text(folder / ABOUT / "run.json", json.dumps(record, indent=1))
        known = _record_in(folder) or {}  # of whoever wrote it last, where several began at once
        if not (folder / "README.md").exists():
            write_text(folder / "README.md", _card())
        if names := [name for name in record if known.get(name) != record[name]]:
            said = "; ".join(f"{name}: expected {known.get(name)}, found {record[name]}" for name in names)
            advice = f"Go on with what {folder} was begun with, or annotate into a new folder"
            raise ValueError(f"{said}. {advice}")

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Annotate this task's rows; gives no documents. Raises as `begin`."""
        self.begin(world_size)
        numbers = _range_of(rank, world_size, len(self.posts.rows))
        found = self.annotator.find(self.posts.read(numbers), first=numbers.start)
        records = ({"row": number} | record for number, record in zip(numbers, found, strict=True))
        target = self.folder / _file_name(rank, world_size)
        with claimed(target, beside=True), self.track_time():
            for unfinished in self.folder.glob(f"{target.name}.*"):
                unfinished.unlink(missing_ok=True)
            write_whole(target, lambda path: _write(path, records))
        return ()


def _file_name(rank: int, tasks: int) -> str:
    return f"annotated-{rank:05d}-of-{tasks:05d}.parquet"


def _range_of(rank: int, tasks: int, rows: int) -> range:
    """The rows of a task, as `Dataset.shard(..., contiguous=True)` has them, but that some may have none."""
    each, more = divmod(rows, tasks)
    first = rank * each + min(rank, more)
    return range(first, first + each + (rank < more))


def _record_in(folder: Path) -> dict[str, Any] | None:
    """What the annotation in a folder was begun with; None where there is none."""
    path = folder / ABOUT / "run.json"
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: expected an annotation's record, found it damaged ({error})") from error


def _card() -> str:
    """The card by which `load_dataset` reads the tasks' files alone, and knows their columns."""
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(configs=[{"config_name": "default", "data_files": "annotated-*.parquet"}])
    info = datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(SCHEMA))
    datasets.info.DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    return f"---\n{data.to_yaml()}\n---\n{_CARD}"


def _write(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while part := list(islice(records, _ROWS)):
            writer.write_table(table_of(part, SCHEMA))


def _read(path: Path) -> Iterator[tuple[int, str | None]]:
    """The position and the error of each row of a file, of which all is read."""
    for batch in pq.ParquetFile(path).iter_batches():
        yield from zip(batch["row"].to_pylist(), batch["error"].to_pylist(), strict=True)


@dataclass
class Outcome:
    """What is in the folder of an annotation; as a string, some lines about it."""

    rows: int = 0  # of the input, or of the tasks of this machine
    done: int = 0  # how many of them are there, each once
    errors: int = 0  # how many rows have an error
    flaws: list[str] = field(default_factory=list)  # what is missing or damaged, or should not be there

    def __str__(self) -> str:
        more = [f"... and {len(self.flaws) - 20} more"] if len(self.flaws) > 20 else []
        counts = f"{self.done:,} of {self.rows:,} rows are there exactly once, {self.errors:,} with an error"
        return "\n".join([*self.flaws[:20], *more, counts])


def annotate(
    step: AnnotateStep, *, tasks: int = 1, workers: int = 1, local_tasks: int = -1, local_rank_offset: int = 0
) -> Outcome:
    """Annotate a corpus on this machine; tasks that are done are not done again.

    Args:
        step: what each task does.
        tasks: into which the input is divided, on all machines. One that is killed starts over.
        workers: tasks that run at a time, each in a process with the model.
        local_tasks, local_rank_offset: how many of the tasks run on this machine, and the first of them; -1:
            all.

    Raises:
        ValueError, OSError: there are no such tasks, or see `AnnotateStep.begin`.
    """
    share = {"local_tasks": local_tasks, "local_rank_offset": local_rank_offset}
    executor = LocalPipelineExecutor([step], tasks, workers, str(step.folder / ABOUT), **share)
    step.begin(tasks)
    ranks = range(local_rank_offset, local_rank_offset + executor.local_tasks)
    for rank in ranks:
        if not (step.folder / _file_name(rank, tasks)).exists():  # it was removed
            (step.folder / ABOUT / f"completions/{rank:05d}").unlink(missing_ok=True)
    waiting = executor.get_incomplete_ranks(ranks)
    workers = min(workers, len(waiting))
    if workers < 2:
        _work(executor, waiting)
        return verify(step.folder, ranks=ranks)
    # Not by the executor's own pool, which would wait without end for a worker that is killed.
    shares = [(executor, waiting[number::workers], workers) for number in range(workers)]
    processes = [get_context("spawn").Process(target=_work, args=share) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return verify(step.folder, ranks=ranks)


def _work(executor: LocalPipelineExecutor, ranks: list[int], workers: int = 1) -> None:
    """Run tasks one after the other, in one of several processes on a share of the cores."""
    if workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    for rank in ranks:
        # Whoever starts again shall have the machine.
        if (parent := parent_process()) and not parent.is_alive():
            return
        try:
            executor._run_for_rank(rank, local_rank=1)  # the first alone would log to the terminal
        except Exception as error:
            say(f"task {rank} failed: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            say(f"task {rank} of {executor.tasks} is done")


def verify(output_dir: str | Path, *, ranks: Iterable[int] | None = None) -> Outcome:
    """Read the files of an annotation, of all tasks or of some, and count the positions of the input.

    Raises:
        ValueError: there is no annotation in the folder.
    """
    folder, outcome = Path(output_dir), Outcome()
    if (record := _record_in(folder)) is None:
        raise ValueError(f"{output_dir}: expected the folder of an annotation, found none")
    tasks = record["tasks"]
    for rank in range(tasks) if ranks is None else ranks:
        name, numbers = _file_name(rank, tasks), _range_of(rank, tasks, record["rows"])
        outcome.rows += len(numbers)
        try:
            for number, (row, error) in zip(numbers, _read(folder / name), strict=True):
                if row != number:
                    raise ValueError(f"row {row} in the place of row {number}")
                outcome.errors += error is not None
            outcome.done += len(numbers)
        except FileNotFoundError:
            log = folder / ABOUT / f"logs/task_{rank:05d}.log"
            outcome.flaws.append(f"{name} is missing; annotate again, and see {log} if it fails")
        except (OSError, ValueError, LookupError, TypeError) as error:
            outcome.flaws.append(f"{name} is damaged ({error}); remove it, and annotate again")
    others = {path.name for path in folder.glob("annotated-*.parquet")}
    others -= {_file_name(rank, tasks) for rank in range(tasks)}
    outcome.flaws += [f"{name} is no file of this annotation" for name in sorted(others)]
    return outcome
