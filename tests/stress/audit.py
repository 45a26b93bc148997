"""A list of every process that is started and every address that is opened while the tests run.

`MMNER_AUDIT=FILE pytest -n 0` writes a line of JSON for each; `python -m tests.stress.audit FILE` counts them
and lists what went to other computers, and what processes the package started itself.
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
_STARTED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_OPENED = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")


def whence() -> str:
    """The nearest place of the project on the way here."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(str(ROOT)) and name != __file__:
            return f"{Path(name).relative_to(ROOT).as_posix()} {frame.f_code.co_name}"
        frame = frame.f_back
    return "a thread or process of a library"


def start(target: str) -> None:
    """Write to a file what happens from now on; a hook cannot be taken off again."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in (*_STARTED, *_OPENED):
            test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
            entry = {"event": event, "what": _shown(event, arguments)[:200], "whence": whence(), "test": test}
            with open(target, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    sys.addaudithook(hook)


def _shown(event: str, arguments: tuple[Any, ...]) -> str:
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        address = arguments[1]
        return str(address[0]) if isinstance(address, tuple) else _HERE[-1]
    if event == "subprocess.Popen":
        return " ".join(str(part).rsplit("/", 1)[-1][:40] for part in list(arguments[1] or [])[:3])
    return str(arguments[0]) if arguments else ""


def main(path: str) -> None:
    entries = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    for (event, place), count in sorted(Counter((one["event"], one["whence"]) for one in entries).items()):
        print(f"{count:>5}  {event:<20}  {place}")
    away = [one for one in entries if one["event"] in _OPENED and one["what"] not in _HERE]
    others = [one for one in entries if one["event"] in _STARTED and not one["whence"].startswith("tests/")]
    print(f"to other computers: {len(away)}; processes that no test started: {len(others)}")
    for one in away + others:
        print(f"  {one['event']} {one['what']}, {one['whence']}, in {one['test']}")


if __name__ == "__main__":
    main(sys.argv[1])
