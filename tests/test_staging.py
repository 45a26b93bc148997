"""Tests of folders that are there whole or not at all, whenever the process that makes them is killed."""

import errno
import fcntl
import json
import multiprocessing
import os
import platform
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modeling_mmner.claims import claimed
from modeling_mmner.files import recovered, renewed_folder, staged_folder, write_whole
from modeling_mmner.inference.loading import _reading
from modeling_mmner.training.assembly import check_checkpoint
from modeling_mmner.training.checkpoints import _problem
from tests.built_corpora import files_of
from tests.interrupted import at_work, hold

OLD, NEW = {"mark": b"old", "part/old": b"1"}, {"mark": b"new", "part/new": b"2"}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def under_target(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"target/{name}": content for name, content in files.items()}


def replace(target: Path) -> None:
    """Put the new files in a target's place."""
    with staged_folder(target, marker="mark", overwrite=True) as staged:
        fill(staged, NEW)


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(action: Callable[[], None]) -> int:
    """Run an action in a process of its own, which gets killed in it; returns the process's number."""
    process = multiprocessing.get_context("fork").Process(target=action)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return process.pid


def dies_while_filling(target: Path) -> None:
    with staged_folder(target, marker="mark", overwrite=True) as staged:
        fill(staged, {"part/new": b"2"})
        die()


def dies_in(owner: Any, name: str, doing: Callable[..., Any]) -> Callable[[Path], None]:
    """A replacement in which a function is another one."""

    def replacement(target: Path) -> None:
        setattr(owner, name, doing)
        replace(target)

    return replacement


RENAME = Path.rename
BEFORE_MOVING = dies_in(Path, "rename", die)
BETWEEN_RENAMES = dies_in(
    Path, "rename", lambda self, to: die() if "incomplete" in self.name else RENAME(self, to)
)
DEATHS = {
    "filling": (dies_while_filling, OLD),
    "before the old one is moved": (BEFORE_MOVING, OLD),
    "between the two renames": (BETWEEN_RENAMES, OLD),
    "before the old one is deleted": (dies_in(shutil, "rmtree", die), NEW),
    "deleting": (dies_in(shutil, "rmtree", lambda path, **_: ((path / "mark").unlink(), die())), NEW),
}


def test_folder_is_there_only_when_it_is_whole(tmp_path, monkeypatch):
    """If it failed, a reader could find half a folder, or a folder's parents have to be made first."""
    monkeypatch.chdir(tmp_path)
    with staged_folder("deep/er/target", marker="mark") as staged:
        fill(staged, NEW)
        assert not (tmp_path / "deep" / "er" / "target").exists()
    assert files_of(tmp_path) == {f"deep/er/target/{name}": content for name, content in NEW.items()}


def test_old_folder_is_put_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    """If it failed, an error of the file system at the wrong moment would hide a user's data set."""
    target, rename = fill(tmp_path / "target", OLD), Path.rename

    def failing(self: Path, to: Path) -> Path:
        if "incomplete" in self.name:
            raise PermissionError("not now")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(PermissionError, match="not now"):
        replace(target)
    assert files_of(tmp_path) == under_target(OLD)


@pytest.mark.parametrize(("dies", "left"), DEATHS.values(), ids=DEATHS)
def test_killed_replacement_loses_nothing(tmp_path, dies, left):
    """If it failed, a data set could be lost when its renewal is killed, or rubbish stay for ever."""
    target = fill(tmp_path / "target", OLD)
    killed(lambda: dies(target))
    message = "found a built data set; --overwrite replaces it"
    with pytest.raises(FileExistsError, match=message), staged_folder(target, marker="mark"):
        pass
    assert files_of(tmp_path) == under_target(left)
    killed(lambda: dies(target))
    replace(target)
    assert files_of(tmp_path) == under_target(NEW)


