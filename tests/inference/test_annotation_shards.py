"""The contract of shards: what is done stays, what is not is done again, and nothing else counts."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_scripts.row_ranges import open_rows
from modeling_mmner import files as staging
from modeling_mmner.files import own_room
from modeling_mmner.inference.annotation_shards import (
    ABOUT,
    AnnotationError,
    AnnotationFolder,
    Outcome,
    Plan,
    verify,
)
from tests.annotation_parts import (
    MADE_BY,
    annotated,
    contents,
    done_shards,
    expected_records,
    find,
    records_in,
    write_posts,
)

ROWS = 23  # 5 shards of five rows each, the last of three


@pytest.fixture
def source(tmp_path) -> Path:
    return write_posts(tmp_path / "posts.jsonl", ROWS)


@pytest.fixture
def whole(source, tmp_path) -> dict[str, bytes]:
    """What one worker that nothing disturbs leaves."""
    annotated(source, tmp_path / "whole")
    return contents(tmp_path / "whole")


def test_each_row_is_there_once(source, tmp_path) -> None:
    """If it failed, rows would be lost, doubled or out of order."""
    outcome = annotated(source, tmp_path / "out")
    assert records_in(tmp_path / "out") == expected_records(source)
    assert outcome == Outcome(5, {0: 0, 1: 1, 2: 1, 3: 0, 4: 1})
    report = verify(tmp_path / "out", open_rows(str(source)))
    assert (report.rows, report.done, report.errors, report.flaws) == (ROWS, ROWS, 3, [])


@pytest.mark.parametrize("world_size", [2, 3, 4, 9])
def test_any_number_of_workers_leaves_the_same(source, tmp_path, whole, world_size) -> None:
    """If it failed, results would depend on how many machines there were."""
    for rank in reversed(range(world_size)):
        annotated(source, tmp_path / "out", rank=rank, world_size=world_size)
    assert contents(tmp_path / "out") == whole


def test_the_number_of_workers_may_change(source, tmp_path, whole) -> None:
    """If it failed, a job that lost machines could not go on."""
    annotated(source, tmp_path / "out", rank=1, world_size=3)
    assert done_shards(tmp_path / "out") == [1, 4]
    assert annotated(source, tmp_path / "out").errors.keys() == {0, 2, 3}
    assert contents(tmp_path / "out") == whole


def test_what_is_done_is_not_done_again(source, tmp_path) -> None:
    """If it failed, a job that is started again would cost its time again; the model must not even be
    asked.
    """
    annotated(source, tmp_path / "out")

    def never(posts: Iterator[Any], first: int) -> Iterator[dict[str, Any]]:
        raise AssertionError("asked")

    assert annotated(source, tmp_path / "out", find=never) == Outcome(5)


def damaged(folder: Path, damage: str) -> str:
    """Do some damage to shard 2; returns what is to be said of it."""
    file, manifest = folder / "annotated-00002-of-00005.jsonl", folder / ABOUT / "shard-00002.json"
    content = file.read_bytes()
    if damage == "a bit":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        return "is corrupt: annotated-00002-of-00005.jsonl has not the bytes that were written"
    if damage == "its end":
        file.write_bytes(content[:-1])
        return "is corrupt: annotated-00002-of-00005.jsonl has not the bytes that were written"
    if damage == "another shard's file":
        shutil.copy(folder / "annotated-00003-of-00005.jsonl", file)
        return "is corrupt: annotated-00002-of-00005.jsonl has not the bytes that were written"
    if damage == "another shard's file and manifest":
        shutil.copy(folder / "annotated-00003-of-00005.jsonl", file)
        shutil.copy(folder / ABOUT / "shard-00003.json", manifest)
        return "is of another annotation"
    if damage == "no file":
        file.unlink()
        return "has lost its file annotated-00002-of-00005.jsonl"
    if damage == "no manifest":
        manifest.unlink()
        return "is missing"
    if damage == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[:40])
        return "is missing"
    if damage == "a bit of its manifest":
        manifest.write_text(manifest.read_text().replace('"errors": 1', '"errors": 3'))
        return "is missing"
    rewrite(manifest, plan="0" * 64)
    return "is of another annotation"


def rewrite(manifest: Path, **changes: str) -> None:
    """Change what a manifest says, as whoever may."""
    about = json.loads(manifest.read_text()) | changes
    del about["seal"]
    seal = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    manifest.write_text(json.dumps(about | {"seal": seal}))


DAMAGES = [
    "a bit",
    "its end",
    "another shard's file",
    "another shard's file and manifest",
    "no file",
    "no manifest",
    "half a manifest",
    "a bit of its manifest",
    "another plan's manifest",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_and_done_again(source, tmp_path, whole, damage) -> None:
    """If it failed, a disk that fails would leave wrong rows that nobody notices, or all would have to be
    done again.
    """
    annotated(source, tmp_path / "out")
    said = damaged(tmp_path / "out", damage)
    report = verify(tmp_path / "out")
    assert report.flaws == [f"shard 2 (rows 10 to 14) {said}"] and report.done == ROWS - 5
    assert annotated(source, tmp_path / "out").errors.keys() == {2}
    assert contents(tmp_path / "out") == whole


def test_a_manifest_with_the_hash_of_wrong_rows_is_told(source, tmp_path) -> None:
    """If it failed, `--verify` would believe hashes alone, and not count rows."""
    annotated(source, tmp_path / "out")
    file, manifest = (
        tmp_path / "out/annotated-00001-of-00005.jsonl",
        tmp_path / f"out/{ABOUT}/shard-00001.json",
    )
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[0], *lines[2:4], lines[4].replace('"row": 9', '"row": 99')]))
    rewrite(manifest, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    report = verify(tmp_path / "out")
    assert report.flaws == [
        "shard 1 (rows 5 to 9) has 2 rows missing, 1 rows doubled, 1 rows of other shards"
    ]
    assert report.done == ROWS - 3


def test_a_file_that_does_not_belong_is_told(source, tmp_path) -> None:
    """If it failed, whoever loads the folder would have rows of something else among the corpus's."""
    annotated(source, tmp_path / "out")
    (tmp_path / "out/annotated-00000-of-00009.jsonl").write_text("{}")
    assert verify(tmp_path / "out").flaws == ["annotated-00000-of-00009.jsonl is no file of this annotation"]


