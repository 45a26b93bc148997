"""Names that users give: of what is a path here, or an id on the Hub, or a slip of the pen."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Literal

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_OF_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".conll", ".txt", ".zip", ".yaml")
_PATIENCE = 3  # seconds in which the Hub may answer


@contextmanager
def path_or_hub(
    name: str,
    *,
    kind: Literal["model", "dataset"],
    known: Iterable[str] = (),
    error: type[Exception] = OSError,
) -> Iterator[None]:
    """Open under it what has a name; one that is mistyped fails at once, with those that are like it.

    Where the Hub does not answer, what was loaded from it before is taken, and nothing is asked again.

    Args:
        known: other names that may have been meant.
        error: what is raised.
    """
    if os.path.exists(name):
        yield
        return
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    what, hint = {"dataset": "data set"}.get(kind, kind), names_like(name, known)
    named = f"{kind} {name!r:.200}: expected a file or folder that is there, or the ORG/NAME of a {what}"
    expected = f"{named} on the Hub"
    if not _HUB_ID.fullmatch(name) or name.lower().endswith(_OF_FILES):
        raise error(f"{expected}; found none{hint}")
    before = is_offline = constants.HF_HUB_OFFLINE
    try:
        if not before:
            HfApi().repo_info(name, repo_type=kind, timeout=_PATIENCE)
    except Exception as found:  # the HTTP client's own errors are no part of huggingface_hub's interface
        if isinstance(found, RepositoryNotFoundError) and not isinstance(found, GatedRepoError):
            raise error(f"{expected}; found none, or one that is private (`hf auth login`){hint}") from found
        is_offline = not isinstance(found, HfHubHTTPError)
    try:
        _stay_offline(is_offline)
        yield
    except OSError as found:
        if not is_offline:
            raise
        why = "the Hub does not answer, and nothing of that name was loaded from it before"
        raise error(f"{expected}; {why}{hint}; {found!s:.300}") from found
    finally:
        _stay_offline(before)


def _stay_offline(is_offline: bool) -> None:
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = is_offline
    if config := sys.modules.get("datasets.config"):  # has one of its own
        config.HF_HUB_OFFLINE = is_offline  # type: ignore[attr-defined]


def names_like(name: str, known: Iterable[str] = ()) -> str:
    """What may have been meant by a name that is neither known nor there, or what is there instead."""
    path = Path(name).expanduser()
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    found = sorted(file.name for file in islice(folder.iterdir(), 10_000) if not file.name.startswith("."))
    first = path.parts[len(folder.parts)] if len(path.parts) > len(folder.parts) else name
    near = [str(folder / file) for file in get_close_matches(first, found)]
    if close := dict.fromkeys([*get_close_matches(name, known), *near]):
        return f"; did you mean {' or '.join(close)}?"
    holds = ", ".join(found[:10]) or "nothing"
    where = "the working folder" if folder == Path() else str(folder)
    return f"; there is no {first!r:.80} in {where}, which holds {holds}"
