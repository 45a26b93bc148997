"""A list of every process that is started and every address that is opened while the tests run.

`MMNER_AUDIT=FILE pytest -n 0` writes a line of JSON for each; `python -m tests.audit FILE` counts them by
what and whence.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

VARIABLE = "MMNER_AUDIT"
ROOT = Path(__file__).parents[2]
_HERE = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "a socket of this computer's own")
EVENTS = {
    *(
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.forkpty",
        "os.startfile",
    ),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"),
}


def whence() -> str:
    """The nearest place of the project on the way here, and the test that is running."""
    frame: Any = sys._getframe(2)
    while frame is not None and not _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    place = (
        "a thread or process of a library"
        if frame is None
        else Path(frame.f_code.co_filename).relative_to(ROOT).as_posix()
    )
    return f"{place} {frame.f_code.co_name}" if frame is not None else place


def _is_ours(name: str) -> bool:
    return name.startswith(str(ROOT)) and not name.startswith(__file__)


def start(target: str) -> None:
    """Write to a file what happens from now on; a hook cannot be taken off again."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
            entry = {
                "event": event,
                "what": f"{_shown(event, arguments):.200}",
                "whence": whence(),
                "test": test,
            }
            with open(target, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    sys.addaudithook(hook)


def _shown(event: str, arguments: tuple[Any, ...]) -> str:
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        address = arguments[1]
        return str(address[0]) if isinstance(address, tuple) else _HERE[-1]
    if event == "subprocess.Popen":
        return " ".join(str(part).rsplit("/", 1)[-1][:40] for part in list(arguments[1] or [])[:3]).replace(
            "\n", " "
        )
    return str(arguments[0]) if arguments and not event.startswith("os.fork") else ""


def main(path: str) -> None:
    entries = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    counts = Counter((entry["event"], entry["what"], entry["whence"]) for entry in entries)
    for (event, what, place), count in sorted(counts.items()):
        print(f"{count:>5}  {event:<20}  {what:<50.50}  {place}")
    away = [entry for entry in entries if entry["event"].startswith("socket.") and entry["what"] not in _HERE]
    started = [entry for entry in entries if not entry["event"].startswith("socket.")]
    others = [entry for entry in started if not entry["whence"].startswith("tests/")]
    print(
        f"{len(entries)} in all; to other computers: {len(away)}; {len(started)} processes, {len(others)} not"
        " by a test:"
    )
    for entry in away + others:
        print(f"  {entry['event']} {entry['what']}, {entry['whence']}, in {entry['test']}")


if __name__ == "__main__":
    main(sys.argv[1])
