"""The pictures that posts name -> files in a corpus's folders, however a tool has written their paths."""

import base64
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from modeling_mmner.model.images_mmner import is_url, pictures_of
from modeling_mmner.model.posts_mmner import file_within

from ..findings import NO_FILE, PICTURES_LEFT_OUT, Finding, Findings
from ..reading_options import ReadingOptions
from .reader import check_link

_UPLOADED = re.compile(r"[0-9a-f]{8}((-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24})?[-_](?=.)", re.IGNORECASE)
"""What tools put before the name of an uploaded file: eight hex digits, an UUID or an MD5 sum."""
_PICTURE_NAME = re.compile(r"\.(jpe?g|png|gif|webp|bmp|tiff?)(\?.*)?$", re.IGNORECASE)
_MOST_PARTS = 8  # of a path, from its end


def find_picture(image_dir: str | Path, post_id: str, *, follow_links: bool = False) -> Path | None:
    """The picture ``<image_dir>/<id>.jpg`` of a post, or None where there is no such file.

    ``.jpg`` is appended even where the id already ends so, as the corpora's authors do.

    Args:
        follow_links: take a picture that is a link to a file outside of the folder.

    Raises:
        CorpusError: a link, or the id, leads to a file out of the folder.
    """
    path = Path(image_dir) / f"{post_id}.jpg"
    if not os.path.isfile(path):
        return None
    if not follow_links:
        check_link(path, Path(image_dir))
    return path


class PictureFiles:
    """The files of a corpus's folders, by the names that tools have for them.

    A file is what a path says; or else what the end of it says, the longest first, in the spelling of Windows
    or of an address, without an upload's hash, in another case or normal form of Unicode. No path leads out
    of the folders, and nothing is fetched.

    Args:
        folder: where the paths of posts begin; None: there are no files.
        options: `image_dir`, where files are looked for first, and `follow_links`.
    """

    def __init__(self, folder: Path | None, options: ReadingOptions) -> None:
        self._given = [Path(options.image_dir)] if options.image_dir is not None else []
        self.folders = self._given + ([] if folder is None else [folder])
        self.folders += [] if folder is None or not (folder / "images").is_dir() else [folder / "images"]
        self._follow_links = options.follow_links
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def pictures(self, record: Mapping[str, Any], place: str, findings: Findings) -> list[dict[str, Any]]:
        """The pictures of a post that are found; what is said of others is added."""
        given, pictures = [one for one in pictures_of(dict(record)) if one != ""], []
        for one in given:
            picture = self.picture(one)
            if isinstance(picture, Finding):
                findings.add(picture.what, f"{place}: {picture.examples[0]}", remedy=picture.remedy)
                continue
            pictures.append(picture)
        for key, value in record.items() if not given else ():
            if key != "text" and isinstance(value, str) and _PICTURE_NAME.search(value):
                what = f"names of pictures in the column {key!r:.40}, not read"
                findings.add(what, f"{place}: {value:.100}", remedy=f"--columns image={key:.40}")
        return pictures

    def picture(self, given: Any) -> dict[str, Any] | Finding:
        """A picture by its bytes or its path, or why it is left out, with an example."""
        content, path = (given.get("bytes"), given.get("path")) if isinstance(given, dict) else (given, given)
        if isinstance(content, bytes):
            return {"bytes": content, "path": None}
        if not isinstance(path, str):
            return _left_out("neither a path nor bytes", f"{path!r:.80}", "write the paths of files")
        if path.startswith("data:image/"):
            try:
                return {"bytes": base64.b64decode(path.partition(",")[2], validate=True), "path": None}
            except ValueError:
                return _left_out("broken base64", f"{path:.40}", "export them again, or write paths of files")
        if len(found := self._found(path)) == 1:
            return {"bytes": None, "path": str(found[0])}
        if found:
            example = f"{path:.80}: {', '.join(map(str, found))}"
            return _left_out("several files could be meant", example, "rename all but one of the files")
        if is_url(path) and not self._given:
            return _left_out("addresses on the web", f"{path:.200}", "download them into --image_dir FOLDER")
        if any(os.path.isfile(folder / path) for folder in self.folders):
            advice = "--follow_links takes links, --image_dir FOLDER what lies elsewhere"
            return _left_out("links or paths out of the folder", f"{path:.200}", advice)
        where = " and ".join(str(one.absolute()) for one in self.folders) or "no folder"
        advice = NO_FILE[1] if self.folders else "data sets hold the bytes of their pictures"
        return Finding(NO_FILE[0], advice, examples=[f"{path:.200}, looked in {where}"])

    def _found(self, path: str) -> list[Path]:
        """The file that is meant; several: it cannot be told which."""
        for folder in self._given if is_url(path) else self.folders:
            if found := file_within(path, folder, follow_links=self._follow_links):
                return [found]
            for parts in _endings(path):
                if several := self._matching(folder, parts):
                    return several
        return []

    def _matching(self, folder: Path, parts: list[str]) -> list[Path]:
        paths = [Path()]
        for part in parts:
            paths = [path / name for path in paths for name in self._alike(folder / path, part)]
        found = (file_within(path, folder, follow_links=self._follow_links) for path in paths)
        return [path for path in found if path is not None]

    def _alike(self, folder: Path, name: str) -> list[str]:
        """The names in a folder that are this one: the very same, or all that differ in spelling alone."""
        if folder not in self._listed:
            self._listed[folder] = defaultdict(list)
            for other in sorted(os.listdir(folder)) if os.access(folder, os.R_OK) and folder.is_dir() else ():
                self._listed[folder][_folded(other)].append(other)
        alike = self._listed[folder].get(_folded(name), [])
        return [name] if name in alike else alike


def _left_out(why: str, example: str, remedy: str) -> Finding:
    return Finding(PICTURES_LEFT_OUT + why, remedy, examples=[example])


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _endings(path: str) -> Iterator[list[str]]:
    """The parts of a path's endings in each spelling that it may be in, the longest first."""
    texts = [path.strip()]
    if ("?" in path or "://" in path) and "[" not in path:  # which hosts are in
        address = urlsplit(texts[0])
        texts += [*parse_qs(address.query).get("d", []), address.path]  # d: Label Studio's local files
    for text in dict.fromkeys([*texts, *map(unquote, texts)]):
        parts = [part for part in re.split(r"[/\\]+", text) if part][-_MOST_PARTS:]
        for first in range(len(parts)):
            yield parts[first:]
        if parts and (uploaded := _UPLOADED.match(parts[-1])):
            yield [parts[-1][uploaded.end() :]]
