"""Conversions (orders, sign-ups, deals) by the Data Manager API, up to 2,000 a request, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import orjson
import polars as pl
from pydantic import Field

from heap_assets import clock
from heap_assets.activation.connectors.google.conversion_rows import (
    CURRENCY,
    VALUE,
    ConversionSettings,
    click_of,
    conversion_faults,
    worth_of,
)
from heap_assets.activation.connectors.google.data_manager import (
    EXAMPLE_DIGEST,
    GRANTED,
    UNTRIED,
    DataManagerDestination,
    ToDataManager,
    previewed,
)
from heap_assets.activation.connectors.google.people import CLICKS, DATA_MANAGER, NAMES
from heap_assets.activation.connectors.inputs import EventRowConnector
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.sources.warehouse import Permission

_EVENTS = 2_000


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

    ```yaml
    kind: google_conversions
    source: orders
    account_id: 123-456-7890
    service_account: ${GOOGLE_SERVICE_ACCOUNT}
    conversion_action_id: "7000000001"
    timestamp_column: ordered_at
    currency: EUR
    consent: ads_consent
    properties: {gclid: gclid, conversion_value: total, campaign_id: campaign_id, ad_group: ad_group}
    ```
    """

    kind: Literal["google_conversions"] = "google_conversions"
    event_source: Literal["WEB", "APP", "IN_STORE", "PHONE", "OTHER"] = Field(
        default="WEB", description="Where conversions happen"
    )


class GoogleConversionsConnector(EventRowConnector[GoogleConversionsSync]):
    """Rows to conversions."""

    settings_model = GoogleConversionsSync
    untried = UNTRIED

    def destination(self, table: str = "") -> GoogleConversions:
        return GoogleConversions(self.settings)

    def preflight(self) -> Iterator[Permission]:
        with self.api() as api:
            yield from previewed(api, self.destination().preview())


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
        own = {*CLICKS, *NAMES, VALUE, CURRENCY}
        variables = [{"variable": name, "value": _text(value)} for name, value in row.filled.items() if name not in own]
        return {**event, **({"customVariables": variables} if variables else {})}

    def preview(self) -> Request:
        """Return a call that Google only checks, of nobody."""
        row = Row("sync-check", "", {"email": EXAMPLE_DIGEST}, {"time": clock.now().isoformat()})
        return self.call("events:ingest", [orjson.dumps(self.element(row))], validateOnly=True)

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self.call("events:ingest", elements)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
