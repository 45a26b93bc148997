"""Tests of folders that are there whole or not at all, whenever the process that makes them is killed."""

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling_mmner.files import renewed_folder, staged_folder, write_whole
from tests.built_corpora import files_of

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


def test_remains_under_this_processs_number_are_cleared(tmp_path):
    """If it failed, nothing would be recovered in containers, where numbers come again."""
    target, number = tmp_path / "target", os.getpid()
    fill(tmp_path / f".target.replaced-{number}-01234567", OLD)
    fill(tmp_path / f".target.incomplete-{number}-01234567", {"part/new": b"2"})
    with pytest.raises(FileExistsError, match="found a built data set"), staged_folder(target, marker="mark"):
        pass
    assert files_of(tmp_path) == under_target(OLD)


def test_work_of_a_running_process_is_left_alone(tmp_path):
    """If it failed, two builds at a time would delete each other's files."""
    at_work = fill(tmp_path / f".target.incomplete-{os.getppid()}-01234567", {"part/new": b"2"})
    replace(tmp_path / "target")
    assert files_of(at_work) == {"part/new": b"2"}


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
