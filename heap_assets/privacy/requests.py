"""Requests of erasure: `_privacy/requests/<id>.json`, from the first word to the last answer of a destination.

A request holds identifiers as they are until everything is done; then hashes stand in their place.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from heap_assets.errors import DamagedFileError, MissingInputError
from heap_assets.privacy.people import Left, Named, Pair, Plan
from heap_assets.storage import Store, side_by_side, state_keys

ROOT: Final = f"{state_keys.PRIVACY}/requests"


class State(StrEnum):
    """How far a request is.

    requested: nobody has confirmed what it would erase. confirmed: the next run erases it. erasing: a run has begun.
    waiting: everything of ours is erased, a destination has not finished. complete: all is done, or nothing can be
    asked. cancelled: it was withdrawn before it was confirmed. lifted: the person has consented anew.
    """

    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    ERASING = "erasing"
    WAITING = "waiting"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    LIFTED = "lifted"


OPEN: Final = (State.REQUESTED, State.CONFIRMED, State.ERASING, State.WAITING)


@dataclass(frozen=True)
class Request:
    """One request to erase a person.

    Attributes
    ----------
    named
        What it names, spelled as the rules do; empty once it is done.
    plan
        What it erases and leaves; None before that was looked up.
    source
        Where it came from: `cli`, or the asset of a table.
    counts
        Of the plan: `identifiers` by type, and values that are `left` by the reason.
    tombstones
        Hashes of the identifiers that were erased.
    destinations
        By sync: what its destination answered, see :class:`heap_assets.activation.DeletionState`.
    """

    id: str
    requested_at: datetime
    named: Named
    source: str = "cli"
    author: str = ""
    reason: str = ""
    state: State = State.REQUESTED
    plan: Plan | None = None
    confirmed_by: str = ""
    confirmed_at: datetime | None = None
    batch: str = ""
    tombstones: tuple[str, ...] = ()
    destinations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    lifted_reason: str = ""

    @property
    def is_open(self) -> bool:
        """Whether something is still to happen."""
        return self.state in OPEN


def new_id(day: str) -> str:
    """Return the id of a new request: it says the day and nothing of the person."""
    return f"er-{day}-{secrets.token_hex(5)}"


class Requests:
    """All requests of a lake."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(self, request: Request) -> bool:
        """Store a new request; False if there is one of that id."""
        return self.store.create(_key(request.id), _written(request))

    def get(self, request_id: str) -> Request:
        """Return a request; MissingInputError if there is none."""
        try:
            return self._parsed(_key(request_id), self.store.read(_key(request_id)))
        except FileNotFoundError:
            raise MissingInputError(
                f"there is no request {request_id!r}: `heap-assets erase list` shows them"
            ) from None

    def all(self) -> list[Request]:
        """Return all requests, the oldest first."""
        keys = [info.key for info in self.store.list(ROOT)]
        stored = side_by_side(self.store, self.store.read, keys)
        requests = [self._parsed(*one) for one in zip(keys, stored, strict=True)]
        return sorted(requests, key=lambda one: (one.requested_at, one.id))

    def update_all(self, changes: Mapping[str, Callable[[Request], Request]]) -> dict[str, Request]:
        """Change several requests as :meth:`update` does one; returns them by their ids."""
        changed = side_by_side(self.store, lambda one: self.update(*one), list(changes.items()))
        return dict(zip(changes, changed, strict=True))

    def update(self, request_id: str, change: Callable[[Request], Request]) -> Request:
        """Change a request, with nobody else's change in between; returns it."""
        changed: list[Request] = []

        def rewritten(data: bytes | None) -> bytes:
            if data is None:
                raise MissingInputError(f"there is no request {request_id!r}: `heap-assets erase list` shows them")
            changed.append(change(self._parsed(_key(request_id), data)))
            return _written(changed[-1])

        self.store.update(_key(request_id), rewritten)
        return changed[-1]

    def _parsed(self, key: str, data: bytes) -> Request:
        try:
            document = json.loads(data)
            plan = document.pop("plan")
            named = document.pop("named")
            times = {name: document.pop(name) for name in ("requested_at", "confirmed_at")}
            return Request(
                **{**document, "state": State(document["state"]), "tombstones": tuple(document["tombstones"])},
                named=Named(_pairs(named["person"]), _pairs(named["also"])),
                plan=None if plan is None else _plan(plan),
                requested_at=datetime.fromisoformat(times["requested_at"]),
                confirmed_at=datetime.fromisoformat(times["confirmed_at"]) if times["confirmed_at"] else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(
                f"{self.store.uri(key)} is damaged ({type(error).__name__}): restore it from a backup, or delete it "
                "and request the erasure again"
            ) from error


def planned(request: Request, plan: Plan) -> Request:
    """Return a request with what it would erase."""
    types, reasons = Counter(kind for kind, _ in plan.identifiers), Counter(one.why for one in plan.left)
    counts = {"identifiers": dict(sorted(types.items())), "left": dict(sorted(reasons.items()))}
    return replace(request, plan=plan, counts=counts)


def closed(request: Request, state: State) -> Request:
    """Return a request without the values that it named: counts and hashes stay."""
    plan = request.plan
    emptied = None if plan is None else replace(plan, identifiers=(), left=())
    return replace(request, state=state, named=Named((), ()), plan=emptied)


def _key(request_id: str) -> str:
    if not request_id or not all(letter.isalnum() or letter in "-_" for letter in request_id):
        raise MissingInputError(f"there is no request {request_id!r}: `heap-assets erase list` shows them")
    return f"{ROOT}/{request_id}.json"


def _written(request: Request) -> bytes:
    document = {name: getattr(request, name) for name in request.__dataclass_fields__}
    document["named"] = {"person": request.named.person, "also": request.named.also}
    if (plan := request.plan) is not None:
        left = [[one.identifier_type, one.identifier, one.why] for one in plan.left]
        document["plan"] = {"identifiers": plan.identifiers, "left": left, "days": plan.days}
    for name in ("requested_at", "confirmed_at"):
        document[name] = document[name].isoformat() if document[name] else None
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _plan(document: Mapping[str, Any]) -> Plan:
    return Plan(_pairs(document["identifiers"]), tuple(Left(*one) for one in document["left"]), document["days"])


def _pairs(rows: list[list[str]]) -> tuple[Pair, ...]:
    return tuple((kind, value) for kind, value in rows)
