"""Rows of a data extension: they are queued, and what became of each is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from heap_assets import clock
from heap_assets.activation.connectors.inputs import PeopleConnector, RecordSettings
from heap_assets.activation.connectors.marketing_cloud.tenant import MarketingCloudDestination, ToMarketingCloud
from heap_assets.activation.connectors.preflight import untried
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Exchange, Remember, Request, Wait
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Trouble, Verdict, reason_of
from heap_assets.config import PROPERTIES, Match, MatchSettings
from heap_assets.sources.warehouse import Permission

_CALL_BYTES, _AROUND = 5_800_000, 64
_OVER = frozenset({"Complete", "Error"})
_LONGEST_RESULTS = 64 << 20
_SLOWER, _LONGEST_PAUSE = 1.5, 60.0
_FORBIDDEN, _NOT_FOUND, _BUSY, _NO_EXTENSION = 403, 404, 10006, "DataExtensionNotFound"
_REFUSALS = frozenset({400, _FORBIDDEN, _NOT_FOUND})
_LATER = timedelta(minutes=1)
"""After which a row is sent again that stood in a deadlock."""


class MarketingCloudRowsSync(RecordSettings, MatchSettings, ToMarketingCloud):
    """Rows of a data extension of Marketing Cloud.

    **To create there:** an installed package with a server-to-server API integration, the scope *Data Extensions:
    Write*, and access to the business unit; the data extension with the columns that are mapped, and exactly one
    primary key, the column of `key_column`.

    **What is matched:** the key with the primary key, whatever its case. Marketing Cloud has no call that only updates:
    missing rows are made, so `match: upsert` has to be said.

    **What can be refused:** single rows whose value does not fit its column, that lack a required one, or that name a
    column that does not exist. Times are sent in UTC with their zone, since Marketing Cloud reads those without one as
    Central time. A value that is gone is sent as null; a row that vanished stays there without its values.

    **Never run against Marketing Cloud itself,** and not in its documents: how many rows and bytes it queues at once
    (30,000 and 5.8 MB are assumed); whether the results of many rows come in pages (rows that they do not name are sent
    again); whether null empties a column.
    """

    matches: ClassVar[tuple[Match, ...]] = ("upsert",)
    default_match: ClassVar[Match | None] = None

    kind: Literal["marketing_cloud_rows"] = "marketing_cloud_rows"
    properties: dict[str, str] = PROPERTIES
    data_extension: str = Field(pattern=r"^[^/?#]+$", description="External key of the data extension")
    key_column: str = Field(min_length=1, description="Its primary key, which holds the key")
    batch_rows: int = Field(default=10_000, ge=1, le=30_000, description="Rows that are queued at once")
    poll_seconds: float = Field(default=5.0, gt=0, description="Seconds before the first question; later ones more")


class MarketingCloudRowsConnector(PeopleConnector[MarketingCloudRowsSync]):
    """People or other rows to a data extension."""

    settings_model = MarketingCloudRowsSync
    untried = "the data extension, its columns and its primary key: Marketing Cloud describes them by SOAP only"

    def destination(self, table: str = "") -> MarketingCloudRows:
        return MarketingCloudRows(self.settings)

    def preflight(self) -> Iterator[Permission]:
        """Try the login, and its scope for data extensions by asking for a request that nobody made."""
        unknown = Request("/data/v1/async/heap-assets-sync-check/status", method="GET", reads=_REFUSALS)
        with self.api() as api:
            api.log_in()
            yield Permission("login", True, "the installed package is let in")
            answer = api.call(unknown)
        allowed = answer.status != _FORBIDDEN
        detail = "requests of data extensions can be asked for" if allowed else "the installed package lacks a scope"
        yield Permission("scope", allowed, detail, "Data Extensions: Read, Write")
        yield untried("data extension", self.untried)


class MarketingCloudRows(MarketingCloudDestination):
    """Upserts rows by the primary key."""

    mode = Mode.UPSERT

    def __init__(self, settings: MarketingCloudRowsSync) -> None:
        super().__init__(
            settings,
            batch_rows=settings.batch_rows,
            batch_bytes=_CALL_BYTES - _AROUND,
            row_bytes=_CALL_BYTES - _AROUND,
            forbidden_names=frozenset({settings.key_column.lower()}),
        )
        self._extension, self._key, self._pause = settings.data_extension, settings.key_column, settings.poll_seconds

    @property
    def target(self) -> str:
        return f"{self.account}:{self._extension}:{self._key}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        key = pl.col("key")
        same = key.str.to_lowercase().is_duplicated() & ~key.is_duplicated()
        return {"another key is the same but for upper case": same}

    def trouble(self, response: Response) -> Trouble | None:
        document = response.fields
        if document.get("errorcode") == _BUSY and not document.get("additionalErrors"):
            return Trouble.retry(f"error {_BUSY}")
        if any(one.get("resultCode") == _NO_EXTENSION for one in document.get("resultMessages") or ()):
            return Trouble.stop(f"Marketing Cloud has no data extension with the key {self._extension}")
        return super().trouble(response)

    def element(self, row: Row) -> dict[str, Any]:
        return {self._key: row.key, **row.values}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        address = f"/data/v1/async/dataextensions/key:{self._extension}/rows"
        return Request(address, b'{"items":[' + b",".join(elements) + b"]}", "PUT")

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        answer = yield self.request(elements, rows)
        request = answer.fields.get("requestId")
        if not answer.accepted or not request:
            return Verdict(rest="not_applied", reason=reason_of(answer))
        state = {"request": str(request)}
        yield Remember(state)
        yield Wait(self._pause)
        return (yield from self.resume(state, rows))

    def resume(self, state: Mapping[str, Any], rows: Sequence[Row]) -> Exchange:
        address, pause = f"/data/v1/async/{state['request']}", self._pause
        while True:
            answer = yield Request(f"{address}/status", method="GET", reads=frozenset({_NOT_FOUND}))
            if answer.status == _NOT_FOUND:
                return Verdict(rest="unknown", reason="the request is not kept any more")
            status = answer.fields.get("status") or {}  # an answer without one is given while nothing is known yet
            if status.get("requestStatus") in _OVER:
                break
            yield Wait(pause)
            pause = min(pause * _SLOWER, max(_LONGEST_PAUSE, self._pause))
        if status["requestStatus"] == "Complete" and not status.get("hasErrors"):
            return Verdict()
        answer = yield Request(f"{address}/results", method="GET", longest_answer=_LONGEST_RESULTS)
        items = answer.fields.get("items") or []
        return Verdict(
            {place: _verdict(item) for place, item in enumerate(items[: len(rows)])},
            "applied" if len(items) == len(rows) else "unknown",
            "Marketing Cloud says nothing of this row",
        )


def _verdict(item: Mapping[str, Any]) -> RowVerdict:
    message = str(item.get("message") or "refused")
    if item.get("status") == "OK":
        return RowVerdict("acknowledged")
    if "deadlock" in message.lower():  # its code is that of bad rows
        return RowVerdict("deferred", message, until=clock.now() + _LATER)
    return RowVerdict("rejected", f"{item.get('errorCode')}: {message}")
