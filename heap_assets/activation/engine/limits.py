"""Documented limits of a destination: sizes, rates, quotas, and the headers that tell how much is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rate:
    """At most `rows` rows (or calls, if `per_call`; bytes, if `per_byte`) in any `seconds`, over the app or per key.

    `label`: of the requests that it counts; all of them without one.
    """

    rows: int
    seconds: float
    per_key: bool = False
    per_call: bool = False
    per_byte: bool = False
    label: str = ""


@dataclass(frozen=True)
class Quota:
    """At most `calls` calls (or rows, if `per_row`) in a calendar day of `zone`, over all syncs of the account.

    `unit`: how messages name what is counted, such as tokens that a request is given the number of as its `rows`.
    `label`: of the requests that it counts; all of them without one.
    """

    calls: int
    zone: str = "UTC"
    per_row: bool = False
    unit: str = ""
    label: str = ""


@dataclass(frozen=True)
class Hint:
    """Headers of every answer that tell how many calls are left, and when there are more.

    `at_least`: so many are left to others. `unit`: of the reset header: seconds or milliseconds from now, or the time
    as seconds since 1970.
    """

    remaining: str
    reset: str
    unit: Literal["seconds", "ms", "epoch"] = "seconds"
    at_least: int = 0

    def seconds_without_calls(self, headers: Mapping[str, str], now: float) -> float | None:
        """Return the seconds until there are calls again; None if there are some, or nobody knows.

        `now`: seconds since 1970.
        """
        try:
            left, reset = float(headers[self.remaining.lower()]), float(headers[self.reset.lower()])
        except (KeyError, ValueError):
            return None
        if left > self.at_least:
            return None
        return max(0.0, {"seconds": reset, "ms": reset / 1000, "epoch": reset - now}[self.unit])


@dataclass(frozen=True)
class Limits:
    """Documented limits of one kind of call."""

    batch_rows: int = 1
    batch_bytes: int | None = None
    row_bytes: int | None = None
    """`batch_rows`, `batch_bytes`, `row_bytes`: Most rows and bytes of a request, most bytes of one row."""
    key_units: int | None = None
    name_units: int | None = None
    value_units: int | None = None
    """`key_units`, `name_units`, `value_units`: Most UTF-16 code units of a key, a property name and a text value."""
    rates: tuple[Rate, ...] = ()
    """Rate limits."""
    quotas: tuple[Quota, ...] = ()
    """What may be called in a day."""
    hints: tuple[Hint, ...] = ()
    in_flight: int | None = None
    """Most calls at once."""
    shared_by: str = ""
    """Account whose rates, quotas and calls at once these are, for all syncs of one process (quotas: of one lake) that
    name the same; empty: they are this sync's own."""
    junk_keys: frozenset[str] = frozenset()
    """Keys that are never one person ("null", "guest")."""
    forbidden_names: frozenset[str] = frozenset()
    """Lower-case names a property must not have in any casing."""
