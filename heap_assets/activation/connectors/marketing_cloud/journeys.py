"""Events by which contacts enter journeys, up to 100 a call; each enters once more with each event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import orjson
import polars as pl
from pydantic import Field, field_validator

from heap_assets.activation.connectors.inputs import EventRowConnector, EventRowSettings
from heap_assets.activation.connectors.marketing_cloud.tenant import MarketingCloudDestination, ToMarketingCloud
from heap_assets.activation.connectors.preflight import untried
from heap_assets.activation.engine.destination import Dedupe, Row
from heap_assets.activation.engine.events import event_faults
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict, reason_of
from heap_assets.sources.warehouse import Permission

_MEMBERS, _NAME_UNITS = 100, 255


class MarketingCloudJourneysSync(EventRowSettings, ToMarketingCloud):
    """Rows of a warehouse table as entries of contacts into a journey of Marketing Cloud, each once.

    **To create there:** an installed package as for `marketing_cloud_rows`, with the scope *Journeys: Execute*; a
    journey whose entry source is an API event, with the event definition key of `event_name`; in the data extension of
    this event a column for each of `properties`.

    **What is matched:** `key` with the contact key.

    **What can be refused:** single rows with a column that the extension lacks, without one that it requires, or whose
    contact is not active. Marketing Cloud lets a contact enter once more for each event that it gets: a row whose
    answer was lost stays `unknown` and is not sent again by itself (`heap-assets sync retry`). An answer says that the
    contact is queued, so rows count as sent. **Never run against Marketing Cloud itself.**
    """

    kind: Literal["marketing_cloud_journeys"] = "marketing_cloud_journeys"
    event_name: str = Field(description="Event definition key of the journey's API event")
    event_name_column: None = Field(default=None, description="There is none: a sync is of one journey")

    @field_validator("event_name")
    @classmethod
    def _can_be_a_key(cls, value: str) -> str:
        if "." in value:
            raise ValueError("the key of an event definition holds no period")
        return value


class MarketingCloudJourneysConnector(EventRowConnector[MarketingCloudJourneysSync]):
    """Rows of a table to entries into a journey."""

    settings_model = MarketingCloudJourneysSync
    untried = "the event definition and the columns of its data extension: no call that only looks is known of them"

    def destination(self, table: str = "") -> MarketingCloudJourneys:
        return MarketingCloudJourneys(self.settings)

    def preflight(self) -> Iterator[Permission]:
        with self.api() as api:
            api.log_in()
        yield Permission("login", True, "the installed package is let in")
        yield untried("journey", self.untried)


class MarketingCloudJourneys(MarketingCloudDestination):
    """Lets contacts enter a journey."""

    mode = Mode.INSERT
    accepted = "sent"
    dedupe = Dedupe("none")
    required = ("event_key", "event")

    def __init__(self, settings: MarketingCloudJourneysSync) -> None:
        super().__init__(settings, batch_rows=_MEMBERS)
        self._event = settings.event_name
        self._head = b'{"eventDefinitionKey":' + orjson.dumps(self._event) + b',"members":['

    @property
    def target(self) -> str:
        return f"{self.account}:{self._event}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return event_faults(rows, _NAME_UNITS)

    def element(self, row: Row) -> dict[str, Any]:
        return {"contactKey": row.person, "data": row.filled}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return Request("/interaction/v1/async/events", self._head + b",".join(elements) + b"]}")

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        if not response.accepted:
            return Verdict(rest="not_applied", reason=reason_of(response))
        members = response.fields.get("members") or []
        if len(members) == len(rows):
            refused = {i: RowVerdict("rejected", _text(one)) for i, one in enumerate(members) if one.get("errors")}
            return Verdict(refused)
        if not response.fields.get("notQueuedCount"):
            return Verdict()
        return Verdict(rest="unknown", reason=f"Marketing Cloud says something of {len(members)} of {len(rows)} rows")


def _text(member: Mapping[str, Any]) -> str:
    return "; ".join(one if isinstance(one, str) else orjson.dumps(one).decode() for one in member["errors"])