@pytest.mark.parametrize("number", [os.getpid(), os.getppid()], ids=["this process's", "another's"])
def test_remains_are_put_back_whoever_has_their_processs_number_now(tmp_path, number):
    """If it failed, a model whose saving was killed would be gone for as long as that number is taken."""
    target = tmp_path / "target"
    fill(tmp_path / f".target.replaced-{number}-01234567", OLD)
    fill(tmp_path / f".target.incomplete-{number}-01234567", {"part/new": b"2"})
    with recovered(target):
        assert (target / "mark").is_file()
    assert files_of(tmp_path) == under_target(OLD)


def test_second_maker_is_refused_and_the_first_one_undisturbed(tmp_path):
    """If it failed, two builds at a time would delete each other's files."""
    target = tmp_path / "target"

    def make(wait: Callable[[], None]) -> None:
        with staged_folder(target) as staged:
            fill(staged, OLD)
            wait()

    process, let_end = at_work(make)
    found = (
        f"{target}: process {process.pid} on {platform.node()}, which began .*, is at work there; wait for"
    )
    with pytest.raises(BlockingIOError, match=found):
        replace(target)
    let_end()
    process.join()
    assert files_of(tmp_path) == under_target(OLD)
    replace(target)
    assert files_of(tmp_path) == under_target(NEW)


def test_claim_ends_with_its_process_though_a_forked_child_lives_on(tmp_path):
    """If it failed, the loader workers of a killed run would keep the next one out."""
    children = multiprocessing.get_context("fork").SimpleQueue()

    def hold_and_fork(wait: Callable[[], None]) -> None:
        with claimed(tmp_path):
            if (child := os.fork()) == 0:
                time.sleep(60)
                os._exit(0)
            children.put(child)
            wait()

    process, _ = at_work(hold_and_fork)
    child = children.get()
    try:
        with pytest.raises(BlockingIOError, match=f"process {process.pid} on"), claimed(tmp_path, patience=0):
            pass
        process.kill()
        process.join()
        assert (tmp_path / ".claim").is_file()  # as a dead run leaves it
        with claimed(tmp_path):
            assert (tmp_path / ".claim").read_text().startswith(f"process {os.getpid()} on {platform.node()}")
    finally:
        os.kill(child, signal.SIGKILL)
    assert files_of(tmp_path) == {}


def test_claim_waits_as_long_as_it_may(tmp_path):
    """If it failed, a run that is started again would be refused because of its predecessor's last second."""
    process, let_end = at_work(hold(tmp_path))
    threading.Timer(0.5, let_end).start()
    with claimed(tmp_path, patience=30):
        assert (tmp_path / ".claim").read_text().startswith(f"process {os.getpid()} ")
    process.join()


def test_claim_is_of_one_thread_which_may_claim_again(tmp_path):
    """If it failed, what claims a folder could call nothing that does, or threads would share one."""
    with claimed(tmp_path), ThreadPoolExecutor(1) as pool:
        with claimed(tmp_path):
            pass
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on .* is at work there"):
            pool.submit(claimed(tmp_path, patience=0).__enter__).result()
        process = multiprocessing.get_context("fork").Process(target=hold(tmp_path), args=(lambda: None,))
        process.start()
        process.join()
        assert process.exitcode == 1  # neither the end of the inner claim nor a fork has given it to another


def test_claims_taken_in_turn_never_overlap(tmp_path):
    """If it failed, two processes could hold one folder: the file of a claim is removed when it ends."""

    def count() -> None:
        for _ in range(100):
            with claimed(tmp_path / "place", beside=True, patience=60):
                path = tmp_path / "count"
                path.write_text(str(int(path.read_text()) + 1))

    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert files_of(tmp_path) == {"count": b"300"}


def test_disk_without_locks_is_told_and_used(tmp_path, monkeypatch):
    """If it failed, nothing could be saved on the disks of some clusters."""

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with pytest.warns(UserWarning, match="this disk has no locks; use it by one command"):
        replace(tmp_path / "target")
    assert files_of(tmp_path) == under_target(NEW)


