"""What reading a corpus found: what is lost or was changed, how often, where, and what to do about it."""

from dataclasses import dataclass, field

PICTURES_LEFT_OUT = "pictures left out: "
"""Begins what is said of pictures that posts name and that are lost."""
NO_FILE = f"{PICTURES_LEFT_OUT}no such file", "--image_dir FOLDER, where the files are"
"""What is said of a picture that is not there, and what to do about it."""
MOST_EXAMPLES = 3
_LONGEST = 300  # characters of an example: what files say has no bound of its own


@dataclass
class Finding:
    """One kind of thing that was found.

    Attributes:
        what: for instance ``pictures that posts name were not found``; it ends without a number.
        remedy: what to type or do; empty where nothing can be done.
        lost: whether something of the user's would be lost in training.
        number: how often it was found.
        examples: the first three, each with its place.
    """

    what: str
    remedy: str = ""
    lost: bool = True
    number: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """All that was found in reading a corpus, by what it is."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}

    def add(
        self, what: str, example: str = "", *, remedy: str = "", lost: bool = True, number: int = 1
    ) -> None:
        """Count what was found `number` times; the first remedy that is said for it stands."""
        found = self._found.setdefault(what, Finding(what, remedy, lost))
        found.number += number
        if example and len(found.examples) < MOST_EXAMPLES:
            found.examples.append(example if len(example) <= _LONGEST else f"{example[:_LONGEST]}...")

    def sorted(self) -> list[Finding]:
        """The most harmful first: what is lost before what is not, then by number."""
        return sorted(self._found.values(), key=lambda one: (not one.lost, -one.number))

    def numbers(self) -> dict[str, int]:
        """How often each thing was found, in the order of `sorted`."""
        return {one.what: one.number for one in self.sorted()}

    def lines(self, start: str = "") -> list[str]:
        """A line for each thing found, with what to do, and for each example of what is lost or mended."""
        lines = []
        for one in self.sorted():
            lines.append(f"{start}{one.what}: {one.number}{one.remedy and '; ' + one.remedy}")
            lines += [f"- {example}" for example in one.examples if one.lost or one.remedy]
        return lines
