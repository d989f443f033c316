"""Conversions by the older Ads endpoints, up to 2,000 a call, of which each row has an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import polars as pl

from heap_assets import clock
from heap_assets.activation.connectors.google.ads import (
    UNTRIED,
    GoogleAdsDestination,
    ToGoogleAds,
    looked_up,
    refused_rows,
)
from heap_assets.activation.connectors.google.conversion_rows import (
    ConversionSettings,
    click_of,
    conversion_faults,
    worth_of,
)
from heap_assets.activation.connectors.google.people import ADS
from heap_assets.activation.connectors.inputs import EventRowConnector
from heap_assets.activation.connectors.preflight import untried
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict, reason_of
from heap_assets.sources.warehouse import Permission

_CONVERSIONS = 2_000
_THERE_ALREADY = frozenset({"CLICK_CONVERSION_ALREADY_EXISTS", "ORDER_ID_ALREADY_IN_USE"})
_TOO_EARLY = frozenset({"TOO_RECENT_EVENT", "TOO_RECENT_CONVERSION_ACTION"})
_LATER = timedelta(hours=6)


class GoogleAdsConversionsSync(ConversionSettings, ToGoogleAds):
    """Rows of a table as conversions of Google Ads, by the Ads API, for accounts that may still use it.

    Google lets in only developer tokens that uploaded conversions between December 2025 and June 2026; others take
    `google_conversions`, which this is like in what is matched: a click, else email and phone; properties besides
    those, `conversion_value` and `currency` are not sent. **To create there:** a developer token, a login that may use
    the account, a conversion action of the type import from clicks.

    **What can be refused:** single rows, by name. A conversion that is there already counts as sent; one whose click is
    less than six hours old is sent again after six hours. **Never run against Google itself.**
    """

    kind: Literal["google_ads_conversions"] = "google_ads_conversions"


class GoogleAdsConversionsConnector(EventRowConnector[GoogleAdsConversionsSync]):
    """Rows to conversions."""

    settings_model = GoogleAdsConversionsSync
    untried = UNTRIED

    def destination(self, table: str = "") -> GoogleAdsConversions:
        return GoogleAdsConversions(self.settings)

    def preflight(self) -> Iterator[Permission]:
        destination = self.destination()
        with self.api() as api:
            yield from looked_up(api, destination, "conversion_action", destination.action)
        yield untried("developer token", self.untried)


class GoogleAdsConversions(GoogleAdsDestination):
    """Sends conversions; one whose order id or click is there is taken as sent."""

    kind = "google_ads_conversions"
    mode = Mode.INSERT
    required = ("event_key", "event", "time")
    key_may_be_null = True

    def __init__(self, settings: GoogleAdsConversionsSync) -> None:
        super().__init__(settings, settings.conversion_action_id, _CONVERSIONS)
        self.recipes = settings.recipes
        self._names, self._currency = tuple(settings.properties), settings.currency
        self.action = f"{self.customer}/conversionActions/{settings.conversion_action_id}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        return conversion_faults(rows, self._names)

    def element(self, row: Row) -> dict[str, Any]:
        at = datetime.fromisoformat(row.extra["time"]).isoformat(" ", "seconds")
        event = {"conversionAction": self.action, "conversionDateTime": at, "orderId": row.key, **click_of(row.values)}
        event |= worth_of(row.values, self._currency, names=("conversionValue", "currencyCode"))
        contact = {name: row.values.get(name) for name in ("email", "phone")}
        if identifiers := ADS.identifiers(contact):
            event["userIdentifiers"] = identifiers
        return {**event, "consent": {"adUserData": "GRANTED"}}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        body = b'{"partialFailure":true,"conversions":[' + b",".join(elements) + b"]}"
        return self.call(f"{self.customer}:uploadClickConversions", body)

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        if not response.accepted:
            return Verdict(rest="not_applied", reason=reason_of(response))
        refused = refused_rows(response, "conversions")
        if refused is None:
            return Verdict(rest="unknown", reason=reason_of(response))
        return Verdict({index: _conversion(code) for index, code in refused.items()})


def _conversion(code: str) -> RowVerdict:
    if code in _THERE_ALREADY:
        return RowVerdict("acknowledged")
    if code in _TOO_EARLY:
        return RowVerdict("deferred", code, until=clock.now() + _LATER)
    return RowVerdict("rejected", code)