def test_a_damaged_plan_is_told_and_can_be_made_again(source, tmp_path) -> None:
    """If it failed, one bad byte would cost all that was done."""
    annotated(source, tmp_path / "out")
    plan = tmp_path / "out" / ABOUT / "plan.json"
    plan.write_text(plan.read_text().replace('"rows": 23', '"rows": 32'))
    with pytest.raises(
        AnnotationError, match=r"plan\.json: expected the plan of an annotation, found it damaged \(its seal"
    ):
        annotated(source, tmp_path / "out")
    plan.unlink()
    assert annotated(source, tmp_path / "out") == Outcome(5)
    assert verify(tmp_path / "out").flaws == []


# Killed at every step


class Killed(BaseException):
    """In place of a signal: whatever a process does when it ends in order must not be needed."""


def steps(monkeypatch: pytest.MonkeyPatch, *, kill_at: int | None = None) -> list[str]:
    """Count what a worker does to files, and stop it before one of these; nothing is tidied up after."""
    done: list[str] = []
    real = {
        "fsync": os.fsync,
        "replace": Path.replace,
        "unlink": Path.unlink,
        "mkdir": Path.mkdir,
        "rmtree": shutil.rmtree,
    }

    def step(name: str) -> Any:
        def act(*args: Any, **kwargs: Any) -> Any:
            if kill_at is not None and len(done) >= kill_at:
                raise Killed(name)  # also whatever would tidy up
            done.append(name)
            return real[name](*args, **kwargs)

        return act

    monkeypatch.setattr(os, "fsync", step("fsync"))
    monkeypatch.setattr(staging.shutil, "rmtree", step("rmtree"))
    for name in ("replace", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, step(name))
    return done


