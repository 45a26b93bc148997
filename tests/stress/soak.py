"""Hours of use in minutes: the pipeline and the page under four clients, with good requests and bad ones.

`python -m tests.stress.soak --minutes 20` prints the requests, errors that are not the caller's, answers that
one client alone is not given, and the memory taken; the status is 1 where something is not as it must be.
"""

import argparse
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request as WebRequest
from urllib.request import urlopen
from uuid import uuid4

from PIL import Image

from modeling_mmner.inference.demo import build_demo, launch
from modeling_mmner.model.pipeline_mmner import MultimodalNERPipeline
from tests.demo_parts import free_port
from tests.inference.test_demo import ask
from tests.small_posts import ROWS, small_parts
from tests.stress.bad_input.cases import is_own
from tests.stress.bad_input.pictures import UNREADABLE
from tests.stress.bad_input.texts import NO_POSTS, ODD_TEXTS

CLIENTS = 4
_MOST_GROWTH = 0.10  # of the memory, from the end of the first third on

Request = Callable[[], Any]


def memory() -> float:
    """MB that this process takes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass
class Soak:
    """What came of the requests."""

    requests: dict[str, Request]
    expected: dict[str, str] = field(default_factory=dict)  # of each, when asked alone
    counts: Counter[str] = field(default_factory=Counter)  # of answers and refusals by door
    wrong: list[str] = field(default_factory=list)  # another answer, or an error that is not the caller's
    taken: list[float] = field(default_factory=list)  # MB of memory, once a second

    def answer(self, name: str) -> tuple[str, str]:
        """Whether a request is answered, refused or fails, and what comes of it."""
        try:
            return "answered", rounded(self.requests[name]())
        except Exception as error:
            kind = "refused" if is_own(error) else "failed"
            return kind, f"{type(error).__name__}: {error}"

    def client(self, number: int, until: float) -> None:
        """Requests in an order of the client's own."""
        draw = random.Random(number)
        while time.monotonic() < until:
            name = draw.choice(list(self.requests))
            kind, text = self.answer(name)
            self.counts[f"{name.partition(':')[0]}, {kind}"] += 1
            if kind == "failed" or text != self.expected[name]:
                self.wrong.append(f"{name}: expected {self.expected[name][:200]}, found {text[:200]}")

    def run(self, minutes: float) -> None:
        """Each request once by itself, then all clients."""
        for name in self.requests:
            kind, self.expected[name] = self.answer(name)
            if kind == "failed":
                self.wrong.append(f"{name}, alone: {self.expected[name][:200]}")
        until = time.monotonic() + 60 * minutes
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self.client, number, until) for number in range(CLIENTS)]
            while time.monotonic() < until:
                time.sleep(1)
                self.taken.append(memory())
            for one in clients:
                one.result()


def rounded(answer: Any) -> str:
    """An answer as text, with the scores of entities to four digits."""

    def one_rounded(one: Any) -> Any:
        is_scored = isinstance(one, dict) and "score" in one
        return one | {"score": f"{one['score']:.4f}"} if is_scored else one

    return repr([one_rounded(one) for one in answer])


def pipeline_requests(pipe: MultimodalNERPipeline) -> dict[str, Request]:
    """Posts, good and bad."""
    posts: dict[str, Any] = {f"post {number}": row for number, row in enumerate(ROWS)}
    posts |= {f"text, {name}": text for name, text in ODD_TEXTS.items() if len(text) < 10_000}
    for name, content in UNREADABLE.items():
        posts[f"picture, {name}"] = {"text": "Jordan", "image": {"bytes": content()}}
    return {f"pipeline: {name}": lambda post=post: pipe(post) for name, post in posts.items()} | {
        f"pipeline: no post, {name}": lambda post=post: next(pipe(iter([post])))
        for name, post in NO_POSTS.items()
    }


def page_requests(address: str, folder: Path) -> dict[str, Request]:
    """What visitors send: texts, pictures that they upload, and files that they have not uploaded."""
    good, broken = folder / "good.png", folder / "broken.png"
    Image.linear_gradient("L").resize((90, 60)).save(good)
    broken.write_bytes(b"no picture")

    def visit(text: str, picture: str | None = None) -> Any:
        message = ask(address, text, picture and upload(address, picture), session=uuid4().hex)
        return message["output"].get("data", message["success"])[1:]

    visits: dict[str, tuple[str, ...]] = {
        "a text": ("Jordan posts from Paris",),
        "no text": (" ",),
        "HTML": ("<script>alert(1)</script>",),
        "half an emoji": ("\ud83d",),
        "too long a text": ("Paris " * 10_000,),
        "a picture": ("Jordan in Paris", str(good)),
        "no picture": ("Jordan in Paris", str(broken)),
    }
    return {f"page: {name}": lambda sent=sent: visit(*sent) for name, sent in visits.items()}


def upload(address: str, path: str) -> str:
    """Send a file as the page does; returns what the page calls it."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="picture.png"\r\n\r\n'
    body = head + Path(path).read_bytes() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with urlopen(WebRequest(f"{address}gradio_api/upload", body, headers), timeout=60) as answer:
        return str(json.load(answer)[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long (default 20)")
    minutes = parser.parse_args().minutes
    logging.disable(logging.ERROR)
    model, processor = small_parts()
    processor.tokenizer.model_max_length = 64
    page = build_demo(model, processor, name="soak")
    launch(page, host="127.0.0.1", port=free_port(), wait=False)
    with tempfile.TemporaryDirectory() as folder:
        pipe = MultimodalNERPipeline(model=model, processor=processor)
        soak = Soak(pipeline_requests(pipe) | page_requests(page.local_url, Path(folder)))
        soak.run(minutes)
    page.close()
    for name, count in sorted(soak.counts.items()):
        print(f"{name:<24}{count:>9}")
    settled, end = soak.taken[len(soak.taken) // 3], max(soak.taken[-10:])
    growth = end / settled - 1
    total, kinds = soak.counts.total(), len(soak.requests)
    print(f"{total} requests of {CLIENTS} clients in {minutes:g} minutes, {kinds} kinds")
    print(f"not as one client alone is answered, or no error of the caller's: {len(soak.wrong)}")
    print(f"MB: {soak.taken[0]:.0f}, after a third {settled:.0f}, at the end {end:.0f} ({growth:+.1%})")
    print("\n".join(soak.wrong[:10]))
    return int(bool(soak.wrong) or growth > _MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
