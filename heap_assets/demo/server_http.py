"""A small HTTP/1.1 server whose answers may also be late, cut short, reset or never come.

The stand-ins of Heap and Segment need what web frameworks take care to prevent, hence an asyncio protocol over
httptools. Requests of one process are handled one after the other, so handlers need no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import responses
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import httptools

MAX_BODY = 64 * 1024 * 1024


class Ending(StrEnum):
    """What happens to a response on its way out."""

    WHOLE = "whole"
    HALF = "half"
    """Half of the body, then the connection closes."""
    RESET = "reset"
    """TCP reset instead of a response."""
    HANG = "hang"
    """No response ever; the connection stays open."""
    EXIT = "exit"
    """The process dies without a response."""


@dataclass(frozen=True)
class Request:
    """One request as it came in; header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    port: int

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Response:
    """One response, how long it waits (`delay`, seconds) and how it ends."""

    status: int
    body: bytes = b"{}"
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    ending: Ending = Ending.WHOLE


def json_response(value: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(value, separators=(",", ":")).encode())


Handler = Callable[[Request], Response]


class _Connection(asyncio.Protocol):
    """One client connection; keep-alive."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._port = int(transport.get_extra_info("sockname")[1])

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._send(Response(400, b"not HTTP", "text/plain"), keep_alive=False)

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= MAX_BODY:
            self._body.append(body)

    def on_message_complete(self) -> None:
        keep_alive = self._parser.should_keep_alive()
        if self._size > MAX_BODY:
            self._send(Response(413, b"too large", "text/plain"), keep_alive=False)
            return
        body = b"".join(self._body)
        if self._headers.get("content-encoding") == "gzip":
            with contextlib.suppress(OSError, EOFError):  # the handler then meets bytes that are no JSON, and says so
                body = gzip.decompress(body)
        url = urlsplit(self._url.decode("latin-1"))
        request = Request(
            method=self._parser.get_method().decode(),
            path=url.path,
            query=dict(parse_qsl(url.query)),
            headers=self._headers,
            body=body,
            port=self._port,
        )
        response = self._handler(request)
        if response.delay:
            asyncio.get_running_loop().call_later(response.delay, self._send, response, keep_alive)
        else:
            self._send(response, keep_alive)

    def _send(self, response: Response, keep_alive: bool) -> None:
        transport = self._transport
        if transport is None or response.ending is Ending.HANG:
            return
        if response.ending is Ending.EXIT:
            os._exit(137)
        if response.ending is Ending.RESET:
            _reset(transport)
            return
        half = response.ending is Ending.HALF
        head = _head(response, keep_alive and not half)
        transport.write(head + (response.body[: len(response.body) // 2] if half else response.body))
        if half or not keep_alive:
            transport.close()


def _head(response: Response, keep_alive: bool) -> bytes:
    phrase = responses.get(response.status, "Unknown")
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Connection": "keep-alive" if keep_alive else "close",
        **response.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} {phrase}\r\n{lines}\r\n".encode("latin-1")


def _reset(transport: asyncio.Transport) -> None:
    """Close with a TCP RST: a linger time of zero drops the connection instead of finishing it."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def serve(make_handler: Callable[[Sequence[int]], Handler], ports: Sequence[int], port_file: Path | None) -> None:
    """Serve on loopback until SIGTERM, or SIGINT where nobody waits for the ports.

    Parameters
    ----------
    make_handler
        Called once with the ports that were bound.
    ports
        0 means any free port.
    port_file
        Gets one bound port per line, written whole once the server accepts connections. Who reads it stops the server;
        Ctrl-C in the terminal, which reaches both, must not take the server from under the reader.
    """
    asyncio.run(_serve(make_handler, ports, port_file))


async def _serve(
    make_handler: Callable[[Sequence[int]], Handler], ports: Sequence[int], port_file: Path | None
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set if port_file is None else lambda: None)
    sockets = [_bound(port) for port in ports]
    bound = [int(sock.getsockname()[1]) for sock in sockets]
    handler = make_handler(bound)
    servers = [await loop.create_server(lambda: _Connection(handler), sock=sock, backlog=512) for sock in sockets]
    if port_file is not None:
        staging = port_file.with_name(f".tmp-{os.getpid()}-{port_file.name}")
        staging.write_text("".join(f"{port}\n" for port in bound))
        staging.replace(port_file)
    await stop.wait()
    for server in servers:
        server.close()


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock
