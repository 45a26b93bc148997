"""What the page refuses of what visitors send, over HTTP."""

import json
import socket

import pytest

from modeling_mmner.inference import demo_limits
from modeling_mmner.inference.demo import build_demo, launch
from tests.demo_parts import free_port, marking_model, processor_of
from tests.small_posts import SPECKLED, encoded

PICTURE = encoded(SPECKLED)
FORM = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%b\r\n--x--\r\n'
JOIN, UPLOAD, MCP = "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/mcp/"


@pytest.fixture(scope="module")
def port():
    """Where this process serves a page."""
    blocks = build_demo(marking_model(), processor_of(), name="tiny")
    launch(blocks, host="127.0.0.1", port=(number := free_port()), wait=False, mcp=True)
    yield number
    blocks.close()


def status_of(
    port: int,
    path: str,
    body: bytes,
    *,
    chunked: bool = False,
    declared: int | None = None,
    method: str = "POST",
) -> tuple:
    """The status of the answer, and how much of the body was sent."""
    kind = "multipart/form-data; boundary=x" if path == UPLOAD else "application/json"
    size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {declared or len(body)}"
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n{size}\r\n\r\n".encode()
        )
        try:
            for start in range(0, len(body), 2**16):
                part = body[start : start + 2**16]
                peer.sendall(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                sent += len(part)
            if chunked:
                peer.sendall(b"0\r\n\r\n")
            answer = peer.makefile("rb").readline()
        except ConnectionError:  # it answered and closed while this still sent
            answer = b"HTTP/1.1 413"
    return int(answer.split()[1]), sent


def join(text: str) -> bytes:
    body = {
        "data": [text, None, None, "", False, 0],
        "fn_index": 0,
        "session_hash": "a",
        "event_data": None,
        "trigger_id": None,
    }
    return json.dumps(body).encode()


def test_requests_of_the_page_pass(port) -> None:
    """If it failed, the page would refuse the longest text or the largest picture that it reads."""
    for chunked in (False, True):
        assert status_of(port, JOIN, join("\u4e2d" * 20_000), chunked=chunked)[0] == 200
        large = PICTURE + bytes(demo_limits.MOST_PICTURE_BYTES - len(PICTURE))
        assert status_of(port, UPLOAD, FORM % large, chunked=chunked)[0] == 200


@pytest.mark.parametrize("path", [JOIN, UPLOAD, MCP, "/gradio_api/call/find_entities"])
def test_large_bodies_are_refused_unread(port, path) -> None:
    """If it failed, one visitor could fill the server's memory or disk."""
    pictures = demo_limits.MOST_PICTURES * demo_limits.MOST_PICTURE_BYTES
    most = pictures if path == UPLOAD else demo_limits.MOST_BYTES
    assert status_of(port, path, b"", declared=300_000_000) == (413, 0)
    body = FORM % bytes(most + 200_000) if path == UPLOAD else join("a" * most)
    assert status_of(port, path, body + bytes(40_000_000), chunked=True)[0] == 413
    assert status_of(port, JOIN, join("again"))[0] == 200


@pytest.mark.parametrize(
    "place", ["file=http://127.0.0.1:1/a", "file=%20HTTPS://a.invalid/a", "proxy=https://a.invalid"]
)
def test_addresses_are_not_fetched(port, place) -> None:
    """If it failed, a visitor could have the page's computer ask others on their behalf."""
    assert status_of(port, f"/gradio_api/{place}", b"", method="GET")[0] == 403


def test_uploads_have_a_quota(port, monkeypatch) -> None:
    """If it failed, many uploads would fill the disk before the first are deleted."""
    monkeypatch.setattr(demo_limits, "MOST_UPLOADED_BYTES", 0)
    assert status_of(port, UPLOAD, FORM % PICTURE)[0] == 429
    assert status_of(port, JOIN, join("text alone"))[0] == 200
    monkeypatch.setattr(demo_limits, "monotonic", lambda: float("inf"))
    monkeypatch.setattr(demo_limits, "MOST_UPLOADED_BYTES", 300_000)
    assert [status_of(port, UPLOAD, FORM % PICTURE)[0] for _ in range(2)] == [200, 200]
