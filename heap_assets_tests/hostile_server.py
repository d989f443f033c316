"""A local server on raw sockets that misbehaves in every way a destination can, and remembers what it took."""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

DRIP = 0.04
"""Seconds between the bytes of a slow answer: less than any timeout of a single read."""
Answering = Callable[[socket.socket, bytes, threading.Event], None]


def _status(line: str, body: bytes = b"{}", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {line}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _says(data: bytes) -> Answering:
    def answer(connection: socket.socket, request: bytes, over: threading.Event) -> None:
        connection.sendall(data)

    return answer


def _drips(start: bytes, endless: bytes) -> Answering:
    def answer(connection: socket.socket, request: bytes, over: threading.Event) -> None:
        connection.sendall(start)
        while not over.wait(DRIP):
            for byte in endless:
                connection.sendall(bytes([byte]))
                if over.wait(DRIP):
                    return

    return answer


def _floods(start: bytes, endless: bytes) -> Answering:
    def answer(connection: socket.socket, request: bytes, over: threading.Event) -> None:
        connection.sendall(start)
        while not over.is_set():
            connection.sendall(endless)

    return answer


def _resets(connection: socket.socket, request: bytes, over: threading.Event) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _silent(connection: socket.socket, request: bytes, over: threading.Event) -> None:
    over.wait()


def _echoes(line: str) -> Answering:
    def answer(connection: socket.socket, request: bytes, over: threading.Event) -> None:
        connection.sendall(_status(line, request, "Content-Type: text/plain"))

    return answer


def _bomb(megabytes: int = 256) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


BOMB = _bomb()
_GZIP = "Content-Encoding: gzip"
_DEEP = b'{"errors":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_ODD_ERRORS = (
    b'{"errors":[{"index":-1},{"index":99999},{"index":true},{"index":"0"},{"index":null},{"index":1e400},3,null,'
    b'{"index":1.5},{"message":{"a":[1]}}]}'
)

TAKES: Mapping[str, bytes] = {
    "plain 200": _status("200 OK"),
    "204 without a body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "200 that is no JSON": _status("200 OK", b"<html>fine</html>"),
    "200 in gzip": _status("200 OK", gzip.compress(b"{}"), _GZIP),
    "200 after interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + _status("200 OK"),
    "200 with deep JSON": _status("200 OK", _DEEP),
    "200 with a number of 6,000 digits": _status("200 OK", b'{"errors":[{"index":' + b"9" * 6000 + b"}]}"),
    "200 with odd row numbers": _status("200 OK", _ODD_ERRORS),
    "200 that closes": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
}
"""Answers by which all rows are taken, however odd."""

