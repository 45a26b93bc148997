"""Tests of archives of raw corpora: what they give, and that no member gets out of the folder they are
unpacked in.
"""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from dataset_scripts.archives import unpacked
from dataset_scripts.formats.reader import CorpusError
from tests.built_corpora import files_of
from tests.small_corpora import encoded

FILES = {
    "train.txt": b"IMGID:1\na\tO\n",
    "images/1.jpg": encoded(1, "PNG"),
    "images/2.jpg": encoded(2, "PNG"),
}
MODES = {".tar": "w", ".tar.gz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
ENDINGS = [".zip", *MODES]


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """An archive of the kind that its name says, with members of any name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, MODES["".join(path.suffixes)]) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def in_folder(folder: str, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def assert_nothing_outside(tmp_path: Path, archive: Path) -> None:
    outside = {path.name for path in tmp_path.iterdir()} - {archive.name, "into"}
    assert not outside


def test_folder_is_taken_as_it_is(tmp_path):
    """If it failed, corpora that are unpacked already would be copied or refused."""
    assert unpacked(tmp_path, tmp_path / "into") == tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_archive_gives_its_files(tmp_path, ending):
    """If it failed, a kind of archive in which corpora are handed out could not be read, or lose files."""
    assert files_of(unpacked(packed(tmp_path / f"corpus{ending}", FILES), tmp_path / "into")) == FILES


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize(
    "beside",
    [{}, {"__MACOSX/._corpus": b"1"}, {"._corpus": b"1", ".DS_Store": b"2"}],
    ids=["alone", "macOS zip", "macOS tar"],
)
def test_folder_in_an_archive_is_passed_through(tmp_path, ending, beside):
    """If it failed, an archive with the folder itself in it, as most are, would be one without split
    files.
    """
    archive = packed(tmp_path / f"corpus{ending}", in_folder("outer/corpus") | beside)
    assert files_of(unpacked(archive, tmp_path / "into")) == FILES


def test_several_folders_in_an_archive_are_kept(tmp_path):
    """If it failed, one of several released folders would be taken for all of them."""
    files = in_folder("released/train_valid_test_en") | in_folder("released/train_valid_test_fr")
    found = unpacked(packed(tmp_path / "corpus.zip", files), tmp_path / "into")
    assert sorted(path.name for path in found.iterdir()) == ["train_valid_test_en", "train_valid_test_fr"]


def test_archive_of_the_current_folder_is_read(tmp_path):
    """If it failed, archives made by `tar -czf corpus.tar.gz .` would be refused as if their members led
    out.
    """
    archive = tmp_path / "corpus.tar.gz"
    with tarfile.open(archive, "w:gz") as target:
        folder = tarfile.TarInfo("./")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        target.addfile(folder)
        member = tarfile.TarInfo("./train.txt")
        member.size = 1
        target.addfile(member, io.BytesIO(b"1"))
    assert files_of(unpacked(archive, tmp_path / "into")) == {"train.txt": b"1"}


@pytest.mark.parametrize("ending", [".zip", ".tar"])
@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "//etc/x",
        "C:\\x",
        "C:/x",
        "C:x",
        "..\\x",
        "a\\..\\..\\x",
        "\\x",
        "\\\\server\\share\\x",
        "..",
    ],
)
def test_members_that_lead_out_are_refused(tmp_path, ending, name):
    """If it failed, an archive could write over any file of whoever builds it."""
    archive = packed(tmp_path / f"corpus{ending}", {name: b"1"})
    with pytest.raises(
        CorpusError,
        match=r"corpus\.\w+: expected members inside the archive's own folder, found .* leads out",
    ):
        unpacked(archive, tmp_path / "into")
    assert_nothing_outside(tmp_path, archive)
    assert not list((tmp_path / "into").rglob("*"))


def test_links_in_a_zip_are_refused(tmp_path):
    """If it failed, a later member could be written through a link to another place."""
    archive = tmp_path / "corpus.zip"
    with zipfile.ZipFile(archive, "w") as target:
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        target.writestr(link, str(tmp_path))
        target.writestr("link/x", b"1")
    with pytest.raises(CorpusError, match=r"corpus\.zip: expected files and folders, found the link 'link'"):
        unpacked(archive, tmp_path / "into")
    assert_nothing_outside(tmp_path, archive)


KINDS = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "pipe": tarfile.FIFOTYPE,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("leads_to", ["{tmp_path}", "../secret", "train.txt"])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, leads_to):
    """If it failed, an archive could show or overwrite files outside, or hang the build at a pipe."""
    archive = packed(tmp_path / "corpus.tar", {"train.txt": b"1"})
    with tarfile.open(archive, "a") as target:
        member = tarfile.TarInfo("odd")
        member.type, member.linkname = kind, leads_to.format(tmp_path=tmp_path)
        target.addfile(member)
    with pytest.raises(
        CorpusError, match=r"corpus\.tar: expected files and folders, found a link or a device at 'odd'"
    ):
        unpacked(archive, tmp_path / "into")
    assert not (tmp_path / "into" / "odd").is_symlink() and not (tmp_path / "into" / "odd").exists()
    assert_nothing_outside(tmp_path, archive)


@pytest.mark.parametrize("ending", ENDINGS)
def test_archive_that_is_cut_off_is_refused_or_gives_the_same_files(tmp_path, ending):
    """If it failed, an interrupted download would be built as a smaller corpus."""
    content = packed(tmp_path / f"whole{ending}", FILES).read_bytes()
    refused = 0
    for length in range(0, len(content), 97):
        archive = tmp_path / f"corpus{ending}"
        archive.write_bytes(content[:length])
        try:
            found = files_of(unpacked(archive, tmp_path / f"into{length}"))
        except CorpusError:
            refused += 1
            continue
        assert found == FILES, f"{length} bytes"
    assert refused


def test_archive_that_is_cut_off_is_named(tmp_path):
    """If it failed, a user would not learn that the download was interrupted."""
    archive = packed(tmp_path / "corpus.tar.gz", FILES)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(
        CorpusError,
        match=r"corpus\.tar\.gz: expected a whole archive that is not encrypted; .* end-of-stream",
    ):
        unpacked(archive, tmp_path / "into")


def test_tar_cut_off_between_two_members_is_refused(tmp_path):
    """If it failed, just those cuts that hurt no member would go unnoticed, and the posts' pictures be called
    missing.
    """
    content = packed(tmp_path / "whole.tar", FILES).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as whole:
        starts = [member.offset for member in whole][1:]
    for start in starts:
        (tmp_path / "corpus.tar").write_bytes(content[:start])
        with pytest.raises(
            CorpusError, match="expected a whole archive that is not encrypted; it ends before its end mark"
        ):
            unpacked(tmp_path / "corpus.tar", tmp_path / f"into{start}")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_damaged_archive_is_refused_or_gives_the_same_files(tmp_path, ending):
    """If it failed, a damaged download would be built with other words or pictures, or end in an error of
    another library.
    """
    content = packed(tmp_path / f"whole{ending}", FILES).read_bytes()
    for place in range(0, len(content), 37):
        archive = tmp_path / f"corpus{ending}"
        archive.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            found = files_of(unpacked(archive, tmp_path / f"into{place}"))
        except CorpusError:
            continue
        assert sorted(found.values()) == sorted(FILES.values()), f"byte {place}"


def test_tar_with_a_damaged_member_head_is_refused(tmp_path):
    """If it failed, all members behind a damaged one would be left out without a word."""
    content = bytearray(packed(tmp_path / "whole.tar", FILES).read_bytes())
    with tarfile.open(tmp_path / "whole.tar") as whole:
        content[whole.getmembers()[1].offset + 5] ^= 1
    (tmp_path / "corpus.tar").write_bytes(content)
    with pytest.raises(
        CorpusError, match=r"expected a whole archive .*; something stands behind its end mark"
    ):
        unpacked(tmp_path / "corpus.tar", tmp_path / "into")


def test_encrypted_zip_is_refused(tmp_path):
    """If it failed, an archive with a password would end in an error that does not name it."""
    archive = packed(tmp_path / "corpus.zip", {"train.txt": b"1"})
    content = bytearray(archive.read_bytes())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        content[content.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
    archive.write_bytes(content)
    with pytest.raises(
        CorpusError, match=r"corpus\.zip: expected a whole archive that is not encrypted; .*encrypted"
    ):
        unpacked(archive, tmp_path / "into")


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"no archive", "another file"), (b"", "another file"), (None, "nothing")],
    ids=["text", "empty", "none"],
)
def test_what_is_no_archive_is_named(tmp_path, content, found):
    """If it failed, a wrong --data_dir would end in an unclear error."""
    if content is not None:
        (tmp_path / "corpus.zip").write_bytes(content)
    with pytest.raises(
        CorpusError, match=rf"corpus\.zip: expected a folder or an archive \(zip, tar\), found {found}"
    ):
        unpacked(tmp_path / "corpus.zip", tmp_path / "into")
