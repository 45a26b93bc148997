"""Parts of splits: ``val[:2000]`` names a split and, as in Python, which of its posts to take."""

import re

from .formats.reader import CorpusError

_FORM = re.compile(r"([^\[\]]+?)(?:\[(\d*):(\d*)(?::(\d+))?\])?")


def parse_slice(text: str) -> tuple[str, slice]:
    """``val[:2000]`` -> the first 2,000 posts of ``val``; ``val`` -> all of them.

    Raises:
        CorpusError: the text is of another form, or its step is 0.
    """
    match = _FORM.fullmatch(text)
    if match is None or match[4] == "0":
        raise CorpusError(f"split slice {text!r}: expected NAME or NAME[START:STOP] or NAME[START:STOP:STEP]")
    return match[1], slice(*(int(number) if number else None for number in match.groups()[1:]))
