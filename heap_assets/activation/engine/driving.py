"""Drives an exchange: carries its steps out one after the other, and hands its verdict on with redacted reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heap_assets.activation.engine.destination import Destination, Row
from heap_assets.activation.engine.exchange import Exchange, Remember, Request, Step, Wait
from heap_assets.activation.engine.http_client import (
    LONGEST_REASON,
    RetryingClient,
    RunStopped,
    personal,
    unreadable,
)
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict
from heap_assets.redaction import redact


class StillWorking(Exception):
    """The destination has not come to an end with a batch; a later run goes on with it."""


@dataclass(frozen=True)
class Judged:
    """The verdict of an exchange, with status and attempt of its last call."""

    verdict: Verdict
    http_status: int | None
    attempt: int


class Drive:
    """One exchange with its destination.

    `remember`: stores a state durably. `patience`: seconds that all its waits may take together.
    """

    def __init__(
        self,
        destination: Destination,
        client: RetryingClient,
        rows: Sequence[Row],
        heavy: Counter[str],
        remember: Callable[[Mapping[str, Any]], None],
        patience: float,
    ) -> None:
        self._destination, self._client, self._rows, self._heavy = destination, client, rows, heavy
        self._remember = remember
        self._patience = patience
        self._response: Response | None = None
        self._attempt = 0
        self._arrived = False
        self.remembered = False

    def through(self, exchange: Exchange) -> Judged:
        """Carry out the steps of an exchange.

        Raises RunStopped, AnswerLost, or StillWorking if its waits take too long.
        """
        answer: Response | None = None
        try:
            while not isinstance(step := self._next(exchange, answer), Judged):
                answer = self._carried_out(step)
            return step
        finally:
            exchange.close()

    def _next(self, exchange: Exchange, answer: Response | None) -> Step | Judged:
        try:
            try:
                return next(exchange) if answer is None else exchange.send(answer)
            except StopIteration as end:
                status = self._response.status if self._response else None
                return Judged(self._redacted(end.value), status, self._attempt)
        except Exception as error:
            if self._response is None:  # no answer is to blame: the destination's own mistake
                raise
            raise unreadable(self._destination, self._response, error) from error

    def _carried_out(self, step: Step) -> Response:
        if isinstance(step, Remember):
            self._client.check(arrived=self._arrived)  # who lost the lease must not overwrite its successor's
            self._remember(step.state)
            self.remembered = True
        elif isinstance(step, Wait):
            self._patience -= step.seconds
            if self._patience < 0:
                raise StillWorking
            self._client.wait(step.seconds)
            self._client.check(arrived=self._arrived)
        else:
            return self._called(step)
        return Response(0)

    def _called(self, request: Request) -> Response:
        try:
            self._response, self._attempt = self._client.call(request, self._rows, self._heavy)
        except RunStopped as stop:
            stop.arrived = stop.arrived or self._arrived
            raise
        self._arrived = self._arrived or not request.only_reads
        return self._response

    def _redacted(self, verdict: Verdict) -> Verdict:
        """Return a verdict about rows that exist, with what may be kept of its reasons."""
        named = {index: row for index, row in verdict.rows.items() if 0 <= index < len(self._rows)}
        alone = len(self._rows) == 1 or self._destination.replaces
        common = verdict.reason if alone else None  # else the batch is split, and it is not kept
        texts = {row.reason for row in named.values()} | {common, verdict.stop}
        values = personal(self._rows) if texts - {None} else ()
        shown = {text: redact(text, values, longest=LONGEST_REASON) for text in texts if text is not None}
        rows = {
            index: row if row.reason is None else RowVerdict(row.status, shown[row.reason], row.until, row.remote_id)
            for index, row in named.items()
        }
        unnamed = {redact(reason, (), longest=LONGEST_REASON): count for reason, count in verdict.unnamed.items()}
        return Verdict(rows, verdict.rest, shown.get(common or ""), shown.get(verdict.stop or ""), unnamed)
