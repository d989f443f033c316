"""Calls to other machines over HTTP: one deadline over the whole exchange, a bounded answer, and only allowed hosts.

A timeout of httpx is one of each read; a server that sends a byte now and then never meets it. Here every wait of an
exchange (name, connection, TLS, sending, headers, interim answers, body) takes from the same time.
"""

from __future__ import annotations

import fnmatch
import functools
import logging
import queue
import socket
import ssl
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from heap_assets.errors import HostNotAllowedError

LONGEST_ANSWER = 1 << 19
"""Decoded bytes of an answer that are read: enough for the reasons of a full batch."""
_PIECE = 1 << 14
_TOO_SLOW = "the exchange took too long"
_PORTS = {"http": 80, "https": 443}
_PORTS_END = 1 << 16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""No proxy has this machine's own servers."""
_NEVER_SENT = (
    *(httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout),
    *(httpcore.UnsupportedProtocol, httpcore.LocalProtocolError, httpcore.ProxyError),
)
_HOPELESS = (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError)
_JOINED = 1 << 16
"""Bytes of a request that are sent together, header and body: each write costs as much as a small call's body."""


@dataclass(frozen=True)
class Answer:
    """What came back: status, decoded body, headers by lower-case name.

    `unreadable`: why the body is not all there; None if it is.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    unreadable: str | None = None


@dataclass(frozen=True)
class NoAnswer:
    """An exchange without an answer.

    Attributes
    ----------
    reason
        In words, without the address.
    arrived
        Whether the other side may have received the request.
    hopeless
        Whether it would be the same at the next attempt: an impossible address, a host that is not allowed.
    """

    reason: str
    arrived: bool
    hopeless: bool = False


@dataclass(frozen=True)
class AllowedHosts:
    """Which hosts may be called.

    `patterns`: `host`, `host:port` or `*.domain`; None allows all.
    """

    patterns: frozenset[str] | None = None

    @classmethod
    def of(cls, patterns: Iterable[str]) -> AllowedHosts:
        """Return the policy that settings spell: letters count in either case."""
        return cls(frozenset(pattern.lower() for pattern in patterns))

    def allows(self, host: str, port: int | None = None) -> bool:
        """Tell whether a host may be connected to."""
        if self.patterns is None:
            return True
        plain = host.lower().rstrip(".")
        names = {plain, f"{plain}:{port}"} if port else {plain}
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns for name in names)

    def check(self, host: str, port: int | None = None) -> None:
        """Raise HostNotAllowedError unless a host may be connected to."""
        if not self.allows(host, port):
            raise HostNotAllowedError(f"allowed_hosts in the settings does not have {host}: nothing was sent there")


ANYWHERE = AllowedHosts()
"""Of a deployment that restricts nothing."""


def host_and_port(url: str) -> tuple[str, int | None]:
    """Return host and port of an address, `("", None)` if it is none."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", None