def test_a_worker_may_be_killed_at_any_step(tmp_path, monkeypatch) -> None:
    """If it failed, a worker that is killed between writing, renaming and its manifest would lose, double or
    spoil rows.
    """
    source = write_posts(tmp_path / "posts.jsonl", 12)
    expected = expected_records(source)
    with monkeypatch.context() as patch:
        done = steps(patch)
        annotated(source, tmp_path / "counted")
    whole = contents(tmp_path / "counted")
    assert done.count("replace") == 7  # the plan, three shards and their manifests
    for step in range(len(done)):
        folder = tmp_path / f"killed-{step}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            steps(patch, kill_at=step)
            annotated(source, folder)
        if (folder / ABOUT / "plan.json").exists():
            good = [
                records for number in done_shards(folder) for records in expected[5 * number : 5 * number + 5]
            ]
            accepted = [row for row in records_in(folder) if row["row"] // 5 in done_shards(folder)]
            assert accepted == good, f"killed before step {step}, {done[step]}"
        annotated(source, folder)
        assert contents(folder) == whole, f"killed before step {step}, {done[step]}"
        assert verify(folder).flaws == []
        assert not [path for path in (folder / ABOUT / "incomplete").iterdir() if path.is_dir()]


def test_leftovers_of_the_dead_are_cleared_and_of_the_living_are_not(tmp_path) -> None:
    """If it failed, killed workers would fill the disk, or a worker's file would be taken from it while it
    writes.
    """
    rooms = tmp_path / "rooms"
    dead, elsewhere, long_dead = (
        rooms / name for name in (f"{staging.socket.gethostname()}-dead", "other-dead", "other-old")
    )
    for room in (dead, elsewhere, long_dead):
        room.mkdir(parents=True)
        (room / "shard").write_text("half")
        room.with_name(f"{room.name}.lock").touch()
    for path in (long_dead, long_dead / "shard", long_dead.with_name("other-old.lock")):
        os.utime(path, (0, 0))
    with own_room(rooms) as living, own_room(rooms) as other:
        assert living.is_dir() and other.is_dir()
        assert not dead.exists() and not long_dead.exists()
        assert elsewhere.exists(), "a room of another machine that was used today may be in use"
    assert sorted(path.name for path in rooms.iterdir()) == ["other-dead", "other-dead.lock"]


# Two at once


def test_two_workers_of_one_rank_do_no_harm(source, tmp_path, whole) -> None:
    """If it failed, a job that was started twice would spoil its results: here the second does all while the
    first is at work.
    """

    def interrupted(posts: Iterator[Any], first: int) -> Iterator[dict[str, Any]]:
        if first == 10:
            assert annotated(source, tmp_path / "out").failures == {}
        yield from find(posts, first)

    assert annotated(source, tmp_path / "out", find=interrupted).failures == {}
    assert contents(tmp_path / "out") == whole


def test_two_workers_that_write_otherwise_leave_one_result(source, tmp_path, monkeypatch) -> None:
    """If it failed, the file of one worker beside the manifest of another would count, or stay so.

    The second writes its whole shard between the file and the manifest of the first, as devices that round
    otherwise may.
    """
    write, nested = AnnotationFolder.manifest_of, []

    def rounded(posts: Iterator[Any], first: int) -> Iterator[dict[str, Any]]:
        for record in find(posts, first):
            yield record | {"entities": [{"score": 0.5}]}

    def manifest_of(self: AnnotationFolder, shard: Any) -> Path:
        if shard.number == 2 and (tmp_path / "out/annotated-00002-of-00005.jsonl").exists() and not nested:
            nested.append(1)
            annotated(source, tmp_path / "out", find=rounded)
        return write(self, shard)

    monkeypatch.setattr(AnnotationFolder, "manifest_of", manifest_of)
    assert annotated(source, tmp_path / "out").failures == {} and nested
    assert verify(tmp_path / "out").flaws == []


# Something else into the same folder


def test_a_changed_input_is_refused(source, tmp_path) -> None:
    """If it failed, a folder would hold rows of two inputs."""
    annotated(source, tmp_path / "out", rank=0, world_size=2)
    before = contents(tmp_path / "out")
    content = source.read_bytes()
    said = "input posts.jsonl: expected the file that the annotation was begun with, found "
    changes = {
        content + b"\n": (
            f"{said}{len(content) + 1:,} bytes in place of {len(content):,}. Put that file back, or begin"
        ),
        content.replace(b"Paris", b"Lyons", 1): f"{said}SHA-256 ",
    }
    for changed, expected in changes.items():
        source.write_bytes(changed)
        with pytest.raises(AnnotationError) as refused:
            annotated(source, tmp_path / "out", rank=1, world_size=2)
        assert str(refused.value).startswith(expected)
        with pytest.raises(
            AnnotationError, match=r"input posts\.jsonl: expected the file that the annotation was begun"
        ):
            verify(tmp_path / "out", open_rows(str(source)))
    source.rename(tmp_path / "others.jsonl")
    with pytest.raises(AnnotationError, match=r"input: expected the files posts\.jsonl, found others\.jsonl"):
        annotated(tmp_path / "others.jsonl", tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_copy_of_the_input_is_the_input(source, tmp_path) -> None:
    """If it failed, machines with their own copies of the input could not work together."""
    annotated(source, tmp_path / "out", rank=0, world_size=2)
    (tmp_path / "copy").mkdir()
    shutil.copyfile(source, tmp_path / "copy/posts.jsonl")
    assert annotated(tmp_path / "copy/posts.jsonl", tmp_path / "out").errors.keys() == {1, 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"made_by": MADE_BY | {"model": "other"}}, "model: expected capitals, found other. Go on with what"),
        (
            {"made_by": MADE_BY | {"more": 1}, "form": "parquet"},
            "form: expected jsonl, found parquet; more: expected None, found 1.",
        ),
        (
            {"rows_per_shard": 6},
            "rows_per_shard: expected 5, found 6. Go on with what the annotation was begun with",
        ),
    ],
)
def test_another_model_or_option_is_refused(source, tmp_path, options, said) -> None:
    """If it failed, a folder would hold rows of two models."""
    annotated(source, tmp_path / "out", rank=0, world_size=2)
    before = contents(tmp_path / "out")
    with pytest.raises(AnnotationError) as refused:
        annotated(source, tmp_path / "out", **options)
    assert str(refused.value).startswith(said)
    assert contents(tmp_path / "out") == before


