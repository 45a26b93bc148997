"""A web server on this machine that serves what a test gives it, and notes what it was asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Endless(NamedTuple):
    """An answer that never ends: its start, then the same piece again and again."""

    start: bytes
    piece: bytes
    pause: float = 0


class PictureServer:
    """Answers by path; a path that it does not know is a 404.

    Attributes:
        bodies: path -> what is sent: bytes, the address that it redirects to, or an answer without end.
        requests: (path, User-Agent) of each request.
        sent: bytes of answers without end.
        hurry: set when a server that keeps its clients waiting shall give up.
    """

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.bodies: dict[str, bytes | str | Endless] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.sent = 0
        self.hurry = threading.Event()

    def serve(self, path: str, body: bytes | str | Endless) -> str:
        """Serve a body from now on; returns its URL."""
        self.bodies[path] = body
        return self.address + path

    def answer(self, handler: Any) -> None:
        """Answer one request."""
        self.requests.append((handler.path, handler.headers["User-Agent"]))
        body = self.bodies.get(handler.path)
        if isinstance(body, Endless):
            handler.wfile.write(body.start)
            while not self.hurry.wait(body.pause) if body.pause else not self.hurry.is_set():
                handler.wfile.write(body.piece)
                self.sent += len(body.piece)
            return
        handler.send_response(404 if body is None else 302 if isinstance(body, str) else 200)
        if isinstance(body, str):
            handler.send_header("Location", body)
        handler.end_headers()
        if isinstance(body, bytes):
            handler.wfile.write(body)


@contextmanager
def picture_server() -> Iterator[PictureServer]:
    """A running server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                server.answer(self)
            except ConnectionError:  # the client has read enough
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = PictureServer(listening.server_port)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.hurry.set()
        listening.shutdown()
        listening.server_close()
        thread.join()
