"""The ability of a connector to have people deleted at its destination: who is asked, how, and what becomes of it.

Asking twice does no harm anywhere: a run that is killed between a call and its record asks once more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import polars as pl

from heap_assets.activation.engine.destination import Destination, Row, Service
from heap_assets.activation.engine.exchange import Request, Wait
from heap_assets.activation.engine.limits import Limits
from heap_assets.activation.engine.verdict import Response

DeletionState = Literal["pending", "complete", "requested", "failed"]
"""pending: asked, and to be asked how far it is. complete: they are deleted, or were not there. requested: asked, and
nobody will say more. failed: refused; it is asked again by the next run."""
Calls = Generator[Request, Response, "Deleted"]
"""Yields calls, is sent their answers, and returns what became of the people."""


@dataclass(frozen=True)
class Deleted:
    """The answer for the people of one call. `id`: what the destination calls the request; `note`: for the proof."""

    state: DeletionState
    id: str = ""
    note: str = ""


class Deletion(ABC):
    """Has people deleted at one account. `ids_per_call`: the most of one call.

    `missing`: the key of the settings without which nobody can be asked; empty if all is there.
    """

    ids_per_call: int = 1
    missing: str = ""

    @abstractmethod
    def destination(self) -> Service:
        """Return whose login and limits the calls have."""

    @abstractmethod
    def ask(self, keys: Sequence[str]) -> Calls:
        """Ask for the deletion of people, by the keys that the destination knows them by."""

    def poll(self, request_id: str) -> Calls:
        """Ask how far a request is; only of those that were `pending`."""
        yield from ()
        return Deleted("requested", request_id)


class DeletionApi(Service):
    """A host of deletion requests that is another than that of the rows: its own login and limits."""

    def __init__(self, kind: str, account: str, **common: Any) -> None:
        self.kind, self._account = kind, account
        self.auth = common.get("auth")
        self.limits = common.get("limits") or Limits()

    @property
    def target(self) -> str:
        return f"{self.kind}:{self._account}:deletion"


class MembersRemoved(Deletion):
    """Removes members from an audience, for destinations of sets: what is held elsewhere there cannot be deleted."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self.ids_per_call = max(1, min(destination.limits.batch_rows, 1_000))

    def destination(self) -> Destination:
        return self._destination

    def ask(self, keys: Sequence[str]) -> Calls:
        destination = self._destination
        rows = [Row(key, key, {}, removed=True, identifier=_identifier(destination, key)) for key in keys]
        exchange = destination.exchange([orjson.dumps(destination.element(row)) for row in rows], rows)
        try:
            step = next(exchange)
            while True:
                if isinstance(step, Request):
                    answer = yield step
                elif isinstance(step, Wait) and step.seconds > _LONGEST_WAIT:
                    return Deleted("requested", note="removal from the audience was asked for")
                else:
                    answer = Response(0)
                step = exchange.send(answer)
        except StopIteration as end:
            refused = [row for row in end.value.rows.values() if row.status == "rejected"]
            is_refused = end.value.rest == "not_applied" and not end.value.rows
            if refused or is_refused:
                return Deleted("failed", note=f"{len(refused) or len(rows)} removals from the audience were refused")
            return Deleted("complete", note="removed from the audience; what is held elsewhere there stays")
        finally:
            exchange.close()


_LONGEST_WAIT = 60.0


def _identifier(destination: Destination, key: str) -> str:
    if destination.key_recipe is None:
        return key
    canonical = pl.select(destination.key_recipe.applied(pl.lit(key))).item()
    return key if canonical is None else str(canonical)


def json_call(url: str, body: Any, **choices: Any) -> Request:
    """Return a call with a JSON body; its answer may be asked for twice."""
    return Request(url, orjson.dumps(body), repeatable=True, rows=0, **choices)


def refused(response: Response, note: str = "") -> Deleted:
    """Return what a call was that was not accepted."""
    return Deleted("failed", note=note or f"HTTP {response.status}")