class HttpClient:
    """Calls over pooled connections, for any number of threads. No cookies, no redirects, nothing logged.

    `allowed`: hosts that may be called: each deployment has its own, and one process may run several.
    """

    def __init__(self, transport: httpx.BaseTransport | None = None, *, allowed: AllowedHosts = ANYWHERE) -> None:
        self._fixed = None if transport is None else _Simulation(transport)
        self._allowed = allowed
        self._lock = threading.Lock()
        self._pools: dict[str | None, httpcore.ConnectionPool] = {}
        self._proxies: dict[tuple[str, str], str | None] = {}
        for name in ("httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy"):
            if _QUIET not in logging.getLogger(name).filters:
                logging.getLogger(name).addFilter(_QUIET)

    def exchange(
        self,
        method: str,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        timeout: float,
        longest: int = LONGEST_ANSWER,
    ) -> Answer | NoAnswer:
        """Make one call; it ends after `timeout` seconds, whatever the other side does.

        `longest`: decoded bytes of the answer that are read.
        """
        try:
            parsed = _parsed(url)
            port = parsed.port or _PORTS.get(parsed.scheme, 0)
            if not parsed.host or not 0 < port < _PORTS_END:
                return NoAnswer("no valid address", arrived=False, hopeless=True)
            request = _request(method, parsed, body, headers, timeout)
            self._allowed.check(parsed.host, port)
        except HostNotAllowedError as error:
            return NoAnswer(str(error), arrived=False, hopeless=True)
        except (httpx.InvalidURL, UnicodeError, ValueError, TypeError) as error:
            return NoAnswer(f"no valid request ({type(error).__name__})", arrived=False, hopeless=True)
        with _deadline(timeout):
            return self._exchanged(request, parsed, longest)

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.close()

    def _exchanged(self, request: httpcore.Request, url: httpx.URL, longest: int) -> Answer | NoAnswer:
        try:
            response = self._pool(url).handle_request(request)
            try:
                return _read(response, longest)
            finally:
                response.close()
        except HostNotAllowedError as error:
            return NoAnswer(str(error), arrived=False, hopeless=True)
        except _NEVER_SENT as error:
            hopeless = isinstance(error, _HOPELESS) or isinstance(error.__cause__, UnicodeError)
            return NoAnswer(f"no connection ({type(error).__name__})", arrived=False, hopeless=hopeless)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            return NoAnswer(f"no answer ({type(error).__name__})", arrived=True)
        except (OSError, ValueError) as error:  # what httpcore lets through of sockets, TLS and the parser
            return NoAnswer(f"no answer ({type(error).__name__})", arrived=True)

    def _pool(self, url: httpx.URL) -> httpcore.ConnectionPool | _Simulation:
        if self._fixed is not None:
            return self._fixed
        with self._lock:  # to look through the environment takes a quarter of a call
            host = (url.scheme, url.host)
            if host not in self._proxies:
                self._proxies[host] = _proxy_of(url)
            proxy = self._proxies[host]
            if proxy not in self._pools:
                self._pools[proxy] = _pool(proxy, self._allowed)
            return self._pools[proxy]


class _Simulation:
    """A transport of httpx in place of the network; its faults are those of a connection."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        body = b"".join(request.stream) if isinstance(request.stream, Iterable) else b""
        simulated = httpx.Request(
            request.method.decode(),
            bytes(request.url).decode(),
            headers=request.headers,
            content=body,
            extensions=dict(request.extensions),
        )
        try:
            answer = self._transport.handle_request(simulated)
        except httpx.TransportError as error:
            raise getattr(httpcore, type(error).__name__, httpcore.NetworkError)(str(error)) from error
        return httpcore.Response(answer.status_code, headers=answer.headers.raw, content=answer.stream)


_parsed = functools.lru_cache(maxsize=1024)(httpx.URL)
"""Batches of a sync have one address."""


def _request(method: str, url: httpx.URL, body: bytes, headers: Mapping[str, str], timeout: float) -> httpcore.Request:
    """Return a call as the wire has it: httpx' own request costs as much as the exchange itself."""
    own = {"Host": url.netloc, "User-Agent": b"heap-assets", "Accept-Encoding": b"gzip"}
    if body or method in ("POST", "PUT", "PATCH"):
        own["Content-Length"] = b"%d" % len(body)
    named = {name.lower() for name in headers}
    fields: list[tuple[bytes | str, bytes | str]] = [
        *((name, value) for name, value in own.items() if name.lower() not in named),
        *((name, value.encode("ascii")) for name, value in headers.items()),
    ]
    return httpcore.Request(
        method,
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=fields,
        content=body,
        extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout)},
    )


def _pool(proxy: str | None, allowed: AllowedHosts) -> httpcore.ConnectionPool:
    """Return the pool that httpx would call, which knows proxies."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=64)
    pool = httpx.HTTPTransport(verify=_tls_context(), limits=limits, proxy=proxy)._pool
    # httpx has no parameter for it; hostile servers in the tests hold that it is in use
    pool._network_backend = _Backend(allowed)
    return pool


def _proxy_of(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for an address (HTTPS_PROXY, NO_PROXY, ...), None for none."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or url.host in _LOOPBACK or urllib.request.proxy_bypass(url.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Load the certificate authorities once per process; it takes longer than a call."""
    return httpx.create_ssl_context()


