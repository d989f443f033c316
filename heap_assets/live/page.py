"""The page that shows what comes in, who it became and what went out, as it happens: server-sent events.

It shows counts, names of events, shortened profile ids and names of columns, and no value of a person.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from importlib.resources import files
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

_WATCHERS: Final = 50
_REMEMBERED: Final = 30
_PULSE_SECONDS: Final = 10.0
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


class LivePage:
    """Shows the steps of a live loop to browsers."""

    def __init__(self) -> None:
        self._steps: deque[str] = deque(maxlen=_REMEMBERED)
        self._queues: set[asyncio.Queue[str]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def routes(self) -> list[Route]:
        """The page at `/`, and the stream that it reads at `/events`."""
        return [Route("/", self._page), Route("/events", self._events)]

    def show(self, step: Mapping[str, Any]) -> None:
        """Show a step to everybody who watches; called from the thread of the live loop."""
        text = json.dumps(step)
        self._steps.append(text)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._spread, text)

    def close(self) -> None:
        """End the streams; called from the event loop."""
        self._closed = True
        self._spread("")

    def _spread(self, text: str) -> None:
        for queue in self._queues:
            if not queue.full():
                queue.put_nowait(text)

    async def _page(self, request: Request) -> Response:
        del request
        text = files("heap_assets.live").joinpath("page.html").read_text()
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY, "X-Frame-Options": "DENY"})

    async def _events(self, request: Request) -> Response:
        if len(self._queues) >= _WATCHERS:
            return Response("too many watch already", 503)
        self._loop = asyncio.get_running_loop()
        return StreamingResponse(self._stream(request), media_type="text/event-stream", headers=_UNBUFFERED)

    async def _stream(self, request: Request) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=200)
        self._queues.add(queue)
        try:
            for text in list(self._steps):
                yield f"data: {text}\n\n"
            while not (self._closed or await request.is_disconnected()):
                try:
                    async with asyncio.timeout(_PULSE_SECONDS):
                        text = await queue.get()
                    if text:
                        yield f"data: {text}\n\n"
                except TimeoutError:
                    yield ": \n\n"
        finally:
            self._queues.discard(queue)


_UNBUFFERED: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
