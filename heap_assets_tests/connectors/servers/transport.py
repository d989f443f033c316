"""uvicorn's protocol in a thread of its own: starts and stops at once, and a connection can be cut."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from heap_assets_tests.connectors.servers.parts import Answer


class _Protocol(HttpToolsProtocol):
    """uvicorn's own, which hands on the transport, so that a connection can be cut."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["transport"] = self.transport  # type: ignore[typeddict-unknown-key]


class Listener:
    """Serves an ASGI application on a free local port until it is closed."""

    def __init__(self, application: Any) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._config = uvicorn.Config(application, lifespan="off", log_config=None, access_log=False)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        # uvicorn's own server looks every 0.1 s whether to stop; its protocol alone starts and stops at once
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._config.load()
        state = ServerState()
        server = await self._loop.create_server(lambda: _Protocol(self._config, state, {}), sock=self._socket)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        while state.tasks or state.connections:
            await asyncio.sleep(0.001)


class Application:
    """An ASGI application that Starlette's `Route` takes as one: functions it would wrap."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._answer(scope, receive, send)


async def send_answer(send: Any, answer: Answer) -> None:
    body, kind = answer.body, "application/json"
    if isinstance(body, str):
        body, kind = body.encode(), "text/plain; charset=utf-8"
    elif body is None:
        body = b""
    elif not isinstance(body, bytes):
        body = orjson.dumps(body)
    headers = {"content-type": kind, **{name.lower(): value for name, value in answer.headers.items()}}
    if answer.status != 204:
        headers["content-length"] = str(len(body))
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def cut(transport: asyncio.Transport, receive: Any) -> None:
    transport.abort()
    await gone(receive)


async def gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
