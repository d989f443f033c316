"""Custom events, up to 500 a call; nothing tells which of them HubSpot took."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import Field, field_validator

from heap_assets.activation.connectors.hubspot.account import HubSpotDeletion, HubSpotDestination, ToHubSpot, as_text
from heap_assets.activation.connectors.inputs import EventRowConnector, EventRowSettings
from heap_assets.activation.engine.destination import Dedupe, Row
from heap_assets.activation.engine.events import derived_id, event_faults
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode

_MOST_PROPERTIES = 50
_NAME_UNITS = 255
_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")


class HubSpotEventsSync(EventRowSettings, ToHubSpot):
    """Rows of a warehouse table as custom events of HubSpot, each once.

    **To create there:** a private app with the scopes `analytics.behavioral_events.send` and
    `crm.objects.contacts.write`; the definition of each event with its properties. It needs an Enterprise plan.

    **What is matched:** the key with a contact's e-mail address, record id or tracking cookie, by `identify_by`.

    **What can be refused:** calls with an event or a property that is not defined; the row at fault is found by
    splitting. HubSpot answers without a word about single events: rows are `sent`, and nothing proves more.

    **Never run against HubSpot itself,** and not said in its documents: whether it drops a second event with the same
    `uuid`. Unless `resend_unanswered` says that it does, events whose answer was lost stay `unknown`.
    """

    kind: Literal["hubspot_events"] = "hubspot_events"
    identify_by: Literal["email", "objectId", "utk"] = Field(
        default="email", description="What the key is: e-mail address, record id, or the cookie hubspotutk"
    )
    longest_value: int = Field(default=1024, ge=1, description="Characters that HubSpot takes of a value")
    resend_unanswered: bool = Field(
        default=False, description="Send events again whose answer was lost; they may count twice"
    )
    path: str = Field(default="/events/v3/send/batch", description="Path of the call, for another version of the API")

    @property
    def contact_property(self) -> str:
        """The property of contacts that holds the key."""
        return {"email": "email", "objectId": "hs_object_id", "utk": "hs_analytics_user_token"}[self.identify_by]

    @field_validator("properties")
    @classmethod
    def _can_be_defined(cls, value: dict[str, str]) -> dict[str, str]:
        if wrong := [name for name in value if not _NAME.fullmatch(name)]:
            raise ValueError(f"{wrong[0]!r}: properties of events are named a-z, 0-9 and _, at most 50 characters")
        if len(value) > _MOST_PROPERTIES:
            raise ValueError(f"an event has at most {_MOST_PROPERTIES} properties")
        return value


class HubSpotEventsConnector(EventRowConnector[HubSpotEventsSync]):
    """Rows of a table to custom events."""

    settings_model = HubSpotEventsSync
    untried = "HubSpot has no call that only looks which events are defined, with the scopes that sending needs"
    deletes = HubSpotDeletion

    def destination(self, table: str = "") -> HubSpotEvents:
        return HubSpotEvents(self.settings, self.name)


class HubSpotEvents(HubSpotDestination):
    """Sends custom events. `name`: of the sync, part of each event's id."""

    kind = "hubspot_events"
    mode = Mode.INSERT
    accepted = "sent"
    required = ("event_key", "event")
    optional = ("time",)

    def __init__(self, settings: HubSpotEventsSync, name: str) -> None:
        super().__init__(settings, batch_rows=500, value_units=settings.longest_value)
        self._settings, self._name = settings, name
        self._prefix = f"pe{settings.hub_id}_"
        self.dedupe = Dedupe("natural" if settings.resend_unanswered else "none")

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return event_faults(rows, _NAME_UNITS)

    def element(self, row: Row) -> dict[str, Any]:
        name = str(row.extra["event"])
        event = {
            "eventName": name if name.startswith(self._prefix) else self._prefix + name,
            self._settings.identify_by: row.person,
            "uuid": derived_id(self._name, row.key),
            "properties": {name: as_text(value) for name, value in row.values.items()},
        }
        return event | ({"occurredAt": row.extra["time"]} if row.extra.get("time") else {})

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self.post(self._settings.path, elements)