def test_two_that_begin_at_once_with_other_models_are_no_mix(source, tmp_path) -> None:
    """If it failed, two jobs started into one new folder would both write there; the second plan comes while
    the first works.
    """

    def overtaken(posts: Iterator[Any], first: int) -> Iterator[dict[str, Any]]:
        target = AnnotationFolder(tmp_path / "out")
        other = Plan.of(open_rows(str(source)), made_by={"model": "other"}, form="jsonl", rows_per_shard=5)
        with own_room(target.rooms) as room:
            target.begin(other, room=room)
        yield from find(posts, first)

    with pytest.raises(
        AnnotationError, match="expected the plan to stay, found that another annotation was begun here"
    ):
        annotated(source, tmp_path / "out", find=overtaken)
    assert done_shards(tmp_path / "out") == [] and records_in(tmp_path / "out") == []


def test_a_folder_with_something_else_is_refused_untouched(source, tmp_path) -> None:
    """If it failed, shards would lie among someone's other files."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    with pytest.raises(
        FileExistsError, match=r"notes: expected a new or an empty folder, or an annotation, found mine\.txt"
    ):
        annotated(source, tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]
    with pytest.raises(AnnotationError, match="notes: expected the folder of an annotation, found none"):
        verify(tmp_path / "notes")


# One shard's trouble


def test_a_shard_that_fails_does_not_stop_the_others(source, tmp_path, whole) -> None:
    """If it failed, one batch that does not fit in memory would leave all later shards undone."""

    def failing(posts: Iterator[Any], first: int) -> Iterator[dict[str, Any]]:
        yield next(find(posts, first))
        if first == 5:
            raise RuntimeError("out of memory")
        yield from find(posts, first)

    outcome = annotated(source, tmp_path / "out", find=failing)
    assert outcome.failures == {1: "shard 1 (rows 5 to 9) failed: RuntimeError: out of memory"}
    assert done_shards(tmp_path / "out") == [0, 2, 3, 4]
    assert annotated(source, tmp_path / "out").errors.keys() == {1}
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize(("records", "found"), [(4, 4), (6, 6), (9, 6)])
def test_a_model_that_loses_or_doubles_a_row_is_refused(source, tmp_path, records, found) -> None:
    """If it failed, every row after it would have the entities of another one."""

    def miscounting(posts: Iterator[Any], first: int) -> Iterator[dict[str, Any]]:
        yield from (list(find(posts, first)) * 2)[:records]

    with pytest.raises(AnnotationError, match=rf"shard 0 \(rows 0 to 4\): expected 5 records, found {found}"):
        annotated(source, tmp_path / "out", find=miscounting)
    assert done_shards(tmp_path / "out") == []


def test_a_rank_that_is_none_is_refused(source, tmp_path) -> None:
    """If it failed, a worker would do nothing, and say that all is well."""
    with pytest.raises(AnnotationError, match="rank: expected 0 to 3 of 4 workers, found 4"):
        annotated(source, tmp_path / "out", rank=4, world_size=4)


def test_an_empty_input_is_an_annotation_of_nothing(tmp_path) -> None:
    """If it failed, a pipeline over many files would stop at an empty one."""
    source = write_posts(tmp_path / "posts.jsonl", 0)
    assert annotated(source, tmp_path / "out") == Outcome(0)
    assert verify(tmp_path / "out").flaws == []
