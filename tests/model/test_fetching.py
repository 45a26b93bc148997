"""Tests of fetching pictures from the web: what is an address, and every way in which one can fail."""

import pytest

from modeling_mmner.model import images_mmner
from modeling_mmner.model.images_mmner import PictureError, fetch_picture, is_url
from tests.picture_server import picture_server

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


UNFETCHED = {
    "missing": ("/missing.png", "HTTP Error 404: Not Found"),
    "silent": ("/silent", "timed out"),
    "no HTTP": ("/garbage", "nothing of the kind"),
    "in circles": ("/loop", "redirect.* infinite loop"),
    "to a file": ("/inside", "Redirection to url 'file:///etc/hostname' is not allowed"),
    "to ftp": ("/elsewhere", "a redirect to ftp://127.0.0.1/1.png"),
    "dripping": ("/dripping", "no end of it after 0.2 seconds"),
    "space": ("/a b.png", "URL can't contain control characters"),
    "no ASCII": ("/\N{LATIN SMALL LETTER U WITH DIAERESIS}.png", "can't encode character"),
}


@pytest.mark.parametrize(("path", "message"), UNFETCHED.values(), ids=UNFETCHED)
def test_what_cannot_be_fetched_is_named(server, path, message):
    """If it failed, a server could end a run, hold it up for ever, or have it read this machine's files."""
    server.serve("/loop", "/loop")
    server.serve("/inside", "file:///etc/hostname")
    server.serve("/elsewhere", "ftp://127.0.0.1/1.png")
    server.serve("/dripping", b"")
    with pytest.raises(
        PictureError, match=rf"(?s)picture {server.address}{path}: expected to fetch it, found .*{message}"
    ):
        fetch_picture(server.address + path, timeout=0.2)


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
    for path in ("/larger", "/endless"):
        with pytest.raises(PictureError, match=rf"{path}: expected to fetch it, found more than 5,000 bytes"):
            fetch_picture(server.serve(path, bytes(5001)))
