"""Orders to fail: what `POST /_faults` of the local servers understands.

One order is an object; several are a list, and the first that applies to a request wins::

    {"status": 429, "retry_after": 1, "every": 5}        every fifth request
    {"status": 500, "next": 3}                           the next three requests, then the order is gone
    {"kind": "reset", "path": "/api/track", "next": 1}   TCP reset before anything is applied
    {"kind": "half", "next": 1}                          applied, half of the answer arrives
    {"kind": "slow", "seconds": 2}                       applied, answered late
    {"kind": "hang", "next": 1, "apply": true}           never answered
    {"kind": "drop", "next": 1}                          applied, then the connection is reset
    {"kind": "exit", "next": 1}                          applied, then the process dies
    {"kind": "refuse_rows", "match": "^bad", "status": 400, "say_which": false}
    {"kind": "refuse_batch", "larger_than": 1}           refuses what a smaller batch would be granted
    {"kind": "dead"}                                     every connection is reset until further orders

`skip: n` lets n requests pass first. `[]` takes all orders back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heap_assets.demo.server_http import Ending
from heap_assets.errors import SettingsError

_KINDS = ("status", "reset", "half", "slow", "hang", "drop", "exit", "refuse_rows", "refuse_batch", "dead")
_APPLIED = frozenset({"half", "slow", "drop", "exit"})
_ENDINGS = {
    "reset": Ending.RESET,
    "dead": Ending.RESET,
    "drop": Ending.RESET,
    "half": Ending.HALF,
    "hang": Ending.HANG,
    "exit": Ending.EXIT,
}


@dataclass
class Fault:
    """One order, and how many requests it has seen and hit."""

    kind: str
    status: int = 400
    retry_after: float | None = None
    every: int | None = None
    next: int | None = None
    skip: int = 0
    path: str | None = None
    seconds: float = 0.0
    match: re.Pattern[str] | None = None
    larger_than: int = 0
    say_which: bool = False
    apply: bool = False
    seen: int = 0
    hits: int = 0

    @classmethod
    def parse(cls, order: Mapping[str, Any]) -> Fault:
        """Read one order; SettingsError names what is wrong with it."""
        values = dict(order)
        kind = values.pop("kind", "status")
        if kind not in _KINDS:
            raise SettingsError(f"fault kind {kind!r} is not one of {', '.join(_KINDS)}")
        allowed = set(cls.__dataclass_fields__) - {"kind", "seen", "hits"}
        if unknown := sorted(set(values) - allowed):
            raise SettingsError(f"fault order has unknown fields {', '.join(unknown)}; known are {sorted(allowed)}")
        if kind == "status" and "status" not in values:
            raise SettingsError("fault order of kind 'status' needs a status, such as 429 or 500")
        if kind == "refuse_rows" and "match" not in values:
            raise SettingsError("fault order of kind 'refuse_rows' needs match, an expression on row keys")
        if "match" in values:
            values["match"] = re.compile(str(values["match"]))
        values.setdefault("apply", kind in _APPLIED)
        return cls(kind=kind, **values)

    @property
    def ending(self) -> Ending:
        return _ENDINGS.get(self.kind, Ending.WHOLE)

    @property
    def answers(self) -> bool:
        """Whether the server answers by itself once the request was applied (late or cut short)."""
        return self.kind not in ("status", "refuse_rows", "refuse_batch")

    def describe(self) -> dict[str, Any]:
        """Return the order with its counters, as JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["match"] = self.match.pattern if self.match else None
        return values

    def applies(self, path: str, keys: Sequence[str]) -> bool:
        """Decide whether this request is hit, and count it."""
        if self.path is not None and not path.startswith(self.path):
            return False
        if self.match is not None and not any(self.match.search(key) for key in keys):
            return False
        if self.kind == "refuse_batch" and len(keys) <= self.larger_than:
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.next is not None and self.hits >= self.next):
            return False
        if self.every is not None and (self.seen - self.skip) % self.every:
            return False
        self.hits += 1
        return True

    def matching(self, keys: Sequence[str]) -> list[int]:
        """Return the positions of the rows that the order refuses."""
        return [index for index, key in enumerate(keys) if self.match is not None and self.match.search(key)]


class FaultOrders:
    """The standing orders of a server."""

    def __init__(self) -> None:
        self._orders: list[Fault] = []

    def replace(self, orders: Any) -> None:
        """Take new orders: one object or a list; they replace all standing ones."""
        listed = orders if isinstance(orders, list) else [orders] if orders else []
        if not all(isinstance(order, dict) for order in listed):
            raise SettingsError("fault orders are an object or a list of objects")
        self._orders = [Fault.parse(order) for order in listed]

    def choose(self, path: str, keys: Sequence[str]) -> Fault | None:
        """Return the first order that hits this request."""
        return next((order for order in self._orders if order.applies(path, keys)), None)

    def describe(self) -> list[dict[str, Any]]:
        return [order.describe() for order in self._orders]
