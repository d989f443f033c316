"""The interface a destination implements: how rows become requests, and what an answer means for each row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import orjson
import polars as pl

from heap_assets.activation.engine.spec import Mode


@dataclass(frozen=True)
class Rate:
    """At most `rows` rows (or calls, if `per_call`) in any `seconds`, over the app or per key."""

    rows: int
    seconds: float
    per_key: bool = False
    per_call: bool = False


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
    junk_keys: frozenset[str] = frozenset()
    """Keys that are never one person ("null", "guest")."""
    forbidden_names: frozenset[str] = frozenset()
    """Lower-case names a property must not have in any casing."""


@dataclass(slots=True)
class Row:
    """One row of a batch as a destination sees it."""

    key: str
    """What the ledger knows the row by: the destination's key, or the event key."""
    person: str
    """Who it is about: the key of an upsert, the identity an event goes to."""
    values: Mapping[str, Any]
    """Mapped properties: text, number or boolean; None for one that is sent as null."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Addressing columns of the rows other than the key (`event`, `time`, `event_key`, ...)."""


@dataclass(frozen=True)
class Request:
    """One HTTP call, ready to send. Never logged."""

    url: str
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """The answer to a request."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the call as a whole was accepted: any 2xx (heap.md 1.1)."""
        return 200 <= self.status < 300


@runtime_checkable
class Destination(Protocol):
    """The interface of a destination. Subclass :class:`BaseDestination` and implement `request`.

    Attributes
    ----------
    kind, mode, limits
        Its name, how rows become calls, and what a call may hold.
    required, optional
        Columns of the rows it needs or takes besides the key and the mapped ones.
    key_may_be_null
        Rows may be addressed otherwise.
    accepted
        Status of a row that the destination took: `acknowledged`, or `sent` where only a later export proves it.
    """

    kind: str
    mode: Mode
    limits: Limits
    key_may_be_null: bool
    accepted: str

    @property
    def required(self) -> tuple[str, ...]: ...
    @property
    def optional(self) -> tuple[str, ...]: ...

    @property
    def target(self) -> str:
        """Name the account written to, without secrets: another target is another ledger's worth of rows."""

    @property
    def account(self) -> str:
        """Name the address and the account that is written to: each has a ledger of its own. Only its hash is kept."""

    def precondition_error(self) -> str | None:
        """Return why nothing can be sent yet, or None."""

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        """Return reason to expression that is true for rows that must not be sent."""

    def held_rows(self, rows: pl.DataFrame, ledger: pl.DataFrame) -> pl.Series:
        """Return for planned rows why they are held because of what was sent before (text), or null."""

    def element(self, row: Row) -> Any:
        """Return the JSON value that stands for one row in a request."""

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        """Build one call from encoded elements."""

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        """Return index to reason of the rows that this answer rejects, or None if it does not say."""


class BaseDestination(ABC):
    """Defaults for destinations: one row a call, no rejections row by row."""

    kind: str = "custom"
    mode: Mode = Mode.UPSERT
    limits: Limits = Limits()
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    key_may_be_null: bool = False
    accepted: str = "acknowledged"

    @property
    def target(self) -> str:
        return self.kind

    @property
    def account(self) -> str:
        """Name the address and the account that is written to: each has a ledger of its own. Only its hash is kept."""
        return self.target

    def precondition_error(self) -> str | None:
        return None

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        del rows
        return {}

    def held_rows(self, rows: pl.DataFrame, ledger: pl.DataFrame) -> pl.Series:
        del ledger
        return pl.Series("reason", [None], dtype=pl.String).new_from_index(0, len(rows))

    def element(self, row: Row) -> Any:
        return {"key": row.key, "properties": dict(row.values)}

    @abstractmethod
    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        """Build one call from encoded elements."""

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        del response, rows
        return None


def row_errors(response: Response, rows: int) -> dict[int, str] | None:
    """Read `{"errors": [{"index": 3, "message": "..."}]}`, the usual form in which an API names the rows it rejects."""
    try:
        # unlike json it has a limit of depth, and does not exhaust the stack before
        errors = orjson.loads(response.body).get("errors")
    except (ValueError, AttributeError):
        return None
    if not isinstance(errors, list):
        return None
    rejected = [e for e in errors if isinstance(e, dict) and type(e.get("index")) is int and 0 <= e["index"] < rows]
    return {e["index"]: f"HTTP {response.status}: {e.get('message', 'refused')}" for e in rejected} or None
