"""The wire: one HTTP call in, an answer or the reason for none out. Nothing personal is ever logged."""

from __future__ import annotations

import functools
import logging
import ssl
import threading
import time
from dataclasses import dataclass

import httpx

from heap_assets.destinations.base import Request, Response
from heap_assets.destinations.limiter import Clock, RealClock

_LONGEST_ANSWER = 1 << 20
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Unanswered:
    """A call without an answer.

    Attributes
    ----------
    arrived
        Whether the destination may have received it.
    """

    what: str
    arrived: bool


class _Quiet(logging.Filter):
    """httpx logs every URL; a webhook's may hold a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not threading.current_thread().name.startswith("deliver-")


_QUIET = _Quiet()


@functools.cache
def _trust() -> ssl.SSLContext:
    """Load the certificate authorities once per process; it takes longer than a call."""
    return httpx.create_ssl_context()


class Transport:
    """Calls over pooled HTTP connections.

    Parameters
    ----------
    wire
        Stands in for the network, for simulations on a virtual clock.
    """

    def __init__(self, clock: Clock | None = None, wire: httpx.BaseTransport | None = None) -> None:
        self.clock = clock or RealClock()
        for name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy"):
            if _QUIET not in logging.getLogger(name).filters:
                logging.getLogger(name).addFilter(_QUIET)
        self._client = httpx.Client(transport=wire, follow_redirects=False, verify=_trust())

    def send(self, request: Request, timeout: float) -> Response | Unanswered:
        """Make one call; it ends after `timeout` seconds however slowly the answer drips in."""
        headers = {"Content-Type": "application/json", "User-Agent": "heap-assets", **request.headers}
        deadline = time.monotonic() + timeout
        body = b""
        try:
            with self._client.stream(
                request.method, request.url, content=request.body, headers=headers, timeout=timeout
            ) as answer:
                for chunk in answer.iter_bytes():
                    body += chunk[: _LONGEST_ANSWER - len(body)]
                    if time.monotonic() > deadline:
                        return Unanswered("no answer (too slow)", arrived=True)
                return Response(answer.status_code, body, dict(answer.headers))
        except _NEVER_SENT as error:
            return Unanswered(f"no connection ({type(error).__name__})", arrived=False)
        except (httpx.TransportError, httpx.DecodingError) as error:
            return Unanswered(f"no answer ({type(error).__name__})", arrived=True)

    def close(self) -> None:
        self._client.close()
