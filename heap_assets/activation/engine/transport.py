"""The wire: one HTTP call in, an answer or the reason for none out. Nothing personal is ever logged."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from heap_assets.activation.engine.destination import Request, Response
from heap_assets.activation.engine.rate_limit import Clock, RealClock
from heap_assets.http_client import HttpClient, NoAnswer


@dataclass(frozen=True)
class Unanswered:
    """A call without an answer.

    Attributes
    ----------
    arrived
        Whether the destination may have received it.
    hopeless
        Whether the next attempt would end the same way: an impossible address, a host that is not allowed.
    """

    what: str
    arrived: bool
    hopeless: bool = False


class Transport:
    """Calls over pooled HTTP connections.

    Parameters
    ----------
    wire
        Stands in for the network, for simulations on a virtual clock.
    """

    def __init__(self, clock: Clock | None = None, wire: httpx.BaseTransport | None = None) -> None:
        self.clock = clock or RealClock()
        self._client = HttpClient(wire)

    def send(self, request: Request, timeout: float) -> Response | Unanswered:
        """Make one call; it ends after `timeout` seconds whatever the other side does.

        An answer that says that all was taken and cannot be read to its end is none: it may name rows that were not.
        """
        headers = {"Content-Type": "application/json", **request.headers}
        answer = self._client.exchange(request.method, request.url, request.body, headers, timeout)
        if isinstance(answer, NoAnswer):
            return Unanswered(answer.reason, answer.arrived, answer.hopeless)
        response = Response(answer.status, answer.body, answer.headers)
        if answer.unreadable and response.accepted:
            return Unanswered(f"HTTP {answer.status} whose text is {answer.unreadable}", arrived=True)
        return response

    def close(self) -> None:
        self._client.close()
