"""What a visitor may send to the page, refused while it comes in, before anything of it is kept."""

import re
from time import monotonic
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

MOST_BYTES = 1_000_000
"""Of a request; the longest text that the page reads takes a quarter, however it is escaped."""
MOST_PICTURE_BYTES = 20 * 2**20
"""Of an uploaded picture."""
MOST_PICTURES = 4
"""Of a post; they come by one request."""
MOST_UPLOADED_BYTES = 4_000_000_000
"""Of all that is uploaded while uploads are kept; who comes then is told to come again."""

_FORM_BYTES = 100_000  # of an upload beside its pictures
_FETCHES = re.compile(r"/(file|proxy)=\s*https?:", re.IGNORECASE)


class RequestLimits:
    """An ASGI application in front of another one, which gets 413 in the place of what is too large, 429 of
    an upload for which there is no room, and 403 where Gradio would fetch an address for a visitor.

    Args:
        kept_seconds: how long uploads are kept.
    """

    def __init__(self, app: Any, *, kept_seconds: float) -> None:
        self.app, self.kept_seconds = app, kept_seconds
        self.uploaded, self.since = 0, monotonic()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        is_upload = scope.get("path", "").rstrip("/").endswith("/upload")
        most = MOST_PICTURES * MOST_PICTURE_BYTES + _FORM_BYTES if is_upload else MOST_BYTES
        declared = dict(scope.get("headers", ())).get(b"content-length", b"")
        size = int(declared) if declared.isdigit() else 0
        read = 0
        if _FETCHES.search(scope.get("path", "")):
            await PlainTextResponse("this page fetches no address", 403)(scope, receive, send)
            return

        async def counted() -> Any:
            nonlocal read
            if monotonic() - self.since > self.kept_seconds:
                self.uploaded, self.since = 0, monotonic()
            if max(size, read) > most:
                raise HTTPException(413, f"request: expected at most {most:,} bytes, found more")
            if is_upload and self.uploaded > MOST_UPLOADED_BYTES:
                raise HTTPException(429, "upload: too many of all visitors; come again in an hour")
            message = await receive()
            read += (found := len(message.get("body", b"")))
            self.uploaded += max(found, 1000) if is_upload else 0  # small files take room as well
            return message

        await self.app(scope, counted, send)
