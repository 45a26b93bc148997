"""A web server on this machine that serves what a test gives it, and notes what it was asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class PictureServer:
    """Answers by path; a path that it does not know is a 404.

    Attributes:
        bodies: path -> what is sent: bytes, or the address that it redirects to.
        requests: (path, User-Agent) of each request.
        hurry: set when a server that keeps its clients waiting shall give up.
    """

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.bodies: dict[str, bytes | str] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.hurry = threading.Event()

    def serve(self, path: str, body: bytes | str) -> str:
        """Serve a body from now on; returns its URL."""
        self.bodies[path] = body
        return self.address + path

    def answer(self, handler: Any) -> None:
        """Answer one request. ``/silent`` answers nothing, ``/endless`` never ends, nor does ``/dripping``,
        slowly.
        """
        self.requests.append((handler.path, handler.headers["User-Agent"]))
        if handler.path == "/silent":
            self.hurry.wait(10)
            return
        if handler.path == "/garbage":
            handler.wfile.write(b"nothing of the kind\r\n\r\n")
            return
        body = self.bodies.get(handler.path)
        handler.send_response(404 if body is None else 302 if isinstance(body, str) else 200)
        if isinstance(body, str):
            handler.send_header("Location", body)
        handler.end_headers()
        if isinstance(body, bytes):
            handler.wfile.write(body)
        while handler.path == "/endless" and not self.hurry.is_set():
            handler.wfile.write(bytes(1000))
        while handler.path == "/dripping" and not self.hurry.wait(0.05):
            handler.wfile.write(bytes(1))


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