REFUSES: Mapping[str, Answering] = {
    "slow status line": _drips(b"", b"H"),
    "slow headers": _drips(b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n"),
    "slow body": _drips(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    "slow chunks": _drips(_CHUNKED, b"1\r\n \r\n"),
    "slow body of a refusal": _drips(b"HTTP/1.1 400 Bad\r\nContent-Length: 100000\r\n\r\n", b" "),
    "endless 100 Continue": _floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "slow 102 Processing": _drips(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "endless headers": _floods(b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n"),
    "one endless header": _floods(b"HTTP/1.1 200 OK\r\nX-Header: ", b"a" * 1000),
    "endless body": _floods(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 10000),
    "endless chunks": _floods(_CHUNKED, b"4\r\naaaa\r\n" * 100),
    "endless body of a refusal": _floods(b"HTTP/1.1 400 Bad\r\n\r\n", b"a" * 10000),
    "no answer": _silent,
    "closed at once": _says(b""),
    "reset": _resets,
    "cut in the status line": _says(b"HTTP/1.1 20"),
    "cut in the headers": _says(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "cut in the body": _says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "cut in the chunks": _says(_CHUNKED + b"5\r\nab"),
    "no HTTP": _says(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "binary": _says(bytes(range(256)) * 4),
    "wrong chunk size": _says(_CHUNKED + b"zz\r\nab\r\n0\r\n\r\n"),
    "negative length": _says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"),
    "two lengths": _says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "NUL in a header": _says(b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\n{}"),
    "status 99": _says(_status("099 Low")),
    "status 101": _says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    "status 999": _says(_status("999 High")),
    "redirect": _says(_status("302 Found", b"", "Location: http://127.0.0.1:9/")),
    "redirect to nowhere": _says(_status("301 Moved", b"", "Location: http://[")),
    "bomb": _says(_status("200 OK", BOMB, _GZIP)),
    "bomb of a refusal": _says(_status("400 Bad", BOMB, _GZIP)),
    "gzip that is none": _says(_status("200 OK", b"plain", _GZIP)),
    "gzip that is cut off": _says(_status("200 OK", gzip.compress(b"{}" * 100)[:-9], _GZIP)),
    "encoding nobody asked for": _says(_status("200 OK", b"\x0b\x02\x80", "Content-Encoding: br")),
    "longer than its limit": _says(_status("200 OK", b" " * (1 << 20))),
    "refusal with deep JSON": _says(_status("400 Bad", _DEEP)),
    "refusal with odd row numbers": _says(_status("422 Bad", _ODD_ERRORS)),
    "refusal that echoes all": _echoes("400 Bad"),
    "refusal with a lone surrogate": _says(_status("400 Bad", b'{"errors":[{"index":0,"message":"\\ud800"}]}')),
    "throttled for ever": _says(_status("429 Slow", b"", "Retry-After: 1e400")),
    "throttled for nan": _says(_status("429 Slow", b"", "Retry-After: nan")),
    "throttled until a year that is none": _says(
        _status("503 Slow", b"", "Retry-After: Mon, 99 Foo 99999999999 99:99:99 GMT")
    ),
    "forbidden": _echoes("403 No"),
    "gone": _says(_status("410 Gone")),
    "down": _echoes("500 Down"),
}
"""Answers by which nothing is taken, or nobody can know."""


@dataclass
class Hostile:
    """A running server.

    Attributes
    ----------
    answering
        What it does with the next requests; None: it takes them politely.
    taken
        Bodies of the requests that it took, by its own word.
    requests
        All requests with their headers, as bytes.
    connections
        How often anything connected to it, whatever it said.
    """

    port: int = 0
    answering: Answering | None = None
    takes: bool = True
    taken: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, data: bytes) -> None:
        """Answer with these bytes, meaning that everything was taken."""
        self.answering, self.takes = _says(data), True

    def refuse(self, answering: Answering) -> None:
        """Answer so, meaning that nothing was taken."""
        self.answering, self.takes = answering, False

    def be_polite(self) -> None:
        """Answer 200 from now on."""
        self.take(TAKES["plain 200"])


@contextmanager
def hostile_server() -> Iterator[Hostile]:
    """Serve on a free port of loopback until the block ends; whoever still drips then stops."""
    server = Hostile()
    server.be_polite()
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
        server.port = listening.getsockname()[1]

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listening.accept()
                    server.connections += 1
                    threading.Thread(target=_serve, args=(connection, server, over), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            over.set()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", server.port), 1).close()
            thread.join(5)


def _serve(connection: socket.socket, server: Hostile, over: threading.Event) -> None:
    """Take one request a connection: what follows a broken answer is nobody's business."""
    with connection, contextlib.suppress(OSError):
        request = _request(connection)
        if not request or server.answering is None:
            return
        server.requests.append(request)
        if server.takes:
            server.taken.append(request.partition(b"\r\n\r\n")[2])
        server.answering(connection, request, over)


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    length = re.search(rb"(?i)content-length: (\d+)", data)
    whole = data.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
    while len(data) < whole and (piece := connection.recv(65536)):
        data += piece
    return data