def _read(response: httpcore.Response, longest: int) -> Answer:
    """Read and decode a body up to its limit; httpx' own decoders have none."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    encoding = headers.get("content-encoding", "").strip().lower()
    decoder = {"": None, "identity": None, "gzip": 31, "x-gzip": 31, "deflate": 47}
    if encoding not in decoder:
        return Answer(response.status, b"", headers, f"encoded as {encoding[:20]!r}, which was not asked for")
    window = decoder[encoding]
    inflate = zlib.decompressobj(window) if window is not None else None
    body, received = bytearray(), 0
    for piece in response.iter_stream():
        received += len(piece)
        try:
            body += piece if inflate is None else inflate.decompress(piece, longest + 1 - len(body))
        except zlib.error:
            return Answer(response.status, bytes(body), headers, f"not the {encoding} that it says")
        if len(body) > longest or received > longest:
            return Answer(response.status, bytes(body[:longest]), headers, f"longer than {longest >> 10} KiB")
    cut = inflate is not None and received and not inflate.eof
    return Answer(response.status, bytes(body), headers, "cut off" if cut else None)


# -- the deadline -----------------------------------------------------------------------------------------------------

_exchange = threading.local()


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Bound all waits of this thread's exchange together; its reads and writes happen in the thread that asks."""
    _exchange.until = time.monotonic() + seconds
    try:
        yield
    finally:
        _exchange.until = None


def _remaining(otherwise: float | None) -> float | None:
    """Return the seconds that are left of this thread's exchange, at least 0; `otherwise` outside of one."""
    until = getattr(_exchange, "until", None)
    return otherwise if until is None else max(0.0, until - time.monotonic())


class _Quiet(logging.Filter):
    """httpcore's debug log has headers, which hold secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(_exchange, "until", None) is None


_QUIET = _Quiet()


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends with the exchange.

    `sends`: whether its socket takes bytes as they are; TLS within TLS (behind a proxy) does not.
    """

    def __init__(self, inner: httpcore.NetworkStream, *, sends: bool = True) -> None:
        self._inner = inner
        self._socket: socket.socket | None = inner.get_extra_info("socket") if sends else None
        self._held = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._held:
            with suppress(httpcore.WriteError):  # who refuses in the middle of a request may have answered it
                self._flush(timeout)
        return self._inner.read(max_bytes, self._time_remaining(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send, or hold back until more comes or an answer is awaited."""
        room = _JOINED - len(self._held)
        self._held += buffer[:room]
        if len(buffer) > room:
            self._flush(timeout)
            self._send(memoryview(buffer)[room:], timeout)

    def _flush(self, timeout: float | None) -> None:
        held, self._held = self._held, b""
        self._send(memoryview(held), timeout)

    def _send(self, view: memoryview, timeout: float | None) -> None:
        while len(view):
            remaining = self._time_remaining(timeout, httpcore.WriteTimeout)
            if self._socket is None:
                self._inner.write(bytes(view[:_PIECE]), remaining)
                view = view[_PIECE:]
                continue
            try:
                self._socket.settimeout(remaining)
                view = view[self._socket.send(view) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(_TOO_SLOW) from error
            except OSError as error:
                raise httpcore.WriteError(type(error).__name__) from error

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        twice = isinstance(self._socket, ssl.SSLSocket)
        try:
            remaining = self._time_remaining(timeout, httpcore.ConnectTimeout)
            return _Stream(self._inner.start_tls(ssl_context, server_hostname, remaining), sends=not twice)
        except ValueError as error:  # a host name that TLS cannot ask for
            self.close()
            raise httpcore.ConnectError(type(error).__name__) from error

    @staticmethod
    def _time_remaining(timeout: float | None, too_late: type[Exception]) -> float | None:
        remaining = _remaining(timeout)
        if remaining == 0:
            raise too_late(_TOO_SLOW)
        return remaining

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Connects within the time of the exchange, to allowed hosts."""

    def __init__(self, allowed: AllowedHosts) -> None:
        self._allowed = allowed
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        self._allowed.check(host, port)
        failed: Exception = httpcore.ConnectError(f"no address of {host}")
        for address in _addresses(host, port, _remaining(timeout)):
            remaining = _remaining(timeout)
            if remaining == 0:
                raise httpcore.ConnectTimeout(_TOO_SLOW)
            try:
                return _Stream(self._inner.connect_tcp(address, port, remaining, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("no address of a host")


def _addresses(host: str, port: int, seconds: float | None) -> list[str]:
    """Look a name up; in a thread, because the resolver has no timeout of its own."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))
        except (OSError, ValueError) as error:  # UnicodeError: a name that cannot be one
            answers.put(error)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise httpcore.ConnectTimeout("the name was not resolved in time") from None
    if isinstance(answer, Exception):
        raise httpcore.ConnectError(type(answer).__name__) from answer
    return answer
