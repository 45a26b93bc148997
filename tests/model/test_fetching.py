"""Tests of fetching pictures from the web: what is an address, and every way in which one can fail."""

import asyncio
import socket
import sys
import threading
import time
import tracemalloc

import pytest

from modeling_mmner.model import images_mmner
from modeling_mmner.model.images_mmner import PictureError, fetch_picture, is_url
from tests.picture_server import Endless, picture_server

PNG = b"\x89PNG and whatever follows: what is fetched is not looked at here"


NO_URLS = ["http_x/1.jpg", "a/http://x", "ftp://x/1.jpg", "file:///1.jpg", "data:image/png;base64,"]


def test_addresses_on_the_web_alone_are_urls():
    """If it failed, files would be looked for on the web, or addresses inside this machine be fetched."""
    assert is_url("http://x/1.jpg") and is_url("https://x/1.jpg")
    assert not any(map(is_url, [*NO_URLS, b"http://x", 0]))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with picture_server() as running:
        yield running


def test_fetched_is_what_is_served(server):
    """If it failed, bytes would be lost, asked for twice, or refused to a client without a name."""
    url = server.serve("/1.png?size=large", PNG)
    assert fetch_picture(url) == PNG
    assert server.requests == [("/1.png?size=large", "mmner")]


def test_redirects_are_followed(server):
    """If it failed, pictures that have moved, as short links always have, would be lost."""
    server.serve("/1.png", PNG)
    assert fetch_picture(server.serve("/short", "/1.png")) == PNG
    for number in range(2, 6):
        server.serve(f"/{number}", f"/{number - 1}.png" if number == 2 else f"{server.address}/{number - 1}")
    assert fetch_picture(server.serve("/6", "/5")) == PNG  # 5 redirects, as many as are followed


def test_addresses_are_read_as_browsers_read_them(server):
    """If it failed, pictures with a space or an umlaut in their address would be lost."""
    server.serve("/a%20%C3%BC.png", PNG)
    assert fetch_picture(f"{server.address}/a \N{LATIN SMALL LETTER U WITH DIAERESIS}.png") == PNG


OK, MOVED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\nLocation: /1.png\r\n"
PACKED = b"Transfer-Encoding: chunked\r\n\r\n"
NO_END, LONG_HEAD = "no end of it after 0.3 seconds", "Receive buffer too long"
UNFETCHED: dict[str, tuple[str | Endless | None, str]] = {
    "missing": (None, "HTTP Error 404: Not Found"),
    "silent": (Endless(b"", b"", 0.1), NO_END),
    "no HTTP": (Endless(b"nothing of the kind\r\n\r\n", b""), "illegal status line"),
    "in circles": ("/hostile", "more than 5 redirects, the last to http://127"),
    "to a file": ("file:///etc/hostname", "a redirect to file:/etc/hostname"),
    "to ftp": ("ftp://127.0.0.1/1.png", "a redirect to ftp://127.0.0.1/1.png"),
    "dripping body": (Endless(OK + b"\r\n", b"x", 0.05), NO_END),
    "dripping head": (Endless(OK, b"A: b\r\n", 0.05), NO_END),
    "endless head": (Endless(OK, b"A: b\r\n" * 1000), LONG_HEAD),
    "endless line of the head": (Endless(OK + b"A: ", b"x" * 9999), LONG_HEAD),
    "endless 100 Continue": (Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99), NO_END),
    "endless trailer": (Endless(OK + PACKED + b"0\r\n", b"A: b\r\n" * 1000), LONG_HEAD),
    "dripping trailer": (Endless(OK + PACKED + b"0\r\n", b"A: b\r\n", 0.05), NO_END),
    "endless name of a chunk": (Endless(OK + PACKED + b"1;", b"x" * 9999), LONG_HEAD),
    "endless body": (Endless(OK + b"\r\n", bytes(9999)), "more than 200,000 bytes"),
    "endless body in chunks": (
        Endless(OK + PACKED, b"64\r\n" + bytes(100) + b"\r\n"),
        "more than 200,000 bytes",
    ),
    "dripping head of a redirect": (Endless(MOVED, b"A: b\r\n", 0.05), NO_END),
}


@pytest.mark.parametrize(("body", "message"), UNFETCHED.values(), ids=UNFETCHED)
def test_what_cannot_be_fetched_is_named(server, monkeypatch, body, message):
    """If it failed, a server could end a run, hold it up for ever, fill the memory, or have it read this
    machine's files.
    """
    monkeypatch.setattr(images_mmner, "_MOST_BYTES", 200_000)
    url = server.address + "/hostile" if body is None else server.serve("/hostile", body)
    tracemalloc.start()
    started = time.monotonic()
    expected = rf"(?s)picture {url}: expected to fetch it, found .*({message})"
    with pytest.raises(PictureError, match=expected):
        fetch_picture(url, timeout=0.3)
    assert time.monotonic() - started < 0.3 + 1
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    # What the system holds of a connection, both ways, is some megabytes.
    assert server.sent < 20_000_000 or NO_END in message


def test_the_body_of_a_redirect_is_not_read(server):
    """Regression: it was read whole, without a bound, until the memory was full."""
    server.serve("/1.png", PNG)
    url = server.serve("/moved", Endless(MOVED + b"\r\n", bytes(99_999)))
    tracemalloc.start()
    assert fetch_picture(url, timeout=5) == PNG
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20_000_000


def test_a_name_that_nobody_resolves_holds_up_nobody(monkeypatch):
    """If it failed, a server for names that answers late would outlast the time that a picture has."""
    asked = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: asked.wait(3))
    started = time.monotonic()
    with pytest.raises(PictureError, match=r"http://slow\.example/1\.png: .* found no end of it after 0\.2"):
        fetch_picture("http://slow.example/1.png", timeout=0.2)
    assert time.monotonic() - started < 1.2
    asked.set()


def test_a_program_that_runs_a_loop_can_fetch(server):
    """If it failed, notebooks and web servers, whose threads run a loop, could not fetch pictures."""

    async def fetch() -> bytes:
        return fetch_picture(server.serve("/1.png", PNG))

    assert asyncio.run(fetch()) == PNG


def test_without_its_client_nothing_is_fetched(monkeypatch):
    """If it failed, a saved model would need a package that only addresses on the web need."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(PictureError, match=r"found no httpx2; pip install httpx2, or download the picture"):
        fetch_picture("http://127.0.0.1/1.png")


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "http://127.0.0.1:port/1.png", "http://127.0.0.1:1/1.png"]
)
def test_addresses_of_nothing_are_named(url, monkeypatch):
    """If it failed, a misspelt address would end a run."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(PictureError) as refused:
        fetch_picture(url, timeout=0.2)
    assert str(refused.value).startswith(f"picture {url}: expected to fetch it, found ")


def test_no_more_is_fetched_than_fits(server, monkeypatch):
    """If it failed, one address could fill the memory, or pictures of the largest size would be refused."""
    monkeypatch.setattr(images_mmner, "_MOST_BYTES", 5000)
    assert len(fetch_picture(server.serve("/largest", bytes(5000)))) == 5000
    with pytest.raises(PictureError, match="/larger: expected to fetch it, found more than 5,000 bytes"):
        fetch_picture(server.serve("/larger", bytes(5001)))
