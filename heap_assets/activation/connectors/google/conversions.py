"""Conversions (orders, sign-ups, deals) by the Data Manager API, up to 2,000 a request, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import Field, model_validator

from heap_assets.activation.connectors.google.data_manager import GRANTED, DataManagerDestination, ToDataManager
from heap_assets.activation.connectors.google.people import CLICKS, CONSENT, DATA_MANAGER, NAMES, GooglePeopleSettings
from heap_assets.activation.connectors.inputs import EventRowConnector, EventRowSettings
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.events import event_faults
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.config import PROPERTIES

_EVENTS, _NAME = 2_000, 255
_VALUE, _CURRENCY = "conversion_value", "currency"


class ConversionSettings(EventRowSettings, GooglePeopleSettings):
    """Rows of a table as conversions."""

    event_name: str | None = Field(default="conversion", description="Only for the report: Google knows the action")
    consent: str = CONSENT
    conversion_action_id: str = Field(pattern=r"^[0-9]+$", description="Id of the conversion action")
    currency: str | None = Field(
        default=None, pattern=r"^[A-Z]{3}$", description="Of conversion_value, where no property currency says it"
    )
    properties: dict[str, str] = PROPERTIES

    @model_validator(mode="after")
    def _can_be_matched(self) -> ConversionSettings:
        if not {*CLICKS, "email", "phone"} & set(self.properties):
            raise ValueError(f"properties: Google matches conversions by {', '.join(CLICKS)}, email or phone; map one")
        if _VALUE in self.properties and self.currency is None and _CURRENCY not in self.properties:
            raise ValueError("currency: conversion_value needs one, here or as a property")
        return self


def conversion_faults(rows: pl.LazyFrame, properties: Sequence[str]) -> Mapping[str, pl.Expr]:
    """Return reason to expression that is true for rows that are no conversion."""
    ways = [pl.col(f"v:{name}").is_not_null() for name in (*CLICKS, "email", "phone") if name in properties]
    identifiers_mapped = ", ".join(name for name in (*CLICKS, "email", "phone") if name in properties)
    faults = {**event_faults(rows, _NAME), "it has no time": pl.col("time").is_null()}
    faults[f"it has no {identifiers_mapped} that Google could match"] = ~pl.any_horizontal(ways)
    if _CURRENCY in properties:
        currency = pl.col(f"v:{_CURRENCY}")
        faults["currency is no code of three capitals"] = (~currency.str.contains(r"^[A-Z]{3}$")).fill_null(value=False)
    return faults


def click_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the id of a conversion's click; of several the one that says most."""
    return next(({name: values[name]} for name in CLICKS if values.get(name) is not None), {})


def worth_of(values: Mapping[str, Any], currency: str | None, *, names: tuple[str, str]) -> dict[str, Any]:
    """Return value and currency of a conversion under the names of an API."""
    if values.get(_VALUE) is None:
        return {}
    return {names[0]: float(values[_VALUE]), names[1]: values.get(_CURRENCY) or currency}


class GoogleConversionsSync(ConversionSettings, ToDataManager):
    """Rows of a table as conversions of Google Ads, by the Data Manager API.

    **To create there:** as for `google_audiences`; in Google Ads a conversion action of the type import from clicks.

    **What is matched:** `gclid`, `gbraid` or `wbraid` of the click (the first that a row has), and the hashed
    identifiers `email`, `phone`, `given_name`, `family_name`, `region_code`, `postal_code`. A row without any is not
    sent, nor is one without `consent`. `conversion_value` and `currency` are its worth; other properties
    (`campaign_id`, `campaign_name`, `ad_group`) go as custom variables, of which Google ignores those that it does not
    know. The event's key is the transaction id: a second one is not counted.

    **What can be refused:** as for `google_audiences`: some rows at once and by name, some later and only counted, such
    as clicks that Google does not know or that are too old. **Never run against Google itself.**
    """

    kind: Literal["google_conversions"] = "google_conversions"
    event_source: Literal["WEB", "APP", "IN_STORE", "PHONE", "OTHER"] = Field(
        default="WEB", description="Where conversions happen"
    )


class GoogleConversionsConnector(EventRowConnector[GoogleConversionsSync]):
    """Rows to conversions."""

    settings_model = GoogleConversionsSync

    def destination(self, table: str = "") -> GoogleConversions:
        return GoogleConversions(self.settings)


class GoogleConversions(DataManagerDestination):
    """Sends conversions; one whose transaction id is there is taken as sent."""

    kind = "google_conversions"
    mode = Mode.INSERT
    required = ("event_key", "event", "time")
    key_may_be_null = True
    rows_are = "events"

    def __init__(self, settings: GoogleConversionsSync) -> None:
        super().__init__(settings, settings.conversion_action_id, _EVENTS)
        self.recipes = settings.recipes
        self._names, self._currency, self._source = tuple(settings.properties), settings.currency, settings.event_source

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return conversion_faults(rows, self._names)

    def element(self, row: Row) -> dict[str, Any]:
        event: dict[str, Any] = {"transactionId": row.key, "eventTimestamp": row.extra["time"]}
        event |= {"eventSource": self._source, "consent": GRANTED}
        if click := click_of(row.values):
            event["adIdentifiers"] = click
        if identifiers := DATA_MANAGER.identifiers(row.values):
            event["userData"] = {"userIdentifiers": identifiers}
        event |= worth_of(row.values, self._currency, names=("conversionValue", "currency"))
        own = {*CLICKS, *NAMES, _VALUE, _CURRENCY}
        variables = [{"variable": name, "value": _text(value)} for name, value in row.filled.items() if name not in own]
        return {**event, **({"customVariables": variables} if variables else {})}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self.call("events:ingest", elements)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