@pytest.mark.parametrize("name", ["[ab]", "a*", "a?", "a b", "ä"])
def test_remains_of_other_targets_are_left_alone(tmp_path, name):
    """If it failed, a folder's odd name would make a build miss its remains, or delete others'."""
    number = killed(die)
    for other in (name, "ab", "a", "other"):
        fill(tmp_path / f".{other}.incomplete-{number}-01234567", {"part/new": b"2"})
    replace(tmp_path / name)
    kept = {path.name.split(".")[1] for path in tmp_path.glob(".*")}
    assert kept == {"ab", "a", "other"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("marker", [None, "mark"])
@pytest.mark.parametrize("is_file", [False, True])
def test_what_is_not_of_the_same_making_stays(tmp_path, marker, overwrite, is_file):
    """If it failed, a wrong output folder, or a file of its name, would cost a user's work."""
    target = tmp_path / "target" if is_file else fill(tmp_path / "target", {"thesis.txt": b"1"})
    if is_file:
        target.write_bytes(b"1")
    before, staging = files_of(tmp_path), staged_folder(target, marker=marker, overwrite=overwrite)
    with pytest.raises(FileExistsError, match="target: expected a new or an empty folder"), staging:
        pass
    assert files_of(tmp_path) == before


# A folder that others may have put files into


def renew(target: Path) -> None:
    """Put the new files in the old ones' place, and leave others alone."""
    with renewed_folder(target, is_ours=OLD.keys().__contains__) as staged:
        fill(staged, NEW)


def test_files_of_others_go_along(tmp_path):
    """If it failed, saving again would cost notes beside a model, keep its old files, or break a link."""
    foreign = {"notes.txt": b"mine", "part/own.txt": b"mine, too", "part/new": b"not mine"}
    elsewhere = fill(tmp_path / "elsewhere", OLD | foreign)
    (elsewhere / "empty").mkdir()
    (elsewhere / "link").symlink_to("notes.txt")
    target = tmp_path / "target"
    target.symlink_to("elsewhere")
    renew(target)
    kept = {"notes.txt": b"mine", "part/own.txt": b"mine, too", "link": b"mine", "empty": b""}
    assert target.is_symlink() and files_of(elsewhere) == NEW | kept and (elsewhere / "link").is_symlink()
    with pytest.raises(FileExistsError, match=r"notes\.txt: expected a folder, found a file; remove it"):
        renew(elsewhere / "notes.txt")


@pytest.mark.parametrize("dies", [BEFORE_MOVING, BETWEEN_RENAMES])
def test_killed_renewal_leaves_the_old_folder_or_none(tmp_path, monkeypatch, dies):
    """If it failed, the new weights could lie beside the old tokenizer."""
    target = fill(tmp_path / "target", OLD | {"notes.txt": b"mine"})
    monkeypatch.setattr(sys.modules[__name__], "replace", renew)
    killed(lambda: dies(target))
    assert not target.exists() or files_of(target) == OLD | {"notes.txt": b"mine"}
    renew(target)
    assert files_of(tmp_path) == under_target(NEW | {"notes.txt": b"mine"})


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_file_is_the_old_one_until_it_is_the_new_one(tmp_path, error):
    """If it failed, a full disk would leave half a file in a whole one's place, or its remains."""
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def write_half(partial: Path) -> None:
        partial.write_text("ne")
        raise error

    with pytest.raises(type(error)):
        write_whole(path, write_half)
    assert files_of(tmp_path) == {"metrics.json": b"old"}
    write_whole(path, lambda partial: partial.write_text("new"))
    assert files_of(tmp_path) == {"metrics.json": b"new"}


# Files of others that cannot be read, and modes


def renewed_apart(target: Path) -> None:
    """Renew a folder in a process that may take ten seconds."""
    process = multiprocessing.get_context("fork").Process(target=renew, args=(target,))
    process.start()
    process.join(10)
    process.kill()
    assert process.exitcode == 0, "expected the renewal to end within ten seconds"


def test_pipe_in_the_folder_is_not_opened(tmp_path):
    """If it failed, saving into a folder with a named pipe would wait for ever for whoever writes into it."""
    target = fill(tmp_path / "target", OLD)
    os.mkfifo(target / "pipe")
    renewed_apart(target)
    assert (target / "pipe").is_fifo() and not (target / "part/old").exists()
    assert {name: (target / name).read_bytes() for name in NEW} == NEW


def as_nobody(action: Callable[[], None]) -> None:
    """Run an action as a user who may not do all, if this one may."""

    def run() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        action()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_file_of_others_that_may_not_be_opened_costs_no_new_file():
    """If it failed, somebody else's private file in the folder would cost a model that was just trained."""

    def renew_with_a_private_file() -> None:
        target = fill(Path(folder, "target"), OLD | {"notes.txt": b"mine"})
        (target / "notes.txt").chmod(0)
        renew(target)
        assert stat.S_IMODE((target / "notes.txt").stat().st_mode) == 0
        (target / "notes.txt").chmod(0o600)

    with TemporaryDirectory() as folder:  # pytest's own are closed to other users
        os.chmod(folder, 0o777)
        as_nobody(renew_with_a_private_file)
        assert files_of(Path(folder)) == under_target(NEW | {"notes.txt": b"mine"})


def test_file_that_may_not_be_read_is_said_to_be_that():
    """If it failed, another user of the machine would be told that the weights are not there."""
    with TemporaryDirectory() as folder:
        weights = Path(folder, "model.safetensors")
        save_file({"weight": np.zeros(3)}, weights)
        weights.chmod(0)

        def read() -> None:
            denied = rf"found PermissionError: \[Errno 13\] Permission denied: '{weights}'$"
            with pytest.raises(OSError, match=f"model {folder}: expected .*, {denied}"), _reading(folder):
                load_file(weights)
            with pytest.raises(ValueError, match=f"expected safetensors, {denied}"):
                check_checkpoint(str(weights))
            kept = {"settings": {}, "files": {weights.name: ""}}
            (checkpoint := Path(folder, "open")).mkdir()
            (checkpoint / "checkpoint.json").write_text(json.dumps(kept))
            (checkpoint / weights.name).touch(0)
            assert _problem(checkpoint) == f"expected to read {weights.name}, found that permission is denied"

        os.chmod(folder, 0o777)
        as_nobody(read)


def test_what_cannot_go_along_stays_in_the_old_folder(tmp_path, monkeypatch):
    """If it failed, a file that can be neither linked nor copied would be lost, or keep the new ones away."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("Operation not permitted")

    target = fill(tmp_path / "target", OLD | {"notes.txt": b"mine", "part/new/own": b"mine, too"})
    for owner, name in ((os, "link"), (shutil, "copy2")):
        monkeypatch.setattr(owner, name, refused)
    with pytest.warns(UserWarning) as said:
        renew(target)
    monkeypatch.undo()
    (kept,) = tmp_path.glob(".target.kept-*")
    places = (target / "notes.txt", target / "part/new", target / "part/new/own")
    assert str(said[0].message) in [
        f"{target}: found {place}, which can be neither linked nor copied; the folder as it was is {kept} now"
        for place in places
    ]
    with recovered(target):
        assert files_of(target) == NEW
    assert files_of(kept) == OLD | {"notes.txt": b"mine", "part/new/own": b"mine, too"}


def write_private(path: Path) -> None:
    """As safetensors does it: a file of its own for this user alone, renamed."""
    other = path.with_name("other")
    other.touch(0o600)
    other.replace(path)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_mode_of_the_umask(tmp_path, mask, mode):
    """If it failed, others who share the folder could not read the weights, or strangers could."""
    before = os.umask(mask)
    try:
        target = fill(tmp_path / "target", {"notes.txt": b"mine"})
        (target / "notes.txt").chmod(0o640)
        with renewed_folder(target, is_ours=lambda name: False) as staged:
            write_private(staged / "weights")
        write_whole(tmp_path / "file", write_private)
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (*target.iterdir(), tmp_path / "file")}
    assert found == {"weights": mode, "notes.txt": 0o640, "file": mode}
