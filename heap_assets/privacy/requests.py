"""Requests of erasure: `_privacy/requests/<id>.json`, from the first word to the last answer of a destination.

A request holds identifiers as they are until everything is done; then hashes stand in their place. That a run has begun
is said of all its requests by one object, `_privacy/begun/<batch>.json`, until each has got its end.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from heap_assets.errors import DamagedFileError, MissingInputError
from heap_assets.privacy.people import Left, Named, Pair, Plan
from heap_assets.storage import Store, side_by_side, state_keys

ROOT: Final = f"{state_keys.PRIVACY}/requests"
BEGUN: Final = f"{state_keys.PRIVACY}/begun"


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
_FACTS: Final = ("tombstones", "destinations")
_OF_RUNS: Final = (State.CONFIRMED, State.ERASING)


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
        return self._as_begun([self._stored(request_id)])[0]

    def some(self, request_ids: Iterable[str]) -> dict[str, Request]:
        """Return several requests by their ids, as :meth:`get` does one."""
        ids = list(request_ids)
        stored = self._as_begun(list(side_by_side(self.store, self._stored, ids)))
        return dict(zip(ids, stored, strict=True))

    def all(self) -> list[Request]:
        """Return all requests, the oldest first."""
        keys = [info.key for info in self.store.list(ROOT)]
        stored = side_by_side(self.store, self.store.read, keys)
        requests = self._as_begun([self._parsed(*one) for one in zip(keys, stored, strict=True)])
        return sorted(requests, key=lambda one: (one.requested_at, one.id))

    def update_all(self, changes: Mapping[str, Callable[[Request], Request]]) -> dict[str, Request]:
        """Change several requests as :meth:`update` does one; returns them by their ids."""
        changed = side_by_side(self.store, lambda one: self.update(*one), list(changes.items()))
        return dict(zip(changes, changed, strict=True))

    def update(self, request_id: str, change: Callable[[Request], Request]) -> Request:
        """Change a request, with nobody else's change in between; returns it."""
        changed: list[Request] = []

        def rewritten(data: bytes | None) -> bytes | None:
            if data is None:
                raise _missing(request_id)
            stored = self._as_begun([self._parsed(_key(request_id), data)])[0]
            changed.append(change(stored))
            return None if changed[-1] == stored else _written(changed[-1])

        self.store.update(_key(request_id), rewritten)
        return changed[-1]

    def begin(self, batch: str, requests: Mapping[str, Request]) -> None:
        """Say that a run has begun with requests, in the state in which they are given: one write for all of them."""
        facts = {one: {name: getattr(request, name) for name in _FACTS} for one, request in requests.items()}
        self.store.update(_begun_key(batch), lambda data: _as_json({**(json.loads(data) if data else {}), **facts}))

    def write_ended(self, requests: Iterable[Request]) -> None:
        """Write what has become of requests with which a run had begun.

        Nobody but a run writes requests that are being erased: they are replaced without being read.
        """
        list(side_by_side(self.store, lambda one: self.store.write(_key(one.id), _written(one)), list(requests)))

    def forget_begun(self, batch: str, request_ids: Iterable[str]) -> None:
        """Take back what :meth:`begin` said of requests: they say themselves what has become of them."""
        left = {one: facts for one, facts in self.batches().get(batch, {}).items() if one not in set(request_ids)}
        if left:
            self.store.write(_begun_key(batch), _as_json(left))
        else:
            self.store.delete(_begun_key(batch))

    def batches(self) -> dict[str, Mapping[str, Mapping[str, Any]]]:
        """Return the requests of each run that has not ended, with what it found out about them."""
        begun = {}
        for info in self.store.list(BEGUN):
            try:
                begun[info.key.rpartition("/")[2].removesuffix(".json")] = json.loads(self.store.read(info.key))
            except FileNotFoundError:  # it has just ended
                continue
            except ValueError as error:
                raise DamagedFileError(
                    f"{self.store.uri(info.key)} is damaged ({type(error).__name__}): restore it from a backup; "
                    "without it destinations are not asked to delete what they got of its people"
                ) from error
        return begun

    def _as_begun(self, requests: list[Request]) -> list[Request]:
        """Return requests as a run has left them that has begun: each by itself still says that it is confirmed."""
        if not any(one.state in _OF_RUNS for one in requests):
            return requests
        of_run = {one: (batch, facts) for batch, facts_of in self.batches().items() for one, facts in facts_of.items()}
        return [
            _as_of_run(one, *of_run[one.id]) if one.state in _OF_RUNS and one.id in of_run else one for one in requests
        ]

    def _stored(self, request_id: str) -> Request:
        try:
            return self._parsed(_key(request_id), self.store.read(_key(request_id)))
        except FileNotFoundError:
            raise _missing(request_id) from None

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


def begun(request: Request, batch: str, tombstones: Iterable[str], destinations: Mapping[str, Any]) -> Request:
    """Return a request that a run erases from now on."""
    return replace(
        request, state=State.ERASING, batch=batch, tombstones=tuple(tombstones), destinations=dict(destinations)
    )


def _as_of_run(request: Request, batch: str, facts: Mapping[str, Any]) -> Request:
    """Return a request as a run has begun with it; what it says itself of a destination is an answer, and newer."""
    return begun(request, batch, facts["tombstones"], {**facts["destinations"], **request.destinations})


def _missing(request_id: str) -> MissingInputError:
    return MissingInputError(f"there is no request {request_id!r}: `heap-assets erase list` shows them")


def _key(request_id: str) -> str:
    if not request_id or not all(letter.isalnum() or letter in "-_" for letter in request_id):
        raise _missing(request_id)
    return f"{ROOT}/{request_id}.json"


def _begun_key(batch: str) -> str:
    return f"{BEGUN}/{batch}.json"


def _written(request: Request) -> bytes:
    document = {name: getattr(request, name) for name in request.__dataclass_fields__}
    document["named"] = {"person": _by_type(request.named.person), "also": _by_type(request.named.also)}
    if (plan := request.plan) is not None:
        left = [[one.identifier_type, one.identifier, one.why] for one in plan.left]
        document["plan"] = {"identifiers": _by_type(plan.identifiers), "left": left, "days": plan.days}
    for name in ("requested_at", "confirmed_at"):
        document[name] = document[name].isoformat() if document[name] else None
    return _as_json(document)


def _as_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _plan(document: Mapping[str, Any]) -> Plan:
    return Plan(_pairs(document["identifiers"]), tuple(Left(*one) for one in document["left"]), document["days"])


def _by_type(pairs: Iterable[Pair]) -> dict[str, list[str]]:
    """Return the values of each type: with a million of them, a list for each pair would take most of the memory."""
    values: dict[str, list[str]] = {}
    for kind, value in pairs:
        values.setdefault(kind, []).append(value)
    return values


def _pairs(stored: Mapping[str, list[str]] | list[list[str]]) -> tuple[Pair, ...]:
    if isinstance(stored, list):  # as they were written once
        return tuple((kind, value) for kind, value in stored)
    return tuple((kind, value) for kind, values in stored.items() for value in values)
