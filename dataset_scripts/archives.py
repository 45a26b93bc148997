"""Raw corpora as they are handed out: a folder, or a zip or tar archive of one."""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from .formats.reader import CorpusError

_MOST_TIMES, _MOST_AT_LEAST = 50, 10**9
"""An archive may take unpacked so many times its own size, or so many bytes. Texts shrink to a fifth, bombs
to a thousandth.
"""
_LEAST_OF_A_FILE = 4096  # bytes that an empty file takes on a disk

_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, RuntimeError, NotImplementedError),
)


def unpacked(path: str | Path, into: str | Path) -> Path:
    """The folder itself, or that in which an archive's files lie once it is unpacked in `into`.

    Folders in which there is nothing but one other folder are passed through.

    Raises:
        CorpusError: there is nothing at `path`, it is no archive, a member would be written outside of
            `into`, is a link or a device, or the whole would be far larger than an archive of its size has
            any reason to be.
    """
    path, into = Path(path), Path(into)
    if path.is_dir():
        return path
    if not path.is_file():
        raise CorpusError(f"{path}: expected a folder or an archive (zip, tar), found nothing")
    into.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(path):
            _unpack_zip(path, into)
        elif tarfile.is_tarfile(path):
            _unpack_tar(path, into)
        else:
            raise CorpusError(f"{path}: expected a folder or an archive (zip, tar), found another file")
    except _DAMAGED as error:
        raise CorpusError(f"{path}: expected a whole archive that is not encrypted; {error}") from error
    return _inner(into)


def _unpack_zip(path: Path, into: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        size = 0
        for member in archive.infolist():
            _check_name(path, member.filename)
            size += _checked_size(path, size, member.file_size)  # zipfile writes no more than a member says
            if stat.S_ISLNK(member.external_attr >> 16):
                raise CorpusError(f"{path}: expected files and folders, found the link {member.filename!r}")
            archive.extract(member, into)


def _unpack_tar(path: Path, into: Path) -> None:
    with tarfile.open(path) as archive:
        size = 0
        for member in archive:
            _check_name(path, member.name)
            size += _checked_size(path, size, member.size)
            if not (member.isfile() or member.isdir()):
                raise CorpusError(
                    f"{path}: expected files and folders, found a link or a device at {member.name!r}"
                )
            _write_member(archive, member, into / member.name)
        _check_end(archive)


def _write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Write a file or folder with nothing of its owner and rights; `extract(filter="data")` is not in every
    Python 3.11.
    """
    (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
    if (source := archive.extractfile(member)) is not None:
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)


def _check_end(archive: tarfile.TarFile) -> None:
    """A file cut off between two members has no end mark; one that is damaged ends early, or its checksum,
    which stands last, is wrong.
    """
    file = archive.fileobj
    if file is None or file.tell() - archive.offset < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends before its end mark")
    while rest := file.read(1 << 20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("something stands behind its end mark")


def _checked_size(path: Path, before: int, size: int) -> int:
    """What a member of a size takes on a disk, after checking that it and those before it are not too much
    for their archive.
    """
    taken, most = max(size, _LEAST_OF_A_FILE), max(_MOST_AT_LEAST, _MOST_TIMES * path.stat().st_size)
    if before + taken > most:
        raise CorpusError(
            f"{path}: expected an archive that is at most {most:,} bytes when unpacked, {_MOST_TIMES} times"
            " its own size, found a larger one; if you trust it, unpack it yourself and give the folder"
        )
    return taken


def _check_name(path: Path, name: str) -> None:
    """No member may leave the folder that it is unpacked in ("zip slip")."""
    inside = PurePosixPath(name.replace("\\", "/"))
    if (
        not name
        or inside.is_absolute()
        or ".." in inside.parts
        or PureWindowsPath(name).drive
        or "\0" in name
    ):
        raise CorpusError(
            f"{path}: expected members inside the archive's own folder, found {name!r}, which leads out of it"
        )


def _inner(folder: Path) -> Path:
    content = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    return _inner(content[0]) if len(content) == 1 and content[0].is_dir() else folder
