"""Base of the connectors that write to Heap's server-side API (heap.md 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from heap_assets.activation.engine.destination import BaseDestination, Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.limits import Limits, Rate
from heap_assets.activation.engine.verdict import Response, row_errors
from heap_assets.config import HeapSettings, SyncSettings
from heap_assets.errors import SettingsError

HOSTS: Mapping[str, str] = {"us": "https://heapanalytics.com", "eu": "https://c.eu.heap-api.com"}
"""heap.md 1.1."""
IDENTITY_UNITS, NAME_UNITS, VALUE_UNITS, EVENT_UNITS = 255, 512, 1023, 1024
"""heap.md 1.9, counted in UTF-16 code units."""
JUNK_IDENTITIES = frozenset({"undefined", "null", "none", "nan", "user", "guest", "anonymous", "0"})
"""Identities never to send (heap.md 1.9, 4)."""
SINGLE = Rate(30, 30, per_key=True, per_call=True)
"""30 requests per 30 seconds per identity and app (heap.md 1.4)."""
BULK_ROWS = 1000
_TEXT = {True: "true", False: "false"}


@dataclass(frozen=True)
class HeapApp:
    """One Heap environment."""

    app_id: str
    """Environment ID, digits."""
    region: Literal["us", "eu"] = "us"
    """`us` or `eu`."""
    base_url: str | None = None
    """Stands in for the region's host."""

    def __post_init__(self) -> None:
        if not (self.app_id.isascii() and self.app_id.isdigit()):
            raise SettingsError(
                "heap.app_id must be the environment ID, digits only (Heap: Account > Manage > Projects)"
            )
        if self.region not in HOSTS:
            raise SettingsError(f"heap.region is {self.region!r}; it must be us or eu")

    @classmethod
    def of(cls, heap: HeapSettings) -> Self:
        """Return the environment that the settings name."""
        return cls(heap.app_id, heap.region.value, heap.base_url)

    @property
    def url(self) -> str:
        return (self.base_url or HOSTS[self.region]).rstrip("/")


def call_limits(
    batch_rows: int,
    forbidden: Iterable[str],
    *,
    bulk: bool = True,
    rates: tuple[Rate, ...] = (),
    key_units: int = IDENTITY_UNITS,
) -> Limits:
    """Return the limits of a call that takes a list, or (not `bulk`) of one that takes a single element."""
    return Limits(
        batch_rows=min(batch_rows, BULK_ROWS) if bulk else 1,
        key_units=key_units,
        name_units=NAME_UNITS,
        value_units=VALUE_UNITS,
        rates=rates if bulk else (SINGLE,),
        junk_keys=JUNK_IDENTITIES,
        forbidden_names=frozenset(forbidden),
    )


class ToHeap(SyncSettings):
    """Settings of a sync that calls Heap."""

    in_every_plan: ClassVar[bool] = True

    def called_url(self, heap: HeapSettings) -> str:
        """Return the URL that is called."""
        return heap.base_url or HOSTS[heap.region.value]


class HeapDestination(BaseDestination):
    """Base of the destinations at Heap."""

    path: str

    def __init__(self, app: HeapApp, *, cleared: str = "(none)") -> None:
        self.app = app
        self.cleared = cleared

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.app.url}:{self.app.app_id}"

    def properties(self, row: Row) -> dict[str, Any]:
        """Return properties as Heap takes them: text and numbers (heap.md 1.2)."""
        cleared = self.cleared
        return {
            name: cleared if value is None else _TEXT[value] if value is True or value is False else value
            for name, value in row.values.items()
        }

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        return row_errors(response, len(rows))

    def _post(self, list_name: str | None, elements: Sequence[bytes]) -> Request:
        """Build a bulk call, or a single one from the fields of its only element."""
        app_id = f'{{"app_id":"{self.app.app_id}",'.encode()
        if list_name is None:
            return Request(self.app.url + self.path, app_id + elements[0][1:])
        return Request(self.app.url + self.path, app_id + f'"{list_name}":['.encode() + b",".join(elements) + b"]}")
