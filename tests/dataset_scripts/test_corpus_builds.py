"""Tests of what is built from corpora: versions of their files, cached data sets, and the real corpora."""

import warnings

import pytest

from dataset_scripts.builders import builder
from dataset_scripts.builders.builder import PostsBuilder
from dataset_scripts.builders.built_corpus import build_dataset
from dataset_scripts.builders.folders import MMNER, Conll, Twitter2015, Twitter2017
from dataset_scripts.formats.reader import CorpusError
from modeling_mmner.files import sha256
from tests.built_corpora import rows_of
from tests.shared_data import DATA, needs_data
from tests.small_corpora import make, write_mmner, write_pictures, write_posts


@pytest.fixture
def corpus(tmp_path):
    """A folder of three split files."""
    return write_posts(tmp_path / "corpus")


@pytest.fixture
def images(tmp_path):
    """A folder of pictures of some of its posts."""
    return write_pictures(tmp_path / "images")


# Versions.


def test_other_copies_are_refused_or_taken_with_a_warning(corpus, tmp_path):
    """If it failed, figures on another copy of a corpus would be compared with the published ones, or
    --no_verify still refuse it, or take it silently.
    """
    found = sha256(corpus / "train.txt")[:12]
    message = (
        rf"train\.txt: expected the official file, sha256 801e149e8635; found sha256 {found}"
        r"\n(.*\n){2}this copy is version 'copy-[0-9a-f]{12}'"
    )
    with pytest.raises(
        CorpusError, match=f"{message}; --no_verify takes it as another version of the corpus"
    ):
        build_dataset("twitter2017", tmp_path / "built", data_dir=corpus)
    with pytest.warns(UserWarning, match=message):
        make(Twitter2017, data_dir=corpus, no_verify=True).check_files()


def test_each_file_is_hashed_once(corpus, monkeypatch):
    """If it failed, files of gigabytes would be read again for each question about their version."""
    hashed = []
    monkeypatch.setattr(builder, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    known = make(Conll, data_dir=corpus)
    known.check_files()
    assert known.version_name() and known.file_hashes
    assert sorted(hashed) == ["test.txt", "train.txt", "valid.txt"]


@pytest.mark.parametrize(("kind", "config"), [(Conll, "default"), (MMNER, "fr"), (MMNER, "all")])
def test_corpora_without_official_figures_are_not_checked(tmp_path, kind, config):
    """If it failed, files that nobody has published figures of could not be built."""
    root = write_mmner(tmp_path / "mmner", fr=[("1", "a/O")], all_lang=[("1", "a/O")])
    folder = root / "train_valid_test_fr" if kind is Conll else root
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(kind, config=config, data_dir=folder, no_verify=False).check_files()


def test_version_names_the_content(corpus, tmp_path):
    """If it failed, two copies would have one name, or one copy two names by its place or by what was done to
    its tags.
    """
    name = make(Twitter2017, data_dir=corpus).version_name()
    assert name == make(Twitter2017, data_dir=write_posts(tmp_path / "elsewhere")).version_name()
    assert (
        make(Twitter2017, data_dir=corpus, repair_orphans=True).version_name() == f"{name}+orphans-repaired"
    )
    (corpus / "test.txt").write_text("IMGID:6\nEuro\tO\n")
    assert make(Twitter2017, data_dir=corpus).version_name() != name


# The real corpora.

REAL = {
    "twitter2015": (Twitter2015, "default", "twitter2015"),
    "twitter2017": (Twitter2017, "default", "twitter2017"),
    "mmner/en": (MMNER, "en", "mmnerd_en"),
}
each_real = pytest.mark.parametrize("name", REAL)


def real_builder(name: str) -> PostsBuilder:
    kind, config, folder = REAL[name]
    return make(kind, config, data_dir=str(DATA / folder), no_verify=False)


@needs_data
@each_real
def test_official_files_pass_the_check(name):
    """If it failed, a builder could not build the very files that its figures belong to."""
    builder = real_builder(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        builder.check_files()
    assert builder.version_name() == "official"


@needs_data
@pytest.mark.parametrize("name", ["twitter2015", "twitter2017"])
def test_real_pictures_are_built_byte_for_byte(tmp_path, name):
    """If it failed, real pictures would be lost, taken for broken or encoded once more on their way into a
    data set.
    """
    folder = DATA / "tweets_with_pictures" / name
    with pytest.warns(UserWarning, match="expected the official file"):
        build_dataset(name, tmp_path / "built", data_dir=folder, image_dir=folder / "images", no_verify=True)
    built = rows_of(tmp_path / "built", "test")
    assert len(built) == 5
    for row in built:
        assert row["image"]["bytes"] == (folder / "images" / f"{row['id']}.jpg").read_bytes()
