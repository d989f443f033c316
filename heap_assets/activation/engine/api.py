"""Single calls to a destination's API outside of a delivery: to look before sending, and to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import TypeVar

from heap_assets.activation.engine.destination import Service
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.http_client import AnswerLost, RetryingClient, RunStopped, Transport
from heap_assets.activation.engine.quota import Quotas
from heap_assets.activation.engine.rate_limit import Limiter
from heap_assets.activation.engine.spec import Retry
from heap_assets.activation.engine.verdict import Response
from heap_assets.errors import DeliveryError
from heap_assets.http_client import ANYWHERE, AllowedHosts
from heap_assets.storage import Store

T = TypeVar("T")


class _Unleased:
    """In place of a lease: whoever only reads needs none."""

    def check(self) -> None:
        return


class Api:
    """Calls with the login, limits, retries and `trouble` of a service. Use as a context manager.

    `allowed`: hosts that may be called: those of the deployment. `share`: share of the documented limits that is used.
    `store`: of the lake in which the account's daily quotas are counted, with those of its syncs; without, few calls
    are made, and not counted. `transport`: its own unless given, such as one on a virtual clock.
    """

    def __init__(
        self,
        service: Service,
        *,
        allowed: AllowedHosts = ANYWHERE,
        retry: Retry | None = None,
        share: float = 0.9,
        store: Store | None = None,
        transport: Transport | None = None,
    ) -> None:
        limits, self._transport = service.limits, transport or Transport(allowed=allowed)
        clock, shared_by = self._transport.clock, limits.shared_by
        limiter = Limiter(limits.rates, share, clock, in_flight=limits.in_flight, shared_by=shared_by)
        self._quotas = None if store is None else Quotas(store, service.account, limits, share)
        self._client = RetryingClient(service, retry or Retry(), limiter, self._transport, _Unleased(), self._quotas)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        if self._quotas is not None:
            self._quotas.close()
        self._transport.close()

    def call(self, request: Request) -> Response:
        """Make one call; returns an answer about which `trouble` says nothing.

        Raises DeliveryError if there is none.
        """
        try:
            return self._client.call(request, (), Counter())[0]
        except (RunStopped, AnswerLost) as error:
            raise DeliveryError(str(error)) from error

    def log_in(self) -> None:
        """Have a token fetched, of a login that has any. Raises DeliveryError if there is none."""
        try:
            self._client.log_in()
        except RunStopped as error:
            raise DeliveryError(str(error)) from error

    def through(self, steps: Generator[Request, Response, T]) -> T:
        """Make the calls that a generator yields, and return what it returns; it is sent the answers.

        Raises DeliveryError if there is no answer.
        """
        try:
            request = next(steps)
            while True:
                request = steps.send(self.call(request))
        except StopIteration as end:
            result: T = end.value
            return result
